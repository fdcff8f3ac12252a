#include "encrypt.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/rand.h>
#include <string.h>

#define HASH 32u
#define TAG 16u
#define HEAD (WEBPUSH_SALT + 4 + 1 + WEBPUSH_POINT)
#define RECORD 4096u

static bool hmac(const uint8_t *key, size_t key_len, const void *data, size_t len, uint8_t out[HASH])
{
	unsigned n = 0;

	return HMAC(EVP_sha256(), key, (int)key_len, data, len, out, &n) && n == HASH;
}

/* ---- keys */

static EVP_PKEY *make(const char *group, const uint8_t point[WEBPUSH_POINT], const BIGNUM *secret)
{
	OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	OSSL_PARAM *params = NULL;
	EVP_PKEY *key = NULL;

	if (b && ctx && OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, group, 0) == 1 &&
	    OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, WEBPUSH_POINT) == 1 &&
	    (!secret || OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_PRIV_KEY, secret) == 1))
		params = OSSL_PARAM_BLD_to_param(b);
	if (params && (EVP_PKEY_fromdata_init(ctx) != 1 || EVP_PKEY_fromdata(ctx, &key, secret ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY, params) != 1))
		key = NULL; /* a point beside the curve ends here */
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(b);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

static EVP_PKEY *fixed_key(const uint8_t secret[32])
{
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	EC_POINT *p = group ? EC_POINT_new(group) : NULL;
	BIGNUM *n = BN_bin2bn(secret, 32, NULL);
	uint8_t point[WEBPUSH_POINT];
	EVP_PKEY *key = NULL;

	if (p && n && EC_POINT_mul(group, p, n, NULL, NULL, NULL) == 1 &&
	    EC_POINT_point2oct(group, p, POINT_CONVERSION_UNCOMPRESSED, point, sizeof(point), NULL) == sizeof(point))
		key = make("prime256v1", point, n);
	BN_clear_free(n);
	EC_POINT_free(p);
	EC_GROUP_free(group);
	return key;
}

static bool public_point(EVP_PKEY *key, uint8_t out[WEBPUSH_POINT])
{
	size_t len = 0;

	return EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, out, WEBPUSH_POINT, &len) == 1 && len == WEBPUSH_POINT && out[0] == 4;
}

static bool agree(EVP_PKEY *ours, EVP_PKEY *theirs, uint8_t out[HASH])
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(ours, NULL);
	size_t len = HASH;
	bool ok = ctx && EVP_PKEY_derive_init(ctx) == 1 && EVP_PKEY_derive_set_peer(ctx, theirs) == 1 && EVP_PKEY_derive(ctx, out, &len) == 1 &&
		  len == HASH;

	EVP_PKEY_CTX_free(ctx);
	return ok;
}

/* RFC 8291 3.4, RFC 8188 2.2 and 2.3: steps of HKDF, each one block long. */
static bool derive(const uint8_t secret[HASH], const uint8_t auth[WEBPUSH_AUTH], const uint8_t *their_point, const uint8_t *our_point,
		   const uint8_t salt[WEBPUSH_SALT], uint8_t key[HASH], uint8_t nonce[HASH])
{
	static const char key_info[] = "Content-Encoding: aes128gcm\0\x01", nonce_info[] = "Content-Encoding: nonce\0\x01";
	uint8_t info[14 + 2 * WEBPUSH_POINT + 1] = "WebPush: info", a[HASH], b[HASH];
	bool ok;

	memcpy(info + 14, their_point, WEBPUSH_POINT);
	memcpy(info + 14 + WEBPUSH_POINT, our_point, WEBPUSH_POINT);
	info[sizeof(info) - 1] = 1;
	ok = hmac(auth, WEBPUSH_AUTH, secret, HASH, a) && hmac(a, HASH, info, sizeof(info), b) && hmac(salt, WEBPUSH_SALT, b, HASH, a) &&
	     hmac(a, HASH, key_info, sizeof(key_info) - 1, key) && hmac(a, HASH, nonce_info, sizeof(nonce_info) - 1, nonce);
	OPENSSL_cleanse(a, sizeof(a));
	OPENSSL_cleanse(b, sizeof(b));
	return ok;
}

/* ---- the record */

static bool seal(const uint8_t key[HASH], const uint8_t nonce[HASH], const void *text, size_t len, size_t padded, uint8_t *out, size_t *out_len)
{
	static const uint8_t zeros[WEBPUSH_TEXT_MAX] = { 0 }, delimiter = 2; /* 2: the last record */
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n = 0, all = 0;
	bool ok = ctx && EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, key, nonce) == 1 && EVP_EncryptUpdate(ctx, out, &n, text, (int)len) == 1;

	all += n;
	ok = ok && EVP_EncryptUpdate(ctx, out + all, &n, &delimiter, 1) == 1;
	all += ok ? n : 0;
	ok = ok && EVP_EncryptUpdate(ctx, out + all, &n, zeros, (int)(padded - len)) == 1;
	all += ok ? n : 0;
	ok = ok && EVP_EncryptFinal_ex(ctx, out + all, &n) == 1 && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG, out + all) == 1;
	*out_len = (size_t)all + TAG;
	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

bool webpush_encrypt(const uint8_t point[WEBPUSH_POINT], const uint8_t auth[WEBPUSH_AUTH], const void *text, size_t len, size_t padded,
		     const struct webpush_fixed *fixed, uint8_t out[WEBPUSH_BODY_MAX], size_t *out_len)
{
	EVP_PKEY *theirs = make("prime256v1", point, NULL), *ours = fixed ? fixed_key(fixed->key) : EVP_EC_gen("P-256");
	uint8_t secret[HASH], key[HASH], nonce[HASH], *head = out + WEBPUSH_SALT;
	bool ok = theirs && ours && len <= WEBPUSH_TEXT_MAX;

	if (padded < len)
		padded = len;
	if (padded > WEBPUSH_TEXT_MAX)
		padded = WEBPUSH_TEXT_MAX;
	if (fixed)
		memcpy(out, fixed->salt, WEBPUSH_SALT);
	else
		ok = ok && RAND_bytes(out, WEBPUSH_SALT) == 1;
	head[0] = 0;
	head[1] = 0;
	head[2] = RECORD >> 8;
	head[3] = RECORD & 255;
	head[4] = WEBPUSH_POINT;
	ok = ok && public_point(ours, head + 5) && agree(ours, theirs, secret) && derive(secret, auth, point, head + 5, out, key, nonce) &&
	     seal(key, nonce, text, len, padded, out + HEAD, out_len);
	if (ok)
		*out_len += HEAD;
	OPENSSL_cleanse(secret, sizeof(secret));
	OPENSSL_cleanse(key, sizeof(key));
	EVP_PKEY_free(theirs);
	EVP_PKEY_free(ours);
	return ok;
}
