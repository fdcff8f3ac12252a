/*
 * What devices receive: one topic and one payload per packet, in the device's codec. Appends to the
 * buffers given (topic without NUL); check `failed` once at the end.
 *
 *          json                     pb                        raw
 * message  in/msg/{conv}            pb/msg/{conv}             raw/msg/{conv}/{from}/{seq}, body as it is
 * own      in/sent/{conv}           pb/sent/{conv}            raw/sent/...
 * late     in/msg/{conv}            pb/msg/{conv}             raw/old/...  (older than 30 s)
 * system   in/msg/{conv}            pb/msg/{conv}             raw/sys/...  (from "system")
 * cut      "cut":true               cut = true                raw/cut/...
 */
#ifndef IM_WIRE_CODEC_H
#define IM_WIRE_CODEC_H

#include "base/buf.h"
#include "bus.pb-c.h"
#include "wire/topic.h"

enum im_way { IM_WAY_MSG, IM_WAY_SENT, IM_WAY_OLD, IM_WAY_SYS };

/* The topic alone, so that filters can be asked before anything is encoded. m->conv is as the reader sees it. */
void im_codec_message_topic(enum im_codec codec, enum im_way way, const Im__V1__Message *m, struct im_buf *topic);
/* max_packet: bytes of the whole PUBLISH the device takes, 0 = any; a larger one is shortened and marked. */
void im_codec_message(enum im_codec codec, enum im_way way, const Im__V1__Message *m, size_t max_packet,
		      struct im_buf *topic, struct im_buf *payload);
/* One message as a JSON object (history answers, imctl). */
void im_codec_message_json(const Im__V1__Message *m, struct im_buf *out);

/* All acks in one packet; raw: only acks[0], call once per ack. */
void im_codec_acks(enum im_codec codec, Im__V1__Ack *const *acks, size_t n, struct im_buf *topic, struct im_buf *payload);
void im_codec_error(enum im_codec codec, const Im__V1__Error *e, struct im_buf *topic, struct im_buf *payload);
void im_codec_error_json(const Im__V1__Error *e, struct im_buf *out); /* the object alone */
/* json: a JSON object's text. kind and name: literal topic levels. */
void im_codec_event(enum im_codec codec, const char *kind, const char *json, struct im_buf *topic, struct im_buf *payload);
void im_codec_state(enum im_codec codec, const char *name, const char *json, struct im_buf *topic, struct im_buf *payload);
/* JSON: {"id","method","ok":true, fields of r->json..., "messages":[...],"more","next"} or {"id","method","ok":false,"error":{...}};
   history has "messages" and "more" also when it is empty, other methods only when there are some. */
void im_codec_response(enum im_codec codec, const Im__V1__Response *r, struct im_buf *topic, struct im_buf *payload);

/* JSON text helpers for the hot path (everything else uses jansson). */
void im_json_string(struct im_buf *out, const char *s, size_t len); /* quoted and escaped; invalid UTF-8 becomes U+FFFD */
void im_json_base64(struct im_buf *out, const void *data, size_t len); /* quoted */

#endif
