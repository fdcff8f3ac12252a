/*
 * Envelopes in Protocol Buffers. protobuf-c takes more than it says: unknown fields, text that is no UTF-8 or has a
 * NUL in it. So the bytes are walked first, field by field.
 */
#include "wire/draft.h"

#include <string.h>

enum { WIRE_VARINT = 0, WIRE_BYTES = 2 };

static bool read_varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
		uint8_t byte = *(*p)++;

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*out = value;
			return true;
		}
	}
	return false;
}

static bool bad_pb(struct im_refusal *why, const char *what)
{
	im_refuse(why, IM_REFUSE_BAD_PB, "Not a valid im.v1.Send: %s.", what);
	return false;
}

/* One field: known, of its wire type, a string of UTF-8 without NUL (protobuf-c would end it there unseen). */
static bool check_pb_field(const uint8_t **p, const uint8_t *end, struct im_refusal *why)
{
	const ProtobufCFieldDescriptor *field;
	uint64_t tag, value;
	unsigned type;

	if (!read_varint(p, end, &tag))
		return bad_pb(why, "it ends in the middle of a field");
	type = tag & 7;
	field = tag >> 3 <= UINT32_MAX ? protobuf_c_message_descriptor_get_field(&im__v1__send__descriptor, (unsigned)(tag >> 3)) : NULL;
	if (!field) {
		im_refuse(why, IM_REFUSE_BAD_PB, "There is no field number %llu in im.v1.Send.", (unsigned long long)(tag >> 3));
		return false;
	}
	if (type != (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_BYTES ? WIRE_BYTES : WIRE_VARINT)) {
		im_refuse(why, IM_REFUSE_BAD_PB, "The field \"%s\" has the wrong wire type.", field->name);
		return false;
	}
	if (!read_varint(p, end, &value))
		return bad_pb(why, "it ends in the middle of a field");
	if (type == WIRE_VARINT)
		return true;
	if (value > (uint64_t)(end - *p))
		return bad_pb(why, "a field is longer than the payload");
	if (field->type == PROTOBUF_C_TYPE_STRING && (memchr(*p, 0, value) || !im_utf8_valid(*p, value))) {
		im_refuse(why, IM_REFUSE_BAD_PB, "The field \"%s\" is not UTF-8 text, or has a NUL in it.", field->name);
		return false;
	}
	*p += value;
	return true;
}

static bool check_pb(const uint8_t *payload, size_t len, struct im_refusal *why)
{
	const uint8_t *p = payload, *end = payload + len;

	while (p < end)
		if (!check_pb_field(&p, end, why))
			return false;
	return true;
}

/* A JSON text inside a pb field, made compact. */
static bool set_json(struct draft *d, const char *name, const char *s, size_t len, bool object, char **out, size_t *out_len)
{
	json_t *root = json_text_parse(s, len, d->why);
	bool ok = root && (!object || json_is_object(root));

	json_decref(root);
	if (!ok) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The field \"%s\" is not the text of a JSON %s.", name, object ? "object" : "value");
		return false;
	}
	*out = json_text_compact(d->arena, s, len, out_len);
	return *out ? true : draft_no_memory(d->why);
}

static bool take_pb_body(struct draft *d, const Im__V1__Send *m)
{
	char *text;

	switch (m->enc) {
	case IM__V1__ENC__ENC_TEXT:
		if (!im_utf8_valid(m->body.data, m->body.len)) {
			im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The body is not UTF-8: send other bytes with enc ENC_BYTES.");
			return false;
		}
		return draft_body(d, m->body.data, m->body.len);
	case IM__V1__ENC__ENC_BYTES:
		return draft_body(d, m->body.data, m->body.len);
	case IM__V1__ENC__ENC_JSON:
		if (!set_json(d, "body", (const char *)m->body.data, m->body.len, false, &text, &d->out->body.len))
			return false;
		d->out->body.data = (uint8_t *)text;
		return true;
	default:
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The field \"enc\" has the unknown value %d.", (int)m->enc);
		return false;
	}
}

static bool take_pb_strings(struct draft *d, const Im__V1__Send *m)
{
	const struct {
		const char *value;
		bool (*set)(struct draft *, const char *, size_t);
	} strings[] = {
		{m->to, draft_to}, {m->id, draft_id}, {m->type, draft_type}, {m->ct, draft_ct}, {m->alt, draft_alt}, {m->reply, draft_reply},
	};

	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		if (*strings[i].value && !strings[i].set(d, strings[i].value, strlen(strings[i].value)))
			return false;
	return true;
}

static bool take_pb(struct draft *d, const Im__V1__Send *m)
{
	size_t len;

	if (!take_pb_body(d, m) || !take_pb_strings(d, m) || !draft_expiry(d, m->expiry) || !draft_mentions(d, m->n_mentions))
		return false;
	d->out->enc = m->enc;
	for (size_t i = 0; i < m->n_mentions; i++)
		if (!draft_mention(d, m->mentions[i], strlen(m->mentions[i])))
			return false;
	if (*m->ext && (!set_json(d, "ext", m->ext, strlen(m->ext), true, &d->out->ext, &len) || !draft_check_ext(d, len)))
		return false;
	return draft_finish(d);
}

bool im_envelope_pb(const void *payload, size_t len, struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why)
{
	struct draft d = {a, out, why};
	ProtobufCAllocator allocator;
	Im__V1__Send *m;

	draft_start(out, IM__BUS__KIND__KIND_SEND);
	if (len > 0 && !check_pb(payload, len, why))
		return false;
	im_arena_allocator(a, &allocator);
	m = im__v1__send__unpack(&allocator, len, payload);
	if (!m)
		return bad_pb(why, "the fields cannot be read");
	return take_pb(&d, m); /* m lives in the arena */
}
