/*
 * The life of a command: checked, run, ended. What is difficult: callbacks of the store and the link may come
 * after everything was closed, so a call holds its environment and asks call_step first; and ends run from the
 * loop, never from inside the command, so that a list of a hundred commands does not become a deep stack.
 */
#include "command.h"

#include "base/clock.h"
#include "secret.h"
#include "wire/name.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void call_free(struct call *call)
{
	struct command_env *env = call->env;

	if (call->free_state != NULL)
		call->free_state(call->state);
	for (size_t i = 0; i < call->n_messages; i++)
		message_unref(call->messages[i]);
	free(call->messages);
	json_decref(call->args);
	json_decref(call->result);
	free(call->user);
	free(call->client_id);
	free(call);
	env->calls--;
	command_env_unref(env);
}

static void run_ended(void *arg)
{
	struct command_env *env = arg;

	/* Ends may end others; those wait for the next turn, so that nobody starves the loop. */
	struct call *call = env->ended_first;

	env->ended_first = env->ended_last = NULL;
	while (call != NULL) {
		struct call *next = call->next_call;

		call->end(call, call->end_arg);
		call_free(call);
		call = next;
	}
}

struct command_env *command_env_create(struct im_loop *loop)
{
	struct command_env *env = calloc(1, sizeof(*env));

	if (env == NULL)
		return NULL;
	env->refs = 1;
	env->loop = loop;
	env->started_ms = im_clock_wall_ms();
	env->ended_timer = im_timer_create(loop, run_ended, env);
	env->secrets = secret_queue_create(loop);
	if (env->ended_timer == NULL || env->secrets == NULL) {
		command_env_close(env);
		return NULL;
	}
	return env;
}

void command_env_close(struct command_env *env)
{
	struct call *lane;

	if (env == NULL)
		return;
	env->closed = true;
	im_timer_destroy(env->ended_timer);
	env->ended_timer = NULL;
	if (env->secrets != NULL)
		secret_queue_stop(env->secrets);
	lane = env->lane_first;
	env->lane_first = env->lane_last = NULL;
	while (lane != NULL) {
		struct call *next = lane->next_call;

		call_refuse(lane, IM_REFUSE_UNAVAILABLE, "the service is stopping");
		lane = next;
	}
	run_ended(env);
	command_env_unref(env);
}

void command_env_unref(struct command_env *env)
{
	if (--env->refs > 0)
		return;
	secret_queue_destroy(env->secrets);
	free(env);
}

/* ---- start */

static struct call *call_create(struct command_env *env, json_t *args, bool admin, const char *user, const char *client_id,
				uint64_t session)
{
	struct call *call = calloc(1, sizeof(*call));

	if (call == NULL) {
		json_decref(args);
		return NULL;
	}
	call->env = env;
	env->refs++;
	env->calls++;
	call->args = args != NULL ? args : json_object();
	call->admin = admin;
	call->session = session;
	call->user = strdup(user);
	call->client_id = strdup(client_id);
	if (call->args == NULL || call->user == NULL || call->client_id == NULL) {
		call_free(call);
		return NULL;
	}
	return call;
}

static const struct command *find_command(struct call *call, const char *name)
{
	const char *nearest = NULL;
	const struct command *c = command_find(name, call->admin, &nearest);

	if (c == NULL)
		call_refuse(call, IM_REFUSE_UNKNOWN_METHOD, "there is no \"%.64s\"%s%s%s", name, nearest ? "; did you mean \"" : "",
			    nearest ? nearest : "", nearest ? "\"?" : "");
	return c;
}

bool call_start(struct command_env *env, const char *name, json_t *args, bool admin, const char *user,
		const char *client_id, uint64_t session, call_end_fn *end, void *arg)
{
	struct call *call = call_create(env, args, admin, user, client_id, session);
	struct im_refusal why;

	if (call == NULL)
		return false;
	call->end = end;
	call->end_arg = arg;
	call->command = find_command(call, name);
	if (call->command == NULL)
		return true;
	if (env->calls > CALLS_MAX)
		call_refuse(call, IM_REFUSE_TOO_FAST, "%u requests are under way already", CALLS_MAX);
	else if (!json_is_object(call->args))
		call_refuse(call, IM_REFUSE_BAD_JSON, "the arguments must be a JSON object");
	else if (!command_check(call->command, call->args, admin, &why))
		call_refuse(call, why.code, "%s", why.reason);
	else
		call->command->run(call);
	return true;
}

/* ---- end */

static void call_end(struct call *call)
{
	struct command_env *env = call->env;

	if (call->ended)
		return;
	call->ended = true;
	call_leave_lane(call);
	call->next_call = NULL;
	if (env->ended_last != NULL)
		env->ended_last->next_call = call;
	else
		env->ended_first = call;
	env->ended_last = call;
	if (!env->closed)
		im_timer_start(env->ended_timer, 0, 0);
}

void call_ok(struct call *call, json_t *result)
{
	if (result == NULL) {
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
		return;
	}
	json_decref(call->result);
	call->result = result;
	call_end(call);
}

void call_refuse(struct call *call, enum im_refusal_code code, const char *fmt, ...)
{
	char reason[sizeof(call->refusal.reason)];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(reason, sizeof(reason), fmt, ap); /* a longer sentence is cut */
	va_end(ap);
	im_refuse(&call->refusal, code, "%s", reason);
	call_end(call);
}

bool call_step(struct call *call, enum im_status st)
{
	struct command_env *env = call->env;

	if (env->closed) {
		/* No loop will end it later; nobody waits for the answer any more. */
		im_refuse(&call->refusal, IM_REFUSE_UNAVAILABLE, "the service is stopping");
		call->end(call, call->end_arg);
		call_free(call);
		return false;
	}
	switch (st) {
	case IM_OK:
		return true;
	case IM_BUSY:
		call_refuse(call, IM_REFUSE_UNAVAILABLE, "the store is busy");
		return false;
	case IM_UNCERTAIN:
		call_refuse(call, IM_REFUSE_UNAVAILABLE, "the store did not say whether it was written; look before you repeat it");
		return false;
	case IM_NOT_FOUND:
		call_refuse(call, IM_REFUSE_NOT_FOUND, "the store does not have it");
		return false;
	default:
		call_refuse(call, IM_REFUSE_INTERNAL, "the store failed (%s); its log says why", im_status_name(st));
		return false;
	}
}

void *call_state(struct call *call, size_t len)
{
	call->state = calloc(1, len);
	if (call->state == NULL)
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
	else if (call->free_state == NULL)
		call->free_state = free;
	return call->state;
}

/* ---- the lane of roster changes */

void call_enter_lane(struct call *call, command_fn *fn)
{
	struct command_env *env = call->env;

	call->lane_fn = fn;
	if (!env->lane_busy) {
		env->lane_busy = true;
		call->in_lane = true;
		fn(call);
		return;
	}
	call->next_call = NULL;
	if (env->lane_last != NULL)
		env->lane_last->next_call = call;
	else
		env->lane_first = call;
	env->lane_last = call;
}

void call_leave_lane(struct call *call)
{
	struct command_env *env = call->env;
	struct call *next = env->lane_first;

	if (!call->in_lane)
		return;
	call->in_lane = false;
	env->lane_busy = false;
	if (next == NULL || env->closed)
		return;
	env->lane_first = next->next_call;
	if (env->lane_first == NULL)
		env->lane_last = NULL;
	call_enter_lane(next, next->lane_fn);
}

/* ---- arguments */

const char *call_text(const struct call *call, const char *name)
{
	return json_string_value(json_object_get(call->args, name));
}

uint64_t call_int(const struct call *call, const char *name, uint64_t otherwise)
{
	const json_t *v = json_object_get(call->args, name);

	return v != NULL ? (uint64_t)json_integer_value(v) : otherwise;
}

bool call_flag(const struct call *call, const char *name)
{
	return json_is_true(json_object_get(call->args, name));
}

const char *call_subject(const struct call *call)
{
	return call->admin ? call_text(call, "user") : call->user;
}

const struct roster_user *call_user(struct call *call, const char *name)
{
	const struct roster_user *u = roster_user(call->env->roster, name);

	if (u == NULL)
		call_refuse(call, IM_REFUSE_UNKNOWN_USER, "there is no user %s", name);
	return u;
}

const struct roster_group *call_group(struct call *call, const char *name)
{
	const struct roster_group *g = roster_group(call->env->roster, name);

	if (g == NULL)
		call_refuse(call, IM_REFUSE_UNKNOWN_GROUP, "there is no group %s", name);
	return g;
}
