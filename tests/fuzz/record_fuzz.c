/* im_record_read: what is called valid lies inside the data and has the checksum it would be written with. */
#include "fuzz.h"

#include "base/record.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t header[IM_RECORD_HEADER];
	const uint8_t *body;
	size_t len;

	for (uint64_t offset = 0; offset < 2; offset++) {
		if (im_record_read(1, offset, data, size, &body, &len) != IM_RECORD_VALID)
			continue;
		must(len >= 1 && body == data + IM_RECORD_HEADER && body + len <= data + size);
		im_record_header(1, offset, body, len, header);
		must(memcmp(header, data, sizeof(header)) == 0);
	}
	return 0;
}
