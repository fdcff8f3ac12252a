/*
 * The difficult idea: nothing is shown out of order. If `prev` of a message is above what was seen, something is
 * missing; the newer message is not shown then, but everything from there on is pulled with req/history and
 * shown in order. Only what was shown is acknowledged, so what a lost answer leaves out is delivered again.
 */
#include "chat.h"

#include "conv.h"
#include "outbox.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	REQUESTS_MAX = 16, /* under way at once; the server takes 32 of a user */
	VIEW_PAGE = 20,    /* messages of /open and /more: a screen */
	PULL_PAGE = 100,
	ACKS_MAX = 256,    /* cursors of one im/v1/ack */
	LINE_LEN = 4096,   /* longer ones are shown cut */
	HEAD_LEN = 40,     /* of an own message in a line about it */
};

enum purpose { FOR_LIST = 1, FOR_VIEW, FOR_PULL };

struct request {
	unsigned number;
	enum purpose purpose; /* 0: a free place */
	struct conv *conv;
	int64_t to;
};

struct chat {
	char user[CONV_NAME_LEN], store[64];
	struct conv *current;
	struct chat_door door;
	struct convs convs;
	struct outbox outbox;
	struct request requests[REQUESTS_MAX];
	unsigned long start; /* part of ids, so that a restart does not repeat them */
	unsigned next_id, unread, missed;
	bool synced, view_wanted;
};

struct chat *chat_create(const char *user, const struct chat_door *door)
{
	struct chat *c = calloc(1, sizeof(*c));
	struct timespec now;

	if (!c)
		return NULL;
	(void)snprintf(c->user, sizeof(c->user), "%s", user);
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
	c->start = (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000;
	c->door = *door;
	return c;
}

void chat_destroy(struct chat *c)
{
	if (!c)
		return;
	outbox_finish(&c->outbox);
	convs_finish(&c->convs);
	free(c);
}

size_t chat_waiting(const struct chat *c)
{
	return outbox_waiting(&c->outbox);
}

const char *chat_current(const struct chat *c)
{
	return c->current ? c->current->name : "";
}

unsigned chat_unread(const struct chat *c)
{
	return c->unread;
}

bool chat_ready(const struct chat *c)
{
	for (size_t i = 0; i < REQUESTS_MAX; i++)
		if (c->requests[i].purpose)
			return false;
	return c->synced && !c->view_wanted;
}

static void say(struct chat *c, enum tone tone, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(struct chat *c, enum tone tone, const char *fmt, ...)
{
	char line[LINE_LEN];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->door.say(c->door.arg, tone, line);
}

static const char *text_of(json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

static int64_t number_of(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* Takes over `value`. */
static bool publish_json(struct chat *c, const char *topic, json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	bool ok = text && c->door.publish(c->door.arg, topic, text, strlen(text), NULL);

	free(text);
	json_decref(value);
	return ok;
}

/* How many bytes of a text fit into a line about it, without cutting a character of UTF-8. */
static int head(const char *text)
{
	size_t n = strnlen(text, HEAD_LEN);

	while (n == HEAD_LEN && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

/* ---------------------------------------------------------------- requests */

/* Takes over `args`. false: not connected, or too many under way. */
static bool request(struct chat *c, enum purpose purpose, struct conv *v, int64_t to, json_t *args)
{
	const char *method = purpose == FOR_LIST ? "conversations" : "history";
	struct request *r = NULL;
	char topic[128];

	for (size_t i = 0; i < REQUESTS_MAX && !r; i++)
		if (!c->requests[i].purpose)
			r = &c->requests[i];
	if (!r) {
		json_decref(args);
		return false;
	}
	(void)snprintf(topic, sizeof(topic), "im/v1/req/%s/%lx-%u", method, c->start, ++c->next_id);
	if (!publish_json(c, topic, args))
		return false;
	*r = (struct request){.number = c->next_id, .purpose = purpose, .conv = v, .to = to};
	return true;
}

/* false: not an answer to any of ours; else *out is it, and its place is free again. */
static bool take_request(struct chat *c, const char *id, struct request *out)
{
	char *dash, *end = NULL;
	unsigned long start = strtoul(id, &dash, 16), number = *dash == '-' ? strtoul(dash + 1, &end, 10) : 0;

	if (*dash != '-' || end == dash + 1 || start != c->start)
		return false;
	for (size_t i = 0; i < REQUESTS_MAX; i++) {
		if (!c->requests[i].purpose || c->requests[i].number != number)
			continue;
		*out = c->requests[i];
		c->requests[i].purpose = 0;
		return true;
	}
	return false;
}

static void ask_list(struct chat *c)
{
	(void)request(c, FOR_LIST, NULL, 0, json_object()); /* not connected: it is asked for at each connect */
}

/* The newest messages, or with `to` those up to there. */
static bool ask_view(struct chat *c, struct conv *v, int64_t to)
{
	json_t *args = json_pack("{s:s, s:b, s:i}", "conv", v->name, "newest_first", 1, "limit", VIEW_PAGE);

	if (to > 0)
		json_object_set_new(args, "to", json_integer(to));
	return request(c, FOR_VIEW, v, to, args);
}

/* What was opened is shown behind what is being caught up, and after a reconnect if its answer was lost. */
static void view_if_wanted(struct chat *c)
{
	if (c->view_wanted && c->synced && c->current)
		c->view_wanted = !ask_view(c, c->current, 0);
}

/* Pulls what is missing, from what was seen up to `to`. */
static void pull(struct chat *c, struct conv *v, int64_t to, const char *next)
{
	json_t *args = json_pack("{s:s, s:I, s:I, s:i}", "conv", v->name, "from", (json_int_t)v->seen + 1, "to", (json_int_t)to, "limit",
				 PULL_PAGE);

	if (next)
		json_object_set_new(args, "next", json_string(next));
	if (!request(c, FOR_PULL, v, to, args))
		v->wanted = 0; /* the next message shows the gap again, or the next connection fills it */
}

/* ---------------------------------------------------------------- messages */

static const char *body_of(json_t *m)
{
	json_t *body = json_object_get(m, "body");

	if (*text_of(m, "alt"))
		return text_of(m, "alt");
	if (json_is_string(body) && strcmp(text_of(m, "enc"), "base64") != 0)
		return json_string_value(body);
	return "(cannot be shown here)";
}

static void show(struct chat *c, json_t *m)
{
	const char *from = text_of(m, "from"), *type = text_of(m, "type");
	bool odd = strcmp(type, "text") != 0 && strcmp(type, "system") != 0;
	time_t s = (time_t)(number_of(m, "ts") / 1000);
	char clock[16] = "--:--";
	struct tm when;

	if (localtime_r(&s, &when))
		(void)strftime(clock, sizeof(clock), "%H:%M", &when);
	say(c, TONE_PLAIN, "%s %s #%lld %s:%s%s%s %s%s", clock, text_of(m, "conv"), (long long)number_of(m, "seq"),
	    strcmp(from, c->user) == 0 ? "me" : *from ? from : "*", odd ? " [" : "", odd ? type : "", odd ? "]" : "", body_of(m),
	    json_is_true(json_object_get(m, "cut")) ? " ... (cut)" : "");
}

static void own_stored(struct chat *c, struct own *m, int64_t seq)
{
	m->seq = seq;
	m->tick = TICK_STORED;
	say(c, TONE_TICK, "    ✓  stored     %s #%lld \"%.*s\"", m->conv, (long long)seq, head(m->text), m->text);
}

static void on_message(struct chat *c, json_t *m)
{
	struct conv *v = convs_get(&c->convs, text_of(m, "conv"));
	int64_t seq = number_of(m, "seq");
	struct own *own = strcmp(text_of(m, "from"), c->user) == 0 ? outbox_find(&c->outbox, text_of(m, "id")) : NULL;

	if (!v || seq <= 0)
		return;
	if (own && own->tick < TICK_STORED) /* its ack was lost, this comes in its place */
		own_stored(c, own, seq);
	switch (conv_arrival(v, seq, number_of(m, "prev"))) {
	case ARRIVAL_REPEAT:
		v->to_ack = true; /* the ack may have been lost */
		break;
	case ARRIVAL_GAP:
		if (v->wanted == 0) {
			say(c, TONE_NOTE, "* %s: something before #%lld is missing, asking for it", v->name, (long long)seq);
			v->wanted = seq;
			pull(c, v, seq, NULL);
		} else if (seq > v->wanted) {
			v->wanted = seq;
		}
		break;
	case ARRIVAL_NEXT:
		if (!own)
			show(c, m);
		c->missed += !c->synced;
		conv_shown(v, seq);
		break;
	}
}

static void on_pulled(struct chat *c, const struct request *r, json_t *answer)
{
	struct conv *v = r->conv;
	int64_t wanted = v->wanted;
	json_t *m;
	size_t i;

	json_array_foreach(json_object_get(answer, "messages"), i, m) {
		if (number_of(m, "seq") <= v->seen)
			continue;
		if (!outbox_find(&c->outbox, text_of(m, "id")) || strcmp(text_of(m, "from"), c->user) != 0)
			show(c, m);
		conv_shown(v, number_of(m, "seq"));
	}
	if (json_is_true(json_object_get(answer, "more"))) {
		pull(c, v, r->to, i == 0 ? text_of(answer, "next") : NULL); /* an empty page moved nothing */
		return;
	}
	conv_shown(v, r->to); /* what was not in the answer is not there, or not for us */
	v->wanted = 0;
	if (wanted > v->seen) { /* more came meanwhile */
		v->wanted = wanted;
		pull(c, v, wanted, NULL);
	}
}

static void on_viewed(struct chat *c, const struct request *r, json_t *answer)
{
	json_t *messages = json_object_get(answer, "messages");
	size_t n = json_array_size(messages);
	struct conv *v = r->conv;
	int64_t newest = number_of(json_array_get(messages, 0), "seq");

	say(c, TONE_NOTE, "--- %s: %zu message%s%s", v->name, n, n == 1 ? "" : "s",
	    json_is_true(json_object_get(answer, "more")) ? ", older ones with /more" : "");
	for (size_t i = n; i > 0; i--)
		show(c, json_array_get(messages, i - 1));
	if (n > 0)
		v->oldest = number_of(json_array_get(messages, n - 1), "seq");
	if (newest > v->viewed)
		v->viewed = newest;
	/* Caught up already, so what this device never saw is on this page: or nothing is between it and the page. */
	if (r->to == 0 && v->wanted == 0 && n > 0 && (v->seen == 0 || number_of(json_array_get(messages, n - 1), "prev") <= v->seen))
		conv_shown(v, newest);
	v->to_ack = true; /* being read now */
}

static void on_list(struct chat *c, const struct request *r, json_t *answer)
{
	json_t *row;
	size_t i;

	(void)r;
	json_array_foreach(json_object_get(answer, "conversations"), i, row) {
		int64_t unread = number_of(row, "unread");
		char count[32] = "nothing new";

		if (unread > 0)
			(void)snprintf(count, sizeof(count), "%lld%s unread", (long long)(unread > 99 ? 99 : unread), unread > 99 ? "+" : "");
		say(c, TONE_NOTE, "  %-20s %-12s %lld messages  %s", text_of(row, "conv"), count, (long long)number_of(row, "last_seq"),
		    text_of(row, "title"));
	}
	if (i == 0)
		say(c, TONE_NOTE, "  no conversations yet; /open u/NAME begins one");
	if (json_is_true(json_object_get(answer, "more")))
		say(c, TONE_NOTE, "  ... and older ones");
}

/* ---------------------------------------------------------------- own messages */

static void publish_own(struct chat *c, struct own *m)
{
	char topic[160];

	(void)snprintf(topic, sizeof(topic), "im/v1/to/%s/%s", m->conv, m->id);
	m->mid = -1;
	m->tick = TICK_WAITING;
	(void)c->door.publish(c->door.arg, topic, m->text, strlen(m->text), &m->mid); /* else with the next connection */
}

static void send_text(struct chat *c, const char *text)
{
	char id[OUTBOX_ID_LEN];
	struct own *m;

	if (!c->current) {
		say(c, TONE_BAD, "! to whom? /open u/NAME or /open g/GROUP first");
		return;
	}
	(void)snprintf(id, sizeof(id), "%lx-%u", c->start, ++c->next_id);
	m = outbox_add(&c->outbox, c->current->name, id, text);
	if (m)
		publish_own(c, m);
	else
		say(c, TONE_BAD, "! not sent: %zu messages wait for their ack already", chat_waiting(c));
}

void chat_puback(struct chat *c, int mid)
{
	for (size_t i = 0; i < c->outbox.n; i++) {
		struct own *m = &c->outbox.all[i];

		if (m->mid != mid || m->tick != TICK_WAITING)
			continue;
		m->tick = TICK_SENT;
		say(c, TONE_TICK, "    ·  sent       %s \"%.*s\"", m->conv, head(m->text), m->text);
	}
}

static void on_acks(struct chat *c, json_t *acks)
{
	json_t *ack;
	size_t i;

	json_array_foreach(acks, i, ack) {
		struct own *m = outbox_find(&c->outbox, text_of(ack, "id"));
		struct conv *v = convs_get(&c->convs, text_of(ack, "conv"));

		if (m && m->tick < TICK_STORED)
			own_stored(c, m, number_of(ack, "seq"));
		if (v && number_of(ack, "seq") > 0)
			conv_stored(v, number_of(ack, "seq"));
	}
}

static void say_refusal(struct chat *c, const char *what, const char *text, json_t *e)
{
	say(c, TONE_BAD, "! %s%s%.*s%s: %s. %s (%s)", what, *text ? " \"" : "", head(text), text, *text ? "\"" : "", text_of(e, "reason"),
	    text_of(e, "fix"), text_of(e, "code"));
}

static void on_refusal(struct chat *c, json_t *e)
{
	struct own *m = outbox_find(&c->outbox, text_of(e, "id"));

	if (m && m->tick < TICK_STORED) {
		say_refusal(c, "not sent", m->text, e);
		m->tick = TICK_REFUSED;
	} else if (!m) {
		say_refusal(c, "refused", text_of(e, "topic"), e);
	}
}

/* In a group a tick rises with the first who has come so far. */
static void raise_tick(struct chat *c, struct own *m, enum tick tick, const char *who)
{
	if (m->tick < TICK_STORED || m->tick >= tick)
		return;
	m->tick = tick;
	say(c, TONE_TICK, "    ✓✓ %-10s %s #%lld \"%.*s\" %s %s", tick == TICK_READ ? "read" : "delivered", m->conv, (long long)m->seq,
	    head(m->text), m->text, tick == TICK_READ ? "by" : "to", who);
}

static void on_receipt(struct chat *c, json_t *r)
{
	const char *who = text_of(r, "user");

	if (strcmp(who, c->user) == 0)
		return;
	for (size_t i = 0; i < c->outbox.n; i++) {
		struct own *m = &c->outbox.all[i];

		if (strcmp(m->conv, text_of(r, "conv")) != 0)
			continue;
		if (m->seq <= number_of(r, "read"))
			raise_tick(c, m, TICK_READ, who);
		else if (m->seq <= number_of(r, "delivered"))
			raise_tick(c, m, TICK_DELIVERED, who);
	}
}

/* ---------------------------------------------------------------- packets */

static void on_answer(struct chat *c, json_t *answer)
{
	static void (*const on[])(struct chat *, const struct request *, json_t *) = {
		[FOR_LIST] = on_list, [FOR_VIEW] = on_viewed, [FOR_PULL] = on_pulled};
	struct request r;

	if (!take_request(c, text_of(answer, "id"), &r))
		return; /* of an earlier connection */
	if (json_is_true(json_object_get(answer, "ok"))) {
		on[r.purpose](c, &r, answer);
		return;
	}
	say_refusal(c, text_of(answer, "method"), "", json_object_get(answer, "error"));
	if (r.purpose == FOR_PULL)
		r.conv->wanted = 0; /* the next message shows the gap again */
}

static void on_welcome(struct chat *c, json_t *e)
{
	if (*c->store && strcmp(c->store, text_of(e, "store")) != 0) {
		say(c, TONE_NOTE, "* the server has lost or changed its store; beginning anew");
		convs_forget(&c->convs);
	}
	(void)snprintf(c->store, sizeof(c->store), "%s", text_of(e, "store"));
	say(c, TONE_NOTE, "* connected as %s, device %s", text_of(e, "user"), *text_of(e, "device") ? text_of(e, "device") : "(unnamed)");
}

static void on_sync(struct chat *c, json_t *e)
{
	bool begin = strcmp(text_of(e, "phase"), "begin") == 0;

	if (begin && number_of(e, "conversations") > 0)
		say(c, TONE_NOTE, "* catching up");
	if (!begin && c->missed > 0)
		say(c, TONE_NOTE, "* up to date, %u new message%s", c->missed, c->missed == 1 ? "" : "s");
	else if (!begin)
		say(c, TONE_NOTE, "* up to date");
	c->missed = 0;
	c->synced = !begin;
	view_if_wanted(c);
}

static void on_typing(struct chat *c, json_t *e)
{
	say(c, TONE_NOTE, "  %s is typing in %s", text_of(e, "user"), text_of(e, "conv"));
}

static void on_badge(struct chat *c, json_t *e)
{
	c->unread = (unsigned)number_of(e, "unread");
}

void chat_packet(struct chat *c, const char *topic, const void *payload, size_t len)
{
	static const struct {
		const char *prefix;
		void (*on)(struct chat *, json_t *);
	} kinds[] = {
		{"im/v1/in/msg/", on_message},       {"im/v1/in/sent/", on_message},        {"im/v1/in/ack", on_acks},
		{"im/v1/in/err", on_refusal},        {"im/v1/in/res/", on_answer},          {"im/v1/in/evt/receipt", on_receipt},
		{"im/v1/in/evt/welcome", on_welcome}, {"im/v1/in/evt/sync", on_sync},       {"im/v1/in/evt/typing", on_typing},
		{"im/v1/in/state/badge", on_badge},
	};
	json_t *root = json_loadb(payload, len, JSON_ALLOW_NUL, NULL);

	for (size_t i = 0; root && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strncmp(topic, kinds[i].prefix, strlen(kinds[i].prefix)) != 0)
			continue;
		kinds[i].on(c, root);
		break;
	}
	json_decref(root); /* what is not known is ignored, as the protocol asks */
}

static json_t *cursor_of(const struct chat *c, const struct conv *v)
{
	int64_t read = v->viewed > v->seen ? v->viewed : v->seen;
	json_t *one = json_pack("{s:s}", "conv", v->name);

	if (v->seen > 0)
		json_object_set_new(one, "delivered", json_integer(v->seen));
	if (v == c->current && read > 0)
		json_object_set_new(one, "read", json_integer(read));
	return one;
}

void chat_flush(struct chat *c)
{
	json_t *acks = json_array();

	for (size_t i = 0; i < c->convs.n && json_array_size(acks) < ACKS_MAX; i++) {
		struct conv *v = c->convs.all[i];
		json_t *one = v->to_ack ? cursor_of(c, v) : NULL;

		v->to_ack = false;
		if (json_object_size(one) > 1)
			json_array_append_new(acks, one);
		else
			json_decref(one);
	}
	if (json_array_size(acks) > 0)
		(void)publish_json(c, "im/v1/ack", acks); /* if it is lost the messages come again, and so does this */
	else
		json_decref(acks);
}

void chat_lost(struct chat *c)
{
	for (size_t i = 0; i < REQUESTS_MAX; i++) {
		if (c->requests[i].purpose == FOR_VIEW && c->requests[i].to == 0)
			c->view_wanted = true; /* of the current conversation: asked for again */
		c->requests[i].purpose = 0;
	}
	for (size_t i = 0; i < c->convs.n; i++)
		c->convs.all[i]->wanted = 0;
	c->synced = false;
}

void chat_connected(struct chat *c)
{
	ask_list(c);
	for (size_t i = 0; i < c->outbox.n; i++)
		if (c->outbox.all[i].tick < TICK_STORED)
			publish_own(c, &c->outbox.all[i]); /* the same id: stored once, whatever had arrived */
	view_if_wanted(c);
}

/* ---------------------------------------------------------------- what is typed */

static bool cmd_open(struct chat *c, const char *name)
{
	struct conv *v = convs_get(&c->convs, name);

	if (!v) {
		say(c, TONE_BAD, "! /open u/NAME or /open g/GROUP");
		return true;
	}
	c->current = v;
	v->to_ack = true; /* it is being read now */
	c->view_wanted = true;
	view_if_wanted(c);
	return true;
}

static bool cmd_more(struct chat *c, const char *rest)
{
	(void)rest;
	if (!c->current || c->current->oldest == 0)
		say(c, TONE_BAD, "! /open a conversation first");
	else if (c->current->oldest == 1)
		say(c, TONE_NOTE, "--- that was the beginning");
	else if (!ask_view(c, c->current, c->current->oldest - 1))
		say(c, TONE_BAD, "! not connected, or too much asked for at once");
	return true;
}

static bool cmd_list(struct chat *c, const char *rest)
{
	(void)rest;
	ask_list(c);
	return true;
}

static bool cmd_quit(struct chat *c, const char *rest)
{
	(void)c;
	(void)rest;
	return false;
}

bool chat_line(struct chat *c, const char *line)
{
	static const struct {
		const char *name;
		bool (*run)(struct chat *, const char *rest);
	} commands[] = {{"open", cmd_open}, {"to", cmd_open}, {"more", cmd_more}, {"list", cmd_list}, {"quit", cmd_quit}};
	size_t len;

	if (line[0] != '/' || line[1] == '/') { /* "//" is a text that begins with a slash */
		if (*line)
			send_text(c, line[0] == '/' ? line + 1 : line);
		return true;
	}
	len = strcspn(line + 1, " ");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strlen(commands[i].name) == len && strncmp(line + 1, commands[i].name, len) == 0)
			return commands[i].run(c, line + 1 + len + strspn(line + 1 + len, " "));
	say(c, TONE_NOTE, "  /open u/NAME or g/GROUP   /more older ones   /list   /quit   anything else is sent");
	return true;
}
