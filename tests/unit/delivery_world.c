#include "delivery_world.h"

#include "base/clock.h"
#include "delivery_store.h"
#include "fake_timers.h"
#include "link.h"
#include "wire/topic.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct world world;

static uint64_t random_state;

unsigned world_random(unsigned n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(random_state >> 33) % n;
}

/* ---- clocks */

int64_t im_clock_wall_ms(void)
{
	return 1700000000000 + fake_now_ms;
}

int64_t im_clock_mono_ms(void)
{
	return fake_now_ms;
}

int64_t im_clock_mono_us(void)
{
	return fake_now_ms * 1000;
}

static void flush(void)
{
	delivery_flush(world.delivery);
}

void world_pass_ms(int64_t ms)
{
	fake_timers_pass(ms, flush);
}

/* ---- the link */

static void packet_add(uint64_t handle, int qos, const char *topic, size_t topic_len, const void *payload, size_t len, bool props)
{
	struct packet *p;
	json_t *json;

	if (world.n_packets == world.cap_packets) {
		world.cap_packets = world.cap_packets ? world.cap_packets * 2 : 256;
		world.packets = realloc(world.packets, world.cap_packets * sizeof *world.packets);
	}
	p = &world.packets[world.n_packets++];
	memset(p, 0, sizeof *p);
	p->handle = handle;
	p->qos = qos;
	p->has_props = props;
	p->topic = strndup(topic, topic_len);
	p->payload = memcpy(calloc(1, len + 1), payload, len);
	p->len = len;
	if (strncmp(p->topic, "im/v1/in/msg/", 13) != 0 && strncmp(p->topic, "im/v1/in/sent/", 14) != 0)
		return;
	json = json_loads(p->payload, 0, NULL);
	assert_non_null(json);
	snprintf(p->conv, sizeof p->conv, "%s", json_string_value(json_object_get(json, "conv")));
	p->seq = (uint64_t)json_integer_value(json_object_get(json, "seq"));
	json_decref(json);
}

void link_deliver(struct link *l, const char *topic, size_t topic_len, const void *payload, size_t len,
		  const Im__Bus__Properties *props, const uint64_t *qos1, size_t n_qos1, const uint64_t *qos0, size_t n_qos0)
{
	(void)l;
	world.deliveries++;
	for (size_t i = 0; i < n_qos1; i++)
		packet_add(qos1[i], 1, topic, topic_len, payload, len, props != NULL);
	for (size_t i = 0; i < n_qos0; i++)
		packet_add(qos0[i], 0, topic, topic_len, payload, len, props != NULL);
}

size_t link_pending(const struct link *l)
{
	(void)l;
	return world.pending;
}

int64_t link_late_ms(struct link *l)
{
	(void)l;
	return world.late_ms;
}

int64_t link_proven_ms(const struct link *l)
{
	(void)l;
	return world.proven_ms ? world.proven_ms : fake_now_ms;
}

void link_prove(struct link *l, int64_t at_ms)
{
	(void)l;
	if (world.wanted_ms < at_ms)
		world.wanted_ms = at_ms;
}

void link_kick(struct link *l, uint64_t session, const char *reason)
{
	(void)l;
	(void)session;
	(void)reason;
	world.kicks++;
}

unsigned world_count(uint64_t handle, const char *topic, size_t from)
{
	unsigned n = 0;

	for (size_t i = from; i < world.n_packets; i++)
		n += world.packets[i].handle == handle && strncmp(world.packets[i].topic, topic, strlen(topic)) == 0;
	return n;
}

const struct packet *world_packet(uint64_t handle, const char *topic, size_t from)
{
	for (size_t i = from; i < world.n_packets; i++)
		if (world.packets[i].handle == handle && strncmp(world.packets[i].topic, topic, strlen(topic)) == 0)
			return &world.packets[i];
	return NULL;
}

/* ---- people */

static void roster_item(Im__Bus__RosterItem *item)
{
	item->version = ++world.roster_version;
	assert_int_equal(roster_apply(world.roster, item), IM_OK);
	delivery_roster_changed(world.delivery, item);
}

void world_user(const char *name)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User user = IM__BUS__USER__INIT;

	user.name = (char *)name;
	item.user = &user;
	roster_item(&item);
}

void world_member(const char *group, const char *user, uint64_t from_seq, uint64_t to_seq)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Group g = IM__BUS__GROUP__INIT;
	Im__Bus__Member m = IM__BUS__MEMBER__INIT;

	if (!roster_group(world.roster, group)) {
		g.name = (char *)group;
		g.owner = (char *)user;
		item.group = &g;
		roster_item(&item);
		item.group = NULL;
	}
	m.group = (char *)group;
	m.user = (char *)user;
	m.role = "member";
	m.from_seq = from_seq;
	m.to_seq = to_seq;
	item.member = &m;
	roster_item(&item);
}

void world_connect_as(uint64_t handle, const char *user, const char *client_id, enum im_codec codec, const char *filters, unsigned protocol)
{
	Im__Bus__Session s = IM__BUS__SESSION__INIT;
	Im__Bus__Filter f[8], *list[8];
	char text[512], *save = NULL;

	snprintf(text, sizeof text, "%s", filters);
	for (char *p = strtok_r(text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		im__bus__filter__init(&f[s.n_filters]);
		f[s.n_filters].filter = p;
		f[s.n_filters].qos = 1;
		list[s.n_filters] = &f[s.n_filters];
		s.n_filters++;
	}
	s.handle = handle;
	s.user = (char *)user;
	s.client_id = (char *)client_id;
	s.protocol = protocol;
	s.keepalive_s = 60;
	s.address = "127.0.0.1";
	s.since_ms = im_clock_wall_ms();
	s.codec = (Im__Bus__Codec)codec;
	s.filters = list;
	s.behind = world.behind;
	delivery_session(world.delivery, &s);
	delivery_flush(world.delivery);
}

void world_connect(uint64_t handle, const char *user, const char *client_id, enum im_codec codec, const char *filters)
{
	world_connect_as(handle, user, client_id, codec, filters, 4);
}

void world_ack(const char *user, const char *client_id, const char *conv, uint64_t delivered, uint64_t read)
{
	Im__Bus__CursorMove mv = IM__BUS__CURSOR_MOVE__INIT;
	const Im__Bus__CursorMove *list[] = { &mv };
	char canonical[IM_CONV_MAX];

	assert_true(im_conv_canonical(user, conv, canonical));
	stored_move(user, client_id, canonical, delivered, 0);
	if (read)
		stored_move(user, "", canonical, 0, read);
	mv.conv = (char *)conv;
	mv.delivered = delivered;
	mv.read = read;
	delivery_cursors(world.delivery, user, client_id, 0, list, 1);
	delivery_flush(world.delivery);
}

/* ---- beginning and end */

void world_create(unsigned seed)
{
	random_state = seed;
	fake_now_ms = 1000000;
	memset(&world, 0, sizeof world);
	stored_begin();
	world.settings = (struct im_settings){ .devices = 32, .device_days = 90, .unnamed = 16, .ack_window = 500, .ack_retry_ms = 10000,
					       .ack_retries = 3, .silent_messages = 200000, .silent_bytes = 64u << 20, .max_message = 262144,
					       .filters = 16, .read_on_send = true };
	world.roster = roster_create();
	assert_int_equal(delivery_create(NULL, &world.settings, NULL, world.roster, NULL, &world.delivery, NULL), IM_OK);
}

void world_destroy(void)
{
	delivery_destroy(world.delivery);
	stored_end();
	assert_true(fake_timers_none());
	for (size_t i = 0; i < world.n_packets; i++) {
		free(world.packets[i].topic);
		free(world.packets[i].payload);
	}
	free(world.packets);
	roster_destroy(world.roster);
}
