/*
 * The one command table, and the check of arguments against it. Names with a dot are "noun.verb" as imctl
 * writes them; those that users may send stand in docs/protocol.md, Requests.
 */
#include "command.h"

#include "base/nearest.h"
#include "wire/envelope.h"
#include "wire/name.h"

#include <string.h>

#define LIST_MAX 1000u   /* rows of one page, whatever their size: a page is built in one turn of the loop */
#define USERS_MAX 500u   /* names of one command: a payload of 64 KiB holds few more */
#define ISSUE_MAX 300u   /* tokens of one answer, which is at most 64 KiB too */
#define IMPORT_MAX 250u  /* users of one import: the report on all of them must fit into 64 KiB */
#define CURSORS_MAX 500u /* conversations of one sync */
#define SEQ_MAX ((1ull << 53) - 1)
#define TITLE_MAX 256u   /* bytes: a line on any screen */
#define PASSWORD_MAX 256u /* bytes: argon2id would take more, a login packet should not */
#define FILE_MAX 4000u   /* bytes of a path: what the system takes, with room for a suffix */
#define TEXT_MAX 49152u  /* bytes of a message given to send: JSON's escapes must fit into 64 KiB beside it */

#define PAGED                                                                                     \
	{"limit", ARG_INT, 0, 1, LIST_MAX, NULL, "rows of a page, at most"},                      \
	{"next", ARG_TEXT, 0, 1, 159, NULL, "the `next` of the page before"}
#define END {NULL, ARG_BOOL, 0, 0, 0, NULL, NULL}
#define AS_USER {"user", ARG_USER, ARG_REQUIRED | ARG_ADMIN, 0, 0, NULL, "through whose eyes (admins)"}
#define USER(help) {"user", ARG_USER, ARG_REQUIRED, 0, 0, NULL, help}
#define GROUP {"group", ARG_GROUP, ARG_REQUIRED, 0, 0, NULL, "the group's name"}

static const struct command_arg no_args[] = {END};
static const struct command_arg as_user_paged_args[] = {AS_USER, PAGED, END};
static const struct command_arg paged_args[] = {PAGED, END};
static const struct command_arg user_args[] = {USER("the user's name"), END};
static const struct command_arg group_args[] = {GROUP, END};

static const struct command_arg history_args[] = {
	AS_USER,
	{"conv", ARG_CONV, ARG_REQUIRED, 0, 0, NULL, "the conversation as the user sees it"},
	{"from", ARG_INT, 0, 0, SEQ_MAX, NULL, "first sequence (default: the first there is)"},
	{"to", ARG_INT, 0, 0, SEQ_MAX, NULL, "last sequence (default: the newest)"},
	{"limit", ARG_INT, 0, 1, LIST_MAX, NULL, "messages of a page, at most (default 100)"},
	{"newest_first", ARG_BOOL, 0, 0, 0, NULL, "page from the newest backwards"},
	{"next", ARG_TEXT, 0, 1, 20, NULL, "the `next` of the page before"},
	END,
};
static const struct command_arg sync_args[] = {
	AS_USER,
	{"cursors", ARG_OBJECTS, 0, 0, CURSORS_MAX, NULL, "[{\"conv\",\"seq\"}]: what is there already (default: what the device was delivered)"},
	PAGED,
	END,
};
static const struct command_arg members_args[] = {GROUP, PAGED, END};
static const struct command_arg device_args[] = {
	{"max_packet", ARG_INT, ARG_REQUIRED, 0, 268435455, NULL, "bytes of the largest packet the device takes; 0 = any, else at least 64"},
	END,
};
static const struct command_arg user_add_args[] = {
	USER("the new user's name"),
	{"password", ARG_TEXT, 0, 1, PASSWORD_MAX, NULL, "without one only tokens log in"},
	{"title", ARG_TEXT, 0, 0, TITLE_MAX, NULL, "shown name"},
	END,
};
static const struct command_arg import_args[] = {
	{"users", ARG_OBJECTS, ARG_REQUIRED, 1, IMPORT_MAX, NULL, "[{\"user\",\"password\",\"title\",\"line\"}]; `line` comes back in the report"},
	END,
};
static const struct command_arg password_args[] = {
	USER("whose"),
	{"password", ARG_TEXT, ARG_REQUIRED, 1, PASSWORD_MAX, NULL, "the new one"},
	END,
};
static const struct command_arg user_title_args[] = {
	USER("whose"),
	{"title", ARG_TEXT, ARG_REQUIRED, 0, TITLE_MAX, NULL, "shown name"},
	END,
};
static const struct command_arg issue_args[] = {
	{"users", ARG_USERS, ARG_REQUIRED, 1, ISSUE_MAX, NULL, "one token each"},
	{"days", ARG_INT, 0, 1, 36500, NULL, "until it expires (default: never)"},
	END,
};
static const struct command_arg revoke_args[] = {
	USER("whose"),
	{"id", ARG_ID, 0, 0, 0, NULL, "the token's id (default: all of the user's)"},
	END,
};
static const struct command_arg block_args[] = {
	USER("who does not want them"),
	{"blocked", ARG_USER, ARG_REQUIRED, 0, 0, NULL, "whose messages"},
	END,
};
static const struct command_arg create_args[] = {
	GROUP,
	{"owner", ARG_USER, ARG_REQUIRED, 0, 0, NULL, "its first member"},
	{"title", ARG_TEXT, 0, 0, TITLE_MAX, NULL, "shown name"},
	{"users", ARG_USERS, 0, 1, USERS_MAX, NULL, "further members"},
	END,
};
static const struct command_arg group_users_args[] = {
	GROUP,
	{"users", ARG_USERS, ARG_REQUIRED, 1, USERS_MAX, NULL, "who"},
	END,
};
static const struct command_arg role_args[] = {
	GROUP,
	USER("which member"),
	{"role", ARG_WORD, ARG_REQUIRED, 0, 0, "owner|admin|member", "a new owner makes the old one an admin"},
	END,
};
static const struct command_arg group_title_args[] = {
	GROUP,
	{"title", ARG_TEXT, ARG_REQUIRED, 0, TITLE_MAX, NULL, "shown name"},
	END,
};
static const struct command_arg session_list_args[] = {
	{"user", ARG_USER, 0, 0, 0, NULL, "only this user's"},
	PAGED,
	END,
};
static const struct command_arg session_kick_args[] = {
	USER("whose"),
	{"client_id", ARG_TEXT, 0, 1, IM_CLIENT_ID_MAX, NULL, "only this one (default: all of the user's)"},
	END,
};
static const struct command_arg send_args[] = {
	{"from", ARG_TEXT, ARG_REQUIRED, 1, IM_NAME_MAX, NULL, "a user, or `system` (into groups)"},
	{"conv", ARG_CONV, ARG_REQUIRED, 0, 0, NULL, "as the sender sees it"},
	{"text", ARG_TEXT, ARG_REQUIRED, 0, TEXT_MAX, NULL, "the message"},
	{"id", ARG_ID, 0, 0, 0, NULL, "message id: repeats are stored once"},
	END,
};
static const struct command_arg why_args[] = {
	USER("whose right"),
	{"action", ARG_WORD, ARG_REQUIRED, 0, 0, "connect|publish|subscribe", "to do what"},
	{"what", ARG_TEXT, ARG_REQUIRED, 1, IM_TOPIC_MAX, NULL, "client id, topic or filter"},
	END,
};
static const struct command_arg push_register_args[] = {
	{"provider", ARG_TEXT, ARG_REQUIRED, 1, 15, NULL, "apns, fcm, webpush, huawei, harmony, xiaomi, oppo, vivo or honor"},
	{"app", ARG_ID, ARG_REQUIRED, 0, 0, NULL, "which of the provider's apps, as the server's files are named"},
	{"token", ARG_TEXT, ARG_REQUIRED, 1, 4096, NULL, "what the provider gave the app; webpush: the endpoint"},
	{"p256dh", ARG_TEXT, 0, 1, 128, NULL, "webpush: the subscription's key"},
	{"auth", ARG_TEXT, 0, 1, 64, NULL, "webpush: the subscription's secret"},
	{"env", ARG_WORD, 0, 0, 0, "production|sandbox", "apns, if it is known"},
	{"language", ARG_TEXT, 0, 2, 35, NULL, "of general texts: a BCP 47 tag like de or pt-BR"},
	{"privacy", ARG_WORD, 0, 0, 0, "none|sender|content", "the most that may be shown (default: im_push_privacy, never more)"},
	{"quiet_from", ARG_TEXT, 0, 5, 5, NULL, "no pushes from this local time on, like 22:00 ..."},
	{"quiet_to", ARG_TEXT, 0, 5, 5, NULL, "... to this"},
	{"zone", ARG_TEXT, 0, 1, 64, NULL, "the device's time zone: Europe/Berlin, +08:00"},
	END,
};
static const struct command_arg push_unregister_args[] = {
	{"provider", ARG_TEXT, 0, 1, 15, NULL, "only there (default: everywhere)"},
	END,
};
static const struct command_arg push_device_args[] = {
	USER("whose"),
	{"client_id", ARG_TEXT, 0, 1, IM_CLIENT_ID_MAX, NULL, "which device (default: any)"},
	{"provider", ARG_TEXT, 0, 1, 15, NULL, "with which provider (default: any)"},
	END,
};
static const struct command_arg push_why_args[] = {
	USER("the recipient"),
	{"conv", ARG_CONV, ARG_REQUIRED, 0, 0, NULL, "the conversation as the recipient sees it"},
	{"seq", ARG_INT, ARG_REQUIRED, 1, SEQ_MAX, NULL, "which message"},
	{"client_id", ARG_TEXT, 0, 1, IM_CLIENT_ID_MAX, NULL, "which device (default: any)"},
	{"provider", ARG_TEXT, 0, 1, 15, NULL, "with which provider (default: any)"},
	END,
};
static const struct command_arg push_stats_args[] = {
	{"provider", ARG_TEXT, 0, 1, 15, NULL, "with what is in its bridge's outbox"},
	END,
};

static const struct command_arg backup_args[] = {
	{"file", ARG_TEXT, ARG_REQUIRED, 1, FILE_MAX, NULL, "imctl: a path; other admins: a name in {im_dir}/backups"},
	{"force", ARG_BOOL, 0, 0, 0, NULL, "replace a file that is there"},
	END,
};

const struct command command_table[] = {
	{"server", WHO_BOTH, no_args, command_server, "version, time, store epoch, limits"},
	{"me", WHO_USER, no_args, command_me, "who I am here, on which device, in which groups"},
	{"conversations", WHO_BOTH, as_user_paged_args, command_conversations, "all conversations, newest first, with cursors and unread"},
	{"history", WHO_BOTH, history_args, command_history, "messages of a conversation, by range and page"},
	{"sync", WHO_BOTH, sync_args, command_sync, "which conversations hold more than I have, and from where"},
	{"groups", WHO_BOTH, as_user_paged_args, command_groups, "the user's groups"},
	{"members", WHO_BOTH, members_args, command_members, "who is in a group"},
	{"device.set", WHO_USER, device_args, command_device_set, "the largest packet this device takes"},
	{"push.register", WHO_USER, push_register_args, command_push_register, "wakes this device by its provider when it is away"},
	{"push.unregister", WHO_USER, push_unregister_args, command_push_unregister, "ends that (logout)"},
	{"push.get", WHO_USER, no_args, command_push_get, "how this device is registered, without its token"},

	{"user.add", WHO_ADMIN, user_add_args, command_user_add, "makes a user"},
	{"user.import", WHO_ADMIN, import_args, command_user_import, "makes many users; reports each that could not be made"},
	{"user.remove", WHO_ADMIN, user_args, command_user_remove, "removes a user, its tokens, memberships and blocks; messages stay, and the name is not given again"},
	{"user.password", WHO_ADMIN, password_args, command_user_password, "sets a password; open connections end"},
	{"user.title", WHO_ADMIN, user_title_args, command_user_title, "sets the shown name"},
	{"user.disable", WHO_ADMIN, user_args, command_user_disable, "no login until enabled; open connections end"},
	{"user.enable", WHO_ADMIN, user_args, command_user_enable, "may log in again"},
	{"user.list", WHO_ADMIN, paged_args, command_user_list, "all users"},
	{"user.show", WHO_ADMIN, user_args, command_user_show, "a user with groups, tokens and devices"},
	{"token.issue", WHO_ADMIN, issue_args, command_token_issue, "makes device tokens; each is shown this once"},
	{"token.revoke", WHO_ADMIN, revoke_args, command_token_revoke, "a token no longer logs in; open connections end, others log in again"},
	{"token.list", WHO_ADMIN, user_args, command_token_list, "a user's tokens, without their text"},
	{"block.add", WHO_ADMIN, block_args, command_block_add, "the user no longer gets messages of another"},
	{"block.remove", WHO_ADMIN, block_args, command_block_remove, "ends a block"},
	{"block.list", WHO_ADMIN, user_args, command_block_list, "whom a user blocks"},
	{"group.create", WHO_ADMIN, create_args, command_group_create, "makes a group with an owner"},
	{"group.remove", WHO_ADMIN, group_args, command_group_remove, "ends a group; its members keep what they may see"},
	{"group.add", WHO_ADMIN, group_users_args, command_group_add, "adds members"},
	{"group.kick", WHO_ADMIN, group_users_args, command_group_kick, "removes members"},
	{"group.role", WHO_ADMIN, role_args, command_group_role, "makes a member owner, admin or member"},
	{"group.title", WHO_ADMIN, group_title_args, command_group_title, "sets the shown name"},
	{"group.list", WHO_ADMIN, paged_args, command_group_list, "all groups"},
	{"session.list", WHO_ADMIN, session_list_args, command_session_list, "who is connected"},
	{"session.kick", WHO_ADMIN, session_kick_args, command_session_kick, "ends connections"},
	{"send", WHO_ADMIN, send_args, command_send, "sends as a user or as the system; answers once it is stored"},
	{"push.list", WHO_ADMIN, user_args, command_push_list, "where a user's devices are registered"},
	{"push.test", WHO_ADMIN, push_device_args, command_push_test, "sends one push to a device"},
	{"push.why", WHO_ADMIN, push_why_args, command_push_why, "whether a message would be pushed now, and what became of its push"},
	{"push.stats", WHO_ADMIN, push_stats_args, command_push_stats, "how the feeds and a bridge's outbox are doing"},
	{"status", WHO_ADMIN, no_args, command_status, "how all parts are doing"},
	{"why", WHO_ADMIN, why_args, command_why, "whether a user may connect, publish or subscribe, and the rule that decides"},
	{"backup", WHO_ADMIN, backup_args, command_backup, "begins a backup of everything; backup.status tells how it goes"},
	{"backup.status", WHO_ADMIN, no_args, command_backup_status, "the backup under way, else the last one since the service started"},
	{"commands", WHO_ADMIN, no_args, command_commands, "this table"},
	{NULL, WHO_BOTH, NULL, NULL, NULL},
};

const struct command *command_find(const char *name, bool admin, const char **nearest)
{
	enum command_who who = admin ? WHO_ADMIN : WHO_USER;
	struct im_nearest near;

	im_nearest_start(&near, name);
	for (const struct command *c = command_table; c->name != NULL; c++) {
		if (!(c->who & who))
			continue;
		if (strcmp(c->name, name) == 0)
			return c;
		im_nearest_offer(&near, c->name);
	}
	if (nearest != NULL)
		*nearest = near.best;
	return NULL;
}

static const struct command_arg *find_arg(const struct command *c, const char *name, bool admin, const char **nearest)
{
	struct im_nearest near;

	im_nearest_start(&near, name);
	for (const struct command_arg *a = c->args; a->name != NULL; a++) {
		if ((a->flags & ARG_ADMIN) && !admin)
			continue;
		if (strcmp(a->name, name) == 0)
			return a;
		im_nearest_offer(&near, a->name);
	}
	*nearest = near.best;
	return NULL;
}

static bool is_one_of(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *w = words; len != 0; w++) {
		size_t n = strcspn(w, "|");

		if (n == len && memcmp(w, word, n) == 0)
			return true;
		w += n;
		if (*w == '\0')
			break;
	}
	return false;
}

static bool bad_name(const char *arg, struct im_refusal *why)
{
	im_refuse(why, IM_REFUSE_BAD_NAME, "\"%s\" is not a name: [a-z0-9][a-z0-9._@-]{0,63}, and not all, me or system", arg);
	return false;
}

static bool check_text(const struct command_arg *a, const json_t *v, struct im_refusal *why)
{
	size_t len = json_string_length(v);
	const char *s = json_string_value(v);

	if (s == NULL) {
		im_refuse(why, IM_REFUSE_BAD_JSON, "\"%s\" must be a string", a->name);
		return false;
	}
	switch (a->type) {
	case ARG_USER:
	case ARG_GROUP:
		return im_name_valid(s, len) || bad_name(a->name, why);
	case ARG_CONV:
		if (len > 2 && (s[0] == 'u' || s[0] == 'g') && s[1] == '/' && im_name_valid(s + 2, len - 2))
			return true;
		im_refuse(why, IM_REFUSE_BAD_NAME, "\"%s\" must be u/{user} or g/{group}", a->name);
		return false;
	case ARG_ID:
		if (im_id_valid(s, len))
			return true;
		im_refuse(why, IM_REFUSE_BAD_ID, "\"%s\" must match [A-Za-z0-9._:~-]{1,64}", a->name);
		return false;
	case ARG_WORD:
		if (is_one_of(a->words, s))
			return true;
		im_refuse(why, IM_REFUSE_BAD_FIELD, "\"%s\" must be one of %s", a->name, a->words);
		return false;
	default:
		if (len >= a->min && len <= a->max)
			return true;
		im_refuse(why, len > a->max ? IM_REFUSE_TOO_BIG : IM_REFUSE_BAD_FIELD, "\"%s\" must have %llu to %llu bytes",
			  a->name, (unsigned long long)a->min, (unsigned long long)a->max);
		return false;
	}
}

static bool check_array(const struct command_arg *a, const json_t *v, struct im_refusal *why)
{
	size_t n = json_array_size(v);

	if (!json_is_array(v)) {
		im_refuse(why, IM_REFUSE_BAD_JSON, "\"%s\" must be an array", a->name);
		return false;
	}
	if (n < a->min || n > a->max) {
		im_refuse(why, n > a->max ? IM_REFUSE_TOO_MANY : IM_REFUSE_BAD_FIELD, "\"%s\" must have %llu to %llu entries",
			  a->name, (unsigned long long)a->min, (unsigned long long)a->max);
		return false;
	}
	for (size_t i = 0; i < n; i++) {
		const json_t *e = json_array_get(v, i);

		if (a->type == ARG_OBJECTS ? !json_is_object(e) : !json_is_string(e)) {
			im_refuse(why, IM_REFUSE_BAD_JSON, "\"%s\" must hold %s", a->name, a->type == ARG_OBJECTS ? "objects" : "strings");
			return false;
		}
		if (a->type == ARG_USERS && !im_name_valid(json_string_value(e), json_string_length(e)))
			return bad_name(a->name, why);
		for (size_t j = 0; a->type == ARG_USERS && j < i; j++) {
			if (strcmp(json_string_value(e), json_string_value(json_array_get(v, j))) != 0)
				continue;
			im_refuse(why, IM_REFUSE_BAD_FIELD, "\"%s\" names %s twice", a->name, json_string_value(e));
			return false;
		}
	}
	return true;
}

static bool check_value(const struct command_arg *a, const json_t *v, struct im_refusal *why)
{
	json_int_t i = json_integer_value(v);

	switch (a->type) {
	case ARG_INT:
		if (!json_is_integer(v)) {
			im_refuse(why, IM_REFUSE_BAD_JSON, "\"%s\" must be an integer", a->name);
			return false;
		}
		if (i >= 0 && (uint64_t)i >= a->min && (uint64_t)i <= a->max)
			return true;
		im_refuse(why, IM_REFUSE_BAD_FIELD, "\"%s\" must be %llu to %llu", a->name, (unsigned long long)a->min,
			  (unsigned long long)a->max);
		return false;
	case ARG_BOOL:
		if (json_is_boolean(v))
			return true;
		im_refuse(why, IM_REFUSE_BAD_JSON, "\"%s\" must be true or false", a->name);
		return false;
	case ARG_USERS:
	case ARG_OBJECTS:
		return check_array(a, v, why);
	default:
		return check_text(a, v, why);
	}
}

bool command_check(const struct command *c, const json_t *args, bool admin, struct im_refusal *why)
{
	const char *name, *nearest = NULL;
	json_t *value;

	json_object_foreach((json_t *)args, name, value) {
		const struct command_arg *a = find_arg(c, name, admin, &nearest);

		if (a == NULL) {
			im_refuse(why, IM_REFUSE_BAD_JSON, "%s does not know \"%.40s\"%s%s%s", c->name, name,
				  nearest ? "; did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?" : "");
			return false;
		}
		if (!check_value(a, value, why))
			return false;
	}
	for (const struct command_arg *a = c->args; a->name != NULL; a++) {
		if (!(a->flags & ARG_REQUIRED) || ((a->flags & ARG_ADMIN) && !admin) || json_object_get(args, a->name) != NULL)
			continue;
		im_refuse(why, IM_REFUSE_BAD_FIELD, "%s needs \"%s\": %s", c->name, a->name, a->help);
		return false;
	}
	return true;
}

static const char *type_name(enum arg_type type)
{
	static const char *const names[] = {
		[ARG_USER] = "user", [ARG_GROUP] = "group", [ARG_CONV] = "conv", [ARG_TEXT] = "text", [ARG_ID] = "id",
		[ARG_WORD] = "word", [ARG_INT] = "int", [ARG_BOOL] = "bool", [ARG_USERS] = "users", [ARG_OBJECTS] = "objects",
	};

	return names[type];
}

json_t *command_describe(const struct command *c, bool admin)
{
	json_t *args = json_array();

	for (const struct command_arg *a = c->args; a->name != NULL; a++) {
		json_t *arg;

		if ((a->flags & ARG_ADMIN) && !admin)
			continue;
		arg = json_pack("{s:s,s:s,s:b,s:s}", "name", a->name, "type", type_name(a->type), "required",
				(a->flags & ARG_REQUIRED) != 0, "help", a->help);
		if (arg != NULL && a->words != NULL)
			json_object_set_new(arg, "words", json_string(a->words));
		if (json_array_append_new(args, arg) != 0)
			break;
	}
	return json_pack("{s:s,s:s,s:s,s:o}", "command", c->name, "who",
			 c->who == WHO_BOTH ? "both" : c->who == WHO_USER ? "user" : "admin", "help", c->help, "args", args);
}
