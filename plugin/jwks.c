/*
 * JWK Sets (RFC 7517), from a file that somebody else keeps up to date. A key that cannot be used is left out,
 * as the RFC wants it: issuers add new kinds before everybody knows them. What a member may not do is change
 * its meaning: RSA and secrets name one algorithm, curves have one.
 */
#include "base/log.h"
#include "jwt_key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 1024u /* bytes of a member: an RSA modulus of 8192 bits, any secret */

/* A member in base64url. 0: not there, not canonical, or too long. */
static size_t bytes(const json_t *jwk, const char *name, uint8_t out[NUMBER_MAX])
{
	const json_t *v = json_object_get(jwk, name);
	size_t len = 0;

	if (!json_is_string(v) || sodium_base642bin(out, NUMBER_MAX, json_string_value(v), json_string_length(v), NULL, &len, NULL,
						    sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
		return 0;
	return len;
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *build)
{
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY *pkey = NULL;

	if (params && ctx && EVP_PKEY_fromdata_init(ctx) == 1)
		(void)EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params); /* pkey stays NULL */
	EVP_PKEY_CTX_free(ctx);
	OSSL_PARAM_free(params);
	return pkey;
}

/* Half an RSA key or a point beside the curve is no key. */
static EVP_PKEY *checked(EVP_PKEY *pkey)
{
	EVP_PKEY_CTX *ctx = pkey ? EVP_PKEY_CTX_new(pkey, NULL) : NULL;
	bool good = ctx && EVP_PKEY_public_check(ctx) == 1;

	EVP_PKEY_CTX_free(ctx);
	if (good)
		return pkey;
	EVP_PKEY_free(pkey);
	return NULL;
}

static EVP_PKEY *rsa_key(const json_t *jwk)
{
	uint8_t n[NUMBER_MAX], e[NUMBER_MAX];
	size_t n_len = bytes(jwk, "n", n), e_len = bytes(jwk, "e", e);
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	BIGNUM *modulus = BN_bin2bn(n, (int)n_len, NULL), *exponent = BN_bin2bn(e, (int)e_len, NULL);
	EVP_PKEY *pkey = NULL;

	/* An exponent of any length would make each verification as slow as a signature. */
	if (build && modulus && exponent && n_len > 0 && e_len > 0 && e_len <= 8 &&
	    OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus) == 1 &&
	    OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent) == 1)
		pkey = from_params("RSA", build);
	OSSL_PARAM_BLD_free(build);
	BN_free(modulus);
	BN_free(exponent);
	return checked(pkey);
}

static EVP_PKEY *ec_key(const json_t *jwk, const struct jwt_alg *alg)
{
	uint8_t x[NUMBER_MAX], y[NUMBER_MAX], point[1 + 2 * 66];
	size_t len = jwt_alg_coordinate(alg);
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	EVP_PKEY *pkey = NULL;

	point[0] = 4; /* uncompressed */
	if (build && len > 0 && bytes(jwk, "x", x) == len && bytes(jwk, "y", y) == len) {
		memcpy(point + 1, x, len);
		memcpy(point + 1 + len, y, len);
		if (OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, jwt_alg_group(alg), 0) == 1 &&
		    OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * len) == 1)
			pkey = from_params("EC", build);
	}
	OSSL_PARAM_BLD_free(build);
	return checked(pkey);
}

static EVP_PKEY *ed_key(const json_t *jwk)
{
	uint8_t x[NUMBER_MAX];

	if (bytes(jwk, "x", x) != 32)
		return NULL;
	return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, 32);
}

/* use and key_ops say what a key is for; without them it is for everything. */
static bool is_for_verifying(const json_t *jwk)
{
	const json_t *use = json_object_get(jwk, "use"), *ops = json_object_get(jwk, "key_ops"), *op;
	size_t i;

	if (use && !(json_is_string(use) && strcmp(json_string_value(use), "sig") == 0))
		return false;
	if (!ops)
		return true;
	json_array_foreach(ops, i, op)
		if (json_is_string(op) && strcmp(json_string_value(op), "verify") == 0)
			return true;
	return false;
}

/*
 * The algorithm of a key. NULL: it cannot be used. RSA without `alg` is RS256, as the large issuers who leave it
 * out mean it; a secret must say it.
 */
static const struct jwt_alg *alg_of(const json_t *jwk, const char *kty)
{
	const json_t *given = json_object_get(jwk, "alg");
	const char *name = json_string_value(given), *crv = json_string_value(json_object_get(jwk, "crv"));
	const struct jwt_alg *alg = name ? jwt_alg_find(name) : NULL;

	if (given && !alg)
		return NULL;
	if (strcmp(kty, "RSA") == 0)
		return alg ? alg : jwt_alg_find("RS256");
	if (strcmp(kty, "oct") == 0)
		return alg;
	if (!crv || (alg && alg != jwt_alg_of_curve(crv)))
		return NULL;
	return jwt_alg_of_curve(crv);
}

static enum im_status add_secret(struct jwt_keys *k, const json_t *jwk, const struct jwt_alg *alg, const char *kid, struct im_err *err)
{
	uint8_t secret[NUMBER_MAX];
	size_t len = bytes(jwk, "k", secret);
	enum im_status st = jwt_alg_is_hmac(alg) ? jwt_keys_add_secret(k, alg, kid, secret, len, err)
						 : im_fail(err, IM_BAD_INPUT, "a secret cannot be a public key");

	sodium_memzero(secret, sizeof(secret));
	return st;
}

static enum im_status add(struct jwt_keys *k, const json_t *jwk, bool *secrets, struct im_err *err)
{
	const char *kty = json_string_value(json_object_get(jwk, "kty"));
	const json_t *kid = json_object_get(jwk, "kid");
	const struct jwt_alg *alg = kty ? alg_of(jwk, kty) : NULL;
	EVP_PKEY *pkey = NULL;

	if (!alg)
		return im_fail(err, IM_BAD_INPUT, "kty, crv or alg is missing, unknown, or they do not go together");
	if (kid && !json_is_string(kid))
		return im_fail(err, IM_BAD_INPUT, "kid is not a string");
	if (!is_for_verifying(jwk))
		return im_fail(err, IM_BAD_INPUT, "it is not for signatures");
	if (strcmp(kty, "oct") == 0) {
		*secrets = true;
		return add_secret(k, jwk, alg, json_string_value(kid), err);
	}
	if (strcmp(kty, "RSA") == 0)
		pkey = rsa_key(jwk);
	else if (strcmp(kty, "EC") == 0)
		pkey = ec_key(jwk, alg);
	else if (strcmp(kty, "OKP") == 0)
		pkey = ed_key(jwk);
	ERR_clear_error();
	if (!pkey)
		return im_fail(err, IM_BAD_INPUT, "its numbers are no valid key");
	return jwt_keys_add(k, alg, json_string_value(kid), pkey, err);
}

size_t jwks_read(struct jwt_keys *k, const json_t *set, const char *path, bool *secrets)
{
	const json_t *list = json_object_get(set, "keys"), *jwk;
	size_t i, n = 0;

	*secrets = false;
	json_array_foreach(list, i, jwk) {
		struct im_err why = { "" };

		if (add(k, jwk, secrets, &why) == IM_OK)
			n++;
		else
			im_log(IM_LOG_WARNING, "evt=jwt_key file=%s key=%zu left_out=\"%s\"", path, i + 1, why.text);
	}
	return n;
}
