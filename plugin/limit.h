/*
 * How often something may happen. A bucket is one number, the time at which it would be full again (GCRA),
 * so that a million of them need no upkeep. Times are monotonic microseconds.
 */
#ifndef PLUGIN_LIMIT_H
#define PLUGIN_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

struct limit_bucket {
	int64_t full_us;         /* 0 = full now */
};

/* Takes one, if there is one. interval_us: between two in the long run, 0 = no limit; burst: at once after a rest. */
bool limit_take(struct limit_bucket *b, int64_t interval_us, unsigned burst, int64_t now_us);
/* The same for a rate per second, with a second's worth at once. 0 = no limit. */
bool limit_take_rate(struct limit_bucket *b, unsigned rate, int64_t now_us);

/* Whether `n` or more of it are missing. */
bool limit_used(const struct limit_bucket *b, int64_t interval_us, unsigned n, int64_t now_us);

struct limit_user;

/* Of one connection. */
struct limit {
	struct limit_bucket sends, refusals;
	struct limit_user *user; /* what all connections of the user share */
};

struct limits;
struct limits *limits_create(void); /* NULL: out of memory */
void limits_destroy(struct limits *l);
struct limit *limit_open(struct limits *l, const char *user); /* NULL: out of memory */
void limit_close(struct limit *limit);                        /* NULL is fine */
/* One message more, of this connection and this user. */
bool limit_send(struct limit *limit, unsigned rate_connection, unsigned rate_user, int64_t now_us);
/* One refusal more. false: too many, end the connection. */
bool limit_refusal(struct limit *limit, unsigned rate, int64_t now_us);
/* Forgets users who are gone and whose bucket is full again: not earlier, or reconnecting would refill it. */
void limits_sweep(struct limits *l, int64_t now_us);

#endif
