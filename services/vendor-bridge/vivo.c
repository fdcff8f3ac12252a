/* vivo Push (also iQOO): a token of 24 h by a signature of the time, POST /message/send. dev.vivo.com.cn/documentCenter/doc/362 */
#include "vendor.h"

#include "base/number.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TTL_LEAST_S 60
#define TTL_MOST_S (7l * 86400)
#define RENEW_S (2l * 3600) /* as vivo advises; a token lives a day */

static const struct push_key keys[] = {
	{ "app_id", PUSH_KEY_NUMBER, true, NULL, 1, INT64_MAX, NULL },
	{ "app_key", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "app_secret_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "category", PUSH_KEY_TEXT, false, "IM", 0, 0, NULL },
	{ "endpoint", PUSH_KEY_TEXT, false, "https://api-push.vivo.com.cn", 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ "codes_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};
static const char *const texts[] = { "app_id", "app_key", "app_secret_file", "category", NULL };

/* The file's reader has seen to it that it is a number. */
static json_int_t app_id(const struct vendor_app *a)
{
	uint64_t id = 0;

	(void)im_digits(vendor_text(a, "app_id"), INT64_MAX, &id);
	return (json_int_t)id;
}

static void auth_request(const struct vendor_app *a, int64_t now_ms, struct push_request *r)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	char hex[2 * 16 + 1] = "", *text = NULL;
	unsigned n = 0;
	bool ok = asprintf(&text, "%s%s%lld%s", vendor_text(a, "app_id"), vendor_text(a, "app_key"), (long long)now_ms, vendor_text(a, "app_secret_file")) > 0 &&
		  EVP_Digest(text, strlen(text), sum, &n, EVP_md5(), NULL) == 1 && n == 16; /* the protocol's choice */

	for (unsigned i = 0; ok && i < n; i++)
		(void)snprintf(hex + (size_t)2 * i, 3, "%02x", sum[i]);
	if (ok)
		OPENSSL_cleanse(text, strlen(text));
	free(text);
	push_request_url(r, "%s/message/auth", a->endpoint);
	push_request_json(r, json_pack("{s:I,s:s,s:I,s:s}", "appId", app_id(a), "appKey", vendor_text(a, "app_key"),
				       "timestamp", (json_int_t)now_ms, "sign", hex));
	r->failed |= !ok;
}

static const char *auth_answer(const json_t *answer, int64_t *life_s, char code[PUSH_REASON_MAX])
{
	*life_s = 0;
	vendor_code_of(json_object_get(answer, "result"), code);
	return json_string_value(json_object_get(answer, "authToken"));
}

static void request(const struct vendor_app *a, const struct push_send *s, bool minimal, const char *token, int64_t now_ms, struct push_request *r)
{
	json_t *data = vendor_data(s), *map = json_object(), *value;
	struct im_buf title, body;
	const char *name;
	json_t *o;

	im_buf_init(&title);
	im_buf_init(&body);
	vendor_title(s, minimal, 40, &title);
	vendor_body(s, minimal, 100, &body);
	json_object_foreach (data, name, value) { /* strings only */
		char number[24];

		(void)snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
		json_object_set_new(map, name, json_string(json_is_string(value) ? json_string_value(value) : number));
	}
	o = json_pack("{s:I,s:s,s:i,s:s,s:s,s:I,s:i,s:o,s:s,s:i,s:i,s:s,s:i}", "appId", app_id(a), "regId",
		      s->ticket->token->token, "notifyType", s->ticket->silent ? 1 : 4, "title", im_buf_text(&title), "content", im_buf_text(&body), "timeToLive",
		      (json_int_t)vendor_ttl_s(s, now_ms, TTL_LEAST_S, TTL_MOST_S), "skipType", 1, "clientCustomMap", map, "requestId", s->uuid, "pushMode", 0,
		      "classification", 1, "category", vendor_text(a, "category"), "notifyId", vendor_notify_id(s));
	im_buf_finish(&title);
	im_buf_finish(&body);
	json_decref(data);
	push_request_url(r, "%s/message/send", a->endpoint);
	push_request_header(r, "authToken", "%s", token);
	push_request_json(r, o);
}

static void code(const json_t *answer, const char *token, char out[PUSH_REASON_MAX], char id[PUSH_REASON_MAX])
{
	const char *bad = json_string_value(json_object_get(json_object_get(answer, "invalidUser"), "userid"));

	vendor_code_of(json_object_get(answer, "result"), out);
	vendor_code_of(json_object_get(answer, "taskId"), id);
	if (bad && strcmp(bad, token) == 0)
		(void)snprintf(out, PUSH_REASON_MAX, "10302");
}

const struct vendor vendor_vivo = {
	.provider = "vivo", .keys = keys, .texts = texts, .auth = VENDOR_AUTH_FETCH, .auth_most_s = RENEW_S, .auth_request = auth_request,
	.auth_answer = auth_answer, .request = request, .code = code,
};
