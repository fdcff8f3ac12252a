/*
 * The roster by which this node decides, kept up to date by the message service and, through roster_file.h,
 * on disk. Changes come into force at once; a snapshot as a whole at its end, until then the old roster decides.
 */
#ifndef PLUGIN_ROSTER_COPY_H
#define PLUGIN_ROSTER_COPY_H

#include "base/status.h"
#include "bus.pb-c.h"
#include "roster/roster.h"

struct roster_copy;
typedef void roster_copy_fn(void *arg, const Im__Bus__RosterItem *item);

/* Fills `roster` (the caller's, as long as the copy lives) with what {dir}/roster holds. */
enum im_status roster_copy_open(const char *dir, struct roster *roster, struct roster_copy **out, struct im_err *err);
void roster_copy_close(struct roster_copy *c); /* NULL is fine */
void roster_copy_on_change(struct roster_copy *c, roster_copy_fn *fn, void *arg); /* link.h: link_on_roster */

/*
 * Who is talking: versions count within one store only, a restored one may have the same for other content. What comes
 * after this is from `store`. The version is 0 until what is in force is from there.
 */
void roster_copy_from(struct roster_copy *c, const char *store);
uint64_t roster_copy_version(const struct roster_copy *c);

/* NULL: applied, in force and kept. Otherwise why the sender must begin again. */
const char *roster_copy_apply(struct roster_copy *c, const Im__Bus__Roster *r);
void roster_copy_drop_snapshot(struct roster_copy *c); /* its sender is gone; NULL is fine */
void roster_copy_tick(struct roster_copy *c);          /* tries again to write what the disk refused */

#endif
