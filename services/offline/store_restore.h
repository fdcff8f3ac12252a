/*
 * A store made from the parts "store.{table}" of a backup, in a folder "{store}.restoring" beside the place it will take.
 * A file "unfinished" in it says that it is not whole yet.
 */
#ifndef OFFLINE_STORE_RESTORE_H
#define OFFLINE_STORE_RESTORE_H

#include "backup/backup.h"
#include "base/status.h"

#define STORE_RESTORING ".restoring"
#define STORE_UNFINISHED "unfinished"

/* IM_FAILED: there is no store, but a restore was begun and not ended: starting would begin an empty one. */
enum im_status store_restore_check(const char *store, struct im_err *err);

struct store_restore;

/* Makes the folder (it must not be there) and an empty store of that schema. IM_BAD_INPUT: the schema is a newer release's. */
enum im_status store_restore_begin(const char *folder, int schema, struct store_restore **out, struct im_err *err);
enum im_status store_restore_part(struct store_restore *r, const char *table, const char *const *columns, size_t n, struct im_err *err);
enum im_status store_restore_row(struct store_restore *r, const struct backup_value *values, size_t n, struct im_err *err);
enum im_status store_restore_part_end(struct store_restore *r, struct im_err *err);

struct store_mark {
	uint64_t epoch, offset;
};

struct store_restored {
	char epoch[33];            /* the new one */
	uint64_t messages, newest_seq;
	uint64_t newest_journal;   /* highest journal epoch of the node that is in it */
};

/*
 * Checks that every table came; gives the store its new epoch, takes its leases away (sequences start above all that was ever
 * given) and raises the marks of the node's journal to where what is left of it begins. Then syncs all of it.
 */
enum im_status store_restore_finish(struct store_restore *r, unsigned node, const struct store_mark *marks, size_t n,
				    struct store_restored *out, struct im_err *err);
void store_restore_close(struct store_restore *r); /* NULL is fine; the folder stays */

#endif
