/* Who gets what, when, and again (docs/delivery.md). */
#include "delivery_world.h"

#include "wire/topic.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL "im/v1/in/#"
#define AB "u/alice:bob"

static int setup(void **state)
{
	(void)state;
	world_create(7);
	world_user("alice");
	world_user("bob");
	world_user("carol");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	world_destroy();
	return 0;
}

/* Sequences of the messages a session got, in order, as "1 2 3". */
static const char *got(uint64_t handle, const char *conv)
{
	static char text[8192];
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < world.n_packets; i++) {
		const struct packet *p = &world.packets[i];

		if (p->handle == handle && strcmp(p->conv, conv) == 0)
			len += (size_t)snprintf(text + len, sizeof text - len, "%s%llu", len ? " " : "", (unsigned long long)p->seq);
		if (len > sizeof text - 32)
			break;
	}
	return text;
}

static void connect_live(uint64_t handle, const char *user, const char *client_id)
{
	world_connect(handle, user, client_id, IM_CODEC_JSON, ALL);
	world_settle();
}

static void first_device_begins_at_the_first_message_then_goes_live(void **state)
{
	const struct packet *begin, *end, *first;

	(void)state;
	for (int i = 0; i < 3; i++)
		world_say(AB, "bob", "bob:pc", 0, "hello");
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "live");
	assert_string_equal(got(1, "u/bob"), "1 2 3 4");
	begin = world_packet(1, "im/v1/in/evt/sync", 0);
	first = world_packet(1, "im/v1/in/msg/u/bob", 0);
	assert_true(begin && first && begin < first);
	assert_non_null(strstr(begin->payload, "\"begin\""));
	end = world_packet(1, "im/v1/in/evt/sync", (size_t)(first - world.packets));
	assert_non_null(strstr(end->payload, "\"end\""));
	assert_int_equal(world_count(1, "im/v1/in/evt/welcome", 0), 1);
	assert_true(world_device("alice", "alice:phone", NULL));
}

static void second_device_begins_where_the_furthest_is(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	for (int i = 0; i < 3; i++)
		world_say(AB, "bob", "bob:pc", 0, "hello");
	world_pass_ms(100000);
	world_settle();
	delivery_closed(world.delivery, 1);
	world_settle();
	world_say(AB, "bob", "bob:pc", 0, "nobody has this");
	connect_live(2, "alice", "alice:pad");
	assert_string_equal(got(2, "u/bob"), "4");
	connect_live(3, "alice", "alice:phone");
	assert_string_equal(got(3, "u/bob"), "4");
}

/* Else a crash between the two would leave a device that is known and begins at the first message. */
static void a_new_device_is_known_only_with_its_beginning(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	for (int i = 0; i < 3; i++)
		world_say(AB, "bob", "bob:pc", 0, "hello");
	world_pass_ms(100000);
	world_settle();
	world_connect(2, "alice", "alice:pad", IM_CODEC_JSON, "im/v1/in/#");
	while (!world_device("alice", "alice:pad", NULL))
		assert_true(world_step());
	assert_int_equal(world_cursor("alice", "alice:pad", AB), 3);
}

/* What waited in the link for a broker that did not run has not been with its client. */
static void nothing_settles_that_waited_for_the_plugin(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "one");
	world_pass_ms(90000);
	world.late_ms = im_loop_now_ms(NULL); /* it stood still until now */
	world_pass_ms(90000);
	world_settle();
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 0);
	world_pass_ms(10000);
	world_settle();
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 1);
}

/* A service that wakes has not read yet who has left while it stood still. */
static void the_clock_alone_settles_nothing(void **state)
{
	int64_t handed;

	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "one");
	handed = im_loop_now_ms(NULL);
	assert_int_equal(world.wanted_ms, handed + 95000);
	world.proven_ms = handed + 94999;
	world_pass_ms(300000);
	world_settle();
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 0);
	delivery_closed(world.delivery, 1);
	world_settle();
	connect_live(2, "alice", "alice:phone");
	assert_string_equal(got(2, "u/bob"), "1");
	world.proven_ms = 0;
	world_pass_ms(97000);
	world_settle();
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 1);
}

static void unsettled_messages_come_again_and_settled_ones_do_not(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "one");
	world_pass_ms(96000);
	world_say(AB, "bob", "bob:pc", 0, "two");
	world_pass_ms(5000);
	world_settle();
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 1);
	delivery_closed(world.delivery, 1);
	world_settle();
	connect_live(2, "alice", "alice:phone");
	assert_string_equal(got(2, "u/bob"), "2");
}

static void takeover_gives_the_device_to_the_newer_session(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "one");
	connect_live(2, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "two");
	assert_string_equal(got(1, "u/bob"), "1");
	assert_string_equal(got(2, "u/bob"), "1 2");
	world_connect(1, "alice", "alice:phone", IM_CODEC_JSON, ALL); /* late news of the old one */
	delivery_closed(world.delivery, 1);
	world_say(AB, "bob", "bob:pc", 0, "three");
	assert_string_equal(got(2, "u/bob"), "1 2 3");
}

static void sender_gets_ack_here_and_sent_elsewhere(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	connect_live(2, "alice", "alice:pad");
	connect_live(3, "bob", "bob:pc");
	world_say(AB, "alice", "alice:phone", 1, "hi");
	assert_int_equal(world_count(1, "im/v1/in/ack", 0), 1);
	assert_int_equal(world_count(1, "im/v1/in/sent/", 0), 0);
	assert_int_equal(world_count(2, "im/v1/in/sent/u/bob", 0), 1);
	assert_int_equal(world_count(2, "im/v1/in/ack", 0), 0);
	assert_int_equal(world_count(3, "im/v1/in/msg/u/alice", 0), 1);
	delivery_closed(world.delivery, 1); /* the ack had no time to settle */
	world_settle();
	connect_live(4, "alice", "alice:phone");
	assert_int_equal(world_count(4, "im/v1/in/sent/u/bob", 0), 1);
}

/* Whoever acks a message has acked the own ones before it too: what says that they are stored must have come before. */
static void an_own_ack_comes_before_the_next_message(void **state)
{
	size_t ack = 0, next = 0;

	(void)state;
	connect_live(1, "alice", "alice:phone");
	(void)world_store(AB, "alice", "alice:phone", 1, "mine");
	(void)world_store(AB, "bob", "bob:pc", 0, "his");
	world_tell_turn();
	for (size_t i = 0; i < world.n_packets; i++) {
		if (world.packets[i].handle == 1 && strcmp(world.packets[i].topic, "im/v1/in/ack") == 0)
			ack = i;
		if (world.packets[i].handle == 1 && strcmp(world.packets[i].topic, "im/v1/in/msg/u/bob") == 0)
			next = i;
	}
	assert_int_equal(world_count(1, "im/v1/in/ack", 0), 1);
	assert_true(ack < next);
}

/* Many send as soon as they have subscribed, while their device is still being read: whose ack was handed does not come as `sent`. */
static void an_own_message_acked_before_the_session_is_live_is_not_sent_too(void **state)
{
	(void)state;
	world_connect(1, "alice", "alice:phone", IM_CODEC_JSON, ALL);
	for (unsigned i = 0; i < 3; i++)
		world_say(AB, "alice", "alice:phone", 1, "first words");
	world_say(AB, "bob", "bob:pc", 0, "hello");
	world_settle();
	assert_int_equal(world_count(1, "im/v1/in/ack", 0) > 0, 1);
	assert_int_equal(world_count(1, "im/v1/in/sent/", 0), 0);
	assert_int_equal(world_count(1, "im/v1/in/msg/u/bob", 0), 1);
	delivery_closed(world.delivery, 1); /* the acks had no time to settle */
	world_settle();
	world_connect(2, "alice", "alice:phone", IM_CODEC_JSON, ALL);
	world_settle();
	assert_int_equal(world_count(2, "im/v1/in/sent/u/bob", 0), 3);
}

static void sender_without_ack_filter_gets_sent(void **state)
{
	(void)state;
	world_connect(1, "alice", "alice:phone", IM_CODEC_JSON, "im/v1/in/msg/#,im/v1/in/sent/#");
	world_settle();
	world_say(AB, "alice", "alice:phone", 1, "hi");
	assert_int_equal(world_count(1, "im/v1/in/sent/u/bob", 0), 1);
	assert_int_equal(world_count(1, "im/v1/in/ack", 0), 0);
}

static void filters_decide_and_unmatched_conversations_wait(void **state)
{
	(void)state;
	world_connect(1, "alice", "alice:phone", IM_CODEC_JSON, "im/v1/in/msg/u/bob");
	world_settle();
	world_say(AB, "bob", "bob:pc", 0, "one");
	world_say(AB, "alice", "alice:pad", 0, "own: nobody asked for sent");
	world_say(AB, "bob", "bob:pc", 0, "three");
	world_say("u/alice:carol", "carol", "carol:pc", 0, "not matched");
	assert_string_equal(got(1, "u/bob"), "1 3");
	assert_string_equal(got(1, "u/carol"), "");
	world_pass_ms(100000);
	world_settle();
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 3);
	assert_int_equal(world_cursor("alice", "alice:phone", "u/alice:carol"), 0);
	world_connect(1, "alice", "alice:phone", IM_CODEC_JSON, "im/v1/in/msg/u/bob,im/v1/in/msg/#");
	world_settle();
	assert_string_equal(got(1, "u/carol"), "1");
}

static void nothing_is_handed_without_an_inbox_filter(void **state)
{
	(void)state;
	world_connect(1, "alice", "alice:phone", IM_CODEC_NONE, "");
	world_say(AB, "bob", "bob:pc", 0, "one");
	world_settle();
	assert_int_equal(world.n_packets, 0);
	assert_false(world_device("alice", "alice:phone", NULL));
}

static void acking_device_gets_a_window_and_repeats(void **state)
{
	size_t mark;

	(void)state;
	world.settings.ack_window = 4;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "1");
	world_ack("alice", "alice:phone", "u/bob", 1, 0);
	world_settle();
	for (int i = 0; i < 10; i++)
		world_say(AB, "bob", "bob:pc", 0, "x");
	world_settle();
	assert_string_equal(got(1, "u/bob"), "1 2 3 4 5");
	mark = world.n_packets;
	for (int i = 0; i < 10; i++) { /* two and a half minutes: three repeats, then quiet */
		world_pass_ms(15000);
		world_settle();
	}
	assert_int_equal(world_count(1, "im/v1/in/msg/u/bob", mark), 12);
	world_ack("alice", "alice:phone", "u/bob", 3, 0);
	world_settle();
	assert_int_equal(world_count(1, "im/v1/in/msg/u/bob", mark), 14);
	world_ack("alice", "alice:phone", "u/bob", 7, 0);
	world_settle();
	world_ack("alice", "alice:phone", "u/bob", 11, 0);
	world_settle();
	assert_non_null(strstr(got(1, "u/bob"), "6 7 8 9 10 11"));
	world_pass_ms(600000);
	world_settle();
	delivery_closed(world.delivery, 1);
	world_settle();
	mark = world.n_packets;
	connect_live(2, "alice", "alice:phone");
	assert_int_equal(world_count(2, "im/v1/in/msg/", mark), 0);
}

static void acking_survives_the_connection(void **state)
{
	bool acks = false;

	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "1");
	world_say(AB, "bob", "bob:pc", 0, "2");
	world_ack("alice", "alice:phone", "u/bob", 1, 0);
	world_pass_ms(300000);
	world_settle();
	assert_true(world_device("alice", "alice:phone", &acks));
	assert_true(acks);
	delivery_closed(world.delivery, 1);
	world_settle();
	connect_live(2, "alice", "alice:phone");
	world_pass_ms(300000); /* does not settle by time */
	world_settle();
	delivery_closed(world.delivery, 2);
	world_settle();
	connect_live(3, "alice", "alice:phone");
	assert_int_equal(got(3, "u/bob")[0], '2');
}

static void receipts_come_from_acks_only(void **state)
{
	const struct packet *p;

	(void)state;
	connect_live(1, "alice", "alice:phone");
	connect_live(2, "bob", "bob:pc");
	connect_live(3, "alice", "alice:pad");
	world_say(AB, "bob", "bob:pc", 2, "1");
	world_pass_ms(200000);
	world_settle();
	assert_int_equal(world_count(2, "im/v1/in/evt/receipt", 0), 0);
	world_say(AB, "bob", "bob:pc", 2, "2");
	world_ack("alice", "alice:phone", "u/bob", 2, 2);
	p = world_packet(2, "im/v1/in/evt/receipt", 0);
	assert_non_null(p);
	assert_string_equal(p->payload, "{\"conv\":\"u/alice\",\"user\":\"alice\",\"delivered\":2,\"read\":2}");
	assert_int_equal(world_count(3, "im/v1/in/evt/read", 0), 1);
	assert_int_equal(world_count(1, "im/v1/in/evt/read", 0), 0);
}

static void badge_follows_messages_and_reading(void **state)
{
	const struct packet *p = NULL;

	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "1");
	world_say(AB, "bob", "bob:pc", 0, "2");
	for (int i = 0; i < 3; i++) {
		world_pass_ms(1000);
		world_settle();
	}
	for (size_t i = 0; i < world.n_packets; i++)
		if (strcmp(world.packets[i].topic, "im/v1/in/state/badge") == 0)
			p = &world.packets[i];
	assert_non_null(p);
	assert_string_equal(p->payload, "{\"unread\":2,\"more\":false,\"conversations\":1}");
	world_say(AB, "alice", "alice:phone", 1, "an answer reads");
	for (int i = 0; i < 3; i++) {
		world_pass_ms(1000);
		world_settle();
	}
	assert_int_equal(world_read("alice", AB), 3);
	for (size_t i = 0; i < world.n_packets; i++)
		if (strcmp(world.packets[i].topic, "im/v1/in/state/badge") == 0)
			p = &world.packets[i];
	assert_string_equal(p->payload, "{\"unread\":0,\"more\":false,\"conversations\":0}");
}

static const struct packet *badge_now(void)
{
	const struct packet *p = NULL;

	for (int i = 0; i < 3; i++) {
		world_pass_ms(1000);
		world_settle();
	}
	for (size_t i = 0; i < world.n_packets; i++)
		if (strcmp(world.packets[i].topic, "im/v1/in/state/badge") == 0)
			p = &world.packets[i];
	return p;
}

/* Its device is in memory still, so nothing is loaded that would bring them along. */
static void what_is_owed_is_owed_to_the_connection_that_takes_over(void **state)
{
	(void)state;
	world_refusal(9, 9, "alice", "alice:phone", "too_fast");
	connect_live(1, "alice", "alice:phone");
	assert_int_equal(world_count(1, "im/v1/in/err", 0), 1);
	connect_live(2, "alice", "alice:phone");
	delivery_closed(world.delivery, 1);
	world_settle();
	assert_int_equal(world_count(2, "im/v1/in/err", 0), 1);
	world_pass_ms(100000);
	world_settle();
	assert_int_equal(world_refusals_open("alice", "alice:phone"), 0);
}

/* Neither what was said before one came nor what is said after one has gone. */
static void the_badge_counts_what_may_be_seen(void **state)
{
	(void)state;
	world_member("team", "bob", 1, 0);
	for (int i = 0; i < 5; i++)
		world_say("g/team", "bob", "bob:pc", 0, "before");
	world_member("team", "alice", 6, 0);
	connect_live(1, "alice", "alice:phone");
	world_say("g/team", "bob", "bob:pc", 0, "welcome");
	assert_string_equal(badge_now()->payload, "{\"unread\":1,\"more\":false,\"conversations\":1}");
	world_member("team", "alice", 6, 6);
	world_say("g/team", "bob", "bob:pc", 0, "after");
	world_say(AB, "bob", "bob:pc", 0, "and in private");
	assert_string_equal(badge_now()->payload, "{\"unread\":1,\"more\":false,\"conversations\":1}");
	assert_non_null(strstr(world_packet(1, "im/v1/in/state/conversations", 0)->payload, "g/team"));
	world_connect(2, "alice", "alice:pad", IM_CODEC_JSON, ALL);
	world_settle();
	(void)badge_now();
	assert_non_null(strstr(world_packet(2, "im/v1/in/state/conversations", 0)->payload, "\"conv\":\"g/team\",\"last\":6"));
}

/* It stays connected for its requests, say, and comes back to its inbox later. */
static void what_comes_while_no_filter_is_left_waits(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "one");
	world_pass_ms(100000);
	world_settle();
	world_connect(1, "alice", "alice:phone", IM_CODEC_NONE, ""); /* the same session, without filters */
	world_say(AB, "bob", "bob:pc", 0, "two");
	world_pass_ms(300000);
	world_settle();
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 1);
	world_connect(1, "alice", "alice:phone", IM_CODEC_JSON, ALL);
	world_settle();
	assert_string_equal(got(1, "u/bob"), "1 2");
}

static void members_see_their_stays_only(void **state)
{
	(void)state;
	world_member("team", "bob", 1, 0);
	for (int i = 0; i < 3; i++)
		world_say("g/team", "bob", "bob:pc", 0, "before");
	connect_live(1, "alice", "alice:phone");
	world_member("team", "alice", 4, 0);
	world_settle();
	world_say("g/team", "", "", 0, "alice joined");
	world_say("g/team", "bob", "bob:pc", 0, "hello alice");
	world_settle();
	world_member("team", "alice", 4, 5);
	world_say("g/team", "bob", "bob:pc", 0, "she is gone");
	world_settle();
	assert_string_equal(got(1, "g/team"), "4 5");
	world_member("team", "alice", 8, 0);
	world_say("g/team", "bob", "bob:pc", 0, "not yet");
	world_say("g/team", "bob", "bob:pc", 0, "back");
	world_settle();
	assert_string_equal(got(1, "g/team"), "4 5 8");
	connect_live(2, "alice", "alice:pad"); /* another device sees the same, from history */
	assert_string_equal(got(2, "g/team"), "4 5 8");
}

static void silent_budget_pauses_and_goes_on(void **state)
{
	(void)state;
	world.settings.silent_messages = 5;
	connect_live(1, "alice", "alice:phone");
	for (int i = 0; i < 12; i++)
		world_say(AB, "bob", "bob:pc", 0, "x");
	world_settle();
	assert_string_equal(got(1, "u/bob"), "1 2 3 4 5");
	world_pass_ms(96000);
	world_settle();
	assert_string_equal(got(1, "u/bob"), "1 2 3 4 5 6 7 8 9 10");
	world_pass_ms(96000);
	world_settle();
	assert_string_equal(got(1, "u/bob"), "1 2 3 4 5 6 7 8 9 10 11 12");
	world_say(AB, "bob", "bob:pc", 0, "live again");
	assert_non_null(strstr(got(1, "u/bob"), "12 13"));
}

static void name_behind(uint64_t handle, const char *user, const char *client_id, bool behind)
{
	world.behind = behind;
	connect_live(handle, user, client_id);
}

static void who_does_not_read_gets_no_new_budget_and_settles_nothing(void **state)
{
	(void)state;
	world.settings.silent_messages = 5;
	connect_live(1, "alice", "alice:phone");
	for (int i = 0; i < 12; i++)
		world_say(AB, "bob", "bob:pc", 0, "x");
	name_behind(1, "alice", "alice:phone", true);
	for (int hour = 0; hour < 5; hour++) {
		world_pass_ms(3600000);
		world_settle();
	}
	assert_string_equal(got(1, "u/bob"), "1 2 3 4 5");
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 0);
	name_behind(1, "alice", "alice:phone", false); /* it reads after all */
	world_pass_ms(3000);
	world_settle();
	assert_string_equal(got(1, "u/bob"), "1 2 3 4 5 6 7 8 9 10");
	world_pass_ms(96000);
	world_settle();
	assert_int_equal(world_cursor("alice", "alice:phone", AB), 10);
	assert_string_equal(got(1, "u/bob"), "1 2 3 4 5 6 7 8 9 10 11 12");
}

/* Reconnecting is no way to more: what the broker still has for a stored session comes first. */
static void who_is_behind_from_the_start_gets_nothing_yet(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "1");
	delivery_closed(world.delivery, 1);
	name_behind(2, "alice", "alice:phone", true);
	world_pass_ms(3600000);
	world_settle();
	assert_string_equal(got(2, "u/bob"), "");
	name_behind(2, "alice", "alice:phone", false);
	world_pass_ms(3000);
	world_settle();
	assert_string_equal(got(2, "u/bob"), "1");
	world_say(AB, "bob", "bob:pc", 0, "live again");
	assert_string_equal(got(2, "u/bob"), "1 2");
}

static void full_link_pauses_catch_up_but_not_live(void **state)
{
	(void)state;
	connect_live(1, "alice", "alice:phone");
	world_say(AB, "bob", "bob:pc", 0, "1");
	world.pending = LINK_CATCHUP + 1;
	connect_live(2, "bob", "bob:pc");
	assert_string_equal(got(2, "u/alice"), "");
	world_say(AB, "bob", "bob:tv", 0, "2");
	assert_string_equal(got(1, "u/bob"), "1 2");
	world.pending = 0;
	delivery_resume(world.delivery);
	world_settle();
	assert_string_equal(got(2, "u/alice"), "1 2");
}

/* Milliseconds until a first device has all 500 messages of alice, if every answer of the store takes one. */
static unsigned catch_up_ms(uint64_t handle, const char *user, const char *client_id, bool beside_others)
{
	unsigned ms = 0;
	char conv[32];

	(void)snprintf(conv, sizeof conv, "u/alice:%s", user);
	for (unsigned i = 0; i < 500; i++)
		world_say(conv, "alice", "alice:phone", 0, "history");
	world_pass_ms(1000);
	world_connect(handle, user, client_id, IM_CODEC_JSON, ALL);
	for (; world_count(handle, "im/v1/in/msg/u/alice", 0) < 500; ms++) {
		assert_in_range(ms, 0, 1000);
		if (beside_others)
			world_say("u/bob:dave", "dave", "dave:pc", 0, "others talk");
		world_pass_ms(1);
		(void)world_step();
	}
	return ms;
}

static void history_rests_only_beside_those_who_talk(void **state)
{
	unsigned alone, beside;

	(void)state;
	world_user("dave");
	alone = catch_up_ms(1, "bob", "bob:pc", false);
	world_settle();
	beside = catch_up_ms(2, "carol", "carol:pc", true);
	assert_in_range(beside, alone + 40, alone + 150); /* sixteen turns: a rest of some milliseconds behind each, and never a stop */
}

static void failed_reads_are_tried_again(void **state)
{
	(void)state;
	world_say(AB, "bob", "bob:pc", 0, "1");
	world.fail_reads = true;
	world_connect(1, "alice", "alice:phone", IM_CODEC_JSON, ALL);
	world_settle();
	assert_string_equal(got(1, "u/bob"), "");
	world.fail_reads = false;
	world_pass_ms(2000);
	while (world_waiting() && world_packet(1, "im/v1/in/evt/sync", 0) == NULL)
		(void)world_step(); /* the device is read; the page is asked for */
	world.fail_reads = true;
	world_settle();
	world.fail_reads = false;
	world_pass_ms(2000);
	world_settle();
	assert_string_equal(got(1, "u/bob"), "1");
}

static void a_thousand_members_cost_one_encoding(void **state)
{
	char user[16], client[32];
	unsigned before;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(user, sizeof user, "m%u", i);
		snprintf(client, sizeof client, "m%u:x", i);
		world_user(user);
		world_member("big", user, 1, 0);
		world_connect(100 + i, user, client, IM_CODEC_JSON, "im/v1/in/msg/#,im/v1/in/ack");
	}
	world_settle();
	before = world.deliveries;
	world_say("g/big", "m0", "m0:x", 100, "hello all");
	assert_int_equal(world.deliveries - before, 2); /* the message, and the sender's ack */
	for (unsigned i = 1; i < 1000; i++)
		assert_int_equal(world_count(100 + i, "im/v1/in/msg/g/big", 0), 1);
	assert_int_equal(world_count(100, "im/v1/in/msg/g/big", 0), 0);
}

static void codecs_get_their_own_form(void **state)
{
	(void)state;
	world_connect(1, "alice", "alice:phone", IM_CODEC_JSON, ALL);
	world_connect(2, "alice", "lamp", IM_CODEC_RAW, "im/v1/raw/msg/#");
	world_connect_as(3, "alice", "alice:pb", IM_CODEC_PB, "im/v1/pb/#", 5);
	world_settle();
	world_say(AB, "bob", "bob:pc", 0, "on");
	assert_int_equal(world_count(1, "im/v1/in/msg/u/bob", 0), 1);
	assert_string_equal(world_packet(2, "im/v1/raw/msg/u/bob/bob/1", 0)->payload, "on");
	assert_int_equal(world_packet(2, "im/v1/raw/msg/", 0)->len, 2);
	assert_false(world_packet(1, "im/v1/in/msg/", 0)->has_props);
	assert_true(world_packet(3, "im/v1/pb/msg/u/bob", 0)->has_props);
}

static void refusals_are_owed_until_the_session_has_stayed(void **state)
{
	(void)state;
	world_refusal(1, 1, "alice", "pub", "unknown_user");
	world_connect(1, "alice", "pub", IM_CODEC_NONE, "");
	world_pass_ms(1500);
	world_settle();
	assert_int_equal(world_count(1, "im/v1/in/err", 0), 1);
	delivery_closed(world.delivery, 1); /* too early */
	world_settle();
	assert_int_equal(world_refusals_open("alice", "pub"), 1);
	world_connect(2, "alice", "pub", IM_CODEC_NONE, "");
	world_pass_ms(1500);
	world_settle();
	world_pass_ms(1500);
	world_settle();
	assert_int_equal(world_count(2, "im/v1/in/err", 0), 1);
	assert_int_equal(world_refusals_open("alice", "pub"), 0);
}

/* Seen after 20 reconnects within a settle period each: the newest of 101 had never been told, and was dropped. */
static void no_refusal_is_done_by_the_clock_alone(void **state)
{
	(void)state;
	world_connect(1, "alice", "pub", IM_CODEC_NONE, "");
	world.proven_ms = im_loop_now_ms(NULL) + 999;
	world_refusal(1, 1, "alice", "pub", "unknown_user");
	world_pass_ms(2000);
	world_settle(); /* handed */
	world_pass_ms(60000);
	world_settle();
	assert_int_equal(world_refusals_open("alice", "pub"), 1);
	world.proven_ms = 0;
	world_pass_ms(2000);
	world_settle();
	assert_int_equal(world_refusals_open("alice", "pub"), 0);
}

static void too_many_owed_refusals_push_out_the_oldest(void **state)
{
	char code[8];

	(void)state;
	for (unsigned i = 0; i <= 100; i++) { /* the store has the newest first */
		(void)snprintf(code, sizeof(code), "c%03u", i);
		world_refusal(i + 1, 1000 - (int64_t)i, "alice", "pub", code);
	}
	world_connect(1, "alice", "pub", IM_CODEC_NONE, "");
	world_pass_ms(1500);
	world_settle();
	assert_int_equal(world_count(1, "im/v1/in/err", 0), 100);
	assert_non_null(strstr(world_packet(1, "im/v1/in/err", 0)->payload, "c099"));
	assert_non_null(strstr(world_packet(1, "im/v1/in/err", 99)->payload, "c000"));
}

static void too_many_unnamed_devices_push_out_the_oldest(void **state)
{
	char client[16];

	(void)state;
	world.settings.unnamed = 2;
	for (unsigned i = 0; i < 4; i++) {
		snprintf(client, sizeof client, "dev%u", i);
		connect_live(10 + i, "alice", client);
		delivery_closed(world.delivery, 10 + i);
		world_settle();
		world_age_device("alice", client, 100 - i);
	}
	assert_false(world_device("alice", "dev0", NULL));
	assert_true(world_device("alice", "dev3", NULL));
	world_age_device("alice", "dev3", 25ll * 3600 * 1000);
	connect_live(20, "alice", "alice:new");
	assert_false(world_device("alice", "dev3", NULL)); /* 24 h after its last connection */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(first_device_begins_at_the_first_message_then_goes_live),
		T(second_device_begins_where_the_furthest_is),
		T(a_new_device_is_known_only_with_its_beginning),
		T(nothing_settles_that_waited_for_the_plugin),
		T(the_clock_alone_settles_nothing),
		T(unsettled_messages_come_again_and_settled_ones_do_not),
		T(takeover_gives_the_device_to_the_newer_session),
		T(sender_gets_ack_here_and_sent_elsewhere),
		T(an_own_ack_comes_before_the_next_message),
		T(an_own_message_acked_before_the_session_is_live_is_not_sent_too),
		T(sender_without_ack_filter_gets_sent),
		T(filters_decide_and_unmatched_conversations_wait),
		T(nothing_is_handed_without_an_inbox_filter),
		T(acking_device_gets_a_window_and_repeats),
		T(acking_survives_the_connection),
		T(receipts_come_from_acks_only),
		T(badge_follows_messages_and_reading),
		T(what_is_owed_is_owed_to_the_connection_that_takes_over),
		T(the_badge_counts_what_may_be_seen),
		T(what_comes_while_no_filter_is_left_waits),
		T(members_see_their_stays_only),
		T(silent_budget_pauses_and_goes_on),
		T(who_does_not_read_gets_no_new_budget_and_settles_nothing),
		T(who_is_behind_from_the_start_gets_nothing_yet),
		T(full_link_pauses_catch_up_but_not_live),
		T(history_rests_only_beside_those_who_talk),
		T(failed_reads_are_tried_again),
		T(a_thousand_members_cost_one_encoding),
		T(codecs_get_their_own_form),
		T(refusals_are_owed_until_the_session_has_stayed),
		T(no_refusal_is_done_by_the_clock_alone),
		T(too_many_owed_refusals_push_out_the_oldest),
		T(too_many_unnamed_devices_push_out_the_oldest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
