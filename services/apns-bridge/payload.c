/*
 * The aps dictionary and, beside it, "im" with the ids that the app needs to fetch the message.
 *
 *     {"aps":{"alert":{"title","subtitle","body" | "loc-key"},"badge","sound","thread-id","mutable-content"},
 *      "im":{"conv","seq","msgid","from","type","ts","unread"}}
 *
 * The body is written last, into what everything else leaves of the limit: so nothing is built twice.
 */
#include "payload.h"

#include "push/text.h"

#include <string.h>

/* Bytes inside the JSON string. Two lines of a lock screen; the rest is the body's. */
#define TITLE_MOST 240
/* Names and types of ours are shorter; whatever comes, the ids must leave room for a text. */
#define ID_MOST 200

static void add_key(struct im_buf *out, const char *key)
{
	if (out->len && out->data[out->len - 1] != '{')
		im_buf_add_char(out, ',');
	im_buf_printf(out, "\"%s\":", key);
}

static void add_text(struct im_buf *out, const char *key, const char *text, size_t most)
{
	struct im_buf fit;

	if (!text || !*text)
		return;
	im_buf_init(&fit);
	(void)push_text_fit(&fit, text, most, true);
	add_key(out, key);
	push_text_json(out, im_buf_text(&fit));
	out->failed = out->failed || fit.failed;
	im_buf_finish(&fit);
}

static void add_number(struct im_buf *out, const char *key, long long n)
{
	add_key(out, key);
	im_buf_printf(out, "%lld", n);
}

static void add_ids(struct im_buf *out, const struct payload_spec *s)
{
	const Im__Push__Ticket *t = s->ticket;

	im_buf_add_str(out, ",\"im\":{");
	add_text(out, "conv", t->conv, ID_MOST);
	if (t->seq)
		add_number(out, "seq", (long long)t->seq);
	add_text(out, "msgid", t->msgid, ID_MOST);
	if (!s->minimal) {
		add_text(out, "from", t->from, ID_MOST);
		add_text(out, "type", t->type, ID_MOST);
		if (t->ts)
			add_number(out, "ts", t->ts);
		if (t->unread)
			add_number(out, "unread", t->unread);
	}
	im_buf_add_char(out, '}');
}

/* What follows the alert. */
static void add_rest(struct im_buf *out, const struct payload_spec *s)
{
	const Im__Push__Ticket *t = s->ticket;

	im_buf_add_char(out, '}'); /* of alert */
	if (t->has_badge)
		add_number(out, "badge", t->badge);
	if (!t->silent)
		add_text(out, "sound", s->sound, ID_MOST);
	add_text(out, "thread-id", s->thread, ID_MOST);
	add_number(out, "mutable-content", 1);
	im_buf_add_char(out, '}');
	add_ids(out, s);
	im_buf_add_char(out, '}');
}

static enum payload_kind write_alert(const struct payload_spec *s, struct im_buf *out)
{
	const Im__Push__Ticket *t = s->ticket;
	bool text = !s->minimal && t->body && *t->body;
	struct im_buf rest;

	im_buf_init(&rest);
	add_rest(&rest, s);
	im_buf_add_str(out, "{\"aps\":{\"alert\":{");
	if (!s->minimal) {
		add_text(out, "title", t->title, TITLE_MOST);
		add_text(out, "subtitle", t->subtitle, TITLE_MOST);
	}
	if (!text && *s->loc_key)
		add_text(out, "loc-key", s->loc_key, ID_MOST);
	else
		add_text(out, "body", text ? t->body : push_text_general(t->language),
			 PAYLOAD_MAX - out->len - rest.len - strlen(",\"body\":\"\""));
	im_buf_add(out, rest.data, rest.len);
	out->failed = out->failed || rest.failed;
	im_buf_finish(&rest);
	return PAYLOAD_ALERT;
}

enum payload_kind payload_write(const struct payload_spec *s, struct im_buf *out)
{
	if (s->job->kind != IM__PUSH__KIND__KIND_BADGE)
		return write_alert(s, out);
	if (s->ticket->has_badge) {
		im_buf_printf(out, "{\"aps\":{\"badge\":%u}}", s->ticket->badge);
		return PAYLOAD_BADGE;
	}
	im_buf_add_str(out, "{\"aps\":{\"content-available\":1}");
	add_ids(out, s);
	im_buf_add_char(out, '}');
	return PAYLOAD_BACKGROUND;
}
