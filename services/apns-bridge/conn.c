/*
 * HTTP/2 by nghttp2 over tls.h.
 *
 * The difficult idea is to know, whatever ends a request, whether Apple can have processed it: a notification that surely was not is sent
 * again at once and costs nothing, one that may have been is repeated later under the same ids. Surely not: its last byte had not been
 * handed to TLS; its stream was refused; a GOAWAY's last stream id is below its own. All else without a whole answer is unknown.
 *
 * nghttp2's callbacks only note what happened. Requests are told as done, and the session ends, outside them.
 */
#include "conn.h"

#include "base/clock.h"
#include "reaction.h"
#include "times.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define READ_SIZE 16384         /* a TLS record */
#define READS_PER_TURN 16       /* then others have their turn */
#define WRITE_GATHER (64u << 10) /* bytes of frames before they are handed to TLS */
#define WINDOW (1 << 20)        /* of the connection: answers are short, a flood of them is not */
#define HEADER_LIST_MAX 16384   /* told to the peer */
#define CONTROL_MOST 1000u      /* PING and SETTINGS in a second: more is no peer but a flood */
#define TIMEOUTS_MOST 2u        /* in a row: the peer is frozen, a new connection finds another */

struct conn {
	struct im_loop *loop;
	const struct conn_events *events;
	void *arg;
	struct tls *tls;
	nghttp2_session *session;
	const char *authority;
	enum conn_state state;
	enum conn_end end;
	char why[TLS_WHY_SIZE];
	bool answered, primed;
	struct request *under_way, *done; /* under way: oldest first */
	unsigned in_flight, timeouts;
	struct im_buf out;                /* frames on their way to TLS */
	size_t out_at;
	bool write_broken;
	struct im_timer *timer;
	int64_t due_ms;                   /* what the timer is set to; 0 = not set */
	int64_t opened_ms, heard_ms, pinged_ms; /* pinged 0: no PING under way */
	int64_t pinged_us, rtt_us;
	int64_t control_since_ms;
	unsigned control;                 /* frames since then */
	bool goaway, more;                /* more: left unread when our turn was over */
	enum push_class goaway_class;
	char goaway_reason[PUSH_REASON_MAX];
};

static int64_t now_ms(const struct conn *c)
{
	return im_loop_now_ms(c->loop);
}

/* ---- how a request ends ---- */

static void finish(struct conn *c, struct request *r)
{
	DL_DELETE(c->under_way, r);
	c->in_flight--;
	DL_APPEND(c->done, r);
	c->events->dirty(c->arg);
}

static void finish_without_answer(struct conn *c, struct request *r, enum push_class class, const char *reason)
{
	r->status = 0;
	r->result.class = class == PUSH_UNKNOWN && !r->sent ? PUSH_UNSENT : class;
	(void)snprintf(r->result.reason, sizeof(r->result.reason), "%s", reason);
	finish(c, r);
}

static void tell_done(struct conn *c)
{
	struct request *r;

	while ((r = c->done)) {
		DL_DELETE(c->done, r);
		c->events->done(c->arg, r);
	}
}

/* The connection is over: what is under way cannot be answered any more. */
static void end(struct conn *c, enum conn_end how, const char *why)
{
	if (c->state == CONN_ENDED)
		return;
	c->state = CONN_ENDED;
	c->end = how;
	(void)snprintf(c->why, sizeof(c->why), "%s", why);
	while (c->under_way) {
		if (how == CONN_REFUSED) /* a peer that does not want us has not taken anything either */
			finish_without_answer(c, c->under_way, PUSH_CONFIG, why);
		else
			finish_without_answer(c, c->under_way, PUSH_UNKNOWN,
					      c->under_way->timed_out ? "timeout" : how == CONN_DONE ? "closed" : "reset");
	}
	c->events->dirty(c->arg);
}

/* What TLS says of its end; more telling than ours if there is one. */
static void end_by_tls(struct conn *c)
{
	const char *why;
	enum tls_end how = tls_ended(c->tls, &why);

	if (c->goaway)
		end(c, CONN_DONE, "GOAWAY"); /* it had said so */
	else if (c->session && c->state == CONN_OPENING && how != TLS_REFUSED)
		end(c, CONN_LOST, "closed after the handshake, before a word of HTTP/2"); /* an alert may have been lost on the way */
	else
		end(c, how == TLS_REFUSED ? CONN_REFUSED : CONN_LOST, *why ? why : "closed");
}

void conn_drain(struct conn *c)
{
	if (c->state == CONN_OPEN)
		c->state = CONN_DRAINING;
	c->events->dirty(c->arg);
}

/* ---- what nghttp2 tells ---- */

static void note_printable(const char *word, size_t len, char *out, size_t size)
{
	size_t n = len < size - 1 ? len : size - 1;

	for (size_t i = 0; i < n; i++)
		out[i] = word[i] > 0x1f && word[i] < 0x7f ? word[i] : '?';
	out[n] = '\0';
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len, const uint8_t *value,
		     size_t len, uint8_t flags, void *arg)
{
	struct request *r = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	const char *text = (const char *)value;

	(void)flags;
	(void)arg;
	if (!r)
		return 0;
	r->headers += name_len + len;
	if (r->headers > REQUEST_HEADERS_MAX)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets the stream */
	if (name_len == 7 && memcmp(name, ":status", 7) == 0) {
		int status = len == 3 ? atoi(text) : 0;

		if (status >= 200) /* 1xx announce another */
			r->status = status;
	} else if (name_len == 7 && memcmp(name, "apns-id", 7) == 0) {
		note_printable(text, len, r->result.provider_id, sizeof(r->result.provider_id));
	} else if (name_len == 11 && memcmp(name, "retry-after", 11) == 0) {
		note_printable(text, len, r->retry_after, sizeof(r->retry_after));
	}
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t len, void *arg)
{
	struct request *r = nghttp2_session_get_stream_user_data(session, stream);

	(void)flags;
	(void)arg;
	if (!r || r->cut)
		return 0;
	if (r->answer.len + len > REQUEST_ANSWER_MAX) {
		r->cut = true;
		if (nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL) != 0)
			return NGHTTP2_ERR_CALLBACK_FAILURE;
		return 0;
	}
	im_buf_add(&r->answer, data, len);
	return 0;
}

static void on_goaway(struct conn *c, const nghttp2_goaway *g)
{
	char reason[PUSH_REASON_MAX];

	(void)reaction_read(g->opaque_data, g->opaque_data_len, 0, reason);
	if (!reason[0])
		(void)snprintf(reason, sizeof(reason), "%s", g->error_code ? nghttp2_http2_strerror(g->error_code) : "");
	c->goaway = true;
	c->goaway_class = reaction_of_goaway(reason);
	(void)snprintf(c->goaway_reason, sizeof(c->goaway_reason), "%s", reason);
	conn_drain(c);
	c->events->goaway(c->arg, reason, g->last_stream_id, c->in_flight);
}

/* PING and SETTINGS cost an answer each. */
static int count_control(struct conn *c)
{
	int64_t now = now_ms(c);

	if (now - c->control_since_ms >= 1000) {
		c->control_since_ms = now;
		c->control = 0;
	}
	if (++c->control <= CONTROL_MOST)
		return 0;
	end(c, CONN_LOST, "a flood of PING or SETTINGS");
	return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct conn *c = arg;

	(void)session;
	switch (frame->hd.type) {
	case NGHTTP2_SETTINGS:
		if (frame->hd.flags & NGHTTP2_FLAG_ACK)
			return 0;
		if (c->state == CONN_OPENING)
			c->state = CONN_OPEN;
		c->events->dirty(c->arg);
		return count_control(c);
	case NGHTTP2_PING:
		if (!(frame->hd.flags & NGHTTP2_FLAG_ACK))
			return count_control(c);
		if (c->pinged_ms) {
			c->rtt_us = im_clock_mono_us() - c->pinged_us;
			c->pinged_ms = 0;
		}
		return 0;
	case NGHTTP2_GOAWAY:
		on_goaway(c, &frame->goaway);
		return 0;
	}
	return 0;
}

/* Whether the peer has the whole request: the data frame with its end has left nghttp2. */
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct request *r;

	(void)arg;
	if (frame->hd.type != NGHTTP2_DATA || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	r = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if (r)
		r->sent = true;
	return 0;
}

static void finish_refused(struct conn *c, struct request *r)
{
	if (c->goaway && c->goaway_class == PUSH_CONFIG)
		finish_without_answer(c, r, PUSH_CONFIG, c->goaway_reason);
	else
		finish_without_answer(c, r, PUSH_UNSENT, c->goaway ? "goaway" : "refused");
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t error, void *arg)
{
	struct request *r = nghttp2_session_get_stream_user_data(session, stream);
	struct conn *c = arg;

	if (!r)
		return 0;
	if (r->status && (error == NGHTTP2_NO_ERROR || r->cut)) {
		c->answered = true;
		c->timeouts = 0;
		finish(c, r);
	} else if (r->timed_out) {
		finish_without_answer(c, r, r->sent ? PUSH_UNKNOWN : PUSH_UNREACHABLE, "timeout");
	} else if (error == NGHTTP2_REFUSED_STREAM) {
		finish_refused(c, r);
	} else if (r->headers > REQUEST_HEADERS_MAX) {
		finish_without_answer(c, r, PUSH_UNKNOWN, "headers too large");
	} else {
		finish_without_answer(c, r, PUSH_UNKNOWN, error == NGHTTP2_NO_ERROR ? "no answer" : nghttp2_http2_strerror(error));
	}
	return 0;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t len, uint32_t *flags, nghttp2_data_source *source,
			 void *arg)
{
	struct request *r = source->ptr;
	size_t n = r->body.len - r->body_at;

	(void)session;
	(void)stream;
	(void)arg;
	if (n > len)
		n = len;
	memcpy(out, r->body.data + r->body_at, n);
	r->body_at += n;
	if (r->body_at == r->body.len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

/* ---- reading and writing ---- */

static void read_some(struct conn *c)
{
	uint8_t buf[READ_SIZE];
	ssize_t n = 0;
	int i;

	for (i = 0; i < READS_PER_TURN && c->state != CONN_ENDED && (n = tls_read(c->tls, buf, sizeof(buf))) > 0; i++) {
		ssize_t used = nghttp2_session_mem_recv(c->session, buf, (size_t)n);

		c->heard_ms = now_ms(c);
		if (used < 0)
			end(c, used == NGHTTP2_ERR_BAD_CLIENT_MAGIC ? CONN_REFUSED : CONN_LOST, nghttp2_strerror((int)used));
	}
	if (c->state == CONN_ENDED)
		return;
	if (n < 0)
		end_by_tls(c);
	c->more = n > 0;
	c->events->dirty(c->arg);
}

/* false: TLS takes no more now. */
static bool write_out(struct conn *c)
{
	while (c->out_at < c->out.len) {
		ssize_t n = tls_write(c->tls, c->out.data + c->out_at, c->out.len - c->out_at);

		if (n < 0) {
			c->write_broken = true;
			return false;
		}
		if (n == 0)
			return false;
		c->out_at += (size_t)n;
	}
	im_buf_clear(&c->out);
	c->out_at = 0;
	return true;
}

/* Nothing can be written any more; what the peer had said before is worth hearing: answers, a GOAWAY. */
static void hear_last(struct conn *c)
{
	do
		read_some(c);
	while (c->state != CONN_ENDED && c->more);
	end_by_tls(c);
}

/* Frames of many requests leave together. */
static void write_some(struct conn *c)
{
	const uint8_t *frames;
	ssize_t n = 0;

	do {
		if (!write_out(c))
			break;
		while (c->out.len < WRITE_GATHER && (n = nghttp2_session_mem_send(c->session, &frames)) > 0)
			im_buf_add(&c->out, frames, (size_t)n);
		if (c->out.failed || n < 0)
			end(c, CONN_LOST, c->out.failed ? "out of memory" : nghttp2_strerror((int)n));
	} while (c->state != CONN_ENDED && c->out.len > 0);
	if (c->write_broken)
		hear_last(c);
	else if (c->state != CONN_ENDED && !nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
		end(c, c->goaway ? CONN_DONE : CONN_LOST, c->goaway ? "GOAWAY" : "the server breaks the rules of HTTP/2");
	if (c->state != CONN_ENDED)
		tls_want_write(c->tls, c->out_at < c->out.len);
}

/* ---- what is due ---- */

static int64_t earliest(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t next_due(const struct conn *c)
{
	const struct request *r;
	int64_t due;

	if (c->state == CONN_OPENING)
		return c->opened_ms + apns_times.connect_ms;
	due = c->pinged_ms ? c->pinged_ms + apns_times.ping_ack_ms : c->heard_ms + apns_times.ping_idle_ms;
	for (r = c->under_way; r && r->timed_out; r = r->next)
		; /* its reset could not be written yet */
	if (r)
		due = earliest(due, r->since_ms + apns_times.request_ms);
	if (c->state == CONN_OPEN)
		due = earliest(due, c->opened_ms + apns_times.age_ms);
	return due;
}

/* The timer is only ever moved forward when it runs: most deadlines never come true. */
static void set_timer(struct conn *c)
{
	int64_t due;

	if (c->state == CONN_ENDED)
		return;
	due = next_due(c);
	if (c->due_ms && c->due_ms <= due)
		return;
	c->due_ms = due;
	im_timer_start(c->timer, due > now_ms(c) ? (uint64_t)(due - now_ms(c)) : 0, 0);
}

static void time_out_requests(struct conn *c)
{
	struct request *r, *next;

	DL_FOREACH_SAFE(c->under_way, r, next) {
		if (r->since_ms + apns_times.request_ms > now_ms(c))
			break;
		if (r->timed_out)
			continue;
		r->timed_out = true;
		c->timeouts++;
		if (nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, r->stream, NGHTTP2_CANCEL) != 0)
			end(c, CONN_LOST, "out of memory");
	}
	if (c->timeouts >= TIMEOUTS_MOST)
		end(c, CONN_LOST, "two timeouts in a row");
}

static void ping_if_silent(struct conn *c)
{
	int64_t now = now_ms(c);

	if (c->pinged_ms) {
		if (now - c->pinged_ms >= apns_times.ping_ack_ms)
			end(c, CONN_LOST, "PING not answered");
	} else if (now - c->heard_ms >= apns_times.ping_idle_ms) {
		c->pinged_ms = now;
		c->pinged_us = im_clock_mono_us();
		if (nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL) != 0)
			end(c, CONN_LOST, "out of memory");
	}
}

static void on_timer(void *arg)
{
	struct conn *c = arg;

	c->due_ms = 0;
	if (c->state == CONN_OPENING) {
		if (now_ms(c) - c->opened_ms >= apns_times.connect_ms)
			end(c, CONN_LOST, "no connection in time");
	} else if (c->state != CONN_ENDED) {
		time_out_requests(c);
		ping_if_silent(c);
		if (now_ms(c) - c->opened_ms >= apns_times.age_ms)
			conn_drain(c);
	}
	c->events->dirty(c->arg);
}

void conn_turn(struct conn *c)
{
	if (c->state != CONN_ENDED && c->more)
		read_some(c);
	if (c->state != CONN_ENDED && c->session)
		write_some(c);
	if (c->state == CONN_DRAINING && c->in_flight == 0)
		end(c, CONN_DONE, c->goaway ? "GOAWAY" : "drained");
	tell_done(c);
	set_timer(c);
	if (c->more)
		c->events->dirty(c->arg);
}

/* ---- opening ---- */

static void on_tls_ready(void *arg)
{
	struct conn *c = arg;

	if (c->state == CONN_ENDED)
		return;
	if (c->session)
		read_some(c);
	else
		end_by_tls(c);
}

static bool set_callbacks(nghttp2_session_callbacks **out)
{
	nghttp2_session_callbacks *b;

	if (nghttp2_session_callbacks_new(&b) != 0)
		return false;
	nghttp2_session_callbacks_set_on_header_callback(b, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(b, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(b, on_frame);
	nghttp2_session_callbacks_set_on_frame_send_callback(b, on_frame_sent);
	nghttp2_session_callbacks_set_on_stream_close_callback(b, on_stream_close);
	*out = b;
	return true;
}

static bool start_session(struct conn *c)
{
	static const nghttp2_settings_entry ours[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_LIST_MAX},
	};
	nghttp2_session_callbacks *callbacks;
	int rc;

	if (!set_callbacks(&callbacks))
		return false;
	rc = nghttp2_session_client_new(&c->session, callbacks, c);
	nghttp2_session_callbacks_del(callbacks);
	return rc == 0 && nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, ours, sizeof(ours) / sizeof(ours[0])) == 0 &&
	       nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, WINDOW) == 0;
}

static void on_tls_up(void *arg)
{
	struct conn *c = arg;

	c->heard_ms = now_ms(c);
	if (!start_session(c))
		end(c, CONN_LOST, "out of memory");
	else
		read_some(c); /* TLS 1.3 may have brought SETTINGS with the handshake's end */
	c->events->dirty(c->arg);
}

struct conn *conn_open(struct im_loop *loop, SSL_CTX *tls, const char *host, unsigned port, const char *authority,
		       const struct conn_events *events, void *arg)
{
	static const struct tls_events on_tls = {.up = on_tls_up, .ready = on_tls_ready};
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->loop = loop;
	c->events = events;
	c->arg = arg;
	c->authority = authority;
	c->opened_ms = c->heard_ms = im_loop_now_ms(loop);
	c->timer = im_timer_create(loop, on_timer, c);
	c->tls = c->timer ? tls_open(loop, tls, host, port, apns_times.connect_ms / 3, &on_tls, c) : NULL;
	if (!c->tls) {
		im_timer_destroy(c->timer);
		free(c);
		return NULL;
	}
	set_timer(c);
	return c;
}

void conn_close(struct conn *c, const char *why)
{
	if (!c)
		return;
	if (c->session && c->state != CONN_ENDED && nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR) == 0)
		write_some(c); /* a GOAWAY, if it can be written at once */
	end(c, CONN_DONE, why);
	tell_done(c);
	nghttp2_session_del(c->session);
	tls_close(c->tls);
	im_timer_destroy(c->timer);
	im_buf_finish(&c->out);
	free(c);
}

/* ---- sending ---- */

enum conn_state conn_state(const struct conn *c)
{
	return c->state;
}

enum conn_end conn_ended(const struct conn *c, const char **why)
{
	*why = c->why;
	return c->end;
}

bool conn_answered(const struct conn *c)
{
	return c->answered;
}

bool conn_primed(const struct conn *c)
{
	return c->primed;
}

void conn_prime(struct conn *c)
{
	c->primed = true;
}

unsigned conn_in_flight(const struct conn *c)
{
	return c->in_flight;
}

int64_t conn_rtt_us(const struct conn *c)
{
	return c->rtt_us;
}

unsigned conn_limit(const struct conn *c)
{
	uint32_t theirs, most = c->primed ? CONN_STREAMS_MAX : 1;

	if (c->state != CONN_OPEN)
		return 0;
	theirs = nghttp2_session_get_remote_settings(c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
	return theirs < most ? theirs : most;
}

static nghttp2_nv header(const char *name, const char *value, uint8_t flags)
{
	return (nghttp2_nv){
		.name = (uint8_t *)name, .namelen = strlen(name), .value = (uint8_t *)value, .valuelen = strlen(value),
		.flags = (uint8_t)(flags | NGHTTP2_NV_FLAG_NO_COPY_NAME),
	};
}

/* What changes with each request must not push what stays the same (the JWT) out of the compressor's table. */
static size_t fill_headers(const struct conn *c, const struct request *r, const char *bearer, nghttp2_nv *h)
{
	size_t n = 0;

	h[n++] = header(":method", "POST", 0);
	h[n++] = header(":scheme", "https", 0);
	h[n++] = header(":authority", c->authority, 0);
	h[n++] = header(":path", r->path, NGHTTP2_NV_FLAG_NO_INDEX);
	if (bearer)
		h[n++] = header("authorization", bearer, 0);
	h[n++] = header("apns-topic", r->topic, 0);
	h[n++] = header("apns-push-type", r->type, 0);
	h[n++] = header("apns-priority", r->priority, 0);
	h[n++] = header("apns-expiration", r->expiration, NGHTTP2_NV_FLAG_NO_INDEX);
	h[n++] = header("apns-id", r->uuid, NGHTTP2_NV_FLAG_NO_INDEX);
	if (r->collapse[0])
		h[n++] = header("apns-collapse-id", r->collapse, NGHTTP2_NV_FLAG_NO_INDEX);
	h[n++] = header("content-type", "application/json", 0);
	return n;
}

void conn_send(struct conn *c, struct request *r, const char *bearer)
{
	nghttp2_data_provider body = {.source.ptr = r, .read_callback = read_body};
	nghttp2_nv h[12];
	size_t n = fill_headers(c, r, bearer, h);

	r->since_ms = now_ms(c);
	DL_APPEND(c->under_way, r);
	c->in_flight++;
	r->stream = nghttp2_submit_request(c->session, NULL, h, n, &body, r);
	if (r->stream < 0)
		finish_without_answer(c, r, PUSH_UNSENT, "out of memory");
	if (r->stream < 0 || r->stream >= apns_times.last_stream)
		conn_drain(c); /* a new connection has all ids again */
	c->events->dirty(c->arg);
}
