/*
 * Sessions. The one difficult idea: the broker's events name contexts, not connections. At a takeover AUTH
 * of the new connection comes before DISCONNECT of the old one, DISCONNECT also comes for logins that
 * failed (with the victim's client id), for sockets that never sent CONNECT, and a second time when a
 * stored session is resumed. So everything is keyed by the context's address from AUTH to the first
 * DISCONNECT, and a second index tells which context holds a client id now.
 *
 *   by_context   every connection let in            by_id       the newest of each client id
 *   kept         what a stored session had          gone        ended ones whose will may still be sent
 */
#include "session.h"

#include "base/clock.h"
#include "base/log.h"
#include "session_expiry.h"
#include "session_kept.h"
#include "session_other.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

/* Ended connections remembered for their delayed wills: beyond it the oldest will is not sent. */
#define GONE_MAX 4096u

struct entry {
	struct session s; /* first: a session pointer is an entry pointer */
	bool foreign;
	bool settled;     /* foreign: let in, seen at a tick */
	bool active;      /* has sent a packet */
	bool was_own;     /* what is queued in the broker was queued for this user */
	bool kick_due;    /* at the next tick; `kicked` stays until the connection has ended */
	uint64_t opened_tick;
	struct expiry_node expiry;
	struct entry *prev, *next; /* foreign: among the unsettled; ours: among those to be kicked */
	UT_hash_handle hh_context, hh_id, hh_handle;
};

struct gone {
	struct session_gone g;
	const struct mosquitto *context;
	UT_hash_handle hh;
};

struct session_table {
	struct entry *by_context, *by_id, *by_handle;
	struct kept_table *kept;
	struct others *others;
	struct gone *gone;
	uint64_t next_handle;
	uint64_t tick;
	size_t ours;
	struct entry *to_kick;
	struct entry *unsettled; /* foreign ones of this turn */
	struct expiry expiry;
};

/* The expiry of an MQTT 5 session of others is invisible: its id is theirs for so long after they left. */
#define OTHERS_CLAIM_MS (24LL * 3600 * 1000)

/* ---- gone ---- */

static void gone_remove(struct session_table *t, struct gone *g)
{
	HASH_DEL(t->gone, g);
	free(g->g.user);
	free(g->g.client_id);
	free(g);
}

static void gone_forget(struct session_table *t, const struct mosquitto *context)
{
	struct gone *g;

	HASH_FIND_PTR(t->gone, &context, g);
	if (g)
		gone_remove(t, g);
}

static void gone_add(struct session_table *t, const struct session *s)
{
	struct gone *g;

	gone_forget(t, s->context);
	if (HASH_CNT(hh, t->gone) >= GONE_MAX)
		gone_remove(t, t->gone); /* uthash iterates in order of insertion: the first is the oldest */
	g = calloc(1, sizeof(*g));
	if (!g)
		return;
	g->context = s->context;
	g->g.user = strdup(s->user);
	g->g.client_id = strdup(s->client_id);
	g->g.protocol = s->protocol;
	if (!g->g.user || !g->g.client_id) {
		free(g->g.user);
		free(g->g.client_id);
		free(g);
		return;
	}
	HASH_ADD_PTR(t->gone, context, g);
}

const struct session_gone *session_gone(struct session_table *t, const struct mosquitto *context)
{
	struct gone *g;

	HASH_FIND_PTR(t->gone, &context, g);
	return g ? &g->g : NULL;
}

/* ---- the table ---- */

enum im_status session_table_create(const char *dir, uint64_t epoch, struct session_table **out, struct im_err *err)
{
	struct session_table *t = calloc(1, sizeof(*t));
	enum im_status st;

	if (!t)
		return im_fail(err, IM_FAILED, "out of memory");
	t->next_handle = (epoch << 32) + 1;
	t->others = others_create();
	if (!t->others) {
		session_table_destroy(t);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	st = kept_open(dir, &t->kept, err);
	if (st != IM_OK) {
		session_table_destroy(t);
		return st;
	}
	*out = t;
	return IM_OK;
}

static bool is_kept(void *arg, const char *client_id)
{
	return kept_find(((struct session_table *)arg)->kept, client_id) != NULL;
}

void session_table_read_others(struct session_table *t, const char *broker_file)
{
	long n = others_read(t->others, broker_file, im_clock_wall_ms(), is_kept, t);

	if (n < 0)
		im_log(IM_LOG_WARNING, "evt=others_file file=%s note=\"cannot be read to its end: stored sessions of other users, "
		       "from before this start, are not protected\"", broker_file);
	else if (n > 0)
		im_log(IM_LOG_INFO, "evt=others_file file=%s sessions=%ld", broker_file, n);
}

static struct entry *entry_of(struct session *s)
{
	return (struct entry *)s;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	filters_free(s->filters, s->n_filters);
	free((char *)s->user);
	free((char *)s->client_id);
	free(s);
}

void session_table_destroy(struct session_table *t)
{
	struct entry *e, *next;

	if (!t)
		return;
	HASH_CLEAR(hh_id, t->by_id);
	HASH_CLEAR(hh_handle, t->by_handle);
	HASH_ITER(hh_context, t->by_context, e, next) {
		HASH_DELETE(hh_context, t->by_context, e);
		session_free(&e->s);
	}
	while (t->gone)
		gone_remove(t, t->gone);
	kept_close(t->kept);
	others_destroy(t->others);
	free(t);
}

static struct entry *find_context(struct session_table *t, const struct mosquitto *context)
{
	struct entry *e;

	HASH_FIND(hh_context, t->by_context, &context, sizeof(context), e);
	return e;
}

static struct entry *find_id(struct session_table *t, const char *client_id)
{
	struct entry *e;

	HASH_FIND(hh_id, t->by_id, client_id, strlen(client_id), e);
	return e;
}

struct session *session_by_handle(struct session_table *t, uint64_t handle)
{
	struct entry *e;

	HASH_FIND(hh_handle, t->by_handle, &handle, sizeof(handle), e);
	/* Taken over: its client id now leads to somebody else's connection. */
	return e && find_id(t, e->s.client_id) == e ? &e->s : NULL;
}

struct session *session_by_context(struct session_table *t, const struct mosquitto *context)
{
	struct entry *e = find_context(t, context);

	return e && !e->foreign ? &e->s : NULL;
}

struct session *session_by_client_id(struct session_table *t, const char *client_id)
{
	struct entry *e = find_id(t, client_id);

	return e && !e->foreign ? &e->s : NULL;
}

enum session_claim session_claim(struct session_table *t, const char *client_id, const char *user)
{
	struct entry *e = find_id(t, client_id);
	struct kept *k = kept_find(t->kept, client_id);

	if (e)
		return strcmp(e->s.user, user) == 0 ? SESSION_OWN : SESSION_OF_OTHER;
	DL_FOREACH(t->unsettled, e) /* let in during this turn */
		if (strcmp(e->s.client_id, client_id) == 0 && strcmp(e->s.user, user) != 0)
			return SESSION_OF_OTHER;
	if (k && strcmp(k->user, user) == 0)
		return SESSION_OWN;
	if (k && kept_claims(k))
		return SESSION_OF_OTHER;
	return others_claim(t->others, client_id, user, im_clock_wall_ms()) ? SESSION_OF_OTHER : SESSION_FREE;
}

bool session_holds_id(struct session_table *t, const char *client_id)
{
	struct kept *k = kept_find(t->kept, client_id);

	return session_by_client_id(t, client_id) || (k && kept_claims(k));
}

bool session_taken_over(struct session_table *t, const struct session *s)
{
	return find_id(t, s->client_id) != (const struct entry *)s;
}

bool session_is_stored(struct session_table *t, const struct mosquitto *context, const struct broker_client *c)
{
	struct kept *k = c->id ? kept_find(t->kept, c->id) : NULL;

	if (!k || !c->user || strcmp(k->user, c->user) != 0)
		return false;
	return c->address == NULL || k->context == context;
}

/* ---- AUTH ---- */

static struct entry *entry_create(struct session_table *t, const struct mosquitto *context, const struct broker_client *c)
{
	struct entry *e = calloc(1, sizeof(*e));
	struct session *s;

	if (!e)
		return NULL;
	s = &e->s;
	s->context = context;
	s->user = strdup(c->user ? c->user : "");
	s->client_id = strdup(c->id);
	if (!s->user || !s->client_id) {
		session_free(s);
		return NULL;
	}
	s->protocol = c->protocol;
	s->keepalive_s = c->keepalive_s;
	s->clean = c->clean;
	s->websocket = c->websocket;
	s->since_ms = im_clock_wall_ms();
	s->opened_ms = im_clock_mono_ms();
	if (c->address)
		strncpy(s->address, c->address, sizeof(s->address) - 1);
	e->opened_tick = t->tick;
	return e;
}

/* Puts a new connection into the indexes; an older one of the same client id keeps only its context. */
static void entry_enter(struct session_table *t, struct entry *e)
{
	struct entry *old = find_context(t, e->s.context);

	if (old) { /* its DISCONNECT never came: cannot happen, but a stale pointer must not stay */
		bool owner;

		session_free(session_close(t, e->s.context, &owner));
	}
	gone_forget(t, e->s.context);
	old = find_id(t, e->s.client_id);
	if (old)
		HASH_DELETE(hh_id, t->by_id, old);
	HASH_ADD(hh_context, t->by_context, s.context, sizeof(e->s.context), e);
	HASH_ADD_KEYPTR(hh_id, t->by_id, e->s.client_id, strlen(e->s.client_id), e);
}

/* Filters that a resumed session still has in the broker are ours again too. */
static void restore_filters(struct entry *e, const struct kept *k)
{
	struct session *s = &e->s;

	for (unsigned i = 0; i < k->n_filters; i++)
		if (!filters_add(&s->filters, &s->n_filters, k->filters[i].filter, k->filters[i].qos))
			return;
	s->codec = k->codec;
}

/* The user's oldest one that is not connected and may be gone already makes room. NULL: none may, or no memory. */
static struct kept *kept_make(struct session_table *t, const struct session *s)
{
	struct kept *k;

	if (kept_count(t->kept, s->user) >= KEPT_USER_MAX) {
		for (k = kept_first(t->kept, s->user); k; k = k->next)
			if (!k->sure && !find_id(t, k->client_id))
				break;
		if (k)
			kept_remove(t->kept, k);
	}
	return kept_add(t->kept, s->client_id, s->user);
}

bool session_may_store(struct session_table *t, const char *client_id, const char *user)
{
	return kept_find(t->kept, client_id) || kept_count(t->kept, user) < KEPT_USER_MAX;
}

static void open_stored(struct session_table *t, struct entry *e)
{
	struct session *s = &e->s;
	struct kept *k = kept_find(t->kept, s->client_id);

	if (k && (s->clean || strcmp(k->user, s->user) != 0)) {
		kept_remove(t->kept, k);
		k = NULL;
	}
	if (k) {
		e->was_own = true;
		restore_filters(e, k);
	}
	if (s->clean && s->protocol != 5)
		return; /* ends with the connection */
	if (!k)
		k = kept_make(t, s);
	if (!k)
		return;
	k->context = s->context;
	k->sure = !s->clean && s->protocol != 5;
	k->seen_ms = s->since_ms;
	kept_write(t->kept, k);
}

struct session *session_open(struct session_table *t, const struct mosquitto *context, const struct broker_client *c, bool service)
{
	struct entry *e = entry_create(t, context, c);

	if (!e)
		return NULL;
	e->s.service = service;
	e->s.handle = t->next_handle++;
	entry_enter(t, e);
	HASH_ADD(hh_handle, t->by_handle, s.handle, sizeof(e->s.handle), e);
	others_forget(t->others, c->id);
	if (!service) {
		t->ours++;
		open_stored(t, e);
	}
	return &e->s;
}

void session_open_foreign(struct session_table *t, const struct mosquitto *context, const struct broker_client *c)
{
	struct entry *e;

	if (!c->id || find_context(t, context))
		return;
	e = entry_create(t, context, c);
	if (!e)
		return;
	/*
	 * Not let in yet, perhaps never: it must not take a client id away from the connection that has it
	 * (a failed login gets its DISCONNECT at once). At the next tick whoever is still here has it.
	 */
	e->foreign = true;
	DL_APPEND(t->unsettled, e);
	gone_forget(t, context);
	HASH_ADD(hh_context, t->by_context, s.context, sizeof(e->s.context), e);
}

/* ---- DISCONNECT ---- */

static void leave(struct session_table *t, struct entry *e)
{
	struct session *s = &e->s;
	struct kept *k = kept_find(t->kept, s->client_id);

	HASH_DELETE(hh_handle, t->by_handle, e);
	expiry_remove(&t->expiry, &e->expiry);
	if (entry_of(s)->kick_due)
		DL_DELETE(t->to_kick, entry_of(s));
	if (s->service)
		return;
	t->ours--;
	gone_add(t, s);
	if (k && k->context == s->context)
		k->seen_ms = im_clock_wall_ms();
}

struct session *session_close(struct session_table *t, const struct mosquitto *context, bool *owner)
{
	struct entry *e = find_context(t, context);

	*owner = false;
	if (!e)
		return NULL;
	*owner = find_id(t, e->s.client_id) == e;
	HASH_DELETE(hh_context, t->by_context, e);
	if (*owner)
		HASH_DELETE(hh_id, t->by_id, e);
	if (e->foreign) {
		if (!e->settled)
			DL_DELETE(t->unsettled, e);
		else if (*owner && e->s.protocol == 5) /* counted from its end */
			others_keep(t->others, e->s.client_id, e->s.user, im_clock_wall_ms() + OTHERS_CLAIM_MS);
		session_free(&e->s);
		*owner = false;
		return NULL;
	}
	leave(t, e);
	return &e->s;
}

/* ---- filters of a session ---- */

bool session_is_resuming(struct session_table *t, const struct session *s)
{
	const struct entry *e = (const struct entry *)s;

	return e->was_own && !e->active && e->opened_tick == t->tick;
}

void session_is_active(struct session *s)
{
	entry_of(s)->active = true;
}

const struct session_filter *session_find_filter(const struct session *s, const char *filter)
{
	int i = filters_find(s->filters, s->n_filters, filter);

	return i < 0 ? NULL : &s->filters[i];
}

/* Brings the stored copy up to the session's filters. */
static void filters_changed(struct session_table *t, const struct session *s)
{
	struct kept *k = kept_find(t->kept, s->client_id);

	if (k && k->context == s->context)
		kept_follow(t->kept, k, s->codec, s->filters, s->n_filters);
}

enum im_status session_add_filter(struct session_table *t, struct session *s, const char *filter, enum im_codec codec, int qos)
{
	int i = filters_find(s->filters, s->n_filters, filter);

	qos = qos > 1 ? 1 : qos;
	if (i >= 0 && s->filters[i].qos == qos)
		return IM_EXISTS;
	if (i >= 0)
		s->filters[i].qos = (uint8_t)qos;
	else if (!filters_add(&s->filters, &s->n_filters, filter, qos))
		return IM_FAILED;
	s->codec = codec;
	filters_changed(t, s);
	return i >= 0 ? IM_EXISTS : IM_OK;
}

bool session_remove_filter(struct session_table *t, struct session *s, const char *filter)
{
	int i = filters_find(s->filters, s->n_filters, filter);

	if (i < 0)
		return false;
	filters_remove(s->filters, &s->n_filters, (unsigned)i);
	if (s->n_filters == 0)
		s->codec = IM_CODEC_NONE;
	filters_changed(t, s);
	return true;
}

int session_wants(const struct session *s, const char *topic)
{
	int qos = -1;

	for (unsigned i = 0; i < s->n_filters; i++)
		if (s->filters[i].qos > qos && im_filter_matches(s->filters[i].filter, topic))
			qos = s->filters[i].qos;
	return qos;
}

void session_describe(const struct session *s, Im__Bus__Session *out, Im__Bus__Filter *filters, Im__Bus__Filter **array)
{
	im__bus__session__init(out);
	out->handle = s->handle;
	out->user = (char *)s->user;
	out->client_id = (char *)s->client_id;
	out->protocol = s->protocol;
	out->keepalive_s = s->keepalive_s;
	out->clean = s->clean;
	out->websocket = s->websocket;
	out->address = (char *)s->address;
	out->since_ms = s->since_ms;
	out->codec = (Im__Bus__Codec)s->codec;
	out->behind = s->reading.behind;
	for (unsigned i = 0; i < s->n_filters; i++) {
		im__bus__filter__init(&filters[i]);
		filters[i].filter = s->filters[i].filter;
		filters[i].qos = s->filters[i].qos;
		array[i] = &filters[i];
	}
	out->n_filters = s->n_filters;
	out->filters = array;
}

void session_each(struct session_table *t, session_fn *fn, void *arg)
{
	struct entry *e, *next;

	HASH_ITER(hh_context, t->by_context, e, next)
		if (!e->foreign && !e->s.service && !session_taken_over(t, &e->s))
			fn(arg, &e->s);
}

size_t session_count(const struct session_table *t)
{
	return t->ours;
}

/* ---- tick ---- */

void session_expires(struct session_table *t, struct session *s, int64_t at_ms)
{
	if (at_ms > 0)
		expiry_add(&t->expiry, &entry_of(s)->expiry, at_ms);
}

static void on_expired(void *arg, struct expiry_node *n)
{
	struct entry *e = (struct entry *)(void *)((char *)n - offsetof(struct entry, expiry));

	session_kick(arg, &e->s, "its token or certificate has expired");
}

void session_kick(struct session_table *t, struct session *s, const char *reason)
{
	if (s->kicked)
		return;
	s->kicked = entry_of(s)->kick_due = true;
	DL_APPEND(t->to_kick, entry_of(s));
	im_log(IM_LOG_NOTICE, "evt=kick user=%s client=%s reason=\"%s\"", s->user, s->client_id, reason);
}

/* The broker calls DISCONNECT inside the kick, so the table changes under us: one at a time, by name. */
static void kick_one(struct session_table *t, struct entry *e)
{
	bool taken = session_taken_over(t, &e->s);
	char *id = strdup(e->s.client_id);

	if (!id)
		return;
	if (!taken)
		broker_kick(id, true);
	free(id);
}

static void kick_all(struct session_table *t)
{
	struct entry *e;

	for (unsigned n = 0; n < KICKS_A_TURN && (e = t->to_kick); n++) {
		/* Asked once is enough, though a WebSocket connection ends only after the call: until then it stays `kicked`. */
		DL_DELETE(t->to_kick, e);
		e->kick_due = false;
		kick_one(t, e);
	}
	if (t->to_kick)
		broker_wake(); /* an idle broker would sleep before its next turn */
}

/* What the broker keeps when this foreign connection ends. */
static void keep_other(struct session_table *t, const struct entry *e)
{
	const struct session *s = &e->s;

	if (s->protocol == 5)
		others_keep(t->others, s->client_id, s->user, im_clock_wall_ms() + OTHERS_CLAIM_MS);
	else if (s->clean)
		others_forget(t->others, s->client_id);
	else
		others_keep(t->others, s->client_id, s->user, INT64_MAX);
}

/* Foreign clients that survived their login hold their client id from now on. */
static void settle(struct session_table *t)
{
	struct entry *e, *old;

	while ((e = t->unsettled)) {
		DL_DELETE(t->unsettled, e);
		e->settled = true;
		old = find_id(t, e->s.client_id);
		if (old)
			HASH_DELETE(hh_id, t->by_id, old);
		HASH_ADD_KEYPTR(hh_id, t->by_id, e->s.client_id, strlen(e->s.client_id), e);
		keep_other(t, e);
	}
}

void session_tick(struct session_table *t)
{
	t->tick++;
	settle(t);
	expiry_due(&t->expiry, im_clock_wall_ms(), on_expired, t);
	kick_all(t);
}
