/*
 * The life of a connection: opened, fed and read, watched, ended. What HTTP/2 says of each request is stream.c's.
 *
 * The difficult idea is the order of things. Frames of a turn leave together at its end (conn_turn); what TLS or a timer reports may end the
 * connection at any point, so nobody is told inside a callback: requests that are done wait in a list until conn_turn.
 */
#include "conn_part.h"

#include "base/clock.h"
#include "times.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define READ_SIZE 16384          /* a TLS record */
#define READS_PER_TURN 16        /* then others have their turn */
#define WRITE_GATHER (64u << 10) /* bytes of frames before they are handed to TLS */
#define TIMEOUTS_MOST 2u         /* in a row: the peer is frozen, a new connection finds another */

/* ---- how a request ends ---- */

static void tell_done(struct conn *c)
{
	struct request *r;

	while ((r = c->done)) {
		DL_DELETE(c->done, r);
		c->events->done(c->arg, r);
	}
}

/* The connection is over: what is under way cannot be answered any more. */
void conn_over(struct conn *c, enum conn_end how, const char *why)
{
	if (c->state == CONN_ENDED)
		return;
	c->state = CONN_ENDED;
	c->end = how;
	(void)snprintf(c->why, sizeof(c->why), "%s", why);
	while (c->under_way) {
		if (how == CONN_REFUSED) /* a peer that does not want us has not taken anything either */
			stream_finish(c, c->under_way, PUSH_CONFIG, why);
		else
			stream_finish(c, c->under_way, PUSH_UNKNOWN,
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
		conn_over(c, CONN_DONE, "GOAWAY"); /* it had said so */
	else if (c->session && c->state == CONN_OPENING && how != TLS_REFUSED)
		conn_over(c, CONN_LOST, "closed after the handshake, before a word of HTTP/2"); /* an alert may have been lost on the way */
	else
		conn_over(c, how == TLS_REFUSED ? CONN_REFUSED : CONN_LOST, *why ? why : "closed");
}

void conn_drain(struct conn *c)
{
	if (c->state == CONN_OPEN)
		c->state = CONN_DRAINING;
	c->events->dirty(c->arg);
}

/* ---- reading and writing ---- */

static void read_some(struct conn *c)
{
	uint8_t buf[READ_SIZE];
	ssize_t n = 0;
	int i;

	for (i = 0; i < READS_PER_TURN && c->state != CONN_ENDED && (n = tls_read(c->tls, buf, sizeof(buf))) > 0; i++) {
		ssize_t used = nghttp2_session_mem_recv(c->session, buf, (size_t)n);

		c->heard_ms = conn_now(c);
		if (used < 0)
			conn_over(c, used == NGHTTP2_ERR_BAD_CLIENT_MAGIC ? CONN_REFUSED : CONN_LOST, nghttp2_strerror((int)used));
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
			conn_over(c, CONN_LOST, c->out.failed ? "out of memory" : nghttp2_strerror((int)n));
	} while (c->state != CONN_ENDED && c->out.len > 0);
	if (c->write_broken)
		hear_last(c);
	else if (c->state != CONN_ENDED && !nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session))
		conn_over(c, c->goaway ? CONN_DONE : CONN_LOST, c->goaway ? "GOAWAY" : "the server breaks the rules of HTTP/2");
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
	im_timer_start(c->timer, due > conn_now(c) ? (uint64_t)(due - conn_now(c)) : 0, 0);
}

static void time_out_requests(struct conn *c)
{
	struct request *r, *next;

	DL_FOREACH_SAFE(c->under_way, r, next) {
		if (r->since_ms + apns_times.request_ms > conn_now(c))
			break;
		if (r->timed_out)
			continue;
		r->timed_out = true;
		c->timeouts++;
		if (nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, r->stream, NGHTTP2_CANCEL) != 0)
			conn_over(c, CONN_LOST, "out of memory");
	}
	if (c->timeouts >= TIMEOUTS_MOST)
		conn_over(c, CONN_LOST, "two timeouts in a row");
}

static void ping_if_silent(struct conn *c)
{
	int64_t now = conn_now(c);

	if (c->pinged_ms) {
		if (now - c->pinged_ms >= apns_times.ping_ack_ms)
			conn_over(c, CONN_LOST, "PING not answered");
	} else if (now - c->heard_ms >= apns_times.ping_idle_ms) {
		c->pinged_ms = now;
		c->pinged_us = im_clock_mono_us();
		if (nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL) != 0)
			conn_over(c, CONN_LOST, "out of memory");
	}
}

static void on_timer(void *arg)
{
	struct conn *c = arg;

	c->due_ms = 0;
	if (c->state == CONN_OPENING) {
		if (conn_now(c) - c->opened_ms >= apns_times.connect_ms)
			conn_over(c, CONN_LOST, "no connection in time");
	} else if (c->state != CONN_ENDED) {
		time_out_requests(c);
		ping_if_silent(c);
		if (conn_now(c) - c->opened_ms >= apns_times.age_ms)
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
		conn_over(c, CONN_DONE, c->goaway ? "GOAWAY" : "drained");
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

static void on_tls_up(void *arg)
{
	struct conn *c = arg;

	c->heard_ms = conn_now(c);
	if (!stream_session(c))
		conn_over(c, CONN_LOST, "out of memory");
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
	conn_over(c, CONN_DONE, why);
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

void conn_send(struct conn *c, struct request *r, const char *bearer)
{
	r->since_ms = conn_now(c);
	DL_APPEND(c->under_way, r);
	c->in_flight++;
	r->stream = stream_submit(c, r, bearer);
	if (r->stream < 0)
		stream_finish(c, r, PUSH_UNSENT, "out of memory");
	if (r->stream < 0 || r->stream >= apns_times.last_stream)
		conn_drain(c); /* a new connection has all ids again */
	c->events->dirty(c->arg);
}
