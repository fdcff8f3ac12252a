/*
 * A folder with a journal in it, on a file system that can be told to fail and that knows, per file, what a power
 * cut would leave: a sync that succeeds puts what was written since the one before it on the disk, one that
 * fails does not, and as with a kernel no later one makes up for it.
 */
#ifndef TESTS_JOURNAL_WORLD_H
#define TESTS_JOURNAL_WORLD_H

#include "plugin/journal_internal.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { SEGMENT = 16 << 10, DEADLINE_MS = 20000 };

struct fault {
	_Atomic int pwrite_error;  /* errno for records and headers; 0 = none */
	_Atomic int sync_error;
	_Atomic bool breaks;       /* with a sync that fails writes begin to fail, with the same errno */
	_Atomic bool one_file;     /* ... of both, only for the segment that was appended to when this was set */
	_Atomic bool forgets;      /* what a failed sync did not get to the disk is gone from the cache too */
	_Atomic int folder_error;  /* of its sync, and of each rename but the first */
	_Atomic int renames;
	_Atomic int zero_error;    /* for the filling with zeros */
	_Atomic int short_writes;  /* give back at most this many bytes at a time */
	_Atomic int interrupts;    /* EINTR this often */
	_Atomic int misses;        /* EAGAIN this often */
	_Atomic int sync_ms;       /* a slow disk */
	_Atomic int unlinks, syncs;
	_Atomic int removed;       /* since the folder was synced */
	_Atomic int unordered;     /* removals that a power cut may show without the one before */
};
extern struct fault fault;

struct journal_world {
	char dir[64];
	struct journal *j;
	struct journal_options options;
};

int journal_world_setup(void **state);
int journal_world_teardown(void **state);
void journal_world_reopen(struct journal_world *w);
void journal_world_kill(struct journal_world *w);      /* the process goes, the cache stays */
void journal_world_cut_power(struct journal_world *w); /* ... and only what was synced is there; then it opens again */
void journal_world_fail_here(const struct journal_world *w); /* fault.one_file */
void journal_world_next_epoch(struct journal_world *w, uint64_t before);
void each_file(const char *dir, void (*fn)(const char *path, void *arg), void *arg);
void remove_file(const char *path, void *arg);

/* Record n has a length and bytes that follow from n. */
size_t body_len(unsigned n);
enum im_status append(struct journal_world *w, unsigned n);
void must_append(struct journal_world *w, unsigned n); /* the next segment may be in the making: busy is not an answer */
/* Reads everything from the oldest on; checks that numbers go up from `first`, contiguous. Returns how many. */
unsigned read_all(struct journal_world *w, unsigned first);

#define T(name) cmocka_unit_test_setup_teardown(name, journal_world_setup, journal_world_teardown)

#endif
