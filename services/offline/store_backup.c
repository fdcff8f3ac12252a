/*
 * Rows and the position they hold are committed together, so one read transaction sees a state the store was in: a
 * consistent prefix of all appends, with the high-water marks that belong to it. The log is not needed for it. While the
 * transaction is open SQLite's write-ahead log cannot be reused and grows; nothing waits for it.
 */
#include "store_backup.h"

#include "base/clock.h"
#include "schema/schema.h"

#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CATCH_UP_MS 60000 /* for the rows to hold what the log does; usually a fraction of a second */
#define POLL_MS 20
#define TABLES_MAX 64
#define TABLE_NAME 40u /* bytes of a table's name with its NUL: "store." fits before it */

struct dump {
	const struct store_dump *d;
	struct backup_writer *w;
	sqlite3 *db;
	struct im_err *err;
};

static enum im_status fail(const struct dump *x)
{
	return im_fail(x->err, IM_FAILED, "cannot read %.150s: %s", x->d->db_path, x->db ? sqlite3_errmsg(x->db) : "out of memory");
}

static bool run(const struct dump *x, const char *sql)
{
	return sqlite3_exec(x->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* One value of the first row; false: none, or not of that length. */
static bool meta(const struct dump *x, const char *key, void *out, size_t len)
{
	sqlite3_stmt *s = NULL;
	bool ok = sqlite3_prepare_v2(x->db, "SELECT value FROM meta WHERE key = ?1", -1, &s, NULL) == SQLITE_OK &&
		  sqlite3_bind_text(s, 1, key, -1, SQLITE_STATIC) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW &&
		  (size_t)sqlite3_column_bytes(s, 0) == len;

	if (ok)
		memcpy(out, sqlite3_column_blob(s, 0), len);
	(void)sqlite3_finalize(s); /* ok has said it */
	return ok;
}

/* Leaves the read transaction open in which everything is read. */
static enum im_status begin_at(const struct dump *x)
{
	const struct timespec pause = { 0, POLL_MS * 1000000L };
	int64_t deadline = im_clock_mono_ms() + CATCH_UP_MS;

	for (;;) {
		uint64_t applied = 0;

		if (!run(x, "BEGIN"))
			return fail(x);
		(void)meta(x, "applied", &applied, sizeof(applied)); /* a new store has none: 0 */
		if (applied >= x->d->position)
			return IM_OK;
		if (!run(x, "COMMIT"))
			return fail(x);
		if (atomic_load(x->d->stop))
			return im_fail(x->err, IM_BUSY, "the message service is ending");
		if (im_clock_mono_ms() > deadline)
			return im_fail(x->err, IM_BUSY, "the database does not catch up with the message log; the log of im-offline says why");
		nanosleep(&pause, NULL);
	}
}

static enum im_status write_header(const struct dump *x)
{
	char epoch[33] = "", *text;
	uint8_t bytes[16];
	enum im_status st;

	if (!meta(x, "epoch", bytes, sizeof(bytes)))
		return im_fail(x->err, IM_FAILED, "%.200s has no epoch", x->d->db_path);
	sodium_bin2hex(epoch, sizeof(epoch), bytes, sizeof(bytes));
	if (asprintf(&text, "%sstore_epoch=%s\nstore_schema=%d\n", x->d->header, epoch, im_schema_version(x->db)) < 0)
		return im_fail(x->err, IM_FAILED, "out of memory");
	st = backup_header(x->w, text, x->err);
	free(text);
	return st;
}

static void count_messages(const struct dump *x)
{
	sqlite3_stmt *s = NULL;

	if (sqlite3_prepare_v2(x->db, "SELECT max(row) FROM message", -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
		atomic_store(x->d->messages, (uint64_t)sqlite3_column_int64(s, 0));
	(void)sqlite3_finalize(s); /* only for showing progress */
}

/* ---- tables */

static bool take_value(sqlite3_stmt *s, int at, struct backup_value *v)
{
	memset(v, 0, sizeof(*v));
	switch (sqlite3_column_type(s, at)) {
	case SQLITE_NULL:
		return true;
	case SQLITE_INTEGER:
		v->type = BACKUP_INT;
		v->integer = sqlite3_column_int64(s, at);
		return true;
	case SQLITE_TEXT:
		v->type = BACKUP_TEXT;
		v->data = sqlite3_column_text(s, at);
		break;
	case SQLITE_BLOB:
		v->type = BACKUP_BLOB;
		v->data = sqlite3_column_blob(s, at);
		break;
	default:
		return false; /* there are no others in our tables */
	}
	v->len = (size_t)sqlite3_column_bytes(s, at);
	return v->data || v->len == 0;
}

static enum im_status write_rows(const struct dump *x, sqlite3_stmt *s, int columns)
{
	struct backup_value values[BACKUP_COLUMNS_MAX];
	enum im_status st = IM_OK;
	int rc;

	while ((rc = sqlite3_step(s)) == SQLITE_ROW && st == IM_OK) {
		for (int i = 0; i < columns; i++)
			if (!take_value(s, i, &values[i]))
				return fail(x);
		st = backup_row(x->w, values, x->err);
		if (st == IM_OK && atomic_load(x->d->stop))
			st = im_fail(x->err, IM_BUSY, "the message service is ending");
	}
	if (st != IM_OK)
		return st;
	return rc == SQLITE_DONE ? backup_part_end(x->w, x->err) : fail(x);
}

static enum im_status write_table(const struct dump *x, const char table[TABLE_NAME])
{
	const char *columns[BACKUP_COLUMNS_MAX];
	char sql[128], part[BACKUP_NAME_MAX];
	sqlite3_stmt *s = NULL;
	enum im_status st;
	int n;

	(void)snprintf(sql, sizeof(sql), "SELECT * FROM \"%.39s\"", table);
	(void)snprintf(part, sizeof(part), "store.%.39s", table);
	if (sqlite3_prepare_v2(x->db, sql, -1, &s, NULL) != SQLITE_OK || (n = sqlite3_column_count(s)) > (int)BACKUP_COLUMNS_MAX) {
		(void)sqlite3_finalize(s); /* told below */
		return fail(x);
	}
	for (int i = 0; i < n; i++)
		columns[i] = sqlite3_column_name(s, i);
	st = backup_part(x->w, part, columns, (size_t)n, x->err);
	if (st == IM_OK)
		st = write_rows(x, s, n);
	(void)sqlite3_finalize(s); /* errors were seen when it was stepped */
	return st;
}

static enum im_status write_tables(const struct dump *x)
{
	char names[TABLES_MAX][TABLE_NAME];
	sqlite3_stmt *s = NULL;
	size_t n = 0;
	int rc = SQLITE_ERROR;
	enum im_status st = IM_OK;

	if (sqlite3_prepare_v2(x->db, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'", -1,
			       &s, NULL) == SQLITE_OK)
		while ((rc = sqlite3_step(s)) == SQLITE_ROW && n < TABLES_MAX)
			(void)snprintf(names[n++], sizeof(names[0]), "%s", (const char *)sqlite3_column_text(s, 0));
	(void)sqlite3_finalize(s); /* rc has the error */
	if (rc != SQLITE_DONE)
		return fail(x);
	for (size_t i = 0; i < n && st == IM_OK; i++)
		st = write_table(x, names[i]);
	return st;
}

enum im_status store_dump(const struct store_dump *d, struct backup_writer *w, struct im_err *err)
{
	struct dump x = { .d = d, .w = w, .err = err };
	enum im_status st;

	if (sqlite3_open_v2(d->db_path, &x.db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
	    sqlite3_busy_timeout(x.db, 5000) != SQLITE_OK)
		st = fail(&x);
	else
		st = begin_at(&x);
	if (st == IM_OK)
		st = write_header(&x);
	if (st == IM_OK) {
		count_messages(&x);
		st = write_tables(&x);
	}
	(void)sqlite3_close(x.db); /* nothing is left open in it */
	return st;
}
