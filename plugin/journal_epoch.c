/*
 * From one epoch to the next. A write or sync that failed poisons the epoch: its end stays at the last record that
 * was accepted, and nothing more is taken until the next one is open.
 *
 *	       a call fails                asked (broker's thread)       all synced (thread)    spare begun (thread)
 *	OPEN --------------> POISONED -----------------------> rescue -------------------> settled -----------> OPEN
 *	                        |  nothing is unsynced, or the service has it all             ^            the next epoch
 *	                        +-------------------------------------------------------------+
 *
 * The difficult idea is what a failed sync leaves: the kernel may hold the pages for clean, or have dropped them, and
 * the next sync would report a success that is none. So what was accepted and not synced is written once more, out
 * of the tail, to where it stands, and synced; only then the next epoch opens. Its place does not change, so nobody
 * else needs to know. While the disk refuses that too, it is tried again, until the service has confirmed it all.
 *
 * Where the old epoch ended the broker's thread knows exactly. It is written into the new header, so that a refused
 * record which reached the disk all the same is not found by the next start, and that header is synced before the
 * epoch opens: later a sync that fails would take it along with the epoch's first records, and nothing else says so.
 */
#include "journal_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/number.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- numbers */

/*
 * A position must never be given twice: the message service takes the second message there for a repeat of the
 * first. The files say which epochs there were, and the clock is above them; only if both are gone this is needed.
 */
static void epoch_path(const char *dir, char out[4096])
{
	(void)snprintf(out, 4096, "%s.epoch", dir);
}

uint64_t journal_epoch_load(const char *dir)
{
	char path[4096], text[32] = "";
	uint64_t epoch = 0;
	int fd;

	epoch_path(dir, path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) > 0)
		(void)im_digits(text, UINT64_MAX, &epoch); /* none: it stays 0 */
	(void)close(fd); /* only read */
	return epoch;
}

/* A failure costs only the third line of defence: it is not worth refusing a start. */
void journal_epoch_keep(const char *dir, uint64_t epoch)
{
	char path[4096], text[32];
	int n = snprintf(text, sizeof(text), "%020" PRIu64 "\n", epoch);
	int fd;

	epoch_path(dir, path);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (pwrite(fd, text, (size_t)n, 0) == n)
		(void)fdatasync(fd);
	(void)close(fd);
}

uint64_t journal_epoch_after(uint64_t epoch)
{
	uint64_t now = (uint64_t)(im_clock_wall_ms() / 1000);

	return epoch + 1 > now ? epoch + 1 : now;
}

/* ---------------------------------------------------------------- the end of one */

void journal_poison(struct journal *j, const char *what, int e)
{
	(void)pthread_mutex_lock(&j->lock);
	if (atomic_load(&j->state) == JOURNAL_OPEN) {
		(void)im_fail(&j->failed, IM_FAILED, "%s in %.150s failed: %s; opening a new epoch", what, j->dir, strerror(e));
		j->news = true;
		j->turn = true;
		atomic_store(&j->state, JOURNAL_POISONED);
		(void)pthread_cond_signal(&j->wake);
	}
	(void)pthread_mutex_unlock(&j->lock);
}

/* After a failure what was prepared or is being made for the old epoch is of no use. */
void journal_turn(struct journal *j)
{
	struct segment *useless = NULL;
	uint64_t epoch = 0;

	(void)pthread_mutex_lock(&j->lock);
	if (j->turn) {
		j->turn = false;
		useless = j->spare;
		j->spare = NULL;
		j->begun = false;
		j->spare_epoch = epoch = journal_epoch_after(j->spare_epoch);
		j->spare_index = 0;
		j->retry_at_ms = j->rescue_at_ms = 0;
		j->rescue_ms = 0;
	}
	(void)pthread_mutex_unlock(&j->lock);
	if (epoch)
		journal_epoch_keep(j->dir, epoch);
	if (useless)
		segment_remove(j->options.fs, j->dir, useless);
}

/* ---------------------------------------------------------------- rescue */

bool journal_confirmed(const struct journal *j, uint64_t epoch)
{
	for (const struct segment *s = j->first; s && s->epoch <= epoch; s = s->next)
		if (s->confirmed < s->end)
			return false;
	return true;
}

bool journal_settled(struct journal *j)
{
	bool needed = j->tail.bytes.len > 0 && !journal_confirmed(j, j->current->epoch), settled;

	(void)pthread_mutex_lock(&j->lock);
	j->ended = (struct segment_before){j->current->epoch, j->current->end};
	if (j->rescue == RESCUE_NONE && needed)
		j->rescue = RESCUE_WANTED;
	else if (j->rescue == RESCUE_WANTED && !needed)
		j->rescue = RESCUE_NONE;
	settled = j->rescue == RESCUE_DONE || j->rescue == RESCUE_NONE;
	if (j->rescue == RESCUE_WANTED || journal_may_begin(j))
		(void)pthread_cond_signal(&j->wake);
	(void)pthread_mutex_unlock(&j->lock);
	return settled;
}

/* What the tail has of this segment, and its header: that may be as young. */
static int write_again(struct journal *j, const struct segment *s)
{
	uint64_t from = s->start > j->tail.at ? s->start : j->tail.at;
	int e = segment_write_header(j->options.fs, s);

	if (e != 0 || from >= s->end)
		return e;
	return segment_write(j->options.fs, s->fd, tail_bytes(&j->tail, from), (size_t)(s->end - from), SEGMENT_PAGE + (from - s->start));
}

/* Nothing of what it looks at changes meanwhile: nothing is appended to a poisoned epoch, and only this thread frees segments. */
static int rescue(struct journal *j)
{
	struct segment *s, *last;
	int e = 0;

	(void)pthread_mutex_lock(&j->lock);
	j->rescue = RESCUE_RUNNING;
	s = j->sync_from;
	last = j->last;
	(void)pthread_mutex_unlock(&j->lock);
	for (; e == 0; s = s->next) {
		if (j->doubtful == s->epoch) /* else it is in the cache as written, and a sync will do */
			e = write_again(j, s);
		if (e == 0 && (e = segment_sync(j->options.fs, s->fd)) != 0)
			j->doubtful = s->epoch;
		if (s == last)
			break;
	}
	return e;
}

void journal_rescue(struct journal *j)
{
	int e = rescue(j);

	if (e != 0)
		j->rescue_at_ms = journal_retry_at(&j->rescue_ms);
	(void)pthread_mutex_lock(&j->lock);
	j->rescue = e == 0 ? RESCUE_DONE : RESCUE_WANTED;
	if (e != 0)
		(void)im_fail(&j->failed, IM_FAILED, "%.150s fails again: %s; what was acknowledged and not synced is still to be written", j->dir,
			      strerror(e));
	j->news = j->news || (e != 0 && j->rescue_ms == JOURNAL_RETRY_MIN_MS);
	(void)pthread_mutex_unlock(&j->lock);
}

/* ---------------------------------------------------------------- the next one */

bool journal_may_begin(const struct journal *j)
{
	return j->ended.epoch && j->spare && !j->begun && !j->turn && (j->rescue == RESCUE_NONE || j->rescue == RESCUE_DONE);
}

/* Nobody else takes the spare before it has begun. */
void journal_begin(struct journal *j)
{
	struct segment_before ended;
	int e;

	(void)pthread_mutex_lock(&j->lock);
	ended = j->ended;
	(void)pthread_mutex_unlock(&j->lock);
	e = segment_activate(j->options.fs, j->spare, 0, &ended);
	if (e == 0)
		e = segment_sync(j->options.fs, j->spare->fd);
	(void)pthread_mutex_lock(&j->lock);
	j->begun = e == 0;
	j->turn = j->turn || e != 0; /* the disk fails again: yet another epoch */
	if (e != 0) {
		(void)im_fail(&j->failed, IM_FAILED, "cannot begin a new epoch in %.150s: %s", j->dir, strerror(e));
		j->news = true;
	}
	(void)pthread_mutex_unlock(&j->lock);
	if (e == 0)
		return;
	journal_turn(j);
	j->retry_at_ms = journal_retry_at(&j->retry_ms);
}

bool journal_reopen(struct journal *j)
{
	uint64_t before = j->current->epoch, end = j->current->end;
	struct segment *s = journal_settled(j) ? journal_take_spare(j, false) : NULL;

	if (!s)
		return false;
	for (struct segment *o = j->first; o; o = o->next)
		o->suspect = o->suspect || o->epoch == before;
	tail_drop(&j->tail, end);
	atomic_store(&j->written, 0);
	atomic_store(&j->synced, 0);
	(void)pthread_mutex_lock(&j->lock);
	j->rescue = RESCUE_NONE;
	j->ended.epoch = 0;
	j->news = j->news || j->failed.text[0] != '\0';
	j->failed.text[0] = '\0';
	j->current->next = s;
	j->current = j->last = j->sync_from = s;
	j->hurried = false;
	j->reapable = j->reap->gone;
	atomic_store(&j->unsynced_us, 0); /* of the old epoch: no sync of it counts any more */
	atomic_store(&j->state, JOURNAL_OPEN);
	(void)pthread_cond_signal(&j->wake);
	(void)pthread_mutex_unlock(&j->lock);
	im_log(IM_LOG_NOTICE, "evt=journal_reopened epoch=%" PRIu64, s->epoch);
	return true;
}
