/*
 * What becomes of a publish: checked, turned into a journal record, swallowed. The only place where a
 * PUBACK is decided: IM_OK of journal_append or a refusal that is itself explained.
 */
#ifndef PLUGIN_ROUTE_H
#define PLUGIN_ROUTE_H

#include "acl.h"
#include "session.h"
#include "wire/envelope.h"

struct plugin;

#define ROUTE_SIGNAL_MAX 1024u /* bytes of im/v1/sig/...: typing and the like */

enum route_verdict {
	ROUTE_PASS,    /* ordinary topic: as the broker would */
	ROUTE_SWALLOW, /* acknowledged; the broker's copy ends at $im/sink */
	ROUTE_DENY,    /* MQTT 5: 0x87 */
	ROUTE_CLOSE,   /* end the connection without an acknowledgement */
};

struct route_publish {
	const char *topic;
	const void *payload;
	size_t len;
	int qos;
	bool retain;
	const void *properties;  /* MQTT 5; for broker_properties_read */
};

enum route_verdict route_message(struct plugin *p, struct session *s, const struct route_publish *m);
/* The will of a connection that was lost: sent in the user's name. */
void route_will(struct plugin *p, const struct session_gone *g, const struct acl_event *ev);

/* Whether this user may send to this conversation, as the user sees it ("u/bob", "g/friends"). */
bool route_may_send(const struct roster *roster, const char *user, const char *conv, struct im_refusal *why);
/* Everything that can be said about publishing to a topic without its payload: for the real thing and for `why`. */
bool route_may_publish(const struct roster *roster, const char *user, const struct im_topic *topic, bool retain, struct im_refusal *why);
/* Whether an MQTT 5 Response Topic is below the device's own res/. */
bool route_response_topic_ok(enum im_codec codec, const char *topic);

#endif
