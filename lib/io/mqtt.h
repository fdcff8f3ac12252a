/*
 * A service's connection to the broker: libmosquitto on our loop. Connects over the bus socket as a
 * reserved client id with the secret of {dir}/run/bus.secret (read again at every connect: each broker
 * start makes a new one), reconnects with backoff and jitter, subscribes again. MQTT 3.1.1, clean session,
 * TCP_NODELAY is moot on a Unix socket.
 */
#ifndef IM_IO_MQTT_H
#define IM_IO_MQTT_H

#include "base/status.h"
#include "io/loop.h"
#include <stdbool.h>
#include <stddef.h>

struct im_mqtt;

struct im_mqtt_events {
	void (*up)(void *arg);                 /* connected and subscribed */
	void (*down)(void *arg, const char *why); /* only after an up */
	void (*message)(void *arg, const char *topic, const void *payload, size_t len); /* borrowed */
};

#define IM_BUS_USER "$im" /* the service credential's user name */

/* socket_path, secret_path and client_id are copied. `filters` ends with NULL; all at QoS `qos`. Starts connecting at once. */
enum im_status im_mqtt_create(struct im_loop *loop, const char *socket_path, const char *secret_path, const char *client_id,
			      const char *const *filters, int qos, const struct im_mqtt_events *events, void *arg,
			      struct im_mqtt **out, struct im_err *err);
void im_mqtt_destroy(struct im_mqtt *m); /* also inside its callbacks; none comes after. NULL is fine */
bool im_mqtt_is_up(const struct im_mqtt *m);
/*
 * IM_BUSY: not connected, or 60000 publishes wait to be written or acknowledged. The bytes are copied; what was given
 * while up is written in order or the connection falls. The broker keeps the order among publishes of one QoS only.
 */
enum im_status im_mqtt_publish(struct im_mqtt *m, const char *topic, const void *payload, size_t len, int qos);

#endif
