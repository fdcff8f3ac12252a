/*
 * Filling a store from a backup (store_restore.h). Rows go in unsynced and without indexes, which are made at the end,
 * sorted: nothing of it counts before the folder gets its place. SQL of our own only: a backup brings names, which
 * must be those of the schema, and values.
 */
#include "store_restore.h"

#include "schema/schema.h"
#include "store_db.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SQL_MAX 512       /* an INSERT of the widest table */
#define INDEXES_MAX 16
#define CACHE "PRAGMA cache_size=-65536" /* KiB: sorting the indexes */

struct store_restore {
	char *folder, *path;
	sqlite3 *db;
	sqlite3_stmt *insert;
	size_t columns;
	char *indexes[INDEXES_MAX]; /* their SQL, dropped meanwhile */
	size_t n_indexes;
};

static enum im_status fail(const struct store_restore *r, struct im_err *err)
{
	return im_fail(err, IM_FAILED, "cannot write %.150s: %s", r->path, r->db ? sqlite3_errmsg(r->db) : "out of memory");
}

static bool run(const struct store_restore *r, const char *sql)
{
	return sqlite3_exec(r->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static enum im_status sync_path(const char *path, int flags, struct im_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
	enum im_status st = IM_OK;

	if (fd < 0 || fsync(fd) != 0)
		st = im_fail(err, IM_FAILED, "cannot sync %.200s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return st;
}

enum im_status store_restore_check(const char *store, struct im_err *err)
{
	char path[4096];

	if ((size_t)snprintf(path, sizeof(path), "%s" STORE_RESTORING, store) >= sizeof(path) || access(store, F_OK) == 0 || access(path, F_OK) != 0)
		return IM_OK;
	return im_fail(err, IM_FAILED, "a restore into %.150s was begun and not ended: run `imctl restore` again", store);
}

/* ---- beginning */

static enum im_status make_folder(const char *folder, struct im_err *err)
{
	char path[4096];
	int fd;

	if ((size_t)snprintf(path, sizeof(path), "%s/log", folder) >= sizeof(path))
		return im_fail(err, IM_BAD_INPUT, "%.200s: the name is too long", folder);
	if (mkdir(folder, 0700) != 0 || mkdir(path, 0700) != 0)
		return im_fail(err, IM_FAILED, "cannot make %.200s: %s", path, strerror(errno));
	(void)snprintf(path, sizeof(path), "%s/" STORE_UNFINISHED, folder);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return im_fail(err, IM_FAILED, "cannot write %.200s: %s", path, strerror(errno));
	close(fd);
	return sync_path(folder, O_DIRECTORY, err);
}

/* Takes the indexes away for as long as rows come. */
static bool put_indexes_off(struct store_restore *r)
{
	sqlite3_stmt *s = NULL;
	char names[INDEXES_MAX][64], sql[128];
	bool ok = sqlite3_prepare_v2(r->db, "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL", -1, &s, NULL) == SQLITE_OK;

	while (ok && sqlite3_step(s) == SQLITE_ROW) {
		ok = r->n_indexes < INDEXES_MAX && (r->indexes[r->n_indexes] = strdup((const char *)sqlite3_column_text(s, 1)));
		if (ok)
			(void)snprintf(names[r->n_indexes++], sizeof(names[0]), "%s", (const char *)sqlite3_column_text(s, 0));
	}
	(void)sqlite3_finalize(s); /* ok has said it */
	for (size_t i = 0; i < r->n_indexes && ok; i++) {
		(void)snprintf(sql, sizeof(sql), "DROP INDEX \"%s\"", names[i]);
		ok = run(r, sql);
	}
	return ok;
}

enum im_status store_restore_begin(const char *folder, int schema, struct store_restore **out, struct im_err *err)
{
	struct store_restore *r;
	enum im_status st;

	if (schema < 1 || schema > store_db_schema.version)
		return im_fail(err, IM_BAD_INPUT, "the backup's store has schema %d, made by a newer release; this one knows %d", schema,
			       store_db_schema.version);
	r = calloc(1, sizeof(*r));
	if (!r)
		return im_fail(err, IM_FAILED, "out of memory");
	r->folder = strdup(folder);
	if (!r->folder || asprintf(&r->path, "%s/store.db", folder) < 0) {
		r->path = NULL;
		st = im_fail(err, IM_FAILED, "out of memory");
	} else {
		st = make_folder(folder, err);
	}
	if (st == IM_OK && sqlite3_open_v2(r->path, &r->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		st = fail(r, err);
	if (st == IM_OK && (!run(r, "PRAGMA journal_mode=OFF") || !run(r, "PRAGMA synchronous=OFF") || !run(r, CACHE)))
		st = fail(r, err);
	if (st == IM_OK)
		st = im_schema_create(r->db, r->path, &store_db_schema, schema, err);
	if (st == IM_OK && (!put_indexes_off(r) || !run(r, "CREATE TEMP TABLE came(name TEXT)")))
		st = fail(r, err);
	if (st != IM_OK) {
		store_restore_close(r);
		return st;
	}
	*out = r;
	return IM_OK;
}

void store_restore_close(struct store_restore *r)
{
	if (!r)
		return;
	(void)sqlite3_finalize(r->insert); /* errors were seen when it was stepped */
	(void)sqlite3_close(r->db);        /* what had to be written was synced */
	for (size_t i = 0; i < r->n_indexes; i++)
		free(r->indexes[i]);
	free(r->folder);
	free(r->path);
	free(r);
}

/* ---- rows */

static bool is_name(const char *s)
{
	return s[0] != '\0' && strspn(s, "abcdefghijklmnopqrstuvwxyz_0123456789") == strlen(s);
}

/* The table has exactly these columns. */
static bool columns_fit(const struct store_restore *r, const char *table, const char *const *columns, size_t n)
{
	char sql[SQL_MAX];
	sqlite3_stmt *s = NULL;
	size_t i = 0;
	bool ok;

	(void)snprintf(sql, sizeof(sql), "PRAGMA table_info(\"%s\")", table);
	ok = is_name(table) && sqlite3_prepare_v2(r->db, sql, -1, &s, NULL) == SQLITE_OK;
	for (; ok && sqlite3_step(s) == SQLITE_ROW; i++)
		ok = i < n && strcmp((const char *)sqlite3_column_text(s, 1), columns[i]) == 0;
	(void)sqlite3_finalize(s); /* ok has said it */
	return ok && i == n;
}

static bool note_table(const struct store_restore *r, const char *table)
{
	sqlite3_stmt *s = NULL;
	bool ok = sqlite3_prepare_v2(r->db, "INSERT INTO came VALUES(?1)", -1, &s, NULL) == SQLITE_OK;

	ok = ok && sqlite3_bind_text(s, 1, table, -1, SQLITE_STATIC) == SQLITE_OK && sqlite3_step(s) == SQLITE_DONE;
	(void)sqlite3_finalize(s); /* ok has said it */
	return ok;
}

enum im_status store_restore_part(struct store_restore *r, const char *table, const char *const *columns, size_t n, struct im_err *err)
{
	char sql[SQL_MAX];
	int used;

	if (!columns_fit(r, table, columns, n))
		return im_fail(err, IM_BAD_INPUT, "the backup has a table %.40s that does not fit its schema", table);
	used = snprintf(sql, sizeof(sql), "INSERT INTO \"%s\" VALUES(?1", table);
	for (size_t i = 2; i <= n; i++)
		used += snprintf(sql + used, sizeof(sql) - (size_t)used, ",?%zu", i); /* a row of ours has seven columns at most, SQL_MAX holds 32 */
	(void)snprintf(sql + used, sizeof(sql) - (size_t)used, ")");
	r->columns = n;
	if (!note_table(r, table) || !run(r, "BEGIN") || sqlite3_prepare_v2(r->db, sql, -1, &r->insert, NULL) != SQLITE_OK)
		return fail(r, err);
	return IM_OK;
}

static bool bind(sqlite3_stmt *s, int at, const struct backup_value *v)
{
	switch (v->type) {
	case BACKUP_NULL:
		return sqlite3_bind_null(s, at) == SQLITE_OK;
	case BACKUP_INT:
		return sqlite3_bind_int64(s, at, v->integer) == SQLITE_OK;
	case BACKUP_TEXT:
		return sqlite3_bind_text64(s, at, v->len ? v->data : "", v->len, SQLITE_STATIC, SQLITE_UTF8) == SQLITE_OK;
	default:
		return (v->len ? sqlite3_bind_blob64(s, at, v->data, v->len, SQLITE_STATIC) : sqlite3_bind_zeroblob(s, at, 0)) == SQLITE_OK;
	}
}

enum im_status store_restore_row(struct store_restore *r, const struct backup_value *values, size_t n, struct im_err *err)
{
	bool ok = n == r->columns;

	for (size_t i = 0; i < n && ok; i++)
		ok = bind(r->insert, (int)i + 1, &values[i]);
	ok = ok && sqlite3_step(r->insert) == SQLITE_DONE;
	return sqlite3_reset(r->insert) == SQLITE_OK && ok ? IM_OK : fail(r, err);
}

enum im_status store_restore_part_end(struct store_restore *r, struct im_err *err)
{
	bool ok = sqlite3_finalize(r->insert) == SQLITE_OK;

	r->insert = NULL;
	return ok && run(r, "COMMIT") ? IM_OK : fail(r, err);
}

/* ---- ending */

static bool number(const struct store_restore *r, const char *sql, int64_t bound, uint64_t *out)
{
	sqlite3_stmt *s = NULL;
	bool ok = sqlite3_prepare_v2(r->db, sql, -1, &s, NULL) == SQLITE_OK &&
		  (sqlite3_bind_parameter_count(s) == 0 || sqlite3_bind_int64(s, 1, bound) == SQLITE_OK) && sqlite3_step(s) == SQLITE_ROW;

	if (ok)
		*out = (uint64_t)sqlite3_column_int64(s, 0);
	(void)sqlite3_finalize(s); /* ok has said it */
	return ok;
}

/* Where what is left of a journal begins behind the store's mark, what was between is lost: the mark moves there, or the service would wait for it. */
static bool raise_marks(const struct store_restore *r, unsigned node, const struct store_mark *marks, size_t n)
{
	sqlite3_stmt *s = NULL;
	bool ok = sqlite3_prepare_v2(r->db, "UPDATE high_water SET next = ?3 WHERE node = ?1 AND epoch = ?2 AND next < ?3", -1, &s, NULL) == SQLITE_OK;

	for (size_t i = 0; i < n && ok; i++) {
		ok = sqlite3_bind_int64(s, 1, node) == SQLITE_OK && sqlite3_bind_int64(s, 2, (int64_t)marks[i].epoch) == SQLITE_OK &&
		     sqlite3_bind_int64(s, 3, (int64_t)marks[i].offset) == SQLITE_OK && sqlite3_step(s) == SQLITE_DONE;
		ok = sqlite3_reset(s) == SQLITE_OK && ok;
	}
	return sqlite3_finalize(s) == SQLITE_OK && ok;
}

static bool new_epoch(const struct store_restore *r, struct store_restored *out)
{
	uint8_t epoch[16];
	sqlite3_stmt *s = NULL;
	bool ok;

	randombytes_buf(epoch, sizeof(epoch));
	sodium_bin2hex(out->epoch, sizeof(out->epoch), epoch, sizeof(epoch));
	ok = sqlite3_prepare_v2(r->db, "UPDATE meta SET value = ?1 WHERE key = 'epoch'", -1, &s, NULL) == SQLITE_OK &&
	     sqlite3_bind_blob(s, 1, epoch, sizeof(epoch), SQLITE_STATIC) == SQLITE_OK && sqlite3_step(s) == SQLITE_DONE &&
	     sqlite3_changes(r->db) == 1;
	return sqlite3_finalize(s) == SQLITE_OK && ok;
}

static enum im_status all_came(const struct store_restore *r, struct im_err *err)
{
	uint64_t missing = 1;

	if (!number(r, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
		       " AND name NOT IN (SELECT name FROM came)", 0, &missing))
		return fail(r, err);
	return missing == 0 ? IM_OK : im_fail(err, IM_BAD_INPUT, "the backup lacks %llu of the store's tables", (unsigned long long)missing);
}

static enum im_status sync_all(const struct store_restore *r, struct im_err *err)
{
	char path[4096];
	enum im_status st = sync_path(r->path, 0, err);

	(void)snprintf(path, sizeof(path), "%s/log", r->folder);
	if (st == IM_OK)
		st = sync_path(path, O_DIRECTORY, err);
	(void)snprintf(path, sizeof(path), "%s/" STORE_UNFINISHED, r->folder);
	if (st == IM_OK && unlink(path) != 0)
		st = im_fail(err, IM_FAILED, "cannot remove %.200s: %s", path, strerror(errno));
	return st == IM_OK ? sync_path(r->folder, O_DIRECTORY, err) : st;
}

enum im_status store_restore_finish(struct store_restore *r, unsigned node, const struct store_mark *marks, size_t n,
				    struct store_restored *out, struct im_err *err)
{
	enum im_status st = all_came(r, err);
	bool ok = true;

	if (st != IM_OK)
		return st;
	if (!new_epoch(r, out))
		return im_fail(err, IM_BAD_INPUT, "the backup's store has no epoch");
	ok = run(r, "DELETE FROM section") && raise_marks(r, node, marks, n);
	for (size_t i = 0; i < r->n_indexes && ok; i++)
		ok = run(r, r->indexes[i]);
	ok = ok && number(r, "SELECT count(*) FROM message", 0, &out->messages) &&
	     number(r, "SELECT coalesce(max(seq), 0) FROM message", 0, &out->newest_seq) &&
	     number(r, "SELECT coalesce(max(epoch), 0) FROM high_water WHERE node = ?1", node, &out->newest_journal);
	if (!ok || sqlite3_close(r->db) != SQLITE_OK)
		return fail(r, err);
	r->db = NULL;
	return sync_all(r, err);
}
