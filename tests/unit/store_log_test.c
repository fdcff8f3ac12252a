/* services/offline/store_log.c: the longest valid prefix comes back, and nothing is acknowledged after an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/record.h"
#include "store_log.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STORE "0123456789abcdef0123456789abcdef"
#define SEGMENT (8u << 10)

struct fixture {
	char dir[64];
	struct store_log *log;
	uint64_t after;
	unsigned replayed, next; /* records carry numbers from 1 */
};

static void no_wake(void *arg)
{
	(void)arg; /* tests wait with store_log_flush */
}

/* Record n: its number and n % 50 bytes more. */
static enum im_status replay(void *arg, const uint8_t *body, size_t len, uint64_t end, struct im_err *err)
{
	struct fixture *f = arg;
	unsigned number;

	(void)end;
	(void)err;
	memcpy(&number, body, sizeof(number));
	f->replayed++;
	assert_int_equal(number, f->replayed);
	assert_int_equal(len, sizeof(number) + number % 50);
	return IM_OK;
}

static enum im_status try_open(struct fixture *f, const struct log_io *io, struct im_err *err)
{
	struct log_options o = { f->dir, STORE, SEGMENT, f->after, io, replay, no_wake, f, NULL };

	f->replayed = 0;
	return store_log_open(&o, &f->log, err);
}

static void open_log(struct fixture *f, const struct log_io *io)
{
	struct im_err err = { "" };

	if (try_open(f, io, &err) != IM_OK)
		fail_msg("%s", err.text);
}

static void close_log(struct fixture *f)
{
	store_log_close(f->log);
	f->log = NULL;
}

static int remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
	(void)sb;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void clear(struct fixture *f)
{
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	assert_int_equal(mkdir(f->dir, 0700), 0);
	f->next = 0;
	f->after = 0;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->dir, sizeof(f->dir), "/tmp/im-log-XXXXXX");
	*state = f;
	return mkdtemp(f->dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	store_log_close(f->log);
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void write_records(struct fixture *f, unsigned n)
{
	static const char filler[64] = "filler";
	struct im_buf b;

	im_buf_init(&b);
	while (n-- > 0) {
		unsigned number = ++f->next;
		size_t at;

		im_buf_clear(&b);
		at = log_frame_begin(&b);
		im_buf_add(&b, &number, sizeof(number));
		im_buf_add(&b, filler, number % 50);
		assert_true(log_frame_end(&b, at));
		store_log_append(f->log, &b, append_create(NULL, 0));
	}
	im_buf_finish(&b);
	store_log_flush(f->log);
}

/* The header of a segment, made anew around another magic. */
static void write_newer_header(const char *path, uint64_t number)
{
	uint8_t header[LOG_HEADER];
	int fd = open(path, O_RDWR);

	assert_int_equal(pread(fd, header, sizeof(header), 0), (ssize_t)sizeof(header));
	assert_int_equal(memcmp(header + IM_RECORD_HEADER, "imlog 1", 8), 0);
	header[IM_RECORD_HEADER + 6] = '2';
	im_record_header(number, 0, header + IM_RECORD_HEADER, sizeof(header) - IM_RECORD_HEADER, header);
	assert_int_equal(pwrite(fd, header, sizeof(header), 0), (ssize_t)sizeof(header));
	close(fd);
}

static void a_log_of_a_newer_release_stops_the_opening_and_stays(void **state)
{
	struct fixture *f = *state;
	struct im_err err = { "" };
	char path[128];

	clear(f);
	open_log(f, NULL);
	write_records(f, 3);
	snprintf(path, sizeof(path), "%s/%020llu.log", f->dir, (unsigned long long)(store_log_start(f->log) >> 32));
	write_newer_header(path, store_log_start(f->log) >> 32);
	close_log(f);
	assert_int_equal(try_open(f, NULL, &err), IM_BAD_INPUT);
	assert_non_null(strstr(err.text, "newer release"));
	assert_int_equal(access(path, F_OK), 0); /* it was taken for a torn one, and removed */
}

/* How many of the decided appends are IM_OK; *last: the position after them. */
static unsigned take(struct fixture *f, unsigned *others, uint64_t *last)
{
	struct append_queue q;
	struct append *a;
	unsigned ok = 0;

	append_queue_init(&q);
	store_log_take(f->log, &q);
	*others = 0;
	while ((a = append_queue_take(&q))) {
		if (a->st == IM_OK) {
			assert_true(a->end > *last);
			*last = a->end;
			ok++;
		} else {
			assert_int_equal(a->st, IM_UNCERTAIN);
			(*others)++;
		}
		append_unref(a);
	}
	return ok;
}

static void what_was_written_is_replayed_over_many_openings(void **state)
{
	struct fixture *f = *state;
	uint64_t last = 0;
	unsigned others;

	for (unsigned round = 0; round < 5; round++) {
		open_log(f, NULL);
		assert_int_equal(f->replayed, f->next);
		for (unsigned i = 0; i < 20; i++)
			write_records(f, 30); /* several segments */
		assert_int_equal(take(f, &others, &last), 600);
		close_log(f);
	}
}

static void only_what_is_behind_the_position_is_replayed(void **state)
{
	struct fixture *f = *state;
	unsigned others;

	open_log(f, NULL);
	write_records(f, 100);
	take(f, &others, &f->after);
	close_log(f);
	open_log(f, NULL);
	assert_int_equal(f->replayed, 0);
	store_log_trim(f->log, store_log_start(f->log));
	assert_int_equal(store_log_segments(f->log), 1);
}

/* Trimmed as it grows, the log goes round in the same files; what they held before is never replayed. */
static void a_trimmed_segment_serves_again(void **state)
{
	struct fixture *f = *state;
	unsigned others;
	char spare[128];

	(void)snprintf(spare, sizeof(spare), "%s/next.spare", f->dir);
	open_log(f, NULL);
	for (unsigned round = 0; round < 40; round++) {
		write_records(f, 300); /* a segment or more */
		take(f, &others, &f->after);
		store_log_trim(f->log, f->after);
		assert_int_equal(access(spare, F_OK), round == 0 ? -1 : 0);
	}
	close_log(f);
	open_log(f, NULL);
	assert_int_equal(f->replayed, 0);
}

static void first_segment(const struct fixture *f, char path[128])
{
	snprintf(path, 128, "%s/%020d.log", f->dir, 1);
}

static uint64_t write_ten(struct fixture *f)
{
	uint64_t last = 0;
	unsigned others;

	clear(f);
	open_log(f, NULL);
	write_records(f, 10);
	take(f, &others, &last);
	close_log(f);
	return last & 0xffffffff;
}

/* The file cut, or zeroed, from each byte of the last records on. */
static void a_torn_tail_ends_the_log_and_a_new_segment_goes_on(void **state)
{
	struct fixture *f = *state;
	uint64_t end = write_ten(f);
	char path[128];

	for (uint64_t cut = 1; cut < 60; cut++) {
		unsigned whole = cut <= 8 + 4 + 10 ? 9 : cut <= 8 + 4 + 10 + 8 + 4 + 9 ? 8 : 7, others;
		uint64_t last = 0;

		assert_int_equal(write_ten(f), end);
		first_segment(f, path);
		assert_int_equal(truncate(path, (off_t)(end - cut)), 0);
		if (cut % 2)
			assert_int_equal(truncate(path, SEGMENT), 0); /* zeros instead of the end of the file */
		open_log(f, NULL);
		/* a record whose cut bytes were zeros anyway is whole */
		assert_in_range(f->replayed, whole, 10);
		f->next = f->replayed;
		write_records(f, 5);
		assert_int_equal(take(f, &others, &last), 5);
		close_log(f);
		open_log(f, NULL);
		assert_int_equal(f->replayed, f->next);
		close_log(f);
	}
}

static void a_flipped_bit_ends_the_log_there(void **state)
{
	struct fixture *f = *state;
	uint64_t end = write_ten(f);
	char path[128];

	for (unsigned back = 1; back < 40; back++) {
		uint8_t byte;
		int fd;

		(void)write_ten(f);
		first_segment(f, path);
		fd = open(path, O_RDWR);
		assert_true(fd >= 0);
		assert_int_equal(pread(fd, &byte, 1, (off_t)(end - back)), 1);
		byte = (uint8_t)(byte ^ 1u << (back % 8));
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(end - back)), 1);
		close(fd);
		open_log(f, NULL);
		assert_int_equal(f->replayed, back <= 8 + 4 + 10 ? 9 : 8);
		close_log(f);
	}
}

static void a_hole_between_segments_is_noticed(void **state)
{
	struct fixture *f = *state;
	struct im_err err = { "" };
	char path[128];

	(void)write_ten(f);
	open_log(f, NULL);
	write_records(f, 10);
	close_log(f);
	first_segment(f, path);
	assert_int_equal(truncate(path, 300), 0);
	assert_int_equal(try_open(f, NULL, &err), IM_FAILED);
	assert_non_null(strstr(err.text, "hole"));
}

/* Begun, killed before its first sync, found by the next opening, and taken by a power cut after that. */
static void a_segment_whose_header_a_power_cut_took_is_passed_over(void **state)
{
	static const uint8_t zeros[LOG_HEADER];
	struct fixture *f = *state;
	char path[128];
	int fd;

	(void)write_ten(f);
	open_log(f, NULL); /* segment 2: nothing but a header */
	close_log(f);
	open_log(f, NULL);
	write_records(f, 10);
	close_log(f);
	snprintf(path, sizeof(path), "%s/%020d.log", f->dir, 2);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 0), sizeof(zeros));
	close(fd);
	open_log(f, NULL);
	assert_int_equal(f->replayed, f->next);
}

static unsigned settled;

static enum im_status cannot_settle(void *arg, uint64_t reached, struct im_err *err)
{
	struct fixture *f = arg;

	assert_int_equal(f->replayed, f->next);
	assert_true(reached >> 32 == 1 && (reached & UINT32_MAX) > LOG_HEADER);
	settled++;
	return im_fail(err, IM_FAILED, "the disk fails");
}

/* Else a power cut then, which takes what the process before had not synced, leaves a log that says of it that it was there. */
static void no_segment_begins_before_what_was_found_is_settled(void **state)
{
	struct fixture *f = *state;
	struct log_options o = { f->dir, STORE, SEGMENT, 0, NULL, replay, no_wake, f, cannot_settle };
	struct im_err err = { "" };
	char path[128];

	(void)write_ten(f);
	f->replayed = settled = 0;
	assert_int_equal(store_log_open(&o, &f->log, &err), IM_FAILED);
	assert_int_equal(settled, 1);
	snprintf(path, sizeof(path), "%s/%020d.log", f->dir, 1);
	assert_int_equal(truncate(path, LOG_HEADER), 0);
	open_log(f, NULL);
	assert_int_equal(f->replayed, 0);
}

static void another_stores_log_is_refused(void **state)
{
	struct fixture *f = *state;
	struct log_options o = { f->dir, "ffffffffffffffffffffffffffffffff", SEGMENT, 0, NULL, replay, no_wake, f, NULL };
	struct im_err err = { "" };

	(void)write_ten(f);
	assert_int_equal(store_log_open(&o, &f->log, &err), IM_FAILED);
	assert_non_null(strstr(err.text, "another store"));
}

/* ---- errors of the disk */

static int fail_sync_in, fail_write_in;

static int bad_fdatasync(int fd)
{
	if (fail_sync_in > 0 && --fail_sync_in == 0) {
		errno = EIO;
		return -1;
	}
	return fdatasync(fd);
}

static ssize_t bad_pwrite(int fd, const void *data, size_t len, off_t at)
{
	if (fail_write_in > 0 && --fail_write_in == 0) {
		errno = ENOSPC;
		return -1;
	}
	return pwrite(fd, data, len > 7 ? len / 2 + 1 : len, at); /* short writes are no errors */
}

static const struct log_io bad_io = { bad_pwrite, bad_fdatasync };

static void nothing_is_acknowledged_after_an_error(void **state)
{
	struct fixture *f = *state;
	struct im_err err = { "" };
	unsigned acknowledged, others;
	uint64_t last = 0;

	for (int kind = 0; kind < 2; kind++) {
		clear(f);
		fail_sync_in = fail_write_in = 0;
		open_log(f, &bad_io);
		write_records(f, 5);
		assert_int_equal(take(f, &others, &last), 5);
		fail_sync_in = kind == 0 ? 1 : 0;
		fail_write_in = kind == 1 ? 2 : 0;
		write_records(f, 1);
		assert_int_equal(take(f, &others, &last), 0);
		assert_int_equal(others, 1);
		write_records(f, 20); /* the disk is well again, but this log is not */
		assert_int_equal(take(f, &others, &last), 0);
		assert_int_equal(others, 20);
		assert_true(store_log_failed(f->log, &err));
		assert_non_null(strstr(err.text, f->dir));
		close_log(f);
		acknowledged = 5;
		open_log(f, NULL);
		assert_in_range(f->replayed, acknowledged, 6); /* the uncertain one may be there */
		f->next = f->replayed;
		write_records(f, 1);
		last = 0;
		assert_int_equal(take(f, &others, &last), 1);
		close_log(f);
		last = 0;
	}
}

int main(void)
{
#define LOG_TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		LOG_TEST(what_was_written_is_replayed_over_many_openings),
		LOG_TEST(only_what_is_behind_the_position_is_replayed),
		LOG_TEST(a_trimmed_segment_serves_again),
		LOG_TEST(a_torn_tail_ends_the_log_and_a_new_segment_goes_on),
		LOG_TEST(a_flipped_bit_ends_the_log_there),
		LOG_TEST(a_hole_between_segments_is_noticed),
		LOG_TEST(a_segment_whose_header_a_power_cut_took_is_passed_over),
		LOG_TEST(another_stores_log_is_refused),
		LOG_TEST(no_segment_begins_before_what_was_found_is_settled),
		LOG_TEST(a_log_of_a_newer_release_stops_the_opening_and_stays),
		LOG_TEST(nothing_is_acknowledged_after_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
