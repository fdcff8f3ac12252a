/*
 * From journal records to durable messages (docs/delivery.md, invariants 1 to 4).
 *
 * A batch is one slice of a journal, or one message of the service's own. Batches go through
 *
 *	queued -> looked up -> decided -> appended -> done
 *
 * in their order. One batch at a time is looked up and decided; any number may be with the store, which
 * answers in order. Nobody hears of a message before its batch is done.
 *
 * The one difficult point is dedupe: a lookup sees only what the store had answered when it was asked. So
 * ids that were decided stay in memory (recent.h) until no lookup that might have missed them is under way:
 * a batch that is done while another is looked up retires after that one is decided.
 */
#include "inbox.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"
#include "decision.h"
#include <stdlib.h>
#include <string.h>

#define INBOX_QUEUE (32u << 20)    /* bytes of slices held: eight times what the plugin sends unconfirmed; more is a breach */
#define INBOX_RETRY_MS 20          /* until a full store or link is asked again */
#ifndef INBOX_MARKS /* tests/sim */
#define INBOX_MARKS 4096u          /* journal epochs with a mark, as many as the link can say */
#endif

struct mark {
	struct position durable;
	uint64_t expected;                      /* where the next slice of this epoch begins */
};

struct inbox {
	struct im_loop *loop;
	struct im_timer *retry;
	const struct im_settings *settings;
	struct store *store;
	struct decider decider;
	struct delivery *delivery;
	struct link *link;
	struct batch *first, *last;             /* queued; the first one is looked up or decided */
	struct batch *retiring;                 /* done while a lookup was under way */
	size_t queued;                          /* bytes */
	unsigned appending;                     /* batches with the store */
	bool looking;
	bool looked;                            /* the first one's lookup is answered */
	bool failed, draining;
	struct mark *marks;
	size_t n_marks;
	uint64_t post_epoch, post_count;
	inbox_request_fn *on_request;
	void *request_arg;
	inbox_durable_fn *on_durable;
	void *durable_arg;
	inbox_failed_fn *on_failure;
	void *failure_arg;
};

static void advance(struct inbox *in);

static void on_retry(void *arg)
{
	advance(arg);
}

enum im_status inbox_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			    struct delivery *delivery, struct link *link, struct lease *lease, struct inbox **out, struct im_err *err)
{
	const struct store_start *start = store_start(store);
	struct inbox *in = calloc(1, sizeof(*in));

	if (!in)
		return im_fail(err, IM_FAILED, "out of memory");
	in->marks = calloc(INBOX_MARKS, sizeof(*in->marks));
	in->retry = im_timer_create(loop, on_retry, in);
	if (!in->marks || !in->retry) {
		inbox_destroy(in);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	in->loop = loop;
	in->settings = settings;
	in->store = store;
	in->decider.roster = roster;
	in->delivery = delivery;
	in->link = link;
	in->decider.lease = lease;
	in->post_epoch = (uint64_t)im_clock_wall_ms();
	/* In order of age; beyond the limit the oldest ones are left out. */
	for (size_t i = start->n_high_water > INBOX_MARKS ? start->n_high_water - INBOX_MARKS : 0; i < start->n_high_water; i++) {
		if (start->high_water[i].node == 0)
			continue;
		in->marks[in->n_marks].durable = start->high_water[i];
		in->marks[in->n_marks++].expected = start->high_water[i].next;
	}
	*out = in;
	return IM_OK;
}

void inbox_destroy(struct inbox *in)
{
	if (!in)
		return;
	while (in->first) {
		struct batch *b = in->first;

		in->first = b->next;
		if (b->post)
			b->post(b->post_arg, IM_BUSY, NULL);
		batch_free(b);
	}
	while (in->retiring) {
		struct batch *b = in->retiring;

		in->retiring = b->next;
		batch_free(b);
	}
	recent_finish(&in->decider.recent);
	im_timer_destroy(in->retry);
	free(in->marks);
	free(in);
}

void inbox_on_request(struct inbox *in, inbox_request_fn *fn, void *arg)
{
	in->on_request = fn;
	in->request_arg = arg;
}

void inbox_on_durable(struct inbox *in, inbox_durable_fn *fn, void *arg)
{
	in->on_durable = fn;
	in->durable_arg = arg;
}

void inbox_on_failure(struct inbox *in, inbox_failed_fn *fn, void *arg)
{
	in->on_failure = fn;
	in->failure_arg = arg;
}

void inbox_stats(const struct inbox *in, struct inbox_stats *out)
{
	*out = in->decider.stats;
	out->waiting = in->queued;
}

bool inbox_idle(const struct inbox *in)
{
	return (in->draining || !in->first) && in->appending == 0;
}

/* Under load the queue never empties by itself. What is left in it is in the journal and comes again. */
void inbox_drain(struct inbox *in)
{
	in->draining = true;
}

void inbox_stop(struct inbox *in)
{
	in->failed = true;
}

static void fail(struct inbox *in, const char *why)
{
	if (in->failed)
		return;
	in->failed = true;
	in->on_failure(in->failure_arg, why);
}

/* ---------------------------------------------------------------- marks */

static struct mark *mark_find(struct inbox *in, uint32_t node, uint64_t epoch)
{
	for (size_t i = in->n_marks; i-- > 0;)
		if (in->marks[i].durable.node == node && in->marks[i].durable.epoch == epoch)
			return &in->marks[i];
	return NULL;
}

/* A new epoch's mark; the oldest is forgotten when there are too many: its journal is long gone. */
static struct mark *mark_add(struct inbox *in, uint32_t node, uint64_t epoch)
{
	struct mark *m;

	if (in->n_marks == INBOX_MARKS) {
		memmove(in->marks, in->marks + 1, (INBOX_MARKS - 1) * sizeof(*in->marks));
		in->n_marks--;
	}
	m = &in->marks[in->n_marks++];
	memset(m, 0, sizeof(*m));
	m->durable.node = node;
	m->durable.epoch = epoch;
	return m;
}

size_t inbox_marks(const struct inbox *in, uint32_t node, struct position *marks, size_t cap)
{
	size_t n = 0;

	for (size_t i = 0; i < in->n_marks; i++) {
		if (in->marks[i].durable.node != node)
			continue;
		if (n < cap)
			marks[n] = in->marks[i].durable;
		n++;
	}
	return n;
}

bool inbox_reached(struct inbox *in, uint32_t node, uint64_t epoch, uint64_t offset)
{
	const struct mark *m = mark_find(in, node, epoch);

	return offset == 0 || (m && m->durable.next >= offset);
}

/* ---------------------------------------------------------------- queued */

static void queue(struct inbox *in, struct batch *b)
{
	b->in = in;
	if (in->last)
		in->last->next = b;
	else
		in->first = b;
	in->last = b;
	in->queued += b->size;
	advance(in);
}

enum im_status inbox_slice(struct inbox *in, const Im__Bus__Slice *s)
{
	struct mark *mark = mark_find(in, s->node, s->epoch);
	struct batch *b;
	size_t n;

	if (in->failed || in->draining)
		return IM_OK;
	if (!mark)
		mark = mark_add(in, s->node, s->epoch);
	if (mark->expected != 0 && s->offset > mark->expected) {
		im_log(IM_LOG_ERROR, "evt=journal_gap epoch=%llu expected=%llu got=%llu", (unsigned long long)s->epoch,
		       (unsigned long long)mark->expected, (unsigned long long)s->offset);
		return IM_BAD_INPUT;
	}
	if (s->next <= mark->expected) {
		/* What became durable between our hello and its answer was confirmed to nobody. */
		if (s->next <= mark->durable.next)
			in->on_durable(in->durable_arg, s->epoch, mark->durable.next);
		return IM_OK;
	}
	if (in->queued > INBOX_QUEUE)
		return IM_BAD_INPUT;
	if (!batch_check(s, &n)) {
		im_log(IM_LOG_ERROR, "evt=slice_damaged epoch=%llu offset=%llu", (unsigned long long)s->epoch, (unsigned long long)s->offset);
		return IM_BAD_INPUT;
	}
	b = batch_of_slice(s, n, mark->expected);
	if (!b)
		return IM_BAD_INPUT;
	mark->expected = s->next;
	in->decider.stats.records += b->n_items;
	queue(in, b);
	return IM_OK;
}

void inbox_post(struct inbox *in, const Im__Bus__Record *r, const char *conv, inbox_join_fn *join, inbox_post_fn *done, void *arg)
{
	struct batch *b = batch_of_post(r, conv, in->post_epoch, in->post_count);

	if (!b) {
		done(arg, IM_FAILED, NULL);
		return;
	}
	in->post_count++;
	b->post = done;
	b->join = join;
	b->post_arg = arg;
	queue(in, b);
}

/* ---------------------------------------------------------------- looked up */

static void on_lookup(void *arg, enum im_status st)
{
	struct batch *b = arg;
	struct inbox *in = b->in;

	in->looking = false;
	if (st != IM_OK) {
		fail(in, "the store cannot be read");
		return;
	}
	if (!decision_learn(&in->decider, b)) {
		fail(in, "out of memory");
		return;
	}
	in->looked = true;
	advance(in);
}

/* ---------------------------------------------------------------- appended, done */

static void retire(struct inbox *in, struct batch *b)
{
	for (size_t i = 0; i < b->n_outcomes; i++) {
		struct outcome *o = &b->outcomes[i];

		if (o->kind == OUTCOME_MESSAGE && o->message->id[0])
			recent_forget_id(&in->decider.recent, o->message);
	}
	batch_free(b);
}

static void retire_all(struct inbox *in)
{
	while (in->retiring) {
		struct batch *b = in->retiring;

		in->retiring = b->next;
		retire(in, b);
	}
}

static void tell(struct inbox *in, struct outcome *o)
{
	const Im__Bus__Record *r = o->record;

	switch (o->kind) {
	case OUTCOME_MESSAGE:
		recent_stored(&in->decider.recent, o->message);
		delivery_message(in->delivery, o->message, r->session);
		if (r->session)
			delivery_ack(in->delivery, r->session, o->message, false);
		break;
	case OUTCOME_DUP:
		if (r->session)
			delivery_ack(in->delivery, r->session, o->message, true);
		break;
	case OUTCOME_CURSORS:
		IM_KILLPOINT("delivery.after_ack");
		delivery_cursors(in->delivery, r->user, r->client_id, r->session, (const Im__Bus__CursorMove *const *)r->cursors, r->n_cursors);
		break;
	case OUTCOME_REFUSAL:
		delivery_refusal(in->delivery, o->refusal, r->session);
		break;
	case OUTCOME_REQUEST:
		in->on_request(in->request_arg, r);
		break;
	}
}

static void on_append(void *arg, enum im_status st)
{
	struct batch *b = arg;
	struct inbox *in = b->in;
	struct mark *mark;

	in->appending--;
	if (st != IM_OK || in->failed) {
		fail(in, st == IM_FAILED ? "the store refused what was decided" : "the store failed to write");
		if (b->post)
			b->post(b->post_arg, IM_UNCERTAIN, NULL); /* may post again: nothing more is decided */
		b->next = in->retiring;
		in->retiring = b;
		return;
	}
	IM_KILLPOINT("inbox.before_telling");
	for (size_t i = 0; i < b->n_outcomes; i++)
		tell(in, &b->outcomes[i]);
	if (b->post) {
		b->post(b->post_arg, b->outcomes[0].message ? IM_OK : IM_BAD_INPUT, b->outcomes[0].message);
	} else {
		mark = mark_find(in, b->node, b->epoch);
		if (mark)
			mark->durable.next = b->slice_next;
		IM_KILLPOINT("inbox.before_confirm");
		in->on_durable(in->durable_arg, b->epoch, b->slice_next);
	}
	if (in->looking || in->looked) {
		b->next = in->retiring;
		in->retiring = b;
	} else {
		retire(in, b);
	}
	advance(in);
}

bool inbox_join(struct batch *b, const Im__Bus__RosterItem *item)
{
	struct store_entry *e = batch_entry(b, &b->items[0], STORE_ROSTER);

	if (e)
		e->roster = item;
	return e != NULL;
}

static void append(struct inbox *in, struct batch *b)
{
	struct store_entry *e;

	if (b->join && b->outcomes[0].message && !b->join(b->post_arg, b->outcomes[0].message, b)) {
		fail(in, "out of memory");
		return;
	}
	if (!b->post && (b->n_entries == 0 || b->entries[b->n_entries - 1].pos.next != b->slice_next)) {
		struct item end = {.next = b->slice_next};

		e = batch_entry(b, &end, STORE_POSITION);
		if (!e) {
			fail(in, "out of memory");
			return;
		}
	}
	in->appending++;
	store_append(in->store, b->entries, b->n_entries, on_append, b);
}

/* ---------------------------------------------------------------- the way through */

/* Decides the first batch as far as it goes. False: it waits for the lease, or something failed. */
static bool decide_first(struct inbox *in)
{
	struct batch *b = in->first;

	if (b->at > 0 && !decision_holds(&in->decider, b)) {
		im_log(IM_LOG_WARNING, "evt=redecided records=%zu why=\"a section was leased anew while they waited\"", b->at);
		decision_undo(&in->decider, b);
	}
	while (b->at < b->n_items) {
		enum im_status st = decision_make(&in->decider, b, &b->items[b->at]);

		if (st == IM_BUSY)
			return false; /* inbox_lease_changed comes */
		if (st != IM_OK) {
			fail(in, "out of memory");
			return false;
		}
		b->at++;
	}
	return true;
}

static bool may_take(struct inbox *in)
{
	if (!store_full(in->store) && link_pending(in->link) < (size_t)2 * LINK_WINDOW)
		return true;
	im_timer_start(in->retry, INBOX_RETRY_MS, 0);
	return false;
}

static void advance(struct inbox *in)
{
	while (in->first && !in->failed && !in->draining && !in->looking) {
		struct batch *b = in->first;

		if (!in->looked) {
			if (!may_take(in))
				return;
			if (!decision_prepare(&in->decider, b)) {
				fail(in, "out of memory");
				return;
			}
			if (b->n_convs || b->n_lookups) {
				in->looking = true;
				store_lookup(in->store, b->convs, b->n_convs, b->lookups, b->n_lookups, on_lookup, b);
				return;
			}
			in->looked = true;
		}
		if (!decide_first(in))
			return;
		in->first = b->next;
		if (!in->first)
			in->last = NULL;
		b->next = NULL;
		in->queued -= b->size;
		in->looked = false;
		retire_all(in);
		append(in, b);
	}
}

void inbox_lease_changed(struct inbox *in)
{
	advance(in);
}

void inbox_resume(struct inbox *in)
{
	advance(in);
}
