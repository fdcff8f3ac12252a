/*
 * The keys that JSON Web Tokens are verified with. The algorithm belongs to the key and was settled when the
 * key was read; a token's header can only name it, never choose it. So there is no `none`, and a public key is
 * never a secret: keys are found by algorithm and kid together.
 */
#ifndef PLUGIN_JWT_KEY_H
#define PLUGIN_JWT_KEY_H

#include "base/status.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JWT_KEYS_MAX 64u            /* of all files: a few issuers with a few keys each */
#define JWT_KID_MAX 255u            /* longest kid of a key; a token's longer one finds none */
#define JWT_FILE_MAX (256u << 10)   /* of a key file; 64 keys of 4096 bits take 60 KiB */
#define JWT_TRIES_MAX 4u            /* keys tried for one token, when several have the same algorithm and kid or none: while keys change */
#define JWT_RSA_BITS_MIN 2048       /* RFC 7518 3.3 */
#define JWT_RSA_BITS_MAX 8192       /* 8192: 0.3 ms to verify */

struct jwt_alg;
struct jwt_keys;

/*
 * `text`: the setting im_jwt_keys, "ALGORITHM:/path" or "jwks:/path", separated by commas; "" gives no keys.
 * Keys of a JWKS that cannot be used are left out and logged; a file without any fails.
 */
enum im_status jwt_keys_load(const char *text, struct jwt_keys **out, struct im_err *err);
void jwt_keys_free(struct jwt_keys *k); /* secrets are wiped; NULL is fine */
size_t jwt_keys_count(const struct jwt_keys *k); /* 0 for NULL */

enum jwt_signature { JWT_SIGNATURE_GOOD, JWT_SIGNATURE_BAD, JWT_SIGNATURE_NO_KEY };

/* kid NULL: the token names none. */
enum jwt_signature jwt_keys_verify(const struct jwt_keys *k, const char *alg, const char *kid, const void *text, size_t len,
				   const uint8_t *signature, size_t signature_len);

/* ---- for jwks.c ---- */

const struct jwt_alg *jwt_alg_find(const char *name);         /* NULL: not one of ours */
const struct jwt_alg *jwt_alg_of_curve(const char *crv);      /* of RFC 7518: "P-256" */
bool jwt_alg_is_hmac(const struct jwt_alg *alg);
const char *jwt_alg_group(const struct jwt_alg *alg);         /* OpenSSL's name of the curve; NULL: not EC */
size_t jwt_alg_coordinate(const struct jwt_alg *alg);         /* EC: bytes of x, of y, of R and of S */
/* One key more. Takes `pkey` over (also on failure); a secret is copied. kid NULL: none. */
enum im_status jwt_keys_add(struct jwt_keys *k, const struct jwt_alg *alg, const char *kid, EVP_PKEY *pkey, struct im_err *err);
enum im_status jwt_keys_add_secret(struct jwt_keys *k, const struct jwt_alg *alg, const char *kid, const uint8_t *secret, size_t len,
				   struct im_err *err);
/* All usable keys of a JWK Set (RFC 7517). Returns how many there were; *secrets: some are. */
size_t jwks_read(struct jwt_keys *k, const json_t *set, const char *path, bool *secrets);

#endif
