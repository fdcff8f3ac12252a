/*
 * A broker of a few connections, in memory: the mosquitto_* functions that the plugin calls, and the events that
 * a broker of 2.0 raises, in its order and in its odd orders too; those of 2.1 in a program that exports
 * mosquitto_client. It watches what the plugin does with them:
 *
 *  - nothing is sent to a client id that now belongs to another user than the one it was meant for
 *  - nothing below im/ and no $im/sink is routed to anybody; what a stored session has queued goes to its user only
 *  - no context is asked about that is gone
 *  - all memory of the broker is given back to it, and none that is not its own
 *
 * A context is a place in `contexts`: like the broker's, its address is used again for another connection.
 */
#ifndef TESTS_FAKE_BROKER_H
#define TESTS_FAKE_BROKER_H

#include "bus.pb-c.h"

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <mqtt_protocol.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONTEXTS = 8, SUBSCRIPTIONS = 6, QUEUE = 256, HANDLES = 64 };

enum context_state { CONTEXT_FREE, CONTEXT_LOGIN, CONTEXT_UP, CONTEXT_STORED };

struct packet {
	char *topic, *meant_for; /* the user at the time it was queued */
};

struct mosquitto { /* the broker's own name for it */
	enum context_state state;
	char *id, *user, *address;
	int protocol;
	bool clean, websocket, kick_due;
	char *filters[SUBSCRIPTIONS];
	unsigned n_filters;
	char *will; /* topic */
	struct packet queued[16]; /* of a stored session */
	unsigned n_queued;
};

struct fake_broker {
	struct mosquitto contexts[CONTEXTS];
	struct { char *client_id; struct packet packet; } queue[QUEUE]; /* until the end of the turn */
	unsigned n_queue;
	struct { uint64_t handle; char user[80], client_id[160]; } handles[HANDLES]; /* as told to the service */
	unsigned n_handles;
	unsigned delivered;
};
extern struct fake_broker fake;
extern void (*fake_on_frame)(const Im__Bus__FromPlugin *m); /* each that the service gets; NULL: nobody looks */

/* Starts and stops the plugin. */
void fake_broker_start(const char *conf_path);
void fake_broker_stop(void);

/* The events. What is NULL is not there. Strings are copied. */
struct mosquitto *fake_connect(const struct mosquitto *like, const char *password, bool others_accept);
int fake_subscribe(struct mosquitto *c, const char *filter, int qos);
void fake_unsubscribe(struct mosquitto *c, const char *filter);
/* ACL, then MESSAGE or CONTROL, then everybody who has subscribed. The last code the plugin gave. */
int fake_publish(struct mosquitto *c, const char *topic, const void *payload, size_t len, int qos, bool retain, mosquitto_property *props);
int fake_will(struct mosquitto *c);       /* also of those who are gone: a delayed one */
void fake_disconnect(struct mosquitto *c, bool with_will);
void fake_forget(struct mosquitto *c);    /* a stored session expires */
void fake_reload(void);
void fake_tick(void);                     /* the end of a turn, and the beginning of the next */
int fake_acl(struct mosquitto *c, int access, const char *topic);

bool fake_is_hooked(int event);
struct mosquitto *fake_find(const char *client_id); /* up or stored */

#endif
