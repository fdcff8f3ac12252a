/* lib/push: what a token, a Retry-After and an app's file may look like, and texts that are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "push/app.h"
#include "push/driver.h"
#include "push/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- text.c */

static void text_is_cut_between_what_people_see_as_characters(void **state)
{
	static const struct {
		const char *text;
		size_t most;
		bool json;
		const char *out;
	} cases[] = {
		{"hello", 5, false, "hello"},
		{"hello!", 5, false, "he…"},
		{"hello!", 3, false, "…"},
		{"hello!", 2, false, ""},
		{"", 0, false, ""},
		{"aäö", 5, false, "aäö"},
		{"aäöü", 6, false, "aä…"},
		{"ab👨‍👩‍👧x", 15, false, "ab…"},          /* joined by ZWJ: all or nothing */
		{"ab👍🏽xyz", 12, false, "ab…"},            /* with a skin tone */
		{"ab👍🏽xyzw", 13, false, "ab👍🏽…"},
		{"🇩🇪🇫🇷🇮🇹", 20, false, "🇩🇪🇫🇷…"},
		{"🇩🇪🇫🇷🇮🇹", 17, false, "🇩🇪…"},
		{"e\xcc\x81" "e\xcc\x81" "abc", 8, false, "e\xcc\x81…"},
		{"שלום עולם", 11, false, "שלום…"},
		{"\xff\xfe" "a", 10, false, "\xef\xbf\xbd\xef\xbf\xbd" "a"},
		{"\xed\xa0\x80", 20, false, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a lone surrogate */
		{"\xf0\x9f\x98", 20, false, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* cut off */
		{"\"\"\"\"", 8, true, "\"\"\"\""},
		{"\"\"\"\"", 7, true, "\"\"…"},
		{"\x01\x01\x01", 15, true, "\x01\x01…"},
		{"a\nb", 4, true, "a\nb"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct im_buf out;

		im_buf_init(&out);
		bool cut = push_text_fit(&out, cases[i].text, cases[i].most, cases[i].json);

		if (strcmp(im_buf_text(&out), cases[i].out) != 0)
			fail_msg("case %zu: '%s', not '%s'", i, im_buf_text(&out), cases[i].out);
		assert_true((cases[i].json ? push_text_json_size(im_buf_text(&out)) : out.len) <= cases[i].most);
		assert_int_equal(cut, strstr(cases[i].out, PUSH_ELLIPSIS) != NULL || (!*cases[i].out && *cases[i].text));
		im_buf_finish(&out);
	}
}

static void text_never_outgrows_its_limit(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed < 3000; seed++) {
		struct im_buf out;
		char text[64];
		size_t len = (size_t)rand() % 63, most = (size_t)rand() % 80;
		bool json = rand() % 2;

		for (size_t i = 0; i < len; i++)
			text[i] = (char)(1 + rand() % 255);
		text[len] = '\0';
		im_buf_init(&out);
		(void)push_text_fit(&out, text, most, json);
		assert_true((json ? push_text_json_size(im_buf_text(&out)) : out.len) <= most);
		im_buf_finish(&out);
	}
}

static void json_string_is_escaped(void **state)
{
	struct im_buf out;

	(void)state;
	im_buf_init(&out);
	push_text_json(&out, "a\"\\\n\x01ü/");
	assert_string_equal(im_buf_text(&out), "\"a\\\"\\\\\\n\\u0001ü/\"");
	im_buf_finish(&out);
}

static void general_text_falls_back(void **state)
{
	(void)state;
	assert_string_equal(push_text_general("de-AT"), "Neue Nachricht");
	assert_string_equal(push_text_general("zh-Hant-TW"), "新訊息");
	assert_string_equal(push_text_general("zh-CN"), "新消息");
	assert_string_equal(push_text_general("ZH_hk"), "新訊息");
	assert_string_equal(push_text_general("den"), "New message");
	assert_string_equal(push_text_general(""), "New message");
	assert_string_equal(push_text_general(NULL), "New message");
}

/* ---- token.c */

#define HEX64 "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"
#define POINT "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4" /* RFC 8291 5 */
#define OFF_CURVE "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw5"
#define AUTH "BTBZMqHH6r4Tts7J_aSIgg"

static void token_has_its_providers_form(void **state)
{
	static const struct {
		const char *provider, *token, *p256dh, *auth;
		bool fine;
	} cases[] = {
		{"apns", HEX64, "", "", true},
		{"apns", "0123456789abcdef0123456789abcdef", "", "", true},
		{"apns", "0123456789abcdef0123456789abcde", "", "", false},
		{"apns", "0123456789abcdef0123456789abcdef0", "", "", false},
		{"apns", HEX64 "\r\n", "", "", false},
		{"apns", HEX64 HEX64 HEX64 "01234567", "", "", true},
		{"apns", HEX64 HEX64 HEX64 "0123456789", "", "", false},
		{"apns", "", "", "", false},
		{"fcm", "0123456789:abcdefghij", "", "", true},
		{"fcm", "0123456789 abcdefghij", "", "", false},
		{"fcm", "short", "", "", false},
		{"xiaomi", "a+b/c=", "", "", true},
		{"xiaomi", "a\nb", "", "", false},
		{"oppo", "", "", "", false},
		{"webpush", "https://push.example/x", POINT, AUTH, true},
		{"webpush", "http://push.example/x", POINT, AUTH, false},
		{"webpush", "https://me:pw@push.example/x", POINT, AUTH, false},
		{"webpush", "https://push.example/@x", POINT, AUTH, true},
		{"webpush", "https:///x", POINT, AUTH, false},
		{"webpush", "https://push.example/a b", POINT, AUTH, false},
		{"webpush", "https://push.example/x", OFF_CURVE, AUTH, false},
		{"webpush", "https://push.example/x", POINT "=", AUTH, false},
		{"webpush", "https://push.example/x", "", AUTH, false},
		{"webpush", "https://push.example/x", "A" POINT, AUTH, false},
		{"webpush", "https://push.example/x", POINT, "BTBZMqHH6r4Tts7J_aSI", false},
		{"webpush", "https://push.example/x", POINT, AUTH "AA", false},
		{"webpush", "https://push.example/x", POINT, "", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		Im__Push__Token t = IM__PUSH__TOKEN__INIT;

		t.token = (char *)cases[i].token;
		t.p256dh = (char *)cases[i].p256dh;
		t.auth = (char *)cases[i].auth;
		if ((push_token_problem(cases[i].provider, &t) == NULL) != cases[i].fine)
			fail_msg("case %zu: %s %s", i, cases[i].provider, cases[i].token);
	}
}

/* ---- retry_after.c */

static void retry_after_is_between_a_second_and_an_hour(void **state)
{
	static const int64_t now = 784111777000; /* Sun, 06 Nov 1994 08:49:37 GMT */
	static const struct {
		const char *value;
		int64_t ms;
	} cases[] = {
		{"5", 5000},
		{" 120\t", 120000},
		{"0", 1000},
		{"3601", 3600000},
		{"1000000000", 3600000},
		{"99999999999999999999999999", 3600000},
		{"-1", 0},
		{"1.5", 0},
		{"", 0},
		{"soon", 0},
		{"Sun, 06 Nov 1994 08:50:37 GMT", 60000},
		{"Sunday, 06-Nov-94 08:50:37 GMT", 3600000},
		{"Sun Nov  6 08:50:37 1994", 60000},
		{"Sun, 06 Nov 1994 08:00:00 GMT", 1000},
		{"Sun, 06 Nov 2094 08:00:00 GMT", 3600000},
		{"Sun, 06 Nov 1994 08:50:37 CET", 0},
		{"Sun, 06 Nov 1994 08:50:37 GMT, 5", 0},
		{"Sun, 36 Nov 1994 08:50:37 GMT", 0},
		{"Sun, 06 Foo 1994 08:50:37 GMT", 0},
	};

	(void)state;
	assert_int_equal(push_retry_after(NULL, now), 0);
	for (size_t i = 0; i < COUNT(cases); i++)
		if (push_retry_after(cases[i].value, now) != cases[i].ms)
			fail_msg("%s: %lld", cases[i].value, (long long)push_retry_after(cases[i].value, now));
}

/* ---- app.c */

static const char *const colours[] = {"red", "green", NULL};
static const struct push_key keys[] = {
	{"key_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL},
	{"topic", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL},
	{"max_conns", PUSH_KEY_NUMBER, false, "4", 1, 16, NULL},
	{"colour", PUSH_KEY_CHOICE, false, "red", 0, 0, colours},
	{"quiet", PUSH_KEY_BOOL, false, "false", 0, 0, NULL},
	{"ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL},
	{NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL},
};

static char dir[] = "/tmp/im-push-XXXXXX";

static void put(const char *name, const char *text, mode_t mode)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static void forget(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(unlink(path), 0);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void good_file_is_read(void **state)
{
	struct push_app **apps = NULL;
	struct im_err err = {""};
	size_t n = 0, len = 0;

	(void)state;
	put("key.p8", "secret", 0600);
	put("test.com.example.chat.conf", "# an app\nkey_file key.p8\ntopic  com.example.chat \nmax_conns 2\n", 0644);
	put("other.x.conf", "nonsense\n", 0644);
	assert_int_equal(push_apps_read(dir, "test", keys, &apps, &n, &err), IM_OK);
	assert_int_equal(n, 1);
	assert_string_equal(push_app_name(apps[0]), "com.example.chat");
	assert_string_equal(push_app_text(apps[0], "topic"), "com.example.chat");
	assert_int_equal(push_app_number(apps[0], "max_conns"), 2);
	assert_string_equal(push_app_text(apps[0], "colour"), "red");
	assert_true(push_app_has(apps[0], "max_conns") && !push_app_has(apps[0], "colour"));
	assert_false(push_app_bool(apps[0], "quiet"));
	assert_string_equal(push_app_file(apps[0], "key_file", &len), "secret");
	assert_int_equal(len, 6);
	push_apps_wipe(apps, n);
	assert_null(push_app_file(apps[0], "key_file", &len));
	assert_int_equal(push_app_fault(apps[0], "topic", &err, "not %s", "this"), IM_BAD_INPUT);
	assert_non_null(strstr(err.text, "test.com.example.chat.conf:3: topic: not this"));
	push_apps_free(apps, n);
	forget("test.com.example.chat.conf");
}

static void bad_file_is_refused_with_its_line(void **state)
{
	static const struct {
		const char *text;
		mode_t key_mode;
		const char *says;
	} cases[] = {
		{"key_file key.p8\ntopik x\n", 0600, "test.a.conf:2: unknown key 'topik'; did you mean topic?"},
		{"key_file key.p8\nzzzzzzzz x\n", 0600, "test.a.conf:2: unknown key 'zzzzzzzz'"},
		{"key_file key.p8\n", 0600, "topic is missing"},
		{"key_file key.p8\ntopic x\ntopic y\n", 0600, "test.a.conf:3: topic stands in line 2 already"},
		{"key_file key.p8\ntopic\n", 0600, "test.a.conf:2: topic has no value"},
		{"topic x\nkey_file key.p8\n", 0644, "key.p8 can be read by others: chmod 600"},
		{"topic x\nkey_file none.p8\n", 0600, "test.a.conf:2: key_file: "},
		{"topic x\nkey_file /dev/null\n", 0600, "is not a regular file"},
		{"topic x\nmax_conns 0\n", 0600, "max_conns must be a number from 1 to 16"},
		{"topic x\nmax_conns 3x\n", 0600, "max_conns must be a number from 1 to 16"},
		{"topic x\ncolour blue\n", 0600, "colour must be one of: red, green"},
		{"topic x\nquiet yes\n", 0600, "quiet must be true or false"},
		{"include_dir /nowhere\n", 0600, "include_dir"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct push_app **apps = NULL;
		struct im_err err = {""};
		size_t n = 0;

		put("key.p8", "secret", cases[i].key_mode);
		put("test.a.conf", cases[i].text, 0644);
		assert_int_equal(push_apps_read(dir, "test", keys, &apps, &n, &err), IM_BAD_INPUT);
		if (!strstr(err.text, cases[i].says))
			fail_msg("case %zu: %s", i, err.text);
	}
}

static void provider_without_an_app_is_refused(void **state)
{
	struct push_app **apps = NULL;
	struct im_err err = {""};
	size_t n = 0;

	(void)state;
	assert_int_equal(push_apps_read(dir, "nobody", keys, &apps, &n, &err), IM_BAD_INPUT);
	assert_non_null(strstr(err.text, "nobody.APP.conf"));
	assert_int_equal(push_apps_read("/nowhere/at/all", "test", keys, &apps, &n, &err), IM_BAD_INPUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_is_cut_between_what_people_see_as_characters),
		cmocka_unit_test(text_never_outgrows_its_limit),
		cmocka_unit_test(json_string_is_escaped),
		cmocka_unit_test(general_text_falls_back),
		cmocka_unit_test(token_has_its_providers_form),
		cmocka_unit_test(retry_after_is_between_a_second_and_an_hour),
		cmocka_unit_test(good_file_is_read),
		cmocka_unit_test(bad_file_is_refused_with_its_line),
		cmocka_unit_test(provider_without_an_app_is_refused),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
