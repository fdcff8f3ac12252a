/*
 * plugin/journal.c: what was accepted is read back, whatever happens to the process or its files. What happens when
 * the disk fails: journal_disk_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "journal_world.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/record.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void count_segment(const char *path, void *arg)
{
	*(int *)arg += strstr(path, ".seg") != NULL;
}

static int segments(const struct journal_world *w)
{
	int n = 0;

	each_file(w->dir, count_segment, &n);
	return n;
}

static void accepted_records_are_read_back_over_segment_borders(void **state)
{
	struct journal_world *w = *state;

	for (unsigned n = 0; n < 300; n++)
		must_append(w, n);
	assert_true(segments(w) > 3);
	assert_int_equal(read_all(w, 0), 300);
}

static void restart_finds_everything_under_a_new_epoch(void **state)
{
	struct journal_world *w = *state;
	uint64_t before = journal_epoch(w->j), bytes;

	for (unsigned n = 0; n < 100; n++)
		must_append(w, n);
	bytes = journal_bytes(w->j);
	journal_world_reopen(w);
	assert_true(journal_epoch(w->j) > before);
	assert_int_equal(journal_bytes(w->j), bytes);
	for (unsigned n = 100; n < 150; n++)
		must_append(w, n);
	assert_int_equal(read_all(w, 0), 150);
}

static void a_wiped_folder_and_a_clock_set_back_reuse_no_epoch(void **state)
{
	struct journal_world *w = *state;
	char path[80];
	FILE *file;

	journal_close(w->j);
	w->j = NULL;
	each_file(w->dir, remove_file, NULL);
	(void)snprintf(path, sizeof(path), "%s.epoch", w->dir);
	file = fopen(path, "w"); /* begun when the clock was ahead */
	assert_non_null(file);
	fprintf(file, "00000000009999999999\n");
	assert_int_equal(fclose(file), 0);
	journal_world_reopen(w);
	assert_true(journal_epoch(w->j) == 10000000000u);
	each_file(w->dir, remove_file, NULL);
	journal_world_reopen(w);
	assert_true(journal_epoch(w->j) == 10000000001u);
}

static void the_first_spare_waits_until_it_is_wanted(void **state)
{
	struct journal_world *w = *state;
	unsigned n = 0;

	w->options.start_grace_ms = 1000000;
	journal_world_reopen(w);
	assert_int_equal(append(w, n++), IM_OK);
	(void)nanosleep(&(struct timespec){0, 50000000}, NULL); /* long enough for it to have been made */
	assert_int_equal(segments(w), 1);
	for (; n < 200; n++)
		must_append(w, n); /* several segments: it came when it was needed */
}

static unsigned n_refuses, n_accepts;

static void count_refusals(enum im_log_level level, const char *line)
{
	(void)level;
	n_refuses += strstr(line, "evt=journal_refuses") != NULL;
	n_accepts += strstr(line, "evt=journal_accepts") != NULL;
}

static void refusals_are_logged_once_and_so_is_their_end(void **state)
{
	struct journal_world *w = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;

	n_refuses = n_accepts = 0;
	im_log_open("test", IM_LOG_DEBUG, count_refusals);
	journal_set_limit(w->j, 10);
	for (int i = 0; i < 50; i++)
		assert_int_equal(append(w, 1), IM_BUSY);
	journal_set_limit(w->j, 1 << 20);
	assert_int_equal(append(w, 1), IM_OK);
	journal_tick(w->j);
	assert_int_equal(n_refuses, 1);
	assert_int_equal(n_accepts, 0); /* not for a moment's room */
	assert_true(strlen(journal_why(w->j)) > 0);
	while (n_accepts == 0 && im_clock_mono_ms() < until)
		journal_tick(w->j);
	assert_int_equal(n_refuses, 1);
	assert_int_equal(n_accepts, 1);
	assert_string_equal(journal_why(w->j), "");
}

static void empty_epochs_leave_no_files(void **state)
{
	struct journal_world *w = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;

	for (int i = 0; i < 5; i++)
		journal_world_reopen(w);
	while (segments(w) > 2 && im_clock_mono_ms() < until)
		(void)usleep(1000);
	assert_true(segments(w) <= 2); /* the current one and the prepared one */
}

static void second_broker_on_the_same_folder_is_refused(void **state)
{
	struct journal_world *w = *state;
	struct journal *other = NULL;
	struct im_err err = {""};

	assert_int_equal(journal_open_with(&w->options, &other, &err), IM_FAILED);
	assert_non_null(strstr(err.text, "in use"));
}

static void last_record_cut_anywhere_leaves_those_before_it(void **state)
{
	struct journal_world *w = *state;
	char path[512];
	size_t size = im_record_size(body_len(2)), head = im_record_size(body_len(0)) + im_record_size(body_len(1));

	for (size_t keep = 0; keep < size; keep += 5) {
		uint64_t epoch = journal_epoch(w->j);

		for (unsigned n = 0; n < 3; n++)
			must_append(w, n);
		segment_path(w->dir, epoch, 0, path, sizeof(path));
		journal_close(w->j);
		w->j = NULL;
		assert_int_equal(truncate(path, (off_t)(SEGMENT_PAGE + head + keep)), 0);
		journal_world_reopen(w);
		assert_int_equal(read_all(w, 0), 2);
		journal_confirm(w->j, epoch, head);
	}
}

static void flipped_bit_ends_the_epoch_before_its_record(void **state)
{
	struct journal_world *w = *state;
	char path[512];
	size_t at = 0;

	for (unsigned victim = 0; victim < 6; victim++) {
		uint64_t epoch = journal_epoch(w->j);
		uint8_t byte;
		int fd;

		for (unsigned n = 0; n < 6; n++)
			must_append(w, n);
		segment_path(w->dir, epoch, 0, path, sizeof(path));
		journal_close(w->j);
		w->j = NULL;
		fd = open(path, O_RDWR);
		assert_int_equal(pread(fd, &byte, 1, (off_t)(SEGMENT_PAGE + at + 3 + victim)), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(SEGMENT_PAGE + at + 3 + victim)), 1);
		(void)close(fd);
		journal_world_reopen(w);
		assert_int_equal(read_all(w, 0), victim);
		journal_confirm(w->j, epoch, UINT64_MAX);
		at += im_record_size(body_len(victim));
	}
}

static void a_journal_of_a_newer_release_stops_the_start_and_stays(void **state)
{
	struct journal_world *w = *state;
	struct im_err err = {""};
	struct journal *j = NULL;
	char path[512];
	int fd;

	must_append(w, 1);
	segment_path(w->dir, journal_epoch(w->j), 0, path, sizeof(path));
	journal_close(w->j);
	w->j = NULL;
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "IMJRNL02", 8, 0), 8);
	(void)close(fd);
	assert_int_equal(journal_open_with(&w->options, &j, &err), IM_BAD_INPUT);
	assert_non_null(strstr(err.text, "newer release"));
	assert_int_equal(access(path, F_OK), 0); /* it was taken for one never used, and removed */
	assert_int_equal(unlink(path), 0);
	journal_world_reopen(w);
}

static void segment_missing_in_the_middle_ends_the_epoch(void **state)
{
	struct journal_world *w = *state;
	uint64_t epoch = journal_epoch(w->j);
	char path[512];
	unsigned n;

	for (n = 0; n < 200; n++)
		must_append(w, n);
	journal_close(w->j);
	w->j = NULL;
	segment_path(w->dir, epoch, 1, path, sizeof(path));
	assert_int_equal(unlink(path), 0);
	journal_world_reopen(w);
	n = read_all(w, 0);
	assert_true(n > 0 && n < 200);
	assert_true(journal_bytes(w->j) <= SEGMENT);
}

static void confirmed_segments_are_deleted(void **state)
{
	struct journal_world *w = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	struct journal_cursor end;

	for (unsigned n = 0; n < 300; n++)
		must_append(w, n);
	end = (struct journal_cursor){journal_epoch(w->j), journal_bytes(w->j)};
	journal_confirm(w->j, end.epoch, end.offset / 2);
	assert_int_equal(journal_bytes(w->j), end.offset - end.offset / 2);
	journal_confirm(w->j, end.epoch, end.offset / 4); /* never back */
	assert_int_equal(journal_bytes(w->j), end.offset - end.offset / 2);
	fault.unordered = fault.removed = 0;
	journal_confirm(w->j, end.epoch, UINT64_MAX);
	assert_int_equal(journal_bytes(w->j), 0);
	while (segments(w) > 2 && im_clock_mono_ms() < until)
		(void)usleep(1000);
	assert_true(segments(w) <= 2);
	assert_int_equal(fault.unordered, 0); /* a start takes a hole for the end of the epoch */
	must_append(w, 300);
	assert_int_equal(read_all(w, 300), 1);
}

/* A failing disk may have given a file its next name and not taken it back. */
static void a_file_in_the_way_of_the_next_segment_goes(void **state)
{
	struct journal_world *w = *state;
	char path[512];
	int fd;

	segment_path(w->dir, journal_epoch(w->j), 4, path, sizeof(path));
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "of another place", 16), 16);
	(void)close(fd);
	for (unsigned n = 0; n < 200; n++)
		must_append(w, n);
	assert_true(segments(w) > 5);
	journal_world_reopen(w);
	assert_int_equal(read_all(w, 0), 200);
}

/* The same few files serve for as long as the service keeps up, and what they held before is never found again. */
static void a_confirmed_segment_serves_again(void **state)
{
	struct journal_world *w = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	struct journal_cursor end = {0, 0};

	fault.unlinks = 0;
	for (unsigned n = 0; n < 1000; n++) {
		must_append(w, n);
		if (n % 10 != 9 || n == 999)
			continue;
		journal_confirm(w->j, journal_epoch(w->j), UINT64_MAX); /* the last ten stay */
		while (segments(w) > 2 && im_clock_mono_ms() < until)
			(void)usleep(200);
		end = journal_oldest(w->j);
	}
	assert_in_range(fault.unlinks, 0, 50); /* of about a hundred; one may be made while another becomes free */
	journal_world_reopen(w);
	journal_confirm(w->j, end.epoch, end.offset);
	assert_int_equal(read_all(w, 990), 10);
}

static void full_journal_refuses_and_goes_on_when_confirmed(void **state)
{
	struct journal_world *w = *state;
	unsigned n = 0;

	w->options.limit = 40000;
	journal_world_reopen(w);
	while (journal_bytes(w->j) + im_record_size(body_len(n)) <= w->options.limit)
		must_append(w, n++);
	assert_int_equal(append(w, n), IM_BUSY);
	assert_non_null(strstr(journal_why(w->j), "full"));
	assert_int_equal(read_all(w, 0), n);
	journal_confirm(w->j, journal_epoch(w->j), UINT64_MAX);
	must_append(w, n);
	assert_int_equal(read_all(w, n), 1);
}

static void what_is_not_in_memory_is_fetched(void **state)
{
	struct journal_world *w = *state;

	for (unsigned n = 0; n < 50; n++)
		must_append(w, n);
	journal_world_reopen(w); /* what is not synced is always in memory */
	fault.misses = 7;
	assert_int_equal(read_all(w, 0), 50);
	assert_int_equal(fault.misses, 0);
}

static void slice_is_at_least_one_record(void **state)
{
	struct journal_world *w = *state;
	struct journal_cursor c;
	uint64_t epoch, offset;
	struct im_buf b;

	must_append(w, 20);
	c = journal_oldest(w->j);
	im_buf_init(&b);
	assert_int_equal(journal_read(w->j, &c, 10, &b, &epoch, &offset), IM_OK);
	assert_int_equal(b.len, im_record_size(body_len(20)));
	im_buf_finish(&b);
}

static void idle_journal_makes_no_syncs(void **state)
{
	struct journal_world *w = *state;
	int64_t until;
	int syncs;

	must_append(w, 0);
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
	struct journal_world *w = *state;
	_Atomic unsigned *accepted = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned seed = (unsigned)time(NULL), total = 0;

	w->options.limit = 64 << 20;
	print_message("seed %u\n", seed);
	srand(seed);
	journal_close(w->j);
	w->j = NULL;
	for (int round = 0; round < 25; round++) {
		int64_t until;
		unsigned stop_at = total + (unsigned)rand() % 400 + 1, found;
		pid_t child;
		int status;

		*accepted = total;
		child = fork();
		if (child == 0) {
			struct im_err err;

			if (journal_open_with(&w->options, &w->j, &err) != IM_OK)
				_exit(1);
			for (unsigned n = total;;) {
				if (append(w, n) == IM_OK)
					*accepted = ++n;
			}
		}
		for (until = im_clock_mono_ms() + DEADLINE_MS; *accepted < stop_at && im_clock_mono_ms() < until;)
			;
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		assert_true(*accepted >= stop_at);
		journal_world_reopen(w);
		found = read_all(w, 0);
		if (found != *accepted && found != *accepted + 1)
			fail_msg("round %d: accepted %u, found %u", round, *accepted, found);
		total = found;
		journal_close(w->j);
		w->j = NULL;
	}
	(void)munmap((void *)accepted, 4096);
}

/* Random operations beside a model: numbers accepted, of which a prefix is confirmed. */
static void random_operations_agree_with_a_model(void **state)
{
	struct journal_world *w = *state;
	unsigned seed = (unsigned)time(NULL) ^ 0x5eed, next = 0, restarts = 0;
	struct journal_cursor done[4000]; /* position behind record n */
	unsigned confirmed = 0;

	print_message("seed %u\n", seed);
	srand(seed);
	for (int step = 0; step < 1500; step++) {
		int what = rand() % 100;
		uint64_t before = journal_epoch(w->j);

		if (what < 85 && next < 4000) {
			struct journal_cursor *at = &done[next];
			uint64_t from = next && done[next - 1].epoch == before ? done[next - 1].offset : 0;

			must_append(w, next);
			*at = (struct journal_cursor){before, from + im_record_size(body_len(next))};
			next++;
		} else if (what < 90 && next > confirmed) {
			unsigned to = confirmed + (unsigned)rand() % (next - confirmed);

			for (unsigned n = confirmed; n <= to; n++)
				journal_confirm(w->j, done[n].epoch, done[n].offset);
			confirmed = to + 1;
		} else if (what < 92) {
			enum im_status st;

			fault.pwrite_error = EIO;
			st = append(w, next);
			fault.pwrite_error = 0;
			if (st == IM_BUSY) /* the segment was full and the next one not ready: nothing was written */
				continue;
			assert_int_equal(st, IM_FAILED);
			journal_world_next_epoch(w, before);
		} else if (what < 93) {
			journal_world_reopen(w);
			restarts++;
			for (unsigned n = 0; n < confirmed; n++) /* as the service's hello does */
				journal_confirm(w->j, done[n].epoch, done[n].offset);
		} else if (what < 95) {
			assert_int_equal(read_all(w, confirmed), next - confirmed);
		}
	}
	assert_int_equal(read_all(w, confirmed), next - confirmed);
	assert_true(next > 500 && restarts > 0);
}

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
		T(a_file_in_the_way_of_the_next_segment_goes),
		T(a_confirmed_segment_serves_again),
		T(full_journal_refuses_and_goes_on_when_confirmed),
		T(what_is_not_in_memory_is_fetched),
		T(slice_is_at_least_one_record),
		T(idle_journal_makes_no_syncs),
		T(killed_writer_loses_nothing_it_accepted),
		T(random_operations_agree_with_a_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
