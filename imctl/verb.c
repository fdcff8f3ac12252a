/*
 * The table, and how words on the command line become arguments. A word that begins with -- is an option
 * wherever it stands, until a lone --; secrets are never among them.
 */
#include "verb.h"

#include "base/nearest.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct verb verb_table[] = {
	{"user", "add", "user", "title no_password?", "user.add", run_user_add, NULL, NULL, "makes a user; the password is read from standard input"},
	{"user", "import", "file", NULL, "user.import", run_user_import, NULL, NULL, "makes a user of each line \"name,password\"; FILE may be -"},
	{"user", "remove", "user", NULL, "user.remove", NULL, NULL, NULL, "removes a user for good: the name is not given again; messages stay"},
	{"user", "password", "user", NULL, "user.password", run_user_add, NULL, NULL, "sets a password, read from standard input"},
	{"user", "title", "user title", NULL, "user.title", NULL, NULL, NULL, "sets the shown name"},
	{"user", "disable", "user", NULL, "user.disable", NULL, NULL, NULL, "no login until enabled"},
	{"user", "enable", "user", NULL, "user.enable", NULL, NULL, NULL, "may log in again"},
	{"user", "list", NULL, NULL, "user.list", NULL, "users", "user title disabled password tokens", "all users"},
	{"user", "show", "user", NULL, "user.show", NULL, NULL, NULL, "a user with groups, devices and connections"},
	{"token", "issue", "users...", "days#", "token.issue", run_token_issue, NULL, NULL, "makes a token for each; it is the MQTT password and shown only now"},
	{"token", "revoke", "user [id]", NULL, "token.revoke", NULL, NULL, NULL, "a token, or all of a user, no longer logs in"},
	{"token", "list", "user", NULL, "token.list", NULL, "tokens", "id expires", "a user's tokens"},
	{"block", "add", "user blocked", NULL, "block.add", NULL, NULL, NULL, "the first no longer gets messages of the second"},
	{"block", "remove", "user blocked", NULL, "block.remove", NULL, NULL, NULL, "ends a block"},
	{"block", "list", "user", NULL, "block.list", NULL, NULL, NULL, "whom a user blocks"},
	{"group", "create", "group [users...]", "owner! title", "group.create", NULL, NULL, NULL, "makes a group"},
	{"group", "remove", "group", NULL, "group.remove", NULL, NULL, NULL, "ends a group; messages stay"},
	{"group", "add", "group users...", NULL, "group.add", run_group_users, NULL, NULL, "adds members"},
	{"group", "kick", "group users...", NULL, "group.kick", run_group_users, NULL, NULL, "removes members"},
	{"group", "role", "group user role", NULL, "group.role", NULL, NULL, NULL, "makes a member owner, admin or member"},
	{"group", "title", "group title", NULL, "group.title", NULL, NULL, NULL, "sets the shown name"},
	{"group", "list", NULL, NULL, "group.list", NULL, "groups", "group owner members title", "all groups"},
	{"group", "members", "group", NULL, "members", NULL, "members", "user role since title", "who is in a group"},
	{"session", "list", "[user]", NULL, "session.list", NULL, "sessions", "user client_id address protocol codec handed catching_up behind",
	 "who is connected"},
	{"session", "kick", "user [client_id]", NULL, "session.kick", NULL, NULL, NULL, "ends connections"},
	{"conversations", NULL, "user", NULL, "conversations", NULL, "conversations", "conv last_seq delivered read unread title",
	 "a user's conversations"},
	{"history", NULL, "user conv", "from# to#", "history", run_history, NULL, NULL, "every message, oldest first, as the user sees it"},
	{"send", NULL, "from conv [text]", "stdin? id", "send", run_send, NULL, NULL, "sends as a user, or as system into a group"},
	{"push", "list", "user", NULL, "push.list", NULL, "registrations", "device provider app state reason registered", "where a user's devices are registered"},
	{"push", "test", "user [client_id]", "provider", "push.test", NULL, NULL, NULL, "sends one push to a device"},
	{"push", "why", "user conv seq#", "client_id provider", "push.why", NULL, NULL, NULL, "whether a message would be pushed now, and what became of its push"},
	{"push", "stats", "[provider]", NULL, "push.stats", NULL, NULL, NULL, "how feeds and a bridge's outbox are doing"},
	{"status", NULL, NULL, NULL, "status", run_status, NULL, NULL, "how all parts are doing"},
	{"why", NULL, "user action what", NULL, "why", run_why, NULL, NULL, "whether USER may connect|publish|subscribe WHAT, and by which rule"},
	{"backup", NULL, "file", "force? verify?", "backup", run_backup, NULL, NULL, "writes everything into FILE while running; --verify checks a FILE"},
	{"restore", NULL, "file", "force? discard_journal?", NULL, run_restore, NULL, NULL, "makes a stopped instance's data from FILE (- is standard input)"},
	{"config", "check", "[file]", NULL, NULL, run_config_check, NULL, NULL, "checks broker.conf; nothing needs to run"},
	{"config", "sample", NULL, NULL, NULL, run_config_print, NULL, NULL, "prints the commented settings of broker.conf"},
	{"config", "reference", NULL, NULL, NULL, run_config_print, NULL, NULL, "prints docs/configuration.md"},
	{"help", NULL, "[noun]", NULL, NULL, run_help, NULL, NULL, "this text"},
	{NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};

/* ---- which row */

static bool noun_exists(const char *noun)
{
	for (const struct verb *v = verb_table; v->noun != NULL; v++) {
		if (strcmp(v->noun, noun) == 0)
			return true;
	}
	return false;
}

static void suggest(const char *noun, const char *word, char *why, size_t len)
{
	struct im_nearest near;

	im_nearest_start(&near, word);
	for (const struct verb *v = verb_table; v->noun != NULL; v++) {
		if (noun == NULL)
			im_nearest_offer(&near, v->noun);
		else if (strcmp(v->noun, noun) == 0 && v->verb != NULL)
			im_nearest_offer(&near, v->verb);
	}
	(void)snprintf(why, len, "there is no \"%s%s%s\"%s%s%s; see imctl help", noun ? noun : "", noun ? " " : "", word,
		       near.best ? "; did you mean \"" : "", near.best ? near.best : "", near.best ? "\"?" : "");
}

const struct verb *verb_find(char *const *words, int n, int *used, char *why, size_t len)
{
	if (n == 0) {
		(void)snprintf(why, len, "say what to do; see imctl help");
		return NULL;
	}
	for (const struct verb *v = verb_table; v->noun != NULL; v++) {
		if (strcmp(v->noun, words[0]) != 0)
			continue;
		*used = v->verb != NULL ? 2 : 1;
		if (v->verb == NULL || (n > 1 && strcmp(v->verb, words[1]) == 0))
			return v;
	}
	if (!noun_exists(words[0]))
		suggest(NULL, words[0], why, len);
	else if (n == 1)
		(void)snprintf(why, len, "%s what? See imctl help %s", words[0], words[0]);
	else
		suggest(words[0], words[1], why, len);
	return NULL;
}

/* ---- its words and options */

struct spec {
	char name[32];
	bool optional, many, must, number, flag;
};

/* Takes the next item of a words or options list. false: there is none. */
static bool next_spec(const char **list, struct spec *out)
{
	const char *p = *list != NULL ? *list + strspn(*list, " ") : "";
	size_t len = strcspn(p, " "), n = 0;

	if (len == 0)
		return false;
	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < len; i++) {
		switch (p[i]) {
		case '[':
		case ']':
			out->optional = true;
			break;
		case '.':
			out->many = true;
			break;
		case '!':
			out->must = true;
			break;
		case '#':
			out->number = true;
			break;
		case '?':
			out->flag = true;
			break;
		default:
			if (n + 1 < sizeof(out->name))
				out->name[n++] = p[i];
		}
	}
	*list = p + len;
	return true;
}

static bool find_option(const struct verb *verb, const char *name, struct spec *out, const char **nearest)
{
	static char best[32]; /* the suggestion outlives the list it was cut from */
	const char *list = verb->options;
	struct im_nearest near;

	im_nearest_start(&near, name);
	while (next_spec(&list, out)) {
		if (strcmp(out->name, name) == 0)
			return true;
		im_nearest_offer(&near, out->name);
		if (near.best == out->name) {
			memcpy(best, out->name, sizeof(best));
			near.best = best;
		}
	}
	*nearest = near.best;
	return false;
}

static bool set_text(json_t *args, const char *name, const char *text, char *why, size_t len)
{
	json_t *value = json_string(text);

	if (value == NULL) {
		(void)snprintf(why, len, "%s is not UTF-8", name);
		return false;
	}
	return json_object_set_new(args, name, value) == 0;
}

/* NULL: it is none, `why` says so. `what` is what the user calls it. */
static json_t *number_of(const char *what, const char *text, char *why, size_t len)
{
	long long number;
	char *end;

	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno == 0 && *end == '\0' && end != text && number >= 0)
		return json_integer(number);
	(void)snprintf(why, len, "%s needs a number, not \"%s\"", what, text);
	return NULL;
}

/* Takes words[*at], an option, and its value. */
static bool take_option(const struct verb *verb, char *const *words, int n, int *at, json_t *args, char *why, size_t len)
{
	char name[32];
	const char *word = words[*at] + 2, *value = strchr(word, '='), *nearest = NULL;
	size_t name_len = value != NULL ? (size_t)(value - word) : strlen(word);
	struct spec spec;
	int option = *at;
	json_t *number;

	(void)snprintf(name, sizeof(name), "%.*s", (int)(name_len < sizeof(name) ? name_len : sizeof(name) - 1), word);
	for (char *p = name; (p = strchr(p, '-')) != NULL;)
		*p = '_';
	if (!find_option(verb, name, &spec, &nearest)) {
		(void)snprintf(why, len, "there is no option --%s here%s%s%s", word, nearest ? "; did you mean --" : "",
			       nearest ? nearest : "", nearest ? "?" : "");
		return false;
	}
	if (spec.flag)
		return json_object_set_new(args, name, json_true()) == 0;
	if (value != NULL)
		value++;
	else if (*at + 1 < n)
		value = words[++*at];
	if (value == NULL) {
		(void)snprintf(why, len, "--%s needs a value", word);
		return false;
	}
	if (!spec.number)
		return set_text(args, name, value, why, len);
	number = number_of(words[option], value, why, len);
	return number != NULL && json_object_set_new(args, name, number) == 0;
}

static bool take_word(struct spec *spec, const char **list, bool *open, json_t *args, const char *word, char *why, size_t len)
{
	json_t *value = json_string(word);

	if (value == NULL) {
		(void)snprintf(why, len, "\"%s\" is not UTF-8", word);
		return false;
	}
	if (!*open && !next_spec(list, spec)) {
		json_decref(value);
		(void)snprintf(why, len, "\"%s\" is one word too many", word);
		return false;
	}
	*open = spec->many;
	if (spec->number) {
		json_decref(value);
		value = number_of(spec->name, word, why, len);
		return value != NULL && json_object_set_new(args, spec->name, value) == 0;
	}
	if (!spec->many)
		return json_object_set_new(args, spec->name, value) == 0;
	if (json_object_get(args, spec->name) == NULL)
		json_object_set_new(args, spec->name, json_array());
	return json_array_append_new(json_object_get(args, spec->name), value) == 0;
}

static bool all_given(const struct verb *verb, const char *list, bool open, const json_t *args, char *why, size_t len)
{
	struct spec spec;
	const char *options = verb->options;

	if (!open && next_spec(&list, &spec) && !spec.optional) {
		(void)snprintf(why, len, "%s is missing", spec.name);
		return false;
	}
	while (next_spec(&options, &spec)) {
		if (!spec.must || json_object_get(args, spec.name) != NULL)
			continue;
		(void)snprintf(why, len, "--%s is missing", spec.name);
		return false;
	}
	return true;
}

json_t *verb_args(const struct verb *verb, char *const *words, int n, char *why, size_t len)
{
	json_t *args = json_object();
	const char *list = verb->words;
	struct spec spec;
	bool open = false, options = true;

	(void)snprintf(why, len, "out of memory");
	for (int i = 0; i < n; i++) {
		bool ok;

		if (options && strcmp(words[i], "--") == 0) {
			options = false;
			continue;
		}
		if (options && strncmp(words[i], "--", 2) == 0)
			ok = take_option(verb, words, n, &i, args, why, len);
		else
			ok = take_word(&spec, &list, &open, args, words[i], why, len);
		if (!ok)
			goto wrong;
	}
	if (all_given(verb, list, open, args, why, len))
		return args;
wrong:
	json_decref(args);
	return NULL;
}

/* ---- usage */

static size_t put(char *out, size_t len, size_t used, const char *text, bool upper)
{
	for (; *text != '\0' && used + 1 < len; text++)
		out[used++] = (char)(upper ? toupper((unsigned char)*text) : *text);
	out[used] = '\0';
	return used;
}

void verb_usage(const struct verb *verb, char *out, size_t len)
{
	const char *list = verb->words, *options = verb->options;
	size_t used = put(out, len, 0, verb->noun, false);
	struct spec s;

	if (verb->verb != NULL) {
		used = put(out, len, used, " ", false);
		used = put(out, len, used, verb->verb, false);
	}
	while (next_spec(&list, &s)) {
		used = put(out, len, used, s.optional ? " [" : " ", false);
		used = put(out, len, used, s.name, true);
		used = put(out, len, used, s.many ? "..." : "", false);
		used = put(out, len, used, s.optional ? "]" : "", false);
	}
	while (next_spec(&options, &s)) {
		char flag[32];

		(void)snprintf(flag, sizeof(flag), "%s", s.name); /* as long */
		for (char *p = flag; (p = strchr(p, '_')) != NULL;)
			*p = '-';
		used = put(out, len, used, s.must ? " --" : " [--", false);
		used = put(out, len, used, flag, false);
		used = put(out, len, used, s.flag ? "" : " ", false);
		used = put(out, len, used, s.flag ? "" : s.number ? "n" : s.name, true);
		used = put(out, len, used, s.must ? "" : "]", false);
	}
}
