/*
 * The entrances: what is durable comes in, what is owed to sessions goes out (docs/delivery.md).
 *
 * Rule of thumb for everything here: a cursor is moved by what happened (settled, acked), never by what
 * was attempted. Losing a packet, a session or this process costs a repeat, never a message.
 */
#include "session.h"

#include "base/log.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACKS_PER_PACKET 200u      /* about 40 KiB of JSON */
#define ACK_PACE_MS 20            /* on a busy server a sender gets its acks together: each packet costs the broker as much as a delivery */
#define ACK_BUSY 100u             /* acks in that time that make it a busy one: 5,000/s; below it none waits */
#define ACK_PACE_MOST 100u        /* so many of one session do not wait for more */
#define SIGNAL_MAX 1024u          /* bytes of a typing signal that are passed on */
#define SIGNAL_MEMBERS 200u       /* larger groups see no typing */

struct pending_acks {
	size_t n, cap;
	struct {
		struct message *m;
		bool dup;
	} all[];
};

/* ---- time */

static void session_due(struct delivery *d, struct session *s, int64_t now)
{
	if (s->period_end && s->period_end <= now)
		handover_period(d, s);
	if (catchup_due(s) && catchup_due(s) <= now)
		catchup_wake(d, s);
	owed_settle(d, s);
	if (!s->codec && !s->refusals_asked)
		owed_ask(d, s);
	session_plan(d, s);
}

void session_plan(struct delivery *d, struct session *s)
{
	bool ask = !s->codec && !s->refusals_asked && s->due.next; /* the look into the store stays planned */
	int64_t times[4] = { s->period_end, catchup_due(s), owed_due(s), ask ? s->due.at : 0 }, at = 0;

	for (int i = 0; i < 4; i++)
		if (times[i] && (!at || times[i] < at))
			at = times[i];
	due_plan(d, &s->due, DUE_SESSION, at);
}

static void due_fire(struct delivery *d, struct due *due, int64_t now)
{
	if (due->kind == DUE_READER)
		reader_due(d, (struct reader *)((char *)due - offsetof(struct reader, due)));
	else
		session_due(d, (struct session *)((char *)due - offsetof(struct session, due)), now);
}

/* One slot of the wheel: moved aside first, so that what plans itself again is not met twice. */
static void wheel_slot(struct delivery *d, struct due *head, int64_t now)
{
	struct due aside = { .prev = &aside, .next = &aside };

	if (head->next == head)
		return;
	aside = *head;
	aside.next->prev = aside.prev->next = &aside;
	head->prev = head->next = head;
	while (aside.next != &aside) {
		struct due *due = aside.next;

		due_cancel(due);
		if (due->at > now)
			due_plan(d, due, due->kind, due->at); /* another round */
		else
			due_fire(d, due, now);
	}
}

void due_run(struct delivery *d)
{
	int64_t now = delivery_now(d), tick = now / DELIVERY_TICK_MS;

	if (tick - d->wheel_at > (int64_t)DELIVERY_WHEEL)
		d->wheel_at = tick - DELIVERY_WHEEL; /* once around meets everything */
	while (d->wheel_at < tick) {
		d->wheel_at++;
		wheel_slot(d, &d->wheel[d->wheel_at % DELIVERY_WHEEL], now);
	}
}

static void on_tick(void *arg)
{
	struct delivery *d = arg;

	due_run(d);
	device_retry(d);
	catchup_run(d);
}

static void on_flush(void *arg)
{
	struct delivery *d = arg;

	badge_ready(d); /* of the second before: what they read is stored by now */
	badge_run(d);
	device_flush(d);
	receipt_store(d);
}

/* ---- coming and going */

/* The turn that this makes has an end, where acks that waited leave. */
static void on_pace(void *arg)
{
	(void)arg;
}

static void on_rest(void *arg)
{
	catchup_run(arg);
}

static bool timers_create(struct delivery *d)
{
	d->rest = im_timer_create(d->loop, on_rest, d);
	d->pace = im_timer_create(d->loop, on_pace, d);
	d->tick = im_timer_create(d->loop, on_tick, d);
	d->flush = im_timer_create(d->loop, on_flush, d);
	d->sweep = im_timer_create(d->loop, expiry_sweep, d);
	if (!d->rest || !d->pace || !d->tick || !d->flush || !d->sweep)
		return false;
	im_timer_start(d->tick, DELIVERY_TICK_MS, DELIVERY_TICK_MS);
	im_timer_start(d->flush, DELIVERY_FLUSH_MS, DELIVERY_FLUSH_MS);
	expiry_start(d);
	return true;
}

enum im_status delivery_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			       struct link *link, struct delivery **out, struct im_err *err)
{
	struct delivery *d = calloc(1, sizeof *d);

	if (!d)
		return im_fail(err, IM_FAILED, "out of memory");
	d->loop = loop;
	d->settings = settings;
	d->store = store;
	d->roster = roster;
	d->link = link;
	im_buf_init(&d->topic);
	im_buf_init(&d->payload);
	for (size_t i = 0; i < DELIVERY_WHEEL; i++)
		d->wheel[i].prev = d->wheel[i].next = &d->wheel[i];
	d->wheel_at = delivery_now(d) / DELIVERY_TICK_MS;
	if (handover_init(d) != IM_OK || !timers_create(d)) {
		delivery_destroy(d);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	*out = d;
	return IM_OK;
}

void delivery_on_read(struct delivery *d, delivery_read_fn *fn, void *arg)
{
	d->read = fn;
	d->read_arg = arg;
}

void delivery_on_greeted(struct delivery *d, delivery_greeted_fn *fn, void *arg)
{
	d->greeted = fn;
	d->greeted_arg = arg;
}

void delivery_destroy(struct delivery *d)
{
	if (!d)
		return;
	delivery_reset(d); /* gives the store what has settled; its answers find nobody */
	device_flush(d);
	receipt_store(d);
	catchup_finish(d);
	owed_finish(d);
	receipt_finish(d);
	device_finish(d);
	expiry_finish(d);
	handover_finish(d);
	im_timer_destroy(d->rest);
	im_timer_destroy(d->pace);
	im_timer_destroy(d->tick);
	im_timer_destroy(d->flush);
	im_timer_destroy(d->sweep);
	im_buf_finish(&d->topic);
	im_buf_finish(&d->payload);
	free(d);
}

void delivery_resume(struct delivery *d)
{
	catchup_run(d);
}

/* ---- messages */

static bool has_gap(struct delivery *d, const struct reader *r, const struct message *m)
{
	return m->prev > r->cursor.handed && reader_visible(d, r, r->cursor.handed + 1) < m->seq;
}

static void offer(struct delivery *d, struct session *s, struct reader *r, struct message *m, uint64_t sender)
{
	const char *conv = r->conv->name;

	if (!r->covered || m->seq <= r->cursor.handed)
		return;
	if (has_gap(d, r, m)) {
		if (!im_conv_is_group(conv) || roster_may_see(d->roster, conv + 2, s->account->name, m->seq))
			catchup_behind(d, s, r, false);
		return;
	}
	if (handover(d, s, r, m, sender == s->handle && s->acks_since_ms) == VERDICT_FULL)
		catchup_behind(d, s, r, !s->device->acks);
}

static void message_to(struct delivery *d, struct reader *r, struct message *m, uint64_t sender)
{
	struct session *s = r->device->session;

	if (!s)
		return;
	if (strcmp(m->from, s->account->name) != 0)
		badge_change(d, s->account, m->prev == 0);
	if (s->state == SESSION_LIVE)
		offer(d, s, r, m, sender);
	else if (s->state == SESSION_CATCHING)
		catchup_keep(d, s, r, m);
}

/* A device without a session is told too: it may come back before it has left memory. */
static void message_to_user(struct delivery *d, const char *user, struct message *m, uint64_t sender)
{
	struct account *a = account_find(d, user);

	for (struct device *dev = a ? a->devices : NULL; dev; dev = dev->next) {
		struct reader *r = device_reader(d, dev, m->conv, true);

		if (!r)
			continue;
		if (r->conv->newest < m->seq)
			r->conv->newest = m->seq;
		message_to(d, r, m, sender);
	}
}

static void message_to_group(struct delivery *d, struct message *m, uint64_t sender)
{
	struct conversation *c = conversation_find(d, m->conv);
	struct reader *next;

	if (!c)
		return; /* nobody online has ever been in it */
	if (c->newest < m->seq)
		c->newest = m->seq;
	for (struct reader *r = c->readers; r; r = next) {
		next = r->conv_next;
		message_to(d, r, m, sender);
	}
}

/* "u/alice:bob" */
static void message_to_pair(struct delivery *d, struct message *m, uint64_t sender)
{
	char user[IM_NAME_MAX + 1];
	const char *first = m->conv + 2, *colon = strchr(first, ':');

	if (!colon || (size_t)(colon - first) >= sizeof user)
		return;
	memcpy(user, first, (size_t)(colon - first));
	user[colon - first] = '\0';
	message_to_user(d, user, m, sender);
	if (strcmp(user, colon + 1) != 0)
		message_to_user(d, colon + 1, m, sender);
}

void delivery_message(struct delivery *d, struct message *m, uint64_t sender)
{
	d->live_at = delivery_now(d);
	if (d->settings->read_on_send && *m->from)
		receipt_sent(d, m->from, m->conv, m->seq);
	if (im_conv_is_group(m->conv))
		message_to_group(d, m, sender);
	else
		message_to_pair(d, m, sender);
	handover_flush(d);
	catchup_run(d);
}

/* ---- acks: several of one turn leave as one packet */

void delivery_ack(struct delivery *d, uint64_t session, struct message *m, bool dup)
{
	struct session *s = session ? session_find(d, session) : NULL;
	struct pending_acks *p;
	size_t cap;

	if (!s || !s->acks_since_ms)
		return;
	p = s->acks;
	if (!p || p->n == p->cap) {
		cap = p ? p->cap * 2 : 4;
		p = realloc(s->acks, sizeof *p + cap * sizeof p->all[0]);
		if (!p)
			return; /* it is answered again when the client repeats */
		if (!s->acks) {
			p->n = 0;
			s->ack_next = d->acks;
			d->acks = s;
		}
		p->cap = cap;
		s->acks = p;
	}
	d->acks_count++;
	catchup_acked(s, m);
	p->all[p->n].m = message_ref(m);
	p->all[p->n++].dup = dup;
}

static void send_acks(struct delivery *d, struct session *s, Im__V1__Ack **acks, size_t n)
{
	int qos;

	im_buf_clear(&d->topic);
	im_buf_clear(&d->payload);
	im_codec_acks(s->codec, acks, n, &d->topic, &d->payload);
	qos = session_qos(s, im_buf_text(&d->topic));
	if (qos >= 0)
		session_send(d, s, &d->topic, &d->payload, 0); /* a lost one is answered again */
}

/* What waits is the session's until its turn in the list comes, sent or not. */
void ack_flush(struct delivery *d, struct session *s)
{
	size_t most = s->codec == IM_CODEC_RAW ? 1 : ACKS_PER_PACKET, n = 0;
	char faces[ACKS_PER_PACKET][IM_CONV_MAX];
	Im__V1__Ack acks[ACKS_PER_PACKET], *list[ACKS_PER_PACKET];
	struct pending_acks *p = s->acks;

	for (size_t i = 0; p && i < p->n; i++) {
		const struct message *m = p->all[i].m;

		if (im_conv_as_seen(m->conv, s->account->name, faces[n])) {
			im__v1__ack__init(&acks[n]);
			acks[n].id = (char *)m->id;
			acks[n].msgid = (char *)m->msgid;
			acks[n].conv = faces[n];
			acks[n].seq = m->seq;
			acks[n].ts = m->ts;
			acks[n].dup = p->all[i].dup;
			list[n] = &acks[n];
			n++;
		}
		if (n && (n == most || i + 1 == p->n)) {
			send_acks(d, s, list, n);
			n = 0;
		}
	}
	while (p && p->n)
		message_unref(p->all[--p->n].m);
}

static void acks_leave(struct delivery *d, struct session *s)
{
	ack_flush(d, s);
	free(s->acks);
	s->acks = NULL;
}

void delivery_flush(struct delivery *d)
{
	handover_flush(d);
	while (d->acks) {
		struct session *s = d->acks;

		d->acks = s->ack_next;
		acks_leave(d, s);
	}
	receipt_flush(d);
}

static bool busy(struct delivery *d, int64_t now)
{
	if (now - d->acks_since >= ACK_PACE_MS) {
		d->acks_busy = d->acks_count >= ACK_BUSY;
		d->acks_count = 0;
		d->acks_since = now;
	}
	return d->acks_busy;
}

/* On a busy server a session that had a packet of acks a moment ago waits for more of them. */
static void acks_paced(struct delivery *d)
{
	struct session *s = d->acks, *next;
	int64_t now = delivery_now(d);
	bool wait = busy(d, now);

	d->acks = NULL;
	for (; s; s = next) {
		next = s->ack_next;
		if (wait && s->acks->n < ACK_PACE_MOST && now - s->acks_at < ACK_PACE_MS) {
			s->ack_next = d->acks;
			d->acks = s;
			continue;
		}
		s->acks_at = now;
		acks_leave(d, s);
	}
	if (d->acks)
		im_timer_start(d->pace, ACK_PACE_MS, 0);
}

void delivery_turn_end(struct delivery *d)
{
	handover_flush(d);
	if (d->acks)
		acks_paced(d);
	receipt_flush(d);
}

/* ---- passing signals */

struct signal {
	struct delivery *d;
	const char *user;
	const char *conv;    /* canonical */
	const char *data;    /* JSON, "" = none */
};

static void signal_to(struct signal *g, const char *user)
{
	struct account *a = strcmp(user, g->user) != 0 ? account_find(g->d, user) : NULL;
	char face[IM_CONV_MAX], json[SIGNAL_MAX * 6 + 512];

	if (!a || roster_is_blocked(g->d->roster, user, g->user) || !im_conv_as_seen(g->conv, user, face))
		return;
	(void)snprintf(json, sizeof json, "{\"conv\":\"%s\",\"user\":\"%s\"%s%s}", face, g->user, *g->data ? ",\"data\":" : "", g->data);
	for (struct session *s = a->sessions; s; s = s->next)
		if (s->state != SESSION_OVER)
			session_event(g->d, s, "typing", json);
}

static void on_signal_member(void *arg, const char *user, const struct roster_stay *stay)
{
	(void)stay;
	signal_to(arg, user);
}

/* A JSON value is passed on as it is, other text as a string, anything else not at all. */
static void signal_data(const Im__Bus__Signal *s, struct im_buf *out)
{
	const char *text = (const char *)s->payload.data;
	size_t len = s->payload.len;
	json_t *value;

	if (!len || len > SIGNAL_MAX || !im_utf8_valid(text, len))
		return;
	value = json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
	if (value)
		im_buf_add(out, text, len);
	else
		im_json_string(out, text, len);
	json_decref(value);
}

void delivery_signal(struct delivery *d, const Im__Bus__Signal *s)
{
	struct signal g = { .d = d, .user = s->user };
	char conv[IM_CONV_MAX], peer[IM_NAME_MAX + 1];
	const struct roster_group *group;
	struct im_buf data;

	if (!im_conv_canonical(s->user, s->conv, conv))
		return;
	g.conv = conv;
	im_buf_init(&data);
	signal_data(s, &data);
	g.data = im_buf_text(&data);
	if (!im_conv_is_group(conv)) {
		if (im_conv_peer(conv, s->user, peer))
			signal_to(&g, peer);
	} else if (roster_is_member(d->roster, conv + 2, s->user)) {
		group = roster_group(d->roster, conv + 2);
		if (group && group->n_members <= SIGNAL_MEMBERS)
			roster_each_member(d->roster, conv + 2, on_signal_member, &g);
	}
	im_buf_finish(&data);
}

/* ---- answers */

void delivery_respond(struct delivery *d, const Im__Bus__Record *request, const Im__V1__Response *response)
{
	struct session *s = request->session ? session_find(d, request->session) : NULL;
	bool unasked = d->settings->unsubscribed == IM_UNSUBSCRIBED_ALL;
	Im__Bus__Properties props = IM__BUS__PROPERTIES__INIT;
	enum im_codec codec;
	int qos;

	if (!s)
		return; /* gone: a repeated id gets this answer */
	codec = s->codec ? s->codec : IM_CODEC_JSON;
	im_buf_clear(&d->topic);
	im_buf_clear(&d->payload);
	im_codec_response(codec, response, &d->topic, &d->payload);
	if (*request->response_topic) {
		im_buf_clear(&d->topic);
		im_buf_add_str(&d->topic, request->response_topic);
	}
	qos = session_qos(s, im_buf_text(&d->topic));
	if (d->topic.failed || d->payload.failed || (qos < 0 && !unasked)) {
		im_log(IM_LOG_INFO, "evt=answer_dropped why=%s user=%s client=%s method=%s id=%s", qos < 0 ? "not_subscribed" : "out_of_memory",
		       s->account->name, s->client_id, request->method, request->id);
		return;
	}
	props.correlation = request->correlation;
	link_deliver(d->link, d->topic.data, d->topic.len, d->payload.data, d->payload.len, request->correlation.len ? &props : NULL,
		     &s->handle, qos != 0, &s->handle, qos == 0);
}

void delivery_send(struct delivery *d, uint64_t session, const char *topic, const void *payload, size_t len)
{
	link_deliver(d->link, topic, strlen(topic), payload, len, NULL, &session, 1, NULL, 0);
}

/* ---- membership */

void delivery_roster_changed(struct delivery *d, const Im__Bus__RosterItem *item)
{
	const Im__Bus__Member *member = item->member;
	char conv[IM_CONV_MAX];
	struct account *a;

	if (!member)
		return;
	a = account_find(d, member->user);
	if (!a)
		return;
	(void)snprintf(conv, sizeof conv, "g/%s", member->group);
	for (struct device *dev = a->devices; dev; dev = dev->next) {
		struct reader *r = device_reader(d, dev, conv, true);

		if (!r || member->to_seq || !dev->session)
			continue; /* gone from here on: every delivery asks the roster */
		/* Its first messages may have come by before this was known. */
		if (r->cursor.last < member->from_seq && r->cursor.handed >= member->from_seq && r->cursor.delivered < member->from_seq)
			r->cursor.handed = member->from_seq - 1;
		if (dev->session->state == SESSION_LIVE || dev->session->state == SESSION_CATCHING)
			catchup_behind(d, dev->session, r, false);
	}
	badge_change(d, a, true);
	catchup_run(d);
}
