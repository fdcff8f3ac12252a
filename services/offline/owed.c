/*
 * Refusals that came too late for the protocol: durable, sent as in/err, and done only when the session
 * was still up some time after the hand-over - mosquitto_pub has gone before its error leaves the socket.
 */
#include "session.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define OWED_MAX 100u            /* per device: whoever made more than that has a loop, not a question */
#define OWED_SETTLE_MS 1000      /* at least; with an inbox the settle period */

struct debt {
	struct debt *next;
	uint64_t key;
	int64_t ts;              /* of the record it answers */
	int64_t settles_at;      /* 0 = not handed */
	size_t len;
	uint8_t error[];         /* im.v1.Error */
};

struct owed {
	struct debt *first;      /* oldest first */
	unsigned n;
};

struct ask {
	struct ask *next;
	struct delivery *d;      /* NULL: delivery is gone */
	uint64_t session;
};

static void on_done(void *arg, enum im_status st)
{
	(void)arg;
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=refusal_not_closed status=%s then=\"it is sent again\"", im_status_name(st));
}

/* Handed and settled, or dropped. */
static void debt_close(struct delivery *d, struct session *s, struct debt *b)
{
	Im__Bus__StoredRefusal r = IM__BUS__STORED_REFUSAL__INIT;
	struct store_entry e = { .kind = STORE_REFUSAL, .refusal = &r };

	r.key = b->key;
	r.user = s->account->name;
	r.device = (char *)s->client_id;
	r.done = true;
	store_append(d->store, &e, 1, on_done, NULL);
}

static void debt_drop_oldest(struct delivery *d, struct session *s)
{
	struct debt *b = s->owed->first;

	im_log(IM_LOG_NOTICE, "evt=refusal_dropped user=%s client=%s why=\"more than %u are owed\"", s->account->name, s->client_id, OWED_MAX);
	debt_close(d, s, b);
	s->owed->first = b->next;
	s->owed->n--;
	free(b);
}

/* The store gives them in the order of their keys, which says nothing: too many, and the newest would go unheard. */
void owed_add(struct delivery *d, struct session *s, const Im__Bus__StoredRefusal *r)
{
	struct debt *b, **link;
	size_t len;

	if (r->done || !r->error)
		return;
	if (!s->owed)
		s->owed = calloc(1, sizeof *s->owed);
	if (!s->owed)
		return; /* it stays owed in the store */
	for (b = s->owed->first; b; b = b->next)
		if (b->key == r->key)
			return;
	for (link = &s->owed->first; *link && (*link)->ts <= r->ts; link = &(*link)->next)
		;
	len = im__v1__error__get_packed_size(r->error);
	b = calloc(1, sizeof *b + len);
	if (!b)
		return;
	b->key = r->key;
	b->ts = r->ts;
	b->len = im__v1__error__pack(r->error, b->error);
	b->next = *link;
	*link = b;
	if (++s->owed->n > OWED_MAX)
		debt_drop_oldest(d, s);
}

static void debt_send(struct delivery *d, struct session *s, struct debt *b)
{
	enum im_codec codec = s->codec ? s->codec : IM_CODEC_JSON;
	int64_t wait = s->codec ? session_settle_ms(s) : OWED_SETTLE_MS;
	Im__V1__Error *e;
	int qos;

	e = im__v1__error__unpack(NULL, b->len, b->error);
	if (!e)
		return;
	im_buf_clear(&d->topic);
	im_buf_clear(&d->payload);
	im_codec_error(codec, e, &d->topic, &d->payload);
	im__v1__error__free_unpacked(e, NULL);
	qos = session_qos(s, im_buf_text(&d->topic));
	if (qos < 0 && d->settings->unsubscribed == IM_UNSUBSCRIBED_NONE)
		return;
	session_send(d, s, &d->topic, &d->payload, qos < 0 ? 1 : qos);
	b->settles_at = delivery_now(d) + wait;
	link_prove(d->link, b->settles_at);
}

void owed_send(struct delivery *d, struct session *s)
{
	if (!s->owed || s->state == SESSION_OVER)
		return;
	for (struct debt *b = s->owed->first; b; b = b->next)
		if (!b->settles_at)
			debt_send(d, s, b);
	session_plan(d, s);
}

/* What waited for a plugin that stood still has not been with its client: its period begins anew. */
static bool debt_settled(struct delivery *d, struct debt *b, int64_t wait)
{
	int64_t late = link_late_ms(d->link);

	if (!b->settles_at)
		return false;
	if (late && b->settles_at < late + wait) {
		b->settles_at = late + wait;
		link_prove(d->link, b->settles_at);
	}
	return b->settles_at <= link_proven_ms(d->link);
}

void owed_settle(struct delivery *d, struct session *s)
{
	struct debt **link = s->owed ? &s->owed->first : NULL;
	int64_t wait = s->codec ? session_settle_ms(s) : OWED_SETTLE_MS;

	while (link && *link) {
		struct debt *b = *link;

		if (!debt_settled(d, b, wait)) {
			link = &b->next;
			continue;
		}
		debt_close(d, s, b);
		*link = b->next;
		s->owed->n--;
		free(b);
	}
}

int64_t owed_due(const struct session *s)
{
	int64_t at = 0;

	for (const struct debt *b = s->owed ? s->owed->first : NULL; b; b = b->next)
		if (b->settles_at && (!at || b->settles_at < at))
			at = b->settles_at;
	return at;
}

void owed_stop(struct session *s)
{
	if (!s->owed)
		return;
	while (s->owed->first) {
		struct debt *b = s->owed->first;

		s->owed->first = b->next;
		free(b);
	}
	free(s->owed);
	s->owed = NULL;
}

/* ---- sessions without an inbox filter have no device that would bring theirs along, nor those that take one over */

static void on_ask_refusal(void *arg, const Im__Bus__StoredRefusal *r)
{
	struct ask *q = arg;
	struct session *s = q->d ? session_find(q->d, q->session) : NULL;

	if (s)
		owed_add(q->d, s, r);
}

static void on_ask_device(void *arg, const struct store_device *row)
{
	(void)arg;
	(void)row;
}

static void on_ask_cursor(void *arg, const struct store_cursor *row)
{
	(void)arg;
	(void)row;
}

static void on_asked(void *arg, enum im_status st)
{
	struct ask *q = arg, **link;
	struct delivery *d = q->d;
	struct session *s;

	if (d) {
		for (link = &d->asks; *link != q; link = &(*link)->next)
			;
		*link = q->next;
		s = session_find(d, q->session);
		if (s && st == IM_OK)
			owed_send(d, s);
	}
	free(q);
}

void owed_ask(struct delivery *d, struct session *s)
{
	struct ask *q;

	s->refusals_asked = true;
	if (!s->codec && d->settings->unsubscribed == IM_UNSUBSCRIBED_NONE)
		return;
	q = calloc(1, sizeof *q);
	if (!q)
		return;
	q->d = d;
	q->session = s->handle;
	q->next = d->asks;
	d->asks = q;
	store_device(d->store, s->account->name, s->client_id, on_ask_device, on_ask_cursor, on_ask_refusal, on_asked, q);
}

void owed_finish(struct delivery *d)
{
	for (struct ask *q = d->asks; q; q = q->next)
		q->d = NULL;
	d->asks = NULL;
}

void delivery_refusal(struct delivery *d, const Im__Bus__StoredRefusal *r, uint64_t session)
{
	struct session *s = session ? session_find(d, session) : NULL;

	if (!s || s->state == SESSION_OVER)
		s = session_of_client(d, r->user, r->device);
	if (!s || s->state == SESSION_OVER || strcmp(s->account->name, r->user) != 0)
		return; /* owed until its next connect */
	owed_add(d, s, r);
	owed_send(d, s);
}
