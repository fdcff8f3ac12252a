/* lib/push/outbox_db.c: what is in the file after each step, and what a start makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "push/job.h"
#include "push/outbox_db.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct world {
	char dir[64], path[96];
	struct outbox_db *db;
	struct outbox_start start;
};

static void open_db(struct world *w)
{
	struct im_err err = {""};

	if (outbox_db_open(w->path, &w->db, &err) != IM_OK || outbox_db_load(w->db, &w->start, &err) != IM_OK)
		fail_msg("%s", err.text);
}

static void close_db(struct world *w)
{
	for (size_t i = 0; i < w->start.n_jobs; i++)
		push_job_free(w->start.jobs[i]);
	for (size_t i = 0; i < w->start.n_verdicts; i++)
		free(w->start.verdicts[i].data);
	for (size_t i = 0; i < w->start.n_suspects; i++) {
		free(w->start.suspects[i].user);
		free(w->start.suspects[i].device);
		free(w->start.suspects[i].app);
	}
	outbox_start_free(&w->start);
	memset(&w->start, 0, sizeof(w->start));
	outbox_db_close(w->db);
	w->db = NULL;
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->dir, "/tmp/im-outbox-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/outbox.db", w->dir);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;
	char command[128];

	close_db(w);
	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	free(w);
	return system(command);
}

static struct push_job *make(const char *key, enum _Im__Push__Kind kind, int64_t created_ms)
{
	Im__Push__Job m = IM__PUSH__JOB__INIT;

	m.key = (char *)key;
	m.kind = kind;
	m.user = (char *)"alice";
	m.device = (char *)"alice:phone";
	m.app = (char *)"chat";
	m.conv = (char *)"u/alice:bob";
	m.seq = 7;
	m.created_ms = created_ms;
	return push_job_create(&m, 1000);
}

static void run(struct world *w, struct outbox_op *op)
{
	assert_true(outbox_db_begin(w->db));
	assert_true(outbox_db_run(w->db, op));
	assert_true(outbox_db_commit(w->db));
}

static uint64_t insert(struct world *w, const char *key, enum _Im__Push__Kind kind, int64_t created_ms)
{
	struct push_job *j = make(key, kind, created_ms);
	struct outbox_op op = {.kind = OUTBOX_INSERT, .jobs = &j, .n = 1};
	uint64_t row;

	run(w, &op);
	row = j->row;
	push_job_free(j);
	return row;
}

static void set(struct world *w, uint64_t row, enum push_state to, int64_t done_ms)
{
	struct push_job *j = make("x", IM__PUSH__KIND__KIND_MESSAGE, 1);
	struct outbox_op op = {.kind = OUTBOX_STATE, .job = j, .state = to, .done_ms = done_ms};

	j->row = row;
	run(w, &op);
	push_job_free(j);
}

static void what_is_given_twice_is_known(void **state)
{
	struct world *w = *state;
	uint64_t row;

	open_db(w);
	row = insert(w, "m1", IM__PUSH__KIND__KIND_MESSAGE, 1);
	assert_true(row > 0);
	assert_int_equal(insert(w, "m1", IM__PUSH__KIND__KIND_MESSAGE, 2), 0);
	set(w, row, PUSH_STATE_ACCEPTED, 1000);
	assert_int_equal(insert(w, "m1", IM__PUSH__KIND__KIND_MESSAGE, 3), 0); /* also after its end */
	assert_true(insert(w, "badge", IM__PUSH__KIND__KIND_BADGE, 4) > 0);
	assert_int_equal(insert(w, "badge", IM__PUSH__KIND__KIND_BADGE, 4), 0);
	assert_true(insert(w, "badge", IM__PUSH__KIND__KIND_BADGE, 5) > 0); /* a number of another moment */
}

static void what_was_under_way_may_have_been_sent(void **state)
{
	struct world *w = *state;
	uint64_t rows[4];

	open_db(w);
	for (int i = 0; i < 4; i++) {
		char key[8];

		snprintf(key, sizeof(key), "m%d", i);
		rows[i] = insert(w, key, IM__PUSH__KIND__KIND_MESSAGE, 1);
	}
	set(w, rows[0], PUSH_STATE_INFLIGHT, 0);
	set(w, rows[1], PUSH_STATE_RETRY, 0);
	set(w, rows[2], PUSH_STATE_DEAD, 5);
	for (int again = 1; again <= 2; again++) {
		close_db(w);
		open_db(w);
		assert_int_equal(w->start.n_jobs, 3);
		assert_int_equal(w->start.recovered, again == 1);
		assert_int_equal(w->start.finals, 1);
		assert_int_equal(w->start.jobs[0]->row, rows[0]);
		assert_int_equal(w->start.jobs[0]->state, PUSH_STATE_READY);
		assert_true(w->start.jobs[0]->life.maybe_dup && w->start.jobs[0]->life.recovered == 1);
		assert_int_equal(w->start.jobs[1]->state, PUSH_STATE_RETRY);
		assert_false(w->start.jobs[1]->life.maybe_dup || w->start.jobs[2]->life.maybe_dup);
		assert_string_equal(w->start.jobs[2]->conv, "u/alice:bob");
	}
}

static void a_final_state_stays(void **state)
{
	struct world *w = *state;
	struct outbox_question q = {.user = "alice"};
	struct outbox_op op = {.kind = OUTBOX_FIND, .question = &q};
	uint64_t row;

	open_db(w);
	row = insert(w, "m1", IM__PUSH__KIND__KIND_MESSAGE, 1);
	set(w, row, PUSH_STATE_CANCELLED, 5);
	set(w, row, PUSH_STATE_ACCEPTED, 6);
	run(w, &op);
	assert_int_equal(op.n_found, 1);
	assert_int_equal(op.found[0].state, PUSH_STATE_CANCELLED);
	free(op.found);
}

static void verdicts_and_suspects_are_kept(void **state)
{
	struct world *w = *state;
	struct push_job *j = make("m1", IM__PUSH__KIND__KIND_MESSAGE, 1);
	uint8_t data[] = "verdict";
	struct outbox_op op = {.kind = OUTBOX_STATE, .job = j, .state = PUSH_STATE_DEAD, .done_ms = 1, .verdict = data, .verdict_len = 7};
	struct outbox_op heard = {.kind = OUTBOX_HEARD};
	struct outbox_op suspect = {.kind = OUTBOX_SUSPECT,
				    .token = {(char *)"alice", (char *)"alice:phone", (char *)"chat", 10, 20, 30}};

	open_db(w);
	j->row = insert(w, "m1", IM__PUSH__KIND__KIND_MESSAGE, 1);
	run(w, &op);
	run(w, &suspect);
	close_db(w);
	open_db(w);
	assert_int_equal(w->start.n_verdicts, 1);
	assert_int_equal(w->start.verdicts[0].said, op.number);
	assert_memory_equal(w->start.verdicts[0].data, "verdict", 7);
	assert_int_equal(w->start.n_suspects, 1);
	assert_int_equal(w->start.suspects[0].next_ms, 30);
	heard.number = op.number;
	suspect.token.first_ms = 0;
	run(w, &heard);
	run(w, &suspect);
	run(w, &op);
	assert_true(op.number > heard.number); /* counted over the file's life */
	push_job_free(j);
}

static void what_has_ended_is_forgotten_in_time(void **state)
{
	struct world *w = *state;
	uint64_t finals = 3;
	char key[8];

	open_db(w);
	for (int i = 1; i <= 4; i++) {
		snprintf(key, sizeof(key), "m%d", i);
		set(w, insert(w, key, IM__PUSH__KIND__KIND_MESSAGE, 1), i < 4 ? PUSH_STATE_ACCEPTED : PUSH_STATE_RETRY, i < 4 ? 1000 * i : 0);
	}
	assert_true(outbox_db_purge(w->db, 1500, 100, &finals));
	assert_int_equal(finals, 2);
	assert_true(outbox_db_purge(w->db, 1500, 1, &finals));
	assert_int_equal(finals, 1);
	close_db(w);
	open_db(w);
	assert_int_equal(w->start.finals, 1);
	assert_int_equal(w->start.n_jobs, 1);
}

static void damage_is_told_from_what_passes(void **state)
{
	struct world *w = *state;
	struct im_err err = {""};
	FILE *f = fopen(w->path, "w");

	assert_non_null(f);
	for (int i = 0; i < 10000; i++)
		fputs("not a database ", f);
	fclose(f);
	assert_int_equal(outbox_db_open(w->path, &w->db, &err), IM_EXISTS);
	assert_int_equal(outbox_db_open("/nowhere/at/all.db", &w->db, &err), IM_FAILED);
}

/* An outbox as the first release leaves it. */
static void file_of_schema_1_is_opened(void **state)
{
	struct world *w = *state;
	char sql[16384];
	sqlite3 *db;
	FILE *f = fopen(IM_SOURCE_DIR "/tests/fixtures/outbox-schema-1.sql", "r");

	assert_non_null(f);
	sql[fread(sql, 1, sizeof(sql) - 1, f)] = '\0';
	fclose(f);
	assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=1", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	open_db(w);
	assert_int_equal(w->start.n_jobs, 1);
	assert_string_equal(w->start.jobs[0]->key, "m2");
	assert_int_equal(w->start.n_verdicts, 1);
	assert_int_equal(w->start.n_suspects, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_given_twice_is_known, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_was_under_way_may_have_been_sent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_final_state_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(verdicts_and_suspects_are_kept, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_has_ended_is_forgotten_in_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(damage_is_told_from_what_passes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(file_of_schema_1_is_opened, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
