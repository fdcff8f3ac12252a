/* What the server says of itself, of the asker and of its parts. */
#include "base/clock.h"
#include "command.h"
#include "wire/envelope.h"
#include "wire/name.h"

#include <stdlib.h>

/* ---- for everybody */

static json_t *limits(const struct im_settings *s)
{
	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "max_message", (json_int_t)s->max_message, "rate_user",
			 (json_int_t)s->rate_user, "rate_connection", (json_int_t)s->rate_connection, "request", (json_int_t)IM_REQUEST_MAX,
			 "answer", (json_int_t)COMMAND_ANSWER_MAX, "group_members", (json_int_t)s->group_members, "ack_window",
			 (json_int_t)s->ack_window, "dedupe_days", (json_int_t)s->dedupe_days, "devices", (json_int_t)s->devices);
}

void command_server(struct call *call)
{
	const struct command_env *env = call->env;

	call_ok(call, json_pack("{s:s,s:s,s:I,s:s,s:I,s:o}", "name", "mosquitto-im", "version", IM_VERSION, "time",
				(json_int_t)im_clock_wall_ms(), "store", store_start(env->store)->epoch, "protocol", (json_int_t)1, "limits",
				limits(env->settings)));
}

struct own {
	const struct call *call;
	json_t *groups;
};

static void add_group(void *arg, const struct roster_group *g)
{
	struct own *own = arg;

	if (json_array_size(own->groups) < NAMES_DEFAULT && roster_is_member(own->call->env->roster, g->name, own->call->user))
		json_array_append_new(own->groups, json_string(g->name));
}

/* The part after "{user}:", or null for an unnamed device. */
static json_t *device_name(const struct call *call)
{
	size_t len;

	return im_client_id_named(call->client_id, &len) ? json_string(call->client_id + len + 1) : json_null();
}

void command_me(struct call *call)
{
	const struct roster_user *u = call_user(call, call->user);
	struct own own = {call, NULL};
	struct delivery_session_info s;
	json_t *result;

	if (u == NULL)
		return;
	own.groups = json_array();
	roster_each_group_of(call->env->roster, call->user, add_group, &own);
	result = json_pack("{s:s,s:s,s:s,s:o,s:o}", "user", u->name, "title", u->title, "client_id", call->client_id, "device",
			   device_name(call), "groups", own.groups);
	if (result != NULL && delivery_find_session(call->env->delivery, call->session, &s)) {
		json_object_set_new(result, "since", json_integer(s.since_ms));
		json_object_set_new(result, "acks", json_boolean(s.acks));
	}
	call_ok(call, result);
}

void command_device_set(struct call *call)
{
	uint64_t max_packet = call_int(call, "max_packet", 0);

	if (max_packet > 0 && max_packet < 64)
		call_refuse(call, IM_REFUSE_BAD_FIELD, "no packet of ours fits into %llu bytes: give at least 64, or 0 for any",
			    (unsigned long long)max_packet);
	else if (!delivery_find_session(call->env->delivery, call->session, &(struct delivery_session_info){0}))
		call_refuse(call, IM_REFUSE_NOT_FOUND, "the connection that asked is gone");
	else {
		delivery_device_set(call->env->delivery, call->session, (uint32_t)max_packet);
		call_ok(call, json_pack("{s:I}", "max_packet", (json_int_t)max_packet));
	}
}

/* ---- for admins */

static void count_session(void *arg, const struct delivery_session_info *s)
{
	(void)s;
	++*(json_int_t *)arg;
}

static json_t *service_status(const struct command_env *env)
{
	struct store_stats store;
	struct inbox_stats inbox;
	json_int_t sessions = 0;

	store_stats(env->store, &store);
	inbox_stats(env->inbox, &inbox);
	delivery_each_session(env->delivery, NULL, count_session, &sessions);
	return json_pack("{s:s,s:I,s:s,s:I,s:I,s:I,s:I,s:I,s:{s:I,s:I,s:I,s:I},s:{s:I,s:I,s:I,s:I,s:I}}", "version", IM_VERSION, "uptime_ms",
			 (json_int_t)(im_clock_wall_ms() - env->started_ms), "store_epoch", store_start(env->store)->epoch, "roster_version",
			 (json_int_t)roster_version(env->roster), "users", (json_int_t)roster_count_users(env->roster), "groups",
			 (json_int_t)roster_count_groups(env->roster), "sessions", sessions, "pending_bytes",
			 (json_int_t)link_pending(env->link), "store", "messages", (json_int_t)store.messages, "log_bytes",
			 (json_int_t)store.log_bytes, "syncs", (json_int_t)store.syncs, "sync_us_max", (json_int_t)store.sync_us_max, "inbox",
			 "records", (json_int_t)inbox.records, "stored", (json_int_t)inbox.stored, "repeats", (json_int_t)inbox.repeats,
			 "refused", (json_int_t)inbox.refused, "waiting", (json_int_t)inbox.waiting);
}

static void on_status(void *arg, const char *answer)
{
	struct call *call = arg;
	json_t *plugin;

	if (!call_step(call, IM_OK))
		return;
	plugin = answer != NULL ? json_loads(answer, 0, NULL) : NULL;
	call_ok(call, json_pack("{s:o,s:o}", "service", service_status(call->env), "plugin", plugin != NULL ? plugin : json_null()));
}

void command_status(struct call *call)
{
	link_query(call->env->link, "{\"query\":\"status\"}", on_status, call);
}

static void on_why(void *arg, const char *answer)
{
	struct call *call = arg;
	json_t *verdict;

	if (!call_step(call, IM_OK))
		return;
	verdict = answer != NULL ? json_loads(answer, 0, NULL) : NULL;
	if (!json_is_object(verdict)) {
		json_decref(verdict);
		call_refuse(call, IM_REFUSE_UNAVAILABLE, "the broker's plugin, which decides this, does not answer");
	} else {
		call_ok(call, verdict);
	}
}

void command_why(struct call *call)
{
	json_t *query = json_pack("{s:s,s:s,s:s,s:s}", "query", "why", "user", call_text(call, "user"), "action",
				  call_text(call, "action"), "what", call_text(call, "what"));
	char *text = query != NULL ? json_dumps(query, JSON_COMPACT) : NULL;

	json_decref(query);
	if (text == NULL)
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
	else
		link_query(call->env->link, text, on_why, call);
	free(text);
}

void command_commands(struct call *call)
{
	json_t *rows = json_array();

	for (const struct command *c = command_table; c->name != NULL; c++)
		json_array_append_new(rows, command_describe(c, true));
	call_ok(call, json_pack("{s:o}", "commands", rows));
}
