/*
 * The place a restore works in: where the instance keeps what, and the locks of all its processes, held so that none of them
 * starts meanwhile.
 */
#ifndef IMCTL_PLACE_H
#define IMCTL_PLACE_H

#include "base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PLACE_PATH 1024

struct place {
	char dir[PLACE_PATH], store[PLACE_PATH], sequences[PLACE_PATH], journal[PLACE_PATH];
	char restoring[PLACE_PATH]; /* "{store}.restoring" */
	char stamp[32];             /* of this run, for names of what is put aside */
	unsigned node;              /* 0: no configuration says */
	int locks[4];
	uid_t owner;                /* of dir: whose the files shall be */
	gid_t group;
	bool chown;
};

/* From `config` if that is there, else {dir}/store and so on. IM_BAD_INPUT: kept in memory, or nothing says where. */
enum im_status place_find(const char *config, const char *dir, struct place *out, struct im_err *err);
/* Makes the folder if it is missing. IM_BUSY: the instance is running. */
enum im_status place_lock(struct place *p, struct im_err *err);
void place_unlock(struct place *p);
bool place_in_use(const struct place *p, const char **what); /* there is data already */
enum im_status place_give(const struct place *p, const char *path, struct im_err *err); /* to the owner, if we are root and they are not */
/* The old path, renamed to "{path}.replaced-{stamp}"; IM_NOT_FOUND: nothing is there. */
enum im_status place_aside(const struct place *p, const char *path, char name[PLACE_PATH], struct im_err *err);
/* Clears "{store}.restoring": what was never finished is removed, all else is put aside. */
enum im_status place_clear(const struct place *p, struct im_err *err);
/* The finished store takes its place in one step; *kept: where the old one is now, "" = there was none. */
enum im_status place_switch(struct place *p, char kept[PLACE_PATH], struct im_err *err);

#endif
