/*
 * What becomes of each record: a new message with its sequence, a repeat, cursors, a refusal that is owed.
 * Decided from memory: what has to be looked up is said before, for a whole batch.
 */
#ifndef OFFLINE_DECISION_H
#define OFFLINE_DECISION_H

#include "batch.h"
#include "recent.h"

struct decider {
	struct roster *roster;
	struct lease *lease;
	struct recent recent;
	struct inbox_stats stats;
};

/* Fills in b->convs and b->lookups. false: out of memory. */
bool decision_prepare(struct decider *d, struct batch *b);
bool decision_learn(struct decider *d, const struct batch *b); /* the answer is there; false: out of memory */
/* The next item's entries and outcome. IM_BUSY: no sequence at the moment, nothing has happened. IM_FAILED: out of memory. */
enum im_status decision_make(struct decider *d, struct batch *b, struct item *item);
/*
 * Of a batch that waited half decided: false if a lease under which it was given sequences is over. The store would
 * refuse those; decision_undo takes all of it back, for nobody has seen it, and it is decided anew.
 */
bool decision_holds(const struct decider *d, const struct batch *b);
void decision_undo(struct decider *d, struct batch *b);

#endif
