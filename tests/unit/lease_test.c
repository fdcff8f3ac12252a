/* services/offline/lease.c with the real generator in memory, a store that only counts, and a bus that loses things. */
#include "lease.h"

#include "base/log.h"
#include "bus.pb-c.h"
#include "lease_frame.h"
#include "wire/name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 15000

struct store {
	struct store_start start;
	uint64_t epochs[IM_SECTIONS];
	unsigned appends;
	unsigned fail; /* this many appends end with IM_UNCERTAIN */
};

struct bench {
	struct im_loop *loop;
	struct im_timer *deadline;
	struct store store;
	struct seqgen *seqgen;
	struct lease *lease;
	unsigned requests, answers;
	uint64_t ids[64];
	unsigned lose_requests, lose_answers;
	bool hold; /* requests reach nobody */
	bool stop_when_ready, stop_on_append, late;
	unsigned changes;
};

static struct bench *b;

/* ---- the store */

const struct store_start *store_start(struct store *s)
{
	return &s->start;
}

struct done {
	store_done_fn *fn;
	void *arg;
	enum im_status st;
};

static void call_done(void *arg)
{
	struct done *d = arg;

	d->fn(d->arg, d->st);
	free(d);
}

void store_append(struct store *s, const struct store_entry *e, size_t n, store_done_fn *done, void *arg)
{
	struct done *d = malloc(sizeof(*d));

	assert_int_equal(n, 1);
	assert_int_equal(e->kind, STORE_SECTIONS);
	s->appends++;
	*d = (struct done){done, arg, s->fail > 0 ? IM_UNCERTAIN : IM_OK};
	if (s->fail > 0)
		s->fail--;
	for (size_t i = 0; d->st == IM_OK && i < e->n_sections; i++) {
		assert_true(e->sections[i]->epoch > s->epochs[e->sections[i]->section]);
		s->epochs[e->sections[i]->section] = e->sections[i]->epoch;
	}
	assert_int_equal(im_loop_defer(b->loop, call_done, d), IM_OK);
	if (b->stop_on_append)
		im_loop_stop(b->loop); /* before the answer */
}

/* ---- the bus and the generator at its other end */

static void deliver(void *arg)
{
	struct lease_frame *f = arg;

	if (b->lease)
		lease_answer(b->lease, f->data, f->len);
	free(f->data);
	free(f);
}

static void answer(const Im__Bus__LeaseRequest *r)
{
	struct lease_frame *f = malloc(sizeof(*f));
	struct im_err err;

	assert_non_null(f);
	assert_int_not_equal(lease_frame_serve(b->seqgen, r, f, &err), IM_FAILED);
	if (b->lose_answers > 0) {
		b->lose_answers--;
		free(f->data);
		free(f);
		return;
	}
	b->answers++;
	assert_int_equal(im_loop_defer(b->loop, deliver, f), IM_OK);
}

enum im_status im_mqtt_publish(struct im_mqtt *m, const char *topic, const void *payload, size_t len, int qos)
{
	Im__Bus__LeaseRequest *r = im__bus__lease_request__unpack(NULL, len, payload);

	assert_non_null(m);
	assert_string_equal(topic, "$im/seq");
	assert_int_equal(qos, 1);
	assert_non_null(r);
	assert_memory_equal(r->owner, "$im-offline:", 12);
	b->ids[b->requests++ % 64] = r->id;
	if (b->lose_requests > 0)
		b->lose_requests--;
	else if (!b->hold)
		answer(r);
	im__bus__lease_request__free_unpacked(r, NULL);
	return IM_OK;
}

/* ---- */

static struct im_mqtt *bus(void)
{
	static char some;

	return (struct im_mqtt *)&some; /* never looked into */
}

static void on_deadline(void *arg)
{
	(void)arg;
	b->late = true;
	im_loop_stop(b->loop);
}

static void on_change(void *arg)
{
	(void)arg;
	b->changes++;
	if (b->stop_when_ready && lease_ready(b->lease))
		im_loop_stop(b->loop);
}

static void start_lease(void)
{
	assert_int_equal(lease_create(b->loop, &b->store, &b->lease, NULL), IM_OK);
	lease_on_change(b->lease, on_change, NULL);
}

static int set_up(void **state)
{
	(void)state;
	im_log_open("lease_test", IM_LOG_ERROR, NULL);
	b = calloc(1, sizeof(*b));
	b->store.start.section_epochs = b->store.epochs;
	b->loop = im_loop_create();
	b->deadline = im_timer_create(b->loop, on_deadline, b);
	im_timer_start(b->deadline, DEADLINE_MS, 0);
	b->stop_when_ready = true;
	assert_int_equal(seqgen_create("memory:", &b->seqgen, NULL), IM_OK);
	start_lease();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	lease_destroy(b->lease);
	seqgen_destroy(b->seqgen);
	im_timer_destroy(b->deadline);
	im_loop_destroy(b->loop);
	free(b);
	return 0;
}

static void run(void)
{
	im_loop_run(b->loop);
	assert_false(b->late);
}

static void get_ready(void)
{
	lease_bus(b->lease, bus());
	run();
	assert_true(lease_ready(b->lease));
}

static void turn(void *arg)
{
	im_loop_stop(arg);
}

/* Lets what is due happen. */
static void run_for(unsigned ms)
{
	struct im_timer *t = im_timer_create(b->loop, turn, b->loop);

	b->stop_when_ready = false;
	im_timer_start(t, ms, 0);
	run();
	im_timer_destroy(t);
}

/* ---- */

static void all_sections_are_leased_in_one_request_and_made_durable_before_use(void **state)
{
	uint64_t seq, epoch;

	(void)state;
	assert_int_equal(lease_next(b->lease, 5, 0, &seq, &epoch), IM_BUSY);
	get_ready();
	assert_int_equal(b->requests, 1);
	assert_int_equal(b->store.appends, 1);
	assert_int_equal(lease_next(b->lease, 5, 0, &seq, &epoch), IM_OK);
	assert_int_equal(seq, 1);
	assert_int_equal(epoch, 1);
	assert_int_equal(b->store.epochs[5], 1);
}

static void asking_twice_gives_the_same_sequence(void **state)
{
	uint64_t a, c, epoch;

	(void)state;
	get_ready();
	assert_int_equal(lease_next(b->lease, 1, 41, &a, &epoch), IM_OK);
	assert_int_equal(lease_next(b->lease, 1, 41, &c, &epoch), IM_OK);
	assert_int_equal(a, 42);
	assert_int_equal(c, 42);
}

static void a_lost_request_or_answer_is_asked_again_under_its_id(void **state)
{
	(void)state;
	b->lose_requests = 1;
	b->lose_answers = 1;
	get_ready();
	assert_int_equal(b->requests, 3);
	assert_int_equal(b->ids[0], b->ids[1]);
	assert_int_equal(b->ids[1], b->ids[2]);
	assert_int_equal(b->store.epochs[0], 1); /* one grant, not two */
}

static void an_append_in_doubt_is_repeated_before_anything_is_given(void **state)
{
	uint64_t seq, epoch;

	(void)state;
	b->store.fail = 1;
	lease_bus(b->lease, bus());
	run_for(100);
	assert_false(lease_ready(b->lease));
	assert_int_equal(lease_next(b->lease, 0, 0, &seq, &epoch), IM_BUSY);
	b->stop_when_ready = true;
	run();
	assert_int_equal(b->store.appends, 2);
}

static void on_failed(void *arg, const char *why)
{
	(void)why;
	++*(unsigned *)arg;
}

/* Nobody else would notice: without leases nothing is decided, and nothing else is appended. */
static void a_store_that_fails_to_write_is_told(void **state)
{
	unsigned failed = 0;

	(void)state;
	lease_on_failure(b->lease, on_failed, &failed);
	b->store.fail = 1;
	lease_bus(b->lease, bus());
	run_for(100);
	assert_int_equal(failed, 1);
}

/* The process before us has the same client id: what it was granted must not pass for ours. */
static void an_answer_to_the_process_before_is_not_taken(void **state)
{
	Im__Bus__Lease row = IM__BUS__LEASE__INIT, *list = &row;
	Im__Bus__LeaseAnswer a = IM__BUS__LEASE_ANSWER__INIT;
	struct im_err err = {""};
	struct lease *second;
	uint8_t buf[64];

	(void)state;
	b->hold = true;
	lease_bus(b->lease, bus());
	run_for(20);
	assert_int_equal(lease_create(b->loop, &b->store, &second, &err), IM_OK);
	lease_bus(second, bus());
	run_for(20);
	assert_int_equal(b->requests, 2);
	a.id = b->ids[0];
	a.leases = &list;
	a.n_leases = 1;
	row.epoch = 1;
	row.ceiling = 100;
	lease_answer(second, buf, im__bus__lease_answer__pack(&a, buf));
	run_for(20);
	assert_int_equal(b->store.appends, 0);
	lease_destroy(second);
}

static void a_busy_section_is_renewed_before_it_runs_dry(void **state)
{
	uint64_t last = 0, seq, epoch;
	unsigned busy = 0;

	(void)state;
	get_ready();
	b->stop_when_ready = false;
	while (last < 200000) {
		if (lease_next(b->lease, 9, last, &seq, &epoch) != IM_OK) {
			busy++;
			run_for(1);
			continue;
		}
		assert_int_equal(seq, last + 1);
		last = seq;
		if (last % 1000 == 0)
			run_for(1); /* not 0: since libuv 1.45 that ends before the first turn */
	}
	assert_int_equal(busy, 0);
	assert_in_range(b->requests, 3, 15); /* steps grow */
}

static void a_section_runs_dry_while_the_bus_is_down_and_goes_on_after(void **state)
{
	uint64_t last = 0, seq, epoch;

	(void)state;
	get_ready();
	lease_bus(b->lease, NULL);
	while (lease_next(b->lease, 9, last, &seq, &epoch) == IM_OK)
		last = seq;
	assert_int_equal(last, SEQ_STEP);
	assert_int_equal(b->requests, 1);
	lease_bus(b->lease, bus());
	run_for(20);
	assert_int_equal(lease_next(b->lease, 9, last, &seq, &epoch), IM_OK);
	assert_int_equal(seq, last + 1);
}

static void a_restart_with_its_store_leaves_no_gap(void **state)
{
	uint64_t seq, epoch;

	(void)state;
	get_ready();
	assert_int_equal(lease_next(b->lease, 3, 0, &seq, &epoch), IM_OK);
	lease_destroy(b->lease);
	start_lease();
	get_ready();
	assert_int_equal(lease_next(b->lease, 3, seq, &seq, &epoch), IM_OK);
	assert_int_equal(seq, 2);
	assert_int_equal(epoch, 2);
}

static void a_lost_section_is_leased_again_above_all_that_others_may_have_given(void **state)
{
	const struct seq_lease theirs = {.section = 3};
	struct seq_lease granted;
	uint64_t last, seq, epoch;
	size_t n;

	(void)state;
	get_ready();
	assert_int_equal(seqgen_lease(b->seqgen, "$im-other:1", &theirs, 1, &granted, &n, NULL), IM_OK);
	/* We find out when we renew. */
	last = SEQ_STEP - 10;
	assert_int_equal(lease_next(b->lease, 3, last, &seq, &epoch), IM_OK);
	run_for(20);
	assert_int_equal(lease_next(b->lease, 3, last, &seq, &epoch), IM_BUSY);
	b->stop_when_ready = true;
	run();
	assert_int_equal(lease_next(b->lease, 3, last, &seq, &epoch), IM_OK);
	assert_true(seq > granted.ceiling);
	assert_int_equal(epoch, granted.epoch + 1);
}

static void a_conversation_far_above_the_ceiling_is_reached_in_steps(void **state)
{
	uint64_t far = 3ull * SEQ_LEAD_MOST, seq, epoch;

	(void)state;
	get_ready();
	assert_int_equal(lease_next(b->lease, 3, far, &seq, &epoch), IM_BUSY);
	run_for(50);
	assert_int_equal(lease_next(b->lease, 3, far, &seq, &epoch), IM_OK);
	assert_int_equal(seq, far + 1);
}

static void garbage_and_answers_to_nothing_are_ignored(void **state)
{
	Im__Bus__LeaseAnswer a = IM__BUS__LEASE_ANSWER__INIT;
	uint8_t buf[64];

	(void)state;
	lease_answer(b->lease, "\xff\xff\xff", 3);
	a.id = 77;
	lease_answer(b->lease, buf, im__bus__lease_answer__pack(&a, buf));
	assert_int_equal(b->changes, 0);
	get_ready();
}

static void it_may_be_destroyed_while_its_append_is_under_way(void **state)
{
	(void)state;
	b->stop_on_append = true;
	lease_bus(b->lease, bus());
	run();
	assert_false(lease_ready(b->lease));
	lease_destroy(b->lease);
	b->lease = NULL;
	run_for(1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(all_sections_are_leased_in_one_request_and_made_durable_before_use),
		TEST(asking_twice_gives_the_same_sequence),
		TEST(a_lost_request_or_answer_is_asked_again_under_its_id),
		TEST(an_append_in_doubt_is_repeated_before_anything_is_given),
		TEST(a_store_that_fails_to_write_is_told),
		TEST(an_answer_to_the_process_before_is_not_taken),
		TEST(a_busy_section_is_renewed_before_it_runs_dry),
		TEST(a_section_runs_dry_while_the_bus_is_down_and_goes_on_after),
		TEST(a_restart_with_its_store_leaves_no_gap),
		TEST(a_lost_section_is_leased_again_above_all_that_others_may_have_given),
		TEST(a_conversation_far_above_the_ceiling_is_reached_in_steps),
		TEST(garbage_and_answers_to_nothing_are_ignored),
		TEST(it_may_be_destroyed_while_its_append_is_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
