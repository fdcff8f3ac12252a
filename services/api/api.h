/*
 * From HTTP to the bus and back: POST /v1/req/{method} is the request that im/v1/req/{method} is over MQTT. Who sent it and what
 * comes of it the message service says (services/offline/api.h); here are the routes, what is waited for, and its limits.
 */
#ifndef API_API_H
#define API_API_H

#include "io/loop.h"
#include "io/mqtt.h"
#include "server.h"

#define API_WAITING_MAX 500u /* requests waiting for their answers; below what the message service takes */
#define API_WAIT_MS 10000    /* then the client is told to ask again */

struct api;

struct api *api_create(struct im_loop *loop); /* NULL: out of memory */
void api_destroy(struct api *a);              /* answers what waits; before server_destroy. NULL is fine */
void api_bus(struct api *a, struct im_mqtt *bus); /* NULL: down; what waits is answered */
void api_request(void *arg, struct exchange *e);  /* a server_fn; arg is the struct api */
void api_answer(struct api *a, const void *payload, size_t len); /* $im/api/res */

#endif
