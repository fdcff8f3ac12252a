/*
 * Whether everybody reads a request's head alike. What a proxy before us takes for one request and we for two is the proxy's user
 * speaking for somebody else (request smuggling, RFC 9112, 11.2), and libmicrohttpd lets pass what can be read in two ways: a length
 * given twice or two kinds of it, names that end in a blank, two Authorizations of which it takes the first.
 */
#ifndef API_HEAD_H
#define API_HEAD_H

#include <stddef.h>

struct head {
	unsigned seen;       /* of the headers that are there once */
	const char *problem; /* the first one */
};

void head_take(struct head *h, const char *name, size_t name_len, const char *value, size_t len);
/* After the last header. NULL: there is one way to read it. version: "HTTP/1.1". */
const char *head_problem(const struct head *h, const char *version);

#endif
