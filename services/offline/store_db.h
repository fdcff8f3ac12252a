/*
 * The SQLite side of the store: the file, its schema and the statements. A connection belongs to one thread:
 * the indexer writes; the reader and the loop have one each for reading.
 */
#ifndef OFFLINE_STORE_DB_H
#define OFFLINE_STORE_DB_H

#include "base/status.h"
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store_db;
struct im_schema;

enum db_sql {
	DB_BEGIN, DB_COMMIT, DB_ROLLBACK,
	DB_META_GET, DB_META_SET,
	DB_CONV_FIND, DB_CONV_ADD,
	DB_MESSAGE_ADD, DB_MESSAGE_BY_ROW, DB_MESSAGE_BY_SEQ, DB_MESSAGES_UP, DB_MESSAGES_DOWN, DB_LAST,
	DB_ID_ADD, DB_ID_FIND, DB_ID_ALL, DB_ID_OLDEST, DB_ID_PURGE,
	DB_USER_CONV, DB_USER_CONVS, DB_DEVICE_CONVS,
	DB_CURSOR,
	DB_DEVICE_SET, DB_DEVICE_GET, DB_DEVICE_LIST, DB_DEVICE_REMOVE, DB_CURSORS_REMOVE, DB_REFUSALS_REMOVE,
	DB_SECTION_SET, DB_SECTIONS,
	DB_ROSTER_SET, DB_ROSTER, DB_MEMBER_SET, DB_MEMBER_GROUPS,
	DB_REFUSAL_SET, DB_REFUSAL_DONE, DB_REFUSALS,
	DB_HIGH_SET, DB_HIGH,
	DB_PUSH_SET, DB_PUSH_REMOVE, DB_PUSH, DB_STREAM, DB_STREAM_END,
	DB_STATEMENTS
};

extern const struct im_schema store_db_schema;

/* writer: creates the file, and brings the schema to the newest (schema/schema.h). One of a newer release is refused with a sentence. */
enum im_status store_db_open(const char *path, bool writer, struct store_db **out, struct im_err *err);
void store_db_close(struct store_db *db); /* NULL is fine */

/* The statement, ready to bind and step. Never NULL: a failure to prepare shows in the first step (SQLITE_MISUSE). */
sqlite3_stmt *store_db_get(struct store_db *db, enum db_sql which);
void store_db_text(sqlite3_stmt *s, int at, const char *text); /* lives until the statement is got again */
/* Steps a statement that returns no rows. */
bool store_db_run(struct store_db *db, sqlite3_stmt *s);
/* A sync has failed, as store_db_fail was told: nothing may be checkpointed any more, until a new process has opened it. */
bool store_db_sync_failed(const struct store_db *db);
bool store_db_fold_on_close(struct store_db *db, bool on); /* whether closing it makes a last checkpoint; as opened it does not */
bool store_db_sync_commits(struct store_db *db, bool on); /* the writer's commits: durable when they return, or (as opened) not */
bool store_db_exec(struct store_db *db, enum db_sql which); /* one without parameters */
enum im_status store_db_fail(struct store_db *db, struct im_err *err, const char *what); /* IM_FAILED and the sentence with the path */
sqlite3 *store_db_handle(struct store_db *db);

bool store_db_meta_get(struct store_db *db, const char *key, void *out, size_t len); /* exactly len bytes */
bool store_db_meta_set(struct store_db *db, const char *key, const void *data, size_t len);

#endif
