/* plugin/jwt_key.c, jwks.c: which keys are taken, and what each is good for. */
#include "jwt_mint.h"
#include "jwt_world.h"

#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RFC_CLAIMS "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
#define RFC_RSA_N                                                                                                                \
	"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_" \
	"YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uD" \
	"Zlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"

/* Appendices A.1 to A.4 of RFC 7515, A.4 of RFC 8037. Three have claims that are none; there the signature is what counts. */
static const struct vector {
	const char *jwk, *token;
	enum jwt_verdict want;
} vectors[] = {
	{ "{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}",
	  "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." RFC_CLAIMS ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", JWT_GOOD },
	{ "{\"kty\":\"RSA\",\"n\":\"" RFC_RSA_N "\",\"e\":\"AQAB\"}",
	  "eyJhbGciOiJSUzI1NiJ9." RFC_CLAIMS
	  ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQj"
	  "bKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZES"
	  "c6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw", JWT_GOOD },
	{ "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
	  "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
	  "eyJhbGciOiJFUzI1NiJ9." RFC_CLAIMS
	  ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", JWT_GOOD },
	{ "{\"kty\":\"EC\",\"crv\":\"P-521\",\"x\":\"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk\","
	  "\"y\":\"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2\"}",
	  "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA."
	  "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8"
	  "KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn", JWT_MALFORMED },
	{ "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
	  "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
	  "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", JWT_MALFORMED },
};

static void the_rfcs_own_examples_verify(void **state)
{
	struct jwt_rules rules = plain;
	struct jwt_claims c;
	char set[2048], *spoiled;

	(void)state;
	rules.user_claim = "iss"; /* they have no sub */
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		struct jwt_keys *k;

		snprintf(set, sizeof(set), "{\"keys\":[%s]}", vectors[i].jwk);
		k = load_set(set);
		assert_non_null(k);
		assert_int_equal(jwt_check(k, &rules, vectors[i].token, 1300819379, &c), vectors[i].want);
		if (vectors[i].want == JWT_GOOD) {
			assert_string_equal(c.user, "joe");
			assert_int_equal(c.expires_s, 1300819380);
			assert_int_equal(jwt_check(k, &rules, vectors[i].token, 1300819380, &c), JWT_EXPIRED);
		}
		spoiled = strdup(vectors[i].token);
		spoiled[strlen(spoiled) - 10] = spoiled[strlen(spoiled) - 10] == 'A' ? 'B' : 'A';
		assert_int_equal(jwt_check(k, &rules, spoiled, 1300819379, &c), JWT_BAD_SIGNATURE);
		free(spoiled);
		jwt_keys_free(k);
	}
}

static void unusable_keys_of_a_set_are_left_out(void **state)
{
	static const char *const bad[] = {
		"1", "null", "\"key\"", "[]", "{}", "{\"kty\":\"XYZ\"}", "{\"kty\":1}", "{\"kty\":\"oct\"}",
		"{\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow\"}",
		"{\"kty\":\"oct\",\"alg\":\"none\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T\"}",
		"{\"kty\":\"oct\",\"alg\":\"RS256\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T\"}",
		"{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"c2hvcnQ\"}", "{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"\"}",
		"{\"kty\":\"oct\",\"alg\":\"HS512\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T\"}",
		"{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ+EstJQLr/T\"}",
		"{\"kty\":\"RSA\",\"n\":\"" RFC_RSA_N "\"}", "{\"kty\":\"RSA\",\"e\":\"AQAB\"}",
		"{\"kty\":\"RSA\",\"alg\":\"HS256\",\"n\":\"" RFC_RSA_N "\",\"e\":\"AQAB\"}",
		"{\"kty\":\"RSA\",\"alg\":\"ES256\",\"n\":\"" RFC_RSA_N "\",\"e\":\"AQAB\"}",
		"{\"kty\":\"RSA\",\"alg\":\"RSA-OAEP\",\"n\":\"" RFC_RSA_N "\",\"e\":\"AQAB\"}",
		"{\"kty\":\"RSA\",\"use\":\"enc\",\"n\":\"" RFC_RSA_N "\",\"e\":\"AQAB\"}",
		"{\"kty\":\"RSA\",\"key_ops\":[\"encrypt\"],\"n\":\"" RFC_RSA_N "\",\"e\":\"AQAB\"}",
		"{\"kty\":\"RSA\",\"kid\":7,\"n\":\"" RFC_RSA_N "\",\"e\":\"AQAB\"}",
		"{\"kty\":\"RSA\",\"n\":\"" RFC_RSA_N "\",\"e\":\"AQ\"}", /* 1: everything verifies */
		"{\"kty\":\"RSA\",\"n\":\"" RFC_RSA_N "\",\"e\":\"Ag\"}",
		"{\"kty\":\"RSA\",\"n\":\"" RFC_RSA_N "\",\"e\":\"AQABAQABAQAB\"}",
		"{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw\",\"e\":\"AQAB\"}", /* short */
		"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a1\"}",
		"{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
		"{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
		"{\"kty\":\"EC\",\"crv\":\"P-256\",\"alg\":\"ES384\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
		"{\"kty\":\"EC\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
		"{\"kty\":\"OKP\",\"crv\":\"P-256\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
		"{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
		"{\"kty\":\"OKP\",\"crv\":\"Ed448\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
		"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUR\"}",
		"{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}",
	};
	char set[16384];
	struct jwt_keys *k;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(set, sizeof(set), "{\"keys\":[%s]}", bad[i]);
		if (load_set(set))
			fail_msg("taken: %s", bad[i]);
		snprintf(set, sizeof(set), "{\"keys\":[%s,%s]}", bad[i], mint_jwk("ES256"));
		k = load_set(set);
		assert_non_null(k);
		assert_int_equal(jwt_keys_count(k), 1);
		jwt_keys_free(k);
	}
	assert_null(load_set("{\"keys\":{}}"));
	assert_null(load_set("{\"keys\":[]}"));
	assert_null(load_set("[]"));
	assert_null(load_set("{"));
}

static void keys_without_alg_or_kid_have_one_meaning(void **state)
{
	struct jwt_keys *k = load_set("{\"keys\":[{\"kty\":\"RSA\",\"n\":\"" RFC_RSA_N "\",\"e\":\"AQAB\"}]}");
	struct jwt_claims c;
	struct jwt_rules rules = plain;

	(void)state;
	rules.user_claim = "iss";
	assert_int_equal(jwt_check(k, &rules, vectors[1].token, 1300819379, &c), JWT_GOOD);
	jwt_keys_free(k);
	/* Many keys of one algorithm: a token without kid tries a few, one with a kid finds its own. */
	char set[30000];
	size_t n = (size_t)sprintf(set, "{\"keys\":[");

	for (int i = 0; i < 64; i++)
		n += (size_t)sprintf(set + n, "{\"kty\":\"oct\",\"alg\":\"HS256\",\"kid\":\"%d\",\"k\":\"%s\"},", i,
				     i == 63 ? mint_base64(mint_secret(), 64) : mint_base64(set, 40));
	strcpy(set + n - 1, "]}");
	k = load_set(set);
	assert_int_equal(jwt_keys_count(k), JWT_KEYS_MAX);
	assert_int_equal(check(k, &plain, mint("HS256", "{\"alg\":\"HS256\",\"kid\":\"63\"}", CLAIMS)), JWT_GOOD);
	assert_int_equal(check(k, &plain, mint("HS256", "{\"alg\":\"HS256\",\"kid\":\"62\"}", CLAIMS)), JWT_BAD_SIGNATURE);
	assert_int_equal(check(k, &plain, mint("HS256", "{\"alg\":\"HS256\"}", CLAIMS)), JWT_BAD_SIGNATURE);
	jwt_keys_free(k);
}

static void key_files_are_refused_with_a_reason(void **state)
{
	static char large[JWT_FILE_MAX + 2];
	struct jwt_keys *k = NULL;
	struct im_err err;

	(void)state;
	memset(large, 'x', sizeof(large));
	assert_int_equal(load("HS256:/does/not/exist", &k), IM_FAILED);
	assert_int_equal(load("HS256:/dev/zero", &k), IM_BAD_INPUT);
	assert_int_equal(load("HS256:/tmp", &k), IM_BAD_INPUT);
	assert_int_equal(load("none:/dev/null", &k), IM_BAD_INPUT);
	assert_int_equal(load("RSA:/dev/null", &k), IM_BAD_INPUT);
	assert_int_equal(load_file("HS256", "secret", large, sizeof(large), 0600, &k), IM_BAD_INPUT);
	assert_int_equal(load_file("HS256", "secret", large, 0, 0600, &k), IM_BAD_INPUT);
	assert_int_equal(load_file("HS256", "secret", large, 31, 0600, &k), IM_BAD_INPUT);
	assert_int_equal(load_file("HS256", "secret", large, 32, 0604, &k), IM_BAD_INPUT);
	assert_int_equal(load_file("HS384", "secret", large, 47, 0600, &k), IM_BAD_INPUT);
	assert_int_equal(load_file("HS512", "secret", large, 63, 0600, &k), IM_BAD_INPUT);
	assert_int_equal(load_file("RS256", "pem", large, 500, 0600, &k), IM_BAD_INPUT);
	assert_int_equal(load_file("jwks", "set", mint_jwks(), strlen(mint_jwks()), 0644, &k), IM_BAD_INPUT); /* it has secrets */
	assert_null(k);
	assert_int_equal(load_file("HS256", "secret", large, 32, 0640, &k), IM_OK);
	jwt_keys_free(k);
	assert_int_equal(jwt_keys_load("", &k, &err), IM_OK);
	assert_int_equal(jwt_keys_count(k), 0);
	assert_int_equal(check(k, &plain, mint_plain("HS256", CLAIMS)), JWT_NO_KEY);
	jwt_keys_free(k);
}

static void a_pem_key_serves_its_algorithm_only(void **state)
{
	static const struct {
		const char *word, *key;
		enum im_status want;
	} cases[] = {
		{ "RS256", "RS256", IM_OK }, { "PS512", "RS256", IM_OK }, { "ES256", "ES256", IM_OK }, { "ES512", "ES512", IM_OK },
		{ "EdDSA", "EdDSA", IM_OK }, { "ES256", "ES384", IM_BAD_INPUT }, { "ES384", "ES256", IM_BAD_INPUT },
		{ "RS256", "ES256", IM_BAD_INPUT }, { "ES256", "RS256", IM_BAD_INPUT }, { "EdDSA", "ES256", IM_BAD_INPUT },
		{ "RS256", "EdDSA", IM_BAD_INPUT }, { "PS256", "EdDSA", IM_BAD_INPUT },
	};
	char pem[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		BIO *bio = BIO_new(BIO_s_mem());
		struct jwt_keys *k = NULL;
		int len;

		assert_int_equal(PEM_write_bio_PUBKEY(bio, mint_pkey(cases[i].key)), 1);
		len = BIO_read(bio, pem, sizeof(pem));
		BIO_free(bio);
		assert_int_equal(load_file(cases[i].word, "pem", pem, (size_t)len, 0644, &k), cases[i].want);
		if (k)
			assert_int_equal(check(k, &plain, mint(cases[i].word, "{\"alg\":\"x\"}", CLAIMS)), JWT_NO_KEY);
		if (k)
			assert_int_equal(check(k, &plain, mint_plain(cases[i].word, CLAIMS)), JWT_GOOD);
		jwt_keys_free(k);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rfcs_own_examples_verify),
		cmocka_unit_test(unusable_keys_of_a_set_are_left_out),
		cmocka_unit_test(keys_without_alg_or_kid_have_one_meaning),
		cmocka_unit_test(key_files_are_refused_with_a_reason),
		cmocka_unit_test(a_pem_key_serves_its_algorithm_only),
	};

	return cmocka_run_group_tests(tests, group_start, group_stop);
}
