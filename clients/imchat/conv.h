/*
 * A conversation as this terminal knows it: how far it was seen without a gap, and what is missing.
 *
 * Sequences may have holes (the server skips some after a crash), so "17, then 19" proves nothing. What proves
 * a gap is `prev`: each message names the one before it.
 */
#ifndef IMCHAT_CONV_H
#define IMCHAT_CONV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CONV_NAME_LEN = 80,  /* "u/" or "g/" and a name of at most 64 bytes */
	CONVS_MAX = 1024,    /* more than anybody reads in a terminal */
	CONV_OWN_MAX = 64,   /* own sequences ahead of what was seen; forgetting one costs a pull that shows it again */
};

struct conv {
	char name[CONV_NAME_LEN];
	int64_t seen;     /* all up to here was shown; 0: nothing yet, so nothing can be missing */
	int64_t wanted;   /* a pull up to here is under way; 0: none */
	int64_t viewed;   /* newest shown by /open or /more */
	int64_t oldest;   /* oldest shown by these: where /more goes on */
	int64_t own[CONV_OWN_MAX];
	size_t n_own;
	bool to_ack;      /* cursors have moved, or may have to be told again */
};

struct convs {
	struct conv *all[CONVS_MAX];
	size_t n;
};

enum arrival {
	ARRIVAL_NEXT,   /* show it, then conv_shown() */
	ARRIVAL_REPEAT, /* was shown before */
	ARRIVAL_GAP,    /* something before it is missing: pull from seen + 1 up to it */
};

struct conv *convs_get(struct convs *c, const char *name); /* made if new; NULL: not a name, too many, or out of memory */
void convs_forget(struct convs *c);                        /* another store: sequences mean nothing any more */
void convs_finish(struct convs *c);

enum arrival conv_arrival(const struct conv *v, int64_t seq, int64_t prev);
void conv_shown(struct conv *v, int64_t seq);
void conv_stored(struct conv *v, int64_t seq); /* an own message: known, although it was never delivered here */

#endif
