/*
 * Starting a process so that nothing of ours leaks into it: its own process group (Ctrl-C reaches the
 * supervisor alone, which stops the parts in order), all signals unblocked and at their defaults, no
 * descriptors but 0, 1, 2 and parts.lock of the run folder - that one is kept on purpose: the folder stays
 * locked until the last process that works in it is gone, even if the supervisor was killed.
 */
#include "part.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

static void reset_signals(void)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)sigaction(sig, &dfl, NULL); /* KILL and STOP refuse, others can't fail */
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child, before exec. A failure is told by the exit status, as shells do: 126. */
static _Noreturn void child(const struct part *p, const struct part_env *env, pid_t parent)
{
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int out = p->log_path ? open(p->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : STDERR_FILENO;

	if (in < 0 || out < 0 || dup2(in, STDIN_FILENO) < 0)
		_exit(126);
	if (p->log_path && (dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0))
		_exit(126);
	(void)setpgid(0, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM); /* a killed supervisor leaves nobody behind */
	if (getppid() != parent)
		_exit(126);             /* it was killed before the line above */
	if (setenv("NOTIFY_SOCKET", env->notify_path, 1) < 0)
		_exit(126);
	reset_signals();
	execv(p->argv[0], p->argv);
	fprintf(stderr, "%s: %s\n", p->argv[0], strerror(errno));
	_exit(127);
}

enum im_status part_start(struct part *p, const struct part_env *env, struct im_err *err)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid < 0)
		return im_fail(err, IM_BUSY, "cannot start %s: %s", p->name, strerror(errno));
	if (pid == 0)
		child(p, env, parent);
	p->pid = pid;
	p->state = PART_STARTING;
	p->started_ms = im_clock_mono_ms();
	return IM_OK;
}

/* Doubles from the first to the most; three quarters to all of it, so that parts that fell together rise apart. */
static int64_t backoff_ms(unsigned failures, unsigned most)
{
	int64_t ms = PART_BACKOFF_FIRST_MS;
	uint32_t r = 0;

	for (unsigned i = 1; i < failures && ms < most; i++)
		ms *= 2;
	if (ms > most)
		ms = most;
	(void)!getrandom(&r, sizeof(r), GRND_NONBLOCK); /* without it there is no jitter: harmless */
	return ms - (int64_t)(r % (uint64_t)(ms / 4 + 1));
}

void part_retry_later(struct part *p, const struct part_env *env)
{
	int64_t now = im_clock_mono_ms();

	p->failures = p->state == PART_UP && now - p->started_ms >= PART_STABLE_MS ? 1 : p->failures + 1;
	p->state = PART_DOWN;
	p->pid = 0;
	p->next_start_ms = now + backoff_ms(p->failures, env->backoff_most_ms);
}

void part_exited(struct part *p, const struct part_env *env, int status, char *out, size_t out_len)
{
	if (WIFSIGNALED(status))
		(void)snprintf(out, out_len, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		(void)snprintf(out, out_len, "status %d", WEXITSTATUS(status));
	part_retry_later(p, env);
}

void part_rest(struct part *p)
{
	p->next_start_ms = INT64_MAX;
}

void part_retry_now(struct part *p)
{
	if (p->state == PART_DOWN && p->next_start_ms == INT64_MAX)
		p->next_start_ms = 0;
}

void part_signal(const struct part *p, int sig)
{
	if (p->pid > 0)
		(void)kill(p->pid, sig); /* ESRCH: its exit is about to be collected */
}

void part_finish(struct part *p)
{
	for (int i = 0; p->argv[i]; i++)
		free(p->argv[i]);
	free(p->log_path);
	memset(p, 0, sizeof(*p));
}
