/* plugin/attempts.c: guessing gets slow, and nobody can be locked out or forgotten on purpose. */
#include "plugin/attempts.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct attempts_rules rules = { 5, 900 };
static const struct attempts_from alice_home = { "alice", "192.0.2.1", false }, alice_cafe = { "alice", "198.51.100.7", false },
				  bob_home = { "bob", "192.0.2.1", false };
static struct attempts *a;

static int setup(void **state)
{
	(void)state;
	assert_true(sodium_init() >= 0);
	a = attempts_create();
	return a ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	attempts_destroy(a);
	return 0;
}

static void failures(const struct attempts_from *f, unsigned times, int64_t now)
{
	while (times-- > 0)
		attempts_failed(a, &rules, f, now);
}

static int64_t wait_at(const struct attempts_from *f, int64_t now)
{
	return attempts_wait_ms(a, &rules, f, now);
}

static void waits_begin_after_the_free_tries_and_double(void **state)
{
	int64_t now = 1000, want = 1000;

	(void)state;
	failures(&alice_home, 4, now);
	assert_int_equal(wait_at(&alice_home, now), 0);
	for (int i = 0; i < 15; i++) {
		failures(&alice_home, 1, now);
		assert_int_equal(wait_at(&alice_home, now), want);
		assert_int_equal(wait_at(&alice_home, now + want - 1), 1);
		assert_int_equal(wait_at(&alice_home, now + want), 0);
		now += want;
		want = want * 2 < 900000 ? want * 2 : 900000;
	}
	assert_int_equal(wait_at(&alice_home, now + ATTEMPTS_FORGET_MS + 900000), 0);
	failures(&alice_home, 1, now + ATTEMPTS_FORGET_MS + 900001); /* forgotten: this is the first again */
	assert_int_equal(wait_at(&alice_home, now + ATTEMPTS_FORGET_MS + 900001), 0);
}

static void the_victim_gets_in_from_elsewhere(void **state)
{
	struct attempts_from from = { "alice", NULL, false };
	char address[32];

	(void)state;
	failures(&alice_home, 500, 1000);
	assert_int_equal(wait_at(&alice_home, 1000), 900000);
	assert_int_equal(wait_at(&alice_cafe, 1000), 0);
	for (unsigned i = 0; i < 5000; i++) { /* and under an attack from everywhere */
		snprintf(address, sizeof(address), "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
		from.address = address;
		failures(&from, 3, 1000);
	}
	assert_int_equal(wait_at(&alice_cafe, 1000), 0);
	failures(&alice_cafe, 1, 1000); /* now each address has one try */
	assert_int_equal(wait_at(&alice_cafe, 1000), 1000);
}

static void an_address_the_user_came_from_has_all_its_tries(void **state)
{
	(void)state;
	attempts_succeeded(a, &rules, &alice_cafe, 1000);
	for (unsigned i = 0; i < 30; i++)
		failures(&(struct attempts_from){ "alice", i % 2 ? "192.0.2.1" : "192.0.2.2", false }, 1, 1000);
	failures(&(struct attempts_from){ "zoe", "198.51.100.7", false }, 50, 1000); /* somebody else behind the same address */
	assert_int_equal(wait_at(&alice_cafe, 1000), 0);
	failures(&alice_cafe, 4, 1000);
	assert_int_equal(wait_at(&alice_cafe, 1000), 0);
	failures(&alice_cafe, 1, 1000);
	assert_int_equal(wait_at(&alice_cafe, 1000), 1000);
	attempts_succeeded(a, &rules, &alice_cafe, 3000);
	assert_int_equal(wait_at(&alice_cafe, 3000), 0);
}

static void one_address_against_many_users_is_slowed(void **state)
{
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "user%u", i);
		assert_int_equal(wait_at(&(struct attempts_from){ name, "192.0.2.1", false }, 1000), 0);
		failures(&(struct attempts_from){ name, "192.0.2.1", false }, 1, 1000);
	}
	assert_int_equal(wait_at(&bob_home, 1000), 1000);
	/* An account of one's own does not help: success forgives that user only. */
	attempts_succeeded(a, &rules, &(struct attempts_from){ "mallory", "192.0.2.1", false }, 1000);
	assert_int_equal(wait_at(&bob_home, 1000), 1000);
}

static void addresses_count_by_what_one_customer_has(void **state)
{
	(void)state;
	failures(&(struct attempts_from){ "alice", "2001:db8:1:2::1", false }, 6, 1000);
	assert_int_equal(wait_at(&(struct attempts_from){ "alice", "2001:db8:1:2:ffff::9", false }, 1000), 2000);
	assert_int_equal(wait_at(&(struct attempts_from){ "alice", "2001:db8:1:3::1", false }, 1000), 0);
	failures(&(struct attempts_from){ "bob", "::ffff:192.0.2.1", false }, 6, 1000); /* a listener for both kinds shows IPv4 so */
	assert_int_equal(wait_at(&bob_home, 1000), 2000);
	/* A WebSocket client can claim any address: it cannot slow the real one, nor profit from it. */
	assert_int_equal(wait_at(&(struct attempts_from){ "bob", "192.0.2.1", true }, 1000), 0);
	failures(&(struct attempts_from){ "carol", "192.0.2.9", true }, 6, 1000);
	assert_int_equal(wait_at(&(struct attempts_from){ "carol", "192.0.2.9", false }, 1000), 0);
}

static void the_table_forgets_the_weak_first(void **state)
{
	struct attempts_from from = { "x", NULL, false };
	unsigned kept = 0;
	char address[32], name[32];

	(void)state;
	for (unsigned i = 0; i < 100; i++) { /* attackers */
		snprintf(address, sizeof(address), "203.0.113.%u", i);
		failures(&(struct attempts_from){ "alice", address, false }, 20, 1000);
	}
	for (unsigned i = 0; i < 4 * ATTEMPTS_MAX; i++) { /* who log in to accounts of their own, or fail once, wherever they can */
		snprintf(address, sizeof(address), "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
		snprintf(name, sizeof(name), "m%u", i);
		from = (struct attempts_from){ name, address, false };
		if (i % 2)
			attempts_succeeded(a, &rules, &from, 2000 + i / 100);
		else
			failures(&from, 1, 2000 + i / 100);
	}
	for (unsigned i = 0; i < 100; i++) {
		snprintf(address, sizeof(address), "203.0.113.%u", i);
		kept += wait_at(&(struct attempts_from){ "alice", address, false }, 3000) > 0;
	}
	assert_int_equal(kept, 100);
	assert_int_equal(wait_at(&(struct attempts_from){ "carol", "198.51.100.99", false }, 3000), 0); /* full, and nobody is refused for it */
}

static void no_wait_no_table(void **state)
{
	static const struct attempts_rules off = { 5, 0 };

	(void)state;
	for (int i = 0; i < 100; i++)
		attempts_failed(a, &off, &alice_home, 1000);
	assert_int_equal(attempts_wait_ms(a, &off, &alice_home, 1000), 0);
	assert_int_equal(wait_at(&alice_home, 1000), 0);
	assert_int_equal(wait_at(&(struct attempts_from){ "alice", NULL, false }, 1000), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(waits_begin_after_the_free_tries_and_double),
		TEST(the_victim_gets_in_from_elsewhere),
		TEST(an_address_the_user_came_from_has_all_its_tries),
		TEST(one_address_against_many_users_is_slowed),
		TEST(addresses_count_by_what_one_customer_has),
		TEST(the_table_forgets_the_weak_first),
		TEST(no_wait_no_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
