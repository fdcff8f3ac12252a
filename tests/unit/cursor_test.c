/* How far a device is, with the time given. */
#include "cursor.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

static const struct cursor_rules silent = { .acks = false, .settle_ms = 30000, .retry_ms = 10000, .retries = 3 };
static const struct cursor_rules acking = { .acks = true, .settle_ms = 30000, .retry_ms = 10000, .retries = 3 };

static void settle_period_follows_the_keepalive(void **state)
{
	static const struct { unsigned keepalive_s; uint32_t ms; } cases[] = {
		{ 0, 300000 }, { 1, 30000 }, { 16, 30000 }, { 20, 35000 }, { 60, 95000 }, { 65535, 98307500 }, { 4000000, 98307500 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(cursor_settle_ms(cases[i].keepalive_s), cases[i].ms);
}

static void silent_cursor_passes_a_message_one_period_after_its_hand_over(void **state)
{
	struct cursor c = { 0 };

	(void)state;
	cursor_connect(&c);
	cursor_hand(&c, 1, 1000, &silent);
	assert_false(cursor_settle(&c, 30999, &silent));
	assert_int_equal(c.delivered, 0);
	assert_true(cursor_settle(&c, 31000, &silent));
	assert_int_equal(c.delivered, 1);
	assert_int_equal(cursor_due(&c), 0);
}

static void silent_cursor_never_settles_early_under_a_steady_flow(void **state)
{
	struct cursor c = { 0 };

	(void)state;
	cursor_connect(&c);
	for (uint64_t seq = 1; seq <= 100000; seq++) {
		int64_t now = (int64_t)seq * 10;

		(void)cursor_settle(&c, now, &silent);
		cursor_hand(&c, seq, now, &silent);
		if (now > 30000)
			assert_true(c.delivered <= seq - 3000); /* what is younger than 30 s */
	}
	assert_true(c.delivered > 90000); /* and does move */
}

static void what_did_not_settle_is_owed_again_after_a_reconnect(void **state)
{
	struct cursor c = { 0 };

	(void)state;
	cursor_connect(&c);
	cursor_hand(&c, 1, 1000, &silent);
	cursor_hand(&c, 2, 20000, &silent);
	assert_true(cursor_settle(&c, 31000, &silent));
	cursor_connect(&c);
	assert_int_equal(c.delivered, 1);
	assert_int_equal(c.handed, 1);
	assert_false(cursor_settle(&c, 1000000, &silent));
}

static void acking_cursor_moves_by_acks_only(void **state)
{
	struct cursor c = { 0 };

	(void)state;
	cursor_connect(&c);
	cursor_hand(&c, 1, 0, &acking);
	cursor_hand(&c, 2, 0, &acking);
	assert_false(cursor_settle(&c, 10000000, &acking));
	assert_int_equal(c.out, 2);
	assert_true(cursor_ack(&c, 1, 10, &acking));
	assert_int_equal(c.delivered, 1);
	assert_int_equal(c.out, 1);
	assert_false(cursor_ack(&c, 1, 10, &acking));
	assert_true(cursor_ack(&c, 2, 10, &acking));
	assert_int_equal(c.out, 0);
	assert_int_equal(cursor_due(&c), 0);
}

static void repeats_double_and_end(void **state)
{
	static const int64_t at[] = { 10000, 30000, 70000 };
	struct cursor c = { 0 };
	int64_t now = 0;

	(void)state;
	cursor_connect(&c);
	cursor_hand(&c, 1, now, &acking);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(cursor_due(&c), at[i]);
		assert_false(cursor_repeat(&c, at[i] - 1, &acking));
		assert_true(cursor_repeat(&c, at[i], &acking));
	}
	assert_int_equal(cursor_due(&c), 0); /* quiet */
	cursor_hand(&c, 2, 80000, &acking);
	assert_int_equal(cursor_due(&c), 0);
	assert_true(cursor_ack(&c, 1, 90000, &acking)); /* it lives: repeats again */
	assert_int_equal(cursor_due(&c), 100000);
}

static void passed_over_messages_follow_the_last_ack_once_settled(void **state)
{
	struct cursor c = { 0 };

	(void)state;
	cursor_connect(&c);
	cursor_hand(&c, 1, 0, &acking);
	cursor_pass(&c, 2, 0, &acking);
	assert_false(cursor_settle(&c, 30000, &acking));
	assert_true(cursor_ack(&c, 1, 40000, &acking));
	assert_int_equal(c.delivered, 2);
	cursor_pass(&c, 3, 40000, &acking);
	assert_false(cursor_settle(&c, 69999, &acking));
	assert_true(cursor_settle(&c, 70000, &acking));
	assert_int_equal(c.delivered, 3);
}

static void unacked_message_below_a_passed_one_holds_the_cursor(void **state)
{
	struct cursor c = { 0 };

	(void)state;
	cursor_connect(&c);
	cursor_pass(&c, 1, 0, &acking);
	cursor_hand(&c, 2, 0, &acking);
	cursor_pass(&c, 3, 0, &acking);
	(void)cursor_settle(&c, 60000, &acking);
	assert_true(c.delivered < 2);
	assert_true(cursor_ack(&c, 2, 60000, &acking));
	assert_int_equal(c.delivered, 3);
}

static void first_ack_turns_what_is_out_into_owed_acks(void **state)
{
	struct cursor c = { 0 };

	(void)state;
	cursor_connect(&c);
	for (uint64_t seq = 1; seq <= 5; seq++)
		cursor_hand(&c, seq, 0, &silent);
	cursor_start_acking(&c, 100, &acking);
	assert_int_equal(c.out, 5);
	assert_false(cursor_settle(&c, 1000000, &acking)); /* no settling any more */
	assert_true(cursor_ack(&c, 3, 200, &acking));
	assert_int_equal(c.out, 2);
}

static void ack_beyond_what_was_handed_is_believed(void **state)
{
	struct cursor c = { 0 };

	(void)state;
	cursor_connect(&c);
	cursor_hand(&c, 1, 0, &acking);
	assert_true(cursor_ack(&c, 9, 0, &acking));
	assert_int_equal(c.handed, 9);
	assert_int_equal(c.out, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(settle_period_follows_the_keepalive),
		cmocka_unit_test(silent_cursor_passes_a_message_one_period_after_its_hand_over),
		cmocka_unit_test(silent_cursor_never_settles_early_under_a_steady_flow),
		cmocka_unit_test(what_did_not_settle_is_owed_again_after_a_reconnect),
		cmocka_unit_test(acking_cursor_moves_by_acks_only),
		cmocka_unit_test(repeats_double_and_end),
		cmocka_unit_test(passed_over_messages_follow_the_last_ack_once_settled),
		cmocka_unit_test(unacked_message_below_a_passed_one_holds_the_cursor),
		cmocka_unit_test(first_ack_turns_what_is_out_into_owed_acks),
		cmocka_unit_test(ack_beyond_what_was_handed_is_believed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
