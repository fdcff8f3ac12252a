/* im-seqgen: lease requests from the bus in, leases out. All rules are in seqgen.c. */
#include "base/log.h"
#include "lease_frame.h"
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

static void lease(struct service *s, const char *topic, const Im__Bus__LeaseRequest *r)
{
	struct lease_frame answer;
	struct im_err err = {""};
	enum im_status st = lease_frame_serve(s->state, r, &answer, &err);

	if (st == IM_FAILED) {
		im_log(IM_LOG_ERROR, "evt=lease owner=%s why=\"%s\": nothing is told, the asker repeats", r->owner, err.text);
		return;
	}
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=refused owner=%s asked=%zu granted=%zu why=\"%s\"", r->owner, r->n_leases, answer.granted, err.text);
	else
		im_log(IM_LOG_DEBUG, "evt=lease owner=%s granted=%zu", r->owner, answer.granted);
	if (im_mqtt_publish(s->bus, topic, answer.data, answer.len, 1) != IM_OK)
		im_log(IM_LOG_INFO, "evt=lease id=%llu: no bus for the answer, the asker repeats", (unsigned long long)r->id);
	free(answer.data);
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
