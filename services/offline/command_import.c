/*
 * user.import: many users in one command. Every entry succeeds or fails by itself; the answer tells how many
 * were added and names each that was not, with the line number the asker gave. Memory: one batch of at most
 * what a 64 KiB command holds, and a hash for each; files of thousands come as many commands.
 */
#include "change.h"
#include "secret.h"
#include "wire/name.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define TITLE_MAX 256u
#define PASSWORD_MAX 256u

struct entry {
	struct call *call;
	json_t *in;              /* borrowed from the arguments */
	bool failed;             /* reported */
	char hash[SECRET_HASH_SIZE];
};

struct import {
	json_t *errors;
	size_t n, hashing;
	struct entry entries[];
};

static void import_free(void *state)
{
	struct import *im = state;

	json_decref(im->errors);
	free(im);
}

static void report(struct import *im, struct entry *e, enum im_refusal_code code, const char *reason)
{
	const char *name = json_string_value(json_object_get(e->in, "user"));
	const json_t *line = json_object_get(e->in, "line");

	e->failed = true;
	json_array_append_new(im->errors, json_pack("{s:I,s:s,s:s,s:s}", "line", json_integer_value(line), "user", name ? name : "",
						    "code", im_refusal_name(code), "reason", reason));
}

static bool is_repeated(const struct import *im, size_t i, const char *name)
{
	for (size_t j = 0; j < i; j++) {
		if (!im->entries[j].failed && strcmp(json_string_value(json_object_get(im->entries[j].in, "user")), name) == 0)
			return true;
	}
	return false;
}

static const char *check(struct call *call, struct import *im, size_t i, enum im_refusal_code *code)
{
	struct entry *e = &im->entries[i];
	const json_t *name = json_object_get(e->in, "user"), *password = json_object_get(e->in, "password");
	const json_t *title = json_object_get(e->in, "title"), *line = json_object_get(e->in, "line");
	size_t known = (name != NULL) + (password != NULL) + (title != NULL) + (line != NULL);

	*code = IM_REFUSE_BAD_JSON;
	if (known != json_object_size(e->in) || (line != NULL && !json_is_integer(line)) || (title != NULL && !json_is_string(title)))
		return "an entry is {\"user\",\"password\",\"title\",\"line\"}";
	*code = IM_REFUSE_BAD_NAME;
	if (!json_is_string(name) || !im_name_valid(json_string_value(name), json_string_length(name)))
		return "not a name: [a-z0-9][a-z0-9._@-]{0,63}, and not all, me or system";
	*code = IM_REFUSE_BAD_FIELD;
	if (!json_is_string(password) || json_string_length(password) == 0)
		return "the password is missing";
	if (json_string_length(password) > PASSWORD_MAX)
		return "the password is longer than 256 bytes";
	if (json_string_length(title) > TITLE_MAX)
		return "the title is longer than 256 bytes";
	*code = IM_REFUSE_EXISTS;
	if (is_repeated(im, i, json_string_value(name)))
		return "the same name stands further up";
	if (roster_user(call->env->roster, json_string_value(name)) != NULL)
		return "there is a user of this name already";
	if (roster_was_user(call->env->roster, json_string_value(name)))
		return "a removed user's name is not given again";
	return NULL;
}

static void import_done(struct call *call, bool pending)
{
	struct import *im = call->state;
	size_t added = 0;

	for (size_t i = 0; i < im->n; i++)
		added += !im->entries[i].failed;
	call->result = json_pack("{s:I,s:O}", "added", (json_int_t)added, "errors", im->errors);
	change_answer(call, pending);
}

static void import_in_lane(struct call *call)
{
	struct import *im = call->state;
	struct change c = {0};

	for (size_t i = 0; i < im->n; i++) {
		struct entry *e = &im->entries[i];
		const char *name = json_string_value(json_object_get(e->in, "user"));
		Im__Bus__User *u;

		if (e->failed)
			continue;
		if (roster_user(call->env->roster, name) != NULL) {
			report(im, e, IM_REFUSE_EXISTS, "there is a user of this name already");
			continue;
		}
		u = change_user(&c, call->env->roster, name);
		if (u == NULL)
			break;
		change_set(&c, &u->password, e->hash);
		change_set(&c, &u->title, json_string_value(json_object_get(e->in, "title")));
	}
	change_commit(call, &c, import_done);
}

static void on_hash(void *arg, const char *hash)
{
	struct entry *e = arg;
	struct call *call = e->call;
	struct import *im = call->state;
	json_t *password = json_object_get(e->in, "password");

	sodium_memzero((char *)json_string_value(password), json_string_length(password));
	if (hash == NULL)
		report(im, e, IM_REFUSE_INTERNAL, "no memory to hash the password");
	else
		memcpy(e->hash, hash, strlen(hash) + 1);
	if (--im->hashing == 0 && call_step(call, IM_OK))
		call_enter_lane(call, import_in_lane);
}

void command_user_import(struct call *call)
{
	json_t *users = json_object_get(call->args, "users");
	size_t n = json_array_size(users);
	struct import *im;

	call->free_state = import_free;
	im = call_state(call, sizeof(*im) + n * sizeof(im->entries[0]));
	if (im == NULL)
		return;
	im->errors = json_array();
	im->n = n;
	im->hashing = 1; /* this loop itself */
	for (size_t i = 0; i < n; i++) {
		struct entry *e = &im->entries[i];
		enum im_refusal_code code;
		const char *wrong;

		e->call = call;
		e->in = json_array_get(users, i);
		wrong = check(call, im, i, &code);
		if (wrong != NULL)
			report(im, e, code, wrong);
		else if (secret_hash_password(call->env->secrets, json_string_value(json_object_get(e->in, "password")),
					      call->env->settings, on_hash, e) == IM_OK)
			im->hashing++;
		else
			report(im, e, IM_REFUSE_INTERNAL, "no memory to hash the password");
	}
	if (--im->hashing == 0)
		call_enter_lane(call, import_in_lane);
}
