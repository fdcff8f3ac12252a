#include "base/record.h"

#include <assert.h>
#include <string.h>
#include <zlib.h>

static void put_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

static uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t checksum(uint64_t epoch, uint64_t offset, const void *body, size_t len)
{
	uint8_t place[16];
	uLong crc;

	put_u32(place, (uint32_t)epoch);
	put_u32(place + 4, (uint32_t)(epoch >> 32));
	put_u32(place + 8, (uint32_t)offset);
	put_u32(place + 12, (uint32_t)(offset >> 32));
	crc = crc32(0L, place, sizeof(place));
	return (uint32_t)crc32(crc, body, (uInt)len);
}

void im_record_header(uint64_t epoch, uint64_t offset, const void *body, size_t body_len, uint8_t out[8])
{
	assert(body_len >= 1 && body_len <= IM_RECORD_MAX);
	put_u32(out, (uint32_t)body_len);
	put_u32(out + 4, checksum(epoch, offset, body, body_len));
}

enum im_record_verdict im_record_read(uint64_t epoch, uint64_t offset, const uint8_t *data, size_t len,
				      const uint8_t **body, size_t *body_len)
{
	uint32_t n;

	if (len < IM_RECORD_HEADER)
		return IM_RECORD_END;
	n = get_u32(data);
	if (n == 0)
		return get_u32(data + 4) == 0 ? IM_RECORD_END : IM_RECORD_TORN;
	if (n > IM_RECORD_MAX || n > len - IM_RECORD_HEADER)
		return IM_RECORD_TORN;
	if (get_u32(data + 4) != checksum(epoch, offset, data + IM_RECORD_HEADER, n))
		return IM_RECORD_TORN;
	*body = data + IM_RECORD_HEADER;
	*body_len = n;
	return IM_RECORD_VALID;
}
