/*
 * Making, opening and scanning one segment file (journal_segment.h).
 *
 * Header page: "IMJRNL01", epoch, index, state (1 = prepared, 2 or 3 = in use), start, epoch before, its end,
 * CRC-32 of all that; little endian, zeros behind. A header torn by a power cut makes the segment invisible;
 * nothing in it was promised then, since a sync of its records covers the header too.
 */
#include "journal_segment.h"

#include "base/killpoint.h"
#include "base/number.h"
#include "base/record.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zlib.h>

#define ZERO_PIECE (1u << 20) /* written and synced at once: what a sync of the journal may have to wait behind */

enum { STATE_PREPARED = 1, STATE_USED = 2, STATE_REUSED = 3 /* in use, and once before */ };
enum { AT_EPOCH = 8, AT_INDEX = 16, AT_STATE = 24, AT_START = 32, AT_BEFORE = 40, AT_BEFORE_END = 48, AT_CRC = 56, HEADER = 64 };
static const char magic[8] = {'I', 'M', 'J', 'R', 'N', 'L', '0', '1'};

static int real_open(const char *path, int flags, mode_t mode)
{
	return open(path, flags, mode);
}

static ssize_t real_pread_nowait(int fd, void *data, size_t len, off_t at)
{
	struct iovec iov = {data, len};

	return preadv2(fd, &iov, 1, at, RWF_NOWAIT);
}

const struct journal_fs journal_fs_real = {real_open, pwrite, pread, real_pread_nowait, fdatasync, fsync, unlink, rename};

static void put_u64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_u64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

int segment_write(const struct journal_fs *fs, int fd, const void *data, size_t len, uint64_t at)
{
	const uint8_t *p = data;
	ssize_t n;

	while (len > 0) {
		n = fs->pwrite(fd, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		p += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

ssize_t segment_read(const struct journal_fs *fs, int fd, void *data, size_t len, uint64_t at)
{
	size_t have = 0;
	ssize_t n;

	while (have < len) {
		n = fs->pread(fd, (char *)data + have, len - have, (off_t)(at + have));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		have += (size_t)n;
	}
	return (ssize_t)have;
}

int segment_sync(const struct journal_fs *fs, int fd)
{
	IM_KILLPOINT("journal.before_sync");
	while (fs->fdatasync(fd) != 0)
		if (errno != EINTR)
			return errno;
	return 0;
}

void segment_path(const char *dir, uint64_t epoch, uint32_t index, char *out, size_t out_len)
{
	(void)snprintf(out, out_len, "%s/%010" PRIu64 "-%06" PRIu32 ".seg", dir, epoch, index);
}

bool segment_parse_name(const char *name, uint64_t *epoch, uint32_t *index)
{
	const char *end = im_digits(name, UINT64_MAX, epoch);
	uint64_t n = 0;

	end = end && *end == '-' ? im_digits(end + 1, UINT32_MAX, &n) : NULL;
	*index = (uint32_t)n;
	return end && strcmp(end, ".seg") == 0;
}

static int write_header(const struct journal_fs *fs, const struct segment *s, int state)
{
	uint8_t page[HEADER] = {0};

	memcpy(page, magic, sizeof(magic));
	put_u64(page + AT_EPOCH, s->epoch);
	put_u64(page + AT_INDEX, s->index);
	put_u64(page + AT_STATE, (uint64_t)state);
	put_u64(page + AT_START, s->start);
	put_u64(page + AT_BEFORE, s->before.epoch);
	put_u64(page + AT_BEFORE_END, s->before.end);
	put_u64(page + AT_CRC, crc32(0L, page, AT_CRC));
	return segment_write(fs, s->fd, page, sizeof(page), 0);
}

int segment_write_header(const struct journal_fs *fs, const struct segment *s)
{
	return write_header(fs, s, s->reused ? STATE_REUSED : STATE_USED);
}

int segment_rewrite(const struct journal_fs *fs, const struct segment *s)
{
	char piece[64u << 10];
	uint64_t size = SEGMENT_PAGE + (s->end - s->start);
	ssize_t n;
	int e;

	for (uint64_t at = 0; at < size; at += (uint64_t)n) {
		n = segment_read(fs, s->fd, piece, size - at < sizeof(piece) ? (size_t)(size - at) : sizeof(piece), at);
		if (n <= 0)
			return n < 0 ? (int)-n : EIO;
		e = segment_write(fs, s->fd, piece, (size_t)n, at);
		if (e != 0)
			return e;
	}
	return segment_sync(fs, s->fd);
}

int segment_sync_dir(const struct journal_fs *fs, const char *dir)
{
	int fd = fs->open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), e = 0;

	if (fd < 0)
		return errno;
	if (fs->fsync(fd) != 0)
		e = errno;
	(void)close(fd); /* only read from */
	return e;
}

void segment_free(struct segment *s)
{
	if (!s)
		return;
	if (s->fd >= 0)
		(void)close(s->fd); /* what had to be durable was synced */
	free(s);
}

void segment_remove(const struct journal_fs *fs, const char *dir, struct segment *s)
{
	char path[4096];

	segment_path(dir, s->epoch, s->index, path, sizeof(path));
	(void)fs->unlink(path); /* one that stays is scanned, skipped by the service and confirmed again at the next start */
	segment_free(s);
}

void segment_make_drop(const struct journal_fs *fs, const char *dir, struct segment_making *m)
{
	if (m->s)
		segment_remove(fs, dir, m->s);
	m->s = NULL;
}

static enum im_status make_failed(const struct journal_fs *fs, const char *dir, struct segment_making *m, int e, struct im_err *err)
{
	char path[4096];

	segment_path(dir, m->s->epoch, m->s->index, path, sizeof(path));
	(void)im_fail(err, IM_FAILED, "cannot prepare %.120s (%llu bytes): %s", path, (unsigned long long)m->s->cap + SEGMENT_PAGE,
		      strerror(e));
	segment_make_drop(fs, dir, m); /* half a file would only take space that others need */
	return IM_FAILED;
}

enum im_status segment_make_start(const struct journal_fs *fs, const char *dir, uint64_t epoch, uint32_t index, uint64_t cap,
				  struct segment_making *m, struct im_err *err)
{
	char path[4096];
	int e;

	m->zeroed = 0;
	m->s = calloc(1, sizeof(*m->s));
	if (!m->s)
		return im_fail(err, IM_FAILED, "out of memory for a journal segment");
	m->s->epoch = epoch;
	m->s->index = index;
	m->s->cap = cap;
	segment_path(dir, epoch, index, path, sizeof(path));
	m->s->fd = fs->open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	/* A name is never used twice: this is what a failing disk did not let us take back. */
	if (m->s->fd < 0 && errno == EEXIST && fs->unlink(path) == 0)
		m->s->fd = fs->open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (m->s->fd < 0) {
		e = errno;
		segment_free(m->s); /* nothing to remove */
		m->s = NULL;
		return im_fail(err, IM_FAILED, "cannot create %.120s: %s", path, strerror(e));
	}
	IM_KILLPOINT("journal.after_create");
	return IM_OK;
}

enum im_status segment_make_step(const struct journal_fs *fs, const char *dir, struct segment_making *m, struct segment **out,
				 struct im_err *err)
{
	static const uint8_t zeros[ZERO_PIECE];
	uint64_t size = m->s->cap + SEGMENT_PAGE;
	size_t n = size - m->zeroed < ZERO_PIECE ? (size_t)(size - m->zeroed) : ZERO_PIECE;
	int e;

	e = segment_write(fs, m->s->fd, zeros, n, m->zeroed);
	if (e == 0 && m->zeroed + n == size)
		e = write_header(fs, m->s, STATE_PREPARED);
	if (e == 0)
		e = segment_sync(fs, m->s->fd);
	if (e == 0 && m->zeroed + n == size)
		e = segment_sync_dir(fs, dir);
	if (e != 0)
		return make_failed(fs, dir, m, e, err);
	m->zeroed += n;
	if (m->zeroed < size)
		return IM_BUSY;
	IM_KILLPOINT("journal.after_prepare");
	*out = m->s;
	m->s = NULL;
	return IM_OK;
}

enum im_status segment_reuse(const struct journal_fs *fs, const char *dir, struct segment *s, uint64_t epoch, uint32_t index)
{
	char from[4096], to[4096];

	segment_path(dir, s->epoch, s->index, from, sizeof(from));
	segment_path(dir, epoch, index, to, sizeof(to));
	/* Its name first: a header of another place in a file of the old name would end the epoch there, with all behind it. */
	if (fs->rename(from, to) != 0)
		return IM_FAILED;
	if (segment_sync_dir(fs, dir) != 0) {
		if (fs->rename(to, from) != 0) { /* it is removed under the name it has */
			s->epoch = epoch;
			s->index = index;
		}
		return IM_FAILED;
	}
	s->next = NULL;
	s->epoch = epoch;
	s->index = index;
	s->start = s->end = s->confirmed = 0;
	s->before = (struct segment_before){0, 0};
	s->gone = false;
	s->reused = true;
	if (write_header(fs, s, STATE_PREPARED) != 0 || segment_sync(fs, s->fd) != 0)
		return IM_FAILED;
	return IM_OK;
}

int segment_activate(const struct journal_fs *fs, struct segment *s, uint64_t start, const struct segment_before *before)
{
	s->start = s->end = s->confirmed = start;
	if (before)
		s->before = *before;
	return segment_write_header(fs, s);
}

/* Fills s->start and s->before from the header. False: not in use, or not valid. */
static bool read_header(const uint8_t *page, struct segment *s)
{
	if (memcmp(page, magic, sizeof(magic)) != 0 || get_u64(page + AT_CRC) != crc32(0L, page, AT_CRC))
		return false;
	if (get_u64(page + AT_EPOCH) != s->epoch || get_u64(page + AT_INDEX) != s->index)
		return false;
	if (get_u64(page + AT_STATE) != STATE_USED && get_u64(page + AT_STATE) != STATE_REUSED)
		return false;
	s->reused = get_u64(page + AT_STATE) == STATE_REUSED;
	s->start = get_u64(page + AT_START);
	s->before = (struct segment_before){get_u64(page + AT_BEFORE), get_u64(page + AT_BEFORE_END)};
	return true;
}

/*
 * Walks the records through a window that holds the largest possible one. A record that does not fit into
 * what is left of the window is looked at again with the window moved to it.
 */
static enum im_status scan(const struct journal_fs *fs, struct segment *s, bool *torn, struct im_err *err)
{
	const size_t cap = IM_RECORD_HEADER + IM_RECORD_MAX;
	enum im_record_verdict v = IM_RECORD_END;
	uint64_t pos = 0, base = 0;
	uint8_t *window = malloc(cap);
	const uint8_t *body;
	size_t len;
	ssize_t have = 0;
	bool fresh = false;

	if (!window)
		return im_fail(err, IM_FAILED, "out of memory while scanning the journal");
	for (;;) {
		if (pos - base < (uint64_t)have) {
			v = im_record_read(s->epoch, s->start + pos, window + (pos - base), (size_t)have - (size_t)(pos - base), &body, &len);
			if (v == IM_RECORD_VALID) {
				pos += im_record_size(len);
				fresh = false;
				continue;
			}
		}
		if (fresh)
			break;
		base = pos;
		have = segment_read(fs, s->fd, window, cap, SEGMENT_PAGE + pos);
		if (have < 0)
			break;
		fresh = true;
		if (have == 0)
			v = IM_RECORD_END;
	}
	free(window);
	if (have < 0)
		return im_fail(err, IM_FAILED, "cannot read the journal's segment %" PRIu64 "-%" PRIu32 ": %s", s->epoch, s->index,
			       strerror((int)-have));
	s->end = s->start + pos;
	*torn = v == IM_RECORD_TORN && !s->reused; /* behind the end of a reused one is always something */
	return IM_OK;
}

enum im_status segment_open(const struct journal_fs *fs, const char *dir, uint64_t epoch, uint32_t index, struct segment **out,
			    bool *torn, struct im_err *err)
{
	struct segment *s = calloc(1, sizeof(*s));
	uint8_t page[HEADER] = {0};
	char path[4096];
	struct stat sb;
	enum im_status st;
	ssize_t n;

	if (!s)
		return im_fail(err, IM_FAILED, "out of memory for a journal segment");
	s->epoch = epoch;
	s->index = index;
	segment_path(dir, epoch, index, path, sizeof(path));
	s->fd = fs->open(path, O_RDWR | O_CLOEXEC, 0);
	n = s->fd < 0 ? -errno : segment_read(fs, s->fd, page, sizeof(page), 0);
	if (n < 0 || fstat(s->fd, &sb) != 0) {
		st = im_fail(err, IM_FAILED, "cannot read %.120s: %s", path, strerror(n < 0 ? (int)-n : errno));
		goto failed;
	}
	/* Both digits, that is: a header of which a failing disk took six or seven bytes is no newer one, only torn. */
	if ((size_t)n >= sizeof(page) && memcmp(page, magic, 6) == 0 && page[6] >= '0' && page[6] <= '9' && page[7] >= '0' && page[7] <= '9' &&
	    memcmp(page, magic, sizeof(magic)) != 0) {
		st = im_fail(err, IM_BAD_INPUT, "%.120s was written by a newer release: run that release until the journal is empty", path);
		goto failed;
	}
	st = IM_NOT_FOUND;
	if ((size_t)n < sizeof(page) || !read_header(page, s))
		goto failed;
	s->cap = sb.st_size > SEGMENT_PAGE ? (uint64_t)sb.st_size - SEGMENT_PAGE : 0;
	st = scan(fs, s, torn, err);
	if (st != IM_OK)
		goto failed;
	s->confirmed = s->start;
	*out = s;
	return IM_OK;
failed:
	segment_free(s);
	return st;
}
