/*
 * The indexer: a thread that fills SQLite behind the log. It takes what is durable in large batches, one
 * transaction each; the log position applied is committed in the same transaction, so a restart knows
 * exactly what rows lack. Commits are not synced - the log is - and log segments are forgotten only after a
 * checkpoint that is.
 *
 * A failing database (full disk) is tried again every second; the log goes on until the backlog's limit. A sync of it
 * that failed is not tried again, since it would succeed and have written nothing (store_db.c): the log is ended, and with
 * it the process; the next one writes anew what was not synced.
 */
#ifndef OFFLINE_STORE_INDEX_H
#define OFFLINE_STORE_INDEX_H

#include "store_db.h"
#include "store_entry.h"
#include "store_log.h"

struct store_index;

typedef void index_wake_fn(void *arg); /* on the indexer's thread: there is something to take */
enum im_status store_index_open(const char *path, unsigned dedupe_days, index_wake_fn *wake, void *arg,
				struct store_index **out, struct im_err *err);
void store_index_close(struct store_index *ix); /* stopped before, if it was started */

struct store_db *store_index_db(struct store_index *ix); /* before start and after stop only */
uint64_t store_index_applied(const struct store_index *ix); /* the same */
/* Applies these at once, in one transaction (recovery; the thread does the same). */
enum im_status store_index_apply(struct store_index *ix, const struct append_queue *batch,
				 uint64_t end, struct im_err *err);
/* Makes everything applied durable in the database itself. IM_BUSY: a reader is in the way. */
enum im_status store_index_checkpoint(struct store_index *ix, struct im_err *err);

enum im_status store_index_start(struct store_index *ix, struct store_log *log, struct im_err *err);
void store_index_give(struct store_index *ix, struct append_queue *q); /* durable and answered; takes over all of q */
void store_index_take(struct store_index *ix, struct append_queue *out); /* what has its rows, in order */
/* Applies what is left for at most `ms`, checkpoints, ends the thread. What is left over stays in the log. */
void store_index_stop(struct store_index *ix, unsigned ms);

#endif
