/*
 * Membership in the conversation: whatever changes who is in a group is first a message of the system with a
 * sequence, and stays begin and end at that sequence.
 */
#ifndef OFFLINE_EVENT_H
#define OFFLINE_EVENT_H

#include "change.h"

typedef void event_done_fn(struct call *call, uint64_t seq);
/* Posts {"event",...} (stolen) into a group; the sentence is for those who don't know the type. Ends the call if it cannot. */
void event_post(struct call *call, const char *group, json_t *event, event_done_fn *done, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* Ends the user's open stay at `seq`. */
void event_end_stay(struct call *call, struct change *c, const char *group, const char *user, uint64_t seq);

#endif
