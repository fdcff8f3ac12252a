/*
 * The file of a backup: written and read front to back, so that it may come from a pipe. Knows tables and rows,
 * not what they mean.
 *
 *   "IMBACKUP" | u32 format | u32 0 | u64 file id | u64 0                            32 bytes, little endian
 *   records (base/record.h, epoch = file id, offset = place in the file), whose first byte says what they are:
 *   H  "name=value" lines: what this is a backup of
 *   P  a part begins: its name and its columns, each with a NUL behind it
 *   R  whole rows of the part
 *   E  the part ends: u64 rows, u64 bytes from its P on, BLAKE2b-256 over those
 *   Z  the end: u32 parts, u64 rows, BLAKE2b-256 over the first 32 bytes, H and all E
 *
 * Every record has its checksum, every part and the whole a digest. A file without a valid Z is not a backup.
 */
#ifndef IM_BACKUP_BACKUP_H
#define IM_BACKUP_BACKUP_H

#include "base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BACKUP_FORMAT 1u       /* of this release; a newer one is not read */
#define BACKUP_COLUMNS_MAX 32u /* of a table; ours have at most seven */
#define BACKUP_NAME_MAX 64u    /* bytes of a name of a part or column, with its NUL */
#define BACKUP_HEADER_MAX 4096u

enum backup_type { BACKUP_NULL, BACKUP_INT, BACKUP_TEXT, BACKUP_BLOB };

struct backup_value {
	enum backup_type type;
	int64_t integer;
	const void *data; /* TEXT, BLOB */
	size_t len;
};

/* ---- writing: blocks, so on a thread of its own. After a failure the writer takes and keeps nothing more. */

struct backup_writer;

/*
 * Begins FILE.unfinished (mode 600) beside `path`. IM_EXISTS: `path` is there and may not be replaced. `reserve`: bytes that must
 * stay free on its disk.
 */
enum im_status backup_create(const char *path, bool replace, uint64_t reserve, struct backup_writer **out, struct im_err *err);
enum im_status backup_header(struct backup_writer *w, const char *text, struct im_err *err); /* first, once */
enum im_status backup_part(struct backup_writer *w, const char *name, const char *const *columns, size_t n, struct im_err *err);
enum im_status backup_row(struct backup_writer *w, const struct backup_value *values, struct im_err *err);
enum im_status backup_part_end(struct backup_writer *w, struct im_err *err);
/* Ends, syncs, gives it its name, frees. Anything but IM_OK: there is no file. */
enum im_status backup_commit(struct backup_writer *w, struct im_err *err);
void backup_abandon(struct backup_writer *w); /* removes the unfinished file, frees; NULL is fine */
typedef void backup_progress_fn(void *arg, uint64_t bytes, uint64_t rows);
void backup_on_progress(struct backup_writer *w, backup_progress_fn *fn, void *arg); /* after each record, on the writing thread */

/* ---- reading */

/* Anything but IM_OK ends the reading with it. All members may be NULL. Pointers live until the call returns. */
struct backup_sink {
	enum im_status (*header)(void *arg, const char *text, struct im_err *err);
	enum im_status (*part)(void *arg, const char *name, const char *const *columns, size_t n, struct im_err *err);
	enum im_status (*row)(void *arg, const struct backup_value *values, size_t n, struct im_err *err);
	enum im_status (*part_end)(void *arg, uint64_t rows, struct im_err *err);
	void (*progress)(void *arg, uint64_t bytes); /* after each record */
};

struct backup_summary {
	uint64_t bytes, rows;
	uint32_t parts;
};

/*
 * Reads and checks everything; `name` stands in sentences. IM_OK: whole, every checksum right. IM_BAD_INPUT: not a backup, of a
 * newer format, cut short or damaged; what the sink was given before that is not to be used.
 */
enum im_status backup_read(int fd, const char *name, const struct backup_sink *sink, void *arg, struct backup_summary *out,
			   struct im_err *err);
/* The value of a name in a header's text; false: not there, or longer than `len`. */
bool backup_header_value(const char *text, const char *name, char *out, size_t len);

#endif
