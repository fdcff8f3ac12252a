/*
 * Protocol Buffers by hand, for the two messages that are written and read once per chat message
 * (StoredMessage, LogEntry). What comes out is ordinary proto3 and protobuf-c reads it; lengths of nested
 * messages are written as four-byte varints, so that they can be filled in afterwards.
 */
#ifndef OFFLINE_PACK_H
#define OFFLINE_PACK_H

#include "base/buf.h"
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { PACK_VARINT = 0, PACK_64 = 1, PACK_BYTES = 2, PACK_32 = 5 };

static inline void pack_varint(struct im_buf *b, uint64_t v)
{
	uint8_t out[10];
	size_t n = 0;

	while (v >= 0x80) {
		out[n++] = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	out[n++] = (uint8_t)v;
	im_buf_add(b, out, n);
}

static inline void pack_uint(struct im_buf *b, unsigned field, uint64_t v)
{
	if (v == 0)
		return;
	pack_varint(b, (uint64_t)field << 3 | PACK_VARINT);
	pack_varint(b, v);
}

static inline void pack_bytes(struct im_buf *b, unsigned field, const void *data, size_t len)
{
	if (len == 0)
		return;
	pack_varint(b, (uint64_t)field << 3 | PACK_BYTES);
	pack_varint(b, len);
	im_buf_add(b, data, len);
}

static inline void pack_str(struct im_buf *b, unsigned field, const char *s)
{
	pack_bytes(b, field, s, strlen(s));
}

/* One that protobuf-c packs, written at once to its place. */
static inline void pack_message(struct im_buf *b, unsigned field, const ProtobufCMessage *m)
{
	size_t len = protobuf_c_message_get_packed_size(m);

	pack_varint(b, (uint64_t)field << 3 | PACK_BYTES);
	pack_varint(b, len);
	if (im_buf_reserve(b, len))
		b->len += protobuf_c_message_pack(m, (uint8_t *)b->data + b->len);
}

/* A nested message begins; what follows until pack_close is inside it. */
static inline size_t pack_open(struct im_buf *b, unsigned field)
{
	pack_varint(b, (uint64_t)field << 3 | PACK_BYTES);
	im_buf_add(b, "\x80\x80\x80\0", 4);
	return b->len;
}

static inline void pack_close(struct im_buf *b, size_t at)
{
	size_t len = b->len - at;

	if (b->failed)
		return;
	for (int i = 0; i < 4; i++)
		b->data[at - 4 + (size_t)i] = (char)((len >> (7 * i) & 0x7f) | (i < 3 ? 0x80 : 0));
}

struct unpack {
	const uint8_t *p, *end;
	unsigned field, type;
	uint64_t number;        /* PACK_VARINT, PACK_64, PACK_32 */
	const uint8_t *data;    /* PACK_BYTES */
	size_t len;
};

static inline void unpack_init(struct unpack *u, const uint8_t *data, size_t len)
{
	memset(u, 0, sizeof(*u));
	u->p = data;
	u->end = data + len;
}

static inline bool unpack_varint(struct unpack *u, uint64_t *out)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && u->p < u->end; shift += 7) {
		uint8_t c = *u->p++;

		v |= (uint64_t)(c & 0x7f) << shift;
		if (!(c & 0x80)) {
			*out = v;
			return true;
		}
	}
	return false;
}

static inline bool unpack_fixed(struct unpack *u, unsigned bytes)
{
	if ((size_t)(u->end - u->p) < bytes)
		return false;
	u->number = 0;
	for (unsigned i = 0; i < bytes; i++)
		u->number |= (uint64_t)u->p[i] << (8 * i);
	u->p += bytes;
	return true;
}

/* The next field: 1, at the end 0, malformed -1. */
static inline int unpack_next(struct unpack *u)
{
	uint64_t key;

	if (u->p == u->end)
		return 0;
	if (!unpack_varint(u, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff)
		return -1;
	u->field = (unsigned)(key >> 3);
	u->type = (unsigned)(key & 7);
	switch (u->type) {
	case PACK_VARINT:
		return unpack_varint(u, &u->number) ? 1 : -1;
	case PACK_64:
		return unpack_fixed(u, 8) ? 1 : -1;
	case PACK_32:
		return unpack_fixed(u, 4) ? 1 : -1;
	case PACK_BYTES:
		if (!unpack_varint(u, &u->number) || u->number > (uint64_t)(u->end - u->p))
			return -1;
		u->data = u->p;
		u->len = (size_t)u->number;
		u->p += u->len;
		return 1;
	default:
		return -1;
	}
}

#endif
