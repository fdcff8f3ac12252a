/*
 * The rows: what each kind of log entry becomes in SQLite. They are filled a batch at a time, in the caller's transaction
 * and on the one thread that has the connection. What moves often within a batch or lies scattered in its tree - cursors,
 * ids, high-water marks - is gathered and as a rule written once, at the end.
 *
 *   begin | store_rows_apply | store_rows_write | commit
 *   begin | ... false        | rollback | store_rows_forget: the same batch can be applied anew
 */
#ifndef OFFLINE_STORE_ROWS_H
#define OFFLINE_STORE_ROWS_H

#include "store_db.h"
#include "store_entry.h"

struct store_rows;

/* `db`: a writer's, borrowed until this is destroyed. Ids that are older than `dedupe_days` are purged. NULL: out of memory. */
struct store_rows *store_rows_create(struct store_db *db, unsigned dedupe_days);
void store_rows_destroy(struct store_rows *rows); /* NULL is fine; what was gathered is not written */

/* Every entry, in order; the batch is only read, nothing of it is kept. false: the database failed, or out of memory. */
bool store_rows_apply(struct store_rows *rows, const struct append_queue *batch);
/* What was gathered. Also purges a piece of the ids that are too old. false: the database failed. */
bool store_rows_write(struct store_rows *rows);
/* After a rollback: what was gathered, and the conversations' numbers, which may be of that transaction. */
void store_rows_forget(struct store_rows *rows);

#endif
