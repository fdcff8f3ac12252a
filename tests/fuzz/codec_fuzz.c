/*
 * im_codec_message: two bytes of packet size, one of choices, the rest is the body. Whatever the body, the
 * JSON parses, the packet fits, and a body that was not cut is the one that was put in.
 */
#include "fuzz.h"

#include "wire/codec.h"
#include <jansson.h>
#include <string.h>

enum { SMALLEST = 256 }; /* no message of these fields needs more with an empty body */

static void check_json(const struct im_buf *payload, const Im__V1__Message *m)
{
	json_t *root = json_loadb(payload->data, payload->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL), *body;

	must(root);
	body = json_object_get(root, "body");
	must(json_is_string(body));
	if (!json_is_true(json_object_get(root, "cut")) && m->enc == IM__V1__ENC__ENC_TEXT && im_utf8_valid(m->body.data, m->body.len))
		must(json_string_length(body) == m->body.len &&
		     (m->body.len == 0 || memcmp(json_string_value(body), m->body.data, m->body.len) == 0));
	json_decref(root);
}

static void check_pb(const struct im_buf *payload, const Im__V1__Message *m)
{
	Im__V1__Message *back = im__v1__message__unpack(NULL, payload->len, (uint8_t *)payload->data);

	must(back);
	must(back->body.len <= m->body.len && (back->cut || back->body.len == m->body.len));
	must(back->body.len == 0 || memcmp(back->body.data, m->body.data, back->body.len) == 0);
	im__v1__message__free_unpacked(back, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Im__V1__Message m = IM__V1__MESSAGE__INIT;
	struct im_buf topic, payload;
	enum im_codec codec;
	size_t max;

	if (size < 3)
		return 0;
	max = (size_t)data[0] << 8 | data[1];
	max = max && max < SMALLEST ? SMALLEST : max;
	codec = (enum im_codec)(IM_CODEC_JSON + data[2] % 3);
	m.msgid = "00400000000000000000000000";
	m.conv = "g/friends";
	m.from = "alice";
	m.seq = 7;
	m.ts = 1700000000000;
	m.type = "x";
	m.enc = data[2] & 4 ? IM__V1__ENC__ENC_BYTES : IM__V1__ENC__ENC_TEXT;
	m.alt = data[2] & 8 ? "instead" : "";
	m.ext = data[2] & 16 ? "{\"a\":1}" : "";
	m.body.data = (uint8_t *)(uintptr_t)(data + 3);
	m.body.len = size - 3;
	im_buf_init(&topic);
	im_buf_init(&payload);
	im_codec_message(codec, (enum im_way)(data[2] >> 6), &m, max, &topic, &payload);
	must(!topic.failed && !payload.failed && topic.len <= IM_TOPIC_MAX);
	must(max == 0 || 5 + 4 + topic.len + payload.len <= max + 3); /* the length field takes 1 to 4 bytes */
	if (codec == IM_CODEC_JSON)
		check_json(&payload, &m);
	else if (codec == IM_CODEC_PB)
		check_pb(&payload, &m);
	im_buf_finish(&topic);
	im_buf_finish(&payload);
	return 0;
}
