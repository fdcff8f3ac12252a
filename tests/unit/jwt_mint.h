/* Tokens made by hand, good and bad ones, with keys of every algorithm. For tests and the benchmark. */
#ifndef TESTS_JWT_MINT_H
#define TESTS_JWT_MINT_H

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

#define MINT_ALGS 13
#define MINT_TOKEN_MAX 70000

extern const char *const mint_algs[MINT_ALGS];

void mint_start(void);                  /* makes the keys: one for all RSA algorithms, one secret for all HS */
void mint_stop(void);
/* A JWK Set with a key per algorithm, the algorithm as kid. Static. */
const char *mint_jwks(void);
/* One such key. */
const char *mint_jwk(const char *alg);
EVP_PKEY *mint_pkey(const char *alg);   /* NULL: HS */
const char *mint_secret(void);          /* 64 bytes of text */

/* base64url without padding. Static, of one of eight buffers in turn. */
const char *mint_base64(const void *data, size_t len);
/* header.claims.signature, signed as `alg` says with that algorithm's key. Static, one of four in turn. */
char *mint(const char *alg, const char *header, const char *claims);
/* {"alg":alg,"typ":"JWT"} */
char *mint_plain(const char *alg, const char *claims);
/* Signed with HMAC-SHA256 and any secret. */
char *mint_hs256(const void *secret, size_t len, const char *header, const char *claims);
size_t mint_sign(const char *alg, const void *text, size_t len, uint8_t *out);

#endif
