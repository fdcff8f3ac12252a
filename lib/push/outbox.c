/*
 * The thread. The difficult idea is that a batch is all or nothing and is never given up: on a failure it is rolled back and run again
 * as a whole a second later, in the same order, so no answer can overtake or outlive the row it is about.
 */
#include "push/outbox.h"

#include "base/clock.h"
#include "base/log.h"
#include "push/job.h"
#include "push/outbox_db.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PURGE_EVERY_MS 200 /* 25,000 rows a second: more than come */
#define IDLE_MS 1000
#define TOLD_AGAIN_MS 60000 /* a lasting failure is told once a minute */

struct op_list {
	struct outbox_op *first, **last;
	size_t n;
};

struct outbox {
	struct outbox_events events;
	void *arg;
	struct im_wake *wake;
	char *path;
	uint64_t finals_most;
	uint64_t waiting;             /* loop's thread */
	bool opened_told, trouble_told;

	pthread_t thread;
	bool running;
	pthread_mutex_t mutex;
	pthread_cond_t given;
	struct op_list queue, done;   /* under the mutex, as all below */
	struct outbox_start start;
	bool opened, stop, trouble, broken, for_good;
	char why[256];
	uint64_t commits;

	struct outbox_db *db;         /* the thread's own, as all below */
	uint64_t finals;
	int64_t told_ms, purged_ms;
};

static void list_init(struct op_list *l)
{
	l->first = NULL;
	l->last = &l->first;
	l->n = 0;
}

static void list_put(struct op_list *l, struct outbox_op *op)
{
	op->next = NULL;
	*l->last = op;
	l->last = &op->next;
	l->n++;
}

static struct outbox_op *list_take(struct op_list *l)
{
	struct outbox_op *op = l->first;

	if (!op)
		return NULL;
	l->first = op->next;
	l->n--;
	if (!l->first)
		l->last = &l->first;
	return op;
}

static void list_move(struct op_list *to, struct op_list *from, size_t most)
{
	while (most-- && from->first)
		list_put(to, list_take(from));
}

/* ---- the thread's side */

/* Under the mutex: waits for work, or for so long. */
static void wait_ms(struct outbox *o, int64_t ms)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail */
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_cond_timedwait(&o->given, &o->mutex, &until); /* what there is to do is looked at anew */
}

static void tell_trouble(struct outbox *o, const char *why)
{
	int64_t now = im_clock_mono_ms();

	if (!o->told_ms || now - o->told_ms >= TOLD_AGAIN_MS) {
		im_log(IM_LOG_ERROR, "evt=outbox path=%s why=\"%s\": nothing is taken or sent until it can be written; trying every second", o->path, why);
		o->told_ms = now;
	}
	pthread_mutex_lock(&o->mutex);
	o->trouble = true;
	(void)snprintf(o->why, sizeof(o->why), "%s", why);
	pthread_mutex_unlock(&o->mutex);
	im_wake_send(o->wake);
}

static void tell_fine(struct outbox *o)
{
	if (!o->told_ms)
		return;
	o->told_ms = 0;
	im_log(IM_LOG_NOTICE, "evt=outbox path=%s: written again", o->path);
	pthread_mutex_lock(&o->mutex);
	o->trouble = false;
	pthread_mutex_unlock(&o->mutex);
}

static void tell_broken(struct outbox *o, const char *why, bool for_good)
{
	pthread_mutex_lock(&o->mutex);
	o->broken = true;
	o->for_good = for_good;
	(void)snprintf(o->why, sizeof(o->why), "%s", why);
	pthread_mutex_unlock(&o->mutex);
	im_wake_send(o->wake);
}

static void set_aside(struct outbox *o, const char *why)
{
	static const char *const ends[] = {"", "-wal", "-shm"};
	char *from, *to;

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		if (asprintf(&from, "%s%s", o->path, ends[i]) < 0)
			return;
		if (asprintf(&to, "%s.damaged%s", o->path, ends[i]) < 0) {
			free(from);
			return;
		}
		if (rename(from, to) < 0 && errno != ENOENT)
			im_log(IM_LOG_ERROR, "evt=outbox_damaged path=%s why=\"%s\": cannot be set aside", from, strerror(errno));
		free(from);
		free(to);
	}
	im_log(IM_LOG_ERROR,
	       "evt=outbox_damaged path=%s why=\"%s\": set aside as %s.damaged, beginning with an empty one. Pushes that waited in it are not sent; "
	       "the messages are safe and come when the devices connect",
	       o->path, why, o->path);
}

static enum im_status open_file(struct outbox *o, struct outbox_start *start, struct im_err *err)
{
	enum im_status st = outbox_db_open(o->path, &o->db, err);

	if (st == IM_OK)
		st = outbox_db_load(o->db, start, err);
	if (st == IM_OK)
		return st;
	outbox_db_close(o->db);
	o->db = NULL;
	for (size_t i = 0; i < start->n_jobs; i++)
		push_job_free(start->jobs[i]);
	outbox_start_free(start);
	memset(start, 0, sizeof(*start));
	return st;
}

/* Until it is open or we are to stop. false: it never will be. */
static bool open_patiently(struct outbox *o)
{
	struct outbox_start start = {0};
	struct im_err err = {""};
	bool aside = false, stop = false;
	enum im_status st;

	while ((st = open_file(o, &start, &err)) != IM_OK && !stop) {
		if (st == IM_BAD_INPUT || (st == IM_EXISTS && aside)) {
			tell_broken(o, err.text, st == IM_BAD_INPUT);
			return false;
		}
		if (st == IM_EXISTS) {
			set_aside(o, err.text);
			aside = true;
			continue;
		}
		tell_trouble(o, err.text);
		pthread_mutex_lock(&o->mutex);
		if (!o->stop)
			wait_ms(o, OUTBOX_RETRY_MS);
		stop = o->stop;
		pthread_mutex_unlock(&o->mutex);
	}
	if (st != IM_OK)
		return false;
	tell_fine(o);
	start.set_aside = aside;
	o->finals = start.finals;
	pthread_mutex_lock(&o->mutex);
	o->start = start;
	o->opened = true;
	pthread_mutex_unlock(&o->mutex);
	im_wake_send(o->wake);
	return true;
}

static bool run_batch(struct outbox *o, const struct op_list *batch)
{
	uint64_t ended = 0;

	if (!outbox_db_begin(o->db))
		return false;
	for (struct outbox_op *op = batch->first; op; op = op->next) {
		if (!outbox_db_run(o->db, op))
			return false;
		ended += op->kind == OUTBOX_STATE && push_state_is_final(op->state);
	}
	if (!outbox_db_commit(o->db))
		return false;
	o->finals += ended;
	return true;
}

/* false: it stays to be done. */
static bool write_batch(struct outbox *o, struct op_list *batch)
{
	if (run_batch(o, batch)) {
		tell_fine(o);
		pthread_mutex_lock(&o->mutex);
		list_move(&o->done, batch, SIZE_MAX);
		o->commits++;
		pthread_mutex_unlock(&o->mutex);
		im_wake_send(o->wake);
		return true;
	}
	if (outbox_db_trouble(o->db) == OUTBOX_DAMAGED)
		tell_broken(o, outbox_db_error(o->db), false);
	else
		tell_trouble(o, outbox_db_error(o->db));
	outbox_db_rollback(o->db);
	return false;
}

static void purge(struct outbox *o)
{
	int64_t now = im_clock_mono_ms();

	if (now - o->purged_ms < PURGE_EVERY_MS)
		return;
	o->purged_ms = now;
	if (!outbox_db_purge(o->db, im_clock_wall_ms() - OUTBOX_KEEP_MS, o->finals_most, &o->finals))
		im_log(IM_LOG_DEBUG, "evt=outbox_purge why=\"%s\": later", outbox_db_error(o->db));
}

static void *thread_main(void *arg)
{
	struct outbox *o = arg;
	struct op_list batch;
	bool last = false;

	list_init(&batch);
	if (!open_patiently(o))
		return NULL;
	for (;;) {
		pthread_mutex_lock(&o->mutex);
		while (!batch.first && !o->queue.first && !o->stop) {
			wait_ms(o, IDLE_MS);
			if (!o->queue.first)
				break; /* idle: time to tidy */
		}
		if (batch.first && !last)
			wait_ms(o, OUTBOX_RETRY_MS); /* it failed before */
		if (!batch.first)
			list_move(&batch, &o->queue, OUTBOX_BATCH);
		last = o->stop;
		pthread_mutex_unlock(&o->mutex);
		if (batch.first && !write_batch(o, &batch) && last)
			break; /* tried a last time */
		if (!batch.first && last)
			break;
		purge(o);
	}
	pthread_mutex_lock(&o->mutex);
	list_move(&o->done, &batch, SIZE_MAX); /* to be freed, not answered */
	pthread_mutex_unlock(&o->mutex);
	return NULL;
}

/* ---- the loop's side */

static void answer(struct outbox *o, struct outbox_op *op)
{
	o->waiting--;
	op->done(op->arg, op);
}

static void on_wake(void *arg)
{
	struct outbox *o = arg;
	struct outbox_start start = {0};
	bool opened, trouble, broken;
	struct op_list done;
	struct outbox_op *op;
	char why[256];

	list_init(&done);
	pthread_mutex_lock(&o->mutex);
	opened = o->opened && !o->opened_told;
	if (opened)
		start = o->start;
	trouble = o->trouble;
	broken = o->broken;
	memcpy(why, o->why, sizeof(why));
	list_move(&done, &o->done, SIZE_MAX);
	pthread_mutex_unlock(&o->mutex);
	if (opened) {
		o->opened_told = true;
		o->events.opened(o->arg, &start);
		outbox_start_free(&start);
	}
	if (trouble != o->trouble_told) {
		o->trouble_told = trouble;
		o->events.trouble(o->arg, trouble ? why : NULL);
	}
	while ((op = list_take(&done)))
		answer(o, op);
	if (broken)
		o->events.broken(o->arg, why, o->for_good);
}

static enum im_status start_thread(struct outbox *o, struct im_err *err)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
	rc = pthread_create(&o->thread, NULL, thread_main, o);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	o->running = rc == 0;
	return rc == 0 ? IM_OK : im_fail(err, IM_FAILED, "cannot start the outbox's thread: %s", strerror(rc));
}

enum im_status outbox_create(struct im_loop *loop, const char *path, uint64_t finals_most, const struct outbox_events *events, void *arg,
			     struct outbox **out, struct im_err *err)
{
	struct outbox *o = calloc(1, sizeof(*o));
	pthread_condattr_t monotonic;
	enum im_status st;

	if (!o)
		return im_fail(err, IM_FAILED, "out of memory");
	o->events = *events;
	o->arg = arg;
	o->finals_most = finals_most;
	list_init(&o->queue);
	list_init(&o->done);
	(void)pthread_mutex_init(&o->mutex, NULL); /* these cannot fail on Linux */
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&o->given, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
	o->path = strdup(path);
	o->wake = im_wake_create(loop, on_wake, o);
	st = o->path && o->wake ? start_thread(o, err) : im_fail(err, IM_FAILED, "out of memory");
	if (st != IM_OK) {
		outbox_destroy(o);
		return st;
	}
	*out = o;
	return IM_OK;
}

void outbox_destroy(struct outbox *o)
{
	if (!o)
		return;
	if (o->running) {
		pthread_mutex_lock(&o->mutex);
		o->stop = true;
		pthread_cond_signal(&o->given);
		pthread_mutex_unlock(&o->mutex);
		(void)pthread_join(o->thread, NULL); /* cannot fail: it is ours and not joined yet */
	}
	for (struct outbox_op *op; (op = list_take(&o->done)) || (op = list_take(&o->queue));)
		free(op->verdict);
	im_wake_destroy(o->wake);
	outbox_db_close(o->db);
	free(o->path);
	(void)pthread_mutex_destroy(&o->mutex);
	(void)pthread_cond_destroy(&o->given);
	free(o);
}

void outbox_give(struct outbox *o, struct outbox_op *op)
{
	o->waiting++;
	pthread_mutex_lock(&o->mutex);
	list_put(&o->queue, op);
	pthread_cond_signal(&o->given);
	pthread_mutex_unlock(&o->mutex);
}

uint64_t outbox_waiting(const struct outbox *o)
{
	return o->waiting;
}

uint64_t outbox_commits(struct outbox *o)
{
	uint64_t n;

	pthread_mutex_lock(&o->mutex);
	n = o->commits;
	pthread_mutex_unlock(&o->mutex);
	return n;
}
