/*
 * One durable message to one session: may it see it, does it want it, is there room - and then the packet.
 *
 * A message is encoded once per codec, way, face of the conversation and packet size, whatever the number
 * of receivers; their handles are gathered and leave as one delivery. A thousand members of a group cost
 * a thousand questions and one encoding.
 */
#include "session.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define RAW_LIVE_MS 30000                /* older ones go to raw/old: a lamp must not obey last week */
#define SILENT_TOTAL (512ull << 20)      /* handed to all silent devices together and not settled: what the broker may have to hold */
#define SHED_EVERY_MS 250                /* looking for the largest walks all sessions */
#define PACKET_OVERHEAD 256u             /* fields and topic beside the body, for budgets */

struct handles {
	uint64_t *all;
	size_t n, cap;
};

struct variant {
	enum im_codec codec;
	enum im_way way;
	bool v5;                 /* user properties wanted */
	bool encoded;
	size_t max_packet;
	char face[IM_CONV_MAX];
	struct im_buf match;     /* topic to ask the filters with */
	struct im_buf topic, payload;
	struct handles qos[2];
};

enum im_status handover_init(struct delivery *d)
{
	d->variants = calloc(DELIVERY_VARIANTS, sizeof *d->variants);
	return d->variants ? IM_OK : IM_FAILED;
}

void handover_finish(struct delivery *d)
{
	for (size_t i = 0; d->variants && i < DELIVERY_VARIANTS; i++) {
		struct variant *v = &d->variants[i];

		im_buf_finish(&v->match);
		im_buf_finish(&v->topic);
		im_buf_finish(&v->payload);
		free(v->qos[0].all);
		free(v->qos[1].all);
	}
	free(d->variants);
	d->variants = NULL;
}

/* ---- encodings */

static void variant_send(struct delivery *d, struct variant *v)
{
	const struct message *m = d->message;
	Im__Bus__Properties props = IM__BUS__PROPERTIES__INIT;

	if (!v->qos[0].n && !v->qos[1].n)
		return;
	props.id = (char *)m->id;
	props.from = (char *)m->from;
	props.conv = v->face;
	props.seq = m->seq;
	props.ts = m->ts;
	props.type = (char *)m->type;
	props.ct = (char *)m->ct;
	link_deliver(d->link, v->topic.data, v->topic.len, v->payload.data, v->payload.len, v->v5 ? &props : NULL,
		     v->qos[1].all, v->qos[1].n, v->qos[0].all, v->qos[0].n);
}

void handover_flush(struct delivery *d)
{
	for (size_t i = 0; i < d->n_variants; i++)
		variant_send(d, &d->variants[i]);
	d->n_variants = 0;
	message_unref(d->message);
	d->message = NULL;
}

static void variant_begin(struct delivery *d, struct variant *v, const struct session *s, enum im_way way, const char *face)
{
	Im__V1__Message view;

	v->codec = s->codec;
	v->way = way;
	v->v5 = s->protocol == 5;
	v->encoded = false;
	v->max_packet = session_max_packet(s);
	memcpy(v->face, face, strlen(face) + 1);
	v->qos[0].n = v->qos[1].n = 0;
	im_buf_clear(&v->match);
	message_view(d->message, v->face, &view);
	im_codec_message_topic(v->codec, way, &view, &v->match);
}

static struct variant *variant_get(struct delivery *d, const struct session *s, struct message *m, enum im_way way, const char *face)
{
	size_t max = session_max_packet(s);

	if (d->message != m) {
		handover_flush(d);
		d->message = message_ref(m);
	}
	for (size_t i = 0; i < d->n_variants; i++) {
		struct variant *v = &d->variants[i];

		if (v->codec == s->codec && v->way == way && v->v5 == (s->protocol == 5) && v->max_packet == max &&
		    strcmp(v->face, face) == 0)
			return v;
	}
	if (d->n_variants == DELIVERY_VARIANTS) {
		handover_flush(d);
		d->message = message_ref(m);
	}
	variant_begin(d, &d->variants[d->n_variants], s, way, face);
	return &d->variants[d->n_variants++];
}

static bool variant_encode(struct delivery *d, struct variant *v)
{
	Im__V1__Message view;

	if (!v->encoded) {
		im_buf_clear(&v->topic);
		im_buf_clear(&v->payload);
		v->topic.failed = v->payload.failed = false;
		message_view(d->message, v->face, &view);
		im_codec_message(v->codec, v->way, &view, v->max_packet, &v->topic, &v->payload);
		v->encoded = true;
	}
	return !v->topic.failed && !v->payload.failed;
}

static bool handles_add(struct handles *h, uint64_t handle)
{
	uint64_t *all;
	size_t cap;

	if (h->n == h->cap) {
		cap = h->cap ? h->cap * 2 : 16;
		all = realloc(h->all, cap * sizeof *all);
		if (!all)
			return false;
		h->all = all;
		h->cap = cap;
	}
	h->all[h->n++] = handle;
	return true;
}

/* ---- questions */

static enum im_way way_of(const struct session *s, const struct message *m)
{
	if (!*m->from || strcmp(m->type, "system") == 0)
		return IM_WAY_SYS;
	if (strcmp(m->from, s->account->name) == 0)
		return IM_WAY_SENT;
	if (s->codec != IM_CODEC_RAW)
		return IM_WAY_MSG;
	if (strcmp(m->type, "edit") == 0 || strcmp(m->type, "recall") == 0)
		return IM_WAY_SYS;
	return im_clock_wall_ms() - m->ts > RAW_LIVE_MS ? IM_WAY_OLD : IM_WAY_MSG;
}

static int way_qos(struct delivery *d, const struct session *s, struct variant *v)
{
	int qos = s->ways[v->way];

	if (qos == -2)
		qos = session_qos(s, im_buf_text(&v->match));
	if (qos < 0 || s->codec != IM_CODEC_RAW || !variant_encode(d, v))
		return qos;
	if (v->topic.len == v->match.len && memcmp(v->topic.data, v->match.data, v->match.len) == 0)
		return qos;
	return session_qos(s, im_buf_text(&v->topic)); /* shortened: raw/cut/... */
}

bool handover_room(const struct delivery *d, const struct session *s)
{
	if (s->device && s->device->acks)
		return s->device->out < d->settings->ack_window;
	return !s->over_budget;
}

/* ---- budgets of silent devices (invariant 10) */

static void shed(struct delivery *d, int64_t now)
{
	struct session *largest = NULL, *s, *next;

	if (now < d->shed_at)
		return;
	d->shed_at = now + SHED_EVERY_MS;
	HASH_ITER (hh, d->sessions, s, next)
		if (!s->over_budget && s->used_bytes && (!largest || s->used_bytes > largest->used_bytes))
			largest = s;
	if (!largest)
		return;
	largest->over_budget = true;
	im_log(IM_LOG_WARNING, "evt=silent_budget scope=all user=%s client=%s bytes=%llu then=\"its next messages wait in the store\"",
	       largest->account->name, largest->client_id, (unsigned long long)largest->used_bytes);
}

static void spend(struct delivery *d, struct session *s, size_t bytes, int64_t now)
{
	if (!s->period_end) {
		s->period_end = now + session_settle_ms(s);
		session_plan(d, s);
	}
	s->used_bytes += bytes;
	s->used_messages++;
	d->silent_bytes += bytes;
	if (s->used_messages >= d->settings->silent_messages || s->used_bytes >= d->settings->silent_bytes) {
		s->over_budget = true;
		im_log(IM_LOG_NOTICE, "evt=silent_budget scope=device user=%s client=%s messages=%u then=\"the rest waits in the store\"",
		       s->account->name, s->client_id, s->used_messages);
	}
	if (d->silent_bytes > SILENT_TOTAL)
		shed(d, now);
}

void handover_period(struct delivery *d, struct session *s)
{
	if (s->behind) {
		s->period_end = delivery_now(d) + DELIVERY_BEHIND_MS;
		return;
	}
	d->silent_bytes -= s->used_bytes;
	s->used_bytes = 0;
	s->used_messages = 0;
	s->period_end = 0;
	if (!s->over_budget)
		return;
	s->over_budget = false;
	catchup_wake(d, s);
}

/* ---- handing over */

static bool may_see(const struct delivery *d, const struct reader *r, uint64_t seq)
{
	const char *conv = r->conv->name;

	return !im_conv_is_group(conv) || roster_may_see(d->roster, conv + 2, r->device->account->name, seq);
}

/* NULL: he is no party of it (a store's row that no longer fits). */
static struct variant *variant_for(struct delivery *d, const struct session *s, const struct reader *r, struct message *m)
{
	char face[IM_CONV_MAX];

	if (!im_conv_as_seen(r->conv->name, s->account->name, face))
		return NULL;
	return variant_get(d, s, m, way_of(s, m), face);
}

static bool variant_add(struct delivery *d, struct variant *v, struct session *s, int qos)
{
	if (variant_encode(d, v) && handles_add(&v->qos[qos > 0], s->handle)) {
		s->handed++;
		return true;
	}
	im_log(IM_LOG_ERROR, "evt=out_of_memory what=delivery user=%s msgid=%s then=\"it waits in the store\"", s->account->name, d->message->msgid);
	return false;
}

/* Whoever acks this message acks the own ones before it too: what says that they are stored must have come before. */
static void own_acks_first(struct delivery *d, struct session *s, struct reader *r)
{
	if (r->own_passed)
		ack_flush(d, s);
	r->own_passed = false;
}

enum verdict handover(struct delivery *d, struct session *s, struct reader *r, struct message *m, bool own_acked)
{
	int64_t now = delivery_now(d);
	struct cursor_rules rules;
	struct variant *v;
	int qos;

	if (!r->covered)
		return VERDICT_UNCOVERED;
	if (!may_see(d, r, m->seq))
		return VERDICT_UNSEEN;
	v = own_acked ? NULL : variant_for(d, s, r, m);
	qos = v ? way_qos(d, s, v) : -1;
	session_rules(d, s, &rules);
	if (qos < 0) {
		r->own_passed |= own_acked;
		cursor_pass(&r->cursor, m->seq, now, &rules);
		reader_plan(d, r);
		return VERDICT_HANDED;
	}
	if (!handover_room(d, s))
		return VERDICT_FULL;
	own_acks_first(d, s, r);
	if (!variant_add(d, v, s, qos))
		return VERDICT_FULL;
	cursor_hand(&r->cursor, m->seq, now, &rules);
	reader_plan(d, r);
	if (rules.acks)
		s->device->out++;
	else
		spend(d, s, m->body_len + PACKET_OVERHEAD, now);
	return VERDICT_HANDED;
}

void handover_again(struct delivery *d, struct session *s, struct reader *r, struct message *m)
{
	struct variant *v;
	int qos;

	if (!r->covered || !may_see(d, r, m->seq))
		return;
	v = variant_for(d, s, r, m);
	qos = v ? way_qos(d, s, v) : -1;
	if (qos >= 0)
		(void)variant_add(d, v, s, qos); /* logged there; the next repeat brings it */
}
