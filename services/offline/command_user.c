/*
 * Users. A password is hashed before the command stands in the lane, so that an import of thousands does not
 * hold up other changes; whether the name is free is looked up again once it is in.
 */
#include "change.h"
#include "event.h"
#include "secret.h"
#include "wire/name.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* The text of a password does not stay in memory longer than it must. */
static void wipe(json_t *object)
{
	json_t *password = json_object_get(object, "password");

	if (json_is_string(password))
		sodium_memzero((char *)json_string_value(password), json_string_length(password));
}

/* ---- add, password */

struct hashed {
	char hash[SECRET_HASH_SIZE];
	command_fn *then;
};

static void on_hash(void *arg, const char *hash)
{
	struct call *call = arg;
	struct hashed *h = call->state;

	wipe(call->args);
	if (!call_step(call, IM_OK))
		return;
	if (hash == NULL) {
		call_refuse(call, IM_REFUSE_INTERNAL, "no memory to hash a password");
		return;
	}
	strcpy(h->hash, hash); /* of the same size by its type */
	call_enter_lane(call, h->then);
}

/* Goes on with `then` in the lane, at once if there is no password. */
static void hash_then(struct call *call, command_fn *then)
{
	struct hashed *h = call_state(call, sizeof(*h));

	if (h == NULL)
		return;
	h->then = then;
	if (call_text(call, "password") == NULL)
		call_enter_lane(call, then);
	else if (secret_hash_password(call->env->secrets, call_text(call, "password"), call->env->settings, on_hash, call) != IM_OK)
		call_refuse(call, IM_REFUSE_INTERNAL, "no memory to hash a password");
}

static bool name_is_free(struct call *call, const char *name)
{
	if (roster_user(call->env->roster, name) != NULL)
		call_refuse(call, IM_REFUSE_EXISTS, "there is a user %s already", name);
	else if (roster_was_user(call->env->roster, name)) /* conversations are kept under the name */
		call_refuse(call, IM_REFUSE_EXISTS, "%s was a user before; the name is not given again, for a new one would read the old one's messages", name);
	else
		return true;
	return false;
}

static void add_in_lane(struct call *call)
{
	const struct hashed *h = call->state;
	struct change c = {0};
	Im__Bus__User *u;

	if (!name_is_free(call, call_text(call, "user")))
		return;
	u = change_user(&c, call->env->roster, call_text(call, "user"));
	if (u != NULL) {
		change_set(&c, &u->password, h->hash);
		change_set(&c, &u->title, call_text(call, "title"));
	}
	call->result = json_pack("{s:s}", "user", call_text(call, "user"));
	change_commit(call, &c, change_answer);
}

void command_user_add(struct call *call)
{
	if (name_is_free(call, call_text(call, "user")))
		hash_then(call, add_in_lane);
}

static void password_in_lane(struct call *call)
{
	const struct hashed *h = call->state;
	struct change c = {0};
	Im__Bus__User *u;

	if (call_user(call, call_text(call, "user")) == NULL)
		return;
	u = change_user(&c, call->env->roster, call_text(call, "user"));
	if (u != NULL)
		change_set(&c, &u->password, h->hash);
	change_commit(call, &c, change_end_sessions);
}

void command_user_password(struct call *call)
{
	if (call_user(call, call_text(call, "user")) != NULL)
		hash_then(call, password_in_lane);
}

/* ---- title, disable, enable */

static void title_in_lane(struct call *call)
{
	struct change c = {0};
	Im__Bus__User *u;

	if (call_user(call, call_text(call, "user")) == NULL)
		return;
	u = change_user(&c, call->env->roster, call_text(call, "user"));
	if (u != NULL)
		change_set(&c, &u->title, call_text(call, "title"));
	change_commit(call, &c, change_answer);
}

void command_user_title(struct call *call)
{
	call_enter_lane(call, title_in_lane);
}

static void disable_in_lane(struct call *call)
{
	bool disable = call->command->run == command_user_disable;
	struct change c = {0};
	Im__Bus__User *u;

	if (call_user(call, call_text(call, "user")) == NULL)
		return;
	u = change_user(&c, call->env->roster, call_text(call, "user"));
	if (u != NULL)
		u->disabled = disable;
	change_commit(call, &c, disable ? change_end_sessions : change_answer);
}

void command_user_disable(struct call *call)
{
	call_enter_lane(call, disable_in_lane);
}

void command_user_enable(struct call *call)
{
	call_enter_lane(call, disable_in_lane);
}

/* ---- remove: first leaves every group, each with a message of its own */

struct removal {
	struct change change;
	char (*groups)[IM_NAME_MAX + 1];
	size_t n, cap, at;
	bool failed;
};

static void removal_free(void *state)
{
	struct removal *rm = state;

	change_finish(&rm->change);
	free(rm->groups);
	free(rm);
}

struct removal_scan {
	struct call *call;
	struct removal *rm;
	const char *user;
};

static void collect_group(void *arg, const struct roster_group *g)
{
	struct removal_scan *scan = arg;
	struct removal *rm = scan->rm;

	if (!roster_is_member(scan->call->env->roster, g->name, scan->user))
		return;
	if (rm->n == rm->cap) {
		size_t cap = rm->cap ? rm->cap * 2 : 16;
		void *groups = realloc(rm->groups, cap * sizeof(*rm->groups));

		if (groups == NULL) {
			rm->failed = true;
			return;
		}
		rm->groups = groups;
		rm->cap = cap;
	}
	strcpy(rm->groups[rm->n++], g->name); /* names of the roster fit IM_NAME_MAX */
}

static void collect_blocks(void *arg, const struct roster_user *other)
{
	struct removal_scan *scan = arg;
	const struct roster *roster = scan->call->env->roster;

	if (roster_is_blocked(roster, scan->user, other->name))
		change_block(&scan->rm->change, scan->user, other->name, true);
	if (strcmp(other->name, scan->user) != 0 && roster_is_blocked(roster, other->name, scan->user))
		change_block(&scan->rm->change, other->name, scan->user, true);
}

static void remove_user_itself(struct call *call)
{
	struct removal *rm = call->state;
	struct removal_scan scan = {call, rm, call_text(call, "user")};
	Im__Bus__User *u;

	roster_each_user(call->env->roster, collect_blocks, &scan);
	u = change_user(&rm->change, call->env->roster, scan.user);
	if (u != NULL) {
		u->removed = true;
		change_set(&rm->change, &u->password, "");
		while (u->n_tokens > 0)
			im__bus__token__free_unpacked(u->tokens[--u->n_tokens], NULL);
	}
	change_commit(call, &rm->change, change_end_sessions);
}

struct heir {
	const char *leaving;
	const char *user;                /* NULL: nobody is left */
	const struct roster_stay *stay;
};

/* Admins come first, then whoever is there longest. */
static void consider_heir(void *arg, const char *user, const struct roster_stay *stay)
{
	struct heir *heir = arg;
	bool admin = strcmp(stay->role, "admin") == 0, best_admin = heir->user != NULL && strcmp(heir->stay->role, "admin") == 0;

	if (strcmp(user, heir->leaving) == 0)
		return;
	if (heir->user != NULL && (admin < best_admin || (admin == best_admin && stay->from_seq >= heir->stay->from_seq)))
		return;
	heir->user = user;
	heir->stay = stay;
}

/* Who owns the group after `leaving`; user NULL: it is not the owner, or nobody is left. */
static struct heir find_heir(const struct call *call, const char *group, const char *leaving)
{
	const struct roster *roster = call->env->roster;
	struct heir heir = {leaving, NULL, NULL};

	if (strcmp(roster_group(roster, group)->owner, leaving) == 0)
		roster_each_member(roster, group, consider_heir, &heir);
	return heir;
}

static void leave_next_group(struct call *call);

static void on_left(struct call *call, uint64_t seq)
{
	struct removal *rm = call->state;
	const char *group = rm->groups[rm->at];
	struct heir heir = find_heir(call, group, call_text(call, "user"));
	Im__Bus__Group *g;

	if (heir.user != NULL) {
		g = change_group(&rm->change, call->env->roster, group);
		if (g != NULL)
			change_set(&rm->change, &g->owner, heir.user);
		change_member(&rm->change, group, heir.user, "owner", heir.stay->from_seq, 0);
	}
	event_end_stay(call, &rm->change, group, call_text(call, "user"), seq);
	rm->at++;
	leave_next_group(call);
}

static void leave_next_group(struct call *call)
{
	struct removal *rm = call->state;
	const char *user = call_text(call, "user");

	if (rm->at == rm->n) {
		remove_user_itself(call);
		return;
	}
	event_post(call, rm->groups[rm->at],
		   json_pack("{s:s,s:[s],s:s*}", "event", "left", "users", user, "owner",
			     find_heir(call, rm->groups[rm->at], user).user),
		   on_left, "%s left", user);
}

static void remove_in_lane(struct call *call)
{
	struct removal_scan scan = {call, NULL, call_text(call, "user")};

	if (call_user(call, scan.user) == NULL)
		return;
	call->free_state = removal_free;
	scan.rm = call_state(call, sizeof(*scan.rm));
	if (scan.rm == NULL)
		return;
	roster_each_group_of(call->env->roster, scan.user, collect_group, &scan);
	if (scan.rm->failed)
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
	else
		leave_next_group(call);
}

void command_user_remove(struct call *call)
{
	call_enter_lane(call, remove_in_lane);
}

/* ---- list, show */

static json_t *user_row(struct call *call, const char *name, void *arg)
{
	const struct roster_user *u = roster_user(call->env->roster, name);

	(void)arg;
	return json_pack("{s:s,s:s,s:b,s:b,s:I}", "user", u->name, "title", u->title, "disabled", u->disabled, "password",
			 u->password[0] != '\0', "tokens", (json_int_t)u->n_tokens);
}

static void collect_user(void *arg, const struct roster_user *u)
{
	names_add(arg, u->name);
}

void command_user_list(struct call *call)
{
	struct names names = {0};

	roster_each_user(call->env->roster, collect_user, &names);
	page_names(call, &names, "users", user_row, NULL);
}

struct show {
	struct call *call;
	json_t *groups, *sessions;
};

static void show_group(void *arg, const struct roster_group *g)
{
	struct show *show = arg;
	const char *role = roster_role(show->call->env->roster, g->name, call_text(show->call, "user"));

	if (role != NULL && json_array_size(show->groups) < NAMES_DEFAULT)
		json_array_append_new(show->groups, json_pack("{s:s,s:s}", "group", g->name, "role", role));
}

static void show_session(void *arg, const struct delivery_session_info *s)
{
	struct show *show = arg;

	if (json_array_size(show->sessions) < NAMES_DEFAULT)
		json_array_append_new(show->sessions, json_string(s->client_id));
}

static void show_device(void *arg, const struct store_device *d)
{
	struct call *call = arg;
	json_t *devices = json_object_get(call->result, "devices");

	json_array_append_new(devices, json_pack("{s:s,s:b,s:b,s:I,s:I}", "device", d->device, "named", d->named, "acks", d->acks,
						 "max_packet", (json_int_t)d->max_packet, "seen", (json_int_t)d->seen_ms));
}

static void show_done(void *arg, enum im_status st)
{
	struct call *call = arg;

	if (call_step(call, st == IM_NOT_FOUND ? IM_OK : st))
		call_ok(call, json_incref(call->result));
}

void command_user_show(struct call *call)
{
	const struct roster_user *u = call_user(call, call_text(call, "user"));
	struct show show = {call, NULL, NULL};

	if (u == NULL)
		return;
	show.groups = json_array();
	show.sessions = json_array();
	roster_each_group_of(call->env->roster, u->name, show_group, &show);
	delivery_each_session(call->env->delivery, u->name, show_session, &show);
	call->result = user_row(call, u->name, NULL);
	json_object_set_new(call->result, "groups", show.groups);
	json_object_set_new(call->result, "sessions", show.sessions);
	json_object_set_new(call->result, "devices", json_array());
	store_devices(call->env->store, u->name, show_device, show_done, call);
}
