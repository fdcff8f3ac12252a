#include "cursor.h"

#define SETTLE_LEAST_MS 30000u
#define SETTLE_NO_KEEPALIVE_MS 300000u
#define RETRY_DOUBLINGS 10 /* 10 s become at most three hours */

uint32_t cursor_settle_ms(unsigned keepalive_s)
{
	uint32_t ms;

	if (!keepalive_s)
		return SETTLE_NO_KEEPALIVE_MS;
	if (keepalive_s > UINT16_MAX)
		keepalive_s = UINT16_MAX; /* MQTT's field has no room for more */
	ms = keepalive_s * 1500u + 5000u;
	return ms < SETTLE_LEAST_MS ? SETTLE_LEAST_MS : ms;
}

void cursor_connect(struct cursor *c)
{
	uint64_t delivered = c->delivered;

	*c = (struct cursor){ .delivered = delivered, .handed = delivered, .last = delivered };
}

static void plan_settle(struct cursor *c, uint64_t seq, int64_t at)
{
	struct cursor_slot slot = { .seq = seq, .at = at };

	if (!c->older.seq)
		c->older = slot;
	else
		c->newer = slot;
}

static void plan_retry(struct cursor *c, int64_t now, const struct cursor_rules *r)
{
	unsigned doublings = c->tries < RETRY_DOUBLINGS ? c->tries : RETRY_DOUBLINGS;

	c->retry_at = c->out && c->tries < r->retries ? now + ((int64_t)r->retry_ms << doublings) : 0;
}

void cursor_hand(struct cursor *c, uint64_t seq, int64_t now, const struct cursor_rules *r)
{
	c->handed = seq;
	c->last = seq;
	if (!r->acks) {
		plan_settle(c, seq, now + r->settle_ms);
		return;
	}
	c->out++;
	if (!c->retry_at)
		plan_retry(c, now, r);
}

void cursor_pass(struct cursor *c, uint64_t seq, int64_t now, const struct cursor_rules *r)
{
	c->handed = seq;
	plan_settle(c, seq, now + r->settle_ms);
}

static bool advance(struct cursor *c, uint64_t seq)
{
	if (seq <= c->delivered)
		return false;
	c->delivered = seq;
	if (c->handed < seq)
		c->handed = seq;
	return true;
}

/* Past the newest handed one lie only messages that need no ack: what of them has settled follows. */
static bool advance_over_passed(struct cursor *c)
{
	return c->delivered >= c->last && advance(c, c->passed);
}

bool cursor_settle(struct cursor *c, int64_t now, const struct cursor_rules *r)
{
	bool moved = false;

	while (c->older.seq && c->older.at <= now) {
		if (!r->acks)
			moved |= advance(c, c->older.seq);
		else if (c->passed < c->older.seq)
			c->passed = c->older.seq;
		c->older = c->newer;
		c->newer = (struct cursor_slot){ 0 };
	}
	return advance_over_passed(c) || moved;
}

void cursor_start_acking(struct cursor *c, int64_t now, const struct cursor_rules *r)
{
	c->out = c->last > c->delivered ? (uint32_t)(c->last - c->delivered) : 0;
	if (c->older.seq <= c->last)
		c->older = (struct cursor_slot){ 0 };
	if (c->newer.seq <= c->last)
		c->newer = (struct cursor_slot){ 0 };
	if (!c->older.seq) {
		c->older = c->newer;
		c->newer = (struct cursor_slot){ 0 };
	}
	plan_retry(c, now, r);
}

bool cursor_ack(struct cursor *c, uint64_t seq, int64_t now, const struct cursor_rules *r)
{
	uint64_t left;

	if (!advance(c, seq))
		return false;
	left = c->last > seq ? c->last - seq : 0;
	if (c->out > left) /* sequences may have gaps: the smaller of the two bounds is right or too large */
		c->out = (uint32_t)left;
	(void)advance_over_passed(c); /* it moved anyway */
	c->tries = 0;
	plan_retry(c, now, r);
	return true;
}

bool cursor_repeat(struct cursor *c, int64_t now, const struct cursor_rules *r)
{
	if (!r->acks || !c->retry_at || c->retry_at > now)
		return false;
	c->tries++;
	plan_retry(c, now, r);
	return c->out > 0;
}

int64_t cursor_due(const struct cursor *c)
{
	int64_t at = c->older.seq ? c->older.at : 0;

	if (c->retry_at && (!at || c->retry_at < at))
		at = c->retry_at;
	return at;
}

int64_t cursor_settled(const struct cursor *c)
{
	return c->newer.seq ? c->newer.at : c->older.seq ? c->older.at : 0;
}
