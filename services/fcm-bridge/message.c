#include "message.h"

#include "push/text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define BODY_MOST 2400u  /* of 4096 bytes of data, with keys and the rest beside it */
#define TITLE_MOST 300u
#define TTL_MOST_S 2419200

static void set_text(json_t *o, const char *name, const char *text, size_t most)
{
	struct im_buf b;

	if (text[0] == '\0')
		return;
	im_buf_init(&b);
	(void)push_text_fit(&b, text, most, true);
	if (!b.failed)
		json_object_set_new(o, name, json_string(im_buf_text(&b)));
	im_buf_finish(&b);
}

/* Values of data are strings, all of them. */
static void set_number(json_t *o, const char *name, int64_t n)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%lld", (long long)n);
	json_object_set_new(o, name, json_string(text));
}

static const char *title_of(const Im__Push__Ticket *t, bool minimal)
{
	return minimal || t->title[0] == '\0' ? push_text_general(t->language) : t->title;
}

/* "from" and whatever begins with google or gcm are FCM's own. */
static json_t *data_of(const struct push_send *s, bool minimal)
{
	const Im__Push__Ticket *t = s->ticket;
	json_t *o = json_object();

	json_object_set_new(o, "kind", json_string(s->job->kind == IM__PUSH__KIND__KIND_BADGE ? "badge" : s->job->kind == IM__PUSH__KIND__KIND_TEST ? "test"
														   : "message"));
	set_text(o, "conv", t->conv, 256);
	set_text(o, "msgid", t->msgid, 64);
	json_object_set_new(o, "tag", json_string(s->thread));
	if (t->seq)
		set_number(o, "seq", (int64_t)t->seq);
	if (t->ts)
		set_number(o, "ts", t->ts);
	if (t->has_badge)
		set_number(o, "badge", t->badge);
	if (t->unread)
		set_number(o, "unread", t->unread);
	if (s->job->kind == IM__PUSH__KIND__KIND_BADGE)
		return o;
	set_text(o, "title", title_of(t, minimal), TITLE_MOST);
	if (!minimal) {
		set_text(o, "subtitle", t->subtitle, TITLE_MOST);
		set_text(o, "body", t->body, BODY_MOST);
		set_text(o, "sender", t->from, 256);
		set_text(o, "type", t->type, 64);
	}
	return o;
}

static json_t *notification_of(const struct push_send *s, const struct fcm_style *style, bool minimal)
{
	const Im__Push__Ticket *t = s->ticket;
	json_t *o = json_object();

	set_text(o, "title", title_of(t, minimal), TITLE_MOST);
	if (!minimal)
		set_text(o, "body", t->body, BODY_MOST / 2); /* it stands in data too */
	json_object_set_new(o, "tag", json_string(s->thread));
	if (style->channel_id[0])
		json_object_set_new(o, "channel_id", json_string(style->channel_id));
	if (t->has_badge)
		json_object_set_new(o, "notification_count", json_integer(t->badge));
	return o;
}

struct json_t *fcm_message(const struct push_send *s, const struct fcm_style *style, bool minimal, int64_t now_ms)
{
	int64_t ttl = s->job->deadline_ms > now_ms ? (s->job->deadline_ms - now_ms) / 1000 : 0;
	bool badge = s->job->kind == IM__PUSH__KIND__KIND_BADGE;
	json_t *android = json_object(), *message;
	char text[32];

	(void)snprintf(text, sizeof(text), "%llds", (long long)(ttl > TTL_MOST_S ? TTL_MOST_S : ttl));
	json_object_set_new(android, "priority", json_string(badge ? "NORMAL" : "HIGH"));
	json_object_set_new(android, "ttl", json_string(text));
	if (style->package[0])
		json_object_set_new(android, "restricted_package_name", json_string(style->package));
	if (style->notification && !badge)
		json_object_set_new(android, "notification", notification_of(s, style, minimal));
	message = json_pack("{s:s,s:o,s:o}", "token", s->ticket->token->token, "data", data_of(s, minimal), "android", android);
	return message ? json_pack("{s:o}", "message", message) : NULL;
}
