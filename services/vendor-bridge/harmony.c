/*
 * Huawei Push Kit for HarmonyOS 5 and later ("NEXT"): a JWT signed with the service account's key (PS256), POST
 * /v3/{project_id}/messages:send with push-type. Another service than huawei.c: tokens of one do not work at the other.
 * developer.huawei.com/consumer/en/doc/harmonyos-references/push-scenariozed-api-request
 */
#include "vendor.h"

#include "push/app.h"
#include "push/jose.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AUDIENCE "https://oauth-login.cloud.huawei.com/oauth2/v3/token" /* constant: it is what the JWT stands for */
#define LIFE_S 3600
#define TTL_MOST_S 1296000

static const struct push_key keys[] = {
	{ "service_account_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "project_id", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "category", PUSH_KEY_TEXT, false, "IM", 0, 0, NULL },
	{ "endpoint", PUSH_KEY_TEXT, false, "https://push-api.cloud.huawei.com", 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ "codes_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};
/* The last two come from the account's file. */
static const char *const texts[] = { "project_id", "category", "", "", NULL };
enum { PROJECT, CATEGORY, KID, ISSUER };

static bool take(struct vendor_app *a, int at, const json_t *account, const char *field)
{
	const char *value = json_string_value(json_object_get(account, field));

	if (a->text[at][0] == '\0' && value) {
		free(a->text[at]);
		a->text[at] = strdup(value);
	}
	return a->text[at] && a->text[at][0];
}

static enum im_status open_app(struct vendor_app *a, const struct push_app *from, struct im_err *err)
{
	size_t len = 0;
	const char *text = push_app_file(from, "service_account_file", &len);
	json_t *account = text ? json_loadb(text, len, 0, NULL) : NULL;
	const char *pem = json_string_value(json_object_get(account, "private_key"));
	enum im_status st = IM_OK;

	a->key = pem ? push_key_read(pem, strlen(pem)) : NULL;
	if (!account)
		st = push_app_fault(from, "service_account_file", err, "is not JSON; take the file of AppGallery Connect (API Console, service account)");
	else if (!take(a, PROJECT, account, "project_id") || !take(a, KID, account, "key_id") || !take(a, ISSUER, account, "sub_account"))
		st = push_app_fault(from, "service_account_file", err, "lacks project_id, key_id or sub_account");
	else if (!a->key || push_key_rsa_bits(a->key) < 2048)
		st = push_app_fault(from, "service_account_file", err, "has no private_key that is RSA in PEM, of at least 2048 bits");
	json_decref(account);
	return st;
}

static bool auth_sign(const struct vendor_app *a, int64_t now_ms, struct im_buf *out, int64_t *life_s)
{
	json_t *header = json_pack("{s:s,s:s,s:s}", "alg", "PS256", "typ", "JWT", "kid", a->text[KID]);
	json_t *claims = json_pack("{s:s,s:s,s:I,s:I}", "iss", a->text[ISSUER], "aud", AUDIENCE, "iat", (json_int_t)(now_ms / 1000), "exp",
				   (json_int_t)(now_ms / 1000) + LIFE_S);
	char *h = header ? json_dumps(header, JSON_COMPACT) : NULL, *c = claims ? json_dumps(claims, JSON_COMPACT) : NULL;
	bool ok = h && c && push_jws_sign(out, PUSH_JWS_PS256, a->key, h, c);

	*life_s = LIFE_S;
	json_decref(header);
	json_decref(claims);
	free(h);
	free(c);
	return ok;
}

static void request(const struct vendor_app *a, const struct push_send *s, bool minimal, const char *token, int64_t now_ms, struct push_request *r)
{
	struct im_buf title, body;
	json_t *notification;

	im_buf_init(&title);
	im_buf_init(&body);
	vendor_title(s, minimal, 150, &title);
	vendor_body(s, minimal, 1000, &body);
	notification = json_pack("{s:s,s:s,s:s,s:{s:i,s:o},s:i}", "category", a->text[CATEGORY], "title", im_buf_text(&title), "body", im_buf_text(&body),
				 "clickAction", "actionType", 0, "data", vendor_data(s), "notifyId", vendor_notify_id(s));
	im_buf_finish(&title);
	im_buf_finish(&body);
	if (s->ticket->has_badge)
		json_object_set_new(notification, "badge", json_pack("{s:i}", "setNum", (int)(s->ticket->badge > 99 ? 99 : s->ticket->badge)));
	push_request_url(r, "%s/v3/%s/messages:send", a->endpoint, a->text[PROJECT]);
	push_request_header(r, "Authorization", "Bearer %s", token);
	push_request_header(r, "push-type", "0");
	push_request_json(r, json_pack("{s:{s:o},s:{s:[s]},s:{s:I}}", "payload", "notification", notification, "target", "token", s->ticket->token->token,
				       "pushOptions", "ttl", (json_int_t)vendor_ttl_s(s, now_ms, 1, TTL_MOST_S)));
}

/* Of what is refused the cause counts: the same code says that a token is dead and that the app is punished. */
static void code(const json_t *answer, const char *token, char out[PUSH_REASON_MAX], char id[PUSH_REASON_MAX])
{
	const char *text = json_string_value(json_object_get(answer, "msg")), *cause;
	json_t *msg, *list, *v;
	size_t i;

	vendor_code_of(json_object_get(answer, "code"), out);
	vendor_code_of(json_object_get(answer, "requestId"), id);
	if (strcmp(out, "80100000") != 0 && strcmp(out, "80300007") != 0)
		return;
	msg = text ? json_loads(text, 0, NULL) : NULL;
	json_object_foreach (json_object_get(msg, "illegalTokens"), cause, list)
		json_array_foreach (list, i, v)
			if (json_is_string(v) && strcmp(json_string_value(v), token) == 0)
				(void)snprintf(out, PUSH_REASON_MAX, "cause.%s", cause);
	json_decref(msg);
}

const struct vendor vendor_harmony = {
	.provider = "harmony", .keys = keys, .texts = texts, .auth = VENDOR_AUTH_SIGN, .auth_most_s = LIFE_S, .open = open_app, .auth_sign = auth_sign,
	.request = request, .code = code,
};
