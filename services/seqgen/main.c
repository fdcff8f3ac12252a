/* im-seqgen: lease requests from the bus in, leases out. All rules are in seqgen.c. */
#include "base/log.h"
#include "bus.pb-c.h"
#include "seq.h"
#include "service/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOPIC_REQUEST "$im/seq"
#define TOPIC_ANSWER "$im/seq/res/"
/* A request of all sections has about 70 KiB; nobody needs more. */
#define REQUEST_MOST (256u << 10)

/* Answers go to the client id, which is the owner's name up to its last ':' (docs/bus.md). */
static bool answer_topic(const char *owner, char *out, size_t room)
{
	const char *colon = strrchr(owner, ':');

	if (!colon || colon == owner || strpbrk(owner, "+#/"))
		return false;
	return (size_t)snprintf(out, room, TOPIC_ANSWER "%.*s", (int)(colon - owner), owner) < room;
}

static void publish_answer(struct service *s, const char *topic, const Im__Bus__LeaseAnswer *a)
{
	size_t len = im__bus__lease_answer__get_packed_size(a);
	uint8_t *frame = malloc(len ? len : 1);

	if (!frame) {
		im_log(IM_LOG_ERROR, "evt=lease why=\"out of memory\": the asker repeats");
		return;
	}
	(void)im__bus__lease_answer__pack(a, frame); /* it writes the size it said */
	if (im_mqtt_publish(s->bus, topic, frame, len, 1) != IM_OK)
		im_log(IM_LOG_INFO, "evt=lease id=%llu: no bus for the answer, the asker repeats", (unsigned long long)a->id);
	free(frame);
}

static void send_answer(struct service *s, const char *topic, const Im__Bus__LeaseRequest *r, const struct seq_lease *granted,
			size_t n, const char *error)
{
	Im__Bus__LeaseAnswer a = IM__BUS__LEASE_ANSWER__INIT;
	Im__Bus__Lease *rows = calloc(n + 1, sizeof(*rows));
	Im__Bus__Lease **list = calloc(n + 1, sizeof(*list));

	if (rows && list) {
		for (size_t i = 0; i < n; i++) {
			im__bus__lease__init(&rows[i]);
			rows[i].section = granted[i].section;
			rows[i].epoch = granted[i].epoch;
			rows[i].ceiling = granted[i].ceiling;
			rows[i].complete = granted[i].complete;
			rows[i].floor = granted[i].floor;
			list[i] = &rows[i];
		}
		a.id = r->id;
		a.leases = list;
		a.n_leases = n;
		a.error = (char *)error;
		publish_answer(s, topic, &a);
	}
	free(list);
	free(rows);
}

static void lease(struct service *s, const char *topic, const Im__Bus__LeaseRequest *r)
{
	struct seq_lease *asked = calloc(r->n_leases + 1, sizeof(*asked));
	struct seq_lease *granted = calloc(r->n_leases + 1, sizeof(*granted));
	struct im_err err = {""};
	size_t n = 0;
	enum im_status st;

	if (!asked || !granted)
		goto out; /* the asker repeats */
	for (size_t i = 0; i < r->n_leases; i++) {
		const Im__Bus__Lease *l = r->leases[i];

		asked[i] = (struct seq_lease){.section = l->section, .epoch = l->epoch, .ceiling = l->ceiling};
	}
	st = seqgen_lease(s->state, r->owner, asked, r->n_leases, granted, &n, &err);
	if (st == IM_FAILED) {
		im_log(IM_LOG_ERROR, "evt=lease owner=%s why=\"%s\": nothing granted, the asker repeats", r->owner, err.text);
		goto out;
	}
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=refused owner=%s asked=%zu granted=%zu why=\"%s\"", r->owner, r->n_leases, n, err.text);
	else
		im_log(IM_LOG_DEBUG, "evt=lease owner=%s granted=%zu", r->owner, n);
	send_answer(s, topic, r, granted, n, err.text);
out:
	free(asked);
	free(granted);
}

static void on_message(struct service *s, const char *topic, const void *payload, size_t len)
{
	Im__Bus__LeaseRequest *r;
	char to[sizeof(TOPIC_ANSWER) + SEQ_OWNER_MAX];

	if (strcmp(topic, TOPIC_REQUEST) != 0)
		return;
	r = len <= REQUEST_MOST ? im__bus__lease_request__unpack(NULL, len, payload) : NULL;
	if (!r || !answer_topic(r->owner, to, sizeof(to)))
		im_log(IM_LOG_WARNING, "evt=refused topic=%s bytes=%zu why=\"not a lease request\": dropped", topic, len);
	else
		lease(s, to, r);
	im__bus__lease_request__free_unpacked(r, NULL);
}

static enum im_status start(struct service *s, struct im_err *err)
{
	struct seqgen *g;
	enum im_status st;

	st = seqgen_create(s->settings.sequences, &g, err);
	if (st == IM_OK)
		s->state = g;
	return st;
}

static void stop(struct service *s)
{
	seqgen_destroy(s->state);
}

int main(int argc, char **argv)
{
	static const char *const filters[] = {TOPIC_REQUEST, NULL};
	static const struct service_spec spec = {
		.name = "im-seqgen",
		.client_id = "$im-seqgen",
		.filters = filters,
		.qos = 1,
		.start = start,
		.message = on_message,
		.stop = stop,
	};

	return service_main(&spec, argc, argv);
}
