/*
 * The outbox: a SQLite file and the thread that alone touches it. What the loop gives is done in order, all that waits in one
 * transaction with one sync, and handed back when it is durable - never before, so `stored` and INFLIGHT mean what they say.
 *
 * A disk that is full or read-only is waited out: what was given stays given and is tried again every second; nothing is confirmed
 * meanwhile. A file that is damaged is set aside at the opening, loudly, and an empty one takes its place: its jobs are pushes that
 * do not come, never messages.
 */
#ifndef IM_PUSH_OUTBOX_H
#define IM_PUSH_OUTBOX_H

#include "io/loop.h"
#include "push/state.h"

#define OUTBOX_KEEP_MS 86400000  /* final states, for imctl push */
#define OUTBOX_RETRY_MS 1000     /* after a write that failed */
#define OUTBOX_BATCH 4000u       /* operations of a transaction: more would make the first of them wait */
#define OUTBOX_SHOWN 100u        /* rows of one question */

struct outbox;
struct push_job;

enum outbox_op_kind {
	OUTBOX_INSERT,   /* jobs[0..n): row is set, 0 for one that was known: the caller drops it */
	OUTBOX_STATE,    /* of `job`: row, state, life, due, why ... */
	OUTBOX_HEARD,    /* verdicts up to `number` are forgotten */
	OUTBOX_SUSPECT,  /* remembers first_ms and next_ms of `token`; first_ms 0: forgets it */
	OUTBOX_ABSOLVE,  /* forgets all suspects */
	OUTBOX_FIND,     /* fills `found` with the newest rows that the question means */
};

struct outbox_token {          /* whose token, and which of its registrations */
	char *user, *device, *app;
	int64_t registered_ms;
	int64_t first_ms, next_ms; /* suspected first; asked again from then on (UTC) */
};

struct outbox_found {
	char key[128], device[256], app[65], reason[PUSH_REASON_MAX], provider_id[PUSH_REASON_MAX];
	enum push_state state;
	struct push_life life;
	int64_t created_ms, due_ms, done_ms;
	uint64_t row, into;
};

struct outbox_question {       /* empty or 0: any */
	char user[128], device[256], conv[256];
	uint64_t seq;
};

struct outbox_op {
	struct outbox_op *next;
	enum outbox_op_kind kind;
	void (*done)(void *arg, struct outbox_op *op); /* on the loop, durable; the op is the caller's again */
	void *arg;

	struct push_job **jobs;        /* INSERT */
	size_t n;
	uint64_t number;               /* INSERT: frame; HEARD: said; after STATE with a verdict: its number */
	uint64_t session;              /* the caller's */

	struct push_job *job;          /* STATE: what it shall be */
	enum push_state state;
	struct push_life life;
	int64_t due_ms, done_ms;       /* UTC; 0 = none */
	uint64_t into, into_since;     /* COALESCED: into that row, which stands for this one too */
	char reason[PUSH_REASON_MAX], provider_id[PUSH_REASON_MAX];
	uint8_t *verdict;              /* a TokenVerdict to be said, or NULL; malloc'ed, `done` frees or keeps it */
	size_t verdict_len;

	struct outbox_token token;     /* SUSPECT; freed by the caller */

	const struct outbox_question *question; /* FIND */
	struct outbox_found *found;    /* malloc'ed, the caller frees */
	size_t n_found;
};

struct outbox_verdict {
	uint64_t said;
	uint8_t *data;
	size_t len;
};

/* What was in the file. The callee owns jobs, verdicts' data, tokens' texts; the arrays are freed behind it. */
struct outbox_start {
	struct push_job **jobs;        /* open ones, oldest first; what was INFLIGHT is READY, maybe_dup */
	size_t n_jobs, recovered;
	struct outbox_verdict *verdicts;
	size_t n_verdicts;
	struct outbox_token *suspects;
	size_t n_suspects;
	uint64_t finals;               /* rows in a final state */
	bool set_aside;                /* the old file was damaged */
};

struct outbox_events {
	void (*opened)(void *arg, struct outbox_start *s);
	/* The file cannot be written (why), or can again (NULL). Told once a change. */
	void (*trouble)(void *arg, const char *why);
	/* It is damaged, or a newer release's: the process ends. `for_good`: starting again does not help. */
	void (*broken)(void *arg, const char *why, bool for_good);
};

/* Opens in its thread; `opened` is called once, when the file is there. finals_most: more final rows than that are not kept. */
enum im_status outbox_create(struct im_loop *loop, const char *path, uint64_t finals_most, const struct outbox_events *events, void *arg,
			     struct outbox **out, struct im_err *err);
/* Writes what was given, as far as the disk lets it, and ends the thread. Nothing is called back any more. NULL is fine. */
void outbox_destroy(struct outbox *o);

void outbox_give(struct outbox *o, struct outbox_op *op);
uint64_t outbox_waiting(const struct outbox *o); /* given and not handed back: loop's thread */
uint64_t outbox_commits(struct outbox *o);

#endif
