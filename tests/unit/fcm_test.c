/* FCM: what an answer means, and what a message says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "message.h"
#include "reaction.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FCM(code) "{\"error\":{\"code\":0,\"message\":\"x\",\"status\":\"S\",\"details\":[{\"@type\":\"type.googleapis.com/google.firebase.fcm.v1.FcmError\"," \
		  "\"errorCode\":\"" code "\"}]}}"
#define FIELD(name) "{\"error\":{\"message\":\"x\",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.BadRequest\",\"fieldViolations\":[{\"field\":\"" \
		    name "\"}]}]}}"
#define SAYS(code, text) "{\"error\":{\"message\":\"" text "\",\"details\":[{\"@type\":\"type.googleapis.com/google.firebase.fcm.v1.FcmError\"," \
			 "\"errorCode\":\"" code "\"}]}}"

static void each_answer_has_its_reaction(void **state)
{
	static const struct {
		int status;
		const char *body;
		int64_t after;
		enum push_class class;
		const char *reason;
		int64_t retry_ms;
	} cases[] = {
		{ 200, "{\"name\":\"projects/p/messages/0:17\"}", 0, PUSH_ACCEPTED, "", 0 },
		{ 404, FCM("UNREGISTERED"), 0, PUSH_TOKEN_INVALID, "UNREGISTERED", 0 },
		{ 404, "<html>", 0, PUSH_CONFIG, "404", 0 },                              /* a wrong project: no token is touched */
		{ 404, "{\"error\":{\"status\":\"NOT_FOUND\"}}", 0, PUSH_CONFIG, "NOT_FOUND", 0 },
		{ 403, FCM("SENDER_ID_MISMATCH"), 0, PUSH_TOKEN_INVALID, "SENDER_ID_MISMATCH", 0 },
		{ 403, "{\"error\":{\"status\":\"PERMISSION_DENIED\"}}", 0, PUSH_CONFIG, "PERMISSION_DENIED", 0 },
		{ 401, "{\"error\":{\"status\":\"UNAUTHENTICATED\"}}", 0, PUSH_AUTH, "UNAUTHENTICATED", 0 },
		{ 401, FCM("THIRD_PARTY_AUTH_ERROR"), 0, PUSH_CONFIG, "THIRD_PARTY_AUTH_ERROR", 0 },
		{ 429, FCM("QUOTA_EXCEEDED"), 0, PUSH_RATE, "QUOTA_EXCEEDED", 60000 },
		{ 429, FCM("QUOTA_EXCEEDED"), 90000, PUSH_RATE, "QUOTA_EXCEEDED", 90000 },
		{ 429, "", 5000, PUSH_RATE, "429", 60000 },
		{ 503, FCM("UNAVAILABLE"), 0, PUSH_RETRY, "UNAVAILABLE", 10000 },
		{ 500, FCM("INTERNAL"), 0, PUSH_RETRY, "INTERNAL", 10000 },
		{ 500, FCM("UNSPECIFIED_ERROR"), 0, PUSH_RETRY, "UNSPECIFIED_ERROR", 10000 },
		{ 502, "nonsense", 0, PUSH_RETRY, "502", 10000 },
		{ 400, SAYS("INVALID_ARGUMENT", "The registration token is not a valid FCM registration token"), 0, PUSH_TOKEN_INVALID, "INVALID_ARGUMENT", 0 },
		{ 400, SAYS("INVALID_ARGUMENT", "Invalid value at 'message.android.ttl'"), 0, PUSH_BUG, "INVALID_ARGUMENT", 0 },
		{ 400, SAYS("INVALID_ARGUMENT", "Message is too big"), 0, PUSH_TOO_LARGE, "INVALID_ARGUMENT", 0 },
		{ 400, FIELD("message.token"), 0, PUSH_TOKEN_INVALID, "INVALID_ARGUMENT", 0 },
		{ 400, FIELD("message.android.priority"), 0, PUSH_BUG, "INVALID_ARGUMENT", 0 },
		{ 400, "{\"error\":{\"message\":\"registration token\",\"details\":[]}}", 0, PUSH_BUG, "INVALID_ARGUMENT", 0 }, /* not proven by FCM */
		{ 404, "{\"error\":{\"details\":{\"errorCode\":\"UNREGISTERED\"}}}", 0, PUSH_CONFIG, "404", 0 },               /* details no array */
		{ 404, "{\"error\":{\"details\":[{\"@type\":\"x.y\",\"errorCode\":\"UNREGISTERED\"}]}}", 0, PUSH_CONFIG, "404", 0 },
		{ 404, "{\"error\":[1,2]}", 0, PUSH_CONFIG, "404", 0 },
		{ 418, FCM("NEW_CODE"), 0, PUSH_BUG, "NEW_CODE", 0 },
		{ 413, "", 0, PUSH_TOO_LARGE, "413", 0 },
		{ 302, "", 0, PUSH_BUG, "302", 0 },
		{ 599, "\0\1\2", 0, PUSH_RETRY, "599", 10000 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct push_result r;

		fcm_reaction(cases[i].status, cases[i].body, strlen(cases[i].body), cases[i].after, &r);
		if (r.class != cases[i].class || strcmp(r.reason, cases[i].reason) != 0 || r.retry_after_ms != cases[i].retry_ms)
			fail_msg("case %zu: class %d reason %s retry %lld", i, r.class, r.reason, (long long)r.retry_after_ms);
	}
}

static void a_body_nested_a_thousand_deep_is_not_read(void **state)
{
	char deep[4000];
	struct push_result r;

	(void)state;
	memset(deep, '[', sizeof(deep));
	fcm_reaction(500, deep, sizeof(deep), 0, &r);
	assert_int_equal(r.class, PUSH_RETRY);
}

/* ---- messages */

static json_t *message(struct push_send *s, const struct fcm_style *style, bool minimal)
{
	json_t *all = fcm_message(s, style, minimal, 1000000), *m = json_incref(json_object_get(all, "message"));
	char *text = json_dumps(all, JSON_COMPACT);

	assert_true(strlen(text) < 4096 + 512);
	free(text);
	json_decref(all);
	assert_non_null(m);
	return m;
}

static const char *text_at(const json_t *o, const char *a, const char *b)
{
	return json_string_value(json_object_get(json_object_get(o, a), b));
}

static void a_message_says_what_the_ticket_does(void **state)
{
	Im__Push__Job job = IM__PUSH__JOB__INIT;
	Im__Push__Ticket ticket = IM__PUSH__TICKET__INIT;
	Im__Push__Token token = IM__PUSH__TOKEN__INIT;
	struct push_send s = { .row = 1, .job = &job, .ticket = &ticket, .thread = "0123456789abcdef0123456789abcdef" };
	struct fcm_style data = { false, "", "" }, drawn = { true, "chat", "com.example" };
	static char long_text[9000];
	const char *key;
	json_t *m, *v;

	(void)state;
	token.token = (char *)(uintptr_t)"device-token";
	ticket.token = &token;
	ticket.title = (char *)(uintptr_t)"Bob \"quoted\" \xf0\x9f\x98\x80";
	memset(long_text, '"', sizeof(long_text) - 1); /* each two bytes in JSON */
	ticket.body = long_text;
	ticket.from = (char *)(uintptr_t)"bob";
	ticket.badge = 3;
	ticket.has_badge = true;
	ticket.seq = 18;
	job.deadline_ms = 1000000 + 3600 * 1000;
	m = message(&s, &data, false);
	assert_string_equal(json_string_value(json_object_get(m, "token")), "device-token");
	assert_string_equal(text_at(m, "data", "title"), ticket.title);
	assert_string_equal(text_at(m, "data", "badge"), "3");
	assert_string_equal(text_at(m, "android", "ttl"), "3600s");
	assert_string_equal(text_at(m, "android", "priority"), "HIGH");
	assert_null(json_object_get(json_object_get(m, "android"), "notification"));
	assert_null(json_object_get(json_object_get(m, "data"), "from"));
	json_object_foreach (json_object_get(m, "data"), key, v)
		assert_true(json_is_string(v));
	json_decref(m);
	m = message(&s, &drawn, true);
	v = json_object_get(json_object_get(m, "android"), "notification");
	assert_string_equal(json_string_value(json_object_get(v, "tag")), s.thread);
	assert_int_equal(json_integer_value(json_object_get(v, "notification_count")), 3);
	assert_null(json_object_get(v, "body"));
	assert_null(text_at(m, "data", "body"));
	assert_string_equal(text_at(m, "data", "title"), "New message");
	json_decref(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_answer_has_its_reaction),
		cmocka_unit_test(a_body_nested_a_thousand_deep_is_not_read),
		cmocka_unit_test(a_message_says_what_the_ticket_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
