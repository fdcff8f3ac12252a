/* The inbox between a journal, a store and a lease that answer when they like: every record once, in order, nothing told too early. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "inbox_world.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEND IM__BUS__KIND__KIND_SEND
#define ACK IM__BUS__KIND__KIND_ACK
#define REQUEST IM__BUS__KIND__KIND_REQUEST
#define REFUSAL IM__BUS__KIND__KIND_REFUSAL

static uint64_t say(const char *user, const char *conv, const char *id, const char *body)
{
	const struct said s = { SEND, user, conv, id, body };

	return world_write(&s);
}

static uint64_t write_kind(Im__Bus__Kind kind, const char *user, const char *conv, const char *id, const char *body)
{
	const struct said s = { kind, user, conv, id, body };

	return world_write(&s);
}

static void send_rest(uint64_t from)
{
	assert_int_equal(world_send(from, world_written()), IM_OK);
}

static void expect(enum told_kind kind, size_t nth, const char *text, uint64_t seq)
{
	const struct told *t = world_told(kind, nth);

	assert_non_null(t);
	assert_string_equal(t->text, text);
	assert_int_equal(t->seq, seq);
}

static int begin(void **state)
{
	(void)state;
	world_create();
	return 0;
}

static int end(void **state)
{
	(void)state;
	world_destroy();
	return 0;
}

/* ---- order */

static void records_are_decided_in_journal_order(void **state)
{
	(void)state;
	say("alice", "u/bob", "", "one");
	say("bob", "u/alice", "", "two");
	say("bob", "g/friends", "", "three");
	say("alice", "u/bob", "", "four");
	send_rest(WORLD_BEGIN);
	world_settle();
	expect(TOLD_MESSAGE, 0, "u/alice:bob one", 1);
	expect(TOLD_MESSAGE, 1, "u/alice:bob two", 2);
	expect(TOLD_MESSAGE, 2, "g/friends three", 1);
	expect(TOLD_MESSAGE, 3, "u/alice:bob four", 3);
	assert_int_equal(world_count(TOLD_ACK), 4);
	assert_int_equal(world.stored[1]->prev, 1);
	assert_int_equal(world_mark(), world_written());
	assert_int_equal(world.confirmed, world_written());
	assert_true(inbox_idle(world.inbox));
}

static void nothing_is_told_before_the_append_is_answered(void **state)
{
	uint64_t first = say("alice", "u/bob", "x", "one");

	(void)state;
	say("alice", "u/bob", "", "two");
	write_kind(REQUEST, "alice", "", "q1", NULL);
	assert_int_equal(world_send(WORLD_BEGIN, first), IM_OK);
	send_rest(first);
	while (world_answer_lookup(IM_OK))
		;
	assert_int_equal(world_appends(), 2); /* one does not wait for the other */
	assert_int_equal(world.n_told, 0);
	assert_int_equal(world.confirms, 0);
	assert_int_equal(world_mark(), 0);
	assert_false(inbox_idle(world.inbox));
	world_answer_append(IM_OK);
	assert_int_equal(world_count(TOLD_MESSAGE), 1);
	assert_int_equal(world_count(TOLD_REQUEST), 0);
	assert_int_equal(world_mark(), first);
	world_answer_append(IM_OK);
	expect(TOLD_REQUEST, 0, "q1", 0);
	assert_int_equal(world_mark(), world_written());
}

/* ---- dedupe */

static void a_repeat_while_the_first_is_with_the_store_is_its_dup(void **state)
{
	uint64_t first = say("alice", "u/bob", "x", "one");

	(void)state;
	say("alice", "u/bob", "x", "one");
	say("alice", "u/bob", "x", "one");
	assert_int_equal(world_send(WORLD_BEGIN, first), IM_OK);
	send_rest(first);
	world_settle();
	assert_int_equal(world.n_stored, 1);
	assert_int_equal(world_count(TOLD_ACK), 1);
	assert_int_equal(world_count(TOLD_DUP), 2);
	expect(TOLD_DUP, 1, "u/alice:bob one", 1);
	assert_int_equal(world_mark(), world_written());
}

static void a_repeat_within_one_slice_is_a_dup(void **state)
{
	(void)state;
	say("alice", "u/bob", "x", "one");
	say("alice", "u/bob", "x", "one");
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world.n_stored, 1);
	assert_int_equal(world_count(TOLD_DUP), 1);
}

/* The lookup was asked before the first append was answered and answered after it. */
static void an_id_is_known_while_a_lookup_that_missed_it_is_under_way(void **state)
{
	uint64_t first = say("alice", "u/bob", "x", "one"), second, third;

	(void)state;
	second = say("alice", "u/bob", "y", "other");
	third = say("alice", "u/bob", "x", "one");
	say("alice", "u/bob", "x", "one");
	assert_int_equal(world_send(WORLD_BEGIN, first), IM_OK);
	assert_int_equal(world_send(first, second), IM_OK);
	assert_int_equal(world_send(second, third), IM_OK);
	world_answer_lookup(IM_OK);      /* the first is decided; the second is looked up */
	assert_true(world_looking());
	world_answer_append(IM_OK);      /* the first is done meanwhile */
	send_rest(third);
	world_settle();
	assert_int_equal(world.n_stored, 2);
	assert_int_equal(world_count(TOLD_DUP), 2);
}

static void a_repeat_after_a_restart_gets_the_stored_answer(void **state)
{
	uint64_t first = say("alice", "u/bob", "x", "one");

	(void)state;
	send_rest(WORLD_BEGIN);
	world_settle();
	world_crash(0);
	say("alice", "u/bob", "x", "one");
	send_rest(first);
	world_settle();
	assert_int_equal(world.n_stored, 1);
	expect(TOLD_DUP, 0, "u/alice:bob one", 1);
}

static void an_id_used_for_another_message_is_refused_and_owed(void **state)
{
	(void)state;
	say("alice", "u/bob", "x", "one");
	say("alice", "u/bob", "x", "other");
	say("alice", "u/carol", "x", "one");
	say("bob", "u/alice", "x", "another's");
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world.n_stored, 2);
	assert_int_equal(world.refusals, 2);
	assert_string_equal(world.refusal_of, "alice:pc id_reused");
	assert_int_equal(world_count(TOLD_REFUSAL), 2);
}

/* ---- what others keep back */

static void a_batch_that_waits_for_the_lease_goes_on_in_order(void **state)
{
	uint64_t first = say("alice", "u/bob", "", "one");

	(void)state;
	say("alice", "u/bob", "", "two");
	assert_int_equal(world_send(WORLD_BEGIN, first), IM_OK);
	world_settle();
	world.lease_away = true;
	send_rest(first);
	world_settle();
	assert_int_equal(world.n_stored, 1);
	assert_false(inbox_idle(world.inbox));
	inbox_lease_changed(world.inbox); /* news, but not for us */
	assert_int_equal(world_appends(), 0);
	world.lease_away = false;
	inbox_lease_changed(world.inbox);
	world_settle();
	expect(TOLD_MESSAGE, 1, "u/alice:bob two", 2);
	assert_true(inbox_idle(world.inbox));
}

static void what_waited_half_decided_is_decided_anew_under_a_new_lease(void **state)
{
	(void)state;
	say("alice", "u/bob", "m1", "one");
	say("alice", "u/bob", "m1", "one");
	say("alice", "u/bob", "m2", "two");
	say("alice", "u/bob", "m3", "three");
	world.lease_ceiling = 2;
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world.n_stored, 0); /* three of four are decided */
	world.lease_epoch = 2;
	world.lease_ceiling = 0;
	inbox_lease_changed(world.inbox);
	world_settle();
	assert_int_equal(world.n_stored, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(world.stored[i]->seq, i + 1);
		assert_int_equal(world.stored[i]->prev, i);
		assert_int_equal(world.stored[i]->section_epoch, 2);
	}
	assert_int_equal(world_count(TOLD_ACK), 3);
	assert_int_equal(world_count(TOLD_DUP), 1);
	assert_true(inbox_idle(world.inbox));
}

static void a_full_store_and_a_full_link_stop_the_input_only(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		uint64_t from = world_written();

		say("alice", "u/bob", "", i ? "two" : "one");
		world.full = i == 0;
		world.link_full = i == 1;
		send_rest(i ? from : WORLD_BEGIN);
		assert_false(world_looking());
		assert_int_equal(world_appends(), 0);
		world.full = world.link_full = false;
		if (i)
			inbox_resume(world.inbox);
		world_settle(); /* the timer looks again */
		assert_int_equal(world.n_stored, i + 1);
	}
}

/* ---- slices after a reconnect */

static void slices_that_come_again_are_worked_once_however_they_are_cut(void **state)
{
	uint64_t one = say("alice", "u/bob", "", "one"), two = say("alice", "u/bob", "", "two");

	(void)state;
	say("alice", "u/bob", "", "three");
	assert_int_equal(world_send(WORLD_BEGIN, two), IM_OK);
	world_answer_lookup(IM_OK);
	assert_int_equal(world_mark(), 0); /* what a hello says: nothing is durable, so all comes again */
	assert_int_equal(world_send(WORLD_BEGIN, one), IM_OK);
	send_rest(one);
	world_settle();
	assert_int_equal(world.n_stored, 3);
	expect(TOLD_MESSAGE, 2, "u/alice:bob three", 3);
	assert_int_equal(world_mark(), world_written());
}

/* A hello names the mark; what became durable before its answer came was confirmed to nobody. */
static void what_is_durable_already_is_confirmed_when_it_comes_again(void **state)
{
	uint64_t one = say("alice", "u/bob", "", "one");
	unsigned confirms;

	(void)state;
	say("alice", "u/bob", "", "two");
	send_rest(WORLD_BEGIN);
	world_settle();
	confirms = world.confirms;
	assert_int_equal(world_send(WORLD_BEGIN, one), IM_OK);
	send_rest(one);
	assert_true(world.confirms > confirms);
	assert_int_equal(world.confirmed, world_written());
	assert_int_equal(world.n_stored, 2);
}

static void a_gap_is_refused(void **state)
{
	uint64_t one = say("alice", "u/bob", "", "one"), two = say("alice", "u/bob", "", "two");

	(void)state;
	say("alice", "u/bob", "", "three");
	assert_int_equal(world_send(WORLD_BEGIN, one), IM_OK);
	assert_int_equal(world_send(two, world_written()), IM_BAD_INPUT);
	world_settle();
	assert_int_equal(world.n_stored, 1);
	send_rest(one); /* and the right one is still taken */
	world_settle();
	assert_int_equal(world.n_stored, 3);
}

static void a_record_that_is_none_is_refused(void **state)
{
	uint64_t one = say("alice", "u/bob", "", "one"), two = say("alice", "u/bob", "", "two");

	(void)state;
	assert_int_equal(world_send(WORLD_BEGIN + 1, two), IM_BAD_INPUT); /* its checksum is of another place */
	assert_int_equal(world_send(WORLD_BEGIN, one - 1), IM_BAD_INPUT);
	world_settle();
	assert_int_equal(world.n_stored, 0);
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world.n_stored, 2);
}

static void a_journal_younger_than_thousands_of_others_has_its_mark(void **state)
{
	(void)state;
	say("alice", "u/bob", "", "one");
	send_rest(WORLD_BEGIN);
	world_settle();
	world.old_epochs = WORLD_OLD_EPOCHS;
	world_crash(0);
	assert_int_equal(world_mark(), world_written());
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world.n_stored, 1); /* it has no id: only the mark knows it */
}

/* ---- failure */

static void a_failing_append_ends_it_all(void **state)
{
	uint64_t one = say("alice", "u/bob", "", "one");

	(void)state;
	say("alice", "u/bob", "", "two");
	assert_int_equal(world_send(WORLD_BEGIN, one), IM_OK);
	send_rest(one);
	while (world_answer_lookup(IM_OK))
		;
	world_answer_append(IM_UNCERTAIN);
	assert_non_null(world.failed);
	world_settle();
	assert_int_equal(world.n_told, 0); /* not even of the second one */
	assert_int_equal(world.confirms, 0);
	assert_int_equal(world_send(WORLD_BEGIN, one), IM_OK);
	assert_int_equal(world_appends(), 0);
}

static void a_failing_read_ends_it_too(void **state)
{
	(void)state;
	say("alice", "u/bob", "x", "one");
	send_rest(WORLD_BEGIN);
	world_answer_lookup(IM_FAILED);
	assert_non_null(world.failed);
	assert_int_equal(world_appends(), 0);
}

static void a_drain_ends_though_more_keeps_coming(void **state)
{
	uint64_t one = say("alice", "u/bob", "", "one"), two = say("alice", "u/bob", "", "two");

	(void)state;
	say("alice", "u/bob", "", "three");
	assert_int_equal(world_send(WORLD_BEGIN, one), IM_OK);
	world_answer_lookup(IM_OK);
	world.lease_away = true;
	assert_int_equal(world_send(one, two), IM_OK);
	inbox_drain(world.inbox);
	send_rest(two);
	assert_false(inbox_idle(world.inbox));
	world_settle();
	assert_true(inbox_idle(world.inbox)); /* what the store had is told, the rest comes again */
	assert_int_equal(world.n_stored, 1);
	assert_int_equal(world_count(TOLD_ACK), 1);
	world.lease_away = false;
	world_crash(0);
	send_rest(world_mark());
	world_settle();
	assert_int_equal(world.n_stored, 3);
}

/* ---- acks, refusals, strangers */

static void an_ack_packet_counts_as_a_whole(void **state)
{
	(void)state;
	say("alice", "u/bob", "", "one");
	say("alice", "g/friends", "", "two");
	write_kind(ACK, "bob", "u/alice", "", "2");  /* there is no 2 */
	write_kind(ACK, "carol", "u/bob", "", "1");  /* no member of friends, which every ack here names */
	write_kind(ACK, "bob", "u/alice", "", "1");
	write_kind(ACK, "bob", "nonsense", "", "1");
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world.cursors, 2);
	assert_int_equal(world_count(TOLD_CURSORS), 1);
	expect(TOLD_CURSORS, 0, "bob u/alice 1", 0);
	assert_int_equal(world.refusals, 3);
	expect(TOLD_REFUSAL, 0, "bob:pc bad_cursor", 0);
	expect(TOLD_REFUSAL, 1, "carol:pc bad_cursor", 0);
	assert_int_equal(world_mark(), world_written());
}

static void an_ack_of_nothing_makes_no_conversation(void **state)
{
	(void)state;
	say("alice", "g/friends", "", "one");
	write_kind(ACK, "bob", "u/nobody", "", "0");
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world.cursors, 1); /* of friends */
	assert_int_equal(world.refusals, 0);
}

static void recipients_that_are_gone_are_an_error_owed(void **state)
{
	(void)state;
	say("alice", "u/dave", "x", "one");
	say("alice", "g/enemies", "", "two");
	say("alice", "dave", "", "three");
	write_kind(REFUSAL, "alice", "", "", "too_fast");
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world.n_stored, 0);
	assert_int_equal(world.refusals, 4);
	expect(TOLD_REFUSAL, 0, "alice:pc unknown_user", 0);
	expect(TOLD_REFUSAL, 1, "alice:pc unknown_group", 0);
	expect(TOLD_REFUSAL, 2, "alice:pc bad_name", 0);
	expect(TOLD_REFUSAL, 3, "alice:pc too_fast", 0);
	assert_int_equal(world_mark(), world_written());
}

static void a_record_of_a_newer_plugin_is_passed_over(void **state)
{
	(void)state;
	write_kind((Im__Bus__Kind)40, "alice", "u/bob", "", NULL);
	send_rest(WORLD_BEGIN);
	world_settle();
	assert_int_equal(world_mark(), world_written());
	assert_int_equal(world.n_told, 0);
}

/* ---- posts */

static void posts_take_their_turn(void **state)
{
	(void)state;
	say("alice", "u/bob", "", "one");
	send_rest(WORLD_BEGIN);
	world_post("bob", "u/alice", "", "two");
	say("alice", "u/bob", "", "three");
	send_rest(world_bound(1, WORLD_BEGIN));
	world_settle();
	expect(TOLD_MESSAGE, 1, "u/alice:bob two", 2);
	expect(TOLD_MESSAGE, 2, "u/alice:bob three", 3);
	expect(TOLD_POST, 0, "u/alice:bob two", 2);
	assert_int_equal(world.high, world_written());
}

static void a_post_under_a_reused_id_hears_it_and_owes_nobody(void **state)
{
	(void)state;
	world_post("bob", "u/alice", "p", "one");
	world_post("bob", "u/alice", "p", "other");
	world_post("bob", "u/alice", "p", "one");
	world_settle();
	assert_int_equal(world_told(TOLD_POST, 0)->st, IM_OK);
	assert_int_equal(world_told(TOLD_POST, 1)->st, IM_BAD_INPUT);
	assert_int_equal(world_told(TOLD_POST, 2)->st, IM_OK);
	expect(TOLD_POST, 2, "u/alice:bob one", 1);
	assert_int_equal(world.n_stored, 1);
	assert_int_equal(world.refusals, 0); /* no client would ever fetch it */
	assert_int_equal(world_count(TOLD_REFUSAL), 0);
}

static void posts_that_are_still_queued_hear_of_the_end(void **state)
{
	(void)state;
	world.lease_away = true;
	world_post("bob", "u/alice", "", "one");
	world_post("bob", "u/alice", "", "two");
	world_settle();
	world_stop();
	assert_int_equal(world_count(TOLD_POST), 2);
	world_start();
}

/* ---- anything at any time, against what the journal says */

enum { RECORDS = 120, ROUNDS = 40, IDS = 12 };

static const char *const convs[][2] = { { "alice", "u/bob" }, { "bob", "u/alice" }, { "alice", "g/friends" }, { "bob", "g/friends" }, { "carol", "u/alice" } };

/* How many messages and refusals the journal is worth, counted the simple way. */
struct model {
	struct { char user[8], conv[16], id[8], body[12]; } sent[RECORDS];
	size_t n;
	unsigned messages, refusals;
};

static struct model model;

static void model_add(Im__Bus__Kind kind, const char *user, const char *conv, const char *id, const char *body)
{
	if (kind == REFUSAL) {
		model.refusals++;
		return;
	}
	if (kind != SEND)
		return;
	for (size_t i = 0; id[0] && i < model.n; i++) {
		if (strcmp(model.sent[i].user, user) != 0 || strcmp(model.sent[i].id, id) != 0)
			continue;
		if (strcmp(model.sent[i].conv, conv) != 0 || strcmp(model.sent[i].body, body) != 0)
			model.refusals++;
		return;
	}
	if (strcmp(conv, "u/dave") == 0) {
		model.refusals++;
		return;
	}
	snprintf(model.sent[model.n].user, sizeof(model.sent[0].user), "%s", user);
	snprintf(model.sent[model.n].conv, sizeof(model.sent[0].conv), "%s", conv);
	snprintf(model.sent[model.n].id, sizeof(model.sent[0].id), "%s", id);
	snprintf(model.sent[model.n].body, sizeof(model.sent[0].body), "%s", body);
	model.n++;
	model.messages++;
}

static void write_both(Im__Bus__Kind kind, const char *user, const char *conv, const char *id, const char *body)
{
	model_add(kind, user, conv, id, body);
	write_kind(kind, user, conv, id, body);
}

static void write_anything(void)
{
	char id[8] = "", body[8];
	int k = rand() % 5;

	snprintf(body, sizeof(body), "%d", rand() % 3);
	if (rand() % 3)
		snprintf(id, sizeof(id), "i%d", rand() % IDS);
	switch (rand() % 12) {
	case 0:
		write_both(SEND, "alice", "u/dave", id, body);
		break;
	case 1:
		write_both(REQUEST, "alice", "", "q", NULL);
		break;
	case 2:
		write_both(REFUSAL, "bob", "", "", "too_fast");
		break;
	default:
		write_both(SEND, convs[k][0], convs[k][1], id, body);
		break;
	}
}

/* The store's messages are the journal's sends in order, each id once, each conversation without a hole. */
static void check_store(void)
{
	uint64_t offset, after = 0;
	uint32_t node;
	uint64_t epoch;

	for (size_t i = 0; i < world.n_stored; i++) {
		const struct message *m = world.stored[i];
		uint64_t last = 0;

		assert_true(im_msgid_decode(m->msgid, &node, &epoch, &offset));
		assert_true(offset >= WORLD_BEGIN && offset < world_written() && (i == 0 || offset > after)); /* in order, none twice */
		after = offset;
		for (size_t k = 0; k < i; k++) {
			const struct message *o = world.stored[k];

			if (strcmp(o->conv, m->conv) == 0)
				last = o->seq;
			if (m->id[0] && strcmp(o->id, m->id) == 0)
				assert_string_not_equal(o->client_id, m->client_id);
		}
		assert_int_equal(m->seq, last + 1);
		assert_int_equal(m->prev, last);
	}
}

static void any_interleaving(unsigned seed)
{
	uint64_t at = WORLD_BEGIN, next;

	srand(seed);
	memset(&model, 0, sizeof(model));
	for (int i = 0; i < RECORDS; i++)
		write_anything();
	for (int step = 0; step < 4 * RECORDS; step++) {
		world.late_reads = rand() % 2;
		switch (rand() % 16) {
		case 0: case 1: case 2: case 3: case 4:
			next = world_bound(1 + (unsigned)rand() % 6, at);
			if (next > at) {
				assert_int_equal(world_send(at, next), IM_OK);
				at = next;
			}
			break;
		case 5: case 6: case 7: world_answer_lookup(IM_OK); break;
		case 8: case 9: case 10: world_answer_append(IM_OK); break;
		case 11: /* the connection falls; the plugin starts again from what the hello says */
			at = world_mark() ? world_mark() : WORLD_BEGIN;
			break;
		case 12: world.lease_away = rand() % 2; inbox_lease_changed(world.inbox); break;
		case 13: world.full = rand() % 2; inbox_resume(world.inbox); break;
		case 14: world.link_full = rand() % 2; inbox_resume(world.inbox); break;
		default:
			if (rand() % 3)
				break;
			world_crash((size_t)rand() % (world_appends() + 1));
			assert_int_equal(world_mark(), world.high);
			at = world_mark() ? world_mark() : WORLD_BEGIN;
			break;
		}
		check_store();
	}
	world.lease_away = world.full = world.link_full = false;
	at = world_mark() ? world_mark() : WORLD_BEGIN;
	if (at < world_written())
		assert_int_equal(world_send(at, world_written()), IM_OK);
	inbox_resume(world.inbox);
	world_settle();
	assert_null(world.failed);
	assert_int_equal(world_mark(), world_written());
	assert_true(inbox_idle(world.inbox));
	check_store();
	assert_int_equal(world.n_stored, model.messages);
	assert_int_equal(world.refusals, model.refusals);
}

static void any_interleaving_stores_what_the_journal_says(void **state)
{
	unsigned seed = (unsigned)time(NULL);

	(void)state;
	print_message("seed %u\n", seed);
	for (unsigned i = 0; i < ROUNDS; i++) {
		any_interleaving(seed + i);
		world_destroy();
		world_create();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define IN_A_WORLD(fn) cmocka_unit_test_setup_teardown(fn, begin, end)
		IN_A_WORLD(records_are_decided_in_journal_order),
		IN_A_WORLD(nothing_is_told_before_the_append_is_answered),
		IN_A_WORLD(a_repeat_while_the_first_is_with_the_store_is_its_dup),
		IN_A_WORLD(a_repeat_within_one_slice_is_a_dup),
		IN_A_WORLD(an_id_is_known_while_a_lookup_that_missed_it_is_under_way),
		IN_A_WORLD(a_repeat_after_a_restart_gets_the_stored_answer),
		IN_A_WORLD(an_id_used_for_another_message_is_refused_and_owed),
		IN_A_WORLD(a_batch_that_waits_for_the_lease_goes_on_in_order),
		IN_A_WORLD(what_waited_half_decided_is_decided_anew_under_a_new_lease),
		IN_A_WORLD(a_full_store_and_a_full_link_stop_the_input_only),
		IN_A_WORLD(slices_that_come_again_are_worked_once_however_they_are_cut),
		IN_A_WORLD(what_is_durable_already_is_confirmed_when_it_comes_again),
		IN_A_WORLD(a_gap_is_refused),
		IN_A_WORLD(a_record_that_is_none_is_refused),
		IN_A_WORLD(a_journal_younger_than_thousands_of_others_has_its_mark),
		IN_A_WORLD(a_failing_append_ends_it_all),
		IN_A_WORLD(a_failing_read_ends_it_too),
		IN_A_WORLD(a_drain_ends_though_more_keeps_coming),
		IN_A_WORLD(an_ack_packet_counts_as_a_whole),
		IN_A_WORLD(an_ack_of_nothing_makes_no_conversation),
		IN_A_WORLD(recipients_that_are_gone_are_an_error_owed),
		IN_A_WORLD(a_record_of_a_newer_plugin_is_passed_over),
		IN_A_WORLD(posts_take_their_turn),
		IN_A_WORLD(a_post_under_a_reused_id_hears_it_and_owes_nobody),
		IN_A_WORLD(posts_that_are_still_queued_hear_of_the_end),
		IN_A_WORLD(any_interleaving_stores_what_the_journal_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
