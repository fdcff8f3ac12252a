#include "waiter.h"

#include <stdlib.h>

struct waiter {
	struct waiter *next;
	uint64_t key;
	int64_t deadline_ms;
	link_done_fn *done;
	link_answer_fn *answer;
	void *arg;
};

bool waiter_add(struct waiter **list, uint64_t key, int64_t deadline_ms, link_done_fn *done, link_answer_fn *answer, void *arg)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return false;
	w->key = key;
	w->deadline_ms = deadline_ms;
	w->done = done;
	w->answer = answer;
	w->arg = arg;
	while (*list)
		list = &(*list)->next;
	*list = w;
	return true;
}

static void tell(struct waiter *w, enum im_status st, const char *answer)
{
	if (w->done)
		w->done(w->arg, st);
	if (w->answer)
		w->answer(w->arg, answer);
	free(w);
}

void waiters_answer(struct waiter **list, uint64_t key, bool only, enum im_status st, const char *answer)
{
	struct waiter *due = NULL, **tail = &due;

	for (struct waiter **p = list; *p;) {
		struct waiter *w = *p;

		if (only ? w->key != key : w->key > key) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		w->next = NULL;
		*tail = w;
		tail = &w->next;
	}
	while (due) {
		struct waiter *w = due;

		due = w->next;
		tell(w, st, answer);
	}
}

void waiters_expire(struct waiter **list, int64_t now_ms, bool only)
{
	while (*list && (*list)->deadline_ms <= now_ms) /* the first one has waited longest */
		waiters_answer(list, (*list)->key, only, IM_BUSY, NULL);
}
