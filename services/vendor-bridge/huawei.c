/*
 * Huawei Push Kit for HMS (Android, HarmonyOS 3 and 4): OAuth 2 client credentials, POST /v1/{client_id}/messages:send.
 * developer.huawei.com/consumer/en/doc/HMSCore-References/https-send-api-0000001050986197
 */
#include "vendor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TTL_MOST_S 1296000

static const struct push_key keys[] = {
	{ "client_id", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "client_secret_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "category", PUSH_KEY_TEXT, false, "IM", 0, 0, NULL },
	{ "channel_id", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "badge_class", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "endpoint", PUSH_KEY_TEXT, false, "https://push-api.cloud.huawei.com", 0, 0, NULL },
	{ "auth_endpoint", PUSH_KEY_TEXT, false, "https://oauth-login.cloud.huawei.com", 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ "codes_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};
static const char *const texts[] = { "client_id", "client_secret_file", "category", "channel_id", "badge_class", NULL };

static void auth_request(const struct vendor_app *a, int64_t now_ms, struct push_request *r)
{
	(void)now_ms;
	vendor_oauth_request(a, "/oauth2/v3/token", r);
}

static json_t *notification(const struct vendor_app *a, const struct push_send *s, bool minimal)
{
	const Im__Push__Ticket *t = s->ticket;
	struct im_buf title, body;
	json_t *o;

	im_buf_init(&title);
	im_buf_init(&body);
	vendor_title(s, minimal, 150, &title);
	vendor_body(s, minimal, 1000, &body);
	o = json_pack("{s:s,s:s,s:{s:i},s:i,s:s}", "title", im_buf_text(&title), "body", im_buf_text(&body), "click_action", "type", 3, "notify_id",
		      vendor_notify_id(s), "tag", s->thread);
	im_buf_finish(&title);
	im_buf_finish(&body);
	if (vendor_text(a, "channel_id")[0])
		json_object_set_new(o, "channel_id", json_string(vendor_text(a, "channel_id")));
	if (t->has_badge && vendor_text(a, "badge_class")[0])
		json_object_set_new(o, "badge", json_pack("{s:i,s:s}", "set_num", (int)(t->badge > 99 ? 99 : t->badge), "class", vendor_text(a, "badge_class")));
	return o;
}

static void request(const struct vendor_app *a, const struct push_send *s, bool minimal, const char *token, int64_t now_ms, struct push_request *r)
{
	char *text = vendor_data_text(s), ttl[32];

	push_request_url(r, "%s/v1/%s/messages:send", a->endpoint, vendor_text(a, "client_id"));
	push_request_header(r, "Authorization", "Bearer %s", token);
	(void)snprintf(ttl, sizeof(ttl), "%llds", (long long)vendor_ttl_s(s, now_ms, 1, TTL_MOST_S));
	push_request_json(r, json_pack("{s:b,s:{s:[s],s:s,s:{s:s,s:s,s:s,s:o}}}", "validate_only", 0, "message", "token", s->ticket->token->token, "data",
				       text ? text : "", "android", "category", vendor_text(a, "category"), "ttl", ttl, "urgency", "HIGH", "notification",
				       notification(a, s, minimal)));
	free(text);
}

/* 80100000: some of the tokens are bad, which with one token cannot be; its text names them, as JSON in a string. */
static void code(const json_t *answer, const char *token, char out[PUSH_REASON_MAX], char id[PUSH_REASON_MAX])
{
	const char *text = json_string_value(json_object_get(answer, "msg"));
	json_t *msg, *v;
	size_t i;

	vendor_code_of(json_object_get(answer, "code"), out);
	vendor_code_of(json_object_get(answer, "requestId"), id);
	if (strcmp(out, "80100000") != 0)
		return;
	msg = text ? json_loads(text, 0, NULL) : NULL;
	(void)snprintf(out, PUSH_REASON_MAX, "80000000");
	json_array_foreach (json_object_get(msg, "illegal_tokens"), i, v)
		if (json_is_string(v) && strcmp(json_string_value(v), token) == 0)
			(void)snprintf(out, PUSH_REASON_MAX, "80300007");
	if (!msg)
		(void)snprintf(out, PUSH_REASON_MAX, "80100000");
	json_decref(msg);
}

const struct vendor vendor_huawei = {
	.provider = "huawei", .keys = keys, .texts = texts, .auth = VENDOR_AUTH_FETCH, .auth_most_s = 3600, .auth_request = auth_request,
	.auth_answer = vendor_oauth_answer, .request = request, .code = code,
};
