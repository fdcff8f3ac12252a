/*
 * {dir}/sessions: users and filters of sessions that the broker keeps over a disconnect, so that a resumed
 * one need not subscribe again. Append-only checksummed records, the newest of a client id counts;
 * rewritten at start and when most of it is outdated. Written by pwrite without sync: what a power cut
 * takes is a subscription that the client repeats. A failed write is logged once and costs no more than that.
 */
#ifndef PLUGIN_SESSION_FILE_H
#define PLUGIN_SESSION_FILE_H

#include "base/status.h"
#include "session_filter.h"
#include <stdbool.h>
#include <stdint.h>

struct session_file;

struct session_kept {
	const char *client_id, *user;
	bool removed;
	bool sure;
	int64_t seen_ms;
	const struct session_filter *filters;
	unsigned n_filters;
};

typedef void session_kept_fn(void *arg, const struct session_kept *row);
typedef void session_kept_each_fn(void *arg, session_kept_fn *fn, void *fn_arg);

/* Hands every row found to `load`, then rewrites the file from `each`. */
enum im_status session_file_open(const char *dir, session_kept_fn *load, session_kept_each_fn *each, void *arg,
				 struct session_file **out, struct im_err *err);
void session_file_close(struct session_file *f); /* NULL is fine */
/* `each` is asked for all rows when the file is due for rewriting. */
void session_file_put(struct session_file *f, const struct session_kept *row, session_kept_each_fn *each, void *arg);
void session_file_remove(struct session_file *f, const char *client_id, session_kept_each_fn *each, void *arg);

#endif
