/* imchat's protocol, with the test on the other side of its door: what it publishes and what it says. */
#include "imchat/chat.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct world {
	struct chat *chat;
	bool offline;
	char topic[160], payload[2048]; /* of the last publish */
	char said[8192];                /* all lines, each with a newline */
	int published;
};

static bool world_publish(void *arg, const char *topic, const void *payload, size_t len, int *mid)
{
	struct world *w = arg;

	if (w->offline)
		return false;
	w->published++;
	(void)snprintf(w->topic, sizeof(w->topic), "%s", topic);
	(void)snprintf(w->payload, sizeof(w->payload), "%.*s", (int)len, (const char *)payload);
	if (mid)
		*mid = w->published;
	return true;
}

static void world_say(void *arg, enum tone tone, const char *line)
{
	struct world *w = arg;
	size_t n = strlen(w->said);

	(void)tone;
	(void)snprintf(w->said + n, sizeof(w->said) - n, "%s\n", line);
}

static int begin(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct chat_door door = {world_publish, world_say, w};

	assert_non_null(w);
	w->chat = chat_create("alice", &door);
	assert_non_null(w->chat);
	*state = w;
	return 0;
}

static int end(void **state)
{
	struct world *w = *state;

	chat_destroy(w->chat);
	free(w);
	return 0;
}

static void packet(struct world *w, const char *topic, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void packet(struct world *w, const char *topic, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	chat_packet(w->chat, topic, text, strlen(text));
}

static void message(struct world *w, int seq, int prev)
{
	packet(w, "im/v1/in/msg/u/bob",
	       "{\"id\":null,\"msgid\":\"x\",\"conv\":\"u/bob\",\"seq\":%d,\"ts\":1790000000000,\"from\":\"bob\",\"type\":\"text\",\"body\":\"say %d\",\"prev\":%d}",
	       seq, seq, prev);
}

/* The place of a message in what was said; NULL: not shown. */
static const char *shown(const struct world *w, int seq)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "#%d bob: say %d\n", seq, seq);
	return strstr(w->said, text);
}

/* Answers the last request: its id is the last part of its topic. */
static void answer(struct world *w, const char *fields)
{
	packet(w, "im/v1/in/res/x", "{\"id\":\"%s\",\"method\":\"history\",%s}", strrchr(w->topic, '/') + 1, fields);
}

#define ROW(n) "{\"conv\":\"u/bob\",\"seq\":" #n ",\"from\":\"bob\",\"type\":\"text\",\"body\":\"say " #n "\",\"ts\":1790000000000}"

static void what_was_shown_is_acked_once_a_turn(void **state)
{
	struct world *w = *state;

	message(w, 5, 4);
	message(w, 7, 5); /* a hole, but nothing is missing */
	chat_flush(w->chat);
	assert_string_equal(w->topic, "im/v1/ack");
	assert_string_equal(w->payload, "[{\"conv\":\"u/bob\",\"delivered\":7}]");
	assert_int_equal(w->published, 1);
	chat_flush(w->chat);
	assert_int_equal(w->published, 1);
}

static void gap_is_pulled_and_shown_in_order(void **state)
{
	struct world *w = *state;

	message(w, 5, 4);
	message(w, 8, 7);
	assert_null(shown(w, 8));
	assert_memory_equal(w->topic, "im/v1/req/history/", 18);
	assert_string_equal(w->payload, "{\"conv\":\"u/bob\",\"from\":6,\"to\":8,\"limit\":100}");
	chat_flush(w->chat);
	assert_string_equal(w->payload, "[{\"conv\":\"u/bob\",\"delivered\":5}]"); /* not yet 8 */
}

static void answer_to_a_pull_fills_the_gap(void **state)
{
	struct world *w = *state;

	message(w, 5, 4);
	message(w, 8, 7);
	answer(w, "\"ok\":true,\"conv\":\"u/bob\",\"messages\":[" ROW(6) "," ROW(8) "],\"more\":false");
	assert_true(shown(w, 5) < shown(w, 6) && shown(w, 6) < shown(w, 8));
	message(w, 9, 8);
	assert_non_null(shown(w, 9));
	chat_flush(w->chat);
	assert_string_equal(w->payload, "[{\"conv\":\"u/bob\",\"delivered\":9}]");
}

static void pull_goes_on_page_by_page_and_takes_what_came_meanwhile(void **state)
{
	struct world *w = *state;

	message(w, 5, 4);
	message(w, 8, 7);
	message(w, 9, 8); /* while the pull is under way */
	answer(w, "\"ok\":true,\"conv\":\"u/bob\",\"messages\":[" ROW(6) "],\"more\":true,\"next\":\"6\"");
	assert_string_equal(w->payload, "{\"conv\":\"u/bob\",\"from\":7,\"to\":8,\"limit\":100}");
	answer(w, "\"ok\":true,\"conv\":\"u/bob\",\"messages\":[],\"more\":true,\"next\":\"7\"");
	assert_string_equal(w->payload, "{\"conv\":\"u/bob\",\"from\":7,\"to\":8,\"limit\":100,\"next\":\"7\"}");
	answer(w, "\"ok\":true,\"conv\":\"u/bob\",\"messages\":[" ROW(8) "],\"more\":false");
	assert_string_equal(w->payload, "{\"conv\":\"u/bob\",\"from\":9,\"to\":9,\"limit\":100}");
	answer(w, "\"ok\":true,\"conv\":\"u/bob\",\"messages\":[" ROW(9) "],\"more\":false");
	assert_non_null(shown(w, 9));
	message(w, 10, 9);
	assert_non_null(shown(w, 10));
}

static void refused_pull_stops_nothing(void **state)
{
	struct world *w = *state;

	message(w, 5, 4);
	message(w, 8, 7);
	answer(w, "\"ok\":false,\"error\":{\"code\":\"too_fast\",\"reason\":\"too many requests\",\"fix\":\"Wait.\"}");
	assert_non_null(strstr(w->said, "too many requests. Wait. (too_fast)"));
	message(w, 9, 8);
	assert_string_equal(w->payload, "{\"conv\":\"u/bob\",\"from\":6,\"to\":9,\"limit\":100}");
}

static void pull_lost_with_the_connection_is_made_again(void **state)
{
	struct world *w = *state;

	message(w, 5, 4);
	message(w, 8, 7);
	chat_lost(w->chat);
	message(w, 6, 5); /* not acked, so the server hands it out again */
	message(w, 8, 6);
	assert_true(shown(w, 6) < shown(w, 8));
}

static void repeat_is_acked_again_but_not_shown(void **state)
{
	struct world *w = *state;

	message(w, 5, 4);
	chat_flush(w->chat);
	w->said[0] = '\0';
	message(w, 5, 4);
	assert_string_equal(w->said, "");
	chat_flush(w->chat);
	assert_int_equal(w->published, 2);
}

static void own_message_ticks_from_sent_to_read(void **state)
{
	struct world *w = *state;
	static const char *const ticks[] = {"·  sent ", "✓  stored ", "✓✓ delivered ", "✓✓ read "};
	const char *at = w->said;
	char id[80];

	message(w, 5, 4);
	(void)chat_line(w->chat, "/open u/bob");
	(void)chat_line(w->chat, "hello");
	assert_memory_equal(w->topic, "im/v1/to/u/bob/", 15);
	assert_string_equal(w->payload, "hello");
	(void)snprintf(id, sizeof(id), "%s", strrchr(w->topic, '/') + 1);
	assert_int_equal(chat_waiting(w->chat), 1);
	chat_puback(w->chat, w->published);
	packet(w, "im/v1/in/ack", "[{\"id\":\"%s\",\"conv\":\"u/bob\",\"seq\":6,\"dup\":false}]", id);
	assert_int_equal(chat_waiting(w->chat), 0);
	packet(w, "im/v1/in/evt/receipt", "{\"conv\":\"u/bob\",\"user\":\"bob\",\"delivered\":6,\"read\":5}");
	packet(w, "im/v1/in/evt/receipt", "{\"conv\":\"u/bob\",\"user\":\"bob\",\"delivered\":6,\"read\":6}");
	packet(w, "im/v1/in/evt/receipt", "{\"conv\":\"u/bob\",\"user\":\"bob\",\"delivered\":6,\"read\":6}");
	for (size_t i = 0; i < 4; i++) {
		at = strstr(at, ticks[i]);
		assert_non_null(at);
		assert_null(strstr(at + 1, ticks[i])); /* each is said once */
	}
	message(w, 7, 6); /* the own one between is no gap */
	assert_non_null(shown(w, 7));
}

static void message_without_ack_is_sent_again_under_its_id(void **state)
{
	struct world *w = *state;
	char topic[160];

	(void)chat_line(w->chat, "/open u/bob");
	w->offline = true;
	(void)chat_line(w->chat, "typed while away");
	w->offline = false;
	chat_connected(w->chat);
	assert_string_equal(w->payload, "typed while away");
	memcpy(topic, w->topic, sizeof(topic));
	chat_puback(w->chat, w->published); /* journaled, but its ack is lost */
	chat_lost(w->chat);
	chat_connected(w->chat);
	assert_string_equal(w->topic, topic);
	packet(w, "im/v1/in/sent/u/bob", "{\"id\":\"%s\",\"conv\":\"u/bob\",\"seq\":1,\"from\":\"alice\",\"type\":\"text\",\"body\":\"typed while away\"}",
	       strrchr(topic, '/') + 1);
	assert_int_equal(chat_waiting(w->chat), 0);
}

static void refusal_is_a_sentence_and_said_once(void **state)
{
	struct world *w = *state;
	char refusal[300];
	const char *at;

	(void)chat_line(w->chat, "/open u/nobody");
	(void)chat_line(w->chat, "hello");
	(void)snprintf(refusal, sizeof(refusal), "{\"code\":\"unknown_user\",\"reason\":\"there is no user nobody\",\"fix\":\"Ask.\",\"id\":\"%s\"}",
		       strrchr(w->topic, '/') + 1);
	packet(w, "im/v1/in/err", "%s", refusal);
	packet(w, "im/v1/in/err", "%s", refusal);
	at = strstr(w->said, "! not sent \"hello\": there is no user nobody. Ask. (unknown_user)");
	assert_non_null(at);
	assert_null(strstr(at + 1, "! "));
	assert_int_equal(chat_waiting(w->chat), 0);
}

static void other_store_begins_anew(void **state)
{
	struct world *w = *state;

	packet(w, "im/v1/in/evt/welcome", "{\"store\":\"one\",\"user\":\"alice\",\"device\":\"x\"}");
	message(w, 50, 49);
	packet(w, "im/v1/in/evt/welcome", "{\"store\":\"two\",\"user\":\"alice\",\"device\":\"x\"}");
	message(w, 1, 0);
	assert_non_null(shown(w, 1));
}

static void odd_packets_do_no_harm(void **state)
{
	struct world *w = *state;
	static const char *const topics[] = {"im/v1/in/msg/u/bob", "im/v1/in/ack", "im/v1/in/err", "im/v1/in/res/r", "im/v1/in/evt/receipt",
					     "im/v1/in/evt/welcome", "im/v1/in/evt/sync", "im/v1/in/state/badge", "im/v1/in/other", "x"};
	static const char *const payloads[] = {"", "{", "[]", "{}", "[1]", "[[]]", "\"x\"", "{\"conv\":5,\"seq\":\"x\",\"id\":[]}",
					       "{\"conv\":\"u/\",\"seq\":3}", "{\"conv\":\"u/a/b\",\"seq\":3}", "{\"conv\":\"u/bob\",\"seq\":-1}"};

	for (size_t t = 0; t < sizeof(topics) / sizeof(topics[0]); t++)
		for (size_t p = 0; p < sizeof(payloads) / sizeof(payloads[0]); p++)
			packet(w, topics[t], "%s", payloads[p]);
	message(w, 1, 0);
	assert_non_null(shown(w, 1));
}

static void many_unacked_messages_are_limited(void **state)
{
	struct world *w = *state;

	(void)chat_line(w->chat, "/open u/bob");
	for (int i = 0; i < 300; i++)
		(void)chat_line(w->chat, "//a slash");
	assert_string_equal(w->payload, "/a slash");
	assert_int_equal(chat_waiting(w->chat), 256);
	assert_non_null(strstr(w->said, "! not sent: 256 messages wait"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		T(what_was_shown_is_acked_once_a_turn), T(gap_is_pulled_and_shown_in_order), T(answer_to_a_pull_fills_the_gap),
		T(pull_goes_on_page_by_page_and_takes_what_came_meanwhile), T(refused_pull_stops_nothing),
		T(pull_lost_with_the_connection_is_made_again), T(repeat_is_acked_again_but_not_shown),
		T(own_message_ticks_from_sent_to_read), T(message_without_ack_is_sent_again_under_its_id),
		T(refusal_is_a_sentence_and_said_once), T(other_store_begins_anew), T(odd_packets_do_no_harm),
		T(many_unacked_messages_are_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
