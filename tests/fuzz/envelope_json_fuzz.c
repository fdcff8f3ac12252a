/* im_envelope_json: what is accepted obeys the limits, and the codec's JSON of it says the same to jansson. */
#include "fuzz.h"

#include "wire/codec.h"
#include "wire/envelope.h"
#include <jansson.h>
#include <string.h>

static void same_string(json_t *back, const char *key, const char *wanted)
{
	const char *have = json_string_value(json_object_get(back, key));

	must(*wanted ? have && strcmp(have, wanted) == 0 : !have);
}

static void same_body(json_t *sent, json_t *back, const Im__Bus__Record *r)
{
	json_t *was = json_object_get(sent, "body"), *is = json_object_get(back, "body");

	if (was)
		must(json_equal(was, is));
	else
		must(r->body.len == 0);
}

/* Sent and received through our own writer, both read by jansson. */
static void compare(const void *data, size_t size, const Im__Bus__Record *r)
{
	Im__V1__Message m = IM__V1__MESSAGE__INIT;
	struct im_buf out;
	json_t *sent, *back;

	m.id = r->id;
	m.conv = r->conv;
	m.type = r->type;
	m.enc = r->enc;
	m.body = r->body;
	m.ct = r->ct;
	m.alt = r->alt;
	m.reply = r->reply;
	m.mentions = r->mentions;
	m.n_mentions = r->n_mentions;
	m.expiry = r->expiry;
	m.ext = r->ext;
	im_buf_init(&out);
	im_codec_message_json(&m, &out);
	must(!memchr(out.data, '\n', out.len));
	sent = json_loadb(data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
	back = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
	must(sent && back);
	same_string(back, "id", r->id);
	same_string(back, "type", r->type);
	same_string(back, "alt", r->alt);
	same_string(back, "ct", r->ct);
	same_string(back, "reply", r->reply);
	same_body(sent, back, r);
	must(json_integer_value(json_object_get(back, "expiry")) == r->expiry);
	must(json_array_size(json_object_get(back, "mentions")) == r->n_mentions);
	if (json_object_get(sent, "ext"))
		must(json_equal(json_object_get(sent, "ext"), json_object_get(back, "ext")));
	json_decref(sent);
	json_decref(back);
	im_buf_finish(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct im_refusal why = {0};
	Im__Bus__Record r;
	struct im_arena a;

	im_arena_init(&a);
	if (im_envelope_json(data, size, &a, &r, &why)) {
		must(im_name_valid(r.conv + 2, strlen(r.conv + 2)));
		must(!*r.id || im_id_valid(r.id, strlen(r.id)));
		must(*r.type && strlen(r.type) <= IM_TYPE_MAX && strcmp(r.type, "system") != 0);
		must(strlen(r.alt) <= IM_ALT_MAX && strlen(r.ct) <= IM_CT_MAX && strlen(r.ext) <= IM_EXT_MAX);
		must(r.n_mentions <= IM_MENTIONS_MAX);
		must(r.enc != IM__V1__ENC__ENC_TEXT || im_utf8_valid(r.body.data, r.body.len));
		compare(data, size, &r);
	} else {
		must(why.code != IM_REFUSE_NONE && im_utf8_valid(why.reason, strlen(why.reason)));
	}
	im_arena_finish(&a);
	return 0;
}
