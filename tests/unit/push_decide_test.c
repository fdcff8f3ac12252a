/* Whether a message wakes a device, and when quiet hours end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "push_decide.h"
#include "push_quiet.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NOW 1790000000000ll

/* A message of two seconds ago for a device that is away: pushed. */
static struct push_facts plain(void)
{
	return (struct push_facts){
		.now_ms = NOW, .stored_ms = NOW - 2000, .deadline_ms = NOW + 86400000, .visible = true, .enabled = true, .members_most = 500,
		.grace_ms = 4000, .active_ms = 30000, .seen_ms = NOW - 3600000, .unused_ms = 30ll * 86400000, .token_good = true,
	};
}

static void expect(const struct push_facts *f, enum push_what what, const char *reason, int64_t until_ms)
{
	struct push_verdict v = push_decide(f);

	assert_string_equal(v.reason, reason);
	assert_int_equal(v.what, what);
	assert_int_equal(v.until_ms, until_ms);
}

static void a_device_that_is_away_is_pushed_at_once(void **state)
{
	struct push_facts f = plain();

	(void)state;
	expect(&f, PUSH_SEND, "send", 0);
}

static void expect_badge(struct push_badge_facts f, enum push_what what, const char *reason)
{
	struct push_verdict v = push_decide_badge(&f);

	assert_string_equal(v.reason, reason);
	assert_int_equal(v.what, what);
}

static void a_number_is_corrected_if_it_may_be_another(void **state)
{
	static const struct push_badge_facts plain_badge = {
		.enabled = true, .token_good = true, .now_ms = NOW, .seen_ms = NOW - 3600000, .unused_ms = 30ll * 86400000, .shown = 3, .badge = -1,
	};
	struct push_badge_facts f;

	(void)state;
	expect_badge(plain_badge, PUSH_SEND, "send");
	for (int shown = -1; shown <= 3; shown++)
		for (int badge = -1; badge <= 3; badge++) {
			f = plain_badge;
			f.shown = shown;
			f.badge = badge;
			if (shown == 0 && badge <= 0)
				expect_badge(f, PUSH_DROP, "no_badge");
			else if (shown == badge && badge >= 0)
				expect_badge(f, PUSH_DROP, "same_badge");
			else
				expect_badge(f, PUSH_SEND, "send");
		}
	f = plain_badge;
	f.enabled = false;
	expect_badge(f, PUSH_DROP, "user_disabled");
	f = plain_badge;
	f.token_good = false;
	expect_badge(f, PUSH_DROP, "token_invalid");
	f = plain_badge;
	f.connected = true;
	expect_badge(f, PUSH_DROP, "connected");
	f = plain_badge;
	f.seen_ms = NOW - 31ll * 86400000;
	expect_badge(f, PUSH_DROP, "device_unused");
}

#define CASE(change, reason)                          \
	do {                                          \
		struct push_facts f = plain();        \
		change;                               \
		expect(&f, PUSH_DROP, reason, 0);     \
	} while (0)

static void each_reason_not_to_push_stands_alone(void **state)
{
	(void)state;
	CASE(f.own = true, "own");
	CASE(f.system = true, "system");
	CASE(f.enabled = false, "user_disabled");
	CASE(f.visible = false, "not_visible");
	CASE(f.got = true, "got");
	CASE(f.read = true, "read");
	CASE(f.deadline_ms = NOW, "expired");
	CASE(f.token_good = false, "token_invalid");
	CASE(f.blocked = true, "blocked");
	CASE(f.muted = true, "muted");
	CASE((f.muted = true, f.mentioned = true), "muted");
	CASE(f.members = 501, "large_group");
	CASE(f.seen_ms = NOW - 31ll * 86400000, "device_unused");
	CASE(f.connected = true, "connected");
	CASE((f.quiet_until_ms = NOW + 3600000, f.deadline_ms = NOW + 3600000), "quiet_hours"); /* over before they are */
}

static void a_mention_overrides_mute_and_size(void **state)
{
	struct push_facts f = plain();

	(void)state;
	f.mentioned = f.mention_overrides = f.muted = true;
	f.members = 100000;
	expect(&f, PUSH_SEND, "send", 0);
	f.blocked = true;
	expect(&f, PUSH_DROP, "blocked", 0);
}

static void a_connected_device_that_acks_has_a_grace(void **state)
{
	struct push_facts f = plain();

	(void)state;
	f.connected = f.acks = true;
	expect(&f, PUSH_WAIT, "grace", NOW + 2000);
	f.now_ms = NOW + 1999;
	expect(&f, PUSH_WAIT, "grace", NOW + 2000);
	f.now_ms = NOW + 2000;
	expect(&f, PUSH_SEND, "send", 0);
	f.got = true;
	expect(&f, PUSH_DROP, "got", 0);
}

static void a_device_in_use_elsewhere_goes_first(void **state)
{
	struct push_facts f = plain();

	(void)state;
	f.elsewhere = true;
	expect(&f, PUSH_HOLD, "active_elsewhere", NOW + 28000);
	f.now_ms = NOW + 28000;
	expect(&f, PUSH_SEND, "send", 0);
}

static void quiet_hours_hold(void **state)
{
	struct push_facts f = plain();

	(void)state;
	f.quiet_until_ms = NOW + 3600000;
	expect(&f, PUSH_HOLD, "quiet_hours", NOW + 3600000);
	f.now_ms = NOW + 3600000;
	expect(&f, PUSH_SEND, "send", 0);
}

/* ---- quiet hours */

static int64_t utc(int year, int month, int day, int hour, int minute)
{
	struct tm tm = { .tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute };

	return (int64_t)timegm(&tm) * 1000;
}

#define AT(h, m) ((h)*60 + (m))

static void quiet_hours_by_offset(void **state)
{
	static const struct {
		int hour, minute;      /* UTC of 2026-11-22 */
		const char *zone;
		unsigned from, to;
		int day, end, end_minute; /* 0: not quiet */
	} cases[] = {
		{ 12, 0, "UTC", AT(22, 0), AT(7, 0), 0, 0, 0 },
		{ 22, 0, "UTC", AT(22, 0), AT(7, 0), 23, 7, 0 },
		{ 21, 59, "UTC", AT(22, 0), AT(7, 0), 0, 0, 0 },
		{ 6, 59, "UTC", AT(22, 0), AT(7, 0), 22, 7, 0 },
		{ 7, 0, "UTC", AT(22, 0), AT(7, 0), 0, 0, 0 },
		{ 0, 0, "UTC", AT(22, 0), AT(7, 0), 22, 7, 0 },
		{ 13, 0, "UTC", AT(12, 0), AT(14, 30), 22, 14, 30 },
		{ 14, 30, "+08:00", AT(22, 0), AT(7, 0), 22, 23, 0 },  /* 22:30 there */
		{ 23, 0, "+08:00", AT(22, 0), AT(7, 0), 0, 0, 0 },
		{ 2, 0, "-03:30", AT(22, 0), AT(7, 0), 22, 10, 30 },   /* 22:30 of the day before there */
		{ 2, 0, "UTC", AT(2, 0), AT(2, 0), 0, 0, 0 },          /* none */
		{ 2, 0, "Mars/Olympus", AT(0, 0), AT(23, 59), 0, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int64_t end = cases[i].day ? utc(2026, 11, cases[i].day, cases[i].end, cases[i].end_minute) : 0;
		int64_t got = quiet_until(utc(2026, 11, 22, cases[i].hour, cases[i].minute), cases[i].zone, cases[i].from, cases[i].to);

		if (got != end)
			fail_msg("case %zu: %lld instead of %lld", i, (long long)got, (long long)end);
	}
}

/* The night of 2026-10-25 in Berlin has 03:00 twice; the one of 2026-03-29 has no 02:30. */
static void quiet_hours_know_clock_changes(void **state)
{
	(void)state;
	if (!quiet_zone_known("Europe/Berlin"))
		skip();
	assert_int_equal(quiet_until(utc(2026, 10, 24, 20, 30), "Europe/Berlin", AT(22, 0), AT(7, 0)), utc(2026, 10, 25, 6, 0));
	assert_int_equal(quiet_until(utc(2026, 3, 28, 21, 30), "Europe/Berlin", AT(22, 0), AT(7, 0)), utc(2026, 3, 29, 5, 0));
	assert_int_equal(quiet_until(utc(2026, 7, 1, 19, 59), "Europe/Berlin", AT(22, 0), AT(7, 0)), 0);
	assert_int_equal(quiet_until(utc(2026, 7, 1, 20, 0), "Europe/Berlin", AT(22, 0), AT(7, 0)), utc(2026, 7, 2, 5, 0));
	assert_int_equal(quiet_until(utc(2026, 7, 1, 20, 0), "UTC", AT(20, 0), AT(21, 0)), utc(2026, 7, 1, 21, 0)); /* and back */
}

static void zones_that_are_none_are_refused(void **state)
{
	static const char *const bad[] = { "", "/etc/passwd", "../../etc/passwd", "Europe/../../passwd", "+8:00", "+15:00", "08:00", "Berlin\n", "+08:60", "Europe/Nowhere" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(quiet_zone_known(bad[i]));
	assert_true(quiet_zone_known("UTC"));
	assert_true(quiet_zone_known("-11:30"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_number_is_corrected_if_it_may_be_another),
		cmocka_unit_test(a_device_that_is_away_is_pushed_at_once),
		cmocka_unit_test(each_reason_not_to_push_stands_alone),
		cmocka_unit_test(a_mention_overrides_mute_and_size),
		cmocka_unit_test(a_connected_device_that_acks_has_a_grace),
		cmocka_unit_test(a_device_in_use_elsewhere_goes_first),
		cmocka_unit_test(quiet_hours_hold),
		cmocka_unit_test(quiet_hours_by_offset),
		cmocka_unit_test(quiet_hours_know_clock_changes),
		cmocka_unit_test(zones_that_are_none_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
