#include "vapid.h"

#include "base/buf.h"
#include "push/app.h"
#include "push/jose.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define LIFE_S (12l * 3600)     /* a push service takes 24 h at most */
#define SPARE_S 3600            /* a new one is made so long before the end */
#define ORIGINS_MOST 64u        /* kept; there are a handful of browsers' services, and endpoints are the users' to name */
#define SUBJECT_MOST 256u

struct origin {
	UT_hash_handle hh;          /* the oldest first */
	int64_t expires_s;
	char *header;
	char name[];
};

struct vapid {
	EVP_PKEY *key;
	char *subject;
	char point[96];             /* our public key, base64url */
	struct origin *origins;
};

static void origin_free(struct vapid *v, struct origin *o)
{
	HASH_DEL(v->origins, o);
	free(o->header);
	free(o);
}

static char *make_header(const struct vapid *v, const char *origin, int64_t expires_s)
{
	struct im_buf b, claims;
	char *header = NULL;

	im_buf_init(&b);
	im_buf_init(&claims);
	im_buf_printf(&claims, "{\"aud\":\"%s\",\"exp\":%lld,\"sub\":\"%s\"}", origin, (long long)expires_s, v->subject);
	im_buf_add_str(&b, "vapid t=");
	if (!claims.failed && push_jws_sign(&b, PUSH_JWS_ES256, v->key, "{\"typ\":\"JWT\",\"alg\":\"ES256\"}", im_buf_text(&claims))) {
		im_buf_printf(&b, ", k=%s", v->point);
		header = b.failed ? NULL : strdup(im_buf_text(&b));
	}
	im_buf_finish(&claims);
	im_buf_finish(&b);
	return header;
}

const char *vapid_header(struct vapid *v, const char *origin, int64_t now_ms)
{
	int64_t now_s = now_ms / 1000;
	size_t len = strlen(origin);
	struct origin *o;

	HASH_FIND(hh, v->origins, origin, len, o);
	if (o && o->expires_s - now_s > SPARE_S && o->expires_s - now_s <= LIFE_S) /* more: the clock was set back */
		return o->header;
	if (o)
		origin_free(v, o);
	else if (HASH_COUNT(v->origins) >= ORIGINS_MOST)
		origin_free(v, v->origins);
	o = calloc(1, sizeof(*o) + len + 1);
	if (!o)
		return NULL;
	memcpy(o->name, origin, len + 1);
	o->expires_s = now_s + LIFE_S;
	o->header = make_header(v, origin, o->expires_s);
	if (!o->header) {
		free(o);
		return NULL;
	}
	HASH_ADD_KEYPTR(hh, v->origins, o->name, len, o);
	return o->header;
}

/* ---- making */

/* It goes into JSON as it is; services refuse blanks and angle brackets. */
static const char *subject_problem(const char *s)
{
	if (strlen(s) > SUBJECT_MOST)
		return "is too long";
	for (const char *p = s; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f || strchr("\"\\<>", *p))
			return "has blanks or other characters that push services refuse";
	if (strncmp(s, "mailto:", 7) == 0)
		return strchr(s + 7, '@') && s[7] != '@' ? NULL : "is no mailto: address";
	if (strncmp(s, "https://", 8) == 0)
		return strncmp(s + 8, "localhost", 9) != 0 && s[8] ? NULL : "must name a site that push services can see";
	return "must be mailto:you@your.domain or https://your.site";
}

static enum im_status read_key(struct vapid *v, const struct push_app *app, struct im_err *err)
{
	uint8_t point[65];
	struct im_buf b;
	size_t len = 0;
	const char *pem = push_app_file(app, "vapid_key_file", &len);

	v->key = pem ? push_key_read(pem, len) : NULL;
	if (!v->key)
		return push_app_fault(app, "vapid_key_file", err, "holds no private key in PEM (openssl ecparam -genkey -name prime256v1 -noout)");
	if (!push_key_is_p256(v->key))
		return push_app_fault(app, "vapid_key_file", err, "is not a key on the curve P-256 (prime256v1)");
	if (EVP_PKEY_get_octet_string_param(v->key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point), &len) != 1 || len != sizeof(point))
		return push_app_fault(app, "vapid_key_file", err, "has no public part");
	im_buf_init(&b);
	push_base64url_add(&b, point, sizeof(point));
	(void)snprintf(v->point, sizeof(v->point), "%s", b.failed ? "" : im_buf_text(&b));
	im_buf_finish(&b);
	return v->point[0] ? IM_OK : im_fail(err, IM_FAILED, "out of memory");
}

enum im_status vapid_create(const struct push_app *app, struct vapid **out, struct im_err *err)
{
	const char *subject = push_app_text(app, "subject"), *problem = subject_problem(subject);
	struct vapid *v;
	enum im_status st;

	if (problem)
		return push_app_fault(app, "subject", err, "\"%s\" %s", subject, problem);
	v = calloc(1, sizeof(*v));
	if (!v || !(v->subject = strdup(subject)))
		st = im_fail(err, IM_FAILED, "out of memory");
	else
		st = read_key(v, app, err);
	if (st != IM_OK) {
		vapid_destroy(v);
		return st;
	}
	*out = v;
	return IM_OK;
}

void vapid_destroy(struct vapid *v)
{
	if (!v)
		return;
	while (v->origins)
		origin_free(v, v->origins);
	EVP_PKEY_free(v->key);
	free(v->subject);
	free(v);
}
