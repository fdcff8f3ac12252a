#include "fake_service.h"

#include "fuzz.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char fake_secret[65];
static uint64_t version; /* of the roster */
static uint64_t out_seq;

void fake_service_read_secret(const char *dir)
{
	char path[100];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/run/bus.secret", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && read(fd, fake_secret, 64) == 64);
	(void)close(fd); /* only read */
	version = 0;
}

struct mosquitto *fake_service(void)
{
	struct mosquitto *c = fake_find("$im-offline");

	return c && c->state == CONTEXT_UP && c->user && strcmp(c->user, "$im") == 0 ? c : NULL;
}

void fake_service_send(const Im__Bus__ToPlugin *m)
{
	size_t len = im__bus__to_plugin__get_packed_size(m);
	uint8_t *data = malloc(len + 1);

	im__bus__to_plugin__pack(m, data);
	if (fake_service())
		(void)fake_publish(fake_service(), "$im/out", data, len, 0, false, NULL);
	free(data);
}

static void send_item(Im__Bus__RosterItem *item)
{
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Roster r = IM__BUS__ROSTER__INIT;

	item->version = ++version;
	r.version = version;
	r.items = &item;
	r.n_items = 1;
	m.roster = &r;
	fake_service_send(&m);
}

/* With the token "t-NAME". */
void fake_service_user(const char *name, bool disabled, bool removed)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User u = IM__BUS__USER__INIT;
	Im__Bus__Token t = IM__BUS__TOKEN__INIT, *tokens = &t;
	char token[16];
	uint8_t hash[32];

	(void)snprintf(token, sizeof(token), "t-%s", name);
	crypto_generichash(hash, sizeof(hash), (const uint8_t *)token, strlen(token), NULL, 0);
	t.id = (char *)"t";
	t.hash.data = hash;
	t.hash.len = sizeof(hash);
	u.name = (char *)(uintptr_t)name;
	u.disabled = disabled;
	u.removed = removed;
	u.tokens = &tokens;
	u.n_tokens = removed ? 0 : 1;
	item.user = &u;
	send_item(&item);
}

void fake_service_member(const char *name, uint64_t to_seq)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Group g = IM__BUS__GROUP__INIT;
	Im__Bus__Member m = IM__BUS__MEMBER__INIT;

	g.name = m.group = (char *)"friends";
	g.owner = (char *)"alice";
	item.group = &g;
	send_item(&item);
	item.group = NULL;
	m.user = (char *)(uintptr_t)name;
	m.role = (char *)"member";
	m.from_seq = 1;
	m.to_seq = to_seq;
	item.member = &m;
	send_item(&item);
}

void fake_service_block(const char *user, const char *blocked, bool removed)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Block b = IM__BUS__BLOCK__INIT;

	b.user = (char *)(uintptr_t)user;
	b.blocked = (char *)(uintptr_t)blocked;
	b.removed = removed;
	item.block = &b;
	send_item(&item);
}

void fake_service_up(void)
{
	const struct mosquitto like = {.id = (char *)"$im-offline", .user = (char *)"$im", .address = (char *)"/run/bus.sock", .protocol = 4, .clean = true};
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Hello h = IM__BUS__HELLO__INIT;

	if (!fake_connect(&like, fake_secret, false))
		return;
	(void)fake_subscribe(fake_service(), "$im/in", 1);
	h.protocol = 1;
	h.node = 1;
	m.hello = &h;
	out_seq = 0;
	fake_service_send(&m);
}

/* To a handle that was named once, and may be long gone: "@user|client id" tells the broker who it is for. */
void fake_service_deliver(unsigned which, bool qos1)
{
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Delivery d = IM__BUS__DELIVERY__INIT, *list = &d;
	char text[300];

	if (fake.n_handles == 0)
		return;
	which %= fake.n_handles;
	d.topic = (char *)"im/v1/in/msg/u/bob";
	d.payload.data = (uint8_t *)text;
	d.payload.len = (size_t)snprintf(text, sizeof(text), "@%s|%s", fake.handles[which].user, fake.handles[which].client_id);
	d.qos1 = d.qos0 = &fake.handles[which].handle;
	d.n_qos1 = qos1;
	d.n_qos0 = !qos1;
	m.deliveries = &list;
	m.n_deliveries = 1;
	m.out_seq = ++out_seq;
	fake_service_send(&m);
}

void fake_service_kick(unsigned which)
{
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Kick k = IM__BUS__KICK__INIT, *list = &k;

	if (fake.n_handles == 0)
		return;
	k.session = fake.handles[which % fake.n_handles].handle;
	m.kicks = &list;
	m.n_kicks = 1;
	fake_service_send(&m);
}
