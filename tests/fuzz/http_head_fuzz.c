/*
 * The headers of a request, one a line, "name:value" with a 0 byte for what the library has cut off; first the version, 0 or 1. What is let through
 * is read by a second reader, which joins nothing and takes the last of each: it must find the same, and one length at most.
 */
#include "fuzz.h"

#include "api/head.h"
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define LINES 64

struct line {
	const char *name, *value;
	size_t name_len, len;
};

static unsigned times(const struct line *lines, unsigned n, const char *name)
{
	unsigned found = 0;

	for (unsigned i = 0; i < n; i++)
		found += lines[i].name_len == strlen(name) && strncasecmp(lines[i].name, name, strlen(name)) == 0;
	return found;
}

static const struct line *last(const struct line *lines, unsigned n, const char *begins)
{
	while (n-- > 0)
		if (lines[n].name_len >= strlen(begins) && strncasecmp(lines[n].name, begins, strlen(begins)) == 0)
			return &lines[n];
	return NULL;
}

static void check(const struct line *lines, unsigned n, bool old)
{
	static const char *const counts[] = {"host", "content-length", "transfer-encoding", "authorization", "im-client-id"};
	const struct line *coding = last(lines, n, "transfer-encoding");

	for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		must(times(lines, n, counts[i]) <= 1);
	must(old || times(lines, n, "host") == 1);
	must(!last(lines, n, "content-length") || last(lines, n, "content-length")->name_len == strlen("content-length"));
	if (coding) {
		must(!old && coding->name_len == strlen("transfer-encoding") && coding->len == 7 && strncasecmp(coding->value, "chunked", 7) == 0);
		must(!last(lines, n, "content-length"));
	}
	for (unsigned i = 0; i < n; i++) {
		must(lines[i].name_len > 0 && !memchr(lines[i].name, ' ', lines[i].name_len) && !memchr(lines[i].name, '\0', lines[i].name_len));
		must(!memchr(lines[i].value, '\r', lines[i].len) && !memchr(lines[i].value, '\0', lines[i].len));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct line lines[LINES];
	struct head head = {0};
	unsigned n = 0;
	bool old = size > 0 && data[0] == '0';
	const char *at = (const char *)data + (size > 0), *end = (const char *)data + size;

	while (at < end && n < LINES) {
		const char *stop = memchr(at, '\n', (size_t)(end - at)), *colon;
		struct line *l = &lines[n++];

		stop = stop ? stop : end;
		colon = memchr(at, ':', (size_t)(stop - at));
		colon = colon ? colon : stop;
		*l = (struct line){.name = at, .name_len = (size_t)(colon - at), .value = colon + (colon < stop)};
		l->len = (size_t)(stop - l->value);
		head_take(&head, l->name, l->name_len, l->value, l->len);
		at = stop + (stop < end);
	}
	if (!head_problem(&head, old ? "HTTP/1.0" : "HTTP/1.1"))
		check(lines, n, old);
	return 0;
}
