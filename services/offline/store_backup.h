/* The SQLite driver's rows as parts "store.{table}" of a backup. On a thread of its own, beside the running store. */
#ifndef OFFLINE_STORE_BACKUP_H
#define OFFLINE_STORE_BACKUP_H

#include "backup/backup.h"
#include "store.h"
#include <stdatomic.h>

struct store_dump {
	const char *db_path;
	uint64_t position;            /* wait until the rows hold all up to here */
	const char *header;           /* lines of the caller's */
	_Atomic bool *stop;           /* set from elsewhere: give up soon */
	_Atomic uint64_t *messages;   /* how many there are, once that is known */
};

/*
 * Writes the header (the caller's lines and `store_epoch`, `store_schema`) and all tables, as they were at one moment, at which
 * the rows held everything up to `position`. IM_BUSY: they do not get there, or it was stopped.
 */
enum im_status store_dump(const struct store_dump *d, struct backup_writer *w, struct im_err *err);

#endif
