/*
 * What store.h promises, asked of every driver. Each promise runs three ways: against memory, against sqlite
 * just written (everything still in its tail), and against sqlite after a restart (everything in its rows).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "store_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum way { MEMORY, TAIL, ROWS };

struct run {
	struct fixture f;
	enum way way;
};

/* Between writing and asking: restart, if this run asks the rows. */
static void settle(struct run *r)
{
	if (r->way == ROWS)
		fixture_reopen(&r->f);
}

static const char conv[] = "u/alice:bob";

static void write_messages(struct run *r, uint64_t n)
{
	for (uint64_t seq = 1; seq <= n; seq++) {
		char id[24];

		snprintf(id, sizeof(id), "m%llu", (unsigned long long)seq);
		assert_int_equal(append_text(&r->f, conv, seq, seq % 2 ? "alice" : "bob", id), IM_OK);
	}
}

/* ---- promises */

static void answered_messages_are_read_back_in_order(struct run *r)
{
	struct store_range range = { .conv = conv, .limit = 100 };
	struct seqs s;

	write_messages(r, 20);
	settle(r);
	assert_int_equal(history(&r->f, &range, &s), IM_OK);
	assert_int_equal(s.n, 20);
	for (size_t i = 0; i < s.n; i++)
		assert_int_equal(s.list[i], i + 1);
	assert_int_equal(last_seq(&r->f, conv), 20);
	assert_int_equal(last_seq(&r->f, "u/alice:carol"), 0);
}

static void ranges_limits_and_bytes_bound_history(struct run *r)
{
	static const struct {
		struct store_range range;
		size_t n;
		uint64_t first, last;
	} cases[] = {
		{ { conv, 5, 9, 100, 0, false }, 5, 5, 9 },
		{ { conv, 5, 9, 100, 0, true }, 5, 9, 5 },
		{ { conv, 1, 0, 3, 0, false }, 3, 1, 3 },
		{ { conv, 1, 0, 3, 0, true }, 3, 20, 18 },
		{ { conv, 19, 0, 100, 0, false }, 2, 19, 20 },
		{ { conv, 1, 0, 100, 15, false }, 3, 1, 3 },  /* "hello" is 5 bytes */
		{ { conv, 1, 0, 100, 15, true }, 3, 20, 18 },
		{ { conv, 1, 0, 100, 1, false }, 1, 1, 1 },   /* at least one */
		{ { conv, 21, 0, 100, 0, false }, 0, 0, 0 },
		{ { "u/alice:carol", 1, 0, 100, 0, false }, 0, 0, 0 },
	};
	struct seqs s;

	write_messages(r, 10);
	settle(r);
	for (uint64_t seq = 11; seq <= 20; seq++) /* after a restart: half in rows, half in the tail */
		assert_int_equal(append_text(&r->f, conv, seq, "alice", ""), IM_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(history(&r->f, &cases[i].range, &s), IM_OK);
		assert_int_equal(s.n, cases[i].n);
		if (s.n) {
			assert_int_equal(s.list[0], cases[i].first);
			assert_int_equal(s.list[s.n - 1], cases[i].last);
		}
	}
}

static void a_page_that_is_full_has_no_hole(struct run *r)
{
	struct store_range up = { .conv = conv, .limit = 100, .max_bytes = 15 }, down = { .conv = conv, .limit = 100, .max_bytes = 15, .newest_first = true };
	struct seqs s;

	assert_int_equal(append_text(&r->f, conv, 1, "alice", ""), IM_OK); /* 5 bytes */
	assert_int_equal(append_message(&r->f, make_message(&r->f, conv, 2, "alice", "", "larger than what is left")), IM_OK);
	settle(r);
	assert_int_equal(append_text(&r->f, conv, 3, "alice", ""), IM_OK); /* would fit behind the first, and is no longer in the rows */
	assert_int_equal(history(&r->f, &up, &s), IM_OK);
	assert_int_equal(s.n, 1);
	assert_int_equal(s.list[0], 1);
	assert_int_equal(history(&r->f, &down, &s), IM_OK);
	assert_int_equal(s.n, 1);
	assert_int_equal(s.list[0], 3);
}

static void everything_said_comes_back(struct run *r)
{
	char *mentions[] = { (char *)(uintptr_t)"bob", (char *)(uintptr_t)"all" };
	Im__Bus__Record rec = IM__BUS__RECORD__INIT;
	struct position pos = { 1, 77, 500 };
	struct message *m, *found;

	rec.ts = (int64_t)time(NULL) * 1000;
	rec.user = (char *)(uintptr_t)"alice";
	rec.client_id = (char *)(uintptr_t)"alice:pc";
	rec.id = (char *)(uintptr_t)"x1";
	rec.type = (char *)(uintptr_t)"image";
	rec.enc = IM__V1__ENC__ENC_BYTES;
	rec.body.data = (uint8_t *)(uintptr_t)"a\0b";
	rec.body.len = 3;
	rec.ct = (char *)(uintptr_t)"image/png";
	rec.alt = (char *)(uintptr_t)"a picture";
	rec.reply = (char *)(uintptr_t)"r";
	rec.ext = (char *)(uintptr_t)"{}";
	rec.mentions = mentions;
	rec.n_mentions = 2;
	rec.expiry = 12345;
	m = message_create(&rec, "g/friends", &pos, "00000000000000000000000001");
	m->seq = 9;
	m->prev = 7;
	m->section_epoch = 1;
	message_ref(m);
	assert_int_equal(append_message(&r->f, m), IM_OK);
	settle(r);
	found = find_id(&r->f, "alice", "x1");
	assert_non_null(found);
	assert_string_equal(found->msgid, m->msgid);
	assert_string_equal(found->conv, "g/friends");
	assert_string_equal(found->type, "image");
	assert_string_equal(found->ct, "image/png");
	assert_string_equal(found->alt, "a picture");
	assert_string_equal(found->reply, "r");
	assert_string_equal(found->ext, "{}");
	assert_int_equal(found->n_mentions, 2);
	assert_string_equal(found->mentions[1], "all");
	assert_int_equal(found->seq, 9);
	assert_int_equal(found->prev, 7);
	assert_int_equal(found->ts, m->ts);
	assert_int_equal(found->expiry, 12345);
	assert_int_equal(found->enc, IM__V1__ENC__ENC_BYTES);
	assert_int_equal(found->body_len, 3);
	assert_memory_equal(found->body, "a\0b", 3);
	assert_true(found->body_hash == m->body_hash);
	message_unref(found);
	message_unref(m);
}

static void a_repeated_id_is_found_and_others_are_not(struct run *r)
{
	struct message *m;

	write_messages(r, 10);
	settle(r);
	m = find_id(&r->f, "alice", "m3");
	assert_non_null(m);
	assert_int_equal(m->seq, 3);
	message_unref(m);
	assert_null(find_id(&r->f, "bob", "m3"));
	assert_null(find_id(&r->f, "alice", "m11"));
}

static void an_older_section_epoch_is_fenced_off(struct run *r)
{
	Im__Bus__StoredSection section = IM__BUS__STORED_SECTION__INIT;
	const Im__Bus__StoredSection *list[] = { &section };
	struct store_entry e = { .kind = STORE_SECTIONS, .sections = list, .n_sections = 1 };
	struct message *m;

	r->f.own = true;
	section.section = im_conv_section(conv);
	section.epoch = 5;
	assert_int_equal(append_entry(&r->f, &e), IM_OK);
	settle(r);
	assert_int_equal(store_start(r->f.store)->section_epochs[section.section], 5);
	assert_int_equal(append_text(&r->f, conv, 1, "alice", "m1"), IM_FAILED); /* epoch 1 */
	assert_int_equal(last_seq(&r->f, conv), 0);
	m = make_message(&r->f, conv, 1, "alice", "m1", "hello");
	m->section_epoch = 5;
	assert_int_equal(append_message(&r->f, m), IM_OK);
}

static void a_sequence_is_given_once(struct run *r)
{
	struct store_range range = { .conv = conv, .limit = 100 };
	struct message *m;
	struct seqs s;

	r->f.own = true;
	m = make_message(&r->f, conv, 1, "alice", "a", "first");
	assert_int_equal(append_message(&r->f, message_ref(m)), IM_OK);
	settle(r);
	assert_int_equal(append_text(&r->f, conv, 1, "bob", "b"), IM_FAILED);
	assert_null(find_id(&r->f, "bob", "b"));
	assert_int_equal(append_message(&r->f, m), IM_OK); /* the very same again: as good as done */
	assert_int_equal(history(&r->f, &range, &s), IM_OK);
	assert_int_equal(s.n, 1);
}

static void count_done(void *arg, enum im_status st)
{
	unsigned *left = arg;

	assert_int_equal(st, IM_FAILED);
	(*left)--;
}

static void a_refused_append_leaves_nothing(struct run *r)
{
	struct message *m[3] = { make_message(&r->f, conv, 1, "alice", "a", "x"), make_message(&r->f, conv, 2, "alice", "b", "x"),
				 make_message(&r->f, conv, 2, "bob", "c", "y") };
	struct store_entry e[3];
	unsigned left = 1;

	memset(e, 0, sizeof(e));
	for (int i = 0; i < 3; i++)
		e[i] = (struct store_entry){ .kind = STORE_MESSAGE, .pos = m[i]->pos, .message = m[i] };
	store_append(r->f.store, e, 3, count_done, &left);
	run_until_zero(&r->f, &left);
	for (int i = 0; i < 3; i++)
		message_unref(m[i]);
	settle(r);
	r->f.own = true;
	assert_int_equal(last_seq(&r->f, conv), 0);
	assert_null(find_id(&r->f, "alice", "a"));
	assert_int_equal(append_text(&r->f, conv, 1, "alice", "a"), IM_OK);
}

/* Its position would say that the refused one is in the store, and nobody would ever send that again. */
static void behind_a_refused_append_nothing_of_a_journal_is_taken(struct run *r)
{
	assert_int_equal(append_text(&r->f, conv, 1, "alice", ""), IM_OK);
	settle(r);
	assert_int_equal(append_text(&r->f, conv, 1, "bob", ""), IM_FAILED);
	assert_int_equal(append_text(&r->f, "u/alice:carol", 1, "alice", ""), IM_FAILED);
	r->f.own = true;
	assert_int_equal(append_text(&r->f, "u/alice:carol", 1, "alice", ""), IM_OK);
	r->f.own = false;
	if (r->way == MEMORY)
		return;
	fixture_reopen(&r->f);
	assert_int_equal(append_text(&r->f, conv, 2, "bob", ""), IM_OK);
}

static void move(struct run *r, const char *user, const char *device_id, const char *in, uint64_t delivered, uint64_t read)
{
	struct store_entry e = { .kind = STORE_CURSOR, .cursor = { user, device_id, in, delivered, read } };

	assert_int_equal(append_entry(&r->f, &e), IM_OK);
}

static void cursors_never_move_back(struct run *r)
{
	struct conversations c;
	struct device_view v;

	write_messages(r, 10);
	move(r, "bob", "bob:phone", conv, 7, 5);
	settle(r);
	move(r, "bob", "bob:phone", conv, 3, 2);
	move(r, "bob", "", conv, 0, 6);
	move(r, "bob", "bob:pc", conv, 9, 0);
	device(&r->f, "bob", "bob:phone", &v);
	assert_int_equal(v.cursors, 1);
	assert_int_equal(v.cursor[0].delivered, 7);
	assert_int_equal(v.cursor[0].read, 6);
	conversations(&r->f, "bob", &c);
	assert_int_equal(c.n, 1);
	assert_int_equal(c.list[0].last_seq, 10);
	assert_int_equal(c.list[0].read, 6);
	assert_int_equal(c.list[0].delivered, 9);
	assert_true(c.list[0].last_ts > 0);
}

static void both_parties_have_the_conversation_from_its_first_message(struct run *r)
{
	struct conversations c;

	write_messages(r, 1);
	settle(r);
	conversations(&r->f, "alice", &c);
	assert_non_null(conversation(&c, conv));
	conversations(&r->f, "bob", &c);
	assert_non_null(conversation(&c, conv));
	conversations(&r->f, "carol", &c);
	assert_int_equal(c.n, 0);
}

static void set_device(struct run *r, const char *user, const char *id, bool removed, uint32_t max_packet)
{
	struct store_entry e = { .kind = STORE_DEVICE, .device = { .user = user, .device = id, .named = true, .acks = true, .removed = removed,
								   .max_packet = max_packet, .seen_ms = 99 } };

	assert_int_equal(append_entry(&r->f, &e), IM_OK);
}

static void removed_devices_forget_their_cursors(struct run *r)
{
	struct device_view v;

	set_device(r, "bob", "bob:phone", false, 256);
	set_device(r, "bob", "bob:pc", false, 0);
	move(r, "bob", "bob:phone", conv, 7, 0);
	settle(r);
	device(&r->f, "bob", "bob:phone", &v);
	assert_int_equal(v.devices, 1);
	assert_int_equal(v.device.max_packet, 256);
	assert_int_equal(v.device.seen_ms, 99);
	assert_true(v.device.named && v.device.acks);
	assert_int_equal(v.cursors, 1);
	assert_int_equal(devices(&r->f, "bob"), 2);
	set_device(r, "bob", "bob:phone", true, 0);
	device(&r->f, "bob", "bob:phone", &v);
	assert_int_equal(v.devices + v.cursors, 0);
	set_device(r, "bob", "bob:phone", false, 0);
	move(r, "bob", "bob:phone", conv, 2, 0);
	settle(r);
	device(&r->f, "bob", "bob:phone", &v);
	assert_int_equal(v.cursors, 1);
	assert_int_equal(v.cursor[0].delivered, 2);
	assert_int_equal(devices(&r->f, "bob"), 2);
}

static void refuse(struct run *r, uint64_t key, bool done)
{
	Im__Bus__StoredRefusal refusal = IM__BUS__STORED_REFUSAL__INIT;
	struct store_entry e = { .kind = STORE_REFUSAL, .refusal = &refusal };

	refusal.key = key;
	refusal.user = (char *)(uintptr_t)"bob";
	refusal.device = (char *)(uintptr_t)"bob:pc";
	refusal.done = done;
	assert_int_equal(append_entry(&r->f, &e), IM_OK);
}

static void owed_refusals_stay_until_done(struct run *r)
{
	struct device_view v;

	refuse(r, 1, false);
	refuse(r, UINT64_MAX, false);
	settle(r);
	refuse(r, 3, false);
	refuse(r, 1, true);
	device(&r->f, "bob", "bob:pc", &v);
	assert_int_equal(v.refusals, 2);
	device(&r->f, "bob", "bob:phone", &v);
	assert_int_equal(v.refusals, 0);
	settle(r);
	device(&r->f, "bob", "bob:pc", &v);
	assert_int_equal(v.refusals, 2);
}

static void unread_counts_others_and_stops_at_a_hundred(struct run *r)
{
	write_messages(r, 20); /* odd: alice */
	settle(r);
	assert_int_equal(unread(&r->f, "bob", conv, 0), 10);
	assert_int_equal(unread(&r->f, "alice", conv, 10), 5);
	assert_int_equal(unread(&r->f, "bob", conv, 20), 0);
	for (uint64_t seq = 21; seq <= 120; seq++)
		assert_int_equal(append_text(&r->f, conv, seq, "alice", ""), IM_OK);
	assert_int_equal(unread(&r->f, "bob", conv, 0), 100);
	assert_int_equal(unread(&r->f, "bob", conv, 10), 100);
	assert_int_equal(unread(&r->f, "bob", conv, 30), 90);
}

static void add_item(struct run *r, Im__Bus__RosterItem *item)
{
	struct store_entry e = { .kind = STORE_ROSTER, .roster = item };

	assert_int_equal(append_entry(&r->f, &e), IM_OK);
}

static void on_item(void *arg, const Im__Bus__RosterItem *item)
{
	uint64_t *seen = arg;

	assert_true(item->version > *seen);
	*seen = item->version;
	if (item->version == 4)
		assert_string_equal(item->user->title, "Bob");
}

static void groups_come_with_membership_and_the_roster_in_order(struct run *r)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User user = IM__BUS__USER__INIT;
	Im__Bus__Member member = IM__BUS__MEMBER__INIT;
	struct conversations c;
	uint64_t seen = 0;

	user.name = (char *)(uintptr_t)"bob";
	member.user = (char *)(uintptr_t)"bob";
	member.group = (char *)(uintptr_t)"friends";
	member.from_seq = 1;
	item.version = 1;
	item.user = &user;
	add_item(r, &item);
	item.version = 2;
	item.user = NULL;
	item.member = &member;
	add_item(r, &item);
	assert_int_equal(append_text(&r->f, "g/friends", 1, "alice", ""), IM_OK);
	item.version = 3;
	member.to_seq = 1;
	add_item(r, &item);
	item.version = 4;
	item.member = NULL;
	item.user = &user;
	user.title = (char *)(uintptr_t)"Bob";
	add_item(r, &item);
	settle(r);
	conversations(&r->f, "bob", &c);
	assert_int_equal(c.n, 1);
	assert_string_equal(c.names[0], "g/friends");
	assert_int_equal(c.list[0].last_seq, 1);
	if (r->way == ROWS) {
		store_roster(r->f.store, on_item, &seen);
		assert_int_equal(seen, 4);
	}
}

static void high_water_is_known_after_restart(struct run *r)
{
	struct store_entry e = { .kind = STORE_POSITION, .pos = { 1, 78, 4000 } };

	write_messages(r, 3);
	assert_int_equal(append_entry(&r->f, &e), IM_OK);
	settle(r);
	if (r->way != ROWS)
		return;
	assert_int_equal(store_start(r->f.store)->n_high_water, 2);
	assert_int_equal(store_start(r->f.store)->high_water[0].epoch, 77);
	assert_int_equal(store_start(r->f.store)->high_water[0].next, r->f.next);
	assert_int_equal(store_start(r->f.store)->high_water[1].next, 4000);
	assert_int_equal(strlen(store_start(r->f.store)->epoch), 32);
}

struct order {
	unsigned left, next;
};
struct ticket {
	struct order *o;
	unsigned number;
};

static void in_order(void *arg, enum im_status st)
{
	struct ticket *t = arg;

	assert_int_equal(st, t->number == 7 ? IM_FAILED : IM_OK);
	assert_int_equal(t->number, t->o->next);
	t->o->next++;
	t->o->left--;
}

static void appends_are_answered_in_order(struct run *r)
{
	enum { N = 200 };
	struct order o = { N, 0 };
	struct ticket t[N];

	r->f.own = true;
	for (unsigned i = 0; i < N; i++) {
		/* number 7 repeats a sequence: its refusal waits for its turn too */
		struct message *m = make_message(&r->f, conv, i == 7 ? 3 : i + 1, "alice", "", "x");
		struct store_entry e = { .kind = STORE_MESSAGE, .pos = m->pos, .message = m };

		t[i] = (struct ticket){ &o, i };
		store_append(r->f.store, &e, 1, in_order, &t[i]);
		message_unref(m);
	}
	assert_int_equal(o.left, N);
	run_until_zero(&r->f, &o.left);
}

/* ---- random operations against a model */

enum { CONVS = 5, OPERATIONS = 1500 };

static void random_operations_agree_with_a_model(struct run *r)
{
	static const char *const names[CONVS] = { "u/alice:bob", "u/alice:carol", "u/bob:carol", "g/friends", "u/alice:alice" };
	uint64_t last[CONVS] = { 0 }, delivered[CONVS] = { 0 }, read[CONVS] = { 0 };
	unsigned seed = (unsigned)time(NULL);
	struct store_range range;
	struct conversations c;
	struct device_view v;
	struct seqs s;

	print_message("seed %u\n", seed);
	srand(seed);
	for (int i = 0; i < OPERATIONS; i++) {
		int k = rand() % CONVS;
		uint64_t to = (uint64_t)rand() % (last[k] + 1), from;

		switch (rand() % 8) {
		case 0: /* a cursor */
			if (to == 0)
				break;
			move(r, "alice", "alice:pc", names[k], to, to / 2);
			delivered[k] = to > delivered[k] ? to : delivered[k];
			read[k] = to / 2 > read[k] ? to / 2 : read[k];
			break;
		case 1: /* history */
			from = to;
			range = (struct store_range){ names[k], from, 0, 1 + (unsigned)rand() % 50, 0, rand() % 2 };
			assert_int_equal(history(&r->f, &range, &s), IM_OK);
			from = from ? from : 1;
			assert_int_equal(s.n, last[k] - from + 1 < range.limit ? last[k] - from + 1 : range.limit);
			for (size_t n = 0; n < s.n; n++)
				assert_int_equal(s.list[n], range.newest_first ? last[k] - n : from + n);
			break;
		case 2:
			assert_int_equal(last_seq(&r->f, names[k]), last[k]);
			break;
		case 3:
			device(&r->f, "alice", "alice:pc", &v);
			for (unsigned n = 0; n < v.cursors; n++)
				for (int j = 0; j < CONVS; j++)
					if (strcmp(v.convs[n], names[j]) == 0) {
						assert_int_equal(v.cursor[n].delivered, delivered[j]);
						assert_int_equal(v.cursor[n].read, read[j]);
					}
			break;
		case 4:
			conversations(&r->f, "bob", &c);
			assert_int_equal(c.n, (last[0] > 0) + (last[2] > 0));
			break;
		default:
			assert_int_equal(append_text(&r->f, names[k], ++last[k], "bob", ""), IM_OK);
			break;
		}
		if (r->way == ROWS && i % 300 == 299)
			settle(r);
	}
}

/* ---- all of them, all ways */

static const struct promise {
	const char *name;
	void (*fn)(struct run *r);
} promises[] = {
#define PROMISE(fn) { #fn, fn }
	PROMISE(answered_messages_are_read_back_in_order),
	PROMISE(ranges_limits_and_bytes_bound_history),
	PROMISE(a_page_that_is_full_has_no_hole),
	PROMISE(everything_said_comes_back),
	PROMISE(a_repeated_id_is_found_and_others_are_not),
	PROMISE(an_older_section_epoch_is_fenced_off),
	PROMISE(a_sequence_is_given_once),
	PROMISE(a_refused_append_leaves_nothing),
	PROMISE(behind_a_refused_append_nothing_of_a_journal_is_taken),
	PROMISE(cursors_never_move_back),
	PROMISE(both_parties_have_the_conversation_from_its_first_message),
	PROMISE(removed_devices_forget_their_cursors),
	PROMISE(owed_refusals_stay_until_done),
	PROMISE(unread_counts_others_and_stops_at_a_hundred),
	PROMISE(groups_come_with_membership_and_the_roster_in_order),
	PROMISE(high_water_is_known_after_restart),
	PROMISE(appends_are_answered_in_order),
	PROMISE(random_operations_agree_with_a_model),
};

enum { PROMISES = sizeof(promises) / sizeof(promises[0]) };

static void keep_promise(void **state)
{
	size_t number = (size_t)(uintptr_t)*state;
	struct run r = { .way = (enum way)(number / PROMISES) };

	fixture_open(&r.f, r.way == MEMORY ? "memory" : "sqlite");
	promises[number % PROMISES].fn(&r);
	fixture_close(&r.f);
}

int main(void)
{
	static const char *const ways[] = { "memory", "tail", "rows" };
	struct CMUnitTest tests[3 * PROMISES];
	static char names[3 * PROMISES][96];

	for (size_t i = 0; i < 3 * PROMISES; i++) {
		snprintf(names[i], sizeof(names[i]), "%s: %s", ways[i / PROMISES], promises[i % PROMISES].name);
		tests[i] = (struct CMUnitTest){ .name = names[i], .test_func = keep_promise, .initial_state = (void *)(uintptr_t)i };
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
