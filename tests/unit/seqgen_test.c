/* services/seqgen/seqgen.c: the rules, a random walk against a model, and kills. */
#include "seq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- a database whose saves can be made to fail, before or after they took effect */

enum trouble { NONE, NOT_SAVED, SAVED_AND_SAID_NOT };

struct shaky {
	struct seq_section sections[IM_SECTIONS];
	enum trouble next;
	unsigned saves;
};

static struct shaky shaky;

static enum im_status shaky_load(void *db, struct seq_section *sections, struct im_err *err)
{
	(void)db;
	(void)err;
	memcpy(sections, shaky.sections, sizeof(shaky.sections));
	return IM_OK;
}

static enum im_status shaky_save(void *db, const struct seq_row *rows, size_t n, struct im_err *err)
{
	enum trouble t = shaky.next;

	(void)db;
	shaky.next = NONE;
	shaky.saves++;
	if (t != NOT_SAVED) {
		for (size_t i = 0; i < n; i++)
			shaky.sections[rows[i].section] = rows[i].state;
	}
	return t == NONE ? IM_OK : im_fail(err, IM_FAILED, "disk full");
}

static void shaky_close(void *db)
{
	(void)db;
}

static const struct seq_driver shaky_driver = {.name = "shaky", .load = shaky_load, .save = shaky_save, .close = shaky_close};

static struct seqgen *start(void)
{
	struct seqgen *g = NULL;
	struct im_err err = {""};

	if (seqgen_create_on(&shaky_driver, &shaky, &g, &err) != IM_OK)
		fail_msg("%s", err.text);
	return g;
}

static int set_up(void **state)
{
	memset(&shaky, 0, sizeof(shaky));
	*state = start();
	return 0;
}

static int tear_down(void **state)
{
	seqgen_destroy(*state);
	return 0;
}

static void restart(void **state)
{
	seqgen_destroy(*state);
	*state = start();
}

static enum im_status lease(struct seqgen *g, const char *owner, uint64_t epoch, uint64_t ceiling, struct seq_lease *out)
{
	struct seq_lease asked = {.section = 7, .epoch = epoch, .ceiling = ceiling};
	struct im_err err = {""};
	enum im_status st;
	size_t n;

	st = seqgen_lease(g, owner, &asked, 1, out, &n, &err);
	assert_int_equal(n, st == IM_OK ? 1 : 0);
	if (st != IM_OK)
		assert_string_not_equal(err.text, "");
	return st;
}

static struct seq_lease must_lease(struct seqgen *g, const char *owner, uint64_t epoch, uint64_t ceiling)
{
	struct seq_lease l = {0};

	assert_int_equal(lease(g, owner, epoch, ceiling, &l), IM_OK);
	return l;
}

/* ---- rules */

static void the_first_owner_starts_at_one(void **state)
{
	struct seq_lease l = must_lease(*state, "a:1", 0, 0);

	assert_int_equal(l.epoch, 1);
	assert_true(l.complete);
	assert_int_equal(l.floor, 0);
	assert_int_equal(l.ceiling, SEQ_STEP);
}

static void an_owner_that_knows_the_last_epoch_goes_on_without_a_gap(void **state)
{
	uint64_t epoch = 0;

	for (int i = 0; i < 50; i++) {
		char owner[16];
		struct seq_lease l;

		(void)snprintf(owner, sizeof(owner), "a:%d", i);
		l = must_lease(*state, owner, epoch, 0);
		assert_int_equal(l.epoch, epoch + 1);
		assert_true(l.complete);
		assert_int_equal(l.floor, 0);
		epoch = l.epoch;
		restart(state);
	}
}

static void an_owner_that_knows_less_starts_above_all_that_was_allowed(void **state)
{
	struct seq_lease a = must_lease(*state, "a:1", 0, 0), b;

	a = must_lease(*state, "a:1", a.epoch, 50000);
	b = must_lease(*state, "b:1", 0, 0);
	assert_int_equal(b.epoch, a.epoch + 1);
	assert_false(b.complete);
	assert_int_equal(b.floor, 50000);
	assert_int_equal(b.ceiling, 50000 + SEQ_STEP);
}

static void a_floor_outlives_the_owner_it_was_made_for(void **state)
{
	struct seq_lease a = must_lease(*state, "a:1", 0, 0), b, c;

	b = must_lease(*state, "b:1", 0, 0);
	c = must_lease(*state, "c:1", b.epoch, 0);
	assert_true(c.complete);
	assert_int_equal(c.floor, a.ceiling);
}

static void a_repeated_acquire_gets_the_same_answer_also_after_a_restart(void **state)
{
	struct seq_lease first, again;

	(void)must_lease(*state, "a:1", 0, 0);
	first = must_lease(*state, "b:1", 1, 0);
	restart(state);
	again = must_lease(*state, "b:1", 1, 0);
	assert_int_equal(again.epoch, first.epoch);
	assert_int_equal(again.ceiling, first.ceiling);
	assert_int_equal(again.floor, first.floor);
	assert_int_equal(again.complete, first.complete);
	assert_int_equal(shaky.saves, 2);
}

static void an_epoch_that_is_over_gets_no_more(void **state)
{
	struct seq_lease l;

	(void)must_lease(*state, "a:1", 0, 0);
	(void)must_lease(*state, "b:1", 1, 0);
	assert_int_equal(lease(*state, "a:1", 1, 99999, &l), IM_BAD_INPUT);
	assert_int_equal(lease(*state, "a:1", 2, 99999, &l), IM_BAD_INPUT); /* the other's epoch */
	assert_int_equal(lease(*state, "b:1", 3, 99999, &l), IM_BAD_INPUT); /* not granted yet */
}

static void a_renewal_never_lowers_and_has_a_most(void **state)
{
	struct seq_lease l = must_lease(*state, "a:1", 0, 0);

	l = must_lease(*state, "a:1", 1, 123456);
	assert_int_equal(l.ceiling, 123456);
	l = must_lease(*state, "a:1", 1, 1);
	assert_int_equal(l.ceiling, 123456);
	l = must_lease(*state, "a:1", 1, UINT64_MAX);
	assert_int_equal(l.ceiling, 123456 + SEQ_LEAD_MOST);
}

static void a_database_older_than_the_owners_store_goes_on_above_it(void **state)
{
	struct seq_lease l = must_lease(*state, "a:1", 41, 0);

	assert_int_equal(l.epoch, 42);
	assert_false(l.complete);
	assert_int_equal(lease(*state, "b:1", UINT64_MAX, 0, &l), IM_BAD_INPUT);
}

static void what_was_not_saved_was_not_granted(void **state)
{
	struct seq_lease l;

	shaky.next = NOT_SAVED;
	assert_int_equal(lease(*state, "a:1", 0, 0, &l), IM_FAILED);
	l = must_lease(*state, "b:1", 0, 0);
	assert_int_equal(l.epoch, 1);
	assert_true(l.complete);
}

static void a_save_that_failed_but_took_effect_is_noticed(void **state)
{
	struct seq_lease l;

	shaky.next = SAVED_AND_SAID_NOT;
	assert_int_equal(lease(*state, "a:1", 0, 0, &l), IM_FAILED);
	l = must_lease(*state, "b:1", 0, 0);
	assert_int_equal(l.epoch, 2); /* a:1 may have been told by a repeat that we do not remember */
	assert_false(l.complete);
}

static void all_sections_go_in_one_save(void **state)
{
	static struct seq_lease asked[IM_SECTIONS], granted[IM_SECTIONS];
	size_t n;

	for (uint32_t i = 0; i < IM_SECTIONS; i++)
		asked[i] = (struct seq_lease){.section = i};
	assert_int_equal(seqgen_lease(*state, "a:1", asked, IM_SECTIONS, granted, &n, NULL), IM_OK);
	assert_int_equal(n, IM_SECTIONS);
	assert_int_equal(shaky.saves, 1);
	for (uint32_t i = 0; i < IM_SECTIONS; i++) {
		assert_int_equal(granted[i].section, i);
		assert_int_equal(granted[i].epoch, 1);
	}
}

static void what_is_refused_does_not_hold_up_the_rest(void **state)
{
	const struct seq_lease asked[] = {{.section = 1}, {.section = IM_SECTIONS}, {.section = 2, .epoch = 9, .ceiling = 5}, {.section = 3}};
	struct seq_lease granted[4];
	struct im_err err = {""};
	size_t n;

	assert_int_equal(seqgen_lease(*state, "a:1", asked, 4, granted, &n, &err), IM_BAD_INPUT);
	assert_int_equal(n, 2);
	assert_int_equal(granted[0].section, 1);
	assert_int_equal(granted[1].section, 3);
	assert_non_null(strstr(err.text, "section 4096"));
}

static void nobody_and_names_too_long_are_refused(void **state)
{
	char name[SEQ_OWNER_MAX + 2];
	struct seq_lease l;

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(lease(*state, "", 0, 0, &l), IM_BAD_INPUT);
	assert_int_equal(lease(*state, name, 0, 0, &l), IM_BAD_INPUT);
}

static void a_damaged_database_is_not_used(void **state)
{
	struct seqgen *g = NULL;
	struct im_err err = {""};

	(void)state;
	shaky.sections[3] = (struct seq_section){.epoch = 1, .floor = 20, .ceiling = 10};
	assert_int_equal(seqgen_create_on(&shaky_driver, &shaky, &g, &err), IM_FAILED);
	assert_non_null(strstr(err.text, "section 3"));
}

/*
 * ---- random walk. Owners come, give sequences, restart with their store or a restored copy of it, and saves fail.
 * The model is the set of sequences given: never one twice. A restored copy must not claim to be complete: it asks
 * with epoch 0, since an exact copy made within the current epoch looks like the original.
 */

#define WALK_SEQS (1u << 22)

struct walker {
	uint64_t epoch, last; /* its store */
	uint64_t granted, ceiling, floor;
	bool holds;
	char owner[24];
};

static void walk_acquire(struct seqgen *g, struct walker *w, unsigned *instance)
{
	struct seq_lease l;

	(void)snprintf(w->owner, sizeof(w->owner), "w:%u", ++*instance);
	w->holds = false;
	if (lease(g, w->owner, w->epoch, 0, &l) != IM_OK)
		return; /* a failed save: it comes again as a new instance, which is the worse case */
	w->holds = true;
	w->granted = w->epoch = l.epoch;
	w->ceiling = l.ceiling;
	w->floor = l.floor;
}

static void walk_give(struct walker *w, unsigned char *given)
{
	uint64_t seq = (w->last > w->floor ? w->last : w->floor) + 1;

	if (!w->holds || seq > w->ceiling || seq >= WALK_SEQS)
		return;
	if (given[seq]++)
		fail_msg("sequence %llu given twice", (unsigned long long)seq);
	w->last = seq;
}

static void walk_renew(struct seqgen *g, struct walker *w, unsigned by)
{
	struct seq_lease l;

	if (!w->holds)
		return;
	switch (lease(g, w->owner, w->granted, w->ceiling + by, &l)) {
	case IM_OK:
		w->ceiling = l.ceiling;
		break;
	case IM_BAD_INPUT:
		w->holds = false;
		break;
	default:
		break; /* asks again later */
	}
}

static void owners_that_come_and_go_never_give_a_sequence_twice(void **state)
{
	unsigned seed = getenv("IM_SEED") ? (unsigned)atoi(getenv("IM_SEED")) : (unsigned)time(NULL);
	unsigned char *given = calloc(WALK_SEQS, 1);
	struct walker w[3] = {{0}}, backup = {0};
	unsigned instance = 0;

	print_message("seed %u (IM_SEED repeats it)\n", seed);
	srand(seed);
	for (int i = 0; i < 20000; i++) {
		struct walker *one = &w[rand() % 3];
		int what = rand() % 100;

		shaky.next = rand() % 20 == 0 ? (enum trouble)(rand() % 3) : NONE;
		if (what < 80)
			walk_give(one, given);
		else if (what < 90)
			walk_renew(*state, one, (unsigned)(rand() % 20));
		else if (what < 93)
			walk_acquire(*state, one, &instance);
		else if (what < 95)
			restart(state);
		else if (what < 97)
			backup = *one;
		else if (what < 98)
			*one = (struct walker){.last = backup.last}; /* restored */
	}
	free(given);
}

static void one_owner_that_restarts_leaves_no_gap(void **state)
{
	struct walker w = {0};
	unsigned char *given = calloc(WALK_SEQS, 1);
	unsigned instance = 0;

	for (int i = 0; i < 1000; i++) {
		walk_acquire(*state, &w, &instance);
		for (int k = 0; k < 30; k++)
			walk_give(&w, given);
		walk_renew(*state, &w, 100);
		if (i % 3 == 0)
			restart(state);
	}
	assert_int_equal(w.last, 30000);
	for (uint64_t s = 1; s <= w.last; s++)
		assert_int_equal(given[s], 1);
	free(given);
}

/*
 * ---- kills. A child runs the generator on SQLite and an owner whose "store" is shared memory; it is killed at a random moment,
 * 1000 times. Each sequence is claimed in the shared memory by adding one.
 */

#define KILLS 1000

struct shared {
	uint64_t epoch, last;
	unsigned instance, twice, gaps;
	unsigned char given[WALK_SEQS];
};

/* One process's life: acquire, then give and renew until it is killed. */
static void live(const char *url, struct shared *sh)
{
	struct seq_lease l, asked = {.section = 7, .epoch = sh->epoch};
	struct seqgen *g;
	char owner[24];
	size_t n;

	(void)snprintf(owner, sizeof(owner), "k:%u", sh->instance);
	if (seqgen_create(url, &g, NULL) != IM_OK || seqgen_lease(g, owner, &asked, 1, &l, &n, NULL) != IM_OK)
		_exit(1);
	sh->epoch = l.epoch;
	for (unsigned i = 0;; i++) {
		uint64_t next = (sh->last > l.floor ? sh->last : l.floor) + 1;

		if (next > l.ceiling || i % 16 == 0) {
			asked = (struct seq_lease){.section = 7, .epoch = l.epoch, .ceiling = next + 8};
			if (seqgen_lease(g, owner, &asked, 1, &l, &n, NULL) != IM_OK)
				_exit(2);
			continue;
		}
		if (next >= WALK_SEQS)
			_exit(3);
		sh->gaps += next != sh->last + 1;
		if (__atomic_add_fetch(&sh->given[next], 1, __ATOMIC_SEQ_CST) > 1)
			sh->twice++;
		__atomic_store_n(&sh->last, next, __ATOMIC_SEQ_CST);
	}
}

static void kill_once(const char *url, struct shared *sh)
{
	const struct timespec wait = {.tv_nsec = rand() % 3000000};
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		live(url, sh);
	(void)nanosleep(&wait, NULL); /* the random moment, not a wait for something */
	(void)kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		fail_msg("the child ended by itself with %d", WEXITSTATUS(status));
}

static void a_thousand_kills_give_no_sequence_twice(void **state)
{
	struct shared *sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char dir[] = "/tmp/im-seqgen-test-XXXXXX", url[96], path[96];
	unsigned seed = getenv("IM_SEED") ? (unsigned)atoi(getenv("IM_SEED")) : (unsigned)time(NULL);

	(void)state;
	assert_ptr_not_equal(sh, MAP_FAILED);
	assert_non_null(mkdtemp(dir));
	(void)snprintf(url, sizeof(url), "sqlite:%s/s.db", dir);
	print_message("seed %u\n", seed);
	srand(seed);
	for (int i = 0; i < KILLS; i++) {
		/* Half of the time only the generator dies: its owner is the same instance and repeats its request. */
		sh->instance += rand() % 2;
		/* A sequence claimed and not recorded died with its message; the next owner may give it again. */
		if (sh->given[sh->last + 1] == 1)
			sh->given[sh->last + 1] = 0;
		kill_once(url, sh);
	}
	print_message("%u sequences in %d lives, %u jumps over a floor\n", (unsigned)sh->last, KILLS, sh->gaps);
	assert_int_equal(sh->twice, 0);
	assert_true(sh->last > 0);
	for (int i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof(path), "%s/s.db%s", dir, i ? "-wal" : "");
		(void)unlink(path);
	}
	(void)rmdir(dir);
	(void)munmap(sh, sizeof(*sh));
}

static void a_second_generator_on_the_same_file_is_refused_or_waits(void **state)
{
	char dir[] = "/tmp/im-seqgen-test-XXXXXX", url[96], path[96];
	struct seqgen *a = NULL, *b = NULL;
	struct im_err err = {""};

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(url, sizeof(url), "sqlite:%s/s.db", dir);
	assert_int_equal(seqgen_create(url, &a, &err), IM_OK);
	assert_int_equal(seqgen_create(url, &b, &err), IM_FAILED);
	assert_string_not_equal(err.text, "");
	seqgen_destroy(a);
	assert_int_equal(seqgen_create(url, &b, &err), IM_OK);
	seqgen_destroy(b);
	assert_int_equal(seqgen_create("redis:x", &a, &err), IM_BAD_INPUT);
	(void)snprintf(path, sizeof(path), "%s/s.db", dir);
	(void)unlink(path);
	(void)rmdir(dir);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_owner_starts_at_one),
		TEST(an_owner_that_knows_the_last_epoch_goes_on_without_a_gap),
		TEST(an_owner_that_knows_less_starts_above_all_that_was_allowed),
		TEST(a_floor_outlives_the_owner_it_was_made_for),
		TEST(a_repeated_acquire_gets_the_same_answer_also_after_a_restart),
		TEST(an_epoch_that_is_over_gets_no_more),
		TEST(a_renewal_never_lowers_and_has_a_most),
		TEST(a_database_older_than_the_owners_store_goes_on_above_it),
		TEST(what_was_not_saved_was_not_granted),
		TEST(a_save_that_failed_but_took_effect_is_noticed),
		TEST(all_sections_go_in_one_save),
		TEST(what_is_refused_does_not_hold_up_the_rest),
		TEST(nobody_and_names_too_long_are_refused),
		TEST(a_damaged_database_is_not_used),
		TEST(owners_that_come_and_go_never_give_a_sequence_twice),
		TEST(one_owner_that_restarts_leaves_no_gap),
		cmocka_unit_test(a_thousand_kills_give_no_sequence_twice),
		cmocka_unit_test(a_second_generator_on_the_same_file_is_refused_or_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
