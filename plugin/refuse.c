/* Errors for clients: sent at once, or owed until the client is back. */
#include "refuse.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "limit.h"
#include "wire/codec.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* How long a client that is back may take to subscribe before what is owed is sent all the same. */
#define OWED_WAIT_MS 1000

struct owed {
	char *client_id, *topic, *id;
	struct im_refusal why;
	struct owed *prev, *next;
};

struct refusals {
	struct owed *owed;
	unsigned n;
};

struct refusals *refusals_create(void)
{
	return calloc(1, sizeof(struct refusals));
}

static void owed_free(struct refusals *r, struct owed *o)
{
	DL_DELETE(r->owed, o);
	r->n--;
	free(o->client_id);
	free(o->topic);
	free(o->id);
	free(o);
}

void refusals_destroy(struct refusals *r)
{
	if (!r)
		return;
	while (r->owed)
		owed_free(r, r->owed);
	free(r);
}

static void send_now(const struct im_settings *settings, const struct session *s, const struct im_refusal *why, const char *topic,
		     const char *id)
{
	Im__V1__Error e = IM__V1__ERROR__INIT;
	enum im_codec codec = s->codec == IM_CODEC_NONE ? IM_CODEC_JSON : s->codec;
	struct im_buf t, payload;
	void *copy;
	int qos;

	e.code = (char *)im_refusal_name(why->code);
	e.reason = (char *)why->reason;
	e.fix = (char *)why->fix;
	e.topic = (char *)(topic ? topic : "");
	e.id = (char *)(id ? id : "");
	im_buf_init(&t);
	im_buf_init(&payload);
	im_codec_error(codec, &e, &t, &payload);
	qos = session_wants(s, im_buf_text(&t));
	if (qos < 0 && settings->unsubscribed == IM_UNSUBSCRIBED_NONE)
		goto out;
	copy = t.failed || payload.failed ? NULL : broker_alloc(payload.len);
	if (!copy) {
		im_log(IM_LOG_WARNING, "evt=error_lost user=%s client=%s code=%s: out of memory", s->user, s->client_id, e.code);
		goto out;
	}
	if (payload.len > 0)
		memcpy(copy, payload.data, payload.len);
	(void)broker_send(s->client_id, im_buf_text(&t), copy, payload.len, qos > 0 ? 1 : 0, NULL); /* only memory can be missing */
	if (s->websocket)
		broker_wake();
out:
	im_buf_finish(&t);
	im_buf_finish(&payload);
}

bool refuse_send(const struct im_settings *settings, struct session_table *sessions, struct session *s, const struct im_refusal *why,
		 const char *topic, const char *id)
{
	if (s->limit && !limit_refusal(s->limit, settings->rate_refusals, im_clock_mono_us())) {
		session_kick(sessions, s, "over im_rate_refusals");
		return false;
	}
	send_now(settings, s, why, topic, id);
	return true;
}

void refuse_owe(struct refusals *r, const char *client_id, const struct im_refusal *why, const char *topic, const char *id)
{
	struct owed *o = calloc(1, sizeof(*o));

	if (!o)
		return; /* the close itself has told that something was refused */
	if (r->n >= REFUSE_OWED_MAX)
		owed_free(r, r->owed);
	o->why = *why;
	o->client_id = strdup(client_id);
	o->topic = strdup(topic ? topic : "");
	o->id = strdup(id ? id : "");
	DL_APPEND(r->owed, o);
	r->n++;
	if (!o->client_id || !o->topic || !o->id)
		owed_free(r, o);
}

void refuse_tick(struct refusals *r, const struct im_settings *settings, struct session_table *sessions)
{
	struct owed *o, *next;

	DL_FOREACH_SAFE(r->owed, o, next) {
		struct session *s = session_by_client_id(sessions, o->client_id);

		if (!s || s->kicked || (s->n_filters == 0 && im_clock_mono_ms() - s->opened_ms < OWED_WAIT_MS))
			continue;
		send_now(settings, s, &o->why, o->topic, o->id);
		owed_free(r, o);
	}
}
