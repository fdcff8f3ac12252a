/*
 * Tickets: a bridge is about to send and asks whether that is still right, to whom, and what it says. All of it is looked up
 * at this moment: the user's conversations (for read cursors and the badge), the device's cursor, the message, then the
 * conversations with something unread, one after another.
 */
#include "push_part.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICKETS_MOST 4096u   /* under way; a bridge asks for a few hundred at a time */
#define BADGE_MOST 100u      /* "99+" */
#define BADGE_CONVS 50u      /* conversations counted for it */
#define BODY_MOST 1000u      /* bytes of text: more than any provider takes beside the rest */

struct unread_row {
	uint64_t read;
	char conv[IM_CONV_MAX];
};

struct push_ticket {
	struct push_ticket *prev, *next;
	struct push *push;           /* NULL: push is gone */
	struct push_feed *feed;
	Im__Push__Job *job;
	uint64_t id;
	push_why_fn *why;            /* imctl asks, not a bridge */
	void *why_arg;
	struct push_facts facts;
	struct message *message;
	uint64_t delivered, read;    /* of the device, of the user, in the conversation */
	int64_t seen_ms;
	struct unread_row rows[BADGE_CONVS];
	size_t n_rows, at;
	unsigned badge, unread;
};

static void ticket_free(struct push_ticket *t)
{
	if (t->push) {
		*(t->prev ? &t->prev->next : &t->push->tickets) = t->next;
		if (t->next)
			t->next->prev = t->prev;
		t->push->n_tickets--;
	}
	message_unref(t->message);
	im__push__job__free_unpacked(t->job, NULL);
	free(t);
}

/* ---- answering */

static void set(char **field, const char *value)
{
	char *copy = value && value[0] ? strdup(value) : NULL;

	if (copy)
		*field = copy;
}

static Im__Push__Ticket *answer_create(const struct push_ticket *t, enum _Im__Push__Verdict verdict, const char *reason, int64_t until_ms)
{
	Im__Push__Ticket *a = malloc(sizeof(*a));

	if (!a)
		return NULL;
	im__push__ticket__init(a);
	a->id = t->id;
	a->verdict = verdict;
	a->hold_until_ms = until_ms;
	set(&a->reason, reason);
	return a;
}

static void say_no(struct push_ticket *t, enum _Im__Push__Verdict verdict, const char *reason, int64_t until_ms)
{
	Im__Push__Ticket *a;

	if (t->why) {
		t->why(t->why_arg, IM_OK, reason, until_ms);
	} else {
		a = answer_create(t, verdict, reason, until_ms);
		if (a)
			feed_answer(t->feed, a); /* else the bridge asks again */
	}
	ticket_free(t);
}

static const char *const privacies[] = { "none", "sender", "content" };

static unsigned privacy_of(const struct push *p, const struct push_device *d)
{
	unsigned most = (unsigned)p->settings->push_privacy;

	assert(most < sizeof(privacies) / sizeof(privacies[0]));
	for (unsigned i = 0; i < most; i++)
		if (strcmp(d->stored->privacy, privacies[i]) == 0)
			return i;
	return most;
}

/* The text of a message, cut at a character; empty if it has none to show. */
static void set_body(char **field, const struct message *m)
{
	const char *text = m->alt;
	size_t len = strlen(m->alt);
	char *copy;

	if (m->enc == IM__V1__ENC__ENC_TEXT && strcmp(m->type, "text") == 0) {
		text = (const char *)m->body;
		len = m->body_len;
	}
	if (len > BODY_MOST) {
		len = BODY_MOST;
		while (len && ((unsigned char)text[len] & 0xc0) == 0x80)
			len--;
	}
	copy = len ? strndup(text, len) : NULL;
	if (copy)
		*field = copy;
}

static void set_text(const struct push_ticket *t, const struct push_device *d, Im__Push__Ticket *a)
{
	const struct roster *roster = t->push->roster;
	const struct message *m = t->message;
	const struct roster_user *from = roster_user(roster, m->from);
	const struct roster_group *g = im_conv_is_group(m->conv) ? roster_group(roster, m->conv + 2) : NULL;
	const char *name = from && from->title[0] ? from->title : m->from;
	unsigned privacy = privacy_of(t->push, d);
	char face[IM_CONV_MAX];

	set(&a->privacy, privacies[privacy]);
	if (im_conv_as_seen(m->conv, t->job->user, face) && privacy > IM_PUSH_NONE)
		set(&a->conv, face);
	a->seq = m->seq;
	set(&a->msgid, m->msgid);
	a->ts = m->ts;
	if (privacy == IM_PUSH_NONE)
		return;
	set(&a->from, m->from);
	set(&a->type, m->type);
	set(&a->title, g ? (g->title[0] ? g->title : g->name) : name);
	if (g)
		set(&a->subtitle, name);
	if (privacy == IM_PUSH_CONTENT)
		set_body(&a->body, m);
}

static void say_yes(struct push_ticket *t, struct push_device *d)
{
	Im__Push__Ticket *a = answer_create(t, IM__PUSH__VERDICT__VERDICT_SEND, "send", 0);

	if (a && !(a->token = push_registry_open_token(t->push->registry, d))) {
		im__push__ticket__free_unpacked(a, NULL);
		push_registry_spoil(t->push->registry, d, "unreadable"); /* store.key is another: the device hears that it must register anew */
		say_no(t, IM__PUSH__VERDICT__VERDICT_CANCEL, "token_unreadable", 0);
		return;
	}
	if (a) {
		if (d->stored->env[0] && strcmp(a->token->env, d->stored->env) != 0) { /* found out since */
			if (a->token->env[0])
				free(a->token->env);
			a->token->env = (char *)protobuf_c_empty_string;
			set(&a->token->env, d->stored->env);
		}
		set(&a->language, d->stored->language);
		if (t->message)
			set_text(t, d, a);
		a->unread = t->unread;
		a->badge = t->badge;
		a->has_badge = t->job->kind != IM__PUSH__KIND__KIND_TEST;
		if (a->has_badge)
			d->shown = (int)t->badge;
		feed_answer(t->feed, a);
	}
	ticket_free(t); /* out of memory: the bridge asks again */
}

/* A device that gave no sign of life since it registered was seen then. */
static int64_t seen_ms(const struct push_ticket *t, const struct push_device *d)
{
	return t->seen_ms > d->stored->registered_ms ? t->seen_ms : d->stored->registered_ms;
}

static struct push_verdict decide_badge(const struct push_ticket *t, const struct push_device *d)
{
	struct push_badge_facts facts;

	icon_gather(t->push, d, &facts);
	facts.seen_ms = seen_ms(t, d);
	facts.badge = (int)t->badge;
	return push_decide_badge(&facts);
}

static void decide(struct push_ticket *t)
{
	struct push_device *d = push_registry_find(t->push->registry, t->job->user, t->job->device, t->feed->provider);
	struct push_verdict v = { PUSH_SEND, 0, "send" };

	if (!d) {
		say_no(t, IM__PUSH__VERDICT__VERDICT_CANCEL, "no_token", 0);
		return;
	}
	if (t->message) {
		push_gather(t->push, d, t->message, &t->facts);
		t->facts.got |= t->delivered >= t->message->seq;
		t->facts.read = t->read >= t->message->seq;
		t->facts.seen_ms = seen_ms(t, d);
		v = push_decide(&t->facts);
	}
	if (t->job->kind == IM__PUSH__KIND__KIND_BADGE)
		v = decide_badge(t, d);
	if (t->why)
		say_no(t, IM__PUSH__VERDICT__VERDICT_CANCEL, v.reason, v.until_ms);
	else if (v.what == PUSH_SEND)
		say_yes(t, d);
	else
		say_no(t, v.what == PUSH_DROP ? IM__PUSH__VERDICT__VERDICT_CANCEL : IM__PUSH__VERDICT__VERDICT_HOLD, v.reason, v.until_ms);
}

/* ---- asking the store; false in a callback: it ended here */

static bool step(struct push_ticket *t, enum im_status st)
{
	if (t->push && st == IM_OK)
		return true;
	if (t->push && t->why)
		t->why(t->why_arg, st, "not_read", 0);
	ticket_free(t); /* the bridge asks again */
	return false;
}

static void count_next(struct push_ticket *t);

static void on_unread(void *arg, enum im_status st, unsigned n)
{
	struct push_ticket *t = arg;

	if (!step(t, st))
		return;
	t->badge += n;
	if (strcmp(t->rows[t->at - 1].conv, t->job->conv) == 0)
		t->unread = n;
	count_next(t);
}

/* The conversation itself stands first. */
static void count_next(struct push_ticket *t)
{
	if (t->at < t->n_rows && t->badge < BADGE_MOST) {
		const struct unread_row *r = &t->rows[t->at++];

		store_unread(t->push->store, t->job->user, r->conv, r->read, on_unread, t);
		return;
	}
	if (t->badge > BADGE_MOST)
		t->badge = BADGE_MOST;
	decide(t);
}

static void on_message(void *arg, struct message *m)
{
	struct push_ticket *t = arg;

	if (!t->message && m->seq == t->job->seq)
		t->message = message_ref(m);
}

static void on_messages(void *arg, enum im_status st)
{
	struct push_ticket *t = arg;

	if (!step(t, st))
		return;
	if (!t->message)
		say_no(t, IM__PUSH__VERDICT__VERDICT_CANCEL, "no_message", 0);
	else if (t->why || t->read >= t->job->seq || t->delivered >= t->job->seq)
		decide(t); /* nothing to count for */
	else
		count_next(t);
}

static void ask_message(struct push_ticket *t)
{
	struct store_range one = { .conv = t->job->conv, .from = t->job->seq, .to = t->job->seq, .limit = 1 };

	if (t->job->kind == IM__PUSH__KIND__KIND_MESSAGE)
		store_history(t->push->store, &one, on_message, on_messages, t);
	else
		count_next(t);
}

static void on_device(void *arg, const struct store_device *d)
{
	struct push_ticket *t = arg;

	t->seen_ms = d->seen_ms;
}

static void on_cursor(void *arg, const struct store_cursor *c)
{
	struct push_ticket *t = arg;

	if (strcmp(c->conv, t->job->conv) == 0)
		t->delivered = c->delivered;
}

static void on_refusal(void *arg, const Im__Bus__StoredRefusal *r)
{
	(void)arg; /* not asked for here */
	(void)r;
}

static void on_device_read(void *arg, enum im_status st)
{
	struct push_ticket *t = arg;

	if (!step(t, st))
		return;
	ask_message(t);
}

static void on_conversation(void *arg, const struct store_conversation *c)
{
	struct push_ticket *t = arg;
	struct unread_row r = { .read = c->read };
	const struct roster_stay *stays;
	bool this = strcmp(c->conv, t->job->conv) == 0;
	size_t n;

	if (!t->push)
		return;
	if (this)
		t->read = c->read;
	if (c->last_seq <= c->read || (t->n_rows == BADGE_CONVS && !this))
		return;
	(void)snprintf(r.conv, sizeof(r.conv), "%s", c->conv);
	if (im_conv_is_group(c->conv)) {
		n = roster_stays(t->push->roster, c->conv + 2, t->job->user, &stays);
		if (n == 0 || stays[n - 1].to_seq != 0)
			return; /* not a member: nothing of it counts */
		if (r.read + 1 < stays[n - 1].from_seq)
			r.read = stays[n - 1].from_seq - 1;
	}
	if (t->n_rows < BADGE_CONVS)
		t->n_rows++;
	t->rows[t->n_rows - 1] = r;
	if (this && t->n_rows > 1) {
		t->rows[t->n_rows - 1] = t->rows[0];
		t->rows[0] = r;
	}
}

static void on_conversations(void *arg, enum im_status st)
{
	struct push_ticket *t = arg;

	if (step(t, st))
		store_device(t->push->store, t->job->user, t->job->device, on_device, on_cursor, on_refusal, on_device_read, t);
}

/* ---- beginning. Takes job over. NULL: out of memory, or too many under way. */

static struct push_ticket *ticket_create(struct push *p, struct push_feed *f, Im__Push__Job *job)
{
	struct push_ticket *t = job && p->n_tickets < TICKETS_MOST ? calloc(1, sizeof(*t)) : NULL;

	if (!t) {
		im__push__job__free_unpacked(job, NULL);
		return NULL;
	}
	t->push = p;
	t->feed = f;
	t->job = job;
	t->next = p->tickets;
	if (t->next)
		t->next->prev = t;
	p->tickets = t;
	p->n_tickets++;
	return t;
}

static Im__Push__Job *copy_of(const Im__Push__Job *j)
{
	size_t len = im__push__job__get_packed_size(j);
	uint8_t *data = malloc(len + 1);
	Im__Push__Job *copy = NULL;

	if (data) {
		(void)im__push__job__pack(j, data); /* it writes the size it said */
		copy = im__push__job__unpack(NULL, len, data);
	}
	free(data);
	return copy;
}

void ticket_ask(struct push_feed *f, const Im__Push__Ask *ask)
{
	struct push_ticket *t = ask->job ? ticket_create(f->push, f, copy_of(ask->job)) : NULL;

	if (!t)
		return; /* the bridge asks again */
	t->id = ask->id;
	store_conversations(f->push->store, t->job->user, on_conversation, on_conversations, t);
}

void ticket_why(struct push *p, const struct push_device *d, const char *conv, uint64_t seq, push_why_fn *done, void *arg)
{
	struct push_feed *f = push_feed_of(p, d->stored->provider, strlen(d->stored->provider));
	struct push_ticket *t = f ? ticket_create(p, f, feed_job("why", IM__PUSH__KIND__KIND_MESSAGE, d, conv, seq)) : NULL;

	if (!t) {
		done(arg, f ? IM_BUSY : IM_NOT_FOUND, f ? "busy" : "provider_off", 0);
		return;
	}
	t->why = done;
	t->why_arg = arg;
	store_conversations(p->store, t->job->user, on_conversation, on_conversations, t);
}

void ticket_finish(struct push *p)
{
	struct push_ticket *t, *next;

	for (t = p->tickets; t; t = next) {
		next = t->next;
		t->push = NULL;
		t->prev = t->next = NULL;
	}
	p->tickets = NULL;
	p->n_tickets = 0;
}
