/*
 * Writing down what a power cut would take (undo.h). Only direct system calls here: the library's names are
 * what inject.c stands in for.
 */
#include "undo.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FDS 65536

struct watched {
	char *path;
	bool dir;
	int undo; /* {inode}.undo; a folder has none open */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct watched *watched[FDS];
static char root[PATH_MAX], kept_in[PATH_MAX];
static size_t root_len;
static unsigned kept_n;

static int sys_open(const char *path, int flags, int mode)
{
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "inject: cannot %s: %s\n", what, strerror(errno));
	abort(); /* a record with a hole would accuse the innocent */
}

static void put(int fd, const void *data, size_t len, off_t at)
{
	must(syscall(SYS_pwrite64, fd, data, len, at) == (long)len, "write the undo record");
}

void undo_init(const char *folder)
{
	root_len = (size_t)snprintf(root, sizeof(root), "%s/", folder);
	(void)snprintf(kept_in, sizeof(kept_in), "%s.undo", folder);
	(void)syscall(SYS_mkdir, kept_in, 0700);
}

bool undo_watches(const char *path)
{
	return root_len && path && (strncmp(path, root, root_len) == 0 || strncmp(path, root, root_len - 1) == 0) && !strstr(path, "-shm");
}

void undo_lock(void)
{
	(void)pthread_mutex_lock(&mutex);
}

void undo_unlock(void)
{
	(void)pthread_mutex_unlock(&mutex);
}

static struct watched *find(int fd)
{
	return fd >= 0 && fd < FDS ? watched[fd] : NULL;
}

const char *undo_path(int fd)
{
	const struct watched *w = find(fd);

	return w ? w->path : NULL;
}

static off_t end_of(int fd)
{
	struct stat sb;

	must(syscall(SYS_fstat, fd, &sb) == 0, "stat a file");
	return sb.st_size;
}

/* ---------------------------------------------------------------- bytes */

static void add(const struct watched *w, const struct undo_record *r, const void *old)
{
	off_t end = end_of(w->undo);

	if (r->have)
		put(w->undo, old, r->have, end + (off_t)sizeof(*r));
	put(w->undo, r, sizeof(*r), end);
}

/* The bytes [at, at + span) as they are. A descriptor that is only written to is read through another. */
static void cover(int fd, const struct watched *w, uint32_t kind, uint64_t at, uint64_t span)
{
	uint64_t size = (uint64_t)end_of(fd), have = at >= size ? 0 : size - at < span ? size - at : span;
	struct undo_record r = {.kind = kind, .have = (uint32_t)have, .at = at, .span = span, .size = size};
	char *old = malloc(have + 1);
	long n;

	must(old && have <= UINT32_MAX, "keep old bytes");
	n = have ? syscall(SYS_pread64, fd, old, have, at) : 0;
	if (n < 0 && errno == EBADF) {
		char name[64];
		int again;

		(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		again = sys_open(name, O_RDONLY, 0);
		n = syscall(SYS_pread64, again, old, have, at);
		(void)syscall(SYS_close, again);
	}
	must(n == (long)have, "read old bytes");
	add(w, &r, old);
	free(old);
}

void undo_write(int fd, off_t at, size_t len)
{
	const struct watched *w = find(fd);

	if (!w || w->dir)
		return;
	if (at < 0)
		at = (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) ? end_of(fd) : syscall(SYS_lseek, fd, 0, SEEK_CUR);
	cover(fd, w, UNDO_WRITE, (uint64_t)at, len);
}

void undo_truncate(int fd, off_t to)
{
	const struct watched *w = find(fd);
	uint64_t size = w && !w->dir ? (uint64_t)end_of(fd) : 0;

	if (w && !w->dir)
		cover(fd, w, UNDO_TRUNCATE, (uint64_t)to, size > (uint64_t)to ? size - (uint64_t)to : 0);
}

/* ---------------------------------------------------------------- descriptors */

static int open_undo(const char *path, bool fresh)
{
	struct stat sb;
	char name[PATH_MAX + 64];
	int fd;

	must(syscall(SYS_stat, path, &sb) == 0, "stat a file by name");
	(void)snprintf(name, sizeof(name), "%s/%llu.%s", kept_in, (unsigned long long)sb.st_ino, S_ISDIR(sb.st_mode) ? "dir" : "undo");
	fd = sys_open(name, O_RDWR | O_CREAT | (fresh ? O_TRUNC : 0), 0600);
	must(fd >= 0, "open an undo record");
	if (!S_ISDIR(sb.st_mode) && end_of(fd) <= (off_t)sizeof(struct undo_head)) /* also one cut, and killed before its head said so */
		put(fd, &(struct undo_head){0}, sizeof(struct undo_head), 0);
	return fd;
}

static void dir_line(const char *path, const char *line)
{
	char dir[PATH_MAX];
	char *slash;
	int fd;

	(void)snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	*slash = '\0';
	fd = open_undo(dir, false);
	put(fd, line, strlen(line), end_of(fd));
	(void)syscall(SYS_close, fd);
}

static const char *base(const char *path)
{
	return strrchr(path, '/') + 1;
}

void undo_made(const char *path)
{
	char line[PATH_MAX];

	(void)snprintf(line, sizeof(line), "C %s\n", base(path));
	dir_line(path, line);
}

void undo_opened(int fd, const char *path, bool created, bool truncates)
{
	struct watched *w;
	struct stat sb;

	undo_closed(fd); /* one closed past us */
	if (fd < 0 || fd >= FDS || syscall(SYS_fstat, fd, &sb) != 0)
		return;
	w = calloc(1, sizeof(*w));
	must(w && (w->path = strdup(path)), "remember a file");
	w->dir = S_ISDIR(sb.st_mode);
	w->undo = w->dir ? -1 : open_undo(path, created);
	watched[fd] = w;
	if (created)
		undo_made(path);
	if (truncates && !w->dir)
		undo_truncate(fd, 0);
}

void undo_closed(int fd)
{
	struct watched *w = find(fd);

	if (!w)
		return;
	watched[fd] = NULL;
	if (w->undo >= 0)
		(void)syscall(SYS_close, w->undo);
	free(w->path);
	free(w);
}

/* ---------------------------------------------------------------- entries of folders */

/* A link to what a name stands for, so that it can come back. */
static const char *keep(const char *path, char out[64])
{
	char to[PATH_MAX + 64];

	(void)snprintf(out, 64, "kept-%d-%u", (int)getpid(), kept_n++);
	(void)snprintf(to, sizeof(to), "%s/%s", kept_in, out);
	return syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, to, 0) == 0 ? out : "-";
}

void undo_rename(const char *from, const char *to)
{
	char line[PATH_MAX], kept[64];

	(void)snprintf(line, sizeof(line), "R %s\t%s\t%s\n", base(from), base(to), keep(to, kept));
	dir_line(to, line);
	for (int fd = 0; fd < FDS; fd++) {
		struct watched *w = watched[fd];

		if (!w || strcmp(w->path, from) != 0)
			continue;
		free(w->path);
		w->path = strdup(to); /* rules look at it */
		must(w->path, "remember a file");
	}
}

void undo_unlink(const char *path)
{
	char line[PATH_MAX], kept[64];

	(void)snprintf(line, sizeof(line), "U %s\t%s\n", base(path), keep(path, kept));
	dir_line(path, line);
}

/* ---------------------------------------------------------------- syncs */

uint64_t undo_sync_begin(int fd)
{
	const struct watched *w = find(fd);
	uint64_t end;
	int dir;

	if (!w)
		return 0;
	if (!w->dir)
		return (uint64_t)end_of(w->undo);
	dir = open_undo(w->path, false);
	end = (uint64_t)end_of(dir);
	(void)syscall(SYS_close, dir);
	return end;
}

static void bytes_synced(const struct watched *w, uint64_t began, bool ok)
{
	struct undo_head h;

	must(syscall(SYS_pread64, w->undo, &h, sizeof(h), 0) == sizeof(h), "read an undo record");
	if (!ok || h.failed) {
		h.failed = 1;
		put(w->undo, &h, sizeof(h), 0);
		add(w, &(struct undo_record){.kind = ok ? UNDO_SYNCED : UNDO_SYNC_FAILED, .at = began}, NULL);
		return;
	}
	h.synced = began;
	put(w->undo, &h, sizeof(h), 0);
	if ((uint64_t)end_of(w->undo) > began)
		return;
	must(syscall(SYS_ftruncate, w->undo, sizeof(h)) == 0, "cut an undo record");
	h.synced = 0;
	put(w->undo, &h, sizeof(h), 0);
}

/* What came during the sync stays; what it made durable needs no way back, so the links go too. */
static void entries_synced(const struct watched *w, uint64_t began)
{
	int fd = open_undo(w->path, false);
	size_t len = (size_t)end_of(fd);
	char *text = calloc(1, len + 1), name[PATH_MAX + 64], *line, *end;

	must(text && syscall(SYS_pread64, fd, text, len, 0) == (long)len, "read an undo record");
	for (line = text; (end = strchr(line, '\n')) && (uint64_t)(end - text) < began; line = end + 1) {
		const char *kept;

		*end = '\0';
		kept = strrchr(line, '\t');
		if (!kept || kept[1] == '-')
			continue;
		(void)snprintf(name, sizeof(name), "%s/%s", kept_in, kept + 1);
		(void)syscall(SYS_unlinkat, AT_FDCWD, name, 0); /* may be gone after a cut */
	}
	put(fd, text + began, len - began, 0);
	must(syscall(SYS_ftruncate, fd, len - began) == 0, "cut an undo record");
	(void)syscall(SYS_close, fd);
	free(text);
}

void undo_sync_done(int fd, uint64_t began, bool ok)
{
	const struct watched *w;

	undo_lock();
	w = find(fd);
	if (w && !w->dir)
		bytes_synced(w, began, ok);
	else if (w && ok)
		entries_synced(w, began);
	undo_unlock();
}
