/*
 * Every call into the broker, and every event out of it, in one place: what differs between 2.0 and 2.1
 * is known here and in broker.c only. All of it may be called on the broker's thread alone.
 */
#ifndef PLUGIN_BROKER_H
#define PLUGIN_BROKER_H

#include "bus.pb-c.h"
#include "certificate.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mosquitto;

/*
 * 2.1, by what it exports. The same binary runs under both (docs/mosquitto-2.1.md); what 2.1 does otherwise is asked
 * here and nowhere else.
 */
bool broker_is_2_1(void);
/*
 * 2.1 only, same struct as DISCONNECT, and raised instead of it when the broker keeps the session. Number and struct
 * are 2.1's: the headers of 2.0 lack them.
 */
#define BROKER_EVT_CLIENT_OFFLINE 28

void *broker_alloc(size_t len); /* memory that the broker may free; NULL: none */
void broker_free(void *p);

/*
 * A packet for one client id. Goes out in this or the next turn of the loop, in order, without ACL and
 * subscription. topic is copied; payload must be from broker_alloc and belongs to the broker afterwards
 * (also on failure: then it is freed here). props NULL: none; they are added for MQTT 5 receivers only.
 */
bool broker_send(const char *client_id, const char *topic, void *payload, size_t len, int qos, const Im__Bus__Properties *props);
/* Ends a connection (with its will unless `with_will` is false). Never from a callback of that client: queue it for TICK. */
void broker_kick(const char *client_id, bool with_will);
/* Makes the loop turn again soon: for WebSocket receivers of what was sent from TICK on 2.0, for all of them on 2.1. */
void broker_wake(void);

/* What can be known about a connection. Pointers are the broker's, valid during the callback. */
struct broker_client {
	const char *id;          /* NULL: CONNECT was never read */
	const char *user;        /* NULL: anonymous */
	const char *address;     /* NULL: a session restored from disk. The path of the listener for Unix sockets */
	unsigned protocol;       /* 3, 4, 5; 0 = restored */
	unsigned keepalive_s;
	bool clean;
	bool websocket;          /* then the address may be forged */
};
void broker_client(const struct mosquitto *context, struct broker_client *out);
/* During a login: names a client that gave no name. What broker_client told about it before is void. */
bool broker_set_user(const struct mosquitto *context, const char *user);
/*
 * The client certificate of a TLS connection, verified by the broker. false: none. WebSocket connections have none
 * to show: in 2.0 their TLS belongs to libwebsockets.
 */
bool broker_certificate(const struct mosquitto *context, enum im_certificate_user which, struct certificate *out);

/* MQTT 5 properties of a PUBLISH that mean something to us. All owned, NULL = not given. */
struct broker_properties {
	char *content_type;
	char *response_topic;
	char *id;                /* user property im-id */
	void *correlation;
	uint16_t correlation_len;
};
void broker_properties_read(const void *list, struct broker_properties *out);
void broker_properties_free(struct broker_properties *p);
/* MESSAGE: the publish is acknowledged, and the broker's copy ends at $im/sink. false: out of memory. */
struct mosquitto_evt_message;
bool broker_swallow(struct mosquitto_evt_message *ev);

/*
 * Bytes of this TCP connection that the client's kernel has acknowledged since it began. false: cannot be seen (a Unix
 * socket, a broker of another build).
 */
bool broker_acked(const struct mosquitto *context, uint64_t *out);

void broker_turn(void);   /* at the beginning of each TICK */
void broker_finish(void); /* at the end: no signal may find the plugin gone */
void broker_log(int im_log_level, const char *line); /* sink of base/log.h */

#endif
