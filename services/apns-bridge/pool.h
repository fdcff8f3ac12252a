/*
 * The connections to one host with one key or certificate: opens them when there is something to send, as many as the load needs, and
 * seldom enough for Apple. What it takes it answers exactly once.
 */
#ifndef APNS_POOL_H
#define APNS_POOL_H

#include "base/buf.h"
#include "request.h"
#include "token.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

#define POOL_CONNS_MAX 16 /* of the setting max_conns */

struct pool;

struct pool_spec {
	struct im_loop *loop;
	SSL_CTX *tls;         /* shared */
	char host[256];
	unsigned port;
	unsigned max_conns;
	struct token *token;  /* NULL: the certificate in `tls` speaks for us. Must outlive the pool */
	char key[80];         /* for logs and metrics: the key's id or the certificate's hash */
	push_result_fn *result; /* told by pool_turn only */
	void (*dirty)(void *arg); /* pool_turn has something to do */
	void *arg;
};

struct pool *pool_create(const struct pool_spec *spec); /* NULL: out of memory */
void pool_destroy(struct pool *p);                      /* tells nothing more; NULL is fine */

size_t pool_room(struct pool *p);
void pool_send(struct pool *p, struct request *r);      /* the request is the pool's from here on */
void pool_turn(struct pool *p);                         /* once a turn of the loop, if dirty */

/* Takes nothing more. What waits ends as unsent, what is under way has the drain's time to end by itself, then it is unknown. */
void pool_drain(struct pool *p);
bool pool_is_empty(const struct pool *p);               /* nothing waits, nothing is under way */
void pool_set_max_conns(struct pool *p, unsigned n);

/* What the gauges are made of. */
struct pool_figures {
	unsigned conns, streams, limit, waiting;
	uint64_t connects, failures, unknown_codes;
	int64_t rtt_us;
};
void pool_figures(const struct pool *p, struct pool_figures *out);
const struct pool_spec *pool_spec(const struct pool *p);

#define POOL_GOAWAYS 8 /* different reasons that are counted apart; Apple names two or three */
struct pool_goaway {
	const char *reason;
	uint64_t n;
};
const struct pool_goaway *pool_goaways(const struct pool *p, size_t *n);

#endif
