/* services/offline/request.c and the commands: what is answered, when, and to whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_offline.h"
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s != NULL ? s : "";
}

static void assert_ok(const json_t *response)
{
	if (json_object_get(response, "error") != NULL)
		fail_msg("refused: %s", text_of(response, "error"));
	assert_non_null(json_object_get(response, "data"));
}

static void do_ok(const char *json)
{
	assert_ok(fake_control(json));
}

static void assert_code(const json_t *response, const char *code)
{
	assert_string_equal(text_of(response, "code"), code);
	assert_true(strlen(text_of(response, "error")) > 0);
}

static void add_users(void)
{
	do_ok("{\"command\":\"user.add\",\"user\":\"alice\"}");
	do_ok("{\"command\":\"user.add\",\"user\":\"bob\"}");
	do_ok("{\"command\":\"user.add\",\"user\":\"carol\"}");
}

/* ---- changes */

static void user_is_durable_then_in_force_then_answered(void **state)
{
	const struct roster_user *u;

	(void)state;
	assert_ok(fake_control("{\"command\":\"user.add\",\"user\":\"alice\",\"password\":\"wonder\",\"correlationData\":\"c1\"}"));
	assert_string_equal(fake.trace, "append changed link answer ");
	assert_string_equal(text_of(json_array_get(json_object_get(fake.response, "responses"), 0), "correlationData"), "c1");
	u = roster_user(fake.roster, "alice");
	assert_non_null(u);
	assert_int_equal(crypto_pwhash_str_verify(u->password, "wonder", 6), 0);
	assert_code(fake_control("{\"command\":\"user.add\",\"user\":\"alice\"}"), "exists");
}

static void change_is_pending_while_the_plugin_is_away(void **state)
{
	json_t *r;

	(void)state;
	fake.plugin_away = true;
	r = fake_control("{\"command\":\"user.add\",\"user\":\"alice\"}");
	assert_ok(r);
	assert_true(json_is_true(json_object_get(json_object_get(r, "data"), "pending")));
}

static void change_that_was_not_stored_is_not_in_force_and_its_version_is_never_used_again(void **state)
{
	uint64_t tried;

	(void)state;
	fake.append_status = IM_UNCERTAIN;
	assert_code(fake_control("{\"command\":\"user.add\",\"user\":\"alice\"}"), "unavailable");
	assert_null(roster_user(fake.roster, "alice"));
	tried = fake.appended_version;
	fake.append_status = IM_OK;
	do_ok("{\"command\":\"user.add\",\"user\":\"alice\"}");
	assert_true(roster_version(fake.roster) > tried);
}

static void lists_at_the_same_time_do_not_both_make_the_same_user(void **state)
{
	Im__Bus__Control c = IM__BUS__CONTROL__INIT;
	const char *text = "{\"commands\":[{\"command\":\"user.add\",\"user\":\"alice\",\"password\":\"x\"}]}";

	(void)state;
	c.session = 77;
	c.json.data = (uint8_t *)text;
	c.json.len = strlen(text);
	for (int i = 0; i < 4; i++)
		request_control(fake.request, &c);
	(void)fake_wait(4);
	assert_int_equal(fake.refused, 3);
}

static void commands_of_a_list_run_in_order(void **state)
{
	json_t *responses;

	(void)state;
	(void)fake_control("{\"command\":\"user.add\",\"user\":\"alice\"},{\"command\":\"nonsense\"},7,"
			   "{\"command\":\"group.create\",\"group\":\"friends\",\"owner\":\"alice\"},"
			   "{\"command\":\"user.show\",\"user\":\"alice\"}");
	responses = json_object_get(fake.response, "responses");
	assert_int_equal(json_array_size(responses), 5);
	assert_ok(json_array_get(responses, 0));
	assert_code(json_array_get(responses, 1), "unknown_method");
	assert_code(json_array_get(responses, 2), "bad_json");
	assert_ok(json_array_get(responses, 3));
	assert_ok(json_array_get(responses, 4));
}

static void import_adds_the_good_and_reports_the_bad(void **state)
{
	json_t *r, *errors;

	(void)state;
	do_ok("{\"command\":\"user.add\",\"user\":\"bob\"}");
	r = fake_control("{\"command\":\"user.import\",\"users\":[{\"user\":\"alice\",\"password\":\"a,b\",\"line\":1},"
			 "{\"user\":\"Bad\",\"password\":\"x\",\"line\":2},{\"user\":\"bob\",\"password\":\"x\",\"line\":3},"
			 "{\"user\":\"dave\",\"password\":\"\",\"line\":4},{\"user\":\"alice\",\"password\":\"y\",\"line\":5},"
			 "{\"user\":\"erin\",\"password\":\"z\",\"line\":6}]}");
	assert_ok(r);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(r, "data"), "added")), 2);
	errors = json_object_get(json_object_get(r, "data"), "errors");
	assert_int_equal(json_array_size(errors), 4);
	for (int i = 0; i < 4; i++)
		assert_int_equal(json_integer_value(json_object_get(json_array_get(errors, (size_t)i), "line")), i + 2);
	assert_int_equal(crypto_pwhash_str_verify(roster_user(fake.roster, "alice")->password, "a,b", 3), 0);
	assert_non_null(roster_user(fake.roster, "erin"));
	assert_null(roster_user(fake.roster, "dave"));
}

static void token_is_shown_once_and_kept_as_its_hash(void **state)
{
	const struct roster_user *u;
	unsigned char hash[32];
	char token[64], revoke[128];
	json_t *row;

	(void)state;
	add_users();
	row = json_array_get(json_object_get(json_object_get(fake_control("{\"command\":\"token.issue\",\"users\":[\"alice\",\"bob\"]}"), "data"),
					     "tokens"), 0);
	(void)snprintf(token, sizeof(token), "%s", text_of(row, "token"));
	assert_int_equal(strlen(token), 47);
	assert_memory_equal(token, "imt_", 4);
	u = roster_user(fake.roster, "alice");
	assert_int_equal(u->n_tokens, 1);
	crypto_generichash(hash, 32, (const unsigned char *)token, strlen(token), NULL, 0);
	assert_memory_equal(hash, u->tokens[0].hash, 32);
	(void)snprintf(revoke, sizeof(revoke), "{\"command\":\"token.revoke\",\"user\":\"alice\",\"id\":\"%s\"}", text_of(row, "id"));
	do_ok(revoke);
	assert_int_equal(roster_user(fake.roster, "alice")->n_tokens, 0);
	assert_code(fake_control(revoke), "not_found");
	assert_code(fake_control("{\"command\":\"token.issue\",\"users\":[\"bob\",\"nobody\"]}"), "unknown_user");
	assert_int_equal(roster_user(fake.roster, "bob")->n_tokens, 1);
}

/* ---- groups */

static void membership_begins_and_ends_with_a_message(void **state)
{
	const struct roster_stay *stays;

	(void)state;
	add_users();
	do_ok("{\"command\":\"group.create\",\"group\":\"friends\",\"owner\":\"alice\",\"title\":\"Friends\"}");
	assert_string_equal(fake.trace, "post+append changed changed link answer ");
	assert_string_equal(roster_role(fake.roster, "friends", "alice"), "owner");
	assert_int_equal(roster_stays(fake.roster, "friends", "alice", &stays), 1);
	assert_int_equal(stays[0].from_seq, 1);
	do_ok("{\"command\":\"group.add\",\"group\":\"friends\",\"users\":[\"bob\",\"carol\"]}");
	fake_say("g/friends", "bob", 5);
	do_ok("{\"command\":\"group.kick\",\"group\":\"friends\",\"users\":[\"bob\"]}");
	assert_int_equal(roster_stays(fake.roster, "friends", "bob", &stays), 1);
	assert_int_equal(stays[0].from_seq, 2);
	assert_int_equal(stays[0].to_seq, 4);
	assert_false(roster_is_member(fake.roster, "friends", "bob"));
	assert_true(roster_is_member(fake.roster, "friends", "carol"));
	assert_code(fake_control("{\"command\":\"group.kick\",\"group\":\"friends\",\"users\":[\"bob\"]}"), "not_member");
	assert_code(fake_control("{\"command\":\"group.add\",\"group\":\"friends\",\"users\":[\"carol\"]}"), "exists");
	assert_code(fake_control("{\"command\":\"group.add\",\"group\":\"none\",\"users\":[\"carol\"]}"), "unknown_group");
}

static void group_has_a_largest_size(void **state)
{
	(void)state;
	add_users();
	for (int i = 0; i < 4; i++) {
		char text[64];

		(void)snprintf(text, sizeof(text), "{\"command\":\"user.add\",\"user\":\"u%d\"}", i);
		do_ok(text);
	}
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"alice\",\"users\":[\"bob\",\"carol\"]}");
	assert_code(fake_control("{\"command\":\"group.add\",\"group\":\"g\",\"users\":[\"u0\",\"u1\",\"u2\"]}"), "too_many");
	do_ok("{\"command\":\"group.add\",\"group\":\"g\",\"users\":[\"u0\",\"u1\"]}");
}

static void group_keeps_an_owner(void **state)
{
	(void)state;
	add_users();
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"alice\",\"users\":[\"bob\"]}");
	assert_code(fake_control("{\"command\":\"group.role\",\"group\":\"g\",\"user\":\"alice\",\"role\":\"member\"}"), "not_allowed");
	do_ok("{\"command\":\"group.role\",\"group\":\"g\",\"user\":\"bob\",\"role\":\"owner\"}");
	assert_string_equal(roster_role(fake.roster, "g", "bob"), "owner");
	assert_string_equal(roster_role(fake.roster, "g", "alice"), "admin");
	assert_string_equal(roster_group(fake.roster, "g")->owner, "bob");
}

static void removed_user_has_left_everything(void **state)
{
	(void)state;
	add_users();
	do_ok("{\"command\":\"group.create\",\"group\":\"a\",\"owner\":\"bob\",\"users\":[\"alice\"]}");
	do_ok("{\"command\":\"group.create\",\"group\":\"b\",\"owner\":\"carol\",\"users\":[\"alice\"]}");
	do_ok("{\"command\":\"block.add\",\"user\":\"bob\",\"blocked\":\"alice\"}");
	do_ok("{\"command\":\"block.add\",\"user\":\"alice\",\"blocked\":\"carol\"}");
	do_ok("{\"command\":\"user.remove\",\"user\":\"alice\"}");
	assert_null(roster_user(fake.roster, "alice"));
	assert_false(roster_is_member(fake.roster, "a", "alice"));
	assert_false(roster_is_member(fake.roster, "b", "alice"));
	assert_false(roster_is_blocked(fake.roster, "bob", "alice"));
	assert_false(roster_is_blocked(fake.roster, "alice", "carol"));
	assert_int_equal(fake.kicks, 1);
	/* A new alice would read what the old one wrote and got. */
	assert_code(fake_control("{\"command\":\"user.add\",\"user\":\"alice\"}"), "exists");
}

/* Which credential a connection was opened with is not known here: all end, and who may comes back. */
static void what_no_longer_logs_in_is_not_left_connected(void **state)
{
	(void)state;
	add_users();
	do_ok("{\"command\":\"user.password\",\"user\":\"alice\",\"password\":\"another one\"}");
	assert_int_equal(fake.kicks, 1);
	do_ok("{\"command\":\"token.issue\",\"users\":[\"alice\"]}");
	assert_int_equal(fake.kicks, 1);
	do_ok("{\"command\":\"token.revoke\",\"user\":\"alice\"}");
	assert_int_equal(fake.kicks, 2);
}

static void group_of_a_removed_owner_has_a_new_one(void **state)
{
	(void)state;
	add_users();
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"alice\",\"users\":[\"bob\",\"carol\"]}");
	do_ok("{\"command\":\"group.role\",\"group\":\"g\",\"user\":\"carol\",\"role\":\"admin\"}");
	do_ok("{\"command\":\"user.remove\",\"user\":\"alice\"}");
	assert_string_equal(roster_group(fake.roster, "g")->owner, "carol");
	assert_string_equal(roster_role(fake.roster, "g", "carol"), "owner");
	do_ok("{\"command\":\"user.remove\",\"user\":\"carol\"}");
	assert_string_equal(roster_group(fake.roster, "g")->owner, "bob");
	do_ok("{\"command\":\"user.remove\",\"user\":\"bob\"}");
	assert_int_equal(roster_group(fake.roster, "g")->n_members, 0);
}

static void removed_group_may_be_made_again(void **state)
{
	(void)state;
	add_users();
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"alice\",\"users\":[\"bob\"]}");
	do_ok("{\"command\":\"group.remove\",\"group\":\"g\"}");
	assert_null(roster_group(fake.roster, "g"));
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"carol\"}");
	assert_false(roster_is_member(fake.roster, "g", "alice"));
	assert_true(roster_is_member(fake.roster, "g", "carol"));
}

/* ---- who may */

static void only_admins_command(void **state)
{
	Im__Bus__Control c = IM__BUS__CONTROL__INIT;
	const char *text = "{\"commands\":[{\"command\":\"status\"}]}";
	static const struct {
		const char *user;
		bool may;
	} cases[] = {{"root", true}, {"boss", true}, {"alice", false}, {"bos", false}, {"root,", false}, {"", true}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned refused = fake.refused;

		c.session = 77;
		c.user = (char *)cases[i].user;
		c.json.data = (uint8_t *)text;
		c.json.len = strlen(text);
		request_control(fake.request, &c);
		(void)fake_wait((unsigned)i + 1);
		assert_int_equal(fake.refused - refused, !cases[i].may);
	}
}

/* ---- requests */

static void repeated_request_gets_the_first_answer(void **state)
{
	char *first, *second;

	(void)state;
	add_users();
	fake_say("u/alice:bob", "bob", 10);
	first = json_dumps(fake_request("alice", "history", "r1", "{\"conv\":\"u/bob\"}"), JSON_COMPACT);
	fake_say("u/alice:bob", "bob", 10);
	second = json_dumps(fake_request("alice", "history", "r1", "{\"conv\":\"u/bob\"}"), JSON_COMPACT);
	assert_string_equal(first, second);
	assert_int_equal(fake.reads, 1);
	free(second);
	second = json_dumps(fake_request("alice", "history", "r2", "{\"conv\":\"u/bob\"}"), JSON_COMPACT);
	assert_string_not_equal(first, second);
	free(first);
	free(second);
}

static void history_pages_stay_below_the_limit_and_miss_nothing(void **state)
{
	char args[256] = "{\"conv\":\"u/bob\",\"limit\":1000}";
	json_int_t expected = 1;

	(void)state;
	add_users();
	for (int i = 0; i < 500; i++)
		fake_say("u/alice:bob", "bob", i == 250 ? 200000 : 900);
	for (int page = 0;; page++) {
		char id[16];
		json_t *r, *m;
		size_t i;

		(void)snprintf(id, sizeof(id), "p%d", page);
		r = fake_request("alice", "history", id, args);
		assert_true(json_is_true(json_object_get(r, "ok")));
		assert_true(fake.response_bytes <= 65536 || json_array_size(json_object_get(r, "messages")) == 1);
		json_array_foreach(json_object_get(r, "messages"), i, m)
			assert_int_equal(json_integer_value(json_object_get(m, "seq")), expected++);
		if (!json_is_true(json_object_get(r, "more")))
			break;
		(void)snprintf(args, sizeof(args), "{\"conv\":\"u/bob\",\"limit\":1000,\"next\":\"%s\"}", text_of(r, "next"));
	}
	assert_int_equal(expected, 501);
}

static unsigned seen_by(const char *user, const char *more_args)
{
	char args[256], next[64] = "";
	unsigned seen = 0;

	for (int page = 0;; page++) {
		static unsigned ids;
		char id[16];
		json_t *r, *m;
		size_t i;

		(void)snprintf(id, sizeof(id), "s%u", ids++);
		(void)snprintf(args, sizeof(args), "{\"conv\":\"g/g\"%s%s}", more_args, next);
		r = fake_request(user, "history", id, args);
		assert_true(json_is_true(json_object_get(r, "ok")));
		json_array_foreach(json_object_get(r, "messages"), i, m)
			seen |= 1u << json_integer_value(json_object_get(m, "seq"));
		if (!json_is_true(json_object_get(r, "more")))
			return seen;
		assert_true(page < 50);
		(void)snprintf(next, sizeof(next), ",\"next\":\"%s\"", text_of(r, "next"));
	}
}

static void history_of_a_group_shows_only_ones_stays(void **state)
{
	(void)state;
	add_users();
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"alice\"}");       /* 1 */
	fake_say("g/g", "alice", 5);                                                     /* 2 */
	do_ok("{\"command\":\"group.add\",\"group\":\"g\",\"users\":[\"bob\"]}");          /* 3 */
	fake_say("g/g", "alice", 5);                                                     /* 4 */
	do_ok("{\"command\":\"group.kick\",\"group\":\"g\",\"users\":[\"bob\"]}");         /* 5 */
	fake_say("g/g", "alice", 5);                                                     /* 6 */
	do_ok("{\"command\":\"group.add\",\"group\":\"g\",\"users\":[\"bob\"]}");          /* 7 */
	fake_say("g/g", "alice", 5);                                                     /* 8 */
	assert_int_equal(seen_by("alice", ""), 0x1fe);
	assert_int_equal(seen_by("bob", ""), 1u << 3 | 1u << 4 | 1u << 5 | 1u << 7 | 1u << 8);
	assert_int_equal(seen_by("bob", ",\"newest_first\":true"), 1u << 3 | 1u << 4 | 1u << 5 | 1u << 7 | 1u << 8);
	assert_int_equal(seen_by("bob", ",\"limit\":1"), 1u << 3 | 1u << 4 | 1u << 5 | 1u << 7 | 1u << 8);
	assert_int_equal(seen_by("bob", ",\"from\":4,\"to\":7"), 1u << 4 | 1u << 5 | 1u << 7);
	assert_int_equal(seen_by("bob", ",\"from\":6,\"to\":6"), 0);
	assert_string_equal(text_of(json_object_get(fake_request("carol", "history", "x", "{\"conv\":\"g/g\"}"), "error"), "code"), "not_member");
	assert_string_equal(text_of(json_object_get(fake_request("carol", "members", "y", "{\"group\":\"g\"}"), "error"), "code"), "not_member");
}

static void refusals_name_what_is_wrong(void **state)
{
	static const struct {
		const char *method, *args, *code;
	} cases[] = {
		{"histroy", "{}", "unknown_method"},
		{"user.add", "{\"user\":\"x\"}", "unknown_method"},
		{"history", "{\"conv\":\"u/nobody\"}", "unknown_user"},
		{"history", "{\"conv\":\"g/nothing\"}", "unknown_group"},
		{"history", "{\"conv\":\"u/bob\",\"next\":\"abc\"}", "bad_field"},
		{"history", "[1]", "bad_json"},
		{"history", "{\"conv\":\"u/bob\",\"conv\":\"u/bob\"}", "bad_json"},
		{"history", "{", "bad_json"},
		{"sync", "{\"cursors\":[{\"conv\":\"u/bob\"}]}", "bad_cursor"},
		{"device.set", "{\"max_packet\":10}", "bad_field"},
		{"members", "{\"group\":\"nothing\"}", "unknown_group"},
	};

	(void)state;
	add_users();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char id[16];
		json_t *r;

		(void)snprintf(id, sizeof(id), "e%zu", i);
		r = fake_request("alice", cases[i].method, id, cases[i].args);
		assert_true(json_is_false(json_object_get(r, "ok")));
		assert_string_equal(text_of(json_object_get(r, "error"), "code"), cases[i].code);
	}
}

static void conversations_and_sync_put_store_and_groups_together(void **state)
{
	json_t *r, *row;

	(void)state;
	add_users();
	for (int i = 0; i < 6; i++)
		fake_say("u/alice:bob", "bob", 5);
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"alice\",\"title\":\"Gang\"}");
	r = fake_request("alice", "conversations", "c1", "{}");
	assert_int_equal(json_array_size(json_object_get(r, "conversations")), 2);
	row = json_array_get(json_object_get(r, "conversations"), 0);
	assert_string_equal(text_of(row, "conv"), "u/bob");
	assert_int_equal(json_integer_value(json_object_get(row, "unread")), 3);
	row = json_array_get(json_object_get(r, "conversations"), 1);
	assert_string_equal(text_of(row, "title"), "Gang");
	r = fake_request("alice", "conversations", "c2", "{\"limit\":1}");
	assert_true(json_is_true(json_object_get(r, "more")));
	r = fake_request("alice", "sync", "s1", "{}");
	row = json_array_get(json_object_get(r, "conversations"), 1);
	assert_string_equal(text_of(row, "conv"), "u/bob");
	assert_int_equal(json_integer_value(json_object_get(row, "from")), 5);
	assert_int_equal(json_integer_value(json_object_get(row, "to")), 6);
	r = fake_request("alice", "sync", "s2", "{\"cursors\":[{\"conv\":\"u/bob\",\"seq\":6},{\"conv\":\"g/g\",\"seq\":1}]}");
	assert_int_equal(json_array_size(json_object_get(r, "conversations")), 0);
}

static void all_methods_answer(void **state)
{
	static const struct {
		const char *method, *args;
	} cases[] = {
		{"server", ""}, {"me", "{}"}, {"groups", ""}, {"device.set", "{\"max_packet\":256}"}, {"members", "{\"group\":\"g\"}"},
	};

	(void)state;
	add_users();
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"alice\"}");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char id[16];

		(void)snprintf(id, sizeof(id), "m%zu", i);
		assert_true(json_is_true(json_object_get(fake_request("alice", cases[i].method, id, cases[i].args), "ok")));
	}
	assert_int_equal(fake.max_packet, 256);
}

static void all_admin_lists_answer(void **state)
{
	static const char *const commands[] = {
		"{\"command\":\"user.list\"}", "{\"command\":\"user.show\",\"user\":\"alice\"}", "{\"command\":\"group.list\"}",
		"{\"command\":\"members\",\"group\":\"g\"}", "{\"command\":\"token.list\",\"user\":\"alice\"}",
		"{\"command\":\"block.list\",\"user\":\"alice\"}", "{\"command\":\"session.list\"}",
		"{\"command\":\"session.kick\",\"user\":\"alice\"}", "{\"command\":\"status\"}", "{\"command\":\"commands\"}",
		"{\"command\":\"why\",\"user\":\"alice\",\"action\":\"connect\",\"what\":\"alice:x\"}",
		"{\"command\":\"history\",\"user\":\"alice\",\"conv\":\"g/g\"}", "{\"command\":\"conversations\",\"user\":\"alice\"}",
		"{\"command\":\"send\",\"from\":\"alice\",\"conv\":\"u/bob\",\"text\":\"hi\"}",
		"{\"command\":\"send\",\"from\":\"system\",\"conv\":\"g/g\",\"text\":\"hi\"}",
		"{\"command\":\"user.disable\",\"user\":\"bob\"}", "{\"command\":\"user.enable\",\"user\":\"bob\"}",
		"{\"command\":\"group.title\",\"group\":\"g\",\"title\":\"G\"}", "{\"command\":\"user.title\",\"user\":\"bob\",\"title\":\"B\"}",
		"{\"command\":\"user.password\",\"user\":\"bob\",\"password\":\"new\"}",
	};

	(void)state;
	add_users();
	do_ok("{\"command\":\"group.create\",\"group\":\"g\",\"owner\":\"alice\"}");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		do_ok(commands[i]);
}

static void long_lists_come_in_pages(void **state)
{
	char next[80] = "";
	size_t seen = 0;
	unsigned pages = 0;

	(void)state;
	for (int i = 0; i < 700; i++) {
		Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
		Im__Bus__User u = IM__BUS__USER__INIT;
		char name[65];

		(void)snprintf(name, sizeof(name), "user-%04d-with-a-rather-long-name-so-that-pages-fill-up-quickly", i);
		u.name = name;
		item.version = roster_version(fake.roster) + 1;
		item.user = &u;
		assert_int_equal(roster_apply(fake.roster, &item), IM_OK);
	}
	do {
		char text[256];
		json_t *data;

		(void)snprintf(text, sizeof(text), "{\"command\":\"user.list\",\"limit\":1000%s%s%s}", next[0] ? ",\"next\":\"" : "", next,
			       next[0] ? "\"" : "");
		data = json_object_get(fake_control(text), "data");
		assert_true(fake.response_bytes <= 65536);
		seen += json_array_size(json_object_get(data, "users"));
		(void)snprintf(next, sizeof(next), "%s", text_of(data, "next"));
		pages++;
	} while (next[0] != '\0');
	assert_int_equal(seen, 700);
	assert_true(pages > 1);
}

static void stopping_with_commands_under_way_is_clean(void **state)
{
	Im__Bus__Control c = IM__BUS__CONTROL__INIT;
	const char *text = "{\"commands\":[{\"command\":\"user.add\",\"user\":\"zoe\"},{\"command\":\"user.add\",\"user\":\"yves\"}]}";

	(void)state;
	fake.silent = true;
	c.session = 77;
	c.json.data = (uint8_t *)text;
	c.json.len = strlen(text);
	for (int i = 0; i < 3; i++)
		request_control(fake.request, &c); /* one in the lane with the store, two behind it */
	request_destroy(fake.request);
	fake.request = NULL;
	fake_close();
	assert_int_equal(fake.responses, 0);
	assert_null(roster_user(fake.roster, "zoe"));
}

static void stopping_while_passwords_are_hashed_is_clean(void **state)
{
	Im__Bus__Control c = IM__BUS__CONTROL__INIT;
	const char *text = "{\"commands\":[{\"command\":\"user.import\",\"users\":[{\"user\":\"a\",\"password\":\"x\"},"
			   "{\"user\":\"b\",\"password\":\"x\"},{\"user\":\"c\",\"password\":\"x\"},{\"user\":\"d\",\"password\":\"x\"}]}]}";

	(void)state;
	c.session = 77;
	c.json.data = (uint8_t *)text;
	c.json.len = strlen(text);
	request_control(fake.request, &c);
	request_destroy(fake.request);
	fake.request = NULL;
	assert_int_equal(fake.responses, 0);
}

static void a_backup_goes_where_the_asker_may_write(void **state)
{
	(void)state;
	assert_ok(fake_control("{\"command\":\"backup\",\"file\":\"/tmp/a\",\"force\":true}"));
	assert_string_equal(fake.backup_path, "/tmp/a!");
	assert_code(fake_control("{\"command\":\"backup\",\"file\":\"a\"}"), "bad_field");
	assert_code(fake_control("{\"command\":\"backup\",\"file\":\"/tmp/busy\"}"), "too_many");
	assert_ok(fake_control("{\"command\":\"backup.status\"}"));
	fake.control_user = "alice"; /* an admin on the network */
	fake.settings.admins = (char *)"alice";
	fake.settings.dir = (char *)"/tmp/im-fake-backups";
	(void)mkdir(fake.settings.dir, 0700); /* EEXIST: of a run before */
	assert_ok(fake_control("{\"command\":\"backup\",\"file\":\"monday\"}"));
	assert_string_equal(fake.backup_path, "/tmp/im-fake-backups/backups/monday");
	assert_code(fake_control("{\"command\":\"backup\",\"file\":\"/etc/monday\"}"), "not_allowed");
	assert_code(fake_control("{\"command\":\"backup\",\"file\":\"../monday\"}"), "not_allowed");
	assert_code(fake_control("{\"command\":\"backup\",\"file\":\".profile\"}"), "not_allowed");
	(void)rmdir("/tmp/im-fake-backups/backups");
	(void)rmdir(fake.settings.dir);
	fake.settings.dir = NULL;
	fake.settings.admins = NULL;
	fake.control_user = NULL;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(user_is_durable_then_in_force_then_answered),
		T(change_is_pending_while_the_plugin_is_away),
		T(change_that_was_not_stored_is_not_in_force_and_its_version_is_never_used_again),
		T(lists_at_the_same_time_do_not_both_make_the_same_user),
		T(commands_of_a_list_run_in_order),
		T(a_backup_goes_where_the_asker_may_write),
		T(import_adds_the_good_and_reports_the_bad),
		T(token_is_shown_once_and_kept_as_its_hash),
		T(membership_begins_and_ends_with_a_message),
		T(group_has_a_largest_size),
		T(group_keeps_an_owner),
		T(removed_user_has_left_everything),
		T(what_no_longer_logs_in_is_not_left_connected),
		T(group_of_a_removed_owner_has_a_new_one),
		T(removed_group_may_be_made_again),
		T(only_admins_command),
		T(repeated_request_gets_the_first_answer),
		T(history_pages_stay_below_the_limit_and_miss_nothing),
		T(history_of_a_group_shows_only_ones_stays),
		T(refusals_name_what_is_wrong),
		T(conversations_and_sync_put_store_and_groups_together),
		T(all_methods_answer),
		T(all_admin_lists_answer),
		T(long_lists_come_in_pages),
		T(stopping_with_commands_under_way_is_clean),
		T(stopping_while_passwords_are_hashed_is_clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
