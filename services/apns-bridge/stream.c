/*
 * Requests as streams of nghttp2's session.
 *
 * The difficult idea is to know, whatever ends a request, whether Apple can have processed it: a notification that surely was not is sent
 * again at once and costs nothing, one that may have been is repeated later under the same ids. Surely not: its last byte had not been
 * handed to TLS; its stream was refused; a GOAWAY's last stream id is below its own. All else without a whole answer is unknown.
 *
 * nghttp2's callbacks only note what happened. Requests are told as done outside them.
 */
#include "conn_part.h"

#include "base/clock.h"
#include "base/number.h"
#include "reaction.h"

#include <stdio.h>
#include <string.h>

#define WINDOW (1 << 20)        /* of the connection: answers are short, a flood of them is not */
#define HEADER_LIST_MAX 16384   /* told to the peer */
#define CONTROL_MOST 1000u      /* PING and SETTINGS in a second: more is no peer but a flood */

/* ---- how a request ends ---- */

static void finish(struct conn *c, struct request *r)
{
	DL_DELETE(c->under_way, r);
	c->in_flight--;
	DL_APPEND(c->done, r);
	c->events->dirty(c->arg);
}

void stream_finish(struct conn *c, struct request *r, enum push_class class, const char *reason)
{
	r->status = 0;
	r->result.class = class == PUSH_UNKNOWN && !r->sent ? PUSH_UNSENT : class;
	(void)snprintf(r->result.reason, sizeof(r->result.reason), "%s", reason);
	finish(c, r);
}

/* ---- what nghttp2 tells ---- */

static void note_printable(const char *word, size_t len, char *out, size_t size)
{
	size_t n = len < size - 1 ? len : size - 1;

	for (size_t i = 0; i < n; i++)
		out[i] = (char)(word[i] > 0x1f && word[i] < 0x7f ? word[i] : '?');
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
		uint64_t status = 0;

		if (len == 3 && im_digits(text, 999, &status) && status >= 200) /* 1xx announce another */
			r->status = (int)status;
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
	int64_t now = conn_now(c);

	if (now - c->control_since_ms >= 1000) {
		c->control_since_ms = now;
		c->control = 0;
	}
	if (++c->control <= CONTROL_MOST)
		return 0;
	conn_over(c, CONN_LOST, "a flood of PING or SETTINGS");
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
		stream_finish(c, r, PUSH_CONFIG, c->goaway_reason);
	else
		stream_finish(c, r, PUSH_UNSENT, c->goaway ? "goaway" : "refused");
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
		stream_finish(c, r, r->sent ? PUSH_UNKNOWN : PUSH_UNREACHABLE, "timeout");
	} else if (error == NGHTTP2_REFUSED_STREAM) {
		finish_refused(c, r);
	} else if (r->headers > REQUEST_HEADERS_MAX) {
		stream_finish(c, r, PUSH_UNKNOWN, "headers too large");
	} else {
		stream_finish(c, r, PUSH_UNKNOWN, error == NGHTTP2_NO_ERROR ? "no answer" : nghttp2_http2_strerror(error));
	}
	return 0;
}

/* ---- sending ---- */

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

int32_t stream_submit(struct conn *c, struct request *r, const char *bearer)
{
	nghttp2_data_provider body = {.source.ptr = r, .read_callback = read_body};
	nghttp2_nv h[12];
	size_t n = fill_headers(c, r, bearer, h);

	return nghttp2_submit_request(c->session, NULL, h, n, &body, r);
}

/* ---- the session ---- */

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

bool stream_session(struct conn *c)
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
