/* Handles of those who may be behind; one that is gone by the next look is dropped there. */
#include "reading.h"

#include <stdlib.h>

struct reading_watch {
	uint64_t *handles;
	size_t n, cap;
	int64_t look_at;
};

struct reading_watch *reading_create(void)
{
	return calloc(1, sizeof(struct reading_watch));
}

void reading_destroy(struct reading_watch *w)
{
	if (!w)
		return;
	free(w->handles);
	free(w);
}

/* Out of memory: tried again with the next packet. */
static void watch(struct reading_watch *w, struct session *s)
{
	uint64_t *more;

	if (w->n == w->cap) {
		size_t cap = w->cap ? w->cap * 2 : 64;

		more = realloc(w->handles, cap * sizeof(*more));
		if (!more)
			return;
		w->handles = more;
		w->cap = cap;
	}
	w->handles[w->n++] = s->handle;
	s->reading.watched = true;
}

void reading_given(struct reading_watch *w, struct session *s, size_t len)
{
	s->reading.untaken += len;
	if (!s->reading.watched && s->reading.untaken > READING_BEHIND)
		watch(w, s);
}

void reading_resumed(struct reading_watch *w, struct session *s, size_t len)
{
	reading_given(w, s, len);
	s->reading.behind = s->reading.watched;
}

static void take(struct reading *r, uint64_t acked)
{
	uint64_t taken = acked > r->acked ? acked - r->acked : 0;

	r->acked = acked;
	r->untaken -= taken < r->untaken ? taken : r->untaken;
}

/* Whether it is to be looked at again. */
static bool look(struct session_table *sessions, struct session *s, session_fn *changed, void *arg)
{
	struct reading *r = &s->reading;
	bool was = r->behind;
	uint64_t acked;

	if (broker_acked(s->context, &acked)) {
		take(r, acked);
		r->behind = r->untaken > (was ? READING_BEHIND / 2 : READING_BEHIND); /* not to and fro */
	} else {
		r->behind = false;
		if (r->untaken > READING_BLIND && !s->kicked)
			session_kick(sessions, s, "it was given a lot, and nothing shows that it reads");
	}
	if (r->behind != was)
		changed(arg, s);
	return r->untaken > READING_BEHIND / 2;
}

void reading_look(struct reading_watch *w, struct session_table *sessions, int64_t now_ms, session_fn *changed, void *arg)
{
	size_t kept = 0;

	if (w->n == 0 || now_ms < w->look_at)
		return;
	w->look_at = now_ms + READING_EVERY_MS;
	for (size_t i = 0; i < w->n; i++) {
		struct session *s = session_by_handle(sessions, w->handles[i]);

		if (!s)
			continue;
		s->reading.watched = look(sessions, s, changed, arg);
		if (s->reading.watched)
			w->handles[kept++] = w->handles[i];
	}
	w->n = kept;
}
