/*
 * Whether a provider's "this token is dead" is believed; pure. A wrong topic, key or environment makes a provider say so of every token,
 * and a token dropped is a phone that stays silent until its app registers again.
 */
#ifndef IM_PUSH_GUARD_H
#define IM_PUSH_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#define PUSH_GUARD_RESULTS 200u        /* of an app, the newest; accepted or invalid, others say nothing of tokens */
#define PUSH_GUARD_LEAST 20u           /* fewer prove nothing */
#define PUSH_GUARD_PART 5u             /* a fifth of them invalid: it is not the tokens */
#define PUSH_GUARD_IN_ROW 5u           /* or so many one after the other: at one dead token in fifty that is no chance */
#define PUSH_GUARD_CONFIRM_MS 3600000  /* then the same word again makes a suspect invalid, if there are too few results to judge */

struct push_guard {
	unsigned n, at, invalid, in_row;
	bool ring[PUSH_GUARD_RESULTS];
};

enum push_belief {
	PUSH_BELIEF_NEWER,    /* registered after the provider's moment: not this registration is meant */
	PUSH_BELIEF_SUSPECT,
	PUSH_BELIEF_INVALID,
};

void push_guard_add(struct push_guard *g, bool invalid);
bool push_guard_alarmed(const struct push_guard *g); /* of enough results a fifth or more are invalid, or the last few all are */
/* first_ms: when this registration was suspected first, 0 = never. Times are UTC; invalid_since_ms 0 = not said. */
enum push_belief push_guard_judge(const struct push_guard *g, int64_t registered_ms, int64_t invalid_since_ms, int64_t first_ms, int64_t now_ms);

#endif
