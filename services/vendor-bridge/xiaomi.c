/* Xiaomi Mi Push: a fixed key, POST /v3/message/regid as a form. dev.mi.com/distribute/doc/details?pId=1559 */
#include "vendor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TTL_MOST_MS (14LL * 86400 * 1000)

static const char *const regions[] = { "china", "global", "europe", "russia", "india", NULL };
static const struct push_key keys[] = {
	{ "app_secret_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "package", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "channel_id", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "region", PUSH_KEY_CHOICE, false, "china", 0, 0, regions },
	{ "endpoint", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ "codes_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};
static const char *const texts[] = { "app_secret_file", "package", "channel_id", "region", NULL };

static const char *host_of(const struct vendor_app *a)
{
	static const char *const hosts[] = { "https://api.xmpush.xiaomi.com", "https://api.xmpush.global.xiaomi.com", "https://fr.api.xmpush.global.xiaomi.com",
					     "https://ru.api.xmpush.global.xiaomi.com", "https://idmb.api.xmpush.global.xiaomi.com" };

	for (size_t i = 0; regions[i]; i++)
		if (strcmp(vendor_text(a, "region"), regions[i]) == 0 && a->endpoint[0] == '\0')
			return hosts[i];
	return a->endpoint;
}

static void request(const struct vendor_app *a, const struct push_send *s, bool minimal, const char *token, int64_t now_ms, struct push_request *r)
{
	char *payload = vendor_data_text(s), ttl[24], id[16];
	struct im_buf title, body;

	(void)token;
	im_buf_init(&title);
	im_buf_init(&body);
	vendor_title(s, minimal, 48, &title);   /* below 50 characters */
	vendor_body(s, minimal, 126, &body);    /* below 128 */
	push_request_url(r, "%s/v3/message/regid", host_of(a));
	push_request_header(r, "Authorization", "key=%s", vendor_text(a, "app_secret_file"));
	(void)snprintf(ttl, sizeof(ttl), "%lld", (long long)vendor_ttl_s(s, now_ms, 1, TTL_MOST_MS / 1000) * 1000);
	(void)snprintf(id, sizeof(id), "%d", vendor_notify_id(s));
	push_request_field(r, "registration_id", s->ticket->token->token);
	push_request_field(r, "restricted_package_name", vendor_text(a, "package"));
	push_request_field(r, "title", im_buf_text(&title));
	push_request_field(r, "description", im_buf_text(&body));
	push_request_field(r, "payload", payload ? payload : "");
	push_request_field(r, "pass_through", "0");
	push_request_field(r, "notify_type", s->ticket->silent ? "4" : "-1");
	push_request_field(r, "notify_id", id);
	push_request_field(r, "time_to_live", ttl);
	push_request_field(r, "extra.channel_id", vendor_text(a, "channel_id"));
	push_request_field(r, "extra.notify_effect", "1");
	push_request_field(r, "extra.jobkey", s->collapse);
	im_buf_finish(&title);
	im_buf_finish(&body);
	free(payload);
}

static void code(const json_t *answer, const char *token, char out[PUSH_REASON_MAX], char id[PUSH_REASON_MAX])
{
	(void)token;
	vendor_code_of(json_object_get(answer, "code"), out);
	vendor_code_of(json_object_get(json_object_get(answer, "data"), "id"), id);
}

const struct vendor vendor_xiaomi = {
	.provider = "xiaomi", .keys = keys, .texts = texts, .auth = VENDOR_AUTH_NONE, .request = request, .code = code,
};
