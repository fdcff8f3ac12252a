/*
 * Honor Push: OAuth 2 client credentials, POST /api/v1/{app_id}/sendMessage. developer.honor.com. Which code means success is
 * told differently by different sources, so both are taken (codes.json); an expired token stands in a list of its own.
 */
#include "vendor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TTL_MOST_S 1296000

static const char *const importances[] = { "NORMAL", "LOW", NULL };
static const struct push_key keys[] = {
	{ "app_id", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "client_id", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "client_secret_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "importance", PUSH_KEY_CHOICE, false, "NORMAL", 0, 0, importances },
	{ "badge_class", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "endpoint", PUSH_KEY_TEXT, false, "https://push-api.cloud.honor.com", 0, 0, NULL },
	{ "auth_endpoint", PUSH_KEY_TEXT, false, "https://iam.developer.honor.com", 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ "codes_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};
static const char *const texts[] = { "app_id", "client_id", "client_secret_file", "importance", "badge_class", NULL };

static void auth_request(const struct vendor_app *a, int64_t now_ms, struct push_request *r)
{
	(void)now_ms;
	vendor_oauth_request(a, "/auth/token", r);
}

static void request(const struct vendor_app *a, const struct push_send *s, bool minimal, const char *token, int64_t now_ms, struct push_request *r)
{
	const Im__Push__Ticket *t = s->ticket;
	char *text = vendor_data_text(s), ttl[32];
	struct im_buf title, body;
	json_t *notification;

	im_buf_init(&title);
	im_buf_init(&body);
	vendor_title(s, minimal, 150, &title);
	vendor_body(s, minimal, 1000, &body);
	notification = json_pack("{s:s,s:s,s:s,s:{s:i},s:i,s:s}", "title", im_buf_text(&title), "body", im_buf_text(&body), "importance",
				 vendor_text(a, "importance"), "clickAction", "type", 3, "notifyId", vendor_notify_id(s), "tag", s->thread);
	if (t->has_badge && vendor_text(a, "badge_class")[0])
		json_object_set_new(notification, "badge", json_pack("{s:i,s:s}", "setNum", (int)(t->badge > 99 ? 99 : t->badge), "badgeClass",
								     vendor_text(a, "badge_class")));
	push_request_url(r, "%s/api/v1/%s/sendMessage", a->endpoint, vendor_text(a, "app_id"));
	push_request_header(r, "Authorization", "Bearer %s", token);
	push_request_header(r, "timestamp", "%lld", (long long)now_ms);
	(void)snprintf(ttl, sizeof(ttl), "%llds", (long long)vendor_ttl_s(s, now_ms, 1, TTL_MOST_S));
	push_request_json(r, json_pack("{s:[s],s:s,s:{s:s,s:s},s:{s:s,s:o}}", "token", t->token->token, "data", text ? text : "", "notification", "title",
				       im_buf_text(&title), "body", im_buf_text(&body), "android", "ttl", ttl, "notification", notification));
	im_buf_finish(&title);
	im_buf_finish(&body);
	free(text);
}

static void code(const json_t *answer, const char *token, char out[PUSH_REASON_MAX], char id[PUSH_REASON_MAX])
{
	const json_t *data = json_object_get(answer, "data"), *v;
	size_t i;

	vendor_code_of(json_object_get(answer, "code"), out);
	vendor_code_of(json_object_get(data, "requestId"), id);
	json_array_foreach (json_object_get(data, "failTokens"), i, v)
		if (json_is_string(v) && strcmp(json_string_value(v), token) == 0)
			(void)snprintf(out, PUSH_REASON_MAX, "failed"); /* unknown: tried again */
	json_array_foreach (json_object_get(data, "expireTokens"), i, v)
		if (json_is_string(v) && strcmp(json_string_value(v), token) == 0)
			(void)snprintf(out, PUSH_REASON_MAX, "80300007");
}

const struct vendor vendor_honor = {
	.provider = "honor", .keys = keys, .texts = texts, .auth = VENDOR_AUTH_FETCH, .auth_most_s = 86400, .auth_request = auth_request,
	.auth_answer = vendor_oauth_answer, .request = request, .code = code,
};
