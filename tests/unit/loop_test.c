/* lib/io/loop.c */
#include "io/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define DEADLINE_MS 10000

struct bench {
	struct im_loop *loop;
	struct im_timer *deadline;
	int calls;
	int rounds;
	struct im_timer *timer;
	struct im_watch *watch;
	struct im_wake *wake;
	struct im_after *after;
	int fd[2];
	bool in_call, late;
};

static void on_deadline(void *arg)
{
	struct bench *b = arg;

	b->late = true;
	im_loop_stop(b->loop);
}

static int set_up(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	b->loop = im_loop_create();
	b->deadline = im_timer_create(b->loop, on_deadline, b);
	im_timer_start(b->deadline, DEADLINE_MS, 0);
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bench *b = *state;

	im_timer_destroy(b->deadline);
	im_loop_destroy(b->loop);
	free(b);
	return 0;
}

static void run(struct bench *b)
{
	im_loop_run(b->loop);
	assert_false(b->late);
}

/* ---- timers */

static void third_tick_destroys(void *arg)
{
	struct bench *b = arg;

	if (++b->calls == 3) {
		im_timer_destroy(b->timer);
		im_loop_stop(b->loop);
	}
}

static void a_repeating_timer_may_destroy_itself(void **state)
{
	struct bench *b = *state;

	b->timer = im_timer_create(b->loop, third_tick_destroys, b);
	im_timer_start(b->timer, 1, 1);
	run(b);
	assert_int_equal(b->calls, 3);
}

static void stop_at_once(void *arg)
{
	struct bench *b = arg;

	im_loop_stop(b->loop);
}

static void fail_if_called(void *arg)
{
	struct bench *b = arg;

	b->calls++;
}

static void a_destroyed_timer_never_fires(void **state)
{
	struct bench *b = *state;
	struct im_timer *dead = im_timer_create(b->loop, fail_if_called, b);

	b->timer = im_timer_create(b->loop, stop_at_once, b);
	im_timer_start(dead, 0, 0);
	im_timer_start(b->timer, 20, 0);
	im_timer_destroy(dead);
	run(b);
	assert_int_equal(b->calls, 0);
	im_timer_destroy(b->timer);
}

/* ---- deferred */

static void defer_second(void *arg)
{
	struct bench *b = arg;

	assert_false(b->in_call);
	if (++b->calls == 1) {
		b->in_call = true;
		assert_int_equal(im_loop_defer(b->loop, defer_second, b), IM_OK);
		b->in_call = false;
	} else {
		im_loop_stop(b->loop);
	}
}

static void a_deferred_call_never_runs_inside_the_call(void **state)
{
	struct bench *b = *state;

	b->in_call = true;
	assert_int_equal(im_loop_defer(b->loop, defer_second, b), IM_OK);
	b->in_call = false;
	assert_int_equal(b->calls, 0);
	run(b);
	assert_int_equal(b->calls, 2);
}

static void what_is_deferred_and_never_run_is_freed(void **state)
{
	struct bench *b = *state;

	assert_int_equal(im_loop_defer(b->loop, fail_if_called, b), IM_OK);
	assert_int_equal(b->calls, 0);
}

/* ---- descriptors */

static void read_one(void *arg, bool readable, bool writable)
{
	struct bench *b = arg;
	char c;

	assert_true(readable);
	assert_false(writable);
	if (read(b->fd[0], &c, 1) == 1) {
		b->calls++;
		return;
	}
	im_watch_destroy(b->watch); /* the other end is closed */
	im_loop_stop(b->loop);
}

static void bytes_and_the_end_of_a_pipe_are_readable(void **state)
{
	struct bench *b = *state;

	assert_int_equal(pipe(b->fd), 0);
	b->watch = im_watch_create(b->loop, b->fd[0], read_one, b);
	im_watch_set(b->watch, true, false);
	assert_int_equal(write(b->fd[1], "ab", 2), 2);
	(void)close(b->fd[1]);
	run(b);
	assert_int_equal(b->calls, 2);
	(void)close(b->fd[0]);
}

/* ---- wakes */

static void *wake_often(void *arg)
{
	struct bench *b = arg;

	for (int i = 0; i < 1000; i++)
		im_wake_send(b->wake);
	return NULL;
}

static void on_wake(void *arg)
{
	struct bench *b = arg;

	b->calls++;
	im_loop_stop(b->loop);
}

static void another_thread_wakes_the_loop(void **state)
{
	struct bench *b = *state;
	pthread_t t;

	b->wake = im_wake_create(b->loop, on_wake, b);
	assert_int_equal(pthread_create(&t, NULL, wake_often, b), 0);
	run(b);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_in_range(b->calls, 1, 1000);
	im_wake_destroy(b->wake);
}

/* ---- pool */

static void work(void *arg)
{
	struct bench *b = arg;

	b->rounds = 7;
}

static void worked(void *arg)
{
	struct bench *b = arg;

	assert_int_equal(b->rounds, 7);
	b->calls++;
	im_loop_stop(b->loop);
}

static void work_is_done_before_its_after(void **state)
{
	struct bench *b = *state;

	assert_int_equal(im_loop_work(b->loop, work, worked, b), IM_OK);
	run(b);
	assert_int_equal(b->calls, 1);
}

/* ---- end of turn */

static void on_after(void *arg)
{
	struct bench *b = arg;

	if (b->rounds > 0)
		im_loop_stop(b->loop); /* the timer of this turn ran before */
	b->calls++;
}

static void count_round(void *arg)
{
	struct bench *b = arg;

	b->rounds++;
}

static void a_turn_ends_with_after_before_the_loop_sleeps(void **state)
{
	struct bench *b = *state;

	b->after = im_after_create(b->loop, on_after, b);
	b->timer = im_timer_create(b->loop, count_round, b);
	im_timer_start(b->timer, 1, 0);
	run(b);
	assert_int_equal(b->rounds, 1);
	assert_true(b->calls >= 1);
	im_after_destroy(b->after);
	im_timer_destroy(b->timer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_repeating_timer_may_destroy_itself),
		TEST(a_destroyed_timer_never_fires),
		TEST(a_deferred_call_never_runs_inside_the_call),
		TEST(what_is_deferred_and_never_run_is_freed),
		TEST(bytes_and_the_end_of_a_pipe_are_readable),
		TEST(another_thread_wakes_the_loop),
		TEST(work_is_done_before_its_after),
		TEST(a_turn_ends_with_after_before_the_loop_sleeps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
