/*
 * One TLS connection to a provider: name, TCP, handshake, bytes; nothing of it blocks. At least TLS 1.2, the certificate and the host's
 * name are always verified, and a peer that does not speak HTTP/2 (ALPN h2) is refused.
 */
#ifndef APNS_TLS_H
#define APNS_TLS_H

#include "io/loop.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define TLS_WHY_SIZE 160

/* Why it ended. */
enum tls_end {
	TLS_OPEN,    /* it has not */
	TLS_NETWORK, /* reset, closed, no route: later again */
	TLS_REFUSED, /* certificate, name, protocol: somebody has to look at the configuration */
};

struct tls;

struct tls_events {
	void (*up)(void *arg);    /* handshake done */
	void (*ready)(void *arg); /* may be readable, writable or at its end: try */
};

/* A context for clients. ca_file NULL: the system's authorities. IM_BAD_INPUT: the file has none. */
enum im_status tls_context(const char *ca_file, SSL_CTX **out, struct im_err *err);

/* NULL: out of memory. Tells events from the loop, never inside a call. `ctx` is shared, host copied. */
struct tls *tls_open(struct im_loop *loop, SSL_CTX *ctx, const char *host, unsigned port, int64_t address_ms,
		     const struct tls_events *events, void *arg);
void tls_close(struct tls *t); /* says goodbye if it can at once; NULL is fine */

ssize_t tls_read(struct tls *t, void *buf, size_t len);        /* 0: nothing now; -1: ended */
ssize_t tls_write(struct tls *t, const void *buf, size_t len); /* 0: not now; -1: broken, what came before can be read */
void tls_want_write(struct tls *t, bool want);                 /* `ready` also when it can be written to */
enum tls_end tls_ended(const struct tls *t, const char **why); /* why: for people; lives as long as t */

#endif
