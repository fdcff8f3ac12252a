/*
 * Requests that came over HTTP (services/api, docs/http.md): who sent one the plugin says, then the same commands run as for
 * requests over MQTT.
 */
#ifndef OFFLINE_API_H
#define OFFLINE_API_H

#include "link.h"
#include "request.h"

#define API_TOPIC "$im/api"              /* ApiRequest */
#define API_ANSWER_TOPIC "$im/api/res"   /* ApiAnswer */
#define API_ASKED_MAX 512u               /* under way; more are refused as unavailable, and the answer says so */

struct api;
struct im_mqtt;

struct api *api_create(struct link *link, struct request *request); /* NULL: out of memory */
void api_bus(struct api *a, struct im_mqtt *bus);                   /* NULL: down, answers have no way any more */
void api_message(struct api *a, const void *payload, size_t len);
void api_stop(struct api *a);    /* before the request's and the link's end: nothing is answered from here on. NULL is fine */
void api_destroy(struct api *a); /* after the link's end. NULL is fine */

#endif
