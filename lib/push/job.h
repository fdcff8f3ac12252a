/*
 * A job as the bridge has it in memory: what the message service asked for, and how far it has got. One allocation, about 400 bytes;
 * im_push_outbox bounds how many there are. It is in exactly one place (queue.h), and has at most one write of its own under way.
 */
#ifndef IM_PUSH_JOB_H
#define IM_PUSH_JOB_H

#include "push/outbox.h"
#include "push/state.h"

#define PUSH_JOB_TEXT_MAX 4096u /* names of a job together: key, user, device, app, conversation */

struct push_channel;
struct push_lane;
struct push_out;

enum push_place {
	PUSH_PLACE_NONE,
	PUSH_PLACE_STORING, /* not durable yet */
	PUSH_PLACE_WAITING, /* until due_ms */
	PUSH_PLACE_READY,   /* in its user's line */
	PUSH_PLACE_ASKED,   /* the service is asked for a ticket */
	PUSH_PLACE_OUT,     /* being marked INFLIGHT, or at the driver */
	PUSH_PLACE_WRITING, /* its next state is being written */
};

struct push_job {
	uint64_t row;                 /* 0: not stored yet */
	enum push_state state;        /* as written */
	struct push_life life;
	const char *why;              /* of HELD: static text */

	Im__Push__Kind kind;
	bool mention;
	uint64_t seq, since_seq;      /* oldest that it stands for; 0 = itself alone */
	int64_t created_ms, not_before_ms, deadline_ms; /* UTC */
	const char *key, *user, *device, *app, *conv;   /* in text */

	enum push_place place;
	struct push_channel *channel;
	struct push_lane *lane;       /* NULL: is not coalesced */
	struct user_line *line;       /* READY */
	struct push_job *prev, *next; /* in it */
	struct push_job *all_prev, *all_next;
	size_t due_at, deadline_at;   /* in the heaps, 1-based; 0 = not in it */
	int64_t due_ms, end_ms;       /* monotonic */
	uint64_t user_hash, device_hash;
	uint64_t ask;                 /* ASKED: id */
	struct push_out *out;         /* OUT */
	char text[];
};

/* What is wrong with it, or NULL. */
const char *push_job_problem(const Im__Push__Job *j);
/* A copy; ttl_ms: its life if it says none. NULL: out of memory. */
struct push_job *push_job_create(const Im__Push__Job *j, int64_t ttl_ms);
void push_job_free(struct push_job *j); /* NULL is fine */
/* As a message, borrowing from the job. */
void push_job_message(const struct push_job *j, Im__Push__Job *out);

#endif
