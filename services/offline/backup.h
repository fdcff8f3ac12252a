/*
 * A backup of the running instance (docs/backup.md): one at a time, written by a thread of its own.
 *
 *	idle -> JOURNAL: until what the broker had acknowledged when it was asked for is stored
 *	     -> COPYING: rows and leases into the file -> DONE | FAILED
 */
#ifndef OFFLINE_BACKUP_H
#define OFFLINE_BACKUP_H

#include "base/conf.h"
#include "inbox.h"
#include "io/loop.h"
#include "lease.h"
#include "link.h"
#include "store.h"

struct backup;

enum backup_state { BACKUP_NONE, BACKUP_JOURNAL, BACKUP_COPYING, BACKUP_DONE, BACKUP_FAILED };

struct backup_status {
	enum backup_state state;
	enum im_status why;      /* FAILED */
	const char *error;       /* FAILED: a sentence; lives until the next call */
	const char *file;
	bool behind;             /* the journal did not get stored in time: newer messages may be missing */
	uint64_t number;         /* counts backups of this process */
	uint64_t bytes, rows, messages;
	int64_t took_ms;
};

enum im_status backup_job_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct link *link,
				 struct inbox *inbox, struct lease *lease, struct backup **out, struct im_err *err);
void backup_job_destroy(struct backup *b); /* gives a running one up; NULL is fine */
/* IM_BUSY: one is under way. IM_BAD_INPUT: nothing here can be backed up. How it goes on is in the status. */
enum im_status backup_job_start(struct backup *b, const char *path, bool replace, struct im_err *err);
void backup_job_status(struct backup *b, struct backup_status *out);

#endif
