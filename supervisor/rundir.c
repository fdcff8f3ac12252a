/*
 * Two locks, because a supervisor may be killed and leave its parts behind for a moment: supervisor.pid (it
 * holds the pid for people; what counts is the flock) is given up by the kernel with the supervisor,
 * parts.lock with the last process that works in the folder, since the parts inherit it (part.c).
 */
#include "rundir.h"

#include "base/clock.h"
#include "base/number.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define READY_MAX 512 /* a notification; mosquitto and our services send a dozen bytes */

static enum im_status make_dir(const char *dir, const char *below, struct im_err *err)
{
	char path[4096];

	if ((size_t)snprintf(path, sizeof(path), "%s%s", dir, below) >= sizeof(path))
		return im_fail(err, IM_BAD_INPUT, "%s%s: the name is too long", dir, below);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return im_fail(err, IM_FAILED, "cannot create %s: %s", path, strerror(errno));
	return IM_OK;
}

static enum im_status open_lock(const char *path, int flags, int *out, struct im_err *err)
{
	*out = open(path, O_RDWR | O_CREAT | flags, 0600);
	return *out < 0 ? im_fail(err, IM_FAILED, "cannot open %s: %s", path, strerror(errno)) : IM_OK;
}

/* For people and scripts: whom to signal. */
static enum im_status write_own_pid(struct rundir *r, struct im_err *err)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	if (ftruncate(r->own_fd, 0) < 0 || pwrite(r->own_fd, text, (size_t)len, 0) != len)
		return im_fail(err, IM_FAILED, "cannot write %s: %s", r->own_path, strerror(errno));
	return IM_OK;
}

static enum im_status take_locks(struct rundir *r, struct im_err *err)
{
	int64_t deadline = im_clock_mono_ms() + RUNDIR_WAIT_MS;

	if (open_lock(r->own_path, O_CLOEXEC, &r->own_fd, err) != IM_OK || open_lock(r->parts_path, 0, &r->parts_fd, err) != IM_OK)
		return IM_FAILED;
	if (flock(r->own_fd, LOCK_EX | LOCK_NB) < 0) {
		char text[32] = "";
		uint64_t pid = 0;

		(void)!pread(r->own_fd, text, sizeof(text) - 1, 0); /* without it the sentence lacks the number */
		(void)im_digits(text, INT_MAX, &pid);
		return im_fail(err, IM_BUSY, "another supervisor runs there (pid %llu)", (unsigned long long)pid);
	}
	while (flock(r->parts_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return im_fail(err, IM_FAILED, "cannot lock %s: %s", r->parts_path, strerror(errno));
		if (im_clock_mono_ms() > deadline)
			return im_fail(err, IM_BUSY, "processes of a supervisor that was killed still run: see %s", r->pids_path);
		(void)poll(NULL, 0, 50);
	}
	return write_own_pid(r, err);
}

static enum im_status open_notify(struct rundir *r, struct im_err *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int on = 1;

	if (strlen(r->notify_path) >= sizeof(a.sun_path))
		return im_fail(err, IM_BAD_INPUT, "%s is too long for a Unix socket: choose a shorter im_dir", r->notify_path);
	strcpy(a.sun_path, r->notify_path);
	(void)unlink(r->notify_path); /* of an earlier run; the lock says that nobody uses it */
	r->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (r->notify_fd < 0 || setsockopt(r->notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ||
	    bind(r->notify_fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		return im_fail(err, IM_FAILED, "cannot listen on %s: %s", r->notify_path, strerror(errno));
	return IM_OK;
}

enum im_status rundir_open(const char *dir, struct rundir *out, struct im_err *err)
{
	struct rundir r = {.own_fd = -1, .parts_fd = -1, .notify_fd = -1};
	enum im_status st;

	st = make_dir(dir, "", err);
	if (st == IM_OK)
		st = make_dir(dir, "/run", err);
	if (st == IM_OK)
		st = make_dir(dir, "/log", err);
	if (st == IM_OK && (asprintf(&r.pids_path, "%s/run/pids", dir) < 0 || asprintf(&r.notify_path, "%s/run/notify.sock", dir) < 0 ||
			    asprintf(&r.own_path, "%s/run/supervisor.pid", dir) < 0 ||
			    asprintf(&r.parts_path, "%s/run/parts.lock", dir) < 0))
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		st = take_locks(&r, err);
	if (st == IM_OK)
		st = open_notify(&r, err);
	if (st != IM_OK) {
		rundir_close(&r);
		return st;
	}
	*out = r;
	return IM_OK;
}

void rundir_close(struct rundir *r)
{
	if (r->notify_fd >= 0) {
		close(r->notify_fd);
		(void)unlink(r->notify_path);
	}
	if (r->parts_fd >= 0)
		close(r->parts_fd);
	if (r->own_fd >= 0)
		close(r->own_fd);
	free(r->pids_path);
	free(r->notify_path);
	free(r->own_path);
	free(r->parts_path);
}

enum im_status rundir_replace_file(const char *path, const char *text, struct im_err *err)
{
	size_t len = strlen(text);
	char tmp[4096];
	int fd;

	if ((size_t)snprintf(tmp, sizeof(tmp), "%s.new", path) >= sizeof(tmp))
		return im_fail(err, IM_BAD_INPUT, "%s: the name is too long", path);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return im_fail(err, IM_FAILED, "cannot write %s: %s", tmp, strerror(errno));
	if (write(fd, text, len) != (ssize_t)len) {
		int why = errno;

		close(fd);
		return im_fail(err, IM_FAILED, "cannot write %s: %s", tmp, strerror(why));
	}
	close(fd);
	if (rename(tmp, path) < 0)
		return im_fail(err, IM_FAILED, "cannot write %s: %s", path, strerror(errno));
	return IM_OK;
}

enum im_status rundir_write_pids(const struct rundir *r, const struct part *parts, size_t n, struct im_err *err)
{
	char text[1024] = "";
	size_t used = 0;

	for (size_t i = 0; i < n && used < sizeof(text); i++)
		if (parts[i].pid > 0)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %ld\n", parts[i].name, (long)parts[i].pid);
	return rundir_replace_file(r->pids_path, text, err);
}

/* One of the lines of a notification is READY=1. */
static bool says_ready(char *text)
{
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (strcmp(line, "READY=1") == 0)
			return true;
	return false;
}

pid_t rundir_next_ready(struct rundir *r)
{
	char text[READY_MAX + 1];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec part = {text, READY_MAX};

	for (;;) {
		struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(r->notify_fd, &m, MSG_CMSG_CLOEXEC);
		struct cmsghdr *c;
		struct ucred who;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return 0;
		text[n] = '\0';
		c = CMSG_FIRSTHDR(&m);
		if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS || !says_ready(text))
			continue;
		memcpy(&who, CMSG_DATA(c), sizeof(who)); /* by the kernel: nobody can speak for another process */
		return who.pid;
	}
}
