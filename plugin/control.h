/* Admin commands on $CONTROL/im/v1: passed to the message service, which answers; refused here if not allowed. */
#ifndef PLUGIN_CONTROL_H
#define PLUGIN_CONTROL_H

#include "session.h"

struct plugin;

#define CONTROL_SERVICE_MAX (1u << 20) /* `imctl user import` puts thousands of commands into one message */

void control_message(struct plugin *p, const struct mosquitto *context, const char *topic, const void *payload, size_t len);

#endif
