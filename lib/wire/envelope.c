/* The fields of a message, whatever they came in (draft.h), and the plainest envelope: none. */
#include "wire/draft.h"

#include <string.h>

bool draft_no_memory(struct im_refusal *why)
{
	im_refuse(why, IM_REFUSE_INTERNAL, "The server is out of memory.");
	return false;
}

bool draft_keep(struct draft *d, char **field, const char *s, size_t len)
{
	*field = im_arena_strndup(d->arena, s, len);
	return *field ? true : draft_no_memory(d->why);
}

bool draft_body(struct draft *d, const void *data, size_t len)
{
	d->out->body.data = (uint8_t *)im_arena_strndup(d->arena, data, len);
	d->out->body.len = len;
	return d->out->body.data ? true : draft_no_memory(d->why);
}

/* "u/{name}" or "g/{name}". */
bool draft_conv_valid(const char *s, size_t len)
{
	return len > 2 && (s[0] == 'u' || s[0] == 'g') && s[1] == '/' && im_name_valid(s + 2, len - 2);
}

bool draft_to(struct draft *d, const char *s, size_t len)
{
	if (!draft_conv_valid(s, len)) {
		im_refuse(d->why, IM_REFUSE_BAD_NAME, "\"to\" is not u/{user} or g/{group} with a valid name: \"%.*s\".",
			  len < 80 ? (int)len : 80, s);
		return false;
	}
	return draft_keep(d, &d->out->conv, s, len);
}

bool draft_id(struct draft *d, const char *s, size_t len)
{
	if (!im_id_valid(s, len)) {
		im_refuse(d->why, IM_REFUSE_BAD_ID, "\"id\" is not 1 to 64 of A-Z a-z 0-9 . _ : ~ -.");
		return false;
	}
	return draft_keep(d, &d->out->id, s, len);
}

bool draft_type(struct draft *d, const char *s, size_t len)
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
	return draft_keep(d, &d->out->type, s, len);
}

bool draft_ct(struct draft *d, const char *s, size_t len)
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
	return draft_keep(d, &d->out->ct, s, len);
}

bool draft_alt(struct draft *d, const char *s, size_t len)
{
	if (len > IM_ALT_MAX) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"alt\" has %zu bytes; %d are allowed.", len, IM_ALT_MAX);
		return false;
	}
	if (memchr(s, '\0', len)) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"alt\" has a NUL character in it.");
		return false;
	}
	return draft_keep(d, &d->out->alt, s, len);
}

bool draft_reply(struct draft *d, const char *s, size_t len)
{
	uint64_t epoch, offset;
	uint32_t node;

	if (!draft_keep(d, &d->out->reply, s, len))
		return false;
	if (strlen(d->out->reply) == len && im_msgid_decode(d->out->reply, &node, &epoch, &offset))
		return true;
	im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"reply\" is not a msgid: it is the \"msgid\" of the message answered, %d characters.",
		  IM_MSGID_LEN);
	return false;
}

bool draft_expiry(struct draft *d, int64_t ms)
{
	if (ms < 0 || ms > INTEGER_MAX) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"expiry\" is a time in ms since 1970 UTC, 0 to 2^53-1.");
		return false;
	}
	d->out->expiry = ms;
	return true;
}

bool draft_mentions(struct draft *d, size_t n)
{
	if (n > IM_MENTIONS_MAX) {
		im_refuse(d->why, IM_REFUSE_TOO_MANY, "%zu mentions; %d are allowed in one message.", n, IM_MENTIONS_MAX);
		return false;
	}
	d->out->mentions = im_arena_alloc(d->arena, n * sizeof(*d->out->mentions));
	return d->out->mentions ? true : draft_no_memory(d->why);
}

bool draft_mention(struct draft *d, const char *s, size_t len)
{
	if (!im_name_valid(s, len) && !(len == 3 && memcmp(s, "all", 3) == 0)) {
		im_refuse(d->why, IM_REFUSE_BAD_NAME, "\"mentions\" holds \"%.*s\", which is neither a user name nor all.",
			  len < 80 ? (int)len : 80, s);
		return false;
	}
	return draft_keep(d, &d->out->mentions[d->out->n_mentions++], s, len);
}

bool draft_check_ext(struct draft *d, size_t len)
{
	if (len <= IM_EXT_MAX)
		return true;
	im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"ext\" has %zu bytes; %d are allowed.", len, IM_EXT_MAX);
	return false;
}

/* What only shows when all fields are known. */
bool draft_finish(struct draft *d)
{
	static const char *const usual[] = {"text", "bytes", "json"};
	Im__Bus__Record *r = d->out;

	if (!*r->conv) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "\"to\" is missing: say who gets this, as in \"u/bob\" or \"g/friends\".");
		return false;
	}
	if (!*r->type)
		return draft_keep(d, &r->type, usual[r->enc], strlen(usual[r->enc]));
	if (strcmp(r->type, "text") == 0 && r->enc != IM__V1__ENC__ENC_TEXT) {
		im_refuse(d->why, IM_REFUSE_BAD_FIELD, "The type is \"text\" but the body is not: leave out \"enc\", or name another type.");
		return false;
	}
	return true;
}

void draft_start(Im__Bus__Record *out, Im__Bus__Kind kind)
{
	im__bus__record__init(out);
	out->kind = kind;
}

/* ---------------------------------------------------------------- im/v1/to/... */

bool im_envelope_plain(const struct im_topic *topic, const void *payload, size_t len, const char *ct,
		       struct im_arena *a, Im__Bus__Record *out, struct im_refusal *why)
{
	struct draft d = {a, out, why};

	draft_start(out, IM__BUS__KIND__KIND_SEND);
	out->enc = im_utf8_valid(payload, len) ? IM__V1__ENC__ENC_TEXT : IM__V1__ENC__ENC_BYTES;
	if (!draft_keep(&d, &out->conv, topic->conv.text, topic->conv.len) || !draft_body(&d, payload, len))
		return false;
	if (topic->id.len > 0 && !draft_keep(&d, &out->id, topic->id.text, topic->id.len))
		return false;
	if (ct && *ct && !draft_ct(&d, ct, strlen(ct)))
		return false;
	return draft_finish(&d);
}
