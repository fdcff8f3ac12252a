/*
 * One provider's feed: messages in the order of the store, from a position on; for each the recipients' devices with a token
 * of this provider; for each of these, if push_decide says so, a job in the next frame to the bridge.
 *
 * The difficult idea is the position. It may only pass a message when nothing of it is left here: its jobs are in a frame that
 * the bridge has confirmed, its graces are over. So the position that is stored is just below the lowest row of what is sent
 * and not confirmed, gathered, or waiting. What a crash repeats the bridge knows by its key. While the bridge is away, or full,
 * or much waits, the feed reads no further: the messages are in the store, which is the queue.
 */
#include "push_part.h"

#include "base/clock.h"
#include "base/log.h"
#include "io/mqtt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_MOST 20u       /* sent and not confirmed: 5120 jobs, about a megabyte */
#define WAITS_MOST 100000u    /* graces under way: at 4 s 25,000 messages a second to connected devices that acknowledge */
#define READ_MESSAGES 200u    /* of one question to the store */
#define SAVE_MS 1000          /* what a crash may repeat */
#define ANSWER_MS 5000        /* imctl waits so long for a bridge */
#define FRAME_JOBS (sizeof(((struct push_feed *)0)->gathering) / sizeof(Im__Push__Job *))
#define FRAME_ANSWERS (sizeof(((struct push_feed *)0)->answers) / sizeof(Im__Push__Ticket *))

struct push_frame {
	struct push_frame *next;
	uint64_t number, row;         /* row: the lowest in it; 0 = of no message */
	size_t len;
	uint8_t data[];
};

struct push_wait {
	struct push_wait *next;
	uint64_t row;
	int64_t until_ms;
	struct message *message;
	char *user, *device;
};

struct push_query {
	struct push_query *next;
	uint64_t id;
	int64_t until_ms;
	push_answer_fn *done;
	void *arg;
};

/* ---- sending */

static bool publish(struct push_feed *f, const void *data, size_t len)
{
	char topic[sizeof(PUSH_TOPIC) + PUSH_PROVIDER_MAX];

	(void)snprintf(topic, sizeof(topic), PUSH_TOPIC "%s", f->provider);
	return f->push->bus && im_mqtt_publish(f->push->bus, topic, data, len, 1) == IM_OK;
}

static void send_down(struct push_feed *f, const Im__Push__Down *down)
{
	size_t len = im__push__down__get_packed_size(down);
	uint8_t *data = malloc(len + 1);

	if (data) {
		(void)im__push__down__pack(down, data); /* it writes the size it said */
		if (!publish(f, data, len))
			im_log(IM_LOG_INFO, "evt=push_frame provider=%s: no bus, the bridge asks again", f->provider);
	}
	free(data);
}

static void send_hello(struct push_feed *f, const char *to)
{
	Im__Push__Hello h = IM__PUSH__HELLO__INIT;
	Im__Push__Down down = IM__PUSH__DOWN__INIT;

	h.protocol = 1;
	h.provider = f->provider;
	h.version = (char *)IM_VERSION;
	h.start = f->push->start;
	h.to = (char *)(uintptr_t)to;
	down.hello = &h;
	down.heard = f->heard;
	send_down(f, &down);
}

static void free_jobs(struct push_feed *f)
{
	for (size_t i = 0; i < f->n_gathering; i++)
		im__push__job__free_unpacked(f->gathering[i], NULL);
	f->n_gathering = 0;
	f->gathering_row = 0;
}

static void flush_jobs(struct push_feed *f)
{
	Im__Push__Down down = IM__PUSH__DOWN__INIT;
	struct push_frame *frame;
	size_t len;

	if (!f->n_gathering)
		return;
	down.frame = f->frames + 1;
	down.jobs = f->gathering;
	down.n_jobs = f->n_gathering;
	len = im__push__down__get_packed_size(&down);
	frame = malloc(sizeof(*frame) + len);
	if (!frame)
		return; /* tried again at the end of the next turn */
	frame->next = NULL;
	frame->number = ++f->frames;
	frame->row = f->gathering_row;
	frame->len = im__push__down__pack(&down, frame->data);
	*f->last = frame;
	f->last = &frame->next;
	f->n_frames++;
	f->jobs += f->n_gathering;
	free_jobs(f);
	(void)publish(f, frame->data, frame->len); /* it is kept until it is confirmed */
}

bool feed_add(struct push_feed *f, Im__Push__Job *job, uint64_t row)
{
	if (f->n_gathering == FRAME_JOBS)
		flush_jobs(f);
	if (f->n_gathering == FRAME_JOBS) {
		im__push__job__free_unpacked(job, NULL);
		return false;
	}
	if (row && (!f->gathering_row || row < f->gathering_row))
		f->gathering_row = row;
	f->gathering[f->n_gathering++] = job;
	return true;
}

static void flush_answers(struct push_feed *f)
{
	Im__Push__Down down = IM__PUSH__DOWN__INIT;

	if (!f->n_answers)
		return;
	down.tickets = f->answers;
	down.n_tickets = f->n_answers;
	send_down(f, &down);
	for (size_t i = 0; i < f->n_answers; i++) {
		if (f->answers[i]->token) {
			push_token_wipe(f->answers[i]->token);
			f->answers[i]->token = NULL;
		}
		im__push__ticket__free_unpacked(f->answers[i], NULL);
	}
	f->n_answers = 0;
}

void feed_answer(struct push_feed *f, Im__Push__Ticket *t)
{
	f->answers[f->n_answers++] = t;
	if (f->n_answers == FRAME_ANSWERS)
		flush_answers(f);
}

void feed_turn_end(struct push_feed *f)
{
	flush_jobs(f);
	flush_answers(f);
}

/* ---- jobs */

static char *text(const char *s)
{
	return strdup(s);
}

Im__Push__Job *feed_job(const char *key, enum _Im__Push__Kind kind, const struct push_device *d, const char *conv, uint64_t seq)
{
	Im__Push__Job *j = malloc(sizeof(*j));

	if (!j)
		return NULL;
	im__push__job__init(j);
	j->key = text(key);
	j->kind = kind;
	j->user = text(d->stored->user);
	j->device = text(d->stored->device);
	j->app = text(d->stored->app);
	j->conv = text(conv);
	j->seq = seq;
	j->created_ms = im_clock_wall_ms();
	if (j->key && j->user && j->device && j->app && j->conv)
		return j;
	im__push__job__free_unpacked(j, NULL);
	return NULL; /* NOLINT(clang-analyzer-unix.Malloc): it is freed */
}

static bool make_job(struct push_feed *f, const struct push_device *d, const struct message *m, uint64_t row,
		     const struct push_facts *facts, const struct push_verdict *v)
{
	Im__Push__Job *j = feed_job(m->msgid, IM__PUSH__KIND__KIND_MESSAGE, d, m->conv, m->seq);

	if (!j)
		return false;
	j->deadline_ms = facts->deadline_ms;
	j->not_before_ms = v->what == PUSH_HOLD ? v->until_ms : 0;
	j->mention = facts->mentioned;
	return feed_add(f, j, row); /* NOLINT(clang-analyzer-unix.Malloc): it has it */
}

static bool wait_for(struct push_feed *f, const struct push_device *d, struct message *m, uint64_t row, int64_t until_ms)
{
	struct push_wait *w = calloc(1, sizeof(*w));

	if (w) {
		w->user = text(d->stored->user);
		w->device = text(d->stored->device);
	}
	if (!w || !w->user || !w->device) {
		if (w) {
			free(w->user);
			free(w->device);
		}
		free(w);
		return false;
	}
	w->row = row;
	w->until_ms = until_ms;
	w->message = message_ref(m);
	*f->waits_last = w;
	f->waits_last = &w->next;
	f->n_waits++;
	return true;
}

static void count(struct push_feed *f, const char *reason)
{
	size_t i = 0;

	while (i < f->n_decided && strcmp(f->decided[i].reason, reason) != 0)
		i++;
	if (i == PUSH_REASONS)
		return;
	if (i == f->n_decided)
		f->decided[f->n_decided++].reason = reason;
	f->decided[i].n++;
}

/* false: out of memory, nothing was done. waited: its grace is over, whatever the clock says. */
static bool consider(struct push_feed *f, const struct push_device *d, struct message *m, uint64_t row, bool waited)
{
	struct push_facts facts;
	struct push_verdict v;

	push_gather(f->push, d, m, &facts);
	if (waited)
		facts.grace_ms = 0;
	v = push_decide(&facts);
	count(f, v.reason);
	switch (v.what) {
	case PUSH_WAIT:
		return wait_for(f, d, m, row, v.until_ms);
	case PUSH_SEND:
	case PUSH_HOLD:
		return make_job(f, d, m, row, &facts, &v);
	default:
		if (!roster_user(f->push->roster, d->stored->user))
			(void)push_registry_remove(f->push->registry, d->stored->user, NULL, NULL, NULL, NULL); /* a removed user's */
		im_log(IM_LOG_DEBUG, "evt=push_not provider=%s device=%s msgid=%s reason=%s", f->provider, d->stored->device, m->msgid, v.reason);
		return true;
	}
}

struct recipients {
	struct push_feed *f;
	struct message *message;
	uint64_t row;
	bool failed;
};

static void consider_user(struct recipients *r, const char *user)
{
	if (strcmp(user, r->message->from) == 0)
		return;
	for (const struct push_device *d = push_registry_of_user(r->f->push->registry, user); d; d = d->next)
		if (strcmp(d->stored->provider, r->f->provider) == 0 && !consider(r->f, d, r->message, r->row, false))
			r->failed = true;
}

static void on_member(void *arg, const char *user, const struct roster_stay *stay)
{
	(void)stay;
	consider_user(arg, user);
}

static bool consider_message(struct push_feed *f, struct message *m, uint64_t row)
{
	struct recipients r = { f, m, row, false };
	char peer[IM_NAME_MAX + 1];

	if (m->from[0] == '\0')
		return true;
	if (im_conv_is_group(m->conv))
		roster_each_member(f->push->roster, m->conv + 2, on_member, &r);
	else if (im_conv_peer(m->conv, m->from, peer))
		consider_user(&r, peer);
	return !r.failed;
}

/* ---- reading */

static void on_row(void *arg, uint64_t row, struct message *m)
{
	struct push_feed *f = arg;

	if (f->push->stopped || f->failed || row <= f->row)
		return;
	if (f->placed && !consider_message(f, m, row)) {
		f->failed = true; /* out of memory: the message is read again; what was made of it is known by its key */
		return;
	}
	f->row = row;
	f->came = true;
}

static void read_on(struct push_feed *f);

static void on_read(void *arg, enum im_status st)
{
	struct push_feed *f = arg;

	f->reading = false;
	if (f->push->stopped)
		return;
	if (st != IM_OK)
		f->failed = true; /* logged by the store; again at the next tick */
	if (st == IM_OK && !f->placed) {
		f->placed = true; /* and soon stored: from here on nothing is forgotten */
		return;
	}
	if (f->came && !f->failed)
		read_on(f);
}

bool feed_has_room(const struct push_feed *f)
{
	return f->up && !f->full && f->n_frames < FRAMES_MOST;
}

bool feed_confirmed(const struct push_feed *f, uint64_t frame)
{
	return f->frames >= frame && (!f->first || f->first->number > frame);
}

/* A feed that was never here begins with what is new: nobody wants to be woken for last month. */
static void read_on(struct push_feed *f)
{
	if (f->reading || f->push->stopped || (f->placed && !(feed_has_room(f) && f->n_waits < WAITS_MOST)))
		return;
	f->reading = true;
	f->came = f->failed = false;
	store_stream(f->push->store, f->placed ? f->row : STORE_STREAM_END, READ_MESSAGES, on_row, on_read, f);
}

/* ---- the position */

static uint64_t settled_row(const struct push_feed *f)
{
	uint64_t row = f->row + 1;

	if (f->n_gathering && f->gathering_row && f->gathering_row < row)
		row = f->gathering_row;
	for (const struct push_frame *x = f->first; x; x = x->next)
		if (x->row && x->row < row)
			row = x->row;
	if (f->waits && f->waits->row < row)
		row = f->waits->row;
	return row - 1;
}

static void on_saved(void *arg, enum im_status st)
{
	(void)arg;
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=push_position status=%s then=\"after a restart more is made twice, and known by its key\"", im_status_name(st));
}

static void save(struct push_feed *f, int64_t now)
{
	uint64_t row = f->placed ? settled_row(f) : 0;
	Im__Bus__PushPosition at = IM__BUS__PUSH_POSITION__INIT;
	Im__Bus__StoredPush p = IM__BUS__STORED_PUSH__INIT;
	struct store_entry e = { .kind = STORE_PUSH, .push = &p };
	char key[2 + PUSH_PROVIDER_MAX + 1];

	if (!f->placed || row == f->saved || now - f->saved_ms < SAVE_MS)
		return;
	(void)snprintf(key, sizeof(key), "p/%s", f->provider);
	at.store = (char *)(uintptr_t)store_start(f->push->store)->epoch;
	at.row = row;
	p.key = key;
	p.position = &at;
	f->saved = row;
	f->saved_ms = now;
	store_append(f->push->store, &e, 1, on_saved, NULL);
}

void feed_row(struct push_feed *f, const Im__Bus__PushPosition *at)
{
	if (strcmp(at->store, store_start(f->push->store)->epoch) != 0) {
		im_log(IM_LOG_NOTICE, "evt=push_position provider=%s why=\"the store is a restored one\" then=\"only what is new is pushed\"", f->provider);
		return;
	}
	f->row = f->saved = at->row;
	f->placed = true;
}

/* ---- graces */

static void wait_free(struct push_wait *w)
{
	message_unref(w->message);
	free(w->user);
	free(w->device);
	free(w);
}

static void run_waits(struct push_feed *f)
{
	int64_t now = im_clock_wall_ms();
	struct push_wait *w;

	while ((w = f->waits) && (w->until_ms <= now || w->until_ms > now + PUSH_CLOCK_MS)) { /* far ahead: the clock was set back */
		const struct push_device *d = push_registry_find(f->push->registry, w->user, w->device, f->provider);

		if (d && !consider(f, d, w->message, w->row, true)) {
			im_log(IM_LOG_WARNING, "evt=push_wait device=%s msgid=%s why=\"out of memory\": tried again", w->device, w->message->msgid);
			return; /* it stays the first, and holds the position */
		}
		f->waits = w->next;
		if (!f->waits)
			f->waits_last = &f->waits;
		f->n_waits--;
		wait_free(w);
	}
}

/* ---- the bridge */

static void confirm(struct push_feed *f, uint64_t number)
{
	struct push_frame *x;

	while ((x = f->first) && x->number <= number) {
		f->first = x->next;
		if (!f->first)
			f->last = &f->first;
		f->n_frames--;
		free(x);
	}
}

static void on_hello(struct push_feed *f, const Im__Push__Hello *h)
{
	if (h->protocol != 1) {
		im_log(IM_LOG_ERROR, "evt=push_bridge provider=%s version=%s protocol=%u why=\"not a protocol of this release\"", f->provider,
		       h->version, h->protocol);
		return;
	}
	im_log(IM_LOG_NOTICE, "evt=push_bridge provider=%s version=%s state=up", f->provider, h->version);
	f->up = true;
	f->full = false;
	if (h->to[0] == '\0')
		send_hello(f, h->start);
	for (const struct push_frame *x = f->first; x; x = x->next)
		(void)publish(f, x->data, x->len); /* what does not leave is sent at the next hello */
}

static void on_answer(struct push_feed *f, const Im__Push__Answer *a)
{
	struct push_query **link = &f->asked, *q;

	while ((q = *link) && q->id != a->id)
		link = &q->next;
	if (!q)
		return;
	*link = q->next;
	q->done(q->arg, a->json);
	free(q);
}

struct verdicts {
	struct push_feed *f;
	uint64_t said;
};

static void on_verdicts(void *arg, enum im_status st)
{
	struct verdicts v = *(struct verdicts *)arg;
	Im__Push__Down down = IM__PUSH__DOWN__INIT;

	free(arg);
	if (st != IM_OK || v.f->push->stopped)
		return; /* the bridge says it again */
	v.f->heard = down.heard = v.said;
	send_down(v.f, &down);
}

/* Appends are answered in order: when an empty one behind them is, the verdicts are durable. */
static void hear(struct push_feed *f, const Im__Push__Up *up)
{
	struct store_entry nothing = { .kind = STORE_POSITION };
	struct verdicts *v = malloc(sizeof(*v));

	for (size_t i = 0; i < up->n_verdicts; i++)
		push_registry_heard(f->push->registry, f->provider, up->verdicts[i]);
	if (!v)
		return; /* the bridge says it again */
	*v = (struct verdicts){ f, up->said };
	store_append(f->push->store, &nothing, 1, on_verdicts, v);
}

void feed_up(struct push_feed *f, const Im__Push__Up *up)
{
	if (up->hello)
		on_hello(f, up->hello);
	if (!f->up) {
		send_hello(f, ""); /* it spoke before it heard that we are new: it says hello again */
		return;
	}
	f->full = up->full;
	if (strcmp(up->of, f->push->start) == 0)
		confirm(f, up->stored);
	if (up->n_verdicts)
		hear(f, up);
	for (size_t i = 0; i < up->n_asks; i++)
		ticket_ask(f, up->asks[i]);
	for (size_t i = 0; i < up->n_answers; i++)
		on_answer(f, up->answers[i]);
	read_on(f);
}

void feed_bus(struct push_feed *f)
{
	f->up = false; /* until it says hello */
	if (f->push->bus)
		send_hello(f, "");
}

void feed_query(struct push_feed *f, const char *json, push_answer_fn *done, void *arg)
{
	Im__Push__Query q = IM__PUSH__QUERY__INIT, *list[] = { &q };
	Im__Push__Down down = IM__PUSH__DOWN__INIT;
	struct push_query *asked = f->up ? calloc(1, sizeof(*asked)) : NULL;

	if (!asked) {
		done(arg, NULL);
		return;
	}
	asked->id = q.id = ++f->push->queries;
	asked->until_ms = im_clock_mono_ms() + ANSWER_MS;
	asked->done = done;
	asked->arg = arg;
	asked->next = f->asked;
	f->asked = asked;
	q.json = (char *)(uintptr_t)json;
	down.queries = list;
	down.n_queries = 1;
	send_down(f, &down);
}

static void end_queries(struct push_feed *f, int64_t now)
{
	struct push_query **link = &f->asked, *q;

	while ((q = *link)) {
		if (q->until_ms > now) {
			link = &q->next;
			continue;
		}
		*link = q->next;
		q->done(q->arg, NULL);
		free(q);
		link = &f->asked; /* the answer may have asked again */
	}
}

void feed_tick(struct push_feed *f)
{
	int64_t now = im_clock_mono_ms();

	run_waits(f);
	read_on(f);
	save(f, now);
	end_queries(f, now);
}

/* ---- making */

struct push_feed *feed_create(struct push *p, const char *provider, size_t len)
{
	struct push_feed *f = len < PUSH_PROVIDER_MAX ? calloc(1, sizeof(*f)) : NULL;

	if (!f)
		return NULL;
	f->push = p;
	memcpy(f->provider, provider, len);
	f->saved = UINT64_MAX;
	f->last = &f->first;
	f->waits_last = &f->waits;
	f->next = p->feeds;
	p->feeds = f;
	return f;
}

void feed_destroy(struct push_feed *f)
{
	struct push_wait *w;

	end_queries(f, INT64_MAX);
	confirm(f, UINT64_MAX);
	while ((w = f->waits)) {
		f->waits = w->next;
		wait_free(w);
	}
	free_jobs(f);
	for (size_t i = 0; i < f->n_answers; i++)
		im__push__ticket__free_unpacked(f->answers[i], NULL);
	free(f);
}
