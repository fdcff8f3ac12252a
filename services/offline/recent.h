/*
 * What was decided lately and the store may not say yet: the newest sequence of each conversation in use, and
 * ids whose messages a lookup could still miss.
 */
#ifndef OFFLINE_RECENT_H
#define OFFLINE_RECENT_H

#include "message.h"
#include <uthash.h>

/* The newest sequence of a conversation, as far as decided. */
struct recent_conv {
	UT_hash_handle hh;
	uint64_t last;
	unsigned in_flight;                     /* messages with the store: it may not be forgotten */
	char name[];
};

struct recent {
	struct recent_conv *convs;
	struct recent_id *ids;
};

void recent_finish(struct recent *r);

struct recent_conv *recent_conv(struct recent *r, const char *name); /* NULL: not in memory, look it up */
struct recent_conv *recent_add_conv(struct recent *r, const char *name, uint64_t last); /* NULL: out of memory */
void recent_stored(struct recent *r, const struct message *m); /* it is with the store no more */
void recent_undo(struct recent *r, const struct message *m);   /* the newest of its conversation, never given to the store */

/* By the sender's (user, client id, id); borrowed. */
struct message *recent_id(struct recent *r, const Im__Bus__Record *rec);
bool recent_add_id(struct recent *r, const Im__Bus__Record *rec, struct message *m); /* false: out of memory */
void recent_forget_id(struct recent *r, const struct message *m);

#endif
