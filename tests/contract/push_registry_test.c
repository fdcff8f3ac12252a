/* What push_registry.h promises when several changes are under way at once: memory, and what a restart finds, agree on one owner of each token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "push_registry.h"
#include "store_fixture.h"

#include <stdio.h>
#include <string.h>

struct world {
	struct fixture f;
	struct push_registry *r;
	char keys[80];
	unsigned left;
};

static void open_registry(struct world *w)
{
	struct im_err err = {""};

	assert_int_equal(push_registry_open(w->f.store, w->keys, &w->r, &err), IM_OK);
}

static int set_up(void **state)
{
	static struct world w;

	memset(&w, 0, sizeof(w));
	fixture_open(&w.f, "sqlite");
	(void)snprintf(w.keys, sizeof(w.keys), "%s/push", w.f.dir);
	open_registry(&w);
	*state = &w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	push_registry_close(w->r);
	fixture_close(&w->f);
	return 0;
}

static void restart(struct world *w)
{
	push_registry_close(w->r);
	fixture_reopen(&w->f);
	open_registry(w);
}

static void on_done(void *arg, enum im_status st)
{
	struct world *w = arg;

	assert_int_equal(st, IM_OK);
	w->left--;
}

static void add(struct world *w, const char *user, const char *device, const char *token)
{
	Im__Bus__PushToken info = IM__BUS__PUSH_TOKEN__INIT;
	Im__Push__Token t = IM__PUSH__TOKEN__INIT;

	info.user = (char *)user; /* only read */
	info.device = (char *)device;
	info.provider = (char *)"apns";
	info.app = t.app = (char *)"chat";
	t.token = (char *)token;
	w->left++;
	assert_int_equal(push_registry_add(w->r, &info, &t, on_done, w), IM_OK);
}

static void settle(struct world *w)
{
	run_until_zero(&w->f, &w->left);
}

static bool has(struct world *w, const char *user, const char *device, const char *token)
{
	const struct push_device *d = push_registry_find(w->r, user, device, "apns");
	Im__Push__Token *t = d ? push_registry_open_token(w->r, d) : NULL;
	bool yes = t && strcmp(t->token, token) == 0;

	push_token_wipe(t);
	return yes;
}

/* What is left of alice's says that it moved, and has nothing of the token. */
static void check_only_bob_has_it(struct world *w)
{
	const struct push_device *hers = push_registry_of_user(w->r, "alice");

	assert_true(has(w, "bob", "bob:phone", "shared"));
	assert_non_null(hers);
	assert_int_equal(hers->stored->state, IM__BUS__PUSH_STATE__PUSH_INVALID);
	assert_string_equal(hers->stored->reason, "moved");
	assert_int_equal(hers->stored->sealed.len + hers->stored->hash.len, 0);
	assert_int_equal(push_registry_count(w->r, "apns"), 1);
}

static void two_who_register_one_token_within_a_commit_do_not_both_keep_it(void **state)
{
	struct world *w = *state;

	add(w, "alice", "alice:phone", "shared");
	add(w, "bob", "bob:phone", "shared");
	settle(w);
	check_only_bob_has_it(w);
	restart(w);
	check_only_bob_has_it(w);
}

static void a_token_goes_round_within_a_commit_and_the_last_has_it(void **state)
{
	struct world *w = *state;

	add(w, "bob", "bob:phone", "shared");
	settle(w);
	for (int i = 0; i < 5; i++) {
		add(w, "alice", "alice:phone", "shared");
		add(w, "bob", "bob:phone", "shared");
	}
	settle(w);
	check_only_bob_has_it(w);
	restart(w);
	check_only_bob_has_it(w);
}

static void who_has_just_got_another_token_keeps_that_when_the_old_one_moves(void **state)
{
	struct world *w = *state;

	add(w, "alice", "alice:phone", "shared");
	settle(w);
	add(w, "alice", "alice:phone", "fresh");
	add(w, "bob", "bob:phone", "shared");
	settle(w);
	for (int i = 0; i < 2; i++) {
		assert_true(has(w, "alice", "alice:phone", "fresh") && has(w, "bob", "bob:phone", "shared"));
		restart(w);
	}
}

static void what_is_removed_while_it_is_being_registered_is_gone(void **state)
{
	struct world *w = *state;

	add(w, "alice", "alice:phone", "one");
	w->left++;
	assert_int_equal(push_registry_remove(w->r, "alice", NULL, NULL, on_done, w), 1);
	assert_int_equal(push_registry_remove(w->r, "alice", NULL, NULL, on_done, w), 0);
	settle(w);
	assert_null(push_registry_of_user(w->r, "alice"));
	restart(w);
	assert_null(push_registry_of_user(w->r, "alice"));
}

static void a_verdict_on_the_old_registration_does_not_undo_the_new_one(void **state)
{
	struct world *w = *state;
	Im__Push__TokenVerdict v = IM__PUSH__TOKEN_VERDICT__INIT;

	add(w, "alice", "alice:phone", "dead");
	settle(w);
	v.user = (char *)"alice"; /* only read */
	v.device = (char *)"alice:phone";
	v.state = IM__PUSH__TOKEN_STATE__TOKEN_STATE_INVALID;
	v.registered_ms = push_registry_find(w->r, "alice", "alice:phone", "apns")->stored->registered_ms;
	add(w, "alice", "alice:phone", "fresh");
	push_registry_heard(w->r, "apns", &v);
	settle(w);
	assert_true(has(w, "alice", "alice:phone", "fresh"));
	restart(w);
	assert_true(has(w, "alice", "alice:phone", "fresh"));
	assert_int_equal(push_registry_count(w->r, "apns"), 1);
}

/* Until the clock's next millisecond, so that of two registrations one is the older. */
static void next_ms(void)
{
	for (int64_t now = im_clock_wall_ms(); im_clock_wall_ms() <= now;)
		;
}

static void over_the_limit_what_is_invalid_gives_way_and_then_the_oldest(void **state)
{
	struct world *w = *state;
	char device[32], token[32];
	size_t n = 0;

	for (unsigned i = 0; i < PUSH_DEVICES_MOST; i++) {
		(void)snprintf(device, sizeof(device), "alice:d%u", i);
		(void)snprintf(token, sizeof(token), "token%u", i);
		add(w, "alice", device, token);
		settle(w);
		next_ms();
	}
	add(w, "bob", "bob:phone", "token5"); /* alice:d5 is invalid from here on */
	settle(w);
	add(w, "alice", "alice:new1", "more1");
	add(w, "alice", "alice:new2", "more2"); /* within one commit */
	settle(w);
	for (unsigned again = 0; again < 2; again++) {
		assert_null(push_registry_find(w->r, "alice", "alice:d5", NULL));
		assert_null(push_registry_find(w->r, "alice", "alice:d0", NULL));
		assert_non_null(push_registry_find(w->r, "alice", "alice:d1", NULL));
		assert_non_null(push_registry_find(w->r, "alice", "alice:new1", NULL));
		assert_non_null(push_registry_find(w->r, "alice", "alice:new2", NULL));
		n = 0;
		for (const struct push_device *d = push_registry_of_user(w->r, "alice"); d; d = d->next)
			n++;
		assert_int_equal(n, PUSH_DEVICES_MOST);
		restart(w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(two_who_register_one_token_within_a_commit_do_not_both_keep_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_token_goes_round_within_a_commit_and_the_last_has_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(who_has_just_got_another_token_keeps_that_when_the_old_one_moves, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_removed_while_it_is_being_registered_is_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(over_the_limit_what_is_invalid_gives_way_and_then_the_oldest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_verdict_on_the_old_registration_does_not_undo_the_new_one, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("push_registry", tests, NULL, NULL);
}
