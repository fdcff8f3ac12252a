#include "base/clock.h"
#include "fake_plugin.h"
#include "jwt_mint.h"
#include "plugin/session_kept.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct auth_why why;
static struct auth_grant grant;
static const char secret[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

static bool busy; /* others are talking */

static int setup(void **state)
{
	(void)state;
	assert_true(sodium_init() >= 0);
	busy = false;
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
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, fake.link_up, busy };
	struct broker_client c = { .id = id, .user = user, .address = "127.0.0.1", .protocol = 4, .clean = true };

	return auth_check(fake.p.auth, &v, &c, &(struct auth_proof){ .password = password }, &grant, &why);
}

static enum auth_verdict login_from(const char *address, bool websocket, const char *id, const char *password)
{
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, fake.link_up, busy };
	struct broker_client c = { .id = id, .user = "$im", .address = address, .websocket = websocket, .protocol = 4, .clean = true };

	return auth_check(fake.p.auth, &v, &c, &(struct auth_proof){ .password = password }, &grant, &why);
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
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, true, false };
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

static void while_others_talk_hashes_do_not_follow_each_other_at_once(void **state)
{
	char slow[crypto_pwhash_STRBYTES]; /* a hash of tens of ms: the rest behind it is longer than this test takes */

	(void)state;
	fake.p.settings.login_burst = 100;
	assert_int_equal(crypto_pwhash_str(slow, "s3cret", 6, 3, 32u << 20), 0);
	fake_user("alice", slow, false);
	assert_int_equal(login("alice", "alice:phone", "guess1"), AUTH_REFUSE);
	assert_int_equal(login("alice", "alice:phone", "guess2"), AUTH_REFUSE); /* nobody would feel it */
	busy = true;
	assert_int_equal(login("alice", "alice:phone", "guess3"), AUTH_LATER);
	assert_string_equal(why.rule, "login_ration");
	assert_int_equal(login("alice", "alice:phone", "guess2"), AUTH_REFUSE); /* a known one costs nothing */
	busy = false;
	assert_int_equal(login("alice", "alice:phone", "s3cret"), AUTH_OURS);
}

static enum auth_verdict login_with(const char *user, const char *id, const char *password, const struct certificate *certificate)
{
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, fake.link_up, busy };
	struct broker_client c = { .id = id, .user = user, .address = "127.0.0.1", .protocol = 4, .clean = true };
	struct auth_proof proof = { password, certificate };

	return auth_check(fake.p.auth, &v, &c, &proof, &grant, &why);
}

/* Keys of all algorithms from here on. */
static void use_jwts(void)
{
	static char setting[120];
	struct im_err err;
	FILE *f;

	snprintf(setting, sizeof(setting), "jwks:%s/set.json", fake.dir);
	f = fopen(setting + 5, "w");
	assert_non_null(f);
	assert_true(fputs(mint_jwks(), f) >= 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(setting + 5, 0600), 0);
	fake.p.settings.jwt_keys = setting;
	assert_int_equal(auth_load(fake.p.auth, &fake.p.settings, &err), IM_OK);
	assert_int_equal(unlink(setting + 5), 0);
}

static const char *jwt_of(const char *user, int64_t expires_s)
{
	char claims[200];

	snprintf(claims, sizeof(claims), "{\"sub\":\"%s\",\"exp\":%lld}", user, (long long)expires_s);
	return mint_plain("ES256", claims);
}

static void a_jwt_opens_for_its_user_until_it_expires(void **state)
{
	int64_t now = im_clock_wall_ms() / 1000;

	(void)state;
	assert_int_equal(login("alice", "alice:phone", jwt_of("alice", now + 100)), AUTH_REFUSE); /* no keys yet */
	assert_string_equal(why.rule, "bad_password");
	use_jwts();
	assert_int_equal(login("alice", "alice:phone", jwt_of("alice", now + 100)), AUTH_OURS);
	assert_int_equal(grant.expires_ms, (now + 100) * 1000);
	assert_string_equal(grant.user, "");
	assert_int_equal(login("alice", "bob:phone", jwt_of("alice", now + 100)), AUTH_REFUSE);
	assert_string_equal(why.rule, "client_id_named");
	assert_int_equal(login("bob", "bob:phone", jwt_of("alice", now + 100)), AUTH_REFUSE);
	assert_string_equal(why.rule, "jwt_user");
	assert_int_equal(login("carol", "carol:phone", jwt_of("carol", now + 100)), AUTH_REFUSE);
	assert_string_equal(why.rule, "user_disabled");
	fake.p.settings.jwt_skew_s = 10;
	assert_int_equal(login("alice", "alice:phone", jwt_of("alice", now - 5)), AUTH_OURS);
	assert_int_equal(grant.expires_ms, (now + 5) * 1000);
	assert_int_equal(login("alice", "alice:phone", jwt_of("alice", now - 20)), AUTH_REFUSE);
	assert_string_equal(why.rule, "jwt_expired");
	assert_int_equal(grant.expires_ms, 0);
}

static void a_bad_jwt_is_never_tried_as_a_password(void **state)
{
	struct auth_stats st;

	(void)state;
	use_jwts();
	fake_user("alice", hash_of(mint("HS256", "{\"alg\":\"none\"}", "{\"sub\":\"alice\"}")), false);
	for (int i = 0; i < 50; i++)
		assert_int_equal(login("alice", "alice:phone", mint("HS256", "{\"alg\":\"none\"}", "{\"sub\":\"alice\"}")), AUTH_REFUSE);
	assert_string_equal(why.rule, "jwt_no_key");
	auth_stats(fake.p.auth, &st);
	assert_int_equal(st.hashed, 0);
	assert_int_equal(st.slowed, 0);
}

/* Counted, not timed: 2,000 bad ES512 tokens would be one to two seconds of the broker's thread. */
static void bad_jwts_are_rationed_and_known_ones_are_not(void **state)
{
	int64_t exp = im_clock_wall_ms() / 1000 + 100;
	char *known = strdup(jwt_of("alice", exp)), *fresh = strdup(jwt_of("bob", exp));
	char *bad = strdup(mint_plain("ES512", "{\"sub\":\"alice\",\"exp\":1}")); /* the signature is good, and costs the same */
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, fake.link_up, busy };
	struct broker_client bob = { .id = "bob:pc", .user = "bob", .address = "203.0.113.9", .protocol = 4, .clean = true };
	struct auth_proof proof = { fresh, NULL };
	struct auth_stats st;
	unsigned later = 0;

	(void)state;
	use_jwts();
	assert_int_equal(login("alice", "alice:phone", known), AUTH_OURS);
	for (int i = 0; i < 2000; i++)
		later += login("alice", "alice:phone", bad) == AUTH_LATER;
	assert_string_equal(why.rule, "login_ration");
	auth_stats(fake.p.auth, &st);
	assert_int_equal(st.verified + later, 2001);
	assert_true(st.verified < 500);
	assert_int_equal(st.later, later);
	assert_int_equal(login("alice", "alice:phone", known), AUTH_OURS);
	assert_int_equal(login("bob", "bob:phone", fresh), AUTH_LATER); /* the same address */
	assert_int_equal(auth_check(fake.p.auth, &v, &bob, &proof, &grant, &why), AUTH_OURS); /* another one */
	free(bad);
	free(known);
	free(fresh);
}

static void without_a_user_name_the_proof_says_who_it_is(void **state)
{
	struct certificate bobs = { "bob", 5000 }, strangers = { "meter7", 5000 };
	int64_t now = im_clock_wall_ms() / 1000;

	(void)state;
	use_jwts();
	for (int i = 0; i < 2; i++) {
		const char *none = i ? "" : NULL;

		assert_int_equal(login(none, "alice:phone", jwt_of("alice", now + 100)), AUTH_OURS);
		assert_string_equal(grant.user, "alice");
		assert_int_equal(login(none, "bob:phone", jwt_of("alice", now + 100)), AUTH_REFUSE);
		assert_int_equal(login(none, "x", jwt_of("nobody", now + 100)), AUTH_REFUSE);
		assert_string_equal(why.rule, "unknown_user");
		assert_int_equal(login(none, "x", mint("ES384", "{\"alg\":\"ES256\"}", "{}")), AUTH_REFUSE); /* not let in as nobody */
		assert_int_equal(login_with(none, "bob:pc", NULL, &bobs), AUTH_OURS);
		assert_string_equal(grant.user, "bob");
		assert_int_equal(login_with(none, "alice:pc", NULL, &bobs), AUTH_REFUSE);
		assert_int_equal(login_with(none, "meter", NULL, &strangers), AUTH_FOREIGN); /* as without us */
		assert_int_equal(login_with(none, "meter", NULL, NULL), AUTH_FOREIGN);
		assert_string_equal(grant.user, "");
	}
}

static void a_certificate_stands_for_the_password(void **state)
{
	struct certificate bobs = { "bob", 5000 }, nameless = { "", 5000 };
	int64_t now = im_clock_wall_ms() / 1000;

	(void)state;
	use_jwts();
	fake_user("alice", hash_of("s3cret"), false);
	fake_token("bob", "tok", 77000000000000);
	assert_int_equal(login_with("bob", "bob:pc", NULL, &bobs), AUTH_OURS);
	assert_int_equal(grant.expires_ms, 5000);
	assert_int_equal(login_with("bob", "bob:pc", "whatever", &bobs), AUTH_OURS);
	assert_int_equal(login_with("bob", "bob:pc", "tok", &bobs), AUTH_OURS); /* the token comes first, with its own end */
	assert_true(grant.expires_ms == 77000000000000);
	assert_int_equal(login_with("bob", "bob:pc", jwt_of("alice", now + 100), &bobs), AUTH_REFUSE);
	assert_int_equal(login_with("alice", "alice:pc", NULL, &bobs), AUTH_REFUSE);
	assert_string_equal(why.rule, "certificate_user");
	assert_int_equal(login_with("alice", "alice:pc", "s3cret", &bobs), AUTH_REFUSE); /* nor with the right password */
	assert_int_equal(login_with("alice", "alice:pc", NULL, &nameless), AUTH_REFUSE);
	assert_string_equal(why.rule, "certificate_name");
	assert_int_equal(login_with("alice", "alice:pc", "s3cret", &nameless), AUTH_OURS);
	assert_int_equal(login_with("carol", "carol:pc", NULL, &(struct certificate){ "carol", 5000 }), AUTH_REFUSE);
	assert_string_equal(why.rule, "user_disabled");
}

static enum auth_verdict request(const char *user, const char *id, const char *token)
{
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, fake.link_up, false };
	struct broker_client c = { .id = id, .user = user, .address = "192.0.2.1", .protocol = 5, .clean = true };

	return auth_check_request(fake.p.auth, &v, &c, token, &grant, &why);
}

static void a_request_over_http_takes_tokens_and_jwts_of_our_users_only(void **state)
{
	int64_t now = im_clock_wall_ms() / 1000;
	struct auth_stats st;

	(void)state;
	use_jwts();
	fake_user("alice", hash_of("s3cret"), false);
	fake_token("alice", "tok", 0);
	assert_int_equal(request("alice", "alice:phone", "tok"), AUTH_OURS);
	assert_string_equal(grant.user, "");
	assert_int_equal(request("", "alice:phone", jwt_of("alice", now + 100)), AUTH_OURS);
	assert_string_equal(grant.user, "alice");
	assert_int_equal(request("alice", "alice:phone", jwt_of("alice", now + 100)), AUTH_OURS);
	assert_int_equal(request("alice", "alice:phone", "s3cret"), AUTH_REFUSE);
	assert_string_equal(why.rule, "bad_token");
	auth_stats(fake.p.auth, &st);
	assert_int_equal(st.hashed, 0);
	assert_int_equal(request("alice", "bob:phone", "tok"), AUTH_REFUSE);
	assert_string_equal(why.rule, "client_id_named");
	assert_int_equal(request("bob", "bob:phone", "tok"), AUTH_REFUSE);
	assert_int_equal(request("bob", "bob:phone", jwt_of("alice", now + 100)), AUTH_REFUSE);
	assert_string_equal(why.rule, "jwt_user");
	assert_int_equal(request("", "bob:phone", jwt_of("alice", now + 100)), AUTH_REFUSE);
	assert_int_equal(request("", "alice:phone", "tok"), AUTH_REFUSE);
	assert_string_equal(why.rule, "unknown_user");
	assert_int_equal(request("$im", "$im-ctl-1", secret), AUTH_REFUSE);
	assert_int_equal(request("alice", "$im-offline", "tok"), AUTH_REFUSE);
	assert_int_equal(request("alice", "alice:phone", jwt_of("alice", now - 100)), AUTH_REFUSE);
	fake_user("alice", hash_of("s3cret"), true);
	assert_int_equal(request("", "alice:phone", jwt_of("alice", now + 100)), AUTH_REFUSE);
	assert_string_equal(why.rule, "user_disabled");
}

static void guessing_is_slowed_and_tokens_are_not(void **state)
{
	struct auth_stats st;
	char guess[20];

	(void)state;
	fake.p.settings.login_burst = 1000;
	fake.p.settings.login_wait_s = 900;
	fake_user("alice", hash_of("s3cret"), false);
	assert_int_equal(login("alice", "alice:phone", "s3cret"), AUTH_OURS);
	for (int i = 0; i < 5; i++) {
		snprintf(guess, sizeof(guess), "guess%d", i);
		assert_int_equal(login("alice", "alice:phone", guess), AUTH_REFUSE);
		assert_string_equal(why.rule, "bad_password");
		for (int j = 0; j < 5 && i < 4; j++) { /* a device with an old password guesses nothing new */
			assert_int_equal(login("alice", "alice:phone", guess), AUTH_REFUSE);
			assert_string_equal(why.rule, "bad_password");
		}
	}
	assert_int_equal(login("alice", "alice:phone", "guess5"), AUTH_REFUSE);
	assert_string_equal(why.rule, "too_many_failures");
	assert_int_equal(login("alice", "alice:phone", "s3cret"), AUTH_REFUSE); /* the cache would answer guesses at full speed */
	assert_string_equal(why.rule, "too_many_failures");
	auth_stats(fake.p.auth, &st);
	assert_int_equal(st.hashed, 6);
	assert_int_equal(st.slowed, 2);
	fake_token("bob", "tok", 0);
	assert_int_equal(login("bob", "bob:phone", "tok"), AUTH_OURS);
	use_jwts();
	assert_int_equal(login("alice", "alice:phone", jwt_of("alice", im_clock_wall_ms() / 1000 + 9)), AUTH_OURS);
	fake.p.settings.login_wait_s = 0;
	assert_int_equal(login("alice", "alice:phone", "s3cret"), AUTH_OURS);
}

static void the_ways_to_log_in_can_be_asked_for(void **state)
{
	struct auth_view v = { &fake.p.settings, fake.p.roster, fake.p.sessions, true, false };
	struct broker_client c = { .id = "alice:phone", .user = "alice", .protocol = 5 };

	(void)state;
	use_jwts();
	fake.p.settings.jwt_issuer = (char *)"https://id.example/";
	fake.p.settings.certificate_user = IM_CERTIFICATE_EMAIL;
	assert_int_equal(auth_explain(fake.p.auth, &v, &c, &why), AUTH_OURS);
	assert_string_equal(why.reason, "nothing refuses this connect but a wrong credential; good are: 0 tokens, JWTs (13 keys; sub = alice; "
					"iss https://id.example/; aud none; exp needed), client certificates (e-mail = alice); there is no password");
	c.id = "bob:phone";
	assert_int_equal(auth_explain(fake.p.auth, &v, &c, &why), AUTH_REFUSE);
	assert_string_equal(why.rule, "client_id_named");
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
		TEST(while_others_talk_hashes_do_not_follow_each_other_at_once),
		TEST(a_jwt_opens_for_its_user_until_it_expires),
		TEST(a_bad_jwt_is_never_tried_as_a_password),
		TEST(bad_jwts_are_rationed_and_known_ones_are_not),
		TEST(without_a_user_name_the_proof_says_who_it_is),
		TEST(a_certificate_stands_for_the_password),
		TEST(a_request_over_http_takes_tokens_and_jwts_of_our_users_only),
		TEST(guessing_is_slowed_and_tokens_are_not),
		TEST(the_ways_to_log_in_can_be_asked_for),
		TEST(the_last_refusal_can_be_asked_for),
	};
	int failed;

	mint_start();
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	mint_stop();
	return failed;
}
