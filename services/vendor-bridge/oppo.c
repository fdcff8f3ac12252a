/* OPPO Push (also OnePlus, realme): a token of 24 h by a signature of the time, POST /server/v1/message/notification/unicast. open.oppomobile.com */
#include "vendor.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TTL_MOST_S 259200
#define RENEW_S (12LL * 3600)

static const struct push_key keys[] = {
	{ "app_key", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "master_secret_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "category", PUSH_KEY_TEXT, false, "IM", 0, 0, NULL },
	{ "channel_id", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "notify_level", PUSH_KEY_NUMBER, false, "16", 1, 16, NULL },
	{ "endpoint", PUSH_KEY_TEXT, false, "https://api.push.oppomobile.com", 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ "codes_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};
static const char *const texts[] = { "app_key", "master_secret_file", "category", "channel_id", "notify_level", NULL };

static void auth_request(const struct vendor_app *a, int64_t now_ms, struct push_request *r)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	char time[24], hex[2 * 32 + 1], *text = NULL;
	bool ok;

	(void)snprintf(time, sizeof(time), "%lld", (long long)now_ms);
	ok = asprintf(&text, "%s%s%s", vendor_text(a, "app_key"), time, vendor_text(a, "master_secret_file")) > 0 &&
	     EVP_Digest(text, strlen(text), sum, &n, EVP_sha256(), NULL) == 1 && n == 32;
	for (unsigned i = 0; ok && i < n; i++)
		(void)snprintf(hex + (size_t)2 * i, 3, "%02x", sum[i]);
	if (ok)
		OPENSSL_cleanse(text, strlen(text));
	free(text);
	push_request_url(r, "%s/server/v1/auth", a->endpoint);
	push_request_field(r, "app_key", vendor_text(a, "app_key"));
	push_request_field(r, "timestamp", time);
	push_request_field(r, "sign", ok ? hex : "");
	r->failed |= !ok;
}

static const char *auth_answer(const json_t *answer, int64_t *life_s, char code[PUSH_REASON_MAX])
{
	*life_s = 0; /* 24 h; it is renewed every twelve */
	vendor_code_of(json_object_get(answer, "code"), code);
	return json_string_value(json_object_get(json_object_get(answer, "data"), "auth_token"));
}

static void request(const struct vendor_app *a, const struct push_send *s, bool minimal, const char *token, int64_t now_ms, struct push_request *r)
{
	char *parameters = vendor_data_text(s), *text;
	struct im_buf title, body;
	json_t *message;

	im_buf_init(&title);
	im_buf_init(&body);
	vendor_title(s, minimal, 150, &title);
	vendor_body(s, minimal, 600, &body);
	message = json_pack("{s:i,s:s,s:b,s:{s:s,s:s,s:s,s:s,s:i,s:i,s:s,s:b,s:I,s:i,s:s}}", "target_type", 2, "target_value", s->ticket->token->token,
			    "verify_registration_id", 0, "notification", "title", im_buf_text(&title), "content", im_buf_text(&body), "channel_id",
			    vendor_text(a, "channel_id"), "category", vendor_text(a, "category"), "notify_level", atoi(vendor_text(a, "notify_level")), /* NOLINT(cert-err34-c): read as a number */
			    "click_action_type", 0, "action_parameters", parameters ? parameters : "{}", "off_line", 1, "off_line_ttl",
			    (json_int_t)vendor_ttl_s(s, now_ms, 1, TTL_MOST_S), "notify_id", vendor_notify_id(s), "app_message_id", s->uuid);
	text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	push_request_url(r, "%s/server/v1/message/notification/unicast", a->endpoint);
	push_request_field(r, "auth_token", token);
	push_request_field(r, "message", text ? text : "");
	r->failed |= !text;
	im_buf_finish(&title);
	im_buf_finish(&body);
	free(text);
	free(parameters);
	json_decref(message);
}

static void code(const json_t *answer, const char *token, char out[PUSH_REASON_MAX], char id[PUSH_REASON_MAX])
{
	(void)token;
	vendor_code_of(json_object_get(answer, "code"), out);
	vendor_code_of(json_object_get(json_object_get(answer, "data"), "messageId"), id);
}

const struct vendor vendor_oppo = {
	.provider = "oppo", .keys = keys, .texts = texts, .auth = VENDOR_AUTH_FETCH, .auth_most_s = RENEW_S, .auth_request = auth_request,
	.auth_answer = auth_answer, .request = request, .code = code,
};
