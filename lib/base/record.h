/*
 * Checksummed records, the unit of the plugin's journal, of the message log and of snapshots.
 *
 *   u32 length of the body | u32 CRC-32 over (epoch, offset, body) | body        little endian
 *
 * Epoch and offset go into the checksum, so that a record left over from an earlier life of the file,
 * or moved to another place, is not mistaken for one of today's. Files are zeroed before use: length 0
 * is the end of what was written. A record is valid as a whole or not there: readers take the longest
 * valid prefix and never look behind the first hole.
 */
#ifndef IM_BASE_RECORD_H
#define IM_BASE_RECORD_H

#include <stddef.h>
#include <stdint.h>

#define IM_RECORD_HEADER 8u
#define IM_RECORD_MAX (4u << 20) /* the largest body: a message at the largest limit (1 MiB) and its fields, with room */

/* Bytes a body of this length takes with its header. */
static inline size_t im_record_size(size_t body_len)
{
	return IM_RECORD_HEADER + body_len;
}

/* Writes the header for `body` that will stand at (epoch, offset) into out[8]. body_len: 1..IM_RECORD_MAX. */
void im_record_header(uint64_t epoch, uint64_t offset, const void *body, size_t body_len, uint8_t out[8]);

enum im_record_verdict {
	IM_RECORD_VALID,
	IM_RECORD_END,  /* zeros, or fewer than 8 bytes left: nothing was written here */
	IM_RECORD_TORN, /* something is here, but not a whole valid record of this epoch and offset */
};

/* Looks at data[0..len), which stands at (epoch, offset). If valid, *body points into data. */
enum im_record_verdict im_record_read(uint64_t epoch, uint64_t offset, const uint8_t *data, size_t len,
				      const uint8_t **body, size_t *body_len);

#endif
