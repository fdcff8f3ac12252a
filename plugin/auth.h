/*
 * Who may connect. The ways to log in, in their one order (docs/login.md):
 *
 *   service      user $im, over the Unix socket, with the secret of run/bus.secret
 *   token        the password is a token that imctl issued
 *   JWT          the password has a JWT's form, and im_jwt_keys is set: it is judged as nothing else
 *   certificate  the connection's TLS certificate names the user (im_certificate_user)
 *   password     argon2id
 *
 * All but the last take microseconds. A password costs 15-60 ms of the broker's only thread, so proven ones are
 * remembered and unknown ones rationed: over the ration the socket is closed without an answer and the client
 * comes again. Guessing is slowed (attempts.h), and bad JWTs together cost a small share of the thread (ration.h).
 */
#ifndef PLUGIN_AUTH_H
#define PLUGIN_AUTH_H

#include "base/buf.h"
#include "base/conf.h"
#include "certificate.h"
#include "roster/roster.h"
#include "session.h"

#define AUTH_CACHE_MAX 65536u  /* remembered verdicts, 100 bytes each; beyond it the oldest goes and is hashed again */
#define AUTH_REST 2            /* while others talk: after a hash the thread is theirs for so many times as long */
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
	char reason[400];
	char fix[160];
};

/* What a CONNECT brought to prove who it is. */
struct auth_proof {
	const char *password;                  /* NULL: none */
	const struct certificate *certificate; /* NULL: none, or im_certificate_user is off */
};

/* What follows from AUTH_OURS. */
struct auth_grant {
	char user[IM_NAME_MAX + 1];            /* "": the user name that was given; otherwise none was, and it is this one */
	int64_t expires_ms;                    /* wall clock, when the session must end; 0 = never */
};

struct auth;

/* secret: 64 hex digits that services log in with. NULL: out of memory. */
struct auth *auth_create(const char *secret);
void auth_destroy(struct auth *a);
/* Reads the keys of im_jwt_keys, at the start and after SIGHUP. Not IM_OK: the old ones stay. */
enum im_status auth_load(struct auth *a, const struct im_settings *s, struct im_err *err);

/* What decides, handed in so that it can be asked without a broker. */
struct auth_view {
	const struct im_settings *settings;
	const struct roster *roster;
	struct session_table *sessions;
	bool link_up;
	bool busy;               /* others are talking just now: they would feel several hashes in a row */
};

enum auth_verdict auth_check(struct auth *a, const struct auth_view *v, const struct broker_client *c, const struct auth_proof *proof,
			     struct auth_grant *grant, struct auth_why *why);
/*
 * The same for a request that came over HTTP (services/api): tokens and JWTs only, since a password would cost the broker's
 * thread. c->user "" or NULL: the JWT names the user, and grant->user is it. AUTH_OURS, AUTH_REFUSE or AUTH_LATER.
 */
enum auth_verdict auth_check_request(struct auth *a, const struct auth_view *v, const struct broker_client *c, const char *secret,
				     struct auth_grant *grant, struct auth_why *why);
/* What does not need a proof: client id, roster, service ids. */
enum auth_verdict auth_check_name(const struct auth_view *v, const struct broker_client *c, struct auth_why *why);
/* The same for `why USER connect`: a good answer tells which ways to log in this user has. */
enum auth_verdict auth_explain(const struct auth *a, const struct auth_view *v, const struct broker_client *c, struct auth_why *why);

/* Kept for `why`, and one log line (rationed). */
void auth_refused(struct auth *a, const struct broker_client *c, const struct auth_why *why);
/* The last refused CONNECT of this user and client id (NULL: any): JSON members appended to `out`. false: none. */
bool auth_last_refused(const struct auth *a, const char *user, const char *client_id, struct im_buf *out);

struct auth_stats {
	uint64_t accepted, refused, later, hashed, cached, slowed, verified; /* verified: signatures of JWTs */
};
void auth_stats(const struct auth *a, struct auth_stats *out);

#endif
