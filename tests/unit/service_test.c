/* lib/service/service.c: a service's life in a child process, without a broker. */
#include "service/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 10000

static char dir[] = "/tmp/im-service-test-XXXXXX";
static char conf[64];
static int notified;      /* what services tell their supervisor */
static enum im_status start_with;

/* ---- the service */

static enum im_status start(struct service *s, struct im_err *err)
{
	if (start_with != IM_OK)
		return im_fail(err, start_with, "told to fail");
	service_hold_ready(s);
	service_ready(s);
	service_ready(s); /* told once */
	return IM_OK;
}

static void never_drained(struct service *s)
{
	(void)s;
}

static void fault(struct service *s)
{
	service_fail(s, "told to fail");
}

static const struct service_spec plain = {.name = "im-test", .client_id = "$im-test", .start = start};
static const struct service_spec stubborn = {.name = "im-test", .client_id = "$im-test", .start = start, .drain = never_drained};
static const struct service_spec faulty = {.name = "im-test", .client_id = "$im-test", .start = start, .reload = fault};

/* ---- */

static void write_conf(const char *more)
{
	FILE *f = fopen(conf, "w");

	assert_non_null(f);
	assert_true(fprintf(f, "per_listener_settings false\nset_tcp_nodelay true\nmax_queued_messages 1000000\n"
			       "allow_duplicate_messages true\nlistener 0 %s/run/bus.sock\nplugin /x/mosquitto_im.so\n"
			       "plugin_opt_im_dir %s\n%s", dir, dir, more) > 0);
	assert_int_equal(fclose(f), 0);
}

static pid_t run(const struct service_spec *spec, const char *option)
{
	char *argv[] = {"im-test", "--config", conf, (char *)option, NULL};
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		(void)dup2(null, 2);
		(void)close(null);
		exit(service_main(spec, option ? 4 : 3, argv));
	}
	return pid;
}

static int result(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void assert_told(const char *what)
{
	struct pollfd fd = {.fd = notified, .events = POLLIN};
	char text[64];
	ssize_t n;

	assert_int_equal(poll(&fd, 1, DEADLINE_MS), 1);
	n = recv(notified, text, sizeof(text) - 1, 0);
	assert_true(n > 0);
	text[n] = '\0';
	assert_string_equal(text, what);
}

static int set_up(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char name[64];
	int n;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(conf, sizeof(conf), "%s/conf", dir);
	n = snprintf(name, sizeof(name), "@im-service-test-%d", (int)getpid());
	memcpy(a.sun_path + 1, name + 1, (size_t)n - 1);
	notified = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(notified, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)), 0);
	return setenv("NOTIFY_SOCKET", name, 1);
}

static int tear_down(void **state)
{
	(void)state;
	(void)close(notified);
	(void)unlink(conf);
	return rmdir(dir);
}

/* ---- */

static void a_wrong_setting_ends_with_78(void **state)
{
	(void)state;
	write_conf("plugin_opt_im_nonsense 1\n");
	assert_int_equal(result(run(&plain, NULL)), 78);
	assert_int_equal(result(run(&plain, "--check")), 78);
	write_conf("");
	assert_int_equal(result(run(&plain, "--check")), 0);
}

static enum im_status check(struct service *s, struct im_err *err)
{
	assert_non_null(s->loop);
	return start_with == IM_OK ? IM_OK : im_fail(err, start_with, "told to fail");
}

static void a_check_finds_what_the_start_would(void **state)
{
	static const struct service_spec checks = {.name = "im-test", .client_id = "$im-test", .start = start, .check = check};

	(void)state;
	write_conf("");
	assert_int_equal(result(run(&checks, "--check")), 0);
	start_with = IM_BAD_INPUT;
	assert_int_equal(result(run(&checks, "--check")), 78);
	assert_int_equal(result(run(&plain, "--check")), 0);
	start_with = IM_OK;
}

static void wrong_options_end_with_64(void **state)
{
	(void)state;
	assert_int_equal(result(run(&plain, "--nonsense")), 64);
	assert_int_equal(result(run(&plain, "more")), 64);
}

static void a_failed_start_ends_with_1_and_a_misconfigured_one_with_78(void **state)
{
	(void)state;
	write_conf("");
	start_with = IM_FAILED;
	assert_int_equal(result(run(&plain, NULL)), 1);
	start_with = IM_BAD_INPUT;
	assert_int_equal(result(run(&plain, NULL)), 78);
	start_with = IM_OK;
}

static void it_tells_when_it_is_ready_and_ends_in_order(void **state)
{
	pid_t pid;

	(void)state;
	write_conf("");
	pid = run(&plain, NULL);
	assert_told("READY=1");
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_told("STOPPING=1");
	assert_int_equal(result(pid), 0);
}

static void a_second_signal_ends_a_drain_that_takes_long(void **state)
{
	pid_t pid;

	(void)state;
	write_conf("");
	pid = run(&stubborn, NULL);
	assert_told("READY=1");
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_told("STOPPING=1");
	assert_int_equal(kill(pid, SIGINT), 0);
	assert_int_equal(result(pid), 0);
}

static void a_fault_ends_with_1(void **state)
{
	pid_t pid;

	(void)state;
	write_conf("");
	pid = run(&faulty, NULL);
	assert_told("READY=1");
	assert_int_equal(kill(pid, SIGHUP), 0);
	assert_int_equal(result(pid), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wrong_setting_ends_with_78),
		cmocka_unit_test(a_check_finds_what_the_start_would),
		cmocka_unit_test(wrong_options_end_with_64),
		cmocka_unit_test(a_failed_start_ends_with_1_and_a_misconfigured_one_with_78),
		cmocka_unit_test(it_tells_when_it_is_ready_and_ends_in_order),
		cmocka_unit_test(a_second_signal_ends_a_drain_that_takes_long),
		cmocka_unit_test(a_fault_ends_with_1),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
