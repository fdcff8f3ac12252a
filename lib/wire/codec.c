/*
 * Topics and payloads of deliveries. Everything but a message is small and simple; a message may have to
 * be cut to what the device's buffer holds.
 *
 * The difficult idea is the cut: a body's size on the wire depends on its escapes, so a cut is found by
 * writing the message once with an empty body, which tells the room that is left, and then measuring the
 * body character by character until the room is used up. What is dropped first costs the reader least:
 * ext, then alt, then the tail of the body, and only when nothing else helps the remaining fields.
 */
#include "wire/codec.h"

#include <stdint.h>
#include <string.h>

#define CODEC_PREFIX "im/v1/"

static const char *or_empty(const char *s)
{
	return s ? s : "";
}

static void add_uint(struct im_buf *out, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + value % 10);
	while (value /= 10);
	im_buf_add(out, digits + at, sizeof(digits) - at);
}

static void add_int(struct im_buf *out, int64_t value)
{
	if (value < 0)
		im_buf_add_char(out, '-');
	add_uint(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

/* ,"key": where `key` is a literal */
#define add_key(out, key) im_buf_add(out, ",\"" key "\":", sizeof(",\"" key "\":") - 1)

static void add_string(struct im_buf *out, const char *s)
{
	im_json_string(out, s, strlen(s));
}

static void add_string_or_null(struct im_buf *out, const char *s)
{
	if (s && *s)
		add_string(out, s);
	else
		im_buf_add(out, "null", 4);
}

static void add_level(struct im_buf *out, const char *level)
{
	im_buf_add_char(out, '/');
	im_buf_add_str(out, level);
}

static void start_topic(struct im_buf *topic, enum im_codec codec, const char *kind)
{
	im_buf_add(topic, CODEC_PREFIX, sizeof(CODEC_PREFIX) - 1);
	im_buf_add_str(topic, im_codec_level(codec));
	add_level(topic, kind);
}

/* Appends a packed protobuf message. */
static void add_packed(struct im_buf *out, const ProtobufCMessage *m)
{
	size_t len = protobuf_c_message_get_packed_size(m);

	if (len > 0 && im_buf_reserve(out, len))
		out->len += protobuf_c_message_pack(m, (uint8_t *)out->data + out->len);
}

/* ---------------------------------------------------------------- messages */

static void message_topic(enum im_codec codec, const char *kind, const Im__V1__Message *m, struct im_buf *topic)
{
	start_topic(topic, codec, kind);
	add_level(topic, or_empty(m->conv));
	if (codec != IM_CODEC_RAW)
		return;
	add_level(topic, m->from && *m->from ? m->from : "system");
	im_buf_add_char(topic, '/');
	add_uint(topic, m->seq);
}

static const char *way_level(enum im_codec codec, enum im_way way)
{
	static const char *const raw[] = {"msg", "sent", "old", "sys"};

	if (codec == IM_CODEC_RAW)
		return raw[way];
	return way == IM_WAY_SENT ? "sent" : "msg";
}

void im_codec_message_topic(enum im_codec codec, enum im_way way, const Im__V1__Message *m, struct im_buf *topic)
{
	message_topic(codec, way_level(codec, way), m, topic);
}

static void add_body(struct im_buf *out, const Im__V1__Message *m)
{
	size_t len = m->body.len;
	const char *body = len ? (const char *)m->body.data : "";

	switch (m->enc) {
	case IM__V1__ENC__ENC_BYTES:
		im_json_base64(out, body, len);
		add_key(out, "enc");
		im_buf_add(out, "\"base64\"", 8);
		break;
	case IM__V1__ENC__ENC_JSON: /* was checked when it came in */
		im_buf_add(out, len ? body : "null", len ? len : 4);
		add_key(out, "enc");
		im_buf_add(out, "\"json\"", 6);
		break;
	default:
		im_json_string(out, body, len);
		break;
	}
}

static void add_mentions(struct im_buf *out, const Im__V1__Message *m)
{
	if (m->n_mentions == 0)
		return;
	add_key(out, "mentions");
	for (size_t i = 0; i < m->n_mentions; i++) {
		im_buf_add_char(out, i ? ',' : '[');
		add_string(out, m->mentions[i]);
	}
	im_buf_add_char(out, ']');
}

static bool given(const char *s)
{
	return s && *s;
}

static void add_optional(struct im_buf *out, const Im__V1__Message *m)
{
	if (given(m->ct)) {
		add_key(out, "ct");
		add_string(out, m->ct);
	}
	if (m->prev) {
		add_key(out, "prev");
		add_uint(out, m->prev);
	}
	if (given(m->alt)) {
		add_key(out, "alt");
		add_string(out, m->alt);
	}
	if (given(m->reply)) {
		add_key(out, "reply");
		add_string(out, m->reply);
	}
	add_mentions(out, m);
	if (m->expiry) {
		add_key(out, "expiry");
		add_int(out, m->expiry);
	}
	if (given(m->ext)) { /* a JSON object's text, checked when it came in */
		add_key(out, "ext");
		im_buf_add_str(out, m->ext);
	}
	if (m->cut) {
		add_key(out, "cut");
		im_buf_add(out, "true", 4);
	}
}

void im_codec_message_json(const Im__V1__Message *m, struct im_buf *out)
{
	(void)im_buf_reserve(out, 256 + m->body.len); /* one allocation for nearly all; a failure shows in `failed` */
	im_buf_add(out, "{\"id\":", 6);
	add_string_or_null(out, m->id);
	add_key(out, "msgid");
	add_string(out, or_empty(m->msgid));
	add_key(out, "conv");
	add_string(out, or_empty(m->conv));
	add_key(out, "seq");
	add_uint(out, m->seq);
	add_key(out, "ts");
	add_int(out, m->ts);
	add_key(out, "from");
	add_string_or_null(out, m->from);
	add_key(out, "type");
	add_string(out, or_empty(m->type));
	add_key(out, "body");
	add_body(out, m);
	add_optional(out, m);
	im_buf_add_char(out, '}');
}

static void add_message(enum im_codec codec, const Im__V1__Message *m, struct im_buf *payload)
{
	switch (codec) {
	case IM_CODEC_RAW:
		im_buf_add(payload, m->body.data, m->body.len);
		break;
	case IM_CODEC_PB:
		add_packed(payload, &m->base);
		break;
	default:
		im_codec_message_json(m, payload);
		break;
	}
}

/* ---------------------------------------------------------------- the cut */

/* Of a PUBLISH with packet id: type byte, remaining length, topic length, topic, packet id, payload. */
static size_t packet_size(size_t topic_len, size_t payload_len)
{
	size_t remaining = 2 + topic_len + 2 + payload_len, digits = 1;

	for (size_t n = remaining; n > 127; n >>= 7)
		digits++;
	return 1 + digits + remaining;
}

/* The largest payload of a packet of this size. */
static size_t payload_room(size_t topic_len, size_t max_packet)
{
	size_t room = max_packet > topic_len + 6 ? max_packet - topic_len - 6 : 0;

	while (room > 0 && packet_size(topic_len, room) > max_packet)
		room--; /* at most three times */
	return room;
}

/* Bytes that the character s[0..n) takes inside a JSON string. */
static size_t json_width(const char *s, size_t n)
{
	unsigned char c = (unsigned char)s[0];

	if (n != 1)
		return n;
	if (c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t')
		return 2;
	return c < 0x20 ? 6 : 1;
}

/* How much of a text fits into `room` bytes, whole characters only. */
static size_t text_fits(enum im_codec codec, const char *s, size_t len, size_t room)
{
	size_t at = 0, used = 0, n, width;

	while (at < len) {
		n = im_utf8_char(s + at, len - at);
		width = codec == IM_CODEC_JSON ? json_width(s + at, n) : n;
		if (n == 0 || used + width > room) /* what is not UTF-8 ends the text */
			break;
		used += width;
		at += n;
	}
	return at;
}

/* Tag and length in front of a protobuf field of `len` bytes whose tag takes one byte. */
static size_t pb_overhead(size_t len)
{
	size_t digits = 1;

	for (; len > 127; len >>= 7)
		digits++;
	return len ? 1 + digits : 0;
}

static size_t body_fits(enum im_codec codec, const Im__V1__Message *m, size_t room)
{
	size_t overhead = 0;

	if (codec == IM_CODEC_PB) { /* the digits for `room` bytes are enough for fewer */
		overhead = pb_overhead(room);
		if (overhead >= room)
			return 0;
	}
	room -= overhead;
	if (m->enc == IM__V1__ENC__ENC_TEXT)
		return text_fits(codec, (const char *)m->body.data, m->body.len, room);
	if (codec == IM_CODEC_JSON)
		room = room / 4 * 3;
	return room < m->body.len ? room : m->body.len;
}

/* Forgets one field more each time; false: nothing is left to forget but the body. */
static bool forget_field(Im__V1__Message *m)
{
	static char nothing[] = "";

	if (given(m->ext))
		m->ext = nothing;
	else if (given(m->alt))
		m->alt = nothing;
	else
		return false;
	return true;
}

/* A JSON value cannot be shortened: the text that stands for it can. */
static void body_to_text(Im__V1__Message *m, const char *alt)
{
	if (m->enc != IM__V1__ENC__ENC_JSON)
		return;
	m->enc = IM__V1__ENC__ENC_TEXT;
	m->body.data = (uint8_t *)(uintptr_t)alt; /* only read */
	m->body.len = strlen(alt);
}

static bool fits(const struct im_buf *topic, size_t topic_start, const struct im_buf *payload, size_t start, size_t max_packet)
{
	return packet_size(topic->len - topic_start, payload->len - start) <= max_packet;
}

static void write_again(enum im_codec codec, const Im__V1__Message *m, struct im_buf *payload, size_t start)
{
	payload->len = start;
	add_message(codec, m, payload);
}

/* With an empty body: how many bytes are left for it. */
static size_t room_for_body(enum im_codec codec, Im__V1__Message *m, struct im_buf *payload, size_t start, size_t room)
{
	m->body.len = 0;
	write_again(codec, m, payload, start);
	return payload->len - start < room ? room - (payload->len - start) : 0;
}

static void cut_body(enum im_codec codec, Im__V1__Message *m, struct im_buf *payload, size_t start, size_t room)
{
	size_t len = m->body.len, left = room_for_body(codec, m, payload, start, room);

	if (left == 0 && codec != IM_CODEC_RAW) { /* too small even so: leave out all that can be */
		m->ct = m->reply = NULL;
		m->n_mentions = 0;
		m->expiry = 0;
		left = room_for_body(codec, m, payload, start, room);
	}
	m->body.len = len;
	m->body.len = body_fits(codec, m, left);
	write_again(codec, m, payload, start);
}

static void shorten(enum im_codec codec, const Im__V1__Message *whole, size_t max_packet, struct im_buf *topic,
		    size_t topic_start, struct im_buf *payload, size_t start)
{
	Im__V1__Message m = *whole;

	m.cut = true;
	if (codec == IM_CODEC_RAW) {
		topic->len = topic_start;
		message_topic(codec, "cut", &m, topic);
	} else {
		while (forget_field(&m)) {
			write_again(codec, &m, payload, start);
			if (fits(topic, topic_start, payload, start, max_packet))
				return;
		}
	}
	body_to_text(&m, or_empty(whole->alt));
	cut_body(codec, &m, payload, start, payload_room(topic->len - topic_start, max_packet));
}

void im_codec_message(enum im_codec codec, enum im_way way, const Im__V1__Message *m, size_t max_packet,
		      struct im_buf *topic, struct im_buf *payload)
{
	size_t topic_start = topic->len, start = payload->len;

	im_codec_message_topic(codec, way, m, topic);
	add_message(codec, m, payload);
	if (max_packet > 0 && !fits(topic, topic_start, payload, start, max_packet))
		shorten(codec, m, max_packet, topic, topic_start, payload, start);
}

/* ---------------------------------------------------------------- acks */

static void ack_json(struct im_buf *out, const Im__V1__Ack *a)
{
	im_buf_add(out, "{\"id\":", 6);
	add_string_or_null(out, a->id);
	add_key(out, "msgid");
	add_string(out, or_empty(a->msgid));
	add_key(out, "conv");
	add_string(out, or_empty(a->conv));
	add_key(out, "seq");
	add_uint(out, a->seq);
	add_key(out, "ts");
	add_int(out, a->ts);
	add_key(out, "dup");
	im_buf_add_str(out, a->dup ? "true" : "false");
	im_buf_add_char(out, '}');
}

void im_codec_acks(enum im_codec codec, Im__V1__Ack *const *acks, size_t n, struct im_buf *topic, struct im_buf *payload)
{
	Im__V1__Acks all = IM__V1__ACKS__INIT;

	start_topic(topic, codec, "ack");
	switch (codec) {
	case IM_CODEC_RAW: /* the topic says it all; the payload names the conversation */
		if (n == 0)
			return;
		add_level(topic, given(acks[0]->id) ? acks[0]->id : or_empty(acks[0]->msgid));
		im_buf_add_char(topic, '/');
		add_uint(topic, acks[0]->seq);
		im_buf_add_str(payload, or_empty(acks[0]->conv));
		break;
	case IM_CODEC_PB:
		all.n_acks = n;
		all.acks = (Im__V1__Ack **)(uintptr_t)acks; /* only read */
		add_packed(payload, &all.base);
		break;
	default:
		im_buf_add_char(payload, '[');
		for (size_t i = 0; i < n; i++) {
			if (i > 0)
				im_buf_add_char(payload, ',');
			ack_json(payload, acks[i]);
		}
		im_buf_add_char(payload, ']');
		break;
	}
}

/* ---------------------------------------------------------------- errors, events, answers */

void im_codec_error_json(const Im__V1__Error *e, struct im_buf *out)
{
	im_buf_add(out, "{\"code\":", 8);
	add_string(out, or_empty(e->code));
	add_key(out, "reason");
	add_string(out, or_empty(e->reason));
	add_key(out, "fix");
	add_string(out, or_empty(e->fix));
	if (given(e->topic)) {
		add_key(out, "topic");
		add_string(out, e->topic);
	}
	add_key(out, "id");
	add_string_or_null(out, e->id);
	im_buf_add_char(out, '}');
}

void im_codec_error(enum im_codec codec, const Im__V1__Error *e, struct im_buf *topic, struct im_buf *payload)
{
	start_topic(topic, codec, "err");
	switch (codec) {
	case IM_CODEC_RAW:
		add_level(topic, or_empty(e->code));
		im_buf_add_str(payload, or_empty(e->reason));
		break;
	case IM_CODEC_PB:
		add_packed(payload, &e->base);
		break;
	default:
		im_codec_error_json(e, payload);
		break;
	}
}

static void add_event(enum im_codec codec, const char *name, const char *json, struct im_buf *topic, struct im_buf *payload)
{
	Im__V1__Event e = IM__V1__EVENT__INIT;

	add_level(topic, name);
	if (codec != IM_CODEC_PB) {
		im_buf_add_str(payload, json);
		return;
	}
	e.name = (char *)(uintptr_t)name; /* only read */
	e.json = (char *)(uintptr_t)json;
	add_packed(payload, &e.base);
}

void im_codec_event(enum im_codec codec, const char *kind, const char *json, struct im_buf *topic, struct im_buf *payload)
{
	start_topic(topic, codec, "evt");
	add_event(codec, kind, json, topic, payload);
}

void im_codec_state(enum im_codec codec, const char *name, const char *json, struct im_buf *topic, struct im_buf *payload)
{
	start_topic(topic, codec, "state");
	add_event(codec, name, json, topic, payload);
}

/* The members of the object `json`, each with a comma before it. */
static void add_members(struct im_buf *out, const char *json)
{
	size_t len = json ? strlen(json) : 0;

	if (len < 2 || json[0] != '{' || json[len - 1] != '}' || json[1 + strspn(json + 1, " \t\r\n")] == '}')
		return;
	im_buf_add_char(out, ',');
	im_buf_add(out, json + 1, len - 2);
}

/* A page of messages says so even when it is empty, so that clients need not ask whether the field is there. */
static bool add_page(struct im_buf *out, const Im__V1__Response *r)
{
	if (r->error || (r->n_messages == 0 && strcmp(or_empty(r->method), "history") != 0))
		return false;
	add_key(out, "messages");
	im_buf_add_char(out, '[');
	for (size_t i = 0; i < r->n_messages; i++) {
		if (i > 0)
			im_buf_add_char(out, ',');
		im_codec_message_json(r->messages[i], out);
	}
	im_buf_add_char(out, ']');
	return true;
}

static void response_json(const Im__V1__Response *r, struct im_buf *out)
{
	bool page;

	im_buf_add(out, "{\"id\":", 6);
	add_string_or_null(out, r->id);
	add_key(out, "method");
	add_string(out, or_empty(r->method));
	add_key(out, "ok");
	im_buf_add_str(out, r->error ? "false" : "true");
	if (r->error) {
		add_key(out, "error");
		im_codec_error_json(r->error, out);
	} else {
		add_members(out, r->json);
	}
	page = add_page(out, r);
	if (page || r->more) {
		add_key(out, "more");
		im_buf_add_str(out, r->more ? "true" : "false");
	}
	if (given(r->next)) {
		add_key(out, "next");
		add_string(out, r->next);
	}
	im_buf_add_char(out, '}');
}

void im_codec_response(enum im_codec codec, const Im__V1__Response *r, struct im_buf *topic, struct im_buf *payload)
{
	start_topic(topic, codec, "res");
	add_level(topic, or_empty(r->id));
	if (codec == IM_CODEC_PB)
		add_packed(payload, &r->base);
	else
		response_json(r, payload);
}
