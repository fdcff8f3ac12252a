/*
 * The loop: starts the parts in order, each when the one before is ready for the first time; starts again
 * what ends; stops all in reverse order at SIGTERM or SIGINT; passes SIGHUP on.
 */
#ifndef SUPERVISOR_WATCH_H
#define SUPERVISOR_WATCH_H

#include "part.h"
#include "rundir.h"

#define WATCH_STOP_MS 10000    /* a part that does not end within this after TERM is killed */
#define WATCH_FIRST_TRIES 5    /* of a part that never was ready: then the start as a whole has failed */

struct watch {
	struct part *parts;
	size_t n;
	struct part_env env;
	struct rundir *run;
	const char *ready_file; /* written once all parts are up for the first time; NULL: none */
};

/* Blocks the signals it waits for; 0: stopped as asked, 1: a part could not be started at all. */
int watch_run(struct watch *w);

#endif
