/*
 * When to connect, which connection takes what, and what an answer means for the next request.
 *
 * The difficult idea is patience. Three things make a pool rest, and each would otherwise be a loop at the network's speed:
 * connections that come to nothing (backoff), streams that are refused (a short rest that grows), a provider token that may not be
 * used. While it rests it has no room; what it had taken already ends as what it is, surely not sent.
 */
#include "pool.h"

#include "base/log.h"
#include "conn.h"
#include "reaction.h"
#include "times.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define OPENING_ROOM 32      /* taken before there is a connection, or its first answer: ready to go with it */
#define CONNECT_BURST 5      /* connections at once: the most usual max_conns and one */
#define REFUSED_REST_MS 50   /* after a refused stream, doubling */
#define REFUSED_REST_MOST_MS 5000
#define PACE_PART 8          /* of what answers take on average is the newest */

struct slot {
	struct pool *pool;
	struct conn *conn; /* NULL: free */
};

struct pool {
	struct pool_spec spec;
	char authority[256 + 8];
	struct slot slots[POOL_CONNS_MAX];
	struct request *waiting;
	size_t n_waiting;
	struct im_timer *timer;
	bool draining;
	int64_t drain_until_ms;
	unsigned failures;      /* connections in a row that came to nothing */
	int64_t connect_at_ms;  /* not before */
	int64_t earned_ms;      /* up to now the connections made are paid for */
	unsigned refusals;      /* streams in a row */
	int64_t rest_until_ms;
	int64_t full_since_ms;  /* 0: not full */
	int64_t answered_ms;    /* the newest answer came then */
	int64_t took_ms;        /* what answers take, the newest counting most */
	uint64_t connects, failed, unknown_codes;
	struct pool_goaway goaways[POOL_GOAWAYS];
};

static int64_t now_ms(const struct pool *p)
{
	return im_loop_now_ms(p->spec.loop);
}

static void set_dirty(void *arg)
{
	struct pool *p = arg;

	p->spec.dirty(p->spec.arg);
}

static void on_timer(void *arg)
{
	set_dirty(arg);
}

static int64_t jitter(int64_t ms)
{
	return ms / 2 + (int64_t)randombytes_uniform((uint32_t)(ms / 2 + 1));
}

/* ---- what came of a request ---- */

static void rest(struct pool *p, int64_t ms)
{
	if (now_ms(p) + ms > p->rest_until_ms)
		p->rest_until_ms = now_ms(p) + ms;
}

static void tell(struct pool *p, struct request *r)
{
	p->spec.result(p->spec.arg, r->row, &r->result);
	request_destroy(r);
}

static void answer(struct pool *p, struct slot *slot, struct request *r)
{
	const struct reaction_case c = {
		.status = r->status,
		.body = r->cut ? "" : im_buf_text(&r->answer),
		.len = r->cut ? 0 : r->answer.len,
		.retry_after = r->retry_after,
		.attempt = r->attempt,
		.other_env = r->other_env,
		.certificate = !p->spec.token,
		.now_ms = apns_wall_ms(),
	};
	unsigned act = reaction_of(&c, &r->result);

	p->refusals = 0;
	p->answered_ms = now_ms(p);
	p->took_ms += (p->answered_ms - r->since_ms - p->took_ms) / PACE_PART;
	if (act & REACTION_UNKNOWN)
		p->unknown_codes++;
	if (act & REACTION_RECONNECT)
		conn_drain(slot->conn);
	if (p->spec.token && act & REACTION_JWT_EXPIRED)
		token_expired(p->spec.token, r->generation);
	if (p->spec.token && act & REACTION_JWT_TOO_MANY)
		token_too_many(p->spec.token, r->generation);
	if (r->result.class == PUSH_AUTH || r->result.class == PUSH_CONFIG || act & REACTION_JWT_TOO_MANY)
		return;
	conn_prime(slot->conn);
	if (p->spec.token)
		token_accepted(p->spec.token, r->generation);
}

/* A peer that refuses one stream may take the next, one that refuses all must not be asked as fast as it answers. */
static void refused(struct pool *p)
{
	int64_t ms = REFUSED_REST_MS;

	for (unsigned i = 0; i < p->refusals && ms < REFUSED_REST_MOST_MS; i++)
		ms *= 2;
	if (p->rest_until_ms > now_ms(p))
		return; /* of the same volley */
	p->refusals++;
	rest(p, ms < REFUSED_REST_MOST_MS ? ms : REFUSED_REST_MOST_MS);
}

static void on_done(void *arg, struct request *r)
{
	struct slot *slot = arg;

	if (r->status)
		answer(slot->pool, slot, r);
	else if (r->result.class == PUSH_UNSENT && conn_state(slot->conn) == CONN_OPEN)
		refused(slot->pool);
	tell(slot->pool, r);
}

static void fail_waiting(struct pool *p, enum push_class class, const char *reason, int64_t retry_after_ms)
{
	struct request *r, *list = p->waiting;

	p->waiting = NULL; /* whoever hears of it may send again at once */
	p->n_waiting = 0;
	while ((r = list)) {
		DL_DELETE(list, r);
		r->result.class = class;
		r->result.retry_after_ms = retry_after_ms;
		(void)snprintf(r->result.reason, sizeof(r->result.reason), "%s", reason);
		tell(p, r);
	}
}

static void expire_waiting(struct pool *p)
{
	if (p->waiting && now_ms(p) - p->waiting->since_ms >= apns_times.request_ms)
		fail_waiting(p, PUSH_UNREACHABLE, "no free stream", 0);
}

/* ---- connections ---- */

static void on_dirty(void *arg)
{
	const struct slot *slot = arg;

	set_dirty(slot->pool);
}

static void on_goaway(void *arg, const char *reason, int32_t last, unsigned in_flight)
{
	const struct slot *slot = arg;
	struct pool *p = slot->pool;
	const char *label = reaction_label(reason);
	size_t i = 0;

	while (i + 1 < POOL_GOAWAYS && p->goaways[i].n && strcmp(p->goaways[i].reason, label) != 0)
		i++;
	p->goaways[i].reason = label;
	p->goaways[i].n++;
	im_log(reaction_of_goaway(reason) == PUSH_CONFIG ? IM_LOG_ERROR : IM_LOG_INFO,
	       "evt=goaway host=%s key=%s reason=\"%s\" last=%d under_way=%u", p->spec.host, p->spec.key, reason, last, in_flight);
}

static bool may_connect(const struct pool *p)
{
	return now_ms(p) >= p->connect_at_ms && now_ms(p) >= p->earned_ms;
}

static bool connect_one(struct pool *p)
{
	static const struct conn_events events = {.done = on_done, .dirty = on_dirty, .goaway = on_goaway};
	int64_t oldest = now_ms(p) - (CONNECT_BURST - 1) * apns_times.connect_each_ms;
	struct slot *s = p->slots;

	while (s < p->slots + POOL_CONNS_MAX && s->conn)
		s++;
	if (s == p->slots + POOL_CONNS_MAX || !may_connect(p))
		return false;
	p->earned_ms = (p->earned_ms > oldest ? p->earned_ms : oldest) + apns_times.connect_each_ms;
	s->conn = conn_open(p->spec.loop, p->spec.tls, p->spec.host, p->spec.port, p->authority, &events, s);
	if (!s->conn) {
		p->connect_at_ms = now_ms(p) + apns_times.backoff_least_ms;
		return false;
	}
	p->connects++;
	im_log(IM_LOG_DEBUG, "evt=connect host=%s key=%s", p->spec.host, p->spec.key);
	return true;
}

struct count {
	unsigned opening, open, primed, in_flight, limit, free; /* limit, free: of those that are open */
};

static struct count count_conns(const struct pool *p)
{
	struct count n = {0};

	for (size_t i = 0; i < POOL_CONNS_MAX; i++) {
		const struct conn *c = p->slots[i].conn;
		unsigned limit, used;

		if (!c || conn_state(c) == CONN_ENDED)
			continue;
		n.opening += conn_state(c) == CONN_OPENING;
		n.open += conn_state(c) == CONN_OPEN;
		n.primed += conn_state(c) == CONN_OPEN && conn_primed(c);
		limit = conn_limit(c);
		used = conn_in_flight(c);
		n.in_flight += used;
		n.limit += limit;
		n.free += limit > used ? limit - used : 0;
	}
	return n;
}

/* A connection that never answered anything is a failure, whoever ended it: the next one waits. */
static void note_failure(struct pool *p, enum conn_end how, const char *why)
{
	int64_t ms = apns_times.backoff_least_ms;

	for (unsigned i = 0; i < p->failures && ms < apns_times.backoff_most_ms; i++)
		ms *= 2;
	ms = jitter(ms < apns_times.backoff_most_ms ? ms : apns_times.backoff_most_ms);
	p->failures++;
	p->failed++;
	p->connect_at_ms = now_ms(p) + ms;
	im_log(how == CONN_REFUSED ? IM_LOG_ERROR : IM_LOG_WARNING,
	       "evt=connect_failed host=%s port=%u key=%s why=\"%s\": again in %lld ms", p->spec.host, p->spec.port, p->spec.key, why,
	       (long long)ms);
	if (count_conns(p).open == 0)
		fail_waiting(p, how == CONN_REFUSED ? PUSH_CONFIG : PUSH_UNREACHABLE, why, 0);
}

static void sweep(struct pool *p)
{
	for (size_t i = 0; i < POOL_CONNS_MAX; i++) {
		struct conn *c = p->slots[i].conn;
		const char *why;
		enum conn_end how;

		if (!c || conn_state(c) != CONN_ENDED)
			continue;
		how = conn_ended(c, &why);
		if (conn_answered(c)) {
			p->failures = 0;
			im_log(how == CONN_DONE ? IM_LOG_DEBUG : IM_LOG_NOTICE, "evt=disconnected host=%s key=%s why=\"%s\"",
			       p->spec.host, p->spec.key, why);
		} else if (!p->draining) {
			note_failure(p, how, why);
		}
		conn_close(c, "");
		p->slots[i].conn = NULL;
		set_dirty(p); /* who waits needs another */
	}
}

/* ---- sending ---- */

static struct conn *free_conn(struct pool *p)
{
	struct conn *best = NULL;
	unsigned most = 0;

	for (size_t i = 0; i < POOL_CONNS_MAX; i++) {
		struct conn *c = p->slots[i].conn;
		unsigned limit = c ? conn_limit(c) : 0, used = c ? conn_in_flight(c) : 0;

		if (limit > used && limit - used > most) {
			most = limit - used;
			best = c;
		}
	}
	return best;
}

static void dispatch(struct pool *p)
{
	while (p->waiting && now_ms(p) >= p->rest_until_ms) {
		struct conn *c = free_conn(p);
		struct request *r = p->waiting;
		const char *bearer = NULL;
		int64_t wait = 0;

		if (!c)
			return;
		if (p->spec.token) {
			bearer = token_get(p->spec.token, &r->generation, &wait);
			if (!bearer) {
				rest(p, wait < apns_times.backoff_most_ms ? wait : apns_times.backoff_most_ms);
				fail_waiting(p, PUSH_RATE, "no provider token", wait);
				return;
			}
		}
		DL_DELETE(p->waiting, r);
		p->n_waiting--;
		conn_send(c, r, bearer);
	}
}

/* A peer that answers late has enough to do: with more at once all of it would time out. One that answers nothing may be frozen, and another is not. */
static bool is_behind(const struct pool *p)
{
	return p->took_ms >= apns_times.slow_ms && now_ms(p) - p->answered_ms < apns_times.grow_ms;
}

/* The first connection for who waits; one more when nine tenths of the streams have been in use for a while. */
static void grow(struct pool *p)
{
	struct count n = count_conns(p);
	bool full = n.open && n.primed == n.open && n.limit && n.in_flight * 10 >= n.limit * 9 && !is_behind(p);

	if (!full || n.opening)
		p->full_since_ms = 0;
	else if (!p->full_since_ms)
		p->full_since_ms = now_ms(p);
	if (p->draining || n.opening)
		return;
	if (n.open == 0 ? p->waiting != NULL
			: n.open < p->spec.max_conns && p->full_since_ms && now_ms(p) - p->full_since_ms >= apns_times.grow_ms)
		(void)connect_one(p);
}

size_t pool_room(struct pool *p)
{
	struct count n;
	size_t room;

	if (p->draining || now_ms(p) < p->rest_until_ms)
		return 0;
	n = count_conns(p);
	if (n.open == 0 && n.opening == 0 && !may_connect(p))
		return 0;
	room = n.free + (n.primed == 0 && (n.open == 0 || n.limit > 0) ? OPENING_ROOM : 0);
	return room > p->n_waiting ? room - p->n_waiting : 0;
}

void pool_send(struct pool *p, struct request *r)
{
	r->since_ms = now_ms(p);
	DL_APPEND(p->waiting, r);
	p->n_waiting++;
	set_dirty(p);
}

/* ---- the turn ---- */

static int64_t next_due(const struct pool *p)
{
	int64_t now = now_ms(p), due = INT64_MAX, at[7];
	size_t n = 0;

	at[n++] = p->draining ? p->drain_until_ms : 0;
	at[n++] = p->rest_until_ms;
	at[n++] = p->connect_at_ms;
	at[n++] = p->earned_ms;
	at[n++] = p->full_since_ms ? p->full_since_ms + apns_times.grow_ms : 0; /* when nothing is answered nothing else wakes us */
	at[n++] = is_behind(p) ? p->answered_ms + apns_times.grow_ms : 0;
	at[n++] = p->waiting ? p->waiting->since_ms + apns_times.request_ms : 0;
	while (n-- > 0)
		if (at[n] > now && at[n] < due)
			due = at[n];
	return due;
}

static void set_timer(struct pool *p)
{
	int64_t due = next_due(p);

	if (due == INT64_MAX)
		im_timer_stop(p->timer);
	else
		im_timer_start(p->timer, (uint64_t)(due - now_ms(p)), 0);
}

static void end_drain(struct pool *p)
{
	for (size_t i = 0; i < POOL_CONNS_MAX; i++) {
		struct conn *c = p->slots[i].conn;

		if (c && (now_ms(p) >= p->drain_until_ms || conn_in_flight(c) == 0)) {
			conn_close(c, "stopping");
			p->slots[i].conn = NULL;
		}
	}
}

void pool_turn(struct pool *p)
{
	if (p->draining)
		fail_waiting(p, PUSH_UNSENT, "stopping", 0);
	sweep(p); /* first: what a connection's end means for the next must be known before there is one */
	expire_waiting(p);
	dispatch(p);
	grow(p);
	for (size_t i = 0; i < POOL_CONNS_MAX; i++)
		if (p->slots[i].conn)
			conn_turn(p->slots[i].conn);
	sweep(p);
	if (p->draining)
		end_drain(p);
	set_timer(p);
}

/* ---- its life ---- */

struct pool *pool_create(const struct pool_spec *spec)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->spec = *spec;
	p->timer = im_timer_create(spec->loop, on_timer, p);
	if (!p->timer || SSL_CTX_up_ref(spec->tls) != 1) {
		im_timer_destroy(p->timer);
		free(p);
		return NULL;
	}
	for (size_t i = 0; i < POOL_CONNS_MAX; i++)
		p->slots[i].pool = p;
	if (spec->port == 443)
		(void)snprintf(p->authority, sizeof(p->authority), "%s", spec->host);
	else
		(void)snprintf(p->authority, sizeof(p->authority), strchr(spec->host, ':') ? "[%s]:%u" : "%s:%u", spec->host, spec->port);
	return p;
}

static void tell_nobody(void *arg, uint64_t row, const struct push_result *r)
{
	(void)arg;
	(void)row;
	(void)r;
}

void pool_destroy(struct pool *p)
{
	if (!p)
		return;
	p->spec.result = tell_nobody;
	fail_waiting(p, PUSH_UNSENT, "stopping", 0);
	for (size_t i = 0; i < POOL_CONNS_MAX; i++)
		conn_close(p->slots[i].conn, "stopping");
	im_timer_destroy(p->timer);
	SSL_CTX_free(p->spec.tls);
	free(p);
}

void pool_drain(struct pool *p)
{
	if (p->draining)
		return;
	p->draining = true;
	p->drain_until_ms = now_ms(p) + apns_times.drain_ms;
	set_dirty(p);
}

bool pool_is_empty(const struct pool *p)
{
	return !p->waiting && count_conns(p).in_flight == 0;
}

void pool_set_max_conns(struct pool *p, unsigned n)
{
	p->spec.max_conns = n;
}

const struct pool_spec *pool_spec(const struct pool *p)
{
	return &p->spec;
}

void pool_figures(const struct pool *p, struct pool_figures *out)
{
	struct count n = count_conns(p);

	*out = (struct pool_figures){
		.conns = n.open, .streams = n.in_flight, .limit = n.limit, .waiting = (unsigned)p->n_waiting,
		.connects = p->connects, .failures = p->failed, .unknown_codes = p->unknown_codes,
	};
	for (size_t i = 0; i < POOL_CONNS_MAX; i++)
		if (p->slots[i].conn && conn_rtt_us(p->slots[i].conn) > out->rtt_us)
			out->rtt_us = conn_rtt_us(p->slots[i].conn);
}

const struct pool_goaway *pool_goaways(const struct pool *p, size_t *n)
{
	for (*n = 0; *n < POOL_GOAWAYS && p->goaways[*n].n; (*n)++)
		;
	return p->goaways;
}
