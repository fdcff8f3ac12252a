/*
 * The message service: journal slices in; durable messages, acks and deliveries out. This file only joins
 * the parts: link (bus) -> inbox (decides) -> store (keeps) -> delivery (hands over) -> link.
 */
#include "api.h"
#include "backup.h"
#include "base/log.h"
#include "delivery.h"
#include "inbox.h"
#include "lease.h"
#include "link.h"
#include "push.h"
#include "request.h"
#include "roster/roster.h"
#include "service/service.h"
#include "store.h"

#include <stdlib.h>
#include <string.h>

#define CLIENT_ID "$im-offline"
#define DRAIN_POLL_MS 20

struct offline {
	struct service *service;
	struct roster *roster;
	struct store *store;
	struct lease *lease;
	struct link *link;
	struct delivery *delivery;
	struct inbox *inbox;
	struct request *request;
	struct backup *backup;
	struct push *push;           /* NULL: nobody is pushed */
	struct api *api;
	struct im_after *after;
	struct im_timer *drain;
};

/* ---- the link's events */

static void on_reset(void *arg)
{
	struct offline *o = arg;

	if (o->delivery)
		delivery_reset(o->delivery);
}

static void on_slice(void *arg, const Im__Bus__Slice *s)
{
	struct offline *o = arg;

	if (inbox_slice(o->inbox, s) != IM_OK)
		service_fail(o->service, "the plugin's journal slices do not fit: starting again from the last durable position");
}

static void on_session(void *arg, const Im__Bus__Session *s)
{
	delivery_session(((struct offline *)arg)->delivery, s);
}

static void on_closed(void *arg, uint64_t handle)
{
	delivery_closed(((struct offline *)arg)->delivery, handle);
}

static void on_complete(void *arg)
{
	delivery_complete(((struct offline *)arg)->delivery);
}

static void on_control(void *arg, const Im__Bus__Control *c)
{
	request_control(((struct offline *)arg)->request, c);
}

static void on_signal(void *arg, const Im__Bus__Signal *s)
{
	delivery_signal(((struct offline *)arg)->delivery, s);
}

static void on_drained(void *arg)
{
	struct offline *o = arg;

	inbox_resume(o->inbox);
	delivery_resume(o->delivery);
}

static void on_link_failed(void *arg, const char *why)
{
	service_fail(((struct offline *)arg)->service, why);
}

static const struct link_events events = {
	.reset = on_reset,
	.slice = on_slice,
	.session = on_session,
	.closed = on_closed,
	.complete = on_complete,
	.control = on_control,
	.signal = on_signal,
	.drained = on_drained,
	.failed = on_link_failed,
};

/* ---- the inbox's */

static size_t marks(void *arg, uint32_t node, struct position *out, size_t cap)
{
	return inbox_marks(((struct offline *)arg)->inbox, node, out, cap);
}

static void on_request(void *arg, const Im__Bus__Record *r)
{
	request_record(((struct offline *)arg)->request, r);
}

static void on_durable(void *arg, uint64_t epoch, uint64_t next)
{
	link_confirm(((struct offline *)arg)->link, epoch, next);
}

static void on_failure(void *arg, const char *why)
{
	service_fail(((struct offline *)arg)->service, why);
}

static void on_lease(void *arg)
{
	struct offline *o = arg;

	inbox_lease_changed(o->inbox);
	if (lease_ready(o->lease) && link_has_plugin(o->link))
		service_ready(o->service);
}

static void on_turn_end(void *arg)
{
	struct offline *o = arg;

	delivery_turn_end(o->delivery);
	push_turn_end(o->push);
	link_flush(o->link);
}

static void on_roster_row(void *arg, const Im__Bus__RosterItem *item)
{
	if (roster_apply(arg, item) == IM_BAD_INPUT)
		im_log(IM_LOG_ERROR, "evt=roster_row_bad version=%llu", (unsigned long long)item->version);
}

/* ---- the skeleton's */

static void on_drain_poll(void *arg)
{
	struct offline *o = arg;

	if (inbox_idle(o->inbox))
		service_drained(o->service);
}

static enum im_status build(struct service *s, struct offline *o, struct im_err *err)
{
	enum im_status st;

	o->service = s;
	o->roster = roster_create();
	o->drain = im_timer_create(s->loop, on_drain_poll, o);
	if (!o->roster || !o->drain)
		return im_fail(err, IM_FAILED, "out of memory");
	st = store_open(s->settings.store, s->loop, &s->settings, &o->store, err);
	if (st != IM_OK)
		return st;
	store_roster(o->store, on_roster_row, o->roster);
	st = lease_create(s->loop, o->store, &o->lease, err);
	if (st != IM_OK)
		return st;
	st = link_create(s->loop, s->settings.node, o->roster, store_start(o->store)->epoch, &events, marks, o, &o->link, err);
	if (st != IM_OK)
		return st;
	st = delivery_create(s->loop, &s->settings, o->store, o->roster, o->link, &o->delivery, err);
	if (st != IM_OK)
		return st;
	st = inbox_create(s->loop, &s->settings, o->store, o->roster, o->delivery, o->link, o->lease, &o->inbox, err);
	if (st != IM_OK)
		return st;
	st = request_create(s->loop, &s->settings, o->store, o->roster, o->link, o->delivery, o->inbox, &o->request, err);
	if (st != IM_OK)
		return st;
	st = backup_job_create(s->loop, &s->settings, o->store, o->link, o->inbox, o->lease, &o->backup, err);
	if (st != IM_OK)
		return st;
	request_set_backup(o->request, o->backup);
	st = push_create(s->loop, &s->settings, o->store, o->roster, o->delivery, &o->push, err);
	if (st != IM_OK)
		return st;
	request_set_push(o->request, o->push);
	o->api = api_create(o->link, o->request);
	o->after = im_after_create(s->loop, on_turn_end, o);
	if (!o->api || !o->after)
		return im_fail(err, IM_FAILED, "out of memory");
	lease_on_change(o->lease, on_lease, o);
	lease_on_failure(o->lease, on_failure, o);
	inbox_on_request(o->inbox, on_request, o);
	inbox_on_durable(o->inbox, on_durable, o);
	inbox_on_failure(o->inbox, on_failure, o);
	return IM_OK;
}

static enum im_status start(struct service *s, struct im_err *err)
{
	struct offline *o = calloc(1, sizeof(*o));

	if (!o)
		return im_fail(err, IM_FAILED, "out of memory");
	s->state = o;
	service_hold_ready(s); /* until the sections are leased and the plugin has said hello */
	return build(s, o, err);
}

static void bus_up(struct service *s)
{
	struct offline *o = s->state;

	lease_bus(o->lease, s->bus);
	link_bus(o->link, s->bus);
	push_bus(o->push, s->bus);
	api_bus(o->api, s->bus);
}

static void bus_down(struct service *s, const char *why)
{
	struct offline *o = s->state;

	im_log(IM_LOG_WARNING, "evt=bus_down reason=\"%s\"", why);
	lease_bus(o->lease, NULL);
	link_bus(o->link, NULL);
	push_bus(o->push, NULL);
	api_bus(o->api, NULL);
}

static void message(struct service *s, const char *topic, const void *payload, size_t len)
{
	struct offline *o = s->state;

	if (strcmp(topic, "$im/in") == 0) {
		if (link_message(o->link, payload, len) != IM_OK)
			service_fail(s, "a frame of the plugin cannot be read");
		else if (lease_ready(o->lease) && link_has_plugin(o->link))
			service_ready(s);
	} else if (strcmp(topic, "$im/seq/res/" CLIENT_ID) == 0) {
		lease_answer(o->lease, payload, len);
	} else if (strncmp(topic, PUSH_TOPIC, sizeof(PUSH_TOPIC) - 1) == 0) {
		const char *provider = topic + sizeof(PUSH_TOPIC) - 1;

		push_message(o->push, provider, strcspn(provider, "/"), payload, len);
	} else if (strcmp(topic, API_TOPIC) == 0) {
		api_message(o->api, payload, len);
	}
}

static void drain(struct service *s)
{
	struct offline *o = s->state;

	inbox_drain(o->inbox);
	im_timer_start(o->drain, 0, DRAIN_POLL_MS);
}

static void stop(struct service *s)
{
	struct offline *o = s->state;

	if (!o)
		return;
	im_after_destroy(o->after);
	if (o->inbox)
		inbox_stop(o->inbox);
	api_stop(o->api);
	request_destroy(o->request);
	backup_job_destroy(o->backup);
	push_stop(o->push);
	delivery_destroy(o->delivery); /* gives the store what has settled */
	store_close(o->store);         /* answers what is pending: the inbox is there, and tells nobody */
	inbox_destroy(o->inbox);
	push_destroy(o->push);
	link_destroy(o->link);
	api_destroy(o->api);
	lease_destroy(o->lease);
	roster_destroy(o->roster);
	im_timer_destroy(o->drain);
	free(o);
	s->state = NULL;
}

int main(int argc, char **argv)
{
	static const char *const filters[] = {"$im/seq/res/" CLIENT_ID, "$im/sink", PUSH_TOPIC "+/up", API_TOPIC, NULL};
	static const struct service_spec spec = {
		.name = "im-offline",
		.client_id = CLIENT_ID,
		.filters = filters,
		.qos = 1,
		.start = start,
		.bus_up = bus_up,
		.bus_down = bus_down,
		.message = message,
		.drain = drain,
		.stop = stop,
	};

	return service_main(&spec, argc, argv);
}
