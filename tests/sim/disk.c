/*
 * A disk in memory, and the journal's thread as a second stack (disk.h).
 *
 * Each file has what the page cache has and what the disk has. A process that dies loses nothing of the cache; a
 * power cut keeps what was synced and of the writes since then any: all, none, or a front part of any number of
 * bytes. A sync that fails gets any of them to the disk too, and after it the rest is nobody's any more: the next sync
 * leaves it out, and the cache keeps it or not. When the machine goes in the middle of something, calls go on answering "done" to a process that no
 * longer counts, and change nothing.
 */
#include "disk.h"
#include "sim.h"

#include <stdarg.h>
#include <ucontext.h>

#define FILES 128
#define FDS 160
#define FD_FIRST 1000
#define WRITES 64
#define STACK (512u << 10)

struct extent {
	size_t at, len;
};

struct file {
	char name[64];
	bool exists;         /* in the cache's view of the folder */
	char durable[64];    /* its name in the disk's; empty: it is not there */
	uint8_t *cache, *disk;
	size_t len, disk_len, cap;
	struct extent writes[WRITES]; /* since the last sync */
	unsigned n_writes;
	bool damaged;        /* a sync failed once */
	unsigned opened;
};

static struct file files[FILES];
static struct {
	struct file *file; /* NULL: free; &folder: the folder */
	size_t at;
} fds[FDS];
static struct file folder;
static size_t listed;

static bool dead, lost, forgot;
static unsigned dies_in; /* operations; 0 = not planned */
static unsigned fails;   /* percent */

bool disk_sync_all, disk_is_bad;

static void give_way(void);

/* Before each operation. False: it happens in a world that is gone. */
static bool alive(void)
{
	if (!dead && dies_in && --dies_in == 0)
		dead = true;
	return !dead;
}

static bool fails_now(void)
{
	if (!fails || !sim_chance(fails))
		return false;
	COUNT(disk_errors);
	errno = sim_chance(50) ? EIO : ENOSPC;
	return true;
}

static struct file *of(int fd)
{
	if (fd < FD_FIRST || fd >= FD_FIRST + FDS || !fds[fd - FD_FIRST].file)
		sim_fail("a call on a descriptor that is not open: %d", fd);
	return fds[fd - FD_FIRST].file;
}

static const char *base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static struct file *named(const char *path)
{
	const char *name = base(path);

	for (size_t i = 0; i < FILES; i++)
		if (files[i].exists && strcmp(files[i].name, name) == 0)
			return &files[i];
	return NULL;
}

static struct file *make(const char *path)
{
	const char *name = base(path);

	for (size_t i = 0; i < FILES; i++) {
		struct file *f = &files[i];

		if (f->exists || f->durable[0] || f->opened)
			continue;
		free(f->cache);
		free(f->disk);
		memset(f, 0, sizeof(*f));
		(void)snprintf(f->name, sizeof(f->name), "%s", name);
		f->exists = true;
		return f;
	}
	sim_fail("more than %d files", FILES);
}

int sim_open(const char *path, int flags, ...)
{
	struct file *f;

	give_way();
	if (flags & O_DIRECTORY) {
		f = &folder;
	} else {
		f = named(path);
		if (f && (flags & O_EXCL)) {
			errno = EEXIST;
			return -1;
		}
		if (!f && !(flags & O_CREAT)) {
			errno = ENOENT;
			return -1;
		}
		if (!f && alive() && fails_now())
			return -1;
		if (!f)
			f = make(path);
	}
	for (int i = 0; i < FDS; i++) {
		if (fds[i].file)
			continue;
		fds[i].file = f;
		fds[i].at = 0;
		f->opened++;
		return FD_FIRST + i;
	}
	sim_fail("descriptors leak");
}

int sim_close(int fd)
{
	of(fd)->opened--;
	fds[fd - FD_FIRST].file = NULL;
	return 0;
}

ssize_t sim_pread(int fd, void *data, size_t len, off_t at)
{
	struct file *f = of(fd);
	size_t n;

	if ((size_t)at >= f->len)
		return 0;
	n = f->len - (size_t)at < len ? f->len - (size_t)at : len;
	memcpy(data, f->cache + at, n);
	return (ssize_t)n;
}

ssize_t sim_read(int fd, void *data, size_t len)
{
	ssize_t n = sim_pread(fd, data, len, (off_t)fds[fd - FD_FIRST].at);

	fds[fd - FD_FIRST].at += (size_t)n;
	return n;
}

/* RWF_NOWAIT: what is not in memory is not waited for. */
ssize_t sim_preadv2(int fd, const struct iovec *iov, int n, off_t at, int flags)
{
	(void)n;
	(void)flags;
	if (sim_chance(10)) {
		errno = EAGAIN;
		return -1;
	}
	return sim_pread(fd, iov->iov_base, iov->iov_len, at);
}

static bool reserve(struct file *f, size_t len)
{
	if (len <= f->cap)
		return true;
	f->cap = len + 256;
	f->cache = realloc(f->cache, f->cap);
	f->disk = realloc(f->disk, f->cap);
	return f->cache && f->disk;
}

/* Of the writes since the last sync, in their order: the front part of each, as long as the function says. */
static bool to_disk(struct file *f, size_t (*part)(size_t len))
{
	bool all = true;

	for (unsigned i = 0; i < f->n_writes; i++) {
		struct extent w = f->writes[i];
		size_t keep = part(w.len);

		all = all && keep == w.len;
		if (!keep)
			continue;
		if (w.at > f->disk_len)
			memset(f->disk + f->disk_len, 0, w.at - f->disk_len);
		memcpy(f->disk + w.at, f->cache + w.at, keep);
		if (w.at + keep > f->disk_len)
			f->disk_len = w.at + keep;
	}
	f->n_writes = 0;
	return all;
}

static size_t none(size_t len)
{
	(void)len;
	return 0;
}

static size_t whole(size_t len)
{
	return len;
}

static size_t any(size_t len)
{
	if (disk_is_bad && sim_chance(60)) /* most writes are in one sector */
		return sim_chance(50) ? len : 0;
	return sim_random((unsigned)len + 1);
}

/* Kernels differ: most keep what they could not write for clean, some drop it. */
static void sync_failed(struct file *f)
{
	struct extent gone[WRITES];
	unsigned n = f->n_writes;

	memcpy(gone, f->writes, n * sizeof(*gone));
	(void)to_disk(f, sim_chance(disk_is_bad ? 20 : 50) ? none : any);
	f->damaged = true;
	if (!strstr(f->name, ".seg") || !sim_chance(30))
		return;
	forgot = true;
	COUNT(forgotten_writes);
	for (unsigned i = 0; i < n; i++)
		for (size_t at = gone[i].at; at < gone[i].at + gone[i].len; at++)
			f->cache[at] = at < f->disk_len ? f->disk[at] : 0;
}

ssize_t sim_pwrite(int fd, const void *data, size_t len, off_t at)
{
	struct file *f = of(fd);
	size_t end = (size_t)at + len;

	give_way();
	if (!alive())
		return (ssize_t)len;
	if (strstr(f->name, ".seg") && fails_now()) { /* the number of the epoch is in a page that is there */
		if (sim_chance(50))
			return -1;
		len = sim_random((unsigned)len); /* half of it is there, and the rest fails */
		if (len == 0)
			return -1;
		end = (size_t)at + len;
	}
	if (!reserve(f, end))
		sim_fail("out of memory");
	if (f->n_writes == WRITES)
		sim_fail("more than %d writes without a sync", WRITES);
	if (end > f->len) {
		memset(f->cache + f->len, 0, end - f->len);
		f->len = end;
	}
	memcpy(f->cache + at, data, len);
	f->writes[f->n_writes++] = (struct extent){(size_t)at, len};
	return (ssize_t)len;
}

int sim_fdatasync(int fd)
{
	struct file *f = of(fd);

	give_way();
	if (!alive())
		return 0;
	if (fails_now()) {
		sync_failed(f);
		return -1;
	}
	(void)to_disk(f, whole);
	return 0;
}

static void name_durable(struct file *f)
{
	memcpy(f->durable, f->name, sizeof(f->durable));
	if (!f->exists)
		f->durable[0] = '\0';
}

int sim_fsync(int fd)
{
	(void)of(fd);
	give_way();
	if (!alive())
		return 0;
	if (fails_now())
		return -1;
	for (size_t i = 0; i < FILES; i++)
		name_durable(&files[i]);
	return 0;
}

int sim_unlink(const char *path)
{
	struct file *f = named(path);

	give_way();
	if (!f) {
		errno = ENOENT;
		return -1;
	}
	if (alive())
		f->exists = false;
	sim_trace("  %s is removed%s", f->name, f->exists ? ", in a world that is gone" : "");
	return 0;
}

int sim_rename(const char *from, const char *to)
{
	struct file *f = named(from), *over = named(to);

	give_way();
	if (!f || strlen(base(to)) >= sizeof(f->name))
		sim_fail("%s is renamed to %s", from, to);
	if (!alive())
		return 0;
	if (fails_now())
		return -1;
	COUNT(segments_reused);
	sim_trace("  %s becomes %s", f->name, to);
	if (over)
		over->exists = false;
	memcpy(f->name, base(to), strlen(base(to)) + 1);
	return 0;
}

int sim_mkdir(const char *path, mode_t mode)
{
	(void)path;
	(void)mode;
	errno = EEXIST;
	return -1;
}

int sim_flock(int fd, int operation)
{
	(void)fd;
	(void)operation;
	return 0;
}

int sim_fstat(int fd, struct stat *out)
{
	memset(out, 0, sizeof(*out));
	out->st_size = (off_t)of(fd)->len;
	return 0;
}

DIR *sim_opendir(const char *path)
{
	(void)path;
	listed = 0;
	return (DIR *)&folder;
}

struct dirent *sim_readdir(DIR *d)
{
	static struct dirent e;

	(void)d;
	while (listed < FILES && !files[listed].exists)
		listed++;
	if (listed == FILES)
		return NULL;
	(void)snprintf(e.d_name, sizeof(e.d_name), "%s", files[listed++].name);
	return &e;
}

int sim_closedir(DIR *d)
{
	(void)d;
	return 0;
}

/* ---- dying */

void disk_die_after(unsigned ops)
{
	if (ops)
		dies_in = ops;
	else
		dead = true;
}

bool disk_is_dead(void)
{
	return dead;
}

void disk_fail(unsigned percent)
{
	fails = percent;
}

void disk_heal(void)
{
	fails = 0;
	dies_in = 0;
}

bool disk_lost_accepted(void)
{
	return lost;
}

bool disk_forgot(void)
{
	return forgot;
}

/* Each write since the last sync is there, not there, or its front part is. */
static void cut_power_file(struct file *f)
{
	unsigned way = sim_random(4);
	bool all = to_disk(f, way == 0 ? none : way == 1 ? whole : any);

	if (!all && way > 1)
		COUNT(torn_tails);
	lost = lost || !all || f->damaged;
	f->damaged = false;
	if (f->disk_len)
		memcpy(f->cache, f->disk, f->disk_len);
	f->len = f->disk_len;
}

/* What changed in the folder and was not synced: each is as it is, or as it was. */
static void cut_power_name(struct file *f)
{
	if (strcmp(f->exists ? f->name : "", f->durable) == 0)
		return;
	if (sim_chance(50)) {
		f->exists = f->durable[0] != '\0';
		if (f->exists)
			memcpy(f->name, f->durable, sizeof(f->name));
	}
	sim_trace("  %s is %s", f->name, f->exists ? "there" : "gone");
	name_durable(f);
}

void disk_revive(bool power)
{
	lost = forgot = dead = false;
	dies_in = 0;
	for (size_t i = 0; power && i < FILES; i++) {
		struct file *f = &files[i];

		if (!f->exists && !f->durable[0])
			continue;
		cut_power_name(f);
		cut_power_file(f);
	}
}

void disk_begin(void)
{
	dead = lost = forgot = false;
	dies_in = fails = 0;
}

void disk_end(void)
{
	for (size_t i = 0; i < FILES; i++) {
		if (files[i].opened)
			sim_fail("a file was left open: %s", files[i].name);
		files[i].exists = false;
		files[i].durable[0] = '\0';
		files[i].n_writes = 0;
	}
	if (folder.opened)
		sim_fail("the folder was left open");
}

/* ---- the thread */

static struct {
	ucontext_t here, there;
	char stack[STACK];
	void *(*fn)(void *);
	void *arg;
	bool there_now, ended, waiting, woken;
	int64_t until_ms; /* of a wait; 0 = none */
	unsigned locks;
} thread;

static void thread_main(void)
{
	(void)thread.fn(thread.arg);
	thread.ended = true;
}

static void to_main(void)
{
	thread.there_now = false;
	(void)swapcontext(&thread.there, &thread.here);
}

static void to_thread(void)
{
	thread.there_now = true;
	(void)swapcontext(&thread.here, &thread.there);
	thread.there_now = false;
}

static void give_way(void)
{
	if (!thread.there_now || dead || !sim_chance(30))
		return;
	if (thread.locks)
		sim_fail("a system call under the journal's lock");
	to_main();
}

int sim_thread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	(void)attr;
	*t = pthread_self();
	thread.fn = fn;
	thread.arg = arg;
	thread.ended = thread.waiting = thread.woken = false;
	(void)getcontext(&thread.there);
	thread.there.uc_stack.ss_sp = thread.stack;
	thread.there.uc_stack.ss_size = sizeof(thread.stack);
	thread.there.uc_link = &thread.here;
	makecontext(&thread.there, thread_main, 0);
	return 0;
}

void thread_run(void)
{
	if (!thread.fn || thread.ended)
		return;
	if (thread.waiting && !thread.woken && (!thread.until_ms || thread.until_ms > fake_now_ms) && !sim_chance(5))
		return; /* 5 %: woken for nothing */
	to_thread();
}

int sim_thread_join(pthread_t t, void **result)
{
	(void)t;
	(void)result;
	for (unsigned n = 0; !thread.ended; n++) {
		if (n > 10000)
			sim_fail("the journal's thread does not end");
		to_thread();
	}
	thread.fn = NULL;
	return 0;
}

int sim_lock(pthread_mutex_t *m)
{
	(void)m;
	if (thread.locks++)
		sim_fail("the journal's lock is held already");
	return 0;
}

int sim_unlock(pthread_mutex_t *m)
{
	(void)m;
	thread.locks--;
	return 0;
}

int sim_cond_signal(pthread_cond_t *c)
{
	(void)c;
	thread.woken = true;
	return 0;
}

static int wait_for(int64_t until_ms)
{
	thread.locks--;
	thread.waiting = true;
	thread.woken = false;
	thread.until_ms = until_ms;
	to_main();
	thread.waiting = false;
	thread.locks++;
	return until_ms && until_ms <= fake_now_ms ? ETIMEDOUT : 0;
}

int sim_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
	(void)c;
	(void)m;
	return wait_for(0);
}

int sim_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
{
	(void)c;
	(void)m;
	return wait_for(until->tv_sec * 1000 + until->tv_nsec / 1000000);
}
