/*
 * The message log: what makes an append durable. Segments of checksummed records (base/record.h), written
 * by a thread of its own: everything that was given while it was writing and syncing goes out with the
 * next write and the next sync.
 *
 *   {dir}/{number}.log = header (128 bytes, itself a record) | records ... | zeros
 *
 * The log knows records only; that those of one append belong together is in them (LogEntry.more), and it
 * never parts them by a segment's end. A position is (segment number << 32 | offset). Segments are written full of zeros before use, so that a
 * sync has no metadata to write. Every opening starts a new segment with a new random epoch, which is part
 * of all its checksums. A segment's header names the position up to which the log was valid before it: an
 * unfinished tail ends a segment, and what is missing elsewhere is noticed.
 *
 * After a write or sync error nothing more is written: what was pending and all that comes ends with
 * IM_UNCERTAIN. Only opening again decides what is in the log.
 */
#ifndef OFFLINE_STORE_LOG_H
#define OFFLINE_STORE_LOG_H

#include "base/buf.h"
#include "store_entry.h"

#include <sys/types.h>

struct store_log;

#define LOG_HEADER 128u

/* How bytes reach the disk; tests make them fail. */
struct log_io {
	ssize_t (*pwrite)(int fd, const void *data, size_t len, off_t at);
	int (*fdatasync)(int fd);
};

/* One record found by recovery; `end`: the position after it. Anything but IM_OK stops the opening. */
typedef enum im_status log_replay_fn(void *arg, const uint8_t *body, size_t len, uint64_t end, struct im_err *err);
/* All has been replayed, up to `reached`: makes it durable elsewhere. Anything but IM_OK stops the opening. */
typedef enum im_status log_settle_fn(void *arg, uint64_t reached, struct im_err *err);
typedef void log_wake_fn(void *arg); /* on the log's thread: there is something to take */

struct log_options {
	const char *dir;        /* exists */
	const char *epoch;      /* of the store, 32 hex digits: another store's log is refused */
	uint64_t segment_bytes;
	uint64_t after;         /* replay what is behind this position */
	const struct log_io *io; /* NULL: the real one */
	log_replay_fn *replay;
	log_wake_fn *wake;
	void *arg;
	log_settle_fn *settle;  /* NULL: nothing to do */
};

/* Recovers, then starts a segment. `replay` and `settle` are called before it returns, from this thread. */
enum im_status store_log_open(const struct log_options *o, struct store_log **out, struct im_err *err);
void store_log_close(struct store_log *log); /* writes and syncs what is pending; take it before or it is freed unanswered */

/* Room for a record in `out`: call log_frame_begin, add the body, call log_frame_end. */
size_t log_frame_begin(struct im_buf *out);
bool log_frame_end(struct im_buf *out, size_t at); /* false: too large for a record, or out of memory */

/* Takes over one reference of `a` and copies the frames. */
void store_log_append(struct store_log *log, const struct im_buf *frames, struct append *a);
void store_log_end(struct store_log *log, const char *why); /* from any thread: what comes from now on ends with IM_UNCERTAIN */
void store_log_flush(struct store_log *log);  /* waits until all that was given is decided */
void store_log_take(struct store_log *log, struct append_queue *out); /* decided appends (st, end), in order, to the end of `out` */
uint64_t store_log_start(const struct store_log *log); /* position at which this opening began to write */
bool store_log_failed(struct store_log *log, struct im_err *err);
void store_log_stats(struct store_log *log, struct store_stats *out);

/* From any thread: all before `position` is safe elsewhere; forgets whole segments. Makes the next one ready if it is time. */
void store_log_trim(struct store_log *log, uint64_t position);
void store_log_prepare(struct store_log *log);
uint64_t store_log_segments(struct store_log *log); /* on disk, with the one in use */

#endif
