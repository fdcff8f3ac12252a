/*
 * Conversations, and the place of a device in each: found fast, moved by what happened, due at a time.
 *
 * A device has its readers in a table of its own, since thousands of them belong to one busy account and most
 * are never looked at; a conversation has them in a list, since a message goes to all.
 */
#include "session.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

/* ---- conversations and places in them */

struct conversation *conversation_find(struct delivery *d, const char *conv)
{
	struct conversation *c;

	HASH_FIND_STR(d->convs, conv, c);
	return c;
}

static struct conversation *conversation_get(struct delivery *d, const char *conv)
{
	struct conversation *c = conversation_find(d, conv);
	size_t len = strlen(conv) + 1;

	if (c)
		return c;
	c = calloc(1, sizeof *c + len);
	if (!c)
		return NULL;
	memcpy(c->name, conv, len);
	HASH_ADD_KEYPTR(hh, d->convs, c->name, len - 1, c);
	return c;
}

static void conversation_release(struct delivery *d, struct conversation *c)
{
	if (c->readers)
		return;
	HASH_DEL(d->convs, c);
	free(c);
}

static uint32_t place(const struct conversation *c, uint32_t cap)
{
	return c->hh.hashv & (cap - 1); /* of its name: the same order in every run */
}

static void place_put(struct reader **table, uint32_t cap, struct reader *r)
{
	uint32_t i = place(r->conv, cap);

	while (table[i])
		i = (i + 1) & (cap - 1);
	table[i] = r;
}

static bool table_grow(struct device *dev)
{
	uint32_t cap = dev->cap ? dev->cap * 2 : 4;
	struct reader **table;

	if (dev->cap && dev->n_readers * 4 < dev->cap * 3)
		return true;
	table = calloc(cap, sizeof(struct reader *));
	if (!table)
		return false;
	for (uint32_t i = 0; i < dev->cap; i++)
		if (dev->readers[i])
			place_put(table, cap, dev->readers[i]);
	free(dev->readers);
	dev->readers = table;
	dev->cap = cap;
	return true;
}

struct reader *reader_find(const struct device *dev, const struct conversation *c)
{
	if (!dev->cap)
		return NULL;
	for (uint32_t i = place(c, dev->cap); dev->readers[i]; i = (i + 1) & (dev->cap - 1))
		if (dev->readers[i]->conv == c)
			return dev->readers[i];
	return NULL;
}

void reader_cover(struct reader *r)
{
	const struct device *dev = r->device;
	char face[IM_CONV_MAX];

	r->covered = dev->session && im_conv_as_seen(r->conv->name, dev->account->name, face) && session_covers(dev->session, face);
}

static struct reader *reader_add(struct device *dev, struct conversation *c)
{
	struct reader *r = table_grow(dev) ? calloc(1, sizeof *r) : NULL;

	if (!r)
		return NULL;
	r->device = dev;
	r->conv = c;
	r->conv_next = c->readers;
	if (c->readers)
		c->readers->conv_prev = r;
	c->readers = r;
	place_put(dev->readers, dev->cap, r);
	dev->n_readers++;
	reader_cover(r);
	return r;
}

struct reader *device_reader(struct delivery *d, struct device *dev, const char *conv, bool make)
{
	struct conversation *c = make ? conversation_get(d, conv) : conversation_find(d, conv);
	struct reader *r = c ? reader_find(dev, c) : NULL;

	if (r || !c || !make)
		return r;
	r = reader_add(dev, c);
	if (!r) {
		im_log(IM_LOG_ERROR, "evt=out_of_memory what=reader client=%s", dev->client_id);
		conversation_release(d, c);
	}
	return r;
}

void reader_free(struct delivery *d, struct reader *r)
{
	struct conversation *c = r->conv;

	due_cancel(&r->due);
	if (r->conv_prev)
		r->conv_prev->conv_next = r->conv_next;
	else
		c->readers = r->conv_next;
	if (r->conv_next)
		r->conv_next->conv_prev = r->conv_prev;
	free(r);
	conversation_release(d, c);
}

uint64_t reader_visible(struct delivery *d, const struct reader *r, uint64_t from)
{
	const struct roster_stay *stays;
	size_t n;

	if (!im_conv_is_group(r->conv->name))
		return from;
	n = roster_stays(d->roster, r->conv->name + 2, r->device->account->name, &stays);
	for (size_t i = 0; i < n; i++)
		if (!stays[i].to_seq || stays[i].to_seq >= from)
			return stays[i].from_seq > from ? stays[i].from_seq : from;
	return 0;
}

/* ---- moves */

void reader_moved(struct delivery *d, struct reader *r)
{
	if (r->dirty || r->cursor.delivered <= r->stored)
		return;
	r->dirty = true;
	r->device->n_dirty++;
	r->dirty_next = d->dirty;
	d->dirty = r;
}

void reader_plan(struct delivery *d, struct reader *r)
{
	int64_t at = cursor_due(&r->cursor), settled = cursor_settled(&r->cursor);

	if (settled)
		link_prove(d->link, settled);
	if (at != r->due.at || (at && !r->due.next))
		due_plan(d, &r->due, DUE_READER, at);
}

/*
 * What has waited in the link for a broker that stood still has not been with its client, whatever the clock
 * says: a settle period begins when the plugin has worked it off, and again after each standstill. Nor has what waits
 * in the broker for a client that does not read.
 */
static int64_t settles_from(struct delivery *d, const struct session *s, int64_t settle_ms)
{
	int64_t late = link_late_ms(d->link), from = late ? late + settle_ms : 0, later = delivery_now(d) + DELIVERY_BEHIND_MS;

	return s->behind && from < later ? later : from;
}

/* Asked again: when the period that has begun anew is over, else when there may be proof of the one that is. */
static void plan_again(struct delivery *d, struct reader *r, int64_t now, int64_t from)
{
	int64_t soon = now + DELIVERY_PROOF_MS, at = from > soon ? from : soon;

	link_prove(d->link, from);
	if (r->cursor.retry_at && r->cursor.retry_at < at)
		at = r->cursor.retry_at;
	due_plan(d, &r->due, DUE_READER, at);
}

/* The clock alone settles nothing: that the session was up is known of times past only (invariant 2). */
void reader_due(struct delivery *d, struct reader *r)
{
	struct session *s = r->device->session;
	int64_t now = delivery_now(d), proven = link_proven_ms(d->link), from, due;
	struct cursor_rules rules;

	if (!s)
		return;
	session_rules(d, s, &rules);
	from = settles_from(d, s, rules.settle_ms);
	if (proven >= from && cursor_settle(&r->cursor, proven, &rules))
		reader_moved(d, r);
	if (cursor_repeat(&r->cursor, now, &rules))
		catchup_repeat(d, s, r);
	due = cursor_due(&r->cursor);
	if (due && due <= now)
		plan_again(d, r, now, from);
	else
		reader_plan(d, r);
}
