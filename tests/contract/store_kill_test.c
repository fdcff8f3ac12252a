/*
 * A child appends and says on a pipe what was answered; it is killed at random moments. Whatever it said is
 * there after opening again, once, in order, and nothing that was never given.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "store_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 25, BATCH = 40, IN_FLIGHT = 8 };

static const char conv[] = "u/alice:bob";

struct child {
	struct fixture *f;
	int pipe;
	uint64_t next, answered;
};

static void give(struct child *c);

static void on_done(void *arg, enum im_status st)
{
	struct child *c = arg;

	if (st != IM_OK)
		_exit(3);
	c->answered += BATCH;
	if (write(c->pipe, &c->answered, sizeof(c->answered)) != sizeof(c->answered))
		_exit(4);
	give(c);
}

static void give(struct child *c)
{
	struct store_entry e[BATCH];

	memset(e, 0, sizeof(e));
	for (int i = 0; i < BATCH; i++) {
		char id[24];

		c->next++;
		snprintf(id, sizeof(id), "k%llu", (unsigned long long)c->next);
		e[i].kind = STORE_MESSAGE;
		e[i].message = make_message(c->f, conv, c->next, "alice", id, "a body of some length, so that a page holds only a few");
		e[i].pos = e[i].message->pos;
	}
	store_append(c->f->store, e, BATCH, on_done, c);
	for (int i = 0; i < BATCH; i++)
		message_unref(e[i].message);
}

static _Noreturn void be_child(struct fixture *f, int out, uint64_t last)
{
	struct child c = { .f = f, .pipe = out, .next = last, .answered = last };
	struct im_err err;

	f->loop = im_loop_create();
	if (fixture_try_open(f, &err) != IM_OK)
		_exit(5);
	for (int i = 0; i < IN_FLIGHT; i++)
		give(&c);
	im_loop_run(f->loop);
	_exit(6);
}

/* Lets a child run for a moment. Returns the last sequence it heard an answer for (0: none). */
static uint64_t run_and_kill(struct fixture *f, uint64_t last)
{
	const struct timespec moment = { 0, (5 + rand() % 150) * 1000000L };
	uint64_t said, heard = 0;
	int ends[2], status;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(ends[0]);
		be_child(f, ends[1], last);
	}
	close(ends[1]);
	nanosleep(&moment, NULL);
	kill(pid, SIGKILL);
	while (read(ends[0], &said, sizeof(said)) == sizeof(said))
		heard = said;
	close(ends[0]);
	waitpid(pid, &status, 0);
	assert_true(WIFSIGNALED(status));
	return heard;
}

static void check_all_there(struct fixture *f, uint64_t last)
{
	struct seqs s;

	for (uint64_t from = 1; from <= last; from += s.n) {
		struct store_range range = { conv, from, 0, 1000, 0, false };

		assert_int_equal(history(f, &range, &s), IM_OK);
		assert_true(s.n > 0);
		for (size_t i = 0; i < s.n; i++)
			assert_int_equal(s.list[i], from + i);
	}
}

static void what_was_answered_survives_kill_at_any_moment(void **state)
{
	unsigned seed = (unsigned)time(NULL);
	struct fixture f;
	uint64_t last = 0;

	(void)state;
	print_message("seed %u\n", seed);
	srand(seed);
	fixture_open(&f, "sqlite");
	for (int round = 0; round < ROUNDS; round++) {
		struct im_loop *loop = f.loop;
		struct message *m;
		char id[24];
		uint64_t heard;

		store_close(f.store);
		f.store = NULL;
		heard = run_and_kill(&f, last);
		f.loop = loop;
		f.next += 100 * 1000000ull;
		{
			struct im_err err = { "" };

			if (fixture_try_open(&f, &err) != IM_OK)
				fail_msg("%s", err.text);
		}
		last = last_seq(&f, conv);
		assert_true(last >= heard);
		if (heard)
			assert_true(last <= heard + BATCH * (IN_FLIGHT + 1)); /* no more than was given */
		check_all_there(&f, last);
		if (last == 0)
			continue;
		snprintf(id, sizeof(id), "k%llu", (unsigned long long)(1 + (uint64_t)rand() % last));
		m = find_id(&f, "alice", id);
		assert_non_null(m);
		assert_int_equal(m->seq, strtoull(id + 1, NULL, 10));
		message_unref(m);
	}
	print_message("%llu messages\n", (unsigned long long)last);
	assert_true(last > 0);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(what_was_answered_survives_kill_at_any_moment) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
