/*
 * One process the supervisor keeps running: its program, its state, and when to start it again.
 *
 *   DOWN --start--> STARTING --READY=1--> UP
 *    ^                 |                   |
 *    +--- exited ------+------ exited -----+      (next start after a backoff with jitter)
 */
#ifndef SUPERVISOR_PART_H
#define SUPERVISOR_PART_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PART_ARGS_MAX 8
#define PART_BACKOFF_FIRST_MS 50
#define PART_BACKOFF_MOST_MS 5000
#define PART_STABLE_MS 10000 /* up for so long: the next crash counts as the first */
#define PART_EXIT_CONFIG 78  /* EX_CONFIG: starting it again does not help */

enum part_state { PART_DOWN, PART_STARTING, PART_UP };

struct part {
	const char *name;
	char *argv[PART_ARGS_MAX]; /* argv[0] is the program's path; owned */
	char *log_path;            /* standard output and error are appended to it; NULL: inherited. Owned */

	enum part_state state;
	pid_t pid;                 /* 0: no process */
	int64_t started_ms;
	int64_t next_start_ms;     /* DOWN: not before */
	unsigned failures;         /* exits since it was last stable */
	bool was_up;               /* ever: until then the others wait for it */
	bool spare;                /* the chat goes on without it: nobody waits for it, and it is never given up */
};

/* What all children share. */
struct part_env {
	const char *notify_path;   /* becomes NOTIFY_SOCKET */
	unsigned backoff_most_ms;
};

enum im_status part_start(struct part *p, const struct part_env *env, struct im_err *err);
/* Its process is gone (`status` of waitpid): decides when it starts again. `out` says for people how it ended. */
void part_exited(struct part *p, const struct part_env *env, int status, char *out, size_t out_len);
/* A start that failed before there was a process counts as an exit too. */
void part_retry_later(struct part *p, const struct part_env *env);
/* It cannot start with this configuration: not until part_retry_now. */
void part_rest(struct part *p);
void part_retry_now(struct part *p); /* if it rests */
void part_signal(const struct part *p, int sig); /* nothing if there is no process */
void part_finish(struct part *p);

#endif
