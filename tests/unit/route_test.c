/* Decision tables of acl.c and route.c, and what each refusal looks like in each protocol. */
#include "plugin/acl.h"
#include "base/clock.h"
#include "fake_plugin.h"
#include "plugin/control.h"
#include "plugin/route.h"
#include "plugin/why.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct fake_context x;
static struct session *s;

static int setup(void **state)
{
	(void)state;
	fake_start();
	fake_ctx(&x, "alice", "alice:phone", 5, true);
	s = fake_open(&x);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_stop();
	return 0;
}

static const struct mosquitto *ctx(struct fake_context *c)
{
	return (const struct mosquitto *)(const void *)c;
}

static enum acl_verdict ask(struct fake_context *c, enum acl_access access, const char *topic)
{
	struct acl_event ev = { .context = ctx(c), .access = access, .topic = topic, .payload = "hi", .len = 2, .qos = 1 };

	return acl_check(&fake.p, &ev);
}

static enum route_verdict publish(const char *topic, const char *payload, int qos)
{
	struct route_publish m = { .topic = topic, .payload = payload, .len = strlen(payload), .qos = qos };

	return route_message(&fake.p, s, &m);
}

static struct session *as(unsigned protocol)
{
	bool owner;
	struct session *old = session_close(fake.p.sessions, ctx(&x), &owner);

	limit_close(old->limit);
	session_free(old);
	fake_ctx(&x, "alice", "alice:phone", protocol, true);
	s = fake_open(&x);
	return s;
}

/* ---- acl ---- */

static void rights_by_who_and_topic(void **state)
{
	static const struct {
		enum acl_access access;
		const char *topic;
		enum acl_verdict alice, stranger;
	} cases[] = {
		{ ACL_WRITE, "im/v1/to/u/bob", ACL_ALLOW, ACL_DENY },
		{ ACL_WRITE, "im/v1/nonsense", ACL_ALLOW, ACL_DENY }, /* MESSAGE explains */
		{ ACL_WRITE, "im/v1/in/msg/u/bob", ACL_ALLOW, ACL_DENY },
		{ ACL_WRITE, "im/other", ACL_ALLOW, ACL_DENY },
		{ ACL_WRITE, "$im/out", ACL_DENY, ACL_DENY },
		{ ACL_WRITE, "$im/sink", ACL_DENY, ACL_DENY },
		{ ACL_WRITE, "$CONTROL/im/v1", ACL_ALLOW, ACL_DENY },
		{ ACL_WRITE, "$CONTROL/im/v1/response", ACL_DENY, ACL_DENY },
		{ ACL_WRITE, "plant/1/temp", ACL_DENY, ACL_ALLOW },
		{ ACL_WRITE, "$CONTROL/dynamic-security/v1", ACL_DENY, ACL_ALLOW },
		{ ACL_SUBSCRIBE, "im/v1/in/#", ACL_ALLOW, ACL_DENY },
		{ ACL_SUBSCRIBE, "im/#", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "im/v1/+/msg/#", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "im/v1/to/#", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "im/v1/room/friends/json", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "$share/g/im/v1/in/#", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "$share/g/$im/in", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "$im/#", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "$im/sink", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "$CONTROL/im/v1/response", ACL_DENY, ACL_DENY },
		{ ACL_SUBSCRIBE, "#", ACL_DENY, ACL_ALLOW }, /* gives them nothing below im/ */
		{ ACL_SUBSCRIBE, "plant/#", ACL_DENY, ACL_ALLOW },
		{ ACL_UNSUBSCRIBE, "plant/#", ACL_ALLOW, ACL_ALLOW },
		{ ACL_READ, "im/v1/in/msg/u/bob", ACL_DENY, ACL_DENY },
		{ ACL_READ, "im/v1/to/u/bob", ACL_DENY, ACL_DENY },
		{ ACL_READ, "im/old/retained", ACL_DENY, ACL_DENY },
		{ ACL_READ, "$im/sink", ACL_DENY, ACL_DENY },
		{ ACL_READ, "$im/in", ACL_DENY, ACL_DENY },
		{ ACL_READ, "$CONTROL/im/v1/response", ACL_DENY, ACL_DENY },
		{ ACL_READ, "plant/1/temp", ACL_DENY, ACL_ALLOW },
		{ ACL_READ, "imx/1", ACL_DENY, ACL_ALLOW },
	};
	struct fake_context stranger;

	(void)state;
	fake_ctx(&stranger, "meter", "sensor", 4, true);
	fake.p.settings.rate_refusals = 1000;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (ask(&x, cases[i].access, cases[i].topic) != cases[i].alice)
			fail_msg("alice %d %s", cases[i].access, cases[i].topic);
		if (ask(&stranger, cases[i].access, cases[i].topic) != cases[i].stranger)
			fail_msg("stranger %d %s", cases[i].access, cases[i].topic);
	}
}

static void ordinary_topics_follow_the_settings(void **state)
{
	static const struct {
		bool acl_file;
		enum im_plain_topics plain;
		enum acl_verdict alice, stranger;
	} cases[] = {
		{ false, IM_PLAIN_DENY, ACL_DENY, ACL_ALLOW }, { true, IM_PLAIN_DENY, ACL_DENY, ACL_DEFER },
		{ false, IM_PLAIN_ACL, ACL_DENY, ACL_ALLOW }, { true, IM_PLAIN_ACL, ACL_DEFER, ACL_DEFER },
		{ false, IM_PLAIN_ALLOW, ACL_ALLOW, ACL_ALLOW }, { true, IM_PLAIN_ALLOW, ACL_ALLOW, ACL_DEFER },
	};
	struct fake_context stranger;

	(void)state;
	fake_ctx(&stranger, NULL, "sensor", 4, true);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake.p.settings.has_acl_file = cases[i].acl_file;
		fake.p.settings.plain_topics = cases[i].plain;
		assert_int_equal(ask(&x, ACL_WRITE, "a/b"), cases[i].alice);
		assert_int_equal(ask(&x, ACL_READ, "a/b"), cases[i].alice);
		assert_int_equal(ask(&stranger, ACL_WRITE, "a/b"), cases[i].stranger);
		assert_int_equal(ask(&stranger, ACL_SUBSCRIBE, "#"), cases[i].stranger);
	}
}

static void services_have_the_bus_and_nothing_else(void **state)
{
	struct fake_context off, ctl;
	bool owner;

	(void)state;
	fake_ctx(&off, "$im", "$im-offline", 4, true);
	fake_ctx(&ctl, "$im", "$im-ctl-1", 4, true);
	session_open(fake.p.sessions, ctx(&off), &off.c, true);
	session_open(fake.p.sessions, ctx(&ctl), &ctl.c, true);
	assert_int_equal(ask(&off, ACL_WRITE, "$im/out"), ACL_ALLOW);
	assert_int_equal(ask(&ctl, ACL_WRITE, "$im/out"), ACL_DENY);
	assert_int_equal(ask(&off, ACL_WRITE, "$im/seq"), ACL_ALLOW);
	assert_int_equal(ask(&off, ACL_SUBSCRIBE, "$im/in"), ACL_ALLOW);
	assert_int_equal(ask(&off, ACL_SUBSCRIBE, "$im/sink"), ACL_ALLOW);
	assert_int_equal(ask(&off, ACL_READ, "$im/sink"), ACL_DENY);
	assert_int_equal(ask(&off, ACL_READ, "$im/seq"), ACL_ALLOW);
	assert_int_equal(ask(&ctl, ACL_SUBSCRIBE, "$CONTROL/im/v1/response"), ACL_ALLOW);
	assert_int_equal(ask(&ctl, ACL_WRITE, "$CONTROL/im/v1"), ACL_ALLOW);
	assert_int_equal(ask(&off, ACL_WRITE, "im/v1/to/u/bob"), ACL_DENY);
	assert_int_equal(ask(&off, ACL_WRITE, "plant/1"), ACL_DENY);
	session_free(session_close(fake.p.sessions, ctx(&off), &owner));
	session_free(session_close(fake.p.sessions, ctx(&ctl), &owner));
}

static void one_codec_and_so_many_filters_per_device(void **state)
{
	(void)state;
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/msg/#"), ACL_ALLOW);
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/raw/msg/#"), ACL_DENY);
	assert_int_equal(fake.n_sent, 1);
	assert_string_equal(fake.sent[0].topic, "im/v1/in/err");
	assert_non_null(strstr(fake.sent[0].payload, "second_codec"));
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/ack"), ACL_ALLOW);
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/err"), ACL_ALLOW);
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/evt/#"), ACL_DENY);
	assert_non_null(strstr(fake.sent[1].payload, "too_many"));
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/err"), ACL_ALLOW); /* the same again */
	assert_int_equal(fake.n_sessions, 4);
	assert_int_equal(ask(&x, ACL_UNSUBSCRIBE, "im/v1/in/err"), ACL_ALLOW);
	assert_int_equal(ask(&x, ACL_UNSUBSCRIBE, "im/v1/in/ack"), ACL_ALLOW);
	assert_int_equal(ask(&x, ACL_UNSUBSCRIBE, "im/v1/in/msg/#"), ACL_ALLOW);
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/raw/msg/#"), ACL_ALLOW);
}

static void what_waits_is_read_only_while_the_own_session_resumes(void **state)
{
	struct fake_context a, b;
	bool owner;
	struct session *old;

	(void)state;
	fake_ctx(&a, "bob", "bob:pc", 4, false);
	old = session_open(fake.p.sessions, ctx(&a), &a.c, false);
	assert_int_equal(ask(&a, ACL_READ, "im/v1/in/ack"), ACL_DENY); /* nothing was stored */
	(void)old;
	session_free(session_close(fake.p.sessions, ctx(&a), &owner));
	assert_int_equal(ask(&a, ACL_READ, "im/v1/in/ack"), ACL_DENY);
	fake_ctx(&b, "bob", "bob:pc", 4, false);
	session_open(fake.p.sessions, ctx(&b), &b.c, false);
	assert_int_equal(ask(&b, ACL_READ, "im/v1/in/ack"), ACL_ALLOW);
	assert_int_equal(ask(&b, ACL_WRITE, "$im/sink"), ACL_ALLOW); /* its QoS 2 message awaiting PUBREL */
	assert_int_equal(ask(&b, ACL_READ, "im/v1/in/ack"), ACL_ALLOW);
	assert_int_equal(ask(&b, ACL_SUBSCRIBE, "im/v1/in/#"), ACL_ALLOW);
	assert_int_equal(ask(&b, ACL_READ, "im/v1/in/ack"), ACL_DENY); /* a packet was seen */
	assert_int_equal(ask(&b, ACL_WRITE, "$im/sink"), ACL_DENY);
}

/* ---- wills ---- */

static void a_lost_connections_will_is_sent_and_never_routed(void **state)
{
	bool owner;
	struct session *old = session_close(fake.p.sessions, ctx(&x), &owner);

	(void)state;
	limit_close(old->limit);
	session_free(old);
	assert_int_equal(ask(&x, ACL_WRITE, "im/v1/to/g/friends"), ACL_DENY);
	assert_int_equal(fake.n_records, 1);
	assert_int_equal(fake.record->kind, IM__BUS__KIND__KIND_SEND);
	assert_string_equal(fake.record->user, "alice");
	assert_string_equal(fake.record->client_id, "alice:phone");
	assert_string_equal(fake.record->conv, "g/friends");
	assert_int_equal(fake.record->session, 0);
	assert_int_equal(fake.record->body.len, 2);
	assert_int_equal(ask(&x, ACL_WRITE, "im/v1/to/u/dave"), ACL_DENY); /* who blocked her */
	assert_int_equal(ask(&x, ACL_WRITE, "im/v1/send"), ACL_DENY);
	assert_int_equal(ask(&x, ACL_WRITE, "im/v1/in/msg/u/bob"), ACL_DENY);
	assert_int_equal(fake.n_records, 1);
	s = fake_open(&x);
}

static void a_will_at_takeover_is_not_sent(void **state)
{
	struct fake_context new;
	struct session *second;
	bool owner;

	(void)state;
	fake_ctx(&new, "alice", "alice:phone", 5, true);
	second = session_open(fake.p.sessions, ctx(&new), &new.c, false);
	assert_int_equal(ask(&x, ACL_WRITE, "im/v1/to/u/bob"), ACL_DENY);
	assert_int_equal(fake.n_records, 0);
	(void)second;
	session_free(session_close(fake.p.sessions, ctx(&new), &owner));
	limit_close(s->limit);
	s->limit = NULL;
}

static void strangers_wills_reach_nobody_below_im(void **state)
{
	struct fake_context stranger;

	(void)state;
	fake_ctx(&stranger, "alice", "never-seen", 4, true); /* a name of ours on a context nobody logged in with */
	assert_int_equal(ask(&stranger, ACL_WRITE, "im/v1/to/u/bob"), ACL_DENY);
	assert_int_equal(fake.n_records, 0);
}

static void a_reused_address_lends_nobody_its_name(void **state)
{
	struct session *old;
	bool owner;

	(void)state;
	old = session_close(fake.p.sessions, ctx(&x), &owner);
	limit_close(old->limit);
	session_free(old);
	fake_ctx(&x, "sensor", "sensor1", 4, true); /* let in by another plugin: we were not asked */
	assert_int_equal(ask(&x, ACL_WRITE, "im/v1/to/u/bob"), ACL_DENY);
	fake_ctx(&x, "alice", "other-id", 4, true);
	assert_int_equal(ask(&x, ACL_WRITE, "im/v1/to/u/bob"), ACL_DENY);
	assert_int_equal(fake.n_records, 0);
	fake_ctx(&x, "alice", "alice:phone", 5, true);
	assert_int_equal(ask(&x, ACL_WRITE, "im/v1/to/u/bob"), ACL_DENY);
	assert_int_equal(fake.n_records, 1);
	s = fake_open(&x);
}

static void wills_count_as_messages_of_their_user(void **state)
{
	struct session *old;
	bool owner;

	(void)state;
	fake.p.settings.rate_user = 2;
	old = session_close(fake.p.sessions, ctx(&x), &owner);
	limit_close(old->limit);
	session_free(old);
	for (int i = 0; i < 5; i++)
		assert_int_equal(ask(&x, ACL_WRITE, "im/v1/to/u/bob"), ACL_DENY);
	assert_int_equal(fake.n_records, 2);
	s = fake_open(&x);
}

/* ---- kicks ---- */

static void subscriptions_checked_again(void)
{
	struct acl_event ev = { .context = ctx(&x), .access = ACL_SUBSCRIBE, .topic = "im/v1/in/#" }; /* QoS 0, says the broker */

	assert_int_equal(acl_check(&fake.p, &ev), ACL_ALLOW);
}

static void a_kick_leaves_the_stored_subscriptions_as_they_were(void **state)
{
	struct acl_event ev = { .context = ctx(&x), .access = ACL_SUBSCRIBE, .topic = "im/v1/in/#", .qos = 1 };

	(void)state;
	as(5);
	assert_int_equal(acl_check(&fake.p, &ev), ACL_ALLOW);
	session_kick(fake.p.sessions, s, "test");
	fake.during_kick = subscriptions_checked_again;
	session_tick(fake.p.sessions);
	assert_int_equal(fake.n_kicked, 1);
	assert_int_equal(s->filters[0].qos, 1);
	assert_int_equal(publish("im/v1/to/u/bob", "x", 1), ROUTE_CLOSE); /* a WebSocket connection ends later */
	session_tick(fake.p.sessions);
	assert_int_equal(fake.n_kicked, 1);
}

/* ---- publishes ---- */

static void what_is_sent_becomes_a_record(void **state)
{
	int64_t before = im_clock_wall_ms();

	(void)state;
	assert_int_equal(publish("im/v1/to/u/bob/m1", "hello", 1), ROUTE_SWALLOW);
	assert_int_equal(fake.record->kind, IM__BUS__KIND__KIND_SEND);
	assert_string_equal(fake.record->user, "alice");
	assert_string_equal(fake.record->conv, "u/bob");
	assert_string_equal(fake.record->id, "m1");
	assert_true(fake.record->session == s->handle);
	assert_int_equal(fake.record->qos, 1);
	assert_true(fake.record->ts >= before);
	assert_memory_equal(fake.record->body.data, "hello", 5);
	assert_int_equal(publish("im/v1/to/u/alice", "", 0), ROUTE_SWALLOW); /* a note to self, empty */
	assert_int_equal(publish("im/v1/send", "{\"to\":\"g/friends\",\"body\":\"x\"}", 2), ROUTE_SWALLOW);
	assert_string_equal(fake.record->conv, "g/friends");
	assert_int_equal(publish("im/v1/ack", "[{\"conv\":\"u/bob\",\"delivered\":3}]", 1), ROUTE_SWALLOW);
	assert_int_equal(fake.record->kind, IM__BUS__KIND__KIND_ACK);
	assert_int_equal(fake.record->n_cursors, 1);
	assert_int_equal(publish("im/v1/req/history/r1", "{\"conv\":\"u/bob\"}", 1), ROUTE_SWALLOW);
	assert_int_equal(fake.record->kind, IM__BUS__KIND__KIND_REQUEST);
	assert_string_equal(fake.record->method, "history");
	assert_string_equal(fake.record->id, "r1");
	assert_int_equal(fake.record->args.len, 16);
	assert_int_equal(publish("im/v1/sig/u/bob", "typing", 0), ROUTE_SWALLOW);
	assert_int_equal(fake.n_signals, 1);
	assert_int_equal(fake.n_records, 5); /* signals are never stored */
	assert_int_equal(fake.n_sent, 0);
}

static void refusals_have_their_codes(void **state)
{
	static const struct {
		const char *topic, *payload, *code;
	} cases[] = {
		{ "im/v1/to/u/nobody", "x", "unknown_user" },
		{ "im/v1/to/u/carol", "x", "unknown_user" }, /* disabled */
		{ "im/v1/to/g/nothing", "x", "unknown_group" },
		{ "im/v1/to/u/dave", "x", "blocked" },
		{ "im/v1/to/u/B%d", "x", "bad_name" },
		{ "im/v1/to/u/bob/bad id", "x", "bad_id" },
		{ "im/v1/what", "x", "bad_topic" },
		{ "im/v2/to/u/bob", "x", "bad_topic" },
		{ "im/v1/in/msg/u/bob", "x", "read_only_topic" },
		{ "im/v1/room/friends/json", "x", "read_only_topic" },
		{ "im/v1/send", "{", "bad_json" },
		{ "im/v1/send", "{\"to\":\"u/nobody\",\"body\":\"x\"}", "unknown_user" },
		{ "im/v1/send/pb", "\xff\xff", "bad_pb" },
		{ "im/v1/ack", "{}", "bad_json" },
		{ "im/v1/svc/shop/buy/1", "{}", "unknown_method" },
		{ "im/v1/sig/u/dave", "typing", "blocked" },
	};

	(void)state;
	fake.p.settings.rate_refusals = 1000;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake.n_sent = 0;
		if (publish(cases[i].topic, cases[i].payload, 1) != ROUTE_DENY)
			fail_msg("%s was not refused", cases[i].topic);
		assert_int_equal(fake.n_sent, 1);
		if (!strstr(fake.sent[0].payload, cases[i].code))
			fail_msg("%s: %s", cases[i].topic, fake.sent[0].payload);
		assert_string_equal(fake.sent[0].client_id, "alice:phone");
	}
	assert_int_equal(fake.n_records, 0);
	assert_int_equal(fake.n_signals, 0);
}

static void outsiders_may_not_send_to_a_group(void **state)
{
	struct im_refusal why;

	(void)state;
	assert_true(route_may_send(fake.p.roster, "bob", "g/friends", &why));
	assert_false(route_may_send(fake.p.roster, "dave", "g/friends", &why));
	assert_int_equal(why.code, IM_REFUSE_NOT_MEMBER);
	assert_true(route_may_send(fake.p.roster, "dave", "u/alice", &why));
}

static void too_big_retained_and_too_fast_are_refused(void **state)
{
	char big[1100];
	struct route_publish m = { .topic = "im/v1/to/u/bob", .payload = "x", .len = 1, .qos = 1, .retain = true };

	(void)state;
	memset(big, 'x', sizeof(big));
	big[1000] = '\0';
	assert_int_equal(publish("im/v1/to/u/bob", big, 1), ROUTE_SWALLOW);
	big[1000] = 'x';
	big[1001] = '\0';
	assert_int_equal(publish("im/v1/to/u/bob", big, 1), ROUTE_DENY);
	assert_non_null(strstr(fake.sent[0].payload, "too_big"));
	assert_int_equal(route_message(&fake.p, s, &m), ROUTE_DENY);
	assert_non_null(strstr(fake.sent[1].payload, "retained"));
	fake.p.settings.rate_connection = 1;
	assert_int_equal(publish("im/v1/to/u/bob", "x", 1), ROUTE_SWALLOW);
	assert_int_equal(publish("im/v1/to/u/bob", "x", 1), ROUTE_DENY);
	assert_non_null(strstr(fake.sent[2].payload, "too_fast"));
}

static void refusals_in_3_1_1_are_journaled_where_a_puback_cannot_be_withheld(void **state)
{
	(void)state;
	as(4);
	assert_int_equal(publish("im/v1/to/u/nobody/m7", "x", 1), ROUTE_SWALLOW);
	assert_int_equal(fake.n_sent, 0);
	assert_int_equal(fake.record->kind, IM__BUS__KIND__KIND_REFUSAL);
	assert_string_equal(fake.record->code, "unknown_user");
	assert_string_equal(fake.record->id, "m7");
	assert_string_equal(fake.record->topic, "im/v1/to/u/nobody/m7");
	assert_true(fake.record->reason[0] != '\0');
	assert_int_equal(publish("im/v1/to/u/nobody", "x", 0), ROUTE_SWALLOW);
	assert_int_equal(fake.n_sent, 1);
	assert_int_equal(fake.n_records, 1);
}

static void a_full_journal_never_acknowledges(void **state)
{
	(void)state;
	fake.journal_says = IM_BUSY;
	assert_int_equal(publish("im/v1/to/u/bob", "x", 1), ROUTE_DENY);
	assert_non_null(strstr(fake.sent[0].payload, "journal_full"));
	as(4);
	fake.n_sent = 0;
	assert_int_equal(publish("im/v1/to/u/bob/m1", "x", 0), ROUTE_SWALLOW);
	assert_int_equal(fake.n_sent, 1);
	fake.journal_says = IM_FAILED;
	fake.n_sent = 0;
	assert_int_equal(publish("im/v1/to/u/bob/m1", "x", 1), ROUTE_CLOSE);
	assert_int_equal(publish("im/v1/to/u/nobody", "x", 2), ROUTE_CLOSE); /* not even the refusal could be kept */
	assert_int_equal(fake.n_sent, 0);
}

static void what_is_owed_is_sent_at_the_next_connect(void **state)
{
	(void)state;
	as(4);
	fake.journal_says = IM_FAILED;
	assert_int_equal(publish("im/v1/to/u/bob/m1", "x", 1), ROUTE_CLOSE);
	as(4);
	refuse_tick(fake.p.refusals, &fake.p.settings, fake.p.sessions);
	assert_int_equal(fake.n_sent, 0); /* it may be about to subscribe */
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/raw/#"), ACL_ALLOW);
	refuse_tick(fake.p.refusals, &fake.p.settings, fake.p.sessions);
	refuse_tick(fake.p.refusals, &fake.p.settings, fake.p.sessions);
	assert_int_equal(fake.n_sent, 1);
	assert_string_equal(fake.sent[0].topic, "im/v1/raw/err/journal_failed");
	assert_int_equal(fake.sent[0].qos, 1);
}

static void what_is_owed_is_bounded_and_costs_little(void **state)
{
	struct im_refusal why;
	char id[32];

	(void)state;
	im_refuse(&why, IM_REFUSE_TOO_FAST, NULL);
	for (int i = 0; i < 100; i++) /* who never come back */
		refuse_owe(fake.p.refusals, "alice", (snprintf(id, sizeof(id), "away%d", i), id), &why, "im/v1/to/u/bob", "");
	for (int i = 0; i < 100; i++)
		refuse_owe(fake.p.refusals, "alice", "alice:phone", &why, "im/v1/to/u/bob", "");
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/#"), ACL_ALLOW);
	refuse_tick(fake.p.refusals, &fake.p.settings, fake.p.sessions);
	assert_int_equal(fake.n_sent, 0); /* a turn looks at the first few only */
	for (int i = 0; i < 20; i++)
		refuse_tick(fake.p.refusals, &fake.p.settings, fake.p.sessions);
	assert_int_equal(fake.n_sent, REFUSE_OWED_CLIENT_MAX);
}

static void errors_repeat_little_of_what_they_are_about(void **state)
{
	static char filter[60000];

	(void)state;
	memset(filter, 'x', sizeof(filter) - 1);
	memcpy(filter, "im/", 3);
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, filter), ACL_DENY);
	assert_int_equal(fake.n_sent, 1);
	assert_true(strlen(fake.sent[0].payload) < 1000);
}

static void subscribing_is_no_cheaper_than_sending(void **state)
{
	(void)state;
	fake.p.settings.rate_user = 2;
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/#"), ACL_ALLOW);
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/#"), ACL_ALLOW);
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/#"), ACL_DENY);
	assert_non_null(strstr(fake.sent[0].payload, "too_fast"));
}

static void errors_without_a_filter_follow_im_unsubscribed(void **state)
{
	(void)state;
	fake.p.settings.unsubscribed = IM_UNSUBSCRIBED_NONE;
	assert_int_equal(publish("im/v1/what", "x", 1), ROUTE_DENY);
	assert_int_equal(fake.n_sent, 0);
	assert_int_equal(ask(&x, ACL_SUBSCRIBE, "im/v1/in/err"), ACL_ALLOW);
	assert_int_equal(publish("im/v1/what", "x", 1), ROUTE_DENY);
	assert_int_equal(fake.n_sent, 1);
}

static void more_refusals_than_the_limit_end_the_connection(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < 5; i++)
		assert_int_equal(publish("im/v1/what", "x", 1), ROUTE_DENY);
	assert_int_equal(publish("im/v1/what", "x", 1), ROUTE_CLOSE);
	assert_int_equal(fake.n_sent, 5);
	as(4);
	for (i = 0; i < 5; i++)
		assert_int_equal(publish("im/v1/what", "x", 1), ROUTE_SWALLOW);
	assert_int_equal(publish("im/v1/what", "x", 1), ROUTE_CLOSE);
}

static void a_kicked_user_sends_nothing_more(void **state)
{
	(void)state;
	session_kick(fake.p.sessions, s, "test");
	assert_int_equal(publish("im/v1/to/u/bob", "x", 1), ROUTE_CLOSE);
	assert_int_equal(fake.n_records, 0);
}

static void properties_give_an_id_and_a_content_type(void **state)
{
	struct broker_properties props = { .id = (char *)"p1", .content_type = (char *)"text/markdown" };
	struct route_publish m = { .topic = "im/v1/to/u/bob", .payload = "x", .len = 1, .qos = 1, .properties = &props };

	(void)state;
	assert_int_equal(route_message(&fake.p, s, &m), ROUTE_SWALLOW);
	assert_string_equal(fake.record->id, "p1");
	assert_string_equal(fake.record->ct, "text/markdown");
	m.topic = "im/v1/to/u/bob/t1";
	assert_int_equal(route_message(&fake.p, s, &m), ROUTE_SWALLOW);
	assert_string_equal(fake.record->id, "t1");
	props.id = (char *)"not an id";
	m.topic = "im/v1/to/u/bob";
	assert_int_equal(route_message(&fake.p, s, &m), ROUTE_DENY);
	assert_non_null(strstr(fake.sent[0].payload, "bad_id"));
}

static void a_response_topic_must_be_ones_own(void **state)
{
	(void)state;
	assert_true(route_response_topic_ok(IM_CODEC_JSON, "im/v1/in/res/1"));
	assert_true(route_response_topic_ok(IM_CODEC_NONE, "im/v1/in/res/1"));
	assert_true(route_response_topic_ok(IM_CODEC_PB, "im/v1/pb/res/a/b"));
	assert_false(route_response_topic_ok(IM_CODEC_PB, "im/v1/in/res/1"));
	assert_false(route_response_topic_ok(IM_CODEC_JSON, "im/v1/in/res/"));
	assert_false(route_response_topic_ok(IM_CODEC_JSON, "im/v1/in/msg/u/bob"));
	assert_false(route_response_topic_ok(IM_CODEC_JSON, "plant/1"));
	assert_false(route_response_topic_ok(IM_CODEC_JSON, "im/v1/in/res/#"));
}

static void deliveries_come_from_the_message_service_alone(void **state)
{
	struct fake_context off, ctl;
	struct session *a, *b;
	struct route_publish m = { .topic = "$im/out", .payload = "x", .len = 1 };
	bool owner;

	(void)state;
	fake_ctx(&off, "$im", "$im-offline", 4, true);
	fake_ctx(&ctl, "$im", "$im-ctl-1", 4, true);
	a = session_open(fake.p.sessions, ctx(&off), &off.c, true);
	b = session_open(fake.p.sessions, ctx(&ctl), &ctl.c, true);
	assert_int_equal(route_message(&fake.p, a, &m), ROUTE_SWALLOW);
	assert_int_equal(route_message(&fake.p, b, &m), ROUTE_DENY);
	assert_int_equal(fake.n_frames, 1);
	m.topic = "$im/seq";
	assert_int_equal(route_message(&fake.p, b, &m), ROUTE_PASS);
	session_free(session_close(fake.p.sessions, ctx(&off), &owner));
	session_free(session_close(fake.p.sessions, ctx(&ctl), &owner));
}

static void commands_are_for_admins_and_need_the_service(void **state)
{
	struct fake_context bob;

	(void)state;
	control_message(&fake.p, ctx(&x), "$CONTROL/im/v1", "{}", 2);
	assert_int_equal(fake.n_control, 0);
	assert_non_null(strstr(fake.sent[0].payload, "not_allowed"));
	fake_ctx(&bob, "bob", "bob:pc", 4, true);
	fake_open(&bob);
	control_message(&fake.p, ctx(&bob), "$CONTROL/im/v1", "{}", 2);
	assert_int_equal(fake.n_control, 0);
	assert_string_equal(fake.sent[1].topic, "$CONTROL/im/v1/response");
	assert_string_equal(fake.sent[1].client_id, "bob:pc");
	assert_non_null(strstr(fake.sent[1].payload, "{\"responses\":[{\"command\":null,\"error\":\"unavailable"));
	fake.link_up = true;
	control_message(&fake.p, ctx(&bob), "$CONTROL/im/v1", "{}", 2);
	assert_int_equal(fake.n_control, 1);
	control_message(&fake.p, ctx(&bob), "$CONTROL/im/v1", "{}", IM_REQUEST_MAX + 1);
	assert_int_equal(fake.n_control, 1);
	assert_non_null(strstr(fake.sent[2].payload, "too_big"));
	fake.link_full = true;
	control_message(&fake.p, ctx(&bob), "$CONTROL/im/v1", "{}", 2);
	assert_non_null(strstr(fake.sent[3].payload, "does not keep up"));
}

static void why_says_what_the_real_path_would(void **state)
{
	static const struct {
		const char *query, *rule;
		bool allowed;
	} cases[] = {
		{ "{\"query\":\"why\",\"user\":\"alice\",\"action\":\"publish\",\"what\":\"im/v1/to/u/bob\"}", "ok", true },
		{ "{\"query\":\"why\",\"user\":\"dave\",\"action\":\"publish\",\"what\":\"im/v1/to/g/friends\"}", "not_member", false },
		{ "{\"query\":\"why\",\"user\":\"alice\",\"action\":\"publish\",\"what\":\"plant/1\"}", "plain_topics", false },
		{ "{\"query\":\"why\",\"user\":\"alice\",\"action\":\"subscribe\",\"what\":\"im/v1/in/#\"}", "ok", true },
		{ "{\"query\":\"why\",\"user\":\"alice\",\"action\":\"subscribe\",\"what\":\"im/#\"}", "bad_topic", false },
		{ "{\"query\":\"why\",\"user\":\"alice\",\"action\":\"connect\",\"what\":\"bob:pc\"}", "client_id_named", false },
		{ "{\"query\":\"why\",\"user\":\"carol\",\"action\":\"connect\",\"what\":\"carol:pc\"}", "user_disabled", false },
		{ "{\"query\":\"why\",\"user\":\"alice\",\"action\":\"connect\",\"what\":\"alice:pc\"}", "ok", true },
		{ "{\"query\":\"why\",\"user\":\"bob\",\"action\":\"publish\",\"what\":\"$CONTROL/im/v1\"}", "admin", true },
		{ "{\"query\":\"why\",\"user\":\"nobody\",\"action\":\"publish\",\"what\":\"im/v1/ack\"}", "unknown_user", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct im_buf out;
		json_t *j;

		im_buf_init(&out);
		why_query(&fake.p, cases[i].query, &out);
		j = json_loads(im_buf_text(&out), 0, NULL);
		if (!j)
			fail_msg("no JSON: %s", im_buf_text(&out));
		if (strcmp(json_string_value(json_object_get(j, "rule")), cases[i].rule) != 0)
			fail_msg("%s: %s", cases[i].query, im_buf_text(&out));
		assert_int_equal(json_is_true(json_object_get(j, "allowed")), cases[i].allowed);
		json_decref(j);
		im_buf_finish(&out);
	}
}

static void status_is_json(void **state)
{
	struct im_buf out;
	json_t *j;

	(void)state;
	im_buf_init(&out);
	why_query(&fake.p, "{\"query\":\"status\"}", &out);
	j = json_loads(im_buf_text(&out), 0, NULL);
	assert_non_null(j);
	assert_int_equal(json_integer_value(json_object_get(j, "sessions")), 1);
	json_decref(j);
	im_buf_finish(&out);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(rights_by_who_and_topic),
		TEST(ordinary_topics_follow_the_settings),
		TEST(services_have_the_bus_and_nothing_else),
		TEST(one_codec_and_so_many_filters_per_device),
		TEST(what_waits_is_read_only_while_the_own_session_resumes),
		TEST(a_lost_connections_will_is_sent_and_never_routed),
		TEST(a_will_at_takeover_is_not_sent),
		TEST(strangers_wills_reach_nobody_below_im),
		TEST(a_reused_address_lends_nobody_its_name),
		TEST(wills_count_as_messages_of_their_user),
		TEST(a_kick_leaves_the_stored_subscriptions_as_they_were),
		TEST(what_is_sent_becomes_a_record),
		TEST(refusals_have_their_codes),
		TEST(outsiders_may_not_send_to_a_group),
		TEST(too_big_retained_and_too_fast_are_refused),
		TEST(refusals_in_3_1_1_are_journaled_where_a_puback_cannot_be_withheld),
		TEST(a_full_journal_never_acknowledges),
		TEST(what_is_owed_is_sent_at_the_next_connect),
		TEST(what_is_owed_is_bounded_and_costs_little),
		TEST(errors_repeat_little_of_what_they_are_about),
		TEST(subscribing_is_no_cheaper_than_sending),
		TEST(errors_without_a_filter_follow_im_unsubscribed),
		TEST(more_refusals_than_the_limit_end_the_connection),
		TEST(a_kicked_user_sends_nothing_more),
		TEST(properties_give_an_id_and_a_content_type),
		TEST(a_response_topic_must_be_ones_own),
		TEST(deliveries_come_from_the_message_service_alone),
		TEST(commands_are_for_admins_and_need_the_service),
		TEST(why_says_what_the_real_path_would),
		TEST(status_is_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
