/*
 * {dir}/run: the locks that keep two supervisors out of one folder, the list of processes, the socket on
 * which the parts report that they are ready.
 */
#ifndef SUPERVISOR_RUNDIR_H
#define SUPERVISOR_RUNDIR_H

#include "base/status.h"
#include "part.h"
#include <stddef.h>

struct rundir {
	char *pids_path, *notify_path, *own_path, *parts_path;
	int own_fd, parts_fd, notify_fd;
};

/* Creates {dir}, {dir}/run and {dir}/log (mode 700) and takes the lock. Waits while processes of a supervisor
   that was killed are still ending, at most RUNDIR_WAIT_MS. IM_BUSY: another supervisor is at work there. */
#define RUNDIR_WAIT_MS 15000
enum im_status rundir_open(const char *dir, struct rundir *out, struct im_err *err);
void rundir_close(struct rundir *r);
/* Replaces {dir}/run/pids, lines "name pid", as a whole: readers see the old list or the new one. */
enum im_status rundir_write_pids(const struct rundir *r, const struct part *parts, size_t n, struct im_err *err);
/* The process that says it is ready; 0: nothing more to read. */
pid_t rundir_next_ready(struct rundir *r);
/* Writes a file as a whole, through a temporary name beside it. */
enum im_status rundir_replace_file(const char *path, const char *text, struct im_err *err);

#endif
