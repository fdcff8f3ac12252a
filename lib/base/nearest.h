/* The name somebody probably meant: for suggestions after a typo. */
#ifndef IM_BASE_NEAREST_H
#define IM_BASE_NEAREST_H

#include <stddef.h>

/* Edits (insert, delete, change, swap of neighbours) between two words of at most 64 bytes; longer ones are never near. */
unsigned im_edit_distance(const char *a, const char *b);

struct im_nearest {
	const char *word; /* what was written */
	const char *best; /* NULL: nothing is near */
	unsigned distance;
};

/* Offer the candidates one by one; `best` is the nearest that is near enough (a third of the word, at least 2 edits). */
void im_nearest_start(struct im_nearest *n, const char *word);
void im_nearest_offer(struct im_nearest *n, const char *candidate);

#endif
