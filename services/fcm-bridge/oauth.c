#include "oauth.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "push/app.h"
#include "push/driver.h"
#include "push/jose.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCOPE "https://www.googleapis.com/auth/firebase.messaging"
#define GRANT "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="
#define LIFE_S 3600            /* of the assertion, and the usual one of a token */
#define SPARE_S 300            /* a new token is fetched so long before the old one ends */
#define LEAST_S 30             /* between two fetches, whatever is said: an endpoint that gives tokens of a second must not be hammered */
#define TOKEN_MOST 8192u       /* bytes; Google's have some 1,000 */
#define BACKOFF_MS 2000        /* doubles with each failure ... */
#define BACKOFF_MOST_MS 300000
#define CONFIG_MS 600000       /* our credential is wrong: mending it means a reload; this is in case it was mended on the other side */
#define RSA_LEAST 2048

struct oauth {
	struct im_http *http;
	struct im_timer *timer;
	oauth_ready_fn *ready;
	void *arg;
	EVP_PKEY *key;
	char *email, *kid, *project, *endpoint, *audience;
	char *token;
	int64_t ends_ms;           /* monotonic */
	int64_t fetched_ms;
	bool fetching, expired;
	unsigned failures;
	uint64_t fetches;
};

const char *oauth_token(const struct oauth *o)
{
	return o->token && !o->expired && im_clock_mono_ms() < o->ends_ms ? o->token : NULL;
}

const char *oauth_project(const struct oauth *o)
{
	return o->project;
}

uint64_t oauth_fetches(const struct oauth *o)
{
	return o->fetches;
}

/* ---- fetching */

static void forget_token(struct oauth *o)
{
	if (o->token)
		sodium_memzero(o->token, strlen(o->token));
	free(o->token);
	o->token = NULL;
}

static void again_in(struct oauth *o, int64_t ms)
{
	im_timer_start(o->timer, (uint64_t)(ms < 1 ? 1 : ms), 0);
}

static void failed(struct oauth *o, bool config, const char *what, int64_t retry_after_ms)
{
	int64_t most = BACKOFF_MOST_MS, wait = BACKOFF_MS;

	for (unsigned i = 0; i < o->failures && wait < most; i++)
		wait *= 2;
	o->failures++;
	wait = wait < most ? wait : most;
	wait = config ? CONFIG_MS : wait / 2 + (int64_t)randombytes_uniform((uint32_t)(wait / 2) + 1);
	if (retry_after_ms > wait)
		wait = retry_after_ms;
	im_log(config ? IM_LOG_ERROR : IM_LOG_WARNING, "evt=oauth account=%s why=\"%s\" again_ms=%lld then=\"pushes wait\"", o->email, what,
	       (long long)wait);
	again_in(o, wait);
}

static bool is_token(const char *s)
{
	size_t len = strlen(s);

	if (len == 0 || len > TOKEN_MOST)
		return false;
	for (; *s; s++)
		if (*s <= 0x20 || *s >= 0x7f)
			return false; /* it goes into a header */
	return true;
}

/* Seconds that a token lasts; what makes no sense counts as little. */
static int64_t life_of(const json_t *answer)
{
	const json_t *n = json_object_get(answer, "expires_in");
	int64_t s = json_is_integer(n) ? json_integer_value(n) : 0;

	return s < 2 * LEAST_S ? 2 * LEAST_S : s > LIFE_S ? LIFE_S : s;
}

static void take(struct oauth *o, const json_t *answer)
{
	const char *token = json_string_value(json_object_get(answer, "access_token"));
	int64_t life = life_of(answer), now = im_clock_mono_ms();

	if (!token || !is_token(token)) {
		failed(o, false, "the token endpoint answered without a token", 0);
		return;
	}
	forget_token(o);
	o->token = strdup(token);
	o->ends_ms = now + life * 1000;
	o->expired = false;
	o->failures = 0;
	again_in(o, (life > 2 * SPARE_S ? life - SPARE_S : life / 2) * 1000);
	o->ready(o->arg);
}

static void on_answer(void *arg, const struct im_http_answer *a)
{
	struct oauth *o = arg;
	json_t *answer = json_loads(a->body, 0, NULL);
	const char *error = json_string_value(json_object_get(answer, "error"));
	const char *after = a->error == IM_HTTP_OK ? im_http_header(a, "retry-after") : NULL;
	char what[128];

	o->fetching = false;
	(void)snprintf(what, sizeof(what), "token endpoint: %s %d %s", a->error == IM_HTTP_OK ? "status" : a->why, a->status, error ? error : "");
	for (char *p = what; *p; p++)
		if (*p < 0x20 || *p >= 0x7f || *p == '"')
			*p = '?';
	if (a->error == IM_HTTP_OK && a->status == 200)
		take(o, answer);
	else
		failed(o, a->error == IM_HTTP_UNTRUSTED || (a->status >= 400 && a->status < 500 && a->status != 429 && a->status != 408), what,
		       after ? push_retry_after(after, im_clock_wall_ms()) : 0);
	json_decref(answer);
}

static bool write_body(const struct oauth *o, struct im_buf *out)
{
	int64_t now = im_clock_wall_ms() / 1000;
	json_t *header = json_pack("{s:s,s:s,s:s}", "alg", "RS256", "typ", "JWT", "kid", o->kid);
	json_t *claims = json_pack("{s:s,s:s,s:s,s:I,s:I}", "iss", o->email, "scope", SCOPE, "aud", o->audience, "iat", (json_int_t)now, "exp",
				   (json_int_t)(now + LIFE_S));
	char *h = header ? json_dumps(header, JSON_COMPACT) : NULL, *c = claims ? json_dumps(claims, JSON_COMPACT) : NULL;
	bool ok = h && c;

	im_buf_add_str(out, GRANT);
	ok = ok && push_jws_sign(out, PUSH_JWS_RS256, o->key, h, c);
	json_decref(header);
	json_decref(claims);
	free(h);
	free(c);
	return ok;
}

static void fetch(void *arg)
{
	static const char *const headers[] = { "Content-Type: application/x-www-form-urlencoded", NULL };
	struct oauth *o = arg;
	int64_t now = im_clock_mono_ms(), soonest = o->fetched_ms + LEAST_S * 1000;
	struct im_buf body;
	bool ok;

	if (o->fetching)
		return;
	if (o->fetched_ms && o->failures == 0 && now < soonest) {
		again_in(o, soonest - now);
		return;
	}
	im_buf_init(&body);
	ok = write_body(o, &body) && im_http_post(o->http, o->endpoint, headers, body.data, body.len, on_answer, o) == IM_OK;
	im_buf_finish(&body);
	o->fetching = ok;
	o->fetched_ms = now;
	o->fetches++;
	if (!ok)
		failed(o, false, "out of memory", 0);
}

void oauth_refused(struct oauth *o, const char *token)
{
	if (!o->token || strcmp(token, o->token) != 0 || o->expired)
		return; /* an older one */
	o->expired = true;
	fetch(o);
}

/* ---- the account */

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

static enum im_status read_account(struct oauth *o, const struct push_app *app, struct im_err *err)
{
	size_t len = 0;
	const char *text = push_app_file(app, "service_account_file", &len);
	json_t *account = text ? json_loadb(text, len, 0, NULL) : NULL;
	const char *pem = json_string_value(json_object_get(account, "private_key")), *type = json_string_value(json_object_get(account, "type"));
	enum im_status st = IM_OK;

	o->email = copy(account, "client_email");
	o->kid = copy(account, "private_key_id");
	o->project = copy(account, "project_id");
	o->audience = copy(account, "token_uri");
	o->key = pem ? push_key_read(pem, strlen(pem)) : NULL;
	if (!account)
		st = wrong(app, err, "is not JSON; take the file of the Firebase console (Project settings, Service accounts)");
	else if (!type || strcmp(type, "service_account") != 0 || !o->email || !o->kid || !o->project || !o->audience || !pem)
		st = wrong(app, err, "is no service account: type, project_id, private_key_id, private_key, client_email and token_uri are needed");
	else if (!o->key)
		st = wrong(app, err, "has a private_key that is no PEM key");
	else if (push_key_rsa_bits(o->key) < RSA_LEAST)
		st = wrong(app, err, "has a private_key that is no RSA key of at least 2048 bits");
	else if (!is_project(o->project))
		st = wrong(app, err, "has a project_id that is none");
	json_decref(account);
	return st;
}

enum im_status oauth_create(struct im_loop *loop, struct im_http *http, const struct push_app *app, oauth_ready_fn *ready, void *arg,
			    struct oauth **out, struct im_err *err)
{
	struct oauth *o = calloc(1, sizeof(*o));
	enum im_status st;

	if (!o)
		return im_fail(err, IM_FAILED, "out of memory");
	o->http = http;
	o->ready = ready;
	o->arg = arg;
	o->timer = im_timer_create(loop, fetch, o);
	st = read_account(o, app, err);
	if (st == IM_OK)
		o->endpoint = strdup(push_app_has(app, "token_endpoint") ? push_app_text(app, "token_endpoint") : o->audience);
	if (st == IM_OK && (!o->timer || !o->endpoint))
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st != IM_OK) {
		oauth_destroy(o);
		return st;
	}
	again_in(o, 1);
	*out = o;
	return IM_OK;
}

void oauth_destroy(struct oauth *o)
{
	if (!o)
		return;
	forget_token(o);
	im_timer_destroy(o->timer);
	EVP_PKEY_free(o->key);
	free(o->email);
	free(o->kid);
	free(o->project);
	free(o->endpoint);
	free(o->audience);
	free(o);
}
