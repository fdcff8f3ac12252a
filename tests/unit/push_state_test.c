/* lib/push, what is pure of it: what becomes of a job, backoff, breaker, budget, guard. Tables of cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "push/backoff.h"
#include "push/breaker.h"
#include "push/state.h"
#include "push/stats.h"

#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define LONG 86400000

/* ---- state.c: the table of docs/push.md, row by row */

static void every_result_has_its_row(void **state)
{
	static const struct {
		enum push_class class;
		struct push_life life;
		int64_t left_ms;
		bool other_env;
		enum push_belief belief;
		enum push_state to;
		const char *why;
		unsigned attempts;
		enum push_effect effect;
		enum push_token_effect token;
		bool alarm, maybe_dup;
	} cases[] = {
		{PUSH_ACCEPTED, {0}, LONG, false, 0, PUSH_STATE_ACCEPTED, NULL, 0, PUSH_EFFECT_GOOD, PUSH_TOKEN_GOOD, false, false},
		{PUSH_UNSENT, {.attempts = 2}, LONG, false, 0, PUSH_STATE_READY, NULL, 2, PUSH_EFFECT_NONE, 0, false, false},
		{PUSH_UNREACHABLE, {.attempts = 2}, LONG, false, 0, PUSH_STATE_READY, NULL, 2, PUSH_EFFECT_BAD, 0, false, false},
		{PUSH_UNSENT, {.unsent = 30}, 10, false, 0, PUSH_STATE_EXPIRED, NULL, 0, PUSH_EFFECT_NONE, 0, false, false},
		{PUSH_UNKNOWN, {0}, LONG, false, 0, PUSH_STATE_RETRY, NULL, 1, PUSH_EFFECT_BAD, 0, false, true},
		{PUSH_UNKNOWN, {.attempts = 7}, LONG, false, 0, PUSH_STATE_DEAD, "attempts", 8, PUSH_EFFECT_BAD, 0, false, true},
		{PUSH_RETRY, {.attempts = 1}, LONG, false, 0, PUSH_STATE_RETRY, NULL, 2, PUSH_EFFECT_BAD, 0, false, false},
		{PUSH_RETRY, {.attempts = 1, .maybe_dup = true}, LONG, false, 0, PUSH_STATE_RETRY, NULL, 2, PUSH_EFFECT_BAD, 0, false, true},
		{PUSH_RETRY, {0}, 100, false, 0, PUSH_STATE_EXPIRED, NULL, 1, PUSH_EFFECT_BAD, 0, false, false},
		{PUSH_TOKEN_RATE, {0}, LONG, false, 0, PUSH_STATE_HELD, "token_rate", 1, PUSH_EFFECT_GOOD, PUSH_TOKEN_HOLD, false, false},
		{PUSH_RATE, {0}, LONG, false, 0, PUSH_STATE_RETRY, NULL, 1, PUSH_EFFECT_RATE, 0, false, false},
		{PUSH_QUOTA, {.attempts = 1}, LONG, false, 0, PUSH_STATE_HELD, "quota", 1, PUSH_EFFECT_QUOTA, 0, false, false},
		{PUSH_AUTH, {0}, LONG, false, 0, PUSH_STATE_READY, NULL, 0, PUSH_EFFECT_NONE, 0, false, false},
		{PUSH_AUTH, {.auth_tried = true}, LONG, false, 0, PUSH_STATE_HELD, "config", 0, PUSH_EFFECT_CONFIG, 0, true, false},
		{PUSH_CONFIG, {.attempts = 3}, LONG, false, 0, PUSH_STATE_HELD, "config", 3, PUSH_EFFECT_CONFIG, 0, true, false},
		{PUSH_TOKEN_INVALID, {0}, LONG, false, PUSH_BELIEF_INVALID, PUSH_STATE_DEAD, "token", 0, PUSH_EFFECT_GOOD, PUSH_TOKEN_DROP, false, false},
		{PUSH_TOKEN_INVALID, {0}, LONG, false, PUSH_BELIEF_SUSPECT, PUSH_STATE_HELD, "token_suspect", 0, PUSH_EFFECT_GOOD, PUSH_TOKEN_SUSPECT, false, false},
		{PUSH_TOKEN_INVALID, {0}, 600000, false, PUSH_BELIEF_SUSPECT, PUSH_STATE_HELD, "token_suspect", 0, PUSH_EFFECT_GOOD, PUSH_TOKEN_SUSPECT, false, false}, /* new files may come before its deadline */
		{PUSH_TOKEN_INVALID, {0}, LONG, false, PUSH_BELIEF_NEWER, PUSH_STATE_RETRY, NULL, 1, PUSH_EFFECT_GOOD, 0, false, false},
		{PUSH_TOKEN_ENV, {0}, LONG, true, PUSH_BELIEF_INVALID, PUSH_STATE_READY, NULL, 1, PUSH_EFFECT_GOOD, 0, false, false},
		{PUSH_TOKEN_ENV, {.other_env = true, .attempts = 1}, LONG, true, PUSH_BELIEF_INVALID, PUSH_STATE_DEAD, "token", 1, PUSH_EFFECT_GOOD, PUSH_TOKEN_DROP, false, false},
		{PUSH_TOKEN_ENV, {0}, LONG, false, PUSH_BELIEF_SUSPECT, PUSH_STATE_HELD, "token_suspect", 0, PUSH_EFFECT_GOOD, PUSH_TOKEN_SUSPECT, false, false},
		{PUSH_TOO_LARGE, {0}, LONG, false, 0, PUSH_STATE_READY, NULL, 1, PUSH_EFFECT_GOOD, 0, false, false},
		{PUSH_TOO_LARGE, {.minimal = true}, LONG, false, 0, PUSH_STATE_DEAD, "bug", 1, PUSH_EFFECT_GOOD, 0, true, false},
		{PUSH_CONTENT, {0}, LONG, false, 0, PUSH_STATE_DEAD, "content", 0, PUSH_EFFECT_GOOD, 0, true, false},
		{PUSH_BUG, {0}, LONG, false, 0, PUSH_STATE_DEAD, "bug", 0, PUSH_EFFECT_GOOD, 0, true, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct push_result r = {.class = cases[i].class, .hold_until_ms = 77};
		struct push_step s = push_next(&cases[i].life, &r, cases[i].left_ms, cases[i].other_env, cases[i].belief, 12345);

		if (s.state != cases[i].to || s.life.attempts != cases[i].attempts || s.effect != cases[i].effect || s.token != cases[i].token ||
		    s.alarm != cases[i].alarm || s.life.maybe_dup != cases[i].maybe_dup || !s.why != !cases[i].why ||
		    (s.why && strcmp(s.why, cases[i].why) != 0))
			fail_msg("case %zu (%s): %s, %s, attempts %u, effect %d, token %d", i, push_class_name(cases[i].class), push_state_name(s.state),
				 s.why ? s.why : "-", s.life.attempts, s.effect, s.token);
		assert_true(s.delay_ms >= 0 && (push_state_is_final(s.state) || s.delay_ms < cases[i].left_ms));
	}
}

static void what_was_tried_is_remembered(void **state)
{
	struct push_life fresh = {0}, tried = {.auth_tried = true, .unsent = 5};
	struct push_result r = {.class = PUSH_TOO_LARGE};

	(void)state;
	assert_true(push_next(&fresh, &r, LONG, false, 0, 1).life.minimal);
	r.class = PUSH_TOKEN_ENV;
	assert_true(push_next(&fresh, &r, LONG, true, 0, 1).life.other_env);
	r.class = PUSH_AUTH;
	assert_true(push_next(&fresh, &r, LONG, false, 0, 1).life.auth_tried);
	r.class = PUSH_RETRY; /* another answer ends both rows of the same */
	assert_false(push_next(&tried, &r, LONG, false, 0, 1).life.auth_tried);
	assert_int_equal(push_next(&tried, &r, LONG, false, 0, 1).life.unsent, 0);
	r = (struct push_result){.class = PUSH_RATE, .retry_after_ms = 9000};
	assert_int_equal(push_next(&fresh, &r, LONG, false, 0, 1).effect_ms, 9000);
	assert_true(push_next(&fresh, &r, LONG, false, 0, 1).delay_ms >= 9000);
}

/* ---- backoff.c */

static void backoff_stays_within_its_caps(void **state)
{
	static const int64_t caps[] = {2000, 10000, 30000, 120000, 600000, 900000, 1800000, 1800000, 1800000};

	(void)state;
	for (unsigned n = 1; n <= COUNT(caps); n++) {
		int64_t least = INT64_MAX, most = 0;

		for (uint32_t random = 0; random < 4000000000u; random += 7654321u) {
			int64_t ms = push_backoff_ms(n, 0, random);

			least = ms < least ? ms : least;
			most = ms > most ? ms : most;
			assert_true(push_backoff_ms(n, 3600000, random) >= 3600000 && push_backoff_ms(n, 3600000, random) <= 3960000);
		}
		assert_true(least >= PUSH_BACKOFF_LEAST_MS && most <= caps[n - 1]);
		assert_true(least < caps[n - 1] / 5 && most > caps[n - 1] * 4 / 5); /* jitter uses all of it */
	}
	assert_int_equal(push_unsent_ms(1, 99), 0);
	for (unsigned n = 2; n < 40; n++)
		assert_true(push_unsent_ms(n, 12345u * n) >= 25 && push_unsent_ms(n, 12345u * n) <= 5000);
}

/* ---- breaker.c */

static void breaker_opens_probes_and_closes(void **state)
{
	struct push_breaker b = {0};
	int64_t now = 1000000;

	(void)state;
	for (int i = 0; i < 4; i++)
		push_breaker_bad(&b, now);
	assert_int_equal(push_breaker_room(&b, now), SIZE_MAX);
	push_breaker_bad(&b, now);
	assert_int_equal(push_breaker_room(&b, now), 0);
	push_breaker_good(&b, now); /* sent before */
	assert_int_equal(push_breaker_room(&b, now + 4999), 0);
	assert_int_equal(push_breaker_room(&b, now + 5000), 1);
	push_breaker_sent(&b);
	assert_int_equal(push_breaker_room(&b, now + 5000), 0);
	push_breaker_bad(&b, now + 5100);
	assert_int_equal(push_breaker_room(&b, now + 15099), 0);
	assert_int_equal(push_breaker_room(&b, now + 15100), 1); /* twice as long */
	push_breaker_sent(&b);
	push_breaker_undecided(&b); /* it never left: another may try */
	assert_int_equal(push_breaker_room(&b, now + 15100), 1);
	push_breaker_sent(&b);
	push_breaker_good(&b, now + 15200);
	assert_int_equal(push_breaker_room(&b, now + 15200), SIZE_MAX);
	assert_int_equal(b.open_ms, 0);
}

static void breaker_never_waits_longer_than_its_most(void **state)
{
	struct push_breaker b = {0};
	int64_t now = 1000000;

	(void)state;
	for (int i = 0; i < 5; i++)
		push_breaker_bad(&b, now);
	for (int i = 0; i < 20; i++) {
		assert_true(b.until_ms - now <= PUSH_BREAKER_MOST_MS);
		now = b.until_ms;
		push_breaker_sent(&b);
		push_breaker_bad(&b, now);
	}
	assert_int_equal(b.until_ms - now, PUSH_BREAKER_MOST_MS);
}

static void breaker_opens_at_half_of_twenty(void **state)
{
	struct push_breaker b = {0};
	int64_t now = 1000000;

	(void)state;
	for (int i = 0; i < 9; i++, now += 1000) {
		push_breaker_good(&b, now);
		push_breaker_bad(&b, now);
	}
	push_breaker_good(&b, now);
	assert_int_equal(push_breaker_room(&b, now), SIZE_MAX);
	push_breaker_bad(&b, now);
	assert_int_equal(push_breaker_room(&b, now), 0);
	memset(&b, 0, sizeof(b));
	for (int i = 0; i < 100; i++, now += 2000) { /* never twenty in half a minute */
		push_breaker_good(&b, now);
		push_breaker_bad(&b, now);
		if (i == 8)
			now += 31000;
		if (i == 17)
			break;
	}
	assert_int_equal(push_breaker_room(&b, now), SIZE_MAX);
}

static void graver_reason_stays(void **state)
{
	struct push_breaker b = {0};
	int64_t now = 1000000;

	(void)state;
	push_breaker_open(&b, PUSH_BREAKER_CONFIG, now + 600000);
	push_breaker_open(&b, PUSH_BREAKER_RATE, now + 1000);
	for (int i = 0; i < 10; i++)
		push_breaker_bad(&b, now + 10);
	assert_int_equal(b.kind, PUSH_BREAKER_CONFIG);
	assert_int_equal(push_breaker_room(&b, now + 599999), 0);
	push_breaker_reload(&b, now + 20);
	push_breaker_config(&b, now + 15, now + 20); /* an answer that was under way */
	assert_int_equal(push_breaker_room(&b, now + 20), 1); /* the new files are tried with one */
	push_breaker_sent(&b);
	push_breaker_good(&b, now + 30);
	assert_int_equal(b.kind, PUSH_BREAKER_CLOSED);
	push_breaker_config(&b, now + 15, now + 40);
	assert_int_equal(b.kind, PUSH_BREAKER_CLOSED);
	push_breaker_config(&b, now + 20, now + 40);
	assert_int_equal(b.kind, PUSH_BREAKER_CONFIG);
}

static void a_fifth_may_be_retries(void **state)
{
	struct push_budget b = {0};
	int64_t now = 5000000;
	unsigned retries = 0;

	(void)state;
	for (int i = 0; i < 1000; i++)
		push_budget_count(&b, now + i, false);
	for (int i = 0; i < 2000 && push_budget_allows(&b, now + 1000 + i); i++, retries++)
		push_budget_count(&b, now + 1000 + i, true);
	assert_in_range(retries, 245, 255); /* 250 of 1250 */
	assert_false(push_budget_allows(&b, now + 40000));
	assert_true(push_budget_allows(&b, now + 70000));
	memset(&b, 0, sizeof(b));
	for (retries = 0; push_budget_allows(&b, now); retries++)
		push_budget_count(&b, now, true);
	assert_int_equal(retries, PUSH_BUDGET_FREE); /* of a quiet app */
	push_budget_good(&b);
	assert_true(push_budget_allows(&b, now));
	push_budget_count(&b, now, true);
	assert_false(push_budget_allows(&b, now));
	for (retries = 0; retries < 1000; retries++) { /* a provider that is well again: all that an outage left behind */
		push_budget_good(&b);
		assert_true(push_budget_allows(&b, now + retries * 100));
		push_budget_count(&b, now + retries * 100, true);
	}
	memset(&b, 0, sizeof(b));
	push_budget_good(&b); /* nothing to give back */
	assert_true(push_budget_allows(&b, now));
}

/* ---- guard.c */

static void guard_believes_only_what_is_rare(void **state)
{
	static const struct {
		unsigned good, invalid;
		int64_t registered_ms, since_ms, first_ms, now_ms;
		enum push_belief belief;
	} cases[] = {
		{100, 1, 1000, 0, 0, 5000, PUSH_BELIEF_INVALID},
		{100, 1, 1000, 2000, 0, 5000, PUSH_BELIEF_INVALID},
		{100, 1, 2000, 2000, 0, 5000, PUSH_BELIEF_INVALID},
		{100, 1, 2001, 2000, 0, 5000, PUSH_BELIEF_NEWER},
		{100, 1, 6000, 9999999, 0, 5000, PUSH_BELIEF_NEWER},     /* a moment to come is taken for now */
		{0, 1, 1000, 0, 0, 5000, PUSH_BELIEF_SUSPECT},           /* too few to judge */
		{18, 1, 1000, 0, 0, 5000, PUSH_BELIEF_SUSPECT},
		{19, 1, 1000, 0, 0, 5000, PUSH_BELIEF_INVALID},
		{0, 200, 1000, 0, 0, 5000, PUSH_BELIEF_SUSPECT},         /* a wrong environment */
		{81, 20, 1000, 0, 0, 5000, PUSH_BELIEF_INVALID},
		{80, 20, 1000, 0, 0, 5000, PUSH_BELIEF_SUSPECT},         /* a fifth */
		{0, 2, 1000, 0, 5000, 5000 + 3600000, PUSH_BELIEF_INVALID}, /* again after an hour, and few results */
		{0, 2, 1000, 0, 5000, 5000 + 3599999, PUSH_BELIEF_SUSPECT},
		{0, 200, 1000, 0, 5000, 5000 + 7200000, PUSH_BELIEF_SUSPECT}, /* never while everything is called dead */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		unsigned bad = cases[i].invalid, all = cases[i].good + bad;
		struct push_guard g = {0};

		for (unsigned n = 0; n < all; n++) /* spread evenly, the last one is invalid */
			push_guard_add(&g, (n + 1) * bad / all != n * bad / all);
		if (push_guard_judge(&g, cases[i].registered_ms, cases[i].since_ms, cases[i].first_ms, cases[i].now_ms) != cases[i].belief)
			fail_msg("case %zu", i);
	}
}

/* A whole user base that is called dead costs four tokens, not the fifth of 200. */
static void guard_sees_a_row(void **state)
{
	struct push_guard g = {0};

	(void)state;
	for (unsigned n = 0; n < 200; n++)
		push_guard_add(&g, false);
	for (unsigned n = 1; n <= 30; n++) {
		push_guard_add(&g, true);
		assert_int_equal(push_guard_judge(&g, 1000, 0, 0, 5000), n < PUSH_GUARD_IN_ROW ? PUSH_BELIEF_INVALID : PUSH_BELIEF_SUSPECT);
	}
	push_guard_add(&g, false);
	assert_false(push_guard_alarmed(&g));
}

static void guard_forgets_old_results(void **state)
{
	struct push_guard g = {0};

	(void)state;
	for (unsigned n = 0; n < 200; n++)
		push_guard_add(&g, true);
	assert_true(push_guard_alarmed(&g));
	for (unsigned n = 0; n < 161; n++)
		push_guard_add(&g, false);
	assert_false(push_guard_alarmed(&g));
	assert_int_equal(g.invalid, 39);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_result_has_its_row),
		cmocka_unit_test(what_was_tried_is_remembered),
		cmocka_unit_test(backoff_stays_within_its_caps),
		cmocka_unit_test(breaker_opens_probes_and_closes),
		cmocka_unit_test(breaker_never_waits_longer_than_its_most),
		cmocka_unit_test(breaker_opens_at_half_of_twenty),
		cmocka_unit_test(graver_reason_stays),
		cmocka_unit_test(a_fifth_may_be_retries),
		cmocka_unit_test(guard_believes_only_what_is_rare),
		cmocka_unit_test(guard_sees_a_row),
		cmocka_unit_test(guard_forgets_old_results),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
