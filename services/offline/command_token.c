/* Device tokens, blocks: what else hangs on a user. A token's text is in one answer and nowhere else. */
#include "base/clock.h"
#include "change.h"
#include "secret.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_MAX 64u /* of one user: two for each device that is remembered */

/* ---- tokens */

static bool may_have_more(struct call *call, const char *name)
{
	const struct roster_user *u = call_user(call, name);

	if (u == NULL)
		return false;
	if (u->n_tokens < TOKENS_MAX)
		return true;
	call_refuse(call, IM_REFUSE_TOO_MANY, "%s has %u tokens already; revoke some first", name, TOKENS_MAX);
	return false;
}

static void issue_one(struct call *call, struct change *c, json_t *tokens, const char *name, int64_t expires_ms)
{
	char text[SECRET_TOKEN_SIZE], id[SECRET_TOKEN_ID_SIZE];
	unsigned char hash[SECRET_TOKEN_HASH];
	Im__Bus__User *u = change_user(c, call->env->roster, name);
	json_t *row;

	if (u == NULL)
		return;
	secret_make_token(text, id, hash);
	change_add_token(c, u, id, hash, expires_ms);
	row = json_pack("{s:s,s:s,s:s}", "user", name, "token", text, "id", id);
	if (row != NULL && expires_ms != 0)
		json_object_set_new(row, "expires", json_integer(expires_ms));
	if (json_array_append_new(tokens, row) != 0)
		c->failed = true;
	sodium_memzero(text, sizeof(text));
}

static void issue_in_lane(struct call *call)
{
	json_t *users = json_object_get(call->args, "users"), *tokens;
	int64_t days = (int64_t)call_int(call, "days", 0);
	int64_t expires_ms = days > 0 ? im_clock_wall_ms() + days * 86400000 : 0;
	struct change c = {0};

	for (size_t i = 0; i < json_array_size(users); i++) {
		if (!may_have_more(call, json_string_value(json_array_get(users, i))))
			return;
	}
	tokens = json_array();
	for (size_t i = 0; i < json_array_size(users); i++)
		issue_one(call, &c, tokens, json_string_value(json_array_get(users, i)), expires_ms);
	call->result = json_pack("{s:o}", "tokens", tokens);
	change_commit(call, &c, change_answer);
}

void command_token_issue(struct call *call)
{
	call_enter_lane(call, issue_in_lane);
}

static size_t revoke(Im__Bus__User *u, const char *id)
{
	size_t kept = 0, revoked;

	for (size_t i = 0; i < u->n_tokens; i++) {
		if (id != NULL && strcmp(u->tokens[i]->id, id) != 0)
			u->tokens[kept++] = u->tokens[i];
		else
			im__bus__token__free_unpacked(u->tokens[i], NULL);
	}
	revoked = u->n_tokens - kept;
	u->n_tokens = kept;
	return revoked;
}

static void revoke_in_lane(struct call *call)
{
	const char *id = call_text(call, "id");
	struct change c = {0};
	Im__Bus__User *u;
	size_t revoked = 0;

	if (call_user(call, call_text(call, "user")) == NULL)
		return;
	u = change_user(&c, call->env->roster, call_text(call, "user"));
	if (u != NULL && !c.failed)
		revoked = revoke(u, id);
	if (!c.failed && revoked == 0) {
		change_finish(&c);
		call_refuse(call, IM_REFUSE_NOT_FOUND, "%s has no such token", call_text(call, "user"));
		return;
	}
	call->result = json_pack("{s:I}", "revoked", (json_int_t)revoked);
	change_commit(call, &c, change_end_sessions);
}

void command_token_revoke(struct call *call)
{
	call_enter_lane(call, revoke_in_lane);
}

void command_token_list(struct call *call)
{
	const struct roster_user *u = call_user(call, call_text(call, "user"));
	json_t *tokens;

	if (u == NULL)
		return;
	tokens = json_array();
	for (size_t i = 0; i < u->n_tokens; i++) {
		json_t *row = json_pack("{s:s}", "id", u->tokens[i].id);

		if (row != NULL && u->tokens[i].expires_ms != 0)
			json_object_set_new(row, "expires", json_integer(u->tokens[i].expires_ms));
		json_array_append_new(tokens, row);
	}
	call_ok(call, json_pack("{s:o}", "tokens", tokens));
}

/* ---- blocks */

static void block_in_lane(struct call *call)
{
	const char *user = call_text(call, "user"), *blocked = call_text(call, "blocked");
	bool add = call->command->run == command_block_add;
	struct change c = {0};

	if (call_user(call, user) == NULL || (add && call_user(call, blocked) == NULL))
		return;
	if (add && strcmp(user, blocked) == 0) {
		call_refuse(call, IM_REFUSE_BAD_FIELD, "nobody can block themselves");
		return;
	}
	if (add == roster_is_blocked(call->env->roster, user, blocked)) {
		call_refuse(call, add ? IM_REFUSE_EXISTS : IM_REFUSE_NOT_FOUND, add ? "%s blocks %s already" : "%s does not block %s", user,
			    blocked);
		return;
	}
	change_block(&c, user, blocked, !add);
	change_commit(call, &c, change_answer);
}

void command_block_add(struct call *call)
{
	call_enter_lane(call, block_in_lane);
}

void command_block_remove(struct call *call)
{
	call_enter_lane(call, block_in_lane);
}

struct block_scan {
	const struct roster *roster;
	const char *user;
	json_t *blocked;
};

static void collect_blocked(void *arg, const struct roster_user *other)
{
	struct block_scan *scan = arg;

	if (json_array_size(scan->blocked) < NAMES_DEFAULT && roster_is_blocked(scan->roster, scan->user, other->name))
		json_array_append_new(scan->blocked, json_string(other->name));
}

void command_block_list(struct call *call)
{
	struct block_scan scan = {call->env->roster, call_text(call, "user"), NULL};

	if (call_user(call, scan.user) == NULL)
		return;
	scan.blocked = json_array();
	roster_each_user(call->env->roster, collect_blocked, &scan);
	call_ok(call, json_pack("{s:o}", "blocked", scan.blocked));
}
