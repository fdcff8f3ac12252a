/*
 * The plugin's end of the bus (docs/bus.md). Callbacks only note things down; link_tick, once per turn of the
 * broker's loop, works off what the service sent and sends what the turn brought.
 *
 * Small parts are packed when they come up and simply appended to each other: protobuf merges concatenated
 * messages, repeated fields add up and the last of a single one counts. Only the journal slice is added at
 * sending, read into a buffer and packed straight into the memory that the broker takes over.
 *
 * Positions: the service's hello says per epoch what its log has (marks). The cursor starts at the oldest
 * epoch here and moves to the mark whenever it enters an epoch. `flights` hold per epoch what was sent and
 * what was confirmed; their difference is bounded by LINK_IN_FLIGHT.
 */
#include "link.h"

#include "base/clock.h"
#include "base/log.h"
#include "broker.h"
#include "frame.h"
#include "reading.h"
#include "roster_copy.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LINK_PROTOCOL 1u
#define LINK_TOPIC "$im/in"
#ifndef LINK_FRAMES_TURN /* tests/sim */
#define LINK_FRAMES_TURN 4u             /* frames sent in one turn: a megabyte of slices, so that clients get their turn too */
#endif
#define LINK_GATHER (64u << 10)         /* bytes that do not wait for more to share their frame */
#define LINK_GATHER_US 1000             /* ... nor does anything longer than this */
#define LINK_SESSIONS_FRAME 256u        /* sessions described in one frame after a hello */
#define LINK_PARTS (1u << 20)           /* bytes of controls, signals and answers noted in one turn; more signals are passing anyway */
#define LINK_PART_COST 64u              /* of a signal beyond its payload: names, handle, tags */
#define LINK_UNHEARD (8u << 20)         /* bytes of controls and signals sent since the service was last heard: a hung one is not buried in them */
#define LINK_OUT_QUEUE (64u << 20)      /* bytes of frames not yet expanded: catch-up stops far below, live deliveries go on; more is a breach */
#define LINK_EPOCHS 8u                  /* epochs with something in flight; a further one waits */
#ifndef LINK_MARKS /* tests/sim */
#define LINK_MARKS 4096u                /* epochs in a hello; they pile up only if the service never forgets any */
#endif

struct flight {
	uint64_t epoch, sent, confirmed;
};

struct link {
	struct journal *journal;
	struct session_table *sessions;
	struct roster *roster;
	struct roster_copy *copy;        /* keeps `roster` up to date and on disk */
	struct reading_watch *readings;
	uint32_t node;
	uint64_t expand_bytes;
	link_query_fn *on_query;
	void *query_arg;

	/* From here on: of one connection of the service. */
	char *service;                   /* client id; NULL: not connected */
	const char *breach;              /* why the connection is to be ended at the end of this turn */
	bool greeted;                    /* the service's hello came */
	bool up;                         /* ours is sent too */
	bool sessions_sent;              /* all that were there at the hello */
	struct im_buf parts;             /* packed pieces of FromPlugin */
	uint64_t *handles;               /* of sessions to describe */
	size_t n_handles, handles_at, cap_handles, first_handles;
	struct frame *head, **tail;
	size_t queued;
	size_t unheard;                  /* bytes of controls and signals since its last frame */
	uint64_t out_seq, out_done, out_done_sent, roster_sent;
	Im__Bus__Confirm *marks;
	size_t n_marks;
	struct journal_cursor cursor;
	struct flight flights[LINK_EPOCHS];
	unsigned n_flights;
	struct im_buf slice;
	int64_t slice_us;                /* when the last one was sent */
	struct link_stats stats;
};

/* ---------------------------------------------------------------- life */

static void forget_frames(struct link *l)
{
	struct frame *f;

	while ((f = l->head)) {
		l->head = f->next;
		frame_free(f);
	}
	l->tail = &l->head;
	l->queued = l->unheard = 0;
}

/* Nothing of an old connection counts. */
static void forget_connection(struct link *l)
{
	free(l->service);
	l->service = NULL;
	l->breach = NULL;
	l->greeted = l->up = l->sessions_sent = false;
	im_buf_finish(&l->parts);
	im_buf_finish(&l->slice);
	free(l->handles);
	l->handles = NULL;
	l->n_handles = l->handles_at = l->cap_handles = l->first_handles = 0;
	forget_frames(l);
	l->out_seq = l->out_done = l->out_done_sent = l->roster_sent = 0;
	free(l->marks);
	l->marks = NULL;
	l->n_marks = 0;
	l->n_flights = 0;
	roster_copy_drop_snapshot(l->copy);
}

enum im_status link_create(const struct im_settings *settings, struct journal *journal, struct session_table *sessions,
			   struct roster *roster, struct link **out, struct im_err *err)
{
	struct link *l = calloc(1, sizeof(*l));
	enum im_status st;

	if (!l)
		return im_fail(err, IM_FAILED, "out of memory for the link to the message service");
	l->journal = journal;
	l->sessions = sessions;
	l->roster = roster;
	l->node = settings->node;
	l->expand_bytes = settings->expand_bytes;
	l->tail = &l->head;
	im_buf_init(&l->parts);
	im_buf_init(&l->slice);
	l->readings = reading_create();
	if (!l->readings) {
		link_destroy(l);
		return im_fail(err, IM_FAILED, "out of memory for the link to the message service");
	}
	st = roster_copy_open(settings->dir, roster, &l->copy, err);
	if (st != IM_OK) {
		link_destroy(l);
		return st;
	}
	*out = l;
	return IM_OK;
}

void link_destroy(struct link *l)
{
	if (!l)
		return;
	forget_connection(l);
	roster_copy_close(l->copy);
	reading_destroy(l->readings);
	free(l);
}

void link_on_roster(struct link *l, link_roster_fn *fn, void *arg)
{
	roster_copy_on_change(l->copy, fn, arg);
}

void link_on_query(struct link *l, link_query_fn *fn, void *arg)
{
	l->on_query = fn;
	l->query_arg = arg;
}

void link_service(struct link *l, const char *client_id, bool up)
{
	if (!up && (!l->service || strcmp(l->service, client_id) != 0))
		return;
	forget_connection(l);
	if (!up) {
		im_log(IM_LOG_WARNING, "evt=service_down client=%s note=\"messages wait in the journal\"", client_id);
		return;
	}
	l->service = strdup(client_id);
	if (!l->service)
		im_log(IM_LOG_ERROR, "evt=no_memory what=link note=\"the message service is not heard until it connects again\"");
}

bool link_is_up(const struct link *l)
{
	return l->up;
}

/* The connection is ended at the end of the turn and begins again with a hello. Only the first reason counts. */
static void breach(struct link *l, const char *why)
{
	if (!l->breach)
		l->breach = why;
}

/* ---------------------------------------------------------------- parts */

static void add_part(struct link *l, const Im__Bus__FromPlugin *part)
{
	size_t len = im__bus__from_plugin__get_packed_size(part);

	if (!im_buf_reserve(&l->parts, len)) {
		breach(l, "out of memory for a frame");
		return;
	}
	(void)im__bus__from_plugin__pack(part, (uint8_t *)l->parts.data + l->parts.len);
	l->parts.len += len;
}

/* False: it is passing, or its asker asks again; there is no room for it in this turn. */
static bool has_room(const struct link *l, size_t len)
{
	return l->up && len <= LINK_PARTS && l->parts.len <= LINK_PARTS - len && l->unheard <= LINK_UNHEARD;
}

static void note_handle(struct link *l, uint64_t handle)
{
	uint64_t *more;

	if (l->n_handles > l->handles_at && l->handles[l->n_handles - 1] == handle)
		return; /* several filters in one SUBSCRIBE */
	if (l->n_handles == l->cap_handles) {
		size_t cap = l->cap_handles ? l->cap_handles * 2 : 64;

		more = realloc(l->handles, cap * sizeof(*more));
		if (!more) {
			breach(l, "out of memory for sessions");
			return;
		}
		l->handles = more;
		l->cap_handles = cap;
	}
	l->handles[l->n_handles++] = handle;
}

void link_session(struct link *l, const struct session *s)
{
	if (l->greeted && !s->service) /* before the hello: it will name all */
		note_handle(l, s->handle);
}

void link_resumed(struct link *l, struct session *s, size_t len)
{
	reading_resumed(l->readings, s, len);
}

static void on_reading(void *arg, struct session *s)
{
	im_log(IM_LOG_INFO, "evt=reading user=%s client=%s behind=%d untaken=%" PRIu64, s->user, s->client_id, s->reading.behind,
	       s->reading.untaken);
	link_session(arg, s);
}

void link_closed(struct link *l, uint64_t handle)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;

	if (!l->greeted)
		return;
	part.closed = &handle;
	part.n_closed = 1;
	add_part(l, &part);
}

bool link_control(struct link *l, const struct session *asker, const void *json, size_t len)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Control control = IM__BUS__CONTROL__INIT, *list[] = {&control};

	if (!has_room(l, len)) {
		im_log(IM_LOG_WARNING, "evt=control_refused client=%s note=\"the message service is not there or not keeping up\"", asker->client_id);
		return false;
	}
	control.session = asker->handle;
	control.client_id = (char *)(uintptr_t)asker->client_id; /* only read */
	control.user = asker->service ? (char *)(uintptr_t)"" : (char *)(uintptr_t)asker->user;
	control.json = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)json};
	part.control = list;
	part.n_control = 1;
	l->unheard += len;
	add_part(l, &part);
	return true;
}

void link_signal(struct link *l, const struct session *from, const char *conv, size_t conv_len, const void *payload, size_t len)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Signal signal = IM__BUS__SIGNAL__INIT, *list[] = {&signal};
	char text[256];

	if (!has_room(l, len) || conv_len >= sizeof(text))
		return; /* typing: nobody misses one */
	memcpy(text, conv, conv_len);
	text[conv_len] = '\0';
	signal.session = from->handle;
	signal.user = (char *)(uintptr_t)from->user;
	signal.conv = text;
	signal.payload = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)payload};
	part.signals = list;
	part.n_signals = 1;
	l->unheard += len + LINK_PART_COST;
	add_part(l, &part);
}

void link_frame(struct link *l, const void *data, size_t len)
{
	struct frame *f;

	if (!l->service || l->breach)
		return;
	if (l->queued + len > LINK_OUT_QUEUE) {
		breach(l, "it sends deliveries beyond its window");
		return;
	}
	f = frame_create(data, len);
	if (!f) {
		breach(l, "out of memory for its frame");
		return;
	}
	l->stats.frames_in++;
	l->unheard = 0;
	l->queued += len;
	*l->tail = f;
	l->tail = &f->next;
}

/* ---------------------------------------------------------------- positions */

static uint64_t in_flight(const struct link *l)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < l->n_flights; i++)
		n += l->flights[i].sent - l->flights[i].confirmed;
	return n;
}

static void note_sent(struct link *l, uint64_t epoch, uint64_t offset, uint64_t next)
{
	struct flight *f = l->n_flights ? &l->flights[l->n_flights - 1] : NULL;

	if (!f || f->epoch != epoch) {
		f = &l->flights[l->n_flights++]; /* may_send has seen to it that there is room */
		*f = (struct flight){epoch, offset, offset};
	}
	f->sent = next;
}

/* Forgets epochs of which everything is confirmed, but for the newest: more of it may come. */
static void flights_trim(struct link *l)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < l->n_flights; i++)
		if (i + 1 == l->n_flights || l->flights[i].sent != l->flights[i].confirmed)
			l->flights[kept++] = l->flights[i];
	l->n_flights = kept;
}

static void on_confirm(struct link *l, const Im__Bus__Confirm *c)
{
	for (unsigned i = 0; i < l->n_flights; i++) {
		struct flight *f = &l->flights[i];

		if (f->epoch != c->epoch || c->offset <= f->confirmed)
			continue;
		if (c->offset > f->sent) {
			breach(l, "it confirms more than it was sent");
			return;
		}
		f->confirmed = c->offset;
		journal_confirm(l->journal, c->epoch, c->offset);
	}
	flights_trim(l);
}

static uint64_t mark(const struct link *l, uint64_t epoch)
{
	for (size_t i = 0; i < l->n_marks; i++)
		if (l->marks[i].epoch == epoch)
			return l->marks[i].offset;
	return 0;
}

static bool may_send(const struct link *l)
{
	return l->n_flights < LINK_EPOCHS && in_flight(l) < LINK_IN_FLIGHT;
}

/*
 * While a slice is under way what comes shares the next one, as small segments do in TCP (Nagle): each frame
 * costs both sides as much as several messages. A lone message never waits, others a millisecond at most.
 */
static bool gathers(const struct link *l)
{
	uint64_t flying = in_flight(l);

	return flying > 0 && journal_bytes(l->journal) < flying + LINK_GATHER && im_clock_mono_us() - l->slice_us < LINK_GATHER_US;
}

/* The next slice into l->slice. Entering an epoch, it begins where the service's log ends, even if that is before what was confirmed once. */
static enum im_status read_slice(struct link *l, uint64_t *epoch, uint64_t *offset)
{
	struct journal_cursor before = l->cursor;
	enum im_status st;

	im_buf_clear(&l->slice);
	st = journal_read(l->journal, &l->cursor, LINK_SLICE, &l->slice, epoch, offset);
	if (l->cursor.epoch == before.epoch || mark(l, l->cursor.epoch) == 0)
		return st;
	im_buf_clear(&l->slice);
	l->cursor.offset = mark(l, l->cursor.epoch);
	return journal_read(l->journal, &l->cursor, LINK_SLICE, &l->slice, epoch, offset);
}

/* ---------------------------------------------------------------- frames in */

static void on_hello(struct link *l, const Im__Bus__Hello *h)
{
	if (h->protocol != LINK_PROTOCOL || h->node != l->node || h->n_high_water > LINK_MARKS) {
		im_log(IM_LOG_ERROR, "evt=hello_refused protocol=%u node=%u ours=%u/%u", h->protocol, h->node, LINK_PROTOCOL, l->node);
		breach(l, "its hello does not fit");
		return;
	}
	if (l->greeted) {
		breach(l, "a second hello");
		return;
	}
	l->marks = calloc(h->n_high_water + 1, sizeof(*l->marks));
	if (!l->marks) {
		breach(l, "out of memory for a hello");
		return;
	}
	for (size_t i = 0; i < h->n_high_water; i++) {
		l->marks[l->n_marks++] = *h->high_water[i];
		journal_confirm(l->journal, h->high_water[i]->epoch, h->high_water[i]->offset);
	}
	l->cursor = journal_oldest(l->journal);
	if (mark(l, l->cursor.epoch) != 0)
		l->cursor.offset = mark(l, l->cursor.epoch);
	l->greeted = true;
	roster_copy_from(l->copy, h->store);
	im_log(IM_LOG_NOTICE, "evt=service_up version=%s store=%s roster=%" PRIu64 " epoch=%" PRIu64 " offset=%" PRIu64, h->version, h->store,
	       h->roster_version, l->cursor.epoch, l->cursor.offset);
}

static void on_kick(struct link *l, const Im__Bus__Kick *k)
{
	struct session *s = session_by_handle(l->sessions, k->session);

	if (s && !s->kicked)
		session_kick(l->sessions, s, k->reason);
}

static void on_query(struct link *l, const Im__Bus__Query *q)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Answer answer = IM__BUS__ANSWER__INIT, *list[] = {&answer};
	struct im_buf json;

	im_buf_init(&json);
	if (l->on_query)
		l->on_query(l->query_arg, q->json, &json);
	answer.id = q->id;
	answer.json = (char *)(uintptr_t)im_buf_text(&json);
	part.answers = list;
	part.n_answers = 1;
	add_part(l, &part);
	im_buf_finish(&json);
}

/* What comes before the deliveries. */
static void frame_begin(struct link *l, struct frame *f)
{
	const Im__Bus__ToPlugin *m;

	if (!frame_decode(f)) {
		breach(l, "a frame that cannot be read");
		return;
	}
	m = f->msg;
	if (m->hello)
		on_hello(l, m->hello);
	if (!l->greeted) {
		breach(l, "a frame before its hello");
		return;
	}
	if (m->out_seq != 0 && m->out_seq != l->out_seq + 1) {
		breach(l, "a frame of deliveries is missing");
		return;
	}
	if (m->out_seq != 0)
		l->out_seq = m->out_seq;
	if (m->confirm)
		on_confirm(l, m->confirm);
	f->opened = true;
}

/* What comes after the deliveries. */
static void frame_end(struct link *l, struct frame *f)
{
	const Im__Bus__ToPlugin *m = f->msg;
	const char *why;

	if (m->out_seq != 0)
		l->out_done = m->out_seq;
	if (m->roster) {
		why = roster_copy_apply(l->copy, m->roster);
		if (why)
			breach(l, why);
	}
	for (size_t i = 0; i < m->n_kicks; i++)
		on_kick(l, m->kicks[i]);
	for (size_t i = 0; i < m->n_queries; i++)
		on_query(l, m->queries[i]);
}

/* Works off frames in order until the budget of this turn is used up. */
static void work_off(struct link *l)
{
	struct frame_stats done = {0};
	uint64_t budget = l->expand_bytes;
	struct frame *f;

	while ((f = l->head) && !l->breach) {
		if (!f->opened)
			frame_begin(l, f);
		if (l->breach || !frame_expand(f, l->sessions, l->readings, &budget, &done))
			break;
		frame_end(l, f);
		l->head = f->next;
		if (!l->head)
			l->tail = &l->head;
		l->queued -= f->len;
		frame_free(f);
	}
	l->stats.deliveries += done.deliveries;
	l->stats.expanded += done.expanded;
	l->stats.stale += done.stale;
	if (done.websocket || (l->head && !l->breach))
		broker_wake(); /* WebSocket receivers wait for a turn; so does the rest of the work */
}

/* ---------------------------------------------------------------- frames out */

static void gather_handle(void *arg, struct session *s)
{
	note_handle(arg, s->handle);
}

static void add_hello(struct link *l)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Hello hello = IM__BUS__HELLO__INIT;

	hello.protocol = LINK_PROTOCOL;
	hello.node = l->node;
	hello.epoch = journal_epoch(l->journal);
	hello.roster_version = roster_copy_version(l->copy);
	hello.version = (char *)(uintptr_t)IM_VERSION;
	part.hello = &hello;
	add_part(l, &part);
	l->n_handles = l->handles_at = 0; /* all are named now */
	session_each(l->sessions, gather_handle, l);
	l->first_handles = l->n_handles;
	l->up = true;
}

static void add_session(struct link *l, const struct session *s)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Session session = IM__BUS__SESSION__INIT, *list[] = {&session};
	Im__Bus__Filter *filters = calloc(s->n_filters + 1, sizeof(*filters));
	Im__Bus__Filter **array = calloc(s->n_filters + 1, sizeof(*array));

	if (filters && array) {
		session_describe(s, &session, filters, array);
		part.sessions = list;
		part.n_sessions = 1;
		add_part(l, &part);
	} else {
		breach(l, "out of memory for a session");
	}
	free(filters);
	free(array);
}

/* Sessions to be named, at most a frame's worth. One that is gone meanwhile has its `closed`, or was never named. */
static void add_sessions(struct link *l)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;
	const struct session *s;

	for (unsigned n = 0; n < LINK_SESSIONS_FRAME && l->handles_at < l->n_handles; n++) {
		s = session_by_handle(l->sessions, l->handles[l->handles_at++]);
		if (s)
			add_session(l, s);
	}
	if (!l->sessions_sent && l->handles_at >= l->first_handles) {
		l->sessions_sent = true;
		part.sessions_complete = true;
		add_part(l, &part);
	}
	if (l->handles_at == l->n_handles && l->sessions_sent)
		l->handles_at = l->n_handles = 0;
}

static void add_progress(struct link *l)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;
	uint64_t version = roster_copy_version(l->copy);

	if (l->out_done != l->out_done_sent)
		part.out_done = l->out_done_sent = l->out_done;
	if (version != l->roster_sent)
		part.roster_version = l->roster_sent = version;
	if (part.out_done != 0 || part.roster_version != 0)
		add_part(l, &part);
}

/* Takes the parts and, if there is one, the slice. False: the broker does not take it; the connection starts again. */
static bool send_frame(struct link *l, const Im__Bus__FromPlugin *slice)
{
	size_t slice_len = slice ? im__bus__from_plugin__get_packed_size(slice) : 0;
	size_t len = l->parts.len + slice_len;
	uint8_t *frame = broker_alloc(len);

	if (!frame) {
		breach(l, "out of memory for a frame");
		return false;
	}
	if (l->parts.len > 0)
		memcpy(frame, l->parts.data, l->parts.len);
	if (slice)
		(void)im__bus__from_plugin__pack(slice, frame + l->parts.len);
	im_buf_clear(&l->parts);
	if (!broker_send(l->service, LINK_TOPIC, frame, len, 0, NULL)) {
		breach(l, "the broker did not take a frame for it");
		return false;
	}
	l->stats.frames_out++;
	return true;
}

/* IM_OK: a slice went out, with whatever parts there were. IM_NOT_FOUND: nothing to send now. IM_BUSY: not in memory yet. */
static enum im_status send_slice(struct link *l)
{
	Im__Bus__FromPlugin part = IM__BUS__FROM_PLUGIN__INIT;
	Im__Bus__Slice slice = IM__BUS__SLICE__INIT;
	enum im_status st;

	if (!may_send(l))
		return IM_NOT_FOUND;
	if (gathers(l)) {
		if (journal_bytes(l->journal) > in_flight(l))
			broker_wake(); /* whatever else happens, this turn's messages are not forgotten */
		return IM_NOT_FOUND;
	}
	st = read_slice(l, &slice.epoch, &slice.offset);
	if (st != IM_OK)
		return st;
	slice.node = l->node;
	slice.next = slice.offset + l->slice.len;
	slice.records = (ProtobufCBinaryData){l->slice.len, (uint8_t *)l->slice.data};
	note_sent(l, slice.epoch, slice.offset, slice.next);
	l->slice_us = im_clock_mono_us();
	part.slice = &slice;
	part.backlog = journal_bytes(l->journal);
	part.backlog -= part.backlog < in_flight(l) ? part.backlog : in_flight(l);
	return send_frame(l, &part) ? IM_OK : IM_FAILED;
}

static void send_turn(struct link *l)
{
	enum im_status st = IM_NOT_FOUND;
	unsigned n;

	if (!l->up)
		add_hello(l);
	add_progress(l);
	for (n = 0; n < LINK_FRAMES_TURN && !l->breach; n++) {
		if (l->handles_at < l->n_handles || !l->sessions_sent)
			add_sessions(l);
		st = l->sessions_sent ? send_slice(l) : IM_NOT_FOUND;
		if (st != IM_OK && l->parts.len > 0 && !l->breach)
			(void)send_frame(l, NULL);
		if (st != IM_OK && l->handles_at == l->n_handles)
			break;
	}
	if (!l->breach && (n == LINK_FRAMES_TURN || st == IM_BUSY))
		broker_wake(); /* there is more; do not wait for somebody else's packet */
}

static void end_connection(struct link *l)
{
	char *service = l->service;

	im_log(IM_LOG_ERROR, "evt=service_kicked client=%s reason=\"%s\" note=\"it connects again and starts from its last durable position\"",
	       l->service, l->breach);
	l->service = NULL; /* ours while the kick tells that it is gone */
	forget_connection(l); /* what still comes on the old connection finds no service */
	broker_kick(service, false);
	free(service);
}

void link_tick(struct link *l)
{
	roster_copy_tick(l->copy);
	reading_look(l->readings, l->sessions, im_clock_mono_ms(), on_reading, l);
	if (!l->service)
		return;
	if (!l->breach)
		work_off(l);
	if (!l->breach && l->greeted)
		send_turn(l);
	if (l->breach)
		end_connection(l);
}

void link_stats(const struct link *l, struct link_stats *out)
{
	uint64_t flying = in_flight(l), kept = journal_bytes(l->journal);

	*out = l->stats;
	out->in_flight = flying;
	out->backlog = kept > flying ? kept - flying : 0;
}
