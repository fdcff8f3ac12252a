/* One thread, one poll: signals come through a signalfd, readiness through the run folder's socket. */
#include "watch.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_SHOWN 1500 /* bytes; enough for the last try of a broker */
#define SLOW_START_MS 15000 /* a warning each time a part has been starting for so long: replaying a log may take it */

struct loop {
	struct watch *w;
	int signal_fd;
	int64_t warned_ms;
	bool announced;   /* all were up once */
	bool stopping, hurry;
	bool failed;
};

static void write_pids(struct loop *l)
{
	struct im_err err;

	if (rundir_write_pids(l->w->run, l->w->parts, l->w->n, &err) != IM_OK)
		im_log(IM_LOG_WARNING, "evt=pids why=\"%s\": the list of processes is out of date", err.text);
}

static void start_part(struct loop *l, struct part *p)
{
	struct im_err err = {""};

	if (part_start(p, &l->w->env, &err) != IM_OK) {
		im_log(IM_LOG_ERROR, "evt=start part=%s why=\"%s\"", p->name, err.text);
		part_retry_later(p, &l->w->env);
		return;
	}
	write_pids(l);
	im_log(IM_LOG_INFO, "evt=start part=%s pid=%ld", p->name, (long)p->pid);
}

/* Starts what is due. Until it was up once, a part holds back those after it. */
static void start_due(struct loop *l, int64_t now)
{
	for (size_t i = 0; i < l->w->n; i++) {
		struct part *p = &l->w->parts[i];

		if (p->state == PART_DOWN && now >= p->next_start_ms)
			start_part(l, p);
		if (!p->was_up && !p->spare)
			return;
	}
}

/* Tells systemd, if it started us. */
static void notify_parent(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (len < 2 || len >= sizeof(a.sun_path))
		return;
	memcpy(a.sun_path, path, len);
	if (path[0] == '@')
		a.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		im_log(IM_LOG_WARNING, "evt=notify why=\"%s\": whoever started us was not told", strerror(errno));
	close(fd);
}

static void announce(struct loop *l)
{
	struct im_err err;
	char pid[32];

	for (size_t i = 0; i < l->w->n; i++)
		if (l->w->parts[i].state != PART_UP && !l->w->parts[i].spare)
			return;
	l->announced = true;
	im_log(IM_LOG_NOTICE, "evt=up parts=%zu", l->w->n);
	(void)snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	if (l->w->ready_file && rundir_replace_file(l->w->ready_file, pid, &err) != IM_OK)
		im_log(IM_LOG_ERROR, "evt=ready why=\"%s\"", err.text);
	notify_parent();
}

static void on_ready(struct loop *l)
{
	pid_t pid;

	while ((pid = rundir_next_ready(l->w->run)) != 0)
		for (size_t i = 0; i < l->w->n; i++) {
			struct part *p = &l->w->parts[i];

			if (p->pid != pid || p->state != PART_STARTING)
				continue;
			p->state = PART_UP;
			p->was_up = true;
			im_log(IM_LOG_INFO, "evt=ready part=%s ms=%lld", p->name, (long long)(im_clock_mono_ms() - p->started_ms));
		}
	if (!l->announced && !l->stopping)
		announce(l);
}

/* The end of a part's log, for whoever looks at a start that failed. */
static void show_log(const struct part *p)
{
	char text[LOG_SHOWN + 1], *line = text;
	FILE *f = p->log_path ? fopen(p->log_path, "re") : NULL;
	size_t n;

	if (!f)
		return; /* it wrote to our standard error, or nothing */
	if (fseek(f, -LOG_SHOWN, SEEK_END) == 0)
		n = fread(text, 1, LOG_SHOWN, f);
	else
		n = fseek(f, 0, SEEK_SET) == 0 ? fread(text, 1, LOG_SHOWN, f) : 0;
	(void)fclose(f); /* only read */
	text[n] = '\0';
	if (n == LOG_SHOWN && (line = strchr(text, '\n')) != NULL)
		line++; /* not the half of one */
	fprintf(stderr, "--- the end of %s\n%s---\n", p->log_path, line ? line : text);
}

static void on_exit_of(struct loop *l, struct part *p, int status)
{
	pid_t pid = p->pid;
	char how[64];

	part_exited(p, &l->w->env, status, how, sizeof(how));
	if (l->stopping) {
		im_log(IM_LOG_INFO, "evt=stopped part=%s how=\"%s\"", p->name, how);
		return;
	}
	if (p->spare && WIFEXITED(status) && WEXITSTATUS(status) == PART_EXIT_CONFIG) {
		im_log(IM_LOG_ERROR, "evt=config part=%s log=%s: it says what is wrong with its configuration; started again at SIGHUP", p->name,
		       p->log_path ? p->log_path : "stderr");
		part_rest(p);
		return;
	}
	im_log(IM_LOG_ERROR, "evt=exit part=%s pid=%ld how=\"%s\" log=%s: started again in %lld ms", p->name, (long)pid, how,
	       p->log_path ? p->log_path : "stderr", (long long)(p->next_start_ms - im_clock_mono_ms()));
	if (!p->was_up && !p->spare && p->failures >= WATCH_FIRST_TRIES) {
		im_log(IM_LOG_ERROR, "evt=giveup part=%s tries=%u log=%s: it never got ready, so the start has failed", p->name,
		       p->failures, p->log_path ? p->log_path : "stderr");
		show_log(p);
		l->failed = true;
	}
}

static void collect(struct loop *l)
{
	int status;
	pid_t pid;

	on_ready(l); /* what it said before it ended */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < l->w->n; i++)
			if (l->w->parts[i].pid == pid)
				on_exit_of(l, &l->w->parts[i], status);
	write_pids(l);
}

static void on_signal(struct loop *l, int sig)
{
	switch (sig) {
	case SIGCHLD:
		collect(l);
		break;
	case SIGHUP:
		im_log(IM_LOG_NOTICE, "evt=reload");
		for (size_t i = 0; i < l->w->n; i++) {
			if (l->w->parts[i].state == PART_UP) /* one that starts reads the new file anyway */
				part_signal(&l->w->parts[i], SIGHUP);
			part_retry_now(&l->w->parts[i]);
		}
		break;
	default:
		l->hurry = l->stopping;
		l->stopping = true;
		break;
	}
}

/* Sleeps at most `ms` and works off what came. */
static void turn(struct loop *l, int ms)
{
	struct pollfd fds[2] = {{.fd = l->signal_fd, .events = POLLIN}, {.fd = l->w->run->notify_fd, .events = POLLIN}};
	struct signalfd_siginfo info;

	if (poll(fds, 2, ms) <= 0)
		return;
	if (fds[1].revents)
		on_ready(l);
	while (read(l->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		on_signal(l, (int)info.ssi_signo);
}

/* Milliseconds until the next part is due, for poll; also warns of parts that take long. */
static int until_next(struct loop *l, int64_t now)
{
	int64_t ms = SLOW_START_MS;

	for (size_t i = 0; i < l->w->n; i++) {
		struct part *p = &l->w->parts[i];

		if (p->state == PART_DOWN && p->next_start_ms - now < ms)
			ms = p->next_start_ms > now ? p->next_start_ms - now : 0;
		if (p->state == PART_STARTING && now - p->started_ms >= SLOW_START_MS && now - l->warned_ms >= SLOW_START_MS) {
			l->warned_ms = now;
			im_log(IM_LOG_WARNING, "evt=slow part=%s pid=%ld: not ready after %lld s, still waiting", p->name, (long)p->pid,
			       (long long)(now - p->started_ms) / 1000);
		}
		if (!p->was_up && !p->spare)
			break; /* those after it are not due whatever their time says */
	}
	return (int)ms;
}

/* One part: TERM, and KILL if it takes too long or the admin asks a second time. */
static void stop_part(struct loop *l, struct part *p)
{
	int64_t deadline = im_clock_mono_ms() + WATCH_STOP_MS;

	part_signal(p, SIGTERM);
	while (p->pid > 0) {
		int64_t left = deadline - im_clock_mono_ms();

		if (left <= 0 || l->hurry) {
			im_log(IM_LOG_WARNING, "evt=kill part=%s pid=%ld: it did not end in time", p->name, (long)p->pid);
			part_signal(p, SIGKILL);
			deadline = im_clock_mono_ms() + WATCH_STOP_MS;
			l->hurry = false;
			left = WATCH_STOP_MS;
		}
		turn(l, (int)left);
	}
}

static void stop_all(struct loop *l)
{
	l->stopping = true;
	im_log(IM_LOG_NOTICE, "evt=stopping");
	for (size_t i = l->w->n; i-- > 0;)
		stop_part(l, &l->w->parts[i]);
	im_log(IM_LOG_NOTICE, "evt=down");
}

int watch_run(struct watch *w)
{
	struct loop l = {.w = w};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	l.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (l.signal_fd < 0) {
		im_log(IM_LOG_ERROR, "evt=signalfd why=\"%s\"", strerror(errno));
		return 1;
	}
	if (w->ready_file)
		(void)unlink(w->ready_file); /* of a supervisor that was killed; usually not there */
	while (!l.stopping && !l.failed) {
		int64_t now = im_clock_mono_ms();

		start_due(&l, now);
		turn(&l, until_next(&l, now));
	}
	stop_all(&l);
	if (w->ready_file)
		(void)unlink(w->ready_file); /* it may not have been written yet */
	close(l.signal_fd);
	return l.failed ? 1 : 0;
}
