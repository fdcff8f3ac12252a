#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "journal_world.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/record.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct fault fault;

/* ---------------------------------------------------------------- what a power cut would leave */

struct image {
	ino_t file;
	uint8_t *bytes;     /* as on the disk */
	size_t len;
	struct extent {
		off_t at;
		size_t len;
	} *written;         /* since the last sync */
	size_t n, cap;
};
static struct image *images;
static size_t n_images;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the journal's thread writes too */
static _Atomic bool dead;   /* calls say "done" and change nothing */
static _Atomic ino_t bad;

static struct image *image_of(int fd)
{
	struct stat sb;

	assert_int_equal(fstat(fd, &sb), 0);
	for (size_t i = 0; i < n_images; i++)
		if (images[i].file == sb.st_ino)
			return &images[i];
	images = realloc(images, (n_images + 1) * sizeof(*images));
	assert_non_null(images);
	images[n_images] = (struct image){.file = sb.st_ino};
	return &images[n_images++];
}

static void image_clear(struct image *m)
{
	free(m->bytes);
	free(m->written);
	*m = (struct image){.file = m->file};
}

static void image_wrote(int fd, off_t at, size_t len)
{
	struct image *m;

	(void)pthread_mutex_lock(&lock);
	m = image_of(fd);
	if (m->n == m->cap) {
		m->cap = m->cap ? m->cap * 2 : 64;
		m->written = realloc(m->written, m->cap * sizeof(*m->written));
		assert_non_null(m->written);
	}
	m->written[m->n++] = (struct extent){at, len};
	(void)pthread_mutex_unlock(&lock);
}

/* From the cache to the disk or, for a kernel that drops what it could not write, back. */
static void image_move(int fd, struct image *m, bool back)
{
	for (size_t i = 0; i < m->n; i++) {
		size_t end = (size_t)m->written[i].at + m->written[i].len;

		if (end > m->len) {
			m->bytes = realloc(m->bytes, end);
			assert_non_null(m->bytes);
			memset(m->bytes + m->len, 0, end - m->len);
			m->len = end;
		}
		if (back)
			assert_int_equal(pwrite(fd, m->bytes + m->written[i].at, m->written[i].len, m->written[i].at), m->written[i].len);
		else
			assert_int_equal(pread(fd, m->bytes + m->written[i].at, m->written[i].len, m->written[i].at), m->written[i].len);
	}
}

static void image_synced(int fd, bool ok)
{
	struct image *m;

	(void)pthread_mutex_lock(&lock);
	m = image_of(fd);
	if (ok || fault.forgets)
		image_move(fd, m, !ok);
	m->n = 0;
	(void)pthread_mutex_unlock(&lock);
}

static void put_back(const char *path, void *arg)
{
	int fd = open(path, O_RDWR);
	struct image *m = image_of(fd);

	(void)arg;
	assert_int_equal(ftruncate(fd, 0), 0);
	if (m->len > 0)
		assert_int_equal(pwrite(fd, m->bytes, m->len, 0), m->len);
	m->n = 0;
	(void)close(fd);
}

/* ---------------------------------------------------------------- the file system */

static bool applies(int fd, int error)
{
	struct stat sb;

	return error != 0 && (!fault.one_file || (fstat(fd, &sb) == 0 && sb.st_ino == bad));
}

static int t_open(const char *path, int flags, mode_t mode)
{
	int fd = open(path, flags, mode);

	if (fd >= 0 && (flags & O_EXCL)) {
		(void)pthread_mutex_lock(&lock);
		image_clear(image_of(fd)); /* of one that was deleted */
		(void)pthread_mutex_unlock(&lock);
	}
	return fd;
}

static ssize_t t_pwrite(int fd, const void *data, size_t len, off_t at)
{
	int e = fault.pwrite_error, z = fault.zero_error;
	ssize_t n;

	if (dead)
		return (ssize_t)len;
	if (fault.interrupts > 0) {
		fault.interrupts--;
		errno = EINTR;
		return -1;
	}
	if ((z && len > 4096) || (len <= 4096 && applies(fd, e))) {
		errno = z && len > 4096 ? z : e;
		return -1;
	}
	if (fault.short_writes > 0 && len > (size_t)fault.short_writes)
		len = (size_t)fault.short_writes;
	n = pwrite(fd, data, len, at);
	if (n > 0)
		image_wrote(fd, at, (size_t)n);
	return n;
}

static ssize_t t_nowait(int fd, void *data, size_t len, off_t at)
{
	if (fault.misses > 0) {
		fault.misses--;
		errno = EAGAIN;
		return -1;
	}
	return journal_fs_real.pread_nowait(fd, data, len, at);
}

static int t_fdatasync(int fd)
{
	int ms = fault.sync_ms, e = fault.sync_error;

	if (dead)
		return 0;
	if (ms)
		(void)nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
	fault.syncs++;
	if (applies(fd, e)) {
		image_synced(fd, false);
		if (fault.breaks)
			fault.pwrite_error = e;
		errno = e;
		return -1;
	}
	image_synced(fd, true);
	return 0;
}

static int t_fsync(int fd) /* of the folder: names are not what is looked at here */
{
	int e = fault.folder_error ? fault.folder_error : fault.one_file ? 0 : fault.sync_error;

	(void)fd;
	fault.removed = 0;
	if (!e || dead)
		return 0;
	errno = e;
	return -1;
}

static int t_unlink(const char *path)
{
	fault.unlinks++;
	fault.unordered += fault.removed++ > 0;
	return dead ? 0 : unlink(path);
}

static int t_rename(const char *from, const char *to)
{
	if (fault.folder_error && fault.renames++ > 0) {
		errno = fault.folder_error;
		return -1;
	}
	return dead ? 0 : rename(from, to);
}

static const struct journal_fs test_fs = {t_open, t_pwrite, pread, t_nowait, t_fdatasync, t_fsync, t_unlink, t_rename};

/* ---------------------------------------------------------------- the journal */

void journal_world_reopen(struct journal_world *w)
{
	struct im_err err = {""};

	journal_close(w->j);
	w->j = NULL;
	if (journal_open_with(&w->options, &w->j, &err) != IM_OK)
		fail_msg("%s", err.text);
}

static void quiet(enum im_log_level level, const char *line)
{
	(void)level;
	(void)line; /* errors are what is tested here */
}

int journal_world_setup(void **state)
{
	struct journal_world *w = calloc(1, sizeof(*w));

	im_log_open("journal_test", IM_LOG_ERROR, quiet);
	memset(&fault, 0, sizeof(fault));
	(void)snprintf(w->dir, sizeof(w->dir), "/tmp/im-journal-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->options = (struct journal_options){w->dir, 1 << 20, SEGMENT, IM_DURABILITY_PROCESS, &test_fs, 0};
	journal_world_reopen(w);
	*state = w;
	return 0;
}

void each_file(const char *dir, void (*fn)(const char *path, void *arg), void *arg)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[512];

	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		fn(path, arg);
	}
	(void)closedir(d);
}

void remove_file(const char *path, void *arg)
{
	(void)arg;
	(void)unlink(path);
}

int journal_world_teardown(void **state)
{
	struct journal_world *w = *state;
	char path[80];

	memset(&fault, 0, sizeof(fault));
	journal_close(w->j);
	each_file(w->dir, remove_file, NULL);
	(void)rmdir(w->dir);
	(void)snprintf(path, sizeof(path), "%s.epoch", w->dir);
	(void)unlink(path);
	free(w);
	while (n_images > 0)
		image_clear(&images[--n_images]);
	free(images);
	images = NULL;
	return 0;
}

void journal_world_kill(struct journal_world *w)
{
	dead = true;
	journal_close(w->j);
	w->j = NULL;
	dead = false;
}

void journal_world_cut_power(struct journal_world *w)
{
	journal_world_kill(w);
	each_file(w->dir, put_back, NULL);
	journal_world_reopen(w);
}

void journal_world_fail_here(const struct journal_world *w)
{
	struct stat sb;

	assert_int_equal(fstat(w->j->current->fd, &sb), 0);
	bad = sb.st_ino;
	fault.one_file = true;
}

void journal_world_next_epoch(struct journal_world *w, uint64_t before)
{
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;

	while (journal_epoch(w->j) == before && im_clock_mono_ms() < until) {
		journal_tick(w->j);
		(void)usleep(1000);
	}
	assert_true(journal_epoch(w->j) > before);
}

/* ---------------------------------------------------------------- records */

size_t body_len(unsigned n)
{
	return 8 + n * 37 % 900;
}

static void body_fill(unsigned n, uint8_t *body)
{
	size_t len = body_len(n);

	for (size_t i = 0; i < len; i++)
		body[i] = (uint8_t)(n * 31 + i + 1);
	memcpy(body, &n, sizeof(n));
}

enum im_status append(struct journal_world *w, unsigned n)
{
	uint8_t body[1024];

	body_fill(n, body);
	return journal_append(w->j, body, body_len(n));
}

void must_append(struct journal_world *w, unsigned n)
{
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	enum im_status st;

	while ((st = append(w, n)) == IM_BUSY && im_clock_mono_ms() < until)
		(void)usleep(200);
	if (st != IM_OK)
		fail_msg("record %u: %s: %s", n, im_status_name(st), journal_why(w->j));
}

unsigned read_all(struct journal_world *w, unsigned first)
{
	struct journal_cursor c = journal_oldest(w->j);
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	uint64_t epoch, offset;
	unsigned n = first;
	struct im_buf b;
	enum im_status st;

	im_buf_init(&b);
	while ((st = journal_read(w->j, &c, 4000, &b, &epoch, &offset)) == IM_OK || st == IM_BUSY) {
		const uint8_t *body, *p = (const uint8_t *)b.data;
		size_t len, pos = 0;
		uint8_t want[1024];

		assert_true(im_clock_mono_ms() < until);
		for (; pos < b.len; pos += im_record_size(len), n++) {
			assert_int_equal(im_record_read(epoch, offset + pos, p + pos, b.len - pos, &body, &len), IM_RECORD_VALID);
			body_fill(n, want);
			assert_int_equal(len, body_len(n));
			assert_memory_equal(body, want, len);
		}
		if (st == IM_OK) {
			assert_int_equal(c.epoch, epoch);
			assert_int_equal(c.offset, offset + pos);
		}
		im_buf_clear(&b);
	}
	assert_int_equal(st, IM_NOT_FOUND);
	im_buf_finish(&b);
	return n - first;
}
