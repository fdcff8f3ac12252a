/*
 * Sequences in SQLite: one row per section, one synced transaction per request.
 *
 * The file is locked for as long as it is open: two generators on one database would each believe to know
 * the last epoch. The lock dies with the process, so a killed one does not stand in its successor's way.
 */
#include "schema/schema.h"
#include "seq.h"

#include "base/killpoint.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_WAIT_MS 5000 /* a predecessor that is just ending */

static const char sql_setup[] = "PRAGMA locking_mode=EXCLUSIVE;"
				"PRAGMA journal_mode=WAL;"
				"PRAGMA synchronous=FULL;"
				"BEGIN EXCLUSIVE; COMMIT;"; /* the lock stays */
static const char *const schema_steps[] = {"CREATE TABLE section("
					   " section INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, ceiling INTEGER NOT NULL,"
					   " floor INTEGER NOT NULL, complete INTEGER NOT NULL, owner TEXT NOT NULL);"};
static const struct im_schema schema = {schema_steps, sizeof(schema_steps) / sizeof(schema_steps[0])};
static const char sql_load[] = "SELECT section, epoch, ceiling, floor, complete, owner FROM section";
static const char sql_save[] = "INSERT INTO section(section, epoch, ceiling, floor, complete, owner) VALUES(?,?,?,?,?,?)"
			       " ON CONFLICT(section) DO UPDATE SET epoch=excluded.epoch, ceiling=excluded.ceiling,"
			       " floor=excluded.floor, complete=excluded.complete, owner=excluded.owner";

struct sqlite {
	sqlite3 *db;
	sqlite3_stmt *save;
	char *path;
};

static enum im_status fail(const struct sqlite *s, const char *what, struct im_err *err)
{
	return im_fail(err, IM_FAILED, "%s: %s: %s", s->path, what, s->db ? sqlite3_errmsg(s->db) : "out of memory");
}

static bool run(struct sqlite *s, const char *sql)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static void sqlite_close(void *db)
{
	struct sqlite *s = db;

	if (!s)
		return;
	(void)sqlite3_finalize(s->save); /* repeats an error told before */
	(void)sqlite3_close(s->db);      /* all that was answered is durable already */
	free(s->path);
	free(s);
}

/* Leaves the schema committed and the lock held. */
static enum im_status set_up(struct sqlite *s, struct im_err *err)
{
	enum im_status st;

	(void)sqlite3_busy_timeout(s->db, LOCK_WAIT_MS); /* cannot fail */
	if (!run(s, sql_setup))
		return fail(s, "cannot be opened and locked", err);
	st = im_schema_open(s->db, s->path, &schema, err);
	if (st != IM_OK)
		return st;
	if (sqlite3_prepare_v2(s->db, sql_save, -1, &s->save, NULL) != SQLITE_OK)
		return fail(s, "prepare", err);
	return IM_OK;
}

static enum im_status sqlite_open(const char *path, void **out, struct im_err *err)
{
	struct sqlite *s = calloc(1, sizeof(*s));
	enum im_status st;

	if (!s)
		return im_fail(err, IM_FAILED, "out of memory");
	s->path = strdup(path);
	if (!s->path)
		st = im_fail(err, IM_FAILED, "out of memory");
	else if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		st = fail(s, "cannot be opened", err);
	else
		st = set_up(s, err);
	if (st != IM_OK) {
		sqlite_close(s);
		return st;
	}
	*out = s;
	return IM_OK;
}

/* false: not a row of ours. */
static bool read_row(sqlite3_stmt *st, struct seq_section *sections)
{
	sqlite3_int64 section = sqlite3_column_int64(st, 0);
	const char *owner = (const char *)sqlite3_column_text(st, 5);
	struct seq_section *s;

	if (section < 0 || section >= IM_SECTIONS || !owner || strlen(owner) > SEQ_OWNER_MAX)
		return false;
	s = &sections[section];
	s->epoch = (uint64_t)sqlite3_column_int64(st, 1); /* a negative one is out of range above */
	s->ceiling = (uint64_t)sqlite3_column_int64(st, 2);
	s->floor = (uint64_t)sqlite3_column_int64(st, 3);
	s->complete = sqlite3_column_int(st, 4) != 0;
	(void)strcpy(s->owner, owner); /* its length was checked */
	return true;
}

static enum im_status sqlite_load(void *db, struct seq_section *sections, struct im_err *err)
{
	struct sqlite *s = db;
	sqlite3_stmt *st;
	int rc;

	if (sqlite3_prepare_v2(s->db, sql_load, -1, &st, NULL) != SQLITE_OK)
		return fail(s, "cannot be read", err);
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		if (!read_row(st, sections)) {
			(void)sqlite3_finalize(st); /* the damage is the news */
			return im_fail(err, IM_FAILED, "%s: a row that is not ours", s->path);
		}
	}
	(void)sqlite3_finalize(st); /* rc tells */
	return rc == SQLITE_DONE ? IM_OK : fail(s, "cannot be read", err);
}

static bool save_row(sqlite3_stmt *st, const struct seq_row *row)
{
	const struct seq_section *s = &row->state;
	bool ok = sqlite3_bind_int64(st, 1, row->section) == SQLITE_OK && sqlite3_bind_int64(st, 2, (sqlite3_int64)s->epoch) == SQLITE_OK &&
		  sqlite3_bind_int64(st, 3, (sqlite3_int64)s->ceiling) == SQLITE_OK &&
		  sqlite3_bind_int64(st, 4, (sqlite3_int64)s->floor) == SQLITE_OK && sqlite3_bind_int(st, 5, s->complete) == SQLITE_OK &&
		  sqlite3_bind_text(st, 6, s->owner, -1, SQLITE_STATIC) == SQLITE_OK && sqlite3_step(st) == SQLITE_DONE;

	return sqlite3_reset(st) == SQLITE_OK && ok;
}

static enum im_status sqlite_save(void *db, const struct seq_row *rows, size_t n, struct im_err *err)
{
	struct sqlite *s = db;
	enum im_status st;
	bool ok;

	if (!run(s, "BEGIN"))
		return fail(s, "cannot be written", err);
	ok = true;
	for (size_t i = 0; ok && i < n; i++)
		ok = save_row(s->save, &rows[i]);
	IM_KILLPOINT("seqgen.before_commit");
	if (ok && run(s, "COMMIT"))
		return IM_OK;
	st = fail(s, "cannot be written", err);
	(void)run(s, "ROLLBACK"); /* may have happened by itself */
	return st;
}

const struct seq_driver seq_sqlite = {
	.name = "sqlite",
	.open = sqlite_open,
	.load = sqlite_load,
	.save = sqlite_save,
	.close = sqlite_close,
};
