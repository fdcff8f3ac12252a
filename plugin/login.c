/*
 * Connections coming and going. Between AUTH and DISCONNECT of a context there is a session; what else the
 * broker tells under these two events (failed logins, resumed sessions, port scans) session.c filters out.
 */
#include "base/clock.h"
#include "base/log.h"
#include "plugin.h"

#include <string.h>

static bool connected(struct plugin *p, const struct mosquitto *context, const struct broker_client *c, bool service, int64_t expires_ms)
{
	struct session *s = session_open(p->sessions, context, c, service);

	if (!s) {
		im_log(IM_LOG_ERROR, "evt=connect user=%s error=\"out of memory\"", c->user);
		return false;
	}
	if (!service) {
		s->limit = limit_open(p->limits, s->user);
		session_expires(p->sessions, s, expires_ms);
		link_session(p->link, s);
	} else if (strcmp(s->client_id, PLUGIN_SERVICE) == 0) {
		link_service(p->link, s->client_id, true);
	}
	return true;
}

/*
 * After SIGHUP the broker asks about every connection again, and about stored sessions too, whose context may
 * have no password any more. What we let in stays; nothing is opened a second time.
 */
static bool is_asked_again(struct plugin *p, const struct mosquitto *context, const struct broker_client *c)
{
	return p->reloading && (session_by_context(p->sessions, context) || session_is_stored(p->sessions, context, c));
}

/* A CONNECT without a user name gets the one its token or certificate proves; the broker's copy is what ACLs see later. */
static bool take_name(const struct mosquitto *context, struct broker_client *c, const struct auth_grant *grant)
{
	if (!*grant->user)
		return true;
	if (!broker_set_user(context, grant->user)) {
		im_log(IM_LOG_ERROR, "evt=connect user=%s error=\"the broker does not take the name\"", grant->user);
		return false;
	}
	broker_client(context, c);
	return true;
}

enum auth_verdict plugin_login(struct plugin *p, const struct mosquitto *context, const char *password)
{
	struct auth_view v = { &p->settings, p->roster, p->sessions, link_is_up(p->link),
			       limit_used(&p->talk, PLUGIN_TALK_US, PLUGIN_TALK_BUSY, im_clock_mono_us()) };
	struct auth_proof proof = { password, NULL };
	struct certificate certificate;
	struct broker_client c;
	struct auth_grant grant;
	struct auth_why why;
	enum auth_verdict verdict;

	broker_client(context, &c);
	if (is_asked_again(p, context, &c))
		return AUTH_OURS;
	if (p->settings.certificate_user != IM_CERTIFICATE_OFF && broker_certificate(context, p->settings.certificate_user, &certificate))
		proof.certificate = &certificate;
	verdict = auth_check(p->auth, &v, &c, &proof, &grant, &why);
	switch (verdict) {
	case AUTH_OURS:
	case AUTH_SERVICE:
		if (!take_name(context, &c, &grant) || !connected(p, context, &c, verdict == AUTH_SERVICE, grant.expires_ms))
			return AUTH_LATER;
		break;
	case AUTH_FOREIGN:
	case AUTH_DEFER:
		if (c.address)
			session_open_foreign(p->sessions, context, &c);
		break;
	case AUTH_REFUSE:
	case AUTH_LATER:
		auth_refused(p->auth, &c, &why);
		break;
	}
	return verdict;
}

void plugin_disconnected(struct plugin *p, const struct mosquitto *context)
{
	bool owner;
	struct session *s = session_close(p->sessions, context, &owner);

	if (!s)
		return;
	if (!s->service)
		link_closed(p->link, s->handle);
	else if (owner && strcmp(s->client_id, PLUGIN_SERVICE) == 0)
		link_service(p->link, s->client_id, false);
	limit_close(s->limit);
	session_free(s);
}
