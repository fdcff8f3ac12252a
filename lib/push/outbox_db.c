/*
 * The file: jobs by row, in the order they came. Ids and states only: no text, no token. One index serves both ends of a job's life:
 * open ones have done_ms 0 and are found at the start, final ones leave by it in the order they ended.
 */
#include "push/outbox_db.h"

#include "base/killpoint.h"
#include "push/job.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_WAIT_MS 5000 /* a predecessor that is just ending */
#define PURGE_AT_ONCE 5000 /* rows of a transaction: others wait for it, some 30 ms */
#define FIND_DEPTH 100000 /* newest rows that a question looks through: a tenth of a second in which nothing is written */

static const char schema[] =
	"CREATE TABLE job(row INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL, app TEXT NOT NULL,"
	" conv TEXT NOT NULL, kind INTEGER NOT NULL, mention INTEGER NOT NULL, seq INTEGER NOT NULL, since_seq INTEGER NOT NULL DEFAULT 0,"
	" created_ms INTEGER NOT NULL, not_before_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL,"
	" state INTEGER NOT NULL DEFAULT 0, due_ms INTEGER NOT NULL DEFAULT 0, done_ms INTEGER NOT NULL DEFAULT 0,"
	" attempts INTEGER NOT NULL DEFAULT 0, recovered INTEGER NOT NULL DEFAULT 0, flags INTEGER NOT NULL DEFAULT 0,"
	" into_row INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '', provider_id TEXT NOT NULL DEFAULT '') STRICT;"
	"CREATE UNIQUE INDEX job_name ON job(key, user, device);"
	"CREATE INDEX job_done ON job(done_ms);"
	"CREATE TABLE verdict(said INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL) STRICT;"
	"CREATE TABLE suspect(user TEXT NOT NULL, device TEXT NOT NULL, app TEXT NOT NULL, registered_ms INTEGER NOT NULL, first_ms INTEGER NOT NULL,"
	" next_ms INTEGER NOT NULL, PRIMARY KEY(user, device, app)) STRICT, WITHOUT ROWID;";
static const char *const schema_steps[] = {schema};
const struct im_schema outbox_schema = {schema_steps, sizeof(schema_steps) / sizeof(schema_steps[0])};

/* The lock is held as long as the file is open: two bridges would send everything twice. A commit is synced. */
static const char sql_setup[] = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit=33554432;"
				"BEGIN EXCLUSIVE; COMMIT;";

/* What was under way when a bridge died may have been sent: bit 0 of flags is maybe_dup. */
static const char sql_recover[] = "UPDATE job SET state = 0, due_ms = 0, recovered = recovered + 1, flags = flags | 1 WHERE done_ms = 0 AND state = 3";
static const char sql_open_jobs[] = "SELECT row, key, user, device, app, conv, kind, mention, seq, since_seq, created_ms, not_before_ms, deadline_ms,"
				    " state, due_ms, attempts, recovered, flags FROM job WHERE done_ms = 0 ORDER BY row";
static const char sql_verdicts[] = "SELECT said, data FROM verdict ORDER BY said";
static const char sql_suspects[] = "SELECT user, device, app, registered_ms, first_ms, next_ms FROM suspect";
static const char sql_finals[] = "SELECT count(*) FROM job WHERE done_ms > 0";

enum { SQL_BEGIN, SQL_COMMIT, SQL_ROLLBACK, SQL_INSERT, SQL_STATE, SQL_INTO, SQL_VERDICT, SQL_HEARD, SQL_SUSPECT, SQL_FORGIVE, SQL_ABSOLVE,
       SQL_FIND, SQL_PURGE_OLD, SQL_PURGE_MANY, SQL_COUNT };

static const char *const sql[SQL_COUNT] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_INSERT] = "INSERT INTO job(key, user, device, app, conv, kind, mention, seq, created_ms, not_before_ms, deadline_ms)"
		       " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
	[SQL_STATE] = "UPDATE job SET state = ?2, due_ms = ?3, done_ms = ?4, attempts = ?5, flags = ?6, into_row = ?7, reason = ?8, provider_id = ?9"
		      " WHERE row = ?1 AND done_ms = 0",
	[SQL_INTO] = "UPDATE job SET since_seq = ?2 WHERE row = ?1",
	[SQL_VERDICT] = "INSERT INTO verdict(data) VALUES(?1)",
	[SQL_HEARD] = "DELETE FROM verdict WHERE said <= ?1",
	[SQL_SUSPECT] = "INSERT INTO suspect(user, device, app, registered_ms, first_ms, next_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
			" ON CONFLICT(user, device, app) DO UPDATE SET registered_ms = excluded.registered_ms, first_ms = excluded.first_ms,"
			" next_ms = excluded.next_ms",
	[SQL_FORGIVE] = "DELETE FROM suspect WHERE user = ?1 AND device = ?2 AND app = ?3",
	[SQL_ABSOLVE] = "DELETE FROM suspect",
	[SQL_FIND] = "SELECT device, app, reason, provider_id, state, attempts, flags, created_ms, due_ms, done_ms, row, into_row, key FROM job"
		     " WHERE row > (SELECT coalesce(max(row), 0) FROM job) - ?1 AND (?2 = '' OR user = ?2) AND (?3 = '' OR device = ?3)"
		     " AND (?4 = '' OR conv = ?4) AND (?5 = 0 OR seq = ?5) ORDER BY row DESC LIMIT ?6",
	[SQL_PURGE_OLD] = "DELETE FROM job WHERE row IN (SELECT row FROM job WHERE done_ms > 0 AND done_ms < ?1 ORDER BY done_ms LIMIT ?2)",
	[SQL_PURGE_MANY] = "DELETE FROM job WHERE row IN (SELECT row FROM job WHERE done_ms > 0 ORDER BY done_ms LIMIT ?1)",
};

struct outbox_db {
	sqlite3 *handle;
	sqlite3_stmt *statements[SQL_COUNT];
	int code; /* of the last failure */
};

/* ---- statements */

static sqlite3_stmt *get(struct outbox_db *db, int which)
{
	sqlite3_stmt **s = &db->statements[which];

	if (*s)
		(void)sqlite3_reset(*s); /* repeats the last step's error, which its caller has seen */
	else
		db->code = sqlite3_prepare_v3(db->handle, sql[which], -1, SQLITE_PREPARE_PERSISTENT, s, NULL);
	return *s; /* NULL: stepping it says SQLITE_MISUSE */
}

static void text(sqlite3_stmt *s, int at, const char *value)
{
	(void)sqlite3_bind_text(s, at, value, -1, SQLITE_STATIC); /* a failure leaves NULL, which the table refuses */
}

static void number(sqlite3_stmt *s, int at, int64_t value)
{
	(void)sqlite3_bind_int64(s, at, value); /* a failure leaves NULL, which the table refuses */
}

static bool step(struct outbox_db *db, sqlite3_stmt *s)
{
	int rc = s ? sqlite3_step(s) : SQLITE_MISUSE;

	if (s)
		(void)sqlite3_reset(s); /* rc has the error */
	if (rc != SQLITE_DONE && s)
		db->code = sqlite3_extended_errcode(db->handle);
	return rc == SQLITE_DONE;
}

const char *outbox_db_error(const struct outbox_db *db)
{
	return db->handle ? sqlite3_errmsg(db->handle) : "out of memory";
}

enum outbox_trouble outbox_db_trouble(const struct outbox_db *db)
{
	switch (db->code & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return OUTBOX_DAMAGED;
	default:
		return OUTBOX_LATER;
	}
}

bool outbox_db_begin(struct outbox_db *db)
{
	return step(db, get(db, SQL_BEGIN));
}

bool outbox_db_commit(struct outbox_db *db)
{
	bool ok;

	IM_KILLPOINT("push.before_commit");
	ok = step(db, get(db, SQL_COMMIT));
	IM_KILLPOINT("push.after_commit");
	return ok;
}

void outbox_db_rollback(struct outbox_db *db)
{
	int code = db->code;

	if (!sqlite3_get_autocommit(db->handle)) /* it may have happened by itself */
		(void)step(db, get(db, SQL_ROLLBACK));
	db->code = code;
}

/* ---- operations */

static int flags_of(const struct push_life *l)
{
	return l->maybe_dup | l->minimal << 1 | l->other_env << 2 | l->auth_tried << 3;
}

static struct push_life life_of(unsigned attempts, unsigned recovered, int flags)
{
	return (struct push_life){.attempts = attempts, .recovered = recovered, .maybe_dup = flags & 1, .minimal = flags & 2,
				  .other_env = flags & 4, .auth_tried = flags & 8};
}

static bool insert(struct outbox_db *db, struct push_job *j)
{
	sqlite3_stmt *s = get(db, SQL_INSERT);

	if (!s)
		return false;
	text(s, 1, j->key);
	text(s, 2, j->user);
	text(s, 3, j->device);
	text(s, 4, j->app);
	text(s, 5, j->conv);
	number(s, 6, j->kind);
	number(s, 7, j->mention);
	number(s, 8, (int64_t)j->seq);
	number(s, 9, j->created_ms);
	number(s, 10, j->not_before_ms);
	number(s, 11, j->deadline_ms);
	if (!step(db, s))
		return false;
	j->row = sqlite3_changes(db->handle) ? (uint64_t)sqlite3_last_insert_rowid(db->handle) : 0;
	return true;
}

static bool insert_all(struct outbox_db *db, struct outbox_op *op)
{
	for (size_t i = 0; i < op->n; i++)
		if (!insert(db, op->jobs[i]))
			return false;
	return true;
}

static bool add_verdict(struct outbox_db *db, struct outbox_op *op)
{
	sqlite3_stmt *s = get(db, SQL_VERDICT);

	if (!s)
		return false;
	(void)sqlite3_bind_blob(s, 1, op->verdict, (int)op->verdict_len, SQLITE_STATIC); /* a failure leaves NULL, which the table refuses */
	if (!step(db, s))
		return false;
	op->number = (uint64_t)sqlite3_last_insert_rowid(db->handle);
	return true;
}

static bool note_into(struct outbox_db *db, const struct outbox_op *op)
{
	sqlite3_stmt *s = get(db, SQL_INTO);

	if (!s)
		return false;
	number(s, 1, (int64_t)op->into);
	number(s, 2, (int64_t)op->into_since);
	return step(db, s);
}

static bool set_state(struct outbox_db *db, struct outbox_op *op)
{
	sqlite3_stmt *s = get(db, SQL_STATE);

	if (!s)
		return false;
	number(s, 1, (int64_t)op->job->row);
	number(s, 2, op->state);
	number(s, 3, op->due_ms);
	number(s, 4, op->done_ms);
	number(s, 5, op->life.attempts);
	number(s, 6, flags_of(&op->life));
	number(s, 7, (int64_t)op->into);
	text(s, 8, op->reason);
	text(s, 9, op->provider_id);
	return step(db, s) && (!op->into || note_into(db, op)) && (!op->verdict || add_verdict(db, op));
}

static bool heard(struct outbox_db *db, const struct outbox_op *op)
{
	sqlite3_stmt *s = get(db, SQL_HEARD);

	if (!s)
		return false;
	number(s, 1, (int64_t)op->number);
	return step(db, s);
}

static bool suspect(struct outbox_db *db, const struct outbox_op *op)
{
	const struct outbox_token *t = &op->token;
	sqlite3_stmt *s = get(db, t->first_ms ? SQL_SUSPECT : SQL_FORGIVE);

	if (!s)
		return false;
	text(s, 1, t->user);
	text(s, 2, t->device);
	text(s, 3, t->app);
	if (t->first_ms) {
		number(s, 4, t->registered_ms);
		number(s, 5, t->first_ms);
		number(s, 6, t->next_ms);
	}
	return step(db, s);
}

static void copy_text(char *to, size_t room, sqlite3_stmt *s, int column)
{
	const char *from = (const char *)sqlite3_column_text(s, column);
	size_t len = from ? strnlen(from, room - 1) : 0;

	if (len)
		memcpy(to, from, len);
	to[len] = '\0';
}

static void read_found(sqlite3_stmt *s, struct outbox_found *f)
{
	copy_text(f->device, sizeof(f->device), s, 0);
	copy_text(f->app, sizeof(f->app), s, 1);
	copy_text(f->reason, sizeof(f->reason), s, 2);
	copy_text(f->provider_id, sizeof(f->provider_id), s, 3);
	f->state = (enum push_state)sqlite3_column_int(s, 4);
	f->life = life_of((unsigned)sqlite3_column_int(s, 5), 0, sqlite3_column_int(s, 6));
	f->created_ms = sqlite3_column_int64(s, 7);
	f->due_ms = sqlite3_column_int64(s, 8);
	f->done_ms = sqlite3_column_int64(s, 9);
	f->row = (uint64_t)sqlite3_column_int64(s, 10);
	f->into = (uint64_t)sqlite3_column_int64(s, 11);
	copy_text(f->key, sizeof(f->key), s, 12);
}

static bool find(struct outbox_db *db, struct outbox_op *op)
{
	const struct outbox_question *q = op->question;
	sqlite3_stmt *s = get(db, SQL_FIND);
	int rc = SQLITE_MISUSE;

	op->n_found = 0;
	if (!op->found)
		op->found = calloc(OUTBOX_SHOWN, sizeof(*op->found));
	if (!s || !op->found)
		return false;
	number(s, 1, FIND_DEPTH);
	text(s, 2, q->user);
	text(s, 3, q->device);
	text(s, 4, q->conv);
	number(s, 5, (int64_t)q->seq);
	number(s, 6, OUTBOX_SHOWN);
	while ((rc = sqlite3_step(s)) == SQLITE_ROW && op->n_found < OUTBOX_SHOWN)
		read_found(s, &op->found[op->n_found++]);
	if (rc != SQLITE_DONE)
		db->code = sqlite3_extended_errcode(db->handle);
	(void)sqlite3_reset(s); /* rc has the error */
	return rc == SQLITE_DONE;
}

bool outbox_db_run(struct outbox_db *db, struct outbox_op *op)
{
	switch (op->kind) {
	case OUTBOX_INSERT:
		return insert_all(db, op);
	case OUTBOX_STATE:
		return set_state(db, op);
	case OUTBOX_HEARD:
		return heard(db, op);
	case OUTBOX_SUSPECT:
		return suspect(db, op);
	case OUTBOX_ABSOLVE:
		return step(db, get(db, SQL_ABSOLVE));
	case OUTBOX_FIND:
		return find(db, op);
	}
	return false;
}

static bool purge_with(struct outbox_db *db, int which, int64_t limit_ms, int n, uint64_t *finals)
{
	sqlite3_stmt *s = get(db, which);

	if (!s)
		return false;
	number(s, 1, which == SQL_PURGE_OLD ? limit_ms : n);
	if (which == SQL_PURGE_OLD)
		number(s, 2, n);
	if (!step(db, s))
		return false;
	*finals -= (uint64_t)sqlite3_changes(db->handle);
	return true;
}

bool outbox_db_purge(struct outbox_db *db, int64_t before_ms, uint64_t most, uint64_t *finals)
{
	uint64_t more = *finals > most ? *finals - most : 0;

	if (!purge_with(db, SQL_PURGE_OLD, before_ms, PURGE_AT_ONCE, finals))
		return false;
	return !more || purge_with(db, SQL_PURGE_MANY, 0, more < PURGE_AT_ONCE ? (int)more : PURGE_AT_ONCE, finals);
}

/* ---- opening */

static enum im_status fail(struct outbox_db *db, const char *path, struct im_err *err)
{
	int code = db->handle ? sqlite3_extended_errcode(db->handle) : SQLITE_NOMEM;

	db->code = code;
	return im_fail(err, outbox_db_trouble(db) == OUTBOX_DAMAGED ? IM_EXISTS : IM_FAILED, "outbox %.150s: %s", path, outbox_db_error(db));
}

/* quick_check reads every page, so that damage is met here and not in the middle of a night. */
static enum im_status check(struct outbox_db *db, const char *path, struct im_err *err)
{
	sqlite3_stmt *s = NULL;
	enum im_status st = IM_OK;

	if (sqlite3_prepare_v2(db->handle, "PRAGMA quick_check(1)", -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
		st = fail(db, path, err);
	else if (strcmp((const char *)sqlite3_column_text(s, 0), "ok") != 0)
		st = im_fail(err, IM_EXISTS, "outbox %.150s: %.80s", path, (const char *)sqlite3_column_text(s, 0));
	(void)sqlite3_finalize(s); /* st has the error */
	return st;
}

static enum im_status set_up(struct outbox_db *db, const char *path, struct im_err *err)
{
	enum im_status st;

	(void)sqlite3_busy_timeout(db->handle, LOCK_WAIT_MS); /* cannot fail */
	if (sqlite3_exec(db->handle, sql_setup, NULL, NULL, NULL) != SQLITE_OK)
		return fail(db, path, err);
	st = check(db, path, err);
	if (st == IM_OK)
		st = im_schema_open(db->handle, path, &outbox_schema, err);
	return st;
}

enum im_status outbox_db_open(const char *path, struct outbox_db **out, struct im_err *err)
{
	struct outbox_db *db = calloc(1, sizeof(*db));
	enum im_status st;

	if (!db)
		return im_fail(err, IM_FAILED, "out of memory");
	if (sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		st = fail(db, path, err);
	else
		st = set_up(db, path, err);
	if (st != IM_OK) {
		outbox_db_close(db);
		return st;
	}
	*out = db;
	return IM_OK;
}

void outbox_db_close(struct outbox_db *db)
{
	if (!db)
		return;
	for (int i = 0; i < SQL_COUNT; i++)
		(void)sqlite3_finalize(db->statements[i]); /* errors were seen when they were stepped */
	(void)sqlite3_close_v2(db->handle); /* no statement is left, so nothing can keep it open */
	free(db);
}

/* ---- what was in it */

/* The array with room for one more, grown by doubling. NULL: out of memory. */
static void *room_for_one(void *array, size_t n, size_t size)
{
	if (n & (n - 1) || (n && n < 16))
		return array;
	return reallocarray(array, n ? 2 * n : 16, size);
}

static const char *column(sqlite3_stmt *s, int at)
{
	const char *t = (const char *)sqlite3_column_text(s, at);

	return t ? t : "";
}

static struct push_job *read_job(sqlite3_stmt *s)
{
	Im__Push__Job m = IM__PUSH__JOB__INIT;
	struct push_job *j;

	m.key = (char *)column(s, 1); /* only read */
	m.user = (char *)column(s, 2);
	m.device = (char *)column(s, 3);
	m.app = (char *)column(s, 4);
	m.conv = (char *)column(s, 5);
	m.kind = (Im__Push__Kind)sqlite3_column_int(s, 6);
	m.mention = sqlite3_column_int(s, 7);
	m.seq = (uint64_t)sqlite3_column_int64(s, 8);
	m.created_ms = sqlite3_column_int64(s, 10);
	m.not_before_ms = sqlite3_column_int64(s, 11);
	m.deadline_ms = sqlite3_column_int64(s, 12);
	j = push_job_create(&m, 0);
	if (!j)
		return NULL;
	j->row = (uint64_t)sqlite3_column_int64(s, 0);
	j->since_seq = (uint64_t)sqlite3_column_int64(s, 9);
	j->state = (enum push_state)sqlite3_column_int(s, 13);
	j->due_ms = sqlite3_column_int64(s, 14);
	j->life = life_of((unsigned)sqlite3_column_int(s, 15), (unsigned)sqlite3_column_int(s, 16), sqlite3_column_int(s, 17));
	return j;
}

static bool keep_job(struct outbox_start *out, sqlite3_stmt *s)
{
	struct push_job **more = room_for_one(out->jobs, out->n_jobs, sizeof(struct push_job *));

	if (!more)
		return false;
	out->jobs = more;
	out->jobs[out->n_jobs] = read_job(s);
	return out->jobs[out->n_jobs] && ++out->n_jobs;
}

static bool keep_verdict(struct outbox_start *out, sqlite3_stmt *s)
{
	struct outbox_verdict *more = room_for_one(out->verdicts, out->n_verdicts, sizeof(*more)), *v;

	if (!more)
		return false;
	out->verdicts = more;
	v = &more[out->n_verdicts];
	v->said = (uint64_t)sqlite3_column_int64(s, 0);
	v->len = (size_t)sqlite3_column_bytes(s, 1);
	v->data = malloc(v->len + 1);
	if (!v->data)
		return false;
	if (v->len)
		memcpy(v->data, sqlite3_column_blob(s, 1), v->len);
	out->n_verdicts++;
	return true;
}

static bool keep_suspect(struct outbox_start *out, sqlite3_stmt *s)
{
	struct outbox_token *more = room_for_one(out->suspects, out->n_suspects, sizeof(*more)), *t;

	if (!more)
		return false;
	out->suspects = more;
	t = &more[out->n_suspects++];
	*t = (struct outbox_token){.user = strdup(column(s, 0)), .device = strdup(column(s, 1)), .app = strdup(column(s, 2)),
				   .registered_ms = sqlite3_column_int64(s, 3), .first_ms = sqlite3_column_int64(s, 4),
				   .next_ms = sqlite3_column_int64(s, 5)};
	return t->user && t->device && t->app;
}

static bool keep_count(struct outbox_start *out, sqlite3_stmt *s)
{
	out->finals = (uint64_t)sqlite3_column_int64(s, 0);
	return true;
}

static bool read_rows(struct outbox_db *db, const char *select, bool (*keep)(struct outbox_start *out, sqlite3_stmt *s), struct outbox_start *out)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db->handle, select, -1, &s, NULL);

	while (rc == SQLITE_OK || rc == SQLITE_ROW) {
		rc = sqlite3_step(s);
		if (rc == SQLITE_ROW && !keep(out, s))
			rc = SQLITE_NOMEM;
	}
	(void)sqlite3_finalize(s); /* rc has the error */
	return rc == SQLITE_DONE;
}

enum im_status outbox_db_load(struct outbox_db *db, struct outbox_start *out, struct im_err *err)
{
	if (sqlite3_exec(db->handle, sql_recover, NULL, NULL, NULL) != SQLITE_OK)
		return fail(db, "recovery", err);
	out->recovered = (size_t)sqlite3_changes(db->handle);
	if (read_rows(db, sql_open_jobs, keep_job, out) && read_rows(db, sql_verdicts, keep_verdict, out) &&
	    read_rows(db, sql_suspects, keep_suspect, out) && read_rows(db, sql_finals, keep_count, out))
		return IM_OK;
	return fail(db, "recovery", err);
}

void outbox_start_free(struct outbox_start *s)
{
	free(s->jobs);
	free(s->verdicts);
	free(s->suspects);
}
