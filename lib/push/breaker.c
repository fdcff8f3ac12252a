#include "push/breaker.h"

#include <string.h>

/* ---- the window of seconds */

static void forget_old(struct push_breaker *b, int64_t now_ms)
{
	int64_t second = now_ms / 1000;

	if (second - b->second >= PUSH_BREAKER_WINDOW_S) {
		memset(b->good, 0, sizeof(b->good));
		memset(b->bad, 0, sizeof(b->bad));
		b->second = second;
	}
	while (b->second < second) {
		b->second++;
		b->good[b->second % PUSH_BREAKER_WINDOW_S] = 0;
		b->bad[b->second % PUSH_BREAKER_WINDOW_S] = 0;
	}
}

static void count(struct push_breaker *b, int64_t now_ms, uint16_t *buckets)
{
	uint16_t *at;

	forget_old(b, now_ms);
	at = &buckets[b->second % PUSH_BREAKER_WINDOW_S];
	if (*at < UINT16_MAX)
		(*at)++;
}

static bool half_are_bad(const struct push_breaker *b)
{
	unsigned good = 0, bad = 0;

	for (size_t i = 0; i < PUSH_BREAKER_WINDOW_S; i++) {
		good += b->good[i];
		bad += b->bad[i];
	}
	return good + bad >= PUSH_BREAKER_LEAST && bad >= good;
}

/* ---- */

size_t push_breaker_room(const struct push_breaker *b, int64_t now_ms)
{
	if (b->kind == PUSH_BREAKER_CLOSED)
		return SIZE_MAX;
	return now_ms >= b->until_ms && !b->probing ? 1 : 0;
}

void push_breaker_sent(struct push_breaker *b)
{
	b->probing = b->kind != PUSH_BREAKER_CLOSED;
}

void push_breaker_good(struct push_breaker *b, int64_t now_ms)
{
	count(b, now_ms, b->good);
	b->in_row = 0;
	if (b->kind != PUSH_BREAKER_CLOSED && now_ms < b->until_ms)
		return; /* sent before it opened: says nothing about now */
	b->kind = PUSH_BREAKER_CLOSED;
	b->open_ms = 0;
	b->probing = false;
}

static void trip(struct push_breaker *b, int64_t now_ms)
{
	b->open_ms = b->open_ms ? b->open_ms * 2 : PUSH_BREAKER_FIRST_MS;
	if (b->open_ms > PUSH_BREAKER_MOST_MS)
		b->open_ms = PUSH_BREAKER_MOST_MS;
	push_breaker_open(b, PUSH_BREAKER_TROUBLE, now_ms + b->open_ms);
	memset(b->bad, 0, sizeof(b->bad)); /* counted: what comes after the probe counts anew */
	b->in_row = 0;
}

void push_breaker_bad(struct push_breaker *b, int64_t now_ms)
{
	count(b, now_ms, b->bad);
	b->in_row++;
	if (b->kind == PUSH_BREAKER_CLOSED ? b->in_row >= PUSH_BREAKER_IN_ROW || half_are_bad(b) : now_ms >= b->until_ms)
		trip(b, now_ms);
}

void push_breaker_undecided(struct push_breaker *b)
{
	b->probing = false;
}

/* A graver reason and a later moment stay: a quota does not end because a connection failed meanwhile. */
void push_breaker_open(struct push_breaker *b, enum push_breaker_kind kind, int64_t until_ms)
{
	if (b->kind == PUSH_BREAKER_CLOSED || until_ms > b->until_ms)
		b->until_ms = until_ms;
	if (kind > b->kind)
		b->kind = kind;
	b->probing = false;
}

/* Otherwise the answers still to come for the old key would hold up the new one for ten minutes. */
void push_breaker_config(struct push_breaker *b, int64_t sent_ms, int64_t now_ms)
{
	if (sent_ms >= b->reloaded_ms)
		push_breaker_open(b, PUSH_BREAKER_CONFIG, now_ms + PUSH_CONFIG_PROBE_MS);
}

void push_breaker_reload(struct push_breaker *b, int64_t now_ms)
{
	b->reloaded_ms = now_ms;
	if (b->kind == PUSH_BREAKER_CONFIG)
		b->until_ms = now_ms;
	b->probing = false;
}

const char *push_breaker_name(enum push_breaker_kind kind)
{
	static const char *const names[] = {"closed", "trouble", "rate", "quota", "config"};

	return names[kind];
}

/* ---- the budget */

static int64_t tick_of(int64_t now_ms)
{
	return now_ms / 10000;
}

bool push_budget_allows(const struct push_budget *b, int64_t now_ms)
{
	uint64_t sends = 0, retries = 0;

	for (int64_t t = tick_of(now_ms) - (int64_t)PUSH_BUDGET_BUCKETS + 1; t <= b->tick; t++) {
		if (t <= b->tick - (int64_t)PUSH_BUDGET_BUCKETS || t < 0)
			continue;
		sends += b->sends[t % PUSH_BUDGET_BUCKETS];
		retries += b->retries[t % PUSH_BUDGET_BUCKETS];
	}
	return retries < PUSH_BUDGET_FREE || retries * 5 < sends;
}

void push_budget_count(struct push_budget *b, int64_t now_ms, bool retry)
{
	int64_t tick = tick_of(now_ms);

	if (tick - b->tick >= PUSH_BUDGET_BUCKETS)
		memset(b, 0, sizeof(*b));
	while (b->tick < tick) {
		b->tick = tick - b->tick >= PUSH_BUDGET_BUCKETS ? tick : b->tick + 1;
		b->sends[b->tick % PUSH_BUDGET_BUCKETS] = 0;
		b->retries[b->tick % PUSH_BUDGET_BUCKETS] = 0;
	}
	b->sends[tick % PUSH_BUDGET_BUCKETS]++;
	b->retries[tick % PUSH_BUDGET_BUCKETS] += retry;
}

void push_budget_good(struct push_budget *b)
{
	for (unsigned i = 0; i < PUSH_BUDGET_BUCKETS && b->tick >= i; i++) {
		uint32_t *retries = &b->retries[(b->tick - i) % PUSH_BUDGET_BUCKETS];

		if (*retries) {
			(*retries)--;
			return;
		}
	}
}
