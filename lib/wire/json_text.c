/*
 * JSON as the client wrote it. A body and `ext` are kept as text, not as what a parser would print again, since
 * numbers would not survive that (1.10, 1e2). The difficult idea: jansson keeps an object's members in the order of
 * the text, so the text of the n-th member is found by counting values, and it is copied without the white space
 * between tokens: stored JSON is valid and on one line, and codecs insert it as it is.
 */
#include "wire/draft.h"

#include <jansson.h>
#include <string.h>

#define DEPTH_MAX 16                   /* far more than a message needs, far less than any parser's stack */
#define VALUES_MAX 16384               /* a parser takes 50 ns and more for each, and the broker's only thread waits */

/* Behind the string literal that begins at text[at]. */
static size_t skip_string(const char *text, size_t len, size_t at)
{
	for (at++; at < len && text[at] != '"'; at++)
		if (text[at] == '\\')
			at++;
	return at < len ? at + 1 : len;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* What is wrong with the shape of the text, whatever it says. NULL: nothing. */
static const char *too_much(const char *text, size_t len)
{
	size_t depth = 0, values = 1;

	for (size_t i = 0; i < len;) {
		if (text[i] == '"') {
			i = skip_string(text, len, i);
			continue;
		}
		if (text[i] == '{' || text[i] == '[') {
			if (++depth > DEPTH_MAX)
				return "The JSON is nested deeper than 16 levels.";
			values++;
		} else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
			depth--;
		} else if (text[i] == ',') {
			values++;
		}
		if (values > VALUES_MAX)
			return "The JSON has more than 16384 values.";
		i++;
	}
	return NULL;
}

/* NULL: refused in `why`. */
json_t *json_text_parse(const char *text, size_t len, struct im_refusal *why)
{
	const char *shape = too_much(text, len);
	json_error_t error;
	json_t *root;

	if (len > 0 && memchr(text, '\0', len)) { /* jansson swallows one behind a number */
		im_refuse(why, IM_REFUSE_BAD_JSON, "There is a NUL byte in the JSON; inside a string write it as \\u0000.");
		return NULL;
	}
	if (shape) {
		im_refuse(why, IM_REFUSE_BAD_JSON, "%s", shape);
		return NULL;
	}
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
	if (!root)
		im_refuse(why, IM_REFUSE_BAD_JSON, "Not valid JSON: %s (line %d, column %d).", error.text, error.line, error.column);
	return root;
}

/* Where the value that begins at or after `at` ends: at a comma or closing bracket of its own level. Valid JSON only. */
static size_t skip_value(const char *text, size_t len, size_t at)
{
	size_t depth = 0;

	while (at < len) {
		char c = text[at];

		if (c == '"') {
			at = skip_string(text, len, at);
			continue;
		}
		if (depth == 0 && (c == ',' || c == '}' || c == ']'))
			break;
		if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
			depth--;
		at++;
	}
	return at;
}

/* Copies JSON without the white space between its tokens. NULL: out of memory. */
char *json_text_compact(struct im_arena *a, const char *text, size_t len, size_t *out_len)
{
	char *out = im_arena_strndup(a, text, len);
	size_t n = 0, end;

	if (!out)
		return NULL;
	for (size_t i = 0; i < len;) {
		if (text[i] == '"') {
			end = skip_string(text, len, i);
			memcpy(out + n, text + i, end - i);
			n += end - i;
			i = end;
		} else {
			if (!is_space(text[i]))
				out[n++] = text[i];
			i++;
		}
	}
	out[n] = '\0';
	*out_len = n;
	return out;
}

/* The text of the member `key` of the object that `text` holds; root is what was parsed from it. */
char *json_text_member(struct im_arena *a, const char *text, size_t len, json_t *root, const char *key, size_t *out_len)
{
	size_t index = 0, at = 0, start, end;
	const char *name;
	json_t *value;

	json_object_foreach(root, name, value) {
		if (strcmp(name, key) == 0)
			break;
		index++;
	}
	while (text[at] != '{')
		at++;
	for (;; index--) {
		at++;
		while (text[at] != '"')
			at++;
		at = skip_string(text, len, at);
		while (text[at] != ':')
			at++;
		start = at + 1;
		end = skip_value(text, len, start);
		if (index == 0)
			return json_text_compact(a, text + start, end - start, out_len);
		at = end;
	}
}
