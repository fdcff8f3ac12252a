/*
 * What the plugin is made of. One struct, made by plugin_start and freed by plugin_stop; every callback gets
 * it. All of it belongs to the broker's thread.
 */
#ifndef PLUGIN_PLUGIN_H
#define PLUGIN_PLUGIN_H

#include "auth.h"
#include "base/buf.h"
#include "base/conf.h"
#include "journal.h"
#include "limit.h"
#include "link.h"
#include "refuse.h"
#include "roster/roster.h"
#include "sealing.h"
#include "session.h"
#include "wire/envelope.h"

#define PLUGIN_SERVICE "$im-offline"   /* client id of the message service */
#define PLUGIN_SEQGEN "$im-seqgen"
/* Whether people are talking: more than 50 messages a second of all together, by five and lately. Remembered for half a second. */
#define PLUGIN_TALK_US 20000
#define PLUGIN_TALK_BUSY 5u
#define PLUGIN_TALK_MOST 25u

struct plugin {
	char *conf_path;
	struct im_settings settings;
	struct roster *roster;
	struct journal *journal;
	struct session_table *sessions;
	struct limits *limits;
	struct limit_bucket talk; /* of messages, everybody's: whether anybody feels what the thread does */
	struct auth *auth;
	struct refusals *refusals;
	struct link *link;
	struct sealing *sealing;
	struct gone_user *users_gone; /* removed or disabled in this turn: their sessions must go (start.c) */
	bool reloading;          /* SIGHUP to the next tick: AUTH is asked about everybody again */
	int64_t swept_us;
	/* scratch of the hot path */
	struct im_arena arena;
	struct im_buf record;
};

/* start.c */
enum im_status plugin_start(struct plugin **out);  /* problems are logged */
void plugin_stop(struct plugin *p);                /* NULL is fine */
void plugin_reload(struct plugin *p);
void plugin_tick(struct plugin *p);

/* Connections coming and going: auth.c decides, the session table and the link are told. */
enum auth_verdict plugin_login(struct plugin *p, const struct mosquitto *context, const char *password);
void plugin_disconnected(struct plugin *p, const struct mosquitto *context);

#endif
