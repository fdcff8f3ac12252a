#include "base/clock.h"
#include "fake_plugin.h"
#include "plugin/session_kept.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct auth_why why;
static const char secret[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

static int setup(void **state)
{
	(void)state;
	assert_true(sodium_init() >= 0);
	fake_start();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_stop();
	return 0;
}

static enum auth_verdict login(const char *user, const char *id, const char *password)
{
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, fake.link_up };
	struct broker_client c = { .id = id, .user = user, .address = "127.0.0.1", .protocol = 4, .clean = true };

	return auth_check(fake.p.auth, &v, &c, password, &why);
}

static enum auth_verdict login_from(const char *address, bool websocket, const char *id, const char *password)
{
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, fake.link_up };
	struct broker_client c = { .id = id, .user = "$im", .address = address, .websocket = websocket, .protocol = 4, .clean = true };

	return auth_check(fake.p.auth, &v, &c, password, &why);
}

static const char *hash_of(const char *password)
{
	static char out[crypto_pwhash_STRBYTES];

	assert_int_equal(crypto_pwhash_str(out, password, strlen(password), 1, crypto_pwhash_MEMLIMIT_MIN), 0);
	return out;
}

static void services_need_secret_socket_and_id(void **state)
{
	static const struct {
		const char *address;
		bool websocket;
		const char *id, *password;
		enum auth_verdict want;
	} cases[] = {
		{ "/var/im/run/bus.sock", false, "$im-offline", secret, AUTH_SERVICE },
		{ "bus.sock", false, "$im-ctl-1-2", secret, AUTH_SERVICE },
		{ "127.0.0.1", false, "$im-offline", secret, AUTH_REFUSE },
		{ "::ffff:10.0.0.1", false, "$im-offline", secret, AUTH_REFUSE },
		{ "/var/im/run/bus.sock", true, "$im-offline", secret, AUTH_REFUSE }, /* a forged X-Forwarded-For */
		{ NULL, false, "$im-offline", secret, AUTH_REFUSE },
		{ "/var/im/run/bus.sock", false, "offline", secret, AUTH_REFUSE },
		{ "/var/im/run/bus.sock", false, "$im-offline", "wrong", AUTH_REFUSE },
		{ "/var/im/run/bus.sock", false, "$im-offline", "", AUTH_REFUSE },
		{ "/var/im/run/bus.sock", false, "$im-offline", NULL, AUTH_REFUSE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(login_from(cases[i].address, cases[i].websocket, cases[i].id, cases[i].password), cases[i].want);
	fake_token("alice", "tok", 0);
	assert_int_equal(login("alice", "$im-offline", "tok"), AUTH_REFUSE);
	assert_int_equal(login(NULL, "$im-offline", NULL), AUTH_REFUSE);
}

static void tokens_open_until_they_expire(void **state)
{
	(void)state;
	fake_token("alice", "tok", 0);
	assert_int_equal(login("alice", "alice:phone", "tok"), AUTH_OURS);
	assert_int_equal(login("alice", "alice:phone", "tok2"), AUTH_REFUSE);
	assert_int_equal(login("alice", "alice:phone", NULL), AUTH_REFUSE);
	assert_string_equal(why.rule, "no_password");
	assert_int_equal(login("bob", "bob:phone", "tok"), AUTH_REFUSE);
	fake_token("alice", "tok", im_clock_wall_ms() - 1);
	assert_int_equal(login("alice", "alice:phone", "tok"), AUTH_REFUSE);
	assert_string_equal(why.rule, "token_expired");
	fake_token("alice", "tok", im_clock_wall_ms() + 100000);
	assert_int_equal(login("alice", "alice:phone", "tok"), AUTH_OURS);
	fake_token("carol", "tok", 0); /* enables her; then: */
	fake_user("carol", NULL, true);
	assert_int_equal(login("carol", "carol:phone", "tok"), AUTH_REFUSE);
	assert_string_equal(why.rule, "user_disabled");
}

static void one_user_leaves_only_so_many_stored_sessions(void **state)
{
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, true };
	struct fake_context c;
	char id[32];
	bool owner;

	(void)state;
	for (unsigned i = 0; i < KEPT_USER_MAX; i++) {
		(void)snprintf(id, sizeof(id), "left%u", i);
		fake_ctx(&c, "alice", id, 4, false);
		assert_int_equal(auth_check_name(&v, &c.c, &why), AUTH_OURS);
		session_open(fake.p.sessions, (const struct mosquitto *)(const void *)&c, &c.c, false);
		session_free(session_close(fake.p.sessions, (const struct mosquitto *)(const void *)&c, &owner));
	}
	fake_ctx(&c, "alice", "one-more", 4, false);
	assert_int_equal(auth_check_name(&v, &c.c, &why), AUTH_REFUSE);
	assert_string_equal(why.rule, "too_many_sessions");
	fake_ctx(&c, "bob", "one-more", 4, false);
	assert_int_equal(auth_check_name(&v, &c.c, &why), AUTH_OURS);
	fake_ctx(&c, "alice", "left7", 4, false); /* one she has */
	assert_int_equal(auth_check_name(&v, &c.c, &why), AUTH_OURS);
	fake_ctx(&c, "alice", "one-more", 5, true); /* perhaps kept, perhaps not: works, and takes no more of our memory */
	assert_int_equal(auth_check_name(&v, &c.c, &why), AUTH_OURS);
	assert_non_null(session_open(fake.p.sessions, (const struct mosquitto *)(const void *)&c, &c.c, false));
	session_free(session_close(fake.p.sessions, (const struct mosquitto *)(const void *)&c, &owner));
	fake_ctx(&c, "alice", "left7", 4, true); /* a clean session ends the stored one and makes room */
	session_open(fake.p.sessions, (const struct mosquitto *)(const void *)&c, &c.c, false);
	session_free(session_close(fake.p.sessions, (const struct mosquitto *)(const void *)&c, &owner));
	fake_ctx(&c, "alice", "one-more", 4, false);
	assert_int_equal(auth_check_name(&v, &c.c, &why), AUTH_OURS);
}

static void client_ids_belong_to_users(void **state)
{
	static const struct {
		const char *user, *id;
		enum auth_verdict want;
	} cases[] = {
		{ "alice", "alice:phone", AUTH_OURS },
		{ "alice", "my-thing_7", AUTH_OURS },
		{ "alice", "bob:phone", AUTH_REFUSE },
		{ "alice", "", AUTH_REFUSE },
		{ "alice", "a/b", AUTH_REFUSE },
		{ "alice", "a+b", AUTH_REFUSE },
		{ "alice", "a#b", AUTH_REFUSE },
		{ "alice", "a\x01", AUTH_REFUSE },
		{ "alice", "\xc3\xa4", AUTH_REFUSE },
	};
	char longest[140];

	(void)state;
	fake_token("alice", "tok", 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(login(cases[i].user, cases[i].id, "tok"), cases[i].want);
	memset(longest, 'x', sizeof(longest));
	longest[128] = '\0';
	assert_int_equal(login("alice", longest, "tok"), AUTH_OURS);
	longest[128] = 'x';
	longest[129] = '\0';
	assert_int_equal(login("alice", longest, "tok"), AUTH_REFUSE);
}

static void a_client_id_in_use_or_stored_by_somebody_else_is_refused(void **state)
{
	struct fake_context bob, meter;
	bool owner;

	(void)state;
	fake_token("alice", "tok", 0);
	fake_ctx(&bob, "bob", "thing", 4, false);
	session_open(fake.p.sessions, (const struct mosquitto *)(const void *)&bob, &bob.c, false);
	assert_int_equal(login("alice", "thing", "tok"), AUTH_REFUSE);
	assert_string_equal(why.rule, "client_id_taken");
	assert_int_equal(login(NULL, "thing", NULL), AUTH_REFUSE); /* nor may strangers take it over */
	session_free(session_close(fake.p.sessions, (const struct mosquitto *)(const void *)&bob, &owner));
	assert_int_equal(login("alice", "thing", "tok"), AUTH_REFUSE);
	assert_int_equal(login(NULL, "thing", NULL), AUTH_REFUSE);
	session_open_foreign(fake.p.sessions, fake_ctx(&meter, NULL, "meter", 4, true), &meter.c);
	session_tick(fake.p.sessions);
	assert_int_equal(login("alice", "meter", "tok"), AUTH_REFUSE);
	assert_int_equal(login(NULL, "meter", NULL), AUTH_FOREIGN); /* as it always was among them */
	assert_int_equal(login(NULL, "alice:tv", NULL), AUTH_REFUSE);
	assert_string_equal(why.rule, "client_id_named");
}

static void strangers_are_decided_as_if_we_were_not_there(void **state)
{
	static const struct {
		bool password_file, plugins, anonymous;
		const char *user;
		enum auth_verdict want;
	} cases[] = {
		{ false, false, true, NULL, AUTH_FOREIGN },
		{ false, false, true, "meter", AUTH_FOREIGN }, /* the bare broker takes any name then */
		{ false, false, false, NULL, AUTH_DEFER },
		{ false, false, false, "meter", AUTH_DEFER },
		{ true, false, true, NULL, AUTH_DEFER },
		{ true, false, true, "meter", AUTH_DEFER },
		{ true, false, false, "meter", AUTH_DEFER },
		{ false, true, true, "meter", AUTH_DEFER },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake.p.settings.has_password_file = cases[i].password_file;
		fake.p.settings.other_auth_plugins = cases[i].plugins;
		fake.p.settings.allow_anonymous = cases[i].anonymous;
		assert_int_equal(login(cases[i].user, "sensor", "x"), cases[i].want);
	}
}

static void without_a_roster_nobody_with_a_name_is_let_in(void **state)
{
	(void)state;
	roster_clear(fake.p.roster);
	assert_int_equal(login("alice", "alice:phone", "x"), AUTH_REFUSE);
	assert_string_equal(why.rule, "no_roster");
	assert_int_equal(login_from("/run/bus.sock", false, "$im-offline", secret), AUTH_SERVICE);
	fake.p.settings.has_password_file = true;
	assert_int_equal(login("meter", "sensor", "x"), AUTH_DEFER);
}

static void passwords_are_hashed_once_and_remembered(void **state)
{
	struct auth_stats st;

	(void)state;
	fake_user("alice", hash_of("s3cret"), false);
	for (int i = 0; i < 5; i++)
		assert_int_equal(login("alice", "alice:phone", "s3cret"), AUTH_OURS);
	for (int i = 0; i < 5; i++)
		assert_int_equal(login("alice", "alice:phone", "old"), AUTH_REFUSE);
	assert_string_equal(why.rule, "bad_password");
	auth_stats(fake.p.auth, &st);
	assert_int_equal(st.hashed, 2);
	assert_int_equal(st.cached, 8);
}

static void a_new_password_ends_what_the_old_one_proved(void **state)
{
	(void)state;
	fake_user("alice", hash_of("one"), false);
	assert_int_equal(login("alice", "alice:phone", "one"), AUTH_OURS);
	fake_user("alice", hash_of("two"), false);
	assert_int_equal(login("alice", "alice:phone", "one"), AUTH_REFUSE);
}

static void cold_checks_are_rationed_and_tokens_are_not(void **state)
{
	(void)state;
	fake_user("alice", hash_of("s3cret"), false);
	assert_int_equal(login("alice", "alice:phone", "guess1"), AUTH_REFUSE);
	assert_int_equal(login("alice", "alice:phone", "guess2"), AUTH_REFUSE);
	assert_int_equal(login("alice", "alice:phone", "s3cret"), AUTH_LATER); /* burst 2, then one per 1000 s */
	fake_token("bob", "tok", 0);
	assert_int_equal(login("bob", "bob:phone", "tok"), AUTH_OURS);
}

static void the_last_refusal_can_be_asked_for(void **state)
{
	struct broker_client c = { .id = "bob:pc\n", .user = "alice", .address = "10.0.0.1" };
	struct im_buf out;

	(void)state;
	im_buf_init(&out);
	assert_false(auth_last_refused(fake.p.auth, "alice", NULL, &out));
	assert_int_equal(login("alice", "bob:pc", "x"), AUTH_REFUSE);
	for (unsigned i = 0; i < AUTH_REFUSED_MAX + 5; i++)
		auth_refused(fake.p.auth, &c, &why);
	assert_true(auth_last_refused(fake.p.auth, "alice", "bob:pc?", &out));
	assert_non_null(strstr(im_buf_text(&out), "client_id_named"));
	assert_false(auth_last_refused(fake.p.auth, "bob", NULL, &out));
	im_buf_finish(&out);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(services_need_secret_socket_and_id),
		TEST(tokens_open_until_they_expire),
		TEST(client_ids_belong_to_users),
		TEST(one_user_leaves_only_so_many_stored_sessions),
		TEST(a_client_id_in_use_or_stored_by_somebody_else_is_refused),
		TEST(strangers_are_decided_as_if_we_were_not_there),
		TEST(without_a_roster_nobody_with_a_name_is_let_in),
		TEST(passwords_are_hashed_once_and_remembered),
		TEST(a_new_password_ends_what_the_old_one_proved),
		TEST(cold_checks_are_rationed_and_tokens_are_not),
		TEST(the_last_refusal_can_be_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
