/* lib/push/queue.c: whose turn it is, and which job stands for which. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "push/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COALESCE 5000
#define WALL 1700000000000

struct world {
	struct push_queue *q;
	struct push_channel *c;
	uint64_t row;
	struct push_job *swallowed[64];
	size_t n_swallowed;
};

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->q = push_queue_create(COALESCE);
	w->c = push_queue_channel(w->q, "chat", "");
	w->c->known = true;
	assert_true(push_queue_reserve(w->q, 200000));
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	for (size_t i = 0; i < w->n_swallowed; i++)
		push_job_free(w->swallowed[i]);
	push_queue_destroy(w->q);
	free(w);
	return 0;
}

static void on_swallowed(void *arg, struct push_job *old, struct push_job *by)
{
	struct world *w = arg;

	assert_true(by->row > old->row);
	w->swallowed[w->n_swallowed++] = old;
}

static struct push_job *add(struct world *w, const char *user, const char *conv, uint64_t seq, bool mention, int64_t now)
{
	Im__Push__Job m = IM__PUSH__JOB__INIT;
	struct push_job *j;
	char key[32];

	snprintf(key, sizeof(key), "m%llu", (unsigned long long)seq);
	m.key = key;
	m.user = (char *)user;
	m.device = (char *)"phone";
	m.app = (char *)"chat";
	m.conv = (char *)conv;
	m.seq = seq;
	m.mention = mention;
	m.created_ms = WALL + now;
	m.deadline_ms = WALL + 600000;
	j = push_job_create(&m, 0);
	j->row = ++w->row;
	assert_true(push_queue_add(w->q, j, w->c, now, WALL + now, on_swallowed, w));
	return j;
}

static struct push_job *next(struct world *w, int64_t now)
{
	push_queue_due(w->q, now, 1000000);
	return push_queue_next(w->q, w->c, now);
}

static void first_goes_at_once_then_one_stands_for_all(void **state)
{
	struct world *w = *state;
	struct push_job *first = add(w, "alice", "u/alice:bob", 1, false, 0);

	assert_ptr_equal(next(w, 0), first);
	for (uint64_t seq = 2; seq <= 6; seq++)
		add(w, "alice", "u/alice:bob", seq, false, 100 * (int64_t)seq);
	assert_int_equal(w->n_swallowed, 4);
	assert_null(next(w, COALESCE - 1));
	struct push_job *last = next(w, COALESCE);

	assert_non_null(last);
	assert_int_equal(last->seq, 6);
	assert_int_equal(last->since_seq, 2);
	assert_null(next(w, COALESCE));
}

static void mention_does_not_wait_and_is_not_swallowed(void **state)
{
	struct world *w = *state;

	assert_int_equal(next(w, (add(w, "alice", "g/x", 1, false, 0), 0))->seq, 1);
	add(w, "alice", "g/x", 2, false, 10);
	struct push_job *mention = add(w, "alice", "g/x", 3, true, 20);

	assert_int_equal(w->n_swallowed, 1); /* 2 is behind it */
	add(w, "alice", "g/x", 4, false, 30);
	assert_int_equal(w->n_swallowed, 1);
	assert_ptr_equal(next(w, 30), mention);
	assert_int_equal(mention->since_seq, 2);
	assert_null(next(w, 30));
	assert_int_equal(next(w, 30 + COALESCE)->seq, 4);
}

static void one_users_heap_does_not_stop_the_others(void **state)
{
	struct world *w = *state;
	char conv[32];

	for (uint64_t i = 0; i < 100000; i++) {
		snprintf(conv, sizeof(conv), "u/alice:x%llu", (unsigned long long)i);
		add(w, "alice", conv, i + 1, false, 0);
	}
	for (int i = 0; i < 10; i++) {
		snprintf(conv, sizeof(conv), "user%d", i);
		add(w, conv, "u/a:b", 500000 + (uint64_t)i, false, 1);
	}
	unsigned others = 0;

	for (int i = 0; i < 12; i++)
		others += next(w, 2)->seq >= 500000;
	assert_int_equal(others, 10);
	assert_int_equal(push_queue_count(w->q), 100010);
}

static void busy_conversation_keeps_its_place(void **state)
{
	struct world *w = *state;

	add(w, "alice", "u/alice:bob", 1, false, 0);
	add(w, "alice", "u/alice:carol", 2, false, 0);
	add(w, "alice", "u/alice:bob", 3, false, 0); /* takes the place of 1 */
	assert_int_equal(w->n_swallowed, 1);
	assert_int_equal(next(w, 0)->seq, 3);
	assert_int_equal(next(w, 0)->seq, 2);
}

static void what_comes_back_gives_way_to_what_is_newer(void **state)
{
	struct world *w = *state;
	struct push_job *old = (add(w, "alice", "u/alice:bob", 1, false, 0), next(w, 0));
	struct push_job *newer;

	assert_null(push_queue_again(w->q, old));
	push_queue_wait(w->q, old, w->c, 2000, 0);
	assert_ptr_equal(next(w, 2000), old);
	newer = add(w, "alice", "u/alice:bob", 2, false, 2100);
	assert_ptr_equal(push_queue_again(w->q, old), newer);
	assert_int_equal(newer->since_seq, 1);
	push_queue_remove(w->q, old);
	push_job_free(old);
	assert_ptr_equal(next(w, 2000 + COALESCE), newer);
}

static void expired_ones_are_handed_out(void **state)
{
	struct world *w = *state;
	struct push_job *j = add(w, "alice", "u/alice:bob", 1, false, 0);

	assert_null(push_queue_expired(w->q, 599999));
	assert_ptr_equal(push_queue_expired(w->q, 600000), j);
	push_queue_remove(w->q, j);
	push_job_free(j);
	assert_int_equal(push_queue_count(w->q), 0);
	assert_null(next(w, 600000));
}

static void nothing_is_left_behind(void **state)
{
	struct world *w = *state;
	char user[16], conv[32];

	for (int64_t i = 0; i < 20000; i++) {
		struct push_job *j;

		snprintf(user, sizeof(user), "u%d", rand() % 50);
		snprintf(conv, sizeof(conv), "c%d", rand() % 20);
		add(w, user, conv, (uint64_t)i + 1, rand() % 10 == 0, i);
		while (rand() % 2 && (j = next(w, i))) {
			w->c->under_way--;
			if (rand() % 3 == 0) {
				if (push_queue_again(w->q, j)) {
					push_queue_remove(w->q, j);
					push_job_free(j);
				} else if (rand() % 2) {
					push_queue_ready(w->q, j, w->c, i);
				} else {
					push_queue_wait(w->q, j, w->c, i + rand() % 3000, i);
				}
			} else {
				push_queue_remove(w->q, j);
				push_job_free(j);
			}
		}
		while (w->n_swallowed)
			push_job_free(w->swallowed[--w->n_swallowed]);
	}
	for (struct push_job *j; (j = next(w, 10000000)); push_job_free(j))
		push_queue_remove(w->q, j);
	push_queue_due(w->q, 20000000, 1);
	assert_int_equal(push_queue_count(w->q), 0);
	assert_int_equal(push_queue_lanes(w->q), 0);
	assert_int_equal(w->c->ready, 0);
	assert_null(w->c->turn);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_goes_at_once_then_one_stands_for_all, set_up, tear_down),
		cmocka_unit_test_setup_teardown(mention_does_not_wait_and_is_not_swallowed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_users_heap_does_not_stop_the_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(busy_conversation_keeps_its_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_comes_back_gives_way_to_what_is_newer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(expired_ones_are_handed_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nothing_is_left_behind, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
