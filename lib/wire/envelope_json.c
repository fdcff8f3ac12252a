/* Payloads in JSON: envelopes on im/v1/send, acknowledgements on im/v1/ack. */
#include "wire/draft.h"

#include <string.h>

/* ---------------------------------------------------------------- envelopes */

/* The whole payload, for the fields whose text is kept. */
struct json_source {
	const char *text;
	size_t len;
	json_t *root;
};

static bool wrong_type(struct im_refusal *why, const char *key, const char *wanted)
{
	im_refuse(why, IM_REFUSE_BAD_JSON, "\"%s\" must be %s.", key, wanted);
	return false;
}

static bool get_string(struct draft *d, const char *key, json_t *value, bool (*set)(struct draft *, const char *, size_t))
{
	if (json_is_null(value))
		return true; /* the same as left out */
	if (!json_is_string(value))
		return wrong_type(d->why, key, "a string");
	return set(d, json_string_value(value), json_string_length(value));
}

static bool get_mentions(struct draft *d, json_t *value)
{
	json_t *name;
	size_t i;

	if (!json_is_array(value))
		return wrong_type(d->why, "mentions", "an array of user names");
	if (!draft_mentions(d, json_array_size(value)))
		return false;
	json_array_foreach(value, i, name) {
		if (!json_is_string(name))
			return wrong_type(d->why, "mentions", "an array of user names");
		if (!draft_mention(d, json_string_value(name), json_string_length(name)))
			return false;
	}
	return true;
}

static bool get_ext(struct draft *d, const struct json_source *src, json_t *value)
{
	size_t len;

	if (!json_is_object(value))
		return wrong_type(d->why, "ext", "an object");
	d->out->ext = json_text_member(d->arena, src->text, src->len, src->root, "ext", &len);
	return d->out->ext ? draft_check_ext(d, len) : draft_no_memory(d->why);
}

static bool get_enc(struct draft *d, json_t *value)
{
	const char *s = json_string_value(value);

	if (json_is_null(value))
		return true;
	if (!s)
		return wrong_type(d->why, "enc", "a string");
	if (strcmp(s, "base64") == 0) {
		d->out->enc = IM__V1__ENC__ENC_BYTES;
	} else if (strcmp(s, "json") == 0) {
		d->out->enc = IM__V1__ENC__ENC_JSON;
	} else if (strcmp(s, "text") != 0) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"enc\" is base64 or json, or left out for text; not \"%.40s\".", s);
		return false;
	}
	return true;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

/* Strict: padded, no white space, no bits left over. false: not base64. */
static bool base64_decode(const char *s, size_t len, uint8_t *out, size_t *out_len)
{
	size_t pad = 0, n = 0;
	uint32_t bits = 0;

	if (len % 4)
		return false;
	while (pad < 2 && len > 0 && s[len - 1] == '=') {
		len--;
		pad++;
	}
	for (size_t i = 0; i < len; i++) {
		int v = base64_value(s[i]);

		if (v < 0)
			return false;
		bits = bits << 6 | (uint32_t)v;
		if (i % 4 == 3) {
			out[n++] = (uint8_t)(bits >> 16);
			out[n++] = (uint8_t)(bits >> 8);
			out[n++] = (uint8_t)bits;
		}
	}
	if (len % 4 == 3) {
		out[n++] = (uint8_t)(bits >> 10);
		out[n++] = (uint8_t)(bits >> 2);
		bits &= 3;
	} else if (len % 4 == 2) {
		out[n++] = (uint8_t)(bits >> 4);
		bits &= 15;
	} else {
		bits = 0;
	}
	*out_len = n;
	return bits == 0;
}

static bool get_base64(struct draft *d, json_t *value)
{
	size_t len = json_string_length(value);

	d->out->body.data = im_arena_alloc(d->arena, len / 4 * 3 + 1);
	if (!d->out->body.data)
		return draft_no_memory(d->why);
	if (base64_decode(json_string_value(value), len, d->out->body.data, &d->out->body.len))
		return true;
	im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"body\" is not base64: with padding, no line breaks, the alphabet with + and /.");
	return false;
}

static bool get_body(struct draft *d, const struct json_source *src, json_t *value)
{
	size_t len;

	if (d->out->enc == IM__V1__ENC__ENC_JSON) {
		d->out->body.data = (uint8_t *)json_text_member(d->arena, src->text, src->len, src->root, "body", &len);
		d->out->body.len = len;
		return d->out->body.data ? true : draft_no_memory(d->why);
	}
	if (!json_is_string(value))
		return wrong_type(d->why, "body", "a string, or any value together with \"enc\":\"json\"");
	if (d->out->enc == IM__V1__ENC__ENC_BYTES)
		return get_base64(d, value);
	return draft_body(d, json_string_value(value), json_string_length(value));
}

static bool get_field(struct draft *d, const struct json_source *src, const char *key, json_t *value)
{
	static const struct {
		const char *key;
		bool (*set)(struct draft *, const char *, size_t);
	} strings[] = {
		{"to", draft_to}, {"id", draft_id}, {"type", draft_type}, {"ct", draft_ct}, {"alt", draft_alt}, {"reply", draft_reply},
	};

	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		if (strcmp(key, strings[i].key) == 0)
			return get_string(d, key, value, strings[i].set);
	if (strcmp(key, "mentions") == 0)
		return get_mentions(d, value);
	if (strcmp(key, "ext") == 0)
		return get_ext(d, src, value);
	if (strcmp(key, "enc") == 0 || strcmp(key, "body") == 0)
		return true; /* read already, or last: one needs the other */
	if (strcmp(key, "expiry") == 0) {
		if (!json_is_integer(value))
			return wrong_type(d->why, key, "an integer");
		return draft_expiry(d, json_integer_value(value));
	}
	im_refuse(d->why, IM_REFUSE_BAD_JSON, "There is no field \"%.60s\"; application data belongs into \"ext\".", key);
	return false;
}

static bool get_fields(struct draft *d, const struct json_source *src)
{
	json_t *enc = json_object_get(src->root, "enc"), *body = json_object_get(src->root, "body"), *value;
	const char *key;

	if (enc && !get_enc(d, enc))
		return false;
	json_object_foreach(src->root, key, value)
		if (!get_field(d, src, key, value))
			return false;
	return (!body || get_body(d, src, body)) && draft_finish(d);
}

bool im_envelope_json(const void *payload, size_t len, struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why)
{
	struct json_source src = {payload, len, NULL};
	struct draft d = {a, out, why};
	bool ok;

	draft_start(out, IM__BUS__KIND__KIND_SEND);
	src.root = json_text_parse(src.text, len, why);
	if (!src.root)
		return false;
	ok = json_is_object(src.root);
	if (ok)
		ok = get_fields(&d, &src);
	else
		im_refuse(why, IM_REFUSE_BAD_JSON, "An envelope is a JSON object, as in {\"to\":\"u/bob\",\"body\":\"hello\"}.");
	json_decref(src.root);
	return ok;
}

/* ---------------------------------------------------------------- im/v1/ack */

static bool get_cursor_value(struct im_refusal *why, const char *key, json_t *value, uint64_t *out)
{
	if (!json_is_integer(value))
		return wrong_type(why, key, "an integer");
	if (json_integer_value(value) < 0 || json_integer_value(value) > INTEGER_MAX) {
		im_refuse(why, IM_REFUSE_BAD_FIELD, "\"%s\" is a sequence, 0 to 2^53-1.", key);
		return false;
	}
	*out = (uint64_t)json_integer_value(value);
	return true;
}

static bool get_cursor(struct draft *d, json_t *object, Im__Bus__CursorMove *move)
{
	const char *key;
	json_t *value;
	bool moves = false;

	json_object_foreach(object, key, value) {
		if (strcmp(key, "conv") == 0) {
			if (!json_is_string(value))
				return wrong_type(d->why, key, "a string");
			if (!draft_conv_valid(json_string_value(value), json_string_length(value))) {
				im_refuse(d->why, IM_REFUSE_BAD_NAME, "\"conv\" is not u/{user} or g/{group} with a valid name: \"%.80s\".",
					  json_string_value(value));
				return false;
			}
			if (!draft_keep(d, &move->conv, json_string_value(value), json_string_length(value)))
				return false;
		} else if (strcmp(key, "delivered") == 0 || strcmp(key, "read") == 0) {
			if (!get_cursor_value(d->why, key, value, key[0] == 'd' ? &move->delivered : &move->read))
				return false;
			moves = true;
		} else {
			im_refuse(d->why, IM_REFUSE_BAD_JSON, "There is no field \"%.60s\" in an acknowledgement.", key);
			return false;
		}
	}
	if (*move->conv && moves)
		return true;
	im_refuse(d->why, IM_REFUSE_BAD_FIELD, "An acknowledgement needs \"conv\" and \"delivered\" or \"read\".");
	return false;
}

static bool get_cursors(struct draft *d, json_t *root)
{
	Im__Bus__CursorMove *moves;
	size_t i, n = json_array_size(root);
	json_t *object;

	if (!json_is_array(root) || n == 0) {
		im_refuse(d->why, IM_REFUSE_BAD_JSON, "Acknowledgements are a JSON array, as in [{\"conv\":\"u/bob\",\"delivered\":18}].");
		return false;
	}
	if (n > IM_CURSORS_MAX) {
		im_refuse(d->why, IM_REFUSE_TOO_MANY, "%zu cursors; %d are allowed in one packet.", n, IM_CURSORS_MAX);
		return false;
	}
	moves = im_arena_alloc(d->arena, n * sizeof(*moves));
	d->out->cursors = im_arena_alloc(d->arena, n * sizeof(*d->out->cursors));
	if (!moves || !d->out->cursors)
		return draft_no_memory(d->why);
	json_array_foreach(root, i, object) {
		im__bus__cursor_move__init(&moves[i]);
		if (!json_is_object(object))
			return wrong_type(d->why, "[...]", "an array of objects");
		if (!get_cursor(d, object, &moves[i]))
			return false;
		d->out->cursors[d->out->n_cursors++] = &moves[i];
	}
	return true;
}

bool im_envelope_acks(const void *payload, size_t len, struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why)
{
	struct draft d = {a, out, why};
	json_t *root;
	bool ok;

	draft_start(out, IM__BUS__KIND__KIND_ACK);
	root = json_text_parse(payload, len, why);
	if (!root)
		return false;
	ok = get_cursors(&d, root);
	json_decref(root);
	return ok;
}
