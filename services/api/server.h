/*
 * HTTP/1.1 on our loop: libmicrohttpd behind one doorway. A request is handed over when its body is complete, and answered once,
 * now or later. Connections, bodies and times are limited here; what a request means is the caller's.
 */
#ifndef API_SERVER_H
#define API_SERVER_H

#include "base/status.h"
#include "io/loop.h"

#include <stdbool.h>
#include <stddef.h>

#define SERVER_CONNECTIONS 1024u  /* more are closed when they come */
#define SERVER_PER_ADDRESS 64u    /* of them from one address, unless we listen for a proxy on this host */
#define SERVER_MEMORY 16384u      /* bytes of a connection: its headers, and what is read at once */
#define SERVER_IDLE_S 15u         /* without a byte in either direction */
#define SERVER_EXCHANGE_S 45u     /* for a request and its answer, however slowly they move */
#define SERVER_BODY_MAX 65536u    /* bytes */

struct server;
struct exchange; /* a request and its answer */

struct server_options {
	const char *listen;          /* im_listen_parse */
	const char *cert, *key;      /* files in PEM; "": no TLS */
};

typedef void server_fn(void *arg, struct exchange *e);

/* IM_BAD_INPUT: the certificate or its key. IM_FAILED: the address is taken or not ours; memory. */
enum im_status server_create(struct im_loop *loop, const struct server_options *options, server_fn *fn, void *arg, struct server **out,
			     struct im_err *err);
/* Ends all connections; exchanges that wait must have been answered. NULL is fine. */
void server_destroy(struct server *s);

/* ---- of a request; borrowed until it is answered */

const char *exchange_verb(const struct exchange *e);    /* "POST" */
const char *exchange_path(const struct exchange *e);    /* "/v1/req/me", without a query */
const char *exchange_address(const struct exchange *e); /* the peer's, as text */
const char *exchange_header(const struct exchange *e, const char *name); /* NULL: not given */
/* RFC 7617. Both are the caller's (exchange_wipe). false: no Authorization of that kind. */
bool exchange_basic(const struct exchange *e, char **user, char **password);
void exchange_wipe(char *secret); /* wipes and frees; NULL is fine */
const void *exchange_body(const struct exchange *e, size_t *len);

/* JSON is copied. The exchange must not be used afterwards. */
void exchange_answer(struct exchange *e, unsigned status, const void *json, size_t len);

#endif
