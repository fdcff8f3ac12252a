#include "base/key_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum im_status im_key_file_read(const char *path, uint8_t *key, size_t len, struct im_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat sb;
	uint8_t more;
	bool whole;

	if (fd < 0 && errno == ENOENT)
		return im_fail(err, IM_NOT_FOUND, "there is no %s", path);
	if (fd < 0)
		return im_fail(err, IM_FAILED, "cannot read %s: %s", path, strerror(errno));
	whole = fstat(fd, &sb) == 0 && read(fd, key, len) == (ssize_t)len && read(fd, &more, 1) == 0;
	(void)close(fd); /* read only */
	if (!whole)
		return im_fail(err, IM_BAD_INPUT, "%s is not a key of %zu bytes", path, len);
	if (sb.st_mode & 077)
		return im_fail(err, IM_BAD_INPUT, "%s can be read by others: chmod 600 it", path);
	return IM_OK;
}
