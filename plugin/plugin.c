/*
 * What we hook, and nothing else: each callback unpacks its event, asks a file beside this one, and
 * translates the answer. Two answers of the broker's API matter most: anything but SUCCESS and ACL_DENIED
 * ends somebody's connection, and a READ answered so ends the publisher's.
 */
#include "acl.h"
#include "control.h"
#include "plugin.h"
#include "route.h"

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

#define EXPORT __attribute__((visibility("default")))

static int on_reload(int event, void *data, void *arg)
{
	(void)event, (void)data;
	plugin_reload(arg);
	return MOSQ_ERR_SUCCESS; /* any other ends a 2.1 broker */
}

static int on_basic_auth(int event, void *data, void *arg)
{
	struct mosquitto_evt_basic_auth *ev = data;

	(void)event;
	switch (plugin_login(arg, ev->client, ev->password)) {
	case AUTH_OURS:
	case AUTH_SERVICE:
	case AUTH_FOREIGN:
		return MOSQ_ERR_SUCCESS;
	case AUTH_DEFER:
		return MOSQ_ERR_PLUGIN_DEFER;
	case AUTH_REFUSE:
		return MOSQ_ERR_AUTH;
	case AUTH_LATER:
		break;
	}
	return MOSQ_ERR_UNKNOWN; /* closed without CONNACK */
}

static int on_acl_check(int event, void *data, void *arg)
{
	const struct mosquitto_evt_acl_check *ev = data;
	const struct acl_event e = {
		.context = ev->client, .access = (enum acl_access)ev->access, .topic = ev->topic,
		.payload = ev->payload, .len = ev->payloadlen, .qos = ev->qos, .retain = ev->retain,
	};

	(void)event;
	switch (acl_check(arg, &e)) {
	case ACL_ALLOW:
		return MOSQ_ERR_SUCCESS;
	case ACL_DEFER:
		return MOSQ_ERR_PLUGIN_DEFER;
	case ACL_DENY:
		break;
	}
	return MOSQ_ERR_ACL_DENIED;
}

/* The broker frees the old topic and payload itself. With the retain flag the sink would keep a message for ever. */
static int swallow(struct mosquitto_evt_message *ev)
{
	char *sink = broker_strdup("$im/sink");

	if (!sink)
		return MOSQ_ERR_UNKNOWN;
	ev->topic = sink;
	ev->payload = NULL;
	ev->payloadlen = 0;
	ev->retain = false;
	return MOSQ_ERR_SUCCESS;
}

static int on_message(int event, void *data, void *arg)
{
	struct plugin *p = arg;
	struct mosquitto_evt_message *ev = data;
	struct session *s = session_by_context(p->sessions, ev->client);
	const struct route_publish m = {
		.topic = ev->topic, .payload = ev->payload, .len = ev->payloadlen,
		.qos = ev->qos, .retain = ev->retain, .properties = ev->properties,
	};

	(void)event;
	if (!s)
		return MOSQ_ERR_SUCCESS; /* ordinary topics of others; ACL_CHECK let nothing else pass */
	switch (route_message(p, s, &m)) {
	case ROUTE_PASS:
		return MOSQ_ERR_SUCCESS;
	case ROUTE_SWALLOW:
		return swallow(ev);
	case ROUTE_DENY:
		return MOSQ_ERR_ACL_DENIED;
	case ROUTE_CLOSE:
		break;
	}
	return MOSQ_ERR_UNKNOWN;
}

static int on_control(int event, void *data, void *arg)
{
	const struct mosquitto_evt_control *ev = data;

	(void)event;
	control_message(arg, ev->client, ev->topic, ev->payload, ev->payloadlen);
	return MOSQ_ERR_SUCCESS; /* errors are in the answer */
}

static int on_disconnect(int event, void *data, void *arg)
{
	(void)event;
	plugin_disconnected(arg, ((const struct mosquitto_evt_disconnect *)data)->client);
	return MOSQ_ERR_SUCCESS;
}

static int on_tick(int event, void *data, void *arg)
{
	(void)event, (void)data;
	plugin_tick(arg);
	return MOSQ_ERR_SUCCESS;
}

static const struct hook {
	int event;
	int (*callback)(int event, void *data, void *arg);
	const char *topic;
} hooks[] = {
	{ MOSQ_EVT_RELOAD, on_reload, NULL },
	{ MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL },
	{ MOSQ_EVT_ACL_CHECK, on_acl_check, NULL },
	{ MOSQ_EVT_MESSAGE, on_message, NULL },
	{ MOSQ_EVT_CONTROL, on_control, "$CONTROL/im/v1" },
	{ MOSQ_EVT_DISCONNECT, on_disconnect, NULL },
	{ MOSQ_EVT_TICK, on_tick, NULL },
};
#define N_HOOKS (sizeof(hooks) / sizeof(hooks[0]))

static mosquitto_plugin_id_t *identity; /* the broker's, for registering only */

static void unhook(size_t n)
{
	while (n-- > 0)
		(void)mosquitto_callback_unregister(identity, hooks[n].event, hooks[n].callback, hooks[n].topic);
}

EXPORT int mosquitto_plugin_version(int n, const int *versions)
{
	for (int i = 0; i < n; i++)
		if (versions[i] == 5)
			return 5;
	return -1;
}

EXPORT int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **user_data, struct mosquitto_opt *opts, int n_opts)
{
	struct plugin *p;

	(void)opts, (void)n_opts; /* they have no line numbers: we read the file ourselves */
	identity = id;
	if (plugin_start(&p) != IM_OK)
		return MOSQ_ERR_UNKNOWN;
	for (size_t i = 0; i < N_HOOKS; i++) {
		if (mosquitto_callback_register(id, hooks[i].event, hooks[i].callback, hooks[i].topic, p) == MOSQ_ERR_SUCCESS)
			continue;
		unhook(i);
		plugin_stop(p);
		return MOSQ_ERR_UNKNOWN;
	}
	*user_data = p;
	return MOSQ_ERR_SUCCESS;
}

EXPORT int mosquitto_plugin_cleanup(void *user_data, struct mosquitto_opt *opts, int n_opts)
{
	(void)opts, (void)n_opts;
	unhook(N_HOOKS);
	plugin_stop(user_data);
	return MOSQ_ERR_SUCCESS;
}
