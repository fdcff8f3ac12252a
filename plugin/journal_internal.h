/*
 * What journal.c (the broker's thread) and journal_thread.c share.
 *
 * Segments form one list, oldest first: older epochs, then the current one. The broker's thread appends
 * to the list's end and moves `first`; the thread frees from `reap` on what is `gone`. So each pointer has
 * one writer, and the lock is taken only for rare things: a new segment, a failure, a fetch, a wake-up.
 */
#ifndef PLUGIN_JOURNAL_INTERNAL_H
#define PLUGIN_JOURNAL_INTERNAL_H

#include "base/conf.h"
#include "base/status.h"
#include "journal.h"
#include "journal_segment.h"
#include "journal_tail.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define JOURNAL_SYNC_MS 5            /* a sync begins this long after the first unsynced byte: with its own time 10 ms or less */
#define JOURNAL_UNSYNCED_MAX_MS 1000 /* older than that: refuse, the disk does not keep up */
#define JOURNAL_RETRY_MIN_MS 100     /* preparing a file failed: try again after this, doubled up to ... */
#define JOURNAL_RETRY_MAX_MS 5000
#define JOURNAL_START_GRACE_MS 5000  /* the first spare waits so long after a start, while everybody else uses the disk too */
#define JOURNAL_NEVER_MS (INT64_MAX / 2000)
#define JOURNAL_QUIET_MS 1000        /* accepting again for so long: the end of a time of refusals */
#define JOURNAL_FETCH (4u << 20)     /* bytes brought into memory for a reader that found them missing */

struct journal_options {
	const char *dir;             /* of the segments */
	uint64_t limit;
	uint64_t segment_cap;        /* bytes of records in one; the largest record must fit */
	enum im_durability durability;
	const struct journal_fs *fs;
	int start_grace_ms;          /* the first spare is made after this, or once a sixteenth of the first segment is used */
};

enum im_status journal_open_with(const struct journal_options *options, struct journal **out, struct im_err *err);

enum journal_state {
	JOURNAL_OPEN,
	JOURNAL_POISONED, /* a write or sync failed: nothing is accepted until a new epoch is open */
};

/* What became of the tail of a poisoned epoch (journal_epoch.c). While it is wanted or running the tail belongs to the thread. */
enum journal_rescue {
	RESCUE_NONE,
	RESCUE_WANTED,
	RESCUE_RUNNING,
	RESCUE_DONE,
};

struct journal {
	struct journal_options options;
	char *dir;
	int lock_fd;

	/* The broker's thread only. */
	struct segment *first;       /* oldest that is not gone */
	struct segment *current;     /* appended to */
	uint64_t kept;               /* bytes not confirmed */
	struct journal_tail tail;    /* of the current epoch */
	bool no_nowait;              /* the file system does not know RWF_NOWAIT */
	uint64_t unsafe;             /* a start could not put epochs up to this one on the disk: refuses until they are confirmed; 0: none */
	bool reported_stuck;
	unsigned misses;             /* reads in a row that found their bytes not in memory */
	struct im_err why;           /* of the last refusal; empty once appends go well again */
	unsigned n_refused;          /* since it last accepted for a while: told once, not for each message */
	int64_t refused_us;          /* the last of them */
	bool hurried;                /* the thread knows that a spare is wanted while `current` is appended to */

	/* Shared without the lock. */
	_Atomic int state;           /* enum journal_state */
	_Atomic int64_t unsynced_us; /* when the oldest byte after the last sync's begin was written; 0 = none */
	_Atomic int64_t syncing_us;  /* ... of those the running sync covers; 0 = none */
	_Atomic uint64_t written;    /* offset in the current epoch behind what was accepted last; durability `process` */
	_Atomic uint64_t synced;     /* ... below it all is on the disk */
	_Atomic bool asleep;         /* the thread waits without a deadline: whoever brings work must wake it */

	/* Shared under the lock. */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct segment *sync_from;   /* the oldest segment that may hold unsynced bytes */
	struct segment *last;        /* the list's end as the thread sees it: `current` */
	struct segment *spare;       /* prepared; its place is (spare_epoch, spare_index) */
	struct segment_before ended; /* the poisoned epoch, and where the broker's thread says it ended; epoch 0: none */
	bool begun;                  /* the spare says that, on the disk: a new epoch may open with it */
	uint64_t spare_epoch;        /* what the spare is made for; whoever takes it moves this on at once, so that no file is made twice */
	uint32_t spare_index;
	bool hurry;                  /* a spare is wanted now */
	bool turn;                   /* the thread shall drop the spare and make one for a new epoch */
	enum journal_rescue rescue;
	struct segment *fetch;       /* to be brought into memory */
	uint64_t fetch_at;
	struct im_err failed;        /* why the last preparation or sync failed; empty = it did not */
	bool news;                   /* `failed` changed: for the log */
	bool reapable;               /* something is gone */
	bool stop;

	/* The thread only. */
	struct segment *reap;        /* the oldest not freed */
	bool removed;                /* the one before it, and the folder is not synced since */
	struct segment_making making;
	int64_t retry_at_ms;         /* when preparing a file is tried again */
	int64_t rescue_at_ms;        /* ... and the rescue */
	int retry_ms, rescue_ms;
	uint64_t doubtful;           /* epoch in which a sync failed: what is not synced must be written again first */
	pthread_t thread;
	bool started;
};

void *journal_thread_main(void *arg);
int64_t journal_retry_at(int *wait_ms);       /* doubles the wait, from JOURNAL_RETRY_MIN_MS */
uint64_t journal_epoch_after(uint64_t epoch); /* larger, and at least the wall clock's seconds */
/* The highest epoch ever begun, beside the folder: survives the folder's removal together with a clock set back. */
uint64_t journal_epoch_load(const char *dir);
void journal_epoch_keep(const char *dir, uint64_t epoch);
/* What a scan of the folder found. */
struct journal_found {
	struct segment *first, *last; /* with records, oldest first; NULL: none */
	struct segment_file { uint64_t epoch; uint32_t index; } *useless; /* empty, or behind a hole; NULL: none */
	size_t n_useless;
	uint64_t seen;                /* the highest epoch of any file */
	unsigned holes;               /* epochs that end earlier than their files do */
};
enum im_status journal_recover(const struct journal_fs *fs, const char *dir, struct journal_found *out, struct im_err *err);
void journal_found_finish(struct journal_found *f); /* frees the segments too, unless taken (first = NULL) */
struct segment *journal_take_spare(struct journal *j, bool same_epoch); /* NULL: none of that kind */

void journal_poison(struct journal *j, const char *what, int e); /* either thread */
/* The thread: the next segment made is to be the first of a new epoch, if a failure came since. */
void journal_turn(struct journal *j);
void journal_rescue(struct journal *j);                          /* the thread: one try */
bool journal_may_begin(const struct journal *j);                 /* the lock is held: the old epoch is settled, the spare there */
void journal_begin(struct journal *j);                           /* the thread: that, one try */
/* The broker's thread, poisoned. True: what was accepted is on the disk or confirmed. Else it has been asked for. */
bool journal_settled(struct journal *j);
bool journal_confirmed(const struct journal *j, uint64_t epoch); /* the service has all up to the end of this epoch */
bool journal_reopen(struct journal *j);                          /* ... true: a new epoch is open */

#endif
