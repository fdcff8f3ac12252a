/*
 * Requests over HTTPS on our loop: libcurl behind one doorway. Connections are kept and shared, HTTP/2 is used where the peer
 * offers it; redirects are never followed, certificates and host names always checked. One thread.
 */
#ifndef IM_IO_HTTP_H
#define IM_IO_HTTP_H

#include "base/status.h"
#include "io/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr;
struct im_http;

struct im_http_options {
	const char *ca_file;         /* PEM; NULL: the system's */
	unsigned host_connections;   /* to one host at a time; 0 = 8. With HTTP/2 one carries many requests */
	unsigned connect_ms;         /* resolving, connecting and TLS; 0 = 5000 */
	unsigned total_ms;           /* 0 = 15000 */
	size_t answer_max;           /* bytes of a body that are kept; more ends the request. 0 = 64 KiB */
	bool plain_loopback;         /* http:// is allowed to addresses of this host (tests) */
	/* Says whether this address may be talked to; asked for every connection, with what the name resolved to just now. NULL: any. */
	bool (*address_allowed)(const struct sockaddr *a);
};

enum im_http_error {
	IM_HTTP_OK,          /* an answer came, whatever its status */
	IM_HTTP_UNREACHABLE, /* no connection: surely not sent */
	IM_HTTP_UNTRUSTED,   /* the certificate, its name or the TLS version is not right: surely not sent */
	IM_HTTP_FORBIDDEN,   /* address_allowed said no, or not https: surely not sent */
	IM_HTTP_TIMEOUT,     /* sent, perhaps worked off */
	IM_HTTP_BROKEN,      /* reset, half an answer, one too large: perhaps worked off */
};

struct im_http_answer {
	enum im_http_error error;
	const char *why;             /* for people, if error */
	int status;
	const char *body;            /* with a NUL behind it */
	size_t len;
	void *easy;                  /* for im_http_header */
};

/* Borrowed until the callback returns. NULL: the answer has none. `name` in any case; of several the first. */
const char *im_http_header(const struct im_http_answer *a, const char *name);

/* From the loop, once, never inside im_http_send; not after im_http_destroy. */
typedef void im_http_fn(void *arg, const struct im_http_answer *answer);

enum im_status im_http_create(struct im_loop *l, const struct im_http_options *options, struct im_http **out, struct im_err *err);
void im_http_destroy(struct im_http *h); /* not inside its callbacks; NULL is fine */
size_t im_http_under_way(const struct im_http *h);

/*
 * POST. `headers`: "Name: value" lines, NULL at the end; values must not hold line ends (the caller's to check). Everything is
 * copied. IM_FAILED: out of memory, or a URL that cannot be one; the callback will not be called.
 */
enum im_status im_http_post(struct im_http *h, const char *url, const char *const *headers, const void *body, size_t len,
			    im_http_fn *done, void *arg);

/* Loopback, private, link-local, multicast, documentation, mapped and other addresses that are no public host (RFC 6890). */
bool im_http_is_public(const struct sockaddr *a);

#endif
