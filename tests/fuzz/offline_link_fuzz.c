/*
 * The message service's end of the bus: link_message with any frames from the plugin, and the records in their slices.
 * The input is a list of frames behind their lengths, given after a good hello, and once more without one.
 */
#include "../unit/fake_timers.h"
#include "fuzz.h"
#include "input.h"

#include "base/log.h"
#include "batch.h"
#include "link.h"
#include <string.h>

static const char *failed;

enum im_status im_mqtt_publish(struct im_mqtt *m, const char *topic, const void *payload, size_t len, int qos)
{
	Im__Bus__ToPlugin *frame = im__bus__to_plugin__unpack(NULL, len, payload);

	must(m && strcmp(topic, "$im/out") == 0 && qos == 0 && frame);
	im__bus__to_plugin__free_unpacked(frame, NULL);
	return IM_OK;
}

/* ---- events */

static void on_reset(void *arg)
{
	(void)arg;
}

static void on_slice(void *arg, const Im__Bus__Slice *s)
{
	struct batch *b;
	size_t n;

	(void)arg;
	if (!batch_check(s, &n))
		return;
	b = batch_of_slice(s, n, s->offset);
	if (b)
		must(b->n_items <= n);
	batch_free(b);
}

static void on_session(void *arg, const Im__Bus__Session *s)
{
	(void)arg;
	must(s->user && s->client_id);
}

static void on_closed(void *arg, uint64_t handle)
{
	(void)arg, (void)handle;
}

static void on_control(void *arg, const Im__Bus__Control *c)
{
	(void)arg;
	must(c->user && c->client_id);
}

static void on_signal(void *arg, const Im__Bus__Signal *s)
{
	(void)arg;
	must(s->user && s->conv);
}

static void on_failed(void *arg, const char *why)
{
	(void)arg;
	failed = why;
}

static void on_done(void *arg, enum im_status st)
{
	(void)st;
	(*(unsigned *)arg)++;
}

static void on_answer(void *arg, const char *json)
{
	(void)json;
	(*(unsigned *)arg)++;
}

static size_t no_marks(void *arg, uint32_t node, struct position *marks, size_t cap)
{
	(void)arg, (void)node, (void)marks, (void)cap;
	return 0;
}

static struct roster *make_roster(void)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User u = IM__BUS__USER__INIT;
	struct roster *r = roster_create();

	u.name = (char *)"alice";
	item.user = &u;
	item.version = 1;
	must(r && roster_apply(r, &item) == IM_OK);
	return r;
}

static void run(struct input in, bool greet)
{
	static const struct link_events events = {on_reset, on_slice, on_session, on_closed, on_reset, on_control, on_signal, on_reset, on_failed};
	static const uint8_t hello[] = {0x0a, 0x06, 0x08, 0x01, 0x10, 0x01, 0x18, 0x07};
	struct roster *roster = make_roster();
	unsigned called = 0;
	struct im_timer *timer;
	struct link *l = NULL;
	uint64_t handle = 1;
	const uint8_t *bytes;
	size_t len;

	must(link_create(NULL, 1, roster, "epoch", &events, no_marks, NULL, &l, NULL) == IM_OK);
	link_bus(l, (struct im_mqtt *)&called);
	if (greet)
		(void)link_message(l, hello, sizeof(hello));
	failed = NULL;
	link_query(l, "{}", on_answer, &called);
	link_roster(l, NULL, 0, on_done, &called);
	while (in.size > 0 && !failed) {
		link_deliver(l, "im/v1/in/msg/u/x", 16, "y", 1, NULL, &handle, 1, NULL, 0);
		link_flush(l);
		len = input_bytes(&in, &bytes);
		if (link_message(l, bytes, len) == IM_BAD_INPUT)
			break;
		fake_now_ms += 100;
		if ((timer = fake_timer_due(FAKE_WHENEVER)))
			fake_timer_fire(timer);
	}
	link_destroy(l);
	must(called == 2); /* each exactly once */
	roster_destroy(roster);
}

static void quiet(enum im_log_level level, const char *line)
{
	(void)level, (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	im_log_open("offline_link_fuzz", IM_LOG_ERROR, quiet);
	run((struct input){data, size}, true);
	run((struct input){data, size}, false);
	return 0;
}
