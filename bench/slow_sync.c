/*
 * Preloaded into an instance and into im-puback (bench/disk --sync-us): a disk whose syncs take longer than this
 * machine's. A sync is done, and then waits until the time is over that it is to take; a write is not touched.
 *
 *   IM_SYNC_US     what a sync takes at least
 *   IM_SYNC_QUEUE  a file: all that have it sync one after another, as on a device that flushes once at a time
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static long takes_us;
static const char *queue;
static _Thread_local int place = -1; /* in the queue: a lock is of an open file, so each thread opens it for itself */

__attribute__((constructor)) static void begin(void)
{
	const char *us = getenv("IM_SYNC_US");

	takes_us = us ? strtol(us, NULL, 10) : 0;
	queue = getenv("IM_SYNC_QUEUE");
}

static void enter(bool in)
{
	if (!queue)
		return;
	if (place < 0)
		place = open(queue, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (place < 0 || flock(place, in ? LOCK_EX : LOCK_UN) != 0)
		abort(); /* a wrong figure is worth less than none */
}

/* The default slack of 50 us would be a seventh of the shortest time that is of interest. */
static void wait_until(struct timespec t)
{
	static _Thread_local bool exact;

	if (!exact)
		exact = prctl(PR_SET_TIMERSLACK, 1000UL) == 0;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static int slow(long call, int fd)
{
	struct timespec t;
	int rc, e;

	enter(true);
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += takes_us * 1000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	rc = (int)syscall(call, fd);
	e = errno;
	wait_until(t);
	enter(false);
	errno = e;
	return rc;
}

EXPORT int fdatasync(int fd)
{
	return slow(SYS_fdatasync, fd);
}

EXPORT int fsync(int fd)
{
	return slow(SYS_fsync, fd);
}
