/* plugin/journal_epoch.c and what leads there: a disk that fails, is full or slow. What was accepted stays, what was refused does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "journal_world.h"

#include "base/clock.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void failed_write_refuses_until_a_new_epoch_is_open(void **state)
{
	struct journal_world *w = *state;
	uint64_t before = journal_epoch(w->j);

	for (unsigned n = 0; n < 10; n++)
		must_append(w, n);
	fault.pwrite_error = EIO;
	assert_int_equal(append(w, 10), IM_FAILED);
	assert_int_equal(append(w, 10), IM_FAILED);
	assert_true(strlen(journal_why(w->j)) > 0);
	fault.pwrite_error = 0;
	journal_world_next_epoch(w, before);
	for (unsigned n = 10; n < 20; n++)
		must_append(w, n);
	assert_int_equal(read_all(w, 0), 20);
	journal_world_reopen(w);
	assert_int_equal(read_all(w, 0), 20);
}

static void failed_sync_refuses_and_keeps_what_was_accepted(void **state)
{
	struct journal_world *w = *state;
	uint64_t before = journal_epoch(w->j);
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	unsigned n = 0;

	fault.sync_error = EIO;
	while (append(w, n) == IM_OK && im_clock_mono_ms() < until) {
		n++;
		(void)usleep(1000);
	}
	assert_true(n > 0 && im_clock_mono_ms() < until);
	assert_int_equal(read_all(w, 0), n);
	fault.sync_error = 0;
	journal_world_next_epoch(w, before);
	must_append(w, n);
	assert_int_equal(read_all(w, 0), n + 1);
	journal_world_reopen(w);
	assert_int_equal(read_all(w, 0), n + 1);
}

static void refused_record_on_disk_is_not_found_later(void **state)
{
	struct journal_world *w = *state;
	uint64_t before;

	w->options.durability = IM_DURABILITY_DISK;
	journal_world_reopen(w);
	before = journal_epoch(w->j);
	must_append(w, 0);
	fault.sync_error = EIO; /* written, and then the sync fails: refused */
	assert_int_equal(append(w, 1), IM_FAILED);
	fault.sync_error = 0;
	journal_world_next_epoch(w, before);
	must_append(w, 1);
	assert_int_equal(read_all(w, 0), 2);
	journal_world_reopen(w);
	assert_int_equal(read_all(w, 0), 2);
}

/* At `disk`: written whole, not synced, and not overwritten either. Leaves the next epoch open. */
static void refuse_one_that_stays(struct journal_world *w, unsigned n)
{
	uint64_t before = journal_epoch(w->j);

	fault.breaks = true;
	fault.sync_error = EIO;
	assert_int_equal(append(w, n), IM_FAILED);
	fault.breaks = false;
	fault.sync_error = fault.pwrite_error = 0;
	journal_world_next_epoch(w, before);
}

/* Not in the new epoch's header alone, if that is as young as the first thing written behind it. */
static void nor_when_the_kernel_drops_what_it_could_not_write(void **state)
{
	struct journal_world *w = *state;

	w->options.durability = IM_DURABILITY_DISK;
	journal_world_reopen(w);
	must_append(w, 0);
	refuse_one_that_stays(w, 1);
	fault.forgets = true;
	fault.sync_error = EIO;
	assert_int_equal(append(w, 1), IM_FAILED);
	journal_world_kill(w);
	fault.sync_error = 0;
	journal_world_reopen(w);
	assert_int_equal(read_all(w, 0), 1);
}

/* A start removes what is empty, but not what says of one that stays where it ended; and never that before the other. */
static void nor_by_the_second_start_after_it(void **state)
{
	struct journal_world *w = *state;

	w->options.durability = IM_DURABILITY_DISK;
	journal_world_reopen(w);
	must_append(w, 0);
	refuse_one_that_stays(w, 90);
	refuse_one_that_stays(w, 91);
	must_append(w, 1); /* and so the newest speaks of the empty one */
	for (unsigned start = 0; start < 4; start++) {
		journal_world_kill(w);
		fault.removed = fault.unordered = 0;
		journal_world_reopen(w);
		assert_int_equal(fault.unordered, 0);
		assert_int_equal(read_all(w, 0), 2);
	}
}

static void disk_durability_syncs_each_record(void **state)
{
	struct journal_world *w = *state;
	int syncs;

	w->options.durability = IM_DURABILITY_DISK;
	journal_world_reopen(w);
	must_append(w, 0);
	syncs = fault.syncs;
	for (unsigned n = 1; n <= 5; n++)
		must_append(w, n);
	assert_true(fault.syncs >= syncs + 5);
}

static void full_disk_is_explained_and_left_without_help(void **state)
{
	struct journal_world *w = *state;
	unsigned n = 0;
	enum im_status st;

	must_append(w, n++);
	fault.zero_error = ENOSPC;
	while ((st = append(w, n)) == IM_OK)
		n++;
	assert_int_equal(st, IM_BUSY);
	for (int64_t until = im_clock_mono_ms() + DEADLINE_MS; !strstr(journal_why(w->j), "No space") && im_clock_mono_ms() < until;) {
		(void)usleep(1000);
		(void)append(w, n);
	}
	assert_non_null(strstr(journal_why(w->j), "No space"));
	assert_int_equal(read_all(w, 0), n);
	fault.zero_error = 0;
	must_append(w, n);
	assert_int_equal(read_all(w, 0), n + 1);
}

static void disk_that_does_not_sync_for_a_second_refuses(void **state)
{
	struct journal_world *w = *state;
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	unsigned n = 0;

	w->options.segment_cap = 256 << 10; /* nothing else stands in the way */
	journal_world_reopen(w);
	fault.sync_ms = 2500;
	while (append(w, n) == IM_OK && im_clock_mono_ms() < until) {
		n++;
		(void)usleep(20000);
	}
	assert_non_null(strstr(journal_why(w->j), "synced"));
	fault.sync_ms = 0;
	must_append(w, n);
	assert_int_equal(read_all(w, 0), n + 1);
}

static void short_and_interrupted_writes_are_completed(void **state)
{
	struct journal_world *w = *state;

	fault.short_writes = 13;
	fault.interrupts = 5;
	for (unsigned n = 0; n < 20; n++)
		must_append(w, n);
	assert_int_equal(read_all(w, 0), 20);
}

static void file_size_limit_is_a_refusal_and_no_death(void **state)
{
	struct journal_world *w = *state;
	pid_t child;
	int status;

	journal_close(w->j);
	w->j = NULL;
	child = fork();
	if (child == 0) {
		const struct rlimit limit = {SEGMENT / 2, SEGMENT / 2}; /* below what a segment takes */
		struct journal_world g = *w;
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

/* ---- what was acknowledged before the failure (journal_epoch.c) */

/* As many as go in before the journal notices. Durability `process`: all were acknowledged. */
static unsigned append_until_refused(struct journal_world *w, unsigned n)
{
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	enum im_status st;

	while ((st = append(w, n)) != IM_FAILED && im_clock_mono_ms() < until) {
		n += st == IM_OK;
		if (st != IM_OK || n % 50 == 0)
			(void)usleep(1000);
	}
	assert_int_equal(st, IM_FAILED);
	return n;
}

static void await_spare(struct journal_world *w)
{
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	bool there = false;

	while (!there && im_clock_mono_ms() < until) {
		(void)pthread_mutex_lock(&w->j->lock);
		there = w->j->spare != NULL;
		(void)pthread_mutex_unlock(&w->j->lock);
		(void)usleep(200);
	}
	assert_true(there);
}

static void what_a_failed_sync_left_is_on_the_disk_when_the_next_epoch_opens(void **state)
{
	struct journal_world *w = *state;

	for (int forgets = 0; forgets < 2; forgets++) {
		uint64_t before = journal_epoch(w->j);
		unsigned n;

		for (n = 0; n < 30; n++)
			must_append(w, n);
		await_spare(w);
		fault.forgets = forgets;
		fault.sync_ms = 100; /* so that the tail goes over a segment's border */
		fault.sync_error = EIO;
		n = append_until_refused(w, n);
		assert_true(w->j->current->index > 0);
		fault.sync_ms = fault.sync_error = 0;
		journal_world_next_epoch(w, before);
		assert_int_equal(read_all(w, 0), n);
		journal_world_cut_power(w);
		assert_int_equal(read_all(w, 0), n);
		journal_confirm(w->j, before, UINT64_MAX);
	}
}

static void the_header_of_a_segment_just_begun_is_too(void **state)
{
	struct journal_world *w = *state;
	uint64_t before = journal_epoch(w->j);
	unsigned n;

	for (n = 0; n < 30; n++)
		must_append(w, n);
	await_spare(w);
	fault.forgets = true;
	fault.sync_ms = 100; /* none ends before the next segment is begun */
	while (w->j->current->index == 0)
		must_append(w, n++);
	journal_world_fail_here(w);
	fault.sync_error = EIO;
	n = append_until_refused(w, n);
	fault.sync_ms = fault.sync_error = 0;
	journal_world_next_epoch(w, before);
	journal_world_cut_power(w);
	assert_int_equal(read_all(w, 0), n);
}

static bool rescued(struct journal_world *w)
{
	bool done;

	(void)pthread_mutex_lock(&w->j->lock);
	done = w->j->rescue == RESCUE_DONE;
	(void)pthread_mutex_unlock(&w->j->lock);
	return done;
}

static void what_a_failed_write_left_unsynced_is_too(void **state)
{
	struct journal_world *w = *state;
	uint64_t before = journal_epoch(w->j);

	for (unsigned n = 0; n < 10; n++)
		must_append(w, n);
	fault.pwrite_error = ENOSPC; /* as long as it takes: what is in the cache needs only a sync */
	assert_int_equal(append(w, 10), IM_FAILED);
	for (int64_t until = im_clock_mono_ms() + DEADLINE_MS; !rescued(w) && im_clock_mono_ms() < until;)
		journal_tick(w->j);
	fault.pwrite_error = 0;
	journal_world_next_epoch(w, before);
	journal_world_cut_power(w);
	assert_int_equal(read_all(w, 0), 10);
}

static void nothing_is_accepted_while_it_is_neither_on_the_disk_nor_with_the_service(void **state)
{
	struct journal_world *w = *state;
	uint64_t before = journal_epoch(w->j);
	int64_t until;
	unsigned n;

	fault.forgets = true;
	journal_world_fail_here(w); /* and nowhere else: the next epoch's segment is soon there */
	fault.sync_error = EIO;
	n = append_until_refused(w, 0);
	for (until = im_clock_mono_ms() + 3 * JOURNAL_RETRY_MIN_MS; im_clock_mono_ms() < until;) {
		journal_tick(w->j);
		assert_int_equal(append(w, n), IM_FAILED);
	}
	assert_int_equal(journal_epoch(w->j), before);
	assert_int_equal(read_all(w, 0), n); /* though the cache has lost it */
	journal_confirm(w->j, before, UINT64_MAX);
	journal_world_next_epoch(w, before);
	must_append(w, n);
	assert_int_equal(read_all(w, n), 1);
}

static void a_broker_killed_over_a_failed_sync_leaves_nothing_to_chance(void **state)
{
	struct journal_world *w = *state;
	char path[80];
	unsigned n;

	fault.sync_error = EIO;
	n = append_until_refused(w, 0);
	journal_world_kill(w);
	(void)snprintf(path, sizeof(path), "%s.epoch", w->dir);
	(void)unlink(path); /* it had no time to note that there was a failure */
	fault.sync_error = 0;
	journal_world_reopen(w); /* its sync finds nothing to do: the kernel holds the pages for clean */
	journal_world_cut_power(w);
	assert_int_equal(read_all(w, 0), n);
}

/* Else a second kill and a power cut would take what was accepted long before them. */
static void a_start_that_cannot_save_what_it_found_accepts_nothing_before_the_service_has_it(void **state)
{
	struct journal_world *w = *state;
	uint64_t before = journal_epoch(w->j);
	unsigned n;

	fault.sync_ms = 100; /* none ends before the kill */
	for (n = 0; n < 10; n++)
		must_append(w, n);
	journal_world_fail_here(w); /* and nowhere else: a start needs a segment of its own */
	journal_world_kill(w);
	fault.sync_ms = 0;
	fault.sync_error = EIO;
	for (unsigned start = 0; start < 2; start++) {
		journal_world_reopen(w);
		journal_tick(w->j);
		assert_int_equal(append(w, n), IM_FAILED);
		assert_int_equal(read_all(w, 0), n);
		journal_world_kill(w);
	}
	fault.sync_error = 0;
	journal_world_reopen(w); /* what a failed sync left clean is written again */
	must_append(w, n);
	journal_world_cut_power(w);
	assert_true(read_all(w, 0) >= n);
	journal_world_kill(w);
	fault.sync_error = EIO;
	journal_world_reopen(w);
	assert_int_equal(append(w, n), IM_FAILED);
	journal_confirm(w->j, before, UINT64_MAX);
	must_append(w, n);
}

/* Else nothing can be made in its place, and the journal refuses for as long as the broker runs. */
static void a_segment_that_could_not_be_renamed_back_is_removed_where_it_is(void **state)
{
	const struct journal_world *w = *state;
	struct segment_making m = {NULL, 0};
	struct segment *s = NULL;
	struct im_err err;
	char path[512];

	assert_int_equal(segment_make_start(w->options.fs, w->dir, 7, 0, SEGMENT, &m, &err), IM_OK);
	while (!s)
		assert_int_not_equal(segment_make_step(w->options.fs, w->dir, &m, &s, &err), IM_FAILED);
	fault.folder_error = EIO;
	assert_int_equal(segment_reuse(w->options.fs, w->dir, s, 8, 3), IM_FAILED);
	segment_remove(w->options.fs, w->dir, s);
	for (unsigned i = 0; i < 2; i++) {
		segment_path(w->dir, 7 + i, 3 * i, path, sizeof(path));
		assert_int_not_equal(access(path, F_OK), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(failed_write_refuses_until_a_new_epoch_is_open),
		T(failed_sync_refuses_and_keeps_what_was_accepted),
		T(refused_record_on_disk_is_not_found_later),
		T(nor_when_the_kernel_drops_what_it_could_not_write),
		T(nor_by_the_second_start_after_it),
		T(disk_durability_syncs_each_record),
		T(full_disk_is_explained_and_left_without_help),
		T(disk_that_does_not_sync_for_a_second_refuses),
		T(short_and_interrupted_writes_are_completed),
		T(file_size_limit_is_a_refusal_and_no_death),
		T(what_a_failed_sync_left_is_on_the_disk_when_the_next_epoch_opens),
		T(the_header_of_a_segment_just_begun_is_too),
		T(what_a_failed_write_left_unsynced_is_too),
		T(nothing_is_accepted_while_it_is_neither_on_the_disk_nor_with_the_service),
		T(a_start_that_cannot_save_what_it_found_accepts_nothing_before_the_service_has_it),
		T(a_broker_killed_over_a_failed_sync_leaves_nothing_to_chance),
		T(a_segment_that_could_not_be_renamed_back_is_removed_where_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
