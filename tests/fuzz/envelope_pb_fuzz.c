/* im_envelope_pb: what is accepted obeys the limits of the JSON envelope. */
#include "fuzz.h"

#include "wire/envelope.h"
#include <jansson.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct im_refusal why = {0};
	Im__Bus__Record r;
	struct im_arena a;
	json_t *value;

	im_arena_init(&a);
	if (im_envelope_pb(data, size, &a, &r, &why)) {
		must(im_name_valid(r.conv + 2, strlen(r.conv + 2)));
		must(!*r.id || im_id_valid(r.id, strlen(r.id)));
		must(*r.type && strlen(r.type) <= IM_TYPE_MAX);
		must(strlen(r.alt) <= IM_ALT_MAX && im_utf8_valid(r.alt, strlen(r.alt)) && strlen(r.ext) <= IM_EXT_MAX);
		must(r.enc != IM__V1__ENC__ENC_TEXT || im_utf8_valid(r.body.data, r.body.len));
		if (r.enc == IM__V1__ENC__ENC_JSON) {
			value = json_loadb((const char *)r.body.data, r.body.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
			must(value);
			json_decref(value);
		}
	} else {
		must(why.code != IM_REFUSE_NONE && im_utf8_valid(why.reason, strlen(why.reason)));
	}
	im_arena_finish(&a);
	return 0;
}
