/* Registering devices with push providers, and for admins what became of pushes. */
#include "command.h"
#include "push.h"
#include "push_quiet.h"

#include "base/clock.h"
#include "push/driver.h"
#include "wire/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NULL: the call has been refused, with `code`: a device is not told to try again, and an admin not to ask one. */
static struct push *push_of(struct call *call, enum im_refusal_code code)
{
	if (call->env->push == NULL)
		call_refuse(call, code, "push is switched off on this server (im_push)");
	return call->env->push;
}

static const char *state_name(const Im__Bus__PushToken *t)
{
	static const char *const names[] = {"active", "suspect", "invalid"};

	return (unsigned)t->state < 3 ? names[t->state] : "unknown";
}

static json_t *registration(const Im__Bus__PushToken *t)
{
	json_t *row = json_pack("{s:s,s:s,s:s,s:I,s:s}", "device", t->device, "provider", t->provider, "app", t->app, "registered",
				(json_int_t)t->registered_ms, "state", state_name(t));

	if (row == NULL)
		return NULL;
	if (t->env[0])
		json_object_set_new(row, "env", json_string(t->env));
	if (t->privacy[0])
		json_object_set_new(row, "privacy", json_string(t->privacy));
	if (t->language[0])
		json_object_set_new(row, "language", json_string(t->language));
	if (t->quiet_from != t->quiet_to)
		json_object_set_new(row, "quiet", json_pack("{s:I,s:I,s:s}", "from", (json_int_t)t->quiet_from, "to", (json_int_t)t->quiet_to,
							    "zone", t->zone));
	if (t->state != IM__BUS__PUSH_STATE__PUSH_ACTIVE) {
		json_object_set_new(row, "reason", json_string(t->reason));
		json_object_set_new(row, "since", json_integer(t->state_ms));
	}
	return row;
}

/* ---- devices */

static void on_registered(void *arg, enum im_status st)
{
	struct call *call = arg;
	const struct push_device *d;

	if (!call_step(call, st))
		return;
	d = push_registry_find(push_tokens(call->env->push), call->user, call->client_id, call_text(call, "provider"));
	if (d == NULL)
		call_refuse(call, IM_REFUSE_UNAVAILABLE, "another device registered this token meanwhile");
	else
		call_ok(call, registration(d->stored));
}

static const char *given(const struct call *call, const char *name)
{
	const char *text = call_text(call, name);

	return text != NULL ? text : "";
}

/* "HH:MM", 0 to 1439; false: not one. */
static bool minute_of(const char *text, uint32_t *out)
{
	unsigned h, m;
	char rest;

	/* NOLINTNEXTLINE(cert-err34-c): two digits */
	if (strlen(text) != 5 || sscanf(text, "%2u:%2u%c", &h, &m, &rest) != 2 || text[2] != ':' || h > 23 || m > 59)
		return false;
	*out = h * 60 + m;
	return true;
}

/* false: the call has been refused. */
static bool quiet_of(struct call *call, Im__Bus__PushToken *t)
{
	const char *from = call_text(call, "quiet_from"), *to = call_text(call, "quiet_to"), *zone = call_text(call, "zone");

	if (from == NULL && to == NULL)
		return true;
	if (from == NULL || to == NULL || zone == NULL)
		call_refuse(call, IM_REFUSE_BAD_FIELD, "quiet hours need quiet_from, quiet_to and zone");
	else if (!minute_of(from, &t->quiet_from) || !minute_of(to, &t->quiet_to))
		call_refuse(call, IM_REFUSE_BAD_FIELD, "quiet_from and quiet_to are local times like 22:00");
	else if (!quiet_zone_known(zone))
		call_refuse(call, IM_REFUSE_BAD_FIELD, "\"%s\" is no time zone known here: a name like Europe/Berlin, or an offset like +08:00", zone);
	else {
		t->zone = (char *)(uintptr_t)zone;
		return true;
	}
	return false;
}

void command_push_register(struct call *call)
{
	struct push *p = push_of(call, IM_REFUSE_NOT_ALLOWED);
	const char *provider = given(call, "provider"), *problem;
	Im__Bus__PushToken info = IM__BUS__PUSH_TOKEN__INIT;
	Im__Push__Token token = IM__PUSH__TOKEN__INIT;
	enum im_status st;
	size_t len;

	if (p == NULL)
		return;
	info.user = call->user;
	info.device = call->client_id;
	info.provider = (char *)(uintptr_t)provider;
	info.app = token.app = (char *)(uintptr_t)given(call, "app");
	info.env = token.env = (char *)(uintptr_t)given(call, "env");
	info.language = (char *)(uintptr_t)given(call, "language");
	info.privacy = (char *)(uintptr_t)given(call, "privacy");
	token.token = (char *)(uintptr_t)given(call, "token");
	token.p256dh = (char *)(uintptr_t)given(call, "p256dh");
	token.auth = (char *)(uintptr_t)given(call, "auth");
	problem = push_token_problem(provider, &token);
	if (!im_client_id_named(call->client_id, &len))
		call_refuse(call, IM_REFUSE_NOT_ALLOWED, "only a named device ({user}:{device} as client id) can be woken");
	else if (!push_has_provider(p, provider))
		call_refuse(call, IM_REFUSE_NOT_FOUND, "no bridge to \"%s\" runs here (im_push)", provider);
	else if (problem != NULL)
		call_refuse(call, IM_REFUSE_BAD_FIELD, "%s", problem);
	else if (quiet_of(call, &info)) {
		st = push_registry_add(push_tokens(p), &info, &token, on_registered, call);
		if (st != IM_OK)
			call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
	}
}

static void on_removed(void *arg, enum im_status st)
{
	struct call *call = arg;

	if (call_step(call, st))
		call_ok(call, json_object());
}

void command_push_unregister(struct call *call)
{
	struct push *p = push_of(call, IM_REFUSE_NOT_ALLOWED);

	if (p != NULL && push_registry_remove(push_tokens(p), call->user, call->client_id, call_text(call, "provider"), on_removed, call) == 0)
		call_refuse(call, IM_REFUSE_NOT_FOUND, "this device is not registered%s", call_text(call, "provider") ? " there" : "");
}

static json_t *registrations(const struct push *p, const char *user, const char *device)
{
	json_t *rows = json_array();

	for (const struct push_device *d = push_registry_of_user(push_tokens((struct push *)(uintptr_t)p), user); d != NULL; d = d->next)
		if (device == NULL || strcmp(d->stored->device, device) == 0)
			json_array_append_new(rows, registration(d->stored)); /* rows NULL: call_ok says so */
	return rows;
}

void command_push_get(struct call *call)
{
	struct push *p = push_of(call, IM_REFUSE_NOT_ALLOWED);

	if (p != NULL)
		call_ok(call, json_pack("{s:o}", "registrations", registrations(p, call->user, call->client_id)));
}

/* ---- admins */

void command_push_list(struct call *call)
{
	struct push *p = push_of(call, IM_REFUSE_UNAVAILABLE);

	if (p != NULL && call_user(call, call_text(call, "user")) != NULL)
		call_ok(call, json_pack("{s:o}", "registrations", registrations(p, call_text(call, "user"), NULL)));
}

/* The device's registration, with the provider if one is named. NULL: the call has been refused. */
static const struct push_device *device_of(struct call *call, struct push *p)
{
	const struct push_device *d;

	if (call_user(call, call_text(call, "user")) == NULL)
		return NULL;
	d = push_registry_find(push_tokens(p), call_text(call, "user"), call_text(call, "client_id"), call_text(call, "provider"));
	if (d == NULL)
		call_refuse(call, IM_REFUSE_NOT_FOUND, "%s has not registered there", call_text(call, "client_id") ? call_text(call, "client_id")
														   : call_text(call, "user"));
	return d;
}

void command_push_test(struct call *call)
{
	struct push *p = push_of(call, IM_REFUSE_UNAVAILABLE);
	const struct push_device *d = p != NULL ? device_of(call, p) : NULL;

	if (d == NULL)
		return;
	if (push_test(p, d) != IM_OK)
		call_refuse(call, IM_REFUSE_UNAVAILABLE, "the bridge to %s does not run, or takes nothing now", d->stored->provider);
	else
		call_ok(call, json_pack("{s:s,s:s}", "device", d->stored->device, "provider", d->stored->provider));
}

struct explain {
	char provider[PUSH_PROVIDER_MAX + 1];
	char msgid[IM_MSGID_LEN + 1];
	char conv[IM_CONV_MAX];
	char device[IM_CLIENT_ID_MAX + 1];
	uint64_t seq;
};

static void on_explained(void *arg, const char *answer)
{
	struct call *call = arg;

	if (!call_step(call, IM_OK))
		return;
	json_object_set_new(call->result, "bridge", answer != NULL ? json_loads(answer, 0, NULL) : json_null());
	call_ok(call, json_incref(call->result));
}

static void on_why(void *arg, enum im_status st, const char *reason, int64_t until_ms)
{
	struct call *call = arg;
	struct explain *x = call->state;
	char *query;
	json_t *ask;

	if (!call_step(call, st == IM_NOT_FOUND ? IM_BUSY : st))
		return;
	call->result = json_pack("{s:s,s:s,s:s}", "device", x->device, "provider", x->provider, "now", reason);
	if (call->result != NULL && until_ms)
		json_object_set_new(call->result, "until", json_integer(until_ms));
	ask = json_pack("{s:s,s:s,s:s,s:s,s:I}", "query", "explain", "user", call_text(call, "user"), "device", x->device, "conv", x->conv, "seq",
			(json_int_t)x->seq);
	query = ask != NULL ? json_dumps(ask, JSON_COMPACT) : NULL;
	json_decref(ask);
	if (call->result == NULL || query == NULL)
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
	else
		push_query(call->env->push, x->provider, query, on_explained, call);
	free(query);
}

void command_push_why(struct call *call)
{
	struct push *p = push_of(call, IM_REFUSE_UNAVAILABLE);
	const struct push_device *d = p != NULL ? device_of(call, p) : NULL;
	struct explain *x = d != NULL ? call_state(call, sizeof(*x)) : NULL;

	if (x == NULL)
		return;
	(void)snprintf(x->provider, sizeof(x->provider), "%s", d->stored->provider);
	(void)snprintf(x->device, sizeof(x->device), "%s", d->stored->device);
	x->seq = call_int(call, "seq", 0);
	if (!im_conv_canonical(call_text(call, "user"), call_text(call, "conv"), x->conv))
		call_refuse(call, IM_REFUSE_BAD_FIELD, "conv is u/{user} or g/{group}");
	else
		push_why(p, d, x->conv, x->seq, on_why, call);
}

static void add_feed(void *arg, const struct push_feed_info *f)
{
	json_t *decided = json_object();

	for (size_t i = 0; i < f->n_decided; i++)
		json_object_set_new(decided, f->decided[i].reason, json_integer((json_int_t)f->decided[i].n));
	json_array_append_new(arg, json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:o}", "provider", f->provider, "bridge",
					     !f->up ? "down" : f->full ? "full" : "up", "position", (json_int_t)f->row, "jobs",
					     (json_int_t)f->jobs, "unconfirmed_frames", (json_int_t)f->unconfirmed, "grace", (json_int_t)f->waiting,
					     "decided", decided));
}

static void on_stats(void *arg, const char *answer)
{
	struct call *call = arg;

	if (!call_step(call, IM_OK))
		return;
	json_object_set_new(call->result, "outbox", answer != NULL ? json_loads(answer, 0, NULL) : json_null());
	call_ok(call, json_incref(call->result));
}

void command_push_stats(struct call *call)
{
	struct push *p = push_of(call, IM_REFUSE_UNAVAILABLE);
	const char *provider = call_text(call, "provider");
	json_t *feeds;

	if (p == NULL)
		return;
	feeds = json_array();
	push_each_feed(p, add_feed, feeds);
	call->result = json_pack("{s:o}", "feeds", feeds);
	if (call->result == NULL)
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
	else if (provider == NULL)
		call_ok(call, json_incref(call->result));
	else
		push_query(p, provider, "{\"query\":\"stats\"}", on_stats, call);
}
