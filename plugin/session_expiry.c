/*
 * A wheel of seconds. Each slot is looked through once when its second begins. The wall clock can jump: forwards,
 * all slots between are looked through, each once; backwards, the seconds simply come a second time.
 */
#include "session_expiry.h"

#include <stddef.h>
#include <utlist.h>

static struct expiry_node **slot(struct expiry *w, int64_t at_s)
{
	return &w->slots[(uint64_t)at_s % EXPIRY_SLOTS];
}

void expiry_add(struct expiry *w, struct expiry_node *n, int64_t at_ms)
{
	int64_t at_s = at_ms / 1000 + (at_ms % 1000 > 0);
	struct expiry_node **list;

	n->at_s = at_s > w->seen_s ? at_s : w->seen_s + 1; /* what is over already ends in the next second */
	list = slot(w, n->at_s);
	DL_APPEND(*list, n);
}

void expiry_remove(struct expiry *w, struct expiry_node *n)
{
	struct expiry_node **list;

	if (n->at_s == 0)
		return;
	list = slot(w, n->at_s);
	DL_DELETE(*list, n);
	n->at_s = 0;
}

void expiry_due(struct expiry *w, int64_t now_ms, void (*due)(void *arg, struct expiry_node *n), void *arg)
{
	int64_t now_s = now_ms / 1000, from = w->seen_s;
	struct expiry_node *n, *next;

	if (now_s == w->seen_s)
		return;
	w->seen_s = now_s;
	if (now_s - from > (int64_t)EXPIRY_SLOTS)
		from = now_s - (int64_t)EXPIRY_SLOTS;
	for (int64_t s = from + 1; s <= now_s; s++) {
		struct expiry_node **list = slot(w, s);

		DL_FOREACH_SAFE(*list, n, next) {
			if (n->at_s > now_s)
				continue;
			expiry_remove(w, n);
			due(arg, n);
		}
	}
}
