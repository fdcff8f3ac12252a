/* A file that holds a key and nothing else, of mode 0600 and ours. */
#ifndef IM_BASE_KEY_FILE_H
#define IM_BASE_KEY_FILE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* IM_NOT_FOUND: there is no such file. IM_BAD_INPUT: it has another length, or others can read it. */
enum im_status im_key_file_read(const char *path, uint8_t *key, size_t len, struct im_err *err);

#endif
