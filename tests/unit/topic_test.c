/* lib/wire/topic.c: each topic and filter means one thing, and nothing below im/ is taken for ordinary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "wire/topic.h"
#include <string.h>

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void check_span(const char *topic, const char *what, struct im_span span, const char *wanted)
{
	if (span.len != strlen(wanted) || (span.len > 0 && memcmp(span.text, wanted, span.len) != 0))
		fail_msg("%s: %s is \"%.*s\", not \"%s\"", topic, what, (int)span.len, span.len ? span.text : "", wanted);
}

static void topics_mean_what_the_protocol_says(void **state)
{
	static const struct {
		const char *topic;
		enum im_topic_kind kind;
		const char *conv, *id, *method;
		enum im_codec codec;
	} cases[] = {
		{"im/v1/to/u/bob", IM_TOPIC_TO, "u/bob", "", "", 0},
		{"im/v1/to/g/friends", IM_TOPIC_TO, "g/friends", "", "", 0},
		{"im/v1/to/u/bob/m-1", IM_TOPIC_TO, "u/bob", "m-1", "", 0},
		{"im/v1/to/u/" A64 "/" A64, IM_TOPIC_TO, "u/" A64, A64, "", 0},
		{"im/v1/send", IM_TOPIC_SEND, "", "", "", 0},
		{"im/v1/send/pb", IM_TOPIC_SEND_PB, "", "", "", 0},
		{"im/v1/ack", IM_TOPIC_ACK, "", "", "", 0},
		{"im/v1/sig/u/bob", IM_TOPIC_SIG, "u/bob", "", "", 0},
		{"im/v1/sig/g/x", IM_TOPIC_SIG, "g/x", "", "", 0},
		{"im/v1/req/history/7", IM_TOPIC_REQ, "", "7", "history", 0},
		{"im/v1/req/device.set/A:1", IM_TOPIC_REQ, "", "A:1", "device.set", 0},
		{"im/v1/svc/shop/buy/1", IM_TOPIC_SVC, "", "1", "shop/buy", 0},
		{"im/v1/in", IM_TOPIC_INBOX, "", "", "", IM_CODEC_JSON},
		{"im/v1/in/msg/u/bob", IM_TOPIC_INBOX, "", "", "", IM_CODEC_JSON},
		{"im/v1/raw/msg/u/bob/bob/1", IM_TOPIC_INBOX, "", "", "", IM_CODEC_RAW},
		{"im/v1/pb/res/1", IM_TOPIC_INBOX, "", "", "", IM_CODEC_PB},
		{"im/v1/room/big/json", IM_TOPIC_ROOM, "", "", "", IM_CODEC_JSON},
		{"im/v1/room/big/pb", IM_TOPIC_ROOM, "", "", "", IM_CODEC_PB},
		{"$CONTROL/im/v1", IM_TOPIC_CONTROL, "", "", "", 0},
		{"$CONTROL/im/v1/response", IM_TOPIC_CONTROL_RESPONSE, "", "", "", 0},
		{"$im/in", IM_TOPIC_BUS, "", "", "", 0},
		{"$im/", IM_TOPIC_BUS, "", "", "", 0},
		{"imx/v1/to/u/bob", IM_TOPIC_PLAIN, "", "", "", 0},
		{"/im/v1/to/u/bob", IM_TOPIC_PLAIN, "", "", "", 0},
		{"IM/v1/ack", IM_TOPIC_PLAIN, "", "", "", 0},
		{"home/lamp", IM_TOPIC_PLAIN, "", "", "", 0},
		{"", IM_TOPIC_PLAIN, "", "", "", 0},
		{"$CONTROL/dynamic-security/v1", IM_TOPIC_PLAIN, "", "", "", 0},
		{"$CONTROL/imx/v1", IM_TOPIC_PLAIN, "", "", "", 0},
		{"$SYS/broker", IM_TOPIC_PLAIN, "", "", "", 0},
		{"$imx/in", IM_TOPIC_PLAIN, "", "", "", 0},
	};
	struct im_topic t;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		im_topic_parse(cases[i].topic, &t);
		if (t.kind != cases[i].kind || t.codec != cases[i].codec)
			fail_msg("%s: kind %d codec %d", cases[i].topic, (int)t.kind, (int)t.codec);
		check_span(cases[i].topic, "conv", t.conv, cases[i].conv);
		check_span(cases[i].topic, "id", t.id, cases[i].id);
		check_span(cases[i].topic, "method", t.method, cases[i].method);
	}
}

static void misspelt_topics_are_bad_and_never_plain(void **state)
{
	static const struct {
		const char *topic;
		enum im_refusal_code code;
	} cases[] = {
		{"im", IM_REFUSE_BAD_TOPIC}, {"im/", IM_REFUSE_BAD_TOPIC}, {"im/v1", IM_REFUSE_BAD_TOPIC}, {"im/v1/", IM_REFUSE_BAD_TOPIC},
		{"im/v2/to/u/bob", IM_REFUSE_BAD_TOPIC}, {"im/v1/to", IM_REFUSE_BAD_TOPIC}, {"im/v1/to/bob", IM_REFUSE_BAD_TOPIC},
		{"im/v1/to/u", IM_REFUSE_BAD_TOPIC}, {"im/v1/to/u/", IM_REFUSE_BAD_NAME}, {"im/v1/to/u/Bob", IM_REFUSE_BAD_NAME},
		{"im/v1/to/u/all", IM_REFUSE_BAD_NAME}, {"im/v1/to/g/a b", IM_REFUSE_BAD_NAME}, {"im/v1/to/u/bob/", IM_REFUSE_BAD_ID},
		{"im/v1/to/u/bob/a@b", IM_REFUSE_BAD_ID}, {"im/v1/to/u/bob/1/2", IM_REFUSE_BAD_TOPIC},
		{"im/v1/to/u/bob/" A64 "a", IM_REFUSE_BAD_ID}, {"im/v1/send/json", IM_REFUSE_BAD_TOPIC}, {"im/v1/send/pb/x", IM_REFUSE_BAD_TOPIC},
		{"im/v1/send/", IM_REFUSE_BAD_TOPIC}, {"im/v1/ack/u", IM_REFUSE_BAD_TOPIC}, {"im/v1/ack/", IM_REFUSE_BAD_TOPIC},
		{"im/v1/sig/u", IM_REFUSE_BAD_TOPIC}, {"im/v1/sig/u/bob/1", IM_REFUSE_BAD_TOPIC}, {"im/v1/req", IM_REFUSE_BAD_TOPIC},
		{"im/v1/req/history", IM_REFUSE_BAD_TOPIC}, {"im/v1/req/history/", IM_REFUSE_BAD_ID}, {"im/v1/req//1", IM_REFUSE_BAD_TOPIC},
		{"im/v1/req/History/1", IM_REFUSE_BAD_TOPIC}, {"im/v1/req/history/1/2", IM_REFUSE_BAD_TOPIC},
		{"im/v1/svc/shop/buy", IM_REFUSE_BAD_TOPIC}, {"im/v1/room/big", IM_REFUSE_BAD_TOPIC}, {"im/v1/room/big/raw", IM_REFUSE_BAD_TOPIC},
		{"im/v1/room/BIG/json", IM_REFUSE_BAD_NAME}, {"im/v1/room/big/json/x", IM_REFUSE_BAD_TOPIC}, {"im/v1/inn/x", IM_REFUSE_BAD_TOPIC},
		{"im/v1/in/1/2/3/4/5/6", IM_REFUSE_BAD_TOPIC}, {"im/v1/in/" A64 A64 A64 A64, IM_REFUSE_BAD_TOPIC},
		{"$im", IM_REFUSE_BAD_TOPIC}, {"$CONTROL/im", IM_REFUSE_BAD_TOPIC}, {"$CONTROL/im/v1/", IM_REFUSE_BAD_TOPIC},
		{"$CONTROL/im/v1/response/x", IM_REFUSE_BAD_TOPIC}, {"$CONTROL/im/v2", IM_REFUSE_BAD_TOPIC},
	};
	struct im_topic t;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		im_topic_parse(cases[i].topic, &t);
		if (t.kind != IM_TOPIC_BAD || t.code != cases[i].code || !t.why)
			fail_msg("%s: kind %d code %s", cases[i].topic, (int)t.kind, im_refusal_name(t.code));
	}
}

static void filters_grant_what_the_protocol_says(void **state)
{
	static const struct {
		const char *filter;
		enum im_filter_kind kind;
		enum im_codec codec;
		bool shared;
	} cases[] = {
		{"im/v1/in/#", IM_FILTER_INBOX, IM_CODEC_JSON, false}, {"im/v1/raw/#", IM_FILTER_INBOX, IM_CODEC_RAW, false},
		{"im/v1/pb/#", IM_FILTER_INBOX, IM_CODEC_PB, false}, {"im/v1/in/msg/+/bob", IM_FILTER_INBOX, IM_CODEC_JSON, false},
		{"im/v1/in/+/+/+", IM_FILTER_INBOX, IM_CODEC_JSON, false}, {"im/v1/in/ack", IM_FILTER_INBOX, IM_CODEC_JSON, false},
		{"im/v1/room/big/json", IM_FILTER_ROOM, IM_CODEC_JSON, false}, {"im/v1/room/big/pb", IM_FILTER_ROOM, IM_CODEC_PB, false},
		{"#", IM_FILTER_PLAIN, 0, false}, {"+", IM_FILTER_PLAIN, 0, false}, {"+/v1/in/#", IM_FILTER_PLAIN, 0, false},
		{"home/#", IM_FILTER_PLAIN, 0, false}, {"imx/#", IM_FILTER_PLAIN, 0, false}, {"$SYS/#", IM_FILTER_PLAIN, 0, false},
		{"$CONTROL/#", IM_FILTER_PLAIN, 0, false}, {"$CONTROL/+/v1", IM_FILTER_PLAIN, 0, false},
		{"$CONTROL/dynamic-security/#", IM_FILTER_PLAIN, 0, false}, {"$share/x/home/#", IM_FILTER_PLAIN, 0, true},
		{"$share/x/#", IM_FILTER_PLAIN, 0, true}, {"$share", IM_FILTER_PLAIN, 0, true}, {"$share/x", IM_FILTER_PLAIN, 0, true},
		{"$CONTROL/im/v1/response", IM_FILTER_CONTROL_RESPONSE, 0, false}, {"$CONTROL/im/#", IM_FILTER_CONTROL_RESPONSE, 0, false},
		{"$CONTROL/im/v1/#", IM_FILTER_CONTROL_RESPONSE, 0, false}, {"$im/in", IM_FILTER_BUS, 0, false}, {"$im/#", IM_FILTER_BUS, 0, false},
		{"$im", IM_FILTER_BUS, 0, false},
		{"im", IM_FILTER_BAD, 0, false}, {"im/#", IM_FILTER_BAD, 0, false}, {"im/+/in/#", IM_FILTER_BAD, 0, false},
		{"im/v1", IM_FILTER_BAD, 0, false}, {"im/v1/#", IM_FILTER_BAD, 0, false}, {"im/v1/+", IM_FILTER_BAD, 0, false},
		{"im/v1/+/msg/#", IM_FILTER_BAD, 0, false}, {"im/v1/in", IM_FILTER_BAD, 0, false}, {"im/v2/in/#", IM_FILTER_BAD, 0, false},
		{"im/v1/to/#", IM_FILTER_BAD, 0, false}, {"im/v1/to/u/bob", IM_FILTER_BAD, 0, false}, {"im/v1/send", IM_FILTER_BAD, 0, false},
		{"im/v1/room/#", IM_FILTER_BAD, 0, false}, {"im/v1/room/+/json", IM_FILTER_BAD, 0, false},
		{"im/v1/room/big/+", IM_FILTER_BAD, 0, false}, {"im/v1/room/big/#", IM_FILTER_BAD, 0, false},
		{"im/v1/room/big/json/#", IM_FILTER_BAD, 0, false}, {"im/v1/in/" A64 A64 A64 A64, IM_FILTER_BAD, 0, false},
		{"$share/x/im/v1/in/#", IM_FILTER_BAD, 0, true}, {"$share/x/im/#", IM_FILTER_BAD, 0, true},
		{"$share/x/$im/in", IM_FILTER_BAD, 0, true}, {"$share/x/$CONTROL/im/v1/response", IM_FILTER_BAD, 0, true},
		{"$share/a/$share/b/im/v1/in/#", IM_FILTER_BAD, 0, true}, {"$share//im/v1/in/#", IM_FILTER_BAD, 0, true},
		{"$CONTROL/im/v1", IM_FILTER_BAD, 0, false}, {"$CONTROL/im", IM_FILTER_BAD, 0, false},
		{"$CONTROL/im/+", IM_FILTER_BAD, 0, false},
	};
	struct im_filter f;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		im_filter_parse(cases[i].filter, &f);
		if (f.kind != cases[i].kind || f.codec != cases[i].codec || f.shared != cases[i].shared)
			fail_msg("%s: kind %d codec %d shared %d", cases[i].filter, (int)f.kind, (int)f.codec, f.shared);
		assert_true((f.kind == IM_FILTER_BAD) == (f.why != NULL));
	}
}

static void filters_match_as_mqtt_has_it(void **state)
{
	static const struct {
		const char *filter, *topic;
		bool matches;
	} cases[] = {
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/b", "a", false}, {"a", "a/b", false}, {"a/b", "a/b/", false},
		{"#", "a", true}, {"#", "a/b/c", true}, {"#", "/", true}, {"+", "a", true}, {"+", "a/b", false}, {"+", "/a", false},
		{"+/+", "/a", true}, {"/+", "/a", true}, {"sport/tennis/#", "sport/tennis", true}, {"sport/tennis/#", "sport/tennis/x/y", true},
		{"sport/#", "sports", false}, {"sport/+", "sport", false}, {"sport/+", "sport/", true}, {"a/+/c", "a//c", true},
		{"a/+/c", "a/b/c", true}, {"a/+/c", "a/b/d", false}, {"+/b/#", "a/b", true}, {"a/+", "a/ab", true}, {"a/b", "a/bc", false},
		{"a/bc", "a/b", false}, {"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true}, {"$SYS/+", "$SYS/x", true},
		{"a/#", "a/$x", true}, {"+/$x", "a/$x", true}, {"", "", true}, {"im/v1/in/#", "im/v1/in/msg/u/bob", true},
		{"im/v1/in/msg/+/bob", "im/v1/in/msg/u/bob", true}, {"im/v1/in/msg/u/bo", "im/v1/in/msg/u/bob", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (im_filter_matches(cases[i].filter, cases[i].topic) != cases[i].matches)
			fail_msg("filter %s, topic %s: should be %d", cases[i].filter, cases[i].topic, cases[i].matches);
}

static void codecs_have_their_levels(void **state)
{
	(void)state;
	assert_string_equal(im_codec_level(IM_CODEC_JSON), "in");
	assert_string_equal(im_codec_level(IM_CODEC_RAW), "raw");
	assert_string_equal(im_codec_level(IM_CODEC_PB), "pb");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(topics_mean_what_the_protocol_says),
		cmocka_unit_test(misspelt_topics_are_bad_and_never_plain),
		cmocka_unit_test(filters_grant_what_the_protocol_says),
		cmocka_unit_test(filters_match_as_mqtt_has_it),
		cmocka_unit_test(codecs_have_their_levels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
