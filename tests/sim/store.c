/*
 * The store as the message service sees it: the real tail, which decides what may be appended, over a log and
 * rows that are an array. What was appended is held back until the schedule says that it is durable; a crash
 * keeps a front part of what was held back, or none of it.
 */
#include "sim.h"

#include "check.h"
#include "store.h"
#include "store_ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_MOST 8192
#define READS_MOST 256
#define HIGH_MOST 256

struct store {
	struct store_tail *tail;
	struct store_asker asker;
	struct append_queue waiting;
	struct store_read *reads[READS_MOST];
	size_t n_reads;
	size_t settled;       /* so many of the log have rows */
	struct store_start start;
	struct position high[HIGH_MOST];
	bool broken, lost;    /* ... and something that was given is not in the log: nor is anything after it */
};

static struct append *image[LOG_MOST];
static size_t n_image;
static size_t fresh_from; /* of a restored copy: what epochs it knew is of no use (seq.h) */
static struct position floors[HIGH_MOST]; /* what the restoring of a copy has raised marks to */
static size_t n_floors;
static unsigned generation;
static struct store *open_store;
bool store_is_full;

/* ---- the log */

static void keep(struct append *a)
{
	if (n_image == LOG_MOST)
		sim_fail("more than %d appends", LOG_MOST);
	image[n_image++] = append_ref(a);
	check_durable(a);
}

/* Whatever the rows know of a conversation. */
static struct message *row_of(const struct store *s, size_t i, size_t k, const char *conv)
{
	const struct entry *e = &image[i]->entries[k];

	(void)s;
	return e->kind == STORE_MESSAGE && strcmp(e->message.m->conv, conv) == 0 ? e->message.m : NULL;
}

#define EACH_ROW(s, conv, m)                                      \
	for (size_t i_ = 0; i_ < (s)->settled; i_++)              \
		for (size_t k_ = 0; k_ < image[i_]->n; k_++)      \
			for (struct message *m = row_of(s, i_, k_, conv); m; m = NULL)

static bool rows_last(void *arg, const char *conv, uint64_t *seq, int64_t *ts)
{
	struct store *s = arg;

	*seq = 0;
	*ts = 0;
	EACH_ROW (s, conv, m) {
		*seq = m->seq;
		*ts = m->ts;
	}
	return true;
}

static bool rows_find(void *arg, const char *conv, uint64_t seq, struct message **out)
{
	struct store *s = arg;

	*out = NULL;
	EACH_ROW (s, conv, m)
		if (m->seq == seq && !*out)
			*out = message_ref(m);
	return true;
}

/* ---- reads: what the rows have to say */

static void rows_lookup(struct store *s, struct store_read *r)
{
	for (size_t i = 0; i < r->n_convs; i++)
		if (r->pinned[i])
			(void)rows_last(s, r->convs[i].conv, &r->convs[i].last_seq, &r->last_ts[i]);
	for (size_t i = 0; i < r->n_ids; i++) {
		struct store_lookup_id *id = &r->ids[i];

		for (size_t at = 0; at < s->settled && !id->found && r->days[i]; at++) {
			for (size_t k = 0; k < image[at]->n && !id->found; k++) {
				const struct entry *e = &image[at]->entries[k];
				int64_t ago;

				if (e->kind != STORE_MESSAGE || e->message.id_hash != r->hashes[i])
					continue;
				ago = r->today - entry_day(e->message.m);
				if (ago >= 0 && ago < 64 && (r->days[i] >> ago & 1))
					id->found = message_ref(e->message.m);
			}
		}
	}
}

static void rows_history(struct store *s, struct store_read *r)
{
	struct message *list[SIM_MESSAGES * 2];
	size_t n = 0;

	EACH_ROW (s, r->conv, m)
		if (m->seq >= r->range.from && m->seq <= r->row_to)
			list[n++] = m;
	for (size_t i = 0; i < n; i++) {
		struct message *m = list[r->range.newest_first ? n - 1 - i : i];

		if (!read_wants_more(r, m)) {
			r->rows_cut = true;
			return;
		}
		if (!read_add_message(r, message_ref(m)))
			return;
	}
}

static void rows_unread(struct store *s, struct store_read *r)
{
	EACH_ROW (s, r->conv, m)
		if (m->seq >= r->range.from && m->seq <= r->row_to && r->count < UNREAD_MOST)
			r->count += read_counts(r, m);
}

/* The rows of a user are what the entries say that made them, in their order: in front of what the tail adds. */
static void rows_user(struct store *s, struct store_read *r)
{
	size_t n = 0, cap = r->n_notes;
	struct tail_note *all;
	struct entry_room room;
	const char *users[2];
	struct read_conv *c;

	for (size_t i = 0; i < s->settled; i++)
		cap += image[i]->n;
	all = calloc(cap + 1, sizeof(*all));
	for (size_t i = 0; i < s->settled; i++) {
		for (size_t k = 0; k < image[i]->n; k++) {
			const struct entry *e = &image[i]->entries[k];
			size_t of = entry_users(e, &room, users);

			while (of-- > 0)
				if (strcmp(users[of], r->user) == 0)
					all[n++] = (struct tail_note){.owner = append_ref(image[i]), .entry = e};
		}
	}
	if (r->n_notes)
		memcpy(all + n, r->notes, r->n_notes * sizeof(*all));
	free(r->notes);
	r->notes = all;
	r->n_notes += n;
	read_overlay(r);
	for (c = r->user_convs; c; c = c->hh.next)
		(void)rows_last(s, c->name, &c->last_seq, &c->last_ts);
}

static void read_rows(struct store *s, struct store_read *r)
{
	switch (r->kind) {
	case READ_LOOKUP: rows_lookup(s, r); break;
	case READ_HISTORY: rows_history(s, r); break;
	case READ_UNREAD: rows_unread(s, r); break;
	default: rows_user(s, r); break;
	}
}

static void ask(void *store, struct store_read *r)
{
	struct store *s = store;

	if (s->n_reads == READS_MOST)
		sim_fail("more than %d reads at a time", READS_MOST);
	s->reads[s->n_reads++] = r;
	if (sim_chance(50) && r->needs_rows) { /* as of now; else as of the answer */
		read_rows(s, r);
		r->needs_rows = false;
		r->asked_ms = -1;
	}
}

static void answer_read(struct store *s, size_t at, enum im_status st)
{
	struct store_read *r = s->reads[at];

	memmove(s->reads + at, s->reads + at + 1, (s->n_reads - at - 1) * sizeof(s->reads[0]));
	s->n_reads--;
	if (st != IM_OK)
		r->st = st;
	else if (r->needs_rows)
		read_rows(s, r);
	else if (r->asked_ms != -1)
		read_overlay(r);
	r->asked_ms = fake_now_ms;
	read_answer(r, s->tail);
}

void store_answer_read(bool fail)
{
	size_t at = sim_random((unsigned)open_store->n_reads);
	enum read_kind kind = open_store->reads[at]->kind;

	fail = fail && kind != READ_LOOKUP; /* a lookup that fails ends the service */
	if (fail)
		COUNT(reads_failed);
	loop_gathers = true;
	answer_read(open_store, at, fail ? IM_FAILED : IM_OK);
}

size_t store_reading(void)
{
	return open_store ? open_store->n_reads : 0;
}

/* ---- appends */

size_t store_waiting(void)
{
	size_t n = 0;

	for (struct append *a = open_store ? open_store->waiting.first : NULL; a; a = a->next)
		n++;
	return n;
}

/* Nobody hears which of the two it was. */
static void lose_or_keep(struct store *s, struct append *a)
{
	s->lost = s->lost || sim_chance(50);
	if (s->lost) {
		COUNT(appends_lost);
		store_tail_drop(s->tail, a);
	} else {
		COUNT(appends_kept);
		keep(a);
		store_tail_answer(s->tail, a);
	}
	a->st = IM_UNCERTAIN;
}

/* Several that were synced together are in the tail before the first of them is told. */
void store_complete(size_t n)
{
	struct append_queue done;
	struct append *a;
	bool failed = open_store->broken && open_store->waiting.first;

	append_queue_init(&done);
	while (n-- > 0 && (a = append_queue_take(&open_store->waiting))) {
		if (open_store->broken && a->st == IM_OK) {
			lose_or_keep(open_store, a);
		} else if (a->st == IM_OK) {
			keep(a);
			store_tail_answer(open_store->tail, a);
		}
		append_queue_put(&done, a);
	}
	open_store->lost |= failed; /* whatever comes after a write that failed is not written */
	loop_gathers = true;
	while ((a = append_queue_take(&done))) {
		a->done(a->arg, a->st);
		append_unref(a);
	}
}

void store_settle_one(void)
{
	if (!open_store || open_store->settled == n_image)
		return;
	COUNT(settled);
	store_tail_settle(open_store->tail, image[open_store->settled++]);
}

/* The log cannot be written: what is held back may be there or not, and nothing more is taken. */
void store_break(void)
{
	COUNT(store_failures);
	open_store->broken = true;
}

bool store_fence(uint32_t section, uint64_t epoch)
{
	Im__Bus__StoredSection row = IM__BUS__STORED_SECTION__INIT;
	const Im__Bus__StoredSection *list = &row;
	struct store_entry e = {.kind = STORE_SECTIONS, .sections = &list, .n_sections = 1};
	struct append *a;

	if (!open_store || open_store->broken || open_store->waiting.first)
		return false; /* it would overtake what is on its way */
	COUNT(fenced);
	row.section = section;
	row.epoch = epoch;
	a = ask_append(&open_store->asker, &e, 1, NULL, NULL);
	keep(a);
	store_tail_answer(open_store->tail, a);
	append_unref(a);
	return true;
}

/* ---- opening and closing */

static void read_start(struct store *s)
{
	for (size_t i = 0; i < n_image; i++) {
		for (size_t k = 0; k < image[i]->n; k++) {
			const struct entry *e = &image[i]->entries[k];
			size_t at = 0;

			if (e->kind == STORE_MESSAGE && e->message.id_hash)
				store_tail_note_row(s->tail, entry_day(e->message.m), e->message.id_hash);
			for (size_t n = 0; e->kind == STORE_SECTIONS && i >= fresh_from && n < e->sections.n; n++)
				if (store_tail_sections(s->tail)[e->sections.list[n].section] < e->sections.list[n].epoch)
					store_tail_sections(s->tail)[e->sections.list[n].section] = e->sections.list[n].epoch;
			if (!e->pos.node)
				continue;
			while (at < s->start.n_high_water && s->high[at].epoch != e->pos.epoch)
				at++;
			if (at == s->start.n_high_water)
				s->start.n_high_water++;
			if (s->high[at].next <= e->pos.next)
				s->high[at] = e->pos;
		}
	}
	for (size_t i = 0; i < s->start.n_high_water; i++)
		for (size_t k = 0; k < n_floors; k++)
			if (s->high[i].epoch == floors[k].epoch && s->high[i].next < floors[k].next)
				s->high[i].next = floors[k].next;
	s->start.high_water = s->high;
	s->start.section_epochs = store_tail_sections(s->tail);
	(void)snprintf(s->start.epoch, sizeof(s->start.epoch), "%032x", generation);
}

enum im_status store_open(const char *url, struct im_loop *loop, const struct im_settings *settings, struct store **out, struct im_err *err)
{
	struct store *s = calloc(1, sizeof(*s));
	struct tail_options o = {.rows = {rows_last, rows_find, s}, .dedupe_days = settings->dedupe_days, .bloom = true};

	(void)url;
	(void)loop;
	(void)err;
	append_queue_init(&s->waiting);
	s->tail = store_tail_create(&o);
	s->asker = (struct store_asker){s->tail, ask, s};
	s->settled = n_image;
	read_start(s);
	*out = open_store = s;
	return IM_OK;
}

extern bool offline_is_dying; /* killed: nothing it does now happens */

/* Whatever is still asked from the answers is answered too. */
void store_close(struct store *s)
{
	struct append *a;

	if (!s)
		return;
	s->broken = s->broken || offline_is_dying;
	while (s->waiting.first || s->n_reads) {
		while (s->n_reads)
			answer_read(s, 0, IM_UNCERTAIN);
		a = append_queue_take(&s->waiting);
		if (a && a->st == IM_OK && s->broken) {
			lose_or_keep(s, a);
		} else if (a && a->st == IM_OK) {
			keep(a);
			store_tail_answer(s->tail, a);
		}
		if (a)
			a->done(a->arg, a->st);
		append_unref(a);
	}
	store_tail_destroy(s->tail);
	free(s);
	open_store = NULL;
}

const struct store_start *store_start(struct store *s)
{
	return &s->start;
}

void store_roster(struct store *s, store_roster_fn *row, void *arg)
{
	(void)s;
	for (size_t i = 0; i < n_image; i++) {
		for (size_t k = 0; k < image[i]->n; k++) {
			const struct entry *e = &image[i]->entries[k];
			Im__Bus__RosterItem *item = e->kind == STORE_ROSTER ? im__bus__roster_item__unpack(NULL, e->packed.len, e->packed.data) : NULL;

			if (item)
				row(arg, item);
			im__bus__roster_item__free_unpacked(item, NULL);
		}
	}
}

void store_append(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg)
{
	append_queue_put(&s->waiting, ask_append(&s->asker, entries, n, done, arg));
}

void store_lookup(struct store *s, struct store_lookup_conv *convs, size_t n_convs, struct store_lookup_id *ids, size_t n_ids, store_done_fn *done, void *arg)
{
	ask_lookup(&s->asker, convs, n_convs, ids, n_ids, done, arg);
}

void store_history(struct store *s, const struct store_range *range, store_message_fn *row, store_done_fn *done, void *arg)
{
	COUNT(pages);
	ask_history(&s->asker, range, row, done, arg);
}

void store_conversations(struct store *s, const char *user, store_conversation_fn *row, store_done_fn *done, void *arg)
{
	ask_conversations(&s->asker, user, row, done, arg);
}

void store_unread(struct store *s, const char *user, const char *conv, uint64_t read, store_count_fn *done, void *arg)
{
	ask_unread(&s->asker, user, conv, read, done, arg);
}

void store_device(struct store *s, const char *user, const char *device, store_device_fn *row, store_cursor_fn *cursor,
		  store_refusal_fn *refusal, store_done_fn *done, void *arg)
{
	ask_device(&s->asker, user, device, row, cursor, refusal, done, arg);
}

void store_devices(struct store *s, const char *user, store_device_fn *row, store_done_fn *done, void *arg)
{
	ask_devices(&s->asker, user, row, done, arg);
}

bool store_full(struct store *s)
{
	(void)s;
	return store_is_full;
}

void store_stats(struct store *s, struct store_stats *out)
{
	(void)s;
	memset(out, 0, sizeof(*out));
}

/* ---- a schedule's beginning and end */

/* Who there is at the beginning. */
static void first_item(Im__Bus__RosterItem *item)
{
	struct store_entry e = {.kind = STORE_ROSTER, .roster = item};
	static uint64_t version;
	struct append *a;

	version = n_image + 1;
	item->version = version;
	a = append_create(&e, 1);
	keep(a);
	append_unref(a);
}

static void first_group(const char *name, unsigned members)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Member m = IM__BUS__MEMBER__INIT;
	Im__Bus__Group g = IM__BUS__GROUP__INIT;

	g.name = m.group = (char *)(uintptr_t)name;
	g.owner = (char *)(uintptr_t)sim_users[0];
	item.group = &g;
	first_item(&item);
	item.group = NULL;
	item.member = &m;
	m.from_seq = 1;
	for (unsigned i = 0; i < members; i++) {
		m.user = (char *)(uintptr_t)sim_users[i];
		m.role = (char *)(uintptr_t)(i ? "member" : "owner");
		first_item(&item);
	}
}

void store_begin(void)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User u = IM__BUS__USER__INIT;

	n_image = fresh_from = n_floors = 0;
	generation = 1;
	store_is_full = false;
	item.user = &u;
	for (unsigned i = 0; i < 3; i++) {
		u.name = (char *)(uintptr_t)sim_users[i];
		first_item(&item);
	}
	first_group("tea", 2);
	first_group("jam", 3);
}

/* Push is switched off here; its code is only linked. */
void store_push(struct store *s, store_push_fn *row, void *arg)
{
	(void)s;
	(void)row;
	(void)arg;
}

void store_stream(struct store *s, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg)
{
	(void)s;
	(void)after;
	(void)limit;
	(void)row;
	(void)done;
	(void)arg;
	abort();
}

void store_end(void)
{
	while (n_image)
		append_unref(image[--n_image]);
}

void store_roll_back(void)
{
	size_t n = 12 + (n_image > 12 ? sim_random((unsigned)(n_image - 12) + 1) : 0);

	if (n >= n_image)
		return;
	COUNT(store_rolled_back);
	sim_trace("the store is a copy of when it had %zu appends instead of %zu", n, n_image);
	while (n_image > n)
		append_unref(image[--n_image]);
	fresh_from = n_image;
	generation++;
	check_rolled_back(image, n_image);
}

/* As imctl restore does: what was between the copy's mark and there is lost. */
void store_raise_mark(uint64_t epoch, uint64_t begins)
{
	if (n_floors == HIGH_MOST)
		sim_fail("more than %d marks were raised", HIGH_MOST);
	floors[n_floors++] = (struct position){1, epoch, begins};
}
