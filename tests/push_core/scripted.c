/*
 * A bridge to a provider that does what it is told, for tests of lib/push: the text of a ticket says what comes of its sending,
 *
 *	CLASS [after=MS] [retry=MS] [since=MS] [until=MS] [reason=WORD]      never: no answer at all
 *
 * and what was sent is appended to {state_dir}/sent.log before it is answered, so that it outlives a kill -9 as a provider would.
 * Provider "scripted", environments "one" and "two"; the app's file: env, room (sends at once), word (anything but "wrong").
 */
#include "push/driver.h"
#include "push/stats.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct scripted_send {
	struct scripted_send *next;
	struct scripted *driver;
	struct im_timer *timer;
	uint64_t row;
	bool never;
	struct push_result result;
};

struct scripted {
	const struct push_host *host;
	int log;
	size_t room, under_way;
	bool draining;
	struct scripted_send *sends;
};

static int64_t number_of(const char *script, const char *key)
{
	const char *at = strstr(script, key);

	return at ? strtoll(at + strlen(key), NULL, 10) : 0;
}

static enum push_class class_of(const char *script)
{
	for (int c = 0; c < PUSH_CLASSES; c++) {
		size_t len = strlen(push_class_name((enum push_class)c));

		if (strncmp(script, push_class_name((enum push_class)c), len) == 0 && (script[len] == '\0' || script[len] == ' '))
			return (enum push_class)c;
	}
	return PUSH_ACCEPTED;
}

static void read_result(const char *script, struct push_result *r)
{
	const char *reason = strstr(script, "reason=");

	*r = (struct push_result){.class = class_of(script), .status = 200, .retry_after_ms = number_of(script, "retry="),
				  .invalid_since_ms = number_of(script, "since="), .hold_until_ms = number_of(script, "until=")};
	(void)snprintf(r->reason, sizeof(r->reason), "%.60s", reason ? reason + 7 : push_class_name(r->class));
	r->reason[strcspn(r->reason, " ")] = '\0';
}

static void on_answer(void *arg)
{
	struct scripted_send *s = arg, **at = &s->driver->sends;
	struct scripted *d = s->driver;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	d->under_way--;
	d->host->result(d->host->arg, s->row, &s->result);
	im_timer_destroy(s->timer);
	free(s);
	d->host->room(d->host->arg);
}

static void note(struct scripted *d, const struct push_send *s, bool minimal)
{
	char line[1024];
	int n = snprintf(line, sizeof(line), "%s %s %s %s %u %s %d %llu %llu %s\n", s->job->key, s->job->user, s->job->device, s->uuid, s->attempt,
			 s->ticket->token->env, minimal, (unsigned long long)s->ticket->seq, (unsigned long long)s->row, s->collapse);

	if (write(d->log, line, (size_t)n) != n)
		abort();
}

static void scripted_send(void *driver, const struct push_send *send, bool minimal)
{
	const char *script = send->ticket->body;
	struct scripted *d = driver;
	struct scripted_send *s = calloc(1, sizeof(*s));

	s->driver = d;
	s->row = send->row;
	s->timer = im_timer_create(d->host->loop, on_answer, s);
	read_result(script, &s->result);
	s->next = d->sends;
	d->sends = s;
	d->under_way++;
	if (s->result.class != PUSH_UNSENT && s->result.class != PUSH_UNREACHABLE)
		note(d, send, minimal);
	s->never = strncmp(script, "never", 5) == 0;
	if (!s->never)
		im_timer_start(s->timer, (uint64_t)number_of(script, "after="), 0);
}

static size_t scripted_room(void *driver, const char *app, const char *env)
{
	const struct scripted *d = driver;

	(void)app;
	(void)env;
	return d->draining || d->under_way >= d->room ? 0 : d->room - d->under_way;
}

static enum im_status take_apps(struct scripted *d, struct push_app *const *apps, size_t n, struct im_err *err)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(push_app_text(apps[i], "word"), "wrong") == 0)
			return push_app_fault(apps[i], "word", err, "is the wrong one");
	d->room = (size_t)push_app_number(apps[0], "room");
	return IM_OK;
}

static enum im_status scripted_start(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err)
{
	struct scripted *d = calloc(1, sizeof(*d));
	enum im_status st;
	char path[512];

	snprintf(path, sizeof(path), "%s/sent.log", host->state_dir);
	d->host = host;
	d->log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	st = take_apps(d, apps, n, err);
	if (st != IM_OK) {
		close(d->log);
		free(d);
		return st;
	}
	*out = d;
	return IM_OK;
}

static enum im_status scripted_reload(void *driver, struct push_app *const *apps, size_t n, struct im_err *err)
{
	return take_apps(driver, apps, n, err);
}

/* What would get no answer ends as unknown in a second; the rest by itself. */
static void scripted_drain(void *driver)
{
	struct scripted *d = driver;

	d->draining = true;
	for (struct scripted_send *s = d->sends; s; s = s->next) {
		if (!s->never)
			continue;
		s->result.class = PUSH_UNKNOWN;
		im_timer_start(s->timer, 1000, 0);
	}
}

static void scripted_stop(void *driver)
{
	struct scripted *d = driver;
	struct scripted_send *s;

	while ((s = d->sends)) {
		d->sends = s->next;
		im_timer_destroy(s->timer);
		free(s);
	}
	close(d->log);
	free(d);
}

int main(int argc, char **argv)
{
	static const struct push_key keys[] = {
		{"env", PUSH_KEY_TEXT, false, "", 0, 0, NULL},
		{"room", PUSH_KEY_NUMBER, false, "500", 1, 100000, NULL},
		{"word", PUSH_KEY_TEXT, true, NULL, 0, 0, NULL},
		{NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL},
	};
	static const char *const envs[] = {"one", "two", NULL};
	static const struct push_driver driver = {
		.provider = "scripted",
		.program = "im-scripted-bridge",
		.keys = keys,
		.envs = envs,
		.start = scripted_start,
		.reload = scripted_reload,
		.room = scripted_room,
		.send = scripted_send,
		.drain = scripted_drain,
		.stop = scripted_stop,
	};

	return push_bridge_main(&driver, argc, argv);
}
