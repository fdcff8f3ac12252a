/*
 * Reads the apps' files. The one idea: everything that can be wrong is found here and at the driver's start, before a single push
 * is taken, so that a wrong file costs a sentence at the start and never a token.
 */
#include "push/app.h"

#include "base/conf_file.h"
#include "base/nearest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROBLEMS_SHOWN 1 /* the first is told; a file is mended line by line */

struct app_value {
	char *text;      /* NULL: not given */
	unsigned line;
	char *bytes;     /* of a file */
	size_t len;
};

struct push_app {
	char name[PUSH_APP_NAME_MAX + 1];
	char *path;
	const struct push_key *keys;
	size_t n_keys;
	struct app_value *values; /* as keys */
};

struct app_reader {
	struct push_app *app;
	const char *dir;
	struct conf_report report;
};

static size_t key_count(const struct push_key *keys)
{
	size_t n = 0;

	while (keys[n].name)
		n++;
	return n;
}

static size_t key_index(const struct push_app *app, const char *name)
{
	size_t i = 0;

	while (i < app->n_keys && strcmp(app->keys[i].name, name) != 0)
		i++;
	return i;
}

static bool is_file(const struct push_key *k)
{
	return k->type == PUSH_KEY_FILE || k->type == PUSH_KEY_SECRET;
}

/* ---- files */

/* Not what the name was a moment ago, but what is open, is looked at. NULL: fine. */
static const char *secret_problem(const struct stat *sb)
{
	if (sb->st_uid != geteuid())
		return "belongs to another user: chown it to the one that runs the bridge";
	if (sb->st_mode & 0177)
		return "can be read by others: chmod 600";
	return NULL;
}

static bool read_all(int fd, char *to, size_t len)
{
	size_t used = 0;

	while (used < len) {
		ssize_t n = read(fd, to + used, len - used);

		if (n == 0 || (n < 0 && errno != EINTR))
			return false;
		used += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static enum im_status read_open(int fd, bool secret, struct app_value *v, struct im_err *err)
{
	const char *problem;
	struct stat sb;

	if (fstat(fd, &sb) < 0)
		return im_fail(err, IM_BAD_INPUT, "cannot be looked at: %s", strerror(errno));
	if (!S_ISREG(sb.st_mode))
		return im_fail(err, IM_BAD_INPUT, "is not a regular file");
	problem = secret ? secret_problem(&sb) : NULL;
	if (problem)
		return im_fail(err, IM_BAD_INPUT, "%s", problem);
	if (sb.st_size <= 0 || sb.st_size > PUSH_FILE_MAX)
		return im_fail(err, IM_BAD_INPUT, sb.st_size ? "is larger than any key or certificate" : "is empty");
	v->len = (size_t)sb.st_size;
	v->bytes = calloc(1, v->len + 1);
	if (!v->bytes)
		return im_fail(err, IM_FAILED, "out of memory");
	return read_all(fd, v->bytes, v->len) ? IM_OK : im_fail(err, IM_BAD_INPUT, "cannot be read: %s", strerror(errno));
}

static enum im_status read_value_file(const struct push_key *k, struct app_value *v, struct im_err *err)
{
	int fd = open(v->text, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold us */
	enum im_status st;

	if (fd < 0)
		return im_fail(err, IM_BAD_INPUT, "cannot be opened: %s", strerror(errno));
	st = read_open(fd, k->type == PUSH_KEY_SECRET, v, err);
	(void)close(fd); /* read only: nothing to lose */
	return st;
}

static void wipe_value(const struct push_key *k, struct app_value *v)
{
	if (k->type != PUSH_KEY_SECRET || !v->bytes)
		return;
	sodium_memzero(v->bytes, v->len);
	free(v->bytes);
	v->bytes = NULL;
	v->len = 0;
}

/* ---- values */

static bool is_number(const struct push_key *k, const char *text)
{
	char *end;
	long long n;

	errno = 0;
	n = strtoll(text, &end, 10);
	return *text && !*end && errno == 0 && n >= k->min && n <= k->max;
}

static bool is_choice(const struct push_key *k, const char *text)
{
	for (size_t i = 0; k->choices[i]; i++)
		if (strcmp(k->choices[i], text) == 0)
			return true;
	return false;
}

static void tell_choices(const struct push_key *k, char *out, size_t room)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; k->choices[i] && used < room; i++)
		used += (size_t)snprintf(out + used, room - used, "%s%s", i ? ", " : "", k->choices[i]);
}

/* Writes the problem and says false, or true. */
static bool check_value(struct app_reader *r, const struct conf_line *line, const struct push_key *k, const char *text)
{
	char choices[128];

	switch (k->type) {
	case PUSH_KEY_NUMBER:
		if (is_number(k, text))
			return true;
		conf_problem(&r->report, true, line->file, line->number, "%s must be a number from %lld to %lld", k->name, (long long)k->min,
			     (long long)k->max);
		return false;
	case PUSH_KEY_BOOL:
		if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
			return true;
		conf_problem(&r->report, true, line->file, line->number, "%s must be true or false", k->name);
		return false;
	case PUSH_KEY_CHOICE:
		if (is_choice(k, text))
			return true;
		tell_choices(k, choices, sizeof(choices));
		conf_problem(&r->report, true, line->file, line->number, "%s must be one of: %s", k->name, choices);
		return false;
	default:
		if (*text)
			return true;
		conf_problem(&r->report, true, line->file, line->number, "%s has no value", k->name);
		return false;
	}
}

static char *whole_path(const char *dir, const char *text)
{
	char *path;

	if (text[0] == '/')
		return strdup(text);
	return asprintf(&path, "%s/%s", dir, text) < 0 ? NULL : path;
}

static void keep_value(struct app_reader *r, const struct conf_line *line, size_t i, const char *text)
{
	const struct push_key *k = &r->app->keys[i];
	struct app_value *v = &r->app->values[i];
	struct im_err err = {""};

	v->line = line->number;
	v->text = is_file(k) ? whole_path(r->dir, text) : strdup(text);
	if (!v->text)
		conf_problem(&r->report, true, line->file, line->number, "out of memory");
	else if (is_file(k) && read_value_file(k, v, &err) != IM_OK)
		conf_problem(&r->report, true, line->file, line->number, "%s: %s %s", k->name, v->text, err.text);
}

static void unknown_key(struct app_reader *r, const struct conf_line *line)
{
	struct im_nearest near;

	im_nearest_start(&near, line->key);
	for (size_t i = 0; i < r->app->n_keys; i++)
		im_nearest_offer(&near, r->app->keys[i].name);
	conf_problem(&r->report, true, line->file, line->number, near.best ? "unknown key '%.64s'; did you mean %s?" : "unknown key '%.64s'",
		     line->key, near.best);
}

static void on_line(void *arg, const struct conf_line *line)
{
	struct app_reader *r = arg;
	size_t i = key_index(r->app, line->key);
	char text[PUSH_VALUE_MAX];

	if (line->included)
		conf_problem(&r->report, true, line->file, line->number, "include_dir has no place in an app's file");
	else if (i == r->app->n_keys)
		unknown_key(r, line);
	else if (r->app->values[i].text)
		conf_problem(&r->report, true, line->file, line->number, "%s stands in line %u already", line->key, r->app->values[i].line);
	else if (!conf_trim(line->value, text, sizeof(text)))
		conf_problem(&r->report, true, line->file, line->number, "%s has a value longer than %d bytes", line->key, PUSH_VALUE_MAX);
	else if (check_value(r, line, &r->app->keys[i], text))
		keep_value(r, line, i, text);
}

/* ---- one file */

static void app_free(struct push_app *a)
{
	if (!a)
		return;
	for (size_t i = 0; a->values && i < a->n_keys; i++) {
		wipe_value(&a->keys[i], &a->values[i]);
		free(a->values[i].bytes);
		free(a->values[i].text);
	}
	free(a->values);
	free(a->path);
	free(a);
}

static struct push_app *app_new(const char *dir, const char *file, const char *name, const struct push_key *keys)
{
	struct push_app *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	memcpy(a->name, name, strnlen(name, PUSH_APP_NAME_MAX)); /* it is no longer than that */
	a->keys = keys;
	a->n_keys = key_count(keys);
	a->values = calloc(a->n_keys + 1, sizeof(*a->values));
	if (asprintf(&a->path, "%s/%s", dir, file) < 0)
		a->path = NULL;
	if (a->values && a->path)
		return a;
	app_free(a);
	return NULL;
}

static enum im_status app_read(struct push_app *a, const char *dir, struct im_err *err)
{
	struct im_conf_problem problems[PROBLEMS_SHOWN] = {{.text = ""}};
	struct app_reader r = {.app = a, .dir = dir, .report = {problems, PROBLEMS_SHOWN, 0, 0}};

	conf_file_read(a->path, &r.report, on_line, &r);
	for (size_t i = 0; i < a->n_keys && !r.report.fatal; i++)
		if (a->keys[i].required && !a->values[i].text)
			conf_problem(&r.report, true, a->path, 0, "%s is missing", a->keys[i].name);
	return r.report.fatal ? im_fail(err, IM_BAD_INPUT, "%s", problems[0].text) : IM_OK;
}

/* ---- all of them */

/* {provider}.{app}.conf -> app. false: some other file. */
static bool app_of_file(const char *file, const char *provider, char *name, size_t room)
{
	size_t before = strlen(provider), len = strlen(file);

	if (len <= before + 1 + 5 || strncmp(file, provider, before) != 0 || file[before] != '.' || strcmp(file + len - 5, ".conf") != 0)
		return false;
	len -= before + 1 + 5;
	if (len >= room)
		len = room - 1; /* too long: refused below for it */
	memcpy(name, file + before + 1, len);
	name[len] = '\0';
	return true;
}

static bool is_app_name(const char *name)
{
	size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return len > 0 && len <= PUSH_APP_NAME_MAX && !name[len];
}

static enum im_status add_app(const char *dir, const char *file, const char *name, const struct push_key *keys, struct push_app **apps, size_t *n,
			      struct im_err *err)
{
	if (!is_app_name(name))
		return im_fail(err, IM_BAD_INPUT, "%s/%.100s: an app's name has at most %d of A-Z a-z 0-9 . _ -", dir, file, PUSH_APP_NAME_MAX);
	if (*n == PUSH_APPS_MAX)
		return im_fail(err, IM_BAD_INPUT, "%s: more than %d apps of a provider", dir, PUSH_APPS_MAX);
	apps[*n] = app_new(dir, file, name, keys);
	if (!apps[*n])
		return im_fail(err, IM_FAILED, "out of memory");
	return app_read(apps[(*n)++], dir, err);
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct push_app *const *)a)->name, (*(struct push_app *const *)b)->name);
}

static enum im_status read_folder(DIR *d, const char *dir, const char *provider, const struct push_key *keys, struct push_app **apps, size_t *n,
				  struct im_err *err)
{
	enum im_status st = IM_OK;
	struct dirent *e;

	while (st == IM_OK && (e = readdir(d)) != NULL) {
		char name[PUSH_APP_NAME_MAX + 2];

		if (app_of_file(e->d_name, provider, name, sizeof(name)))
			st = add_app(dir, e->d_name, name, keys, apps, n, err);
	}
	if (st == IM_OK && *n == 0)
		st = im_fail(err, IM_BAD_INPUT, "no %s/%s.APP.conf: the provider needs at least one app (docs/push.md)", dir, provider);
	if (*n > 1)
		qsort(apps, *n, sizeof(struct push_app *), by_name);
	return st;
}

enum im_status push_apps_read(const char *dir, const char *provider, const struct push_key *keys, struct push_app ***out, size_t *n,
			      struct im_err *err)
{
	struct push_app **apps = calloc(PUSH_APPS_MAX, sizeof(struct push_app *));
	DIR *d = apps ? opendir(dir) : NULL;
	enum im_status st;
	size_t count = 0;

	if (!apps)
		return im_fail(err, IM_FAILED, "out of memory");
	if (!d)
		st = im_fail(err, IM_BAD_INPUT, "im_push_dir %s: %s", dir, strerror(errno));
	else
		st = read_folder(d, dir, provider, keys, apps, &count, err);
	if (d)
		(void)closedir(d); /* read only */
	if (st != IM_OK) {
		push_apps_free(apps, count);
		return st;
	}
	*out = apps;
	*n = count;
	return IM_OK;
}

void push_apps_free(struct push_app **apps, size_t n)
{
	for (size_t i = 0; apps && i < n; i++)
		app_free(apps[i]);
	free(apps);
}

void push_apps_wipe(struct push_app *const *apps, size_t n)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < apps[i]->n_keys; k++)
			wipe_value(&apps[i]->keys[k], &apps[i]->values[k]);
}

/* ---- for drivers */

const char *push_app_name(const struct push_app *app)
{
	return app->name;
}

bool push_app_has(const struct push_app *app, const char *key)
{
	size_t i = key_index(app, key);

	return i < app->n_keys && app->values[i].text;
}

const char *push_app_text(const struct push_app *app, const char *key)
{
	size_t i = key_index(app, key);

	if (i == app->n_keys)
		return "";
	if (app->values[i].text)
		return app->values[i].text;
	return app->keys[i].fallback ? app->keys[i].fallback : "";
}

int64_t push_app_number(const struct push_app *app, const char *key)
{
	return strtoll(push_app_text(app, key), NULL, 10);
}

bool push_app_bool(const struct push_app *app, const char *key)
{
	return strcmp(push_app_text(app, key), "true") == 0;
}

const char *push_app_file(const struct push_app *app, const char *key, size_t *len)
{
	size_t i = key_index(app, key);

	*len = i < app->n_keys ? app->values[i].len : 0;
	return i < app->n_keys ? app->values[i].bytes : NULL;
}

enum im_status push_app_fault(const struct push_app *app, const char *key, struct im_err *err, const char *fmt, ...)
{
	size_t i = key_index(app, key);
	char why[200];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(why, sizeof(why), fmt, ap); /* cut: still says where */
	va_end(ap);
	if (i < app->n_keys && app->values[i].line)
		return im_fail(err, IM_BAD_INPUT, "%s:%u: %s: %s", app->path, app->values[i].line, key, why);
	return im_fail(err, IM_BAD_INPUT, "%s: %s: %s", app->path, key, why);
}
