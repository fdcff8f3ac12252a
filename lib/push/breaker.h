/*
 * May this app be sent to at all? One breaker per app and environment; pure, `now` is the caller's monotonic clock. Whatever opened
 * it - trouble, a rate, a quota, our own configuration -, it stays open until a moment, then lets one probe through, and that one's
 * answer closes it or opens it again. What a token is answered never counts against the provider.
 */
#ifndef IM_PUSH_BREAKER_H
#define IM_PUSH_BREAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PUSH_BREAKER_IN_ROW 5u      /* failures that open it */
#define PUSH_BREAKER_WINDOW_S 30u   /* or half of at least PUSH_BREAKER_LEAST in this time */
#define PUSH_BREAKER_LEAST 20u
#define PUSH_BREAKER_FIRST_MS 5000  /* open for so long, doubling ... */
#define PUSH_BREAKER_MOST_MS 300000 /* ... up to this */
#define PUSH_CONFIG_PROBE_MS 600000 /* a wrong key does not mend itself, but the provider's side may */

enum push_breaker_kind { PUSH_BREAKER_CLOSED, PUSH_BREAKER_TROUBLE, PUSH_BREAKER_RATE, PUSH_BREAKER_QUOTA, PUSH_BREAKER_CONFIG };

struct push_breaker {
	enum push_breaker_kind kind;   /* why it is open, or half-open */
	int64_t until_ms;              /* then a probe */
	int64_t open_ms;               /* of the last opening by trouble; 0: none since it was closed */
	bool probing;                  /* one is out */
	unsigned in_row;
	int64_t reloaded_ms;           /* what was sent before says nothing of the files that are in force now */
	int64_t second;                /* of the newest bucket */
	uint16_t good[PUSH_BREAKER_WINDOW_S], bad[PUSH_BREAKER_WINDOW_S];
};

/* How many may go now: SIZE_MAX when closed. */
size_t push_breaker_room(const struct push_breaker *b, int64_t now_ms);
void push_breaker_sent(struct push_breaker *b); /* something goes: in a half-open one it is the probe */
void push_breaker_good(struct push_breaker *b, int64_t now_ms); /* an answer that is no failure of the provider's */
void push_breaker_bad(struct push_breaker *b, int64_t now_ms);
void push_breaker_undecided(struct push_breaker *b); /* it was not sent after all: another probe may */
/* Open for a reason the provider gave. */
void push_breaker_open(struct push_breaker *b, enum push_breaker_kind kind, int64_t until_ms);
/* Our configuration was refused, with what was sent then. */
void push_breaker_config(struct push_breaker *b, int64_t sent_ms, int64_t now_ms);
/* New files were read: what waited for them is probed now. */
void push_breaker_reload(struct push_breaker *b, int64_t now_ms);
const char *push_breaker_name(enum push_breaker_kind kind);

/*
 * At most a fifth of a minute's sends are retries that came to nothing: an outage must not double the load of what it has left. One that
 * succeeds is given back, or what an outage left behind would come at 20 a minute when there is little that is new.
 */
#define PUSH_BUDGET_BUCKETS 6u
#define PUSH_BUDGET_FREE 20u /* retries a minute that are always allowed: a quiet app has no sends to be a fifth of */

struct push_budget {
	int64_t tick;                /* 10 s each */
	uint32_t sends[PUSH_BUDGET_BUCKETS], retries[PUSH_BUDGET_BUCKETS];
};
bool push_budget_allows(const struct push_budget *b, int64_t now_ms);
void push_budget_count(struct push_budget *b, int64_t now_ms, bool retry);
void push_budget_good(struct push_budget *b); /* a retry was answered well */

#endif
