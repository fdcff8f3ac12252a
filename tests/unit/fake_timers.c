#include "fake_timers.h"

#include <stdlib.h>

int64_t fake_now_ms;

struct im_timer {
	struct im_timer *next;
	im_loop_fn *fn;
	void *arg;
	int64_t at;
	uint64_t repeat;
	bool on;
};

static struct im_timer *timers;

int64_t im_loop_now_ms(const struct im_loop *l)
{
	(void)l;
	return fake_now_ms;
}

struct im_timer *im_timer_create(struct im_loop *l, im_loop_fn *fn, void *arg)
{
	struct im_timer *t = calloc(1, sizeof(*t)), **end = &timers;

	(void)l;
	if (!t)
		return NULL;
	t->fn = fn;
	t->arg = arg;
	while (*end)
		end = &(*end)->next;
	*end = t;
	return t;
}

void im_timer_start(struct im_timer *t, uint64_t after_ms, uint64_t repeat_ms)
{
	t->on = true;
	t->at = fake_now_ms + (int64_t)after_ms;
	t->repeat = repeat_ms;
}

void im_timer_stop(struct im_timer *t)
{
	t->on = false;
}

void im_timer_destroy(struct im_timer *t)
{
	struct im_timer **at = &timers;

	if (!t)
		return;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	free(t);
}

struct im_timer *fake_timer_due(int64_t by_ms)
{
	struct im_timer *first = NULL;

	for (struct im_timer *t = timers; t; t = t->next)
		if (t->on && t->at <= by_ms && (!first || t->at < first->at))
			first = t;
	return first;
}

void fake_timer_fire(struct im_timer *t)
{
	t->on = t->repeat != 0;
	t->at = fake_now_ms + (int64_t)t->repeat;
	t->fn(t->arg);
}

void fake_timers_pass(int64_t ms, void (*then)(void))
{
	int64_t end = fake_now_ms + ms;
	struct im_timer *t;

	while ((t = fake_timer_due(end))) {
		if (t->at > fake_now_ms)
			fake_now_ms = t->at;
		fake_timer_fire(t);
		if (then)
			then();
	}
	fake_now_ms = end;
}

bool fake_timers_none(void)
{
	return !timers;
}
