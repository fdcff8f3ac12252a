/*
 * Who may connect. Tokens verify in microseconds. A password costs 15-60 ms of the broker's only thread, so
 * proven ones are remembered and unknown ones rationed: over the ration the socket is closed without an
 * answer and the client comes again.
 */
#ifndef PLUGIN_AUTH_H
#define PLUGIN_AUTH_H

#include "base/buf.h"
#include "base/conf.h"
#include "roster/roster.h"
#include "session.h"

#define AUTH_CACHE_MAX 65536u  /* remembered verdicts, 100 bytes each; beyond it the oldest goes and is hashed again */
#define AUTH_REFUSED_MAX 1000u /* refused CONNECTs kept for `why` */
#define AUTH_LOG_RATE 20u      /* lines a second about refused CONNECTs */

enum auth_verdict {
	AUTH_OURS,     /* accepted, one of our users */
	AUTH_SERVICE,  /* accepted, a service of ours */
	AUTH_FOREIGN,  /* accepted: not ours, and the bare broker would let it in without asking anybody */
	AUTH_DEFER,    /* not ours: password_file or another plugin decides */
	AUTH_REFUSE,   /* CONNACK "not authorized" */
	AUTH_LATER,    /* closed without CONNACK: come again */
};

struct auth_why {
	const char *rule;        /* "bad_password": for people and scripts, static */
	char reason[200];
	char fix[160];
};

struct auth;

/* secret: 64 hex digits that services log in with. NULL: out of memory. */
struct auth *auth_create(const char *secret);
void auth_destroy(struct auth *a);

/* What decides, handed in so that it can be asked without a broker. */
struct auth_view {
	const struct im_settings *settings;
	const struct roster *roster;
	struct session_table *sessions;
	bool link_up;
};

enum auth_verdict auth_check(struct auth *a, const struct auth_view *v, const struct broker_client *c, const char *password,
			     struct auth_why *why);
/* What does not need the password: client id, roster, service ids. IM-side of `why USER connect`. */
enum auth_verdict auth_check_name(const struct auth_view *v, const struct broker_client *c, struct auth_why *why);

/* Kept for `why`, and one log line (rationed). */
void auth_refused(struct auth *a, const struct broker_client *c, const struct auth_why *why);
/* The last refused CONNECT of this user and client id (NULL: any): JSON members appended to `out`. false: none. */
bool auth_last_refused(const struct auth *a, const char *user, const char *client_id, struct im_buf *out);

struct auth_stats {
	uint64_t accepted, refused, later, hashed, cached;
};
void auth_stats(const struct auth *a, struct auth_stats *out);

#endif
