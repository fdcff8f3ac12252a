#include "fuzz.h"
#include "input.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];

static int remove_one(const char *name, const struct stat *sb, int type, struct FTW *ftw)
{
	(void)sb, (void)type;
	return ftw->level > 0 ? remove(name) : 0;
}

void folder_clear(void)
{
	(void)nftw(folder(), remove_one, 16, FTW_DEPTH | FTW_PHYS); /* what stays would be seen as a finding */
}

static void remove_all(void)
{
	folder_clear();
	(void)rmdir(path);
}

const char *folder(void)
{
	const char *tmp = getenv("TMPDIR");

	if (path[0] != '\0')
		return path;
	(void)snprintf(path, sizeof(path), "%.40s/im-fuzz-XXXXXX", tmp ? tmp : "/tmp");
	must(mkdtemp(path));
	(void)atexit(remove_all);
	return path;
}

void folder_put(const char *name, const void *data, size_t len)
{
	const char *slash = strchr(name, '/');
	char file[400];
	int fd;

	if (slash) {
		(void)snprintf(file, sizeof(file), "%s/%.*s", folder(), (int)(slash - name), name);
		(void)mkdir(file, 0700); /* exists, as a rule */
	}
	(void)snprintf(file, sizeof(file), "%s/%s", folder(), name);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	must(close(fd) == 0);
}
