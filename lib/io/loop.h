/*
 * The event loop of a service: libuv behind one doorway. One thread; callbacks run from im_loop_run only.
 * Timers and deferred calls are embedded in the caller's structs through opaque handles.
 */
#ifndef IM_IO_LOOP_H
#define IM_IO_LOOP_H

#include "base/status.h"
#include <stdbool.h>
#include <stdint.h>

struct im_loop;
struct im_timer;
struct im_watch;
struct im_wake;

typedef void im_loop_fn(void *arg);
typedef void im_watch_fn(void *arg, bool readable, bool writable);

struct im_loop *im_loop_create(void);
void im_loop_destroy(struct im_loop *l); /* everything made on it must be destroyed before */
void im_loop_run(struct im_loop *l);     /* until im_loop_stop */
void im_loop_stop(struct im_loop *l);
int64_t im_loop_now_ms(const struct im_loop *l); /* monotonic, cached once per turn */

struct im_timer *im_timer_create(struct im_loop *l, im_loop_fn *fn, void *arg);
void im_timer_start(struct im_timer *t, uint64_t after_ms, uint64_t repeat_ms); /* restarts; repeat 0 = once */
void im_timer_stop(struct im_timer *t);
void im_timer_destroy(struct im_timer *t); /* NULL is fine */

struct im_watch *im_watch_create(struct im_loop *l, int fd, im_watch_fn *fn, void *arg);
void im_watch_set(struct im_watch *w, bool readable, bool writable);
void im_watch_destroy(struct im_watch *w);

/* Wakes the loop from any thread; several sends before it runs are one call. */
struct im_wake *im_wake_create(struct im_loop *l, im_loop_fn *fn, void *arg);
void im_wake_send(struct im_wake *w);
void im_wake_destroy(struct im_wake *w);

/* Runs fn once, later in this or the next turn, never inside the call. IM_FAILED: out of memory. */
enum im_status im_loop_defer(struct im_loop *l, im_loop_fn *fn, void *arg);

/* Runs `work` on a pool thread, then `after` on the loop. */
enum im_status im_loop_work(struct im_loop *l, im_loop_fn *work, im_loop_fn *after, void *arg);

/* Calls fn at the end of every turn that did something, before the loop sleeps: batches leave here. */
struct im_after;
struct im_after *im_after_create(struct im_loop *l, im_loop_fn *fn, void *arg);
void im_after_destroy(struct im_after *a);

#endif
