/* The message service's end of the bus, with a bus that keeps what it was given and a clock that the test moves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "link.h"

#include "base/clock.h"
#include "fake_timers.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
	struct roster *roster;
	struct link *link;
	Im__Bus__ToPlugin **sent;
	size_t n_sent;
	char trace[4096];         /* events, in order of time */
	struct position marks[3];
	size_t n_marks;
} t;

/* ---- what it stands on */

int64_t im_clock_mono_ms(void)
{
	return fake_now_ms;
}

int64_t im_clock_mono_us(void)
{
	return fake_now_ms * 1000;
}

int64_t im_clock_wall_ms(void)
{
	return 1700000000000 + fake_now_ms;
}

enum im_status im_mqtt_publish(struct im_mqtt *m, const char *topic, const void *payload, size_t len, int qos)
{
	Im__Bus__ToPlugin *frame = im__bus__to_plugin__unpack(NULL, len, payload);

	assert_ptr_equal(m, &t);
	assert_string_equal(topic, "$im/out");
	assert_int_equal(qos, 0);
	assert_non_null(frame);
	t.sent = realloc(t.sent, (t.n_sent + 1) * sizeof(*t.sent));
	t.sent[t.n_sent++] = frame;
	return IM_OK;
}

static void forget_sent(void)
{
	for (size_t i = 0; i < t.n_sent; i++)
		im__bus__to_plugin__free_unpacked(t.sent[i], NULL);
	t.n_sent = 0;
}

/* ---- events */

static void trace(const char *fmt, ...)
{
	size_t used = strlen(t.trace);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t.trace + used, sizeof(t.trace) - used, fmt, ap);
	va_end(ap);
}

static void expect(const char *what)
{
	assert_string_equal(t.trace, what);
	t.trace[0] = '\0';
}

static void on_reset(void *arg)
{
	(void)arg;
	trace("reset ");
}

static void on_slice(void *arg, const Im__Bus__Slice *s)
{
	(void)arg;
	trace("slice%llu ", (unsigned long long)s->offset);
}

static void on_session(void *arg, const Im__Bus__Session *s)
{
	(void)arg;
	trace("session%llu ", (unsigned long long)s->handle);
}

static void on_closed(void *arg, uint64_t handle)
{
	(void)arg;
	trace("closed%llu ", (unsigned long long)handle);
}

static void on_complete(void *arg)
{
	(void)arg;
	trace("complete ");
}

static void on_control(void *arg, const Im__Bus__Control *c)
{
	(void)arg;
	trace("control%llu ", (unsigned long long)c->session);
}

static void on_signal(void *arg, const Im__Bus__Signal *s)
{
	(void)arg;
	trace("signal%llu ", (unsigned long long)s->session);
}

static void on_drained(void *arg)
{
	(void)arg;
	trace("drained ");
}

static void on_failed(void *arg, const char *why)
{
	(void)arg;
	trace("failed:%s ", why);
}

static const struct link_events events = { on_reset, on_slice, on_session, on_closed, on_complete, on_control, on_signal, on_drained, on_failed };

static size_t marks(void *arg, uint32_t node, struct position *out, size_t cap)
{
	(void)arg;
	assert_int_equal(node, 1);
	assert_true(cap >= t.n_marks);
	memcpy(out, t.marks, t.n_marks * sizeof(*out));
	return t.n_marks;
}

static void on_done(void *arg, enum im_status st)
{
	trace("%s:%s ", (const char *)arg, im_status_name(st));
}

static void on_answer(void *arg, const char *answer)
{
	trace("%s:%s ", (const char *)arg, answer ? answer : "none");
}

/* ---- what the plugin says */

static void hear(const Im__Bus__FromPlugin *f)
{
	size_t len = im__bus__from_plugin__get_packed_size(f);
	uint8_t *data = malloc(len + 1);

	im__bus__from_plugin__pack(f, data);
	assert_int_equal(link_message(t.link, data, len), IM_OK);
	free(data);
}

static void hear_hello(uint64_t roster_version)
{
	Im__Bus__FromPlugin f = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Hello h = IM__BUS__HELLO__INIT;

	h.node = 1;
	h.epoch = 9;
	h.roster_version = roster_version;
	f.hello = &h;
	hear(&f);
}

static void hear_done(uint64_t out_seq)
{
	Im__Bus__FromPlugin f = IM__BUS__FROM_PLUGIN__INIT;

	f.out_done = out_seq;
	hear(&f);
}

static void hear_roster(uint64_t version)
{
	Im__Bus__FromPlugin f = IM__BUS__FROM_PLUGIN__INIT;

	f.roster_version = version;
	hear(&f);
}

static void hear_answer(uint64_t id, const char *json)
{
	Im__Bus__FromPlugin f = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Answer a = IM__BUS__ANSWER__INIT, *list = &a;

	a.id = id;
	a.json = (char *)json;
	f.answers = &list;
	f.n_answers = 1;
	hear(&f);
}

static void user_item(Im__Bus__RosterItem *item, Im__Bus__User *u, const char *name, uint64_t version)
{
	im__bus__roster_item__init(item);
	im__bus__user__init(u);
	u->name = (char *)name;
	item->user = u;
	item->version = version;
}

static void add_user(const char *name)
{
	Im__Bus__RosterItem item;
	Im__Bus__User u;

	user_item(&item, &u, name, roster_version(t.roster) + 1);
	assert_int_equal(roster_apply(t.roster, &item), IM_OK);
}

static void connect_with(uint64_t roster_version)
{
	link_bus(t.link, (struct im_mqtt *)&t);
	hear_hello(roster_version);
	forget_sent();
	t.trace[0] = '\0';
}

static void deliver(size_t len)
{
	const uint64_t handle = 7;
	char *payload = calloc(1, len + 1);

	link_deliver(t.link, "im/v1/in/msg/u/bob", 18, payload, len, NULL, &handle, 1, NULL, 0);
	free(payload);
}

static int begin(void **state)
{
	struct im_err err;

	(void)state;
	memset(&t, 0, sizeof(t));
	fake_now_ms = 1000;
	t.roster = roster_create();
	add_user("alice");
	add_user("bob");
	assert_int_equal(link_create(NULL, 1, t.roster, "storeepoch", &events, marks, NULL, &t.link, &err), IM_OK);
	return 0;
}

static int end(void **state)
{
	(void)state;
	link_destroy(t.link);
	forget_sent();
	free(t.sent);
	roster_destroy(t.roster);
	return 0;
}

/* ---- hello */

static void hello_says_what_is_durable(void **state)
{
	const Im__Bus__Hello *h;

	(void)state;
	t.marks[0] = (struct position){ 1, 5, 100 };
	t.marks[1] = (struct position){ 1, 9, 200 };
	t.n_marks = 2;
	link_bus(t.link, (struct im_mqtt *)&t);
	expect("reset ");
	assert_int_equal(t.n_sent, 1);
	h = t.sent[0]->hello;
	assert_non_null(h);
	assert_int_equal(h->protocol, 1);
	assert_int_equal(h->node, 1);
	assert_int_equal(h->roster_version, 2);
	assert_string_equal(h->store, "storeepoch");
	assert_int_equal(h->n_high_water, 2);
	assert_int_equal(h->high_water[1]->epoch, 9);
	assert_int_equal(h->high_water[1]->offset, 200);
	assert_false(link_has_plugin(t.link));
	hear_hello(2);
	expect("reset ");
	assert_true(link_has_plugin(t.link));
	assert_int_equal(t.n_sent, 1); /* the roster is in force there */
}

static void nothing_counts_before_the_hello(void **state)
{
	Im__Bus__FromPlugin f = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Slice s = IM__BUS__SLICE__INIT;
	uint64_t closed = 3;

	(void)state;
	f.slice = &s;
	f.closed = &closed;
	f.n_closed = 1;
	link_bus(t.link, (struct im_mqtt *)&t);
	forget_sent();
	t.trace[0] = '\0';
	hear(&f);
	deliver(10);
	link_kick(t.link, 7, "why");
	link_confirm(t.link, 9, 50);
	link_flush(t.link);
	expect("");
	assert_int_equal(t.n_sent, 0);
	assert_int_equal(link_pending(t.link), 0);
}

static void parts_of_a_frame_are_worked_off_in_their_order(void **state)
{
	Im__Bus__FromPlugin f = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Slice slice = IM__BUS__SLICE__INIT;
	Im__Bus__Session session = IM__BUS__SESSION__INIT, *sessions = &session;
	Im__Bus__Control control = IM__BUS__CONTROL__INIT, *controls = &control;
	Im__Bus__Signal signal = IM__BUS__SIGNAL__INIT, *signals = &signal;
	uint64_t closed = 4;

	(void)state;
	connect_with(2);
	slice.offset = 128;
	session.handle = 5;
	control.session = 6;
	signal.session = 7;
	f.slice = &slice;
	f.sessions = &sessions;
	f.closed = &closed;
	f.control = &controls;
	f.signals = &signals;
	f.n_sessions = f.n_closed = f.n_control = f.n_signals = 1;
	f.sessions_complete = true;
	hear(&f);
	expect("session5 slice128 closed4 complete control6 signal7 "); /* whoever sent what is in the slice is known */
}

static void what_is_no_frame_is_refused(void **state)
{
	static const struct { const char *data; size_t len; } cases[] = {
		{ "\x0a", 1 }, { "\x0a\x05x", 3 }, { "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11 }, { "\x12\x02\x0a\x07", 4 },
	};

	(void)state;
	connect_with(2);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(link_message(t.link, cases[i].data, cases[i].len), IM_BAD_INPUT);
	assert_int_equal(link_message(t.link, "", 0), IM_OK); /* a frame without parts */
	expect("");
}

/* ---- deliveries */

static void deliveries_of_a_turn_leave_as_one_frame_behind_the_confirm(void **state)
{
	(void)state;
	connect_with(2);
	deliver(10);
	deliver(20);
	link_confirm(t.link, 9, 50);
	link_confirm(t.link, 9, 70);
	assert_int_equal(t.n_sent, 0);
	link_flush(t.link);
	assert_int_equal(t.n_sent, 2);
	assert_int_equal(t.sent[0]->confirm->offset, 70);
	assert_int_equal(t.sent[1]->out_seq, 1);
	assert_int_equal(t.sent[1]->n_deliveries, 2);
	assert_int_equal(t.sent[1]->deliveries[1]->payload.len, 20);
	assert_string_equal(t.sent[1]->deliveries[0]->topic, "im/v1/in/msg/u/bob");
	assert_int_equal(t.sent[1]->deliveries[0]->qos1[0], 7);
	link_flush(t.link);
	assert_int_equal(t.n_sent, 2);
	hear_done(1);
	assert_int_equal(link_pending(t.link), 0);
}

static void marks_of_two_journals_are_both_confirmed(void **state)
{
	(void)state;
	connect_with(2);
	link_confirm(t.link, 8, 50);
	link_confirm(t.link, 9, 10);
	link_flush(t.link);
	assert_int_equal(t.n_sent, 2);
	assert_int_equal(t.sent[0]->confirm->epoch, 8);
	assert_int_equal(t.sent[1]->confirm->epoch, 9);
}

static void frames_beyond_the_window_wait_in_order(void **state)
{
	uint64_t seq = 0, frames;

	(void)state;
	connect_with(2);
	for (int i = 0; i < 96; i++)
		deliver(200 << 10);
	link_flush(t.link);
	frames = t.n_sent;
	assert_in_range(frames, 30, 42); /* 8 MiB of 200 KiB each */
	assert_true(link_pending(t.link) > 18u << 20);
	while (link_pending(t.link) > 0) {
		hear_done(++seq);
		assert_true(seq <= 96);
		assert_true(t.n_sent - seq <= 42);
	}
	assert_int_equal(t.n_sent, 96);
	for (size_t i = 0; i < t.n_sent; i++)
		assert_int_equal(t.sent[i]->out_seq, i + 1);
	expect("drained drained "); /* when it fell below the window, and when catch-up may read again */
}

static void done_of_what_was_not_sent_changes_nothing(void **state)
{
	size_t pending;

	(void)state;
	connect_with(2);
	for (int i = 0; i < 60; i++)
		deliver(200 << 10);
	link_flush(t.link);
	pending = link_pending(t.link);
	hear_done(1);
	hear_done(1);
	assert_true(link_pending(t.link) < pending && link_pending(t.link) > pending - (300u << 10));
}

static void a_new_connection_starts_afresh(void **state)
{
	(void)state;
	connect_with(2);
	for (int i = 0; i < 60; i++)
		deliver(200 << 10);
	link_flush(t.link);
	link_bus(t.link, NULL);
	assert_int_equal(link_pending(t.link), 0);
	assert_false(link_has_plugin(t.link));
	expect("reset ");
	connect_with(2);
	hear_done(40); /* of the old connection, if it could be */
	deliver(10);
	link_flush(t.link);
	assert_int_equal(t.n_sent, 1);
	assert_int_equal(t.sent[0]->out_seq, 1);
}

static void one_packet_may_exceed_a_frame(void **state)
{
	(void)state;
	connect_with(2);
	deliver(10);
	deliver(1 << 20);
	deliver(10);
	link_flush(t.link);
	assert_int_equal(t.n_sent, 3);
	assert_int_equal(t.sent[1]->deliveries[0]->payload.len, 1 << 20);
}

static void a_plugin_that_is_late_is_noticed(void **state)
{
	(void)state;
	connect_with(2);
	fake_timers_pass(10000, NULL);
	assert_int_equal(link_late_ms(t.link), 0);
	deliver(10);
	link_flush(t.link);
	fake_timers_pass(500, NULL);
	assert_int_equal(link_late_ms(t.link), 0);
	hear_done(1);
	assert_int_equal(link_late_ms(t.link), fake_now_ms); /* nothing had been heard of it before */
	fake_timers_pass(5000, NULL);
	assert_int_equal(link_late_ms(t.link), fake_now_ms - 5000); /* nothing waits */
	deliver(10);
	link_flush(t.link);
	fake_timers_pass(30000, NULL);
	assert_int_equal(link_late_ms(t.link), fake_now_ms);
	fake_timers_pass(1000, NULL);
	hear_done(2);
	fake_timers_pass(1000, NULL);
	assert_int_equal(link_late_ms(t.link), fake_now_ms - 1000); /* when it was worked off */
}

/* Time passes, and the plugin answers at once what it is asked. How often it was. */
static unsigned answered(int64_t ms)
{
	unsigned n = 0;

	for (; ms > 0; ms -= 250) {
		fake_timers_pass(250, NULL);
		for (size_t i = 0; i < t.n_sent; i++, n++) {
			assert_int_equal(t.sent[i]->n_deliveries, 0);
			hear_done(t.sent[i]->out_seq);
		}
		forget_sent();
	}
	return n;
}

static void proof_is_asked_for_while_somebody_wants_it(void **state)
{
	int64_t start;

	(void)state;
	connect_with(2);
	assert_int_equal(answered(10000), 0);
	start = fake_now_ms;
	link_prove(t.link, start + 9000);
	assert_in_range(answered(9000), 8, 10);
	assert_in_range(link_proven_ms(t.link), start + 9000, start + 9250);
	assert_int_equal(answered(10000), 0);
	assert_in_range(link_late_ms(t.link), start, start + 1000); /* the first answer after a while, and no other */
}

static void a_silence_is_noticed_whoever_stood_still(void **state)
{
	(void)state;
	connect_with(2);
	link_prove(t.link, fake_now_ms + 60000);
	(void)answered(5000);
	assert_true(link_late_ms(t.link) < fake_now_ms - 3000);
	fake_now_ms += 3500; /* both did: the question that follows is answered at once */
	(void)answered(250);
	assert_int_equal(link_late_ms(t.link), fake_now_ms);
	(void)answered(5000);
	assert_int_equal(link_late_ms(t.link), fake_now_ms - 5000);
}

/* However long the plugin does not answer, one question is enough. */
static void one_question_is_under_way(void **state)
{
	(void)state;
	connect_with(2);
	link_prove(t.link, fake_now_ms + 1000);
	fake_timers_pass(60000, NULL);
	assert_int_equal(t.n_sent, 1);
	assert_int_equal(link_proven_ms(t.link), 0);
	assert_int_equal(link_late_ms(t.link), fake_now_ms);
}

/* ---- roster */

static size_t items_sent(bool *begins, bool *ends, uint64_t *version)
{
	size_t n = 0;

	*begins = *ends = false;
	*version = 0;
	for (size_t i = 0; i < t.n_sent; i++) {
		const Im__Bus__Roster *r = t.sent[i]->roster;

		if (!r)
			continue;
		if (r->begin)
			assert_int_equal(n, 0);
		*begins |= r->begin;
		*ends |= r->end;
		assert_true(r->version >= *version);
		*version = r->version;
		for (size_t k = 0; k < r->n_items; k++)
			assert_true(r->items[k]->version <= r->version); /* what is in force is never more than what was sent */
		n += r->n_items;
	}
	return n;
}

static void the_roster_is_fed_from_the_plugins_version(void **state)
{
	static const struct { uint64_t theirs; size_t items; bool snapshot; } cases[] = { { 0, 2, true }, { 1, 1, false }, { 2, 0, false }, { 3, 2, true } };
	bool begins, ends;
	uint64_t version;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		link_bus(t.link, (struct im_mqtt *)&t);
		forget_sent();
		hear_hello(cases[i].theirs);
		assert_int_equal(items_sent(&begins, &ends, &version), cases[i].items);
		assert_int_equal(begins, cases[i].snapshot);
		assert_int_equal(ends, cases[i].snapshot);
		if (cases[i].items)
			assert_int_equal(version, 2);
	}
}

static void a_large_roster_goes_in_many_frames(void **state)
{
	bool begins, ends;
	uint64_t version;
	char name[16];

	(void)state;
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "user%d", i);
		add_user(name);
	}
	link_bus(t.link, (struct im_mqtt *)&t);
	forget_sent();
	hear_hello(0);
	assert_in_range(t.n_sent, 3, 20);
	assert_int_equal(items_sent(&begins, &ends, &version), 20002);
	assert_true(begins && ends);
	assert_int_equal(version, 20002);
	assert_true(t.sent[t.n_sent - 1]->roster->end);
}

static void change_roster(const char *name, uint64_t version, const char *who)
{
	Im__Bus__RosterItem item;
	const Im__Bus__RosterItem *list = &item;
	Im__Bus__User u;

	user_item(&item, &u, name, version);
	link_roster(t.link, &list, 1, on_done, (void *)who);
}

static void a_change_is_done_when_it_is_in_force(void **state)
{
	(void)state;
	connect_with(2);
	change_roster("carol", 3, "first");
	change_roster("dave", 4, "second");
	change_roster("eve", 5, "third");
	expect(""); /* never inside the call */
	assert_int_equal(t.n_sent, 3);
	assert_int_equal(t.sent[0]->roster->version, 3);
	hear_roster(2);
	expect("");
	hear_roster(4);
	expect("first:ok second:ok ");
	hear_hello(5); /* it had it already */
	expect("reset third:ok ");
}

static void a_change_without_a_plugin_is_busy_after_a_while(void **state)
{
	(void)state;
	change_roster("carol", 3, "first");
	fake_timers_pass(3000, NULL);
	change_roster("dave", 4, "second");
	fake_timers_pass(1500, NULL);
	expect("");
	fake_timers_pass(1000, NULL);
	expect("first:busy ");
	fake_timers_pass(3000, NULL);
	expect("second:busy ");
	assert_null(fake_timer_due(FAKE_WHENEVER)); /* nothing to look for */
}

/* ---- queries */

static void queries_are_answered_by_their_number(void **state)
{
	(void)state;
	connect_with(2);
	link_query(t.link, "{\"query\":\"status\"}", on_answer, (void *)"first");
	link_query(t.link, "{\"query\":\"why\"}", on_answer, (void *)"second");
	assert_int_equal(t.n_sent, 2);
	assert_string_equal(t.sent[1]->queries[0]->json, "{\"query\":\"why\"}");
	hear_answer(t.sent[1]->queries[0]->id, "B");
	hear_answer(99, "C");
	hear_answer(t.sent[1]->queries[0]->id, "B");
	hear_answer(t.sent[0]->queries[0]->id, "A");
	expect("second:B first:A ");
}

static void queries_nobody_answers_end_together(void **state)
{
	(void)state;
	connect_with(2);
	for (int i = 0; i < 20; i++)
		link_query(t.link, "{}", on_answer, (void *)"q");
	fake_timers_pass(4500, NULL);
	expect("");
	fake_timers_pass(1000, NULL); /* not one per look */
	for (int i = 0; i < 20; i++)
		assert_memory_equal(t.trace + 7 * i, "q:none ", 7);
}

static void destroying_answers_whoever_waits(void **state)
{
	struct im_err err;

	(void)state;
	connect_with(2);
	change_roster("carol", 3, "roster");
	link_query(t.link, "{}", on_answer, (void *)"query");
	link_destroy(t.link);
	expect("roster:busy query:none ");
	assert_int_equal(link_create(NULL, 1, t.roster, "storeepoch", &events, marks, NULL, &t.link, &err), IM_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define LINKED(fn) cmocka_unit_test_setup_teardown(fn, begin, end)
		LINKED(hello_says_what_is_durable),
		LINKED(nothing_counts_before_the_hello),
		LINKED(parts_of_a_frame_are_worked_off_in_their_order),
		LINKED(what_is_no_frame_is_refused),
		LINKED(deliveries_of_a_turn_leave_as_one_frame_behind_the_confirm),
		LINKED(marks_of_two_journals_are_both_confirmed),
		LINKED(frames_beyond_the_window_wait_in_order),
		LINKED(done_of_what_was_not_sent_changes_nothing),
		LINKED(a_new_connection_starts_afresh),
		LINKED(one_packet_may_exceed_a_frame),
		LINKED(a_plugin_that_is_late_is_noticed),
		LINKED(proof_is_asked_for_while_somebody_wants_it),
		LINKED(a_silence_is_noticed_whoever_stood_still),
		LINKED(one_question_is_under_way),
		LINKED(the_roster_is_fed_from_the_plugins_version),
		LINKED(a_large_roster_goes_in_many_frames),
		LINKED(a_change_is_done_when_it_is_in_force),
		LINKED(a_change_without_a_plugin_is_busy_after_a_while),
		LINKED(queries_are_answered_by_their_number),
		LINKED(queries_nobody_answers_end_together),
		LINKED(destroying_answers_whoever_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
