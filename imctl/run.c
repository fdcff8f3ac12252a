/* The verbs that need more than a question and its answer. */
#include "ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PASSWORD_MAX 256
#define TEXT_MAX 49152 /* of one message sent by imctl; the service says the same */

/* ---- passwords: never in arguments, so never in ps */

static bool echo(bool on, struct termios *saved)
{
	struct termios t;

	if (!isatty(STDIN_FILENO))
		return false;
	if (on)
		return tcsetattr(STDIN_FILENO, TCSANOW, saved) == 0;
	if (tcgetattr(STDIN_FILENO, saved) != 0)
		return false;
	t = *saved;
	t.c_lflag &= ~(tcflag_t)ECHO;
	return tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
}

static bool read_password(char *out, size_t len)
{
	struct termios saved;
	bool hidden = echo(false, &saved);
	bool ok;

	if (hidden)
		(void)fputs("password: ", stderr);
	ok = fgets(out, (int)len, stdin) != NULL;
	if (hidden) {
		(void)echo(true, &saved); /* the shell sets it right otherwise */
		(void)fputc('\n', stderr);
	}
	if (ok)
		out[strcspn(out, "\r\n")] = '\0';
	return ok && out[0] != '\0';
}

/* user add, user password */
int run_user_add(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	char password[PASSWORD_MAX + 2];
	json_t *data = NULL, *value;
	bool without = json_is_true(json_object_get(args, "no_password"));
	int rc;

	json_object_del(args, "no_password");
	if (!without) {
		if (!read_password(password, sizeof(password))) {
			ctl_complain("give the password on standard input%s", verb->options ? ", or say --no-password" : "");
			return EXIT_USAGE;
		}
		value = json_string(password);
		explicit_bzero(password, sizeof(password));
		if (value == NULL) {
			ctl_complain("the password is not UTF-8");
			return EXIT_REFUSED;
		}
		(void)json_object_set_new(args, "password", value); /* without memory the service misses it and says so */
	}
	rc = ctl_ask(ctl, verb->command, json_incref(args), ASK_MS, &data);
	if (rc == EXIT_DONE) {
		if (ctl->json)
			print_line(data);
		rc = ctl_pending(data);
	}
	json_decref(data);
	return rc;
}

/* ---- many names: some at a time, since a command is at most 64 KiB */

#define NAMES_BATCH 250 /* of one command; the service takes 300 tokens, 500 members */

/* The next batch: args with `users` replaced by those from *at on. */
static json_t *next_batch(const json_t *args, size_t *at)
{
	const json_t *users = json_object_get(args, "users");
	json_t *some = json_array(), *batch = json_copy((json_t *)args);

	for (size_t i = 0; i < NAMES_BATCH && *at < json_array_size(users); i++, ++*at)
		(void)json_array_append(some, json_array_get(users, *at)); /* lost for memory: the service misses names and refuses */
	(void)json_object_set_new(batch, "users", some);
	return batch;
}

/* group add, group kick */
int run_group_users(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	size_t n = json_array_size(json_object_get(args, "users"));
	int worst = EXIT_DONE;

	for (size_t at = 0; at < n;) {
		json_t *data = NULL;
		size_t from = at;
		int rc = ctl_ask(ctl, verb->command, next_batch(args, &at), ASK_MS, &data);

		if (rc != EXIT_DONE) {
			if (from > 0)
				ctl_complain("the first %zu of %zu are done", from, n);
			return rc;
		}
		if (ctl->json)
			print_line(data);
		rc = ctl_pending(data);
		worst = rc != EXIT_DONE ? rc : worst;
		json_decref(data);
	}
	return worst;
}

/* ---- tokens: "name token" a line, for scripts */

static int issue_some(struct ctl *ctl, json_t *args)
{
	json_t *data = NULL, *row;
	size_t i;
	int rc = ctl_ask(ctl, "token.issue", args, ASK_MS, &data);

	if (rc != EXIT_DONE)
		return rc;
	json_array_foreach(json_object_get(data, "tokens"), i, row) {
		if (ctl->json)
			print_line(row);
		else
			(void)printf("%s %s\n", json_string_value(json_object_get(row, "user")),
				     json_string_value(json_object_get(row, "token")));
	}
	rc = ctl_pending(data);
	json_decref(data);
	return rc;
}

int run_token_issue(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	size_t n = json_array_size(json_object_get(args, "users"));
	int worst = EXIT_DONE;

	(void)verb;
	for (size_t at = 0; at < n;) {
		int rc = issue_some(ctl, next_batch(args, &at));

		if (rc != EXIT_DONE && rc != EXIT_UNAVAILABLE)
			return rc;
		worst = rc != EXIT_DONE ? rc : worst;
	}
	return worst;
}

/* ---- history */

static void print_message(const struct ctl *ctl, const json_t *m)
{
	const json_t *body = json_object_get(m, "body"), *alt = json_object_get(m, "alt");
	const char *from = json_string_value(json_object_get(m, "from"));
	time_t at = (time_t)(json_integer_value(json_object_get(m, "ts")) / 1000);
	char when[32] = "";
	struct tm tm;

	if (ctl->json) {
		print_line(m);
		return;
	}
	if (localtime_r(&at, &tm) != NULL)
		(void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	(void)printf("%lld  %s  %s: ", (long long)json_integer_value(json_object_get(m, "seq")), when, from && from[0] ? from : "*");
	if (json_is_string(alt))
		(void)printf("%s\n", json_string_value(alt));
	else if (json_is_string(body) && json_object_get(m, "enc") == NULL)
		(void)printf("%s\n", json_string_value(body));
	else if (json_is_string(body))
		(void)printf("(%s, %zu bytes)\n", json_string_value(json_object_get(m, "type")), json_string_length(body) / 4 * 3);
	else
		print_line(body);
}

int run_history(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	bool more = true;
	int rc = EXIT_DONE;

	(void)json_object_set_new(args, "limit", json_integer(1000)); /* bytes end most pages before that */
	while (more && rc == EXIT_DONE) {
		json_t *data = NULL, *m;
		size_t i;

		rc = ctl_ask(ctl, verb->command, json_copy(args), ASK_MS, &data);
		json_array_foreach(json_object_get(data, "messages"), i, m)
			print_message(ctl, m);
		more = json_is_true(json_object_get(data, "more"));
		if (more)
			(void)json_object_set(args, "next", json_object_get(data, "next")); /* lost for memory: pages repeat visibly */
		json_decref(data);
	}
	return rc;
}

/* ---- send */

static int read_text(json_t *args)
{
	char *text = malloc(TEXT_MAX + 2);
	size_t n = text ? fread(text, 1, TEXT_MAX + 1, stdin) : 0;
	json_t *value = text && n <= TEXT_MAX ? json_stringn(text, n) : NULL;

	free(text);
	if (value == NULL) {
		ctl_complain(n > TEXT_MAX ? "more than %d bytes: too much for one message of imctl" : "standard input is not UTF-8 (of at most %d bytes)",
			     TEXT_MAX);
		return EXIT_REFUSED;
	}
	return json_object_set_new(args, "text", value) == 0 ? EXIT_DONE : EXIT_REFUSED;
}

int run_send(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	bool from_stdin = json_is_true(json_object_get(args, "stdin"));
	json_t *data = NULL;
	int rc = EXIT_DONE;

	json_object_del(args, "stdin");
	if (from_stdin == (json_object_get(args, "text") != NULL)) {
		ctl_complain("give the text either as a word or with --stdin");
		return EXIT_USAGE;
	}
	if (from_stdin)
		rc = read_text(args);
	if (rc == EXIT_DONE)
		rc = ctl_ask(ctl, verb->command, json_incref(args), ASK_MS, &data);
	if (rc != EXIT_DONE)
		return rc;
	if (ctl->json)
		print_line(data);
	else
		(void)printf("stored as %s %lld\n", json_string_value(json_object_get(data, "conv")),
			     (long long)json_integer_value(json_object_get(data, "seq")));
	json_decref(data);
	return EXIT_DONE;
}

/* ---- status, why */

int run_status(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	json_t *data = NULL;
	int rc = ctl_ask(ctl, verb->command, json_incref(args), ASK_MS, &data);

	if (rc != EXIT_DONE)
		return rc;
	json_object_del(data, "more");
	if (ctl->json)
		print_line(data);
	else
		print_object(data);
	if (!json_is_object(json_object_get(data, "plugin"))) {
		ctl_complain("the broker's plugin does not answer the message service");
		rc = EXIT_UNAVAILABLE;
	}
	json_decref(data);
	return rc;
}

int run_why(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	json_t *data = NULL;
	bool allowed;
	int rc = ctl_ask(ctl, verb->command, json_incref(args), ASK_MS, &data);

	if (rc != EXIT_DONE)
		return rc;
	allowed = json_is_true(json_object_get(data, "allowed"));
	json_object_del(data, "more");
	if (ctl->json)
		print_line(data);
	else
		print_object(data);
	json_decref(data);
	return allowed ? EXIT_DONE : EXIT_DENIED;
}

/* ---- config: works without anything running */

int run_config_check(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	struct im_conf_problem problems[32];
	struct im_settings settings;
	const char *file = json_string_value(json_object_get(args, "file"));
	char path[512];
	size_t n = 0;
	enum im_status st;

	(void)verb;
	ctl_config_path(ctl, path, sizeof(path));
	if (file != NULL)
		(void)snprintf(path, sizeof(path), "%s", file);
	if (access(path, R_OK) != 0) {
		ctl_complain("%s: %s", path, strerror(errno));
		return EXIT_NOT_FOUND;
	}
	memset(&settings, 0, sizeof(settings));
	st = im_settings_read(path, &settings, problems, 32, &n);
	for (size_t i = 0; i < n && i < 32; i++) {
		json_t *row = json_pack("{s:b,s:s}", "fatal", problems[i].fatal, "text", problems[i].text);

		if (ctl->json)
			print_line(row);
		else
			(void)printf("%s: %s\n", problems[i].fatal ? "error" : "warning", problems[i].text);
		json_decref(row);
	}
	if (st == IM_OK) {
		im_settings_finish(&settings);
		if (!ctl->json)
			(void)printf("%s is fine\n", path);
	}
	return st == IM_OK ? EXIT_DONE : EXIT_REFUSED;
}

static void put(void *arg, const char *text)
{
	(void)fputs(text, arg); /* a full disk shows at exit */
}

int run_config_print(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	(void)ctl;
	(void)args;
	if (strcmp(verb->verb, "sample") == 0)
		im_settings_print_sample(put, stdout);
	else
		im_settings_print_markdown(put, stdout);
	return EXIT_DONE;
}

/* ---- help */

static const char help_head[] =
	"imctl [--dir DIR | --config FILE] [--json] NOUN VERB ...\n"
	"Talks to a running mosquitto-im: the one of DIR/broker.conf (default ./var).\n\n";
static const char help_foot[] =
	"\n--json: one JSON object a line. A lone -- ends the options.\n"
	"Exit: 0 done  1 refused  2 wrong usage  3 not found  4 exists already  5 not running, no answer, or not yet in force  6 why: no\n";

int run_help(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	const char *noun = json_string_value(json_object_get(args, "noun"));
	bool found = false;

	(void)ctl;
	(void)verb;
	if (noun == NULL)
		(void)fputs(help_head, stdout);
	for (const struct verb *v = verb_table; v->noun != NULL; v++) {
		char usage[256];

		if (noun != NULL && strcmp(v->noun, noun) != 0)
			continue;
		found = true;
		verb_usage(v, usage, sizeof(usage));
		(void)printf("  %-52s %s\n", usage, v->help);
	}
	if (noun == NULL)
		(void)fputs(help_foot, stdout);
	if (!found)
		ctl_complain("there is no \"%s\"; see imctl help", noun);
	return found ? EXIT_DONE : EXIT_USAGE;
}
