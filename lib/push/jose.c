#include "push/jose.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <sodium.h>
#include <string.h>

#define P256_HALF 32
#define SIGNATURE_MOST 1024 /* RSA of 8192 bits */

void push_base64url_add(struct im_buf *out, const void *data, size_t len)
{
	size_t room = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);

	if (!im_buf_reserve(out, room))
		return;
	(void)sodium_bin2base64(out->data + out->len, room, data, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING); /* returns its place */
	out->len += strlen(out->data + out->len);
}

bool push_base64url_read(const char *text, uint8_t *out, size_t room, size_t *len)
{
	static const int variants[] = { sodium_base64_VARIANT_URLSAFE_NO_PADDING, sodium_base64_VARIANT_URLSAFE,
					sodium_base64_VARIANT_ORIGINAL_NO_PADDING, sodium_base64_VARIANT_ORIGINAL };
	size_t n = strlen(text);

	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++)
		if (sodium_base642bin(out, room, text, n, NULL, len, NULL, variants[i]) == 0)
			return true;
	return false;
}

struct evp_pkey_st *push_key_read(const char *pem, size_t len)
{
	BIO *bio = BIO_new_mem_buf(pem, (int)len);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(uintptr_t)"") : NULL; /* an encrypted one is refused, not asked for */

	BIO_free(bio);
	return key;
}

bool push_key_is_p256(const struct evp_pkey_st *key)
{
	char group[64];

	return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) == 1 &&
	       strcmp(group, "prime256v1") == 0;
}

int push_key_rsa_bits(const struct evp_pkey_st *key)
{
	return EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA ? EVP_PKEY_get_bits(key) : 0;
}

/* OpenSSL's signature is ASN.1, JOSE's is two numbers of 32 bytes. */
static bool raw_signature(unsigned char *sig, size_t *len)
{
	const unsigned char *der = sig;
	ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &der, (long)*len);
	bool ok = s && BN_bn2binpad(ECDSA_SIG_get0_r(s), sig, P256_HALF) == P256_HALF &&
		  BN_bn2binpad(ECDSA_SIG_get0_s(s), sig + P256_HALF, P256_HALF) == P256_HALF;

	ECDSA_SIG_free(s);
	*len = (size_t)2 * P256_HALF;
	return ok;
}

static bool sign(enum push_jws alg, EVP_PKEY *key, const void *text, size_t text_len, unsigned char *sig, size_t *len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *params = NULL;
	bool fits = alg == PUSH_JWS_ES256 ? push_key_is_p256(key) : push_key_rsa_bits(key) > 0;
	bool ok = ctx && fits && EVP_DigestSignInit(ctx, &params, EVP_sha256(), NULL, key) == 1;

	if (ok && alg == PUSH_JWS_PS256)
		ok = EVP_PKEY_CTX_set_rsa_padding(params, RSA_PKCS1_PSS_PADDING) == 1 &&
		     EVP_PKEY_CTX_set_rsa_pss_saltlen(params, RSA_PSS_SALTLEN_DIGEST) == 1;
	ok = ok && EVP_DigestSign(ctx, sig, len, text, text_len) == 1 && (alg != PUSH_JWS_ES256 || raw_signature(sig, len));
	EVP_MD_CTX_free(ctx);
	return ok;
}

bool push_jws_sign(struct im_buf *out, enum push_jws alg, struct evp_pkey_st *key, const char *header, const char *claims)
{
	unsigned char signature[SIGNATURE_MOST];
	size_t from = out->len, len = sizeof(signature);

	push_base64url_add(out, header, strlen(header));
	im_buf_add_char(out, '.');
	push_base64url_add(out, claims, strlen(claims));
	if (out->failed || !sign(alg, key, out->data + from, out->len - from, signature, &len))
		return false;
	im_buf_add_char(out, '.');
	push_base64url_add(out, signature, len);
	return !out->failed;
}
