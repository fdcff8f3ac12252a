/* plugin/reading.c: who does not take what it is given is found out, whoever reads never is. */
#include "plugin/reading.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define KIB 1024u

static struct reading_watch *w;
static struct session s = { .handle = 1, .client_id = "alice:lamp" };
static bool visible, gone;
static uint64_t acked;
static unsigned changes, kicks;
static int64_t now;

bool broker_acked(const struct mosquitto *context, uint64_t *out)
{
	(void)context;
	*out = acked;
	return visible;
}

struct session *session_by_handle(struct session_table *t, uint64_t handle)
{
	(void)t;
	return handle == s.handle && !gone ? &s : NULL;
}

void session_kick(struct session_table *t, struct session *victim, const char *reason)
{
	(void)t;
	(void)reason;
	victim->kicked = true;
	kicks++;
}

static void on_change(void *arg, struct session *changed)
{
	(void)arg;
	assert_ptr_equal(changed, &s);
	changes++;
}

static int setup(void **state)
{
	(void)state;
	memset(&s.reading, 0, sizeof(s.reading));
	s.kicked = gone = false;
	visible = true;
	acked = changes = kicks = 0;
	now = 1000;
	w = reading_create();
	return w ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	reading_destroy(w);
	return 0;
}

static void look(void)
{
	now += READING_EVERY_MS;
	reading_look(w, NULL, now, on_change, NULL);
}

static void a_good_reader_is_never_behind(void **state)
{
	(void)state;
	for (int month = 0; month < 1000; month++) {
		reading_given(w, &s, 100 * KIB);
		acked += 104 * KIB; /* with topics and headers */
		look();
		assert_false(s.reading.behind);
	}
	assert_int_equal(changes, 0);
	assert_int_equal(kicks, 0);
	assert_true(s.reading.untaken <= READING_BEHIND);
}

static void who_stops_reading_is_behind_until_it_has_read(void **state)
{
	(void)state;
	reading_given(w, &s, 1000 * KIB);
	acked = 90 * KIB; /* what fits into its kernel's buffer */
	look();
	assert_true(s.reading.behind);
	for (int i = 0; i < 1000; i++)
		look();
	assert_int_equal(changes, 1);
	acked = 800 * KIB;
	look();
	assert_true(s.reading.behind); /* not to and fro */
	acked = 900 * KIB;
	look();
	assert_false(s.reading.behind);
	assert_int_equal(changes, 2);
}

static void having_read_much_else_is_no_credit(void **state)
{
	(void)state;
	acked = 1 << 30; /* ordinary topics */
	reading_given(w, &s, 300 * KIB);
	look();
	assert_false(s.reading.behind);
	reading_given(w, &s, 300 * KIB);
	look();
	assert_true(s.reading.behind);
}

static void what_waited_in_the_broker_counts_from_the_start(void **state)
{
	(void)state;
	for (int i = 0; i < 300; i++)
		reading_resumed(w, &s, KIB);
	assert_true(s.reading.behind); /* before anybody has looked */
	look();
	assert_int_equal(changes, 0);
	acked = 310 * KIB;
	look();
	assert_false(s.reading.behind);
	assert_int_equal(changes, 1);
}

static void where_nothing_can_be_seen_it_ends_at_the_limit(void **state)
{
	(void)state;
	visible = false;
	reading_given(w, &s, READING_BLIND);
	look();
	assert_false(s.reading.behind);
	assert_int_equal(kicks, 0);
	reading_given(w, &s, 1);
	look();
	look();
	assert_int_equal(kicks, 1);
}

static void one_that_is_gone_is_forgotten(void **state)
{
	(void)state;
	reading_given(w, &s, 1000 * KIB);
	gone = true;
	look();
	gone = false;
	look();
	assert_int_equal(changes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_good_reader_is_never_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(who_stops_reading_is_behind_until_it_has_read, setup, teardown),
		cmocka_unit_test_setup_teardown(having_read_much_else_is_no_credit, setup, teardown),
		cmocka_unit_test_setup_teardown(what_waited_in_the_broker_counts_from_the_start, setup, teardown),
		cmocka_unit_test_setup_teardown(where_nothing_can_be_seen_it_ends_at_the_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(one_that_is_gone_is_forgotten, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
