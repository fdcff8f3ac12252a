/*
 * The schema of a SQLite file of ours and how it becomes a newer one. A schema is a list of steps: the first makes a new
 * file's tables, each further one changes what the steps before it left. user_version says how many have been made.
 */
#ifndef IM_SCHEMA_SCHEMA_H
#define IM_SCHEMA_SCHEMA_H

#include "base/status.h"
#include <stddef.h>

struct sqlite3;

struct im_schema {
	const char *const *steps; /* SQL; steps[0] leads to version 1 */
	int version;              /* how many there are: what this release knows */
};

/*
 * Brings the file to the newest version, in one transaction. A file with content is copied first, to "{path}.schema-{version}"
 * (mode 600, synced; one that is there from a try before is replaced). IM_BAD_INPUT: made by a newer release.
 */
enum im_status im_schema_open(struct sqlite3 *db, const char *path, const struct im_schema *schema, struct im_err *err);
/* Only looks: IM_OK if it is the newest. */
enum im_status im_schema_check(struct sqlite3 *db, const char *path, const struct im_schema *schema, struct im_err *err);
/* Makes an empty file's tables as they were at `version`. */
enum im_status im_schema_create(struct sqlite3 *db, const char *path, const struct im_schema *schema, int version, struct im_err *err);
int im_schema_version(struct sqlite3 *db); /* -1: cannot be read */

#endif
