/*
 * Rights. The one difficult idea: WRITE on im/v1/... is granted for good and bad topics alike, because a
 * denial here raises no MESSAGE event and could not be explained; nobody reads these topics, so granting
 * gives nothing away. READ below im/ is the opposite: nothing is ever routed there, and it is denied to
 * everybody, except while a client's stored session is resumed - what waits in the broker then was sent to
 * that client by us, and denying it would leak the session's send quota.
 */
#include "acl.h"

#include "base/clock.h"
#include "plugin.h"
#include "route.h"

#include <string.h>

#define SINK "$im/sink"

bool acl_is_admin(const struct im_settings *settings, const char *user)
{
	size_t len = strlen(user);
	const char *at = settings->admins ? settings->admins : "";

	while (*at) {
		size_t skip = strspn(at, ", \t"), n;

		at += skip;
		n = strcspn(at, ", \t");
		if (n == len && n > 0 && memcmp(at, user, n) == 0)
			return true;
		at += n;
	}
	return false;
}

enum acl_verdict acl_plain(const struct im_settings *settings, const struct acl_who *who)
{
	bool others = settings->has_acl_file || settings->other_auth_plugins;

	if (who->service)
		return ACL_DENY;
	if (!who->ours)
		return others ? ACL_DEFER : ACL_ALLOW; /* all plugins deferring is a denial; without plugins it was none */
	switch (settings->plain_topics) {
	case IM_PLAIN_ALLOW:
		return ACL_ALLOW;
	case IM_PLAIN_ACL:
		return others ? ACL_DEFER : ACL_DENY;
	case IM_PLAIN_DENY:
		break;
	}
	return ACL_DENY;
}

enum acl_verdict acl_publish(const struct im_settings *settings, const struct acl_who *who, const struct im_topic *topic, const char *text)
{
	switch (topic->kind) {
	case IM_TOPIC_PLAIN:
		return acl_plain(settings, who);
	case IM_TOPIC_BUS:
		if (!who->service || strcmp(text, SINK) == 0)
			return ACL_DENY;
		if (strcmp(text, "$im/out") == 0)
			return strcmp(who->client_id, PLUGIN_SERVICE) == 0 ? ACL_ALLOW : ACL_DENY;
		return ACL_ALLOW;
	case IM_TOPIC_CONTROL:
		return who->service || who->ours ? ACL_ALLOW : ACL_DENY; /* who is no admin is told so by control.c */
	case IM_TOPIC_CONTROL_RESPONSE:
		return ACL_DENY;
	case IM_TOPIC_BAD:
		return who->ours && text[0] == 'i' ? ACL_ALLOW : ACL_DENY; /* below im/: explained by route.c */
	default:
		return who->ours ? ACL_ALLOW : ACL_DENY;
	}
}

static enum acl_verdict subscribe_inbox(const struct im_settings *settings, const struct acl_who *who, const struct im_filter *f,
					enum im_codec codec, unsigned n_filters, struct im_refusal *why)
{
	if (!who->ours) {
		im_refuse(why, IM_REFUSE_NOT_ALLOWED, "only the chat's own users have an inbox");
		return ACL_DENY;
	}
	if (f->shared) {
		im_refuse(why, IM_REFUSE_NOT_ALLOWED, "an inbox cannot be shared");
		return ACL_DENY;
	}
	if (codec != IM_CODEC_NONE && codec != f->codec) {
		im_refuse(why, IM_REFUSE_CODEC, "this device has subscribed to im/v1/%s/... already", im_codec_level(codec));
		return ACL_DENY;
	}
	if (n_filters >= settings->filters) {
		im_refuse(why, IM_REFUSE_TOO_MANY, "more than %u filters below im/", settings->filters);
		return ACL_DENY;
	}
	return ACL_ALLOW;
}

enum acl_verdict acl_subscribe(const struct im_settings *settings, const struct acl_who *who, const char *text,
			       const struct im_filter *filter, enum im_codec codec, unsigned n_filters, struct im_refusal *why)
{
	memset(why, 0, sizeof(*why));
	switch (filter->kind) {
	case IM_FILTER_PLAIN:
		return acl_plain(settings, who);
	case IM_FILTER_INBOX:
		return subscribe_inbox(settings, who, filter, codec, n_filters, why);
	case IM_FILTER_ROOM:
		im_refuse(why, IM_REFUSE_UNAVAILABLE, "this server does not deliver groups as rooms");
		return ACL_DENY;
	case IM_FILTER_CONTROL_RESPONSE:
		if (!filter->shared && (who->service || who->admin))
			return ACL_ALLOW;
		im_refuse(why, IM_REFUSE_NOT_ALLOWED, "answers to admin commands are for admins");
		return ACL_DENY;
	case IM_FILTER_BUS:
		if (who->service && !filter->shared)
			return ACL_ALLOW;
		im_refuse(why, IM_REFUSE_NOT_ALLOWED, "%.64s is for services", text);
		return ACL_DENY;
	case IM_FILTER_BAD:
		break;
	}
	im_refuse(why, IM_REFUSE_BAD_TOPIC, "%s", filter->why ? filter->why : "not a filter of ours");
	return ACL_DENY;
}

/* ---- the broker's question ---- */

/* After a restart the broker has sessions that AUTH never told about: their user name still says whose they are. */
static struct session *find_who(struct plugin *p, const struct mosquitto *context, struct acl_who *who)
{
	struct session *s = session_by_context(p->sessions, context);
	struct broker_client c;

	memset(who, 0, sizeof(*who));
	if (s) {
		who->user = s->user;
		who->client_id = s->client_id;
		who->service = s->service;
		who->ours = !s->service;
	} else {
		broker_client(context, &c);
		who->user = c.user;
		who->client_id = c.id;
		who->ours = c.user && roster_user(p->roster, c.user) != NULL;
	}
	who->admin = who->ours && acl_is_admin(&p->settings, who->user);
	return s;
}

static bool is_reserved(const char *topic)
{
	if (topic[0] == 'i')
		return strncmp(topic, "im/", 3) == 0;
	if (topic[0] == '$')
		return strncmp(topic, "$im/", 4) == 0 || strncmp(topic, "$CONTROL/im/", 12) == 0;
	return false;
}

static enum acl_verdict check_read(struct plugin *p, const struct acl_event *ev)
{
	struct acl_who who;
	struct session *s;

	if (!is_reserved(ev->topic)) {
		find_who(p, ev->context, &who);
		return acl_plain(&p->settings, &who);
	}
	if (strcmp(ev->topic, SINK) == 0)
		return ACL_DENY;
	s = session_by_context(p->sessions, ev->context);
	if (!s)
		return ACL_DENY;
	if (s->service)
		return strncmp(ev->topic, "$im/", 4) == 0 ? ACL_ALLOW : ACL_DENY;
	if (!session_is_resuming(p->sessions, s))
		return ACL_DENY;
	link_resumed(p->link, s, ev->len);
	return ACL_ALLOW;
}

/*
 * Contexts are freed and their addresses used again; a login that another plugin decided, or a certificate, never
 * came by us. So what is remembered under an address counts only for who the broker says is there.
 */
static const struct session_gone *whose_will(struct plugin *p, const struct acl_event *ev, const struct acl_who *who)
{
	const struct session_gone *g = session_gone(p->sessions, ev->context);

	if (!g || !who->user || !who->client_id)
		return NULL;
	return strcmp(g->user, who->user) == 0 && strcmp(g->client_id, who->client_id) == 0 ? g : NULL;
}

/* A WRITE by somebody whose connection has ended, or whose id has a new owner, is a will. */
static enum acl_verdict check_will(struct plugin *p, const struct acl_event *ev, const struct acl_who *who, const struct im_topic *t)
{
	const struct session_gone *g = whose_will(p, ev, who);

	if (t->kind == IM_TOPIC_PLAIN)
		return acl_plain(&p->settings, who);
	if (g && t->kind == IM_TOPIC_TO)
		route_will(p, g, ev);
	return ACL_DENY; /* journaled or not, the broker routes nothing */
}

static enum acl_verdict check_write(struct plugin *p, const struct acl_event *ev)
{
	struct acl_who who;
	struct session *s = find_who(p, ev->context, &who);
	struct im_topic t;

	im_topic_parse(ev->topic, &t);
	if (!s)
		return check_will(p, ev, &who, &t);
	if (session_taken_over(p->sessions, s))
		return t.kind == IM_TOPIC_PLAIN ? acl_plain(&p->settings, &who) : ACL_DENY;
	/* A QoS 2 message that waits for its PUBREL was rewritten to the sink; refusing it would leak a receive slot. */
	if (strcmp(ev->topic, SINK) == 0)
		return session_is_resuming(p->sessions, s) ? ACL_ALLOW : ACL_DENY;
	session_is_active(s);
	return acl_publish(&p->settings, &who, &t, ev->topic);
}

/* Each of them writes a row of {dir}/sessions and makes the service look at the device again: no cheaper than a message. */
static bool subscribe_within_rate(struct plugin *p, struct session *s, struct im_refusal *why)
{
	if (!s || !s->limit || limit_send(s->limit, p->settings.rate_connection, p->settings.rate_user, im_clock_mono_us()))
		return true;
	im_refuse(why, IM_REFUSE_TOO_FAST, NULL);
	return false;
}

static enum acl_verdict check_subscribe(struct plugin *p, const struct acl_event *ev)
{
	struct acl_who who;
	struct session *s = find_who(p, ev->context, &who);
	struct im_refusal why;
	struct im_filter f;
	enum acl_verdict v;
	unsigned others;

	im_filter_parse(ev->topic, &f);
	/* A kick asks again about every subscription of a stored session, with QoS 0: nothing is new. */
	if (s && session_find_filter(s, ev->topic) && (s->kicked || session_taken_over(p->sessions, s)))
		return ACL_ALLOW;
	others = s ? s->n_filters - (session_find_filter(s, ev->topic) ? 1 : 0) : 0;
	v = acl_subscribe(&p->settings, &who, ev->topic, &f, s && others > 0 ? s->codec : IM_CODEC_NONE, others, &why);
	if (v == ACL_ALLOW && f.kind == IM_FILTER_INBOX && !subscribe_within_rate(p, s, &why))
		v = ACL_DENY;
	if (!s)
		return v == ACL_ALLOW && f.kind != IM_FILTER_PLAIN ? ACL_DENY : v;
	session_is_active(s);
	if (v == ACL_DENY && why.code != IM_REFUSE_NONE && who.ours)
		(void)refuse_send(&p->settings, p->sessions, s, &why, ev->topic, NULL); /* false: is being closed */
	if (v != ACL_ALLOW || f.kind != IM_FILTER_INBOX)
		return v;
	if (session_add_filter(p->sessions, s, ev->topic, f.codec, ev->qos) == IM_FAILED)
		return ACL_DENY;
	link_session(p->link, s);
	return ACL_ALLOW;
}

static enum acl_verdict check_unsubscribe(struct plugin *p, const struct acl_event *ev)
{
	struct acl_who who;
	struct session *s = find_who(p, ev->context, &who);

	if (s)
		session_is_active(s);
	if (s && session_remove_filter(p->sessions, s, ev->topic))
		link_session(p->link, s);
	if (who.ours || who.service || is_reserved(ev->topic))
		return ACL_ALLOW;
	return acl_plain(&p->settings, &who);
}

enum acl_verdict acl_check(struct plugin *p, const struct acl_event *ev)
{
	switch (ev->access) {
	case ACL_READ:
		return check_read(p, ev);
	case ACL_WRITE:
		return check_write(p, ev);
	case ACL_SUBSCRIBE:
		return check_subscribe(p, ev);
	case ACL_UNSUBSCRIBE:
		return check_unsubscribe(p, ev);
	}
	return ACL_DENY;
}
