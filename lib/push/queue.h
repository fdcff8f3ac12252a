/*
 * All open jobs in memory, and whose turn it is. No I/O; `now` is monotonic.
 *
 * A channel is an app in an environment: it has its breaker, its budget of retries and its guard, so that what is wrong with one holds
 * up no other. Within a channel users take turns: one with 100,000 jobs costs the others one place in the round. A lane is a
 * conversation on a device: of its jobs that were not sent yet only the newest stays, for all of them, and it waits for the
 * coalescing time; a mention does not wait and is not swallowed by what is none.
 */
#ifndef IM_PUSH_QUEUE_H
#define IM_PUSH_QUEUE_H

#include "push/breaker.h"
#include "push/guard.h"
#include "push/heap.h"
#include "push/job.h"

#define PUSH_BADGE_COALESCE_MS 10000 /* a number on an icon is not urgent */
#define PUSH_HOLD_MOST_MS 93600000   /* 26 h: a moment further away is a clock that was wrong */

struct push_queue;

struct push_channel {
	char app[PUSH_APP_NAME_MAX + 1];
	const char *env;              /* "" or static text of the driver */
	bool known;                   /* there is a file of this app; else its jobs wait for one */
	struct push_breaker breaker;
	struct push_budget budget;
	struct push_guard guard;
	unsigned under_way;           /* asked, or on their way to the driver: will take its room */
	unsigned out;                 /* at the driver */
	size_t ready;                 /* jobs in lines */
	struct user_line *lines;      /* by user */
	struct user_line *turn;       /* whose it is, in a ring; NULL: nothing is ready */
	int64_t told_ms;              /* the last alarm of it; 0 = none */
};

struct push_queue *push_queue_create(int64_t coalesce_ms); /* NULL: out of memory */
void push_queue_destroy(struct push_queue *q); /* frees the jobs in it; NULL is fine */
void push_queue_coalesce(struct push_queue *q, int64_t ms);

/* The channel; made if it is new. NULL: too many, or out of memory. */
struct push_channel *push_queue_channel(struct push_queue *q, const char *app, const char *env);
struct push_channel *push_queue_channel_at(struct push_queue *q, size_t i); /* NULL: no more */

/* A device's keyed hash, for holds. */
uint64_t push_queue_device(const struct push_queue *q, const char *user, const char *device, const char *app);

/* Room for so many jobs in all. false: out of memory. */
bool push_queue_reserve(struct push_queue *q, size_t n);
size_t push_queue_count(const struct push_queue *q); /* jobs in it, wherever they are */

/*
 * Takes over a job that is stored. Jobs that it stands for from now on are taken out and handed to `swallowed`, with
 * since_seq of `j` moved back; one by one, before it returns.
 */
typedef void push_swallow_fn(void *arg, struct push_job *old, struct push_job *by);
bool push_queue_add(struct push_queue *q, struct push_job *j, struct push_channel *c, int64_t now_ms, int64_t wall_ms, push_swallow_fn *swallowed,
		    void *arg); /* false: out of memory, it is still the caller's */

/* Whose turn it is; it is then in no line, and counts as under way; its lane waits from now on. NULL: nothing is ready. */
struct push_job *push_queue_next(struct push_queue *q, struct push_channel *c, int64_t now_ms);
/*
 * A job that was taken by push_queue_next comes back. Something newer of its lane may wait by now: it is returned, and stands for this
 * one. NULL: this one waits; push_queue_ready or push_queue_wait follows.
 */
struct push_job *push_queue_again(struct push_queue *q, struct push_job *j);
void push_queue_ready(struct push_queue *q, struct push_job *j, struct push_channel *c, int64_t now_ms); /* at the head of its user's line */
void push_queue_wait(struct push_queue *q, struct push_job *j, struct push_channel *c, int64_t due_ms, int64_t now_ms); /* at most PUSH_HOLD_MOST_MS */
void push_queue_hurry(struct push_queue *q, struct push_job *j, int64_t now_ms); /* a waiting one is due */
/* Out of it for good; the caller frees. */
void push_queue_remove(struct push_queue *q, struct push_job *j);

/* Moves what is due into lines, at most `most`. Hands out what is past its deadline and not under way: NULL: no more. */
void push_queue_due(struct push_queue *q, int64_t now_ms, size_t most);
struct push_job *push_queue_expired(struct push_queue *q, int64_t now_ms);
struct push_job *push_queue_first(const struct push_queue *q); /* of all, oldest first; then push_job.all_next */
size_t push_queue_lanes(const struct push_queue *q);

#endif
