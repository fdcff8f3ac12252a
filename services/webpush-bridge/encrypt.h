/* The body of a Web Push message: aes128gcm with one record (RFC 8188), keys from the subscription (RFC 8291). */
#ifndef WEBPUSH_ENCRYPT_H
#define WEBPUSH_ENCRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEBPUSH_POINT 65u        /* an uncompressed point on P-256 */
#define WEBPUSH_AUTH 16u
#define WEBPUSH_SALT 16u
#define WEBPUSH_BODY_MAX 4096u   /* what a push service must take (RFC 8030 7.2) */
#define WEBPUSH_TEXT_MAX 3993u   /* of it for the text: 86 bytes of head, 16 of tag, 1 of delimiter less */

/* For the RFC's test vector; NULL: fresh ones each time. */
struct webpush_fixed {
	uint8_t key[32];             /* our private key, big-endian */
	uint8_t salt[WEBPUSH_SALT];
};

/*
 * `padded` > len: as many bytes are encrypted, so that the length tells nothing; at most WEBPUSH_TEXT_MAX. false: not a point
 * on the curve, too long, or out of memory.
 */
bool webpush_encrypt(const uint8_t point[WEBPUSH_POINT], const uint8_t auth[WEBPUSH_AUTH], const void *text, size_t len, size_t padded,
		     const struct webpush_fixed *fixed, uint8_t out[WEBPUSH_BODY_MAX], size_t *out_len);

#endif
