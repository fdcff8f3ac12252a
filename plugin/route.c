/*
 * Publishes. A refusal must be explained and must not look like a success where the protocol can tell:
 *
 *            permanent refusal                         journal full or failing
 *   MQTT 5   0x87, in/err at once                      0x87, in/err at once
 *   3.x  >0  journaled: the service owes the in/err,   connection closed without PUBACK,
 *            PUBACK                                    in/err at the next connect
 *   QoS 0    in/err at once                            in/err at once
 */
#include "route.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/record.h"
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* JSON escapes and base64 make a body larger on the wire; a payload beyond this cannot hold a body within the limit. */
#define ENVELOPE_SLACK 65536u

struct publish {
	struct plugin *p;
	struct session *s;
	const struct route_publish *m;
	struct im_topic topic;
	struct broker_properties props;
	Im__Bus__Record rec;
};

/* ---- rights ---- */

bool route_may_send(const struct roster *roster, const char *user, const char *conv, struct im_refusal *why)
{
	char canonical[IM_CONV_MAX];
	const char *name = conv + 2;
	const struct roster_user *u;

	if (!im_conv_canonical(user, conv, canonical)) {
		im_refuse(why, IM_REFUSE_BAD_NAME, "%.70s is not the address of a user (u/name) or a group (g/name)", conv);
		return false;
	}
	if (im_conv_is_group(conv)) {
		if (!roster_group(roster, name)) {
			im_refuse(why, IM_REFUSE_UNKNOWN_GROUP, "there is no group %s", name);
			return false;
		}
		if (!roster_is_member(roster, name, user)) {
			im_refuse(why, IM_REFUSE_NOT_MEMBER, "%s is not a member of %s", user, name);
			return false;
		}
		return true;
	}
	u = roster_user(roster, name);
	if (!u || u->disabled) {
		im_refuse(why, IM_REFUSE_UNKNOWN_USER, "there is no user %s", name);
		return false;
	}
	if (roster_is_blocked(roster, name, user)) {
		im_refuse(why, IM_REFUSE_BLOCKED, "%s does not take messages of %s", name, user);
		return false;
	}
	return true;
}

static bool span_copy(struct im_span span, char *out, size_t len)
{
	if (span.len >= len)
		return false;
	if (span.len > 0)
		memcpy(out, span.text, span.len);
	out[span.len] = '\0';
	return true;
}

bool route_may_publish(const struct roster *roster, const char *user, const struct im_topic *topic, bool retain, struct im_refusal *why)
{
	char conv[IM_CONV_MAX];

	if (retain && topic->kind != IM_TOPIC_PLAIN) {
		im_refuse(why, IM_REFUSE_RETAINED, NULL);
		return false;
	}
	switch (topic->kind) {
	case IM_TOPIC_TO:
	case IM_TOPIC_SIG:
		if (!span_copy(topic->conv, conv, sizeof(conv))) {
			im_refuse(why, IM_REFUSE_BAD_NAME, NULL);
			return false;
		}
		return route_may_send(roster, user, conv, why);
	case IM_TOPIC_SEND:
	case IM_TOPIC_SEND_PB:
	case IM_TOPIC_ACK:
	case IM_TOPIC_REQ:
	case IM_TOPIC_PLAIN:
		return true;
	case IM_TOPIC_SVC:
		im_refuse(why, IM_REFUSE_UNKNOWN_METHOD, "no business service is connected to this server");
		return false;
	case IM_TOPIC_INBOX:
	case IM_TOPIC_ROOM:
		im_refuse(why, IM_REFUSE_READ_ONLY_TOPIC, NULL);
		return false;
	case IM_TOPIC_CONTROL:
	case IM_TOPIC_CONTROL_RESPONSE:
	case IM_TOPIC_BUS:
		im_refuse(why, IM_REFUSE_NOT_ALLOWED, NULL);
		return false;
	case IM_TOPIC_BAD:
		break;
	}
	im_refuse(why, topic->code != IM_REFUSE_NONE ? topic->code : IM_REFUSE_BAD_TOPIC, "%s", topic->why ? topic->why : "not a topic of ours");
	return false;
}

bool route_response_topic_ok(enum im_codec codec, const char *topic)
{
	char own[32];
	int n = snprintf(own, sizeof(own), "im/v1/%s/res/", im_codec_level(codec == IM_CODEC_NONE ? IM_CODEC_JSON : codec));

	return n > 0 && strncmp(topic, own, (size_t)n) == 0 && topic[n] != '\0' && strlen(topic) <= IM_TOPIC_MAX && !strpbrk(topic, "+#");
}

/* ---- refusals ---- */

static enum im_status append(struct publish *b, Im__Bus__Record *rec)
{
	struct plugin *p = b->p;
	size_t len;

	rec->ts = im_clock_wall_ms();
	rec->user = (char *)b->s->user;
	rec->client_id = (char *)b->s->client_id;
	rec->session = b->s->handle;
	rec->qos = (uint32_t)b->m->qos;
	len = im__bus__record__get_packed_size(rec);
	if (len > IM_RECORD_MAX)
		return IM_BAD_INPUT;
	im_buf_clear(&p->record);
	if (!im_buf_reserve(&p->record, len)) {
		im_buf_finish(&p->record); /* a failed buffer stays failed */
		return IM_FAILED;
	}
	im__bus__record__pack(rec, (uint8_t *)p->record.data);
	return journal_append(p->journal, p->record.data, len);
}

/* The journal took nothing: what cannot be promised must not be acknowledged. */
static enum route_verdict refuse_journal(struct publish *b, enum im_status st, const char *topic, const char *id)
{
	struct plugin *p = b->p;
	struct im_refusal why;

	im_refuse(&why, st == IM_BUSY ? IM_REFUSE_JOURNAL_FULL : IM_REFUSE_JOURNAL_FAILED, "%s", journal_why(p->journal));
	if (b->s->protocol == 5)
		return refuse_send(&p->settings, p->sessions, b->s, &why, topic, id) ? ROUTE_DENY : ROUTE_CLOSE;
	if (b->m->qos == 0)
		return refuse_send(&p->settings, p->sessions, b->s, &why, topic, id) ? ROUTE_SWALLOW : ROUTE_CLOSE;
	refuse_owe(p->refusals, b->s->user, b->s->client_id, &why, topic, id);
	return ROUTE_CLOSE;
}

static enum route_verdict refuse(struct publish *b, const struct im_refusal *why)
{
	struct plugin *p = b->p;
	struct session *s = b->s;
	char topic[REFUSE_TOPIC_MAX + 1], id[IM_ID_MAX + 1] = "";
	Im__Bus__Record rec = IM__BUS__RECORD__INIT;
	enum im_status st;

	refuse_topic(b->m->topic, topic);
	if (b->rec.id && b->rec.id[0])
		(void)snprintf(id, sizeof(id), "%s", b->rec.id); /* longer ones were refused for that */
	else
		(void)span_copy(b->topic.id, id, sizeof(id));
	if (s->protocol == 5 || b->m->qos == 0) {
		if (!refuse_send(&p->settings, p->sessions, s, why, topic, id))
			return ROUTE_CLOSE;
		return s->protocol == 5 && b->m->qos > 0 ? ROUTE_DENY : ROUTE_SWALLOW;
	}
	if (s->limit && !limit_refusal(s->limit, p->settings.rate_refusals, im_clock_mono_us()))
		return ROUTE_CLOSE;
	rec.kind = IM__BUS__KIND__KIND_REFUSAL;
	rec.code = (char *)im_refusal_name(why->code);
	rec.reason = (char *)why->reason;
	rec.fix = (char *)why->fix;
	rec.topic = topic;
	rec.id = id;
	st = append(b, &rec);
	return st == IM_OK ? ROUTE_SWALLOW : refuse_journal(b, st, topic, id);
}

/* ---- what each topic means ---- */

static size_t payload_limit(const struct publish *b)
{
	uint64_t body = b->p->settings.max_message;

	switch (b->topic.kind) {
	case IM_TOPIC_TO:
		return body;
	case IM_TOPIC_SEND:
		return body * 6 + ENVELOPE_SLACK; /* every byte as \u00xx */
	case IM_TOPIC_SEND_PB:
		return body + ENVELOPE_SLACK;
	case IM_TOPIC_SIG:
		return ROUTE_SIGNAL_MAX;
	default:
		return IM_REQUEST_MAX;
	}
}

static bool parse_payload(struct publish *b, struct im_refusal *why)
{
	const struct route_publish *m = b->m;
	struct im_arena *a = &b->p->arena;

	b->rec.kind = IM__BUS__KIND__KIND_SEND;
	switch (b->topic.kind) {
	case IM_TOPIC_TO:
		return im_envelope_plain(&b->topic, m->payload, m->len, b->props.content_type, a, &b->rec, why);
	case IM_TOPIC_SEND:
		return im_envelope_json(m->payload, m->len, a, &b->rec, why);
	case IM_TOPIC_SEND_PB:
		return im_envelope_pb(m->payload, m->len, a, &b->rec, why);
	default: /* IM_TOPIC_ACK */
		b->rec.kind = IM__BUS__KIND__KIND_ACK;
		return im_envelope_acks(m->payload, m->len, a, &b->rec, why);
	}
}

/* MQTT 5: an id and a content type may come as properties, where topic or envelope have none. */
static bool take_properties(struct publish *b, struct im_refusal *why)
{
	const char *id = b->props.id, *ct = b->props.content_type;

	if (id && !(b->rec.id && b->rec.id[0])) {
		if (!im_id_valid(id, strlen(id))) {
			im_refuse(why, IM_REFUSE_BAD_ID, "user property im-id is not a valid message id");
			return false;
		}
		b->rec.id = b->props.id;
	}
	if (ct && !(b->rec.ct && b->rec.ct[0])) {
		if (strlen(ct) > IM_CT_MAX) {
			im_refuse(why, IM_REFUSE_BAD_FIELD, "content type longer than %d bytes", IM_CT_MAX);
			return false;
		}
		b->rec.ct = b->props.content_type;
	}
	return true;
}

static bool make_send(struct publish *b, struct im_refusal *why)
{
	if (!parse_payload(b, why))
		return false;
	b->rec.kind = b->topic.kind == IM_TOPIC_ACK ? IM__BUS__KIND__KIND_ACK : IM__BUS__KIND__KIND_SEND;
	if (b->topic.kind == IM_TOPIC_ACK)
		return true;
	if (!take_properties(b, why))
		return false;
	if (b->rec.body.len > b->p->settings.max_message) {
		im_refuse(why, IM_REFUSE_TOO_BIG, "a body of %zu bytes; the limit is %llu", b->rec.body.len,
			  (unsigned long long)b->p->settings.max_message);
		return false;
	}
	return b->topic.kind == IM_TOPIC_TO || route_may_send(b->p->roster, b->s->user, b->rec.conv, why);
}

static bool seal_args(struct publish *b, struct im_refusal *why)
{
	enum im_status st = sealing_args(b->p->sealing, &b->p->arena, &b->rec);

	if (st == IM_BUSY)
		im_refuse(why, IM_REFUSE_UNAVAILABLE, "push is not ready on the server");
	else if (st != IM_OK)
		im_refuse(why, IM_REFUSE_INTERNAL, "out of memory");
	return st == IM_OK;
}

static bool make_request(struct publish *b, struct im_refusal *why)
{
	struct im_arena *a = &b->p->arena;

	b->rec.kind = IM__BUS__KIND__KIND_REQUEST;
	b->rec.method = im_arena_strndup(a, b->topic.method.text, b->topic.method.len);
	b->rec.id = im_arena_strndup(a, b->topic.id.text, b->topic.id.len);
	if (!b->rec.method || !b->rec.id) {
		b->rec.method = b->rec.id = (char *)protobuf_c_empty_string;
		im_refuse(why, IM_REFUSE_INTERNAL, "out of memory");
		return false;
	}
	b->rec.args.data = (uint8_t *)b->m->payload;
	b->rec.args.len = b->m->len;
	if (!seal_args(b, why))
		return false;
	if (b->props.response_topic) {
		if (!route_response_topic_ok(b->s->codec, b->props.response_topic)) {
			im_refuse(why, IM_REFUSE_NOT_ALLOWED, "the Response Topic is not below this device's own res/");
			return false;
		}
		b->rec.response_topic = b->props.response_topic;
	}
	b->rec.correlation.data = b->props.correlation;
	b->rec.correlation.len = b->props.correlation_len;
	return true;
}

static enum route_verdict send_signal(struct publish *b)
{
	link_signal(b->p->link, b->s, b->topic.conv.text, b->topic.conv.len, b->m->payload, b->m->len);
	return ROUTE_SWALLOW;
}

static bool within_limits(struct publish *b, struct im_refusal *why)
{
	const struct im_settings *s = &b->p->settings;
	size_t most = payload_limit(b);
	int64_t now_us = im_clock_mono_us();

	(void)limit_take(&b->p->talk, PLUGIN_TALK_US, PLUGIN_TALK_MOST, now_us); /* only counts */
	if (b->s->limit && !limit_send(b->s->limit, s->rate_connection, s->rate_user, now_us)) {
		im_refuse(why, IM_REFUSE_TOO_FAST, NULL);
		return false;
	}
	if (b->m->len > most) {
		im_refuse(why, IM_REFUSE_TOO_BIG, "a payload of %zu bytes; the limit here is %zu", b->m->len, most);
		return false;
	}
	return true;
}

static enum route_verdict route_ours(struct publish *b)
{
	struct im_refusal why;
	enum im_status st;

	memset(&why, 0, sizeof(why));
	if (!route_may_publish(b->p->roster, b->s->user, &b->topic, b->m->retain, &why) || !within_limits(b, &why))
		return refuse(b, &why);
	if (b->topic.kind == IM_TOPIC_SIG)
		return send_signal(b);
	if (!(b->topic.kind == IM_TOPIC_REQ ? make_request(b, &why) : make_send(b, &why)))
		return refuse(b, &why);
	st = append(b, &b->rec);
	if (st == IM_OK)
		return ROUTE_SWALLOW;
	if (st == IM_BAD_INPUT) {
		im_refuse(&why, IM_REFUSE_TOO_BIG, "all fields together are more than %u bytes", IM_RECORD_MAX);
		return refuse(b, &why);
	}
	return refuse_journal(b, st, b->m->topic, b->rec.id);
}

static enum route_verdict route_service(struct plugin *p, const struct session *s, const struct route_publish *m)
{
	if (strcmp(m->topic, "$im/out") != 0)
		return ROUTE_PASS;
	if (strcmp(s->client_id, PLUGIN_SERVICE) != 0)
		return ROUTE_DENY;
	link_frame(p->link, m->payload, m->len);
	return ROUTE_SWALLOW;
}

enum route_verdict route_message(struct plugin *p, struct session *s, const struct route_publish *m)
{
	struct publish b = { .p = p, .s = s, .m = m };
	enum route_verdict v;

	if (s->service)
		return route_service(p, s, m);
	im_topic_parse(m->topic, &b.topic);
	if (b.topic.kind == IM_TOPIC_PLAIN)
		return ROUTE_PASS;
	if (s->kicked)
		return ROUTE_CLOSE;
	im__bus__record__init(&b.rec);
	broker_properties_read(m->properties, &b.props);
	v = route_ours(&b);
	broker_properties_free(&b.props);
	im_arena_reset(&p->arena);
	return v;
}

/* ---- wills ---- */

/* Coming and going with a will must not be a way around the user's rate. */
static bool will_within_rate(struct publish *b)
{
	struct limit *l = limit_open(b->p->limits, b->s->user);
	bool ok = !l || limit_send(l, 0, b->p->settings.rate_user, im_clock_mono_us());

	limit_close(l);
	return ok;
}

static bool will_allowed(struct publish *b, struct im_refusal *why)
{
	if (!will_within_rate(b)) {
		im_refuse(why, IM_REFUSE_TOO_FAST, NULL);
		return false;
	}
	if (!route_may_publish(b->p->roster, b->s->user, &b->topic, b->m->retain, why))
		return false;
	if (b->m->len > payload_limit(b)) {
		im_refuse(why, IM_REFUSE_TOO_BIG, NULL);
		return false;
	}
	return parse_payload(b, why);
}

void route_will(struct plugin *p, const struct session_gone *g, const struct acl_event *ev)
{
	struct session s = { .user = g->user, .client_id = g->client_id, .protocol = g->protocol };
	struct route_publish m = { .topic = ev->topic, .payload = ev->payload, .len = ev->len, .qos = ev->qos, .retain = ev->retain };
	struct publish b = { .p = p, .s = &s, .m = &m };
	const struct roster_user *u = roster_user(p->roster, g->user);
	struct im_refusal why;
	enum im_status st;

	memset(&why, 0, sizeof(why));
	im_topic_parse(ev->topic, &b.topic);
	im__bus__record__init(&b.rec);
	if (!u || u->disabled)
		return;
	if (!will_allowed(&b, &why)) {
		refuse_owe(p->refusals, g->user, g->client_id, &why, ev->topic, b.rec.id);
	} else {
		st = append(&b, &b.rec);
		if (st != IM_OK)
			im_log(IM_LOG_WARNING, "evt=will_lost user=%s client=%s reason=\"%s\"", g->user, g->client_id, journal_why(p->journal));
	}
	im_arena_reset(&p->arena);
}
