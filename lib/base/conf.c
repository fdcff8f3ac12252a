/*
 * Reads the broker's configuration as mosquitto 2.0 does. The difficult idea is to be neither stricter nor
 * laxer than it: '#' only counts in the first column, only blanks (not tabs) end a key, include_dir is
 * followed in the main file only, and its files come in mosquitto's own order. Otherwise the services would
 * believe in another configuration than the broker they belong to.
 */
#include "base/conf.h"
#include "base/conf_file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONF_FILE_MAX (4u << 20) /* a configuration larger than this is some other file given by mistake */

struct reader {
	struct conf_report *report;
	conf_line_fn *fn;
	void *arg;
};

void conf_problem(struct conf_report *report, bool fatal, const char *file, unsigned number, const char *fmt, ...)
{
	va_list ap;

	report->fatal += fatal;
	if (report->n < report->cap) {
		struct im_conf_problem *p = &report->problems[report->n];
		int used;

		p->fatal = fatal;
		if (number)
			used = snprintf(p->text, sizeof(p->text), "%s:%u: ", file, number);
		else
			used = snprintf(p->text, sizeof(p->text), "%s: ", file);
		if (used > 0 && (size_t)used < sizeof(p->text)) {
			va_start(ap, fmt);
			(void)vsnprintf(p->text + used, sizeof(p->text) - (size_t)used, fmt, ap); /* cut: still says where */
			va_end(ap);
		}
	}
	report->n++;
}

bool conf_trim(const char *text, char *out, size_t out_len)
{
	size_t len;

	while (*text == ' ' || *text == '\t')
		text++;
	len = strlen(text);
	while (len && (text[len - 1] == ' ' || text[len - 1] == '\t'))
		len--;
	if (len >= out_len)
		return false;
	memcpy(out, text, len);
	out[len] = '\0';
	return true;
}

/* mosquitto's order: without regard to case, and only then with it. */
static int by_name(const void *a, const void *b)
{
	const char *x = *(const char *const *)a, *y = *(const char *const *)b;

	for (; *x && *y; x++, y++) {
		int d = toupper((unsigned char)*x) - toupper((unsigned char)*y);

		if (d == 0)
			d = (unsigned char)*x - (unsigned char)*y;
		if (d)
			return d;
	}
	return (unsigned char)*x - (unsigned char)*y;
}

static void names_free(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* Adds "{dir}/{name}" to the list. false: out of memory. */
static bool names_add(char ***names, size_t *n, const char *dir, const char *name)
{
	char **more = realloc(*names, (*n + 1) * sizeof(*more));
	char *path;

	if (!more)
		return false;
	*names = more;
	if (asprintf(&path, "%s/%s", dir, name) < 0)
		return false;
	more[(*n)++] = path;
	return true;
}

/* The *.conf files of a folder in mosquitto's order. */
static enum im_status dir_list(const char *dir, char ***out, size_t *n, struct im_err *err)
{
	enum im_status st = IM_OK;
	char **names = NULL;
	size_t count = 0;
	struct dirent *e;
	DIR *d = opendir(dir);

	if (!d)
		return im_fail(err, IM_BAD_INPUT, "%s", strerror(errno));
	while (st == IM_OK && (e = readdir(d)) != NULL) {
		size_t len = strlen(e->d_name);

		if (len > 5 && strcmp(e->d_name + len - 5, ".conf") == 0 && !names_add(&names, &count, dir, e->d_name))
			st = im_fail(err, IM_FAILED, "out of memory");
	}
	closedir(d);
	if (st != IM_OK) {
		names_free(names, count);
		return st;
	}
	if (count)
		qsort(names, count, sizeof(*names), by_name);
	*out = names;
	*n = count;
	return IM_OK;
}

static void read_file(struct reader *r, const char *path, bool included);

static void include(struct reader *r, const struct conf_line *line)
{
	struct im_err err = {""};
	char **names = NULL;
	size_t n = 0;

	if (line->included) {
		conf_problem(r->report, false, line->file, line->number,
			     "include_dir in an included file has no effect: mosquitto follows it in the main file only");
		return;
	}
	if (!line->value[0] || dir_list(line->value, &names, &n, &err) != IM_OK) {
		conf_problem(r->report, true, line->file, line->number, "include_dir '%s' cannot be opened: %s", line->value,
			     line->value[0] ? err.text : "no folder is named");
		return;
	}
	for (size_t i = 0; i < n; i++)
		read_file(r, names[i], true);
	names_free(names, n);
}

/* Splits one line, which it may change, and hands it on. `first` is cleared by the first setting. */
static void read_line(struct reader *r, const char *file, unsigned number, bool included, bool *first, char *text)
{
	struct conf_line line = {.file = file, .number = number, .included = included, .first = *first};
	size_t len = strlen(text);
	char *end;

	if (text[0] == '#')
		return;
	while (len && (text[len - 1] == '\r' || text[len - 1] == '\n'))
		text[--len] = '\0';
	while (*text == ' ')
		text++;
	if (!*text)
		return;
	end = strchr(text, ' ');
	line.key = text;
	line.value = end ? end + 1 : "";
	if (end)
		*end = '\0';
	if (strcmp(line.key, "include_dir") == 0) {
		include(r, &line);
		return;
	}
	*first = false;
	r->fn(r->arg, &line);
}

/* `text` ends with a NUL at text[len] and is changed. */
static void read_text(struct reader *r, const char *file, bool included, char *text, size_t len)
{
	char *end = text + len;
	unsigned number = 0;
	bool first = true;

	if (memchr(text, '\0', len)) {
		conf_problem(r->report, true, file, 0, "holds NUL bytes: not a configuration file");
		return;
	}
	while (text < end) {
		char *eol = memchr(text, '\n', (size_t)(end - text));
		char *next = eol ? eol + 1 : end;

		if (eol)
			*eol = '\0';
		read_line(r, file, ++number, included, &first, text);
		text = next;
	}
}

/* The whole file with a NUL behind it. */
static enum im_status slurp(const char *path, char **out, size_t *len, struct im_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum im_status st = IM_OK;
	char *text = NULL;
	size_t used = 0;
	struct stat sb;

	if (fd < 0)
		return im_fail(err, IM_BAD_INPUT, "cannot be opened: %s", strerror(errno));
	if (fstat(fd, &sb) < 0)
		st = im_fail(err, IM_FAILED, "cannot be looked at: %s", strerror(errno));
	else if (S_ISDIR(sb.st_mode))
		st = im_fail(err, IM_BAD_INPUT, "is a directory");
	else if (!(text = malloc(CONF_FILE_MAX + 1)))
		st = im_fail(err, IM_FAILED, "out of memory");
	while (st == IM_OK && used <= CONF_FILE_MAX) {
		ssize_t n = read(fd, text + used, CONF_FILE_MAX + 1 - used);

		if (n == 0)
			break;
		if (n > 0)
			used += (size_t)n;
		else if (errno != EINTR)
			st = im_fail(err, IM_FAILED, "cannot be read: %s", strerror(errno));
	}
	if (st == IM_OK && used > CONF_FILE_MAX)
		st = im_fail(err, IM_BAD_INPUT, "is larger than %u bytes: not a configuration file", CONF_FILE_MAX);
	close(fd);
	if (st != IM_OK) {
		free(text);
		return st;
	}
	text[used] = '\0';
	*out = text;
	*len = used;
	return IM_OK;
}

static void read_file(struct reader *r, const char *path, bool included)
{
	struct im_err err = {""};
	char *text = NULL;
	size_t len = 0;

	if (slurp(path, &text, &len, &err) != IM_OK) {
		conf_problem(r->report, true, path, 0, "%s", err.text);
		return;
	}
	read_text(r, path, included, text, len);
	free(text);
}

void conf_file_read(const char *path, struct conf_report *report, conf_line_fn *fn, void *arg)
{
	struct reader r = {report, fn, arg};

	read_file(&r, path, false);
}

void conf_text_read(const char *name, const char *text, size_t len, struct conf_report *report, conf_line_fn *fn, void *arg)
{
	struct reader r = {report, fn, arg};
	char *copy = malloc(len + 1);

	if (!copy) {
		conf_problem(report, true, name, 0, "out of memory");
		return;
	}
	if (len)
		memcpy(copy, text, len);
	copy[len] = '\0';
	read_text(&r, name, false, copy, len);
	free(copy);
}

char *im_conf_path_of_broker(void)
{
	char args[65536]; /* /proc gives at most a page per argument in practice; more is no broker of ours */
	const char *found = NULL;
	size_t used = 0;
	ssize_t n;
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	while (used < sizeof(args) - 1 && (n = read(fd, args + used, sizeof(args) - 1 - used)) > 0)
		used += (size_t)n;
	close(fd);
	args[used] = '\0';
	for (char *at = args; at < args + used; at += strlen(at) + 1) {
		char *next = at + strlen(at) + 1;

		/* Several are possible: mosquitto reads all of them and keeps the last one's name for SIGHUP. */
		if ((strcmp(at, "-c") == 0 || strcmp(at, "--config-file") == 0) && next < args + used) {
			found = next;
			at = next;
		}
	}
	return found ? strdup(found) : NULL;
}
