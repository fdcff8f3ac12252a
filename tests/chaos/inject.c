/*
 * Preloaded into the broker and the services: stands in for the calls by which bytes reach a disk, makes those
 * fail, stop short or take long that a test names (inject.h), and has written down what a power cut would take
 * (undo.h). It also has the kill points that only the broker's own writes show: before its PUBACK, between
 * its PUBREC and the client's PUBREL.
 *
 * What the C library does behind fopen() is not seen; nothing that is promised is written that way.
 */
#include "inject.h"
#include "undo.h"

#include "base/killpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static struct inject_table *table;
static bool ours, broker; /* this process is one of those watched */

__attribute__((constructor)) static void begin(void)
{
	static const char *const programs[] = {"mosquitto", "im-offline", "im-seqgen", "inject_test"};
	const char *path = getenv("IM_INJECT"), *root = getenv("IM_INJECT_ROOT");
	void *p;
	int fd;

	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
		ours |= strcmp(program_invocation_short_name, programs[i]) == 0;
	broker = strcmp(program_invocation_short_name, "mosquitto") == 0;
	if (!ours)
		return;
	if (root)
		undo_init(root);
	fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
	if (fd < 0)
		return;
	p = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	(void)syscall(SYS_close, fd);
	table = p == MAP_FAILED ? NULL : p;
}

/* ---------------------------------------------------------------- rules */

static bool path_is(const char *path, const char *wanted)
{
	size_t len = strlen(path), n = strlen(wanted);

	if (n == 0 || wanted[n - 1] != '$')
		return strstr(path, wanted) != NULL;
	return len >= n - 1 && strncmp(path + len - (n - 1), wanted, n - 1) == 0;
}

static bool applies(struct inject_rule *r, enum inject_call call, const char *path)
{
	int32_t n;

	if (!r->active || !(r->calls & call) || !path_is(path, r->path))
		return false;
	if (r->program[0] && strcmp(r->program, program_invocation_short_name) != 0)
		return false;
	if (r->after > 0 && r->after-- > 0)
		return false;
	n = r->count;
	while (n > 0 && !atomic_compare_exchange_weak(&r->count, &n, n - 1))
		;
	return n != 0;
}

/* Waits as told. 0, or the errno with which the call fails; *len is cut for a short write. */
static int judge(enum inject_call call, const char *path, size_t *len)
{
	int error = 0;

	for (size_t i = 0; table && path && i < INJECT_RULES; i++) {
		struct inject_rule *r = &table->rules[i];

		if (!applies(r, call, path))
			continue;
		r->hits++;
		if (r->delay_ms > 0)
			(void)nanosleep(&(struct timespec){r->delay_ms / 1000, r->delay_ms % 1000 * 1000000L}, NULL);
		if (r->error == INJECT_KILL)
			(void)kill(getpid(), SIGKILL);
		if (r->error > 0)
			error = r->error;
		if (r->short_to > 0 && len && *len > (size_t)r->short_to)
			*len = (size_t)r->short_to;
	}
	return error;
}

/* ---------------------------------------------------------------- open and close */

static int open_watched(const char *path, int flags, mode_t mode)
{
	bool exists = syscall(SYS_faccessat, AT_FDCWD, path, F_OK, 0) == 0;
	bool cuts = (flags & O_TRUNC) && exists;
	int error = judge(CALL_OPEN, path, NULL), fd;

	if (error) {
		errno = error;
		return -1;
	}
	undo_lock();
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, (flags & ~O_TRUNC), mode);
	if (fd >= 0)
		undo_opened(fd, path, !exists, cuts);
	if (fd >= 0 && cuts)
		(void)syscall(SYS_ftruncate, fd, 0);
	undo_unlock();
	return fd;
}

static int open_any(const char *path, int flags, mode_t mode)
{
	if (ours && undo_watches(path))
		return open_watched(path, flags, mode);
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	return open_any(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	return open_any(path, flags, mode);
}

EXPORT int __open_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags);

int __open_2(const char *path, int flags)
{
	return open_any(path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
	return open_any(path, flags, 0);
}

EXPORT int close(int fd)
{
	if (ours && undo_path(fd)) {
		undo_lock();
		undo_closed(fd);
		undo_unlock();
	}
	return (int)syscall(SYS_close, fd);
}

/* ---------------------------------------------------------------- write */

static ssize_t write_watched(int fd, const void *data, size_t len, off_t at)
{
	int error = judge(CALL_WRITE, undo_path(fd), &len);
	ssize_t n;

	if (error) {
		errno = error;
		return -1;
	}
	undo_lock();
	undo_write(fd, at, len);
	n = at < 0 ? syscall(SYS_write, fd, data, len) : syscall(SYS_pwrite64, fd, data, len, at);
	undo_unlock();
	return n;
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
	return ours && undo_path(fd) ? write_watched(fd, data, len, at) : syscall(SYS_pwrite64, fd, data, len, at);
}

EXPORT ssize_t pwrite64(int fd, const void *data, size_t len, off_t at)
{
	return pwrite(fd, data, len, at);
}

EXPORT ssize_t write(int fd, const void *data, size_t len)
{
	return ours && undo_path(fd) ? write_watched(fd, data, len, -1) : syscall(SYS_write, fd, data, len);
}

/* The broker writes each packet with one call. */
static void before_packet(uint8_t first)
{
	if (first == 0x40)
		IM_KILLPOINT("broker.before_puback");
	else if (first == 0x50)
		IM_KILLPOINT("broker.before_pubrec");
	else if (first == 0x70)
		IM_KILLPOINT("broker.before_pubcomp");
}

static void after_packet(uint8_t first)
{
	if (first == 0x40)
		IM_KILLPOINT("broker.after_puback");
	else if (first == 0x50)
		IM_KILLPOINT("broker.after_pubrec");
}

EXPORT ssize_t send(int socket, const void *data, size_t len, int flags)
{
	uint8_t first = broker && len > 0 ? *(const uint8_t *)data : 0;
	int error = ours ? judge(CALL_SEND, "socket", NULL) : 0;
	ssize_t n;

	if (error) {
		errno = error;
		return -1;
	}
	before_packet(first);
	n = syscall(SYS_sendto, socket, data, len, flags, NULL, 0);
	after_packet(first);
	return n;
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	if (ours && undo_path(fd)) {
		undo_lock();
		undo_write(fd, -1, len);
		undo_unlock();
	}
	return syscall(SYS_writev, fd, iov, n);
}

EXPORT int ftruncate(int fd, off_t to)
{
	int rc;

	if (!ours || !undo_path(fd))
		return (int)syscall(SYS_ftruncate, fd, to);
	undo_lock();
	undo_truncate(fd, to);
	rc = (int)syscall(SYS_ftruncate, fd, to);
	undo_unlock();
	return rc;
}

EXPORT int ftruncate64(int fd, off_t to)
{
	return ftruncate(fd, to);
}

/* Nobody here uses it; if somebody begins to, the record would miss it. */
EXPORT int fallocate(int fd, int mode, off_t at, off_t len)
{
	if (ours && undo_path(fd))
		abort();
	return (int)syscall(SYS_fallocate, fd, mode, at, len);
}

EXPORT int posix_fallocate(int fd, off_t at, off_t len)
{
	return fallocate(fd, 0, at, len) == 0 ? 0 : errno;
}

/* ---------------------------------------------------------------- sync */

static int sync_watched(int fd, long call)
{
	uint64_t began;
	int error, rc;

	undo_lock();
	began = undo_sync_begin(fd);
	undo_unlock();
	error = judge(CALL_SYNC, undo_path(fd), NULL);
	rc = error ? -1 : (int)syscall(call, fd);
	if (!error && rc != 0)
		error = errno;
	undo_sync_done(fd, began, rc == 0);
	if (error)
		errno = error;
	return rc;
}

EXPORT int fdatasync(int fd)
{
	return ours && undo_path(fd) ? sync_watched(fd, SYS_fdatasync) : (int)syscall(SYS_fdatasync, fd);
}

EXPORT int fsync(int fd)
{
	return ours && undo_path(fd) ? sync_watched(fd, SYS_fsync) : (int)syscall(SYS_fsync, fd);
}

/* ---------------------------------------------------------------- names */

EXPORT int rename(const char *from, const char *to)
{
	int error, rc;

	if (!ours || !undo_watches(to))
		return (int)syscall(SYS_rename, from, to);
	error = judge(CALL_RENAME, to, NULL);
	if (error) {
		errno = error;
		return -1;
	}
	undo_lock();
	if (syscall(SYS_faccessat, AT_FDCWD, from, F_OK, 0) == 0)
		undo_rename(from, to);
	rc = (int)syscall(SYS_rename, from, to);
	undo_unlock();
	return rc;
}

static int unlink_watched(const char *path)
{
	int error = judge(CALL_UNLINK, path, NULL), rc;

	if (error) {
		errno = error;
		return -1;
	}
	undo_lock();
	if (syscall(SYS_faccessat, AT_FDCWD, path, F_OK, 0) == 0)
		undo_unlink(path);
	rc = (int)syscall(SYS_unlink, path);
	undo_unlock();
	return rc;
}

EXPORT int unlink(const char *path)
{
	return ours && undo_watches(path) ? unlink_watched(path) : (int)syscall(SYS_unlink, path);
}

EXPORT int mkdir(const char *path, mode_t mode)
{
	int rc;

	if (!ours || !undo_watches(path))
		return (int)syscall(SYS_mkdir, path, mode);
	undo_lock();
	rc = (int)syscall(SYS_mkdir, path, mode);
	if (rc == 0)
		undo_made(path);
	undo_unlock();
	return rc;
}
