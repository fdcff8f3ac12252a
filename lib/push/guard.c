#include "push/guard.h"

void push_guard_add(struct push_guard *g, bool invalid)
{
	if (g->n == PUSH_GUARD_RESULTS)
		g->invalid -= g->ring[g->at];
	else
		g->n++;
	g->ring[g->at] = invalid;
	g->invalid += invalid;
	g->in_row = invalid ? g->in_row + 1 : 0;
	g->at = (g->at + 1) % PUSH_GUARD_RESULTS;
}

bool push_guard_alarmed(const struct push_guard *g)
{
	return g->n >= PUSH_GUARD_LEAST && (g->invalid * PUSH_GUARD_PART >= g->n || g->in_row >= PUSH_GUARD_IN_ROW);
}

enum push_belief push_guard_judge(const struct push_guard *g, int64_t registered_ms, int64_t invalid_since_ms, int64_t first_ms, int64_t now_ms)
{
	if (invalid_since_ms > 0 && registered_ms > (invalid_since_ms < now_ms ? invalid_since_ms : now_ms))
		return PUSH_BELIEF_NEWER;
	if (g->n >= PUSH_GUARD_LEAST)
		return push_guard_alarmed(g) ? PUSH_BELIEF_SUSPECT : PUSH_BELIEF_INVALID;
	return first_ms && now_ms - first_ms >= PUSH_GUARD_CONFIRM_MS ? PUSH_BELIEF_INVALID : PUSH_BELIEF_SUSPECT;
}
