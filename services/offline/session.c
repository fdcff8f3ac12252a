/*
 * Connections, their users and their filters.
 *
 * Whether a session gets a message is asked for every message and every session, so the common filters
 * (im/v1/in/#, im/v1/in/msg/#) are turned into one number per way when they come; the others are matched.
 */
#include "session.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAYS 4
#define ASK (-2)

int64_t delivery_now(const struct delivery *d)
{
	return im_loop_now_ms(d->loop);
}

/* ---- things to do later: a hashed wheel, so that planning costs nothing whatever the number of readers */

void due_cancel(struct due *due)
{
	if (!due->next)
		return;
	due->prev->next = due->next;
	due->next->prev = due->prev;
	due->prev = due->next = NULL;
}

void due_plan(struct delivery *d, struct due *due, enum due_kind kind, int64_t at)
{
	int64_t tick;
	struct due *head;

	due_cancel(due);
	due->kind = kind;
	due->at = at;
	if (!at)
		return;
	tick = at / DELIVERY_TICK_MS + 1;
	if (tick <= d->wheel_at)
		tick = d->wheel_at + 1;
	head = &d->wheel[tick % DELIVERY_WHEEL];
	due->prev = head->prev;
	due->next = head;
	head->prev->next = due;
	head->prev = due;
}

/* ---- accounts */

struct account *account_find(struct delivery *d, const char *user)
{
	struct account *a;

	HASH_FIND_STR(d->accounts, user, a);
	return a;
}

struct account *account_get(struct delivery *d, const char *user)
{
	struct account *a = account_find(d, user);
	size_t len = strlen(user) + 1;

	if (a)
		return a;
	a = calloc(1, sizeof *a + len);
	if (!a)
		return NULL;
	memcpy(a->name, user, len);
	HASH_ADD_KEYPTR(hh, d->accounts, a->name, len - 1, a);
	return a;
}

void account_release(struct delivery *d, struct account *a)
{
	if (a->sessions || a->devices)
		return;
	receipt_forget(d, a);
	HASH_DEL(d->accounts, a);
	free(a);
}

/* ---- filters */

static const char *way_level(enum im_codec codec, int way)
{
	static const char *const raw[WAYS] = { "msg", "sent", "old", "sys" };

	if (codec == IM_CODEC_RAW)
		return raw[way];
	return way == IM_WAY_SENT ? "sent" : "msg";
}

enum reach { REACH_NONE, REACH_SOME, REACH_ALL };

/* What of one way a filter takes. */
static enum reach filter_reach(const char *filter, const char *prefix, const char *level)
{
	const char *rest, *slash;
	size_t n = strlen(prefix);

	if (strncmp(filter, prefix, n) != 0)
		return strpbrk(filter, "+#") ? REACH_SOME : REACH_NONE;
	rest = filter + n;
	if (strcmp(rest, "#") == 0)
		return REACH_ALL;
	slash = strchr(rest, '/');
	if (!slash)
		return REACH_NONE;
	n = (size_t)(slash - rest);
	if (!(n == 1 && *rest == '+') && !(n == strlen(level) && memcmp(rest, level, n) == 0))
		return REACH_NONE;
	return strcmp(slash, "/#") == 0 ? REACH_ALL : REACH_SOME;
}

/* NOLINTNEXTLINE(bugprone-macro-parentheses): f is the name of a variable */
#define EACH_FILTER(s, f) for (const char *f = (s)->filters; f && *f; f += strlen(f) + 1)

static int filter_qos(const char *f)
{
	return *f == '0' ? 0 : 1;
}

static int way_class(const struct session *s, const char *prefix, int way)
{
	int all = -1;
	bool some = false;

	EACH_FILTER (s, f) {
		enum reach reach = filter_reach(f + 1, prefix, way_level(s->codec, way));

		if (reach == REACH_ALL && filter_qos(f) > all)
			all = filter_qos(f);
		some |= reach == REACH_SOME;
	}
	return all < 1 && some ? ASK : all;
}

/* Keeps the filters as text, QoS in front: a few dozen bytes for most sessions. */
static bool filters_set(struct session *s, const Im__Bus__Session *from)
{
	struct im_buf b;
	char prefix[16];
	size_t len;

	im_buf_init(&b);
	s->codec = (int)from->codec > (int)IM_CODEC_PB ? IM_CODEC_NONE : (uint8_t)from->codec;
	for (size_t i = 0; i < from->n_filters; i++) {
		const Im__Bus__Filter *f = from->filters[i];

		im_buf_add_char(&b, f->qos ? '1' : '0');
		im_buf_add(&b, f->filter, strlen(f->filter) + 1);
	}
	im_buf_add_char(&b, '\0');
	if (b.failed) {
		im_buf_finish(&b);
		return false;
	}
	free(s->filters);
	s->filters = im_buf_take(&b, &len);
	(void)snprintf(prefix, sizeof prefix, "im/v1/%s/", s->codec ? im_codec_level(s->codec) : "");
	for (int way = 0; way < WAYS; way++)
		s->ways[way] = (int8_t)(s->codec ? way_class(s, prefix, way) : -1);
	return true;
}

int session_qos(const struct session *s, const char *topic)
{
	int best = -1;

	EACH_FILTER (s, f) {
		if (filter_qos(f) > best && im_filter_matches(f + 1, topic))
			best = filter_qos(f);
		if (best == 1)
			break;
	}
	return best;
}

/* Raw topics go on behind the conversation (sender, sequence): filters are compared up to it. */
static bool covers_way(const struct session *s, const char *topic)
{
	char cut[IM_TOPIC_MAX + 1];

	EACH_FILTER (s, f) {
		const char *end = f + 1;
		int levels = 0;

		while (*end && !(*end == '/' && ++levels == 6))
			end++;
		if ((size_t)(end - f) > sizeof cut)
			continue;
		memcpy(cut, f + 1, (size_t)(end - f - 1));
		cut[end - f - 1] = '\0';
		if (im_filter_matches(cut, topic))
			return true;
	}
	return false;
}

bool session_covers(const struct session *s, const char *conv)
{
	char topic[IM_TOPIC_MAX + 1];

	if (!s->codec)
		return false;
	for (int way = 0; way < WAYS; way++)
		if (s->ways[way] >= 0)
			return true;
	for (int way = 0; way < WAYS; way++) {
		if (s->ways[way] != ASK)
			continue;
		(void)snprintf(topic, sizeof topic, "im/v1/%s/%s/%s", im_codec_level(s->codec), way_level(s->codec, way), conv);
		if (covers_way(s, topic))
			return true;
	}
	return false;
}

/* raw/ack/{id}/{seq}: whether any such topic matches shows with a sample. */
bool session_acks_matched(const struct session *s)
{
	char topic[64];

	if (!s->codec)
		return false;
	(void)snprintf(topic, sizeof topic, "im/v1/%s/ack%s", im_codec_level(s->codec), s->codec == IM_CODEC_RAW ? "/0/0" : "");
	return session_qos(s, topic) >= 0;
}

/* ---- what follows from a session */

uint32_t session_settle_ms(const struct session *s)
{
	return cursor_settle_ms(s->keepalive_s);
}

void session_rules(const struct delivery *d, const struct session *s, struct cursor_rules *out)
{
	out->acks = s->device && s->device->acks;
	out->settle_ms = session_settle_ms(s);
	out->retry_ms = d->settings->ack_retry_ms;
	out->retries = d->settings->ack_retries;
}

size_t session_max_packet(const struct session *s)
{
	if (s->device && s->device->max_packet)
		return s->device->max_packet;
	return s->codec == IM_CODEC_RAW ? 256 : 0; /* tiny clients drop the connection on more */
}

/* ---- packets for one session */

void session_send(struct delivery *d, struct session *s, const struct im_buf *topic, const struct im_buf *payload, int qos)
{
	bool qos1 = qos > 0;

	if (topic->failed || payload->failed) {
		im_log(IM_LOG_ERROR, "evt=out_of_memory what=packet user=%s client=%s", s->account->name, s->client_id);
		return;
	}
	link_deliver(d->link, topic->data, topic->len, payload->data, payload->len, NULL, &s->handle, qos1, &s->handle, !qos1);
}

typedef void named_fn(enum im_codec codec, const char *name, const char *json, struct im_buf *topic, struct im_buf *payload);

static void send_named(struct delivery *d, struct session *s, named_fn *encode, const char *name, const char *json)
{
	int qos;

	if (!s->codec)
		return;
	im_buf_clear(&d->topic);
	im_buf_clear(&d->payload);
	encode(s->codec, name, json, &d->topic, &d->payload);
	qos = session_qos(s, im_buf_text(&d->topic));
	if (qos >= 0)
		session_send(d, s, &d->topic, &d->payload, qos);
}

void session_event(struct delivery *d, struct session *s, const char *kind, const char *json)
{
	send_named(d, s, im_codec_event, kind, json);
}

void session_state(struct delivery *d, struct session *s, const char *name, const char *json)
{
	send_named(d, s, im_codec_state, name, json);
}

bool session_wants(const struct session *s, const char *what)
{
	char topic[64];

	if (!s->codec)
		return false;
	(void)snprintf(topic, sizeof topic, "im/v1/%s/%s", im_codec_level(s->codec), what);
	return session_qos(s, topic) >= 0;
}

void delivery_event(struct delivery *d, const char *user, const char *client_id, const char *kind, const char *json)
{
	struct session *s = session_of_client(d, user, client_id);

	if (s)
		session_event(d, s, kind, json);
}

/* ---- coming and going */

struct session *session_find(struct delivery *d, uint64_t handle)
{
	struct session *s;

	HASH_FIND(hh, d->sessions, &handle, sizeof handle, s);
	return s;
}

struct session *session_of_client(struct delivery *d, const char *user, const char *client_id)
{
	struct account *a = account_find(d, user);

	/* the newest is in front */
	for (struct session *s = a ? a->sessions : NULL; s; s = s->next)
		if (strcmp(s->client_id, client_id) == 0)
			return s;
	return NULL;
}

static struct session *session_add(struct delivery *d, const Im__Bus__Session *from)
{
	size_t id_len = strlen(from->client_id) + 1, address_len = strlen(from->address) + 1;
	struct account *a = account_get(d, from->user);
	struct session *s = a ? calloc(1, sizeof *s + id_len + address_len) : NULL;

	if (!s) {
		if (a)
			account_release(d, a);
		return NULL;
	}
	s->handle = from->handle;
	s->client_id = memcpy(s->text, from->client_id, id_len);
	s->address = memcpy(s->text + id_len, from->address, address_len);
	s->since_ms = from->since_ms;
	s->keepalive_s = from->keepalive_s;
	s->protocol = (uint8_t)from->protocol;
	s->websocket = from->websocket;
	if (from->behind) { /* what waits for it in the broker comes first */
		s->over_budget = true;
		s->period_end = delivery_now(d) + DELIVERY_BEHIND_MS;
	}
	s->account = a;
	s->next = a->sessions;
	a->sessions = s;
	HASH_ADD(hh, d->sessions, handle, sizeof s->handle, s);
	return s;
}

static void session_remove(struct delivery *d, struct session *s)
{
	struct account *a = s->account;
	struct session **link = &a->sessions;

	d->silent_bytes -= s->used_bytes;
	due_cancel(&s->due);
	owed_stop(s);
	catchup_stop(d, s);
	device_detach(d, s);
	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
	HASH_DEL(d->sessions, s);
	free(s->own_acked);
	free(s->filters);
	free(s);
	account_release(d, a);
}

/* The states an inbox filter can bring about: a first one starts everything, further ones may cover more. */
static void session_filters_changed(struct delivery *d, struct session *s)
{
	bool acks = session_acks_matched(s);

	if (acks != (s->acks_since_ms != 0))
		s->acks_since_ms = acks ? im_clock_wall_ms() : 0;
	if (!s->codec) {
		if (s->device)
			device_cover(s->device); /* the last filter is gone: nothing is taken, so nothing passes (invariant 8) */
		if (!s->refusals_asked && !s->owed)
			due_plan(d, &s->due, DUE_SESSION, delivery_now(d) + 1000); /* most subscribe within a second */
		return;
	}
	if (s->state == SESSION_QUIET)
		device_attach(d, s);
	else if (s->state != SESSION_LOADING && s->device)
		catchup_filters(d, s);
	owed_send(d, s);
}

void delivery_session(struct delivery *d, const Im__Bus__Session *from)
{
	struct session *s = session_find(d, from->handle);

	handover_flush(d); /* what was gathered for it goes out under the old filters */
	if (!s)
		s = session_add(d, from);
	if (!s || !filters_set(s, from)) {
		im_log(IM_LOG_ERROR, "evt=out_of_memory what=session user=%s client=%s", from->user, from->client_id);
		if (s)
			session_remove(d, s);
		link_kick(d->link, from->handle, "out of memory");
		return;
	}
	s->behind = from->behind;
	session_filters_changed(d, s);
	session_plan(d, s);
}

void delivery_closed(struct delivery *d, uint64_t handle)
{
	struct session *s = session_find(d, handle);

	if (!s)
		return;
	delivery_flush(d); /* lists of this turn may hold it */
	session_remove(d, s);
	catchup_run(d);
}

void delivery_reset(struct delivery *d)
{
	struct session *s, *next;

	delivery_flush(d);
	HASH_ITER (hh, d->sessions, s, next)
		session_remove(d, s);
}

void delivery_complete(struct delivery *d)
{
	im_log(IM_LOG_INFO, "evt=sessions_complete sessions=%u users=%u", HASH_COUNT(d->sessions), HASH_COUNT(d->accounts));
}

static void describe(const struct session *s, struct delivery_session_info *out)
{
	*out = (struct delivery_session_info){
		.handle = s->handle,
		.user = s->account->name,
		.client_id = s->client_id,
		.address = s->address,
		.protocol = s->protocol,
		.keepalive_s = s->keepalive_s,
		.websocket = s->websocket,
		.acks = s->device && s->device->acks,
		.codec = s->codec,
		.since_ms = s->since_ms,
		.handed = s->handed,
		.behind = s->behind,
		.catching_up = s->state == SESSION_LOADING || s->state == SESSION_CATCHING,
	};
}

void delivery_each_session(struct delivery *d, const char *user, delivery_session_fn *fn, void *arg)
{
	struct delivery_session_info info;
	struct session *s, *next;
	struct account *a;

	if (!user) {
		HASH_ITER (hh, d->sessions, s, next) {
			describe(s, &info);
			fn(arg, &info);
		}
		return;
	}
	a = account_find(d, user);
	for (s = a ? a->sessions : NULL; s; s = next) {
		next = s->next;
		describe(s, &info);
		fn(arg, &info);
	}
}

bool delivery_find_session(struct delivery *d, uint64_t handle, struct delivery_session_info *out)
{
	struct session *s = session_find(d, handle);

	if (s)
		describe(s, out);
	return s != NULL;
}
