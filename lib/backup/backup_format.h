/* What backup_write.c and backup_read.c share (backup.h has the picture). */
#ifndef IM_BACKUP_FORMAT_H
#define IM_BACKUP_FORMAT_H

#include "backup/backup.h"
#include "base/record.h"

#include <sodium.h>
#include <string.h>

#define BACKUP_HEAD 32u
#define BACKUP_MAGIC "IMBACKUP"
#define BACKUP_DIGEST 32u
#define BACKUP_END_PART (1u + 8 + 8 + BACKUP_DIGEST)
#define BACKUP_END_FILE (1u + 4 + 8 + BACKUP_DIGEST)

static inline void backup_put(uint8_t *p, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t backup_get(const uint8_t *p, int bytes)
{
	uint64_t v = 0;

	for (int i = bytes - 1; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

#endif
