/* lib/wire/codec.c, json.c: what devices receive, read back by parsers that are not ours, and cut to their packets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "wire/codec.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MSGID "00400000000000000000000000"

struct fixture {
	struct im_buf topic, payload;
};

static int setup(void **state)
{
	*state = calloc(1, sizeof(struct fixture));
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	im_buf_finish(&f->topic);
	im_buf_finish(&f->payload);
	free(f);
	return 0;
}

static void clear(struct fixture *f)
{
	im_buf_clear(&f->topic);
	im_buf_clear(&f->payload);
}

static Im__V1__Message message(const char *body, size_t len, Im__V1__Enc enc)
{
	Im__V1__Message m = IM__V1__MESSAGE__INIT;

	m.msgid = MSGID;
	m.conv = "u/bob";
	m.seq = 12;
	m.ts = 1700000000000;
	m.from = "bob";
	m.type = enc == IM__V1__ENC__ENC_TEXT ? "text" : "bytes";
	m.enc = enc;
	m.body.data = (uint8_t *)(uintptr_t)body;
	m.body.len = len;
	return m;
}

static json_t *parsed(struct fixture *f)
{
	json_error_t error;
	json_t *root = json_loadb(f->payload.data, f->payload.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);

	if (!root)
		fail_msg("%s: %.*s", error.text, (int)f->payload.len, f->payload.data);
	return root;
}

static void check_string(json_t *root, const char *key, const char *wanted)
{
	const char *have = json_string_value(json_object_get(root, key));

	if (!have || strcmp(have, wanted) != 0)
		fail_msg("%s is %s, not %s", key, have ? have : "(none)", wanted);
}

static void topics_follow_the_table(void **state)
{
	static const struct {
		enum im_codec codec;
		enum im_way way;
		const char *topic;
	} cases[] = {
		{IM_CODEC_JSON, IM_WAY_MSG, "im/v1/in/msg/u/bob"}, {IM_CODEC_JSON, IM_WAY_SENT, "im/v1/in/sent/u/bob"},
		{IM_CODEC_JSON, IM_WAY_OLD, "im/v1/in/msg/u/bob"}, {IM_CODEC_JSON, IM_WAY_SYS, "im/v1/in/msg/u/bob"},
		{IM_CODEC_PB, IM_WAY_MSG, "im/v1/pb/msg/u/bob"}, {IM_CODEC_PB, IM_WAY_SENT, "im/v1/pb/sent/u/bob"},
		{IM_CODEC_PB, IM_WAY_OLD, "im/v1/pb/msg/u/bob"}, {IM_CODEC_PB, IM_WAY_SYS, "im/v1/pb/msg/u/bob"},
		{IM_CODEC_RAW, IM_WAY_MSG, "im/v1/raw/msg/u/bob/bob/12"}, {IM_CODEC_RAW, IM_WAY_SENT, "im/v1/raw/sent/u/bob/bob/12"},
		{IM_CODEC_RAW, IM_WAY_OLD, "im/v1/raw/old/u/bob/bob/12"}, {IM_CODEC_RAW, IM_WAY_SYS, "im/v1/raw/sys/u/bob/bob/12"},
	};
	Im__V1__Message m = message("x", 1, IM__V1__ENC__ENC_TEXT);
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		clear(f);
		im_codec_message_topic(cases[i].codec, cases[i].way, &m, &f->topic);
		assert_string_equal(im_buf_text(&f->topic), cases[i].topic);
	}
	clear(f);
	m.from = "";
	im_codec_message_topic(IM_CODEC_RAW, IM_WAY_SYS, &m, &f->topic);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/raw/sys/u/bob/system/12");
}

static void smallest_json_message_reads_as_in_the_protocol(void **state)
{
	Im__V1__Message m = message("hi", 2, IM__V1__ENC__ENC_TEXT);
	struct fixture *f = *state;

	im_codec_message_json(&m, &f->payload);
	assert_string_equal(im_buf_text(&f->payload), "{\"id\":null,\"msgid\":\"" MSGID "\",\"conv\":\"u/bob\",\"seq\":12,"
						      "\"ts\":1700000000000,\"from\":\"bob\",\"type\":\"text\",\"body\":\"hi\"}");
	clear(f);
	m.from = NULL;
	m.seq = 9007199254740991;
	im_codec_message_json(&m, &f->payload);
	assert_non_null(strstr(im_buf_text(&f->payload), "\"seq\":9007199254740991,"));
	assert_non_null(strstr(im_buf_text(&f->payload), "\"from\":null,"));
}

static void full_json_message_reads_back(void **state)
{
	Im__V1__Message m = message("{\"url\":1.10}", 12, IM__V1__ENC__ENC_JSON);
	char *mentions[] = {"bob", "all"};
	struct fixture *f = *state;
	json_t *root;

	m.id = "m1";
	m.ct = "a/\"b\"";
	m.prev = 11;
	m.alt = "gr\xc3\xbc\xc3\x9f\n";
	m.reply = MSGID;
	m.mentions = mentions;
	m.n_mentions = 2;
	m.expiry = 1800000000000;
	m.ext = "{\"a\":{}}";
	m.cut = true;
	im_codec_message_json(&m, &f->payload);
	assert_non_null(strstr(im_buf_text(&f->payload), "\"body\":{\"url\":1.10},\"enc\":\"json\""));
	root = parsed(f);
	assert_int_equal(json_object_size(root), 17);
	check_string(root, "id", "m1");
	check_string(root, "ct", "a/\"b\"");
	check_string(root, "alt", "gr\xc3\xbc\xc3\x9f\n");
	check_string(root, "reply", MSGID);
	assert_int_equal(json_integer_value(json_object_get(root, "prev")), 11);
	assert_int_equal(json_integer_value(json_object_get(root, "expiry")), 1800000000000);
	assert_int_equal(json_array_size(json_object_get(root, "mentions")), 2);
	assert_true(json_is_object(json_object_get(json_object_get(root, "ext"), "a")));
	assert_true(json_is_true(json_object_get(root, "cut")));
	json_decref(root);
}

static void every_byte_survives_a_json_string(void **state)
{
	struct fixture *f = *state;
	char text[0x80];
	json_t *root;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)i;
	im_buf_add_char(&f->payload, '[');
	im_json_string(&f->payload, text, sizeof(text));
	im_buf_add_char(&f->payload, ',');
	im_json_string(&f->payload, "\xf0\x9f\x98\x80|\xff|\xc3", 8);
	im_buf_add_char(&f->payload, ',');
	im_json_string(&f->payload, "", 0);
	im_buf_add_char(&f->payload, ']');
	root = parsed(f);
	assert_int_equal(json_string_length(json_array_get(root, 0)), sizeof(text));
	assert_memory_equal(json_string_value(json_array_get(root, 0)), text, sizeof(text));
	assert_string_equal(json_string_value(json_array_get(root, 1)), "\xf0\x9f\x98\x80|\xef\xbf\xbd|\xef\xbf\xbd");
	assert_int_equal(json_string_length(json_array_get(root, 2)), 0);
	json_decref(root);
}

static void base64_is_that_of_the_rfc(void **state)
{
	static const char *const cases[][2] = {
		{"", "\"\""}, {"f", "\"Zg==\""}, {"fo", "\"Zm8=\""}, {"foo", "\"Zm9v\""}, {"foob", "\"Zm9vYg==\""},
		{"fooba", "\"Zm9vYmE=\""}, {"foobar", "\"Zm9vYmFy\""}, {"\xff\xfe\xfd", "\"//79\""}, {"\xfb", "\"+w==\""},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		clear(f);
		im_json_base64(&f->payload, cases[i][0], strlen(cases[i][0]));
		assert_string_equal(im_buf_text(&f->payload), cases[i][1]);
	}
}

/* ---------------------------------------------------------------- the cut */

static size_t publish_size(const struct fixture *f)
{
	size_t remaining = 4 + f->topic.len + f->payload.len;

	return 1 + (remaining < 128 ? 1 : remaining < 16384 ? 2 : remaining < 2097152 ? 3 : 4) + remaining;
}

/* The body as the device gets it; the caller frees it. */
static char *body_of(struct fixture *f, enum im_codec codec, size_t *len, bool *cut)
{
	Im__V1__Message *m;
	json_t *root;
	char *body;

	if (codec == IM_CODEC_RAW) {
		*cut = strstr(im_buf_text(&f->topic), "/raw/cut/") != NULL;
		*len = f->payload.len;
		body = calloc(1, *len + 1);
		memcpy(body, *len ? f->payload.data : "", *len);
	} else if (codec == IM_CODEC_PB) {
		m = im__v1__message__unpack(NULL, f->payload.len, (uint8_t *)f->payload.data);
		assert_non_null(m);
		*cut = m->cut;
		*len = m->body.len;
		body = calloc(1, *len + 1);
		memcpy(body, *len ? (char *)m->body.data : "", *len);
		im__v1__message__free_unpacked(m, NULL);
	} else {
		root = parsed(f);
		*cut = json_is_true(json_object_get(root, "cut"));
		*len = json_string_length(json_object_get(root, "body"));
		body = calloc(1, *len + 1);
		memcpy(body, json_string_value(json_object_get(root, "body")), *len);
		json_decref(root);
	}
	return body;
}

static void every_packet_size_is_kept_and_used(void **state)
{
	/* Characters of 1 to 4 bytes and some that need escapes, so that every boundary is met. */
	static const char piece[] = "a\xc3\xbc\"\xe4\xbd\xa0\n\xf0\x9f\x98\x80\x01";
	static const enum im_codec codecs[] = {IM_CODEC_JSON, IM_CODEC_PB, IM_CODEC_RAW};
	struct fixture *f = *state;
	static char text[40 * (sizeof(piece) - 1)];
	char *body;
	Im__V1__Message m = message(text, sizeof(text), IM__V1__ENC__ENC_TEXT);

	for (size_t i = 0; i < 40; i++)
		memcpy(text + i * (sizeof(piece) - 1), piece, sizeof(piece) - 1);
	for (size_t c = 0; c < sizeof(codecs) / sizeof(codecs[0]); c++) {
		for (size_t max = 256; max < 900; max++) {
			size_t len;
			bool cut;

			clear(f);
			im_codec_message(codecs[c], IM_WAY_MSG, &m, max, &f->topic, &f->payload);
			assert_in_range(publish_size(f), 1, max);
			body = body_of(f, codecs[c], &len, &cut);
			assert_true(len <= sizeof(text) && memcmp(body, text, len) == 0);
			assert_true(im_utf8_valid(body, len));
			assert_true(cut == (len < sizeof(text)));
			free(body);
			if (cut) /* not shorter than needed: the next character would have had at most 6 bytes, lengths 1 more each */
				assert_true(publish_size(f) + 8 >= max);
		}
	}
}

static void what_costs_the_reader_least_goes_first(void **state)
{
	Im__V1__Message m = message("hello", 5, IM__V1__ENC__ENC_TEXT);
	static const enum im_codec codecs[] = {IM_CODEC_JSON, IM_CODEC_PB};
	struct fixture *f = *state;
	char ext[300], *body;
	size_t len;
	bool cut;

	memset(ext, 'x', sizeof(ext));
	memcpy(ext, "{\"a\":\"", 6);
	memcpy(ext + sizeof(ext) - 3, "\"}", 3);
	m.ext = ext;
	m.alt = "another text";
	for (size_t i = 0; i < 2; i++) {
		clear(f);
		im_codec_message(codecs[i], IM_WAY_MSG, &m, 256, &f->topic, &f->payload);
		assert_in_range(publish_size(f), 1, 256);
		body = body_of(f, codecs[i], &len, &cut);
		assert_true(cut);
		assert_string_equal(body, "hello");
		free(body);
		assert_null(memmem(f->payload.data, f->payload.len, "xxxx", 4));
		assert_non_null(memmem(f->payload.data, f->payload.len, "another", 7));
	}
}

static void json_body_is_cut_to_its_alt(void **state)
{
	static const enum im_codec codecs[] = {IM_CODEC_JSON, IM_CODEC_PB, IM_CODEC_RAW};
	static char value[600];
	char *body;
	Im__V1__Message m = message(value, sizeof(value), IM__V1__ENC__ENC_JSON);
	struct fixture *f = *state;
	size_t len;
	bool cut;

	memset(value, '1', sizeof(value));
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
		for (int with_alt = 0; with_alt < 2; with_alt++) {
			clear(f);
			m.alt = with_alt ? "a number" : "";
			im_codec_message(codecs[i], IM_WAY_MSG, &m, 256, &f->topic, &f->payload);
			assert_in_range(publish_size(f), 1, 256);
			body = body_of(f, codecs[i], &len, &cut);
			assert_true(cut);
			assert_string_equal(body, m.alt);
			free(body);
		}
	}
}

static void bytes_are_cut_in_whole_base64_groups(void **state)
{
	static uint8_t bytes[1000];
	Im__V1__Message m = message((const char *)bytes, sizeof(bytes), IM__V1__ENC__ENC_BYTES);
	struct fixture *f = *state;
	json_t *root;

	for (size_t max = 256; max < 300; max++) {
		clear(f);
		im_codec_message(IM_CODEC_JSON, IM_WAY_MSG, &m, max, &f->topic, &f->payload);
		assert_in_range(publish_size(f), max - 4, max);
		root = parsed(f);
		assert_int_equal(json_string_length(json_object_get(root, "body")) % 4, 0);
		json_decref(root);
		clear(f);
		im_codec_message(IM_CODEC_RAW, IM_WAY_SENT, &m, max, &f->topic, &f->payload);
		assert_int_equal(publish_size(f), max);
	}
}

static void smallest_packet_comes_where_nothing_fits(void **state)
{
	static const enum im_codec codecs[] = {IM_CODEC_JSON, IM_CODEC_PB, IM_CODEC_RAW};
	Im__V1__Message m = message("hello", 5, IM__V1__ENC__ENC_TEXT);
	struct fixture *f = *state;
	size_t len;
	char *body;
	bool cut;

	m.ct = "text/plain";
	m.alt = "x";
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
		clear(f);
		im_codec_message(codecs[i], IM_WAY_MSG, &m, 8, &f->topic, &f->payload);
		body = body_of(f, codecs[i], &len, &cut);
		assert_true(cut);
		assert_int_equal(len, 0);
		free(body);
		assert_null(memmem(f->payload.len ? f->payload.data : "", f->payload.len, "text/plain", 10));
	}
}

/* ---------------------------------------------------------------- acks, errors, events, answers */

static void acks_of_a_batch_share_a_packet(void **state)
{
	Im__V1__Ack one = IM__V1__ACK__INIT, two = IM__V1__ACK__INIT, *acks[] = {&one, &two};
	struct fixture *f = *state;
	Im__V1__Acks *back;

	one.id = "m1";
	one.msgid = two.msgid = MSGID;
	one.conv = two.conv = "u/bob";
	one.seq = 7;
	one.ts = 5;
	two.seq = 8;
	two.dup = true;
	im_codec_acks(IM_CODEC_JSON, acks, 2, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/in/ack");
	assert_string_equal(im_buf_text(&f->payload),
			    "[{\"id\":\"m1\",\"msgid\":\"" MSGID "\",\"conv\":\"u/bob\",\"seq\":7,\"ts\":5,\"dup\":false},"
			    "{\"id\":null,\"msgid\":\"" MSGID "\",\"conv\":\"u/bob\",\"seq\":8,\"ts\":0,\"dup\":true}]");
	clear(f);
	im_codec_acks(IM_CODEC_PB, acks, 2, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/pb/ack");
	back = im__v1__acks__unpack(NULL, f->payload.len, (uint8_t *)f->payload.data);
	assert_non_null(back);
	assert_int_equal(back->n_acks, 2);
	assert_true(back->acks[1]->dup);
	im__v1__acks__free_unpacked(back, NULL);
	clear(f);
	im_codec_acks(IM_CODEC_RAW, acks, 1, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/raw/ack/m1/7");
	clear(f);
	im_codec_acks(IM_CODEC_RAW, acks + 1, 1, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/raw/ack/" MSGID "/8");
	assert_string_equal(im_buf_text(&f->payload), "u/bob");
}

static void errors_and_events_have_their_topics(void **state)
{
	Im__V1__Error e = IM__V1__ERROR__INIT;
	struct fixture *f = *state;
	Im__V1__Event *event;

	e.code = "too_big";
	e.reason = "Too \"big\".";
	e.fix = "Send less.";
	e.topic = "im/v1/to/u/bob";
	im_codec_error(IM_CODEC_JSON, &e, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/in/err");
	assert_string_equal(im_buf_text(&f->payload), "{\"code\":\"too_big\",\"reason\":\"Too \\\"big\\\".\",\"fix\":\"Send less.\","
						      "\"topic\":\"im/v1/to/u/bob\",\"id\":null}");
	clear(f);
	im_codec_error(IM_CODEC_RAW, &e, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/raw/err/too_big");
	assert_string_equal(im_buf_text(&f->payload), "Too \"big\".");
	clear(f);
	im_codec_event(IM_CODEC_RAW, "sync", "{}", &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/raw/evt/sync");
	assert_string_equal(im_buf_text(&f->payload), "{}");
	clear(f);
	im_codec_state(IM_CODEC_PB, "badge", "{\"n\":1}", &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/pb/state/badge");
	event = im__v1__event__unpack(NULL, f->payload.len, (uint8_t *)f->payload.data);
	assert_non_null(event);
	assert_string_equal(event->name, "badge");
	assert_string_equal(event->json, "{\"n\":1}");
	im__v1__event__free_unpacked(event, NULL);
}

static void answers_join_their_parts(void **state)
{
	Im__V1__Message m = message("hi", 2, IM__V1__ENC__ENC_TEXT), *messages[] = {&m, &m};
	Im__V1__Response r = IM__V1__RESPONSE__INIT;
	Im__V1__Error e = IM__V1__ERROR__INIT;
	struct fixture *f = *state;
	json_t *root;

	r.id = "q1";
	r.method = "history";
	r.json = "{\"newest\":12}";
	r.messages = messages;
	r.n_messages = 2;
	r.more = true;
	r.next = "10";
	im_codec_response(IM_CODEC_JSON, &r, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/in/res/q1");
	root = parsed(f);
	assert_true(json_is_true(json_object_get(root, "ok")));
	assert_int_equal(json_integer_value(json_object_get(root, "newest")), 12);
	assert_int_equal(json_array_size(json_object_get(root, "messages")), 2);
	assert_true(json_is_true(json_object_get(root, "more")));
	check_string(root, "next", "10");
	json_decref(root);
	clear(f);
	im__v1__response__init(&r);
	r.id = "q2";
	r.method = "me";
	r.json = "{ }";
	im_codec_response(IM_CODEC_RAW, &r, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->topic), "im/v1/raw/res/q2");
	assert_string_equal(im_buf_text(&f->payload), "{\"id\":\"q2\",\"method\":\"me\",\"ok\":true}");
	clear(f);
	r.method = "history"; /* an empty page is a page */
	im_codec_response(IM_CODEC_JSON, &r, &f->topic, &f->payload);
	assert_string_equal(im_buf_text(&f->payload), "{\"id\":\"q2\",\"method\":\"history\",\"ok\":true,\"messages\":[],\"more\":false}");
	clear(f);
	e.code = "not_found";
	r.error = &e;
	im_codec_response(IM_CODEC_JSON, &r, &f->topic, &f->payload);
	root = parsed(f);
	assert_true(json_is_false(json_object_get(root, "ok")));
	check_string(json_object_get(root, "error"), "code", "not_found");
	json_decref(root);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(topics_follow_the_table, setup, teardown),
		cmocka_unit_test_setup_teardown(smallest_json_message_reads_as_in_the_protocol, setup, teardown),
		cmocka_unit_test_setup_teardown(full_json_message_reads_back, setup, teardown),
		cmocka_unit_test_setup_teardown(every_byte_survives_a_json_string, setup, teardown),
		cmocka_unit_test_setup_teardown(base64_is_that_of_the_rfc, setup, teardown),
		cmocka_unit_test_setup_teardown(every_packet_size_is_kept_and_used, setup, teardown),
		cmocka_unit_test_setup_teardown(what_costs_the_reader_least_goes_first, setup, teardown),
		cmocka_unit_test_setup_teardown(json_body_is_cut_to_its_alt, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_cut_in_whole_base64_groups, setup, teardown),
		cmocka_unit_test_setup_teardown(smallest_packet_comes_where_nothing_fits, setup, teardown),
		cmocka_unit_test_setup_teardown(acks_of_a_batch_share_a_packet, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_and_events_have_their_topics, setup, teardown),
		cmocka_unit_test_setup_teardown(answers_join_their_parts, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
