#include "account.h"

#include "push/jose.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCOPE "https://www.googleapis.com/auth/firebase.messaging"
#define GRANT "urn:ietf:params:oauth:grant-type:jwt-bearer"
#define RSA_LEAST 2048

struct account {
	EVP_PKEY *key;
	char *email, *kid, *project, *audience, *endpoint;
};

const char *account_project(const struct account *a)
{
	return a->project;
}

void account_request(const struct account *a, int64_t now_ms, struct push_request *r)
{
	int64_t now = now_ms / 1000;
	json_t *header = json_pack("{s:s,s:s,s:s}", "alg", "RS256", "typ", "JWT", "kid", a->kid);
	json_t *claims = json_pack("{s:s,s:s,s:s,s:I,s:I}", "iss", a->email, "scope", SCOPE, "aud", a->audience, "iat", (json_int_t)now, "exp",
				   (json_int_t)now + ACCOUNT_LIFE_S);
	char *h = header ? json_dumps(header, JSON_COMPACT) : NULL, *c = claims ? json_dumps(claims, JSON_COMPACT) : NULL;
	struct im_buf jwt;

	im_buf_init(&jwt);
	push_request_url(r, "%s", a->endpoint);
	push_request_field(r, "grant_type", GRANT);
	if (h && c && push_jws_sign(&jwt, PUSH_JWS_RS256, a->key, h, c))
		push_request_field(r, "assertion", im_buf_text(&jwt));
	else
		r->failed = true;
	im_buf_finish(&jwt);
	json_decref(header);
	json_decref(claims);
	free(h);
	free(c);
}

const char *account_answer(const struct json_t *answer, int64_t *life_s, char reason[PUSH_ACCESS_REASON])
{
	const char *error = json_string_value(json_object_get(answer, "error"));

	(void)snprintf(reason, PUSH_ACCESS_REASON, "%s", error ? error : "");
	*life_s = json_integer_value(json_object_get(answer, "expires_in"));
	return json_string_value(json_object_get(answer, "access_token"));
}

/* ---- the file */

static enum im_status wrong(const struct push_app *app, struct im_err *err, const char *what)
{
	return push_app_fault(app, "service_account_file", err, "%s", what);
}

static char *copy(const json_t *account, const char *field)
{
	const char *s = json_string_value(json_object_get(account, field));

	return s && s[0] ? strdup(s) : NULL;
}

static bool is_project(const char *s)
{
	size_t len = strlen(s);

	return len > 0 && len <= 64 && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-:.") == len;
}

static enum im_status read_file(struct account *a, const struct push_app *app, struct im_err *err)
{
	size_t len = 0;
	const char *text = push_app_file(app, "service_account_file", &len);
	json_t *account = text ? json_loadb(text, len, 0, NULL) : NULL;
	const char *pem = json_string_value(json_object_get(account, "private_key")), *type = json_string_value(json_object_get(account, "type"));
	enum im_status st = IM_OK;

	a->email = copy(account, "client_email");
	a->kid = copy(account, "private_key_id");
	a->project = copy(account, "project_id");
	a->audience = copy(account, "token_uri");
	a->key = pem ? push_key_read(pem, strlen(pem)) : NULL;
	if (!account)
		st = wrong(app, err, "is not JSON; take the file of the Firebase console (Project settings, Service accounts)");
	else if (!type || strcmp(type, "service_account") != 0 || !a->email || !a->kid || !a->project || !a->audience || !pem)
		st = wrong(app, err, "is no service account: type, project_id, private_key_id, private_key, client_email and token_uri are needed");
	else if (!a->key)
		st = wrong(app, err, "has a private_key that is no PEM key");
	else if (push_key_rsa_bits(a->key) < RSA_LEAST)
		st = wrong(app, err, "has a private_key that is no RSA key of at least 2048 bits");
	else if (!is_project(a->project))
		st = wrong(app, err, "has a project_id that is none");
	json_decref(account);
	return st;
}

enum im_status account_create(const struct push_app *app, struct account **out, struct im_err *err)
{
	struct account *a = calloc(1, sizeof(*a));
	enum im_status st = a ? read_file(a, app, err) : im_fail(err, IM_FAILED, "out of memory");

	if (st == IM_OK && !(a->endpoint = strdup(push_app_has(app, "token_endpoint") ? push_app_text(app, "token_endpoint") : a->audience)))
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st != IM_OK) {
		account_destroy(a);
		return st;
	}
	*out = a;
	return IM_OK;
}

void account_destroy(struct account *a)
{
	if (!a)
		return;
	EVP_PKEY_free(a->key);
	free(a->email);
	free(a->kid);
	free(a->project);
	free(a->audience);
	free(a->endpoint);
	free(a);
}
