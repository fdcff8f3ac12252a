/*
 * One HTTP/2 connection to Apple. It takes requests while it has streams for them and tells each one's end exactly once: with the
 * answer, or whether it can have been processed. The pool (pool.h) decides how many connections there are.
 */
#ifndef APNS_CONN_H
#define APNS_CONN_H

#include "request.h"
#include "tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONN_STREAMS_MAX 1000 /* at once: Apple's own limit, and 5 MB of ours if all answers were as long as they may be */

enum conn_state {
	CONN_OPENING,  /* until the peer's SETTINGS are there */
	CONN_OPEN,
	CONN_DRAINING, /* takes nothing more; what is under way goes on */
	CONN_ENDED,
};

enum conn_end {
	CONN_DONE,    /* drained: nothing wrong */
	CONN_LOST,    /* the network, or a peer that does not answer */
	CONN_REFUSED, /* TLS or HTTP/2 as such: for people */
};

/* Neither is told inside a call of ours but conn_turn. */
struct conn_events {
	void (*done)(void *arg, struct request *r); /* r->status and its answer, or r->result.class and reason; belongs to the pool again */
	void (*dirty)(void *arg);                   /* conn_turn has something to do */
	void (*goaway)(void *arg, const char *reason, int32_t last, unsigned in_flight);
};

struct conn;

/* `authority`: host, with the port if it is not 443; lives as long as the connection. NULL: out of memory. */
struct conn *conn_open(struct im_loop *loop, SSL_CTX *tls, const char *host, unsigned port, const char *authority,
		       const struct conn_events *events, void *arg);
/* What is under way ends as unknown or unsent, by events->done. NULL is fine. */
void conn_close(struct conn *c, const char *why);

/* Writes what has gathered. Once a turn of the loop, if dirty. */
void conn_turn(struct conn *c);

enum conn_state conn_state(const struct conn *c);
enum conn_end conn_ended(const struct conn *c, const char **why); /* of CONN_ENDED */
bool conn_answered(const struct conn *c);   /* at least one request got an answer: the peer works */
bool conn_primed(const struct conn *c);     /* and a provider token was taken: the peer's limit counts */
unsigned conn_limit(const struct conn *c);  /* streams at once, now */
unsigned conn_in_flight(const struct conn *c);
int64_t conn_rtt_us(const struct conn *c);  /* of the last PING; 0: none yet */

/* Only if in flight < limit and CONN_OPEN. `bearer` NULL: the certificate speaks for us. The request is the connection's until done. */
void conn_send(struct conn *c, struct request *r, const char *bearer);
/* The peer took the provider token: from now on its own limit of streams counts. */
void conn_prime(struct conn *c);
void conn_drain(struct conn *c); /* CONN_DRAINING, and CONN_ENDED when nothing is under way */

#endif
