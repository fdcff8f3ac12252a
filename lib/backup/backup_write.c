/*
 * Writing a backup (backup.h). It goes to a name of its own and gets the right one when it is whole and synced, so
 * that nobody ever takes half a file for a backup. It is synced piece by piece: a large unsynced file would make
 * everybody else's syncs on that disk wait behind it. Between two pieces the disk is others' for longer than a piece took.
 */
#include "backup_format.h"
#include "base/buf.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SUFFIX ".unfinished"
#define ROWS_RECORD (256u << 10) /* rows are gathered into records of about this size */
#define SYNC_EVERY (256u << 10)  /* bytes between syncs: a millisecond or two of a disk's time, which others wait for */
#define REST 3                   /* then it rests so many times as long as the sync took */
#define REST_MOST_US 100000      /* a disk that stood still is no reason to wait as long again */

struct backup_writer {
	char *path, *tmp;
	bool replace;
	uint64_t reserve;
	int fd;
	uint64_t id, at, synced;
	struct im_buf record;        /* header of 8 bytes, then the body */
	size_t columns;              /* of the part that is open; 0: none */
	uint32_t parts;
	uint64_t part_at, part_rows;
	crypto_generichash_state part, whole;
	uint64_t rows;
	backup_progress_fn *progress;
	void *arg;
};

static enum im_status fail_io(const struct backup_writer *w, const char *what, int e, struct im_err *err)
{
	return im_fail(err, IM_FAILED, "cannot %s %.180s: %s", what, w->tmp, strerror(e));
}

static enum im_status check_room(const struct backup_writer *w, struct im_err *err)
{
	struct statvfs v;

	if (w->reserve == 0 || fstatvfs(w->fd, &v) != 0 || (uint64_t)v.f_bavail * v.f_frsize >= w->reserve)
		return IM_OK;
	return im_fail(err, IM_FAILED, "stopped: %.150s is on the instance's disk and would leave it less than %llu MiB", w->path,
		       (unsigned long long)(w->reserve >> 20));
}

static bool sync_and_rest(const struct backup_writer *w)
{
	int64_t began = im_clock_mono_us(), rest;

	if (fdatasync(w->fd) != 0)
		return false;
	rest = REST * (im_clock_mono_us() - began);
	(void)usleep((useconds_t)(rest < REST_MOST_US ? rest : REST_MOST_US)); /* less is fine too */
	return true;
}

static enum im_status write_bytes(struct backup_writer *w, const void *data, size_t len, struct im_err *err)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = write(w->fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail_io(w, "write", n < 0 ? errno : EIO, err);
		p += n;
		len -= (size_t)n;
		w->at += (uint64_t)n;
	}
	if (w->progress)
		w->progress(w->arg, w->at, w->rows);
	if (w->at - w->synced < SYNC_EVERY)
		return IM_OK;
	w->synced = w->at;
	if (!sync_and_rest(w))
		return fail_io(w, "sync", errno, err);
	return check_room(w, err);
}

/* ---- records */

static void begin_record(struct backup_writer *w, char kind)
{
	static const char header[IM_RECORD_HEADER];

	im_buf_clear(&w->record);
	im_buf_add(&w->record, header, sizeof(header));
	im_buf_add_char(&w->record, kind);
}

static enum im_status write_record(struct backup_writer *w, crypto_generichash_state *digest, struct im_err *err)
{
	size_t body = w->record.len - IM_RECORD_HEADER;

	if (w->record.failed || body > IM_RECORD_MAX)
		return im_fail(err, IM_FAILED, w->record.failed ? "out of memory" : "a row is too large for a backup's record");
	im_record_header(w->id, w->at, w->record.data + IM_RECORD_HEADER, body, (uint8_t *)w->record.data);
	if (digest)
		(void)crypto_generichash_update(digest, (const uint8_t *)w->record.data, w->record.len); /* cannot fail */
	return write_bytes(w, w->record.data, w->record.len, err);
}

enum im_status backup_header(struct backup_writer *w, const char *text, struct im_err *err)
{
	uint8_t head[BACKUP_HEAD] = BACKUP_MAGIC;
	enum im_status st;

	backup_put(head + 8, BACKUP_FORMAT, 4);
	backup_put(head + 16, w->id, 8);
	(void)crypto_generichash_update(&w->whole, head, sizeof(head)); /* cannot fail */
	st = write_bytes(w, head, sizeof(head), err);
	if (st != IM_OK)
		return st;
	begin_record(w, 'H');
	im_buf_add_str(&w->record, text);
	return write_record(w, &w->whole, err);
}

enum im_status backup_part(struct backup_writer *w, const char *name, const char *const *columns, size_t n, struct im_err *err)
{
	enum im_status st;

	(void)crypto_generichash_init(&w->part, NULL, 0, BACKUP_DIGEST); /* cannot fail: the length is right */
	w->part_at = w->at;
	w->part_rows = 0;
	w->columns = n;
	begin_record(w, 'P');
	im_buf_add(&w->record, name, strlen(name) + 1);
	for (size_t i = 0; i < n; i++)
		im_buf_add(&w->record, columns[i], strlen(columns[i]) + 1);
	st = write_record(w, &w->part, err);
	begin_record(w, 'R');
	return st;
}

static enum im_status flush_rows(struct backup_writer *w, struct im_err *err)
{
	enum im_status st = IM_OK;

	if (w->record.len > IM_RECORD_HEADER + 1)
		st = write_record(w, &w->part, err);
	begin_record(w, 'R');
	return st;
}

enum im_status backup_row(struct backup_writer *w, const struct backup_value *values, struct im_err *err)
{
	for (size_t i = 0; i < w->columns; i++) {
		const struct backup_value *v = &values[i];
		uint8_t number[8];

		im_buf_add_char(&w->record, (char)v->type);
		if (v->type == BACKUP_INT) {
			backup_put(number, (uint64_t)v->integer, 8);
			im_buf_add(&w->record, number, 8);
		} else if (v->type != BACKUP_NULL) {
			backup_put(number, v->len, 4);
			im_buf_add(&w->record, number, 4);
			im_buf_add(&w->record, v->data, v->len);
		}
	}
	w->part_rows++;
	w->rows++;
	return w->record.len >= ROWS_RECORD ? flush_rows(w, err) : IM_OK;
}

enum im_status backup_part_end(struct backup_writer *w, struct im_err *err)
{
	uint8_t body[BACKUP_END_PART - 1];
	enum im_status st = flush_rows(w, err);

	if (st != IM_OK)
		return st;
	backup_put(body, w->part_rows, 8);
	backup_put(body + 8, w->at - w->part_at, 8);
	(void)crypto_generichash_final(&w->part, body + 16, BACKUP_DIGEST); /* cannot fail */
	begin_record(w, 'E');
	im_buf_add(&w->record, body, sizeof(body));
	w->parts++;
	w->columns = 0;
	return write_record(w, &w->whole, err);
}

/* ---- the file */

/* What an earlier one left when it was killed is used again; anything else of that name is not ours to overwrite. */
static enum im_status open_unfinished(struct backup_writer *w, struct im_err *err)
{
	char magic[8];
	struct stat sb;
	ssize_t n;

	w->fd = open(w->tmp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (w->fd < 0)
		return fail_io(w, "create", errno, err);
	if (flock(w->fd, LOCK_EX | LOCK_NB) != 0)
		return im_fail(err, IM_BUSY, "another backup is writing %.180s", w->tmp);
	n = pread(w->fd, magic, sizeof(magic), 0);
	if (fstat(w->fd, &sb) != 0 || !S_ISREG(sb.st_mode) || (n != 0 && (n != 8 || memcmp(magic, BACKUP_MAGIC, 8) != 0))) {
		close(w->fd);
		w->fd = -1; /* so that it is left alone */
		return im_fail(err, IM_EXISTS, "%.180s is in the way, and is not an unfinished backup", w->tmp);
	}
	if (fchmod(w->fd, 0600) != 0 || ftruncate(w->fd, 0) != 0)
		return fail_io(w, "write", errno, err);
	return check_room(w, err);
}

static enum im_status check_target(const char *path, bool replace, struct im_err *err)
{
	struct stat sb;

	if (lstat(path, &sb) != 0)
		return IM_OK;
	if (!replace)
		return im_fail(err, IM_EXISTS, "%.200s is there already", path);
	if (!S_ISREG(sb.st_mode))
		return im_fail(err, IM_EXISTS, "%.180s is not a file and is not replaced", path);
	return IM_OK;
}

static void free_writer(struct backup_writer *w)
{
	if (w->fd >= 0)
		close(w->fd);
	im_buf_finish(&w->record);
	free(w->path);
	free(w->tmp);
	free(w);
}

enum im_status backup_create(const char *path, bool replace, uint64_t reserve, struct backup_writer **out, struct im_err *err)
{
	struct backup_writer *w;
	enum im_status st = check_target(path, replace, err);

	if (st != IM_OK)
		return st;
	w = sodium_init() >= 0 ? aligned_alloc(_Alignof(struct backup_writer), sizeof(*w)) : NULL; /* the digests want more than malloc gives */
	if (!w)
		return im_fail(err, IM_FAILED, "out of memory");
	memset(w, 0, sizeof(*w));
	w->replace = replace;
	w->reserve = reserve;
	im_buf_init(&w->record);
	randombytes_buf(&w->id, sizeof(w->id));
	(void)crypto_generichash_init(&w->whole, NULL, 0, BACKUP_DIGEST); /* cannot fail: the length is right */
	w->fd = -1;
	w->path = strdup(path);
	if (!w->path || asprintf(&w->tmp, "%s" SUFFIX, path) < 0) {
		w->tmp = NULL;
		st = im_fail(err, IM_FAILED, "out of memory");
	} else {
		st = open_unfinished(w, err);
	}
	if (st != IM_OK) {
		if (w->tmp && w->fd >= 0 && st != IM_BUSY)
			(void)unlink(w->tmp); /* ours and empty */
		free_writer(w);
		return st;
	}
	*out = w;
	return IM_OK;
}

void backup_on_progress(struct backup_writer *w, backup_progress_fn *fn, void *arg)
{
	w->progress = fn;
	w->arg = arg;
}

static enum im_status write_end(struct backup_writer *w, struct im_err *err)
{
	uint8_t body[BACKUP_END_FILE - 1];

	backup_put(body, w->parts, 4);
	backup_put(body + 4, w->rows, 8);
	(void)crypto_generichash_final(&w->whole, body + 12, BACKUP_DIGEST); /* cannot fail */
	begin_record(w, 'Z');
	im_buf_add(&w->record, body, sizeof(body));
	return write_record(w, NULL, err);
}

/* Never over a file that came meanwhile, unless it may be replaced. */
static int give_name(const struct backup_writer *w)
{
	if (w->replace)
		return rename(w->tmp, w->path);
	if (renameat2(AT_FDCWD, w->tmp, AT_FDCWD, w->path, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	return link(w->tmp, w->path) == 0 ? unlink(w->tmp) : -1; /* a file system without that flag */
}

static enum im_status sync_folder(const struct backup_writer *w, struct im_err *err)
{
	char *dir = strdup(w->path), *slash = dir ? strrchr(dir, '/') : NULL;
	int fd, e = 0;

	if (slash)
		slash[slash == dir] = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		e = errno;
	if (fd >= 0)
		close(fd);
	free(dir);
	return e == 0 ? IM_OK : im_fail(err, IM_FAILED, "%.150s is written, but its folder cannot be synced: %s", w->path, strerror(e));
}

enum im_status backup_commit(struct backup_writer *w, struct im_err *err)
{
	enum im_status st = write_end(w, err);

	if (st == IM_OK && fsync(w->fd) != 0)
		st = fail_io(w, "sync", errno, err);
	if (st == IM_OK)
		st = check_target(w->path, w->replace, err);
	if (st == IM_OK && give_name(w) != 0)
		st = im_fail(err, errno == EEXIST ? IM_EXISTS : IM_FAILED, "cannot name the backup %.180s: %s", w->path, strerror(errno));
	if (st != IM_OK) {
		backup_abandon(w);
		return st;
	}
	st = sync_folder(w, err);
	free_writer(w);
	return st;
}

void backup_abandon(struct backup_writer *w)
{
	if (!w)
		return;
	(void)unlink(w->tmp); /* if it stays, its name says what it is */
	free_writer(w);
}
