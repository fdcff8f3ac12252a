#include "fcm.h"

#include "account.h"
#include "base/clock.h"
#include "base/log.h"
#include "io/http.h"
#include "message.h"
#include "reaction.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_FLIGHT_MOST 200u /* of an app: two connections full of streams */
#define CONNECTIONS 4u
#define ENDPOINT "https://fcm.googleapis.com"

struct app {
	struct app *next;
	char *name, *url, *channel_id, *package;
	struct fcm_style style;
	struct im_http *http;
	struct account *account;
	struct push_access *access;
	const struct push_host *host;
	unsigned n;               /* under way */
	uint64_t answers[6];      /* by hundred of the status; 0: none came */
};

struct fcm {
	const struct push_host *host;
	struct app *apps;
	struct sending *all;
	bool draining;
};

struct sending {
	struct sending *prev, *next;
	struct fcm *f;
	struct app *app;
	uint64_t row;
	char *token;              /* access token it went with */
};

/* ---- results */

static void sending_free(struct sending *s)
{
	*(s->prev ? &s->prev->next : &s->f->all) = s->next;
	if (s->next)
		s->next->prev = s->prev;
	s->app->n--;
	if (s->token)
		sodium_memzero(s->token, strlen(s->token));
	free(s->token);
	free(s);
}

static void tell(struct sending *s, const struct push_result *r)
{
	struct fcm *f = s->f;
	uint64_t row = s->row;

	sending_free(s);
	f->host->result(f->host->arg, row, r);
	f->host->room(f->host->arg);
}

static struct push_result failure(enum im_http_error error)
{
	static const struct {
		enum push_class class;
		const char *reason;
	} rows[] = {
		[IM_HTTP_UNREACHABLE] = { PUSH_UNREACHABLE, "unreachable" }, [IM_HTTP_UNTRUSTED] = { PUSH_CONFIG, "untrusted certificate" },
		[IM_HTTP_FORBIDDEN] = { PUSH_CONFIG, "endpoint not allowed" }, [IM_HTTP_TIMEOUT] = { PUSH_UNKNOWN, "timeout" },
		[IM_HTTP_BROKEN] = { PUSH_UNKNOWN, "broken" },
	};
	struct push_result r = { .class = rows[error].class };

	(void)snprintf(r.reason, sizeof(r.reason), "%s", rows[error].reason);
	return r;
}

static void on_answer(void *arg, const struct im_http_answer *a)
{
	struct sending *s = arg;
	struct push_result r;
	const char *after;

	s->app->answers[a->error == IM_HTTP_OK && a->status < 600 ? a->status / 100 : 0]++;
	if (a->error != IM_HTTP_OK) {
		r = failure(a->error);
	} else {
		after = im_http_header(a, "retry-after");
		fcm_reaction(a->status, a->body, a->len, after ? push_retry_after(after, im_clock_wall_ms()) : 0, &r);
	}
	if (r.class == PUSH_AUTH)
		push_access_refused(s->app->access, s->token);
	tell(s, &r);
}

/* ---- sending */

static struct app *app_find(const struct fcm *f, const char *name)
{
	struct app *a = f->apps;

	while (a && strcmp(a->name, name) != 0)
		a = a->next;
	return a;
}

static struct sending *sending_create(struct fcm *f, struct app *a, uint64_t row)
{
	struct sending *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->f = f;
	s->app = a;
	s->row = row;
	s->next = f->all;
	if (s->next)
		s->next->prev = s;
	f->all = s;
	a->n++;
	return s;
}

static bool post(struct sending *s, const struct push_send *p, bool minimal)
{
	struct push_request r;
	bool ok;

	push_request_init(&r);
	push_request_url(&r, "%s", s->app->url);
	push_request_header(&r, "Authorization", "Bearer %s", s->token ? s->token : "");
	push_request_json(&r, fcm_message(p, &s->app->style, minimal, im_clock_wall_ms()));
	ok = s->token && push_request_post(&r, s->app->http, on_answer, s) == IM_OK;
	push_request_finish(&r);
	return ok;
}

struct unsent {
	struct fcm *f;
	uint64_t row;
};

static void tell_unsent(void *arg)
{
	struct unsent *u = arg;
	struct push_result r = { .class = PUSH_UNSENT, .reason = "not sent" };

	u->f->host->result(u->f->host->arg, u->row, &r);
	free(u);
}

static void fcm_send(void *driver, const struct push_send *p, bool minimal)
{
	struct fcm *f = driver;
	struct app *a = app_find(f, p->ticket->token->app);
	const char *token = a ? push_access_token(a->access) : NULL;
	struct sending *s = token ? sending_create(f, a, p->row) : NULL;
	struct unsent *u;

	if (s)
		s->token = strdup(token);
	if (s && post(s, p, minimal))
		return;
	if (s)
		sending_free(s);
	u = malloc(sizeof(*u)); /* no token any more, or no memory: room will say when */
	if (u) {
		*u = (struct unsent){ f, p->row };
		if (im_loop_defer(f->host->loop, tell_unsent, u) == IM_OK)
			return;
	}
	free(u);
	im_log(IM_LOG_ERROR, "evt=push_unsent row=%llu why=\"out of memory\"", (unsigned long long)p->row);
}

static size_t fcm_room(void *driver, const char *app, const char *env)
{
	const struct fcm *f = driver;
	const struct app *a = app_find(f, app);

	(void)env;
	if (!a || f->draining || a->n >= IN_FLIGHT_MOST || !push_access_token(a->access))
		return 0;
	return IN_FLIGHT_MOST - a->n;
}

/* ---- apps */

static const char *const styles[] = { "data", "notification", NULL };
static const struct push_key keys[] = {
	{ "service_account_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "style", PUSH_KEY_CHOICE, false, "data", 0, 0, styles },
	{ "channel_id", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "package", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "endpoint", PUSH_KEY_TEXT, false, ENDPOINT, 0, 0, NULL },
	{ "token_endpoint", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};

static void apps_free(struct app *list)
{
	struct app *a;

	while ((a = list)) {
		list = a->next;
		push_access_destroy(a->access);
		account_destroy(a->account);
		im_http_destroy(a->http);
		free(a->name);
		free(a->url);
		free(a->channel_id);
		free(a->package);
		free(a);
	}
}

static void on_token(void *arg)
{
	const struct app *a = arg;

	a->host->room(a->host->arg);
}

static void access_request(void *arg, int64_t now_ms, struct push_request *r)
{
	account_request(((const struct app *)arg)->account, now_ms, r);
}

static const char *access_answer(void *arg, const struct json_t *answer, int64_t *life_s, char reason[PUSH_ACCESS_REASON])
{
	(void)arg;
	return account_answer(answer, life_s, reason);
}

static enum im_status open_access(struct app *a, const struct push_app *from, struct im_err *err)
{
	struct push_access_source source = { .name = a->name, .request = access_request, .answer = access_answer, .most_s = ACCOUNT_LIFE_S,
					     .ready = on_token, .arg = a };
	enum im_status st = account_create(from, &a->account, err);

	return st == IM_OK ? push_access_create(a->host->loop, a->http, &source, &a->access, err) : st;
}

static enum im_status check_url(const struct push_app *from, const char *key, struct im_err *err)
{
	if (!push_app_has(from, key) || strncmp(push_app_text(from, key), "https://", 8) == 0)
		return IM_OK;
	return push_app_fault(from, key, err, "must begin with https://");
}

static enum im_status app_create(struct fcm *f, const struct push_app *from, struct app **out, struct im_err *err)
{
	struct im_http_options o = { .host_connections = CONNECTIONS };
	struct app *a = calloc(1, sizeof(*a));
	enum im_status st = check_url(from, "endpoint", err);

	if (st == IM_OK)
		st = check_url(from, "token_endpoint", err);
	if (st == IM_OK && (!a || !(a->name = strdup(push_app_name(from)))))
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		a->host = f->host;
	if (push_app_has(from, "ca_file"))
		o.ca_file = push_app_text(from, "ca_file");
	if (st == IM_OK)
		st = im_http_create(f->host->loop, &o, &a->http, err);
	if (st == IM_OK)
		st = open_access(a, from, err);
	if (st != IM_OK) {
		apps_free(a);
		return st;
	}
	a->channel_id = strdup(push_app_text(from, "channel_id"));
	a->package = strdup(push_app_text(from, "package"));
	if (asprintf(&a->url, "%s/v1/projects/%s/messages:send", push_app_text(from, "endpoint"), account_project(a->account)) < 0)
		a->url = NULL;
	if (!a->url || !a->channel_id || !a->package) {
		apps_free(a);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	a->style = (struct fcm_style){ strcmp(push_app_text(from, "style"), "notification") == 0, a->channel_id, a->package };
	*out = a;
	return IM_OK;
}

static enum im_status apps_create(struct fcm *f, struct push_app *const *from, size_t n, struct app **out, struct im_err *err)
{
	struct app *list = NULL, *a;

	for (size_t i = 0; i < n; i++) {
		enum im_status st = app_create(f, from[i], &a, err);

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

static void fcm_stop(void *driver)
{
	struct fcm *f = driver;

	if (!f)
		return;
	while (f->all)
		sending_free(f->all);
	apps_free(f->apps);
	free(f);
}

static enum im_status fcm_start(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err)
{
	struct fcm *f = calloc(1, sizeof(*f));
	enum im_status st;

	if (!f)
		return im_fail(err, IM_FAILED, "out of memory");
	f->host = host;
	st = apps_create(f, apps, n, &f->apps, err);
	if (st != IM_OK) {
		fcm_stop(f);
		return st;
	}
	*out = f;
	return IM_OK;
}

/* What is under way with the old accounts may have been worked off: it is told as unknown. */
static enum im_status fcm_reload(void *driver, struct push_app *const *apps, size_t n, struct im_err *err)
{
	struct push_result r = { .class = PUSH_UNKNOWN, .reason = "reload" };
	struct fcm *f = driver;
	struct app *fresh, *old = f->apps;
	enum im_status st = apps_create(f, apps, n, &fresh, err);

	if (st != IM_OK)
		return st;
	for (struct app *a = old; a; a = a->next) {
		push_access_destroy(a->access);
		a->access = NULL;
		im_http_destroy(a->http);
		a->http = NULL;
	}
	f->apps = fresh;
	for (struct sending *s = f->all, *next; s; s = next) {
		next = s->next;
		tell(s, &r);
	}
	apps_free(old);
	return IM_OK;
}

static void fcm_metrics(void *driver, struct im_buf *out)
{
	const struct fcm *f = driver;

	im_buf_add_str(out, "# TYPE push_in_flight gauge\n");
	for (const struct app *a = f->apps; a; a = a->next)
		im_buf_printf(out, "push_in_flight{provider=\"fcm\",app=\"%s\"} %u\n", a->name, a->n);
	im_buf_add_str(out, "# TYPE push_auth_good gauge\n");
	for (const struct app *a = f->apps; a; a = a->next)
		im_buf_printf(out, "push_auth_good{provider=\"fcm\",app=\"%s\"} %d\n", a->name, push_access_token(a->access) != NULL);
	im_buf_add_str(out, "# TYPE push_auth_fetches_total counter\n");
	for (const struct app *a = f->apps; a; a = a->next)
		im_buf_printf(out, "push_auth_fetches_total{provider=\"fcm\",app=\"%s\"} %llu\n", a->name, (unsigned long long)push_access_fetches(a->access));
	im_buf_add_str(out, "# TYPE push_answers_total counter\n");
	for (const struct app *a = f->apps; a; a = a->next)
		for (int i = 0; i < 6; i++)
			im_buf_printf(out, "push_answers_total{provider=\"fcm\",app=\"%s\",status=\"%dxx\"} %llu\n", a->name, i,
				      (unsigned long long)a->answers[i]);
}

static void fcm_drain(void *driver)
{
	((struct fcm *)driver)->draining = true;
}

const struct push_driver fcm_driver = {
	.provider = "fcm",
	.program = "im-fcm-bridge",
	.keys = keys,
	.start = fcm_start,
	.reload = fcm_reload,
	.room = fcm_room,
	.send = fcm_send,
	.metrics = fcm_metrics,
	.drain = fcm_drain,
	.stop = fcm_stop,
};
