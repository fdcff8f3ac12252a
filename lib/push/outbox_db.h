/* SQL of the outbox. Private to outbox.c and its thread. */
#ifndef IM_PUSH_OUTBOX_DB_H
#define IM_PUSH_OUTBOX_DB_H

#include "push/outbox.h"
#include "schema/schema.h"

struct outbox_db;

enum outbox_trouble {
	OUTBOX_FINE,
	OUTBOX_LATER,   /* full, read-only, locked: may pass */
	OUTBOX_DAMAGED,
};

extern const struct im_schema outbox_schema;

/* IM_OK; IM_BAD_INPUT: a newer release's; IM_EXISTS: damaged, set it aside; IM_FAILED: try again later. */
enum im_status outbox_db_open(const char *path, struct outbox_db **out, struct im_err *err);
void outbox_db_close(struct outbox_db *db); /* NULL is fine */
enum im_status outbox_db_load(struct outbox_db *db, struct outbox_start *out, struct im_err *err); /* IM_EXISTS: damaged */
void outbox_start_free(struct outbox_start *s); /* the arrays */

bool outbox_db_begin(struct outbox_db *db);
bool outbox_db_run(struct outbox_db *db, struct outbox_op *op);
bool outbox_db_commit(struct outbox_db *db);
void outbox_db_rollback(struct outbox_db *db);
/* Removes some final rows that are older than `before_ms` or more than `most`; *finals counts what is left. */
bool outbox_db_purge(struct outbox_db *db, int64_t before_ms, uint64_t most, uint64_t *finals);
enum outbox_trouble outbox_db_trouble(const struct outbox_db *db);
const char *outbox_db_error(const struct outbox_db *db);

#endif
