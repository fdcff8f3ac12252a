#include "vendor.h"

#include "base/clock.h"
#include "base/log.h"
#include "codes.h"

#include <openssl/evp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_FLIGHT_MOST 100u /* of an app: most vendors take 3,000 a second, none says how many at a time */
#define CONNECTIONS 8u
#define RATE_MS 10000       /* if a vendor says "too fast" and nothing more */
#define DAY_MS 86400000ll
#define SHANGHAI_MS (8ll * 3600 * 1000) /* no daylight saving; the vendors' day */
#define NEW_DAY_MS (5ll * 60 * 1000)    /* quotas begin anew a little after midnight */

struct app {
	struct app *next;
	struct vendor_app a;
	struct driver *driver;
	char *name;
	struct im_http *http;
	struct push_access *access; /* NULL: a fixed key */
	struct codes *codes;
	unsigned n;                 /* under way */
	uint64_t unknown;           /* codes that are not in the table */
	uint64_t answers[6];
};

struct driver {
	const struct vendor *vendor;
	const struct push_host *host;
	struct app *apps;
	struct sending *all;
	bool draining;
};

struct sending {
	struct sending *prev, *next;
	struct app *app;            /* NULL: it was replaced by a reload */
	struct driver *driver;
	uint64_t row;
	char *token, *access;       /* the device's, ours */
	bool soon;                  /* nothing was sent: told in a moment */
};

/* ---- results */

static void wipe(char *secret)
{
	if (secret)
		sodium_memzero(secret, strlen(secret));
	free(secret);
}

static void sending_free(struct sending *s)
{
	*(s->prev ? &s->prev->next : &s->driver->all) = s->next;
	if (s->next)
		s->next->prev = s->prev;
	if (s->app)
		s->app->n--;
	wipe(s->token);
	wipe(s->access);
	free(s);
}

static void tell(struct sending *s, const struct push_result *r)
{
	struct driver *d = s->driver;
	uint64_t row = s->row;

	sending_free(s);
	d->host->result(d->host->arg, row, r);
	d->host->room(d->host->arg);
}

static void tell_unsent(void *arg)
{
	struct push_result r = { .class = PUSH_UNSENT, .reason = "not sent" };

	tell(arg, &r);
}

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

static void judge(struct app *a, const struct sending *s, const struct im_http_answer *http, struct push_result *r)
{
	json_t *answer = json_loadb(http->body, http->len, 0, NULL);
	const char *after = im_http_header(http, "retry-after");
	int64_t now = im_clock_wall_ms();

	*r = (struct push_result){ .class = class_of_status(http->status), .status = http->status };
	a->a.vendor->code(answer, s->token, r->reason, r->provider_id);
	if (r->reason[0] && !codes_find(a->codes, r->reason, &r->class)) {
		a->unknown++;
		im_log(IM_LOG_WARNING, "evt=push_code provider=%s app=%s status=%d code=%s why=\"not in the table\" then=\"tried again\"",
		       a->a.vendor->provider, a->name, http->status, r->reason);
		r->class = PUSH_RETRY;
	}
	if (!r->reason[0])
		(void)snprintf(r->reason, sizeof(r->reason), "%d", http->status);
	if (r->class == PUSH_QUOTA)
		r->hold_until_ms = next_day(now);
	if (after)
		r->retry_after_ms = push_retry_after(after, now);
	else if (r->class == PUSH_RATE)
		r->retry_after_ms = RATE_MS;
	for (char *p = r->reason; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f || *p == '"')
			*p = '?';
	json_decref(answer);
}

static void on_answer(void *arg, const struct im_http_answer *http)
{
	static const struct {
		enum push_class class;
		const char *reason;
	} failures[] = {
		[IM_HTTP_UNREACHABLE] = { PUSH_UNREACHABLE, "unreachable" }, [IM_HTTP_UNTRUSTED] = { PUSH_CONFIG, "untrusted certificate" },
		[IM_HTTP_FORBIDDEN] = { PUSH_CONFIG, "endpoint not allowed" }, [IM_HTTP_TIMEOUT] = { PUSH_UNKNOWN, "timeout" },
		[IM_HTTP_BROKEN] = { PUSH_UNKNOWN, "broken" },
	};
	struct sending *s = arg;
	struct push_result r = { .class = PUSH_UNKNOWN };

	s->app->answers[http->error == IM_HTTP_OK && http->status < 600 ? http->status / 100 : 0]++;
	if (http->error == IM_HTTP_OK) {
		judge(s->app, s, http, &r);
	} else {
		r.class = failures[http->error].class;
		(void)snprintf(r.reason, sizeof(r.reason), "%s", failures[http->error].reason);
	}
	if (r.class == PUSH_AUTH && s->app->access)
		push_access_refused(s->app->access, s->access);
	else if (r.class == PUSH_AUTH)
		r.class = PUSH_CONFIG; /* a fixed key does not get better */
	tell(s, &r);
}

/* ---- sending */

static struct app *app_find(const struct driver *d, const char *name)
{
	struct app *a = d->apps;

	while (a && strcmp(a->name, name) != 0)
		a = a->next;
	return a;
}

static const char *access_of(const struct app *a)
{
	return a->access ? push_access_token(a->access) : "";
}

static struct sending *sending_create(struct app *a, uint64_t row, const char *token, const char *access)
{
	struct sending *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->app = a;
	s->driver = a->driver;
	s->row = row;
	s->token = strdup(token);
	s->access = access ? strdup(access) : NULL;
	s->next = s->driver->all;
	if (s->next)
		s->next->prev = s;
	s->driver->all = s;
	a->n++;
	return s;
}

static void driver_send(void *driver, const struct push_send *p, bool minimal)
{
	struct driver *d = driver;
	struct app *a = app_find(d, p->ticket->token->app);
	const char *access = a ? access_of(a) : NULL;
	struct sending *s = a ? sending_create(a, p->row, p->ticket->token->token, access) : NULL;
	struct push_result r = { .class = PUSH_UNSENT, .reason = "not sent" };
	struct push_request request;
	bool sent = false;

	if (s && s->token && s->access) {
		push_request_init(&request);
		d->vendor->request(&a->a, p, minimal, s->access, im_clock_wall_ms(), &request);
		sent = push_request_post(&request, a->http, on_answer, s) == IM_OK;
		push_request_finish(&request);
	}
	if (sent)
		return;
	if (s)
		s->soon = true;
	if (!s || im_loop_defer(d->host->loop, tell_unsent, s) != IM_OK) { /* no memory: better inside the call than never */
		if (s)
			sending_free(s);
		d->host->result(d->host->arg, p->row, &r);
	}
}

static size_t driver_room(void *driver, const char *app, const char *env)
{
	const struct driver *d = driver;
	const struct app *a = app_find(d, app);

	(void)env;
	return !a || d->draining || a->n >= IN_FLIGHT_MOST || !access_of(a) ? 0 : IN_FLIGHT_MOST - a->n;
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

static void on_access(void *arg)
{
	struct app *a = arg;

	a->driver->host->room(a->driver->host->arg);
}

/* ---- apps */

static void app_free(struct app *a)
{
	if (!a)
		return;
	push_access_destroy(a->access);
	im_http_destroy(a->http);
	codes_free(a->codes);
	EVP_PKEY_free(a->a.key);
	for (size_t i = 0; i < sizeof(a->a.text) / sizeof(a->a.text[0]); i++)
		wipe(a->a.text[i]);
	free((char *)(uintptr_t)a->a.endpoint);
	free((char *)(uintptr_t)a->a.auth_endpoint);
	free(a->name);
	free(a);
}

static void apps_free(struct app *list)
{
	struct app *a;

	while ((a = list)) {
		list = a->next;
		app_free(a);
	}
}

static enum push_key_type type_of(const struct vendor *v, const char *key)
{
	const struct push_key *k = v->keys;

	while (k->name && strcmp(k->name, key) != 0)
		k++;
	return k->name ? k->type : PUSH_KEY_TEXT;
}

static bool has_key(const struct vendor *v, const char *key)
{
	const struct push_key *k = v->keys;

	while (k->name && strcmp(k->name, key) != 0)
		k++;
	return k->name != NULL;
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

		if (key[0] && type_of(v, key) == PUSH_KEY_SECRET)
			a->a.text[i] = secret_text(from, key);
		else
			a->a.text[i] = strdup(key[0] ? push_app_text(from, key) : "");
		if (!a->a.text[i])
			return im_fail(err, IM_FAILED, "out of memory");
		if (key[0] && type_of(v, key) == PUSH_KEY_SECRET && a->a.text[i][0] == '\0')
			return push_app_fault(from, key, err, "the file is empty");
	}
	return IM_OK;
}

/* Without the slash at the end. */
static enum im_status take_endpoint(const struct vendor *v, const struct push_app *from, const char *key, const char **out, struct im_err *err)
{
	const char *text = has_key(v, key) ? push_app_text(from, key) : "";
	size_t len = strlen(text);
	char *copy;

	if (len && strncmp(text, "https://", 8) != 0)
		return push_app_fault(from, key, err, "must begin with https://");
	while (len && text[len - 1] == '/')
		len--;
	copy = strndup(text, len);
	*out = copy;
	return copy ? IM_OK : im_fail(err, IM_FAILED, "out of memory");
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

static enum im_status open_access(struct app *a, struct im_err *err)
{
	const struct vendor *v = a->a.vendor;
	struct push_access_source source = {
		.name = a->name, .request = v->auth == VENDOR_AUTH_FETCH ? access_request : NULL, .answer = access_answer, .sign = access_sign,
		.most_s = v->auth_most_s, .ready = on_access, .arg = a,
	};

	return v->auth == VENDOR_AUTH_NONE ? IM_OK : push_access_create(a->driver->host->loop, a->http, &source, &a->access, err);
}

static enum im_status app_create(struct driver *d, const struct push_app *from, struct app **out, struct im_err *err)
{
	struct im_http_options o = { .host_connections = CONNECTIONS };
	struct app *a = calloc(1, sizeof(*a));
	enum im_status st;

	if (!a || !(a->name = strdup(push_app_name(from)))) {
		free(a);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	a->driver = d;
	a->a.vendor = d->vendor;
	if (push_app_has(from, "ca_file"))
		o.ca_file = push_app_text(from, "ca_file");
	st = take_texts(a, from, err);
	if (st == IM_OK)
		st = take_endpoint(d->vendor, from, "endpoint", &a->a.endpoint, err);
	if (st == IM_OK)
		st = take_endpoint(d->vendor, from, "auth_endpoint", &a->a.auth_endpoint, err);
	if (st == IM_OK && d->vendor->open)
		st = d->vendor->open(&a->a, from, err);
	if (st == IM_OK)
		st = read_codes(a, from, err);
	if (st == IM_OK)
		st = im_http_create(d->host->loop, &o, &a->http, err);
	if (st == IM_OK)
		st = open_access(a, err);
	if (st != IM_OK) {
		app_free(a);
		return st;
	}
	*out = a;
	return IM_OK;
}

static enum im_status apps_create(struct driver *d, struct push_app *const *from, size_t n, struct app **out, struct im_err *err)
{
	struct app *list = NULL, *a;

	for (size_t i = 0; i < n; i++) {
		enum im_status st = app_create(d, from[i], &a, err);

		if (st != IM_OK) {
			apps_free(list);
			return st;
		}
		a->next = list;
		list = a;
	}
	*out = list;
	return IM_OK;
}

/* ---- the driver */

static void driver_stop(void *driver)
{
	struct driver *d = driver;

	if (!d)
		return;
	while (d->all)
		sending_free(d->all);
	apps_free(d->apps);
	free(d);
}

static enum im_status driver_start(const struct vendor *v, const struct push_host *host, struct push_app *const *apps, size_t n, void **out,
				   struct im_err *err)
{
	struct driver *d = calloc(1, sizeof(*d));
	enum im_status st;

	if (!d)
		return im_fail(err, IM_FAILED, "out of memory");
	d->vendor = v;
	d->host = host;
	st = apps_create(d, apps, n, &d->apps, err);
	if (st != IM_OK) {
		driver_stop(d);
		return st;
	}
	*out = d;
	return IM_OK;
}

/* What is under way with the old apps may have been worked off: it is told as unknown. */
static enum im_status driver_reload(void *driver, struct push_app *const *apps, size_t n, struct im_err *err)
{
	struct push_result r = { .class = PUSH_UNKNOWN, .reason = "reload" };
	struct driver *d = driver;
	struct app *fresh, *old = d->apps;
	enum im_status st = apps_create(d, apps, n, &fresh, err);

	if (st != IM_OK)
		return st;
	for (struct app *a = old; a; a = a->next) {
		push_access_destroy(a->access);
		a->access = NULL;
		im_http_destroy(a->http);
		a->http = NULL;
	}
	d->apps = fresh;
	for (struct sending *s = d->all, *next; s; s = next) {
		next = s->next;
		s->app = NULL;
		if (!s->soon)
			tell(s, &r);
	}
	apps_free(old);
	return IM_OK;
}

static void driver_metrics(void *driver, struct im_buf *out)
{
	const struct driver *d = driver;
	const char *provider = d->vendor->provider;

	im_buf_add_str(out, "# TYPE push_in_flight gauge\n");
	for (const struct app *a = d->apps; a; a = a->next)
		im_buf_printf(out, "push_in_flight{provider=\"%s\",app=\"%s\"} %u\n", provider, a->name, a->n);
	im_buf_add_str(out, "# TYPE push_auth_good gauge\n");
	for (const struct app *a = d->apps; a; a = a->next)
		im_buf_printf(out, "push_auth_good{provider=\"%s\",app=\"%s\"} %d\n", provider, a->name, access_of(a) != NULL);
	im_buf_add_str(out, "# TYPE push_unknown_code_total counter\n");
	for (const struct app *a = d->apps; a; a = a->next)
		im_buf_printf(out, "push_unknown_code_total{provider=\"%s\",app=\"%s\"} %llu\n", provider, a->name, (unsigned long long)a->unknown);
	im_buf_add_str(out, "# TYPE push_answers_total counter\n");
	for (const struct app *a = d->apps; a; a = a->next)
		for (int i = 0; i < 6; i++)
			im_buf_printf(out, "push_answers_total{provider=\"%s\",app=\"%s\",status=\"%dxx\"} %llu\n", provider, a->name, i,
				      (unsigned long long)a->answers[i]);
}

static void driver_drain(void *driver)
{
	((struct driver *)driver)->draining = true;
}

/* A start function of its own is all that tells the drivers apart. */
#define STARTS(v)                                                                                                                                  \
	static enum im_status start_##v(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err)      \
	{                                                                                                                                          \
		return driver_start(&vendor_##v, host, apps, n, out, err);                                                                         \
	}
STARTS(huawei)
STARTS(harmony)
STARTS(xiaomi)
STARTS(oppo)
STARTS(vivo)
STARTS(honor)

#define DRIVER(v)                                                                                                                                  \
	{                                                                                                                                          \
		&vendor_##v, start_##v                                                                                                             \
	}

bool vendor_driver(const char *provider, struct push_driver *out)
{
	static const struct {
		const struct vendor *vendor;
		enum im_status (*start)(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err);
	} all[] = { DRIVER(huawei), DRIVER(harmony), DRIVER(xiaomi), DRIVER(oppo), DRIVER(vivo), DRIVER(honor) };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (strcmp(all[i].vendor->provider, provider) != 0)
			continue;
		*out = (struct push_driver){
			.provider = all[i].vendor->provider, .program = "im-vendor-bridge", .keys = all[i].vendor->keys, .start = all[i].start,
			.reload = driver_reload, .room = driver_room, .send = driver_send, .metrics = driver_metrics, .drain = driver_drain, .stop = driver_stop,
		};
		return true;
	}
	return false;
}
