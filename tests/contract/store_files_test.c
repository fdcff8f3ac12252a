/*
 * What only a store in files can do wrong: two who open it, damage, a kill between the log and the rows, and a
 * lookup that waits behind pages read from a disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "store_fixture.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char conv[] = "u/alice:bob";

static void expect_refusal(struct fixture *f, const char *words)
{
	struct im_err err = { "" };

	assert_int_equal(fixture_try_open(f, &err), IM_FAILED);
	if (!strstr(err.text, words))
		fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void an_open_store_is_not_opened_twice(void **state)
{
	struct fixture f;
	struct store *first;

	(void)state;
	fixture_open(&f, "sqlite");
	first = f.store;
	expect_refusal(&f, "in use");
	f.store = first;
	fixture_close(&f);
}

static void a_damaged_database_and_a_missing_folder_are_named(void **state)
{
	struct fixture f;
	char path[96];
	FILE *file;

	(void)state;
	fixture_open(&f, "sqlite");
	assert_int_equal(append_text(&f, conv, 1, "alice", "a"), IM_OK);
	store_close(f.store);
	f.store = NULL;
	snprintf(path, sizeof(path), "%s/store.db", f.dir);
	file = fopen(path, "r+");
	assert_non_null(file);
	fwrite("not a database at all", 1, 21, file);
	fclose(file);
	expect_refusal(&f, path);
	assert_int_equal(remove(path), 0); /* a new database has another name than the log */
	expect_refusal(&f, "another store");
	fixture_close(&f);
	snprintf(f.dir, sizeof(f.dir), "/proc/none/store");
	f.loop = im_loop_create();
	expect_refusal(&f, "/proc/none/store");
	im_loop_destroy(f.loop);
}

struct many {
	unsigned left, left_at_lookup;
};

static void on_read(void *arg, enum im_status st)
{
	assert_int_equal(st, IM_OK);
	((struct many *)arg)->left--;
}

static void on_looked_up(void *arg, enum im_status st)
{
	struct many *m = arg;

	m->left_at_lookup = m->left;
	on_read(arg, st);
}

static void on_ignored(void *arg, struct message *m)
{
	(void)arg;
	(void)m;
}

static void a_lookup_does_not_wait_for_pages(void **state)
{
	struct store_range range = { .conv = conv, .limit = 500 };
	struct store_lookup_conv c = { .conv = "u/bob:carol" };
	struct fixture f;
	struct many m = { 0 };

	(void)state;
	fixture_open(&f, "sqlite");
	for (uint64_t seq = 1; seq <= 500; seq++)
		assert_int_equal(append_text(&f, conv, seq, "alice", ""), IM_OK);
	fixture_reopen(&f);
	for (int i = 0; i < 400; i++, m.left++)
		store_history(f.store, &range, on_ignored, on_read, &m);
	m.left++;
	store_lookup(f.store, &c, 1, NULL, 0, on_looked_up, &m);
	run_until_zero(&f, &m.left);
	assert_true(m.left_at_lookup > 50);
	fixture_close(&f);
}

struct answered {
	unsigned *left;
	enum im_status st;
};

static void on_answered(void *arg, enum im_status st)
{
	struct answered *a = arg;

	a->st = st;
	*a->left = 0;
}

/* What a process killed between the log's two sides leaves behind: it answers, and is gone before there are rows. */
static void append_and_vanish(struct fixture *f)
{
	struct im_err err = { "" };
	struct store_entry e[3];
	struct answered a = { 0 };
	int status;
	pid_t pid;

	store_close(f->store);
	f->store = NULL;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		unsigned left = 1;

		f->loop = im_loop_create();
		if (fixture_try_open(f, &err) != IM_OK)
			_exit(2);
		memset(e, 0, sizeof(e));
		for (int i = 0; i < 3; i++) {
			e[i].kind = STORE_CURSOR;
			e[i].pos = (struct position){ 1, 77, 500 };
			e[i].cursor = (struct store_cursor){ "alice", "alice:pc", i == 0 ? "u/alice:bob" : i == 1 ? "u/alice:carol" : "g/friends", 7, 0 };
		}
		a.left = &left;
		store_append(f->store, e, 3, on_answered, &a);
		run_until_zero(f, &left);
		_exit(a.st == IM_OK ? 0 : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Zeros over the last record of the newest segment that has any. */
static void tear_last_record(struct fixture *f)
{
	char pattern[96];
	bool torn = false;
	glob_t files;

	snprintf(pattern, sizeof(pattern), "%s/log/*.log", f->dir);
	assert_int_equal(glob(pattern, 0, NULL, &files), 0);
	for (size_t i = files.gl_pathc; i-- > 0 && !torn;) {
		int fd = open(files.gl_pathv[i], O_RDWR);
		long at = 128, last = 0;
		uint32_t len;

		assert_true(fd >= 0);
		while (pread(fd, &len, sizeof(len), at) == sizeof(len) && len != 0) {
			last = at;
			at += 8 + (long)len;
		}
		for (; last && last < at; last++)
			assert_int_equal(pwrite(fd, "", 1, last), 1);
		torn = last != 0;
		close(fd);
	}
	globfree(&files);
	assert_true(torn);
}

/* Whether an append whose writer vanished is there, torn in the log or not; as a whole, and so at the next start too. */
static bool whole_after_vanishing(bool tear)
{
	struct fixture f;
	struct im_err err = { "" };
	struct device_view v;
	bool whole = false;

	fixture_open(&f, "sqlite");
	append_and_vanish(&f);
	if (tear)
		tear_last_record(&f);
	for (int again = 0; again < 2; again++) {
		if (fixture_try_open(&f, &err) != IM_OK)
			fail_msg("%s", err.text);
		device(&f, "alice", "alice:pc", &v);
		if (!again)
			whole = v.cursors != 0;
		assert_int_equal(v.cursors, whole ? 3 : 0);
		assert_int_equal(store_start(f.store)->n_high_water, whole ? 1 : 0);
		if (!again)
			store_close(f.store);
	}
	fixture_close(&f);
	return whole;
}

static void an_append_is_there_as_a_whole_or_not_at_all(void **state)
{
	int tries = 20; /* the thread of the index may have had it in the moment before its process vanished */

	(void)state;
	assert_true(whole_after_vanishing(false));
	while (whole_after_vanishing(true))
		assert_int_not_equal(--tries, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_open_store_is_not_opened_twice),
		cmocka_unit_test(a_damaged_database_and_a_missing_folder_are_named),
		cmocka_unit_test(a_lookup_does_not_wait_for_pages),
		cmocka_unit_test(an_append_is_there_as_a_whole_or_not_at_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
