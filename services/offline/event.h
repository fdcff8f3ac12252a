/*
 * Membership in the conversation: whatever changes who is in a group is first a message of the system with a
 * sequence, and stays begin and end at that sequence.
 */
#ifndef OFFLINE_EVENT_H
#define OFFLINE_EVENT_H

#include "change.h"

/*
 * Posts {"event",...} (stolen) into a group; the sentence is for those who don't know the type. `build` makes the change of
 * the roster that goes with it, once the sequence is known: both become durable together, so that nobody gets what stands
 * behind his leaving, and no crash leaves one without the other. Then as change_commit. Ends the call if it cannot.
 */
typedef void event_build_fn(struct call *call, uint64_t seq, struct change *c);
void event_change(struct call *call, const char *group, json_t *event, event_build_fn *build, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* Posts it alone, then calls `done`. */
typedef void event_done_fn(struct call *call, uint64_t seq);
void event_post(struct call *call, const char *group, json_t *event, event_done_fn *done, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* Ends the user's open stay at `seq`. */
void event_end_stay(struct call *call, struct change *c, const char *group, const char *user, uint64_t seq);

#endif
