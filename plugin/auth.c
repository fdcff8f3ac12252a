/*
 * Logins. First who it is, then whether the client id is theirs, then the proof, in the order of auth.h.
 * The cache of passwords holds a keyed MAC over user, the user's version and the password field, both of good and of
 * bad ones, so that a device with an old password does not eat the ration. Whoever is slowed is not even shown what the
 * cache says: it would answer guesses at full speed.
 */
#include "auth.h"

#include "attempts.h"
#include "base/clock.h"
#include "base/log.h"
#include "jwt_login.h"
#include "limit.h"
#include "ration.h"
#include "wire/codec.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define MAC_LEN 16
#define SERVICE_USER "$im"
#define SERVICE_PREFIX "$im-"

struct proven {
	uint8_t mac[MAC_LEN];
	bool good;
	UT_hash_handle hh;
};

struct refused {
	int64_t ts;
	char *user, *client_id, *address;
	struct auth_why why;
};

struct auth {
	char secret[65];
	uint8_t key[32];         /* of the cache, new at each start */
	struct proven *cache;
	struct jwt_login *jwt;
	struct attempts *attempts;
	struct ration *ration;   /* of bad tokens */
	struct limit_bucket hashes, lines;
	int64_t rest_until_us;   /* no hash before, while others talk */
	uint64_t unsaid;         /* log lines left out */
	struct refused refused[AUTH_REFUSED_MAX];
	size_t n_refused, next_refused;
	struct auth_stats stats;
};

static enum auth_verdict say(struct auth_why *why, enum auth_verdict v, const char *rule, const char *fix, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

static enum auth_verdict say(struct auth_why *why, enum auth_verdict v, const char *rule, const char *fix, const char *fmt, ...)
{
	va_list ap;

	why->rule = rule;
	(void)snprintf(why->fix, sizeof(why->fix), "%s", fix); /* shortened at worst */
	va_start(ap, fmt);
	(void)vsnprintf(why->reason, sizeof(why->reason), fmt, ap);
	va_end(ap);
	return v;
}

struct auth *auth_create(const char *secret)
{
	struct auth *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->jwt = jwt_login_create();
	a->attempts = attempts_create();
	a->ration = ration_create();
	if (!a->jwt || !a->attempts || !a->ration) {
		auth_destroy(a);
		return NULL;
	}
	(void)snprintf(a->secret, sizeof(a->secret), "%s", secret);
	randombytes_buf(a->key, sizeof(a->key));
	return a;
}

static void refused_clear(struct refused *r)
{
	free(r->user);
	free(r->client_id);
	free(r->address);
	memset(r, 0, sizeof(*r));
}

static void cache_remove(struct auth *a, struct proven *p)
{
	HASH_DEL(a->cache, p);
	free(p);
}

void auth_destroy(struct auth *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < AUTH_REFUSED_MAX; i++)
		refused_clear(&a->refused[i]);
	while (a->cache)
		cache_remove(a, a->cache);
	jwt_login_destroy(a->jwt);
	attempts_destroy(a->attempts);
	ration_destroy(a->ration);
	sodium_memzero(a, sizeof(*a));
	free(a);
}

enum im_status auth_load(struct auth *a, const struct im_settings *s, struct im_err *err)
{
	return jwt_login_load(a->jwt, s, err);
}

/* ---- services ---- */

/* A Unix socket's address is its path. WebSocket clients can forge theirs, but are known as such. */
static bool over_unix_socket(const struct broker_client *c)
{
	struct in6_addr any;

	if (c->websocket || !c->address)
		return false;
	return inet_pton(AF_INET, c->address, &any) != 1 && inet_pton(AF_INET6, c->address, &any) != 1;
}

static enum auth_verdict check_service(const struct auth *a, const struct broker_client *c, const char *password, struct auth_why *why)
{
	size_t len = password ? strlen(password) : 0;

	if (strncmp(c->id, SERVICE_PREFIX, strlen(SERVICE_PREFIX)) != 0)
		return say(why, AUTH_REFUSE, "service_id", "services use the client id that belongs to them",
			   "the service credential is for client ids that begin with " SERVICE_PREFIX " only");
	if (!over_unix_socket(c))
		return say(why, AUTH_REFUSE, "service_socket", "connect over the broker's Unix socket (im_bus)",
			   "services connect over the Unix socket only");
	if (strlen(a->secret) != 64 || len != 64 || sodium_memcmp(a->secret, password, 64) != 0)
		return say(why, AUTH_REFUSE, "service_secret", "read run/bus.secret again: it is new at each start of the broker",
			   "wrong service secret");
	return AUTH_SERVICE;
}

/* ---- users that are not ours ---- */

/*
 * With a plugin that only defers, the broker refuses every login with a user name; without one and without
 * password_file it accepts them if allow_anonymous is on. The old clients must not see that difference.
 */
static enum auth_verdict check_foreign(const struct auth_view *v, const struct broker_client *c, struct auth_why *why)
{
	const struct im_settings *s = v->settings;
	size_t user_len;
	char name[IM_NAME_MAX + 1];

	if (session_holds_id(v->sessions, c->id))
		return say(why, AUTH_REFUSE, "client_id_taken", "use another client id",
			   "client id %.128s is in use or has a stored session, by one of the chat's users", c->id);
	if (im_client_id_named(c->id, &user_len) && user_len <= IM_NAME_MAX) {
		memcpy(name, c->id, user_len);
		name[user_len] = '\0';
		if (roster_user(v->roster, name))
			return say(why, AUTH_REFUSE, "client_id_named", "use another client id", "client id %.128s belongs to user %s alone", c->id, name);
	}
	if (s->has_password_file || s->other_auth_plugins)
		return AUTH_DEFER;
	if (roster_version(v->roster) == 0 && !v->link_up && c->user)
		return say(why, AUTH_REFUSE, "no_roster", "start the message service, then come again",
			   "no copy of the users yet, so nobody can be told from ours");
	if (s->allow_anonymous)
		return AUTH_FOREIGN;
	return AUTH_DEFER; /* the broker refuses */
}

/* ---- our users ---- */

static enum auth_verdict check_client_id(const struct auth_view *v, const struct broker_client *c, struct auth_why *why)
{
	size_t len;

	if (im_client_id_named(c->id, &len)) {
		if (strlen(c->user) != len || strncmp(c->id, c->user, len) != 0)
			return say(why, AUTH_REFUSE, "client_id_named", "use {user}:{device} with your own name, or an id without a colon",
				   "client id %.128s belongs to user %.*s alone", c->id, (int)(len > IM_NAME_MAX ? IM_NAME_MAX : len), c->id);
	} else if (!im_client_id_unnamed(c->id, c->user)) {
		return say(why, AUTH_REFUSE, "client_id_bad", "1 to 128 printable ASCII bytes without / + #, or {user}:{device}",
			   "this client id is not allowed");
	}
	if (session_claim(v->sessions, c->id, c->user) == SESSION_OF_OTHER)
		return say(why, AUTH_REFUSE, "client_id_taken", "use another client id, best of all {user}:{device}",
			   "client id %.128s is in use or has a stored session, by somebody else", c->id);
	/* Of MQTT 5 the broker does not tell who wants a session to be kept: there it is our copy that gives way. */
	if (!c->clean && c->protocol != 5 && !session_may_store(v->sessions, c->id, c->user))
		return say(why, AUTH_REFUSE, "too_many_sessions", "use the same client ids again, or a clean session, which also ends a stored one",
			   "user %s has as many stored sessions as one may have", c->user);
	return AUTH_OURS;
}

enum auth_verdict auth_check_name(const struct auth_view *v, const struct broker_client *c, struct auth_why *why)
{
	const struct roster_user *u = c->user ? roster_user(v->roster, c->user) : NULL;

	say(why, AUTH_OURS, "ok", "", "nothing refuses this connect but a wrong password or token");
	if (!c->id)
		return say(why, AUTH_REFUSE, "client_id_bad", "give a client id", "no client id");
	if (strncmp(c->id, SERVICE_PREFIX, strlen(SERVICE_PREFIX)) == 0 && !(c->user && strcmp(c->user, SERVICE_USER) == 0))
		return say(why, AUTH_REFUSE, "client_id_reserved", "use another client id", "client ids that begin with " SERVICE_PREFIX " belong to services");
	if (!u)
		return check_foreign(v, c, why);
	if (u->disabled)
		return say(why, AUTH_REFUSE, "user_disabled", "an admin may enable the user again", "user %s is disabled", u->name);
	return check_client_id(v, c, why);
}

static void mac_of(const struct auth *a, const struct roster_user *u, const char *password, uint8_t mac[MAC_LEN])
{
	crypto_generichash_state st;
	uint64_t version = u->version;

	(void)crypto_generichash_init(&st, a->key, sizeof(a->key), MAC_LEN); /* fails for wrong lengths only */
	(void)crypto_generichash_update(&st, (const uint8_t *)u->name, strlen(u->name) + 1);
	(void)crypto_generichash_update(&st, (const uint8_t *)&version, sizeof(version));
	(void)crypto_generichash_update(&st, (const uint8_t *)u->password, strlen(u->password) + 1);
	(void)crypto_generichash_update(&st, (const uint8_t *)password, strlen(password));
	(void)crypto_generichash_final(&st, mac, MAC_LEN);
}

static void remember(struct auth *a, const uint8_t mac[MAC_LEN], bool good)
{
	struct proven *p;

	if (HASH_COUNT(a->cache) >= AUTH_CACHE_MAX)
		cache_remove(a, a->cache); /* in order of insertion: the oldest */
	p = calloc(1, sizeof(*p));
	if (!p)
		return; /* hashed again next time */
	memcpy(p->mac, mac, MAC_LEN);
	p->good = good;
	HASH_ADD(hh, a->cache, mac, MAC_LEN, p);
}

static enum auth_verdict bad_password(struct auth_why *why, const struct roster_user *u)
{
	return say(why, AUTH_REFUSE, "bad_password", "use the password or a token of this user (imctl token issue)",
		   "wrong password or token for user %s", u->name);
}

/*
 * A burst of hashes would be one long stop for those who talk, so each is followed by a rest that is longer than itself. On a
 * quiet server the whole burst may come at once.
 */
static bool may_hash(struct auth *a, const struct auth_view *v, int64_t now_us)
{
	if (v->busy && now_us < a->rest_until_us)
		return false;
	return limit_take(&a->hashes, v->settings->login_interval_ms * 1000LL, v->settings->login_burst, now_us);
}

static bool is_password(struct auth *a, const struct roster_user *u, const char *password)
{
	int64_t began = im_clock_mono_us(), ended;
	bool good = crypto_pwhash_str_verify(u->password, password, strlen(password)) == 0;

	ended = im_clock_mono_us();
	a->rest_until_us = ended + AUTH_REST * (ended - began);
	a->stats.hashed++;
	return good;
}

/* The hash, if the ration allows it. */
static enum auth_verdict check_cold(struct auth *a, const struct auth_view *v, const struct roster_user *u, const char *password,
				    const uint8_t mac[MAC_LEN], struct auth_why *why)
{
	bool good;

	if (!may_hash(a, v, im_clock_mono_us())) {
		a->stats.later++;
		return say(why, AUTH_LATER, "login_ration", "connect again; tokens are not rationed",
			   "too many new passwords to check at once (im_login_burst, im_login_interval)");
	}
	good = is_password(a, u, password);
	remember(a, mac, good);
	return good ? AUTH_OURS : bad_password(why, u);
}

static enum auth_verdict check_password(struct auth *a, const struct auth_view *v, const struct roster_user *u,
					const struct broker_client *c, const char *password, struct auth_why *why)
{
	const struct attempts_rules rules = { v->settings->login_tries, v->settings->login_wait_s };
	const struct attempts_from from = { u->name, c->address, c->websocket };
	int64_t now = im_clock_mono_ms(), wait = attempts_wait_ms(a->attempts, &rules, &from, now);
	enum auth_verdict verdict;
	uint8_t mac[MAC_LEN];
	struct proven *p;

	if (u->password[0] == '\0')
		return bad_password(why, u);
	if (wait > 0) {
		a->stats.slowed++;
		return say(why, AUTH_REFUSE, "too_many_failures", "wait, then use the right password; tokens are not slowed",
			   "too many wrong passwords for user %s or from this address: the next one is looked at in %lld s", u->name,
			   (long long)(wait + 999) / 1000);
	}
	mac_of(a, u, password, mac);
	HASH_FIND(hh, a->cache, mac, MAC_LEN, p);
	if (p) { /* a wrong one again is no new guess */
		a->stats.cached++;
		verdict = p->good ? AUTH_OURS : bad_password(why, u);
	} else {
		verdict = check_cold(a, v, u, password, mac, why);
		if (verdict == AUTH_REFUSE)
			attempts_failed(a->attempts, &rules, &from, now);
	}
	if (verdict == AUTH_OURS)
		attempts_succeeded(a->attempts, &rules, &from, now);
	return verdict;
}

/* NULL: the password is no token of this user. All are compared, so that the time does not tell which. */
static const struct roster_token *find_token(const struct roster_user *u, const char *password)
{
	const struct roster_token *found = NULL;
	uint8_t hash[32];

	if (u->n_tokens == 0)
		return NULL;
	(void)crypto_generichash(hash, sizeof(hash), (const uint8_t *)password, strlen(password), NULL, 0); /* fails for wrong lengths only */
	for (size_t i = 0; i < u->n_tokens; i++)
		if (sodium_memcmp(hash, u->tokens[i].hash, sizeof(hash)) == 0)
			found = &u->tokens[i];
	return found;
}

static enum auth_verdict check_token(const struct roster_user *u, const struct roster_token *t, struct auth_grant *grant, struct auth_why *why)
{
	if (t->expires_ms != 0 && t->expires_ms <= im_clock_wall_ms())
		return say(why, AUTH_REFUSE, "token_expired", "issue a new token", "this token of user %s has expired", u->name);
	grant->expires_ms = t->expires_ms;
	return AUTH_OURS;
}

/* user NULL: whoever the token names. */
static enum auth_verdict check_jwt(struct auth *a, const struct auth_view *v, const struct broker_client *c, const char *user,
				   const char *token, struct jwt_claims *claims, struct auth_why *why)
{
	const struct attempts_from from = { "", c->address, c->websocket };
	struct jwt_cold cold = { .allowed = ration_allows(a->ration, &from, im_clock_mono_us()) };
	enum jwt_verdict verdict = jwt_login_check(a->jwt, v->settings, token, im_clock_wall_ms() / 1000, &cold, claims);
	const struct jwt_text *text = jwt_text(verdict);

	if (verdict != JWT_GOOD && cold.took_us > 0)
		ration_charge(a->ration, &from, cold.took_us, im_clock_mono_us());
	if (verdict == JWT_LATER) {
		a->stats.later++;
		return say(why, AUTH_LATER, text->rule, text->fix, "%s", text->reason);
	}
	if (verdict != JWT_GOOD)
		return say(why, AUTH_REFUSE, text->rule, text->fix, "%s", text->reason);
	if (user && strcmp(claims->user, user) != 0)
		return say(why, AUTH_REFUSE, "jwt_user", "log in as the user the token names, or with no user name at all",
			   "the token is good, but it is another user's than %s", user);
	return AUTH_OURS;
}

/* In the leeway behind exp a token still opens a session; one that is open ends at exp. */
static int64_t jwt_end_ms(const struct jwt_claims *c, unsigned skew_s)
{
	int64_t now = im_clock_wall_ms();

	if (c->expires_s == 0)
		return 0;
	return (c->expires_s * 1000 > now ? c->expires_s : c->expires_s + (int64_t)skew_s) * 1000;
}

static enum auth_verdict check_credential(struct auth *a, const struct auth_view *v, const struct roster_user *u,
					  const struct broker_client *c, const struct auth_proof *proof, struct auth_grant *grant,
					  struct auth_why *why)
{
	const char *password = proof->password && *proof->password ? proof->password : NULL;
	const char *certified = proof->certificate ? proof->certificate->user : "";
	const struct roster_token *token = password ? find_token(u, password) : NULL;
	struct jwt_claims claims;
	enum auth_verdict verdict;

	if (*certified && strcmp(certified, u->name) != 0)
		return say(why, AUTH_REFUSE, "certificate_user", "connect as the user the certificate names",
			   "the client certificate is of user %s, not of %s", certified, u->name);
	if (token)
		return check_token(u, token, grant, why);
	if (password && jwt_login_applies(a->jwt, password)) {
		verdict = check_jwt(a, v, c, u->name, password, &claims, why);
		if (verdict != AUTH_OURS)
			return verdict;
		grant->expires_ms = jwt_end_ms(&claims, v->settings->jwt_skew_s);
		return AUTH_OURS;
	}
	if (*certified) {
		grant->expires_ms = proof->certificate->expires_ms;
		return AUTH_OURS;
	}
	if (password)
		return check_password(a, v, u, c, password, why);
	if (proof->certificate)
		return say(why, AUTH_REFUSE, "certificate_name", "it must hold a user's name exactly once, in lower case (im_certificate_user)",
			   "no password, and the client certificate names no user");
	return say(why, AUTH_REFUSE, "no_password", "send the password or a token as the MQTT password", "no password for user %s", u->name);
}

/*
 * Without a user name a JWT or a certificate says who it is. A good JWT of nobody we know is refused; a certificate
 * that names none of ours may well be of somebody else's devices.
 */
static enum auth_verdict name_user(struct auth *a, const struct auth_view *v, const struct broker_client *c, const struct auth_proof *proof,
				   struct auth_grant *grant, struct auth_why *why)
{
	struct jwt_claims claims;
	enum auth_verdict verdict;

	if (proof->password && jwt_login_applies(a->jwt, proof->password)) {
		verdict = check_jwt(a, v, c, NULL, proof->password, &claims, why);
		if (verdict != AUTH_OURS)
			return verdict;
		if (!roster_user(v->roster, claims.user))
			return say(why, AUTH_REFUSE, "unknown_user", "imctl user add", "the token is good, but there is no user %s", claims.user);
		memcpy(grant->user, claims.user, sizeof(grant->user));
	} else if (proof->certificate && roster_user(v->roster, proof->certificate->user)) {
		memcpy(grant->user, proof->certificate->user, sizeof(grant->user));
	}
	return AUTH_OURS;
}

static enum auth_verdict check_user(struct auth *a, const struct auth_view *v, const struct broker_client *c, const struct auth_proof *proof,
				    struct auth_grant *grant, struct auth_why *why)
{
	struct broker_client as = *c;
	enum auth_verdict verdict = AUTH_OURS;

	if (!c->user || !*c->user)
		verdict = name_user(a, v, c, proof, grant, why);
	if (*grant->user)
		as.user = grant->user;
	if (verdict == AUTH_OURS)
		verdict = auth_check_name(v, &as, why);
	if (verdict == AUTH_OURS)
		verdict = check_credential(a, v, roster_user(v->roster, as.user), &as, proof, grant, why);
	return verdict;
}

enum auth_verdict auth_check(struct auth *a, const struct auth_view *v, const struct broker_client *c, const struct auth_proof *proof,
			     struct auth_grant *grant, struct auth_why *why)
{
	enum auth_verdict verdict;

	memset(grant, 0, sizeof(*grant));
	if (c->id && c->user && strcmp(c->user, SERVICE_USER) == 0)
		verdict = check_service(a, c, proof->password, why);
	else
		verdict = check_user(a, v, c, proof, grant, why);
	if (verdict == AUTH_OURS)
		a->stats.accepted++;
	else if (verdict == AUTH_REFUSE)
		a->stats.refused++;
	return verdict;
}

static enum auth_verdict check_request(struct auth *a, const struct auth_view *v, const struct broker_client *c, const char *secret,
				       struct auth_grant *grant, struct auth_why *why)
{
	const struct roster_user *u = roster_user(v->roster, c->user);
	const struct roster_token *token = find_token(u, secret);
	struct jwt_claims claims;

	if (token)
		return check_token(u, token, grant, why);
	if (jwt_login_applies(a->jwt, secret))
		return check_jwt(a, v, c, u->name, secret, &claims, why);
	return say(why, AUTH_REFUSE, "bad_token", "use a token of this user (imctl token issue) or a JWT; passwords are for MQTT only",
		   "this is no token of user %s", u->name);
}

enum auth_verdict auth_check_request(struct auth *a, const struct auth_view *v, const struct broker_client *c, const char *secret,
				     struct auth_grant *grant, struct auth_why *why)
{
	const struct auth_proof proof = { secret, NULL };
	struct broker_client as = *c;
	enum auth_verdict verdict = AUTH_OURS;

	memset(grant, 0, sizeof(*grant));
	if (!c->user || !*c->user) {
		verdict = name_user(a, v, c, &proof, grant, why);
		as.user = grant->user;
	}
	if (verdict == AUTH_OURS && !roster_user(v->roster, as.user))
		verdict = say(why, AUTH_REFUSE, "unknown_user", "give user and token (Basic), or a JWT that names the user (Bearer)",
			      "no user of the chat is named");
	if (verdict == AUTH_OURS)
		verdict = auth_check_name(v, &as, why);
	if (verdict == AUTH_OURS)
		verdict = check_request(a, v, &as, secret, grant, why);
	if (verdict == AUTH_OURS)
		a->stats.accepted++;
	else if (verdict == AUTH_REFUSE)
		a->stats.refused++;
	return verdict;
}

enum auth_verdict auth_explain(const struct auth *a, const struct auth_view *v, const struct broker_client *c, struct auth_why *why)
{
	static const char *const fields[] = { "", "CN", "e-mail", "DNS name" };
	enum auth_verdict verdict = auth_check_name(v, c, why);
	const struct roster_user *u = c->user ? roster_user(v->roster, c->user) : NULL;
	const struct im_settings *s = v->settings;
	struct im_buf ways;

	if (verdict != AUTH_OURS || !u)
		return verdict;
	im_buf_init(&ways);
	im_buf_printf(&ways, "nothing refuses this connect but a wrong credential; good are: %zu tokens", u->n_tokens);
	if (jwt_login_keys(a->jwt) > 0)
		im_buf_printf(&ways, ", JWTs (%zu keys; %.30s = %s; iss %.60s; aud %.60s; exp %s)", jwt_login_keys(a->jwt), s->jwt_user_claim,
			      u->name, *s->jwt_issuer ? s->jwt_issuer : "any", *s->jwt_audience ? s->jwt_audience : "none",
			      s->jwt_need_expiry ? "needed" : "optional");
	if (s->certificate_user != IM_CERTIFICATE_OFF)
		im_buf_printf(&ways, ", client certificates (%s = %s)", fields[s->certificate_user], u->name);
	im_buf_add_str(&ways, u->password[0] ? ", the password" : "; there is no password");
	(void)say(why, AUTH_OURS, "ok", "", "%s", im_buf_text(&ways));
	im_buf_finish(&ways);
	return AUTH_OURS;
}

/* ---- what was refused ---- */

/* A copy without control bytes, for logs; ids and names of strangers may hold anything. */
static char *tame(const char *s, size_t most)
{
	char *out = strndup(s ? s : "", most);

	for (char *p = out; p && *p; p++)
		if ((unsigned char)*p < ' ' || *p == '"' || *p == 0x7f)
			*p = '?';
	return out;
}

static void log_refused(struct auth *a, const struct refused *r)
{
	if (!limit_take_rate(&a->lines, AUTH_LOG_RATE, im_clock_mono_us())) {
		a->unsaid++;
		return;
	}
	if (a->unsaid > 0)
		im_log(IM_LOG_NOTICE, "evt=connect_refused more=%llu not shown", (unsigned long long)a->unsaid);
	a->unsaid = 0;
	im_log(IM_LOG_NOTICE, "evt=connect_refused user=%s client=%s address=%s rule=%s reason=\"%s\"", r->user, r->client_id,
	       r->address, r->why.rule, r->why.reason);
}

void auth_refused(struct auth *a, const struct broker_client *c, const struct auth_why *why)
{
	struct refused *r = &a->refused[a->next_refused];

	refused_clear(r);
	r->ts = im_clock_wall_ms();
	r->user = tame(c->user, 128);
	r->client_id = tame(c->id, 128);
	r->address = tame(c->address, 128);
	r->why = *why;
	if (!r->user || !r->client_id || !r->address) {
		refused_clear(r);
		return;
	}
	log_refused(a, r);
	a->next_refused = (a->next_refused + 1) % AUTH_REFUSED_MAX;
	if (a->n_refused < AUTH_REFUSED_MAX)
		a->n_refused++;
}

static void put_json(struct im_buf *out, const char *name, const char *value)
{
	im_buf_printf(out, "\"%s\":", name);
	im_json_string(out, value, strlen(value));
}

bool auth_last_refused(const struct auth *a, const char *user, const char *client_id, struct im_buf *out)
{
	for (size_t i = 1; i <= a->n_refused; i++) {
		const struct refused *r = &a->refused[(a->next_refused + AUTH_REFUSED_MAX - i) % AUTH_REFUSED_MAX];

		if (strcmp(r->user, user) != 0 || (client_id && strcmp(r->client_id, client_id) != 0))
			continue;
		im_buf_printf(out, "\"ts\":%lld,", (long long)r->ts);
		put_json(out, "client_id", r->client_id);
		im_buf_add_char(out, ',');
		put_json(out, "address", r->address);
		im_buf_add_char(out, ',');
		put_json(out, "rule", r->why.rule);
		im_buf_add_char(out, ',');
		put_json(out, "reason", r->why.reason);
		im_buf_add_char(out, ',');
		put_json(out, "fix", r->why.fix);
		return true;
	}
	return false;
}

void auth_stats(const struct auth *a, struct auth_stats *out)
{
	*out = a->stats;
	out->verified = jwt_login_verified(a->jwt);
}
