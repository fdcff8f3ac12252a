/* The message service: its own main.c, with the loop, the bus and the store of the simulation under it. */
#include "limits.h"

#include "service/service.h"

/* The process's own end comes back here and is noted: what it did until then is taken away behind the step. */
static void offline_fails(struct service *s, const char *why);

#define main offline_main
#define service_fail offline_fails
int offline_main(int argc, char **argv);
#include "../../services/offline/main.c"
#undef service_fail
#undef main

#include "backup.h"
#include "check.h"
#include "session.h"
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static const struct service_spec *spec;
static struct service service;
static bool up, on_bus, wants_end, drained;
bool offline_is_dying;

const struct service_spec *sim_service_spec(int (*main_fn)(int, char **));
void *sim_bus_of_seqgen(void);
extern struct im_settings sim_settings;
extern unsigned sim_era;

/* ---- the skeleton of a service (lib/service) */

static const struct service_spec *caught;

int service_main(const struct service_spec *s, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	caught = s;
	return 0;
}

const struct service_spec *sim_service_spec(int (*main_fn)(int, char **))
{
	(void)main_fn(0, NULL);
	return caught;
}

void service_hold_ready(struct service *s)
{
	(void)s;
}

void service_ready(struct service *s)
{
	(void)s;
}

void service_drained(struct service *s)
{
	(void)s;
	drained = true;
}

static void offline_fails(struct service *s, const char *why)
{
	(void)s;
	if (!wants_end)
		sim_trace("the message service ends itself: %s", why);
	wants_end = true;
}

/* ---- the bus */

static int bus_of_offline, bus_of_seqgen;

void *sim_bus_of_seqgen(void)
{
	return &bus_of_seqgen;
}

/* What leaves the service is looked at here, at the moment it cannot be taken back any more. */
static void look(const void *payload, size_t len)
{
	Im__Bus__ToPlugin *f = im__bus__to_plugin__unpack(NULL, len, payload);

	if (!f)
		sim_fail("the service sends a frame that cannot be read");
	for (size_t i = 0; i < f->n_deliveries; i++) {
		const Im__Bus__Delivery *d = f->deliveries[i];
		char *text = strndup((const char *)d->payload.data, d->payload.len);

		for (size_t k = 0; k < d->n_qos1 + d->n_qos0; k++)
			check_told(k < d->n_qos1 ? d->qos1[k] : d->qos0[k - d->n_qos1], d->topic, text, d->payload.len);
		free(text);
	}
	im__bus__to_plugin__free_unpacked(f, NULL);
}

enum im_status im_mqtt_publish(struct im_mqtt *m, const char *topic, const void *payload, size_t len, int qos)
{
	bool ours = (void *)m == &bus_of_offline;

	(void)qos;
	if (ours ? offline_is_dying || !on_bus : !seqgen_is_up())
		return IM_BUSY;
	if (strcmp(topic, "$im/out") == 0) {
		look(payload, len);
		bus_put(BUS_TO_PLUGIN, payload, len);
	} else if (strcmp(topic, "$im/seq") == 0) {
		bus_put(BUS_TO_SEQGEN, payload, len);
	} else if (on_bus) {
		bus_put(BUS_FROM_SEQGEN, payload, len);
	}
	return IM_OK;
}

/* ---- the process */

void offline_start(void)
{
	struct im_err err;

	if (!spec)
		spec = sim_service_spec(offline_main);
	memset(&service, 0, sizeof(service));
	service.settings = sim_settings;
	wants_end = drained = false;
	if (spec->start(&service, &err) != IM_OK)
		sim_fail("the message service does not start: %s", err.text);
	up = true;
}

bool offline_is_up(void)
{
	return up;
}

bool offline_on_bus(void)
{
	return up && on_bus;
}

bool offline_wants_end(void)
{
	return up && wants_end;
}

static void connection_gone(void)
{
	sim_era++;
	on_bus = false;
	bus_drop(BUS_TO_OFFLINE);
	bus_drop(BUS_TO_PLUGIN); /* the plugin copies at once; what is here was on the socket */
	bus_drop(BUS_FROM_SEQGEN);
	plugin_service(false);
}

static void gone(void)
{
	spec->stop(&service);
	up = false;
	if (on_bus)
		connection_gone();
	loop_gathers = false;
}

void offline_kill(void)
{
	if (!up)
		return;
	COUNT(service_crashes);
	sim_trace("the message service is killed");
	offline_is_dying = true;
	gone();
	offline_is_dying = false;
}

/* SIGTERM: it is given time, most often enough. */
void offline_finish(void)
{
	if (!up)
		return;
	COUNT(service_stops);
	sim_trace("the message service is stopped");
	spec->drain(&service);
	for (unsigned i = 0; i < 20 && !drained && !wants_end && sim_chance(90); i++) {
		if (store_waiting())
			store_complete(1);
		else
			loop_pass(20);
	}
	loop_turn();
	gone();
}

void offline_connect(void)
{
	if (!up || on_bus || !plugin_is_up())
		return;
	sim_trace("the message service is on the bus");
	sim_era++;
	on_bus = true;
	service.bus = (struct im_mqtt *)&bus_of_offline;
	plugin_service(true);
	spec->bus_up(&service);
	loop_gathers = true;
}

void offline_disconnect(void)
{
	if (!on_bus)
		return;
	COUNT(bus_falls);
	sim_trace("the bus falls");
	connection_gone();
	if (up)
		spec->bus_down(&service, "the simulation");
	loop_gathers = true;
}

static void hear(enum bus_queue q, const char *topic)
{
	size_t len;
	void *data = bus_take(q, &len);

	if (data && on_bus && !wants_end)
		spec->message(&service, topic, data, len);
	free(data);
	loop_gathers = true;
}

void offline_hear(void)
{
	hear(BUS_TO_OFFLINE, "$im/in");
}

void offline_hear_lease(void)
{
	if (sim_chance(10)) {
		size_t len;

		COUNT(lease_messages_lost);
		free(bus_take(BUS_FROM_SEQGEN, &len));
		return;
	}
	hear(BUS_FROM_SEQGEN, "$im/seq/res/$im-offline");
}

/* ---- looking inside */

static struct delivery *inside(void)
{
	struct offline *o = up ? service.state : NULL;

	return o ? o->delivery : NULL;
}

bool offline_may_see(const char *group, const char *user, uint64_t seq)
{
	return roster_may_see(((struct offline *)service.state)->roster, group, user, seq);
}

uint64_t offline_roster_version(void)
{
	return up ? roster_version(((struct offline *)service.state)->roster) : 0;
}

uint32_t offline_section(const char *conv)
{
	return im_conv_section(conv);
}

/* A live session lacks nothing that is known and that it may see and wants (invariant 5). */
static void inspect_live(struct delivery *d, const struct reader *r)
{
	uint64_t next;

	if (!r->covered || r->conv->newest <= r->cursor.handed || r->conv->newest == r->empty_at)
		return;
	next = reader_visible(d, r, r->cursor.handed + 1);
	if (next && next <= r->conv->newest)
		sim_fail("%s is live and lacks %s %llu..%llu", r->device->client_id, r->conv->name, (unsigned long long)next,
			 (unsigned long long)r->conv->newest);
}

static void inspect_reader(struct delivery *d, const struct device *dev, const struct reader *r)
{
	const struct cursor *c = &r->cursor;

	if (dev->session && dev->loaded && c->handed < c->delivered)
		sim_fail("%s %s: handed %llu is below delivered %llu", dev->client_id, r->conv->name, (unsigned long long)c->handed,
			 (unsigned long long)c->delivered);
	if (r->stored > c->delivered && dev->loaded && !wants_end)
		sim_fail("%s %s: delivered went back from %llu to %llu", dev->client_id, r->conv->name, (unsigned long long)r->stored,
			 (unsigned long long)c->delivered);
	if (dev->session && dev->session->state == SESSION_LIVE)
		inspect_live(d, r);
}

void offline_inspect(void)
{
	struct delivery *d = inside();

	if (!d || wants_end)
		return;
	for (struct session *s = d->sessions; s; s = s->hh.next)
		if (s->state == SESSION_CATCHING && !handover_room(d, s))
			COUNT(waits_for_room);
	for (struct account *a = d->accounts; a; a = a->hh.next) {
		for (struct device *dev = a->devices; dev; dev = dev->next) {
			uint32_t out = 0;

			for (uint32_t i = 0; i < dev->cap; i++) {
				if (!dev->readers[i])
					continue;
				inspect_reader(d, dev, dev->readers[i]);
				out += dev->readers[i]->cursor.out;
			}
			if (dev->session && dev->loaded && dev->acks && out != dev->out)
				sim_fail("%s: %u are out, its conversations say %u", dev->client_id, dev->out, out);
		}
	}
}

bool offline_is_live(uint64_t handle)
{
	struct delivery *d = inside();
	const struct session *s = d ? session_find(d, handle) : NULL;

	return s && s->state == SESSION_LIVE;
}

bool offline_quiet(void)
{
	struct delivery *d = inside();

	if (!d || !on_bus || store_waiting() || store_reading() || !inbox_idle(((struct offline *)service.state)->inbox))
		return false;
	for (struct session *s = d->sessions; s; s = s->hh.next)
		if (s->state == SESSION_LOADING || s->state == SESSION_CATCHING)
			return false;
	return link_pending(d->link) == 0;
}

/* ---- backups: no schedule makes one */

enum im_status backup_job_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct link *link,
				 struct inbox *inbox, struct lease *lease, struct backup **out, struct im_err *err)
{
	(void)loop;
	(void)settings;
	(void)store;
	(void)link;
	(void)inbox;
	(void)lease;
	(void)err;
	*out = NULL;
	return IM_OK;
}

void backup_job_destroy(struct backup *b)
{
	(void)b;
}

enum im_status backup_job_start(struct backup *b, const char *path, bool replace, struct im_err *err)
{
	(void)b;
	(void)path;
	(void)replace;
	return im_fail(err, IM_BAD_INPUT, "nothing here can be backed up");
}

void backup_job_status(struct backup *b, struct backup_status *out)
{
	(void)b;
	memset(out, 0, sizeof(*out));
}
