#include "store_db.h"
#include "schema/schema.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Messages lie in the order of their append; ids in a table per day of journal time, so that what ages is cut off in one piece. */
static const char schema[] =
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE conv(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;"
	"CREATE TABLE message(row INTEGER PRIMARY KEY, conv INTEGER NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL) STRICT;"
	"CREATE UNIQUE INDEX message_seq ON message(conv, seq);"
	"CREATE TABLE id(day INTEGER NOT NULL, hash INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY(day, hash, row)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE user_conv(user TEXT NOT NULL, conv INTEGER NOT NULL, read INTEGER NOT NULL, delivered INTEGER NOT NULL,"
	" PRIMARY KEY(user, conv)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE cursor(user TEXT NOT NULL, device TEXT NOT NULL, conv INTEGER NOT NULL, delivered INTEGER NOT NULL,"
	" PRIMARY KEY(user, device, conv)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE device(user TEXT NOT NULL, device TEXT NOT NULL, named INTEGER NOT NULL, acks INTEGER NOT NULL,"
	" max_packet INTEGER NOT NULL, seen_ms INTEGER NOT NULL, PRIMARY KEY(user, device)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE section(section INTEGER PRIMARY KEY, epoch INTEGER NOT NULL) STRICT;"
	"CREATE TABLE roster(key TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, data BLOB NOT NULL) STRICT;"
	"CREATE INDEX roster_version ON roster(version);"
	"CREATE TABLE member(user TEXT NOT NULL, grp TEXT NOT NULL, PRIMARY KEY(user, grp)) STRICT, WITHOUT ROWID;"
	"CREATE TABLE refusal(key INTEGER PRIMARY KEY, user TEXT NOT NULL, device TEXT NOT NULL, data BLOB NOT NULL) STRICT;"
	"CREATE INDEX refusal_device ON refusal(user, device);"
	"CREATE TABLE high_water(node INTEGER NOT NULL, epoch INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY(node, epoch)) STRICT, WITHOUT ROWID;";

/* What push keeps: tokens and positions (im.bus.StoredPush). */
static const char push_schema[] = "CREATE TABLE push(key TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT, WITHOUT ROWID;";

static const char *const sql[DB_STATEMENTS] = {
	[DB_BEGIN] = "BEGIN IMMEDIATE",
	[DB_COMMIT] = "COMMIT",
	[DB_ROLLBACK] = "ROLLBACK",
	[DB_META_GET] = "SELECT value FROM meta WHERE key = ?1",
	[DB_META_SET] = "INSERT INTO meta(key, value) VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
	[DB_CONV_FIND] = "SELECT id FROM conv WHERE name = ?1",
	[DB_CONV_ADD] = "INSERT INTO conv(name) VALUES(?1)",
	[DB_MESSAGE_ADD] = "INSERT INTO message(conv, seq, data) VALUES(?1, ?2, ?3) ON CONFLICT(conv, seq) DO NOTHING",
	[DB_MESSAGE_BY_ROW] = "SELECT data FROM message WHERE row = ?1",
	[DB_MESSAGE_BY_SEQ] = "SELECT data FROM message WHERE conv = (SELECT id FROM conv WHERE name = ?1) AND seq = ?2",
	[DB_MESSAGES_UP] = "SELECT data FROM message WHERE conv = (SELECT id FROM conv WHERE name = ?1) AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
	[DB_MESSAGES_DOWN] = "SELECT data FROM message WHERE conv = (SELECT id FROM conv WHERE name = ?1) AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC",
	[DB_LAST] = "SELECT data FROM message WHERE conv = (SELECT id FROM conv WHERE name = ?1) ORDER BY seq DESC LIMIT 1",
	[DB_ID_ADD] = "INSERT INTO id(day, hash, row) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
	[DB_ID_FIND] = "SELECT message.data FROM id JOIN message ON message.row = id.row WHERE id.day = ?1 AND id.hash = ?2 ORDER BY id.row",
	[DB_ID_ALL] = "SELECT day, hash FROM id WHERE day >= ?1",
	[DB_ID_OLDEST] = "SELECT min(day) FROM id",
	[DB_ID_PURGE] = "DELETE FROM id WHERE day = ?1 AND hash <= (SELECT max(hash) FROM"
			" (SELECT hash FROM id WHERE day = ?1 ORDER BY hash LIMIT ?2))",
	[DB_USER_CONV] = "INSERT INTO user_conv(user, conv, read, delivered) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(user, conv) DO UPDATE"
			 " SET read = max(read, excluded.read), delivered = max(delivered, excluded.delivered)",
	[DB_USER_CONVS] = "SELECT conv.name, uc.read, uc.delivered, 0 FROM user_conv uc JOIN conv ON conv.id = uc.conv WHERE uc.user = ?1",
	[DB_DEVICE_CONVS] = "SELECT conv.name, uc.read, uc.delivered, coalesce(c.delivered, 0) FROM user_conv uc JOIN conv ON conv.id = uc.conv"
			    " LEFT JOIN cursor c ON c.user = uc.user AND c.device = ?2 AND c.conv = uc.conv WHERE uc.user = ?1",
	[DB_CURSOR] = "INSERT INTO cursor(user, device, conv, delivered) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(user, device, conv) DO UPDATE"
		      " SET delivered = max(delivered, excluded.delivered)",
	[DB_DEVICE_SET] = "INSERT INTO device(user, device, named, acks, max_packet, seen_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
			  " ON CONFLICT(user, device) DO UPDATE SET named = excluded.named, acks = excluded.acks,"
			  " max_packet = excluded.max_packet, seen_ms = excluded.seen_ms",
	[DB_DEVICE_GET] = "SELECT device, named, acks, max_packet, seen_ms FROM device WHERE user = ?1 AND device = ?2",
	[DB_DEVICE_LIST] = "SELECT device, named, acks, max_packet, seen_ms FROM device WHERE user = ?1",
	[DB_DEVICE_REMOVE] = "DELETE FROM device WHERE user = ?1 AND device = ?2",
	[DB_CURSORS_REMOVE] = "DELETE FROM cursor WHERE user = ?1 AND device = ?2",
	[DB_REFUSALS_REMOVE] = "DELETE FROM refusal WHERE user = ?1 AND device = ?2",
	[DB_SECTION_SET] = "INSERT INTO section(section, epoch) VALUES(?1, ?2) ON CONFLICT(section) DO UPDATE SET epoch = max(epoch, excluded.epoch)",
	[DB_SECTIONS] = "SELECT section, epoch FROM section",
	[DB_ROSTER_SET] = "INSERT INTO roster(key, version, data) VALUES(?1, ?2, ?3) ON CONFLICT(key) DO UPDATE"
			  " SET version = excluded.version, data = excluded.data WHERE excluded.version >= version",
	[DB_ROSTER] = "SELECT data FROM roster ORDER BY version, rowid",
	[DB_MEMBER_SET] = "INSERT INTO member(user, grp) VALUES(?1, ?2) ON CONFLICT DO NOTHING",
	[DB_MEMBER_GROUPS] = "SELECT grp FROM member WHERE user = ?1",
	[DB_REFUSAL_SET] = "INSERT INTO refusal(key, user, device, data) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(key) DO UPDATE SET data = excluded.data",
	[DB_REFUSAL_DONE] = "DELETE FROM refusal WHERE key = ?1",
	[DB_REFUSALS] = "SELECT key, data FROM refusal WHERE user = ?1 AND device = ?2 ORDER BY key",
	[DB_HIGH_SET] = "INSERT INTO high_water(node, epoch, next) VALUES(?1, ?2, ?3) ON CONFLICT(node, epoch) DO UPDATE SET next = max(next, excluded.next)",
	[DB_PUSH_SET] = "INSERT INTO push(key, data) VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET data = excluded.data",
	[DB_PUSH_REMOVE] = "DELETE FROM push WHERE key = ?1",
	[DB_PUSH] = "SELECT data FROM push",
	[DB_STREAM] = "SELECT data, row FROM message WHERE row > ?1 ORDER BY row LIMIT ?2",
	[DB_STREAM_END] = "SELECT data, row FROM message ORDER BY row DESC LIMIT 1",
	[DB_HIGH] = "SELECT node, epoch, next FROM high_water ORDER BY node, epoch",
};

/* The writer keeps more of the trees' upper pages at hand. KiB, negative as SQLite wants it. */
#define WRITER_CACHE "PRAGMA cache_size=-16384"
/* After a peak the write-ahead log's file shrinks to this, at the first commit behind a checkpoint; a large batch has room in it. */
#define WAL_KEPT "PRAGMA journal_size_limit=33554432"
#define READER_CACHE "PRAGMA cache_size=-4096"

#define RENEW_STEP (256u << 10) /* of the write-ahead log, while opening */

struct store_db {
	sqlite3 *handle;
	char *path;
	bool sync_failed;
	sqlite3_stmt *statements[DB_STATEMENTS];
};

enum im_status store_db_fail(struct store_db *db, struct im_err *err, const char *what)
{
	int code = db->handle ? sqlite3_extended_errcode(db->handle) : SQLITE_NOMEM;

	if (code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC)
		db->sync_failed = true;
	return im_fail(err, IM_FAILED, "cannot %s %s: %s (SQLite error %d)", what, db->path,
		       db->handle ? sqlite3_errmsg(db->handle) : "out of memory", code);
}

bool store_db_sync_failed(const struct store_db *db)
{
	return db->sync_failed;
}

sqlite3 *store_db_handle(struct store_db *db)
{
	return db->handle;
}

sqlite3_stmt *store_db_get(struct store_db *db, enum db_sql which)
{
	sqlite3_stmt **s = &db->statements[which];

	if (*s)
		(void)sqlite3_reset(*s); /* repeats the last step's error, which its caller has seen */
	else
		(void)sqlite3_prepare_v3(db->handle, sql[which], -1, SQLITE_PREPARE_PERSISTENT, s, NULL); /* NULL: the step says so */
	return *s;
}

void store_db_text(sqlite3_stmt *s, int at, const char *text)
{
	(void)sqlite3_bind_text(s, at, text, -1, SQLITE_STATIC); /* a failure leaves NULL, which the step refuses */
}

bool store_db_run(struct store_db *db, sqlite3_stmt *s)
{
	bool ok;

	(void)db;
	if (!s)
		return false;
	ok = sqlite3_step(s) == SQLITE_DONE;
	return sqlite3_reset(s) == SQLITE_OK && ok;
}

bool store_db_exec(struct store_db *db, enum db_sql which)
{
	return store_db_run(db, store_db_get(db, which));
}

bool store_db_meta_get(struct store_db *db, const char *key, void *out, size_t len)
{
	sqlite3_stmt *s = store_db_get(db, DB_META_GET);
	bool ok;

	if (!s)
		return false;
	store_db_text(s, 1, key);
	ok = sqlite3_step(s) == SQLITE_ROW && (size_t)sqlite3_column_bytes(s, 0) == len;
	if (ok)
		memcpy(out, sqlite3_column_blob(s, 0), len);
	(void)sqlite3_reset(s); /* nothing left to fail */
	return ok;
}

bool store_db_meta_set(struct store_db *db, const char *key, const void *data, size_t len)
{
	sqlite3_stmt *s = store_db_get(db, DB_META_SET);

	if (!s)
		return false;
	store_db_text(s, 1, key);
	(void)sqlite3_bind_blob(s, 2, data, (int)len, SQLITE_STATIC); /* NULL is refused by the table */
	return store_db_run(db, s);
}

/* ---- opening */

static bool run_text(struct store_db *db, const char *text)
{
	return sqlite3_exec(db->handle, text, NULL, NULL, NULL) == SQLITE_OK;
}

/* Changes of the schema are further steps here; tests/fixtures has a store of each version. */
static const char *const schema_steps[] = { schema, push_schema };
const struct im_schema store_db_schema = { schema_steps, sizeof(schema_steps) / sizeof(schema_steps[0]) };

bool store_db_fold_on_close(struct store_db *db, bool on)
{
	return sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, on ? 0 : 1, NULL) == SQLITE_OK;
}

static enum im_status renew(int fd, char *step)
{
	off_t at = 0;
	ssize_t n;

	while ((n = pread(fd, step, RENEW_STEP, at)) > 0) {
		for (ssize_t done = 0, m; done < n; done += m)
			if ((m = pwrite(fd, step + done, (size_t)(n - done), at + done)) <= 0)
				return IM_FAILED;
		at += n;
	}
	return n == 0 && fdatasync(fd) == 0 ? IM_OK : IM_FAILED;
}

/*
 * After a sync that failed the kernel holds the pages for clean: they can be read, and the next sync says that all is
 * well, but they are not on the disk. A checkpoint that trusted it would write the database over from a write-ahead log
 * whose end a power cut takes, and what is left of it would then be laid over pages newer than itself. So what the last
 * process left is written once more, byte for byte, before SQLite reads it: then a sync counts. SQLite takes of it
 * what has valid checksums, and copies all of that into the database again, so the database's own pages need no such care.
 */
static enum im_status renew_wal(const char *path, struct im_err *err)
{
	char *step = malloc(RENEW_STEP), *wal = NULL;
	enum im_status st;
	int fd;

	if (asprintf(&wal, "%s-wal", path) < 0)
		wal = NULL;
	if (!step || !wal) {
		free(step);
		free(wal);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	fd = open(wal, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		st = renew(fd, step);
	else
		st = errno == ENOENT ? IM_OK : IM_FAILED;
	if (st != IM_OK)
		(void)im_fail(err, st, "cannot write %s again: %s", wal, strerror(errno)); /* st is told already */
	if (fd >= 0)
		(void)close(fd); /* synced, or failed already */
	free(wal);
	free(step);
	return st;
}

/* NORMAL: a commit is not synced, because the log is; a checkpoint is, and only then the log is trimmed. */
static bool set_up(struct store_db *db, bool writer)
{
	if (!run_text(db, writer ? WRITER_CACHE : READER_CACHE) || sqlite3_busy_timeout(db->handle, 5000) != SQLITE_OK)
		return false;
	return !writer || (store_db_fold_on_close(db, false) && run_text(db, "PRAGMA journal_mode=WAL") && run_text(db, "PRAGMA synchronous=NORMAL") &&
			   run_text(db, WAL_KEPT) && sqlite3_wal_autocheckpoint(db->handle, 0) == SQLITE_OK);
}

bool store_db_sync_commits(struct store_db *db, bool on)
{
	return run_text(db, on ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
}

enum im_status store_db_open(const char *path, bool writer, struct store_db **out, struct im_err *err)
{
	int flags = SQLITE_OPEN_NOMUTEX | (writer ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY);
	struct store_db *db = calloc(1, sizeof(*db));
	enum im_status st;

	if (!db || !(db->path = strdup(path))) {
		free(db);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	st = writer ? renew_wal(path, err) : IM_OK;
	if (st == IM_OK && (sqlite3_open_v2(path, &db->handle, flags, NULL) != SQLITE_OK || !set_up(db, writer)))
		st = store_db_fail(db, err, "open");
	else if (st == IM_OK)
		st = writer ? im_schema_open(db->handle, path, &store_db_schema, err) : im_schema_check(db->handle, path, &store_db_schema, err);
	if (st != IM_OK) {
		store_db_close(db);
		return st;
	}
	*out = db;
	return IM_OK;
}

void store_db_close(struct store_db *db)
{
	if (!db)
		return;
	for (int i = 0; i < DB_STATEMENTS; i++)
		(void)sqlite3_finalize(db->statements[i]); /* errors were seen when they were stepped */
	(void)sqlite3_close_v2(db->handle); /* no statement is left, so nothing can keep it open */
	free(db->path);
	free(db);
}
