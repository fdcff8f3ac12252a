#include "store_segment.h"
#include "base/killpoint.h"
#include "base/number.h"
#include "base/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPARE "next.spare"
#define SPARE_UNFINISHED "next.tmp"
#define HEADER_BODY (LOG_HEADER - IM_RECORD_HEADER)

static const char magic[8] = "imlog 1";

/* ---- header */

static void put_u64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_u64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

void segment_header_encode(const struct segment_header *h, uint8_t out[LOG_HEADER])
{
	uint8_t *body = out + IM_RECORD_HEADER;

	memset(out, 0, LOG_HEADER);
	memcpy(body, magic, sizeof(magic));
	put_u64(body + 8, h->number);
	put_u64(body + 16, h->record_epoch);
	put_u64(body + 24, h->valid);
	memcpy(body + 32, h->store, 32);
	im_record_header(h->number, 0, body, HEADER_BODY, out);
}

bool segment_header_decode(const uint8_t *data, size_t len, uint64_t number, struct segment_header *out)
{
	const uint8_t *body;
	size_t body_len;

	if (im_record_read(number, 0, data, len, &body, &body_len) != IM_RECORD_VALID || body_len != HEADER_BODY)
		return false;
	if (memcmp(body, magic, sizeof(magic)) != 0 || get_u64(body + 8) != number)
		return false;
	out->number = number;
	out->record_epoch = get_u64(body + 16);
	out->valid = get_u64(body + 24);
	memcpy(out->store, body + 32, 32);
	out->store[32] = '\0';
	return true;
}

/* A header of ours that says another version: not a damaged one, which may be removed. */
static bool is_newer(const uint8_t *data, size_t len, uint64_t number)
{
	const uint8_t *body;
	size_t body_len;

	return im_record_read(number, 0, data, len, &body, &body_len) == IM_RECORD_VALID && body_len >= sizeof(magic) &&
	       memcmp(body, magic, 6) == 0 && memcmp(body, magic, sizeof(magic)) != 0;
}

/* ---- files */

static char *segment_path(const char *dir, uint64_t number)
{
	char *path;

	return asprintf(&path, "%s/%020llu.log", dir, (unsigned long long)number) < 0 ? NULL : path;
}

static char *named_path(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static bool sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = fsync(fd) == 0;
	close(fd);
	return ok;
}

#define ZERO_PIECE (1u << 20) /* written and synced at once: what a sync of the log may have to wait behind */

static bool fill_with_zeros(int fd, uint64_t bytes)
{
	static const char zeros[ZERO_PIECE];
	uint64_t at = 0;

	while (at < bytes) {
		size_t want = bytes - at < sizeof(zeros) ? (size_t)(bytes - at) : sizeof(zeros);
		ssize_t n = pwrite(fd, zeros, want, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || fdatasync(fd) != 0)
			return false;
		at += (uint64_t)n;
	}
	return fsync(fd) == 0; /* fsync, not fdatasync: the length too */
}

/* A zeroed file under `path`. -1: errno says why. */
static int make_zeroed(const char *path, uint64_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int saved;

	if (fd < 0 || fill_with_zeros(fd, bytes))
		return fd;
	saved = errno;
	close(fd);
	(void)unlink(path); /* it is no use, and removed at the next opening at the latest */
	errno = saved;
	return -1;
}

enum im_status segment_spare(const char *dir, uint64_t bytes)
{
	char *tmp = named_path(dir, SPARE_UNFINISHED), *spare = named_path(dir, SPARE);
	enum im_status st = IM_FAILED;
	int fd = -1;

	if (tmp && spare)
		fd = make_zeroed(tmp, bytes);
	if (fd >= 0) {
		close(fd);
		st = rename(tmp, spare) == 0 ? IM_OK : IM_FAILED;
	}
	free(tmp);
	free(spare);
	return st;
}

enum im_status segment_take(const char *dir, uint64_t number, uint64_t bytes, int *fd, struct im_err *err)
{
	char *path = segment_path(dir, number), *spare = named_path(dir, SPARE), *tmp = named_path(dir, "segment.tmp");
	enum im_status st = IM_OK;
	int made = -1;

	if (!path || !spare || !tmp) {
		st = im_fail(err, IM_FAILED, "out of memory");
		goto out;
	}
	if (rename(spare, path) == 0)
		made = open(path, O_RDWR | O_CLOEXEC);
	else if ((made = make_zeroed(tmp, bytes)) >= 0 && rename(tmp, path) != 0) {
		close(made);
		made = -1;
	}
	IM_KILLPOINT("log.after_rename");
	if (made < 0 || !sync_dir(dir)) {
		st = im_fail(err, IM_FAILED, "cannot make a segment of the message log, %s: %s", path, strerror(errno));
		if (made >= 0)
			close(made);
		goto out;
	}
	*fd = made;
out:
	free(path);
	free(spare);
	free(tmp);
	return st;
}

bool segment_reuse(const char *dir, uint64_t number)
{
	char *path = segment_path(dir, number), *spare = named_path(dir, SPARE);
	bool done = path && spare && rename(path, spare) == 0;

	free(path);
	free(spare);
	return done;
}

void segment_remove(const char *dir, uint64_t number)
{
	char *path = segment_path(dir, number);

	if (path)
		(void)unlink(path); /* if it stays, the next opening sees it again and finds nothing new in it */
	free(path);
}

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The longest run of numbers that ends at the newest; what is older than a gap was to be removed. */
static void newest_run(uint64_t *numbers, size_t n, struct segment_range *out)
{
	size_t first;

	out->first = out->end = 0;
	if (n == 0)
		return;
	qsort(numbers, n, sizeof(*numbers), compare_numbers);
	for (first = n - 1; first > 0 && numbers[first - 1] + 1 == numbers[first]; first--)
		;
	out->first = numbers[first];
	out->end = numbers[n - 1] + 1;
}

enum im_status segment_list(const char *dir, struct segment_range *out, struct im_err *err)
{
	uint64_t *numbers = NULL;
	enum im_status st = IM_OK;
	size_t n = 0, cap = 0;
	struct dirent *de;
	DIR *d = opendir(dir);

	if (!d)
		return im_fail(err, IM_FAILED, "cannot read %s: %s", dir, strerror(errno));
	while ((de = readdir(d))) {
		uint64_t number;
		const char *end = im_digits(de->d_name, UINT64_MAX, &number);

		if (end && end - de->d_name == 20 && strcmp(end, ".log") == 0) {
			if (n == cap) {
				uint64_t *more = realloc(numbers, (cap = cap ? 2 * cap : 64) * sizeof(*numbers));

				if (!more) {
					st = im_fail(err, IM_FAILED, "out of memory");
					break;
				}
				numbers = more;
			}
			numbers[n++] = number;
		} else if (strcmp(de->d_name, SPARE_UNFINISHED) == 0 || strcmp(de->d_name, SPARE) == 0 || strcmp(de->d_name, "segment.tmp") == 0) {
			(void)unlinkat(dirfd(d), de->d_name, 0); /* a crash's leftover; overwritten if it stays */
		}
	}
	closedir(d);
	if (st == IM_OK)
		newest_run(numbers, n, out);
	free(numbers);
	return st;
}

/* ---- reading back */

static enum im_status read_file(const char *path, uint8_t **data, size_t *len, struct im_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat sb;
	size_t have = 0;

	if (fd < 0 || fstat(fd, &sb) != 0) {
		if (fd >= 0)
			close(fd);
		return im_fail(err, IM_FAILED, "cannot read %s: %s", path, strerror(errno));
	}
	*data = malloc((size_t)sb.st_size + 1);
	while (*data && have < (size_t)sb.st_size) {
		ssize_t n = pread(fd, *data + have, (size_t)sb.st_size - have, (off_t)have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	close(fd);
	if (!*data)
		return im_fail(err, IM_FAILED, "out of memory");
	if (have < (size_t)sb.st_size) {
		free(*data);
		return im_fail(err, IM_FAILED, "cannot read %s: %s", path, strerror(errno));
	}
	*len = have;
	return IM_OK;
}

static enum im_status replay_records(const struct log_options *o, const struct segment_header *h, const uint8_t *data, size_t len,
				     uint64_t *reached, struct im_err *err)
{
	uint64_t at = LOG_HEADER;
	const uint8_t *body;
	size_t body_len;

	while (im_record_read(h->record_epoch, at, data + at, len - at, &body, &body_len) == IM_RECORD_VALID) {
		enum im_status st = IM_OK;
		uint64_t end;

		at += im_record_size(body_len);
		end = h->number << 32 | at;
		if (end > o->after)
			st = o->replay(o->arg, body, body_len, end, err);
		if (st != IM_OK)
			return st;
		if (end > *reached)
			*reached = end;
	}
	return IM_OK;
}

enum im_status segment_replay(const struct log_options *o, uint64_t number, bool last, uint64_t *reached, struct im_err *err)
{
	char *path = segment_path(o->dir, number);
	struct segment_header h;
	uint8_t *data = NULL;
	enum im_status st;
	size_t len = 0;

	if (!path)
		return im_fail(err, IM_FAILED, "out of memory");
	st = read_file(path, &data, &len, err);
	if (st != IM_OK)
		goto out_path;
	if (is_newer(data, len, number)) {
		st = im_fail(err, IM_BAD_INPUT, "%s was written by a newer release: run that release, or restore a backup", path);
	} else if (!segment_header_decode(data, len, number, &h)) {
		/*
		 * It ended before its first sync, so nothing in it was promised. A newer one may follow nevertheless: written
		 * after a restart that still found the header, before a power cut took it. Whether more is missing
		 * than that, the newer one's `valid` tells.
		 */
		if (last) {
			(void)unlink(path); /* made anew under the same number */
			st = IM_NOT_FOUND;
		}
	} else if (strcmp(h.store, o->epoch) != 0) {
		st = im_fail(err, IM_FAILED, "%s belongs to another store (%s, not %s)", path, h.store, o->epoch);
	} else if (h.valid > *reached) {
		st = im_fail(err, IM_FAILED, "the message log has a hole before %s: it continues from %llx, found up to %llx", path,
			     (unsigned long long)h.valid, (unsigned long long)*reached);
	} else {
		st = replay_records(o, &h, data, len, reached, err);
	}
	free(data);
out_path:
	free(path);
	return st;
}
