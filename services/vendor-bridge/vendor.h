/*
 * Push vendors of China. They are alike: an access token that is asked for or signed (or a fixed key), one HTTPS request a
 * notification, and a code in the answer's body, whatever its status. vendor.c is the driver of all of them; a vendor is a table
 * of what differs (huawei.c ...). One process per vendor: `im-vendor-bridge huawei --config FILE`.
 *
 * Instant messages must be declared as such, or a device gets a handful a day, silently: Huawei, HarmonyOS, OPPO and vivo by
 * category, Honor by importance, Xiaomi by an approved channel_id. Keys of {im_push_dir}/{provider}.{app}.conf stand in each file.
 */
#ifndef VENDOR_VENDOR_H
#define VENDOR_VENDOR_H

#include "base/buf.h"
#include "push/access.h"
#include "push/driver.h"

#include <jansson.h>

/* What the vendor's functions know of an app. Strings of the app's file, secrets too, live as long as the app. */
struct vendor_app {
	const struct vendor *vendor;
	const char *endpoint, *auth_endpoint;   /* without a slash at the end */
	char *text[10];                         /* values of vendor->texts, in that order; "" if not given */
	struct evp_pkey_st *key;                /* harmony */
};

enum vendor_auth {
	VENDOR_AUTH_NONE,   /* a fixed key in each request */
	VENDOR_AUTH_FETCH,  /* auth_request, auth_answer */
	VENDOR_AUTH_SIGN,   /* auth_sign */
};

struct vendor {
	const char *provider;
	const struct push_key *keys;
	const char *const *texts;               /* names of keys that become vendor_app.text; ends with NULL */
	enum vendor_auth auth;
	int64_t auth_most_s;                    /* an access token is renewed after so long, whatever the answer said */
	/* Checks and takes what is special; NULL: nothing is. */
	enum im_status (*open)(struct vendor_app *a, const struct push_app *from, struct im_err *err);
	void (*auth_request)(const struct vendor_app *a, int64_t now_ms, struct push_request *out);
	/* The token in a JSON answer and its life (0: not said); NULL: none, *code says why. */
	const char *(*auth_answer)(const json_t *answer, int64_t *life_s, char code[PUSH_REASON_MAX]);
	bool (*auth_sign)(const struct vendor_app *a, int64_t now_ms, struct im_buf *out, int64_t *life_s);
	/* token: the access token, "" with VENDOR_AUTH_NONE. */
	void (*request)(const struct vendor_app *a, const struct push_send *s, bool minimal, const char *token, int64_t now_ms,
			struct push_request *out);
	/* The answer's code as text, and if it has one the notification's id. `token`: the device's. NULL body: not JSON. */
	void (*code)(const json_t *answer, const char *token, char code[PUSH_REASON_MAX], char id[PUSH_REASON_MAX]);
};

extern const struct vendor vendor_huawei, vendor_harmony, vendor_xiaomi, vendor_oppo, vendor_vivo, vendor_honor;
/* false: no such vendor. */
bool vendor_driver(const char *provider, struct push_driver *out);

/* ---- for the tables */

/* OAuth 2 client credentials, of the texts client_id and client_secret_file: for auth_request and as auth_answer. */
void vendor_oauth_request(const struct vendor_app *a, const char *path, struct push_request *out);
const char *vendor_oauth_answer(const json_t *answer, int64_t *life_s, char code[PUSH_REASON_MAX]);


void vendor_code_of(const json_t *value, char code[PUSH_REASON_MAX]); /* a number or a string */
const char *vendor_text(const struct vendor_app *a, const char *name);

/* What is shown, cut to so many characters of the vendor's limit, in UTF-8 bytes. Appended. */
void vendor_title(const struct push_send *s, bool minimal, size_t most, struct im_buf *out);
void vendor_body(const struct push_send *s, bool minimal, size_t most, struct im_buf *out);
json_t *vendor_data(const struct push_send *s); /* conv, msgid, seq, badge ...: what the app needs; NULL: out of memory */
char *vendor_data_text(const struct push_send *s); /* the same as JSON; NULL: out of memory */
int vendor_notify_id(const struct push_send *s); /* 1 .. 2^31-1, the same for a conversation: replaces what is shown of it */
int64_t vendor_ttl_s(const struct push_send *s, int64_t now_ms, int64_t least, int64_t most);

#endif
