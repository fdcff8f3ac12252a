/* The parts of a connection: conn.c has its life, stream.c its requests as streams of nghttp2's session. Private to both. */
#ifndef APNS_CONN_PART_H
#define APNS_CONN_PART_H

#include "conn.h"

#include <nghttp2/nghttp2.h>
#include <utlist.h>

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

static inline int64_t conn_now(const struct conn *c)
{
	return im_loop_now_ms(c->loop);
}

/* ---- conn.c */
void conn_over(struct conn *c, enum conn_end how, const char *why); /* what is under way cannot be answered any more */

/* ---- stream.c */
bool stream_session(struct conn *c); /* begins it; false: out of memory */
int32_t stream_submit(struct conn *c, struct request *r, const char *bearer); /* below 0: out of memory */
/* Without a whole answer; as unsent instead of unknown if its last byte was not handed to TLS. */
void stream_finish(struct conn *c, struct request *r, enum push_class class, const char *reason);

#endif
