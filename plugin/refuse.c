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
/* Looked at in one turn of the loop: whoever is owed something and never comes back must not cost every turn. */
#define OWED_LOOK 16u

struct owed {
	char *user, *client_id, *topic, *id;
	int64_t since_ms; /* monotonic */
	struct im_refusal why;
	struct owed *prev, *next;
};

struct refusals {
	struct owed *owed; /* oldest first */
	struct owed *look; /* where the next turn goes on; NULL: at the oldest */
	unsigned n;
};

void refuse_topic(const char *topic, char out[REFUSE_TOPIC_MAX + 1])
{
	size_t n = strnlen(topic, REFUSE_TOPIC_MAX + 1);

	if (n > REFUSE_TOPIC_MAX)
		for (n = REFUSE_TOPIC_MAX; n > 0 && ((unsigned char)topic[n] & 0xc0) == 0x80;)
			n--;
	memcpy(out, topic, n);
	out[n] = '\0';
}

struct refusals *refusals_create(void)
{
	return calloc(1, sizeof(struct refusals));
}

static void owed_free(struct refusals *r, struct owed *o)
{
	if (r->look == o)
		r->look = o->next;
	DL_DELETE(r->owed, o);
	r->n--;
	free(o->user);
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
	char shown[REFUSE_TOPIC_MAX + 1];
	struct im_buf t, payload;
	void *copy;
	int qos;

	e.code = (char *)im_refusal_name(why->code);
	e.reason = (char *)why->reason;
	e.fix = (char *)why->fix;
	refuse_topic(topic ? topic : "", shown);
	e.topic = shown;
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

/* How much this client id is owed; the oldest of that goes if it is too much. */
static void make_room(struct refusals *r, const char *client_id)
{
	struct owed *o, *first = NULL;
	unsigned n = 0;

	DL_FOREACH(r->owed, o) {
		if (strcmp(o->client_id, client_id) != 0)
			continue;
		first = first ? first : o;
		n++;
	}
	if (n >= REFUSE_OWED_CLIENT_MAX)
		owed_free(r, first);
	else if (r->n >= REFUSE_OWED_MAX)
		owed_free(r, r->owed);
}

void refuse_owe(struct refusals *r, const char *user, const char *client_id, const struct im_refusal *why, const char *topic, const char *id)
{
	struct owed *o = calloc(1, sizeof(*o));
	char shown[REFUSE_TOPIC_MAX + 1];

	if (!o)
		return; /* the close itself has told that something was refused */
	make_room(r, client_id);
	refuse_topic(topic ? topic : "", shown);
	o->why = *why;
	o->since_ms = im_clock_mono_ms();
	o->user = strdup(user);
	o->client_id = strdup(client_id);
	o->topic = strdup(shown);
	o->id = strdup(id ? id : "");
	DL_APPEND(r->owed, o);
	r->n++;
	if (!o->user || !o->client_id || !o->topic || !o->id)
		owed_free(r, o);
}

void refuse_tick(struct refusals *r, const struct im_settings *settings, struct session_table *sessions)
{
	unsigned n = r->n < OWED_LOOK ? r->n : OWED_LOOK;

	for (; n > 0; n--) {
		struct owed *o = r->look ? r->look : r->owed;
		struct session *s = session_by_client_id(sessions, o->client_id);

		r->look = o->next;
		/* An id without a device name may be somebody else's by now: what was refused is none of their business. */
		if (im_clock_mono_ms() - o->since_ms > REFUSE_OWED_MS || (s && strcmp(s->user, o->user) != 0)) {
			owed_free(r, o);
			continue;
		}
		if (!s || s->kicked || (s->n_filters == 0 && im_clock_mono_ms() - s->opened_ms < OWED_WAIT_MS))
			continue;
		send_now(settings, s, &o->why, o->topic, o->id);
		owed_free(r, o);
	}
}
