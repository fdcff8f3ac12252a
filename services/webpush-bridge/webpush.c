#include "webpush.h"

#include "base/clock.h"
#include "base/log.h"
#include "encrypt.h"
#include "io/http.h"
#include "push/jose.h"
#include "push/text.h"
#include "vapid.h"

#include <fnmatch.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IN_FLIGHT_MOST 1024u /* of an app */
#define HOST_MOST 512u       /* of them to one host: a slow service leaves room for the others */
#define ORIGIN_MOST 300u     /* https://, 253 of a name, a port */
#define HOST_WAIT_MS 5000    /* a push for a host that has enough under way */
#define BUCKET 512u          /* texts are padded to multiples of it */
#define TEXT_MOST 2400u      /* bytes of a body's text inside the JSON: with the rest it stays below WEBPUSH_TEXT_MAX */
#define TITLE_MOST 300u
#define CONNECTIONS 8u       /* to one host */
#define ANSWER_MOST 4096u    /* nobody needs more of what a push service says */

struct host {
	struct host *next;
	unsigned n;                 /* under way */
	char name[];
};

struct app {
	struct app *next;
	char *name;
	struct vapid *vapid;
	struct im_http *http;
	char *allow_hosts;          /* "" = any */
	int64_t ttl_most_s;
	bool allow_ports, allow_private;
	const char *urgency;
	unsigned n;                 /* under way */
	uint64_t answers[6];        /* by hundred of the status; 0: none came */
};

struct webpush {
	const struct push_host *host;
	struct app *apps;
	struct host *hosts;
	struct sending *all;
	bool draining;
};

struct sending {
	struct sending *prev, *next;
	struct webpush *w;
	struct app *app;            /* NULL: it was replaced by a reload */
	struct host *to;
	uint64_t row;
	bool soon;                  /* `result` is told in a moment; nothing was sent */
	struct push_result result;
};

/* ---- the endpoint */

struct endpoint {
	char origin[ORIGIN_MOST], host[256];
};

/* NULL: fine. */
static const char *endpoint_problem(const struct app *a, const char *url, struct endpoint *e)
{
	size_t host, all;
	char *port, *rest;

	if (strncmp(url, "https://", 8) != 0)
		return "not https";
	all = strcspn(url + 8, "/?#");
	if (all == 0 || all + 8 >= sizeof(e->origin) || memchr(url + 8, '@', all))
		return "no host";
	(void)snprintf(e->origin, sizeof(e->origin), "https://%.*s", (int)all, url + 8);
	port = e->origin[8] == '[' ? strchr(e->origin, ']') : e->origin + 8;
	port = port ? strchr(port, ':') : NULL;
	host = port ? (size_t)(port - e->origin) - 8 : all;
	if (host == 0 || host >= sizeof(e->host))
		return "no host";
	(void)snprintf(e->host, sizeof(e->host), "%.*s", (int)host, e->origin + 8);
	if (port && strcmp(port, ":443") == 0)
		*port = '\0'; /* the default port is not part of an origin */
	else if (port && (!a->allow_ports || strtol(port + 1, &rest, 10) < 1 || *rest))
		return "port not allowed";
	for (const char *p = e->origin + 8; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f || strchr("\"\\'<>", *p))
			return "no host"; /* it goes into a JWT as it is */
	return NULL;
}

static bool host_allowed(const struct app *a, const char *host)
{
	char pattern[256];
	const char *at = a->allow_hosts;

	if (*at == '\0')
		return true;
	while (*(at += strspn(at, ", "))) {
		size_t len = strcspn(at, ", ");

		(void)snprintf(pattern, sizeof(pattern), "%.*s", (int)len, at);
		if (fnmatch(pattern, host, FNM_CASEFOLD) == 0)
			return true;
		at += len;
	}
	return false;
}

static struct host *host_get(struct webpush *w, const char *name)
{
	size_t len = strlen(name);
	struct host *h = w->hosts;

	while (h && strcmp(h->name, name) != 0)
		h = h->next;
	if (h)
		return h;
	h = calloc(1, sizeof(*h) + len + 1);
	if (!h)
		return NULL;
	memcpy(h->name, name, len + 1);
	h->next = w->hosts;
	w->hosts = h;
	return h;
}

static void host_release(struct webpush *w, struct host *h)
{
	struct host **link = &w->hosts;

	if (--h->n)
		return;
	while (*link != h)
		link = &(*link)->next;
	*link = h->next;
	free(h);
}

/* ---- telling, never inside send */

static void sending_free(struct sending *s)
{
	struct webpush *w = s->w;

	*(s->prev ? &s->prev->next : &w->all) = s->next;
	if (s->next)
		s->next->prev = s->prev;
	if (s->to)
		host_release(w, s->to);
	if (s->app)
		s->app->n--;
	free(s);
}

static void tell(struct sending *s, const struct push_result *r)
{
	struct webpush *w = s->w;
	uint64_t row = s->row;

	sending_free(s);
	w->host->result(w->host->arg, row, r);
	w->host->room(w->host->arg);
}

static void tell_known(void *arg)
{
	struct sending *s = arg;
	struct push_result r = s->result;

	tell(s, &r);
}

static void set(struct push_result *r, enum push_class class, int status, const char *reason)
{
	*r = (struct push_result){ .class = class, .status = status };
	(void)snprintf(r->reason, sizeof(r->reason), "%s", reason);
}

static void fail_soon(struct sending *s, enum push_class class, const char *reason)
{
	set(&s->result, class, 0, reason);
	if (class == PUSH_TOKEN_RATE)
		s->result.retry_after_ms = HOST_WAIT_MS;
	s->soon = true;
	if (im_loop_defer(s->w->host->loop, tell_known, s) != IM_OK)
		tell(s, &s->result); /* out of memory: better inside the call than never */
}

/*
 * Whoever answers is named by a user, so nothing of it may hold up the others: what elsewhere would open a breaker holds
 * this one subscription. 404 and 410 are the word of RFC 8030 7.3 that it is gone; 401 and 403 that it was made for
 * another VAPID key, which cannot be mended either (the guard looks whether all say so, as with a key that was lost).
 */
static enum push_class class_of(int status)
{
	if (status >= 200 && status < 300)
		return PUSH_ACCEPTED;
	if (status == 401 || status == 403 || status == 404 || status == 410)
		return PUSH_TOKEN_INVALID;
	if (status == 413)
		return PUSH_TOO_LARGE;
	if (status == 429 || status >= 500 || status == 408 || status == 0)
		return PUSH_TOKEN_RATE;
	return PUSH_BUG; /* 3xx are not followed */
}

static void set_reason(struct push_result *r, const struct im_http_answer *a)
{
	size_t n = 0;

	(void)snprintf(r->reason, sizeof(r->reason), "%d", a->status);
	if (a->len == 0 || a->status < 300)
		return;
	n = strlen(r->reason);
	(void)snprintf(r->reason + n, sizeof(r->reason) - n, " %s", a->body);
	for (char *p = r->reason; *p; p++)
		if (*p < 0x20 || *p >= 0x7f)
			*p = '?';
}

static void on_answer(void *arg, const struct im_http_answer *a)
{
	struct sending *s = arg;
	struct push_result r;
	const char *after, *location;

	s->app->answers[a->error == IM_HTTP_OK && a->status < 600 ? a->status / 100 : 0]++;
	switch (a->error) {
	case IM_HTTP_OK:
		set(&r, class_of(a->status), a->status, "");
		set_reason(&r, a);
		after = im_http_header(a, "retry-after");
		if (after)
			r.retry_after_ms = push_retry_after(after, im_clock_wall_ms());
		location = im_http_header(a, "location");
		if (location && r.class == PUSH_ACCEPTED)
			(void)snprintf(r.provider_id, sizeof(r.provider_id), "%s", strrchr(location, '/') ? strrchr(location, '/') + 1 : location);
		break;
	case IM_HTTP_FORBIDDEN:
		set(&r, PUSH_TOKEN_INVALID, 0, "address not allowed");
		break;
	case IM_HTTP_TIMEOUT:
	case IM_HTTP_BROKEN:
		set(&r, PUSH_UNKNOWN, 0, a->error == IM_HTTP_TIMEOUT ? "timeout" : "broken");
		r.class = PUSH_TOKEN_RATE; /* Topic makes a repeat replace it */
		break;
	default:
		set(&r, PUSH_TOKEN_RATE, 0, a->error == IM_HTTP_UNTRUSTED ? "untrusted" : "unreachable");
	}
	tell(s, &r);
}

/* ---- the text, for the page's service worker */

static void set_text(json_t *o, const char *name, const char *text, size_t most)
{
	struct im_buf b;

	if (text[0] == '\0')
		return;
	im_buf_init(&b);
	(void)push_text_fit(&b, text, most, true);
	if (!b.failed)
		json_object_set_new(o, name, json_string(im_buf_text(&b)));
	im_buf_finish(&b);
}

static char *text_of(const struct push_send *s, bool minimal)
{
	const Im__Push__Ticket *t = s->ticket;
	json_t *o = json_object();
	char *text;

	set_text(o, "title", minimal || t->title[0] == '\0' ? push_text_general(t->language) : t->title, TITLE_MOST);
	if (!minimal) {
		set_text(o, "subtitle", t->subtitle, TITLE_MOST);
		set_text(o, "body", t->body, TEXT_MOST);
		set_text(o, "from", t->from, 256);
		set_text(o, "type", t->type, 64);
	}
	set_text(o, "conv", t->conv, 256);
	set_text(o, "msgid", t->msgid, 64);
	json_object_set_new(o, "tag", json_string(s->thread));
	if (t->seq)
		json_object_set_new(o, "seq", json_integer((json_int_t)t->seq));
	if (t->ts)
		json_object_set_new(o, "ts", json_integer(t->ts));
	if (t->unread)
		json_object_set_new(o, "unread", json_integer(t->unread));
	if (t->has_badge)
		json_object_set_new(o, "badge", json_integer(t->badge));
	if (t->silent)
		json_object_set_new(o, "silent", json_true());
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	return text;
}

/* ---- sending */

static bool body_of(const struct push_send *s, bool minimal, uint8_t out[WEBPUSH_BODY_MAX], size_t *len, const char **problem)
{
	uint8_t point[WEBPUSH_POINT], auth[WEBPUSH_AUTH];
	char *text = text_of(s, minimal);
	size_t n = 0, m = 0, text_len = text ? strlen(text) : 0;
	bool ok = false;

	*problem = NULL;
	if (!push_base64url_read(s->ticket->token->p256dh, point, sizeof(point), &n) || n != sizeof(point) ||
	    !push_base64url_read(s->ticket->token->auth, auth, sizeof(auth), &m) || m != sizeof(auth))
		*problem = "keys of the subscription";
	else if (text)
		ok = webpush_encrypt(point, auth, text, text_len, (text_len + BUCKET - 1) / BUCKET * BUCKET, NULL, out, len);
	free(text);
	return ok;
}

static enum im_status post(struct sending *s, const struct push_send *p, const char *origin, const uint8_t *body, size_t len)
{
	int64_t now = im_clock_wall_ms(), ttl = p->job->deadline_ms > now ? (p->job->deadline_ms - now) / 1000 : 0;
	const char *vapid = vapid_header(s->app->vapid, origin, now);
	char ttl_line[32], urgency[32], topic[48];
	const char *headers[] = { vapid, ttl_line, urgency, topic, "Content-Encoding: aes128gcm", "Content-Type: application/octet-stream", NULL };

	if (!vapid)
		return IM_FAILED;
	(void)snprintf(ttl_line, sizeof(ttl_line), "TTL: %lld", (long long)(ttl > s->app->ttl_most_s ? s->app->ttl_most_s : ttl));
	(void)snprintf(urgency, sizeof(urgency), "Urgency: %s", p->job->kind == IM__PUSH__KIND__KIND_BADGE ? "low" : s->app->urgency);
	(void)snprintf(topic, sizeof(topic), "Topic: %s", p->thread); /* the newest of a conversation replaces what has not arrived yet */
	return im_http_post(s->app->http, p->ticket->token->token, headers, body, len, on_answer, s);
}

static struct sending *sending_create(struct webpush *w, struct app *a, uint64_t row)
{
	struct sending *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->w = w;
	s->app = a;
	s->row = row;
	s->next = w->all;
	if (s->next)
		s->next->prev = s;
	w->all = s;
	a->n++;
	return s;
}

static struct app *app_find(const struct webpush *w, const char *name)
{
	struct app *a = w->apps;

	while (a && strcmp(a->name, name) != 0)
		a = a->next;
	return a;
}

static void webpush_send(void *driver, const struct push_send *p, bool minimal)
{
	struct webpush *w = driver;
	struct app *a = app_find(w, p->ticket->token->app);
	struct sending *s = a ? sending_create(w, a, p->row) : NULL;
	uint8_t body[WEBPUSH_BODY_MAX];
	struct endpoint e;
	const char *problem;
	struct host *h;
	size_t len;

	if (!s) { /* room said otherwise: no memory */
		struct push_result r;

		set(&r, PUSH_UNSENT, 0, "out of memory");
		w->host->result(w->host->arg, p->row, &r);
		return;
	}
	problem = endpoint_problem(a, p->ticket->token->token, &e);
	if (!problem && !host_allowed(a, e.host))
		problem = "host not allowed";
	if (problem) {
		fail_soon(s, PUSH_TOKEN_INVALID, problem);
		return;
	}
	h = host_get(w, e.host);
	if (h && h->n < HOST_MOST) {
		s->to = h;
		h->n++;
	} else {
		if (h && h->n == 0) {
			h->n = 1;
			host_release(w, h);
		}
		fail_soon(s, PUSH_TOKEN_RATE, "host busy");
		return;
	}
	if (!body_of(p, minimal, body, &len, &problem))
		fail_soon(s, problem ? PUSH_TOKEN_INVALID : PUSH_BUG, problem ? problem : "not encrypted");
	else if (post(s, p, e.origin, body, len) != IM_OK)
		fail_soon(s, PUSH_UNSENT, "not sent");
}

static size_t webpush_room(void *driver, const char *app, const char *env)
{
	const struct webpush *w = driver;
	const struct app *a = app_find(w, app);

	(void)env;
	return !a || w->draining || a->n >= IN_FLIGHT_MOST ? 0 : IN_FLIGHT_MOST - a->n;
}

/* ---- apps */

static const char *const urgencies[] = { "normal", "high", NULL };
static const struct push_key keys[] = {
	{ "vapid_key_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "subject", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL },
	{ "allow_hosts", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "allow_private", PUSH_KEY_BOOL, false, "false", 0, 0, NULL },
	{ "allow_ports", PUSH_KEY_BOOL, false, "false", 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ "ttl_most", PUSH_KEY_NUMBER, false, "2419200", 0, 2419200, NULL },
	{ "urgency", PUSH_KEY_CHOICE, false, "high", 0, 0, urgencies },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};

static void apps_free(struct app *list)
{
	struct app *a;

	while ((a = list)) {
		list = a->next;
		im_http_destroy(a->http);
		vapid_destroy(a->vapid);
		free(a->name);
		free(a->allow_hosts);
		free(a);
	}
}

static enum im_status app_create(struct webpush *w, const struct push_app *from, struct app **out, struct im_err *err)
{
	bool private = push_app_bool(from, "allow_private");
	struct im_http_options o = { .host_connections = CONNECTIONS, .answer_max = ANSWER_MOST,
				     .address_allowed = private ? NULL : im_http_is_public };
	struct app *a = calloc(1, sizeof(*a));
	enum im_status st;

	if (!a)
		return im_fail(err, IM_FAILED, "out of memory");
	if (push_app_has(from, "ca_file"))
		o.ca_file = push_app_text(from, "ca_file");
	a->name = strdup(push_app_name(from));
	a->allow_hosts = strdup(push_app_text(from, "allow_hosts"));
	a->allow_ports = push_app_bool(from, "allow_ports");
	a->allow_private = private;
	a->ttl_most_s = push_app_number(from, "ttl_most");
	a->urgency = strcmp(push_app_text(from, "urgency"), "high") == 0 ? "high" : "normal";
	st = a->name && a->allow_hosts ? vapid_create(from, &a->vapid, err) : im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		st = im_http_create(w->host->loop, &o, &a->http, err);
	if (st != IM_OK) {
		apps_free(a);
		return st;
	}
	if (private)
		im_log(IM_LOG_WARNING, "evt=webpush_private app=%s why=\"allow_private: users may point pushes at this network\"", a->name);
	*out = a;
	return IM_OK;
}

static enum im_status apps_create(struct webpush *w, struct push_app *const *from, size_t n, struct app **out, struct im_err *err)
{
	struct app *list = NULL, *a;

	for (size_t i = 0; i < n; i++) {
		enum im_status st = app_create(w, from[i], &a, err);

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

static void webpush_stop(void *driver)
{
	struct webpush *w = driver;

	if (!w)
		return;
	while (w->all)
		sending_free(w->all);
	apps_free(w->apps);
	free(w);
}

static enum im_status webpush_start(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err)
{
	struct webpush *w = calloc(1, sizeof(*w));
	enum im_status st;

	if (!w)
		return im_fail(err, IM_FAILED, "out of memory");
	w->host = host;
	st = apps_create(w, apps, n, &w->apps, err);
	if (st != IM_OK) {
		webpush_stop(w);
		return st;
	}
	*out = w;
	return IM_OK;
}

/* What is under way belongs to the old apps and ends there: it is told as unknown, and sent again with the same Topic. */
static enum im_status webpush_reload(void *driver, struct push_app *const *apps, size_t n, struct im_err *err)
{
	struct webpush *w = driver;
	struct app *fresh, *old = w->apps;
	struct push_result r;
	enum im_status st = apps_create(w, apps, n, &fresh, err);

	if (st != IM_OK)
		return st;
	for (struct app *a = old; a; a = a->next) {
		im_http_destroy(a->http);
		a->http = NULL;
	}
	w->apps = fresh;
	set(&r, PUSH_UNKNOWN, 0, "reload");
	for (struct sending *s = w->all, *next; s; s = next) {
		next = s->next;
		s->app = NULL;
		if (!s->soon)
			tell(s, &r);
	}
	apps_free(old);
	return IM_OK;
}

static void webpush_metrics(void *driver, struct im_buf *out)
{
	const struct webpush *w = driver;

	im_buf_add_str(out, "# TYPE push_in_flight gauge\n");
	for (const struct app *a = w->apps; a; a = a->next)
		im_buf_printf(out, "push_in_flight{provider=\"webpush\",app=\"%s\"} %u\n", a->name, a->n);
	im_buf_add_str(out, "# TYPE push_answers_total counter\n");
	for (const struct app *a = w->apps; a; a = a->next)
		for (int i = 0; i < 6; i++)
			im_buf_printf(out, "push_answers_total{provider=\"webpush\",app=\"%s\",status=\"%dxx\"} %llu\n", a->name, i,
				      (unsigned long long)a->answers[i]);
}

static void webpush_drain(void *driver)
{
	((struct webpush *)driver)->draining = true;
}

const struct push_driver webpush_driver = {
	.provider = "webpush",
	.program = "im-webpush-bridge",
	.keys = keys,
	.start = webpush_start,
	.reload = webpush_reload,
	.room = webpush_room,
	.send = webpush_send,
	.metrics = webpush_metrics,
	.drain = webpush_drain,
	.stop = webpush_stop,
};
