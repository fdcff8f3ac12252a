/*
 * Which sessions end when: those let in by a credential with an end. A wheel of seconds, because most are
 * closed long before: entering and leaving cost the same whatever the number of sessions.
 */
#ifndef PLUGIN_SESSION_EXPIRY_H
#define PLUGIN_SESSION_EXPIRY_H

#include <stdint.h>

#define EXPIRY_SLOTS 4096u /* seconds of one round, about an hour: what ends later is passed over once a round */

struct expiry_node {
	struct expiry_node *prev, *next;
	int64_t at_s;            /* 0: not in the wheel */
};

struct expiry {
	struct expiry_node *slots[EXPIRY_SLOTS];
	int64_t seen_s;          /* up to here everything was due */
};

/* at_ms: wall clock, rounded up to seconds. */
void expiry_add(struct expiry *w, struct expiry_node *n, int64_t at_ms);
void expiry_remove(struct expiry *w, struct expiry_node *n); /* also one that is not in it */
/* Takes out all that are due and hands each over. */
void expiry_due(struct expiry *w, int64_t now_ms, void (*due)(void *arg, struct expiry_node *n), void *arg);

#endif
