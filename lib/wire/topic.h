/*
 * What a topic or a filter means: the one place that knows the topic tree (docs/protocol.md, Topics).
 * Pure; results point into the text given.
 */
#ifndef IM_WIRE_TOPIC_H
#define IM_WIRE_TOPIC_H

#include "wire/name.h"
#include "wire/refusal.h"

struct im_span {
	const char *text; /* not NUL-terminated */
	size_t len;
};

/* The same numbers as im.bus.Codec. */
enum im_codec { IM_CODEC_NONE, IM_CODEC_JSON, IM_CODEC_RAW, IM_CODEC_PB };

enum im_topic_kind {
	IM_TOPIC_PLAIN,      /* not ours: ordinary MQTT */
	IM_TOPIC_TO,         /* im/v1/to/{u|g}/{name}[/{id}]     conv, id */
	IM_TOPIC_SEND,       /* im/v1/send */
	IM_TOPIC_SEND_PB,    /* im/v1/send/pb */
	IM_TOPIC_ACK,        /* im/v1/ack */
	IM_TOPIC_SIG,        /* im/v1/sig/{u|g}/{name}           conv */
	IM_TOPIC_REQ,        /* im/v1/req/{method}/{request id}  method (may hold dots), id */
	IM_TOPIC_SVC,        /* im/v1/svc/{service}/{method}/{request id}: not built yet */
	IM_TOPIC_INBOX,      /* im/v1/{in|raw|pb}/...: only the server publishes here   codec */
	IM_TOPIC_ROOM,       /* im/v1/room/{group}/{json|pb}: only the server publishes */
	IM_TOPIC_CONTROL,    /* $CONTROL/im/v1 */
	IM_TOPIC_CONTROL_RESPONSE, /* $CONTROL/im/v1/response */
	IM_TOPIC_BUS,        /* $im/...: services only */
	IM_TOPIC_BAD,        /* below im/, $im or $CONTROL/im but none of these: `why` */
};

struct im_topic {
	enum im_topic_kind kind;
	enum im_codec codec;
	struct im_span conv;   /* "u/bob", "g/friends" */
	struct im_span id;     /* message or request id; len 0 = none */
	struct im_span method;
	const char *why;       /* BAD: a sentence (static text) */
	enum im_refusal_code code; /* BAD: bad_topic, bad_name or bad_id */
};

void im_topic_parse(const char *topic, struct im_topic *out);

enum im_filter_kind {
	IM_FILTER_PLAIN,     /* cannot match anything of ours but through a leading wildcard, which grants nothing */
	IM_FILTER_INBOX,     /* im/v1/{in|raw|pb}/...   codec */
	IM_FILTER_ROOM,
	IM_FILTER_CONTROL_RESPONSE,
	IM_FILTER_BUS,
	IM_FILTER_BAD,       /* below im/ but not one of these, or $share with anything of ours: `why` */
};

struct im_filter {
	enum im_filter_kind kind;
	enum im_codec codec;
	bool shared;         /* $share/... (kind tells about the filter behind it) */
	const char *why;
};

void im_filter_parse(const char *filter, struct im_filter *out);

/* Whether `topic` (without wildcards) matches `filter`, as MQTT 3.1.1 section 4.7 has it. Both valid. */
bool im_filter_matches(const char *filter, const char *topic);

/* "in", "raw" or "pb": the level that names the codec. */
const char *im_codec_level(enum im_codec codec);

#endif
