/*
 * The process of a bridge. The order of its life: files and the driver first, so that a wrong key stops it before anything is taken;
 * then the outbox, whose thread opens the file in its own time; and only when that is open the message service is greeted.
 */
#include "push/bridge.h"

#include "base/log.h"

#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TICK_MS 50
#define METRICS_MS 10000

int64_t bridge_now(const struct bridge *b)
{
	return im_loop_now_ms(b->service->loop);
}

static struct bridge *of(struct service *s)
{
	return s->state;
}

/* ---- metrics */

static void write_metrics(struct bridge *b)
{
	struct im_err err = {""};
	struct im_buf text;

	im_buf_init(&text);
	push_stats_print(&b->stats, &text);
	query_print(b, &text);
	if (b->driver->metrics)
		b->driver->metrics(b->handle, &text);
	if (push_stats_write(b->metrics_path, &text, &err) != IM_OK)
		im_log(IM_LOG_WARNING, "evt=metrics why=\"%s\": not written this time", err.text);
	im_buf_finish(&text);
}

static void on_metrics(void *arg)
{
	write_metrics(arg);
	tokens_cool(arg);
}

/* ---- the outbox's side */

static void on_opened(void *arg, struct outbox_start *s)
{
	struct bridge *b = arg;

	im_log(IM_LOG_NOTICE, "evt=outbox_open jobs=%zu recovered=%zu verdicts=%zu suspects=%zu final=%llu", s->n_jobs, s->recovered, s->n_verdicts,
	       s->n_suspects, (unsigned long long)s->finals);
	b->open = true;
	tokens_load(b, s);
	if (!flow_load(b, s))
		service_fail(b->service, "out of memory");
	frame_greet(b);
}

static void on_trouble(void *arg, const char *why)
{
	struct bridge *b = arg;

	b->trouble = why != NULL;
	frame_room(b);
}

static void on_broken(void *arg, const char *why, bool for_good)
{
	struct bridge *b = arg;

	if (for_good)
		service_refuse(b->service, why);
	else
		service_fail(b->service, why);
}

/* ---- timers */

static void drain_if_done(struct bridge *b)
{
	if (b->draining && !b->out && (!b->open || outbox_waiting(b->outbox) == 0))
		service_drained(b->service);
}

static void on_tick(void *arg)
{
	struct bridge *b = arg;

	flow_tick(b);
	if (b->said && !b->said_next && bridge_now(b) - b->said_ms >= BRIDGE_AGAIN_MS)
		b->said_next = b->said;
	drain_if_done(b);
}

static void on_hello(void *arg)
{
	frame_greet(arg);
}

static void on_turn_end(void *arg)
{
	struct bridge *b = arg;

	if (!b->open)
		return;
	flow_pump(b);
	frame_flush(b);
}

static void on_room(void *arg)
{
	(void)arg; /* the end of this turn looks at it */
}

/* ---- start */

static enum im_status make_folder(const char *path, struct im_err *err)
{
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return IM_OK;
	return im_fail(err, IM_FAILED, "cannot make the folder %.180s: %s", path, strerror(errno));
}

static char *text_of(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static char *text_of(const char *fmt, ...)
{
	va_list ap;
	char *out;

	va_start(ap, fmt);
	if (vasprintf(&out, fmt, ap) < 0)
		out = NULL;
	va_end(ap);
	return out;
}

static enum im_status make_paths(struct bridge *b, struct im_err *err)
{
	const struct im_settings *set = &b->service->settings;
	enum im_status st = IM_OK;
	uint8_t start[8];

	b->state_dir = text_of("%s/%s", set->push_dir, b->driver->provider);
	b->outbox_path = text_of("%s/%s/outbox.db", set->push_dir, b->driver->provider);
	b->metrics_path = text_of("%s/%s.prom", set->push_metrics, b->driver->provider);
	b->topic_up = text_of("%s/up", b->topic);
	randombytes_buf(start, sizeof(start));
	(void)sodium_bin2hex(b->start, sizeof(b->start), start, sizeof(start));
	if (!b->state_dir || !b->outbox_path || !b->metrics_path || !b->topic_up)
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		st = make_folder(b->state_dir, err);
	if (st == IM_OK)
		st = make_folder(set->push_metrics, err);
	return st;
}

static enum im_status start_driver(struct bridge *b, struct im_err *err)
{
	enum im_status st = push_apps_read(b->service->settings.push_dir, b->driver->provider, b->driver->keys, &b->apps, &b->n_apps, err);

	if (st != IM_OK)
		return st;
	b->host = (struct push_host){.loop = b->service->loop, .state_dir = b->state_dir, .result = flow_result, .room = on_room, .arg = b};
	st = b->driver->start(&b->host, b->apps, b->n_apps, &b->handle, err);
	push_apps_wipe(b->apps, b->n_apps);
	return st;
}

/* All that a driver finds wrong it finds at its start, before it talks to anybody. */
static enum im_status check(struct service *s, struct im_err *err)
{
	struct bridge *b = of(s);
	enum im_status st;

	b->service = s;
	b->state_dir = text_of("%s/%s", s->settings.push_dir, b->driver->provider);
	if (!b->state_dir || sodium_init() < 0)
		st = im_fail(err, IM_FAILED, "out of memory, or libsodium does not start");
	else
		st = start_driver(b, err);
	if (b->handle)
		b->driver->stop(b->handle);
	push_apps_free(b->apps, b->n_apps);
	free(b->state_dir);
	return st;
}

static enum im_status make_timers(struct bridge *b, struct im_err *err)
{
	b->tick = im_timer_create(b->service->loop, on_tick, b);
	b->hello = im_timer_create(b->service->loop, on_hello, b);
	b->metrics = im_timer_create(b->service->loop, on_metrics, b);
	b->after = im_after_create(b->service->loop, on_turn_end, b);
	if (!b->tick || !b->hello || !b->metrics || !b->after)
		return im_fail(err, IM_FAILED, "out of memory");
	im_timer_start(b->tick, TICK_MS, TICK_MS);
	im_timer_start(b->metrics, METRICS_MS, METRICS_MS);
	return IM_OK;
}

static void stop(struct service *s);

static enum im_status start_parts(struct bridge *b, struct im_err *err)
{
	static const struct outbox_events events = {.opened = on_opened, .trouble = on_trouble, .broken = on_broken};
	const struct im_settings *set = &b->service->settings;
	enum im_status st = make_paths(b, err);

	if (st == IM_OK)
		st = push_ids_open(b->state_dir, &b->ids, err);
	if (st == IM_OK)
		st = start_driver(b, err);
	if (st == IM_OK && !(b->queue = push_queue_create(set->push_coalesce_ms)))
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		st = make_timers(b, err);
	if (st == IM_OK)
		st = outbox_create(b->service->loop, b->outbox_path, set->push_outbox, &events, b, &b->outbox, err);
	return st;
}

static enum im_status start(struct service *s, struct im_err *err)
{
	struct bridge *b = of(s);
	enum im_status st;

	if (sodium_init() < 0)
		return im_fail(err, IM_FAILED, "libsodium does not start");
	b->service = s;
	b->said_last = &b->said;
	b->stats.provider = b->driver->provider;
	st = start_parts(b, err);
	if (st != IM_OK)
		stop(s);
	return st;
}

/* ---- life */

static void on_bus_up(struct service *s)
{
	frame_greet(of(s));
}

static void on_bus_down(struct service *s, const char *why)
{
	struct bridge *b = of(s);

	(void)why; /* logged */
	im_timer_stop(b->hello);
	frame_lost(b);
}

static void on_message(struct service *s, const char *topic, const void *payload, size_t len)
{
	(void)topic; /* there is one */
	frame_take(of(s), payload, len);
}

static void use_new_apps(struct bridge *b, struct push_app **apps, size_t n)
{
	struct push_channel *c;

	push_apps_free(b->apps, b->n_apps);
	b->apps = apps;
	b->n_apps = n;
	for (size_t i = 0; (c = push_queue_channel_at(b->queue, i)); i++) {
		c->known = false;
		for (size_t a = 0; a < n && !c->known; a++)
			c->known = strcmp(push_app_name(apps[a]), c->app) == 0;
		push_breaker_reload(&c->breaker, bridge_now(b));
		c->told_ms = 0;
	}
	flow_hurry(b, "token_suspect");
	if (b->open)
		tokens_absolve(b);
}

static void reload(struct service *s)
{
	struct bridge *b = of(s);
	struct push_app **apps = NULL;
	struct im_err err = {""};
	enum im_status st;
	size_t n = 0;

	push_queue_coalesce(b->queue, s->settings.push_coalesce_ms);
	st = push_apps_read(s->settings.push_dir, b->driver->provider, b->driver->keys, &apps, &n, &err);
	if (st == IM_OK)
		st = b->driver->reload(b->handle, apps, n, &err);
	push_apps_wipe(apps, n);
	if (st != IM_OK) {
		im_log(IM_LOG_ERROR, "evt=reload why=\"%s\": the apps' old files stay in force", err.text);
		push_apps_free(apps, n);
		return;
	}
	im_log(IM_LOG_NOTICE, "evt=reload apps=%zu", n);
	use_new_apps(b, apps, n);
}

static void drain(struct service *s)
{
	struct bridge *b = of(s);

	b->draining = true;
	if (b->driver->drain)
		b->driver->drain(b->handle);
	drain_if_done(b);
}

static void stop(struct service *s)
{
	struct bridge *b = of(s);

	if (b->metrics_path && b->queue && b->outbox)
		write_metrics(b);
	if (b->handle)
		b->driver->stop(b->handle);
	outbox_destroy(b->outbox); /* what was given is written; what is out stays INFLIGHT for the next start */
	if (b->queue)
		flow_finish(b);
	push_queue_destroy(b->queue);
	tokens_finish(b);
	push_apps_free(b->apps, b->n_apps);
	im_after_destroy(b->after);
	im_timer_destroy(b->tick);
	im_timer_destroy(b->hello);
	im_timer_destroy(b->metrics);
	sodium_memzero(&b->ids, sizeof(b->ids));
	free(b->state_dir);
	free(b->outbox_path);
	free(b->metrics_path);
	free(b->topic_up);
	memset(b, 0, sizeof(*b));
}

int push_bridge_main(const struct push_driver *driver, int argc, char **argv)
{
	char *topic = text_of("$im/push/%s", driver->provider), *client_id = text_of("$im-push-%s", driver->provider);
	struct bridge *b = calloc(1, sizeof(*b));
	const char *filters[] = {topic, NULL};
	struct service_spec spec = {
		.name = driver->program,
		.client_id = client_id,
		.filters = filters,
		.qos = 1,
		.state = b,
		.start = start,
		.check = check,
		.bus_up = on_bus_up,
		.bus_down = on_bus_down,
		.message = on_message,
		.drain = drain,
		.reload = reload,
		.stop = stop,
	};
	int rc = 1;

	if (topic && client_id && b) {
		b->driver = driver;
		b->topic = topic;
		rc = service_main(&spec, argc, argv);
	}
	free(topic);
	free(client_id);
	free(b);
	return rc;
}
