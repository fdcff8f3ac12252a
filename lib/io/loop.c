/*
 * The event loop: libuv behind our own names.
 *
 * The difficult idea is the end of life: libuv closes handles one turn later, so each of our objects is the
 * libuv handle's owner and frees itself in the close callback. A destroyed object never calls back again,
 * not even when it is destroyed inside its own callback. im_loop_destroy runs the loop until all are gone.
 */
#include "io/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <uv.h>

struct deferred {
	struct deferred *next;
	im_loop_fn *fn;
	void *arg;
};

struct im_loop {
	uv_loop_t uv;
	uv_idle_t idle; /* active while something is deferred: keeps the turn from sleeping */
	struct deferred *first, **last;
	bool running;
};

struct im_timer {
	uv_timer_t uv;
	struct im_loop *loop;
	im_loop_fn *fn;
	void *arg;
};

struct im_watch {
	uv_poll_t uv;
	im_watch_fn *fn;
	void *arg;
	int events;
};

struct im_wake {
	uv_async_t uv;
	im_loop_fn *fn;
	void *arg;
};

struct im_after {
	uv_prepare_t prepare;
	uv_check_t check;
	im_loop_fn *fn;
	void *arg;
	unsigned open; /* of the two handles */
};

struct work {
	uv_work_t uv;
	im_loop_fn *work, *after;
	void *arg;
};

/* ---- the loop */

/* Runs what was there when the turn began; what is deferred meanwhile waits for the next turn. */
static void on_idle(uv_idle_t *idle)
{
	struct im_loop *l = idle->data;
	struct deferred *d = l->first, *next;

	l->first = NULL;
	l->last = &l->first;
	uv_idle_stop(idle);
	for (; d; d = next) {
		next = d->next;
		d->fn(d->arg);
		free(d);
	}
}

struct im_loop *im_loop_create(void)
{
	struct im_loop *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->last = &l->first;
	if (uv_loop_init(&l->uv) != 0) {
		free(l);
		return NULL;
	}
	(void)uv_idle_init(&l->uv, &l->idle); /* cannot fail */
	l->idle.data = l;
	return l;
}

static void count_open(uv_handle_t *h, void *arg)
{
	unsigned *open = arg;

	*open += !uv_is_closing(h);
}

void im_loop_destroy(struct im_loop *l)
{
	struct deferred *d;
	unsigned open = 0;

	if (!l)
		return;
	uv_close((uv_handle_t *)&l->idle, NULL);
	uv_walk(&l->uv, count_open, &open);
	assert(open == 0); /* somebody still lives on it */
	if (open > 0)
		return; /* leaking is better than waiting for ever */
	(void)uv_run(&l->uv, UV_RUN_DEFAULT); /* close callbacks, and pool work that is under way */
	while ((d = l->first)) {
		l->first = d->next;
		free(d);
	}
	if (uv_loop_close(&l->uv) == 0) /* else a last callback made something new */
		free(l);
}

void im_loop_run(struct im_loop *l)
{
	l->running = true;
	(void)uv_run(&l->uv, UV_RUN_DEFAULT); /* whether something is left does not matter */
	l->running = false;
}

void im_loop_stop(struct im_loop *l)
{
	uv_stop(&l->uv);
}

int64_t im_loop_now_ms(const struct im_loop *l)
{
	return (int64_t)uv_now(&l->uv);
}

enum im_status im_loop_defer(struct im_loop *l, im_loop_fn *fn, void *arg)
{
	struct deferred *d = malloc(sizeof(*d));

	if (!d)
		return IM_FAILED;
	*d = (struct deferred){.fn = fn, .arg = arg};
	*l->last = d;
	l->last = &d->next;
	(void)uv_idle_start(&l->idle, on_idle); /* fails only without a callback */
	return IM_OK;
}

/* ---- timers */

static void free_handle(uv_handle_t *h)
{
	free(h->data);
}

static void on_timer(uv_timer_t *uv)
{
	struct im_timer *t = uv->data;

	t->fn(t->arg);
}

struct im_timer *im_timer_create(struct im_loop *l, im_loop_fn *fn, void *arg)
{
	struct im_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fn = fn;
	t->arg = arg;
	(void)uv_timer_init(&l->uv, &t->uv); /* cannot fail */
	t->loop = l;
	t->uv.data = t;
	return t;
}

void im_timer_start(struct im_timer *t, uint64_t after_ms, uint64_t repeat_ms)
{
	if (!t->loop->running)
		uv_update_time(t->uv.loop); /* before the first turn the cached clock may be old */
	(void)uv_timer_start(&t->uv, on_timer, after_ms, repeat_ms); /* fails only when closing */
}

void im_timer_stop(struct im_timer *t)
{
	(void)uv_timer_stop(&t->uv); /* cannot fail */
}

void im_timer_destroy(struct im_timer *t)
{
	if (t)
		uv_close((uv_handle_t *)&t->uv, free_handle);
}

/* ---- descriptors */

static void on_poll(uv_poll_t *uv, int status, int events)
{
	struct im_watch *w = uv->data;

	if (status < 0)
		events = w->events; /* an error: whoever reads or writes next finds out which */
	w->fn(w->arg, events & (UV_READABLE | UV_DISCONNECT), events & UV_WRITABLE);
}

struct im_watch *im_watch_create(struct im_loop *l, int fd, im_watch_fn *fn, void *arg)
{
	struct im_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->fn = fn;
	w->arg = arg;
	if (uv_poll_init(&l->uv, &w->uv, fd) != 0) {
		free(w);
		return NULL;
	}
	w->uv.data = w;
	return w;
}

void im_watch_set(struct im_watch *w, bool readable, bool writable)
{
	int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);

	if (events == w->events)
		return;
	w->events = events;
	if (events)
		(void)uv_poll_start(&w->uv, events, on_poll); /* fails only when closing */
	else
		(void)uv_poll_stop(&w->uv);
}

void im_watch_destroy(struct im_watch *w)
{
	if (w)
		uv_close((uv_handle_t *)&w->uv, free_handle);
}

/* ---- wakes */

static void on_async(uv_async_t *uv)
{
	struct im_wake *w = uv->data;

	w->fn(w->arg);
}

struct im_wake *im_wake_create(struct im_loop *l, im_loop_fn *fn, void *arg)
{
	struct im_wake *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->fn = fn;
	w->arg = arg;
	if (uv_async_init(&l->uv, &w->uv, on_async) != 0) {
		free(w);
		return NULL;
	}
	w->uv.data = w;
	return w;
}

void im_wake_send(struct im_wake *w)
{
	(void)uv_async_send(&w->uv); /* fails only when closing */
}

void im_wake_destroy(struct im_wake *w)
{
	if (w)
		uv_close((uv_handle_t *)&w->uv, free_handle);
}

/* ---- pool work */

static void on_work(uv_work_t *uv)
{
	struct work *w = uv->data;

	w->work(w->arg);
}

static void on_worked(uv_work_t *uv, int status)
{
	struct work *w = uv->data;

	(void)status; /* we never cancel */
	w->after(w->arg);
	free(w);
}

enum im_status im_loop_work(struct im_loop *l, im_loop_fn *work, im_loop_fn *after, void *arg)
{
	struct work *w = calloc(1, sizeof(*w));

	if (!w)
		return IM_FAILED;
	*w = (struct work){.work = work, .after = after, .arg = arg};
	w->uv.data = w;
	if (uv_queue_work(&l->uv, &w->uv, on_work, on_worked) != 0) {
		free(w);
		return IM_FAILED;
	}
	return IM_OK;
}

/*
 * ---- end of turn. libuv's turn is timers, deferred, [prepare], sleep for descriptors, [check]. Timers and
 * deferred calls end before the sleep, descriptors after it: so a turn has two ends, and fn runs at both.
 */

static void on_prepare(uv_prepare_t *uv)
{
	struct im_after *a = uv->data;

	a->fn(a->arg);
}

static void on_check(uv_check_t *uv)
{
	struct im_after *a = uv->data;

	a->fn(a->arg);
}

struct im_after *im_after_create(struct im_loop *l, im_loop_fn *fn, void *arg)
{
	struct im_after *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->fn = fn;
	a->arg = arg;
	a->open = 2;
	(void)uv_prepare_init(&l->uv, &a->prepare); /* none of these four can fail */
	(void)uv_check_init(&l->uv, &a->check);
	a->prepare.data = a->check.data = a;
	(void)uv_prepare_start(&a->prepare, on_prepare);
	(void)uv_check_start(&a->check, on_check);
	/* Alone it does not keep a loop alive. */
	uv_unref((uv_handle_t *)&a->prepare);
	uv_unref((uv_handle_t *)&a->check);
	return a;
}

static void on_after_closed(uv_handle_t *h)
{
	struct im_after *a = h->data;

	if (--a->open == 0)
		free(a);
}

void im_after_destroy(struct im_after *a)
{
	if (!a)
		return;
	uv_close((uv_handle_t *)&a->prepare, on_after_closed);
	uv_close((uv_handle_t *)&a->check, on_after_closed);
}
