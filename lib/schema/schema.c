#include "schema/schema.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum im_status fail(sqlite3 *db, const char *path, const char *what, struct im_err *err)
{
	return im_fail(err, IM_FAILED, "cannot %s %.140s: %.60s", what, path, sqlite3_errmsg(db));
}

static bool run(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

int im_schema_version(sqlite3 *db)
{
	sqlite3_stmt *s = NULL;
	int version = -1;

	if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
		version = sqlite3_column_int(s, 0);
	(void)sqlite3_finalize(s); /* -1 has said it */
	return version;
}

/* ---- the copy beside it */

static enum im_status copy_pages(sqlite3 *db, const char *path, const char *copy, struct im_err *err)
{
	sqlite3 *to = NULL;
	sqlite3_backup *b;
	int rc = sqlite3_open_v2(copy, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);

	if (rc == SQLITE_OK) {
		b = sqlite3_backup_init(to, "main", db, "main");
		rc = b ? sqlite3_backup_step(b, -1) : SQLITE_ERROR;
		if (b && sqlite3_backup_finish(b) == SQLITE_OK && rc == SQLITE_DONE)
			rc = SQLITE_OK;
	}
	if (rc != SQLITE_OK)
		(void)im_fail(err, IM_FAILED, "cannot copy %.90s to %.90s before its schema changes: %.40s", path, copy, sqlite3_errstr(rc));
	(void)sqlite3_close(to); /* what was to be written is */
	return rc == SQLITE_OK ? IM_OK : IM_FAILED;
}

static bool sync_path(const char *path, int flags)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
	bool ok = fd >= 0 && fsync(fd) == 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

static bool name_copy(const char *tmp, const char *copy)
{
	char *dir = strdup(copy), *slash = dir ? strrchr(dir, '/') : NULL;
	bool ok = chmod(tmp, 0600) == 0 && sync_path(tmp, 0) && rename(tmp, copy) == 0;

	if (slash)
		slash[slash == dir] = '\0';
	ok = ok && sync_path(slash ? dir : ".", O_DIRECTORY);
	free(dir);
	return ok;
}

static enum im_status keep_copy(sqlite3 *db, const char *path, int version, struct im_err *err)
{
	char *copy = NULL, *tmp = NULL;
	enum im_status st;

	if (asprintf(&copy, "%s.schema-%d", path, version) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	if (asprintf(&tmp, "%s.tmp", copy) < 0) {
		free(copy);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	(void)unlink(tmp); /* of a try that was cut short */
	st = copy_pages(db, path, tmp, err);
	if (st == IM_OK && !name_copy(tmp, copy))
		st = im_fail(err, IM_FAILED, "cannot keep the copy %.150s: %s", copy, strerror(errno));
	if (st == IM_OK)
		im_log(IM_LOG_NOTICE, "evt=schema_copied path=%s schema=%d copy=%s", path, version, copy);
	else
		(void)unlink(tmp); /* half a copy helps nobody */
	free(copy);
	free(tmp);
	return st;
}

/* ---- the steps */

static enum im_status make_steps(sqlite3 *db, const char *path, const struct im_schema *schema, int from, int to, struct im_err *err)
{
	char version[64];
	bool ok = run(db, "BEGIN IMMEDIATE");
	enum im_status st;

	for (int i = from; i < to && ok; i++)
		ok = run(db, schema->steps[i]);
	(void)snprintf(version, sizeof(version), "PRAGMA user_version=%d", to);
	if (ok && run(db, version) && run(db, "COMMIT"))
		return IM_OK;
	st = fail(db, path, from == 0 ? "create the tables of" : "change the schema of", err);
	(void)run(db, "ROLLBACK"); /* may have happened by itself */
	return st;
}

enum im_status im_schema_check(sqlite3 *db, const char *path, const struct im_schema *schema, struct im_err *err)
{
	int version = im_schema_version(db);

	if (version < 0)
		return fail(db, path, "read", err);
	if (version > schema->version)
		return im_fail(err, IM_BAD_INPUT, "%.120s has schema %d, made by a newer release; this one knows %d: run that release, or restore a backup",
			       path, version, schema->version);
	return version == schema->version ? IM_OK : im_fail(err, IM_NOT_FOUND, "%.180s has schema %d", path, version);
}

enum im_status im_schema_create(sqlite3 *db, const char *path, const struct im_schema *schema, int version, struct im_err *err)
{
	return make_steps(db, path, schema, 0, version, err);
}

enum im_status im_schema_open(sqlite3 *db, const char *path, const struct im_schema *schema, struct im_err *err)
{
	enum im_status st = im_schema_check(db, path, schema, err);
	int version = im_schema_version(db);

	if (st != IM_NOT_FOUND)
		return st;
	if (version == 0)
		return make_steps(db, path, schema, 0, schema->version, err);
	st = keep_copy(db, path, version, err);
	if (st == IM_OK)
		st = make_steps(db, path, schema, version, schema->version, err);
	if (st == IM_OK)
		im_log(IM_LOG_NOTICE, "evt=schema_changed path=%s from=%d to=%d", path, version, schema->version);
	return st;
}
