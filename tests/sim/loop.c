/* Clocks that only the schedule moves, timers on them, the bus as four queues, and the log as part of the trace. */
#include "sim.h"

#include "base/clock.h"
#include "base/log.h"
#include "io/loop.h"
#include "io/mqtt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

int64_t sim_wall_ms;
bool loop_gathers;

struct im_after {
	im_loop_fn *fn;
	void *arg;
};

static struct im_after *after;

struct frame {
	struct frame *next;
	size_t len;
	uint8_t data[];
};

static struct {
	struct frame *first, **last;
	size_t n;
} queues[BUS_QUEUES];

/* ---- clocks */

int64_t im_clock_wall_ms(void)
{
	return sim_wall_ms;
}

int64_t im_clock_mono_ms(void)
{
	return fake_now_ms;
}

int64_t im_clock_mono_us(void)
{
	return fake_now_ms * 1000;
}

/* Instead of libc's: also this is a schedule's own. */
ssize_t getrandom(void *data, size_t len, unsigned flags)
{
	uint8_t *p = data;

	(void)flags;
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)sim_random64();
	return (ssize_t)len;
}

/* ---- timers */

/* A turn that comes late finds each timer due once, however often it would have been. */
void loop_pass(int64_t ms)
{
	struct im_timer *t;

	loop_turn();
	loop_slip(ms);
	while ((t = fake_timer_due(fake_now_ms))) {
		loop_gathers = true;
		fake_timer_fire(t);
	}
	loop_turn();
}

void loop_slip(int64_t ms)
{
	fake_now_ms += ms;
	sim_wall_ms += ms;
}

struct im_after *im_after_create(struct im_loop *l, im_loop_fn *fn, void *arg)
{
	(void)l;
	after = malloc(sizeof(*after));
	*after = (struct im_after){fn, arg};
	return after;
}

void im_after_destroy(struct im_after *a)
{
	free(a);
	after = NULL;
}

void loop_turn(void)
{
	if (after && loop_gathers)
		after->fn(after->arg);
	loop_gathers = false;
	check_turn_ended();
}

/* Password hashing: no schedule asks for it. */
enum im_status im_loop_work(struct im_loop *l, im_loop_fn *work, im_loop_fn *done, void *arg)
{
	(void)l;
	(void)work;
	(void)done;
	(void)arg;
	return IM_FAILED;
}

/* ---- the bus */

void bus_put(enum bus_queue q, const void *data, size_t len)
{
	struct frame *f = malloc(sizeof(*f) + len);

	f->next = NULL;
	f->len = len;
	memcpy(f->data, data, len);
	if (!queues[q].first)
		queues[q].last = &queues[q].first;
	*queues[q].last = f;
	queues[q].last = &f->next;
	queues[q].n++;
}

void *bus_take(enum bus_queue q, size_t *len)
{
	struct frame *f = queues[q].first;
	void *data;

	if (!f)
		return NULL;
	queues[q].first = f->next;
	queues[q].n--;
	*len = f->len;
	data = malloc(f->len + 1); /* exactly its size: what reads too far is seen */
	memcpy(data, f->data, f->len);
	free(f);
	return data;
}

size_t bus_waiting(enum bus_queue q)
{
	return queues[q].n;
}

void bus_drop(enum bus_queue q)
{
	size_t len;

	while (queues[q].n)
		free(bus_take(q, &len));
}

void loop_begin(void)
{
	fake_now_ms = 1000000;
	sim_wall_ms = 1700000000000;
	loop_gathers = false;
}

void loop_end(void)
{
	for (int q = 0; q < BUS_QUEUES; q++)
		bus_drop((enum bus_queue)q);
	if (!fake_timers_none())
		sim_fail("a timer is left");
}

/* ---- the log: part of the trace */

static void on_line(enum im_log_level level, const char *line)
{
	static const char *const names[] = {"error", "warning", "notice", "info", "debug"};

	if (strstr(line, "evt=redecided"))
		COUNT(redecided);
	sim_trace("    %s: %s", names[level], line);
}

void loop_log(void)
{
	im_log_open("sim", sim_tracing ? IM_LOG_DEBUG : IM_LOG_WARNING, on_line);
}
