/*
 * Who gets what, when, and again: sessions, devices, cursors (docs/delivery.md has the rules, numbered).
 * Told by the inbox what is durable and by the link who is connected; speaks through the link.
 */
#ifndef OFFLINE_DELIVERY_H
#define OFFLINE_DELIVERY_H

#include "link.h"
#include "message.h"
#include "roster/roster.h"
#include "store.h"
#include "wire/topic.h"

struct delivery;

enum im_status delivery_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			       struct link *link, struct delivery **out, struct im_err *err);
void delivery_destroy(struct delivery *d); /* before the link, the store and the roster */

/* ---- from the link: connections. A session seen again has new filters. */
void delivery_session(struct delivery *d, const Im__Bus__Session *s);
void delivery_closed(struct delivery *d, uint64_t handle);
void delivery_reset(struct delivery *d);        /* the plugin is gone or new: nobody is connected until named again */
void delivery_complete(struct delivery *d);     /* all present sessions have been named */

/* ---- from the inbox, always after the store said IM_OK */
/* A new message. `sender`: the session that sent it (0 = none); its in/ack follows with delivery_ack. In order per conversation. */
void delivery_message(struct delivery *d, struct message *m, uint64_t sender);
/* An ack owed to the sender's session: several leave as one packet (delivery_turn_end). m is the stored message. */
void delivery_ack(struct delivery *d, uint64_t session, struct message *m, bool dup);
/* A cursor move by im/v1/ack (device = client id of the asker) or by sending (read_on_send): durable already; tells receipts, badge, other devices. */
void delivery_cursors(struct delivery *d, const char *user, const char *client_id, uint64_t session, const Im__Bus__CursorMove *const *moves, size_t n);
/* A refusal that is durable and owed: sent now if its device is there, else at its next connect, until settled. */
void delivery_refusal(struct delivery *d, const Im__Bus__StoredRefusal *r, uint64_t session);
/* Typing and the like: to the others online. */
void delivery_signal(struct delivery *d, const Im__Bus__Signal *s);
void delivery_turn_end(struct delivery *d);     /* what was gathered leaves; acks of a busy sender a few milliseconds later, together */
void delivery_flush(struct delivery *d);        /* everything gathered leaves now */
void delivery_resume(struct delivery *d);       /* link_pending is below LINK_CATCHUP again: catch-up goes on */

/* ---- for requests and commands */
/* An answer to one session on its codec's res/{id} (or response_topic with correlation for MQTT 5). */
void delivery_respond(struct delivery *d, const Im__Bus__Record *request, const Im__V1__Response *response);
/* A packet on a literal topic to one session (the $CONTROL response). */
void delivery_send(struct delivery *d, uint64_t session, const char *topic, const void *payload, size_t len);
/* Requested catch-up of one conversation from `from` on (method sync); live deliveries are not disturbed. */
void delivery_device_set(struct delivery *d, uint64_t session, uint32_t max_packet);
void delivery_roster_changed(struct delivery *d, const Im__Bus__RosterItem *item); /* membership: revoked at once */

struct delivery_session_info {
	uint64_t handle;
	const char *user, *client_id, *address;
	unsigned protocol;
	unsigned keepalive_s;
	bool websocket, acks;
	enum im_codec codec;
	int64_t since_ms;
	uint64_t handed;         /* messages handed over in this session */
	bool catching_up;
	bool behind;             /* does not take what it was given */
};
/* What is known of a device in memory. got: its cursor in the conversation has reached seq; false may mean that it is not in memory. */
struct delivery_presence {
	bool connected;          /* it has a session with an inbox */
	bool acks;               /* and has ever sent im/v1/ack */
	bool got;
	bool elsewhere;          /* another device of the user is connected, acks, and has got it */
};
void delivery_presence(struct delivery *d, const char *user, const char *client_id, const char *conv, uint64_t seq,
		       struct delivery_presence *out);

/* An event for the device's session, if it is connected and a filter asks for it. */
void delivery_event(struct delivery *d, const char *user, const char *client_id, const char *kind, const char *json);
/* A user's read cursor has moved, by this device. For push, as the next. */
typedef void delivery_read_fn(void *arg, const char *user, const char *client_id);
void delivery_on_read(struct delivery *d, delivery_read_fn *fn, void *arg);
/* A device that listens to evt/push is there: once a connection, after its welcome. For push; NULL: nobody asks any more. */
typedef void delivery_greeted_fn(void *arg, const char *user, const char *client_id);
void delivery_on_greeted(struct delivery *d, delivery_greeted_fn *fn, void *arg);

typedef void delivery_session_fn(void *arg, const struct delivery_session_info *s);
void delivery_each_session(struct delivery *d, const char *user, delivery_session_fn *fn, void *arg); /* user NULL: all */
bool delivery_find_session(struct delivery *d, uint64_t handle, struct delivery_session_info *out);

#endif
