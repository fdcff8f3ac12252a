/* What every sequence driver promises (services/seqgen/seq.h), one list for all of them. */
#include "seq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct subject {
	const struct seq_driver *driver;
	bool lasting; /* survives close */
	char dir[64], path[96];
	void *db;
	struct seq_section sections[IM_SECTIONS];
};

static void open_it(struct subject *s)
{
	struct im_err err = {""};

	if (s->driver->open(s->path, &s->db, &err) != IM_OK)
		fail_msg("%s", err.text);
}

static void load_it(struct subject *s)
{
	struct im_err err = {""};

	memset(s->sections, 0, sizeof(s->sections));
	if (s->driver->load(s->db, s->sections, &err) != IM_OK)
		fail_msg("%s", err.text);
}

static void reopen(struct subject *s)
{
	if (!s->lasting)
		return;
	s->driver->close(s->db);
	open_it(s);
}

static struct seq_row row(uint32_t section, uint64_t n)
{
	struct seq_row r = {.section = section, .state = {.epoch = n, .floor = n * 2, .ceiling = n * 3, .complete = n % 2}};

	(void)snprintf(r.state.owner, sizeof(r.state.owner), "owner:%llu", (unsigned long long)n);
	return r;
}

static void assert_row(const struct subject *s, uint32_t section, uint64_t n)
{
	struct seq_row want = row(section, n);
	const struct seq_section *is = &s->sections[section];

	assert_int_equal(is->epoch, want.state.epoch);
	assert_int_equal(is->floor, want.state.floor);
	assert_int_equal(is->ceiling, want.state.ceiling);
	assert_int_equal(is->complete, want.state.complete);
	assert_string_equal(is->owner, want.state.owner);
}

static int set_up(const struct seq_driver *driver, bool lasting, void **state)
{
	struct subject *s = calloc(1, sizeof(*s));

	s->driver = driver;
	s->lasting = lasting;
	(void)snprintf(s->dir, sizeof(s->dir), "/tmp/im-sequence-test-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	(void)snprintf(s->path, sizeof(s->path), "%s/sequences.db", s->dir);
	open_it(s);
	*state = s;
	return 0;
}

static int set_up_sqlite(void **state)
{
	return set_up(&seq_sqlite, true, state);
}

static int set_up_memory(void **state)
{
	return set_up(&seq_memory, false, state);
}

static int tear_down(void **state)
{
	static const char *const rest[] = {"", "-wal", "-shm", "-journal"};
	struct subject *s = *state;
	char path[128];

	s->driver->close(s->db);
	for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", s->path, rest[i]);
		(void)unlink(path);
	}
	(void)rmdir(s->dir);
	free(s);
	return 0;
}

/* ---- the promises */

static void a_new_database_is_all_zero(void **state)
{
	struct subject *s = *state;
	static const struct seq_section zero;

	load_it(s);
	for (uint32_t i = 0; i < IM_SECTIONS; i++)
		assert_memory_equal(&s->sections[i], &zero, sizeof(zero));
}

static void what_was_saved_is_loaded(void **state)
{
	struct subject *s = *state;
	const struct seq_row rows[] = {row(0, 1), row(4095, 2), row(77, SEQ_CEILING_MOST / 3)};

	assert_int_equal(s->driver->save(s->db, rows, 3, NULL), IM_OK);
	reopen(s);
	load_it(s);
	for (size_t i = 0; i < 3; i++)
		assert_row(s, rows[i].section, rows[i].state.epoch);
	assert_int_equal(s->sections[1].epoch, 0);
}

static void a_later_save_replaces_an_earlier_one(void **state)
{
	struct subject *s = *state;

	for (uint64_t n = 1; n <= 20; n++) {
		struct seq_row r = row(5, n);

		assert_int_equal(s->driver->save(s->db, &r, 1, NULL), IM_OK);
	}
	reopen(s);
	load_it(s);
	assert_row(s, 5, 20);
}

static void all_sections_are_saved_at_once(void **state)
{
	struct subject *s = *state;
	struct seq_row *rows = calloc(IM_SECTIONS, sizeof(*rows));

	for (uint32_t i = 0; i < IM_SECTIONS; i++)
		rows[i] = row(i, i + 1);
	assert_int_equal(s->driver->save(s->db, rows, IM_SECTIONS, NULL), IM_OK);
	free(rows);
	reopen(s);
	load_it(s);
	for (uint32_t i = 0; i < IM_SECTIONS; i++)
		assert_row(s, i, i + 1);
}

static void the_longest_owner_is_kept_whole(void **state)
{
	struct subject *s = *state;
	struct seq_row r = row(9, 4);

	memset(r.state.owner, 'o', SEQ_OWNER_MAX);
	r.state.owner[SEQ_OWNER_MAX] = '\0';
	assert_int_equal(s->driver->save(s->db, &r, 1, NULL), IM_OK);
	reopen(s);
	load_it(s);
	assert_string_equal(s->sections[9].owner, r.state.owner);
}

static void saving_nothing_is_fine(void **state)
{
	struct subject *s = *state;

	assert_int_equal(s->driver->save(s->db, NULL, 0, NULL), IM_OK);
}

static void closing_nothing_is_fine(void **state)
{
	struct subject *s = *state;

	s->driver->close(NULL);
}

#define PROMISES(set_up_fn)                                                                           \
	cmocka_unit_test_setup_teardown(a_new_database_is_all_zero, set_up_fn, tear_down),            \
	cmocka_unit_test_setup_teardown(what_was_saved_is_loaded, set_up_fn, tear_down),              \
	cmocka_unit_test_setup_teardown(a_later_save_replaces_an_earlier_one, set_up_fn, tear_down),  \
	cmocka_unit_test_setup_teardown(all_sections_are_saved_at_once, set_up_fn, tear_down),        \
	cmocka_unit_test_setup_teardown(the_longest_owner_is_kept_whole, set_up_fn, tear_down),       \
	cmocka_unit_test_setup_teardown(saving_nothing_is_fine, set_up_fn, tear_down),                \
	cmocka_unit_test_setup_teardown(closing_nothing_is_fine, set_up_fn, tear_down)

int main(void)
{
	const struct CMUnitTest sqlite[] = {PROMISES(set_up_sqlite)};
	const struct CMUnitTest memory[] = {PROMISES(set_up_memory)};

	return cmocka_run_group_tests_name("sqlite", sqlite, NULL, NULL) + cmocka_run_group_tests_name("memory", memory, NULL, NULL);
}
