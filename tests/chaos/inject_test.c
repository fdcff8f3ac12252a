/*
 * Does what its arguments say, one call after another, so that test_faults.py can see what inject.c makes of it.
 *
 *   write FILE AT TEXT | sync FILE | cut FILE SIZE | rename FROM TO | unlink FILE
 *
 * A file is opened (and made) by its first use. Prints for each call 0, the bytes written, or -errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 16

static struct file {
	const char *path;
	int fd;
} files[FILES];

static int descriptor(const char *path)
{
	struct stat sb;
	size_t i = 0;

	while (i < FILES - 1 && files[i].path && strcmp(files[i].path, path) != 0)
		i++;
	if (!files[i].path) {
		bool folder = stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);

		files[i].path = path;
		files[i].fd = folder ? open(path, O_RDONLY | O_DIRECTORY) : open(path, O_RDWR | O_CREAT, 0600);
	}
	return files[i].fd;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc;) {
		const char *call = argv[i], *file = argv[i + 1];
		long rc;

		if (strcmp(call, "write") == 0) {
			rc = pwrite(descriptor(file), argv[i + 3], strlen(argv[i + 3]), atoi(argv[i + 2]));
			i += 4;
		} else if (strcmp(call, "cut") == 0) {
			rc = ftruncate(descriptor(file), atoi(argv[i + 2]));
			i += 3;
		} else if (strcmp(call, "rename") == 0) {
			rc = rename(file, argv[i + 2]);
			i += 3;
		} else {
			rc = strcmp(call, "sync") == 0 ? fsync(descriptor(file)) : unlink(file);
			i += 2;
		}
		printf("%ld ", rc < 0 ? -(long)errno : rc);
	}
	return 0;
}
