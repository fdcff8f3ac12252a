/*
 * The plugin as a whole, with everything but journal and broker: a stream of the broker's events, in any order. The
 * input is a list of steps, each a byte that says what happens and further bytes that choose who and with what
 * (fake_broker.h: what is watched). Watched here: the journal holds what was acknowledged and nothing else, in the
 * name of whoever the broker says it was; and nobody stays who was removed.
 */
#include "fake_broker.h"
#include "fake_journal.h"
#include "fake_service.h"
#include "fuzz.h"

#include "base/log.h"
#include "bus.pb-c.h"
#include "plugin/plugin.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STEPS_MAX = 200, N_USERS = 4 };

static const char *const users[] = {"alice", "bob", "carol", "mallory", "$im", "stranger", NULL};
static const char *const ids[] = {"alice:phone", "bob:pc", "carol:x", "shared", "mallory:1", "$im-offline", "$im-seqgen", "alice:pc"};
static const char *const topics[] = {
	"im/v1/to/u/bob", "im/v1/to/u/alice/m1", "im/v1/to/g/friends", "im/v1/to/g/friends/m2", "im/v1/to/u/mallory", "im/v1/send",
	"im/v1/send/pb", "im/v1/ack", "im/v1/sig/u/bob", "im/v1/sig/g/friends", "im/v1/req/history/r1", "im/v1/req/user.add/r2",
	"$CONTROL/im/v1", "$CONTROL/im/v1/response", "$im/out", "$im/in", "$im/sink", "im/v1/in/msg/u/alice", "im/v1/svc/x/y/z", "im/",
	"im/v2/to/u/bob", "plain/topic", "$SYS/x", "im/v1/to/u/alice/",
};
static const char *const filters[] = {
	"im/v1/in/#", "im/v1/raw/#", "im/v1/pb/msg/u/+", "#", "+/v1/in/#", "im/#", "$im/#", "$im/in", "$share/g/im/v1/in/#", "$CONTROL/#",
	"im/v1/in/msg/+/+", "plain/#", "$im/sink", "$CONTROL/im/v1/response", "im/v1/room/friends/json", "im/v1/to/#",
};
#define N(list) (sizeof(list) / sizeof((list)[0]))

static char dir[64], conf[80];
static struct plugin *plugin; /* what the callbacks get */

const char *__wrap_im_conf_path_of_broker(void);
enum im_status __real_plugin_start(struct plugin **out);
enum im_status __wrap_plugin_start(struct plugin **out);

/* The broker's command line is not ours. */
const char *__wrap_im_conf_path_of_broker(void)
{
	return strdup(conf);
}

enum im_status __wrap_plugin_start(struct plugin **out)
{
	enum im_status st = __real_plugin_start(out);

	plugin = st == IM_OK ? *out : NULL;
	return st;
}

/* ---- the input ---- */

struct input {
	const uint8_t *data;
	size_t size;
};

static unsigned take(struct input *in)
{
	if (in->size == 0)
		return 0;
	in->size--;
	return *in->data++;
}

/* A length and that many bytes. */
static size_t take_bytes(struct input *in, const uint8_t **out)
{
	size_t len = take(in);

	len = len < in->size ? len : in->size;
	*out = in->data;
	in->data += len;
	in->size -= len;
	return len;
}

static const char *take_text(struct input *in, char out[256])
{
	const uint8_t *bytes;
	size_t len = take_bytes(in, &bytes);

	(void)snprintf(out, 256, "%.*s", (int)len, (const char *)bytes);
	return out;
}

/* One of a list, or with the last choice what the input says. */
static const char *take_one(struct input *in, const char *const *list, size_t n, char room[256])
{
	unsigned which = take(in);

	return which == 255 ? take_text(in, room) : list[which % n];
}

static struct mosquitto *take_context(struct input *in, enum context_state least)
{
	struct mosquitto *c = &fake.contexts[take(in) % CONTEXTS];

	return c->state >= least ? c : NULL;
}

/* ---- the service ---- */

static void query(struct input *in)
{
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Query q = IM__BUS__QUERY__INIT, *list = &q;
	char a[256], b[256], text[800];
	static const char *const actions[] = {"connect", "publish", "subscribe", "sessions", "status"};

	(void)snprintf(text, sizeof(text), "{\"query\":\"%s\",\"user\":\"%s\",\"action\":\"%s\",\"what\":\"%s\"}", take(in) % 8 ? "why" : "status",
		       take_one(in, users, N_USERS, a), actions[take(in) % N(actions)], take_text(in, b));
	if (!im_utf8_valid(text, strlen(text)))
		return; /* our own service sends strings */
	q.id = 1;
	q.json = text;
	m.queries = &list;
	m.n_queries = 1;
	fake_service_send(&m);
}

static void raw_frame(struct input *in)
{
	const uint8_t *bytes;
	size_t len = take_bytes(in, &bytes);

	if (fake_service())
		(void)fake_publish(fake_service(), "$im/out", bytes, len, 0, false, NULL);
}

static void roster_changes(struct input *in)
{
	unsigned what = take(in);
	const char *who = users[what % N_USERS];

	switch (what / N_USERS % 6) {
	case 0:
	case 1:
		fake_service_user(who, what & 128, false);
		return;
	case 2:
		fake_service_user(who, false, true);
		return;
	case 3:
		fake_service_member(who, what & 128 ? 9 : 0);
		return;
	default:
		fake_service_block(who, users[(what >> 2) % N_USERS], what & 64);
	}
}

/* ---- clients ---- */

static void connect_client(struct input *in)
{
	static const char *const addresses[] = {"127.0.0.1", "::1", "/run/bus.sock", "10.1.2.3"};
	unsigned how = take(in);
	const char *user = users[take(in) % N(users)];
	char room[256], token[80], will[256];
	struct mosquitto like = {.user = (char *)(uintptr_t)user, .protocol = 3 + (int)(how & 3) % 3, .clean = how & 4, .websocket = how & 8};
	struct mosquitto *c;

	like.id = (char *)(uintptr_t)take_one(in, ids, N(ids), room);
	if (like.id[0] == '\0')
		like.id = NULL; /* a port scan */
	like.address = (char *)(uintptr_t)addresses[how >> 6];
	if (how & 16)
		like.will = (char *)(uintptr_t)take_one(in, topics, N(topics), will);
	(void)snprintf(token, sizeof(token), "t-%s", user ? user : "");
	if (user && strcmp(user, "$im") == 0)
		(void)snprintf(token, sizeof(token), "%s", fake_secret);
	if (how & 32)
		token[0] ^= 1;
	c = fake_connect(&like, token, how & 128);
	if (c && roster_user(plugin->roster, user ? user : ""))
		must(!(how & 32) && !roster_user(plugin->roster, user)->disabled);
}

static mosquitto_property *take_properties(struct input *in)
{
	mosquitto_property *p = NULL;
	unsigned which = take(in);
	char room[256];

	if (which & 1)
		(void)mosquitto_property_add_string(&p, MQTT_PROP_CONTENT_TYPE, take_text(in, room));
	if (which & 2)
		(void)mosquitto_property_add_string(&p, MQTT_PROP_RESPONSE_TOPIC, which & 4 ? "im/v1/in/res/r" : take_text(in, room));
	if (which & 8)
		(void)mosquitto_property_add_binary(&p, MQTT_PROP_CORRELATION_DATA, "abc", 3);
	if (which & 16)
		(void)mosquitto_property_add_string_pair(&p, MQTT_PROP_USER_PROPERTY, which & 32 ? "im-id" : "x", take_text(in, room));
	return p;
}

/* What the broker is told to acknowledge must be in the journal, in the sender's name; what it is not, must not be. */
static void check_journal(const struct mosquitto *c, const char *topic, int qos, int rc, unsigned before)
{
	const Im__Bus__Record *r = fake_journal.newest;
	unsigned grown = fake_journal.n_records - before;
	bool kept = strncmp(topic, "im/", 3) == 0 && strncmp(topic, "im/v1/sig/", 10) != 0;
	/* A session that resumes may write to the sink, where its QoS 2 messages lie; one that uses this is told that it may not. */
	bool refusable = strncmp(topic, "im/", 3) == 0 || (strcmp(topic, "$im/sink") == 0 && r && r->kind == IM__BUS__KIND__KIND_REFUSAL);

	must(grown <= 1 && (grown == 0 || (fake_journal.says == IM_OK && rc == MOSQ_ERR_SUCCESS && refusable)));
	if (grown == 1)
		must(c->state >= CONTEXT_UP && strcmp(r->user, c->user) == 0 && strcmp(r->client_id, c->id) == 0);
	else
		must(!(kept && qos > 0 && rc == MOSQ_ERR_SUCCESS));
	if (grown == 1 && r->kind == IM__BUS__KIND__KIND_SEND)
		must(r->conv[0] == 'g' ? roster_is_member(plugin->roster, r->conv + 2, r->user) : roster_user(plugin->roster, r->conv + 2) != NULL);
}

static void publish(struct input *in)
{
	struct mosquitto *c = take_context(in, CONTEXT_UP);
	unsigned how = take(in), before = fake_journal.n_records;
	char room[256];
	const char *topic = take_one(in, topics, N(topics), room);
	mosquitto_property *props = how & 8 ? take_properties(in) : NULL;
	const uint8_t *payload;
	size_t len = take_bytes(in, &payload);
	int rc, qos = (int)(how & 3) % 3;

	if (c && c->state == CONTEXT_UP && (c->clean || !c->kick_due)) {
		struct mosquitto copy = *c; /* it may be gone afterwards */

		copy.user = c->user ? strdup(c->user) : strdup("");
		copy.id = strdup(c->id);
		rc = fake_publish(c, topic, payload, len, qos, how & 4, props);
		check_journal(&copy, topic, qos, rc, before);
		free(copy.user);
		free(copy.id);
	}
	mosquitto_property_free_all(&props);
}

/* Of those who are gone too: a delayed will. */
static void will(struct input *in)
{
	struct mosquitto *c = take_context(in, CONTEXT_STORED);
	unsigned before = fake_journal.n_records;

	if (!c || !c->user)
		return;
	(void)fake_will(c);
	if (fake_journal.n_records > before)
		must(strcmp(fake_journal.newest->user, c->user) == 0 && strcmp(fake_journal.newest->client_id, c->id) == 0);
}

static void gone_are_gone(void)
{
	for (unsigned i = 0; i < CONTEXTS; i++) {
		const struct mosquitto *c = &fake.contexts[i];
		const struct session *s = c->state == CONTEXT_UP ? session_by_context(plugin->sessions, c) : NULL;

		if (s && !s->service)
			must(roster_user(plugin->roster, s->user) && !roster_user(plugin->roster, s->user)->disabled);
	}
}

static void step(struct input *in)
{
	struct mosquitto *c;
	char room[256];

	switch (take(in) % 20) {
	case 0:
	case 1:
		connect_client(in);
		return;
	case 2:
	case 3:
		c = take_context(in, CONTEXT_UP);
		if (c && c->state == CONTEXT_UP)
			(void)fake_subscribe(c, take_one(in, filters, N(filters), room), (int)(take(in) % 3));
		return;
	case 4:
		c = take_context(in, CONTEXT_UP);
		if (c && c->state == CONTEXT_UP)
			fake_unsubscribe(c, take_one(in, filters, N(filters), room));
		return;
	case 5:
	case 6:
	case 7:
		publish(in);
		return;
	case 8:
		c = take_context(in, CONTEXT_UP);
		if (c && c->state == CONTEXT_UP)
			fake_disconnect(c, take(in) & 1);
		return;
	case 9:
		c = take_context(in, CONTEXT_STORED);
		if (c && c->state == CONTEXT_STORED)
			fake_forget(c);
		return;
	case 10:
		will(in);
		return;
	case 11:
	case 12:
		fake_tick();
		gone_are_gone();
		return;
	case 13:
		fake_reload();
		return;
	case 14:
		roster_changes(in);
		return;
	case 15:
		fake_service_deliver(take(in), take(in) & 1);
		return;
	case 16:
		fake_service_kick(take(in));
		return;
	case 17:
		query(in);
		return;
	case 18:
		if (take(in) & 1)
			raw_frame(in);
		else if (!fake_service())
			fake_service_up();
		return;
	default:
		fake_journal.says = (const enum im_status[]){IM_OK, IM_BUSY, IM_FAILED}[take(in) % 3];
	}
}

/* ---- a life ---- */

static void write_conf(void)
{
	FILE *f = fopen(conf, "w");

	must(f);
	(void)fprintf(f, "set_tcp_nodelay true\nmax_queued_messages 1000000\nallow_duplicate_messages true\nallow_anonymous true\nlistener 0 %s/run/bus.sock\nplugin /x/mosquitto_im.so\n"
			 "plugin_opt_im_dir %s\nplugin_opt_im_admins bob\nplugin_opt_im_rate_refusals 20\nplugin_opt_im_filters 3\n", dir, dir);
	must(fclose(f) == 0);
}

static void forget_files(void)
{
	static const char *const names[] = {"sessions", "roster", "run/bus.secret"};
	char path[100];

	for (size_t i = 0; i < N(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)unlink(path);
	}
}

static void remove_dir(void)
{
	char path[100];

	forget_files();
	(void)unlink(conf);
	(void)snprintf(path, sizeof(path), "%s/run", dir);
	(void)rmdir(path);
	(void)rmdir(dir);
}

static void make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(dir, sizeof(dir), "%.30s/im-plugin-fuzz-XXXXXX", tmp ? tmp : "/tmp");
	must(mkdtemp(dir));
	(void)snprintf(conf, sizeof(conf), "%s/broker.conf", dir);
	write_conf();
	(void)atexit(remove_dir);
}

static void start(void)
{
	fake_journal_clear();
	fake_broker_start(conf);
	fake_service_read_secret(dir);
	fake_service_up();
	for (unsigned i = 0; i < N_USERS; i++)
		fake_service_user(users[i], i == 2, false); /* carol is disabled */
	fake_service_member("alice", 0);
	fake_service_member("bob", 0);
	fake_tick();
	must(roster_count_users(plugin->roster) == N_USERS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	if (dir[0] == '\0')
		make_dir();
	start();
	for (unsigned n = 0; n < STEPS_MAX && in.size > 0; n++)
		step(&in);
	fake_tick();
	fake_broker_stop();
	fake_journal_clear();
	forget_files();
	return 0;
}
