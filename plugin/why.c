/* {"query":"why","user","action","what"}, {"query":"login","user","client_id","secret","address"} and {"query":"status"}: docs/bus.md. */
#include "why.h"

#include "acl.h"
#include "plugin.h"
#include "route.h"
#include "wire/codec.h"

#include <jansson.h>
#include <string.h>

static void put_string(struct im_buf *out, const char *name, const char *value)
{
	im_buf_printf(out, "\"%s\":", name);
	im_json_string(out, value, strlen(value));
}

static void put_answer(struct im_buf *out, bool allowed, const char *rule, const char *reason, const char *fix)
{
	im_buf_printf(out, "{\"allowed\":%s,", allowed ? "true" : "false");
	put_string(out, "rule", rule);
	im_buf_add_char(out, ',');
	put_string(out, "reason", reason);
	im_buf_add_char(out, ',');
	put_string(out, "fix", fix);
}

static void put_refusal(struct im_buf *out, const struct im_refusal *why)
{
	put_answer(out, false, im_refusal_name(why->code), why->reason, why->fix);
	im_buf_add_char(out, '}');
}

static void put_plain(struct im_buf *out, const struct plugin *p, const struct acl_who *who)
{
	switch (acl_plain(&p->settings, who)) {
	case ACL_ALLOW:
		put_answer(out, true, "plain_topics", "an ordinary topic, and im_plain_topics allows those", "");
		break;
	case ACL_DEFER:
		put_answer(out, true, "acl_file", "an ordinary topic: acl_file or another plugin decides", "look into acl_file");
		break;
	case ACL_DENY:
		put_answer(out, false, "plain_topics", "an ordinary topic, and im_plain_topics keeps the chat's users off those",
			   "set im_plain_topics to acl or allow");
		break;
	}
	im_buf_add_char(out, '}');
}

static void why_connect(struct plugin *p, const char *user, const char *client_id, struct im_buf *out)
{
	struct auth_view v = { &p->settings, p->roster, p->sessions, link_is_up(p->link), false };
	struct broker_client c = { .id = client_id, .user = user, .address = "", .protocol = 5 };
	struct auth_why why;
	enum auth_verdict verdict = auth_explain(p->auth, &v, &c, &why);
	struct im_buf last;

	if (verdict == AUTH_DEFER)
		put_answer(out, true, "not_ours", "not a user of the chat: password_file or another plugin decides", "");
	else
		put_answer(out, verdict != AUTH_REFUSE && verdict != AUTH_LATER, why.rule, why.reason, why.fix);
	im_buf_init(&last);
	if (auth_last_refused(p->auth, user, client_id, &last)) {
		im_buf_add_str(out, ",\"last_refused\":{");
		im_buf_add(out, last.data, last.len);
		im_buf_add_char(out, '}');
	}
	im_buf_finish(&last);
	im_buf_add_char(out, '}');
}

static void why_publish(struct plugin *p, const struct acl_who *who, const char *text, struct im_buf *out)
{
	struct im_topic t;
	struct im_refusal why;

	memset(&why, 0, sizeof(why));
	im_topic_parse(text, &t);
	if (t.kind == IM_TOPIC_PLAIN) {
		put_plain(out, p, who);
		return;
	}
	if (t.kind == IM_TOPIC_CONTROL && who->admin) {
		put_answer(out, true, "admin", "one of im_admins", "");
		im_buf_add_char(out, '}');
		return;
	}
	if (!route_may_publish(p->roster, who->user, &t, false, &why)) {
		put_refusal(out, &why);
		return;
	}
	put_answer(out, true, "ok", "allowed, if the payload is right and within the limits", "");
	im_buf_add_char(out, '}');
}

static void why_subscribe(struct plugin *p, const struct acl_who *who, const char *text, struct im_buf *out)
{
	struct im_filter f;
	struct im_refusal why;
	enum acl_verdict v;

	im_filter_parse(text, &f);
	if (f.kind == IM_FILTER_PLAIN) {
		put_plain(out, p, who);
		return;
	}
	v = acl_subscribe(&p->settings, who, text, &f, IM_CODEC_NONE, 0, &why);
	if (v == ACL_DENY) {
		put_refusal(out, &why);
		return;
	}
	put_answer(out, true, "ok", "allowed, unless the device has subscribed to another codec", "");
	im_buf_add_char(out, '}');
}

static void why(struct plugin *p, const json_t *q, struct im_buf *out)
{
	const char *user = json_string_value(json_object_get(q, "user"));
	const char *action = json_string_value(json_object_get(q, "action"));
	const char *what = json_string_value(json_object_get(q, "what"));
	struct acl_who who = { .user = user, .client_id = "" };

	if (!user || !action || !what) {
		put_answer(out, false, "bad_query", "user, action and what are wanted", "");
		im_buf_add_char(out, '}');
		return;
	}
	who.ours = roster_user(p->roster, user) != NULL;
	who.admin = who.ours && acl_is_admin(&p->settings, user);
	if (strcmp(action, "connect") == 0) {
		why_connect(p, user, what, out);
	} else if (!who.ours) {
		put_answer(out, false, "unknown_user", "not a user of the chat", "imctl user add");
		im_buf_add_char(out, '}');
	} else if (strcmp(action, "publish") == 0) {
		why_publish(p, &who, what, out);
	} else if (strcmp(action, "subscribe") == 0) {
		why_subscribe(p, &who, what, out);
	} else {
		put_answer(out, false, "bad_query", "action is connect, publish or subscribe", "");
		im_buf_add_char(out, '}');
	}
}

/* Of a request over HTTP. Nothing is opened: the answer holds for this one request. No passwords, so nothing to hash. */
static void login(struct plugin *p, const json_t *q, struct im_buf *out)
{
	struct auth_view v = { &p->settings, p->roster, p->sessions, link_is_up(p->link), false };
	struct broker_client c = { .protocol = 5, .clean = true };
	const char *secret = json_string_value(json_object_get(q, "secret"));
	struct auth_grant grant;
	struct auth_why why;
	enum auth_verdict verdict;

	c.user = json_string_value(json_object_get(q, "user"));
	c.id = json_string_value(json_object_get(q, "client_id"));
	c.address = json_string_value(json_object_get(q, "address"));
	if (!c.user || !c.id || !c.address || !secret) {
		put_answer(out, false, "bad_query", "user, client_id, address and secret are wanted", "");
		im_buf_add_char(out, '}');
		return;
	}
	verdict = auth_check_request(p->auth, &v, &c, secret, &grant, &why);
	if (verdict != AUTH_OURS)
		auth_refused(p->auth, &c, &why);
	put_answer(out, verdict == AUTH_OURS, verdict == AUTH_OURS ? "ok" : why.rule, verdict == AUTH_OURS ? "" : why.reason,
		   verdict == AUTH_OURS ? "" : why.fix);
	im_buf_printf(out, ",\"later\":%s,", verdict == AUTH_LATER ? "true" : "false");
	put_string(out, "user", *grant.user ? grant.user : c.user);
	im_buf_add_char(out, '}');
}

static void status(const struct plugin *p, struct im_buf *out)
{
	const char *state = journal_why(p->journal);
	struct link_stats l;
	struct auth_stats a;

	link_stats(p->link, &l);
	auth_stats(p->auth, &a);
	im_buf_printf(out,
		      "{\"version\":\"%s\",\"journal\":{\"bytes\":%llu,\"limit\":%llu,\"epoch\":%llu,\"end\":%llu,\"durability\":\"%s\",\"state\":",
		      IM_VERSION, (unsigned long long)journal_bytes(p->journal), (unsigned long long)p->settings.journal_limit,
		      (unsigned long long)journal_epoch(p->journal), (unsigned long long)journal_end(p->journal), p->settings.durability == IM_DURABILITY_DISK ? "disk" : "process");
	im_json_string(out, *state ? state : "ok", *state ? strlen(state) : 2);
	im_buf_printf(out,
		      "},\"sessions\":%zu,\"link\":{\"backlog\":%llu,\"in_flight\":%llu,\"frames_in\":%llu,\"frames_out\":%llu,"
		      "\"deliveries\":%llu,\"expanded\":%llu,\"stale\":%llu},",
		      session_count(p->sessions), (unsigned long long)l.backlog, (unsigned long long)l.in_flight,
		      (unsigned long long)l.frames_in, (unsigned long long)l.frames_out, (unsigned long long)l.deliveries,
		      (unsigned long long)l.expanded, (unsigned long long)l.stale);
	im_buf_printf(out, "\"auth\":{\"accepted\":%llu,\"refused\":%llu,\"later\":%llu,\"hashed\":%llu,\"cached\":%llu,"
		      "\"slowed\":%llu,\"verified\":%llu}}",
		      (unsigned long long)a.accepted, (unsigned long long)a.refused, (unsigned long long)a.later,
		      (unsigned long long)a.hashed, (unsigned long long)a.cached, (unsigned long long)a.slowed,
		      (unsigned long long)a.verified);
}

void why_query(void *arg, const char *json, struct im_buf *out)
{
	struct plugin *p = arg;
	json_t *q = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
	const char *query = json_string_value(json_object_get(q, "query"));

	if (query && strcmp(query, "why") == 0)
		why(p, q, out);
	else if (query && strcmp(query, "login") == 0)
		login(p, q, out);
	else if (query && strcmp(query, "status") == 0)
		status(p, out);
	else
		im_buf_add_str(out, "{\"error\":\"unknown query\"}");
	json_decref(q);
}
