/*
 * The difficult idea: order. Messages come in the order of their sequences, each naming the one before it
 * (`prev`). Own messages are seen only as acks, so their sequences count as seen too. If `prev` is above
 * what was seen, something is missing: the newer message is not shown then, but everything from there on is
 * pulled with req/history and shown in order.
 */
#include "chat.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	CONVS_MAX = 1024,    /* more than anybody reads in a terminal */
	PENDING_MAX = 256,   /* own messages without ack; further lines wait for the user to try again */
	OWN_MAX = 64,        /* own sequences above what was seen, per conversation */
	NAME_LEN = 80,
	LINE_LEN = 2048,
};

struct conv {
	char name[NAME_LEN];
	json_int_t seen;          /* 0: nothing yet, so nothing can be missing */
	json_int_t wanted;        /* pulling up to here; 0: not pulling */
	json_int_t own[OWN_MAX];
	size_t n_own;
	json_int_t delivered, read; /* receipts of others, the furthest */
	bool to_ack;
};

enum tick { WAITING, SENT };

struct pending {
	char id[40], conv[NAME_LEN];
	char *text;
	int mid;
	enum tick tick;
};

struct chat {
	char user[NAME_LEN], current[NAME_LEN];
	struct chat_door door;
	struct conv *convs[CONVS_MAX];
	size_t n_convs;
	struct pending pending[PENDING_MAX];
	size_t n_pending;
	unsigned next_id;
	long start;               /* part of ids, so that a restart does not repeat them */
};

struct chat *chat_create(const char *user, const struct chat_door *door)
{
	struct chat *c = calloc(1, sizeof(*c));
	struct timespec now;

	if (!c)
		return NULL;
	(void)snprintf(c->user, sizeof(c->user), "%s", user);
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
	c->start = now.tv_sec * 1000 + now.tv_nsec / 1000000;
	c->door = *door;
	return c;
}

void chat_destroy(struct chat *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_pending; i++)
		free(c->pending[i].text);
	for (size_t i = 0; i < c->n_convs; i++)
		free(c->convs[i]);
	free(c);
}

size_t chat_pending(const struct chat *c)
{
	return c->n_pending;
}

const char *chat_current(const struct chat *c)
{
	return c->current;
}

static void say(struct chat *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct chat *c, const char *fmt, ...)
{
	char line[LINE_LEN];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap); /* a long text is shown cut */
	va_end(ap);
	c->door.say(c->door.arg, line);
}

static const char *text_of(json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

static json_int_t number_of(json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static bool publish_json(struct chat *c, const char *topic, json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	bool ok = text && c->door.publish(c->door.arg, topic, text, strlen(text), NULL);

	free(text);
	json_decref(value);
	return ok;
}

static bool request(struct chat *c, const char *method, json_t *args)
{
	char topic[128];

	(void)snprintf(topic, sizeof(topic), "im/v1/req/%s/%lx-%u", method, (unsigned long)c->start, c->next_id++);
	return publish_json(c, topic, args);
}

/* ---------------------------------------------------------------- conversations */

/* NULL: too many, or out of memory. */
static struct conv *get_conv(struct chat *c, const char *name)
{
	struct conv *v;

	for (size_t i = 0; i < c->n_convs; i++)
		if (strcmp(c->convs[i]->name, name) == 0)
			return c->convs[i];
	if (c->n_convs == CONVS_MAX || strlen(name) >= NAME_LEN || !(v = calloc(1, sizeof(*v))))
		return NULL;
	memcpy(v->name, name, strlen(name) + 1);
	c->convs[c->n_convs++] = v;
	return v;
}

static void advance(struct conv *v, json_int_t seq)
{
	bool again = true;

	if (seq > v->seen)
		v->seen = seq;
	while (again) { /* own ones that follow directly */
		again = false;
		for (size_t i = 0; i < v->n_own; i++) {
			if (v->own[i] > v->seen + 1)
				continue;
			if (v->own[i] == v->seen + 1)
				v->seen++;
			v->own[i] = v->own[--v->n_own];
			again = true;
			break;
		}
	}
	v->to_ack = true;
}

static void pull(struct chat *c, struct conv *v, json_int_t to)
{
	bool pulling = v->wanted > 0;

	if (to > v->wanted)
		v->wanted = to;
	if (!pulling && !request(c, "history", json_pack("{s:s,s:I,s:I}", "conv", v->name, "from", v->seen + 1, "to", v->wanted)))
		v->wanted = 0; /* not connected: the server begins there again */
}

static void show(struct chat *c, const struct conv *v, json_t *m)
{
	const char *from = text_of(m, "from"), *type = text_of(m, "type"), *body = text_of(m, "body");
	json_t *value = json_object_get(m, "body");
	char clock[16] = "";
	struct tm when;
	time_t s = (time_t)(number_of(m, "ts") / 1000);

	if (localtime_r(&s, &when))
		(void)strftime(clock, sizeof(clock), "%H:%M", &when);
	if (*text_of(m, "alt"))
		body = text_of(m, "alt");
	else if (!json_is_string(value) || strcmp(text_of(m, "enc"), "base64") == 0)
		body = "(cannot be shown here)";
	say(c, "%s %s #%lld %s%s%s%s: %s%s", clock, v->name, (long long)number_of(m, "seq"), *from ? from : "*",
	    strcmp(type, "text") == 0 ? "" : " [", strcmp(type, "text") == 0 ? "" : type, strcmp(type, "text") == 0 ? "" : "]", body,
	    json_is_true(json_object_get(m, "cut")) ? " ... (cut)" : "");
}

static void on_message(struct chat *c, json_t *m, bool pulled)
{
	struct conv *v = get_conv(c, text_of(m, "conv"));
	json_int_t seq = number_of(m, "seq"), prev = number_of(m, "prev");

	if (!v || seq <= 0)
		return;
	if (seq <= v->seen) { /* a repeat: the ack may have been lost */
		v->to_ack = true;
		return;
	}
	if (!pulled && v->seen > 0 && (v->wanted > 0 || prev > v->seen)) {
		pull(c, v, seq);
		return;
	}
	show(c, v, m);
	advance(v, seq);
}

static void on_history(struct chat *c, json_t *answer)
{
	json_t *messages = json_object_get(answer, "messages");
	struct conv *v = get_conv(c, text_of(answer, "conv"));
	size_t n = json_array_size(messages);
	bool newest_first = n > 1 && number_of(json_array_get(messages, 0), "seq") > number_of(json_array_get(messages, 1), "seq");
	json_int_t wanted;

	for (size_t i = 0; i < n; i++) {
		json_t *m = json_array_get(messages, newest_first ? n - 1 - i : i);

		v = get_conv(c, text_of(m, "conv"));
		if (v && v->wanted > 0)
			on_message(c, m, true);
		else if (v)
			show(c, v, m);
	}
	if (!v || v->wanted == 0)
		return;
	wanted = v->wanted;
	v->wanted = 0;
	if (n == 0)
		advance(v, wanted); /* not there, or not for us */
	else if (v->seen < wanted)
		pull(c, v, wanted);
}

static void on_conversations(struct chat *c, json_t *answer)
{
	json_t *row;
	size_t i;

	json_array_foreach(json_object_get(answer, "conversations"), i, row) {
		json_int_t unread = number_of(row, "unread");

		if (get_conv(c, text_of(row, "conv")))
			say(c, "  %-24s %lld unread, newest #%lld %s", text_of(row, "conv"), (long long)unread,
			    (long long)number_of(row, "last_seq"), text_of(row, "title"));
	}
	if (i == 0)
		say(c, "  no conversations yet; /to u/NAME begins one");
}

/* ---------------------------------------------------------------- own messages */

static void send_pending(struct chat *c, struct pending *p)
{
	char topic[160];

	(void)snprintf(topic, sizeof(topic), "im/v1/to/%s/%s", p->conv, p->id);
	p->mid = -1;
	p->tick = WAITING;
	(void)c->door.publish(c->door.arg, topic, p->text, strlen(p->text), &p->mid); /* else with the next connection */
}

static struct pending *find_pending(struct chat *c, const char *id)
{
	for (size_t i = 0; i < c->n_pending; i++)
		if (strcmp(c->pending[i].id, id) == 0)
			return &c->pending[i];
	return NULL;
}

static void forget_pending(struct chat *c, struct pending *p)
{
	free(p->text);
	memmove(p, p + 1, (size_t)(c->pending + c->n_pending - (p + 1)) * sizeof(*p)); /* keeps the order */
	c->n_pending--;
}

static void send_text(struct chat *c, const char *text)
{
	struct pending *p = &c->pending[c->n_pending];

	if (!*c->current) {
		say(c, "! to whom? /to u/NAME or /to g/GROUP first");
		return;
	}
	if (c->n_pending == PENDING_MAX) {
		say(c, "! %d messages wait for their ack; try again when some have it", PENDING_MAX);
		return;
	}
	memset(p, 0, sizeof(*p));
	p->text = strdup(text);
	if (!p->text) {
		say(c, "! out of memory");
		return;
	}
	(void)snprintf(p->id, sizeof(p->id), "%lx-%u", (unsigned long)c->start, c->next_id++);
	memcpy(p->conv, c->current, sizeof(p->conv));
	c->n_pending++;
	send_pending(c, p);
}

void chat_puback(struct chat *c, int mid)
{
	for (size_t i = 0; i < c->n_pending; i++) {
		if (c->pending[i].mid == mid && c->pending[i].tick == WAITING) {
			c->pending[i].tick = SENT;
			say(c, "  . sent     %s \"%.20s\"", c->pending[i].conv, c->pending[i].text);
		}
	}
}

static void on_ack(struct chat *c, json_t *ack)
{
	struct pending *p = find_pending(c, text_of(ack, "id"));
	struct conv *v = get_conv(c, text_of(ack, "conv"));
	json_int_t seq = number_of(ack, "seq");

	if (p) {
		say(c, "  v stored   %s #%lld \"%.20s\"", p->conv, (long long)seq, p->text);
		forget_pending(c, p);
	}
	if (!v || seq <= v->seen)
		return;
	if (seq == v->seen + 1 || v->n_own == OWN_MAX) /* forgetting one costs a pull that finds nothing new */
		advance(v, seq == v->seen + 1 ? seq : v->seen);
	else
		v->own[v->n_own++] = seq;
}

static void on_refusal(struct chat *c, json_t *e)
{
	struct pending *p = find_pending(c, text_of(e, "id"));

	say(c, "! refused (%s): %s %s", text_of(e, "code"), text_of(e, "reason"), text_of(e, "fix"));
	if (p)
		forget_pending(c, p);
}

static void on_receipt(struct chat *c, json_t *r)
{
	struct conv *v = get_conv(c, text_of(r, "conv"));

	if (!v)
		return;
	if (number_of(r, "read") > v->read) {
		v->read = number_of(r, "read");
		say(c, "  V read     %s up to #%lld by %s", v->name, (long long)v->read, text_of(r, "user"));
	} else if (number_of(r, "delivered") > v->delivered) {
		v->delivered = number_of(r, "delivered");
		say(c, "  w delivered %s up to #%lld to %s", v->name, (long long)v->delivered, text_of(r, "user"));
	}
}

/* ---------------------------------------------------------------- packets */

static void on_answer(struct chat *c, json_t *answer)
{
	if (!json_is_true(json_object_get(answer, "ok")))
		on_refusal(c, json_object_get(answer, "error"));
	else if (strcmp(text_of(answer, "method"), "conversations") == 0)
		on_conversations(c, answer);
	else if (strcmp(text_of(answer, "method"), "history") == 0)
		on_history(c, answer);
}

static void on_live(struct chat *c, json_t *m)
{
	on_message(c, m, false);
}

static void on_welcome(struct chat *c, json_t *e)
{
	say(c, "* welcome %s on %s", text_of(e, "user"), text_of(e, "device"));
}

static void on_typing(struct chat *c, json_t *e)
{
	say(c, "  %s is typing in %s", text_of(e, "user"), text_of(e, "conv"));
}

void chat_packet(struct chat *c, const char *topic, const void *payload, size_t len)
{
	static const struct {
		const char *prefix;
		void (*on)(struct chat *, json_t *);
	} kinds[] = {
		{"im/v1/in/msg/", on_live}, {"im/v1/in/sent/", on_live}, {"im/v1/in/err", on_refusal}, {"im/v1/in/res/", on_answer},
		{"im/v1/in/evt/receipt", on_receipt}, {"im/v1/in/evt/welcome", on_welcome}, {"im/v1/in/evt/typing", on_typing},
	};
	json_t *root = json_loadb(payload, len, JSON_ALLOW_NUL, NULL), *ack;
	size_t i;

	if (strcmp(topic, "im/v1/in/ack") == 0)
		json_array_foreach(root, i, ack)
			on_ack(c, ack);
	for (i = 0; root && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strncmp(topic, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
			kinds[i].on(c, root);
	json_decref(root); /* what is not known is ignored, as the protocol asks */
}

void chat_flush(struct chat *c)
{
	json_t *acks = json_array(), *one;

	for (size_t i = 0; i < c->n_convs; i++) {
		struct conv *v = c->convs[i];

		if (!v->to_ack || v->seen == 0 || json_array_size(acks) == 256) /* as many as a packet may hold */
			continue;
		one = json_pack("{s:s,s:I}", "conv", v->name, "delivered", v->seen);
		if (strcmp(v->name, c->current) == 0)
			json_object_set_new(one, "read", json_integer(v->seen));
		json_array_append_new(acks, one);
		v->to_ack = false;
	}
	if (json_array_size(acks) > 0)
		(void)publish_json(c, "im/v1/ack", acks); /* if it is lost the messages come again, and so does this */
	else
		json_decref(acks);
}

void chat_connected(struct chat *c)
{
	for (size_t i = 0; i < c->n_convs; i++)
		c->convs[i]->wanted = 0; /* answers of the last connection may be lost */
	(void)request(c, "conversations", json_object());
	for (size_t i = 0; i < c->n_pending; i++)
		send_pending(c, &c->pending[i]); /* the same id: stored once, whatever had arrived */
}

/* ---------------------------------------------------------------- what is typed */

static void choose(struct chat *c, const char *name)
{
	struct conv *v = strncmp(name, "u/", 2) == 0 || strncmp(name, "g/", 2) == 0 ? get_conv(c, name) : NULL;

	if (!v) {
		say(c, "! /to u/NAME or /to g/GROUP");
		return;
	}
	memcpy(c->current, v->name, sizeof(c->current));
	v->to_ack = true; /* it is being read now */
}

bool chat_line(struct chat *c, const char *line)
{
	if (strncmp(line, "/to ", 4) == 0)
		choose(c, line + 4);
	else if (strcmp(line, "/list") == 0)
		(void)request(c, "conversations", json_object());
	else if (strcmp(line, "/history") == 0 && *c->current)
		(void)request(c, "history", json_pack("{s:s,s:b,s:i}", "conv", c->current, "newest_first", 1, "limit", 20));
	else if (strcmp(line, "/quit") == 0)
		return false;
	else if (line[0] == '/')
		say(c, "/to u/NAME | /to g/GROUP   /list   /history   /quit   anything else is sent");
	else if (*line)
		send_text(c, line);
	return true;
}
