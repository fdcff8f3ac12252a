/* im_envelope_acks */
#include "fuzz.h"

#include "wire/envelope.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct im_refusal why = {0};
	Im__Bus__Record r;
	struct im_arena a;

	im_arena_init(&a);
	if (im_envelope_acks(data, size, &a, &r, &why)) {
		must(r.n_cursors >= 1 && r.n_cursors <= IM_CURSORS_MAX);
		for (size_t i = 0; i < r.n_cursors; i++) {
			must(im_name_valid(r.cursors[i]->conv + 2, strlen(r.cursors[i]->conv + 2)));
			must(r.cursors[i]->delivered >> 53 == 0 && r.cursors[i]->read >> 53 == 0);
		}
	} else {
		must(why.code != IM_REFUSE_NONE);
	}
	im_arena_finish(&a);
	return 0;
}
