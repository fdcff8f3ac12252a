/* Compact JSON Web Signatures (RFC 7515) as providers want them from us, and base64url. */
#ifndef IM_PUSH_JOSE_H
#define IM_PUSH_JOSE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct evp_pkey_st; /* OpenSSL's EVP_PKEY */

enum push_jws { PUSH_JWS_ES256, PUSH_JWS_RS256, PUSH_JWS_PS256 };

/* Without padding. */
void push_base64url_add(struct im_buf *out, const void *data, size_t len);
/* Takes padding and the standard alphabet too, as browsers differ. false: no base64, or more than `room` bytes. */
bool push_base64url_read(const char *text, uint8_t *out, size_t room, size_t *len);

/* Appends header.claims.signature; both are JSON. false: the key does not fit the algorithm, or out of memory. */
bool push_jws_sign(struct im_buf *out, enum push_jws alg, struct evp_pkey_st *key, const char *header, const char *claims);

/* A private key from PEM. NULL: none, or encrypted. The caller frees it (EVP_PKEY_free). */
struct evp_pkey_st *push_key_read(const char *pem, size_t len);
bool push_key_is_p256(const struct evp_pkey_st *key);
/* 0: it is no RSA key. */
int push_key_rsa_bits(const struct evp_pkey_st *key);

#endif
