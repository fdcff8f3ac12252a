#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "inbox_world.h"

#include "base/buf.h"
#include "base/record.h"
#include "fake_timers.h"
#include "lease.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct world world;

/* ---- the journal */

static uint8_t *journal;
static size_t journal_len, journal_cap;

static size_t record_at(uint64_t offset)
{
	const uint8_t *p = journal + (offset - WORLD_BEGIN);

	return im_record_size((size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24);
}

uint64_t world_written(void)
{
	return WORLD_BEGIN + journal_len;
}

uint64_t world_write(const struct said *s)
{
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	Im__Bus__CursorMove move = IM__BUS__CURSOR_MOVE__INIT, second = IM__BUS__CURSOR_MOVE__INIT, *moves[2] = { &move, &second };
	char client_id[80];
	size_t len;

	snprintf(client_id, sizeof(client_id), "%s:pc", s->user);
	r.kind = s->kind;
	r.ts = 1700000000000 + (int64_t)journal_len;
	r.user = (char *)s->user;
	r.client_id = client_id;
	r.session = 5;
	r.id = (char *)(s->id ? s->id : "");
	r.conv = (char *)(s->conv ? s->conv : "");
	if (s->kind == IM__BUS__KIND__KIND_ACK) { /* two cursors: the one given, and the group's first message */
		move.conv = (char *)s->conv;
		move.delivered = strtoull(s->body, NULL, 10);
		second.conv = (char *)"g/friends";
		second.delivered = 1;
		r.cursors = moves;
		r.n_cursors = 2;
	} else if (s->kind == IM__BUS__KIND__KIND_REFUSAL) {
		r.code = (char *)s->body;
	} else if (s->body) {
		r.body.data = (uint8_t *)s->body;
		r.body.len = strlen(s->body);
		r.type = (char *)"text";
	}
	len = im__bus__record__get_packed_size(&r);
	if (journal_len + im_record_size(len) > journal_cap) {
		journal_cap = 2 * journal_cap + im_record_size(len) + 4096;
		journal = realloc(journal, journal_cap);
	}
	im__bus__record__pack(&r, journal + journal_len + IM_RECORD_HEADER);
	im_record_header(WORLD_EPOCH, world_written(), journal + journal_len + IM_RECORD_HEADER, len, journal + journal_len);
	journal_len += im_record_size(len);
	return world_written();
}

uint64_t world_bound(unsigned records, uint64_t from)
{
	while (records-- > 0 && from < world_written())
		from += record_at(from);
	return from;
}

enum im_status world_send(uint64_t from, uint64_t to)
{
	Im__Bus__Slice s = IM__BUS__SLICE__INIT;
	enum im_status st;

	s.node = WORLD_NODE;
	s.epoch = WORLD_EPOCH;
	s.offset = from;
	s.next = to;
	s.records.data = malloc((size_t)(to - from) + 1); /* it is copied: freed at once */
	s.records.len = (size_t)(to - from);
	memcpy(s.records.data, journal + (from - WORLD_BEGIN), s.records.len);
	st = inbox_slice(world.inbox, &s);
	free(s.records.data);
	return st;
}

/* ---- the store */

struct given {
	struct given *next;
	struct store_entry *entries;
	size_t n;
	char refusal_of[64];
	store_done_fn *done;
	void *arg;
};

static struct given *given;

static struct {
	struct store_lookup_conv *convs;
	struct store_lookup_id *ids;
	size_t n_convs, n_ids, seen;
	store_done_fn *done;
	void *arg;
} lookup;

static struct position high[WORLD_OLD_EPOCHS + 1];

const struct store_start *store_start(struct store *s)
{
	static struct store_start start;

	(void)s;
	for (unsigned i = 0; i < world.old_epochs; i++)
		high[i] = (struct position){ WORLD_NODE, WORLD_EPOCH - world.old_epochs + i, 77 };
	high[world.old_epochs] = (struct position){ WORLD_NODE, WORLD_EPOCH, world.high };
	start.high_water = high;
	start.n_high_water = world.old_epochs + (world.high != 0);
	return &start;
}

bool store_full(struct store *s)
{
	(void)s;
	return world.full;
}

void store_append(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg)
{
	struct given *g = calloc(1, sizeof(*g)), **end = &given;

	(void)s;
	g->entries = calloc(n + 1, sizeof(*entries));
	g->n = n;
	g->done = done;
	g->arg = arg;
	for (size_t i = 0; i < n; i++) {
		g->entries[i] = entries[i];
		if (entries[i].kind == STORE_MESSAGE)
			message_ref(entries[i].message);
		if (entries[i].kind == STORE_REFUSAL)
			snprintf(g->refusal_of, sizeof(g->refusal_of), "%s %s", entries[i].refusal->device, entries[i].refusal->error->code);
	}
	while (*end)
		end = &(*end)->next;
	*end = g;
}

/* All of an append or nothing. */
static void keep(struct given *g)
{
	for (size_t i = 0; i < g->n; i++) {
		const struct store_entry *e = &g->entries[i];

		if (e->kind == STORE_MESSAGE) {
			world.stored = realloc(world.stored, (world.n_stored + 1) * sizeof(struct message *));
			world.stored[world.n_stored++] = message_ref(e->message);
		}
		world.cursors += e->kind == STORE_CURSOR;
		world.refusals += e->kind == STORE_REFUSAL;
		if (e->pos.node == WORLD_NODE && e->pos.next > world.high)
			world.high = e->pos.next;
	}
	if (g->refusal_of[0])
		memcpy(world.refusal_of, g->refusal_of, sizeof(g->refusal_of));
}

static void given_free(struct given *g)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->entries[i].kind == STORE_MESSAGE)
			message_unref(g->entries[i].message);
	free(g->entries);
	free(g);
}

size_t world_appends(void)
{
	size_t n = 0;

	for (const struct given *g = given; g; g = g->next)
		n++;
	return n;
}

bool world_answer_append(enum im_status st)
{
	struct given *g = given;

	if (!g)
		return false;
	given = g->next;
	if (st == IM_OK)
		keep(g);
	g->done(g->arg, st);
	given_free(g);
	return true;
}

void store_lookup(struct store *s, struct store_lookup_conv *convs, size_t n_convs, struct store_lookup_id *ids, size_t n_ids,
		  store_done_fn *done, void *arg)
{
	(void)s;
	assert_null(lookup.done); /* one at a time */
	lookup.convs = convs;
	lookup.n_convs = n_convs;
	lookup.ids = ids;
	lookup.n_ids = n_ids;
	lookup.seen = world.n_stored;
	lookup.done = done;
	lookup.arg = arg;
}

bool world_looking(void)
{
	return lookup.done != NULL;
}

bool world_answer_lookup(enum im_status st)
{
	store_done_fn *done = lookup.done;
	size_t seen = world.late_reads ? world.n_stored : lookup.seen;

	if (!done)
		return false;
	for (size_t i = 0; i < lookup.n_convs; i++)
		for (size_t k = 0; k < seen; k++)
			if (strcmp(world.stored[k]->conv, lookup.convs[i].conv) == 0)
				lookup.convs[i].last_seq = world.stored[k]->seq;
	for (size_t i = 0; i < lookup.n_ids; i++)
		for (size_t k = 0; k < seen && !lookup.ids[i].found; k++)
			if (strcmp(world.stored[k]->id, lookup.ids[i].id) == 0 && strcmp(world.stored[k]->client_id, lookup.ids[i].client_id) == 0 &&
			    strcmp(world.stored[k]->from, lookup.ids[i].user) == 0)
				lookup.ids[i].found = message_ref(world.stored[k]);
	lookup.done = NULL;
	done(lookup.arg, st);
	return true;
}

void world_settle(void)
{
	do {
		struct im_timer *retry = fake_timer_due(FAKE_WHENEVER);

		if (retry && !world.full && !world.link_full)
			fake_timer_fire(retry);
	} while (world_answer_lookup(IM_OK) || world_answer_append(IM_OK));
}

/* ---- lease, link, delivery */

enum im_status lease_next(struct lease *l, uint32_t section, uint64_t last, uint64_t *seq, uint64_t *epoch)
{
	(void)l;
	(void)section;
	if (world.lease_away || (world.lease_ceiling && last >= world.lease_ceiling))
		return IM_BUSY;
	*seq = last + 1;
	*epoch = world.lease_epoch;
	return IM_OK;
}

bool lease_is_held(const struct lease *l, uint32_t section, uint64_t epoch)
{
	(void)l;
	(void)section;
	return epoch == world.lease_epoch;
}

size_t link_pending(const struct link *l)
{
	(void)l;
	return world.link_full ? 2 * LINK_WINDOW : 0;
}

static struct told *tell(enum told_kind kind)
{
	struct told *t;

	world.told = realloc(world.told, (world.n_told + 1) * sizeof(*world.told));
	t = &world.told[world.n_told++];
	memset(t, 0, sizeof(*t));
	t->kind = kind;
	return t;
}

static void tell_message(enum told_kind kind, const struct message *m)
{
	struct told *t = tell(kind);
	bool there = false;

	for (size_t i = 0; i < world.n_stored; i++)
		there |= strcmp(world.stored[i]->conv, m->conv) == 0 && world.stored[i]->seq == m->seq && strcmp(world.stored[i]->msgid, m->msgid) == 0;
	assert_true(there); /* nothing before durable */
	t->seq = m->seq;
	snprintf(t->text, sizeof(t->text), "%s %.*s", m->conv, (int)m->body_len, (const char *)m->body);
}

void delivery_message(struct delivery *d, struct message *m, uint64_t sender)
{
	(void)d;
	(void)sender;
	tell_message(TOLD_MESSAGE, m);
}

void delivery_ack(struct delivery *d, uint64_t session, struct message *m, bool dup)
{
	(void)d;
	assert_int_equal(session, 5);
	tell_message(dup ? TOLD_DUP : TOLD_ACK, m);
}

void delivery_cursors(struct delivery *d, const char *user, const char *client_id, uint64_t session, const Im__Bus__CursorMove *const *moves, size_t n)
{
	(void)d;
	(void)client_id;
	(void)session;
	assert_int_equal(n, 2);
	snprintf(tell(TOLD_CURSORS)->text, sizeof(world.told->text), "%s %s %llu", user, moves[0]->conv, (unsigned long long)moves[0]->delivered);
}

void delivery_refusal(struct delivery *d, const Im__Bus__StoredRefusal *r, uint64_t session)
{
	(void)d;
	(void)session;
	snprintf(tell(TOLD_REFUSAL)->text, sizeof(world.told->text), "%s %s", r->device, r->error->code);
}

static void on_request(void *arg, const Im__Bus__Record *r)
{
	(void)arg;
	snprintf(tell(TOLD_REQUEST)->text, sizeof(world.told->text), "%s", r->id);
}

static void on_durable(void *arg, uint64_t epoch, uint64_t next)
{
	(void)arg;
	assert_int_equal(epoch, WORLD_EPOCH);
	assert_true(next <= world.high); /* the plugin may delete below it */
	world.confirmed = next;
	world.confirms++;
}

static void on_failure(void *arg, const char *why)
{
	(void)arg;
	world.failed = why;
}

static void on_post(void *arg, enum im_status st, struct message *m)
{
	struct told *t;

	(void)arg;
	if (m)
		tell_message(TOLD_POST, m);
	t = m ? &world.told[world.n_told - 1] : tell(TOLD_POST);
	t->st = st;
}

void world_post(const char *user, const char *conv, const char *id, const char *body)
{
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	char canonical[IM_CONV_MAX];

	r.kind = IM__BUS__KIND__KIND_SEND;
	r.user = (char *)user;
	r.client_id = (char *)"$control";
	r.conv = (char *)conv;
	r.id = (char *)id;
	r.type = (char *)"text";
	r.body.data = (uint8_t *)body;
	r.body.len = strlen(body);
	assert_true(im_conv_canonical(user, conv, canonical));
	inbox_post(world.inbox, &r, canonical, NULL, on_post, NULL);
}

/* ---- the fixture */

static void apply(Im__Bus__RosterItem *item)
{
	item->version = roster_version(world.roster) + 1;
	assert_int_equal(roster_apply(world.roster, item), IM_OK);
}

static void add_user(const char *name)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User u = IM__BUS__USER__INIT;

	u.name = (char *)name;
	item.user = &u;
	apply(&item);
}

static void add_member(const char *user)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Member m = IM__BUS__MEMBER__INIT;

	m.group = (char *)"friends";
	m.user = (char *)user;
	m.role = (char *)"member";
	m.from_seq = 1;
	item.member = &m;
	apply(&item);
}

static void add_group(void)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Group g = IM__BUS__GROUP__INIT;

	g.name = (char *)"friends";
	g.owner = (char *)"alice";
	item.group = &g;
	apply(&item);
}

void world_start(void)
{
	struct im_err err;

	assert_int_equal(inbox_create(NULL, NULL, NULL, world.roster, NULL, NULL, NULL, &world.inbox, &err), IM_OK);
	inbox_on_request(world.inbox, on_request, NULL);
	inbox_on_durable(world.inbox, on_durable, NULL);
	inbox_on_failure(world.inbox, on_failure, NULL);
}

void world_create(void)
{
	memset(&world, 0, sizeof(world));
	world.lease_epoch = 1;
	world.roster = roster_create();
	add_user("alice");
	add_user("bob");
	add_user("carol");
	add_group();
	add_member("alice");
	add_member("bob");
	world_start();
}

void world_stop(void)
{
	inbox_stop(world.inbox);
	(void)world_answer_lookup(IM_UNCERTAIN);
	while (world_answer_append(IM_UNCERTAIN))
		;
	inbox_destroy(world.inbox);
	world.inbox = NULL;
}

void world_crash(size_t kept)
{
	size_t told = world.n_told;

	for (struct given *g = given; g && kept > 0; g = g->next, kept--)
		keep(g);
	world_stop();
	for (size_t i = told; i < world.n_told; i++)
		assert_int_equal(world.told[i].kind, TOLD_POST); /* whose askers hear that nothing is known */
	world_start();
}

void world_destroy(void)
{
	world_stop();
	for (size_t i = 0; i < world.n_stored; i++)
		message_unref(world.stored[i]);
	free(world.stored);
	free(world.told);
	roster_destroy(world.roster);
	free(journal);
	journal = NULL;
	journal_len = journal_cap = 0;
}

uint64_t world_mark(void)
{
	static struct position all[WORLD_OLD_EPOCHS + 1];
	size_t n = inbox_marks(world.inbox, WORLD_NODE, all, WORLD_OLD_EPOCHS + 1);

	for (size_t i = 0; i < n; i++)
		if (all[i].epoch == WORLD_EPOCH)
			return all[i].next;
	return 0;
}

const struct told *world_told(enum told_kind kind, size_t nth)
{
	for (size_t i = 0; i < world.n_told; i++)
		if (world.told[i].kind == kind && nth-- == 0)
			return &world.told[i];
	return NULL;
}

size_t world_count(enum told_kind kind)
{
	size_t n = 0;

	for (size_t i = 0; i < world.n_told; i++)
		n += world.told[i].kind == kind;
	return n;
}
