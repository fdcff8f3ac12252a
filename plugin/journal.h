/*
 * What a PUBACK rests on. Records are written with pwrite into zero-written segment files before the
 * broker acknowledges; a thread of the journal's own syncs, prepares the next segment, deletes confirmed
 * ones and reads ahead. Nothing here waits, but for durability `disk`, where append ends with a sync.
 *
 *   {dir}/journal/{epoch}-{index}.seg     header (one page), then records (base/record.h)
 *   {dir}/journal.epoch                   the highest epoch ever begun
 *
 * Every opening starts a new epoch (greater than any before, at least the wall clock's seconds); files of
 * earlier ones are only read. Offsets count bytes of an epoch from 0 through all its segments; a record
 * never spans two. After a write or sync error nothing is accepted until a new epoch is open, and none is
 * opened before what was accepted is on the disk or with the message service.
 * All functions: the broker's thread.
 */
#ifndef PLUGIN_JOURNAL_H
#define PLUGIN_JOURNAL_H

#include "base/buf.h"
#include "base/conf.h"
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>

struct journal;

/* Scans what earlier epochs left (longest valid prefix each), opens a new epoch, starts the thread. */
enum im_status journal_open(const struct im_settings *settings, struct journal **out, struct im_err *err);
void journal_close(struct journal *j); /* syncs; NULL is fine */

/*
 * IM_OK: survives kill -9 (`process`) or power loss (`disk`): PUBACK may be sent. IM_BUSY: full
 * (im_journal_limit), the next segment is not ready, the disk does not keep up or has not synced for over 1 s. IM_FAILED:
 * the disk refused; a new epoch is being opened. Nothing was kept in both cases. len: 1..IM_RECORD_MAX.
 */
enum im_status journal_append(struct journal *j, const void *body, size_t len);
const char *journal_why(const struct journal *j); /* sentence for the last IM_BUSY or IM_FAILED; empty: it accepts */
void journal_set_limit(struct journal *j, uint64_t bytes); /* im_journal_limit may change while it runs */
uint64_t journal_epoch(const struct journal *j);  /* of the current epoch; changes after a failure */
uint64_t journal_end(const struct journal *j);    /* offset in it behind what was accepted last */
void journal_tick(struct journal *j);             /* takes note of what the thread finished; cheap */

/* Reading in order through all epochs still here. */
struct journal_cursor {
	uint64_t epoch;
	uint64_t offset;
};
/* The oldest position still here. */
struct journal_cursor journal_oldest(const struct journal *j);
/*
 * Appends whole records from *c on to `out` (at most `max` bytes, but at least one record), sets *slice_epoch
 * and *slice_offset to where they stood and *c behind them (into the next epoch at the end of one). IM_NOT_FOUND:
 * nothing there yet. IM_BUSY: not in memory; the thread is fetching it, ask at a later tick. IM_FAILED: unreadable;
 * that stays so until an admin has looked, for nothing accepted is passed over. Only what a failed disk never
 * had and the page cache lost is: the log says so, and reading goes on behind it.
 */
enum im_status journal_read(struct journal *j, struct journal_cursor *c, size_t max, struct im_buf *out,
			    uint64_t *slice_epoch, uint64_t *slice_offset);
/* All of (epoch, below offset) is durable elsewhere: whole segments of it may go. */
void journal_confirm(struct journal *j, uint64_t epoch, uint64_t offset);
uint64_t journal_bytes(const struct journal *j);  /* kept and not confirmed */

#endif
