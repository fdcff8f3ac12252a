/* What the vendors' requests have in common. */
#include "vendor.h"

#include "push/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void vendor_code_of(const json_t *value, char code[PUSH_REASON_MAX])
{
	if (json_is_integer(value))
		(void)snprintf(code, PUSH_REASON_MAX, "%lld", (long long)json_integer_value(value));
	else
		(void)snprintf(code, PUSH_REASON_MAX, "%s", json_is_string(value) ? json_string_value(value) : "");
}

const char *vendor_text(const struct vendor_app *a, const char *name)
{
	size_t i = 0;

	while (strcmp(a->vendor->texts[i], name) != 0)
		i++;
	return a->text[i];
}

void vendor_title(const struct push_send *s, bool minimal, size_t most, struct im_buf *out)
{
	const Im__Push__Ticket *t = s->ticket;

	(void)push_text_fit(out, minimal || t->title[0] == '\0' ? push_text_general(t->language) : t->title, most, false);
}

/* Every vendor wants some text. */
void vendor_body(const struct push_send *s, bool minimal, size_t most, struct im_buf *out)
{
	const Im__Push__Ticket *t = s->ticket;
	struct im_buf line;

	if (minimal || t->body[0] == '\0') {
		(void)push_text_fit(out, push_text_general(t->language), most, false);
		return;
	}
	im_buf_init(&line);
	if (t->subtitle[0])
		im_buf_printf(&line, "%s: ", t->subtitle);
	im_buf_add_str(&line, t->body);
	(void)push_text_fit(out, line.failed ? t->body : im_buf_text(&line), most, false);
	im_buf_finish(&line);
}

json_t *vendor_data(const struct push_send *s)
{
	const Im__Push__Ticket *t = s->ticket;
	json_t *o = json_pack("{s:s}", "tag", s->thread);

	if (t->conv[0])
		json_object_set_new(o, "conv", json_string(t->conv));
	if (t->msgid[0])
		json_object_set_new(o, "msgid", json_string(t->msgid));
	if (t->seq)
		json_object_set_new(o, "seq", json_integer((json_int_t)t->seq));
	if (t->has_badge)
		json_object_set_new(o, "badge", json_integer(t->badge));
	return o;
}

char *vendor_data_text(const struct push_send *s)
{
	json_t *o = vendor_data(s);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	json_decref(o);
	return text;
}

int vendor_notify_id(const struct push_send *s)
{
	char first[9];
	int id;

	(void)snprintf(first, sizeof(first), "%.8s", s->thread[0] ? s->thread : s->collapse);
	id = (int)(strtoul(first, NULL, 16) & 0x7fffffff);
	return id ? id : 1;
}

int64_t vendor_ttl_s(const struct push_send *s, int64_t now_ms, int64_t least, int64_t most)
{
	int64_t ttl = (s->job->deadline_ms - now_ms) / 1000;

	return ttl < least ? least : ttl > most ? most : ttl;
}
