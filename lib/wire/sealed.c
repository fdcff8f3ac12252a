#include "wire/sealed.h"

#include <sodium.h>

#define NONCE crypto_secretbox_NONCEBYTES
#define PURPOSE 3 /* 1 and 2 are the registry's own: services/offline/push_registry.c */

_Static_assert(IM_SEALED_MORE == NONCE + crypto_secretbox_MACBYTES, "what a box is longer by");
_Static_assert(IM_SEALED_KEY == crypto_secretbox_KEYBYTES && IM_SEALED_KEY == crypto_kdf_KEYBYTES, "keys of one length");

void im_sealed_key(const uint8_t store_key[IM_SEALED_KEY], uint8_t out[IM_SEALED_KEY])
{
	(void)crypto_kdf_derive_from_key(out, IM_SEALED_KEY, PURPOSE, "im-push-", store_key); /* fails for other lengths only */
}

void im_seal(const uint8_t key[IM_SEALED_KEY], const void *plain, size_t len, uint8_t *out)
{
	randombytes_buf(out, NONCE);
	(void)crypto_secretbox_easy(out + NONCE, plain, len, out, key); /* as above */
}

bool im_unseal(const uint8_t key[IM_SEALED_KEY], const uint8_t *sealed, size_t len, uint8_t *out)
{
	return len >= IM_SEALED_MORE && crypto_secretbox_open_easy(out, sealed + NONCE, len - NONCE, sealed, key) == 0;
}
