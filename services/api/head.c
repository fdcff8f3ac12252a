#include "head.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

enum { HOST, LENGTH, CODING, AUTHORIZATION, CLIENT_ID, ONCE };

static const char *const once[ONCE] = {
	[HOST] = "Host", [LENGTH] = "Content-Length", [CODING] = "Transfer-Encoding", [AUTHORIZATION] = "Authorization", [CLIENT_ID] = "Im-Client-Id",
};

static bool is(const char *text, size_t len, const char *word)
{
	return len == strlen(word) && strncasecmp(text, word, len) == 0;
}

/* RFC 9110, 5.6.2. */
static bool is_token(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", text[i]))
			return false;
	return len > 0;
}

/* RFC 9110, 5.5. Bytes from 128 upwards are text of some kind. */
static bool is_value(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((unsigned char)text[i] < ' ' && text[i] != '\t') || text[i] == 0x7f)
			return false;
	return true;
}

static bool has(const struct head *h, unsigned which)
{
	return h->seen & 1u << which;
}

/* The library takes a line that begins with a blank (obsolete folding) for more of the name before it. */
static bool is_folded(const char *name, size_t len)
{
	for (unsigned which = LENGTH; which < ONCE; which++) {
		size_t whole = strlen(once[which]);

		if (len > whole && strncasecmp(name, once[which], whole) == 0)
			return true;
	}
	return false;
}

static const char *problem_of(struct head *h, const char *name, size_t name_len, const char *value, size_t len)
{
	unsigned which = 0;

	if (!is_token(name, name_len))
		return "the name of a header is none";
	if (is_folded(name, name_len))
		return "a header goes on in a second line";
	if (!is_value(value, len))
		return "a header has control characters";
	while (which < ONCE && !is(name, name_len, once[which]))
		which++;
	if (which == ONCE)
		return NULL;
	if (has(h, which))
		return "one of Host, Content-Length, Transfer-Encoding, Authorization, Im-Client-Id is there twice";
	h->seen |= 1u << which;
	if (which == CODING && !is(value, len, "chunked"))
		return "the Transfer-Encoding is not chunked";
	return NULL;
}

void head_take(struct head *h, const char *name, size_t name_len, const char *value, size_t len)
{
	const char *problem = problem_of(h, name, name_len, value, len);

	if (!h->problem)
		h->problem = problem;
}

const char *head_problem(const struct head *h, const char *version)
{
	bool old = strcmp(version, "HTTP/1.0") == 0;

	if (h->problem)
		return h->problem;
	if (has(h, CODING) && (old || has(h, LENGTH)))
		return "a Transfer-Encoding beside a Content-Length, or in HTTP/1.0";
	if (!old && !has(h, HOST))
		return "no Host";
	return NULL;
}
