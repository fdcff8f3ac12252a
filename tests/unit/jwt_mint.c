#include "jwt_mint.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const mint_algs[MINT_ALGS] = { "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
					   "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA" };

static EVP_PKEY *rsa, *ec[3], *ed;
static const char *const groups[3] = { "prime256v1", "secp384r1", "secp521r1" };
static const char *const curves[3] = { "P-256", "P-384", "P-521" };
static const size_t coordinates[3] = { 32, 48, 66 };
static char jwks[16384];

static void need(int ok)
{
	if (!ok)
		abort();
}

const char *mint_secret(void)
{
	return "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
}

/* 256 -> 0, 384 -> 1, 512 -> 2 */
static int size_of(const char *alg)
{
	return alg[2] == '2' ? 0 : alg[2] == '3' ? 1 : 2;
}

static const EVP_MD *md_of(const char *alg)
{
	return size_of(alg) == 0 ? EVP_sha256() : size_of(alg) == 1 ? EVP_sha384() : EVP_sha512();
}

EVP_PKEY *mint_pkey(const char *alg)
{
	switch (alg[0] == 'E' && alg[1] == 'd' ? 'd' : alg[0]) {
	case 'R':
	case 'P': return rsa;
	case 'E': return ec[size_of(alg)];
	case 'd': return ed;
	default: return NULL;
	}
}

const char *mint_base64(const void *data, size_t len)
{
	static char out[8][MINT_TOKEN_MAX];
	static unsigned turn;
	char *text = out[turn++ % 8];

	sodium_bin2base64(text, MINT_TOKEN_MAX, data, len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return text;
}

static const char *number(EVP_PKEY *pkey, const char *name, size_t len)
{
	BIGNUM *n = NULL;
	uint8_t bytes[1024];
	const char *text;

	need(EVP_PKEY_get_bn_param(pkey, name, &n));
	len = len ? len : (size_t)BN_num_bytes(n);
	need(BN_bn2binpad(n, bytes, (int)len) > 0);
	text = mint_base64(bytes, len);
	BN_free(n);
	return text;
}

const char *mint_jwk(const char *alg)
{
	static char out[4][2048];
	static unsigned turn;
	char *text = out[turn++ % 4];
	uint8_t raw[32];
	size_t len = sizeof(raw);
	EVP_PKEY *pkey = mint_pkey(alg);

	if (!pkey) {
		snprintf(text, 2048, "{\"kty\":\"oct\",\"kid\":\"%s\",\"alg\":\"%s\",\"k\":\"%s\"}", alg, alg, mint_base64(mint_secret(), 64));
	} else if (pkey == rsa) {
		snprintf(text, 2048, "{\"kty\":\"RSA\",\"kid\":\"%s\",\"alg\":\"%s\",\"use\":\"sig\",\"n\":\"%s\",\"e\":\"%s\"}", alg, alg,
			 number(rsa, OSSL_PKEY_PARAM_RSA_N, 0), number(rsa, OSSL_PKEY_PARAM_RSA_E, 0));
	} else if (pkey == ed) {
		need(EVP_PKEY_get_raw_public_key(ed, raw, &len));
		snprintf(text, 2048, "{\"kty\":\"OKP\",\"kid\":\"%s\",\"crv\":\"Ed25519\",\"x\":\"%s\"}", alg, mint_base64(raw, len));
	} else {
		int i = size_of(alg);

		snprintf(text, 2048, "{\"kty\":\"EC\",\"kid\":\"%s\",\"crv\":\"%s\",\"x\":\"%s\",\"y\":\"%s\"}", alg, curves[i],
			 number(pkey, OSSL_PKEY_PARAM_EC_PUB_X, coordinates[i]), number(pkey, OSSL_PKEY_PARAM_EC_PUB_Y, coordinates[i]));
	}
	return text;
}

const char *mint_jwks(void)
{
	return jwks;
}

void mint_start(void)
{
	size_t used;

	rsa = EVP_RSA_gen(2048);
	ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	for (int i = 0; i < 3; i++)
		ec[i] = EVP_EC_gen(groups[i]);
	need(rsa && ed && ec[0] && ec[1] && ec[2]);
	used = (size_t)snprintf(jwks, sizeof(jwks), "{\"keys\":[");
	for (int i = 0; i < MINT_ALGS; i++)
		used += (size_t)snprintf(jwks + used, sizeof(jwks) - used, "%s%s", i ? "," : "", mint_jwk(mint_algs[i]));
	snprintf(jwks + used, sizeof(jwks) - used, "]}");
}

void mint_stop(void)
{
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(ed);
	for (int i = 0; i < 3; i++)
		EVP_PKEY_free(ec[i]);
}

/* ---- signing ---- */

static size_t raw_ecdsa(const uint8_t *der, size_t der_len, size_t n, uint8_t *out)
{
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)der_len);

	need(sig && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, (int)n) > 0 && BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + n, (int)n) > 0);
	ECDSA_SIG_free(sig);
	return 2 * n;
}

size_t mint_sign(const char *alg, const void *text, size_t len, uint8_t *out)
{
	EVP_PKEY *pkey = mint_pkey(alg);
	EVP_PKEY_CTX *settings;
	EVP_MD_CTX *ctx;
	uint8_t der[1024];
	size_t n = sizeof(der);
	unsigned mac_len;

	if (!pkey) {
		need(HMAC(md_of(alg), mint_secret(), 64, text, len, out, &mac_len) != NULL);
		return mac_len;
	}
	ctx = EVP_MD_CTX_new();
	need(ctx && EVP_DigestSignInit(ctx, &settings, pkey == ed ? NULL : md_of(alg), NULL, pkey) == 1);
	if (alg[0] == 'P')
		need(EVP_PKEY_CTX_set_rsa_padding(settings, RSA_PKCS1_PSS_PADDING) == 1 &&
		     EVP_PKEY_CTX_set_rsa_pss_saltlen(settings, RSA_PSS_SALTLEN_DIGEST) == 1);
	need(EVP_DigestSign(ctx, der, &n, text, len) == 1);
	EVP_MD_CTX_free(ctx);
	if (alg[0] == 'E' && pkey != ed)
		return raw_ecdsa(der, n, coordinates[size_of(alg)], out);
	memcpy(out, der, n);
	return n;
}

static char *put(const char *header, const char *claims)
{
	static char out[4][MINT_TOKEN_MAX];
	static unsigned turn;
	char *text = out[turn++ % 4];

	snprintf(text, MINT_TOKEN_MAX, "%s.%s", mint_base64(header, strlen(header)), mint_base64(claims, strlen(claims)));
	return text;
}

static char *finish(char *text, const uint8_t *signature, size_t len)
{
	size_t used = strlen(text);

	snprintf(text + used, MINT_TOKEN_MAX - used, ".%s", mint_base64(signature, len));
	return text;
}

char *mint(const char *alg, const char *header, const char *claims)
{
	char *text = put(header, claims);
	uint8_t signature[1024];

	return finish(text, signature, mint_sign(alg, text, strlen(text), signature));
}

char *mint_plain(const char *alg, const char *claims)
{
	char header[100];

	snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"typ\":\"JWT\"}", alg);
	return mint(alg, header, claims);
}

char *mint_hs256(const void *secret, size_t len, const char *header, const char *claims)
{
	char *text = put(header, claims);
	uint8_t mac[64];
	unsigned mac_len;

	need(HMAC(EVP_sha256(), secret, (int)len, (const uint8_t *)text, strlen(text), mac, &mac_len) != NULL);
	return finish(text, mac, mac_len);
}
