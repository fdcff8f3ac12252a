#include "base/number.h"

#include <stddef.h>

const char *im_digits(const char *text, uint64_t most, uint64_t *out)
{
	const char *p = text;
	uint64_t n = 0;

	for (; *p >= '0' && *p <= '9'; p++) {
		unsigned digit = (unsigned)(*p - '0');

		if (digit > most || n > (most - digit) / 10)
			return NULL;
		n = n * 10 + digit;
	}
	if (p == text)
		return NULL;
	*out = n;
	return p;
}
