/*
 * Who is connected: one entry per connection of our users and services, found by context pointer, by
 * client id and by handle (reference: broker's event order at takeover). The only place that knows what
 * AUTH and DISCONNECT mean. Filters of persistent sessions survive a restart in {dir}/sessions.
 */
#ifndef PLUGIN_SESSION_H
#define PLUGIN_SESSION_H

#include "bus.pb-c.h"
#include "wire/topic.h"
#include <stdbool.h>
#include <stdint.h>

struct mosquitto;
struct session_table;

struct session {
	uint64_t handle;         /* unique for ever */
	const struct mosquitto *context;
	const char *user;        /* IM_BUS_USER for services */
	const char *client_id;
	uint32_t protocol;       /* 3, 4, 5 */
	uint32_t keepalive_s;
	bool clean;
	bool websocket;
	bool service;
	bool kicked;             /* a kick is queued */
	enum im_codec codec;
	int64_t since_ms;
	struct session_filter *filters; /* session.c; counted by n_filters */
	unsigned n_filters;
	struct limit *limit;     /* of this connection */
	char address[46];
};

/* NULL: no such connection, or it is gone. What link.c needs to expand a delivery. */
struct session *session_by_handle(struct session_table *t, uint64_t handle);
struct session *session_by_context(struct session_table *t, const struct mosquitto *context);
struct session *session_by_client_id(struct session_table *t, const char *client_id);
/* Fills `out` with pointers into s; `filters` holds at least s->n_filters entries, `array` as many pointers. */
void session_describe(const struct session *s, Im__Bus__Session *out, Im__Bus__Filter *filters, Im__Bus__Filter **array);
typedef void session_fn(void *arg, struct session *s);
void session_each(struct session_table *t, session_fn *fn, void *arg); /* not services */

#endif
