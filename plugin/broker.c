/*
 * The doorway to the broker. Three facts of 2.0 are handled here: it does not export the readers of MQTT 5
 * properties (libmosquitto has them, with the same structs); WebSocket connections are written only when its
 * poll returns, which on an idle broker takes up to 100 ms - so a timer's signal interrupts it; and it tells
 * nobody how much of a client's queue has been written, so the client's socket is asked (2.1 does not either).
 * Two of 2.1: it does export the readers, and counts the memory they give; and it raises TICK between its flush
 * and its poll, so that whatever is sent from there waits for the poll to return.
 */
#include "broker.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h> /* the C library's copy ends before tcpi_bytes_acked */
#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <mqtt_protocol.h>
#include <netinet/in.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id /* older C libraries have the field, not its name */
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define WAKE_SIGNAL (SIGRTMIN + 3) /* SIGRTMIN itself is log rotation in 2.1 */
#define WAKE_NS 100000             /* about when the flush is done */
#define WAKE_NS_2_1 30000          /* nothing but the way into the poll: the flush comes behind it */
#define WAKE_AGAIN_NS 300000
#define USER_PROPERTIES_MAX 64     /* looked through for im-id: a packet can carry 50,000, each costs two allocations */

extern struct mosquitto *mosquitto_client(const char *client_id) __attribute__((weak)); /* since 2.1 */

bool broker_is_2_1(void)
{
	return mosquitto_client != NULL;
}

void *broker_alloc(size_t len)
{
	return mosquitto_malloc(len ? len : 1);
}

void broker_free(void *p)
{
	if (p)
		mosquitto_free(p);
}

/* ---- out ---- */

static bool add_pair(mosquitto_property **list, const char *name, const char *value)
{
	if (!value || !*value)
		return true;
	return mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY, name, value) == MOSQ_ERR_SUCCESS;
}

static bool add_number(mosquitto_property **list, const char *name, long long value)
{
	char text[24];

	if (value == 0)
		return true;
	(void)snprintf(text, sizeof(text), "%lld", value); /* always fits */
	return add_pair(list, name, text);
}

static bool add_properties(mosquitto_property **list, const Im__Bus__Properties *p)
{
	bool ok = add_pair(list, "im-id", p->id) && add_pair(list, "im-from", p->from) && add_pair(list, "im-conv", p->conv) &&
		  add_number(list, "im-seq", (long long)p->seq) && add_number(list, "im-ts", p->ts) &&
		  add_pair(list, "im-type", p->type);

	if (ok && p->ct && *p->ct)
		ok = mosquitto_property_add_string(list, MQTT_PROP_CONTENT_TYPE, p->ct) == MOSQ_ERR_SUCCESS;
	if (ok && p->correlation.len > 0 && p->correlation.len <= UINT16_MAX)
		ok = mosquitto_property_add_binary(list, MQTT_PROP_CORRELATION_DATA, p->correlation.data,
						   (uint16_t)p->correlation.len) == MOSQ_ERR_SUCCESS;
	return ok;
}

bool broker_send(const char *client_id, const char *topic, void *payload, size_t len, int qos, const Im__Bus__Properties *props)
{
	mosquitto_property *list = NULL;

	if (props && !add_properties(&list, props))
		goto fail;
	if (len > INT32_MAX || mosquitto_broker_publish(client_id, topic, (int)len, payload, qos, false, list) != MOSQ_ERR_SUCCESS)
		goto fail;
	if (broker_is_2_1())
		broker_wake();
	return true;
fail:
	mosquitto_property_free_all(&list);
	broker_free(payload);
	return false;
}

void broker_kick(const char *client_id, bool with_will)
{
	(void)mosquitto_kick_client_by_clientid(client_id, with_will); /* gone already: as wished */
}

static void on_wake(int sig)
{
	(void)sig; /* interrupting the poll is all it is for */
}

/*
 * 2.0: what is sent from TICK is flushed at the beginning of the next turn and written to WebSockets when that turn's
 * poll returns. 2.1: it is flushed, and written to everybody, when this turn's poll has returned. A signal that comes
 * before the poll sleeps is lost, and how long the flush takes nobody knows: so it is repeated until two turns have
 * passed, or one.
 */
static timer_t wake_timer;
static enum { WAKE_NEW, WAKE_READY, WAKE_BROKEN } wake_state = WAKE_NEW;
static int wake_turns; /* left until the timer is stopped */

static void wake_prepare(void)
{
	struct sigaction sa = { .sa_handler = on_wake, .sa_flags = SA_RESTART }; /* polls are interrupted all the same */
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID };

	/* To this thread: another one would take it and the poll would sleep on. */
	ev.sigev_notify_thread_id = gettid();
	ev.sigev_signo = WAKE_SIGNAL;
	(void)sigemptyset(&sa.sa_mask); /* cannot fail */
	wake_state = sigaction(WAKE_SIGNAL, &sa, NULL) == 0 && timer_create(CLOCK_MONOTONIC, &ev, &wake_timer) == 0 ? WAKE_READY
													      : WAKE_BROKEN;
	if (wake_state == WAKE_BROKEN)
		im_log(IM_LOG_WARNING, "evt=wake error=\"%s\": %s may wait 100 ms", strerror(errno),
		       broker_is_2_1() ? "all deliveries" : "WebSocket clients");
}

void broker_wake(void)
{
	const struct itimerspec often = { .it_value = { .tv_nsec = broker_is_2_1() ? WAKE_NS_2_1 : WAKE_NS },
					  .it_interval = { .tv_nsec = WAKE_AGAIN_NS } };

	if (wake_state == WAKE_NEW)
		wake_prepare();
	if (wake_state == WAKE_READY && wake_turns == 0)
		(void)timer_settime(wake_timer, 0, &often, NULL); /* lost: 100 ms later then */
	wake_turns = broker_is_2_1() ? 1 : 2;
}

void broker_turn(void)
{
	const struct itimerspec never = { { 0, 0 }, { 0, 0 } };

	if (wake_turns == 0 || --wake_turns > 0)
		return;
	if (wake_state == WAKE_READY)
		(void)timer_settime(wake_timer, 0, &never, NULL); /* fails for timers that do not exist only */
}

void broker_finish(void)
{
	if (wake_state == WAKE_READY) {
		(void)timer_delete(wake_timer); /* as above */
		(void)signal(WAKE_SIGNAL, SIG_IGN);
	}
	wake_state = WAKE_NEW;
	wake_turns = 0;
}

void broker_log(int level, const char *line)
{
	static const int to[] = { MOSQ_LOG_ERR, MOSQ_LOG_WARNING, MOSQ_LOG_NOTICE, MOSQ_LOG_INFO, MOSQ_LOG_DEBUG };

	mosquitto_log_printf(to[level], "im: %s", line);
}

/* ---- in ---- */

void broker_client(const struct mosquitto *context, struct broker_client *out)
{
	int keepalive = mosquitto_client_keepalive(context);

	out->id = mosquitto_client_id(context);
	out->user = mosquitto_client_username(context);
	out->address = mosquitto_client_address(context);
	out->protocol = (unsigned)mosquitto_client_protocol_version(context);
	out->keepalive_s = keepalive > 0 ? (unsigned)keepalive : 0;
	out->clean = mosquitto_client_clean_session(context);
	out->websocket = mosquitto_client_protocol(context) == mp_websockets;
}

bool broker_set_user(const struct mosquitto *context, const char *user)
{
	return mosquitto_set_username((struct mosquitto *)(uintptr_t)context, user) == MOSQ_ERR_SUCCESS;
}

bool broker_certificate(const struct mosquitto *context, enum im_certificate_user which, struct certificate *out)
{
	X509 *cert = mosquitto_client_certificate(context);

	if (!cert)
		return false;
	certificate_read(cert, which, out);
	X509_free(cert); /* ours: the broker handed over a reference */
	return true;
}

/*
 * What a context begins with in every release from 2.0.0 to 2.1.2 on Linux. There is no accessor for the socket, so
 * what is found here is believed only if it is a TCP connection, from the address that the broker gives for the client.
 */
struct context_head {
	int ident;
	int socket;
};

static bool peer_is(int fd, const char *address)
{
	struct sockaddr_storage peer = { 0 };
	socklen_t len = sizeof(peer);
	char text[INET6_ADDRSTRLEN];
	const void *bytes = NULL;

	if (!address || getpeername(fd, (struct sockaddr *)&peer, &len) != 0)
		return false;
	if (peer.ss_family == AF_INET)
		bytes = &((const struct sockaddr_in *)&peer)->sin_addr;
	else if (peer.ss_family == AF_INET6)
		bytes = &((const struct sockaddr_in6 *)&peer)->sin6_addr;
	return bytes && inet_ntop(peer.ss_family, bytes, text, sizeof(text)) && strcmp(text, address) == 0;
}

bool broker_acked(const struct mosquitto *context, uint64_t *out)
{
	struct context_head head;
	struct tcp_info info;
	socklen_t len = sizeof(info);

	memcpy(&head, context, sizeof(head));
	/* A WebSocket's address may be what a proxy says. */
	if (mosquitto_client_protocol(context) != mp_websockets && !peer_is(head.socket, mosquitto_client_address(context)))
		return false;
	if (getsockopt(head.socket, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
	    len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked))
		return false;
	*out = info.tcpi_bytes_acked;
	return true;
}

/* What the readers give: the broker's own on 2.1, libmosquitto's on 2.0, which the broker must not count. */
static void property_text_free(void *text)
{
	if (broker_is_2_1())
		broker_free(text);
	else
		free(text);
}

void broker_properties_read(const void *list, struct broker_properties *out)
{
	const mosquitto_property *p = list;
	char *name, *value;

	memset(out, 0, sizeof(*out));
	if (!p)
		return;
	(void)mosquitto_property_read_string(p, MQTT_PROP_CONTENT_TYPE, &out->content_type, false);
	(void)mosquitto_property_read_string(p, MQTT_PROP_RESPONSE_TOPIC, &out->response_topic, false);
	(void)mosquitto_property_read_binary(p, MQTT_PROP_CORRELATION_DATA, &out->correlation, &out->correlation_len, false);
	/* Not given: NULL, that is all there is to know. */
	for (unsigned n = 0; n < USER_PROPERTIES_MAX && !out->id; n++) {
		name = value = NULL;
		p = mosquitto_property_read_string_pair(p, MQTT_PROP_USER_PROPERTY, &name, &value, n > 0);
		if (!p)
			break;
		if (name && value && strcmp(name, "im-id") == 0) {
			out->id = value;
			value = NULL;
		}
		property_text_free(name);
		property_text_free(value);
	}
}

void broker_properties_free(struct broker_properties *p)
{
	property_text_free(p->content_type);
	property_text_free(p->response_topic);
	property_text_free(p->id);
	property_text_free(p->correlation);
	memset(p, 0, sizeof(*p));
}

/* The broker frees the old topic and payload itself. With the retain flag the sink would keep a message for ever. */
bool broker_swallow(struct mosquitto_evt_message *ev)
{
	char *sink = mosquitto_strdup("$im/sink");

	if (!sink)
		return false;
	ev->topic = sink;
	ev->payload = NULL;
	ev->payloadlen = 0;
	ev->retain = false;
	return true;
}
