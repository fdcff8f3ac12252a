/*
 * The error inbox: how a client learns that something was refused, and why. Immediate errors go out in the
 * session's codec; those of a connection that had to be closed, and of a refused will, are owed to the
 * client id and sent after its next connect.
 */
#ifndef PLUGIN_REFUSE_H
#define PLUGIN_REFUSE_H

#include "base/conf.h"
#include "session.h"
#include "wire/refusal.h"

struct refusals;

#define REFUSE_OWED_MAX 1024u    /* errors owed to closed connections; beyond it the oldest is forgotten */
#define REFUSE_OWED_CLIENT_MAX 8u /* ... of them to one client id: the rest of a storm says nothing new */
#define REFUSE_OWED_MS (24LL * 3600 * 1000) /* who is not back in a day is told nothing: unnamed devices are forgotten then too */
#define REFUSE_TOPIC_MAX 256u     /* bytes of the refused topic that an error repeats; a client may have written 64 KiB */

/* Whole characters of `topic`, at most REFUSE_TOPIC_MAX bytes. */
void refuse_topic(const char *topic, char out[REFUSE_TOPIC_MAX + 1]);

struct refusals *refusals_create(void); /* NULL: out of memory */
void refusals_destroy(struct refusals *r);

/*
 * Sends in/err now. topic: what was refused; id: the client's id for it, may be NULL. false: this connection
 * is over im_rate_refusals and is being closed (nothing was sent).
 */
bool refuse_send(const struct im_settings *settings, struct session_table *sessions, struct session *s, const struct im_refusal *why,
		 const char *topic, const char *id);
/* Kept for the next connection of this client id, if it is this user's. */
void refuse_owe(struct refusals *r, const char *user, const char *client_id, const struct im_refusal *why, const char *topic, const char *id);
/* Sends what is owed to those who are back and have subscribed, or have had a second for it. */
void refuse_tick(struct refusals *r, const struct im_settings *settings, struct session_table *sessions);

#endif
