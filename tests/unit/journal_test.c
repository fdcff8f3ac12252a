/*
 * plugin/journal.c: what was accepted is read back, whatever happens to the process or the disk; what was
 * refused is not. Faults come through struct journal_fs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/record.h"
#include "plugin/journal_internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SEGMENT = 16 << 10, DEADLINE_MS = 20000 };

/* ---------------------------------------------------------------- a file system that can be told to fail */

static struct {
	_Atomic int pwrite_error;  /* errno for records and headers; 0 = none */
	_Atomic int sync_error;
	_Atomic int zero_error;    /* for the filling with zeros */
	_Atomic int short_writes;  /* give back at most this many bytes at a time */
	_Atomic int interrupts;    /* EINTR this often */
	_Atomic int misses;        /* EAGAIN this often */
	_Atomic int sync_ms;       /* a slow disk */
	_Atomic int unlinks, syncs;
	_Atomic int removed;       /* since the folder was synced */
	_Atomic int unordered;     /* removals that a power cut may show without the one before */
} fault;

static int t_open(const char *path, int flags, mode_t mode)
{
	return open(path, flags, mode);
}

static ssize_t t_pwrite(int fd, const void *data, size_t len, off_t at)
{
	int e = fault.pwrite_error, z = fault.zero_error;

	if (fault.interrupts > 0) {
		fault.interrupts--;
		errno = EINTR;
		return -1;
	}
	if ((z && len > 4096) || (e && len <= 4096)) {
		errno = z && len > 4096 ? z : e;
		return -1;
	}
	if (fault.short_writes > 0 && len > (size_t)fault.short_writes)
		len = (size_t)fault.short_writes;
	return pwrite(fd, data, len, at);
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
	int ms = fault.sync_ms;

	if (ms)
		(void)nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
	fault.syncs++;
	if (fault.sync_error) {
		errno = fault.sync_error;
		return -1;
	}
	(void)fd; /* the cache is what these tests rest on */
	return 0;
}

static int t_fsync(int fd)
{
	fault.removed = 0;
	return t_fdatasync(fd);
}

static int t_unlink(const char *path)
{
	fault.unlinks++;
	fault.unordered += fault.removed++ > 0;
	return unlink(path);
}

static const struct journal_fs test_fs = {t_open, t_pwrite, pread, t_nowait, t_fdatasync, t_fsync, t_unlink, rename};

/* ---------------------------------------------------------------- fixture */

struct fixture {
	char dir[64];
	struct journal *j;
	struct journal_options options;
};

static void reopen_journal(struct fixture *f)
{
	struct im_err err = {""};

	journal_close(f->j);
	f->j = NULL;
	if (journal_open_with(&f->options, &f->j, &err) != IM_OK)
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	memset(&fault, 0, sizeof(fault));
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/im-journal-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->options = (struct journal_options){f->dir, 1 << 20, SEGMENT, IM_DURABILITY_PROCESS, &test_fs, 0};
	reopen_journal(f);
	*state = f;
	return 0;
}

static void each_file(const char *dir, void (*fn)(const char *path, void *arg), void *arg)
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

static void remove_file(const char *path, void *arg)
{
	(void)arg;
	(void)unlink(path);
}

static void count_segment(const char *path, void *arg)
{
	*(int *)arg += strstr(path, ".seg") != NULL;
}

static int segments(const struct fixture *f)
{
	int n = 0;

	each_file(f->dir, count_segment, &n);
	return n;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[80];

	memset(&fault, 0, sizeof(fault));
	journal_close(f->j);
	each_file(f->dir, remove_file, NULL);
	(void)rmdir(f->dir);
	(void)snprintf(path, sizeof(path), "%s.epoch", f->dir);
	(void)unlink(path);
	free(f);
	return 0;
}

static size_t body_len(unsigned n)
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

static enum im_status append(struct fixture *f, unsigned n)
{
	uint8_t body[1024];

	body_fill(n, body);
	return journal_append(f->j, body, body_len(n));
}

/* The next segment may be in the making: until a deadline, busy is not an answer. */
static void must_append(struct fixture *f, unsigned n)
{
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	enum im_status st;

	while ((st = append(f, n)) == IM_BUSY && im_clock_mono_ms() < until)
		(void)usleep(200);
	if (st != IM_OK)
		fail_msg("record %u: %s: %s", n, im_status_name(st), journal_why(f->j));
}

/* Reads everything from the oldest on; checks that numbers go up from `first`, contiguous. Returns how many. */
static unsigned read_all(struct fixture *f, unsigned first)
{
	struct journal_cursor c = journal_oldest(f->j);
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	uint64_t epoch, offset;
	unsigned n = first;
	struct im_buf b;
	enum im_status st;

	im_buf_init(&b);
	while ((st = journal_read(f->j, &c, 4000, &b, &epoch, &offset)) == IM_OK || st == IM_BUSY) {
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

/* ---------------------------------------------------------------- tests */

static void accepted_records_are_read_back_over_segment_borders(void **state)
{
	struct fixture *f = *state;

	for (unsigned n = 0; n < 300; n++)
		must_append(f, n);
	assert_true(segments(f) > 3);
	assert_int_equal(read_all(f, 0), 300);
}

static void restart_finds_everything_under_a_new_epoch(void **state)
{
	struct fixture *f = *state;
	uint64_t before = journal_epoch(f->j), bytes;

	for (unsigned n = 0; n < 100; n++)
		must_append(f, n);
	bytes = journal_bytes(f->j);
	reopen_journal(f);
	assert_true(journal_epoch(f->j) > before);
	assert_int_equal(journal_bytes(f->j), bytes);
	for (unsigned n = 100; n < 150; n++)
		must_append(f, n);
	assert_int_equal(read_all(f, 0), 150);
}

static void a_wiped_folder_and_a_clock_set_back_reuse_no_epoch(void **state)
{
	struct fixture *f = *state;
	char path[80];
	FILE *file;

	journal_close(f->j);
	f->j = NULL;
	each_file(f->dir, remove_file, NULL);
	(void)snprintf(path, sizeof(path), "%s.epoch", f->dir);
	file = fopen(path, "w"); /* begun when the clock was ahead */
	assert_non_null(file);
	fprintf(file, "00000000009999999999\n");
	assert_int_equal(fclose(file), 0);
	reopen_journal(f);
	assert_true(journal_epoch(f->j) == 10000000000u);
	each_file(f->dir, remove_file, NULL);
	reopen_journal(f);
	assert_true(journal_epoch(f->j) == 10000000001u);
}

static void the_first_spare_waits_until_it_is_wanted(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;

	f->options.start_grace_ms = 1000000;
	reopen_journal(f);
	assert_int_equal(append(f, n++), IM_OK);
	(void)nanosleep(&(struct timespec){0, 50000000}, NULL); /* long enough for it to have been made */
	assert_int_equal(segments(f), 1);
	for (; n < 200; n++)
		must_append(f, n); /* several segments: it came when it was needed */
}

static unsigned n_refuses, n_accepts;

static void count_refusals(enum im_log_level level, const char *line)
{
	(void)level;
	n_refuses += strstr(line, "evt=journal_refuses") != NULL;
	n_accepts += strstr(line, "evt=journal_accepts") != NULL;
}

static void quiet(enum im_log_level level, const char *line);

static void refusals_are_logged_once_and_so_is_their_end(void **state)
{
	struct fixture *f = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;

	n_refuses = n_accepts = 0;
	im_log_open("test", IM_LOG_DEBUG, count_refusals);
	journal_set_limit(f->j, 10);
	for (int i = 0; i < 50; i++)
		assert_int_equal(append(f, 1), IM_BUSY);
	journal_set_limit(f->j, 1 << 20);
	assert_int_equal(append(f, 1), IM_OK);
	journal_tick(f->j);
	assert_int_equal(n_refuses, 1);
	assert_int_equal(n_accepts, 0); /* not for a moment's room */
	assert_true(strlen(journal_why(f->j)) > 0);
	while (n_accepts == 0 && im_clock_mono_ms() < until)
		journal_tick(f->j);
	im_log_open("journal_test", IM_LOG_ERROR, quiet);
	assert_int_equal(n_refuses, 1);
	assert_int_equal(n_accepts, 1);
	assert_string_equal(journal_why(f->j), "");
}

static void empty_epochs_leave_no_files(void **state)
{
	struct fixture *f = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;

	for (int i = 0; i < 5; i++)
		reopen_journal(f);
	while (segments(f) > 2 && im_clock_mono_ms() < until)
		(void)usleep(1000);
	assert_true(segments(f) <= 2); /* the current one and the prepared one */
}

static void second_broker_on_the_same_folder_is_refused(void **state)
{
	struct fixture *f = *state;
	struct journal *other = NULL;
	struct im_err err = {""};

	assert_int_equal(journal_open_with(&f->options, &other, &err), IM_FAILED);
	assert_non_null(strstr(err.text, "in use"));
}

static void last_record_cut_anywhere_leaves_those_before_it(void **state)
{
	struct fixture *f = *state;
	char path[512];
	size_t size = im_record_size(body_len(2)), head = im_record_size(body_len(0)) + im_record_size(body_len(1));

	for (size_t keep = 0; keep < size; keep += 5) {
		uint64_t epoch = journal_epoch(f->j);

		for (unsigned n = 0; n < 3; n++)
			must_append(f, n);
		segment_path(f->dir, epoch, 0, path, sizeof(path));
		journal_close(f->j);
		f->j = NULL;
		assert_int_equal(truncate(path, (off_t)(SEGMENT_PAGE + head + keep)), 0);
		reopen_journal(f);
		assert_int_equal(read_all(f, 0), 2);
		journal_confirm(f->j, epoch, head);
	}
}

static void flipped_bit_ends_the_epoch_before_its_record(void **state)
{
	struct fixture *f = *state;
	char path[512];
	size_t at = 0;

	for (unsigned victim = 0; victim < 6; victim++) {
		uint64_t epoch = journal_epoch(f->j);
		uint8_t byte;
		int fd;

		for (unsigned n = 0; n < 6; n++)
			must_append(f, n);
		segment_path(f->dir, epoch, 0, path, sizeof(path));
		journal_close(f->j);
		f->j = NULL;
		fd = open(path, O_RDWR);
		assert_int_equal(pread(fd, &byte, 1, (off_t)(SEGMENT_PAGE + at + 3 + victim)), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(SEGMENT_PAGE + at + 3 + victim)), 1);
		(void)close(fd);
		reopen_journal(f);
		assert_int_equal(read_all(f, 0), victim);
		journal_confirm(f->j, epoch, UINT64_MAX);
		at += im_record_size(body_len(victim));
	}
}

static void a_journal_of_a_newer_release_stops_the_start_and_stays(void **state)
{
	struct fixture *f = *state;
	struct im_err err = {""};
	struct journal *j = NULL;
	char path[512];
	int fd;

	must_append(f, 1);
	segment_path(f->dir, journal_epoch(f->j), 0, path, sizeof(path));
	journal_close(f->j);
	f->j = NULL;
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "IMJRNL02", 8, 0), 8);
	(void)close(fd);
	assert_int_equal(journal_open_with(&f->options, &j, &err), IM_BAD_INPUT);
	assert_non_null(strstr(err.text, "newer release"));
	assert_int_equal(access(path, F_OK), 0); /* it was taken for one never used, and removed */
	assert_int_equal(unlink(path), 0);
	reopen_journal(f);
}

static void segment_missing_in_the_middle_ends_the_epoch(void **state)
{
	struct fixture *f = *state;
	uint64_t epoch = journal_epoch(f->j);
	char path[512];
	unsigned n;

	for (n = 0; n < 200; n++)
		must_append(f, n);
	journal_close(f->j);
	f->j = NULL;
	segment_path(f->dir, epoch, 1, path, sizeof(path));
	assert_int_equal(unlink(path), 0);
	reopen_journal(f);
	n = read_all(f, 0);
	assert_true(n > 0 && n < 200);
	assert_true(journal_bytes(f->j) <= SEGMENT);
}

static void confirmed_segments_are_deleted(void **state)
{
	struct fixture *f = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	struct journal_cursor end;

	for (unsigned n = 0; n < 300; n++)
		must_append(f, n);
	end = (struct journal_cursor){journal_epoch(f->j), journal_bytes(f->j)};
	journal_confirm(f->j, end.epoch, end.offset / 2);
	assert_int_equal(journal_bytes(f->j), end.offset - end.offset / 2);
	journal_confirm(f->j, end.epoch, end.offset / 4); /* never back */
	assert_int_equal(journal_bytes(f->j), end.offset - end.offset / 2);
	fault.unordered = fault.removed = 0;
	journal_confirm(f->j, end.epoch, UINT64_MAX);
	assert_int_equal(journal_bytes(f->j), 0);
	while (segments(f) > 2 && im_clock_mono_ms() < until)
		(void)usleep(1000);
	assert_true(segments(f) <= 2);
	assert_int_equal(fault.unordered, 0); /* a start takes a hole for the end of the epoch */
	must_append(f, 300);
	assert_int_equal(read_all(f, 300), 1);
}

/* The same few files serve for as long as the service keeps up, and what they held before is never found again. */
static void a_confirmed_segment_serves_again(void **state)
{
	struct fixture *f = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	struct journal_cursor end = {0, 0};

	fault.unlinks = 0;
	for (unsigned n = 0; n < 1000; n++) {
		must_append(f, n);
		if (n % 10 != 9 || n == 999)
			continue;
		journal_confirm(f->j, journal_epoch(f->j), UINT64_MAX); /* the last ten stay */
		while (segments(f) > 2 && im_clock_mono_ms() < until)
			(void)usleep(200);
		end = journal_oldest(f->j);
	}
	assert_in_range(fault.unlinks, 0, 50); /* of about a hundred; one may be made while another becomes free */
	reopen_journal(f);
	journal_confirm(f->j, end.epoch, end.offset);
	assert_int_equal(read_all(f, 990), 10);
}

static void full_journal_refuses_and_goes_on_when_confirmed(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;

	f->options.limit = 40000;
	reopen_journal(f);
	while (journal_bytes(f->j) + im_record_size(body_len(n)) <= f->options.limit)
		must_append(f, n++);
	assert_int_equal(append(f, n), IM_BUSY);
	assert_non_null(strstr(journal_why(f->j), "full"));
	assert_int_equal(read_all(f, 0), n);
	journal_confirm(f->j, journal_epoch(f->j), UINT64_MAX);
	must_append(f, n);
	assert_int_equal(read_all(f, n), 1);
}

static void await_new_epoch(struct fixture *f, uint64_t before)
{
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;

	while (journal_epoch(f->j) == before && im_clock_mono_ms() < until) {
		journal_tick(f->j);
		(void)usleep(1000);
	}
	assert_true(journal_epoch(f->j) > before);
}

static void failed_write_refuses_until_a_new_epoch_is_open(void **state)
{
	struct fixture *f = *state;
	uint64_t before = journal_epoch(f->j);

	for (unsigned n = 0; n < 10; n++)
		must_append(f, n);
	fault.pwrite_error = EIO;
	assert_int_equal(append(f, 10), IM_FAILED);
	assert_int_equal(append(f, 10), IM_FAILED);
	assert_true(strlen(journal_why(f->j)) > 0);
	fault.pwrite_error = 0;
	await_new_epoch(f, before);
	for (unsigned n = 10; n < 20; n++)
		must_append(f, n);
	assert_int_equal(read_all(f, 0), 20);
	reopen_journal(f);
	assert_int_equal(read_all(f, 0), 20);
}

static void failed_sync_refuses_and_keeps_what_was_accepted(void **state)
{
	struct fixture *f = *state;
	uint64_t before = journal_epoch(f->j);
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	unsigned n = 0;

	fault.sync_error = EIO;
	while (append(f, n) == IM_OK && im_clock_mono_ms() < until) {
		n++;
		(void)usleep(1000);
	}
	assert_true(n > 0 && im_clock_mono_ms() < until);
	assert_int_equal(read_all(f, 0), n);
	fault.sync_error = 0;
	await_new_epoch(f, before);
	must_append(f, n);
	assert_int_equal(read_all(f, 0), n + 1);
	reopen_journal(f);
	assert_int_equal(read_all(f, 0), n + 1);
}

static void refused_record_on_disk_is_not_found_later(void **state)
{
	struct fixture *f = *state;
	uint64_t before;

	f->options.durability = IM_DURABILITY_DISK;
	reopen_journal(f);
	before = journal_epoch(f->j);
	must_append(f, 0);
	fault.sync_error = EIO; /* written, and then the sync fails: refused */
	assert_int_equal(append(f, 1), IM_FAILED);
	fault.sync_error = 0;
	await_new_epoch(f, before);
	must_append(f, 1);
	assert_int_equal(read_all(f, 0), 2);
	reopen_journal(f);
	assert_int_equal(read_all(f, 0), 2);
}

static void disk_durability_syncs_each_record(void **state)
{
	struct fixture *f = *state;
	int syncs;

	f->options.durability = IM_DURABILITY_DISK;
	reopen_journal(f);
	must_append(f, 0);
	syncs = fault.syncs;
	for (unsigned n = 1; n <= 5; n++)
		must_append(f, n);
	assert_true(fault.syncs >= syncs + 5);
}

static void full_disk_is_explained_and_left_without_help(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;
	enum im_status st;

	must_append(f, n++);
	fault.zero_error = ENOSPC;
	while ((st = append(f, n)) == IM_OK)
		n++;
	assert_int_equal(st, IM_BUSY);
	for (int64_t until = im_clock_mono_ms() + DEADLINE_MS; !strstr(journal_why(f->j), "No space") && im_clock_mono_ms() < until;) {
		(void)usleep(1000);
		(void)append(f, n);
	}
	assert_non_null(strstr(journal_why(f->j), "No space"));
	assert_int_equal(read_all(f, 0), n);
	fault.zero_error = 0;
	must_append(f, n);
	assert_int_equal(read_all(f, 0), n + 1);
}

static void disk_that_does_not_sync_for_a_second_refuses(void **state)
{
	struct fixture *f = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	unsigned n = 0;

	f->options.segment_cap = 256 << 10; /* nothing else stands in the way */
	reopen_journal(f);
	fault.sync_ms = 2500;
	while (append(f, n) == IM_OK && im_clock_mono_ms() < until) {
		n++;
		(void)usleep(20000);
	}
	assert_non_null(strstr(journal_why(f->j), "synced"));
	fault.sync_ms = 0;
	must_append(f, n);
	assert_int_equal(read_all(f, 0), n + 1);
}

static void short_and_interrupted_writes_are_completed(void **state)
{
	struct fixture *f = *state;

	fault.short_writes = 13;
	fault.interrupts = 5;
	for (unsigned n = 0; n < 20; n++)
		must_append(f, n);
	assert_int_equal(read_all(f, 0), 20);
}

static void file_size_limit_is_a_refusal_and_no_death(void **state)
{
	struct fixture *f = *state;
	pid_t child;
	int status;

	journal_close(f->j);
	f->j = NULL;
	child = fork();
	if (child == 0) {
		const struct rlimit limit = {SEGMENT / 2, SEGMENT / 2}; /* below what a segment takes */
		struct fixture g = *f;
		struct im_err err;

		if (journal_open_with(&g.options, &g.j, &err) != IM_OK || setrlimit(RLIMIT_FSIZE, &limit) != 0)
			_exit(4);
		for (unsigned n = 0; n < 100; n++)
			if (append(&g, n) == IM_FAILED)
				_exit(0); /* refused, and alive */
		_exit(5);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void what_is_not_in_memory_is_fetched(void **state)
{
	struct fixture *f = *state;

	for (unsigned n = 0; n < 50; n++)
		must_append(f, n);
	fault.misses = 7;
	assert_int_equal(read_all(f, 0), 50);
	assert_int_equal(fault.misses, 0);
}

static void slice_is_at_least_one_record(void **state)
{
	struct fixture *f = *state;
	struct journal_cursor c;
	uint64_t epoch, offset;
	struct im_buf b;

	must_append(f, 20);
	c = journal_oldest(f->j);
	im_buf_init(&b);
	assert_int_equal(journal_read(f->j, &c, 10, &b, &epoch, &offset), IM_OK);
	assert_int_equal(b.len, im_record_size(body_len(20)));
	im_buf_finish(&b);
}

static void idle_journal_makes_no_syncs(void **state)
{
	struct fixture *f = *state;
	int64_t until;
	int syncs;

	must_append(f, 0);
	for (until = im_clock_mono_ms() + 100; im_clock_mono_ms() < until;)
		(void)usleep(1000);
	syncs = fault.syncs;
	for (until = im_clock_mono_ms() + 100; im_clock_mono_ms() < until;)
		(void)usleep(1000);
	assert_true(syncs > 0);
	assert_int_equal(fault.syncs, syncs);
}

/* kill -9 at any moment: what the child said was accepted is there, and at most one more. */
static void killed_writer_loses_nothing_it_accepted(void **state)
{
	struct fixture *f = *state;
	_Atomic unsigned *accepted = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned seed = (unsigned)time(NULL), total = 0;

	f->options.limit = 64 << 20;
	print_message("seed %u\n", seed);
	srand(seed);
	journal_close(f->j);
	f->j = NULL;
	for (int round = 0; round < 25; round++) {
		int64_t until;
		unsigned stop_at = total + (unsigned)rand() % 400 + 1, found;
		pid_t child;
		int status;

		*accepted = total;
		child = fork();
		if (child == 0) {
			struct im_err err;

			if (journal_open_with(&f->options, &f->j, &err) != IM_OK)
				_exit(1);
			for (unsigned n = total;;) {
				if (append(f, n) == IM_OK)
					*accepted = ++n;
			}
		}
		for (until = im_clock_mono_ms() + DEADLINE_MS; *accepted < stop_at && im_clock_mono_ms() < until;)
			;
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		assert_true(*accepted >= stop_at);
		reopen_journal(f);
		found = read_all(f, 0);
		if (found != *accepted && found != *accepted + 1)
			fail_msg("round %d: accepted %u, found %u", round, *accepted, found);
		total = found;
		journal_close(f->j);
		f->j = NULL;
	}
	(void)munmap((void *)accepted, 4096);
}

/* Random operations beside a model: numbers accepted, of which a prefix is confirmed. */
static void random_operations_agree_with_a_model(void **state)
{
	struct fixture *f = *state;
	unsigned seed = (unsigned)time(NULL) ^ 0x5eed, next = 0, restarts = 0;
	struct journal_cursor done[4000]; /* position behind record n */
	unsigned confirmed = 0;

	print_message("seed %u\n", seed);
	srand(seed);
	for (int step = 0; step < 1500; step++) {
		int what = rand() % 100;
		uint64_t before = journal_epoch(f->j);

		if (what < 85 && next < 4000) {
			struct journal_cursor *at = &done[next];
			uint64_t from = next && done[next - 1].epoch == before ? done[next - 1].offset : 0;

			must_append(f, next);
			*at = (struct journal_cursor){before, from + im_record_size(body_len(next))};
			next++;
		} else if (what < 90 && next > confirmed) {
			unsigned to = confirmed + (unsigned)rand() % (next - confirmed);

			for (unsigned n = confirmed; n <= to; n++)
				journal_confirm(f->j, done[n].epoch, done[n].offset);
			confirmed = to + 1;
		} else if (what < 92) {
			enum im_status st;

			fault.pwrite_error = EIO;
			st = append(f, next);
			fault.pwrite_error = 0;
			if (st == IM_BUSY) /* the segment was full and the next one not ready: nothing was written */
				continue;
			assert_int_equal(st, IM_FAILED);
			await_new_epoch(f, before);
		} else if (what < 93) {
			reopen_journal(f);
			restarts++;
			for (unsigned n = 0; n < confirmed; n++) /* as the service's hello does */
				journal_confirm(f->j, done[n].epoch, done[n].offset);
		} else if (what < 95) {
			assert_int_equal(read_all(f, confirmed), next - confirmed);
		}
	}
	assert_int_equal(read_all(f, confirmed), next - confirmed);
	assert_true(next > 500 && restarts > 0);
}

static void quiet(enum im_log_level level, const char *line)
{
	(void)level;
	(void)line; /* errors are what is tested here */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(accepted_records_are_read_back_over_segment_borders),
		T(restart_finds_everything_under_a_new_epoch),
		T(empty_epochs_leave_no_files),
		T(a_wiped_folder_and_a_clock_set_back_reuse_no_epoch),
		T(the_first_spare_waits_until_it_is_wanted),
		T(refusals_are_logged_once_and_so_is_their_end),
		T(second_broker_on_the_same_folder_is_refused),
		T(last_record_cut_anywhere_leaves_those_before_it),
		T(flipped_bit_ends_the_epoch_before_its_record),
		T(segment_missing_in_the_middle_ends_the_epoch),
		T(a_journal_of_a_newer_release_stops_the_start_and_stays),
		T(confirmed_segments_are_deleted),
		T(a_confirmed_segment_serves_again),
		T(full_journal_refuses_and_goes_on_when_confirmed),
		T(failed_write_refuses_until_a_new_epoch_is_open),
		T(failed_sync_refuses_and_keeps_what_was_accepted),
		T(refused_record_on_disk_is_not_found_later),
		T(disk_durability_syncs_each_record),
		T(full_disk_is_explained_and_left_without_help),
		T(disk_that_does_not_sync_for_a_second_refuses),
		T(short_and_interrupted_writes_are_completed),
		T(file_size_limit_is_a_refusal_and_no_death),
		T(what_is_not_in_memory_is_fetched),
		T(slice_is_at_least_one_record),
		T(idle_journal_makes_no_syncs),
		T(killed_writer_loses_nothing_it_accepted),
		T(random_operations_agree_with_a_model),
	};

	im_log_open("journal_test", IM_LOG_ERROR, quiet);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
