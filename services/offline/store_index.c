#include "store_index.h"
#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"
#include "store_rows.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define BATCH_ENTRIES 10000u  /* of one transaction: large enough that every page of the trees is written once for many rows */
#define BATCH_DELAY_MS 200    /* entries wait so long for company; reads see them in memory meanwhile */
#define IDLE_MS 1000          /* with nothing to do it looks around so often */
#define RETRY_MS 1000         /* after an error of the database */
#define WAL_PAGES 1024        /* 4 MiB: then a checkpoint is due. The log shares the disk: behind 32 MiB its syncs waited half a second */
#define NICENESS 5            /* rows are behind anyway; acks are not */
#define CHECKPOINT_IDLE_MS 5000 /* ... or after so long, if log segments wait for it */

struct store_index {
	struct store_db *db;
	struct store_rows *rows;
	index_wake_fn *wake;
	void *arg;
	uint64_t applied;
	int64_t checkpoint_ms;
	bool checkpoint_due;

	struct store_log *log;
	pthread_t thread;
	bool running;
	pthread_mutex_t mutex; /* over the rest */
	pthread_cond_t given;
	struct append_queue waiting, done;
	bool stop;
	int64_t stop_by_ms;
};

/* ---- one transaction */

static bool apply_all(struct store_index *ix, const struct append_queue *batch, uint64_t end)
{
	bool ok = store_rows_apply(ix->rows, batch);

	IM_KILLPOINT("index.in_transaction");
	return ok && store_rows_write(ix->rows) &&
	       store_db_meta_set(ix->db, "applied", &end, sizeof(end)) && store_db_exec(ix->db, DB_COMMIT);
}

enum im_status store_index_apply(struct store_index *ix, const struct append_queue *batch,
				 uint64_t end, struct im_err *err)
{
	enum im_status st = IM_OK;

	if (!store_db_exec(ix->db, DB_BEGIN))
		return store_db_fail(ix->db, err, "write");
	if (!apply_all(ix, batch, end)) {
		st = store_db_fail(ix->db, err, "write");
		(void)store_db_exec(ix->db, DB_ROLLBACK); /* SQLite may have done it already */
		store_rows_forget(ix->rows);
		return st;
	}
	IM_KILLPOINT("index.after_commit");
	ix->applied = end;
	ix->checkpoint_due = true;
	return st;
}

enum im_status store_index_checkpoint(struct store_index *ix, struct im_err *err)
{
	int in_wal = 0, done = 0, rc;

	if (store_db_sync_failed(ix->db))
		return im_fail(err, IM_FAILED, "a sync of the database has failed: it must be opened anew");
	ix->checkpoint_ms = im_clock_mono_ms();
	IM_KILLPOINT("index.before_checkpoint");
	rc = sqlite3_wal_checkpoint_v2(store_db_handle(ix->db), NULL, SQLITE_CHECKPOINT_PASSIVE, &in_wal, &done);
	if (rc != SQLITE_OK && rc != SQLITE_BUSY)
		return store_db_fail(ix->db, err, "checkpoint");
	/* SQLite syncs the database file only after a complete one: with less, the log must stay. */
	if (rc == SQLITE_BUSY || in_wal != done)
		return IM_BUSY;
	IM_KILLPOINT("index.after_checkpoint");
	ix->checkpoint_due = false;
	return IM_OK;
}

/* ---- the thread */

static int on_wal(void *arg, sqlite3 *handle, const char *name, int pages)
{
	struct store_index *ix = arg;

	(void)handle;
	(void)name;
	if (pages >= WAL_PAGES)
		ix->checkpoint_ms = 0; /* overdue */
	return SQLITE_OK;
}

static void checkpoint_if_due(struct store_index *ix)
{
	int64_t now = im_clock_mono_ms();
	struct im_err err = { "" };
	enum im_status st;

	if (!ix->checkpoint_due || (ix->checkpoint_ms != 0 && (now - ix->checkpoint_ms < CHECKPOINT_IDLE_MS || store_log_segments(ix->log) < 2)))
		return;
	st = store_index_checkpoint(ix, &err);
	if (st == IM_OK)
		store_log_trim(ix->log, ix->applied);
	else if (st != IM_BUSY)
		im_log(IM_LOG_WARNING, "evt=checkpoint_failed error=\"%s\" instead=\"the log is kept\"", err.text);
}

/* Waits until `until_ms` or the stop; with `full_batch`, until there is one. Mutex held. */
static void wait_until(struct store_index *ix, int64_t until_ms, bool full_batch)
{
	for (;;) {
		int64_t left = until_ms - im_clock_mono_ms();
		struct timespec ts;

		if (left <= 0 || ix->stop || (full_batch && ix->waiting.n >= BATCH_ENTRIES))
			return;
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_sec += left / 1000;
		ts.tv_nsec += left % 1000 * 1000000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_sec++;
			ts.tv_nsec -= 1000000000;
		}
		(void)pthread_cond_timedwait(&ix->given, &ix->mutex, &ts); /* the time is looked at above */
	}
}

static void take_batch(struct store_index *ix, struct append_queue *batch)
{
	while (ix->waiting.first && batch->n < BATCH_ENTRIES)
		append_queue_put(batch, append_queue_take(&ix->waiting));
}

static uint64_t batch_end(const struct append_queue *batch)
{
	const struct append *a = batch->first;

	while (a->next)
		a = a->next;
	return a->end;
}

/* Tries until it works or the time to stop is over. Mutex not held. */
static bool apply_stubbornly(struct store_index *ix, const struct append_queue *batch)
{
	uint64_t end = batch_end(batch);
	bool said = false, stopping, over;
	struct im_err err;

	while (store_index_apply(ix, batch, end, &err) != IM_OK) {
		if (store_db_sync_failed(ix->db)) {
			im_log(IM_LOG_ERROR, "evt=index_failed error=\"%s\"", err.text);
			return false;
		}
		if (!said)
			im_log(IM_LOG_ERROR, "evt=index_failed error=\"%s\" instead=\"the log grows; tried every second\"", err.text);
		said = true;
		pthread_mutex_lock(&ix->mutex);
		wait_until(ix, im_clock_mono_ms() + RETRY_MS, false);
		stopping = ix->stop;
		over = stopping && im_clock_mono_ms() >= ix->stop_by_ms;
		pthread_mutex_unlock(&ix->mutex);
		if (over)
			return false;
		if (stopping) {
			const struct timespec pause = { 0, 50 * 1000000L };

			nanosleep(&pause, NULL); /* stopping: no point in waiting a whole second for a disk */
		}
	}
	if (said)
		im_log(IM_LOG_NOTICE, "evt=index_recovered");
	return true;
}

static void *index_thread(void *arg)
{
	struct store_index *ix = arg;
	struct append_queue batch;
	bool ok = true;

	append_queue_init(&batch);
	(void)setpriority(PRIO_PROCESS, 0, NICENESS); /* on Linux of this thread alone; a wish */
	pthread_mutex_lock(&ix->mutex);
	while (ok && (!ix->stop || ix->waiting.first) && (!ix->stop || im_clock_mono_ms() < ix->stop_by_ms)) {
		wait_until(ix, im_clock_mono_ms() + (ix->waiting.first ? BATCH_DELAY_MS : IDLE_MS), true);
		take_batch(ix, &batch);
		pthread_mutex_unlock(&ix->mutex);
		if (batch.first)
			ok = apply_stubbornly(ix, &batch);
		store_log_prepare(ix->log);
		if (ok)
			checkpoint_if_due(ix);
		if (store_db_sync_failed(ix->db)) {
			store_log_end(ix->log, "a sync of the database has failed");
			ok = false;
		}
		pthread_mutex_lock(&ix->mutex);
		if (!ok) {
			append_queue_move(&ix->waiting, &batch); /* without rows: memory keeps it */
		} else if (batch.first) {
			append_queue_move(&ix->done, &batch);
			pthread_mutex_unlock(&ix->mutex);
			ix->wake(ix->arg);
			pthread_mutex_lock(&ix->mutex);
		}
	}
	pthread_mutex_unlock(&ix->mutex);
	return NULL;
}

void store_index_give(struct store_index *ix, struct append_queue *q)
{
	bool wake;

	pthread_mutex_lock(&ix->mutex);
	append_queue_move(&ix->waiting, q);
	wake = ix->waiting.n >= BATCH_ENTRIES;
	pthread_mutex_unlock(&ix->mutex);
	if (wake)
		pthread_cond_signal(&ix->given);
}

void store_index_take(struct store_index *ix, struct append_queue *out)
{
	pthread_mutex_lock(&ix->mutex);
	append_queue_move(out, &ix->done);
	pthread_mutex_unlock(&ix->mutex);
}

/* ---- opening and closing */

struct store_db *store_index_db(struct store_index *ix)
{
	return ix->db;
}

uint64_t store_index_applied(const struct store_index *ix)
{
	return ix->applied;
}

enum im_status store_index_open(const char *path, unsigned dedupe_days, index_wake_fn *wake, void *arg,
				struct store_index **out, struct im_err *err)
{
	struct store_index *ix = calloc(1, sizeof(*ix));
	pthread_condattr_t attr;
	enum im_status st;

	if (!ix)
		return im_fail(err, IM_FAILED, "out of memory");
	ix->wake = wake;
	ix->arg = arg;
	append_queue_init(&ix->waiting);
	append_queue_init(&ix->done);
	pthread_mutex_init(&ix->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ix->given, &attr);
	pthread_condattr_destroy(&attr);
	st = store_db_open(path, true, &ix->db, err);
	if (st == IM_OK && !(ix->rows = store_rows_create(ix->db, dedupe_days)))
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st != IM_OK) {
		store_index_close(ix);
		return st;
	}
	(void)store_db_meta_get(ix->db, "applied", &ix->applied, sizeof(ix->applied)); /* a new store has none: 0 */
	sqlite3_wal_hook(store_db_handle(ix->db), on_wal, ix);
	*out = ix;
	return IM_OK;
}

enum im_status store_index_start(struct store_index *ix, struct store_log *log, struct im_err *err)
{
	int rc;

	ix->log = log;
	ix->checkpoint_ms = im_clock_mono_ms();
	rc = pthread_create(&ix->thread, NULL, index_thread, ix);
	if (rc != 0)
		return im_fail(err, IM_FAILED, "cannot start the indexer's thread: %s", strerror(rc));
	ix->running = true;
	return IM_OK;
}

void store_index_stop(struct store_index *ix, unsigned ms)
{
	struct im_err err;

	if (!ix->running)
		return;
	pthread_mutex_lock(&ix->mutex);
	ix->stop = true;
	ix->stop_by_ms = im_clock_mono_ms() + ms;
	pthread_cond_signal(&ix->given);
	pthread_mutex_unlock(&ix->mutex);
	pthread_join(ix->thread, NULL);
	ix->running = false;
	if (store_index_checkpoint(ix, &err) != IM_OK)
		return; /* the next opening replays */
	store_log_trim(ix->log, ix->applied);
	(void)store_db_fold_on_close(ix->db, true); /* only tidies up: the write-ahead log goes */
}

void store_index_close(struct store_index *ix)
{
	struct append *a;

	if (!ix)
		return;
	while ((a = append_queue_take(&ix->waiting)) || (a = append_queue_take(&ix->done)))
		append_unref(a);
	store_rows_destroy(ix->rows);
	store_db_close(ix->db);
	pthread_cond_destroy(&ix->given);
	pthread_mutex_destroy(&ix->mutex);
	free(ix);
}
