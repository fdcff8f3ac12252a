#include "vendor.h"

#include "base/clock.h"
#include "base/log.h"
#include "codes.h"
#include "push/sender.h"

#include <openssl/evp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATE_MS 10000       /* if a vendor says "too fast" and nothing more */
#define DAY_MS 86400000ll
#define SHANGHAI_MS (8ll * 3600 * 1000) /* no daylight saving; the vendors' day */
#define NEW_DAY_MS (5ll * 60 * 1000)    /* quotas begin anew a little after midnight */

struct app {
	struct push_sender sender;  /* first */
	struct vendor_app a;
	struct codes *codes;
	uint64_t unknown;           /* codes that are not in the table */
};

struct sending {
	struct push_sending sending; /* first */
	char *token;                 /* the device's: answers name it */
};

static void wipe(char *secret)
{
	if (secret)
		sodium_memzero(secret, strlen(secret));
	free(secret);
}

/* ---- results */

static int64_t next_day(int64_t now_ms)
{
	return (((now_ms + SHANGHAI_MS) / DAY_MS) + 1) * DAY_MS - SHANGHAI_MS + NEW_DAY_MS;
}

/* Without a code of its own an answer is judged by its status, and never against the token. */
static enum push_class class_of_status(int status)
{
	if (status == 401)
		return PUSH_AUTH;
	if (status == 429 || status == 503)
		return PUSH_RATE;
	if (status == 403 || status == 404)
		return PUSH_CONFIG;
	if (status == 413)
		return PUSH_TOO_LARGE;
	return status >= 400 && status < 500 ? PUSH_BUG : PUSH_RETRY;
}

static void judge(struct push_sending *s, const struct im_http_answer *http, int64_t retry_after_ms, struct push_result *r)
{
	struct app *a = (struct app *)s->sender;
	json_t *answer = json_loadb(http->body, http->len, 0, NULL);

	r->class = class_of_status(http->status);
	r->status = http->status;
	a->a.vendor->code(answer, ((struct sending *)s)->token, r->reason, r->provider_id);
	json_decref(answer);
	if (r->reason[0] && !codes_find(a->codes, r->reason, &r->class)) {
		a->unknown++;
		push_result_clean(r);
		im_log(IM_LOG_WARNING, "evt=push_code provider=%s app=%s status=%d code=\"%s\" why=\"not in the table\" then=\"tried again\"",
		       a->a.vendor->provider, s->sender->name, http->status, r->reason);
		r->class = PUSH_RETRY;
	}
	if (!r->reason[0])
		(void)snprintf(r->reason, sizeof(r->reason), "%d", http->status);
	if (r->class == PUSH_QUOTA)
		r->hold_until_ms = next_day(im_clock_wall_ms());
	r->retry_after_ms = retry_after_ms || r->class != PUSH_RATE ? retry_after_ms : RATE_MS;
	push_result_clean(r);
}

/* ---- sending */

static bool request(struct push_sending *s, const struct push_send *p, bool minimal, struct push_request *r)
{
	const struct app *a = (const struct app *)s->sender;
	struct sending *own = (struct sending *)s;

	own->token = strdup(p->ticket->token->token);
	a->a.vendor->request(&a->a, p, minimal, s->access, im_clock_wall_ms(), r);
	return own->token != NULL;
}

static void end(struct push_sending *s)
{
	wipe(((struct sending *)s)->token);
}

/* ---- access tokens */

static void access_request(void *arg, int64_t now_ms, struct push_request *r)
{
	struct app *a = arg;

	a->a.vendor->auth_request(&a->a, now_ms, r);
}

static const char *access_answer(void *arg, const struct json_t *answer, int64_t *life_s, char reason[PUSH_ACCESS_REASON])
{
	const struct app *a = arg;

	return a->a.vendor->auth_answer(answer, life_s, reason);
}

static bool access_sign(void *arg, int64_t now_ms, struct im_buf *out, int64_t *life_s)
{
	const struct app *a = arg;

	return a->a.vendor->auth_sign(&a->a, now_ms, out, life_s);
}

/* ---- apps */

static bool is_secret(const struct vendor *v, const char *key)
{
	const struct push_key *k = v->keys;

	while (k->name && strcmp(k->name, key) != 0)
		k++;
	return k->name && k->type == PUSH_KEY_SECRET;
}

/* A secret file's text without the line end that editors add. */
static char *secret_text(const struct push_app *from, const char *key)
{
	size_t len = 0;
	const char *text = push_app_file(from, key, &len);

	while (len && strchr(" \t\r\n", text[len - 1]))
		len--;
	return strndup(text ? text : "", len);
}

static enum im_status take_texts(struct app *a, const struct push_app *from, struct im_err *err)
{
	const struct vendor *v = a->a.vendor;

	for (size_t i = 0; v->texts[i]; i++) {
		const char *key = v->texts[i];

		if (is_secret(v, key))
			a->a.text[i] = secret_text(from, key);
		else
			a->a.text[i] = strdup(key[0] ? push_app_text(from, key) : "");
		if (!a->a.text[i])
			return im_fail(err, IM_FAILED, "out of memory");
		if (is_secret(v, key) && a->a.text[i][0] == '\0')
			return push_app_fault(from, key, err, "the file is empty");
	}
	return IM_OK;
}

/* Without the slash at the end. "": the vendor has no such key. */
static enum im_status take_endpoint(const struct push_app *from, const char *key, const char **out, struct im_err *err)
{
	const char *text = push_app_text(from, key);
	size_t len = strlen(text);
	enum im_status st = push_app_check_url(from, key, err);

	while (len && text[len - 1] == '/')
		len--;
	if (st == IM_OK && !(*out = strndup(text, len)))
		st = im_fail(err, IM_FAILED, "out of memory");
	return st;
}

static enum im_status read_codes(struct app *a, const struct push_app *from, struct im_err *err)
{
	struct im_err why = { "" };
	size_t len = 0;
	const char *text = push_app_has(from, "codes_file") ? push_app_file(from, "codes_file", &len) : NULL;
	enum im_status st = codes_read(a->a.vendor->provider, text, len, &a->codes, &why);

	if (st == IM_BAD_INPUT)
		return push_app_fault(from, "codes_file", err, "%s", why.text);
	return st == IM_OK ? st : im_fail(err, st, "%s", why.text);
}

static enum im_status app_open(struct push_sender *s, const struct push_app *from, struct im_http_options *http, struct push_access_source *source,
			       struct im_err *err)
{
	const struct vendor *v = push_sender_arg(s);
	struct app *a = (struct app *)s;
	enum im_status st;

	(void)http;
	a->a.vendor = v;
	st = take_texts(a, from, err);
	if (st == IM_OK)
		st = take_endpoint(from, "endpoint", &a->a.endpoint, err);
	if (st == IM_OK)
		st = take_endpoint(from, "auth_endpoint", &a->a.auth_endpoint, err);
	if (st == IM_OK && v->open)
		st = v->open(&a->a, from, err);
	if (st == IM_OK)
		st = read_codes(a, from, err);
	source->request = v->auth == VENDOR_AUTH_FETCH ? access_request : NULL;
	source->sign = v->auth == VENDOR_AUTH_SIGN ? access_sign : NULL;
	source->answer = access_answer;
	source->most_s = v->auth_most_s;
	return st;
}

static void app_close(struct push_sender *s)
{
	struct app *a = (struct app *)s;

	codes_free(a->codes);
	EVP_PKEY_free(a->a.key);
	for (size_t i = 0; i < sizeof(a->a.text) / sizeof(a->a.text[0]); i++)
		wipe(a->a.text[i]);
	free((char *)(uintptr_t)a->a.endpoint);
	free((char *)(uintptr_t)a->a.auth_endpoint);
}

/* ---- the drivers */

static void metrics(void *driver, struct im_buf *out)
{
	const struct push_sender *first = push_senders_first(driver);

	push_senders_metrics(driver, out);
	im_buf_add_str(out, "# TYPE push_unknown_code_total counter\n");
	for (const struct push_sender *s = first; s; s = s->next) {
		const struct app *a = (const struct app *)s;

		im_buf_printf(out, "push_unknown_code_total{provider=\"%s\",app=\"%s\"} %llu\n", a->a.vendor->provider, s->name,
			      (unsigned long long)a->unknown);
	}
}

/* Most vendors take 3,000 a second, none says how many at a time. The driver's start cannot say whose it is: each has its own. */
#define DRIVER(v)                                                                                                                              \
	static const struct push_sender_kind kind_##v = {                                                                                      \
		.provider = #v, .sender_size = sizeof(struct app), .sending_size = sizeof(struct sending), .most = 100, .connections = 8,      \
		.arg = &vendor_##v, .open = app_open, .close = app_close, .request = request, .judge = judge, .end = end,                      \
	};                                                                                                                                     \
	static enum im_status start_##v(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err)  \
	{                                                                                                                                      \
		return push_senders_start(&kind_##v, host, apps, n, out, err);                                                                 \
	}
DRIVER(huawei)
DRIVER(harmony)
DRIVER(xiaomi)
DRIVER(oppo)
DRIVER(vivo)
DRIVER(honor)

bool vendor_driver(const char *provider, struct push_driver *out)
{
	static const struct {
		const struct vendor *vendor;
		enum im_status (*start)(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err);
	} all[] = { { &vendor_huawei, start_huawei }, { &vendor_harmony, start_harmony }, { &vendor_xiaomi, start_xiaomi },
		    { &vendor_oppo, start_oppo }, { &vendor_vivo, start_vivo }, { &vendor_honor, start_honor } };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (strcmp(all[i].vendor->provider, provider) != 0)
			continue;
		*out = (struct push_driver){
			.provider = all[i].vendor->provider, .program = "im-vendor-bridge", .keys = all[i].vendor->keys, .start = all[i].start,
			.reload = push_senders_reload, .room = push_senders_room, .send = push_senders_send, .metrics = metrics,
			.drain = push_senders_drain, .stop = push_senders_stop,
		};
		return true;
	}
	return false;
}
