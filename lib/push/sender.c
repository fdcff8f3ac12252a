/*
 * Senders and what they have under way. The difficult idea is whose a push is: it belongs to the list of all from `send` until its one result
 * was told, whether http answers, it could not be sent, or its app is replaced by a reload - then it may have been worked off, and is told as unknown.
 */
#include "push/sender.h"

#include "base/clock.h"
#include "base/log.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct push_senders {
	const struct push_sender_kind *kind;
	const struct push_host *host;
	struct push_sender *list;
	struct push_sending *under_way;
	struct im_timer *soon;       /* set while there are unsent ones */
	bool draining;
};

const void *push_sender_arg(const struct push_sender *s)
{
	return s->all->kind->arg;
}

const struct push_sender *push_senders_first(const struct push_senders *all)
{
	return all->list;
}

static struct push_sender *find(const struct push_senders *all, const char *name)
{
	struct push_sender *s = all->list;

	while (s && strcmp(s->name, name) != 0)
		s = s->next;
	return s;
}

/* NULL: there is none at the moment. */
static const char *access_of(const struct push_sender *s)
{
	return s->access ? push_access_token(s->access) : "";
}

/* ---- results */

void push_sending_set(struct push_sending *s, enum push_class class, const char *reason)
{
	s->result = (struct push_result){.class = class};
	(void)snprintf(s->result.reason, sizeof(s->result.reason), "%s", reason);
}

void push_result_clean(struct push_result *r)
{
	for (char *p = r->reason; *p; p++)
		if (*p < 0x20 || *p >= 0x7f || *p == '"')
			*p = '?';
}

static void forget(struct push_sending *s)
{
	struct push_senders *all = s->sender->all;

	DL_DELETE(all->under_way, s);
	s->sender->n--;
	if (all->kind->end)
		all->kind->end(s);
	if (s->access)
		sodium_memzero(s->access, strlen(s->access));
	free(s->access);
	free(s);
}

static void tell(struct push_sending *s)
{
	const struct push_host *host = s->sender->all->host;
	struct push_result r = s->result;
	uint64_t row = s->row;

	forget(s);
	host->result(host->arg, row, &r);
	host->room(host->arg);
}

static void tell_unsent(void *arg)
{
	struct push_senders *all = arg;
	struct push_sending *s, *next;

	DL_FOREACH_SAFE(all->under_way, s, next)
		if (s->unsent)
			tell(s);
}

static void set_failure(const struct push_sender_kind *kind, enum im_http_error error, struct push_result *r)
{
	static const struct {
		enum push_class class;
		const char *reason;
	} rows[] = {
		[IM_HTTP_UNREACHABLE] = {PUSH_UNREACHABLE, "unreachable"}, [IM_HTTP_UNTRUSTED] = {PUSH_CONFIG, "untrusted certificate"},
		[IM_HTTP_FORBIDDEN] = {PUSH_CONFIG, "endpoint not allowed"}, [IM_HTTP_TIMEOUT] = {PUSH_UNKNOWN, "timeout"},
		[IM_HTTP_BROKEN] = {PUSH_UNKNOWN, "broken"},
	};

	r->class = rows[error].class;
	(void)snprintf(r->reason, sizeof(r->reason), "%s", rows[error].reason);
	if (kind->judge_failure)
		kind->judge_failure(error, r);
}

static void on_answer(void *arg, const struct im_http_answer *a)
{
	struct push_sending *s = arg;
	struct push_sender *sender = s->sender;
	const char *after;

	s->result = (struct push_result){.class = PUSH_UNKNOWN};
	sender->answers[a->error == IM_HTTP_OK && a->status < 600 ? a->status / 100 : 0]++;
	if (a->error == IM_HTTP_OK) {
		after = im_http_header(a, "retry-after");
		sender->all->kind->judge(s, a, after ? push_retry_after(after, im_clock_wall_ms()) : 0, &s->result);
	} else {
		set_failure(sender->all->kind, a->error, &s->result);
	}
	if (s->result.class == PUSH_AUTH && sender->access)
		push_access_refused(sender->access, s->access);
	else if (s->result.class == PUSH_AUTH)
		s->result.class = PUSH_CONFIG; /* a fixed key does not get better */
	tell(s);
}

/* ---- sending */

static struct push_sending *begin(struct push_sender *sender, uint64_t row)
{
	const char *access = access_of(sender);
	struct push_sending *s = calloc(1, sender->all->kind->sending_size);

	if (!s)
		return NULL;
	s->sender = sender;
	s->row = row;
	s->access = access ? strdup(access) : NULL;
	push_sending_set(s, PUSH_UNSENT, "not sent");
	DL_APPEND(sender->all->under_way, s);
	sender->n++;
	return s;
}

static bool post(struct push_sending *s, const struct push_send *p, bool minimal)
{
	struct push_request r;
	bool ok;

	if (!s->access) /* it ended since there was room */
		return false;
	push_request_init(&r);
	ok = s->sender->all->kind->request(s, p, minimal, &r) && push_request_post(&r, s->sender->http, on_answer, s) == IM_OK;
	push_request_finish(&r);
	return ok;
}

void push_senders_send(void *driver, const struct push_send *p, bool minimal)
{
	static const struct push_result unsent = {.class = PUSH_UNSENT, .reason = "not sent"};
	struct push_senders *all = driver;
	struct push_sender *sender = find(all, p->ticket->token->app);
	struct push_sending *s = sender ? begin(sender, p->row) : NULL;

	if (!s) { /* no memory: better inside the call than never */
		all->host->result(all->host->arg, p->row, &unsent);
	} else if (!post(s, p, minimal)) {
		s->unsent = true;
		im_timer_start(all->soon, 0, 0);
	}
}

size_t push_senders_room(void *driver, const char *app, const char *env)
{
	const struct push_senders *all = driver;
	const struct push_sender *s = find(all, app);

	(void)env;
	return !s || all->draining || s->n >= all->kind->most || !access_of(s) ? 0 : all->kind->most - s->n;
}

/* ---- apps */

enum im_status push_app_check_url(const struct push_app *app, const char *key, struct im_err *err)
{
	if (!push_app_has(app, key) || strncmp(push_app_text(app, key), "https://", 8) == 0)
		return IM_OK;
	return push_app_fault(app, key, err, "must begin with https://");
}

static void on_access(void *arg)
{
	const struct push_sender *s = arg;

	s->all->host->room(s->all->host->arg);
}

/* What may still call back goes first. */
static void disconnect(struct push_sender *s)
{
	push_access_destroy(s->access);
	s->access = NULL;
	im_http_destroy(s->http);
	s->http = NULL;
}

static void free_list(const struct push_sender_kind *kind, struct push_sender *list)
{
	struct push_sender *s;

	while ((s = list)) {
		list = s->next;
		disconnect(s);
		kind->close(s);
		free(s->name);
		free(s);
	}
}

static enum im_status open_sender(struct push_sender *s, const struct push_app *from, struct im_err *err)
{
	const struct push_senders *all = s->all;
	struct im_http_options http = {.host_connections = all->kind->connections};
	struct push_access_source source = {.name = s->name, .ready = on_access, .arg = s};
	enum im_status st = all->kind->open(s, from, &http, &source, err);

	if (push_app_has(from, "ca_file"))
		http.ca_file = push_app_text(from, "ca_file");
	if (st == IM_OK)
		st = im_http_create(all->host->loop, &http, &s->http, err);
	if (st == IM_OK && (source.request || source.sign))
		st = push_access_create(all->host->loop, s->http, &source, &s->access, err);
	return st;
}

static enum im_status open_list(struct push_senders *all, struct push_app *const *from, size_t n, struct push_sender **out, struct im_err *err)
{
	struct push_sender *list = NULL, *s;
	enum im_status st = IM_OK;

	for (size_t i = 0; st == IM_OK && i < n; i++) {
		s = calloc(1, all->kind->sender_size);
		if (!s || !(s->name = strdup(push_app_name(from[i])))) {
			free(s);
			st = im_fail(err, IM_FAILED, "out of memory");
			break;
		}
		s->all = all;
		LL_PREPEND(list, s);
		st = open_sender(s, from[i], err);
	}
	if (st == IM_OK)
		*out = list;
	else
		free_list(all->kind, list);
	return st;
}

enum im_status push_senders_reload(void *driver, struct push_app *const *apps, size_t n, struct im_err *err)
{
	struct push_senders *all = driver;
	struct push_sender *fresh, *old = all->list, *s;
	struct push_sending *p, *next, *last;
	enum im_status st = open_list(all, apps, n, &fresh, err);

	if (st != IM_OK)
		return st;
	LL_FOREACH(old, s)
		disconnect(s);
	all->list = fresh;
	last = all->under_way ? all->under_way->prev : NULL; /* what the core sends when it hears the results comes behind it */
	DL_FOREACH_SAFE(all->under_way, p, next) {
		bool end = p == last;

		if (!p->unsent)
			push_sending_set(p, PUSH_UNKNOWN, "reload");
		tell(p);
		if (end)
			break;
	}
	free_list(all->kind, old);
	return IM_OK;
}

/* ---- life */

enum im_status push_senders_start(const struct push_sender_kind *kind, const struct push_host *host, struct push_app *const *apps, size_t n, void **out,
				  struct im_err *err)
{
	struct push_senders *all = calloc(1, sizeof(*all));
	enum im_status st;

	if (!all)
		return im_fail(err, IM_FAILED, "out of memory");
	all->kind = kind;
	all->host = host;
	all->soon = im_timer_create(host->loop, tell_unsent, all);
	st = all->soon ? open_list(all, apps, n, &all->list, err) : im_fail(err, IM_FAILED, "out of memory");
	if (st != IM_OK) {
		push_senders_stop(all);
		return st;
	}
	*out = all;
	return IM_OK;
}

void push_senders_drain(void *driver)
{
	((struct push_senders *)driver)->draining = true;
}

void push_senders_stop(void *driver)
{
	struct push_senders *all = driver;
	struct push_sending *p, *next;

	if (!all)
		return;
	DL_FOREACH_SAFE(all->under_way, p, next)
		forget(p);
	free_list(all->kind, all->list);
	im_timer_destroy(all->soon);
	free(all);
}

/* ---- gauges */

static void print(struct im_buf *out, const char *name, const struct push_sender *s, const char *more, unsigned long long value)
{
	im_buf_printf(out, "%s{provider=\"%s\",app=\"%s\"%s} %llu\n", name, s->all->kind->provider, s->name, more, value);
}

void push_senders_metrics(void *driver, struct im_buf *out)
{
	const struct push_senders *all = driver;
	const struct push_sender *s;
	char status[32];

	im_buf_add_str(out, "# TYPE push_in_flight gauge\n");
	LL_FOREACH(all->list, s)
		print(out, "push_in_flight", s, "", s->n);
	im_buf_add_str(out, "# TYPE push_answers_total counter\n");
	LL_FOREACH(all->list, s)
		for (int i = 0; i < 6; i++) {
			(void)snprintf(status, sizeof(status), ",status=\"%dxx\"", i);
			print(out, "push_answers_total", s, status, s->answers[i]);
		}
	if (!all->list || !all->list->access) /* of a provider all have one or none */
		return;
	im_buf_add_str(out, "# TYPE push_auth_good gauge\n");
	LL_FOREACH(all->list, s)
		print(out, "push_auth_good", s, "", access_of(s) != NULL);
	im_buf_add_str(out, "# TYPE push_auth_fetches_total counter\n");
	LL_FOREACH(all->list, s)
		print(out, "push_auth_fetches_total", s, "", push_access_fetches(s->access));
}
