/* The lines of `imctl user import`: "name,password", split at the first comma. */
#ifndef IMCTL_IMPORT_H
#define IMCTL_IMPORT_H

#include <jansson.h>

#define IMPORT_LINE_MAX 1024   /* a name, a password and some: longer lines are reported, not cut */
#define IMPORT_BATCH 200       /* users of one command; the service takes 250 */
#define IMPORT_BATCH_BYTES 60000 /* of JSON: a command is at most 64 KiB */

/*
 * One line without its newline -> {"user","password","line"}. NULL: an empty line (*why NULL), or one that
 * cannot be taken (*why says why; static text).
 */
json_t *import_line(char *line, long number, const char **why);

#endif
