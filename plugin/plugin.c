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
	static const int answer[] = {
		[AUTH_OURS] = MOSQ_ERR_SUCCESS, [AUTH_SERVICE] = MOSQ_ERR_SUCCESS, [AUTH_FOREIGN] = MOSQ_ERR_SUCCESS,
		[AUTH_DEFER] = MOSQ_ERR_PLUGIN_DEFER, [AUTH_REFUSE] = MOSQ_ERR_AUTH,
		[AUTH_LATER] = MOSQ_ERR_UNKNOWN, /* closed without CONNACK */
	};
	const struct mosquitto_evt_basic_auth *ev = data;

	(void)event;
	return answer[plugin_login(arg, ev->client, ev->password)];
}

static int on_acl_check(int event, void *data, void *arg)
{
	static const int answer[] = {
		[ACL_ALLOW] = MOSQ_ERR_SUCCESS, [ACL_DENY] = MOSQ_ERR_ACL_DENIED, [ACL_DEFER] = MOSQ_ERR_PLUGIN_DEFER,
	};
	const struct mosquitto_evt_acl_check *ev = data;
	const struct acl_event e = {
		.context = ev->client, .access = (enum acl_access)ev->access, .topic = ev->topic,
		.payload = ev->payload, .len = ev->payloadlen, .qos = ev->qos, .retain = ev->retain,
	};

	(void)event;
	return answer[acl_check(arg, &e)];
}

static int on_message(int event, void *data, void *arg)
{
	static const int answer[] = {
		[ROUTE_PASS] = MOSQ_ERR_SUCCESS, [ROUTE_DENY] = MOSQ_ERR_ACL_DENIED, [ROUTE_CLOSE] = MOSQ_ERR_UNKNOWN,
	};
	struct mosquitto_evt_message *ev = data;
	struct session *s = session_by_context(((struct plugin *)arg)->sessions, ev->client);
	const struct route_publish m = {
		.topic = ev->topic, .payload = ev->payload, .len = ev->payloadlen,
		.qos = ev->qos, .retain = ev->retain, .properties = ev->properties,
	};
	/* Without a session: ordinary topics of others, ACL_CHECK let nothing else pass. */
	enum route_verdict verdict = s ? route_message(arg, s, &m) : ROUTE_PASS;

	(void)event;
	if (verdict == ROUTE_SWALLOW)
		verdict = broker_swallow(ev) ? ROUTE_PASS : ROUTE_CLOSE;
	return answer[verdict];
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
	{ BROKER_EVT_CLIENT_OFFLINE, on_disconnect, NULL }, /* the last: 2.0 has no such event */
};

static size_t n_hooks(void)
{
	return sizeof(hooks) / sizeof(hooks[0]) - (broker_is_2_1() ? 0 : 1);
}

static mosquitto_plugin_id_t *identity; /* the broker's, for registering only */
static void unhook(size_t n)
{
	while (n-- > 0)
		(void)mosquitto_callback_unregister(identity, hooks[n].event, hooks[n].callback, hooks[n].topic);
}

EXPORT int mosquitto_plugin_version(int n, const int *versions)
{
	while (n-- > 0)
		if (versions[n] == 5)
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
	for (size_t i = 0; i < n_hooks(); i++) {
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
	unhook(n_hooks());
	plugin_stop(user_data);
	return MOSQ_ERR_SUCCESS;
}
