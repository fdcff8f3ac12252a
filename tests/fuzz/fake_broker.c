#include "fake_broker.h"

#include "fuzz.h"
#include "wire/topic.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct fake_broker fake;
void (*fake_on_frame)(const Im__Bus__FromPlugin *m);

static struct {
	MOSQ_FUNC_generic_callback fn;
	void *arg;
} callbacks[32];
static void *plugin;
static size_t memory; /* given and not freed: the broker counts what goes through its allocator */

/* A program that exports what only 2.1 exports is a broker of 2.1. */
extern struct mosquitto *mosquitto_client(const char *client_id) __attribute__((weak));
#define EVT_CLIENT_OFFLINE 28 /* since 2.1: DISCONNECT's place when the session is kept */

static bool is_2_1(void)
{
	return mosquitto_client != NULL;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **user_data, struct mosquitto_opt *opts, int n_opts);
int mosquitto_plugin_cleanup(void *user_data, struct mosquitto_opt *opts, int n_opts);

/* ---- what the broker exports ---- */

void *mosquitto_malloc(size_t size)
{
	void *mem = malloc(size);

	memory += mem ? malloc_usable_size(mem) : 0;
	return mem;
}

void mosquitto_free(void *mem)
{
	size_t size = mem ? malloc_usable_size(mem) : 0;

	must(size <= memory); /* not the broker's */
	memory -= size;
	free(mem);
}

char *mosquitto_strdup(const char *s)
{
	char *copy = mosquitto_malloc(strlen(s) + 1);

	return copy ? strcpy(copy, s) : NULL;
}

__attribute__((format(printf, 2, 3)))
void mosquitto_log_printf(int level, const char *fmt, ...)
{
	char line[4096];
	va_list ap;

	(void)level;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (getenv("FUZZ_VERBOSE"))
		(void)fprintf(stderr, "%s\n", line);
	must(!strpbrk(line, "\r\n")); /* a client's bytes must not begin a line of their own */
}

int mosquitto_callback_register(mosquitto_plugin_id_t *id, int event, MOSQ_FUNC_generic_callback fn, const void *data, void *arg)
{
	(void)id;
	if (event > (is_2_1() ? 30 : MOSQ_EVT_DISCONNECT))
		return MOSQ_ERR_NOT_SUPPORTED;
	must(!callbacks[event].fn && (event == MOSQ_EVT_CONTROL) == (data != NULL));
	callbacks[event].fn = fn;
	callbacks[event].arg = arg;
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_callback_unregister(mosquitto_plugin_id_t *id, int event, MOSQ_FUNC_generic_callback fn, const void *data)
{
	(void)id, (void)data;
	must(callbacks[event].fn == fn);
	callbacks[event].fn = NULL;
	return MOSQ_ERR_SUCCESS;
}

static const struct mosquitto *alive(const struct mosquitto *c)
{
	must(c >= fake.contexts && c < fake.contexts + CONTEXTS && c->state != CONTEXT_FREE);
	return c;
}

const char *mosquitto_client_id(const struct mosquitto *c)
{
	return alive(c)->id;
}

const char *mosquitto_client_username(const struct mosquitto *c)
{
	return alive(c)->user;
}

const char *mosquitto_client_address(const struct mosquitto *c)
{
	return alive(c)->address;
}

int mosquitto_client_protocol_version(const struct mosquitto *c)
{
	return alive(c)->protocol;
}

int mosquitto_client_protocol(const struct mosquitto *c)
{
	return alive(c)->websocket ? mp_websockets : mp_mqtt;
}

int mosquitto_client_keepalive(const struct mosquitto *c)
{
	return alive(c)->state == CONTEXT_UP ? 60 : 0;
}

bool mosquitto_client_clean_session(const struct mosquitto *c)
{
	return alive(c)->clean;
}

int mosquitto_set_username(struct mosquitto *c, const char *name)
{
	free(((struct mosquitto *)(uintptr_t)alive(c))->user);
	c->user = strdup(name);
	return c->user ? MOSQ_ERR_SUCCESS : MOSQ_ERR_NOMEM;
}

void *mosquitto_client_certificate(const struct mosquitto *c)
{
	(void)alive(c);
	return NULL; /* no TLS here */
}

bool fake_is_hooked(int event)
{
	return callbacks[event].fn != NULL;
}

static int event(int which, void *data)
{
	must(callbacks[which].fn);
	return callbacks[which].fn(which, data, callbacks[which].arg);
}

/* ---- packets out ---- */

static bool same(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static void packet_free(struct packet *p)
{
	free(p->topic);
	free(p->meant_for);
}

struct mosquitto *fake_find(const char *client_id)
{
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (fake.contexts[i].state >= CONTEXT_UP && same(fake.contexts[i].id, client_id))
			return &fake.contexts[i];
	return NULL;
}

static void note_handle(const Im__Bus__Session *s)
{
	unsigned i = 0;

	while (i < fake.n_handles && fake.handles[i].handle != s->handle)
		i++;
	if (i == HANDLES)
		return;
	if (i == fake.n_handles)
		fake.n_handles++;
	else /* a handle is one connection's for ever */
		must(same(fake.handles[i].user, s->user) && same(fake.handles[i].client_id, s->client_id));
	fake.handles[i].handle = s->handle;
	(void)snprintf(fake.handles[i].user, sizeof(fake.handles[i].user), "%s", s->user);
	(void)snprintf(fake.handles[i].client_id, sizeof(fake.handles[i].client_id), "%s", s->client_id);
}

/* A frame for the service: it learns who is there. */
static void read_frame(const void *payload, size_t len)
{
	Im__Bus__FromPlugin *m = im__bus__from_plugin__unpack(NULL, len, payload);

	must(m);
	for (size_t i = 0; i < m->n_sessions; i++)
		note_handle(m->sessions[i]);
	if (fake_on_frame)
		fake_on_frame(m);
	im__bus__from_plugin__free_unpacked(m, NULL);
}

/* The target writes "@user|client id" into what it delivers to a handle. */
static void check_meant_for(const struct mosquitto *c, const char *payload, int len)
{
	char text[300];

	if (len < 1 || payload[0] != '@')
		return;
	must(c->user && snprintf(text, sizeof(text), "@%s|%s", c->user, c->id) == len && memcmp(text, payload, (size_t)len) == 0);
	fake.delivered++;
}

int mosquitto_broker_publish(const char *client_id, const char *topic, int len, void *payload, int qos, bool retain, mosquitto_property *props)
{
	const struct mosquitto *c;

	must(client_id && topic && len >= 0 && (payload || len == 0) && qos >= 0 && qos <= 1 && !retain);
	must(mosquitto_pub_topic_check(topic) == MOSQ_ERR_SUCCESS);
	c = fake_find(client_id);
	if (c && strcmp(topic, "$im/in") == 0) {
		must(strncmp(client_id, "$im-", 4) == 0 && same(c->user, "$im"));
		read_frame(payload, (size_t)len);
	} else if (c) {
		check_meant_for(c, payload, len);
	}
	if (c && fake.n_queue < QUEUE) {
		fake.queue[fake.n_queue].client_id = strdup(client_id);
		fake.queue[fake.n_queue++].packet = (struct packet){strdup(topic), c->user ? strdup(c->user) : NULL};
	}
	mosquitto_property_free_all(&props);
	mosquitto_free(payload);
	return MOSQ_ERR_SUCCESS;
}

static void flush_one(const char *client_id, struct packet *p)
{
	struct mosquitto *c = fake_find(client_id);

	if (c)
		must(same(c->user, p->meant_for));
	if (c && c->state == CONTEXT_STORED && c->n_queued < 16)
		c->queued[c->n_queued++] = *p;
	else
		packet_free(p);
}

static void flush(void)
{
	for (unsigned i = 0; i < fake.n_queue; i++) {
		flush_one(fake.queue[i].client_id, &fake.queue[i].packet);
		free(fake.queue[i].client_id);
	}
	fake.n_queue = 0;
}

/* ---- contexts ---- */

static void drop_queued(struct mosquitto *c)
{
	while (c->n_queued > 0)
		packet_free(&c->queued[--c->n_queued]);
}

static void context_free(struct mosquitto *c)
{
	drop_queued(c);
	while (c->n_filters > 0)
		free(c->filters[--c->n_filters]);
	free(c->id);
	free(c->user);
	free(c->address);
	free(c->will);
	memset(c, 0, sizeof(*c));
}

/* 2.0 says nothing of the reason. 2.1 does not tell of who never said CONNECT, and has an event for who may come back. */
static void tell_end(struct mosquitto *c, int reason, bool kept)
{
	struct mosquitto_evt_disconnect ev = {.client = c, .reason = is_2_1() ? reason : -1};

	if (is_2_1() && !c->id)
		return;
	(void)event(is_2_1() && kept ? EVT_CLIENT_OFFLINE : MOSQ_EVT_DISCONNECT, &ev);
}

int fake_acl(struct mosquitto *c, int access, const char *topic)
{
	struct mosquitto_evt_acl_check ev = {.client = c, .access = access, .topic = topic};
	int rc = event(MOSQ_EVT_ACL_CHECK, &ev);

	/* Any other code ends somebody's connection. */
	must(rc == MOSQ_ERR_SUCCESS || rc == MOSQ_ERR_ACL_DENIED || rc == MOSQ_ERR_PLUGIN_DEFER);
	return rc;
}

int fake_will(struct mosquitto *c)
{
	struct mosquitto_evt_acl_check ev = {.client = c, .access = MOSQ_ACL_WRITE, .topic = c->will, .payload = "the will", .payloadlen = 8, .qos = 1};
	int rc;

	if (!c->will)
		return MOSQ_ERR_SUCCESS;
	rc = event(MOSQ_EVT_ACL_CHECK, &ev);
	must(rc != MOSQ_ERR_SUCCESS || strncmp(c->will, "im/", 3) != 0); /* the broker would route it past the journal */
	return rc;
}

/* Subscriptions and what is queued go over to the new connection, which is asked about each packet. */
static void take_over(struct mosquitto *old, struct mosquitto *c)
{
	if (old->state == CONTEXT_UP)
		(void)fake_will(old);
	tell_end(old, 142, false); /* a second time if it was stored */
	for (unsigned i = 0; i < old->n_filters && !c->clean; i++)
		c->filters[c->n_filters++] = old->filters[i];
	if (!c->clean)
		old->n_filters = 0;
	for (unsigned i = 0; i < old->n_queued && !c->clean; i++)
		if (fake_acl(c, MOSQ_ACL_READ, old->queued[i].topic) == MOSQ_ERR_SUCCESS)
			must(same(old->queued[i].meant_for, c->user) || strncmp(old->queued[i].topic, "im/", 3) != 0);
	context_free(old);
}

static int authenticate(struct mosquitto *c, const char *password, bool others_accept)
{
	char *copy = password ? strdup(password) : NULL;
	struct mosquitto_evt_basic_auth ev = {.client = c, .username = c->user, .password = copy};
	int rc = event(MOSQ_EVT_BASIC_AUTH, &ev);

	free(copy);
	return rc == MOSQ_ERR_PLUGIN_DEFER && others_accept ? MOSQ_ERR_SUCCESS : rc;
}

struct mosquitto *fake_connect(const struct mosquitto *like, const char *password, bool others_accept)
{
	struct mosquitto *c = NULL, *old;

	for (unsigned i = 0; i < CONTEXTS && !c; i++)
		if (fake.contexts[i].state == CONTEXT_FREE)
			c = &fake.contexts[i];
	if (!c)
		return NULL;
	*c = (struct mosquitto){.state = CONTEXT_LOGIN, .protocol = like->protocol, .clean = like->clean, .websocket = like->websocket};
	c->id = like->id ? strdup(like->id) : NULL;
	c->user = like->user ? strdup(like->user) : NULL;
	c->address = like->address ? strdup(like->address) : NULL;
	if (!c->id || authenticate(c, password, others_accept) != MOSQ_ERR_SUCCESS) {
		tell_end(c, MOSQ_ERR_AUTH, false); /* a failed login, or a socket that never said CONNECT */
		context_free(c);
		return NULL;
	}
	old = fake_find(c->id);
	c->state = CONTEXT_UP;
	c->will = like->will ? strdup(like->will) : NULL;
	if (old)
		take_over(old, c);
	return c;
}

void fake_disconnect(struct mosquitto *c, bool with_will)
{
	tell_end(c, with_will ? MOSQ_ERR_CONN_LOST : MOSQ_ERR_SUCCESS, !c->clean);
	c->kick_due = false;
	if (with_will)
		(void)fake_will(c);
	if (c->clean)
		context_free(c);
	else
		c->state = CONTEXT_STORED;
}

void fake_forget(struct mosquitto *c)
{
	if (!is_2_1())
		tell_end(c, -1, false);
	(void)fake_will(c); /* a delayed one */
	context_free(c);
}

/* A kick of a stored session asks about each of its subscriptions again. */
int mosquitto_kick_client_by_clientid(const char *client_id, bool with_will)
{
	struct mosquitto *c = fake_find(client_id);

	if (!c || c->state != CONTEXT_UP)
		return MOSQ_ERR_NOT_FOUND;
	if (c->websocket && !is_2_1()) {
		c->kick_due = true;
		return MOSQ_ERR_SUCCESS;
	}
	for (unsigned i = 0; i < c->n_filters; i++)
		(void)fake_acl(c, MOSQ_ACL_SUBSCRIBE, c->filters[i]);
	fake_disconnect(c, with_will);
	return MOSQ_ERR_SUCCESS;
}

/* ---- packets in ---- */

static unsigned filter_at(const struct mosquitto *c, const char *filter)
{
	unsigned i = 0;

	while (i < c->n_filters && strcmp(c->filters[i], filter) != 0)
		i++;
	return i;
}

int fake_subscribe(struct mosquitto *c, const char *filter, int qos)
{
	struct mosquitto_evt_acl_check ev = {.client = c, .access = MOSQ_ACL_SUBSCRIBE, .topic = filter, .qos = (uint8_t)qos};
	int rc;

	if (mosquitto_sub_topic_check(filter) != MOSQ_ERR_SUCCESS)
		return MOSQ_ERR_INVAL;
	rc = event(MOSQ_EVT_ACL_CHECK, &ev);
	if (rc == MOSQ_ERR_SUCCESS && c->n_filters < SUBSCRIPTIONS && filter_at(c, filter) == c->n_filters)
		c->filters[c->n_filters++] = strdup(filter);
	return rc;
}

void fake_unsubscribe(struct mosquitto *c, const char *filter)
{
	unsigned i = filter_at(c, filter);

	if (fake_acl(c, MOSQ_ACL_UNSUBSCRIBE, filter) != MOSQ_ERR_SUCCESS || i == c->n_filters)
		return;
	free(c->filters[i]);
	c->filters[i] = c->filters[--c->n_filters];
}

static void distribute(const char *topic)
{
	for (unsigned i = 0; i < CONTEXTS; i++) {
		struct mosquitto *c = &fake.contexts[i];
		bool wants = false;

		for (unsigned k = 0; k < c->n_filters; k++)
			wants = wants || im_filter_matches(c->filters[k], topic);
		if (c->state < CONTEXT_UP || !wants || fake_acl(c, MOSQ_ACL_READ, topic) != MOSQ_ERR_SUCCESS)
			continue;
		must(strncmp(topic, "im/", 3) != 0 && strcmp(topic, "$im/sink") != 0);
		must(strncmp(topic, "$im/", 4) != 0 || same(c->user, "$im"));
	}
}

static int tell_control(struct mosquitto *c, const char *topic, const void *payload, size_t len, int qos)
{
	struct mosquitto_evt_control ev = {.client = c, .topic = topic, .payload = payload, .payloadlen = (uint32_t)len, .qos = (uint8_t)qos};
	int rc = event(MOSQ_EVT_CONTROL, &ev);

	must(rc == MOSQ_ERR_SUCCESS);
	return rc;
}

static int tell_message(struct mosquitto *c, const char *topic, const void *payload, size_t len, int qos, bool retain, mosquitto_property *props)
{
	struct mosquitto_evt_message ev = {.client = c, .payloadlen = (uint32_t)len, .qos = (uint8_t)qos, .retain = retain, .properties = props};
	char *old_topic = strdup(topic), *old_payload = malloc(len ? len : 1);
	int rc;

	if (len > 0)
		memcpy(old_payload, payload, len);
	ev.topic = old_topic;
	ev.payload = len > 0 ? old_payload : NULL;
	rc = event(MOSQ_EVT_MESSAGE, &ev);
	if (rc == MOSQ_ERR_SUCCESS) {
		must(strncmp(topic, "im/", 3) != 0 || (strcmp(ev.topic, "$im/sink") == 0 && !ev.retain && ev.payloadlen == 0));
		distribute(ev.topic);
	} else { /* what was changed and is refused would leak on 2.1 */
		must(ev.topic == old_topic && (len == 0 || ev.payload == old_payload));
	}
	if (ev.topic != old_topic)
		mosquitto_free(ev.topic);
	free(old_topic);
	free(old_payload);
	return rc;
}

int fake_publish(struct mosquitto *c, const char *topic, const void *payload, size_t len, int qos, bool retain, mosquitto_property *props)
{
	struct mosquitto_evt_acl_check ev = {.client = c, .access = MOSQ_ACL_WRITE, .topic = topic, .payload = payload,
					     .payloadlen = (uint32_t)len, .qos = (uint8_t)qos, .retain = retain};
	int rc;

	if (mosquitto_pub_topic_check(topic) != MOSQ_ERR_SUCCESS || topic[0] == '\0')
		return MOSQ_ERR_INVAL;
	rc = event(MOSQ_EVT_ACL_CHECK, &ev);
	must(rc == MOSQ_ERR_SUCCESS || rc == MOSQ_ERR_ACL_DENIED || rc == MOSQ_ERR_PLUGIN_DEFER);
	if (rc != MOSQ_ERR_SUCCESS)
		return rc;
	if (strcmp(topic, "$CONTROL/im/v1") == 0)
		return tell_control(c, topic, payload, len, qos);
	rc = tell_message(c, topic, payload, len, qos, retain, props);
	if (rc != MOSQ_ERR_SUCCESS && rc != MOSQ_ERR_ACL_DENIED)
		fake_disconnect(c, true);
	return rc;
}

/* ---- the loop ---- */

void fake_tick(void)
{
	struct mosquitto_evt_tick ev = {0};

	(void)event(MOSQ_EVT_TICK, &ev);
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (fake.contexts[i].kick_due)
			fake_disconnect(&fake.contexts[i], true);
	flush();
}

/* SIGHUP: everybody is asked about again, stored sessions too, and without their passwords. */
void fake_reload(void)
{
	struct mosquitto_evt_reload ev = {0};

	must(event(MOSQ_EVT_RELOAD, &ev) == MOSQ_ERR_SUCCESS);
	for (unsigned i = 0; i < CONTEXTS; i++) {
		struct mosquitto *c = &fake.contexts[i];

		if (c->state < CONTEXT_UP)
			continue;
		if (authenticate(c, NULL, true) != MOSQ_ERR_SUCCESS && c->state == CONTEXT_UP)
			fake_disconnect(c, true);
	}
}

void fake_broker_start(const char *conf_path)
{
	(void)conf_path;
	memset(&fake, 0, sizeof(fake));
	must(mosquitto_plugin_init(NULL, &plugin, NULL, 0) == MOSQ_ERR_SUCCESS);
}

void fake_broker_stop(void)
{
	flush();
	must(mosquitto_plugin_cleanup(plugin, NULL, 0) == MOSQ_ERR_SUCCESS);
	for (unsigned i = 0; i < CONTEXTS; i++)
		context_free(&fake.contexts[i]);
	must(memory == 0);
}
