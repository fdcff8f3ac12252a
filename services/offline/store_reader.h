/*
 * The reader: a thread with its own connection that brings what the rows know. Lookups go first: every new
 * message waits for one, and a thousand devices that come back at once should not be in its way.
 */
#ifndef OFFLINE_STORE_READER_H
#define OFFLINE_STORE_READER_H

#include "store_db.h"
#include "store_read.h"

struct store_reader;

typedef void reader_wake_fn(void *arg); /* on the reader's thread: there is something to take */
enum im_status store_reader_open(const char *path, reader_wake_fn *wake, void *arg, struct store_reader **out, struct im_err *err);
void store_reader_give(struct store_reader *rd, struct store_read *r);
struct store_read *store_reader_take(struct store_reader *rd); /* NULL: nothing is ready */
void store_reader_stop(struct store_reader *rd);  /* finishes what was given */
void store_reader_close(struct store_reader *rd); /* NULL is fine; everything was taken */

/* The same questions on any connection: for the loop's rare own ones. */
bool rows_last(struct store_db *db, const char *conv, uint64_t *seq, int64_t *ts);
bool rows_find(struct store_db *db, const char *conv, uint64_t seq, struct message **out);

#endif
