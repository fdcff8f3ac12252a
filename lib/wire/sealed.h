/*
 * Arguments that must not lie in the journal in the clear: those of push.register hold a push token. The broker's plugin seals them, the message
 * service opens them; both know the key of the registrations, {im_push_dir}/store.key.
 */
#ifndef IM_WIRE_SEALED_H
#define IM_WIRE_SEALED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IM_SEALED_METHOD "push.register"
#define IM_SEALED_KEY 32u
#define IM_SEALED_MORE 40u /* bytes longer than what is in it: a nonce and a tag (XSalsa20-Poly1305) */

void im_sealed_key(const uint8_t store_key[IM_SEALED_KEY], uint8_t out[IM_SEALED_KEY]); /* the one for this, from the file's bytes */
void im_seal(const uint8_t key[IM_SEALED_KEY], const void *plain, size_t len, uint8_t *out); /* len + IM_SEALED_MORE bytes */
/* len - IM_SEALED_MORE bytes. false: too short, changed, or sealed with another key. */
bool im_unseal(const uint8_t key[IM_SEALED_KEY], const uint8_t *sealed, size_t len, uint8_t *out);

#endif
