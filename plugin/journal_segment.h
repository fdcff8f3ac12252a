/*
 * One file of the journal: a header page, then records. It is made of zeros and synced before use, so that
 * appending changes no metadata and a sync is short; or it served before and is used again. It gets its place in the epoch only when it is taken
 * into use (`segment_activate`): until then its header says "prepared", and recovery ignores it.
 *
 * All system calls that can fail because of the disk go through `struct journal_fs`, so that tests can
 * make them fail.
 */
#ifndef PLUGIN_JOURNAL_SEGMENT_H
#define PLUGIN_JOURNAL_SEGMENT_H

#include "base/status.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SEGMENT_PAGE 4096u

struct journal_fs {
	int (*open)(const char *path, int flags, mode_t mode);
	ssize_t (*pwrite)(int fd, const void *data, size_t len, off_t at);
	ssize_t (*pread)(int fd, void *data, size_t len, off_t at);
	ssize_t (*pread_nowait)(int fd, void *data, size_t len, off_t at); /* EAGAIN: not in memory */
	int (*fdatasync)(int fd);
	int (*fsync)(int fd); /* of the directory */
	int (*unlink)(const char *path);
	int (*rename)(const char *from, const char *to);
};
extern const struct journal_fs journal_fs_real;

/* Where an epoch ended by failure says so: in the header of the first segment of the one after it. */
struct segment_before {
	uint64_t epoch; /* 0 = nothing known */
	uint64_t end;
};

struct segment {
	struct segment *next; /* younger */
	uint64_t epoch;
	uint32_t index;       /* 0, 1, ... of the epoch */
	uint64_t start;       /* offset in the epoch of the first byte after the header page */
	uint64_t end;         /* ... after the last good record; broker's thread */
	uint64_t confirmed;   /* ... all below is durable elsewhere; start..end; broker's thread */
	uint64_t cap;         /* bytes for records */
	int fd;
	struct segment_before before;
	bool suspect;         /* a write or sync of this epoch failed: what was not synced may vanish from the cache */
	bool reused;          /* records of its life before are behind the end; their checksums name another place */
	bool gone;            /* confirmed as a whole, not in use: the thread may delete it; under the lock */
};

/* A file being filled with zeros, a piece at a time, so that syncs of others can go between. */
struct segment_making {
	struct segment *s; /* NULL: nothing is being made */
	uint64_t zeroed;
};

void segment_path(const char *dir, uint64_t epoch, uint32_t index, char *out, size_t out_len);
bool segment_parse_name(const char *name, uint64_t *epoch, uint32_t *index);

enum im_status segment_make_start(const struct journal_fs *fs, const char *dir, uint64_t epoch, uint32_t index, uint64_t cap,
				  struct segment_making *m, struct im_err *err);
/* Writes and syncs the next piece. IM_OK: done, *out is the caller's. IM_BUSY: more to do. IM_FAILED: file removed. */
enum im_status segment_make_step(const struct journal_fs *fs, const char *dir, struct segment_making *m, struct segment **out,
				 struct im_err *err);
void segment_make_drop(const struct journal_fs *fs, const char *dir, struct segment_making *m);

/*
 * Makes a confirmed segment the prepared one of another place, which spares the disk a whole segment of zeros.
 * IM_FAILED: the file stays under one of the two names, and is nothing that recovery would take for used.
 */
enum im_status segment_reuse(const struct journal_fs *fs, const char *dir, struct segment *s, uint64_t epoch, uint32_t index);

/* Gives it its place. Not synced: the sync of its first record covers it. */
int segment_activate(const struct journal_fs *fs, struct segment *s, uint64_t start, const struct segment_before *before);
/* IM_NOT_FOUND: prepared only, or no valid header. Scans for the longest valid prefix; *torn: something is behind it. */
enum im_status segment_open(const struct journal_fs *fs, const char *dir, uint64_t epoch, uint32_t index, struct segment **out,
			    bool *torn, struct im_err *err);
/* The header of one in use once more; not synced. */
int segment_write_header(const struct journal_fs *fs, const struct segment *s);
/* Header and records once more, out of the page cache as far as the kernel still has them, and a sync. 0 or an errno. */
int segment_rewrite(const struct journal_fs *fs, const struct segment *s);
void segment_free(struct segment *s);                                                       /* closes; NULL is fine */
void segment_remove(const struct journal_fs *fs, const char *dir, struct segment *s);       /* deletes and frees */

/* Whole or an errno: repeats after EINTR and short counts. */
int segment_write(const struct journal_fs *fs, int fd, const void *data, size_t len, uint64_t at);
/* Bytes read (fewer: the file's end), or -errno. */
ssize_t segment_read(const struct journal_fs *fs, int fd, void *data, size_t len, uint64_t at);
int segment_sync(const struct journal_fs *fs, int fd);
int segment_sync_dir(const struct journal_fs *fs, const char *dir);

#endif
