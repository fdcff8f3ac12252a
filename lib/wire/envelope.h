/*
 * What clients send: payload -> the fields of a bus Record. Input is hostile; every parser here has a
 * fuzz target. Unknown fields are refused, integers are at most 2^53-1, JSON is strict (jansson, depth
 * at most 16, no duplicate keys).
 *
 * Records are filled from `arena`: strings and arrays live until it is finished; nothing is freed singly.
 */
#ifndef IM_WIRE_ENVELOPE_H
#define IM_WIRE_ENVELOPE_H

#include "bus.pb-c.h"
#include "wire/refusal.h"
#include "wire/topic.h"

struct im_arena {
	struct im_arena_block *blocks;
};
void im_arena_init(struct im_arena *a);
void im_arena_finish(struct im_arena *a); /* frees everything; `a` is as after init */
void im_arena_reset(struct im_arena *a);  /* the same, but keeps one block for reuse */
void *im_arena_alloc(struct im_arena *a, size_t len); /* zeroed, aligned; NULL: out of memory */
char *im_arena_strndup(struct im_arena *a, const char *s, size_t len);
/* For protobuf-c's unpack; free does nothing. `out` is valid as long as `a`. */
void im_arena_allocator(struct im_arena *a, ProtobufCAllocator *out);

#define IM_TYPE_MAX 32         /* [a-z0-9._-]; "system", "edit", "recall", "reaction", "member" are reserved for the server or for later */
#define IM_CT_MAX 128
#define IM_ALT_MAX 1024
#define IM_MENTIONS_MAX 64
#define IM_EXT_MAX 4096
#define IM_CURSORS_MAX 256     /* of one im/v1/ack */
#define IM_REQUEST_MAX 65536   /* bytes of a request's or command's payload */

/* im/v1/to/...: the payload is the body; UTF-8 is "text", other bytes "bytes". conv and id come from the topic. */
bool im_envelope_plain(const struct im_topic *topic, const void *payload, size_t len, const char *ct,
		       struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why);
/* im/v1/send: {"to","id","type","body","enc","ct","alt","reply","mentions","expiry","ext"} */
bool im_envelope_json(const void *payload, size_t len, struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why);
/* im/v1/send/pb: im.v1.Send */
bool im_envelope_pb(const void *payload, size_t len, struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why);
/* im/v1/ack: [{"conv","delivered","read"}] */
bool im_envelope_acks(const void *payload, size_t len, struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why);

#endif
