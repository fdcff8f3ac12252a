#include "webpush.h"

#include "base/clock.h"
#include "base/log.h"
#include "encrypt.h"
#include "push/jose.h"
#include "push/sender.h"
#include "push/text.h"
#include "vapid.h"

#include <fnmatch.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_MOST 512u       /* of an app's 1024 under way to one host: a slow service leaves room for the others */
#define ORIGIN_MOST 300u     /* https://, 253 of a name, a port */
#define HOST_WAIT_MS 5000    /* a push for a host that has enough under way */
#define BUCKET 512u          /* texts are padded to multiples of it */
#define TEXT_MOST 2400u      /* bytes of a body's text inside the JSON: with the rest it stays below WEBPUSH_TEXT_MAX */
#define TITLE_MOST 300u
#define ANSWER_MOST 4096u    /* nobody needs more of what a push service says */

struct host {
	struct host *next;
	unsigned n;                 /* under way */
	char name[];
};

struct app {
	struct push_sender sender;  /* first */
	struct vapid *vapid;
	char *allow_hosts;          /* "" = any */
	int64_t ttl_most_s;
	bool allow_ports;
	const char *urgency;
	struct host *hosts;         /* with something under way */
};

struct sending {
	struct push_sending sending; /* first */
	struct host *to;
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

/* One place at the host. NULL: it has enough under way, or there is no memory. */
static struct host *host_take(struct app *a, const char *name)
{
	size_t len = strlen(name);
	struct host *h = a->hosts;

	while (h && strcmp(h->name, name) != 0)
		h = h->next;
	if (!h) {
		h = calloc(1, sizeof(*h) + len + 1);
		if (!h)
			return NULL;
		memcpy(h->name, name, len + 1);
		h->next = a->hosts;
		a->hosts = h;
	}
	if (h->n == HOST_MOST)
		return NULL;
	h->n++;
	return h;
}

static void host_release(struct app *a, struct host *h)
{
	struct host **link = &a->hosts;

	if (--h->n)
		return;
	while (*link != h)
		link = &(*link)->next;
	*link = h->next;
	free(h);
}

/* ---- results */

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

static void judge(struct push_sending *s, const struct im_http_answer *a, int64_t retry_after_ms, struct push_result *r)
{
	const char *location = im_http_header(a, "location"), *slash = location ? strrchr(location, '/') : NULL;

	(void)s;
	r->class = class_of(a->status);
	r->status = a->status;
	r->retry_after_ms = retry_after_ms;
	if (a->len == 0 || a->status < 300)
		(void)snprintf(r->reason, sizeof(r->reason), "%d", a->status);
	else
		(void)snprintf(r->reason, sizeof(r->reason), "%d %s", a->status, a->body); /* cut: its beginning says enough */
	push_result_clean(r);
	if (location && r->class == PUSH_ACCEPTED)
		(void)snprintf(r->provider_id, sizeof(r->provider_id), "%s", slash ? slash + 1 : location);
}

/* Also what may have been worked off: Topic makes a repeat replace it. */
static void judge_failure(enum im_http_error error, struct push_result *r)
{
	r->class = error == IM_HTTP_FORBIDDEN ? PUSH_TOKEN_INVALID : PUSH_TOKEN_RATE;
	if (error == IM_HTTP_FORBIDDEN)
		(void)snprintf(r->reason, sizeof(r->reason), "address not allowed");
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

static bool put_headers(const struct app *a, const struct push_send *p, const char *origin, struct push_request *r)
{
	int64_t now = im_clock_wall_ms(), ttl = p->job->deadline_ms > now ? (p->job->deadline_ms - now) / 1000 : 0;
	const char *vapid = vapid_header(a->vapid, origin, now);

	if (!vapid)
		return false;
	push_request_header(r, "Authorization", "%s", vapid);
	push_request_header(r, "TTL", "%lld", (long long)(ttl > a->ttl_most_s ? a->ttl_most_s : ttl));
	push_request_header(r, "Urgency", "%s", p->job->kind == IM__PUSH__KIND__KIND_BADGE ? "low" : a->urgency);
	push_request_header(r, "Topic", "%s", p->thread); /* the newest of a conversation replaces what has not arrived yet */
	push_request_header(r, "Content-Encoding", "aes128gcm");
	push_request_header(r, "Content-Type", "application/octet-stream");
	return true;
}

static bool refuse(struct push_sending *s, enum push_class class, const char *why)
{
	push_sending_set(s, class, why);
	if (class == PUSH_TOKEN_RATE)
		s->result.retry_after_ms = HOST_WAIT_MS;
	return false;
}

static bool request(struct push_sending *s, const struct push_send *p, bool minimal, struct push_request *r)
{
	struct app *a = (struct app *)s->sender;
	struct sending *own = (struct sending *)s;
	uint8_t body[WEBPUSH_BODY_MAX];
	struct endpoint e;
	const char *problem = endpoint_problem(a, p->ticket->token->token, &e);
	size_t len;

	if (!problem && !host_allowed(a, e.host))
		problem = "host not allowed";
	if (problem)
		return refuse(s, PUSH_TOKEN_INVALID, problem);
	own->to = host_take(a, e.host);
	if (!own->to)
		return refuse(s, PUSH_TOKEN_RATE, "host busy");
	if (!body_of(p, minimal, body, &len, &problem))
		return problem ? refuse(s, PUSH_TOKEN_INVALID, problem) : refuse(s, PUSH_BUG, "not encrypted");
	push_request_url(r, "%s", p->ticket->token->token);
	im_buf_add(&r->body, body, len);
	return put_headers(a, p, e.origin, r);
}

static void end(struct push_sending *s)
{
	struct sending *own = (struct sending *)s;

	if (own->to)
		host_release((struct app *)s->sender, own->to);
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

static void app_close(struct push_sender *s)
{
	struct app *a = (struct app *)s;

	vapid_destroy(a->vapid);
	free(a->allow_hosts);
}

static enum im_status app_open(struct push_sender *s, const struct push_app *from, struct im_http_options *http, struct push_access_source *source,
			       struct im_err *err)
{
	bool private = push_app_bool(from, "allow_private");
	struct app *a = (struct app *)s;

	(void)source; /* each request is signed */
	http->answer_max = ANSWER_MOST;
	http->address_allowed = private ? NULL : im_http_is_public;
	a->allow_hosts = strdup(push_app_text(from, "allow_hosts"));
	a->allow_ports = push_app_bool(from, "allow_ports");
	a->ttl_most_s = push_app_number(from, "ttl_most");
	a->urgency = strcmp(push_app_text(from, "urgency"), "high") == 0 ? "high" : "normal";
	if (private)
		im_log(IM_LOG_WARNING, "evt=webpush_private app=%s why=\"allow_private: users may point pushes at this network\"", s->name);
	return a->allow_hosts ? vapid_create(from, &a->vapid, err) : im_fail(err, IM_FAILED, "out of memory");
}

static const struct push_sender_kind kind = {
	.provider = "webpush",
	.sender_size = sizeof(struct app),
	.sending_size = sizeof(struct sending),
	.most = 1024,
	.connections = 8,
	.open = app_open,
	.close = app_close,
	.request = request,
	.judge = judge,
	.judge_failure = judge_failure,
	.end = end,
};

static enum im_status start(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err)
{
	return push_senders_start(&kind, host, apps, n, out, err);
}

const struct push_driver webpush_driver = {
	.provider = "webpush",
	.program = "im-webpush-bridge",
	.keys = keys,
	.start = start,
	.reload = push_senders_reload,
	.room = push_senders_room,
	.send = push_senders_send,
	.metrics = push_senders_metrics,
	.drain = push_senders_drain,
	.stop = push_senders_stop,
};
