/* lib/wire/envelope.c: what clients may send, and the code of what they may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "wire/envelope.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MSGID "00400000000000000000000000"

struct fixture {
	struct im_arena arena;
	Im__Bus__Record record;
	struct im_refusal why;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	im_arena_init(&f->arena);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	im_arena_finish(&f->arena);
	free(f);
	return 0;
}

static void check_body(const struct fixture *f, const char *body, size_t len)
{
	assert_int_equal(f->record.body.len, len);
	if (len > 0)
		assert_memory_equal(f->record.body.data, body, len);
}

static bool plain(struct fixture *f, const char *topic, const void *payload, size_t len, const char *ct)
{
	struct im_topic t;

	im_topic_parse(topic, &t);
	assert_int_equal(t.kind, IM_TOPIC_TO);
	return im_envelope_plain(&t, payload, len, ct, &f->arena, &f->record, &f->why);
}

static bool json(struct fixture *f, const char *text)
{
	return im_envelope_json(text, strlen(text), &f->arena, &f->record, &f->why);
}

static void plain_payloads_are_text_or_bytes(void **state)
{
	static const struct {
		const char *payload;
		size_t len;
		Im__V1__Enc enc;
	} cases[] = {
		{"hello", 5, IM__V1__ENC__ENC_TEXT}, {"", 0, IM__V1__ENC__ENC_TEXT}, {"gr\xc3\xbc\xc3\x9f", 6, IM__V1__ENC__ENC_TEXT},
		{"a\0b", 3, IM__V1__ENC__ENC_TEXT}, {"\xff\xfe", 2, IM__V1__ENC__ENC_BYTES}, {"abc\xc3", 4, IM__V1__ENC__ENC_BYTES},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(plain(f, "im/v1/to/u/bob/m1", cases[i].payload, cases[i].len, NULL));
		assert_int_equal(f->record.kind, IM__BUS__KIND__KIND_SEND);
		assert_int_equal(f->record.enc, cases[i].enc);
		assert_string_equal(f->record.type, cases[i].enc == IM__V1__ENC__ENC_TEXT ? "text" : "bytes");
		assert_string_equal(f->record.conv, "u/bob");
		assert_string_equal(f->record.id, "m1");
		check_body(f, cases[i].payload, cases[i].len);
	}
	assert_true(plain(f, "im/v1/to/g/friends", NULL, 0, "image/png"));
	assert_string_equal(f->record.id, "");
	assert_string_equal(f->record.ct, "image/png");
}

static void content_types_have_limits(void **state)
{
	struct fixture *f = *state;
	char ct[IM_CT_MAX + 2];

	memset(ct, 'x', sizeof(ct));
	ct[IM_CT_MAX] = '\0';
	assert_true(plain(f, "im/v1/to/u/bob", "x", 1, ct));
	ct[IM_CT_MAX] = 'x';
	ct[IM_CT_MAX + 1] = '\0';
	assert_false(plain(f, "im/v1/to/u/bob", "x", 1, ct));
	assert_int_equal(f->why.code, IM_REFUSE_BAD_FIELD);
	assert_false(plain(f, "im/v1/to/u/bob", "x", 1, "a\nb"));
	assert_false(plain(f, "im/v1/to/u/bob", "x", 1, "a\xff"));
}

static void json_fields_arrive(void **state)
{
	struct fixture *f = *state;

	assert_true(json(f, "{\"to\":\"g/friends\",\"id\":\"m.1\",\"type\":\"image\",\"body\":{\"url\" : \"x y\"},\"enc\":\"json\",\"ct\":\"a/b\","
			    "\"alt\":\"a cat\",\"reply\":\"" MSGID "\",\"mentions\":[\"bob\",\"all\"],\"expiry\":9007199254740991,"
			    "\"ext\":{ \"n\" : 1.10 }}"));
	assert_string_equal(f->record.conv, "g/friends");
	assert_string_equal(f->record.id, "m.1");
	assert_string_equal(f->record.type, "image");
	assert_int_equal(f->record.enc, IM__V1__ENC__ENC_JSON);
	check_body(f, "{\"url\":\"x y\"}", 13);
	assert_string_equal(f->record.ct, "a/b");
	assert_string_equal(f->record.alt, "a cat");
	assert_string_equal(f->record.reply, MSGID);
	assert_int_equal(f->record.n_mentions, 2);
	assert_string_equal(f->record.mentions[0], "bob");
	assert_string_equal(f->record.mentions[1], "all");
	assert_int_equal(f->record.expiry, 9007199254740991);
	assert_string_equal(f->record.ext, "{\"n\":1.10}");
}

static void json_bodies_are_kept_as_written(void **state)
{
	static const struct {
		const char *text, *body;
		const char *type;
		Im__V1__Enc enc;
		size_t len;
	} cases[] = {
		{"{\"to\":\"u/bob\"}", "", "text", IM__V1__ENC__ENC_TEXT, 0},
		{"{\"to\":\"u/bob\",\"body\":\"a\\u0000b\"}", "a\0b", "text", IM__V1__ENC__ENC_TEXT, 3},
		{"{\"to\":\"u/bob\",\"id\":null,\"body\":\"\\u00fc\"}", "\xc3\xbc", "text", IM__V1__ENC__ENC_TEXT, 2},
		{"{\"body\":\"AAEC/w==\",\"enc\":\"base64\",\"to\":\"u/bob\"}", "\0\1\2\xff", "bytes", IM__V1__ENC__ENC_BYTES, 4},
		{"{\"body\":\"\",\"enc\":\"base64\",\"to\":\"u/bob\"}", "", "bytes", IM__V1__ENC__ENC_BYTES, 0},
		{"{\"to\":\"u/bob\",\"enc\":\"json\",\"body\":1.10}", "1.10", "json", IM__V1__ENC__ENC_JSON, 4},
		{"{\"to\":\"u/bob\",\"enc\":\"json\",\"body\": [1e2 , \"a , ]\\\"\" ,\n{}] }", "[1e2,\"a , ]\\\"\",{}]", "json", IM__V1__ENC__ENC_JSON, 18},
		{"{\"ext\":{\"body\":1},\"to\":\"u/bob\",\"\\u0062ody\":null,\"enc\":\"json\"}", "null", "json", IM__V1__ENC__ENC_JSON, 4},
		{" {\"enc\":\"json\",\"body\":\"x\",\"alt\":\"}\",\"to\":\"u/bob\"} ", "\"x\"", "json", IM__V1__ENC__ENC_JSON, 3},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (!json(f, cases[i].text))
			fail_msg("%s: %s", cases[i].text, f->why.reason);
		assert_int_equal(f->record.enc, cases[i].enc);
		assert_string_equal(f->record.type, cases[i].type);
		check_body(f, cases[i].body, cases[i].len);
		im_arena_reset(&f->arena);
	}
}

static void wrong_json_is_refused_with_its_code(void **state)
{
	static const struct {
		const char *text;
		enum im_refusal_code code;
		const char *says;
	} cases[] = {
		{"", IM_REFUSE_BAD_JSON, "line"}, {"x", IM_REFUSE_BAD_JSON, "line"}, {"[]", IM_REFUSE_BAD_JSON, "object"},
		{"\"a\"", IM_REFUSE_BAD_JSON, "object"}, {"{\"to\":\"u/bob\"", IM_REFUSE_BAD_JSON, "line 1"},
		{"{\"to\":\"u/bob\"} x", IM_REFUSE_BAD_JSON, "end of file"}, {"{\"to\":\"u/bob\",\"to\":\"u/carol\"}", IM_REFUSE_BAD_JSON, "duplicate"},
		{"{\"to\":\"u/bob\",\"bdy\":\"x\"}", IM_REFUSE_BAD_JSON, "\"bdy\""}, {"{\"to\":7}", IM_REFUSE_BAD_JSON, "\"to\""},
		{"{\"to\":\"u/bob\",\"body\":7}", IM_REFUSE_BAD_JSON, "\"body\""}, {"{\"to\":\"u/bob\",\"mentions\":\"bob\"}", IM_REFUSE_BAD_JSON, "mentions"},
		{"{\"to\":\"u/bob\",\"expiry\":1.5}", IM_REFUSE_BAD_JSON, "expiry"}, {"{\"to\":\"u/bob\",\"ext\":[]}", IM_REFUSE_BAD_JSON, "ext"},
		{"{\"to\":\"u/bob\",\"ext\":{\"a\":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}}", IM_REFUSE_BAD_JSON, "deeper"},
		{"{\"to\":\"u/bob\",\"body\":\"\xff\"}", IM_REFUSE_BAD_JSON, "decode"},
		{"{}", IM_REFUSE_BAD_FIELD, "\"to\""}, {"{\"to\":\"bob\"}", IM_REFUSE_BAD_NAME, "bob"}, {"{\"to\":\"u/Bob\"}", IM_REFUSE_BAD_NAME, "Bob"},
		{"{\"to\":\"u/bob\\u0000x\"}", IM_REFUSE_BAD_NAME, "to"}, {"{\"to\":\"u/bob\",\"id\":\"\"}", IM_REFUSE_BAD_ID, "id"},
		{"{\"to\":\"u/bob\",\"id\":\"a/b\"}", IM_REFUSE_BAD_ID, "id"}, {"{\"to\":\"u/bob\",\"type\":\"system\"}", IM_REFUSE_BAD_FIELD, "system"},
		{"{\"to\":\"u/bob\",\"type\":\"edit\"}", IM_REFUSE_BAD_FIELD, "edit"}, {"{\"to\":\"u/bob\",\"type\":\"recall\"}", IM_REFUSE_BAD_FIELD, "recall"},
		{"{\"to\":\"u/bob\",\"type\":\"reaction\"}", IM_REFUSE_BAD_FIELD, "reaction"}, {"{\"to\":\"u/bob\",\"type\":\"member\"}", IM_REFUSE_BAD_FIELD, "member"},
		{"{\"to\":\"u/bob\",\"type\":\"Image\"}", IM_REFUSE_BAD_FIELD, "type"}, {"{\"to\":\"u/bob\",\"type\":\"\"}", IM_REFUSE_BAD_FIELD, "type"},
		{"{\"to\":\"u/bob\",\"enc\":\"hex\",\"body\":\"00\"}", IM_REFUSE_BAD_FIELD, "hex"},
		{"{\"to\":\"u/bob\",\"enc\":\"base64\",\"body\":\"A\"}", IM_REFUSE_BAD_FIELD, "base64"},
		{"{\"to\":\"u/bob\",\"enc\":\"base64\",\"body\":\"AAEC/w=\"}", IM_REFUSE_BAD_FIELD, "base64"},
		{"{\"to\":\"u/bob\",\"enc\":\"base64\",\"body\":\"AAEC/x==\"}", IM_REFUSE_BAD_FIELD, "base64"},
		{"{\"to\":\"u/bob\",\"enc\":\"base64\",\"body\":\"AA\\nAA==\"}", IM_REFUSE_BAD_FIELD, "base64"},
		{"{\"to\":\"u/bob\",\"enc\":\"base64\",\"body\":\"====\"}", IM_REFUSE_BAD_FIELD, "base64"},
		{"{\"to\":\"u/bob\",\"type\":\"text\",\"enc\":\"base64\",\"body\":\"AA==\"}", IM_REFUSE_BAD_FIELD, "enc"},
		{"{\"to\":\"u/bob\",\"reply\":\"12\"}", IM_REFUSE_BAD_FIELD, "reply"}, {"{\"to\":\"u/bob\",\"expiry\":-1}", IM_REFUSE_BAD_FIELD, "expiry"},
		{"{\"to\":\"u/bob\",\"expiry\":9007199254740992}", IM_REFUSE_BAD_FIELD, "expiry"},
		{"{\"to\":\"u/bob\",\"alt\":\"a\\u0000\"}", IM_REFUSE_BAD_FIELD, "alt"},
		{"{\"to\":\"u/bob\",\"mentions\":[\"Bob\"]}", IM_REFUSE_BAD_NAME, "Bob"}, {"{\"to\":\"u/bob\",\"mentions\":[1]}", IM_REFUSE_BAD_JSON, "mentions"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (json(f, cases[i].text))
			fail_msg("accepted: %s", cases[i].text);
		if (f->why.code != cases[i].code || !strstr(f->why.reason, cases[i].says))
			fail_msg("%s: %s: %s", cases[i].text, im_refusal_name(f->why.code), f->why.reason);
		im_arena_reset(&f->arena);
	}
}

static void raw_nul_bytes_are_no_json(void **state)
{
	static const char text[] = "{\"to\":\"u/bob\",\"enc\":\"json\",\"body\":1\0}";
	struct fixture *f = *state;

	assert_false(im_envelope_json(text, sizeof(text) - 1, &f->arena, &f->record, &f->why));
	assert_int_equal(f->why.code, IM_REFUSE_BAD_JSON);
}

/* One packet may not keep the parser, and the broker with it, busy for long. */
static void more_values_than_a_message_needs_are_refused(void **state)
{
	static char text[2 * 20000 + 100];
	struct fixture *f = *state;
	size_t at = (size_t)sprintf(text, "{\"to\":\"u/bob\",\"enc\":\"json\",\"body\":[1");

	for (int i = 0; i < 20000; i++)
		at += (size_t)sprintf(text + at, ",1");
	(void)strcpy(text + at, "]}");
	assert_false(json(f, text));
	assert_int_equal(f->why.code, IM_REFUSE_BAD_JSON);
	assert_non_null(strstr(f->why.reason, "values"));
}

static void limits_hold_to_the_byte(void **state)
{
	static const struct {
		const char *before, *fill, *after;
		size_t most;
		enum im_refusal_code code;
	} cases[] = {
		{"{\"to\":\"u/bob\",\"alt\":\"", "x", "\"}", IM_ALT_MAX, IM_REFUSE_BAD_FIELD},
		{"{\"to\":\"u/bob\",\"ct\":\"", "x", "\"}", IM_CT_MAX, IM_REFUSE_BAD_FIELD},
		{"{\"to\":\"u/bob\",\"type\":\"", "x", "\"}", IM_TYPE_MAX, IM_REFUSE_BAD_FIELD},
		{"{\"to\":\"u/bob\",\"id\":\"", "x", "\"}", IM_ID_MAX, IM_REFUSE_BAD_ID},
		{"{\"to\":\"u/bob\",\"ext\":{\"a\":\"", "x", "\"}}", IM_EXT_MAX - 8, IM_REFUSE_BAD_FIELD},
		{"{\"to\":\"u/bob\",\"mentions\":[\"bob\"", ",\"bob\"", "]}", IM_MENTIONS_MAX - 1, IM_REFUSE_TOO_MANY},
	};
	struct fixture *f = *state;
	static char text[8192];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (size_t extra = 0; extra < 2; extra++) {
			strcpy(text, cases[i].before);
			for (size_t n = 0; n < cases[i].most + extra; n++)
				strcat(text, cases[i].fill);
			strcat(text, cases[i].after);
			if (json(f, text) != (extra == 0))
				fail_msg("%s...: %zu beyond the limit: %s", cases[i].before, extra, f->why.reason);
			if (extra)
				assert_int_equal(f->why.code, cases[i].code);
		}
	}
}

static bool pb(struct fixture *f, const Im__V1__Send *m)
{
	static uint8_t packed[8192];

	return im_envelope_pb(packed, im__v1__send__pack(m, packed), &f->arena, &f->record, &f->why);
}

static void pb_fields_arrive(void **state)
{
	struct fixture *f = *state;
	Im__V1__Send m = IM__V1__SEND__INIT;
	char *mentions[] = {"bob"};

	m.to = "g/friends";
	m.id = "m1";
	m.type = "image";
	m.enc = IM__V1__ENC__ENC_JSON;
	m.body.data = (uint8_t *)"{ \"a\": 1.0 }";
	m.body.len = 12;
	m.alt = "a cat";
	m.reply = MSGID;
	m.mentions = mentions;
	m.n_mentions = 1;
	m.expiry = 5;
	m.ext = "{ }";
	assert_true(pb(f, &m));
	assert_string_equal(f->record.conv, "g/friends");
	check_body(f, "{\"a\":1.0}", 9);
	assert_string_equal(f->record.ext, "{}");
	assert_string_equal(f->record.mentions[0], "bob");
	assert_int_equal(f->record.expiry, 5);
	assert_int_equal(f->record.enc, IM__V1__ENC__ENC_JSON);
}

static void pb_values_are_checked_like_json_ones(void **state)
{
	struct fixture *f = *state;
	Im__V1__Send m;

	im__v1__send__init(&m);
	assert_false(pb(f, &m));
	assert_int_equal(f->why.code, IM_REFUSE_BAD_FIELD); /* no `to` */
	m.to = "u/bob";
	assert_true(pb(f, &m));
	m.body.data = (uint8_t *)"\xff";
	m.body.len = 1;
	assert_false(pb(f, &m));
	assert_int_equal(f->why.code, IM_REFUSE_BAD_FIELD);
	m.enc = IM__V1__ENC__ENC_BYTES;
	assert_true(pb(f, &m));
	assert_string_equal(f->record.type, "bytes");
	m.enc = IM__V1__ENC__ENC_JSON;
	assert_false(pb(f, &m));
	m.enc = (Im__V1__Enc)9;
	assert_false(pb(f, &m));
	m.enc = IM__V1__ENC__ENC_BYTES;
	m.type = "system";
	assert_false(pb(f, &m));
	m.type = "text";
	assert_false(pb(f, &m));
	m.type = "";
	m.ext = "[]";
	assert_false(pb(f, &m));
	m.ext = "";
	m.expiry = -1;
	assert_false(pb(f, &m));
}

static void broken_pb_is_refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *says;
	} cases[] = {
		{"\x0a\x05u/bo", 6, "longer"}, {"\x0a", 1, "middle"}, {"\xff", 1, "middle"}, {"\x0a\x06u/bo\0b", 8, "\"to\""},
		{"\x0a\x05u/b\xff\xfe", 7, "\"to\""}, {"\x08\x05", 2, "\"to\" has the wrong"}, {"\x62\x01x", 3, "number 12"},
		{"\x0a\x05u/bob\xf8\x07\x01", 10, "number 127"}, {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "middle"},
		{"\x0d\0\0\0\0", 5, "wire type"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_false(im_envelope_pb(cases[i].bytes, cases[i].len, &f->arena, &f->record, &f->why));
		if (f->why.code != IM_REFUSE_BAD_PB || !strstr(f->why.reason, cases[i].says))
			fail_msg("case %zu: %s: %s", i, im_refusal_name(f->why.code), f->why.reason);
	}
}

static bool acks(struct fixture *f, const char *text)
{
	return im_envelope_acks(text, strlen(text), &f->arena, &f->record, &f->why);
}

static void acks_move_cursors(void **state)
{
	struct fixture *f = *state;

	assert_true(acks(f, "[{\"conv\":\"u/bob\",\"delivered\":18,\"read\":17},{\"read\":9007199254740991,\"conv\":\"g/x\"}]"));
	assert_int_equal(f->record.kind, IM__BUS__KIND__KIND_ACK);
	assert_int_equal(f->record.n_cursors, 2);
	assert_string_equal(f->record.cursors[0]->conv, "u/bob");
	assert_int_equal(f->record.cursors[0]->delivered, 18);
	assert_int_equal(f->record.cursors[0]->read, 17);
	assert_string_equal(f->record.cursors[1]->conv, "g/x");
	assert_int_equal(f->record.cursors[1]->delivered, 0);
	assert_int_equal(f->record.cursors[1]->read, 9007199254740991);
}

static void wrong_acks_are_refused(void **state)
{
	static const struct {
		const char *text;
		enum im_refusal_code code;
	} cases[] = {
		{"{\"conv\":\"u/bob\",\"read\":1}", IM_REFUSE_BAD_JSON}, {"[]", IM_REFUSE_BAD_JSON}, {"[1]", IM_REFUSE_BAD_JSON},
		{"[{\"conv\":\"u/bob\",\"seen\":1}]", IM_REFUSE_BAD_JSON}, {"[{\"conv\":\"u/bob\"}]", IM_REFUSE_BAD_FIELD},
		{"[{\"read\":1}]", IM_REFUSE_BAD_FIELD}, {"[{\"conv\":\"bob\",\"read\":1}]", IM_REFUSE_BAD_NAME},
		{"[{\"conv\":7,\"read\":1}]", IM_REFUSE_BAD_JSON}, {"[{\"conv\":\"u/bob\",\"read\":\"1\"}]", IM_REFUSE_BAD_JSON},
		{"[{\"conv\":\"u/bob\",\"read\":1.0}]", IM_REFUSE_BAD_JSON}, {"[{\"conv\":\"u/bob\",\"read\":-1}]", IM_REFUSE_BAD_FIELD},
		{"[{\"conv\":\"u/bob\",\"read\":9007199254740992}]", IM_REFUSE_BAD_FIELD}, {"", IM_REFUSE_BAD_JSON},
	};
	static char many[IM_CURSORS_MAX * 32 + 64];
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (acks(f, cases[i].text))
			fail_msg("accepted: %s", cases[i].text);
		if (f->why.code != cases[i].code)
			fail_msg("%s: %s", cases[i].text, f->why.reason);
	}
	strcpy(many, "[{\"conv\":\"u/bob\",\"read\":1}");
	for (size_t i = 1; i < IM_CURSORS_MAX; i++)
		strcat(many, ",{\"conv\":\"u/bob\",\"read\":1}");
	strcat(many, "]");
	assert_true(acks(f, many));
	strcpy(many + strlen(many) - 1, ",{\"conv\":\"u/bob\",\"read\":1}]");
	assert_false(acks(f, many));
	assert_int_equal(f->why.code, IM_REFUSE_TOO_MANY);
}

static void arena_memory_is_zeroed_and_aligned_also_when_used_again(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 3; round++) {
		for (size_t len = 1; len < 9000; len = len * 3 + 1) {
			unsigned char *p = im_arena_alloc(&f->arena, len);

			assert_non_null(p);
			assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
			for (size_t i = 0; i < len; i++)
				assert_int_equal(p[i], 0);
			memset(p, 0xaa, len);
		}
		im_arena_reset(&f->arena);
	}
	assert_null(im_arena_alloc(&f->arena, SIZE_MAX));
	assert_null(im_arena_strndup(&f->arena, "x", SIZE_MAX));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(plain_payloads_are_text_or_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(content_types_have_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(json_fields_arrive, setup, teardown),
		cmocka_unit_test_setup_teardown(json_bodies_are_kept_as_written, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_json_is_refused_with_its_code, setup, teardown),
		cmocka_unit_test_setup_teardown(raw_nul_bytes_are_no_json, setup, teardown),
		cmocka_unit_test_setup_teardown(limits_hold_to_the_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(more_values_than_a_message_needs_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(pb_fields_arrive, setup, teardown),
		cmocka_unit_test_setup_teardown(pb_values_are_checked_like_json_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_pb_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(acks_move_cursors, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_acks_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(arena_memory_is_zeroed_and_aligned_also_when_used_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
