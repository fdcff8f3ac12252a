/*
 * Payloads of clients become fields of a Record. Each format is first made sure of as a whole (JSON: depth,
 * then jansson; Protocol Buffers: a walk over the fields), then its fields are checked by the same rules.
 *
 * The difficult idea: a JSON body and `ext` are kept as the text the client wrote, not as what a parser
 * would print again, since numbers would not survive that (1.10, 1e2). jansson keeps an object's members in
 * the order of the text, so the text of the n-th member is found by counting values, and it is copied
 * without the white space between tokens: stored JSON is valid and on one line, and codecs insert it as it is.
 */
#include "wire/envelope.h"

#include <jansson.h>
#include <string.h>

#define INTEGER_MAX 9007199254740991LL /* 2^53-1: what every JSON reader holds exactly */
#define DEPTH_MAX 16                   /* far more than a message needs, far less than any parser's stack */
#define VALUES_MAX 16384               /* a parser takes 50 ns and more for each, and the broker's only thread waits */

/* ---------------------------------------------------------------- JSON text */

/* Behind the string literal that begins at text[at]. */
static size_t skip_string(const char *text, size_t len, size_t at)
{
	for (at++; at < len && text[at] != '"'; at++)
		if (text[at] == '\\')
			at++;
	return at < len ? at + 1 : len;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* What is wrong with the shape of the text, whatever it says. NULL: nothing. */
static const char *too_much(const char *text, size_t len)
{
	size_t depth = 0, values = 1;

	for (size_t i = 0; i < len;) {
		if (text[i] == '"') {
			i = skip_string(text, len, i);
			continue;
		}
		if (text[i] == '{' || text[i] == '[') {
			if (++depth > DEPTH_MAX)
				return "The JSON is nested deeper than 16 levels.";
			values++;
		} else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
			depth--;
		} else if (text[i] == ',') {
			values++;
		}
		if (values > VALUES_MAX)
			return "The JSON has more than 16384 values.";
		i++;
	}
	return NULL;
}

/* NULL: refused in `why`. */
static json_t *parse_json(const char *text, size_t len, struct im_refusal *why)
{
	const char *shape = too_much(text, len);
	json_error_t error;
	json_t *root;

	if (len > 0 && memchr(text, '\0', len)) { /* jansson swallows one behind a number */
		im_refuse(why, IM_REFUSE_BAD_JSON, "There is a NUL byte in the JSON; inside a string write it as \\u0000.");
		return NULL;
	}
	if (shape) {
		im_refuse(why, IM_REFUSE_BAD_JSON, "%s", shape);
		return NULL;
	}
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
	if (!root)
		im_refuse(why, IM_REFUSE_BAD_JSON, "Not valid JSON: %s (line %d, column %d).", error.text, error.line, error.column);
	return root;
}

/* Where the value that begins at or after `at` ends: at a comma or closing bracket of its own level. Valid JSON only. */
static size_t skip_value(const char *text, size_t len, size_t at)
{
	size_t depth = 0;

	while (at < len) {
		char c = text[at];

		if (c == '"') {
			at = skip_string(text, len, at);
			continue;
		}
		if (depth == 0 && (c == ',' || c == '}' || c == ']'))
			break;
		if (c == '{' || c == '[')
			depth++;
		else if (c == '}' || c == ']')
			depth--;
		at++;
	}
	return at;
}

/* Copies JSON without the white space between its tokens. NULL: out of memory. */
static char *copy_compact(struct im_arena *a, const char *text, size_t len, size_t *out_len)
{
	char *out = im_arena_strndup(a, text, len);
	size_t n = 0, end;

	if (!out)
		return NULL;
	for (size_t i = 0; i < len;) {
		if (text[i] == '"') {
			end = skip_string(text, len, i);
			memcpy(out + n, text + i, end - i);
			n += end - i;
			i = end;
		} else {
			if (!is_space(text[i]))
				out[n++] = text[i];
			i++;
		}
	}
	out[n] = '\0';
	*out_len = n;
	return out;
}

/* The text of the member `key` of the object that `text` holds; root is what was parsed from it. */
static char *member_text(struct im_arena *a, const char *text, size_t len, json_t *root, const char *key, size_t *out_len)
{
	size_t index = 0, at = 0, start, end;
	const char *name;
	json_t *value;

	json_object_foreach(root, name, value) {
		if (strcmp(name, key) == 0)
			break;
		index++;
	}
	while (text[at] != '{')
		at++;
	for (;; index--) {
		at++;
		while (text[at] != '"')
			at++;
		at = skip_string(text, len, at);
		while (text[at] != ':')
			at++;
		start = at + 1;
		end = skip_value(text, len, start);
		if (index == 0)
			return copy_compact(a, text + start, end - start, out_len);
		at = end;
	}
}

/* ---------------------------------------------------------------- fields, whatever they came in */

struct draft {
	struct im_arena *arena;
	Im__Bus__Record *out;
	struct im_refusal *why;
};

static bool out_of_memory(struct im_refusal *why)
{
	im_refuse(why, IM_REFUSE_INTERNAL, "The server is out of memory.");
	return false;
}

static bool keep(struct draft *d, char **field, const char *s, size_t len)
{
	*field = im_arena_strndup(d->arena, s, len);
	return *field ? true : out_of_memory(d->why);
}

static bool keep_body(struct draft *d, const void *data, size_t len)
{
	d->out->body.data = (uint8_t *)im_arena_strndup(d->arena, data, len);
	d->out->body.len = len;
	return d->out->body.data ? true : out_of_memory(d->why);
}

/* "u/{name}" or "g/{name}". */
static bool conv_valid(const char *s, size_t len)
{
	return len > 2 && (s[0] == 'u' || s[0] == 'g') && s[1] == '/' && im_name_valid(s + 2, len - 2);
}

static bool set_to(struct draft *d, const char *s, size_t len)
{
	if (!conv_valid(s, len)) {
		im_refuse(d->why, IM_REFUSE_BAD_NAME, "\"to\" is not u/{user} or g/{group} with a valid name: \"%.*s\".",
			  len < 80 ? (int)len : 80, s);
		return false;
	}
	return keep(d, &d->out->conv, s, len);
}

static bool set_id(struct draft *d, const char *s, size_t len)
{
	if (!im_id_valid(s, len)) {
		im_refuse(d->why, IM_REFUSE_BAD_ID, "\"id\" is not 1 to 64 of A-Z a-z 0-9 . _ : ~ -.");
		return false;
	}
	return keep(d, &d->out->id, s, len);
}

static bool set_type(struct draft *d, const char *s, size_t len)
{
	static const char *const reserved[] = {"system", "edit", "recall", "reaction", "member"};
	bool valid = len >= 1 && len <= IM_TYPE_MAX;

	for (size_t i = 0; valid && i < len; i++)
		valid = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9') || s[i] == '.' || s[i] == '_' || s[i] == '-';
	if (!valid) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"type\" is not 1 to %d of a-z 0-9 . _ -.", IM_TYPE_MAX);
		return false;
	}
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		if (strlen(reserved[i]) == len && memcmp(reserved[i], s, len) == 0) {
			im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The type \"%s\" is reserved: clients cannot send it.", reserved[i]);
			return false;
		}
	}
	return keep(d, &d->out->type, s, len);
}

static bool set_ct(struct draft *d, const char *s, size_t len)
{
	if (len > IM_CT_MAX) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The content type has %zu bytes; %d are allowed.", len, IM_CT_MAX);
		return false;
	}
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) {
			im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The content type has a control character in it.");
			return false;
		}
	}
	if (!im_utf8_valid(s, len)) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The content type is not UTF-8.");
		return false;
	}
	return keep(d, &d->out->ct, s, len);
}

static bool set_alt(struct draft *d, const char *s, size_t len)
{
	if (len > IM_ALT_MAX) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"alt\" has %zu bytes; %d are allowed.", len, IM_ALT_MAX);
		return false;
	}
	if (memchr(s, '\0', len)) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"alt\" has a NUL character in it.");
		return false;
	}
	return keep(d, &d->out->alt, s, len);
}

static bool set_reply(struct draft *d, const char *s, size_t len)
{
	uint64_t epoch, offset;
	uint32_t node;

	if (!keep(d, &d->out->reply, s, len))
		return false;
	if (strlen(d->out->reply) == len && im_msgid_decode(d->out->reply, &node, &epoch, &offset))
		return true;
	im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"reply\" is not a msgid: it is the \"msgid\" of the message answered, %d characters.",
		  IM_MSGID_LEN);
	return false;
}

static bool set_expiry(struct draft *d, int64_t ms)
{
	if (ms < 0 || ms > INTEGER_MAX) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"expiry\" is a time in ms since 1970 UTC, 0 to 2^53-1.");
		return false;
	}
	d->out->expiry = ms;
	return true;
}

static bool start_mentions(struct draft *d, size_t n)
{
	if (n > IM_MENTIONS_MAX) {
		im_refuse(d->why, IM_REFUSE_TOO_MANY, "%zu mentions; %d are allowed in one message.", n, IM_MENTIONS_MAX);
		return false;
	}
	d->out->mentions = im_arena_alloc(d->arena, n * sizeof(*d->out->mentions));
	return d->out->mentions ? true : out_of_memory(d->why);
}

static bool add_mention(struct draft *d, const char *s, size_t len)
{
	if (!im_name_valid(s, len) && !(len == 3 && memcmp(s, "all", 3) == 0)) {
		im_refuse(d->why, IM_REFUSE_BAD_NAME, "\"mentions\" holds \"%.*s\", which is neither a user name nor all.",
			  len < 80 ? (int)len : 80, s);
		return false;
	}
	return keep(d, &d->out->mentions[d->out->n_mentions++], s, len);
}

static bool check_ext(struct draft *d, size_t len)
{
	if (len <= IM_EXT_MAX)
		return true;
	im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"ext\" has %zu bytes; %d are allowed.", len, IM_EXT_MAX);
	return false;
}

/* What only shows when all fields are known. */
static bool finish_send(struct draft *d)
{
	static const char *const usual[] = {"text", "bytes", "json"};
	Im__Bus__Record *r = d->out;

	if (!*r->conv) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"to\" is missing: say who gets this, as in \"u/bob\" or \"g/friends\".");
		return false;
	}
	if (!*r->type)
		return keep(d, &r->type, usual[r->enc], strlen(usual[r->enc]));
	if (strcmp(r->type, "text") == 0 && r->enc != IM__V1__ENC__ENC_TEXT) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The type is \"text\" but the body is not: leave out \"enc\", or name another type.");
		return false;
	}
	return true;
}

static void start_record(Im__Bus__Record *out, Im__Bus__Kind kind)
{
	im__bus__record__init(out);
	out->kind = kind;
}

/* ---------------------------------------------------------------- im/v1/to/... */

bool im_envelope_plain(const struct im_topic *topic, const void *payload, size_t len, const char *ct,
		       struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why)
{
	struct draft d = {a, out, why};

	start_record(out, IM__BUS__KIND__KIND_SEND);
	out->enc = im_utf8_valid(payload, len) ? IM__V1__ENC__ENC_TEXT : IM__V1__ENC__ENC_BYTES;
	if (!keep(&d, &out->conv, topic->conv.text, topic->conv.len) || !keep_body(&d, payload, len))
		return false;
	if (topic->id.len > 0 && !keep(&d, &out->id, topic->id.text, topic->id.len))
		return false;
	if (ct && *ct && !set_ct(&d, ct, strlen(ct)))
		return false;
	return finish_send(&d);
}

/* ---------------------------------------------------------------- JSON envelopes */

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
	if (!start_mentions(d, json_array_size(value)))
		return false;
	json_array_foreach(value, i, name) {
		if (!json_is_string(name))
			return wrong_type(d->why, "mentions", "an array of user names");
		if (!add_mention(d, json_string_value(name), json_string_length(name)))
			return false;
	}
	return true;
}

static bool get_ext(struct draft *d, const struct json_source *src, json_t *value)
{
	size_t len;

	if (!json_is_object(value))
		return wrong_type(d->why, "ext", "an object");
	d->out->ext = member_text(d->arena, src->text, src->len, src->root, "ext", &len);
	return d->out->ext ? check_ext(d, len) : out_of_memory(d->why);
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
		return out_of_memory(d->why);
	if (base64_decode(json_string_value(value), len, d->out->body.data, &d->out->body.len))
		return true;
	im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"body\" is not base64: with padding, no line breaks, the alphabet with + and /.");
	return false;
}

static bool get_body(struct draft *d, const struct json_source *src, json_t *value)
{
	size_t len;

	if (d->out->enc == IM__V1__ENC__ENC_JSON) {
		d->out->body.data = (uint8_t *)member_text(d->arena, src->text, src->len, src->root, "body", &len);
		d->out->body.len = len;
		return d->out->body.data ? true : out_of_memory(d->why);
	}
	if (!json_is_string(value))
		return wrong_type(d->why, "body", "a string, or any value together with \"enc\":\"json\"");
	if (d->out->enc == IM__V1__ENC__ENC_BYTES)
		return get_base64(d, value);
	return keep_body(d, json_string_value(value), json_string_length(value));
}

static bool get_field(struct draft *d, const struct json_source *src, const char *key, json_t *value)
{
	static const struct {
		const char *key;
		bool (*set)(struct draft *, const char *, size_t);
	} strings[] = {
		{"to", set_to}, {"id", set_id}, {"type", set_type}, {"ct", set_ct}, {"alt", set_alt}, {"reply", set_reply},
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
		return set_expiry(d, json_integer_value(value));
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
	return (!body || get_body(d, src, body)) && finish_send(d);
}

bool im_envelope_json(const void *payload, size_t len, struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why)
{
	struct json_source src = {payload, len, NULL};
	struct draft d = {a, out, why};
	bool ok;

	start_record(out, IM__BUS__KIND__KIND_SEND);
	src.root = parse_json(src.text, len, why);
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
			if (!conv_valid(json_string_value(value), json_string_length(value))) {
				im_refuse(d->why, IM_REFUSE_BAD_NAME, "\"conv\" is not u/{user} or g/{group} with a valid name: \"%.80s\".",
					  json_string_value(value));
				return false;
			}
			if (!keep(d, &move->conv, json_string_value(value), json_string_length(value)))
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
		return out_of_memory(d->why);
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

	start_record(out, IM__BUS__KIND__KIND_ACK);
	root = parse_json(payload, len, why);
	if (!root)
		return false;
	ok = get_cursors(&d, root);
	json_decref(root);
	return ok;
}

/* ---------------------------------------------------------------- Protocol Buffers */

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
	json_t *root = parse_json(s, len, d->why);
	bool ok = root && (!object || json_is_object(root));

	json_decref(root);
	if (!ok) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The field \"%s\" is not the text of a JSON %s.", name, object ? "object" : "value");
		return false;
	}
	*out = copy_compact(d->arena, s, len, out_len);
	return *out ? true : out_of_memory(d->why);
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
		return keep_body(d, m->body.data, m->body.len);
	case IM__V1__ENC__ENC_BYTES:
		return keep_body(d, m->body.data, m->body.len);
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
		{m->to, set_to}, {m->id, set_id}, {m->type, set_type}, {m->ct, set_ct}, {m->alt, set_alt}, {m->reply, set_reply},
	};

	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		if (*strings[i].value && !strings[i].set(d, strings[i].value, strlen(strings[i].value)))
			return false;
	return true;
}

static bool take_pb(struct draft *d, const Im__V1__Send *m)
{
	size_t len;

	if (!take_pb_body(d, m) || !take_pb_strings(d, m) || !set_expiry(d, m->expiry) || !start_mentions(d, m->n_mentions))
		return false;
	d->out->enc = m->enc;
	for (size_t i = 0; i < m->n_mentions; i++)
		if (!add_mention(d, m->mentions[i], strlen(m->mentions[i])))
			return false;
	if (*m->ext && (!set_json(d, "ext", m->ext, strlen(m->ext), true, &d->out->ext, &len) || !check_ext(d, len)))
		return false;
	return finish_send(d);
}

bool im_envelope_pb(const void *payload, size_t len, struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why)
{
	struct draft d = {a, out, why};
	ProtobufCAllocator allocator;
	Im__V1__Send *m;

	start_record(out, IM__BUS__KIND__KIND_SEND);
	if (len > 0 && !check_pb(payload, len, why))
		return false;
	im_arena_allocator(a, &allocator);
	m = im__v1__send__unpack(&allocator, len, payload);
	if (!m)
		return bad_pb(why, "the fields cannot be read");
	return take_pb(&d, m); /* m lives in the arena */
}
