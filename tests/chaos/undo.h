/*
 * What power loss would take: per watched file the bytes that writes since its last sync covered up, per
 * folder the entries made, renamed and removed since its last fsync. Kept in files beside the watched folder
 * ({root}.undo/), written before the real call, so that whatever moment everything is killed at,
 * tests/chaos/faults.py can put back what was on the disk.
 *
 *   {inode}.undo   struct undo_head, then struct undo_record + the `have` old bytes, in the order of the writes
 *   {inode}.dir    lines: C name | R old TAB new TAB kept | U name TAB kept     (kept: a link to what was there, or -)
 *
 * After a sync that failed the kernel holds the pages for clean: what was written before is on the disk only if
 * its page is written again and then synced. So from the first failure on a file's records stay, with marks
 * of the syncs between them.
 */
#ifndef CHAOS_UNDO_H
#define CHAOS_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum undo_kind { UNDO_WRITE = 1, UNDO_TRUNCATE = 2, UNDO_SYNCED = 3, UNDO_SYNC_FAILED = 4 };

struct undo_head {
	uint64_t synced; /* records that begin before this position of the file are on the disk */
	uint64_t failed; /* a sync failed once: records stay */
};

struct undo_record {
	uint32_t kind;
	uint32_t have;     /* old bytes that follow */
	uint64_t at, span; /* of the write; UNDO_SYNC*: at = where the log ended when the sync began */
	uint64_t size;     /* of the file before it */
};

void undo_init(const char *root);
bool undo_watches(const char *path);

/* All of these: the caller holds undo_lock from before until its real call is done, but for undo_sync_done. */
void undo_lock(void);
void undo_unlock(void);
void undo_opened(int fd, const char *path, bool created, bool truncates); /* `truncates`: call before the file is cut */
void undo_made(const char *path);                       /* a file or folder of that name */
void undo_closed(int fd);
const char *undo_path(int fd);                          /* NULL: not watched */
void undo_write(int fd, off_t at, size_t len);          /* at < 0: where the descriptor stands */
void undo_truncate(int fd, off_t to);
void undo_rename(const char *from, const char *to);
void undo_unlink(const char *path);
uint64_t undo_sync_begin(int fd);
void undo_sync_done(int fd, uint64_t began, bool ok);   /* takes the lock itself */

#endif
