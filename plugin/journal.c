/*
 * Opening and appending: the broker's thread's half of writing (journal.h). Reading is in journal_read.c, what
 * takes time in journal_thread.c, what happens after an error in journal_epoch.c.
 */
#include "journal.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"
#include "base/record.h"
#include "journal_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- open and close */

static void wake_thread(struct journal *j)
{
	(void)pthread_mutex_lock(&j->lock);
	(void)pthread_cond_signal(&j->wake);
	(void)pthread_mutex_unlock(&j->lock);
}

static enum im_status lock_dir(struct journal *j, struct im_err *err)
{
	char path[4096], *slash;

	if (mkdir(j->dir, 0700) != 0 && errno != EEXIST)
		return im_fail(err, IM_FAILED, "cannot create %.150s: %s", j->dir, strerror(errno));
	(void)snprintf(path, sizeof(path), "%s/lock", j->dir);
	j->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (j->lock_fd < 0)
		return im_fail(err, IM_FAILED, "cannot open %.150s: %s", path, strerror(errno));
	if (flock(j->lock_fd, LOCK_EX | LOCK_NB) != 0)
		return im_fail(err, IM_FAILED, "%.150s is in use by another broker", j->dir);
	(void)snprintf(path, sizeof(path), "%s", j->dir);
	slash = strrchr(path, '/');
	if (slash && slash != path) {
		*slash = '\0'; /* a folder that a power cut takes would take what was promised with it */
		if (segment_sync_dir(j->options.fs, path) != 0)
			return im_fail(err, IM_FAILED, "cannot sync %.150s: %s", path, strerror(errno));
	}
	return IM_OK;
}

/* At open there is nobody to disturb: the first segment is made here, at once. */
static enum im_status make_first(struct journal *j, uint64_t epoch, struct segment **out, struct im_err *err)
{
	const struct journal_fs *fs = j->options.fs;
	struct segment_making m = {NULL, 0};
	enum im_status st;

	st = segment_make_start(fs, j->dir, epoch, 0, j->options.segment_cap, &m, err);
	if (st != IM_OK)
		return st;
	do
		st = segment_make_step(fs, j->dir, &m, out, err);
	while (st == IM_BUSY);
	return st;
}

/*
 * What a killed broker left was never synced by it, or it was killed over a failed sync; then a sync says nothing about
 * it. Which of the two nobody knows: the newest epoch's end is written again, as far back as it may not have been
 * synced. So is what fails to sync now. What the disk does not take even then is in the page cache at best: nothing new is
 * accepted before the service has it.
 */
static void sync_found(struct journal *j, const struct journal_found *f, const struct segment_before *newest)
{
	for (struct segment *s = f->first; s; s = s->next) {
		bool again = s->epoch == newest->epoch && s->end + JOURNAL_TAIL_MAX > newest->end;
		int e = again ? segment_rewrite(j->options.fs, s) : segment_sync(j->options.fs, s->fd);

		j->kept += s->end - s->start;
		if (e == 0)
			continue;
		s->suspect = true;
		e = segment_rewrite(j->options.fs, s);
		if (e == 0)
			continue;
		j->unsafe = s->epoch;
		im_log(IM_LOG_ERROR, "evt=journal_sync_failed epoch=%" PRIu64 " index=%" PRIu32 " error=\"%s\" then=\"nothing new before the service has it\"",
		       s->epoch, s->index, strerror(e));
	}
}

/*
 * Oldest first, each durably gone before the next goes: one that is empty may say of the one before it that what it
 * holds was refused. What stays the next start finds as useless again.
 */
static void remove_useless(struct journal *j, const struct journal_found *f)
{
	char path[4096];

	for (size_t i = 0; i < f->n_useless; i++) {
		if (i > 0 && segment_sync_dir(j->options.fs, j->dir) != 0)
			return;
		segment_path(j->dir, f->useless[i].epoch, f->useless[i].index, path, sizeof(path));
		if (j->options.fs->unlink(path) != 0)
			return;
	}
}

static enum im_status begin(struct journal *j, struct journal_found *f, struct im_err *err)
{
	struct segment_before before = {f->last ? f->last->epoch : 0, f->last ? f->last->end : 0};
	struct segment *s = NULL;
	uint64_t kept;
	enum im_status st;
	int e;

	kept = journal_epoch_load(j->dir);
	st = make_first(j, journal_epoch_after(kept > f->seen ? kept : f->seen), &s, err);
	if (st != IM_OK)
		return st;
	journal_epoch_keep(j->dir, s->epoch);
	e = segment_activate(j->options.fs, s, 0, &before);
	if (e == 0)
		e = segment_sync(j->options.fs, s->fd);
	if (e != 0) {
		segment_remove(j->options.fs, j->dir, s);
		return im_fail(err, IM_FAILED, "cannot begin a new epoch in %.150s: %s", j->dir, strerror(e));
	}
	remove_useless(j, f);
	sync_found(j, f, &before);
	if (f->last)
		f->last->next = s;
	j->first = j->reap = f->first ? f->first : s;
	f->first = NULL; /* the list is the journal's now */
	j->current = j->last = j->sync_from = s;
	j->spare_epoch = s->epoch;
	j->spare_index = 1;
	j->hurried = j->options.start_grace_ms == 0;
	if (!j->hurried)
		j->retry_at_ms = im_clock_mono_ms() + j->options.start_grace_ms;
	return IM_OK;
}

/* The broker's signals stay with the broker's thread. */
static enum im_status start_thread(struct journal *j, struct im_err *err)
{
	sigset_t all, before;
	int e;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&j->thread, NULL, journal_thread_main, j);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (e != 0)
		return im_fail(err, IM_FAILED, "cannot start the journal's thread: %s", strerror(e));
	j->started = true;
	return IM_OK;
}

/* A file size limit must be an error like a full disk, not the broker's death. */
static void ignore_sigxfsz(void)
{
	struct sigaction sa;

	if (sigaction(SIGXFSZ, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL)
		(void)signal(SIGXFSZ, SIG_IGN);
}

static struct journal *journal_alloc(const struct journal_options *options)
{
	struct journal *j = calloc(1, sizeof(*j));
	pthread_condattr_t attr;

	if (!j)
		return NULL;
	j->lock_fd = -1;
	j->options = *options;
	(void)pthread_mutex_init(&j->lock, NULL); /* these two cannot fail on Linux */
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&j->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	j->dir = strdup(options->dir);
	if (j->dir)
		return j;
	journal_close(j);
	return NULL;
}

enum im_status journal_open_with(const struct journal_options *options, struct journal **out, struct im_err *err)
{
	struct journal *j = journal_alloc(options);
	struct journal_found found = {0};
	enum im_status st;

	if (!j)
		return im_fail(err, IM_FAILED, "out of memory for the journal");
	ignore_sigxfsz();
	st = lock_dir(j, err);
	if (st == IM_OK)
		st = journal_recover(options->fs, j->dir, &found, err);
	if (st == IM_OK)
		st = begin(j, &found, err);
	if (st == IM_OK)
		st = start_thread(j, err);
	if (st == IM_OK) {
		im_log(IM_LOG_NOTICE, "evt=journal_open epoch=%" PRIu64 " kept=%" PRIu64, j->current->epoch, j->kept);
		if (found.holes > 0)
			im_log(IM_LOG_WARNING, "evt=journal_torn epochs=%u note=\"they end at their last whole record\"", found.holes);
		*out = j;
		j = NULL;
	}
	journal_found_finish(&found);
	journal_close(j);
	return st;
}

enum im_status journal_open(const struct im_settings *settings, struct journal **out, struct im_err *err)
{
	struct journal_options o = {
		.limit = settings->journal_limit,
		.segment_cap = settings->segment_bytes,
		.durability = settings->durability,
		.fs = &journal_fs_real,
		.start_grace_ms = JOURNAL_START_GRACE_MS,
	};
	char dir[4096];

	if (o.segment_cap < im_record_size(IM_RECORD_MAX) + SEGMENT_PAGE)
		o.segment_cap = im_record_size(IM_RECORD_MAX) + SEGMENT_PAGE; /* any record fits into any segment */
	o.segment_cap -= SEGMENT_PAGE;
	(void)snprintf(dir, sizeof(dir), "%s/journal", settings->dir);
	o.dir = dir;
	return journal_open_with(&o, out, err);
}

void journal_close(struct journal *j)
{
	struct segment *s;

	if (!j)
		return;
	if (j->started) {
		if (atomic_load(&j->state) == JOURNAL_POISONED)
			(void)journal_settled(j); /* what it can still do, it does before it ends */
		(void)pthread_mutex_lock(&j->lock);
		j->stop = true;
		(void)pthread_cond_signal(&j->wake);
		(void)pthread_mutex_unlock(&j->lock);
		(void)pthread_join(j->thread, NULL);
	}
	segment_make_drop(j->options.fs, j->dir, &j->making);
	if (j->spare && !j->begun)
		segment_remove(j->options.fs, j->dir, j->spare);
	else
		segment_free(j->spare); /* it says where this epoch ended */
	while ((s = j->reap)) {
		j->reap = s->next;
		if (s->gone && s != j->current)
			segment_remove(j->options.fs, j->dir, s);
		else
			segment_free(s);
	}
	if (j->lock_fd >= 0)
		(void)close(j->lock_fd);
	(void)pthread_cond_destroy(&j->wake);
	(void)pthread_mutex_destroy(&j->lock);
	tail_finish(&j->tail);
	free(j->dir);
	free(j);
}

/* ---------------------------------------------------------------- append */

/* Takes the prepared segment if it is of the wanted kind: of this epoch, or the first of another that has begun. */
struct segment *journal_take_spare(struct journal *j, bool same_epoch)
{
	struct segment *s = NULL;

	(void)pthread_mutex_lock(&j->lock);
	if (j->spare && !j->turn && (same_epoch ? j->spare->epoch == j->current->epoch : j->begun)) {
		s = j->spare;
		j->spare = NULL;
		j->begun = false;
		j->spare_index++;
		(void)pthread_cond_signal(&j->wake);
	}
	(void)pthread_mutex_unlock(&j->lock);
	return s;
}

/* The sentence of the thread's last failure, if it has one. */
static const char *thread_says(struct journal *j, struct im_err *copy, const char *otherwise)
{
	(void)pthread_mutex_lock(&j->lock);
	*copy = j->failed;
	(void)pthread_mutex_unlock(&j->lock);
	return copy->text[0] ? copy->text : otherwise;
}

/* Goes on in the prepared segment. IM_BUSY: there is none yet. */
static enum im_status next_segment(struct journal *j)
{
	struct segment *old = j->current, *s = journal_take_spare(j, true);
	struct im_err copy;
	int e;

	if (!s)
		return im_fail(&j->why, IM_BUSY, "the journal's next segment is not ready: %s", thread_says(j, &copy, "it is being prepared"));
	e = segment_activate(j->options.fs, s, old->end, NULL);
	IM_KILLPOINT("journal.after_activate");
	if (e != 0) {
		journal_poison(j, "write", e);
		segment_remove(j->options.fs, j->dir, s);
		return im_fail(&j->why, IM_FAILED, "the journal cannot be written: %s", strerror(e));
	}
	(void)pthread_mutex_lock(&j->lock);
	old->next = s;
	j->current = j->last = s;
	j->hurried = false;
	if (old->confirmed == old->end && j->first == old) {
		old->gone = j->reapable = true;
		j->first = s;
	}
	(void)pthread_cond_signal(&j->wake);
	(void)pthread_mutex_unlock(&j->lock);
	return IM_OK;
}

static int64_t unsynced_age_ms(struct journal *j, int64_t now_us)
{
	int64_t syncing = atomic_load(&j->syncing_us), since = syncing ? syncing : atomic_load(&j->unsynced_us);

	return since == 0 ? 0 : (now_us - since) / 1000;
}

/* Whether all that was accepted before this start is on the disk or with the service. */
static bool past_is_safe(struct journal *j)
{
	if (j->unsafe && journal_confirmed(j, j->unsafe))
		j->unsafe = 0;
	return !j->unsafe;
}

/* Whether a record of this size may be written now; turns to the next segment or epoch if need be. */
static enum im_status make_room(struct journal *j, size_t size, int64_t now_us)
{
	struct im_err copy;

	if (atomic_load(&j->state) == JOURNAL_POISONED && !journal_reopen(j))
		return im_fail(&j->why, IM_FAILED, "%s", thread_says(j, &copy, "the journal is opening a new epoch"));
	if (!past_is_safe(j))
		return im_fail(&j->why, IM_FAILED, "what was accepted before this start could not be written to %.150s again: the message service takes it first",
			       j->dir);
	if (j->kept + size > j->options.limit)
		return im_fail(&j->why, IM_BUSY, "the journal is full: %" PRIu64 " bytes wait for the message service (im_journal_limit %" PRIu64 ")",
			       j->kept, j->options.limit);
	if (unsynced_age_ms(j, now_us) > JOURNAL_UNSYNCED_MAX_MS)
		return im_fail(&j->why, IM_BUSY, "the disk of %.150s has not synced for over a second", j->dir);
	if (j->tail.bytes.len + size > JOURNAL_TAIL_MAX)
		return im_fail(&j->why, IM_BUSY, "the disk of %.150s does not keep up: %zu bytes wait for its sync", j->dir, j->tail.bytes.len);
	if (size > j->options.segment_cap)
		return im_fail(&j->why, IM_FAILED, "a record of %zu bytes is larger than a journal segment", size);
	if (j->current->end - j->current->start + size > j->current->cap)
		return next_segment(j);
	return IM_OK;
}

/* The record is refused, so it should not be found later; the next epoch's header says so for certain. */
static enum im_status refuse(struct journal *j, const char *what, int e, uint64_t at)
{
	static const uint8_t zeros[IM_RECORD_HEADER];

	(void)segment_write(j->options.fs, j->current->fd, zeros, sizeof(zeros), at); /* best effort, the disk is failing */
	journal_poison(j, what, e);
	return im_fail(&j->why, IM_FAILED, "%s in %.150s failed: %s; the journal is opening a new epoch", what, j->dir, strerror(e));
}

/* Tells the thread that something waits for a sync. It is woken only if it sleeps for nothing in particular. */
static void note_unsynced(struct journal *j, int64_t now_us)
{
	if (atomic_load(&j->unsynced_us) != 0)
		return;
	atomic_store(&j->unsynced_us, now_us);
	if (atomic_load(&j->asleep))
		wake_thread(j);
}

/* So much is used that the next segment should be there soon, even if no old one has become free for it. */
static void hurry(struct journal *j)
{
	if (j->hurried || (j->current->end - j->current->start) * 16 < j->current->cap)
		return;
	j->hurried = true;
	(void)pthread_mutex_lock(&j->lock);
	j->hurry = true;
	(void)pthread_cond_signal(&j->wake);
	(void)pthread_mutex_unlock(&j->lock);
}

static enum im_status append(struct journal *j, const void *body, size_t len, int64_t now_us)
{
	size_t size = im_record_size(len);
	enum im_status st;
	uint8_t *record;
	uint64_t at;
	int e;

	st = make_room(j, size, now_us);
	if (st != IM_OK)
		return st;
	tail_drop(&j->tail, atomic_load(&j->synced));
	record = tail_room(&j->tail, size);
	if (!record)
		return im_fail(&j->why, IM_BUSY, "out of memory for a record of %zu bytes", size);
	im_record_header(j->current->epoch, j->current->end, body, len, record);
	memcpy(record + IM_RECORD_HEADER, body, len); /* in one piece with its header, so that one call writes them */
	at = SEGMENT_PAGE + (j->current->end - j->current->start);
	IM_KILLPOINT("journal.before_write");
	e = segment_write(j->options.fs, j->current->fd, record, size, at);
	IM_KILLPOINT("journal.after_write");
	if (e != 0)
		return refuse(j, "write", e, at);
	if (j->options.durability == IM_DURABILITY_DISK) {
		e = segment_sync(j->options.fs, j->current->fd);
		if (e != 0)
			return refuse(j, "sync", e, at);
	} else {
		tail_add(&j->tail, j->current->end, size);
		atomic_store(&j->written, j->current->end + size);
		note_unsynced(j, now_us);
	}
	j->current->end += size;
	j->kept += size;
	hurry(j);
	return IM_OK;
}

enum im_status journal_append(struct journal *j, const void *body, size_t len)
{
	int64_t now_us = im_clock_mono_us();
	enum im_status st = append(j, body, len, now_us);

	if (st == IM_OK)
		return st;
	if (j->n_refused++ == 0)
		im_log(IM_LOG_WARNING, "evt=journal_refuses reason=\"%s\"", j->why.text);
	j->refused_us = now_us;
	return st;
}

/* Said when it has been over for a while: at its limit the journal takes one and refuses one for as long as that lasts. */
static void note_accepting(struct journal *j)
{
	if (j->n_refused == 0 || im_clock_mono_us() - j->refused_us < JOURNAL_QUIET_MS * 1000LL)
		return;
	if (atomic_load(&j->state) == JOURNAL_POISONED || !past_is_safe(j) || j->kept >= j->options.limit)
		return;
	im_log(IM_LOG_NOTICE, "evt=journal_accepts refused=%u", j->n_refused);
	j->n_refused = 0;
	j->why.text[0] = '\0';
}

void journal_set_limit(struct journal *j, uint64_t bytes)
{
	j->options.limit = bytes;
}

const char *journal_why(const struct journal *j)
{
	return j->why.text;
}

uint64_t journal_epoch(const struct journal *j)
{
	return j->current->epoch;
}

uint64_t journal_end(const struct journal *j)
{
	return j->current->end;
}

uint64_t journal_bytes(const struct journal *j)
{
	return j->kept;
}

void journal_tick(struct journal *j)
{
	struct im_err now = {""};
	bool news;

	if (atomic_load(&j->state) == JOURNAL_POISONED)
		(void)journal_reopen(j); /* not yet: the next tick */
	else
		tail_drop(&j->tail, atomic_load(&j->synced)); /* memory, when nothing more comes */
	note_accepting(j);
	(void)pthread_mutex_lock(&j->lock);
	news = j->news;
	if (news)
		now = j->failed;
	j->news = false;
	(void)pthread_mutex_unlock(&j->lock);
	if (news && now.text[0])
		im_log(IM_LOG_ERROR, "evt=journal_failed error=\"%s\"", now.text);
	else if (news)
		im_log(IM_LOG_NOTICE, "evt=journal_recovered epoch=%" PRIu64, j->current->epoch);
}
