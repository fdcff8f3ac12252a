/*
 * Every call into the broker, and every event out of it, in one place: what differs between 2.0 and 2.1
 * is known here and in broker.c only. All of it may be called on the broker's thread alone.
 */
#ifndef PLUGIN_BROKER_H
#define PLUGIN_BROKER_H

#include "bus.pb-c.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mosquitto;

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
/* Makes the loop turn again soon, for WebSocket receivers of what was sent from TICK (a one-shot timer signal on 2.0). */
void broker_wake(void);
void broker_log(int im_log_level, const char *line); /* sink of base/log.h */

#endif
