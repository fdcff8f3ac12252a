/*
 * The life of a service, the same for all of them:
 *
 *	options -> settings -> log -> loop, signals -> start -> bus -> ready -> run -> drain -> stop
 *
 * The difficult idea is that going down is ordinary. Everything that must last is durable before it is
 * answered, so a drain only spares the others some repeats: it has a deadline, and a fault simply exits.
 */
#include "service/service.h"

#include "base/log.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DRAIN_MS 10000
#define PROBLEMS_SHOWN 20 /* of a broken configuration: more would scroll the first away */
#define EXIT_FAULT 1
#define EXIT_USAGE 64     /* EX_USAGE */
#define EXIT_CONFIG 78    /* EX_CONFIG: starting again does not help */

struct running {
	struct service s; /* first: a struct service is one of these */
	const struct service_spec *spec;
	char *config;
	int signal_fd;
	struct im_watch *signals;
	struct im_timer *drain;
	bool held, ready, draining;
};

struct options {
	const char *config;
	bool check;
	int leave; /* >= 0: exit with this now */
};

static struct running *running_of(struct service *s)
{
	return (struct running *)s;
}

/* ---- telling the supervisor: sd_notify's protocol */

static void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (len < 2 || len >= sizeof(a.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(a.sun_path, path, len);
	if (path[0] == '@')
		a.sun_path[0] = '\0'; /* the abstract namespace */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&a,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		im_log(IM_LOG_WARNING, "evt=notify why=\"%s\": the supervisor was not told", strerror(errno));
	(void)close(fd); /* nothing buffered */
}

/* ---- options and settings */

static void print_help(const struct service_spec *spec)
{
	printf("usage: %s --config FILE [--check]\n"
	       "  --config FILE  the broker's configuration (broker.conf); our settings are its plugin_opt_im_* lines\n"
	       "  --check        read it, print what is wrong, and end: 0 = fine, %d = not\n"
	       "  --version      print the version\n"
	       "SIGTERM and SIGINT end it in order, a second one at once; SIGHUP reads the settings again.\n",
	       spec->name, EXIT_CONFIG);
}

static struct options parse_options(const struct service_spec *spec, int argc, char **argv)
{
	static const struct option table[] = {
		{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
		{"version", no_argument, NULL, 'V'},      {"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct options o = {.leave = -1};
	int c;

	while ((c = getopt_long(argc, argv, "c:h", table, NULL)) != -1) {
		switch (c) {
		case 'c':
			o.config = optarg;
			break;
		case 'k':
			o.check = true;
			break;
		case 'V':
			printf("%s %s\n", spec->name, IM_VERSION);
			o.leave = 0;
			return o;
		case 'h':
			print_help(spec);
			o.leave = 0;
			return o;
		default:
			o.leave = EXIT_USAGE;
			return o;
		}
	}
	if (!o.config || optind < argc) {
		fprintf(stderr, "%s: --config FILE is needed, and nothing else (see --help)\n", spec->name);
		o.leave = EXIT_USAGE;
	}
	return o;
}

/* false: a fatal problem; *out is not filled then. */
static bool read_settings(const char *path, struct im_settings *out, void (*put)(const struct im_conf_problem *p))
{
	struct im_conf_problem problems[PROBLEMS_SHOWN];
	size_t n = 0;
	enum im_status st;

	st = im_settings_read(path, out, problems, PROBLEMS_SHOWN, &n);
	for (size_t i = 0; i < n && i < PROBLEMS_SHOWN; i++)
		put(&problems[i]);
	return st == IM_OK;
}

static void print_problem(const struct im_conf_problem *p)
{
	fprintf(stderr, "%s%s\n", p->text, p->fatal ? "" : " (warning)");
}

static void log_problem(const struct im_conf_problem *p)
{
	im_log(p->fatal ? IM_LOG_ERROR : IM_LOG_WARNING, "evt=settings %s", p->text);
}

/* ---- the process */

static void harden(void)
{
	struct rlimit files;

	(void)umask(077);
	(void)signal(SIGPIPE, SIG_IGN); /* writing tells us */
	(void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk: writing tells us */
#if !defined(__SANITIZE_ADDRESS__)
	(void)prctl(PR_SET_DUMPABLE, 0); /* no core files with messages and secrets in them */
#endif
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files); /* raising to the hard limit is always allowed */
	}
}

static void drain_over(void *arg)
{
	struct running *r = arg;

	im_log(IM_LOG_WARNING, "evt=drain ms=%d: not finished, stopping all the same", DRAIN_MS);
	im_loop_stop(r->s.loop);
}

static void begin_drain(struct running *r)
{
	if (r->draining) {
		im_log(IM_LOG_NOTICE, "evt=stop: asked twice, stopping at once");
		im_loop_stop(r->s.loop);
		return;
	}
	r->draining = true;
	notify("STOPPING=1");
	im_log(IM_LOG_NOTICE, "evt=drain");
	im_timer_start(r->drain, DRAIN_MS, 0);
	if (r->spec->drain)
		r->spec->drain(&r->s);
	else
		service_drained(&r->s);
}

static void reload(struct running *r)
{
	struct im_settings fresh = {0};
	char restart[256] = "";
	size_t changed;

	if (!read_settings(r->config, &fresh, log_problem)) {
		im_log(IM_LOG_ERROR, "evt=reload: the settings have faults, the old ones stay in force");
		return;
	}
	changed = im_settings_reload(&r->s.settings, &fresh, restart, sizeof(restart));
	im_settings_finish(&fresh);
	im_log_level((enum im_log_level)r->s.settings.log_level);
	im_log(IM_LOG_NOTICE, "evt=reload changed=%zu", changed);
	if (restart[0])
		im_log(IM_LOG_WARNING, "evt=reload need_restart=%s: unchanged until then", restart);
	if (r->spec->reload)
		r->spec->reload(&r->s);
}

static void on_signal(void *arg, bool readable, bool writable)
{
	struct running *r = arg;
	struct signalfd_siginfo si;

	(void)readable;
	(void)writable;
	while (read(r->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGHUP)
			reload(r);
		else
			begin_drain(r);
	}
}

/* Before any thread exists, so that all of them inherit the mask. */
static enum im_status catch_signals(struct running *r, struct im_err *err)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return im_fail(err, IM_FAILED, "signals: %s", strerror(errno));
	r->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (r->signal_fd < 0)
		return im_fail(err, IM_FAILED, "signals: %s", strerror(errno));
	r->signals = im_watch_create(r->s.loop, r->signal_fd, on_signal, r);
	if (!r->signals)
		return im_fail(err, IM_FAILED, "out of memory");
	im_watch_set(r->signals, true, false);
	return IM_OK;
}

/* ---- the bus */

static void on_bus_up(void *arg)
{
	struct running *r = arg;

	if (r->spec->bus_up)
		r->spec->bus_up(&r->s);
	if (!r->held)
		service_ready(&r->s);
}

static void on_bus_down(void *arg, const char *why)
{
	struct running *r = arg;

	if (r->spec->bus_down)
		r->spec->bus_down(&r->s, why);
}

static void on_bus_message(void *arg, const char *topic, const void *payload, size_t len)
{
	struct running *r = arg;

	if (r->spec->message)
		r->spec->message(&r->s, topic, payload, len);
}

static enum im_status open_bus(struct running *r, struct im_err *err)
{
	static const struct im_mqtt_events events = {.up = on_bus_up, .down = on_bus_down, .message = on_bus_message};
	const struct im_settings *set = &r->s.settings;
	enum im_status st;
	char *secret;

	if (asprintf(&secret, "%s/run/bus.secret", set->dir) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	st = im_mqtt_create(r->s.loop, set->bus, secret, r->spec->client_id, r->spec->filters, r->spec->qos, &events, r,
			    &r->s.bus, err);
	free(secret);
	return st;
}

/* ---- all of it */

static int exit_of(enum im_status st)
{
	if (st == IM_OK)
		return 0;
	return st == IM_BAD_INPUT ? EXIT_CONFIG : EXIT_FAULT;
}

static enum im_status begin(struct running *r, bool *started, struct im_err *err)
{
	enum im_status st;

	r->s.loop = im_loop_create();
	if (!r->s.loop)
		return im_fail(err, IM_FAILED, "out of memory");
	st = catch_signals(r, err);
	if (st != IM_OK)
		return st;
	r->drain = im_timer_create(r->s.loop, drain_over, r);
	if (!r->drain)
		return im_fail(err, IM_FAILED, "out of memory");
	st = r->spec->start(&r->s, err);
	if (st != IM_OK)
		return st;
	*started = true;
	return open_bus(r, err);
}

static void end(struct running *r, bool started)
{
	if (started && r->spec->stop)
		r->spec->stop(&r->s); /* the bus is still there: last words are sent */
	im_mqtt_destroy(r->s.bus);
	im_timer_destroy(r->drain);
	im_watch_destroy(r->signals);
	im_loop_destroy(r->s.loop);
	if (r->signal_fd >= 0)
		(void)close(r->signal_fd); /* nothing buffered */
	im_settings_finish(&r->s.settings);
	free(r->config);
}

static int run(struct running *r)
{
	struct im_err err = {""};
	bool started = false;
	enum im_status st;

	im_log(IM_LOG_NOTICE, "evt=start version=%s pid=%d", IM_VERSION, (int)getpid());
	st = begin(r, &started, &err);
	if (st == IM_OK) {
		im_loop_run(r->s.loop);
		im_log(IM_LOG_NOTICE, "evt=end");
	} else {
		im_log(IM_LOG_ERROR, "evt=start_failed status=%s why=\"%s\"", im_status_name(st), err.text);
	}
	end(r, started);
	return exit_of(st);
}

static int check(struct running *r)
{
	enum im_status st = IM_OK;
	struct im_err err = {""};

	r->s.loop = r->spec->check ? im_loop_create() : NULL;
	if (r->spec->check)
		st = r->s.loop ? r->spec->check(&r->s, &err) : im_fail(&err, IM_FAILED, "out of memory");
	if (st != IM_OK)
		fprintf(stderr, "%s\n", err.text);
	if (r->s.loop)
		im_loop_destroy(r->s.loop);
	im_settings_finish(&r->s.settings);
	return exit_of(st);
}

int service_main(const struct service_spec *spec, int argc, char **argv)
{
	struct options o = parse_options(spec, argc, argv);
	struct running r = {.s = {.state = spec->state}, .spec = spec, .signal_fd = -1};

	if (o.leave >= 0)
		return o.leave;
	if (!read_settings(o.config, &r.s.settings, print_problem))
		return EXIT_CONFIG;
	if (o.check)
		return check(&r);
	harden();
	im_log_open(spec->name, (enum im_log_level)r.s.settings.log_level, NULL);
	r.config = strdup(o.config);
	if (!r.config) {
		im_settings_finish(&r.s.settings);
		im_log(IM_LOG_ERROR, "evt=start_failed why=\"out of memory\"");
		return EXIT_FAULT;
	}
	return run(&r);
}

void service_drained(struct service *s)
{
	im_loop_stop(s->loop);
}

void service_hold_ready(struct service *s)
{
	running_of(s)->held = true;
}

void service_ready(struct service *s)
{
	struct running *r = running_of(s);

	if (r->ready)
		return;
	r->ready = true;
	im_log(IM_LOG_NOTICE, "evt=ready");
	notify("READY=1");
}

void service_refuse(struct service *s, const char *why)
{
	im_log(IM_LOG_ERROR, "evt=refused service=%s why=\"%s\": ending, and starting again does not help", running_of(s)->spec->name, why);
	_exit(EXIT_CONFIG);
}

/* Nothing is tidied: a state that is wrong must not get the chance to be written. */
void service_fail(struct service *s, const char *why)
{
	im_log(IM_LOG_ERROR, "evt=fault service=%s why=\"%s\": ending, the supervisor starts it again", running_of(s)->spec->name, why);
	_exit(EXIT_FAULT);
}
