/*
 * The journal's thread: everything that may take time. One turn of its loop does the most urgent thing:
 * sync what is due, rescue what a failed epoch had accepted and begin the next (journal_epoch.c), bring in what a
 * reader misses, delete what is confirmed, make the next segment (a piece at a time, so that a sync never waits long). With
 * nothing to do it sleeps without a deadline.
 */
#include "journal_internal.h"

#include "base/clock.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * From sync_from up to what was the last segment when it began. Without the lock during the calls. What it covers
 * is noted first and the last segment looked up after that: else what went into a newer one meanwhile would count as synced.
 */
static void sync_due(struct journal *j)
{
	struct segment *s, *last;
	uint64_t written;
	int e = 0;

	atomic_store(&j->syncing_us, atomic_load(&j->unsynced_us));
	atomic_store(&j->unsynced_us, 0);
	written = atomic_load(&j->written);
	(void)pthread_mutex_lock(&j->lock);
	s = j->sync_from;
	last = j->last;
	(void)pthread_mutex_unlock(&j->lock);
	for (; e == 0; s = s->next) {
		e = segment_sync(j->options.fs, s->fd);
		if (s == last)
			break;
	}
	if (e != 0) {
		j->doubtful = last->epoch;
		journal_poison(j, "sync", e);
	} else {
		atomic_store(&j->synced, written);
		(void)pthread_mutex_lock(&j->lock);
		j->sync_from = last;
		j->reapable = j->reap->gone; /* one that had to wait for this */
		(void)pthread_mutex_unlock(&j->lock);
	}
	atomic_store(&j->syncing_us, 0);
}

static void fetch(struct journal *j, struct segment *s, uint64_t at)
{
	static char piece[256u << 10]; /* read to be in the cache; the bytes themselves are of no use here */
	uint64_t end = at + JOURNAL_FETCH;

	if (end > s->cap)
		end = s->cap;
	for (; at < end; at += sizeof(piece))
		if (segment_read(j->options.fs, s->fd, piece, sizeof(piece), SEGMENT_PAGE + at) <= 0)
			return; /* the reader will see the error itself */
}

static void made(struct journal *j, struct segment *s)
{
	j->retry_ms = 0;
	j->retry_at_ms = JOURNAL_NEVER_MS; /* the one after it: once a good part of the current one is used, or an old one is free */
	(void)pthread_mutex_lock(&j->lock);
	if (s->epoch == j->spare_epoch && s->index == j->spare_index && !j->turn) {
		j->spare = s;
		if (atomic_load(&j->state) == JOURNAL_OPEN) { /* else it is over when the next epoch opens */
			j->news = j->news || j->failed.text[0] != '\0';
			j->failed.text[0] = '\0';
		}
		s = NULL;
	}
	(void)pthread_mutex_unlock(&j->lock);
	if (s) /* a failure came meanwhile */
		segment_remove(j->options.fs, j->dir, s);
}

static void remove_oldest(struct journal *j, struct segment *s)
{
	segment_remove(j->options.fs, j->dir, s);
	j->removed = true;
}

/* If the next segment is not there and not being made, this one becomes it. False: nothing was done. */
static bool reuse(struct journal *j, struct segment *s)
{
	bool wanted;
	uint64_t epoch;
	uint32_t index;

	(void)pthread_mutex_lock(&j->lock);
	wanted = !j->spare && !j->turn && !j->stop;
	epoch = j->spare_epoch;
	index = j->spare_index;
	(void)pthread_mutex_unlock(&j->lock);
	if (!wanted || j->making.s || s->suspect || s->cap != j->options.segment_cap)
		return false;
	if (segment_reuse(j->options.fs, j->dir, s, epoch, index) == IM_OK)
		made(j, s);
	else
		remove_oldest(j, s); /* the disk fails: whoever needs the next one will say so */
	return true;
}

/* False: the folder cannot be synced, so nothing more may go before that which went last. */
static bool removal_durable(struct journal *j)
{
	if (j->removed && segment_sync_dir(j->options.fs, j->dir) != 0)
		return false;
	j->removed = false;
	return true;
}

/*
 * Files go oldest first, and the first that may still be needed ends it. Also after a power cut the oldest must be
 * the first that is missing, or a start takes the hole for the end of its epoch: so each is durably gone before the next goes.
 */
static void reap(struct journal *j)
{
	struct segment *s;

	for (;;) {
		bool ordered = removal_durable(j);

		(void)pthread_mutex_lock(&j->lock);
		s = j->reap;
		if (!ordered || !s->gone || s == j->sync_from || s == j->last) {
			j->reapable = false; /* out of order: until the next sync that goes well */
			(void)pthread_mutex_unlock(&j->lock);
			return;
		}
		j->reap = s->next;
		if (j->fetch == s) /* asked for by a reader that has been told since that nobody needs it */
			j->fetch = NULL;
		(void)pthread_mutex_unlock(&j->lock);
		if (!reuse(j, s))
			remove_oldest(j, s);
	}
}

int64_t journal_retry_at(int *wait_ms)
{
	*wait_ms = *wait_ms == 0 ? JOURNAL_RETRY_MIN_MS : *wait_ms * 2;
	if (*wait_ms > JOURNAL_RETRY_MAX_MS)
		*wait_ms = JOURNAL_RETRY_MAX_MS;
	return im_clock_mono_ms() + *wait_ms;
}

static void make_failed(struct journal *j, const struct im_err *err)
{
	j->retry_at_ms = journal_retry_at(&j->retry_ms);
	(void)pthread_mutex_lock(&j->lock);
	j->news = j->news || strcmp(j->failed.text, err->text) != 0;
	j->failed = *err;
	(void)pthread_mutex_unlock(&j->lock);
}

static void make_piece(struct journal *j, uint64_t epoch, uint32_t index)
{
	const struct journal_fs *fs = j->options.fs;
	struct segment *s = NULL;
	struct im_err err = {""};
	enum im_status st = IM_OK;

	if (j->making.s && (j->making.s->epoch != epoch || j->making.s->index != index))
		segment_make_drop(fs, j->dir, &j->making);
	if (!j->making.s)
		st = segment_make_start(fs, j->dir, epoch, index, j->options.segment_cap, &j->making, &err);
	if (st == IM_OK)
		st = segment_make_step(fs, j->dir, &j->making, &s, &err);
	if (st == IM_OK)
		made(j, s);
	else if (st != IM_BUSY)
		make_failed(j, &err);
}

/* What there is to do, seen under the lock. */
struct work {
	bool stop, reap, make, rescue, begin;
	struct segment *fetch;
	uint64_t fetch_at, epoch;
	uint32_t index;
};

static struct work look(struct journal *j)
{
	struct work w;

	(void)pthread_mutex_lock(&j->lock);
	if (j->hurry) {
		j->hurry = false;
		if (!j->spare)
			j->retry_at_ms = 0;
	}
	w.stop = j->stop;
	w.reap = j->reapable;
	w.make = !j->spare;
	w.rescue = j->rescue == RESCUE_WANTED;
	w.begin = journal_may_begin(j);
	w.epoch = j->spare_epoch;
	w.index = j->spare_index;
	w.fetch = j->fetch;
	w.fetch_at = j->fetch_at;
	j->fetch = NULL;
	(void)pthread_mutex_unlock(&j->lock);
	return w;
}

/*
 * Sleeps until woken, or `at_us` on the monotonic clock (0 = no deadline). With a sync pending the deadline is
 * its time and appends need not wake anybody; otherwise `asleep` asks the first append to. What could have
 * happened since the caller looked is checked again under the lock, after `asleep` is set: no wake-up is lost.
 */
static void sleep_until(struct journal *j, int64_t at_us)
{
	struct timespec ts = {at_us / 1000000, at_us % 1000000 * 1000};
	bool pending;

	(void)pthread_mutex_lock(&j->lock);
	pending = atomic_load(&j->unsynced_us) != 0 && at_us != 0;
	atomic_store(&j->asleep, !pending);
	while (!j->stop && !j->fetch && !j->reapable && !j->turn && !j->hurry) {
		bool open = atomic_load(&j->state) == JOURNAL_OPEN;

		if (!pending && open && atomic_load(&j->unsynced_us) != 0)
			break;
		if ((!j->spare && j->retry_at_ms == 0) || (j->rescue == RESCUE_WANTED && j->rescue_at_ms == 0) || journal_may_begin(j))
			break;
		if (at_us == 0)
			(void)pthread_cond_wait(&j->wake, &j->lock);
		else if (pthread_cond_timedwait(&j->wake, &j->lock, &ts) == ETIMEDOUT)
			break;
	}
	atomic_store(&j->asleep, false);
	(void)pthread_mutex_unlock(&j->lock);
}

/* When the next thing is due; 0 = never by itself. */
static int64_t due_us(const struct journal *j, const struct work *w)
{
	int64_t unsynced = atomic_load(&j->unsynced_us);
	int64_t due = 0;

	if (unsynced != 0 && atomic_load(&j->state) == JOURNAL_OPEN) /* a poisoned epoch is not synced again */
		due = unsynced + JOURNAL_SYNC_MS * 1000LL;
	if (w->make && (due == 0 || j->retry_at_ms * 1000 < due))
		due = j->retry_at_ms * 1000;
	if (w->rescue && (due == 0 || j->rescue_at_ms * 1000 < due))
		due = j->rescue_at_ms * 1000;
	return due;
}

void *journal_thread_main(void *arg)
{
	struct journal *j = arg;

	for (;;) {
		struct work w;
		int64_t now, due;

		journal_turn(j);
		w = look(j);
		now = im_clock_mono_us();
		due = atomic_load(&j->unsynced_us);
		if (due != 0 && atomic_load(&j->state) == JOURNAL_OPEN && (w.stop || now >= due + JOURNAL_SYNC_MS * 1000LL))
			sync_due(j);
		if (w.rescue && (w.stop || now >= j->rescue_at_ms * 1000)) {
			journal_rescue(j);
			if (!w.stop)
				continue;
		}
		if (w.stop)
			return NULL;
		if (w.begin) {
			journal_begin(j);
			continue;
		}
		if (w.fetch)
			fetch(j, w.fetch, w.fetch_at);
		if (w.reap)
			reap(j);
		if (w.make && now >= j->retry_at_ms * 1000)
			make_piece(j, w.epoch, w.index);
		else if (!w.fetch)
			sleep_until(j, due_us(j, &w));
	}
}
