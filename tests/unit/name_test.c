/* lib/wire/name.c: what names, ids and addresses may be, and that canonical names lead back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "wire/name.h"
#include <string.h>

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

struct text_case {
	const char *text;
	bool valid;
};

static void names_follow_the_grammar(void **state)
{
	static const struct text_case cases[] = {
		{"bob", true}, {"b", true}, {"0", true}, {"bob.smith@example.org", true}, {"a_b-c", true}, {A64, true},
		{"alls", true}, {"mee", true}, {"systems", true},
		{"", false}, {"Bob", false}, {".bob", false}, {"-bob", false}, {"_bob", false}, {"@bob", false},
		{"bo b", false}, {"bo/b", false}, {"bo:b", false}, {"bo+b", false}, {"b#", false}, {"$im", false},
		{"b\xc3\xb6", false}, {A64 "a", false}, {"all", false}, {"me", false}, {"system", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (im_name_valid(cases[i].text, strlen(cases[i].text)) != cases[i].valid)
			fail_msg("name \"%s\" should be %d", cases[i].text, cases[i].valid);
}

static void ids_follow_the_grammar(void **state)
{
	static const struct text_case cases[] = {
		{"1", true}, {"A-z0.9_:~", true}, {A64, true},
		{"", false}, {"a b", false}, {"a/b", false}, {"a@b", false}, {"a+b", false}, {"a#", false}, {A64 "a", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (im_id_valid(cases[i].text, strlen(cases[i].text)) != cases[i].valid)
			fail_msg("id \"%s\" should be %d", cases[i].text, cases[i].valid);
}

static void client_ids_are_named_unnamed_or_neither(void **state)
{
	static const struct {
		const char *id;
		size_t user_len; /* 0: not named */
		bool unnamed;
	} cases[] = {
		{"alice:phone", 5, false}, {"bob:pc", 3, false}, {"a:A.b_c~d-9", 1, false}, {"alice:" A64, 0, true},
		{"alice:", 0, true}, {"alice:a:b", 0, true}, {"alice:a@b", 0, true}, {":phone", 0, true}, {"Alice:phone", 0, true},
		{"all:phone", 0, true}, {"mosq-X9", 0, true}, {"a b", 0, true},
		{"", 0, false}, {"a/b", 0, false}, {"a+b", 0, false}, {"a#b", 0, false}, {"a\x1f", 0, false}, {"a\x7f", 0, false},
		{"a\xc3\xb6", 0, false}, {A64 A64, 0, true}, {A64 A64 "a", 0, false},
	};
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		len = 0;
		if (im_client_id_named(cases[i].id, &len) != (cases[i].user_len > 0) || len != cases[i].user_len)
			fail_msg("client id \"%s\" should be named: %zu", cases[i].id, cases[i].user_len);
		if (im_client_id_unnamed(cases[i].id, "alice") != cases[i].unnamed)
			fail_msg("client id \"%s\" should be unnamed: %d", cases[i].id, cases[i].unnamed);
	}
}

static void both_sides_of_a_conversation_have_one_canonical_name(void **state)
{
	static const struct {
		const char *user, *address, *canonical; /* NULL: refused */
	} cases[] = {
		{"alice", "u/bob", "u/alice:bob"}, {"bob", "u/alice", "u/alice:bob"}, {"alice", "u/alice", "u/alice:alice"},
		{"a", "u/ab", "u/a:ab"}, {"ab", "u/a", "u/a:ab"}, {"alice", "g/friends", "g/friends"}, {A64, "u/b", "u/" A64 ":b"},
		{"alice", "u/Bob", NULL}, {"alice", "u/", NULL}, {"alice", "u", NULL}, {"alice", "", NULL}, {"alice", "x/bob", NULL},
		{"alice", "u/all", NULL}, {"alice", "g/a:b", NULL}, {"alice", "u/a/b", NULL}, {"alice", "u/" A64 "a", NULL},
	};
	char canonical[IM_CONV_MAX], back[IM_CONV_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool ok = im_conv_canonical(cases[i].user, cases[i].address, canonical);

		if (ok != (cases[i].canonical != NULL))
			fail_msg("%s by %s", cases[i].address, cases[i].user);
		if (!ok)
			continue;
		assert_string_equal(canonical, cases[i].canonical);
		assert_true(im_conv_as_seen(canonical, cases[i].user, back));
		assert_string_equal(back, cases[i].address);
	}
}

static void longest_names_fit(void **state)
{
	char user[IM_NAME_MAX + 1], address[2 + IM_NAME_MAX + 1], canonical[IM_CONV_MAX], back[IM_CONV_MAX];

	(void)state;
	memset(user, 'b', IM_NAME_MAX);
	user[IM_NAME_MAX] = '\0';
	memcpy(address, "u/" A64, sizeof(address));
	assert_true(im_conv_canonical(user, address, canonical));
	assert_int_equal(strlen(canonical), IM_CONV_MAX - 1);
	assert_true(im_conv_as_seen(canonical, user, back));
	assert_string_equal(back, address);
}

static void outsiders_see_no_conversation(void **state)
{
	char out[IM_CONV_MAX], peer[IM_NAME_MAX + 1];

	(void)state;
	assert_false(im_conv_as_seen("u/alice:bob", "carol", out));
	assert_false(im_conv_as_seen("u/alice:bob", "ali", out));
	assert_false(im_conv_as_seen("u/alice:bob", "alice:bob", out));
	assert_false(im_conv_as_seen("u/alice:bob", "", out));
	assert_false(im_conv_as_seen("u/alice", "alice", out));
	assert_false(im_conv_peer("g/friends", "alice", peer));
	assert_true(im_conv_peer("u/alice:bob", "bob", peer));
	assert_string_equal(peer, "alice");
	assert_true(im_conv_peer("u/alice:alice", "alice", peer));
	assert_string_equal(peer, "alice");
}

static void sections_are_stable_and_spread(void **state)
{
	static unsigned count[IM_SECTIONS];
	char conv[] = "g/group00000";
	unsigned most = 0;

	(void)state;
	/* Part of the stored format: these must never change. */
	assert_int_equal(im_conv_section("u/alice:bob"), 2548);
	assert_int_equal(im_conv_section("g/friends"), 289);
	for (unsigned i = 0; i < 16 * IM_SECTIONS; i++) {
		for (unsigned d = 0, n = i; d < 5; d++, n /= 10)
			conv[11 - d] = (char)('0' + n % 10);
		if (++count[im_conv_section(conv)] > most)
			most = count[im_conv_section(conv)];
	}
	assert_in_range(most, 16, 64);
}

static void msgids_lead_back_and_sort_by_position(void **state)
{
	static const struct {
		uint32_t node;
		uint64_t epoch, offset;
	} cases[] = { /* ascending */
		{0, 0, 0}, {0, 0, 1}, {0, 0, UINT64_MAX}, {0, 1, 0}, {1, 0, 0}, {1, 7, 4096}, {1, 0xffffffffffff, 5}, {2, 0, 0},
		{65535, 0xffffffffffff, UINT64_MAX},
	};
	char text[IM_MSGID_LEN + 1], last[IM_MSGID_LEN + 1] = "";
	uint64_t epoch, offset;
	uint32_t node;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		im_msgid_encode(cases[i].node, cases[i].epoch, cases[i].offset, text);
		assert_int_equal(strlen(text), IM_MSGID_LEN);
		assert_true(strcmp(last, text) < 0);
		assert_true(im_msgid_decode(text, &node, &epoch, &offset));
		assert_true(node == cases[i].node && epoch == cases[i].epoch && offset == cases[i].offset);
		memcpy(last, text, sizeof(last));
	}
	assert_string_equal(text, "7zzzzzzzzzzzzzzzzzzzzzzzzz");
}

static void other_texts_are_no_msgids(void **state)
{
	static const char *const texts[] = {
		"", "0", "8zzzzzzzzzzzzzzzzzzzzzzzzz", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "0000000000000000000000000",
		"000000000000000000000000000", "0000000000000000000000000i", "0000000000000000000000000u",
	};
	uint64_t epoch, offset;
	uint32_t node;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (im_msgid_decode(texts[i], &node, &epoch, &offset))
			fail_msg("\"%s\" is a msgid", texts[i]);
}

static void utf8_is_told_from_other_bytes(void **state)
{
	static const struct text_case cases[] = {
		{"", true}, {"plain ascii, longer than eight", true}, {"gr\xc3\xbc\xc3\x9f", true}, {"\xe4\xbd\xa0\xe5\xa5\xbd", true},
		{"12345678\xf0\x9f\x98\x80", true}, {"\xf4\x8f\xbf\xbf", true}, {"\xed\x9f\xbf", true}, {"\xee\x80\x80", true},
		{"\x80", false}, {"\xc3", false}, {"1234567\xc3", false}, {"\xc0\xaf", false}, {"\xc1\xbf", false},
		{"\xe0\x80\xaf", false}, {"\xed\xa0\x80", false}, {"\xf0\x80\x80\xaf", false}, {"\xf4\x90\x80\x80", false},
		{"\xf5\x80\x80\x80", false}, {"\xff", false}, {"\xe4\xbd", false}, {"\xe4\xbdX", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (im_utf8_valid(cases[i].text, strlen(cases[i].text)) != cases[i].valid)
			fail_msg("UTF-8 case %zu should be %d", i, cases[i].valid);
	assert_true(im_utf8_valid("a\0b", 3));
	assert_int_equal(im_utf8_char("\xf0\x9f\x98\x80", 3), 0);
	assert_int_equal(im_utf8_char("\xf0\x9f\x98\x80", 4), 4);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_follow_the_grammar),
		cmocka_unit_test(ids_follow_the_grammar),
		cmocka_unit_test(client_ids_are_named_unnamed_or_neither),
		cmocka_unit_test(both_sides_of_a_conversation_have_one_canonical_name),
		cmocka_unit_test(longest_names_fit),
		cmocka_unit_test(outsiders_see_no_conversation),
		cmocka_unit_test(sections_are_stable_and_spread),
		cmocka_unit_test(msgids_lead_back_and_sort_by_position),
		cmocka_unit_test(other_texts_are_no_msgids),
		cmocka_unit_test(utf8_is_told_from_other_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
