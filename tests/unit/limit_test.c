#include "plugin/limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static unsigned take_all(struct limit_bucket *b, int64_t interval, unsigned burst, int64_t now)
{
	unsigned n = 0;

	while (n < 100000 && limit_take(b, interval, burst, now))
		n++;
	return n;
}

static void a_rested_bucket_gives_its_burst_then_one_per_interval(void **state)
{
	struct limit_bucket b = { 0 };

	(void)state;
	assert_int_equal(take_all(&b, 250000, 8, 1000000), 8);
	assert_int_equal(take_all(&b, 250000, 8, 1249999), 0);
	assert_int_equal(take_all(&b, 250000, 8, 1250000), 1);
	assert_int_equal(take_all(&b, 250000, 8, 2000000), 3);
	assert_int_equal(take_all(&b, 250000, 8, 60000000), 8);
}

static void rate_zero_is_no_limit(void **state)
{
	struct limit_bucket b = { 0 };

	(void)state;
	for (int i = 0; i < 100000; i++)
		assert_true(limit_take_rate(&b, 0, 5));
}

static void a_rate_holds_over_seconds(void **state)
{
	struct limit_bucket b = { 0 };
	unsigned n = 0;

	(void)state;
	for (int64_t now = 1; now < 10000000; now += 50)
		n += limit_take_rate(&b, 5000, now);
	assert_in_range(n, 50000, 55001);
}

static void all_connections_of_a_user_share_its_bucket(void **state)
{
	struct limits *l = limits_create();
	struct limit *a = limit_open(l, "alice"), *b = limit_open(l, "alice"), *c = limit_open(l, "bob");
	unsigned n = 0;

	(void)state;
	for (int i = 0; i < 10; i++) {
		n += limit_send(a, 100, 10, 1000);
		n += limit_send(b, 100, 10, 1000);
	}
	assert_int_equal(n, 10);
	assert_true(limit_send(c, 100, 10, 1000));
	limit_close(a);
	limit_close(b);
	limits_sweep(l, 2000); /* not full again: reconnecting gives nothing back */
	a = limit_open(l, "alice");
	assert_false(limit_send(a, 100, 10, 2000));
	limit_close(a);
	limits_sweep(l, 5000000);
	a = limit_open(l, "alice");
	assert_true(limit_send(a, 100, 10, 5000000));
	limit_close(a);
	limit_close(c);
	limits_destroy(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rested_bucket_gives_its_burst_then_one_per_interval),
		cmocka_unit_test(rate_zero_is_no_limit),
		cmocka_unit_test(a_rate_holds_over_seconds),
		cmocka_unit_test(all_connections_of_a_user_share_its_bucket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
