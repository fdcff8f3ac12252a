/*
 * The driver: apps, and what they share.
 *
 * The difficult idea is the sharing. Apple counts per key and per connection, not per app: so apps with the same key have one provider
 * token, and apps with the same key and host have one pool. New files make a new set of apps; a pool or a token that is in both sets goes
 * on as it is, one that no app needs any more drains by itself and goes when it is empty.
 */
#include "apns.h"

#include "base/log.h"
#include "conf.h"
#include "pool.h"
#include "reaction.h"
#include "times.h"
#include "token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define ROUNDS_MOST 4 /* of a turn: what the core sends when it hears results goes out in the same turn, within reason */

struct signer {
	struct signer *next;
	struct token *token;
};

struct place {
	struct place *next;
	char identity[CONF_IDENTITY_SIZE];
	struct pool *pool;
	bool retired;
};

struct app {
	struct conf conf;
	struct pool *pools[CONF_ENVS]; /* NULL: not served */
};

/* Refused by us, before Apple could: told in the next turn. */
struct refusal {
	struct refusal *next;
	uint64_t row;
	struct push_result result;
};

struct apns {
	struct push_host host;
	struct im_after *after;
	struct im_timer *again;
	struct app *apps;
	size_t n_apps;
	struct signer *signers;
	struct place *places;
	struct refusal *refusals;
	bool dirty, in_turn, draining;
};

static void set_dirty(void *arg)
{
	struct apns *a = arg;

	a->dirty = true;
}

/* Whoever calls from outside may do so at the turn's very end: ours comes all the same. */
static void wake(struct apns *a)
{
	a->dirty = true;
	if (!a->in_turn)
		im_timer_start(a->again, 0, 0);
}

static void tell_core(void *arg, uint64_t row, const struct push_result *r)
{
	const struct apns *a = arg;

	a->host.result(a->host.arg, row, r);
}

/* ---- tokens and pools, shared ---- */

static enum im_status find_token(struct apns *a, const struct conf *c, struct token **out, struct im_err *err)
{
	struct signer *s;
	enum im_status st;

	*out = NULL;
	if (!c->key)
		return IM_OK;
	LL_FOREACH(a->signers, s)
		if (token_is(s->token, c->team, c->kid, c->key))
			break;
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return im_fail(err, IM_FAILED, "out of memory");
		st = token_open(a->host.state_dir, c->team, c->kid, c->key, &s->token, err);
		if (st != IM_OK) {
			free(s);
			return st;
		}
		LL_PREPEND(a->signers, s);
	}
	*out = s->token;
	return IM_OK;
}

static struct pool *make_pool(struct apns *a, const struct conf *c, int env, struct token *token)
{
	struct pool_spec spec = {
		.loop = a->host.loop, .tls = c->tls, .port = c->hosts[env].port, .max_conns = c->max_conns, .token = token,
		.result = tell_core, .dirty = set_dirty, .arg = a,
	};
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	memcpy(spec.host, c->hosts[env].name, sizeof(spec.host));
	memcpy(spec.key, c->label, sizeof(spec.key));
	memcpy(p->identity, c->hosts[env].identity, sizeof(p->identity));
	p->pool = pool_create(&spec);
	if (!p->pool) {
		free(p);
		return NULL;
	}
	LL_PREPEND(a->places, p);
	return p->pool;
}

static struct pool *find_pool(struct apns *a, const struct conf *c, int env, struct token *token)
{
	struct place *p;

	LL_FOREACH(a->places, p) {
		if (p->retired || strcmp(p->identity, c->hosts[env].identity) != 0)
			continue;
		if (pool_spec(p->pool)->max_conns < c->max_conns)
			pool_set_max_conns(p->pool, c->max_conns);
		return p->pool;
	}
	return make_pool(a, c, env, token);
}

static bool is_needed(const struct apns *a, const struct pool *p)
{
	for (size_t i = 0; i < a->n_apps; i++)
		for (int e = 0; e < CONF_ENVS; e++)
			if (a->apps[i].pools[e] == p)
				return true;
	return false;
}

static bool signs_for_any(const struct apns *a, const struct token *t)
{
	const struct place *p;

	LL_FOREACH(a->places, p)
		if (pool_spec(p->pool)->token == t)
			return true;
	return false;
}

/* What no app needs drains; what has drained goes. */
static void sweep(struct apns *a)
{
	struct place *p, *next;
	struct signer *s, *next_s;

	LL_FOREACH_SAFE(a->places, p, next) {
		if (is_needed(a, p->pool))
			continue;
		p->retired = true;
		pool_drain(p->pool);
		if (!pool_is_empty(p->pool))
			continue;
		LL_DELETE(a->places, p);
		pool_destroy(p->pool);
		free(p);
	}
	LL_FOREACH_SAFE(a->signers, s, next_s) {
		if (signs_for_any(a, s->token))
			continue;
		LL_DELETE(a->signers, s);
		token_close(s->token);
		free(s);
	}
}

/* ---- apps ---- */

static void apps_free(struct app *apps, size_t n)
{
	for (size_t i = 0; apps && i < n; i++)
		conf_finish(&apps[i].conf);
	free(apps);
}

static enum im_status join(struct apns *a, struct app *app, struct im_err *err)
{
	struct token *token;
	enum im_status st = find_token(a, &app->conf, &token, err);

	for (int e = 0; st == IM_OK && e < CONF_ENVS; e++) {
		if (!app->conf.serves[e])
			continue;
		app->pools[e] = find_pool(a, &app->conf, e, token);
		if (!app->pools[e])
			st = im_fail(err, IM_FAILED, "out of memory");
	}
	return st;
}

/* All apps are read before anything of the old ones changes. */
static enum im_status load(struct apns *a, struct push_app *const *files, size_t n, struct im_err *err)
{
	struct app *apps = calloc(n + 1, sizeof(*apps)), *old = a->apps;
	size_t n_old = a->n_apps;
	enum im_status st = apps ? IM_OK : im_fail(err, IM_FAILED, "out of memory");

	for (size_t i = 0; st == IM_OK && i < n; i++)
		st = conf_read(files[i], &apps[i].conf, err);
	for (size_t i = 0; st == IM_OK && i < n; i++)
		st = join(a, &apps[i], err);
	if (st == IM_OK) {
		a->apps = apps;
		a->n_apps = n;
		apps = old;
		n = n_old;
	}
	sweep(a); /* of the old set, or of a new one that did not come to be */
	apps_free(apps, apps ? n : 0);
	return st;
}

static const struct app *find_app(const struct apns *a, const char *name)
{
	for (size_t i = 0; i < a->n_apps; i++)
		if (strcmp(a->apps[i].conf.name, name) == 0)
			return &a->apps[i];
	return NULL;
}

/* "" : the first that is served. -1: there is no such environment, or the app does not serve it. */
static int find_env(const struct app *app, const char *env)
{
	for (int e = 0; e < CONF_ENVS; e++)
		if (app->pools[e] && (!*env || strcmp(env, conf_envs[e]) == 0))
			return e;
	return -1;
}

/* ---- the turn ---- */

static void tell_refusals(struct apns *a)
{
	struct refusal *r;

	while ((r = a->refusals)) {
		LL_DELETE(a->refusals, r);
		tell_core(a, r->row, &r->result);
		free(r);
	}
}

static void turn(void *arg)
{
	struct apns *a = arg;

	a->in_turn = true;
	for (int i = 0; i < ROUNDS_MOST && a->dirty; i++) {
		struct place *p;

		a->dirty = false;
		tell_refusals(a);
		LL_FOREACH(a->places, p)
			pool_turn(p->pool);
		sweep(a);
		if (!a->draining)
			a->host.room(a->host.arg);
	}
	a->in_turn = false;
	if (a->dirty)
		wake(a);
}

/* Its only work is that there is another turn. */
static void on_again(void *arg)
{
	(void)arg;
}

/* ---- the driver ---- */

static void stop(void *driver)
{
	struct apns *a = driver;
	struct refusal *r, *next;

	apps_free(a->apps, a->n_apps);
	a->apps = NULL;
	a->n_apps = 0; /* nothing is needed any more */
	LL_FOREACH_SAFE(a->refusals, r, next)
		free(r);
	while (a->places) {
		struct place *p = a->places;

		LL_DELETE(a->places, p);
		pool_destroy(p->pool);
		free(p);
	}
	sweep(a);
	im_after_destroy(a->after);
	im_timer_destroy(a->again);
	free(a);
}

static enum im_status start(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err)
{
	struct apns *a = calloc(1, sizeof(*a));
	enum im_status st;

	if (!a)
		return im_fail(err, IM_FAILED, "out of memory");
	a->host = *host;
	st = load(a, apps, n, err);
	if (st == IM_OK) {
		a->after = im_after_create(host->loop, turn, a);
		a->again = im_timer_create(host->loop, on_again, a);
		if (!a->after || !a->again)
			st = im_fail(err, IM_FAILED, "out of memory");
	}
	if (st != IM_OK) {
		stop(a);
		return st;
	}
	*out = a;
	return IM_OK;
}

static enum im_status reload(void *driver, struct push_app *const *apps, size_t n, struct im_err *err)
{
	struct apns *a = driver;
	enum im_status st = load(a, apps, n, err);

	wake(a);
	return st;
}

static size_t room(void *driver, const char *name, const char *env)
{
	const struct apns *a = driver;
	const struct app *app = find_app(a, name);
	int e = app ? find_env(app, env) : -1;

	if (a->draining)
		return 0;
	return e < 0 ? 1 : pool_room(app->pools[e]); /* 1: to say what is wrong with it */
}

static void refuse(struct apns *a, uint64_t row, enum push_class class, const char *why)
{
	struct refusal *r = calloc(1, sizeof(*r));

	if (!r) {
		im_log(IM_LOG_ERROR, "evt=push row=%llu why=\"out of memory\": counts as under way until the restart",
		       (unsigned long long)row);
		return;
	}
	r->row = row;
	r->result.class = class;
	(void)snprintf(r->result.reason, sizeof(r->result.reason), "%s", why);
	LL_APPEND(a->refusals, r);
}

static void send_one(void *driver, const struct push_send *s, bool minimal)
{
	struct apns *a = driver;
	const struct app *app = find_app(a, s->ticket->token->app);
	int e = app ? find_env(app, s->ticket->token->env) : -1;
	const char *problem;
	struct request *r;

	wake(a);
	if (e < 0) {
		refuse(a, s->row, PUSH_CONFIG, app ? "environment not served" : "no such app");
		return;
	}
	r = request_create(s, minimal,
			   &(struct request_app){.topic = app->conf.topic, .sound = app->conf.sound, .loc_key = app->conf.loc_key,
						 .other_env = app->pools[1 - e] != NULL},
			   apns_wall_ms(), &problem);
	if (r)
		pool_send(app->pools[e], r);
	else
		refuse(a, s->row, problem ? PUSH_BUG : PUSH_RETRY, problem ? problem : "out of memory");
}

static void drain(void *driver)
{
	struct apns *a = driver;
	struct place *p;

	a->draining = true;
	LL_FOREACH(a->places, p)
		pool_drain(p->pool);
	wake(a);
}

/* ---- gauges ---- */

static void pool_metrics(const struct pool *p, struct im_buf *out)
{
	const struct pool_spec *s = pool_spec(p);
	const struct pool_goaway *g;
	struct pool_figures f;
	char labels[400];
	size_t n;

	pool_figures(p, &f);
	(void)snprintf(labels, sizeof(labels), "provider=\"apns\",host=\"%s:%u\",key=\"%s\"", s->host, s->port, s->key);
	im_buf_printf(out, "push_conns{%s} %u\npush_streams{%s} %u\npush_streams_limit{%s} %u\n", labels, f.conns, labels,
		      f.streams, labels, f.limit);
	im_buf_printf(out, "push_connects_total{%s} %llu\npush_connect_failures_total{%s} %llu\npush_unknown_code_total{%s} %llu\n", labels,
		      (unsigned long long)f.connects, labels, (unsigned long long)f.failures, labels, (unsigned long long)f.unknown_codes);
	if (f.rtt_us)
		im_buf_printf(out, "push_ping_rtt_seconds{%s} %.6f\n", labels, (double)f.rtt_us / 1e6);
	g = pool_goaways(p, &n);
	for (size_t i = 0; i < n; i++)
		im_buf_printf(out, "push_goaway_total{%s,reason=\"%s\"} %llu\n", labels, g[i].reason, (unsigned long long)g[i].n);
}

static void metrics(void *driver, struct im_buf *out)
{
	const struct apns *a = driver;
	const struct signer *s;
	const struct place *p;

	LL_FOREACH(a->places, p)
		if (!p->retired)
			pool_metrics(p->pool, out);
	LL_FOREACH(a->signers, s) {
		if (token_age_ms(s->token) >= 0)
			im_buf_printf(out, "push_jwt_age_seconds{provider=\"apns\",key=\"%s\"} %lld\n", token_kid(s->token),
				      (long long)(token_age_ms(s->token) / 1000));
		im_buf_printf(out, "push_jwt_mint_total{provider=\"apns\",key=\"%s\"} %u\n", token_kid(s->token), token_mints(s->token));
	}
	for (size_t i = 0; i < a->n_apps; i++)
		if (a->apps[i].conf.cert_expires_ms)
			im_buf_printf(out, "push_cert_expiry_seconds{provider=\"apns\",app=\"%s\"} %lld\n", a->apps[i].conf.name,
				      (long long)((a->apps[i].conf.cert_expires_ms - apns_wall_ms()) / 1000));
}

const struct push_driver apns_driver = {
	.provider = "apns",
	.program = "im-apns-bridge",
	.keys = conf_keys,
	.envs = conf_envs,
	.start = start,
	.reload = reload,
	.room = room,
	.send = send_one,
	.metrics = metrics,
	.drain = drain,
	.stop = stop,
};
