/*
 * im-supervisor: runs the broker and our services in the foreground and keeps them running. No shell, no
 * configuration of its own: the table below says what runs, broker.conf says the rest.
 */
#include "base/conf.h"
#include "base/log.h"
#include "base/number.h"
#include "watch.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROBLEMS_MAX 64 /* shown at once; nobody mends more before trying again */
#define FILES_WANTED 65536 /* one per connection; not the hard limit, because libwebsockets takes memory for each possible one */

#define ARGS_MAX 6

/* What runs, in the order of the start. {config} is broker.conf, {bus} im_bus, {dir}... a file in im_dir. */
static const struct part_row {
	const char *name;
	const char *program; /* beside this program; mosquitto: in PATH or /usr/sbin */
	const char *args[ARGS_MAX];
	bool demo;           /* only with --demo */
	const char *provider; /* only if im_push names it */
	bool http;           /* only with im_http_listen */
} part_table[] = {
	{"mosquitto", "mosquitto", {"-c", "{config}"}, false, NULL, false},
	{"im-seqgen", "im-seqgen", {"--config", "{config}"}, false, NULL, false},
	{"im-offline", "im-offline", {"--config", "{config}"}, false, NULL, false},
	{"im-api", "im-api", {"--config", "{config}"}, false, NULL, true},
	{"im-push-apns", "im-apns-bridge", {"--config", "{config}"}, false, "apns", false},
	{"im-push-fcm", "im-fcm-bridge", {"--config", "{config}"}, false, "fcm", false},
	{"im-push-webpush", "im-webpush-bridge", {"--config", "{config}"}, false, "webpush", false},
	{"im-push-huawei", "im-vendor-bridge", {"huawei", "--config", "{config}"}, false, "huawei", false},
	{"im-push-harmony", "im-vendor-bridge", {"harmony", "--config", "{config}"}, false, "harmony", false},
	{"im-push-xiaomi", "im-vendor-bridge", {"xiaomi", "--config", "{config}"}, false, "xiaomi", false},
	{"im-push-oppo", "im-vendor-bridge", {"oppo", "--config", "{config}"}, false, "oppo", false},
	{"im-push-vivo", "im-vendor-bridge", {"vivo", "--config", "{config}"}, false, "vivo", false},
	{"im-push-honor", "im-vendor-bridge", {"honor", "--config", "{config}"}, false, "honor", false},
	{"im-echo", "im-echo", {"--user", "echo", "--token-file", "{dir}/echo.token", "--socket", "{bus}"}, true, NULL, false},
};
#define PART_COUNT (sizeof(part_table) / sizeof(part_table[0]))

struct options {
	const char *config, *ready_file, *log;
	unsigned backoff_most_ms;
	bool demo, check, no_bridges;
};

static void help(void)
{
	puts("usage: im-supervisor --config FILE [options]\n"
	     "  --config FILE       broker.conf\n"
	     "  --check             check the file, print what is wrong, start nothing\n"
	     "  --ready-file FILE   written (with our pid) once all parts are up, removed at the end\n"
	     "  --log files|stderr  where parts write: {im_dir}/log/NAME.log, appended (default), or our standard error\n"
	     "  --backoff-max MS    longest wait before a part is started again (default 5000)\n"
	     "  --demo              run the echo bot too\n"
	     "  --no-bridges        the push bridges of im_push are run by somebody else\n"
	     "  --print-reference   docs/configuration.md\n"
	     "  --print-sample      the commented settings of broker.conf\n"
	     "SIGTERM and SIGINT stop all in reverse order, a second one kills; SIGHUP is passed on.");
}

static void put_stdout(void *arg, const char *text)
{
	(void)arg;
	(void)fputs(text, stdout); /* main looks at ferror at the end */
}

/* Caller frees; NULL: out of memory. */
static char *expand(const char *text, const char *config, const struct im_settings *s)
{
	char *out;

	if (strcmp(text, "{config}") == 0)
		return strdup(config);
	if (strcmp(text, "{bus}") == 0)
		return strdup(s->bus);
	if (strncmp(text, "{dir}", 5) != 0)
		return strdup(text);
	return asprintf(&out, "%s%s", s->dir, text + 5) < 0 ? NULL : out;
}

static char *in_folder(const char *folder, size_t len, const char *program)
{
	char *path;

	if (asprintf(&path, "%.*s/%s", (int)len, folder, program) < 0)
		return NULL;
	if (access(path, X_OK) == 0)
		return path;
	free(path);
	return NULL;
}

/* A program of ours lies beside this one; others are looked for in PATH and /usr/sbin (where Debian has mosquitto). */
static char *find_program(const char *program)
{
	const char *path = getenv("PATH");
	char self[PATH_MAX];
	ssize_t n;
	char *found = NULL;

	if (strncmp(program, "im-", 3) == 0) {
		n = readlink("/proc/self/exe", self, sizeof(self) - 1);
		if (n <= 0)
			return NULL;
		self[n] = '\0';
		return in_folder(self, (size_t)(strrchr(self, '/') - self), program);
	}
	while (path && *path && !found) {
		size_t len = strcspn(path, ":");

		if (len)
			found = in_folder(path, len, program);
		path += len + (path[len] == ':');
	}
	return found ? found : in_folder("/usr/sbin", strlen("/usr/sbin"), program);
}

static enum im_status part_init(struct part *p, const struct part_row *row, const struct options *o, const struct im_settings *s,
				struct im_err *err)
{
	int n = 0;

	p->name = row->name;
	p->spare = row->provider != NULL || row->http;
	p->argv[n++] = find_program(row->program);
	if (!p->argv[0])
		return im_fail(err, IM_NOT_FOUND, "%s is not there: %s", row->program,
			       strncmp(row->program, "im-", 3) == 0 ? "it should lie beside im-supervisor" : "install it (apt install mosquitto)");
	for (size_t i = 0; i < ARGS_MAX && row->args[i]; i++)
		p->argv[n++] = expand(row->args[i], o->config, s);
	for (int i = 0; i < n; i++)
		if (!p->argv[i])
			return im_fail(err, IM_FAILED, "out of memory");
	if (strcmp(o->log, "files") == 0 && asprintf(&p->log_path, "%s/log/%s.log", s->dir, row->name) < 0) {
		p->log_path = NULL;
		return im_fail(err, IM_FAILED, "out of memory");
	}
	return IM_OK;
}
_Static_assert(PART_ARGS_MAX >= 1 + ARGS_MAX + 1, "the program, its arguments, NULL");

/* Prints every problem to standard error. */
static enum im_status read_settings(const char *path, struct im_settings *out)
{
	static struct im_conf_problem problems[PROBLEMS_MAX];
	size_t n = 0;
	enum im_status st = im_settings_read(path, out, problems, PROBLEMS_MAX, &n);

	for (size_t i = 0; i < n && i < PROBLEMS_MAX; i++)
		fprintf(stderr, "%s%s\n", problems[i].fatal ? "" : "warning: ", problems[i].text);
	if (n > PROBLEMS_MAX)
		fprintf(stderr, "... and %zu more\n", n - PROBLEMS_MAX);
	return st;
}

/* mosquitto never raises its limit of open files, and the usual 1024 are 1000 clients. */
static void raise_file_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur >= FILES_WANTED)
		return;
	l.rlim_cur = l.rlim_max < FILES_WANTED ? l.rlim_max : FILES_WANTED;
	if (setrlimit(RLIMIT_NOFILE, &l) < 0)
		im_log(IM_LOG_WARNING, "evt=rlimit why=\"%s\": the number of connections stays small", strerror(errno));
}

/* For all parts, mosquitto among them: what they hold in memory, messages and passwords just checked, is in no file of a crash. */
static void forbid_core_files(void)
{
	const struct rlimit none = {0, 0};

	(void)setrlimit(RLIMIT_CORE, &none); /* lowering is always allowed */
}

/* Whether the list names it. */
static bool names(const char *list, const char *provider)
{
	while (*(list += strspn(list, ", "))) {
		size_t len = strcspn(list, ", ");

		if (strlen(provider) == len && strncmp(list, provider, len) == 0)
			return true;
		list += len;
	}
	return false;
}

static bool wanted(const struct part_row *row, const struct options *o, const struct im_settings *s)
{
	if (row->provider)
		return !o->no_bridges && names(s->push, row->provider);
	if (row->http)
		return *s->http_listen != '\0';
	return !row->demo || o->demo;
}

static int run(const struct options *o, const struct im_settings *s)
{
	struct part parts[PART_COUNT];
	struct watch w = {.parts = parts, .ready_file = o->ready_file};
	struct rundir dir;
	struct im_err err = {""};
	enum im_status st = IM_OK;
	int rc = 1;

	memset(parts, 0, sizeof(parts));
	if (rundir_open(s->dir, &dir, &err) != IM_OK) {
		im_log(IM_LOG_ERROR, "evt=start dir=%s why=\"%s\"", s->dir, err.text);
		return 1;
	}
	for (size_t i = 0; i < PART_COUNT && st == IM_OK; i++)
		if (wanted(&part_table[i], o, s))
			st = part_init(&parts[w.n++], &part_table[i], o, s, &err);
	if (st != IM_OK) {
		im_log(IM_LOG_ERROR, "evt=start why=\"%s\"", err.text);
	} else {
		w.env.notify_path = dir.notify_path;
		w.env.backoff_most_ms = o->backoff_most_ms;
		w.run = &dir;
		rc = watch_run(&w);
	}
	for (size_t i = 0; i < w.n; i++)
		part_finish(&parts[i]);
	rundir_close(&dir);
	return rc;
}

enum { OPT_CONFIG = 256, OPT_CHECK, OPT_READY, OPT_LOG, OPT_BACKOFF, OPT_DEMO, OPT_NO_BRIDGES, OPT_REFERENCE, OPT_SAMPLE, OPT_VERSION, OPT_HELP };

static const struct option option_table[] = {
	{"config", required_argument, NULL, OPT_CONFIG}, {"check", no_argument, NULL, OPT_CHECK},
	{"ready-file", required_argument, NULL, OPT_READY}, {"log", required_argument, NULL, OPT_LOG},
	{"backoff-max", required_argument, NULL, OPT_BACKOFF}, {"demo", no_argument, NULL, OPT_DEMO},
	{"no-bridges", no_argument, NULL, OPT_NO_BRIDGES},
	{"print-reference", no_argument, NULL, OPT_REFERENCE}, {"print-sample", no_argument, NULL, OPT_SAMPLE},
	{"version", no_argument, NULL, OPT_VERSION}, {"help", no_argument, NULL, OPT_HELP}, {NULL, 0, NULL, 0},
};

/* The exit status of an option that prints something. */
static int printed(void)
{
	return fflush(stdout) != 0 || ferror(stdout) != 0 ? 1 : 0;
}

/* 0: not a number, which is too little for every option that has one. */
static unsigned milliseconds(const char *text)
{
	uint64_t n;
	const char *end = im_digits(text, UINT_MAX, &n);

	return end && *end == '\0' ? (unsigned)n : 0;
}

/* -1: go on; otherwise the exit status. */
static int parse_options(struct options *o, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
		switch (c) {
		case OPT_CONFIG: o->config = optarg; break;
		case OPT_CHECK: o->check = true; break;
		case OPT_READY: o->ready_file = optarg; break;
		case OPT_LOG: o->log = optarg; break;
		case OPT_BACKOFF: o->backoff_most_ms = milliseconds(optarg); break;
		case OPT_DEMO: o->demo = true; break;
		case OPT_NO_BRIDGES: o->no_bridges = true; break;
		case OPT_REFERENCE: im_settings_print_markdown(put_stdout, NULL); return printed();
		case OPT_SAMPLE: im_settings_print_sample(put_stdout, NULL); return printed();
		case OPT_VERSION: puts("im-supervisor " IM_VERSION); return 0;
		case OPT_HELP: help(); return 0;
		default: return 2;
		}
	}
	if (!o->config || optind < argc || o->backoff_most_ms < PART_BACKOFF_FIRST_MS ||
	    (strcmp(o->log, "files") != 0 && strcmp(o->log, "stderr") != 0)) {
		help();
		return 2;
	}
	return -1;
}

int main(int argc, char **argv)
{
	struct options o = {.log = "files", .backoff_most_ms = PART_BACKOFF_MOST_MS};
	struct im_settings settings;
	int rc = parse_options(&o, argc, argv);

	if (rc >= 0)
		return rc;
	if (read_settings(o.config, &settings) != IM_OK)
		return 2;
	if (o.check) {
		im_settings_finish(&settings);
		return 0;
	}
	im_log_open("im-supervisor", (enum im_log_level)settings.log_level, NULL);
	umask(077);
	raise_file_limit();
	forbid_core_files();
	rc = run(&o, &settings);
	im_settings_finish(&settings);
	return rc;
}
