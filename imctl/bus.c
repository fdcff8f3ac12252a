/*
 * Questions over the bus: imctl connects to the broker's Unix socket as a service, publishes one command and
 * waits for the response that carries its correlation data. Blocking, with a deadline; each way of not getting
 * an answer has its own sentence, since "it does not work" helps nobody at night.
 */
#include "ctl.h"

#include "base/clock.h"

#include <errno.h>
#include <mosquitto.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONTROL "$CONTROL/im/v1"
#define RESPONSE "$CONTROL/im/v1/response"
#define CONNECT_MS 5000

void ctl_complain(const char *fmt, ...)
{
	va_list ap;

	(void)fputs("imctl: ", stderr);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
}

/* ---- where */

void ctl_config_path(const struct ctl *ctl, char *out, size_t len)
{
	if (ctl->config != NULL)
		(void)snprintf(out, len, "%s", ctl->config);
	else
		(void)snprintf(out, len, "%s/broker.conf", ctl->dir != NULL ? ctl->dir : "var");
}

/* What else may be wrong in the file does not matter here: what runs has been started with an earlier one, only the paths are wanted. */
static int find_paths(struct ctl *ctl)
{
	struct im_settings settings;
	struct im_err err = {""};
	char path[512];

	ctl_config_path(ctl, path, sizeof(path));
	if (access(path, R_OK) != 0) {
		ctl_complain("%s: %s; name the instance with --dir DIR or --config FILE", path, strerror(errno));
		return EXIT_UNAVAILABLE;
	}
	if (im_settings_find(path, &settings, &err) != IM_OK) {
		ctl_complain("%s", err.text);
		return EXIT_REFUSED;
	}
	(void)snprintf(ctl->socket, sizeof(ctl->socket), "%s", settings.bus);
	(void)snprintf(ctl->secret_path, sizeof(ctl->secret_path), "%s/run/bus.secret", settings.dir);
	im_settings_finish(&settings);
	return EXIT_DONE;
}

static int read_secret(const struct ctl *ctl, char *out, size_t len)
{
	FILE *f = fopen(ctl->secret_path, "re");
	size_t n;

	if (f == NULL) {
		if (errno == ENOENT)
			ctl_complain("%s is not there: the instance is not running", ctl->secret_path);
		else
			ctl_complain("%s: %s; imctl needs the rights of the instance's own user", ctl->secret_path, strerror(errno));
		return errno == ENOENT ? EXIT_UNAVAILABLE : EXIT_REFUSED;
	}
	n = fread(out, 1, len - 1, f);
	(void)fclose(f);
	out[n] = '\0';
	out[strcspn(out, "\r\n")] = '\0';
	return EXIT_DONE;
}

/* ---- events */

static void on_connect(struct mosquitto *m, void *arg, int rc)
{
	struct ctl *ctl = arg;

	ctl->connack = rc;
	if (rc == 0 && mosquitto_subscribe(m, NULL, RESPONSE, 1) != MOSQ_ERR_SUCCESS)
		ctl->lost = MOSQ_ERR_CONN_LOST;
}

static void on_subscribe(struct mosquitto *m, void *arg, int mid, int n, const int *granted)
{
	struct ctl *ctl = arg;

	(void)m;
	(void)mid;
	if (n == 1 && granted[0] <= 2)
		ctl->subscribed = true;
	else
		ctl->lost = MOSQ_ERR_ACL_DENIED;
}

static void on_disconnect(struct mosquitto *m, void *arg, int rc)
{
	struct ctl *ctl = arg;

	(void)m;
	ctl->lost = rc != 0 ? rc : MOSQ_ERR_CONN_LOST;
}

static void on_message(struct mosquitto *m, void *arg, const struct mosquitto_message *msg)
{
	struct ctl *ctl = arg;
	json_t *root = json_loadb(msg->payload, (size_t)msg->payloadlen, 0, NULL), *response;
	size_t i;

	(void)m;
	json_array_foreach(json_object_get(root, "responses"), i, response) {
		const char *correlation = json_string_value(json_object_get(response, "correlationData"));

		/* Without one it is the plugin's own word about the packet as a whole: nobody else shares our client id. */
		if ((correlation == NULL || strcmp(correlation, ctl->correlation) == 0) && ctl->answer == NULL)
			ctl->answer = json_incref(response);
	}
	json_decref(root);
}

/* Runs the connection until `done` or the deadline. false: neither in time, or the connection is gone. */
static bool wait_for(struct ctl *ctl, bool (*done)(const struct ctl *ctl), int timeout_ms)
{
	int64_t deadline = im_clock_mono_ms() + timeout_ms;

	while (!done(ctl)) {
		int64_t left = deadline - im_clock_mono_ms();
		int rc;

		if (left <= 0 || ctl->lost != 0)
			return false;
		rc = mosquitto_loop(ctl->mosq, left < 1000 ? (int)left : 1000, 1);
		if (rc != MOSQ_ERR_SUCCESS && ctl->lost == 0)
			ctl->lost = rc;
	}
	return true;
}

static bool is_ready(const struct ctl *ctl)
{
	return ctl->subscribed || ctl->connack > 0;
}

static bool is_answered(const struct ctl *ctl)
{
	return ctl->answer != NULL;
}

/* ---- connecting */

static int start_connecting(struct ctl *ctl)
{
	char client_id[64], secret[160];
	unsigned random = 0;
	int rc;

	rc = read_secret(ctl, secret, sizeof(secret));
	if (rc != EXIT_DONE)
		return rc;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		random = (unsigned)im_clock_mono_us();
	(void)snprintf(client_id, sizeof(client_id), "$im-ctl-%ld-%08x", (long)getpid(), random);
	(void)mosquitto_lib_init();
	ctl->mosq = mosquitto_new(client_id, true, ctl);
	if (ctl->mosq == NULL || mosquitto_username_pw_set(ctl->mosq, "$im", secret) != MOSQ_ERR_SUCCESS) {
		ctl_complain("out of memory");
		return EXIT_REFUSED;
	}
	explicit_bzero(secret, sizeof(secret));
	mosquitto_connect_callback_set(ctl->mosq, on_connect);
	mosquitto_subscribe_callback_set(ctl->mosq, on_subscribe);
	mosquitto_disconnect_callback_set(ctl->mosq, on_disconnect);
	mosquitto_message_callback_set(ctl->mosq, on_message);
	rc = mosquitto_connect(ctl->mosq, ctl->socket, 0, 60); /* port 0: a Unix socket */
	if (rc == MOSQ_ERR_SUCCESS)
		return EXIT_DONE;
	ctl_complain("nothing answers on %s (%s): the broker is not running", ctl->socket,
		     rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc));
	return EXIT_UNAVAILABLE;
}

static int ctl_connect(struct ctl *ctl)
{
	int rc;

	if (ctl->mosq != NULL)
		return EXIT_DONE;
	ctl->connack = -1;
	rc = find_paths(ctl);
	if (rc == EXIT_DONE)
		rc = start_connecting(ctl);
	if (rc != EXIT_DONE)
		return rc;
	if (wait_for(ctl, is_ready, CONNECT_MS) && ctl->subscribed)
		return EXIT_DONE;
	if (ctl->connack > 0)
		ctl_complain("the broker refused the service credential (%s): was it restarted just now?",
			     mosquitto_connack_string(ctl->connack));
	else
		ctl_complain("the broker on %s does not let imctl in: is the mosquitto-im plugin loaded?", ctl->socket);
	return EXIT_UNAVAILABLE;
}

void ctl_finish(struct ctl *ctl)
{
	if (ctl->mosq != NULL) {
		(void)mosquitto_disconnect(ctl->mosq); /* going anyway */
		mosquitto_destroy(ctl->mosq);
		(void)mosquitto_lib_cleanup();
	}
	json_decref(ctl->answer);
	ctl->mosq = NULL;
	ctl->answer = NULL;
}

/* ---- asking */

static char *make_question(struct ctl *ctl, const char *command, json_t *args)
{
	json_t *root;
	char *text = NULL;

	(void)snprintf(ctl->correlation, sizeof(ctl->correlation), "%u", ++ctl->asked);
	args = args != NULL ? args : json_object();
	(void)json_object_set_new(args, "command", json_string(command)); /* a failure shows in the answer */
	(void)json_object_set_new(args, "correlationData", json_string(ctl->correlation));
	root = json_pack("{s:[o]}", "commands", args);
	if (root != NULL)
		text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

int ctl_exit_of(const char *code)
{
	static const struct {
		const char *code;
		int exit;
	} table[] = {
		{"not_found", EXIT_NOT_FOUND}, {"unknown_user", EXIT_NOT_FOUND}, {"unknown_group", EXIT_NOT_FOUND},
		{"exists", EXIT_EXISTS}, {"unavailable", EXIT_UNAVAILABLE}, {"journal_full", EXIT_UNAVAILABLE},
		{"journal_failed", EXIT_UNAVAILABLE},
	};
	size_t len = strcspn(code, ":");

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (strlen(table[i].code) == len && memcmp(table[i].code, code, len) == 0)
			return table[i].exit;
	}
	return EXIT_REFUSED;
}

static int take_answer(struct ctl *ctl, json_t **data)
{
	const char *error = json_string_value(json_object_get(ctl->answer, "error"));
	const char *code = json_string_value(json_object_get(ctl->answer, "code"));
	const char *fix = json_string_value(json_object_get(ctl->answer, "fix"));

	if (error == NULL) {
		*data = json_incref(json_object_get(ctl->answer, "data"));
		return EXIT_DONE;
	}
	if (code == NULL)
		ctl_complain("%s", error); /* the plugin's: begins with the code */
	else
		ctl_complain("%s: %s%s%s", code, error, fix && fix[0] ? "\n       " : "", fix ? fix : "");
	return ctl_exit_of(code != NULL ? code : error);
}

int ctl_ask(struct ctl *ctl, const char *command, json_t *args, int timeout_ms, json_t **data)
{
	char *question;
	int rc = ctl_connect(ctl);

	if (rc != EXIT_DONE) {
		json_decref(args);
		return rc;
	}
	question = make_question(ctl, command, args);
	if (question == NULL) {
		ctl_complain("out of memory");
		return EXIT_REFUSED;
	}
	json_decref(ctl->answer);
	ctl->answer = NULL;
	rc = mosquitto_publish(ctl->mosq, NULL, CONTROL, (int)strlen(question), question, 1, false);
	explicit_bzero(question, strlen(question)); /* a password may be in it */
	free(question);
	if (rc == MOSQ_ERR_SUCCESS && wait_for(ctl, is_answered, timeout_ms))
		return take_answer(ctl, data);
	if (ctl->lost != 0 || rc != MOSQ_ERR_SUCCESS)
		ctl_complain("the connection to the broker was lost before an answer came; %s may have been done, or not", command);
	else
		ctl_complain("the broker is up, but the message service did not answer in %d s; %s may have been done, or not",
			     timeout_ms / 1000, command);
	return EXIT_UNAVAILABLE;
}

int ctl_pending(const json_t *data)
{
	if (!json_is_true(json_object_get(data, "pending")))
		return EXIT_DONE;
	ctl_complain("it is stored, but the broker's plugin has not confirmed it: it comes into force when the plugin is back");
	return EXIT_UNAVAILABLE;
}
