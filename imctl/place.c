#include "place.h"

#include "base/conf.h"
#include "store_restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SQLITE_URL "sqlite:"

/* ---- where */

static enum im_status set(char out[PLACE_PATH], struct im_err *err, const char *a, const char *b)
{
	if ((size_t)snprintf(out, PLACE_PATH, "%s%s", a, b) < PLACE_PATH)
		return IM_OK;
	return im_fail(err, IM_BAD_INPUT, "%.150s%.50s: the name is too long", a, b);
}

static enum im_status from_url(char out[PLACE_PATH], const char *setting, const char *url, struct im_err *err)
{
	if (strncmp(url, SQLITE_URL, strlen(SQLITE_URL)) != 0)
		return im_fail(err, IM_BAD_INPUT, "%s is %.100s: nothing can be restored there", setting, url);
	return set(out, err, url + strlen(SQLITE_URL), "");
}

static enum im_status from_config(const char *config, struct place *p, struct im_err *err)
{
	struct im_settings settings;
	enum im_status st = im_settings_find(config, &settings, err);

	if (st != IM_OK)
		return st;
	p->node = settings.node;
	st = set(p->dir, err, settings.dir, "");
	if (st == IM_OK)
		st = from_url(p->store, "im_store", settings.store, err);
	if (st == IM_OK)
		st = from_url(p->sequences, "im_sequences", settings.sequences, err);
	im_settings_finish(&settings);
	return st;
}

/* No configuration yet: as the defaults have it. */
static enum im_status from_dir(const char *dir, struct place *p, struct im_err *err)
{
	enum im_status st;
	char whole[4096];

	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		return im_fail(err, IM_FAILED, "cannot make %.200s: %s", dir, strerror(errno));
	if (!realpath(dir, whole))
		return im_fail(err, IM_FAILED, "%.200s: %s", dir, strerror(errno));
	st = set(p->dir, err, whole, "");
	if (st == IM_OK)
		st = set(p->store, err, p->dir, "/store");
	return st == IM_OK ? set(p->sequences, err, p->dir, "/sequences.db") : st;
}

enum im_status place_find(const char *config, const char *dir, struct place *out, struct im_err *err)
{
	time_t now = time(NULL);
	enum im_status st;
	struct stat sb;
	struct tm tm;

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < sizeof(out->locks) / sizeof(out->locks[0]); i++)
		out->locks[i] = -1;
	if (!gmtime_r(&now, &tm) || strftime(out->stamp, sizeof(out->stamp), "%Y%m%d-%H%M%S", &tm) == 0)
		(void)snprintf(out->stamp, sizeof(out->stamp), "%lld", (long long)now);
	if (access(config, F_OK) == 0)
		st = from_config(config, out, err);
	else if (dir)
		st = from_dir(dir, out, err);
	else
		st = im_fail(err, IM_BAD_INPUT, "say where: --dir DIR, or --config FILE of an instance");
	if (st == IM_OK)
		st = set(out->journal, err, out->dir, "/journal");
	if (st == IM_OK)
		st = set(out->restoring, err, out->store, STORE_RESTORING);
	if (st != IM_OK)
		return st;
	if (stat(out->dir, &sb) != 0)
		return im_fail(err, IM_FAILED, "%.200s: %s", out->dir, strerror(errno));
	out->owner = sb.st_uid;
	out->group = sb.st_gid;
	out->chown = geteuid() == 0 && sb.st_uid != 0;
	return IM_OK;
}

/* ---- locks */

/* Takes the lock of `path`, making the file if its folder is there. */
static enum im_status lock(struct place *p, size_t at, const char *path, const char *whose, struct im_err *err)
{
	p->locks[at] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (p->locks[at] < 0)
		return errno == ENOENT ? IM_OK : im_fail(err, IM_FAILED, "cannot open %.180s: %s", path, strerror(errno));
	if (flock(p->locks[at], LOCK_EX | LOCK_NB) != 0)
		return im_fail(err, IM_BUSY, "%s of %.150s is running: stop the instance first", whose, p->dir);
	return place_give(p, path, err);
}

enum im_status place_lock(struct place *p, struct im_err *err)
{
	static const struct {
		const char *file, *whose;
	} in_dir[] = { { "/run/supervisor.pid", "the supervisor" }, { "/run/parts.lock", "a process" }, { "/journal/lock", "the broker" } };
	char path[PLACE_PATH + 32];
	enum im_status st = IM_OK;

	(void)snprintf(path, sizeof(path), "%s/run", p->dir);
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return im_fail(err, IM_FAILED, "cannot make %.180s: %s", path, strerror(errno));
	st = place_give(p, path, err);
	for (size_t i = 0; i < 3 && st == IM_OK; i++) {
		(void)snprintf(path, sizeof(path), "%s%s", p->dir, in_dir[i].file);
		st = lock(p, i, path, in_dir[i].whose, err);
	}
	(void)snprintf(path, sizeof(path), "%s/lock", p->store);
	return st == IM_OK ? lock(p, 3, path, "the message service", err) : st;
}

void place_unlock(struct place *p)
{
	for (size_t i = 0; i < sizeof(p->locks) / sizeof(p->locks[0]); i++)
		if (p->locks[i] >= 0)
			close(p->locks[i]);
}

/* ---- files */

static bool has_entry(const char *dir, const char *ending)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d))) {
		size_t len = strlen(e->d_name), end = strlen(ending);

		found = len > end && strcmp(e->d_name + len - end, ending) == 0;
	}
	if (d)
		closedir(d);
	return found;
}

bool place_in_use(const struct place *p, const char **what)
{
	char log[PLACE_PATH + 8];

	(void)snprintf(log, sizeof(log), "%s/log", p->store);
	*what = has_entry(p->store, ".db") || has_entry(log, ".log") ? p->store : access(p->sequences, F_OK) == 0 ? p->sequences :
		has_entry(p->journal, ".seg") ? p->journal : NULL;
	return *what != NULL;
}

enum im_status place_give(const struct place *p, const char *path, struct im_err *err)
{
	if (!p->chown || lchown(path, p->owner, p->group) == 0 || errno == ENOENT)
		return IM_OK;
	return im_fail(err, IM_FAILED, "cannot give %.180s to the instance's user: %s", path, strerror(errno));
}

static enum im_status sync_parent(const char *path, struct im_err *err)
{
	char dir[PLACE_PATH];
	enum im_status st = set(dir, err, path, "");
	char *slash = strrchr(dir, '/');
	int fd;

	if (st != IM_OK)
		return st;
	if (slash)
		slash[slash == dir] = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		st = im_fail(err, IM_FAILED, "cannot sync %.200s: %s", dir, strerror(errno));
	if (fd >= 0)
		close(fd);
	return st;
}

enum im_status place_aside(const struct place *p, const char *path, char name[PLACE_PATH], struct im_err *err)
{
	if ((size_t)snprintf(name, PLACE_PATH, "%s.replaced-%s", path, p->stamp) >= PLACE_PATH)
		return im_fail(err, IM_BAD_INPUT, "%.200s: the name is too long", path);
	if (access(path, F_OK) != 0) {
		name[0] = '\0';
		return IM_NOT_FOUND;
	}
	for (int i = 2; access(name, F_OK) == 0 && i < 1000; i++)
		if ((size_t)snprintf(name, PLACE_PATH, "%s.replaced-%s-%d", path, p->stamp, i) >= PLACE_PATH)
			return im_fail(err, IM_BAD_INPUT, "%.200s: the name is too long", path);
	if (rename(path, name) != 0)
		return im_fail(err, IM_FAILED, "cannot put %.180s aside: %s", path, strerror(errno));
	return sync_parent(path, err);
}

static enum im_status remove_file(const char *dir, const char *name, struct im_err *err)
{
	char path[PLACE_PATH + 32];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (unlink(path) == 0 || errno == ENOENT || (errno == EISDIR && rmdir(path) == 0))
		return IM_OK;
	return im_fail(err, IM_FAILED, "cannot remove %.200s: %s", path, strerror(errno));
}

/* What store_restore_begin made, and no more than that. */
static enum im_status remove_unfinished(const char *dir, struct im_err *err)
{
	static const char *const names[] = { "store.db-journal", "store.db-wal", "store.db-shm", "store.db", "lock", "log", STORE_UNFINISHED };
	enum im_status st = IM_OK;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && st == IM_OK; i++)
		st = remove_file(dir, names[i], err);
	if (st == IM_OK && rmdir(dir) != 0)
		st = im_fail(err, IM_FAILED, "cannot remove %.200s: %s", dir, strerror(errno));
	return st;
}

enum im_status place_clear(const struct place *p, struct im_err *err)
{
	char path[PLACE_PATH + 32], kept[PLACE_PATH];
	enum im_status st;

	if (access(p->restoring, F_OK) != 0 || rmdir(p->restoring) == 0)
		return IM_OK;
	(void)snprintf(path, sizeof(path), "%s/" STORE_UNFINISHED, p->restoring);
	if (access(path, F_OK) == 0 || !has_entry(p->restoring, ".db"))
		return remove_unfinished(p->restoring, err);
	st = place_aside(p, p->restoring, kept, err); /* a store that was replaced, by a restore that was ended just then */
	return st == IM_NOT_FOUND ? IM_OK : st;
}

/*
 * The two folders change places, so that at any moment one whole store is there. A file system that cannot do that gets
 * two steps, and a service started between them refuses (store_restore_check).
 */
enum im_status place_switch(struct place *p, char kept[PLACE_PATH], struct im_err *err)
{
	enum im_status st = IM_OK;

	kept[0] = '\0';
	if (access(p->store, F_OK) == 0) {
		if (renameat2(AT_FDCWD, p->restoring, AT_FDCWD, p->store, RENAME_EXCHANGE) == 0) {
			st = sync_parent(p->store, err);
			if (st == IM_OK)
				st = place_aside(p, p->restoring, kept, err);
			return st;
		}
		if (errno != EINVAL && errno != ENOSYS)
			return im_fail(err, IM_FAILED, "cannot put the new store in its place %.150s: %s", p->store, strerror(errno));
		st = place_aside(p, p->store, kept, err);
	}
	if (st == IM_OK && rename(p->restoring, p->store) != 0)
		st = im_fail(err, IM_FAILED, "cannot put the new store in its place %.150s: %s", p->store, strerror(errno));
	return st == IM_OK ? sync_parent(p->store, err) : st;
}
