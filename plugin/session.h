/*
 * Who is connected: one entry per connection of our users and services, found by context pointer, by
 * client id and by handle (reference: broker's event order at takeover). The only place that knows what
 * AUTH and DISCONNECT mean. Filters of persistent sessions survive a restart in {dir}/sessions.
 */
#ifndef PLUGIN_SESSION_H
#define PLUGIN_SESSION_H

#include "base/status.h"
#include "broker.h"
#include "bus.pb-c.h"
#include "session_filter.h"
#include "wire/topic.h"
#include <stdbool.h>
#include <stdint.h>

/* Ending a connection takes the broker some 20 us: tokens issued together expire together, and others must be served meanwhile. */
#define KICKS_A_TURN 100u

struct mosquitto;
struct session_table;

/* What it was given and has not taken (reading.h). */
struct reading {
	uint64_t untaken;        /* bytes of payload */
	uint64_t acked;          /* by its kernel, at the last look */
	bool watched, behind;
};

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
	bool kicked;             /* a kick is queued or under way: nothing more comes from it or goes to it */
	enum im_codec codec;
	int64_t since_ms;
	struct session_filter *filters; /* session.c; counted by n_filters */
	unsigned n_filters;
	struct limit *limit;     /* of this connection */
	struct reading reading;
	int64_t opened_ms;       /* monotonic */
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

/* ---- what follows is for the decision plane (plugin.c, auth.c, acl.c, route.c) and for kicks ---- */

/* dir: where `sessions` is kept. epoch: the journal's at start; handles are (epoch << 32) + counter. */
enum im_status session_table_create(const char *dir, uint64_t epoch, struct session_table **out, struct im_err *err);
void session_table_destroy(struct session_table *t);
/* At start: sessions that the broker has restored from its file for users who are not ours. */
void session_table_read_others(struct session_table *t, const char *broker_file);

/* Whose a client id is: in use, or with a stored session. */
enum session_claim { SESSION_FREE, SESSION_OWN, SESSION_OF_OTHER };
enum session_claim session_claim(struct session_table *t, const char *client_id, const char *user);

/* Whether this user may leave one more stored session behind (KEPT_USER_MAX), or has it already. */
bool session_may_store(struct session_table *t, const char *client_id, const char *user);

/* In use, or stored, by a user or service of ours. */
bool session_holds_id(struct session_table *t, const char *client_id);

/* AUTH accepted one of ours. Takes the client id over from an older connection, restores stored filters unless
   clean. NULL: out of memory. */
struct session *session_open(struct session_table *t, const struct mosquitto *context, const struct broker_client *c, bool service);
/* AUTH left the decision to others: whoever is still there at the next tick was let in. user NULL = anonymous. */
void session_open_foreign(struct session_table *t, const struct mosquitto *context, const struct broker_client *c);
/*
 * DISCONNECT: takes the session of this context out of the table; the caller hands it to session_free. NULL: not
 * one of ours, or long gone. *owner: no newer connection has taken its client id over.
 */
struct session *session_close(struct session_table *t, const struct mosquitto *context, bool *owner);
void session_free(struct session *s);

/* A connection that has ended and may still have its will sent (delayed ones much later). NULL: not known. */
struct session_gone {
	char *user, *client_id;
	uint32_t protocol;
};
const struct session_gone *session_gone(struct session_table *t, const struct mosquitto *context);
/* A newer connection has taken the client id of this one over, and it has not been closed yet. */
bool session_taken_over(struct session_table *t, const struct session *s);
/* Offline, and this is the context that holds its state in the broker (SIGHUP asks AUTH about these too). */
bool session_is_stored(struct session_table *t, const struct mosquitto *context, const struct broker_client *c);

/* Between AUTH and the first packet or tick the broker asks READ for what is queued; only if the stored session was this user's. */
bool session_is_resuming(struct session_table *t, const struct session *s);
void session_is_active(struct session *s); /* a packet of this client was seen */

const struct session_filter *session_find_filter(const struct session *s, const char *filter);
/* IM_OK: new. IM_EXISTS: its QoS is this one now. IM_FAILED: out of memory. */
enum im_status session_add_filter(struct session_table *t, struct session *s, const char *filter, enum im_codec codec, int qos);
bool session_remove_filter(struct session_table *t, struct session *s, const char *filter);
/* The smallest promise that holds: highest granted QoS of a filter that matches, -1 = none does. */
int session_wants(const struct session *s, const char *topic);

/* The session ends then, however long its connection lasts. at_ms: wall clock; 0 = never. */
void session_expires(struct session_table *t, struct session *s, int64_t at_ms);
/* Queued for the next tick, because a client must not be torn down inside its own callback. `reason`: for the log. */
void session_kick(struct session_table *t, struct session *s, const char *reason);
/* Carries out kicks (KICKS_A_TURN of them, the rest in the next turns), ends "resuming". */
void session_tick(struct session_table *t);
size_t session_count(const struct session_table *t); /* of ours, without services */

#endif
