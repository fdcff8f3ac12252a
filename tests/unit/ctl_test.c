/* imctl/verb.c and imctl/import.c: words become arguments, or a sentence that says what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "imctl/ctl.h"
#include "imctl/import.h"
#include <stdlib.h>
#include <string.h>

#define WORDS 12

static int split(char *line, char **words)
{
	char *save = NULL;
	int n = 0;

	for (char *w = strtok_r(line, " ", &save); w != NULL && n < WORDS; w = strtok_r(NULL, " ", &save))
		words[n++] = w;
	return n;
}

/* The command and its arguments as text, or "!" and the complaint. The caller frees it. */
static char *parse(const char *text)
{
	char *line = strdup(text), *words[WORDS], why[256] = "", *out;
	int used = 0, n = split(line, words);
	const struct verb *verb = verb_find(words, n, &used, why, sizeof(why));
	json_t *args = verb ? verb_args(verb, words + used, n - used, why, sizeof(why)) : NULL;
	char *json = args ? json_dumps(args, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	if (json != NULL)
		assert_true(asprintf(&out, "%s %s", verb->command ? verb->command : "-", json) > 0);
	else
		assert_true(asprintf(&out, "!%s", why) > 0);
	free(json);
	json_decref(args);
	free(line);
	return out;
}

static void words_become_arguments(void **state)
{
	static const struct {
		const char *line, *expected;
	} cases[] = {
		{"user add alice", "user.add {\"user\":\"alice\"}"},
		{"user add alice --title Al", "user.add {\"title\":\"Al\",\"user\":\"alice\"}"},
		{"user add --title=Al alice", "user.add {\"title\":\"Al\",\"user\":\"alice\"}"},
		{"user add alice --no-password", "user.add {\"no_password\":true,\"user\":\"alice\"}"},
		{"group create friends --owner alice", "group.create {\"group\":\"friends\",\"owner\":\"alice\"}"},
		{"group add friends bob carol", "group.add {\"group\":\"friends\",\"users\":[\"bob\",\"carol\"]}"},
		{"token issue a b --days 3", "token.issue {\"days\":3,\"users\":[\"a\",\"b\"]}"},
		{"session list", "session.list {}"},
		{"history alice u/bob", "history {\"conv\":\"u/bob\",\"user\":\"alice\"}"},
		{"send a u/b -- --stdin", "send {\"conv\":\"u/b\",\"from\":\"a\",\"text\":\"--stdin\"}"},
		{"why alice publish im/v1/to/u/bob", "why {\"action\":\"publish\",\"user\":\"alice\",\"what\":\"im/v1/to/u/bob\"}"},
		{"config check", "- {}"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *out = parse(cases[i].line);

		assert_string_equal(out, cases[i].expected);
		free(out);
	}
}

static void wrong_usage_is_explained(void **state)
{
	static const struct {
		const char *line, *says;
	} cases[] = {
		{"", "imctl help"},
		{"usr add alice", "did you mean \"user\""},
		{"user ad alice", "did you mean \"add\""},
		{"user", "user what?"},
		{"user add", "user is missing"},
		{"user add alice bob", "\"bob\" is one word too many"},
		{"user add alice --titel x", "did you mean --title"},
		{"user add alice --title", "needs a value"},
		{"group create friends", "--owner is missing"},
		{"group add friends", "users is missing"},
		{"token issue a --days many", "needs a number"},
		{"token issue a --days -3", "needs a number"},
		{"history alice", "conv is missing"},
		{"frobnicate", "there is no \"frobnicate\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *out = parse(cases[i].line);

		if (out[0] != '!' || strstr(out, cases[i].says) == NULL)
			fail_msg("%s: %s", cases[i].line, out);
		free(out);
	}
}

static void import_line_is_split_at_the_first_comma(void **state)
{
	static const struct {
		const char *line, *user, *password; /* user NULL: not taken */
		bool complains;
	} cases[] = {
		{"alice,secret\n", "alice", "secret", false},
		{"alice,a,b,c\r\n", "alice", "a,b,c", false},
		{"alice, x ", "alice", " x ", false},
		{"\n", NULL, NULL, false},
		{"alice\n", NULL, NULL, true},
		{"alice,\n", NULL, NULL, true},
		{"alice,\xff\n", NULL, NULL, true},
		{",x\n", "", "x", false}, /* the service refuses the name, with this line's number */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char line[64];
		const char *why;
		json_t *entry;

		strcpy(line, cases[i].line);
		entry = import_line(line, 7, &why);
		assert_int_equal(entry != NULL, cases[i].user != NULL);
		assert_int_equal(why != NULL, cases[i].complains);
		if (entry != NULL) {
			assert_string_equal(json_string_value(json_object_get(entry, "user")), cases[i].user);
			assert_string_equal(json_string_value(json_object_get(entry, "password")), cases[i].password);
			assert_int_equal(json_integer_value(json_object_get(entry, "line")), 7);
		}
		json_decref(entry);
	}
}

static void exit_codes_tell_what_kind_of_no(void **state)
{
	(void)state;
	assert_int_equal(ctl_exit_of("unknown_user"), EXIT_NOT_FOUND);
	assert_int_equal(ctl_exit_of("exists"), EXIT_EXISTS);
	assert_int_equal(ctl_exit_of("unavailable"), EXIT_UNAVAILABLE);
	assert_int_equal(ctl_exit_of("unavailable: the message service is not connected"), EXIT_UNAVAILABLE);
	assert_int_equal(ctl_exit_of("bad_name"), EXIT_REFUSED);
	assert_int_equal(ctl_exit_of(""), EXIT_REFUSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_become_arguments),
		cmocka_unit_test(wrong_usage_is_explained),
		cmocka_unit_test(import_line_is_split_at_the_first_comma),
		cmocka_unit_test(exit_codes_tell_what_kind_of_no),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
