/*
 * lib/schema: a file becomes one of a newer release as a whole or not at all, and a copy is kept before. The store of
 * tests/fixtures is one of schema 1, as a release of that schema left it; steps that do not exist yet are made up here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "schema/schema.h"
#include "store_db.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEP_2 "ALTER TABLE message ADD COLUMN note TEXT; CREATE TABLE extra(x INTEGER PRIMARY KEY) STRICT;" \
	       "INSERT INTO extra SELECT row FROM message; UPDATE message SET note = 'new';"

struct fixture {
	char dir[64], path[96], copy[128];
	sqlite3 *db;
};

static char *read_text(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 1 << 16);

	assert_non_null(f);
	assert_true(fread(text, 1, (1 << 16) - 1, f) > 0);
	fclose(f);
	return text;
}

static void run(sqlite3 *db, const char *sql)
{
	char *why = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s", why);
}

static char *ask(sqlite3 *db, const char *sql)
{
	static char out[4096];
	sqlite3_stmt *s = NULL;

	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	snprintf(out, sizeof(out), "%s", (const char *)sqlite3_column_text(s, 0));
	sqlite3_finalize(s);
	return out;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char *sql = read_text(IM_SOURCE_DIR "/tests/fixtures/store-schema-1.sql");

	strcpy(f->dir, "/tmp/im-schema-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/store.db", f->dir);
	snprintf(f->copy, sizeof(f->copy), "%s.schema-1", f->path);
	assert_int_equal(sqlite3_open(f->path, &f->db), SQLITE_OK);
	run(f->db, "PRAGMA journal_mode=WAL");
	run(f->db, sql);
	run(f->db, "PRAGMA user_version=1");
	free(sql);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[128];

	sqlite3_close(f->db);
	snprintf(command, sizeof(command), "rm -r %s", f->dir);
	free(f);
	return system(command);
}

static struct im_schema schema_2(const char *second)
{
	static const char *steps[2];

	steps[0] = store_db_schema.steps[0];
	steps[1] = second;
	return (struct im_schema){ steps, 2 };
}

/* Everything that is in it, in one line. */
#define ROWS "SELECT group_concat(x, ';') FROM (SELECT seq || hex(data) AS x FROM message ORDER BY row)"

static void a_file_with_content_is_copied_and_then_changed(void **state)
{
	struct fixture *f = *state;
	struct im_schema next = schema_2(STEP_2);
	char *rows = strdup(ask(f->db, ROWS));
	struct im_err err = { "" };
	struct stat sb;
	sqlite3 *copy;

	if (im_schema_open(f->db, f->path, &next, &err) != IM_OK)
		fail_msg("%s", err.text);
	assert_int_equal(im_schema_version(f->db), 2);
	assert_string_equal(ask(f->db, ROWS), rows);
	assert_string_equal(ask(f->db, "SELECT count(*) FROM extra"), "5");
	assert_int_equal(stat(f->copy, &sb), 0);
	assert_int_equal(sb.st_mode & 0777, 0600);
	assert_int_equal(sqlite3_open(f->copy, &copy), SQLITE_OK);
	assert_int_equal(im_schema_version(copy), 1);
	assert_string_equal(ask(copy, ROWS), rows);
	assert_string_equal(ask(copy, "PRAGMA integrity_check"), "ok");
	sqlite3_close(copy);
	assert_int_equal(unlink(f->copy), 0);
	assert_int_equal(im_schema_open(f->db, f->path, &next, &err), IM_OK); /* nothing left to do: no copy */
	assert_int_equal(access(f->copy, F_OK), -1);
	free(rows);
}

static void a_step_that_fails_changes_nothing(void **state)
{
	struct fixture *f = *state;
	struct im_schema next = schema_2(STEP_2 "INSERT INTO no_such_table VALUES(1);");
	struct im_err err = { "" };

	for (int i = 0; i < 2; i++) { /* also with the copy there already */
		assert_int_equal(im_schema_open(f->db, f->path, &next, &err), IM_FAILED);
		assert_non_null(strstr(err.text, "no_such_table"));
		assert_int_equal(im_schema_version(f->db), 1);
		assert_string_equal(ask(f->db, "SELECT count(*) FROM sqlite_schema WHERE name = 'extra'"), "0");
	}
}

static void a_copy_that_cannot_be_made_stops_the_change(void **state)
{
	struct fixture *f = *state;
	struct im_schema next = schema_2(STEP_2);
	struct im_err err = { "" };
	char inside[160];

	assert_int_equal(mkdir(f->copy, 0700), 0);
	snprintf(inside, sizeof(inside), "%s/x", f->copy);
	assert_int_equal(mkdir(inside, 0700), 0);
	assert_int_equal(im_schema_open(f->db, f->path, &next, &err), IM_FAILED);
	assert_non_null(strstr(err.text, "copy"));
	assert_int_equal(im_schema_version(f->db), 1);
}

static void a_newer_file_is_refused_and_left_alone(void **state)
{
	struct fixture *f = *state;
	struct store_db *db = NULL;
	struct im_err err = { "" };

	run(f->db, "PRAGMA user_version=99");
	assert_int_equal(store_db_open(f->path, true, &db, &err), IM_BAD_INPUT);
	assert_non_null(strstr(err.text, "newer release"));
	assert_int_equal(im_schema_version(f->db), 99);
}

/* Whoever changes the schema adds a step, and a store of the schema before it to tests/fixtures. */
static void the_fixture_is_what_this_release_makes(void **state)
{
	static const char tables[] = "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name)";
	struct fixture *f = *state;
	char *fixture = strdup(ask(f->db, tables));
	struct im_err err;
	sqlite3 *fresh;

	assert_int_equal(sqlite3_open(":memory:", &fresh), SQLITE_OK);
	assert_int_equal(im_schema_create(fresh, "fresh", &store_db_schema, 1, &err), IM_OK);
	assert_string_equal(ask(fresh, tables), fixture);
	assert_int_equal(im_schema_open(f->db, f->path, &store_db_schema, &err), IM_OK);
	sqlite3_close(fresh);
	free(fixture);
}

static void killed_at_any_moment_it_is_the_old_or_the_new(void **state)
{
	struct fixture *f = *state;
	struct im_schema next = schema_2(STEP_2);
	char *rows = strdup(ask(f->db, ROWS));
	struct im_err err;
	int became[3] = { 0 };

	sqlite3_close(f->db);
	for (useconds_t us = 0; us < 8000; us += 200) {
		int version, status;
		pid_t child = fork();

		if (child == 0) {
			sqlite3 *db;

			if (sqlite3_open(f->path, &db) == SQLITE_OK)
				(void)im_schema_open(db, f->path, &next, NULL);
			_exit(0);
		}
		usleep(us);
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(sqlite3_open(f->path, &f->db), SQLITE_OK);
		version = im_schema_version(f->db);
		assert_in_range(version, 1, 2);
		became[version]++;
		assert_string_equal(ask(f->db, ROWS), rows);
		assert_string_equal(ask(f->db, "SELECT count(*) FROM sqlite_schema WHERE name = 'extra'"), version == 2 ? "1" : "0");
		if (version == 2)
			run(f->db, "BEGIN; DROP TABLE extra; ALTER TABLE message DROP COLUMN note; PRAGMA user_version=1; COMMIT");
		sqlite3_close(f->db);
	}
	print_message("old %d, new %d\n", became[1], became[2]);
	assert_int_equal(sqlite3_open(f->path, &f->db), SQLITE_OK);
	assert_int_equal(im_schema_open(f->db, f->path, &next, &err), IM_OK);
	free(rows);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(a_file_with_content_is_copied_and_then_changed),
		T(a_step_that_fails_changes_nothing),
		T(a_copy_that_cannot_be_made_stops_the_change),
		T(a_newer_file_is_refused_and_left_alone),
		T(the_fixture_is_what_this_release_makes),
		T(killed_at_any_moment_it_is_the_old_or_the_new),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
