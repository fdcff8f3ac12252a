/* The broker's event sequences, one test each (what AUTH and DISCONNECT mean at takeover, resume, failed logins). */
#include "base/clock.h"
#include "fake_plugin.h"
#include "plugin/session_expiry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define T fake.p.sessions

static int setup(void **state)
{
	(void)state;
	fake_start();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_stop();
	return 0;
}

static struct session *open_as(struct fake_context *x, const char *user, const char *id, unsigned protocol, bool clean)
{
	fake_ctx(x, user, id, protocol, clean);
	return session_open(T, (const struct mosquitto *)(const void *)x, &x->c, false);
}

static bool disconnect(struct fake_context *x, bool *owner)
{
	struct session *s = session_close(T, (const struct mosquitto *)(const void *)x, owner);

	session_free(s);
	return s != NULL;
}

static void handles_are_unique_and_carry_the_epoch(void **state)
{
	struct fake_context a, b;
	uint64_t first = open_as(&a, "alice", "alice:phone", 4, true)->handle;
	uint64_t second = open_as(&b, "bob", "bob:pc", 4, true)->handle;

	(void)state;
	assert_int_equal(first >> 32, 7);
	assert_true(second > first);
	assert_ptr_equal(session_by_handle(T, first), session_by_client_id(T, "alice:phone"));
}

static void a_connection_ends_once(void **state)
{
	struct fake_context a;
	bool owner;

	(void)state;
	open_as(&a, "alice", "alice:phone", 4, true);
	assert_true(disconnect(&a, &owner));
	assert_true(owner);
	assert_null(session_by_client_id(T, "alice:phone"));
	assert_false(disconnect(&a, &owner)); /* kick inside MESSAGE: a second one */
}

static void takeover_new_one_is_in_before_the_old_one_is_out(void **state)
{
	struct fake_context old, new;
	uint64_t first, second;
	bool owner;

	(void)state;
	first = open_as(&old, "alice", "alice:phone", 4, true)->handle;
	second = open_as(&new, "alice", "alice:phone", 4, true)->handle;
	assert_true(session_taken_over(T, session_by_context(T, (const struct mosquitto *)(const void *)&old)));
	assert_null(session_by_handle(T, first)); /* nothing more is handed to it */
	assert_true(disconnect(&old, &owner));
	assert_false(owner);
	assert_int_equal(session_by_client_id(T, "alice:phone")->handle, second);
	assert_non_null(session_by_handle(T, second));
}

static void failed_login_with_a_victims_client_id_changes_nothing(void **state)
{
	struct fake_context victim, thief;
	bool owner;

	(void)state;
	open_as(&victim, "alice", "alice:phone", 4, true);
	fake_ctx(&thief, "mallory", "alice:phone", 4, true);
	assert_false(disconnect(&thief, &owner));
	assert_non_null(session_by_client_id(T, "alice:phone"));
}

static void a_socket_that_never_connected_means_nothing(void **state)
{
	struct fake_context scan;
	bool owner;

	(void)state;
	fake_ctx(&scan, NULL, NULL, 0, true);
	assert_false(disconnect(&scan, &owner));
	session_open_foreign(T, (const struct mosquitto *)(const void *)&scan, &scan.c);
	session_tick(T);
}

static void resume_ends_the_old_context_a_second_time(void **state)
{
	struct fake_context old, new;
	struct session *s;
	bool owner;

	(void)state;
	s = open_as(&old, "alice", "alice:phone", 4, false);
	assert_int_equal(session_add_filter(T, s, "im/v1/in/#", IM_CODEC_JSON, 2), IM_OK);
	assert_true(disconnect(&old, &owner));
	s = open_as(&new, "alice", "alice:phone", 4, false);
	assert_false(disconnect(&old, &owner)); /* the broker says it again */
	assert_ptr_equal(session_by_client_id(T, "alice:phone"), s);
	assert_int_equal(s->n_filters, 1);
	assert_int_equal(s->filters[0].qos, 1);
	assert_int_equal(s->codec, IM_CODEC_JSON);
	assert_true(session_is_resuming(T, s));
	session_tick(T);
	assert_false(session_is_resuming(T, s));
}

static void a_clean_start_forgets_the_stored_filters(void **state)
{
	struct fake_context a, b, c;
	struct session *s;
	bool owner;

	(void)state;
	s = open_as(&a, "alice", "alice:phone", 4, false);
	session_add_filter(T, s, "im/v1/in/#", IM_CODEC_JSON, 1);
	disconnect(&a, &owner);
	s = open_as(&b, "alice", "alice:phone", 4, true);
	assert_int_equal(s->n_filters, 0);
	assert_false(session_is_resuming(T, s));
	disconnect(&b, &owner);
	s = open_as(&c, "alice", "alice:phone", 4, false);
	assert_int_equal(s->n_filters, 0);
}

static void an_address_used_again_is_a_new_connection(void **state)
{
	struct fake_context x;
	uint64_t first;
	bool owner;

	(void)state;
	first = open_as(&x, "alice", "alice:phone", 4, true)->handle;
	disconnect(&x, &owner);
	assert_string_equal(session_gone(T, (const struct mosquitto *)(const void *)&x)->user, "alice");
	assert_true(open_as(&x, "bob", "bob:pc", 4, true)->handle != first);
	assert_null(session_gone(T, (const struct mosquitto *)(const void *)&x));
	assert_null(session_by_client_id(T, "alice:phone"));
}

static void filters_of_stored_sessions_survive_a_restart(void **state)
{
	struct fake_context a, b, c;
	struct session *s;
	bool owner;

	(void)state;
	s = open_as(&a, "alice", "alice:phone", 4, false);
	session_add_filter(T, s, "im/v1/raw/msg/#", IM_CODEC_RAW, 1);
	session_add_filter(T, s, "im/v1/raw/err/#", IM_CODEC_RAW, 0);
	session_remove_filter(T, s, "im/v1/raw/err/#");
	s = open_as(&b, "bob", "bobs-pc", 4, false);
	disconnect(&a, &owner);
	session_table_destroy(T);
	assert_int_equal(session_table_create(fake.dir, 8, &T, NULL), IM_OK);
	assert_int_equal(session_claim(T, "bobs-pc", "alice"), SESSION_OF_OTHER);
	assert_int_equal(session_claim(T, "bobs-pc", "bob"), SESSION_OWN);
	assert_int_equal(session_claim(T, "nobody", "bob"), SESSION_FREE);
	assert_true(session_holds_id(T, "bobs-pc"));
	s = open_as(&c, "alice", "alice:phone", 4, false);
	assert_int_equal(s->n_filters, 1);
	assert_string_equal(s->filters[0].filter, "im/v1/raw/msg/#");
	assert_int_equal(s->codec, IM_CODEC_RAW);
}

static void a_torn_sessions_file_costs_its_end_only(void **state)
{
	struct fake_context a, b, c, d;
	char path[100];
	struct session *s;
	FILE *f;
	long size;

	(void)state;
	s = open_as(&a, "alice", "alice:phone", 4, false);
	session_add_filter(T, s, "im/v1/in/#", IM_CODEC_JSON, 1);
	open_as(&b, "bob", "bob:pc", 4, false);
	session_table_destroy(T);
	snprintf(path, sizeof(path), "%s/sessions", fake.dir);
	f = fopen(path, "r+b");
	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	size = ftell(f);
	assert_int_equal(ftruncate(fileno(f), size - 3), 0);
	fclose(f);
	assert_int_equal(session_table_create(fake.dir, 8, &T, NULL), IM_OK);
	assert_int_equal(open_as(&c, "alice", "alice:phone", 4, false)->n_filters, 1);
	assert_int_equal(session_claim(T, "bob:pc", "alice"), SESSION_FREE);
	open_as(&d, "bob", "bob:pc", 4, false);
}

static void a_sessions_file_of_a_newer_release_stops_the_start(void **state)
{
	struct im_err err = {""};
	char path[100];
	FILE *f;

	(void)state;
	session_table_destroy(T);
	T = NULL;
	snprintf(path, sizeof(path), "%s/sessions", fake.dir);
	f = fopen(path, "r+b");
	assert_non_null(f);
	fputs("IMSESS2", f);
	fclose(f);
	assert_int_equal(session_table_create(fake.dir, 8, &T, &err), IM_BAD_INPUT);
	assert_non_null(strstr(err.text, "newer release"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(session_table_create(fake.dir, 8, &T, NULL), IM_OK);
}

static void the_sessions_file_does_not_grow_for_ever(void **state)
{
	char path[100];
	struct session *s;
	struct fake_context a;
	FILE *f;

	(void)state;
	s = open_as(&a, "alice", "alice:phone", 4, false);
	for (int i = 0; i < 40000; i++)
		session_add_filter(T, s, "im/v1/in/#", IM_CODEC_JSON, i & 1);
	snprintf(path, sizeof(path), "%s/sessions", fake.dir);
	f = fopen(path, "rb");
	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	assert_true(ftell(f) < (2 << 20));
	fclose(f);
	session_table_destroy(T);
	assert_int_equal(session_table_create(fake.dir, 8, &T, NULL), IM_OK);
	assert_int_equal(open_as(&a, "alice", "alice:phone", 4, false)->n_filters, 1);
}

static void stored_sessions_of_others_hold_their_id(void **state)
{
	struct fake_context sensor;
	bool owner;

	(void)state;
	session_open_foreign(T, fake_ctx(&sensor, "meter", "sensor2", 4, false), &sensor.c);
	assert_int_equal(session_claim(T, "sensor2", "alice"), SESSION_OF_OTHER); /* in the same turn already */
	session_tick(T);
	assert_false(disconnect(&sensor, &owner));
	assert_int_equal(session_claim(T, "sensor2", "alice"), SESSION_OF_OTHER);
	assert_int_equal(session_claim(T, "sensor2", "meter"), SESSION_FREE);
	session_open_foreign(T, fake_ctx(&sensor, "meter", "sensor2", 4, true), &sensor.c);
	session_tick(T);
	assert_false(disconnect(&sensor, &owner));
	assert_int_equal(session_claim(T, "sensor2", "alice"), SESSION_FREE);
}

static void foreign_clients_hold_their_id_from_the_next_tick_on(void **state)
{
	struct fake_context sensor;
	bool owner;

	(void)state;
	session_open_foreign(T, fake_ctx(&sensor, "meter", "sensor1", 4, true), &sensor.c);
	assert_int_equal(session_claim(T, "sensor1", "alice"), SESSION_OF_OTHER);
	session_tick(T);
	assert_int_equal(session_claim(T, "sensor1", "alice"), SESSION_OF_OTHER);
	assert_null(session_by_client_id(T, "sensor1"));
	assert_false(session_holds_id(T, "sensor1"));
	assert_false(disconnect(&sensor, &owner));
	assert_int_equal(session_claim(T, "sensor1", "alice"), SESSION_FREE);
}

static void kicks_wait_for_the_tick_and_happen_once(void **state)
{
	struct fake_context a;
	struct session *s = open_as(&a, "alice", "alice:phone", 4, true);

	(void)state;
	session_kick(T, s, "test");
	session_kick(T, s, "test");
	assert_int_equal(fake.n_kicked, 0);
	fake.disconnect_on_kick = (const struct mosquitto *)(const void *)&a;
	session_tick(T);
	session_tick(T);
	assert_int_equal(fake.n_kicked, 1);
	assert_string_equal(fake.kicked[0], "alice:phone");
	assert_null(session_by_client_id(T, "alice:phone"));
}

static void a_kick_for_one_taken_over_spares_its_successor(void **state)
{
	struct fake_context old, new;
	struct session *s = open_as(&old, "alice", "alice:phone", 4, true);

	(void)state;
	session_kick(T, s, "test");
	open_as(&new, "alice", "alice:phone", 4, true);
	session_tick(T);
	assert_int_equal(fake.n_kicked, 0);
}

static void sessions_end_with_their_credential(void **state)
{
	struct fake_context a, b, c;
	struct session *s;
	bool owner;
	int64_t now;

	(void)state;
	session_tick(T);
	now = im_clock_wall_ms();
	s = open_as(&a, "alice", "alice:phone", 4, true);
	session_expires(T, s, now - 5000); /* over before it began */
	session_expires(T, open_as(&b, "bob", "bob:phone", 4, true), now + 3600 * 1000 * 3);
	s = open_as(&c, "alice", "alice:tv", 4, true);
	session_expires(T, s, now + 10);
	session_free(session_close(T, (const struct mosquitto *)(const void *)&c, &owner)); /* gone earlier */
	fake.disconnect_on_kick = (const struct mosquitto *)(const void *)&a;
	while (im_clock_wall_ms() < now + 2100 && fake.n_kicked == 0) {
		usleep(10000);
		session_tick(T);
	}
	assert_int_equal(fake.n_kicked, 1);
	assert_string_equal(fake.kicked[0], "alice:phone");
	assert_non_null(session_by_client_id(T, "bob:phone"));
}

static struct expiry wheel;
static struct expiry_node nodes[5000];
static unsigned n_due;

static void count_due(void *arg, struct expiry_node *n)
{
	const int64_t *now_ms = arg;

	assert_true(n->at_s == 0);
	assert_true((n - nodes) * 3000 <= *now_ms);
	n_due++;
}

static void the_wheel_turns_with_every_clock(void **state)
{
	static const int64_t steps[] = { 1, 999, 1000, 1500, 60000, 3600000, 20000000, -5000000, 1000, 5000000, 100000000 };
	int64_t now = 0;
	unsigned want = 0;

	(void)state;
	for (unsigned i = 0; i < 5000; i++) /* node i is due at second 3 i, four rounds of the wheel in all */
		expiry_add(&wheel, &nodes[i], (int64_t)i * 3000 + (i ? 0 : 1));
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		now += steps[i];
		expiry_due(&wheel, now, count_due, &now);
		if ((unsigned)(now / 3000) + 1 > want)
			want = (unsigned)(now / 3000) + 1 > 5000 ? 5000 : (unsigned)(now / 3000) + 1;
		if (now >= 1000)
			assert_int_equal(n_due, want);
	}
	assert_int_equal(n_due, 5000);
	expiry_remove(&wheel, &nodes[7]); /* not in it any more: harmless */
}

static void many_kicks_are_spread_over_turns(void **state)
{
	static struct fake_context many[250];
	char id[32];

	(void)state;
	for (unsigned i = 0; i < 250; i++) {
		snprintf(id, sizeof(id), "alice-%u", i);
		session_kick(T, open_as(&many[i], "alice", id, 4, true), "test");
	}
	session_tick(T);
	assert_int_equal(fake.n_kicked, KICKS_A_TURN);
	session_tick(T);
	session_tick(T);
	assert_int_equal(fake.n_kicked, 250);
}

static void the_best_granted_qos_of_a_matching_filter_counts(void **state)
{
	struct fake_context a;
	struct session *s = open_as(&a, "alice", "alice:phone", 4, true);

	(void)state;
	session_add_filter(T, s, "im/v1/in/msg/#", IM_CODEC_JSON, 0);
	assert_int_equal(session_wants(s, "im/v1/in/msg/u/bob"), 0);
	assert_int_equal(session_wants(s, "im/v1/in/err"), -1);
	session_add_filter(T, s, "im/v1/in/#", IM_CODEC_JSON, 1);
	assert_int_equal(session_wants(s, "im/v1/in/msg/u/bob"), 1);
	assert_true(session_remove_filter(T, s, "im/v1/in/#"));
	assert_true(session_remove_filter(T, s, "im/v1/in/msg/#"));
	assert_false(session_remove_filter(T, s, "im/v1/in/msg/#"));
	assert_int_equal(s->codec, IM_CODEC_NONE);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(handles_are_unique_and_carry_the_epoch),
		TEST(a_connection_ends_once),
		TEST(takeover_new_one_is_in_before_the_old_one_is_out),
		TEST(failed_login_with_a_victims_client_id_changes_nothing),
		TEST(a_socket_that_never_connected_means_nothing),
		TEST(resume_ends_the_old_context_a_second_time),
		TEST(a_clean_start_forgets_the_stored_filters),
		TEST(an_address_used_again_is_a_new_connection),
		TEST(filters_of_stored_sessions_survive_a_restart),
		TEST(a_torn_sessions_file_costs_its_end_only),
		TEST(a_sessions_file_of_a_newer_release_stops_the_start),
		TEST(the_sessions_file_does_not_grow_for_ever),
		TEST(stored_sessions_of_others_hold_their_id),
		TEST(foreign_clients_hold_their_id_from_the_next_tick_on),
		TEST(kicks_wait_for_the_tick_and_happen_once),
		TEST(a_kick_for_one_taken_over_spares_its_successor),
		TEST(sessions_end_with_their_credential),
		TEST(the_wheel_turns_with_every_clock),
		TEST(many_kicks_are_spread_over_turns),
		TEST(the_best_granted_qos_of_a_matching_filter_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
