/* Stock clients: they connect, subscribe, send, repeat, ack, read what is on their socket, and go. */
#include "clients.h"

#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOCKET 1024 /* packets unread; the broker's own limit is not what is looked at here */
#define BURST_MOST 9
#define SLOW_MS 1000 /* longer no client leaves unread what has reached it, unless it goes */

struct sim_device sim_devices[SIM_DEVICES];
struct sim_send sim_sends[SIM_MESSAGES];
unsigned sim_n_sends;
unsigned sim_era;

const char *const sim_users[] = {"alice", "bob", "carol"};
const char *const sim_conv_names[] = {"u/alice:bob", "u/alice:carol", "u/bob:carol", "g/tea", "g/jam"};

static const struct {
	int user;
	const char *client_id;
	bool acks;
} who[SIM_DEVICES] = {
	{0, "alice:phone", true}, {1, "bob:pc", false}, {0, "alice:pad", false}, {2, "carol:tv", true},
	{1, "bob-unnamed", false}, {2, "carol:pc", false}, {0, "alice:old", false},
};

struct packet {
	char *topic, *payload;
	unsigned era;
	int64_t at;
};
static struct socket {
	struct packet all[SOCKET];  /* round and round */
	unsigned first;
} sockets[SIM_DEVICES];
static unsigned n_devices;

/* ---- small readers */

bool json_text(const char *at, const char *key, char *out, size_t room)
{
	char pattern[32];
	const char *p, *end;

	(void)snprintf(pattern, sizeof(pattern), "\"%s\":\"", key);
	p = strstr(at, pattern);
	if (!p)
		return false;
	p += strlen(pattern);
	end = strchr(p, '"');
	if (!end || (size_t)(end - p) >= room)
		return false;
	memcpy(out, p, (size_t)(end - p));
	out[end - p] = '\0';
	return true;
}

uint64_t json_number(const char *at, const char *key)
{
	char pattern[32];
	const char *p;

	(void)snprintf(pattern, sizeof(pattern), "\"%s\":", key);
	p = strstr(at, pattern);
	return p ? strtoull(p + strlen(pattern), NULL, 10) : 0;
}

struct sim_device *device_by_handle(uint64_t handle)
{
	for (unsigned i = 0; i < SIM_DEVICES; i++)
		if (handle && sim_devices[i].handle == handle)
			return &sim_devices[i];
	return NULL;
}

struct sim_device *device_by_client_id(const char *client_id)
{
	for (unsigned i = 0; i < SIM_DEVICES; i++)
		if (strcmp(sim_devices[i].client_id, client_id) == 0)
			return &sim_devices[i];
	return NULL;
}

static unsigned index_of(const struct sim_device *dev)
{
	return (unsigned)(dev - sim_devices);
}

static struct packet *unread(const struct sim_device *dev, unsigned i)
{
	struct socket *s = &sockets[index_of(dev)];

	return &s->all[(s->first + i) % SOCKET];
}

/* ---- reading */

void client_packet(const char *client_id, const char *topic, const void *payload, size_t len)
{
	struct sim_device *dev = device_by_client_id(client_id);
	struct packet *p;

	if (!dev || !dev->handle)
		return;
	if (dev->packets == SOCKET)
		sim_fail("%s: more than %d packets unread", client_id, SOCKET);
	p = unread(dev, dev->packets++);
	p->topic = strdup(topic);
	p->payload = strndup(len ? payload : "", len);
	p->era = sim_era;
	p->at = fake_now_ms;
}

static void read_message(struct sim_device *dev, const struct packet *p)
{
	char face[80], canonical[IM_CONV_MAX], body[16];
	uint64_t seq = json_number(p->payload, "seq");
	int conv, at;

	if (!json_text(p->payload, "conv", face, sizeof(face)) || !im_conv_canonical(sim_users[dev->user], face, canonical))
		sim_fail("%s: a message of no conversation: %s", dev->client_id, p->payload);
	conv = sim_conv_of(canonical);
	at = conv < 0 ? -1 : find_message(conv, seq);
	if (at < 0)
		return; /* it was there when it was told; the store has been rolled back since */
	sim_trace("  %s reads %s %llu", dev->client_id, canonical, (unsigned long long)seq);
	if (sim_messages[at].send >= 0 &&
	    (!json_text(p->payload, "body", body, sizeof(body)) || atoi(body + 1) != sim_messages[at].send))
		sim_fail("%s: %s %llu has another body: %s", dev->client_id, canonical, (unsigned long long)seq, p->payload);
	COUNT(deliveries);
	if (!sim_healing)
		COUNT(before_heal);
	if (bit(&dev->received, (unsigned)at))
		COUNT(repeated_deliveries);
	check_received(dev, &sim_messages[at]);
	bit_set(&dev->in_session, (unsigned)at);
	bit_set(&dev->received, (unsigned)at);
	if (dev->newest[conv] < seq)
		dev->newest[conv] = seq;
}

static void read_acks(struct sim_device *dev, const char *payload)
{
	for (const char *at = strstr(payload, "{"); at; at = strstr(at + 1, "{")) {
		uint64_t seq = json_number(at, "seq");
		char msgid[32];

		if (!json_text(at, "msgid", msgid, sizeof(msgid)))
			sim_fail("%s: an ack without msgid", dev->client_id);
		COUNT(acks_handed);
		for (unsigned i = 0; i < sim_n_messages; i++) {
			if (!sim_messages[i].there || sim_messages[i].seq != seq || strcmp(sim_messages[i].msgid, msgid) != 0)
				continue;
			bit_set(&dev->got_ack, i);
		}
	}
}

static void read_one(struct sim_device *dev)
{
	struct packet p = *unread(dev, 0);

	sockets[index_of(dev)].first++;
	dev->packets--;
	if (p.era != dev->era) { /* the service has begun this session anew: from what is settled */
		dev->era = p.era;
		dev->changed = dev->changed_in == p.era;
		memset(dev->newest, 0, sizeof(dev->newest));
		memset(dev->acked, 0, sizeof(dev->acked));
		memset(&dev->in_session, 0, sizeof(dev->in_session));
	}
	if (strncmp(p.topic, "im/v1/in/msg/", 13) == 0 || strncmp(p.topic, "im/v1/in/sent/", 14) == 0)
		read_message(dev, &p);
	else if (strcmp(p.topic, "im/v1/in/ack") == 0)
		read_acks(dev, p.payload);
	free(p.topic);
	free(p.payload);
}

void clients_read(void)
{
	struct sim_device *dev = &sim_devices[sim_random(n_devices)];
	unsigned n = sim_random(dev->packets + 1);

	while (n-- > 0)
		read_one(dev);
}

void clients_read_all(void)
{
	for (unsigned i = 0; i < SIM_DEVICES; i++)
		while (sim_devices[i].packets)
			read_one(&sim_devices[i]);
}

static void lose_packets(struct sim_device *dev)
{
	while (dev->packets) {
		free(unread(dev, --dev->packets)->topic);
		free(unread(dev, dev->packets)->payload);
	}
}

/* ---- coming and going */

static void subscribe(struct sim_device *dev, unsigned way)
{
	static const char *const all[] = {"im/v1/in/#"};
	static const char *const messages[] = {"im/v1/in/msg/#", "im/v1/in/ack"};
	static const char *const one[] = {"im/v1/in/msg/g/tea", "im/v1/in/ack"};
	static const char *const *const lists[] = {all, messages, one};

	dev->changed = true;
	if (dev->subscribed)
		dev->changed_in = sim_era; /* of which nothing may have been read yet */
	dev->subscribed = true;
	if (way)
		dev->no_sent = true;
	sim_trace("%s subscribes %s", dev->client_id, lists[way][0]);
	plugin_subscribe(index_of(dev), lists[way], way ? 2 : 1);
}

static void connect(struct sim_device *dev)
{
	if (dev->handle)
		COUNT(takeovers);
	COUNT(connects);
	lose_packets(dev);
	dev->subscribed = false;
	dev->changed_in = 0;
	dev->keepalive_s = sim_chance(80) ? 60 : 0;
	dev->handle = plugin_connect(index_of(dev), sim_users[dev->user], dev->client_id, dev->keepalive_s);
	dev->era = 0;
	sim_trace("%s connects: %llx", dev->client_id, (unsigned long long)dev->handle);
}

void clients_connect(void)
{
	struct sim_device *dev = &sim_devices[sim_random(n_devices)];

	if (dev->handle && !sim_chance(30))
		return;
	connect(dev);
	if (sim_chance(85))
		subscribe(dev, sim_chance(85) ? 0 : 1 + sim_random(2));
}

void clients_subscribe(void)
{
	struct sim_device *dev = &sim_devices[sim_random(n_devices)];

	if (dev->handle)
		subscribe(dev, sim_chance(70) ? 0 : 1 + sim_random(2));
}

static void disconnect(struct sim_device *dev)
{
	uint64_t handle = dev->handle;

	COUNT(disconnects);
	sim_trace("%s goes, %u packets unread", dev->client_id, dev->packets);
	lose_packets(dev);
	dev->handle = 0;
	plugin_disconnect(handle);
}

void clients_disconnect(void)
{
	struct sim_device *dev = &sim_devices[sim_random(n_devices)];

	if (dev->handle)
		disconnect(dev);
}

/* Without a keepalive nobody would notice, and nothing is promised. */
void clients_vanish(int64_t heard_in_ms)
{
	struct sim_device *dev = &sim_devices[sim_random(n_devices)];

	for (unsigned n = 0; n < 4 && !dev->packets; n++)
		dev = &sim_devices[sim_random(n_devices)]; /* one that has something to lose, most often */
	if (!dev->handle || !dev->keepalive_s)
		return;
	COUNT(vanished);
	if (dev->packets)
		COUNT(vanished_unread);
	while (dev->packets && fake_now_ms - unread(dev, 0)->at >= SLOW_MS)
		read_one(dev);
	sim_trace("%s is lost, %u packets unread", dev->client_id, dev->packets);
	lose_packets(dev);
	dev->handle = 0;
	plugin_lost(index_of(dev), fake_now_ms + heard_in_ms);
}

void clients_all_gone(uint64_t epoch)
{
	for (unsigned i = 0; i < sim_n_sends; i++)
		sim_sends[i].maybe |= epoch && sim_sends[i].failed_in == epoch;
	for (unsigned i = 0; i < SIM_DEVICES; i++) {
		lose_packets(&sim_devices[i]);
		sim_devices[i].handle = 0;
	}
}

void clients_lost(uint64_t from, uint64_t up_to)
{
	for (unsigned i = 0; i < sim_n_sends; i++) {
		struct sim_send *s = &sim_sends[i];

		s->may_be_lost |= s->stored < 0 && (s->accepted_in >= from || s->accepted_in <= up_to);
	}
}

void clients_return(unsigned percent)
{
	for (unsigned i = 0; i < n_devices && plugin_is_up(); i++) {
		struct sim_device *dev = &sim_devices[i];

		if (!sim_chance(percent))
			continue;
		if (!dev->handle)
			connect(dev);
		subscribe(dev, 0);
	}
}

/* ---- sending */

static bool accept(const Im__Bus__Record *r, bool *died, uint64_t *failed_in)
{
	uint8_t packed[512];
	size_t len = im__bus__record__get_packed_size(r);

	if (len > sizeof(packed))
		sim_fail("a record of %zu bytes", len);
	(void)im__bus__record__pack(r, packed);
	return plugin_accept(packed, len, died, failed_in);
}

static void record_of(Im__Bus__Record *r, const struct sim_device *dev, Im__Bus__Kind kind)
{
	im__bus__record__init(r);
	r->kind = kind;
	r->ts = sim_wall_ms;
	r->user = (char *)(uintptr_t)sim_users[dev->user];
	r->client_id = (char *)(uintptr_t)dev->client_id;
	r->session = dev->handle;
	r->qos = 1;
}

static void publish(int at)
{
	struct sim_send *send = &sim_sends[at];
	struct sim_device *dev = &sim_devices[send->device];
	char face[IM_CONV_MAX], body[16];
	uint64_t failed_in;
	Im__Bus__Record r;
	bool died;

	record_of(&r, dev, IM__BUS__KIND__KIND_SEND);
	(void)im_conv_as_seen(sim_conv_names[send->conv], sim_users[dev->user], face);
	(void)snprintf(body, sizeof(body), "n%d", at);
	r.conv = face;
	r.id = send->id;
	r.type = (char *)(uintptr_t)"text";
	r.body.data = (uint8_t *)body;
	r.body.len = strlen(body);
	if (accept(&r, &died, &failed_in)) {
		COUNT(accepted);
		if (send->accepted++ == 0)
			send->accepted_in = plugin_epoch();
		sim_trace("%s sends %s to %s, id \"%s\"", dev->client_id, body, sim_conv_names[send->conv], send->id);
	} else {
		send->maybe |= died;
		if (failed_in)
			send->failed_in = failed_in;
		sim_trace("%s sends %s, and gets no PUBACK", dev->client_id, body);
	}
}

static bool may_send(int user, int conv)
{
	char face[IM_CONV_MAX];

	if (sim_conv_names[conv][0] == 'g')
		return plugin_roster_has(sim_conv_names[conv] + 2, sim_users[user]);
	return im_conv_as_seen(sim_conv_names[conv], sim_users[user], face);
}

static int new_send(int device, int conv, const char *id)
{
	struct sim_send *send;

	if (sim_n_sends == SIM_MESSAGES / 2)
		return -1;
	send = &sim_sends[sim_n_sends];
	*send = (struct sim_send){.device = device, .conv = conv, .stored = -1};
	(void)snprintf(send->id, sizeof(send->id), "%s", id);
	return (int)sim_n_sends++;
}

static void send(int device, int conv)
{
	struct sim_device *dev = &sim_devices[device];
	char id[12] = "";
	int at;

	if (!dev->handle || !may_send(dev->user, conv))
		return;
	if (sim_chance(75))
		(void)snprintf(id, sizeof(id), "m%u", ++dev->ids);
	at = new_send(device, conv, id);
	if (at >= 0)
		publish(at);
}

/* Somebody who is there, most often. */
static int any_sender(void)
{
	unsigned device = sim_random(n_devices);

	for (unsigned n = 0; n < 3 && !sim_devices[device].handle; n++)
		device = sim_random(n_devices);
	return (int)device;
}

void clients_send(void)
{
	send(any_sender(), (int)sim_random(SIM_CONVS));
}

/* One talks much, to one or two: pages, windows and slices are of one conversation. */
void clients_burst(void)
{
	int device = any_sender(), convs[2] = {(int)sim_random(SIM_CONVS), (int)sim_random(SIM_CONVS)};
	bool both = sim_chance(30);

	COUNT(bursts);
	for (unsigned n = 2 + sim_random(BURST_MOST - 1); n > 0; n--)
		send(device, convs[both && sim_chance(50)]);
}

/* No PUBACK, or none that was heard: again under the same id. Sometimes another message under an old id. */
void clients_repeat(void)
{
	struct sim_device *dev;
	struct sim_send *send;
	unsigned back;
	int at;

	if (!sim_n_sends)
		return;
	back = sim_random(sim_n_sends < 12 ? sim_n_sends : 12);
	at = (int)(sim_n_sends - 1 - back);
	send = &sim_sends[at];
	dev = &sim_devices[send->device];
	if (!dev->handle || !send->id[0] || !may_send(dev->user, send->conv))
		return;
	if (sim_chance(15)) {
		COUNT(id_reused);
		at = new_send(send->device, send->conv, send->id);
	} else {
		COUNT(repeats);
	}
	if (at >= 0)
		publish(at);
}

static void ack(struct sim_device *dev, int conv, uint64_t delivered, bool read)
{
	Im__Bus__CursorMove move = IM__BUS__CURSOR_MOVE__INIT, *list = &move;
	char face[IM_CONV_MAX];
	uint64_t failed_in;
	Im__Bus__Record r;
	bool died;

	if (!im_conv_as_seen(sim_conv_names[conv], sim_users[dev->user], face))
		return;
	record_of(&r, dev, IM__BUS__KIND__KIND_ACK);
	move.conv = face;
	move.delivered = delivered;
	move.read = read ? delivered : 0;
	r.cursors = &list;
	r.n_cursors = 1;
	COUNT(client_acks);
	sim_trace("%s acks %s %llu", dev->client_id, sim_conv_names[conv], (unsigned long long)delivered);
	if (!accept(&r, &died, &failed_in) || delivered > dev->newest[conv])
		return;
	check_acked(index_of(dev), conv, delivered);
	if (dev->acked[conv] < delivered)
		dev->acked[conv] = delivered;
}

/* What was read, or a bit less; sometimes what cannot be. */
void clients_ack(void)
{
	struct sim_device *dev = &sim_devices[sim_random(n_devices)];
	int conv = (int)sim_random(SIM_CONVS);
	uint64_t delivered = dev->newest[conv];

	if (!dev->handle || !dev->acks || dev->era != sim_era || !delivered)
		return;
	if (sim_chance(20))
		delivered -= sim_random((unsigned)delivered);
	if (sim_chance(3)) {
		delivered = newest_there(conv) + 1000;
		COUNT(bad_acks);
	}
	ack(dev, conv, delivered, sim_chance(30));
}

void clients_ack_all(void)
{
	for (unsigned i = 0; i < n_devices; i++) {
		struct sim_device *dev = &sim_devices[i];

		for (int conv = 0; conv < (int)SIM_CONVS; conv++)
			if (dev->handle && dev->acks && dev->era == sim_era && dev->acked[conv] < dev->newest[conv])
				ack(dev, conv, dev->newest[conv], false);
	}
}

void clients_member(void)
{
	const char *group = sim_chance(70) ? "tea" : "jam", *user = sim_users[1 + sim_random(2)];
	bool join = !plugin_roster_has(group, user);
	char json[128];

	if (join)
		COUNT(joins);
	else
		COUNT(leaves);
	sim_trace("%s %s %s", user, join ? "joins" : "leaves", group);
	(void)snprintf(json, sizeof(json), "{\"commands\":[{\"command\":\"group.%s\",\"group\":\"%s\",\"users\":[\"%s\"]}]}",
		       join ? "add" : "kick", group, user);
	plugin_control(json);
}

bool clients_quiet(void)
{
	for (unsigned i = 0; i < SIM_DEVICES; i++)
		if (sim_devices[i].packets)
			return false;
	return true;
}

void clients_begin(void)
{
	clients_all_gone(0);
	n_devices = sim_chance(50) ? SIM_DEVICES : 2 + sim_random(SIM_DEVICES - 1);
	sim_n_sends = 0;
	sim_era = 1;
	memset(sim_devices, 0, sizeof(sim_devices));
	for (unsigned i = 0; i < SIM_DEVICES; i++) {
		sim_devices[i].user = who[i].user;
		sim_devices[i].client_id = who[i].client_id;
		sim_devices[i].acks = who[i].acks;
	}
}
