/* Arguments that are sealed for the journal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "wire/sealed.h"

#include <sodium.h>
#include <string.h>

#define TEXT "{\"token\":\"f00d\"}"
#define LEN (sizeof(TEXT) - 1)

static void what_is_sealed_opens_with_its_key_alone(void **state)
{
	uint8_t store_key[IM_SEALED_KEY] = {1}, key[IM_SEALED_KEY], other[IM_SEALED_KEY], sealed[LEN + IM_SEALED_MORE], again[LEN + IM_SEALED_MORE], plain[LEN];

	(void)state;
	im_sealed_key(store_key, key);
	store_key[0] = 2;
	im_sealed_key(store_key, other);
	im_seal(key, TEXT, LEN, sealed);
	im_seal(key, TEXT, LEN, again);
	assert_memory_not_equal(sealed, again, sizeof(sealed)); /* who looks cannot tell the same token */
	assert_null(memmem(sealed, sizeof(sealed), "f00d", 4));
	assert_true(im_unseal(key, sealed, sizeof(sealed), plain));
	assert_memory_equal(plain, TEXT, LEN);
	assert_false(im_unseal(other, sealed, sizeof(sealed), plain));
	for (size_t len = 0; len < sizeof(sealed); len++)
		assert_false(im_unseal(key, sealed, len, plain));
	for (size_t i = 0; i < sizeof(sealed); i++) {
		sealed[i] ^= 1;
		assert_false(im_unseal(key, sealed, sizeof(sealed), plain));
		sealed[i] ^= 1;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_sealed_opens_with_its_key_alone),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
