/* services/offline/command.c: the table is complete, and nothing malformed passes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "command.h"
#include "fake_offline.h"
#include <string.h>

static enum im_refusal_code check(const char *name, bool admin, const char *args)
{
	const struct command *c = command_find(name, admin, NULL);
	json_t *json = json_loads(args, 0, NULL);
	struct im_refusal why;
	enum im_refusal_code code;

	assert_non_null(c);
	assert_non_null(json);
	why.code = IM_REFUSE_NONE;
	code = command_check(c, json, admin, &why) ? IM_REFUSE_NONE : why.code;
	json_decref(json);
	return code;
}

static void every_command_is_documented_and_runs(void **state)
{
	(void)state;
	for (const struct command *c = command_table; c->name != NULL; c++) {
		assert_non_null(c->run);
		assert_true(strlen(c->help) > 5);
		assert_ptr_equal(command_find(c->name, (c->who & WHO_ADMIN) != 0, NULL), c); /* no name twice */
		for (const struct command_arg *a = c->args; a->name != NULL; a++) {
			json_t *described;

			assert_non_null(a->help);
			assert_true(a->type != ARG_WORD || a->words != NULL);
			assert_true(a->min <= a->max);
			described = command_describe(c, true);
			assert_non_null(described);
			json_decref(described);
		}
	}
}

static void users_have_the_methods_of_the_protocol_and_no_others(void **state)
{
	static const char *const methods[] = {"history", "sync", "conversations", "groups", "members", "device.set", "server", "me",
						"push.register", "push.unregister", "push.get"};
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		assert_non_null(command_find(methods[i], false, NULL));
	for (const struct command *c = command_table; c->name != NULL; c++)
		n += (c->who & WHO_USER) != 0;
	assert_int_equal(n, sizeof(methods) / sizeof(methods[0]));
	assert_null(command_find("user.add", false, NULL));
}

static void typo_is_answered_with_the_nearest_name(void **state)
{
	const char *nearest = NULL;

	(void)state;
	assert_null(command_find("histroy", false, &nearest));
	assert_string_equal(nearest, "history");
	assert_null(command_find("usr.add", true, &nearest));
	assert_string_equal(nearest, "user.add");
	assert_null(command_find("usr.add", false, &nearest)); /* what one may not use is not suggested */
	assert_true(nearest == NULL || strcmp(nearest, "user.add") != 0);
}

static void arguments_are_checked(void **state)
{
	static const struct {
		const char *command;
		bool admin;
		const char *args;
		enum im_refusal_code code;
	} cases[] = {
		{"history", false, "{\"conv\":\"u/bob\"}", IM_REFUSE_NONE},
		{"history", false, "{}", IM_REFUSE_BAD_FIELD},
		{"history", false, "{\"conv\":\"u/bob\",\"user\":\"alice\"}", IM_REFUSE_BAD_JSON},
		{"history", true, "{\"conv\":\"u/bob\",\"user\":\"alice\"}", IM_REFUSE_NONE},
		{"history", true, "{\"conv\":\"u/bob\"}", IM_REFUSE_BAD_FIELD},
		{"history", false, "{\"conv\":\"bob\"}", IM_REFUSE_BAD_NAME},
		{"history", false, "{\"conv\":\"x/bob\"}", IM_REFUSE_BAD_NAME},
		{"history", false, "{\"conv\":\"u/all\"}", IM_REFUSE_BAD_NAME},
		{"history", false, "{\"conv\":\"u/\"}", IM_REFUSE_BAD_NAME},
		{"history", false, "{\"conv\":7}", IM_REFUSE_BAD_JSON},
		{"history", false, "{\"conv\":\"u/bob\",\"limit\":0}", IM_REFUSE_BAD_FIELD},
		{"history", false, "{\"conv\":\"u/bob\",\"limit\":1001}", IM_REFUSE_BAD_FIELD},
		{"history", false, "{\"conv\":\"u/bob\",\"limit\":-1}", IM_REFUSE_BAD_FIELD},
		{"history", false, "{\"conv\":\"u/bob\",\"limit\":\"5\"}", IM_REFUSE_BAD_JSON},
		{"history", false, "{\"conv\":\"u/bob\",\"limit\":5.5}", IM_REFUSE_BAD_JSON},
		{"history", false, "{\"conv\":\"u/bob\",\"from\":9007199254740991}", IM_REFUSE_NONE},
		{"history", false, "{\"conv\":\"u/bob\",\"from\":9007199254740992}", IM_REFUSE_BAD_FIELD},
		{"history", false, "{\"conv\":\"u/bob\",\"newest_first\":1}", IM_REFUSE_BAD_JSON},
		{"history", false, "{\"conv\":\"u/bob\",\"newest_frist\":true}", IM_REFUSE_BAD_JSON},
		{"server", false, "{\"x\":1}", IM_REFUSE_BAD_JSON},
		{"sync", false, "{\"cursors\":[]}", IM_REFUSE_NONE},
		{"sync", false, "{\"cursors\":[1]}", IM_REFUSE_BAD_JSON},
		{"sync", false, "{\"cursors\":{}}", IM_REFUSE_BAD_JSON},
		{"device.set", false, "{\"max_packet\":256}", IM_REFUSE_NONE},
		{"device.set", false, "{\"max_packet\":268435456}", IM_REFUSE_BAD_FIELD},
		{"user.add", true, "{\"user\":\"Alice\"}", IM_REFUSE_BAD_NAME},
		{"user.add", true, "{\"user\":\"me\"}", IM_REFUSE_BAD_NAME},
		{"user.add", true, "{\"user\":\"alice\",\"password\":\"\"}", IM_REFUSE_BAD_FIELD},
		{"user.add", true, "{\"user\":\"alice\",\"passwort\":\"x\"}", IM_REFUSE_BAD_JSON},
		{"group.add", true, "{\"group\":\"g\",\"users\":[]}", IM_REFUSE_BAD_FIELD},
		{"group.add", true, "{\"group\":\"g\",\"users\":[\"a\",\"b\"]}", IM_REFUSE_NONE},
		{"group.add", true, "{\"group\":\"g\",\"users\":[\"a\",\"b\",\"a\"]}", IM_REFUSE_BAD_FIELD},
		{"group.add", true, "{\"group\":\"g\",\"users\":[\"a\",\"B\"]}", IM_REFUSE_BAD_NAME},
		{"group.add", true, "{\"group\":\"g\",\"users\":[\"a\",null]}", IM_REFUSE_BAD_JSON},
		{"group.role", true, "{\"group\":\"g\",\"user\":\"a\",\"role\":\"king\"}", IM_REFUSE_BAD_FIELD},
		{"group.role", true, "{\"group\":\"g\",\"user\":\"a\",\"role\":\"owner|admin\"}", IM_REFUSE_BAD_FIELD},
		{"group.role", true, "{\"group\":\"g\",\"user\":\"a\",\"role\":\"\"}", IM_REFUSE_BAD_FIELD},
		{"group.role", true, "{\"group\":\"g\",\"user\":\"a\",\"role\":\"member\"}", IM_REFUSE_NONE},
		{"send", true, "{\"from\":\"a\",\"conv\":\"u/b\",\"text\":\"x\",\"id\":\"a b\"}", IM_REFUSE_BAD_ID},
		{"why", true, "{\"user\":\"a\",\"action\":\"connect\",\"what\":\"a:phone\"}", IM_REFUSE_NONE},
		{"why", true, "{\"user\":\"a\",\"action\":\"fly\",\"what\":\"a:phone\"}", IM_REFUSE_BAD_FIELD},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum im_refusal_code code = check(cases[i].command, cases[i].admin, cases[i].args);

		if (code != cases[i].code)
			fail_msg("%s %s: %s instead of %s", cases[i].command, cases[i].args, im_refusal_name(code),
				 im_refusal_name(cases[i].code));
	}
}

static void too_many_users_are_refused(void **state)
{
	json_t *args = json_pack("{s:s,s:[]}", "group", "g", "users");
	struct im_refusal why;

	(void)state;
	for (int i = 0; i < 501; i++)
		json_array_append_new(json_object_get(args, "users"), json_sprintf("u%d", i));
	assert_false(command_check(command_find("group.add", true, NULL), args, true, &why));
	assert_int_equal(why.code, IM_REFUSE_TOO_MANY);
	json_decref(args);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_command_is_documented_and_runs),
		cmocka_unit_test(users_have_the_methods_of_the_protocol_and_no_others),
		cmocka_unit_test(typo_is_answered_with_the_nearest_name),
		cmocka_unit_test(arguments_are_checked),
		cmocka_unit_test(too_many_users_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
