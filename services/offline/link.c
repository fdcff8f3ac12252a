/*
 * The message service's end of the bus (docs/bus.md).
 *
 * Deliveries are packed into the frame under construction as they come: protobuf lets the fields of a
 * message stand in any order and pieces, so a frame is the deliveries' bytes behind a head packed last.
 * Frames beyond what the plugin may hold wait here in order; the inbox takes no more input meanwhile, so
 * what waits is bounded by what one sync brought.
 *
 * A frame is also a question whether the plugin lives, and its out_done the answer: behind everything the plugin had
 * to tell when it worked the frame off, so whoever left before the frame was made is known when the answer is read.
 * While somebody waits for such proof an empty frame a second is made if there is no other. A silence between answers
 * is noticed by the next one, whoever it was that stood still.
 */
#include "link.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"
#include "pack.h"
#include "roster_feed.h"
#include "waiter.h"
#include <stdlib.h>
#include <string.h>

#ifndef LINK_FRAME /* tests/sim */
#define LINK_FRAME (256u << 10)     /* a frame leaves when it has grown to this; one delivery may exceed it */
#endif
#define LINK_ANSWER_MS 5000         /* patience with a plugin that does not answer */
#ifndef LINK_MARKS /* tests/sim */
#define LINK_MARKS 4096             /* journal epochs of a node that can matter at once: each start of the broker makes one */
#endif
#define LINK_PROTOCOL 1
#define LINK_PACKET_COST 1024u       /* what a packet costs the broker beyond topic and payload, as the plugin counts (plugin/frame.h) */
#define LINK_LATE_MS 1000           /* a plugin that works frames off later than this is not serving its clients */
#define LINK_TIMER_MS 250
#ifndef LINK_ASK_MS /* tests/sim */
#define LINK_ASK_MS 1000            /* so often the plugin is asked for a sign of life, if somebody wants to know */
/*
 * A longer silence than this has been a standstill. A settle period has 5 s over the broker's own patience with a client
 * (1.5 x keepalive); the broker's clock of whole seconds takes one of them, so a shorter standstill is within it.
 */
#define LINK_SILENCE_MS 3000
#endif

/* A frame that has been sent and not expanded, or waits to be sent. */
struct frame {
	struct frame *next;
	uint64_t out_seq;
	size_t weight;   /* bytes of packets it becomes */
	int64_t made_ms;
	char *data;      /* NULL once sent */
	size_t len;
};

struct link {
	struct im_loop *loop;
	struct im_timer *timer;
	struct im_mqtt *bus;
	unsigned node;
	const struct roster *roster;
	const char *store_epoch;
	const struct link_events *events;
	link_marks_fn *marks;
	void *arg;
	bool hello_done;
	struct im_buf deliveries;   /* packed ToPlugin fields */
	size_t weight;              /* of `deliveries` */
	uint64_t out_seq;
	struct frame *first, *last; /* sent ones first, then waiting ones */
	size_t pending;             /* weight of both and of `deliveries` */
	size_t sent;                /* weight of those sent */
	int64_t made_ms;            /* the newest frame */
	int64_t proven_ms;          /* the newest frame that is worked off was made then: who had left by then is known */
	int64_t wanted_ms;          /* somebody waits for proof of this moment */
	int64_t late_ms;            /* when something was last seen to have stood still; 0 = never */
	bool has_confirm;
	Im__Bus__Confirm confirm;
	struct waiter *roster_waiters, *queries;
	uint64_t roster_version;    /* in force at the plugin */
	uint64_t query_id;
};

static void on_timer(void *arg);
static void ask(struct link *l);

enum im_status link_create(struct im_loop *loop, unsigned node, const struct roster *roster, const char *store_epoch,
			   const struct link_events *events, link_marks_fn *marks, void *arg, struct link **out, struct im_err *err)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l)
		return im_fail(err, IM_FAILED, "out of memory");
	l->timer = im_timer_create(loop, on_timer, l);
	if (!l->timer) {
		free(l);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	l->loop = loop;
	l->node = node;
	l->roster = roster;
	l->store_epoch = store_epoch;
	l->events = events;
	l->marks = marks;
	l->arg = arg;
	im_buf_init(&l->deliveries);
	im__bus__confirm__init(&l->confirm);
	*out = l;
	return IM_OK;
}

static void frames_drop(struct link *l)
{
	while (l->first) {
		struct frame *f = l->first;

		l->first = f->next;
		free(f->data);
		free(f);
	}
	l->last = NULL;
	im_buf_clear(&l->deliveries);
	l->weight = l->pending = l->sent = 0;
	l->has_confirm = false;
	l->wanted_ms = 0; /* nobody is connected until named again */
}

void link_destroy(struct link *l)
{
	if (!l)
		return;
	frames_drop(l);
	waiters_answer(&l->roster_waiters, UINT64_MAX, false, IM_BUSY, NULL);
	waiters_answer(&l->queries, UINT64_MAX, false, IM_BUSY, NULL);
	im_timer_destroy(l->timer);
	im_buf_finish(&l->deliveries);
	free(l);
}

static bool proof_wanted(const struct link *l)
{
	return l->hello_done && l->proven_ms < l->wanted_ms;
}

static void on_timer(void *arg)
{
	struct link *l = arg;
	int64_t now = im_clock_mono_ms();

	waiters_expire(&l->roster_waiters, now, false);
	waiters_expire(&l->queries, now, true);
	if (proof_wanted(l))
		ask(l);
	if (!l->roster_waiters && !l->queries && !proof_wanted(l))
		im_timer_stop(l->timer);
}

/* True: it is answered, in LINK_ANSWER_MS at the latest. */
static bool wait_for(struct link *l, struct waiter **list, uint64_t key, link_done_fn *done, link_answer_fn *answer, void *arg)
{
	if (!waiter_add(list, key, im_clock_mono_ms() + LINK_ANSWER_MS, done, answer, arg))
		return false;
	im_timer_start(l->timer, LINK_TIMER_MS, LINK_TIMER_MS);
	return true;
}

/* ---------------------------------------------------------------- frames out */

static void publish(void *arg, const void *data, size_t len)
{
	struct link *l = arg;

	if (l->bus)
		(void)im_mqtt_publish(l->bus, "$im/out", data, len, 0); /* not up: the next hello starts afresh */
	IM_KILLPOINT("delivery.after_send");
}

static void publish_parts(struct link *l, const Im__Bus__ToPlugin *parts)
{
	size_t len = im__bus__to_plugin__get_packed_size(parts);
	uint8_t *data = malloc(len ? len : 1);

	if (!data)
		return;
	im__bus__to_plugin__pack(parts, data);
	publish(l, data, len);
	free(data);
}

static void send_waiting(struct link *l)
{
	for (struct frame *f = l->first; f; f = f->next) {
		if (!f->data)
			continue;
		if (l->sent > 0 && l->sent + f->weight > LINK_WINDOW)
			return;
		publish(l, f->data, f->len);
		l->sent += f->weight;
		free(f->data);
		f->data = NULL;
	}
}

/* Of what was gathered; of nothing, it is only a question. */
static struct frame *frame_create(struct link *l)
{
	Im__Bus__ToPlugin head = IM__BUS__TO_PLUGIN__INIT;
	struct frame *f = calloc(1, sizeof(*f));
	uint8_t front[32];
	size_t n;

	head.out_seq = l->out_seq + 1;
	n = im__bus__to_plugin__pack(&head, front);
	if (f)
		f->data = malloc(n + l->deliveries.len);
	if (!f || !f->data) {
		free(f);
		return NULL;
	}
	memcpy(f->data, front, n);
	if (l->deliveries.len > 0)
		memcpy(f->data + n, l->deliveries.data, l->deliveries.len);
	f->len = n + l->deliveries.len;
	f->weight = l->weight;
	f->out_seq = ++l->out_seq;
	f->made_ms = l->made_ms = im_loop_now_ms(l->loop);
	return f;
}

static bool frame_make(struct link *l)
{
	struct frame *f = frame_create(l);

	if (!f)
		return false;
	if (l->last)
		l->last->next = f;
	else
		l->first = f;
	l->last = f;
	l->weight = 0;
	im_buf_clear(&l->deliveries);
	return true;
}

/* Closes the frame under construction. */
static void frame_close(struct link *l)
{
	if (l->deliveries.len == 0 && !l->deliveries.failed)
		return;
	/* Cursors count them as handed: only connections that begin again bring them back. */
	if (l->deliveries.failed || !frame_make(l))
		l->events->failed(l->arg, "out of memory: deliveries were lost on their way to the plugin");
}

/* Of what is under way the answer comes anyway. When what is wanted has come the last one need not be waited for. */
static void ask(struct link *l)
{
	int64_t now = im_loop_now_ms(l->loop);
	bool last = now >= l->wanted_ms && l->made_ms < l->wanted_ms;

	if (l->first || l->deliveries.len > 0 || (!last && now - l->made_ms < LINK_ASK_MS))
		return;
	if (frame_make(l)) /* else it is tried again */
		send_waiting(l);
}

void link_flush(struct link *l)
{
	if (!l->hello_done)
		return;
	if (l->has_confirm) {
		Im__Bus__ToPlugin parts = IM__BUS__TO_PLUGIN__INIT;

		parts.confirm = &l->confirm;
		publish_parts(l, &parts);
		l->has_confirm = false;
	}
	frame_close(l);
	send_waiting(l);
}

void link_deliver(struct link *l, const char *topic, size_t topic_len, const void *payload, size_t len,
		  const Im__Bus__Properties *props, const uint64_t *qos1, size_t n_qos1, const uint64_t *qos0, size_t n_qos0)
{
	Im__Bus__Delivery d = IM__BUS__DELIVERY__INIT;
	size_t weight = (len + topic_len + LINK_PACKET_COST) * (n_qos1 + n_qos0);
	char text[IM_TOPIC_MAX + 1];

	if (!l->hello_done || weight == 0 || topic_len > IM_TOPIC_MAX)
		return;
	memcpy(text, topic, topic_len);
	text[topic_len] = '\0';
	d.topic = text;
	d.payload.data = (uint8_t *)payload; /* only read by the packer */
	d.payload.len = len;
	d.properties = (Im__Bus__Properties *)props;
	d.qos1 = (uint64_t *)qos1;
	d.n_qos1 = n_qos1;
	d.qos0 = (uint64_t *)qos0;
	d.n_qos0 = n_qos0;
	if (l->deliveries.len > 0 && l->deliveries.len + len > LINK_FRAME)
		frame_close(l);
	pack_message(&l->deliveries, 4, &d.base);
	l->weight += weight;
	l->pending += weight;
}

size_t link_pending(const struct link *l)
{
	return l->pending;
}

bool link_has_plugin(const struct link *l)
{
	return l->hello_done;
}

void link_confirm(struct link *l, uint64_t epoch, uint64_t next)
{
	if (l->has_confirm && l->confirm.epoch != epoch)
		link_flush(l);
	l->confirm.epoch = epoch;
	l->confirm.offset = next;
	l->has_confirm = true;
}

void link_kick(struct link *l, uint64_t session, const char *reason)
{
	Im__Bus__ToPlugin parts = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Kick kick = IM__BUS__KICK__INIT, *list = &kick;

	if (!l->hello_done)
		return;
	kick.session = session;
	kick.reason = (char *)reason;
	parts.kicks = &list;
	parts.n_kicks = 1;
	publish_parts(l, &parts);
}

/* ---------------------------------------------------------------- roster */

static void roster_send(struct link *l, Im__Bus__RosterItem **items, size_t n, bool begin, bool end, uint64_t version)
{
	Im__Bus__ToPlugin parts = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Roster roster = IM__BUS__ROSTER__INIT;

	roster.items = items;
	roster.n_items = n;
	roster.begin = begin;
	roster.end = end;
	roster.version = version;
	parts.roster = &roster;
	publish_parts(l, &parts);
}

void link_roster(struct link *l, const Im__Bus__RosterItem *const *items, size_t n, link_done_fn *done, void *arg)
{
	uint64_t version = n ? items[n - 1]->version : 0;

	if (l->hello_done)
		roster_send(l, (Im__Bus__RosterItem **)items, n, false, false, version);
	if (!wait_for(l, &l->roster_waiters, version, done, NULL, arg))
		done(arg, IM_BUSY);
}

void link_query(struct link *l, const char *json, link_answer_fn *done, void *arg)
{
	Im__Bus__ToPlugin parts = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Query query = IM__BUS__QUERY__INIT, *list = &query;

	query.id = ++l->query_id;
	query.json = (char *)json;
	if (!wait_for(l, &l->queries, query.id, NULL, done, arg)) {
		done(arg, NULL);
		return;
	}
	if (!l->hello_done)
		return; /* a plugin that comes in time is not asked: the deadline answers */
	parts.queries = &list;
	parts.n_queries = 1;
	publish_parts(l, &parts);
}

/* ---------------------------------------------------------------- frames in */

void link_bus(struct link *l, struct im_mqtt *bus)
{
	Im__Bus__ToPlugin parts = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Hello hello = IM__BUS__HELLO__INIT;
	struct position *marks;
	Im__Bus__Confirm *confirms, **list;
	size_t n;

	frames_drop(l);
	l->hello_done = false;
	l->bus = bus;
	l->events->reset(l->arg);
	if (!bus)
		return;
	marks = calloc(LINK_MARKS, sizeof(*marks));
	confirms = calloc(LINK_MARKS, sizeof(*confirms));
	list = calloc(LINK_MARKS, sizeof(Im__Bus__Confirm *));
	if (marks && confirms && list) {
		n = l->marks(l->arg, l->node, marks, LINK_MARKS);
		for (size_t i = 0; i < n && i < LINK_MARKS; i++) {
			im__bus__confirm__init(&confirms[i]);
			confirms[i].epoch = marks[i].epoch;
			confirms[i].offset = marks[i].next;
			list[i] = &confirms[i];
			hello.n_high_water++;
		}
		hello.high_water = list;
		hello.protocol = LINK_PROTOCOL;
		hello.node = l->node;
		hello.roster_version = roster_version(l->roster);
		hello.store = (char *)l->store_epoch;
		hello.version = (char *)IM_VERSION;
		parts.hello = &hello;
		publish_parts(l, &parts);
	}
	free(marks);
	free(confirms);
	free(list);
}

static void on_hello(struct link *l, const Im__Bus__Hello *h)
{
	frames_drop(l);
	l->out_seq = 0;
	l->hello_done = true;
	l->roster_version = h->roster_version;
	l->events->reset(l->arg);
	im_log(IM_LOG_NOTICE, "evt=plugin_up version=%s epoch=%llu roster=%llu", h->version, (unsigned long long)h->epoch,
	       (unsigned long long)h->roster_version);
	roster_feed(l->roster, h->roster_version, publish, l);
	waiters_answer(&l->roster_waiters, h->roster_version, false, IM_OK, NULL);
}

int64_t link_proven_ms(const struct link *l)
{
	return l->proven_ms;
}

void link_prove(struct link *l, int64_t at_ms)
{
	if (!l->hello_done || at_ms <= l->wanted_ms)
		return;
	if (!proof_wanted(l))
		im_timer_start(l->timer, LINK_TIMER_MS, LINK_TIMER_MS);
	l->wanted_ms = at_ms;
}

static void note_late(struct link *l, const struct frame *f)
{
	int64_t now = im_loop_now_ms(l->loop);

	if (now - f->made_ms >= LINK_LATE_MS)
		l->late_ms = now;
}

int64_t link_late_ms(struct link *l)
{
	if (l->first)
		note_late(l, l->first);
	return l->late_ms;
}

/* Nobody asked for a while, or somebody stood still: what was given before has been with nobody for sure. */
static void note_proof(struct link *l, const struct frame *f)
{
	int64_t now = im_loop_now_ms(l->loop);

	note_late(l, f);
	if (now - l->proven_ms > LINK_SILENCE_MS)
		l->late_ms = now;
	l->proven_ms = f->made_ms;
}

static bool fell_below(const struct link *l, size_t before, size_t bound)
{
	return before > bound && l->pending <= bound;
}

static void on_out_done(struct link *l, uint64_t out_seq)
{
	size_t before = l->pending;

	while (l->first && !l->first->data && l->first->out_seq <= out_seq) {
		struct frame *f = l->first;

		l->first = f->next;
		if (!l->first)
			l->last = NULL;
		note_proof(l, f);
		l->sent -= f->weight;
		l->pending -= f->weight;
		free(f);
	}
	send_waiting(l);
	if (fell_below(l, before, LINK_WINDOW) || fell_below(l, before, LINK_CATCHUP))
		l->events->drained(l->arg);
}

static void on_frame(struct link *l, const Im__Bus__FromPlugin *f)
{
	if (f->hello)
		on_hello(l, f->hello);
	if (!l->hello_done)
		return; /* of a connection that is no more */
	for (size_t i = 0; i < f->n_sessions; i++)
		l->events->session(l->arg, f->sessions[i]);
	if (f->slice)
		l->events->slice(l->arg, f->slice);
	for (size_t i = 0; i < f->n_closed; i++)
		l->events->closed(l->arg, f->closed[i]);
	if (f->sessions_complete)
		l->events->complete(l->arg);
	for (size_t i = 0; i < f->n_control; i++)
		l->events->control(l->arg, f->control[i]);
	for (size_t i = 0; i < f->n_signals; i++)
		l->events->signal(l->arg, f->signals[i]);
	if (f->roster_version) {
		l->roster_version = f->roster_version;
		waiters_answer(&l->roster_waiters, f->roster_version, false, IM_OK, NULL);
	}
	if (f->out_done)
		on_out_done(l, f->out_done);
	for (size_t i = 0; i < f->n_answers; i++)
		waiters_answer(&l->queries, f->answers[i]->id, true, IM_OK, f->answers[i]->json);
}

enum im_status link_message(struct link *l, const void *payload, size_t len)
{
	Im__Bus__FromPlugin *f = im__bus__from_plugin__unpack(NULL, len, payload);

	if (!f)
		return IM_BAD_INPUT;
	on_frame(l, f);
	im__bus__from_plugin__free_unpacked(f, NULL);
	return IM_OK;
}
