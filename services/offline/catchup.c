/*
 * From the store to the device until there is nothing newer, and then live.
 *
 * A reader is behind when its conversation has durable messages above `handed`. Readers that are behind
 * stand in their session's queue; one page of one conversation is read at a time. What becomes durable
 * meanwhile is kept, within bounds, in the order of its arrival: without it a busy conversation would have
 * moved on at the end of every page. When the queue is empty the kept ones are handed in order, and if none
 * of them shows a gap the session is live - in one go, so nothing can come in between (invariant 5). Kept
 * ones that are too many are let go and their readers queue again: the store has them.
 */
#include "session.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef PAGE_MESSAGES /* tests/sim */
#define PAGE_MESSAGES 100u           /* a page is handed over in one go: some 140 KiB in the link, 2 ms of the broker's thread */
#define PAGE_BESIDE 16u              /* beside those who talk: 0.3 ms */
#define PAGE_BYTES (128u << 10)
#define PAGES 2u                     /* reads under way, all sessions: so much may come on top of LINK_CATCHUP */
#define KEPT_MESSAGES 256u           /* a few milliseconds of a busy user */
#define KEPT_BYTES (1u << 20)
#endif
#define RETRY_MS 1000                /* after a read that failed */
#define LIVE_MS 100                  /* so long after a new message somebody is talking */
#define TURN_MESSAGES 32u            /* of history beside those who talk, a page more or less */
#define TURN_REST 3                  /* times as long it rests then: what is new finds the broker's thread and a processor free */
#define REST_MOST_MS 20              /* whatever the turn took: a plugin that stood still must not make it rest for long */

struct kept {
	struct message *m;
	struct reader *r;
};

struct catchup {
	struct session *session;
	struct catchup *run_prev, *run_next;
	struct reader *work, *work_last;
	bool queued;                 /* for a page */
	bool announced;              /* evt/sync begin is out, end is owed */
	int64_t retry_at;
	size_t n_kept, kept_bytes;
	struct kept kept[KEPT_MESSAGES];
};

struct page {
	struct page *next;
	struct delivery *d;          /* NULL: delivery is gone */
	struct session *session;     /* NULL: gone */
	struct reader *reader;
	unsigned rows;
	bool full, uncovered, repeat;
};

/* ---- the queue of readers, and the queue of sessions */

static void work_add(struct catchup *c, struct reader *r)
{
	if (r->working)
		return;
	r->working = true;
	r->work_next = NULL;
	if (c->work)
		c->work_last->work_next = r;
	else
		c->work = r;
	c->work_last = r;
}

static struct reader *work_take(struct catchup *c)
{
	struct reader *r = c->work;

	c->work = r->work_next;
	r->working = false;
	return r;
}

static void run_remove(struct delivery *d, struct catchup *c)
{
	if (!c->queued)
		return;
	c->queued = false;
	if (c->run_prev)
		c->run_prev->run_next = c->run_next;
	else
		d->run_first = c->run_next;
	if (c->run_next)
		c->run_next->run_prev = c->run_prev;
	else
		d->run_last = c->run_prev;
}

static void run_add(struct delivery *d, struct catchup *c)
{
	if (c->queued || c->session->page || c->retry_at)
		return;
	c->queued = true;
	c->run_next = NULL;
	c->run_prev = d->run_last;
	if (d->run_last)
		d->run_last->run_next = c;
	else
		d->run_first = c;
	d->run_last = c;
}

static void kept_clear(struct catchup *c)
{
	for (size_t i = 0; i < c->n_kept; i++)
		message_unref(c->kept[i].m);
	c->n_kept = 0;
	c->kept_bytes = 0;
}

void catchup_acked(struct session *s, const struct message *m)
{
	struct own_acked *o = s->own_acked;

	if (s->state == SESSION_LIVE || (o && o->n == OWN_ACKED_MOST))
		return;
	if (!o)
		o = s->own_acked = calloc(1, sizeof *o);
	if (o)
		memcpy(o->msgids[o->n++], m->msgid, sizeof m->msgid);
}

static bool remembered(const struct own_acked *o, const struct message *m)
{
	for (unsigned i = 0; o && i < o->n; i++)
		if (strcmp(o->msgids[i], m->msgid) == 0)
			return true;
	return false;
}

/*
 * Sent by this very connection, and its ack was handed to it: remembered, or accepted after the session's acks were known here.
 * Many clients send as soon as they have subscribed, before this process knows of it; in doubt: no, and it is sent.
 */
static bool own_acked(const struct session *s, const struct message *m)
{
	return s->acks_since_ms && strcmp(m->client_id, s->client_id) == 0 && strcmp(m->from, s->account->name) == 0 &&
	       (m->ts > s->acks_since_ms || remembered(s->own_acked, m));
}

/* ---- beginning */

static bool begin(struct delivery *d, struct session *s)
{
	if (s->catchup)
		return true;
	s->catchup = calloc(1, sizeof *s->catchup);
	if (!s->catchup) {
		im_log(IM_LOG_ERROR, "evt=out_of_memory what=catchup client=%s", s->client_id);
		link_kick(d->link, s->handle, "out of memory");
		return false;
	}
	s->catchup->session = s;
	s->state = SESSION_CATCHING;
	return true;
}

static void announce(struct delivery *d, struct session *s, bool starts)
{
	char json[64];
	unsigned n = 0;

	for (const struct reader *r = s->catchup->work; r; r = r->work_next)
		n++;
	if (starts)
		(void)snprintf(json, sizeof json, "{\"phase\":\"begin\",\"conversations\":%u}", n);
	else
		(void)snprintf(json, sizeof json, "{\"phase\":\"end\"}");
	s->catchup->announced = starts;
	session_event(d, s, "sync", json);
}

static bool is_behind(struct delivery *d, const struct reader *r)
{
	if (!r->covered || (r->conv->newest && r->conv->newest <= r->cursor.handed))
		return false;
	return reader_visible(d, r, r->cursor.handed + 1) != 0;
}

static void queue_all_behind(struct delivery *d, struct session *s)
{
	struct device *dev = s->device;

	for (uint32_t i = 0; i < dev->cap; i++)
		if (dev->readers[i] && is_behind(d, dev->readers[i]))
			work_add(s->catchup, dev->readers[i]);
}

static void welcome(struct delivery *d, struct session *s)
{
	const struct store_start *start = store_start(d->store);
	const struct im_settings *set = d->settings;
	char json[512];

	if (s->welcomed || !session_wants(s, "evt/welcome"))
		return;
	s->welcomed = true;
	/* Client ids may hold any printable byte: quotes too. */
	im_buf_clear(&d->payload);
	im_json_string(&d->payload, s->client_id + (s->device->named ? strlen(s->account->name) + 1 : 0),
		       strlen(s->client_id) - (s->device->named ? strlen(s->account->name) + 1 : 0));
	(void)snprintf(json, sizeof json,
		       "{\"store\":\"%s\",\"device\":%s,\"user\":\"%s\",\"limits\":{\"message\":%llu,\"rate\":%u,\"ack_window\":%u,"
		       "\"filters\":%u},\"conversations\":%u}",
		       start->epoch, im_buf_text(&d->payload), s->account->name, (unsigned long long)set->max_message, set->rate_connection,
		       set->ack_window, set->filters, s->device->n_readers);
	session_event(d, s, "welcome", json);
}

static void greet(struct delivery *d, struct session *s)
{
	bool badge = session_wants(s, "state/badge"), list = session_wants(s, "state/conversations");

	welcome(d, s);
	if (!s->push_told && d->greeted && session_wants(s, "evt/push")) {
		s->push_told = true;
		d->greeted(d->greeted_arg, s->account->name, s->client_id);
	}
	if ((badge && !s->badge_wanted) || (list && !s->list_wanted)) {
		s->account->badge_hash = 0; /* whoever is new gets it too */
		list = list && !s->list_wanted;
		s->badge_wanted = badge;
		s->list_wanted |= list;
		badge_change(d, s->account, list);
		badge_ready(d);
		badge_run(d);
	}
	s->badge_wanted = badge;
	s->list_wanted = session_wants(s, "state/conversations");
}

static void step(struct delivery *d, struct session *s);

void catchup_loaded(struct delivery *d, struct session *s)
{
	greet(d, s);
	owed_send(d, s);
	if (!begin(d, s))
		return;
	queue_all_behind(d, s);
	announce(d, s, true);
	step(d, s);
	catchup_run(d);
}

void catchup_filters(struct delivery *d, struct session *s)
{
	bool fresh;

	device_cover(s->device);
	greet(d, s);
	fresh = s->state == SESSION_LIVE;
	if (!begin(d, s))
		return;
	queue_all_behind(d, s);
	if (fresh && s->catchup->work)
		announce(d, s, true);
	step(d, s);
	catchup_run(d);
}

void catchup_behind(struct delivery *d, struct session *s, struct reader *r, bool announced)
{
	if (!begin(d, s))
		return;
	work_add(s->catchup, r);
	if (announced && !s->catchup->announced)
		announce(d, s, true);
	if (handover_room(d, s))
		run_add(d, s->catchup);
}

/* ---- ending: the kept ones, and live */

static void kept_to_work(struct catchup *c)
{
	for (size_t i = 0; i < c->n_kept; i++)
		work_add(c, c->kept[i].r);
	kept_clear(c);
}

void catchup_keep(struct delivery *d, struct session *s, struct reader *r, struct message *m)
{
	struct catchup *c = s->catchup;

	if (!r->covered)
		return;
	if (r->working)
		return; /* its turn is still to come: the page will bring it */
	if (c->n_kept == KEPT_MESSAGES || c->kept_bytes > KEPT_BYTES) {
		kept_to_work(c);
		work_add(c, r);
		catchup_wake(d, s);
		return;
	}
	c->kept[c->n_kept++] = (struct kept){ .m = message_ref(m), .r = r };
	c->kept_bytes += m->body_len;
}

static bool follows(struct delivery *d, const struct reader *r, const struct message *m)
{
	return m->prev <= r->cursor.handed || reader_visible(d, r, r->cursor.handed + 1) >= m->seq;
}

/* False: a gap or no room; whoever is behind stands in the queue. */
static bool hand_kept(struct delivery *d, struct session *s)
{
	struct catchup *c = s->catchup;

	for (size_t i = 0; i < c->n_kept; i++) {
		struct reader *r = c->kept[i].r;
		struct message *m = c->kept[i].m;

		if (r->working || !r->covered || m->seq <= r->cursor.handed)
			continue;
		if (!follows(d, r, m)) {
			work_add(c, r);
			continue;
		}
		if (handover(d, s, r, m, own_acked(s, m)) == VERDICT_FULL) {
			kept_to_work(c); /* with those handed just now: what came while they stood in the queue was not kept */
			break;
		}
		handover_flush(d);
	}
	/* While a reader stood in the queue its new messages were not kept: what is missing may be at the end. */
	for (size_t i = 0; i < c->n_kept; i++)
		if (is_behind(d, c->kept[i].r))
			work_add(c, c->kept[i].r);
	kept_clear(c);
	return !c->work;
}

/*
 * Whether messages are known that the reader lacks. A page that found none of them answers for all up to
 * then, so that nobody asks for ever.
 */
static bool lacks(struct delivery *d, const struct reader *r)
{
	uint64_t next;

	if (!r->covered || r->conv->newest <= r->cursor.handed || r->conv->newest == r->empty_at)
		return false;
	next = reader_visible(d, r, r->cursor.handed + 1);
	return next && next <= r->conv->newest;
}

/* The last look before live: a reader may have left the queue for what was kept, and the kept ones were let go. */
static void queue_lacking(struct delivery *d, struct session *s)
{
	struct device *dev = s->device;

	for (uint32_t i = 0; i < dev->cap; i++)
		if (dev->readers[i] && lacks(d, dev->readers[i]))
			work_add(s->catchup, dev->readers[i]);
}

static void go_live(struct delivery *d, struct session *s)
{
	if (s->catchup->announced)
		announce(d, s, false);
	run_remove(d, s->catchup);
	free(s->catchup);
	s->catchup = NULL;
	free(s->own_acked);
	s->own_acked = NULL;
	s->state = SESSION_LIVE;
}

/* What to do next with a session that is catching up and reads nothing. */
static void step(struct delivery *d, struct session *s)
{
	struct catchup *c = s->catchup;

	if (s->page || c->retry_at)
		return;
	if (!c->work && hand_kept(d, s))
		queue_lacking(d, s);
	if (!c->work)
		go_live(d, s);
	else if (handover_room(d, s))
		run_add(d, c);
}

void catchup_wake(struct delivery *d, struct session *s)
{
	if (s->state != SESSION_CATCHING)
		return;
	s->catchup->retry_at = 0;
	step(d, s);
	catchup_run(d);
}

int64_t catchup_due(const struct session *s)
{
	return s->catchup ? s->catchup->retry_at : 0;
}

/* ---- pages */

static void on_row(void *arg, struct message *m)
{
	struct page *p = arg;
	struct session *s = p->session;
	struct reader *r = p->reader;
	struct cursor_rules rules;

	if (!p->d || !s || p->full || p->uncovered)
		return;
	p->rows++;
	if (r->conv->newest < m->seq)
		r->conv->newest = m->seq;
	if (p->repeat) {
		if (m->seq > r->cursor.delivered && m->seq <= r->cursor.last)
			handover_again(p->d, s, r, m);
		handover_flush(p->d);
		return;
	}
	if (m->seq <= r->cursor.handed)
		return;
	switch (handover(p->d, s, r, m, own_acked(s, m))) {
	case VERDICT_HANDED:
		handover_flush(p->d);
		break;
	case VERDICT_UNSEEN:
		session_rules(p->d, s, &rules);
		cursor_pass(&r->cursor, m->seq, delivery_now(p->d), &rules);
		reader_plan(p->d, r);
		break;
	case VERDICT_UNCOVERED:
		p->uncovered = true;
		break;
	case VERDICT_FULL:
		p->full = true;
		break;
	}
}

/* The rest is among the kept ones, without a gap. */
static bool kept_goes_on(struct delivery *d, const struct catchup *c, const struct reader *r)
{
	for (size_t i = 0; i < c->n_kept; i++)
		if (c->kept[i].r == r && c->kept[i].m->seq > r->cursor.handed)
			return follows(d, r, c->kept[i].m);
	return false;
}

static void page_next(struct delivery *d, struct page *p, enum im_status st)
{
	struct session *s = p->session;
	struct catchup *c = s->catchup;
	struct reader *r = p->reader;

	if (st != IM_OK) {
		im_log(IM_LOG_WARNING, "evt=page_not_read conv=%s client=%s status=%s then=\"again in a second\"", r->conv->name,
		       s->client_id, im_status_name(st));
		work_add(c, r);
		c->retry_at = delivery_now(d) + RETRY_MS;
		session_plan(d, s);
		return;
	}
	if (!p->rows && !p->full)
		r->empty_at = r->conv->newest;
	if (p->full || (p->rows && !p->uncovered && is_behind(d, r) && !kept_goes_on(d, c, r)))
		work_add(c, r);
	step(d, s);
}

static void on_page(void *arg, enum im_status st)
{
	struct page *p = arg, **link;
	struct delivery *d = p->d;

	if (!d) {
		free(p);
		return;
	}
	for (link = &d->pages; *link != p; link = &(*link)->next)
		;
	*link = p->next;
	d->n_pages--;
	d->turn_messages += p->rows;
	if (p->session) {
		p->session->page = NULL;
		if (p->repeat && p->session->state == SESSION_CATCHING)
			step(d, p->session);
		else if (!p->repeat)
			page_next(d, p, st);
	}
	free(p);
	catchup_run(d);
}

static bool others_talk(struct delivery *d)
{
	return delivery_now(d) - d->live_at <= LIVE_MS;
}

static bool page_start(struct delivery *d, struct session *s, struct reader *r, bool repeat)
{
	struct store_range range = { .conv = r->conv->name, .max_bytes = PAGE_BYTES };
	struct page *p = calloc(1, sizeof *p);

	if (!p)
		return false;
	p->d = d;
	p->session = s;
	p->reader = r;
	p->repeat = repeat;
	p->next = d->pages;
	d->pages = p;
	d->n_pages++;
	s->page = p;
	range.limit = others_talk(d) && !repeat ? PAGE_BESIDE : PAGE_MESSAGES;
	range.from = reader_visible(d, r, (repeat ? r->cursor.delivered : r->cursor.handed) + 1);
	if (repeat)
		range.to = r->cursor.last;
	if (s->device->acks && !repeat && d->settings->ack_window - s->device->out < range.limit)
		range.limit = d->settings->ack_window - s->device->out;
	store_history(d->store, &range, on_row, on_page, p);
	return true;
}

void catchup_repeat(struct delivery *d, struct session *s, struct reader *r)
{
	/* Never in the way of what is new: a session that is reading gets its repeat at the next chance. */
	if ((s->state == SESSION_LIVE || s->state == SESSION_CATCHING) && !s->page && d->n_pages < PAGES && reader_visible(d, r, r->cursor.delivered + 1) &&
	    page_start(d, s, r, true))
		return;
	if (r->cursor.tries)
		r->cursor.tries--;
	r->cursor.retry_at = delivery_now(d) + RETRY_MS;
}

/* One page for the session in front; true: it is worked off for now. */
static void run_one(struct delivery *d, struct session *s)
{
	struct catchup *c = s->catchup;
	struct reader *r;

	if (s->page || !handover_room(d, s))
		return;
	while (c->work) {
		r = work_take(c);
		if (!is_behind(d, r))
			continue;
		if (!page_start(d, s, r, false)) {
			work_add(c, r);
			c->retry_at = delivery_now(d) + RETRY_MS;
			session_plan(d, s);
		}
		return;
	}
	step(d, s);
}

/*
 * Beside those who talk, history takes turns. Without rests it has the broker's thread for nine tenths of the time, and whoever
 * wakes for something new waits a tick of the scheduler (4 ms) for a processor: others' p99 would be four times the usual.
 */
static bool resting(struct delivery *d)
{
	int64_t now = delivery_now(d), rest;

	if (now < d->rest_until)
		return true;
	if (!others_talk(d) || !d->turn_messages) {
		d->turn_messages = 0;
		d->turn_at = now;
	}
	if (d->turn_messages < TURN_MESSAGES)
		return false;
	rest = now > d->turn_at ? (now - d->turn_at) * TURN_REST : TURN_REST;
	d->rest_until = now + (rest < REST_MOST_MS ? rest : REST_MOST_MS);
	d->turn_messages = 0;
	im_timer_start(d->rest, (uint64_t)(d->rest_until - now), 0);
	return true;
}

void catchup_run(struct delivery *d)
{
	while (d->run_first && d->n_pages < PAGES && link_pending(d->link) <= LINK_CATCHUP && !resting(d)) {
		struct catchup *c = d->run_first;

		run_remove(d, c);
		run_one(d, c->session);
	}
	if (!d->run_first && !d->n_pages)
		d->turn_messages = 0;
}

void catchup_stop(struct delivery *d, struct session *s)
{
	struct catchup *c = s->catchup;

	if (s->page)
		s->page->session = NULL;
	s->page = NULL;
	if (!c)
		return;
	run_remove(d, c);
	while (c->work)
		(void)work_take(c);
	kept_clear(c);
	free(c);
	s->catchup = NULL;
}

void catchup_finish(struct delivery *d)
{
	for (struct page *p = d->pages; p; p = p->next)
		p->d = NULL;
	d->pages = NULL;
}
