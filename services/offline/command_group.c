/*
 * Groups and who is in them. Each change goes: a system message takes a sequence in the conversation, the
 * roster's items refer to it and become durable with it, then the plugin has them in force.
 */
#include "event.h"

#include <stdio.h>
#include <string.h>

/* "alice, bob and 3 others" */
static void sentence(const json_t *users, char *out, size_t len)
{
	size_t n = json_array_size(users), used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < n && i < 3; i++) {
		const char *name = json_string_value(json_array_get(users, i));

		used += (size_t)snprintf(out + used, len - used, "%s%s", i == 0 ? "" : i + 1 == n ? " and " : ", ", name);
	}
	if (n > 3)
		(void)snprintf(out + used, len - used, " and %zu more", n - 3);
}

#define SENTENCE_SIZE (3 * (IM_NAME_MAX + 6) + 32)

static bool users_exist(struct call *call, const json_t *users)
{
	for (size_t i = 0; i < json_array_size(users); i++) {
		if (call_user(call, json_string_value(json_array_get(users, i))) == NULL)
			return false;
	}
	return true;
}

static bool has_room(struct call *call, size_t members)
{
	if (members <= call->env->settings->group_members)
		return true;
	call_refuse(call, IM_REFUSE_TOO_MANY, "a group has at most %u members (im_group_members)", call->env->settings->group_members);
	return false;
}

/* ---- create */

static json_t *first_members(const struct call *call)
{
	json_t *all = json_pack("[s]", call_text(call, "owner"));
	const json_t *users = json_object_get(call->args, "users");

	for (size_t i = 0; all != NULL && i < json_array_size(users); i++) {
		if (strcmp(json_string_value(json_array_get(users, i)), call_text(call, "owner")) != 0)
			json_array_append(all, json_array_get(users, i));
	}
	return all;
}

static void created(struct call *call, uint64_t seq, struct change *c)
{
	const char *name = call_text(call, "group"), *owner = call_text(call, "owner");
	json_t *members = first_members(call);
	Im__Bus__Group *g = change_group(c, call->env->roster, name);

	if (g != NULL) {
		change_set(c, &g->owner, owner);
		change_set(c, &g->title, call_text(call, "title"));
	}
	for (size_t i = 0; i < json_array_size(members); i++)
		change_member(c, name, json_string_value(json_array_get(members, i)), i == 0 ? "owner" : "member", seq, 0);
	json_decref(members);
	call->result = json_pack("{s:s,s:I}", "group", name, "seq", (json_int_t)seq);
}

static void create_in_lane(struct call *call)
{
	const char *name = call_text(call, "group"), *owner = call_text(call, "owner"), *title = call_text(call, "title");
	json_t *members;

	if (roster_group(call->env->roster, name) != NULL) {
		call_refuse(call, IM_REFUSE_EXISTS, "there is a group %s already", name);
		return;
	}
	if (call_user(call, owner) == NULL || !users_exist(call, json_object_get(call->args, "users")))
		return;
	members = first_members(call);
	if (has_room(call, json_array_size(members)))
		event_change(call, name, json_pack("{s:s,s:s,s:O}", "event", "created", "title", title ? title : "", "users", members),
			   created, "%s created the group", owner);
	json_decref(members);
}

void command_group_create(struct call *call)
{
	call_enter_lane(call, create_in_lane);
}

/* ---- remove */

struct ending {
	struct call *call;
	struct change *change;
	uint64_t seq;
};

static void end_member(void *arg, const char *user, const struct roster_stay *stay)
{
	struct ending *e = arg;

	change_member(e->change, call_text(e->call, "group"), user, stay->role, stay->from_seq, e->seq);
}

static void closed(struct call *call, uint64_t seq, struct change *c)
{
	struct ending e = {call, c, seq};
	Im__Bus__Group *g;

	roster_each_member(call->env->roster, call_text(call, "group"), end_member, &e);
	g = change_group(c, call->env->roster, call_text(call, "group"));
	if (g != NULL)
		g->removed = true;
	call->result = json_pack("{s:I}", "seq", (json_int_t)seq);
}

static void remove_in_lane(struct call *call)
{
	const struct roster_group *g = call_group(call, call_text(call, "group"));

	if (g != NULL)
		event_change(call, g->name, json_pack("{s:s}", "event", "closed"), closed, "the group was closed");
}

void command_group_remove(struct call *call)
{
	call_enter_lane(call, remove_in_lane);
}

/* ---- add, kick */

static void joined(struct call *call, uint64_t seq, struct change *c)
{
	const json_t *users = json_object_get(call->args, "users");

	for (size_t i = 0; i < json_array_size(users); i++)
		change_member(c, call_text(call, "group"), json_string_value(json_array_get(users, i)), "member", seq, 0);
	call->result = json_pack("{s:I}", "seq", (json_int_t)seq);
}

static void kicked(struct call *call, uint64_t seq, struct change *c)
{
	const json_t *users = json_object_get(call->args, "users");

	for (size_t i = 0; i < json_array_size(users); i++)
		event_end_stay(call, c, call_text(call, "group"), json_string_value(json_array_get(users, i)), seq);
	call->result = json_pack("{s:I}", "seq", (json_int_t)seq);
}

/* Whether each of them is (or is not) a member, as the command needs it. */
static bool membership_is(struct call *call, const json_t *users, bool wanted)
{
	const char *group = call_text(call, "group");

	for (size_t i = 0; i < json_array_size(users); i++) {
		const char *user = json_string_value(json_array_get(users, i));

		if (roster_is_member(call->env->roster, group, user) == wanted)
			continue;
		call_refuse(call, wanted ? IM_REFUSE_NOT_MEMBER : IM_REFUSE_EXISTS, wanted ? "%s is not in %s" : "%s is in %s already", user,
			    group);
		return false;
	}
	return true;
}

static void add_in_lane(struct call *call)
{
	const struct roster_group *g = call_group(call, call_text(call, "group"));
	json_t *users = json_object_get(call->args, "users");
	char who[SENTENCE_SIZE];

	if (g == NULL || !users_exist(call, users) || !membership_is(call, users, false) ||
	    !has_room(call, g->n_members + json_array_size(users)))
		return;
	sentence(users, who, sizeof(who));
	event_change(call, g->name, json_pack("{s:s,s:O}", "event", "joined", "users", users), joined, "%s joined", who);
}

static void kick_in_lane(struct call *call)
{
	const struct roster_group *g = call_group(call, call_text(call, "group"));
	json_t *users = json_object_get(call->args, "users");
	char who[SENTENCE_SIZE];

	if (g == NULL || !membership_is(call, users, true))
		return;
	sentence(users, who, sizeof(who));
	event_change(call, g->name, json_pack("{s:s,s:O}", "event", "removed", "users", users), kicked,
		   json_array_size(users) == 1 ? "%s was removed" : "%s were removed", who);
}

void command_group_add(struct call *call)
{
	call_enter_lane(call, add_in_lane);
}

void command_group_kick(struct call *call)
{
	call_enter_lane(call, kick_in_lane);
}

/* ---- role, title */

static void set_role(struct call *call, struct change *c, const char *user, const char *role)
{
	const struct roster_stay *stays;
	size_t n = roster_stays(call->env->roster, call_text(call, "group"), user, &stays);

	if (n > 0 && stays[n - 1].to_seq == 0)
		change_member(c, call_text(call, "group"), user, role, stays[n - 1].from_seq, 0);
}

static void role_given(struct call *call, uint64_t seq, struct change *c)
{
	const char *group = call_text(call, "group"), *user = call_text(call, "user"), *role = call_text(call, "role");
	const char *owner = roster_group(call->env->roster, group)->owner; /* still there: we are in the lane */
	Im__Bus__Group *g;

	if (strcmp(role, "owner") == 0 && strcmp(owner, user) != 0) {
		g = change_group(c, call->env->roster, group);
		if (g != NULL)
			change_set(c, &g->owner, user);
		set_role(call, c, owner, "admin");
	}
	set_role(call, c, user, role);
	call->result = json_pack("{s:I}", "seq", (json_int_t)seq);
}

static void role_in_lane(struct call *call)
{
	const char *user = call_text(call, "user"), *role = call_text(call, "role");
	const struct roster_group *g = call_group(call, call_text(call, "group"));
	const char *now;

	if (g == NULL)
		return;
	now = roster_role(call->env->roster, g->name, user);
	if (now == NULL)
		call_refuse(call, IM_REFUSE_NOT_MEMBER, "%s is not in %s", user, g->name);
	else if (strcmp(now, role) == 0)
		call_refuse(call, IM_REFUSE_EXISTS, "%s is %s already", user, role);
	else if (strcmp(now, "owner") == 0)
		call_refuse(call, IM_REFUSE_NOT_ALLOWED, "a group keeps an owner: make somebody else owner instead");
	else
		event_change(call, g->name, json_pack("{s:s,s:[s],s:s}", "event", "role", "users", user, "role", role), role_given,
			   "%s is now %s", user, role);
}

void command_group_role(struct call *call)
{
	call_enter_lane(call, role_in_lane);
}

static void renamed(struct call *call, uint64_t seq, struct change *c)
{
	Im__Bus__Group *g = change_group(c, call->env->roster, call_text(call, "group"));

	if (g != NULL)
		change_set(c, &g->title, call_text(call, "title"));
	call->result = json_pack("{s:I}", "seq", (json_int_t)seq);
}

static void title_in_lane(struct call *call)
{
	const struct roster_group *g = call_group(call, call_text(call, "group"));
	const char *title = call_text(call, "title");

	if (g != NULL)
		event_change(call, g->name, json_pack("{s:s,s:s}", "event", "renamed", "title", title), renamed, "the group is now called %s",
			   title);
}

void command_group_title(struct call *call)
{
	call_enter_lane(call, title_in_lane);
}

/* ---- lists */

static json_t *group_row(struct call *call, const char *name, void *arg)
{
	const struct roster_group *g = roster_group(call->env->roster, name);
	const char *role = arg != NULL ? roster_role(call->env->roster, name, arg) : NULL;
	json_t *row = json_pack("{s:s,s:s,s:s,s:I}", "group", g->name, "title", g->title, "owner", g->owner, "members",
				(json_int_t)g->n_members);

	if (row != NULL && role != NULL)
		json_object_set_new(row, "role", json_string(role));
	return row;
}

static void collect_group(void *arg, const struct roster_group *g)
{
	names_add(arg, g->name);
}

void command_group_list(struct call *call)
{
	struct names names = {0};

	roster_each_group(call->env->roster, collect_group, &names);
	page_names(call, &names, "groups", group_row, NULL);
}

struct own_groups {
	struct names names;
	const struct roster *roster;
	const char *user;
};

static void collect_own(void *arg, const struct roster_group *g)
{
	struct own_groups *own = arg;

	if (roster_is_member(own->roster, g->name, own->user))
		names_add(&own->names, g->name);
}

void command_groups(struct call *call)
{
	struct own_groups own = {{0}, call->env->roster, call_subject(call)};

	if (call_user(call, own.user) == NULL)
		return;
	roster_each_group_of(call->env->roster, own.user, collect_own, &own);
	page_names(call, &own.names, "groups", group_row, (void *)own.user);
}

static void collect_member(void *arg, const char *user, const struct roster_stay *stay)
{
	(void)stay;
	names_add(arg, user);
}

static json_t *member_row(struct call *call, const char *name, void *arg)
{
	const struct roster_user *u = roster_user(call->env->roster, name);
	const struct roster_stay *stays;
	size_t n = roster_stays(call->env->roster, arg, name, &stays);

	return json_pack("{s:s,s:s,s:s,s:I}", "user", name, "title", u != NULL ? u->title : "", "role", n ? stays[n - 1].role : "member",
			 "since", n ? (json_int_t)stays[n - 1].from_seq : 0);
}

void command_members(struct call *call)
{
	const struct roster_group *g = call_group(call, call_text(call, "group"));
	struct names names = {0};

	if (g == NULL)
		return;
	if (!call->admin && !roster_is_member(call->env->roster, g->name, call->user)) {
		call_refuse(call, IM_REFUSE_NOT_MEMBER, "you are not in %s", g->name);
		return;
	}
	roster_each_member(call->env->roster, g->name, collect_member, &names);
	page_names(call, &names, "members", member_row, (void *)g->name);
}
