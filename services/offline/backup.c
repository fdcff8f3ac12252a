/*
 * The loop's side of a backup: what must have happened before the thread begins, and what became of it. The thread shares only
 * what stands under "the thread's" below, and the loop touches that again when it has been joined.
 */
#include "backup.h"

#include "backup/backup.h"
#include "base/clock.h"
#include "base/log.h"
#include "store_backup.h"

#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define JOURNAL_MS 15000        /* for the journal's end to be stored: seconds even behind a burst */
#define JOURNAL_POLL_MS 20
#define NICENESS 10             /* acks and deliveries go first */
#define RESERVE (512ull << 20)  /* stays free on the instance's own disk: half an hour of a busy journal and log */
#define HEADER_MAX 512

struct lease_copy {
	uint64_t epoch, ceiling;
};

struct backup {
	struct im_loop *loop;
	const struct im_settings *settings;
	struct store *store;
	struct link *link;
	struct inbox *inbox;
	struct lease *lease;
	struct im_timer *timer;
	struct im_wake *wake;

	enum backup_state state;
	enum im_status why;
	char *path;
	bool replace, behind, joinable;
	uint64_t number;
	int64_t began_ms, took_ms;
	uint64_t epoch, end;       /* of the journal when it was asked for */
	struct query *query;       /* under way */

	/* The thread's. */
	pthread_t thread;
	struct lease_copy leases[IM_SECTIONS];
	char header[HEADER_MAX];
	struct store_dump dump;
	enum im_status result;
	struct im_err err;
	/* Shared. */
	_Atomic bool stop, over;
	_Atomic uint64_t bytes, rows, messages;
};

/* A question to the plugin outlives the job if that is destroyed first. */
struct query {
	struct backup *b;
};

/* ---- the thread */

static uint64_t reserve_for(const struct backup *b)
{
	struct stat there, here;
	char *dir = strdup(b->path), *slash = dir ? strrchr(dir, '/') : NULL;
	bool same;

	if (slash)
		slash[slash == dir] = '\0';
	same = !dir || stat(dir, &there) != 0 || stat(b->dump.db_path, &here) != 0 || there.st_dev == here.st_dev;
	free(dir);
	return same ? RESERVE : 0;
}

static enum im_status write_leases(struct backup *b, struct backup_writer *w)
{
	static const char *const columns[] = { "section", "epoch", "ceiling" };
	enum im_status st = backup_part(w, "lease", columns, 3, &b->err);

	for (uint32_t i = 0; i < IM_SECTIONS && st == IM_OK; i++) {
		struct backup_value row[3] = { { .type = BACKUP_INT, .integer = i },
					       { .type = BACKUP_INT, .integer = (int64_t)b->leases[i].epoch },
					       { .type = BACKUP_INT, .integer = (int64_t)b->leases[i].ceiling } };

		st = backup_row(w, row, &b->err);
	}
	return st == IM_OK ? backup_part_end(w, &b->err) : st;
}

static void on_progress(void *arg, uint64_t bytes, uint64_t rows)
{
	struct backup *b = arg;

	atomic_store(&b->bytes, bytes);
	atomic_store(&b->rows, rows);
}

static enum im_status copy(struct backup *b)
{
	struct backup_writer *w;
	enum im_status st = backup_create(b->path, b->replace, reserve_for(b), &w, &b->err);

	if (st != IM_OK)
		return st;
	backup_on_progress(w, on_progress, b);
	st = store_dump(&b->dump, w, &b->err);
	if (st == IM_OK)
		st = write_leases(b, w);
	if (st == IM_OK)
		return backup_commit(w, &b->err);
	backup_abandon(w);
	return st;
}

static void *thread_main(void *arg)
{
	struct backup *b = arg;

	(void)setpriority(PRIO_PROCESS, 0, NICENESS); /* on Linux of this thread alone; a wish */
	b->result = copy(b);
	atomic_store(&b->over, true);
	im_wake_send(b->wake);
	return NULL;
}

/* ---- states */

static void end(struct backup *b, enum im_status st)
{
	im_timer_stop(b->timer);
	b->state = st == IM_OK ? BACKUP_DONE : BACKUP_FAILED;
	b->why = st;
	b->took_ms = im_clock_mono_ms() - b->began_ms;
	if (st == IM_OK)
		im_log(IM_LOG_NOTICE, "evt=backup_done file=%s bytes=%llu messages=%llu ms=%lld behind=%d", b->path,
		       (unsigned long long)atomic_load(&b->bytes), (unsigned long long)atomic_load(&b->messages), (long long)b->took_ms, b->behind);
	else
		im_log(IM_LOG_ERROR, "evt=backup_failed file=%s why=\"%s\"", b->path, b->err.text);
}

static void on_wake(void *arg)
{
	struct backup *b = arg;

	if (!b->joinable || !atomic_load(&b->over))
		return;
	pthread_join(b->thread, NULL);
	b->joinable = false;
	end(b, b->result);
}

static void copy_lease(void *arg, uint32_t section, uint64_t epoch, uint64_t ceiling)
{
	struct backup *b = arg;

	b->leases[section] = (struct lease_copy){ epoch, ceiling };
}

/* Signals stay with the loop. */
static int start_thread(struct backup *b)
{
	sigset_t all, before;
	int e;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&b->thread, NULL, thread_main, b);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	b->joinable = e == 0;
	return e;
}

static void start_copying(struct backup *b)
{
	struct store_snapshot snapshot;
	int e;

	im_timer_stop(b->timer);
	if (!store_snapshot(b->store, &snapshot)) {
		end(b, im_fail(&b->err, IM_BAD_INPUT, "the store is kept in memory"));
		return;
	}
	lease_each(b->lease, copy_lease, b);
	(void)snprintf(b->header, sizeof(b->header), "created_ms=%lld\nversion=%s\nnode=%u\nbehind=%d\n", (long long)im_clock_wall_ms(),
		       IM_VERSION, b->settings->node, b->behind);
	b->dump = (struct store_dump){ .db_path = snapshot.db_path, .position = snapshot.position, .header = b->header,
				       .stop = &b->stop, .messages = &b->messages };
	b->state = BACKUP_COPYING;
	e = start_thread(b);
	if (e != 0)
		end(b, im_fail(&b->err, IM_FAILED, "cannot start a thread: %s", strerror(e)));
}

static void on_timer(void *arg)
{
	struct backup *b = arg;
	bool late = im_clock_mono_ms() - b->began_ms > JOURNAL_MS;

	if (b->query && !late)
		return;
	if (late || inbox_reached(b->inbox, b->settings->node, b->epoch, b->end)) {
		b->behind = late;
		start_copying(b);
	}
}

static void on_answer(void *arg, const char *answer)
{
	struct query *q = arg;
	struct backup *b = q->b;
	json_t *root = answer ? json_loads(answer, 0, NULL) : NULL, *journal = json_object_get(root, "journal");

	if (b && b->query == q) {
		b->query = NULL;
		b->epoch = (uint64_t)json_integer_value(json_object_get(journal, "epoch"));
		b->end = json_is_integer(json_object_get(journal, "end")) ? (uint64_t)json_integer_value(json_object_get(journal, "end")) :
									    UINT64_MAX; /* not known: the time goes by */
	}
	json_decref(root);
	free(q);
}

enum im_status backup_job_start(struct backup *b, const char *path, bool replace, struct im_err *err)
{
	struct store_snapshot snapshot;
	char *copy_of_path;
	struct query *q;

	if (b->state == BACKUP_JOURNAL || b->state == BACKUP_COPYING)
		return im_fail(err, IM_BUSY, "a backup to %.150s is under way", b->path);
	if (!store_snapshot(b->store, &snapshot))
		return im_fail(err, IM_BAD_INPUT, "the store is kept in memory (im_store): there is nothing to back up");
	copy_of_path = strdup(path);
	q = calloc(1, sizeof(*q));
	if (!copy_of_path || !q) {
		free(copy_of_path);
		free(q);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	free(b->path);
	b->path = copy_of_path;
	b->replace = replace;
	b->behind = false;
	b->number++;
	b->err.text[0] = '\0';
	atomic_store(&b->over, false);
	atomic_store(&b->bytes, 0);
	atomic_store(&b->rows, 0);
	atomic_store(&b->messages, 0);
	b->began_ms = im_clock_mono_ms();
	b->state = BACKUP_JOURNAL;
	im_log(IM_LOG_NOTICE, "evt=backup_begins file=%s", path);
	if (b->query)
		b->query->b = NULL;
	q->b = b;
	b->query = q;
	im_timer_start(b->timer, JOURNAL_POLL_MS, JOURNAL_POLL_MS);
	link_query(b->link, "{\"query\":\"status\"}", on_answer, q);
	return IM_OK;
}

void backup_job_status(struct backup *b, struct backup_status *out)
{
	bool busy = b->state == BACKUP_JOURNAL || b->state == BACKUP_COPYING;

	*out = (struct backup_status){ .state = b->state, .why = b->why, .error = b->err.text, .file = b->path ? b->path : "",
				       .behind = b->behind, .number = b->number, .bytes = atomic_load(&b->bytes),
				       .rows = atomic_load(&b->rows), .messages = atomic_load(&b->messages),
				       .took_ms = busy ? im_clock_mono_ms() - b->began_ms : b->took_ms };
}

enum im_status backup_job_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct link *link,
				 struct inbox *inbox, struct lease *lease, struct backup **out, struct im_err *err)
{
	struct backup *b = calloc(1, sizeof(*b));

	if (!b)
		return im_fail(err, IM_FAILED, "out of memory");
	b->loop = loop;
	b->settings = settings;
	b->store = store;
	b->link = link;
	b->inbox = inbox;
	b->lease = lease;
	b->timer = im_timer_create(loop, on_timer, b);
	b->wake = im_wake_create(loop, on_wake, b);
	if (!b->timer || !b->wake) {
		backup_job_destroy(b);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	*out = b;
	return IM_OK;
}

void backup_job_destroy(struct backup *b)
{
	if (!b)
		return;
	if (b->query)
		b->query->b = NULL;
	if (b->joinable) {
		atomic_store(&b->stop, true);
		pthread_join(b->thread, NULL);
	}
	im_timer_destroy(b->timer);
	im_wake_destroy(b->wake);
	free(b->path);
	free(b);
}
