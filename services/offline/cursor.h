/*
 * How far one device is in one conversation: pure arithmetic with the time given, no I/O.
 *
 *    1 ........ delivered ........ last .... handed ........ newest
 *    settled or acked | handed, owed | passed over | not handed yet
 *
 * `delivered` is what survives; the rest is of this connection only and starts again from it (invariant 6).
 * A silent device's `delivered` passes a message one settle period after its hand-over, an acking one's by
 * its acks only. Two slots are enough to know when: the older one falls due first and takes along all
 * below it, the newer one moves up. A message handed later than the newer slot only makes it later.
 */
#ifndef OFFLINE_CURSOR_H
#define OFFLINE_CURSOR_H

#include <stdbool.h>
#include <stdint.h>

struct cursor_slot {
	uint64_t seq; /* 0 = empty */
	int64_t at;   /* settles then */
};

struct cursor {
	uint64_t delivered;
	uint64_t handed;  /* handed or passed over up to here; never below delivered */
	uint64_t last;    /* newest one really handed */
	uint64_t passed;  /* settled without an ack: own messages whose ack was handed, ways nobody asked for */
	struct cursor_slot older, newer;
	int64_t retry_at; /* 0 = no repeat planned */
	uint32_t out;     /* handed and not acked, never less than true (acking devices) */
	uint8_t tries;    /* repeats since the last ack */
};

struct cursor_rules {
	bool acks;          /* the device has ever sent im/v1/ack */
	uint32_t settle_ms;
	uint32_t retry_ms;  /* until the first repeat; doubles */
	unsigned retries;
};

/* 1.5 x keepalive + 5 s, at least 30 s; 5 min without keepalive. */
uint32_t cursor_settle_ms(unsigned keepalive_s);

void cursor_connect(struct cursor *c); /* a new connection: what did not settle is owed again */
void cursor_hand(struct cursor *c, uint64_t seq, int64_t now, const struct cursor_rules *r);
void cursor_pass(struct cursor *c, uint64_t seq, int64_t now, const struct cursor_rules *r); /* not sent, but need not be */
/* Works off what is due at `now`. True: delivered has moved. */
bool cursor_settle(struct cursor *c, int64_t now, const struct cursor_rules *r);
/* The device's first ack ever: what was handed before and has not settled is owed one from now on. */
void cursor_start_acking(struct cursor *c, int64_t now, const struct cursor_rules *r);
/* An ack up to `seq`. True: delivered has moved. Never moves back. */
bool cursor_ack(struct cursor *c, uint64_t seq, int64_t now, const struct cursor_rules *r);
/* Whether delivered + 1 .. last is to be sent again now; plans the next repeat. */
bool cursor_repeat(struct cursor *c, int64_t now, const struct cursor_rules *r);
/* When settle or repeat has something to do; 0 = never. */
int64_t cursor_due(const struct cursor *c);
/* When all that was handed up to now will have settled; 0 = nothing is to settle. */
int64_t cursor_settled(const struct cursor *c);

#endif
