/*
 * The bridge of one provider, from the bus to the driver. Private to lib/push; who writes a driver needs driver.h alone.
 *
 *   frame.c   what comes from and goes to the message service
 *   flow.c    a job's way: stored, asked for, marked, sent, answered, ended
 *   tokens.c  what is remembered of tokens: hot ones, suspects, verdicts not heard yet
 *   query.c   imctl's questions
 *   bridge.c  the process: start, timers, reload, drain
 */
#ifndef IM_PUSH_BRIDGE_H
#define IM_PUSH_BRIDGE_H

#include "push/ids.h"
#include "push/queue.h"
#include "push/stats.h"
#include "service/service.h"

#include <uthash.h>

#define BRIDGE_ASKS 2048u            /* asked and not answered: a round trip of a millisecond is then no limit */
#define BRIDGE_ASKS_FRAME 256u       /* of one frame */
#define BRIDGE_VERDICTS_FRAME 200u
#define BRIDGE_PENDING 20000u        /* jobs given to the outbox and not durable: a disk that hangs must not fill memory */
#define BRIDGE_ASK_MS 10000          /* a question not answered by then is asked again */
#define BRIDGE_HELLO_MS 5000         /* until the service has answered */
#define BRIDGE_AGAIN_MS 10000        /* verdicts that were not heard are said again */

/* A job on its way to the driver and at it. */
struct push_out {
	uint64_t row;
	struct push_job *job;
	struct push_send send;
	Im__Push__Job message;
	Im__Push__Ticket *ticket;
	bool env_guessed;             /* the registration does not say it */
	bool sent;
	int64_t sent_ms;
	UT_hash_handle hh;
};

struct push_suspect {                 /* tokens.c */
	uint64_t device;
	int64_t registered_ms, first_ms, next_ms;
	UT_hash_handle hh;
};

struct push_hot {
	uint64_t device;
	int64_t until_ms;             /* monotonic */
	UT_hash_handle hh;
};

struct push_said {
	struct push_said *next;
	uint64_t said;
	uint8_t *data;
	size_t len;
};

struct bridge {
	const struct push_driver *driver;
	void *handle;                 /* the driver's */
	struct service *service;
	struct push_host host;
	struct push_app **apps;
	size_t n_apps;
	char *state_dir, *outbox_path, *metrics_path, *topic, *topic_up;

	struct outbox *outbox;
	bool open, trouble, draining;
	struct push_queue *queue;
	struct push_ids ids;
	struct push_stats stats;
	struct push_out *out;         /* by row */
	size_t pending;               /* jobs in INSERTs under way */
	size_t turn;                  /* the channel that is looked at first */

	struct push_job *asks[BRIDGE_ASKS]; /* by id % BRIDGE_ASKS */
	int64_t asked_ms[BRIDGE_ASKS];
	uint64_t ask;                 /* the last id */
	size_t n_asks;
	struct push_job *to_ask[BRIDGE_ASKS]; /* not in a frame yet */
	size_t n_to_ask;

	uint64_t session;             /* one more when the service or the bus is another */
	bool greeted;
	bool any_frame;               /* the next may have any number */
	uint64_t taken, stored, stored_told; /* frames of this service */
	bool full;
	char start[17], service_start[33];

	struct push_suspect *suspects;
	struct push_hot *hot;
	struct push_said *said, **said_last, *said_next; /* not heard; the next to be said */
	size_t n_said;
	int64_t said_ms;

	struct im_timer *tick, *hello, *metrics;
	struct im_after *after;
};

int64_t bridge_now(const struct bridge *b); /* the loop's, monotonic */

/* ---- frame.c */
void frame_greet(struct bridge *b);              /* hello, and again until it is answered */
void frame_take(struct bridge *b, const void *data, size_t len);
void frame_flush(struct bridge *b);              /* asks, confirmations and verdicts that have come together in this turn */
void frame_lost(struct bridge *b);               /* the bus fell */
void frame_room(struct bridge *b);               /* the outbox may have room again */
void frame_answer(struct bridge *b, uint64_t id, char *json); /* takes over the text */

/* ---- flow.c */
bool flow_take(struct bridge *b, Im__Push__Job **jobs, size_t n, uint64_t frame); /* false: no room */
bool flow_load(struct bridge *b, struct outbox_start *s);
void flow_pump(struct bridge *b);                /* asks for what may be sent */
void flow_ticket(struct bridge *b, Im__Push__Ticket *t); /* takes it over */
void flow_unask(struct bridge *b, struct push_job *j); /* its question was lost: back in line */
void flow_result(void *arg, uint64_t row, const struct push_result *r);
void flow_tick(struct bridge *b);                /* what is due, expired, not answered */
void flow_hurry(struct bridge *b, const char *why); /* jobs held for this reason are due */
void flow_finish(struct bridge *b);              /* frees what is out */

/* ---- tokens.c */
void tokens_load(struct bridge *b, struct outbox_start *s);
int64_t tokens_hot_until(struct bridge *b, const struct push_job *j); /* 0: not hot */
void tokens_heat(struct bridge *b, const struct push_job *j, int64_t ms);
void tokens_cool(struct bridge *b);              /* now and then: those of devices that nobody writes to any more */
struct push_suspect *tokens_suspect(struct bridge *b, const struct push_job *j, int64_t registered_ms); /* of this registration, or NULL */
bool tokens_is_suspect(struct bridge *b, const struct push_job *j); /* of any registration: what a start knows */
/* What the step says of the token; fills the op's verdict if the service must hear. */
void tokens_judge(struct bridge *b, const struct push_out *o, const struct push_step *s, const struct push_result *r, struct outbox_op *op);
void tokens_say(struct bridge *b, struct outbox_op *op); /* its verdict is durable */
void tokens_heard(struct bridge *b, uint64_t said);
void tokens_absolve(struct bridge *b);
void tokens_finish(struct bridge *b);

/* ---- query.c */
void query_take(struct bridge *b, const Im__Push__Query *q);
void query_print(struct bridge *b, struct im_buf *out); /* gauges */

#endif
