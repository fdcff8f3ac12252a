/*
 * Who may do what on which topic. The deciders are pure; acl_check is the broker's question with its side
 * effects: filters are recorded, refusals explained, wills journaled.
 */
#ifndef PLUGIN_ACL_H
#define PLUGIN_ACL_H

#include "base/conf.h"
#include "roster/roster.h"
#include "session.h"
#include "wire/refusal.h"
#include "wire/topic.h"

struct plugin;

enum acl_verdict {
	ACL_ALLOW,
	ACL_DENY,
	ACL_DEFER, /* acl_file or another plugin decides, as it did before we were loaded */
};

enum acl_access { ACL_READ = 1, ACL_WRITE = 2, ACL_SUBSCRIBE = 4, ACL_UNSUBSCRIBE = 8 }; /* the broker's numbers */

struct acl_who {
	const char *user;        /* NULL: anonymous */
	const char *client_id;
	bool ours;
	bool service;
	bool admin;
};

bool acl_is_admin(const struct im_settings *settings, const char *user); /* im_admins */
/* Ordinary topics. */
enum acl_verdict acl_plain(const struct im_settings *settings, const struct acl_who *who);
/* Publishing, by topic alone; on im/v1/... what is bad in other ways is found, and explained, by route.c. */
enum acl_verdict acl_publish(const struct im_settings *settings, const struct acl_who *who, const struct im_topic *topic, const char *text);
/*
 * Subscribing. codec and n_filters: what the device has so far. A denial under im/, $im/ and $CONTROL/im has
 * its code in why; one on an ordinary filter has IM_REFUSE_NONE.
 */
enum acl_verdict acl_subscribe(const struct im_settings *settings, const struct acl_who *who, const char *text,
			       const struct im_filter *filter, enum im_codec codec, unsigned n_filters, struct im_refusal *why);

struct acl_event {
	const struct mosquitto *context;
	enum acl_access access;
	const char *topic;       /* or filter */
	const void *payload;     /* not NUL-terminated */
	size_t len;
	int qos;
	bool retain;
};
enum acl_verdict acl_check(struct plugin *p, const struct acl_event *ev);

#endif
