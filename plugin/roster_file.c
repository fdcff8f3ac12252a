/*
 * The roster's file (roster_file.h). A change is one pwrite at the end; a rewrite goes to a second file that
 * takes the first one's place by rename, so that a kill leaves one of the two whole. Rows are written by
 * rising version: a file cut short by a power failure is an older roster, not a wrong one.
 */
#include "roster_file.h"

#include "base/buf.h"
#include "base/record.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER (16u + ROSTER_STORE_MAX)
#define REWRITE_PIECE (1u << 20) /* bytes gathered before they are written */
#define SMALL_FILE 64u           /* items: below that a rewrite is not worth it */

static const char magic[8] = {'I', 'M', 'R', 'O', 'S', 'T', '0', '2'};

struct roster_file {
	char path[4096];
	char fresh[4096 + 8]; /* a rewrite in progress */
	int fd;
	uint64_t id;
	char store[ROSTER_STORE_MAX + 1];
	uint64_t end;
	bool broken;
	struct im_buf record;
};

static int write_all(int fd, const void *data, size_t len, uint64_t at)
{
	const char *p = data;
	ssize_t n;

	while (len > 0) {
		n = pwrite(fd, p, len, (off_t)at);
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

static int begin(int fd, const char *store, uint64_t *id)
{
	char head[HEADER] = { 0 };

	if (getrandom(id, sizeof(*id), 0) != sizeof(*id))
		return EIO;
	memcpy(head, magic, sizeof(magic));
	memcpy(head + 8, id, sizeof(*id)); /* only ever compared with itself: its byte order does not matter */
	memcpy(head + 16, store, strnlen(store, ROSTER_STORE_MAX));
	return write_all(fd, head, sizeof(head), 0);
}

/* Appends a record that will stand at (id, at) to the buffer. */
static void pack_record(struct im_buf *b, uint64_t id, uint64_t at, const Im__Bus__RosterItem *item)
{
	size_t len = im__bus__roster_item__get_packed_size(item);
	uint8_t *p;

	if (len == 0 || len > IM_RECORD_MAX) {
		b->failed = true;
		return;
	}
	if (!im_buf_reserve(b, im_record_size(len)))
		return;
	p = (uint8_t *)b->data + b->len;
	(void)im__bus__roster_item__pack(item, p + IM_RECORD_HEADER);
	im_record_header(id, at, p + IM_RECORD_HEADER, len, p);
	b->len += im_record_size(len);
}

/* ---------------------------------------------------------------- loading */

static ssize_t read_whole(int fd, struct im_buf *b)
{
	ssize_t n;

	do {
		if (!im_buf_reserve(b, REWRITE_PIECE))
			return -ENOMEM;
		n = read(fd, b->data + b->len, b->cap - b->len);
		if (n > 0)
			b->len += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 ? -errno : 0;
}

/* Applies the longest valid prefix. Returns the number of items; f->end is behind the last. */
static size_t apply_all(struct roster_file *f, const struct im_buf *b, struct roster *r)
{
	const uint8_t *data = (const uint8_t *)b->data, *body;
	Im__Bus__RosterItem *item;
	size_t n = 0, len;

	f->end = HEADER;
	while (im_record_read(f->id, f->end, data + f->end, b->len - f->end, &body, &len) == IM_RECORD_VALID) {
		item = im__bus__roster_item__unpack(NULL, len, body);
		if (!item || roster_apply(r, item) == IM_BAD_INPUT) {
			im__bus__roster_item__free_unpacked(item, NULL);
			break;
		}
		im__bus__roster_item__free_unpacked(item, NULL);
		f->end += im_record_size(len);
		n++;
	}
	return n;
}

static void count_item(void *arg, const Im__Bus__RosterItem *item)
{
	(void)item;
	++*(size_t *)arg;
}

static enum im_status load(struct roster_file *f, struct roster *r, struct im_err *err)
{
	struct im_buf b;
	size_t items = 0, live = 0;
	ssize_t n;
	int e = 0;

	im_buf_init(&b);
	n = read_whole(f->fd, &b);
	if (n == 0 && b.len >= HEADER && memcmp(b.data, magic, sizeof(magic)) == 0) {
		memcpy(&f->id, b.data + 8, sizeof(f->id));
		memcpy(f->store, b.data + 16, ROSTER_STORE_MAX);
		items = apply_all(f, &b, r);
	} else if (n == 0) { /* new, or not a roster: the service sends a snapshot */
		e = begin(f->fd, "", &f->id);
		f->end = HEADER;
	}
	im_buf_finish(&b);
	if (n == 0 && e == 0 && ftruncate(f->fd, (off_t)f->end) != 0)
		e = errno;
	if (n < 0 || e != 0)
		return im_fail(err, IM_FAILED, "cannot load %.150s: %s", f->path, strerror(n < 0 ? (int)-n : e));
	roster_since(r, 0, count_item, &live);
	if (items > SMALL_FILE && items > 2 * live)
		(void)roster_file_rewrite(f, r, f->store, NULL);
	f->broken = false; /* if that failed: the long file serves as well */
	return IM_OK;
}

enum im_status roster_file_open(const char *dir, struct roster *r, struct roster_file **out, struct im_err *err)
{
	struct roster_file *f = calloc(1, sizeof(*f));
	enum im_status st;

	if (!f)
		return im_fail(err, IM_FAILED, "out of memory for the roster's file");
	im_buf_init(&f->record);
	(void)snprintf(f->path, sizeof(f->path), "%s/roster", dir);
	(void)snprintf(f->fresh, sizeof(f->fresh), "%s.new", f->path);
	f->fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (f->fd < 0)
		st = im_fail(err, IM_FAILED, "cannot open %.150s: %s", f->path, strerror(errno));
	else
		st = load(f, r, err);
	if (st == IM_OK)
		*out = f;
	else
		roster_file_close(f);
	return st;
}

void roster_file_close(struct roster_file *f)
{
	if (!f)
		return;
	if (f->fd >= 0) {
		(void)fdatasync(f->fd); /* if it fails, the service sends the tail again */
		(void)close(f->fd);
	}
	im_buf_finish(&f->record);
	free(f);
}

const char *roster_file_store(const struct roster_file *f)
{
	return f->store;
}

/* ---------------------------------------------------------------- changing */

bool roster_file_is_broken(const struct roster_file *f)
{
	return f->broken;
}

enum im_status roster_file_add(struct roster_file *f, const Im__Bus__RosterItem *item, struct im_err *err)
{
	int e;

	if (f->broken)
		return im_fail(err, IM_FAILED, "%.150s waits to be written anew", f->path);
	im_buf_clear(&f->record);
	pack_record(&f->record, f->id, f->end, item);
	e = f->record.failed ? ENOMEM : write_all(f->fd, f->record.data, f->record.len, f->end);
	if (e != 0) {
		f->broken = true;
		return im_fail(err, IM_FAILED, "cannot write %.150s: %s", f->path, strerror(e));
	}
	f->end += f->record.len;
	return IM_OK;
}

struct rewrite {
	int fd, error;
	uint64_t id, end;
	struct im_buf b;
};

static void rewrite_flush(struct rewrite *w)
{
	if (w->b.failed)
		w->error = ENOMEM;
	if (w->error == 0 && w->b.len > 0)
		w->error = write_all(w->fd, w->b.data, w->b.len, w->end);
	w->end += w->b.len;
	im_buf_clear(&w->b);
}

static void rewrite_item(void *arg, const Im__Bus__RosterItem *item)
{
	struct rewrite *w = arg;

	if (w->error != 0)
		return;
	pack_record(&w->b, w->id, w->end + w->b.len, item);
	if (w->b.failed || w->b.len >= REWRITE_PIECE)
		rewrite_flush(w);
}

enum im_status roster_file_rewrite(struct roster_file *f, const struct roster *r, const char *store, struct im_err *err)
{
	struct rewrite w = {.fd = open(f->fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), .end = HEADER};

	im_buf_init(&w.b);
	w.error = w.fd < 0 ? errno : begin(w.fd, store, &w.id);
	if (w.error == 0)
		roster_since(r, 0, rewrite_item, &w);
	if (w.error == 0)
		rewrite_flush(&w);
	im_buf_finish(&w.b);
	if (w.error == 0 && rename(f->fresh, f->path) != 0)
		w.error = errno;
	if (w.error != 0) {
		if (w.fd >= 0) {
			(void)close(w.fd);
			(void)unlink(f->fresh);
		}
		f->broken = true; /* what `r` holds is not what the file says: nothing may be appended to that */
		return im_fail(err, IM_FAILED, "cannot write %.150s: %s", f->fresh, strerror(w.error));
	}
	(void)close(f->fd);
	f->fd = w.fd;
	f->id = w.id;
	if (store != f->store)
		(void)snprintf(f->store, sizeof(f->store), "%s", store); /* a name fits */
	f->end = w.end;
	f->broken = false;
	return IM_OK;
}
