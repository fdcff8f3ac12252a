/*
 * The plugin's copy of the roster on disk: {dir}/roster, so that a broker can start and decide while the
 * services are down. A header (magic, a random file id, the name of the store it is from), then one record (base/record.h,
 * epoch = file id) for each RosterItem, appended as changes come. Nothing here is synced in the broker's thread: what a power
 * cut takes is a tail, and the service sends everything newer than the version that was loaded.
 */
#ifndef PLUGIN_ROSTER_FILE_H
#define PLUGIN_ROSTER_FILE_H

#include "base/status.h"
#include "roster/roster.h"

#define ROSTER_STORE_MAX 32u /* bytes of a store's name */

struct roster_file;

/* Fills `r` with the longest valid prefix, cuts what is behind it; rewrites the file if over half of it is superseded. */
enum im_status roster_file_open(const char *dir, struct roster *r, struct roster_file **out, struct im_err *err);
void roster_file_close(struct roster_file *f); /* syncs; NULL is fine */
const char *roster_file_store(const struct roster_file *f); /* "": not from any store yet */

/*
 * Appends one item. After a failure (IM_FAILED) nothing more is appended, for a file with a hole in its
 * versions would never be completed; roster_file_rewrite makes it whole again.
 */
enum im_status roster_file_add(struct roster_file *f, const Im__Bus__RosterItem *item, struct im_err *err);
bool roster_file_is_broken(const struct roster_file *f);
/* The file becomes exactly what `r` holds, and from `store`, at once or not at all. */
enum im_status roster_file_rewrite(struct roster_file *f, const struct roster *r, const char *store, struct im_err *err);

#endif
