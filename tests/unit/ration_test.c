/* plugin/ration.c: a flood of bad tokens costs a bounded share of the thread, and elsewhere new tokens still get in. */
#include "plugin/ration.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define SECOND 1000000
#define COST 900 /* us: a bad ES512 token */

static const struct attempts_from flood = { "", "192.0.2.1", false }, home = { "", "198.51.100.7", false };
static struct ration *r;

static int setup(void **state)
{
	(void)state;
	assert_true(sodium_init() >= 0);
	r = ration_create();
	return r ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	ration_destroy(r);
	return 0;
}

/* How many of `each` bad tokens a second are looked at from `from` until `to`, in seconds. */
static unsigned looked_at(const struct attempts_from *from, int64_t begin, int64_t end, unsigned each)
{
	unsigned n = 0;

	for (int64_t now = begin * SECOND; now < end * SECOND; now += SECOND / each)
		if (ration_allows(r, from, now)) {
			ration_charge(r, from, COST, now);
			n++;
		}
	return n;
}

static void a_flood_costs_its_share(void **state)
{
	const unsigned burst = RATION_BURST_US / COST + 1, share = 100 * SECOND / RATION_SHARE / COST;
	unsigned n;

	(void)state;
	n = looked_at(&flood, 1, 101, 5000);
	assert_in_range(n, share, share + 2 * burst + 2); /* its first one is a stranger's, and the bursts come on top */
}

static void other_addresses_are_not_kept_out(void **state)
{
	(void)state;
	(void)looked_at(&flood, 1, 11, 5000);
	assert_false(ration_allows(r, &flood, 11 * SECOND));
	assert_true(ration_allows(r, &home, 11 * SECOND));
}

static void many_addresses_share_one_ration(void **state)
{
	unsigned n = 0;

	(void)state;
	for (unsigned i = 0; i < 3000; i++) { /* each has one try, all in one second */
		char text[20];
		const struct attempts_from one = { "", text, false };

		snprintf(text, sizeof(text), "10.1.%u.%u", i >> 8, i & 255);
		if (ration_allows(r, &one, SECOND)) {
			ration_charge(r, &one, COST, SECOND);
			n++;
		}
	}
	assert_int_equal(n, RATION_BURST_US / COST + 1);
}

static void made_up_addresses_count_as_one(void **state)
{
	const struct attempts_from one = { "", "1.2.3.4", true }, other = { "", "5.6.7.8", true };

	(void)state;
	(void)looked_at(&one, 1, 2, 5000);
	assert_false(ration_allows(r, &other, 2 * SECOND - 1));
	assert_true(ration_allows(r, &home, 2 * SECOND - 1));
}

static void it_is_forgotten(void **state)
{
	(void)state;
	(void)looked_at(&flood, 1, 2, 5000);
	assert_true(ration_allows(r, &flood, 2 * SECOND + RATION_LATELY_US));
	(void)looked_at(&home, 3, 4, 5000); /* others' misdeeds are not its own any more */
	assert_true(ration_allows(r, &flood, 4 * SECOND + RATION_LATELY_US));
}

static void costly_ones_are_fewer(void **state)
{
	unsigned n = 0;

	(void)state;
	for (int64_t now = SECOND; now < 11 * SECOND; now += 100)
		if (ration_allows(r, &flood, now)) {
			ration_charge(r, &flood, 10, now);
			n++;
		}
	assert_in_range(n, 10 * SECOND / RATION_SHARE / 10, 10 * SECOND / RATION_SHARE / 10 + 2 * RATION_BURST_US / 10 + 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_flood_costs_its_share, setup, teardown),
		cmocka_unit_test_setup_teardown(other_addresses_are_not_kept_out, setup, teardown),
		cmocka_unit_test_setup_teardown(many_addresses_share_one_ration, setup, teardown),
		cmocka_unit_test_setup_teardown(made_up_addresses_count_as_one, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_forgotten, setup, teardown),
		cmocka_unit_test_setup_teardown(costly_ones_are_fewer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
