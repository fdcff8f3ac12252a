/*
 * The file behind session_kept.c. Layout: 8 bytes of magic, 8 of generation (little endian), then records whose
 * epoch is the generation, so that what an older file left is never read as part of this one.
 */
#include "session_file.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/record.h"
#include "bus.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD 16u
static const char magic[8] = "IMSESS1\n";

/* Rewritten when this large and four times what it holds: a rewrite takes the broker's thread about a ms per MiB. */
#define REWRITE_BYTES (1u << 20)
/* Read at once at start; a file beyond it is not ours. */
#define FILE_MAX (1LL << 30)

struct session_file {
	char *path, *path_new;
	int fd;
	uint64_t generation;
	uint64_t end;
	uint64_t live;    /* bytes right after the last rewriting */
	bool failing;     /* said so already */
	struct im_buf buf;
};

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

/* Appends one record, as it stands at `at`, to `out`. */
static void pack(struct im_buf *out, uint64_t generation, uint64_t at, const struct session_kept *row)
{
	Im__Bus__Session m = IM__BUS__SESSION__INIT;
	size_t n = row->removed ? 0 : row->n_filters;
	Im__Bus__Filter *filters = n ? calloc(n, sizeof(*filters)) : NULL;
	Im__Bus__Filter **array = n ? calloc(n, sizeof(*array)) : NULL;
	size_t len;

	if (n && (!filters || !array)) {
		out->failed = true;
		goto out;
	}
	m.client_id = (char *)row->client_id;
	m.user = (char *)(row->removed ? "" : row->user); /* no user: removed */
	m.clean = !row->sure;
	m.since_ms = row->seen_ms;
	for (size_t i = 0; i < n; i++) {
		im__bus__filter__init(&filters[i]);
		filters[i].filter = row->filters[i].filter;
		filters[i].qos = row->filters[i].qos;
		array[i] = &filters[i];
	}
	m.filters = array;
	m.n_filters = n;
	len = im__bus__session__get_packed_size(&m);
	if (!im_buf_reserve(out, im_record_size(len)))
		goto out;
	im__bus__session__pack(&m, (uint8_t *)out->data + out->len + IM_RECORD_HEADER);
	im_record_header(generation, at, out->data + out->len + IM_RECORD_HEADER, len, (uint8_t *)out->data + out->len);
	out->len += im_record_size(len);
out:
	free(filters);
	free(array);
}

static bool write_all(int fd, const void *data, size_t len, uint64_t at)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return true;
}

static void complain(struct session_file *f, const char *what)
{
	if (!f->failing)
		im_log(IM_LOG_WARNING, "evt=sessions_file file=%s what=%s error=\"%s\": filters of stored sessions will be missing after a restart",
		       f->path, what, strerror(errno));
	f->failing = true;
}

struct rewriting {
	struct im_buf *out;
	uint64_t generation;
};

static void rewrite_row(void *arg, const struct session_kept *row)
{
	struct rewriting *r = arg;

	pack(r->out, r->generation, r->out->len, row);
}

/* A new file beside the old one, then renamed over it: a crash leaves one or the other. */
static bool rewrite(struct session_file *f, session_kept_each_fn *each, void *arg)
{
	struct rewriting r = { .out = &f->buf, .generation = f->generation + 1 };
	uint8_t head[HEAD];
	int fd;

	memcpy(head, magic, sizeof(magic));
	put_u64(head + 8, r.generation);
	im_buf_clear(&f->buf);
	im_buf_add(&f->buf, head, HEAD);
	each(arg, rewrite_row, &r);
	if (f->buf.failed) {
		errno = ENOMEM;
		im_buf_finish(&f->buf);
		return false;
	}
	fd = open(f->path_new, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	if (!write_all(fd, f->buf.data, f->buf.len, 0) || rename(f->path_new, f->path) != 0) {
		int e = errno;

		(void)close(fd); /* the file is thrown away */
		(void)unlink(f->path_new);
		errno = e;
		return false;
	}
	if (f->fd >= 0)
		(void)close(f->fd); /* replaced: nothing in it is wanted any more */
	f->fd = fd;
	f->generation = r.generation;
	f->end = f->live = f->buf.len;
	f->failing = false;
	im_buf_finish(&f->buf);
	return true;
}

static void append(struct session_file *f, const struct session_kept *row, session_kept_each_fn *each, void *arg)
{
	if (f->end > REWRITE_BYTES && f->end > 4 * f->live && !f->failing) {
		if (!rewrite(f, each, arg))
			complain(f, "rewrite");
		else
			return; /* `each` had this row already */
	}
	im_buf_clear(&f->buf);
	pack(&f->buf, f->generation, f->end, row);
	if (f->buf.failed) {
		errno = ENOMEM;
		complain(f, "append");
		im_buf_finish(&f->buf);
		return;
	}
	if (!write_all(f->fd, f->buf.data, f->buf.len, f->end)) {
		complain(f, "append"); /* the same place is written again next time */
		return;
	}
	f->end += f->buf.len;
	f->failing = false;
}

void session_file_put(struct session_file *f, const struct session_kept *row, session_kept_each_fn *each, void *arg)
{
	append(f, row, each, arg);
}

void session_file_remove(struct session_file *f, const char *client_id, session_kept_each_fn *each, void *arg)
{
	struct session_kept row = { .client_id = client_id, .user = "", .removed = true };

	append(f, &row, each, arg);
}

static void load_one(const uint8_t *body, size_t len, session_kept_fn *load, void *arg)
{
	Im__Bus__Session *m = im__bus__session__unpack(NULL, len, body);
	struct session_filter *filters;
	struct session_kept row;

	if (!m)
		return;
	filters = calloc(m->n_filters + 1, sizeof(*filters));
	if (filters) {
		for (size_t i = 0; i < m->n_filters; i++)
			filters[i] = (struct session_filter){ .filter = m->filters[i]->filter,
							      .qos = (uint8_t)(m->filters[i]->qos ? 1 : 0) };
		row = (struct session_kept){
			.client_id = m->client_id, .user = m->user, .removed = m->user[0] == '\0', .sure = !m->clean,
			.seen_ms = m->since_ms, .filters = filters, .n_filters = (unsigned)m->n_filters,
		};
		load(arg, &row);
	}
	free(filters);
	im__bus__session__free_unpacked(m, NULL);
}

static void load_bytes(struct session_file *f, const uint8_t *data, size_t len, session_kept_fn *load, void *arg)
{
	const uint8_t *body;
	size_t body_len;
	size_t at = HEAD;

	if (len < HEAD || memcmp(data, magic, sizeof(magic)) != 0)
		return;
	f->generation = get_u64(data + 8);
	while (im_record_read(f->generation, at, data + at, len - at, &body, &body_len) == IM_RECORD_VALID) {
		load_one(body, body_len, load, arg);
		at += im_record_size(body_len);
	}
	if (at < len)
		im_log(IM_LOG_NOTICE, "evt=sessions_file file=%s kept=%zu dropped=%zu: the end was torn", f->path, at, len - at);
}

static enum im_status load_file(struct session_file *f, session_kept_fn *load, void *arg, struct im_err *err)
{
	struct stat sb;
	uint8_t *data = NULL;
	enum im_status st = IM_OK;
	size_t got = 0;
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? IM_OK : im_fail(err, IM_FAILED, "%s: %s", f->path, strerror(errno));
	if (fstat(fd, &sb) != 0 || sb.st_size > FILE_MAX) {
		st = im_fail(err, IM_FAILED, "%s: not a file of ours", f->path);
		goto out;
	}
	data = malloc((size_t)sb.st_size + 1);
	if (!data) {
		st = im_fail(err, IM_FAILED, "out of memory");
		goto out;
	}
	while (got < (size_t)sb.st_size) {
		ssize_t n = read(fd, data + got, (size_t)sb.st_size - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	if (got >= sizeof(magic) && memcmp(data, magic, 6) == 0 && memcmp(data, magic, sizeof(magic)) != 0)
		st = im_fail(err, IM_BAD_INPUT, "%s was written by a newer release: run that release, or remove the file (clients then subscribe again)", f->path);
	else
		load_bytes(f, data, got, load, arg);
out:
	free(data);
	(void)close(fd); /* only read */
	return st;
}

enum im_status session_file_open(const char *dir, session_kept_fn *load, session_kept_each_fn *each, void *arg,
				 struct session_file **out, struct im_err *err)
{
	struct session_file *f = calloc(1, sizeof(*f));
	enum im_status st = IM_OK;

	if (!f)
		return im_fail(err, IM_FAILED, "out of memory");
	f->fd = -1;
	im_buf_init(&f->buf);
	if (asprintf(&f->path, "%s/sessions", dir) < 0)
		f->path = NULL;
	if (asprintf(&f->path_new, "%s/sessions.new", dir) < 0)
		f->path_new = NULL;
	if (!f->path || !f->path_new)
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		st = load_file(f, load, arg, err);
	if (st == IM_OK && f->generation == 0)
		f->generation = (uint64_t)im_clock_wall_ms(); /* above whatever a file that is gone had */
	if (st == IM_OK && !rewrite(f, each, arg))
		st = im_fail(err, IM_FAILED, "%s: %s", f->path_new, strerror(errno));
	if (st != IM_OK) {
		session_file_close(f);
		return st;
	}
	*out = f;
	return IM_OK;
}

void session_file_close(struct session_file *f)
{
	if (!f)
		return;
	if (f->fd >= 0)
		(void)close(f->fd); /* every record was written when it was made */
	im_buf_finish(&f->buf);
	free(f->path);
	free(f->path_new);
	free(f);
}
