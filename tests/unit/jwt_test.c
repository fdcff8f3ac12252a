/* plugin/jwt.c, jwt_login.c: which tokens are good, and that nothing else is. Of keys: jwt_key_test.c. */
#include "jwt_mint.h"
#include "jwt_world.h"

#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void every_algorithm_verifies_its_own_tokens_and_no_others(void **state)
{
	char header[100];

	(void)state;
	for (int i = 0; i < MINT_ALGS; i++) {
		struct jwt_keys *one = load_one(mint_algs[i]);

		assert_int_equal(check(all, &plain, mint_plain(mint_algs[i], CLAIMS)), JWT_GOOD);
		for (int said = 0; said < MINT_ALGS; said++)
			for (int did = 0; did < MINT_ALGS; did++) {
				enum jwt_verdict want = said != i ? JWT_NO_KEY : did != i ? JWT_BAD_SIGNATURE : JWT_GOOD;

				snprintf(header, sizeof(header), "{\"alg\":\"%s\"}", mint_algs[said]);
				assert_int_equal(check(one, &plain, mint(mint_algs[did], header, CLAIMS)), want);
			}
		jwt_keys_free(one);
	}
}

/* ---- the header ---- */

/* Signed with RS256's key whatever it says; "all" has a key without kid for each algorithm as well. */
static const struct {
	const char *header;
	enum jwt_verdict want;
} headers[] = {
	{ "{\"alg\":\"RS256\"}", JWT_GOOD },
	{ "{\"alg\":\"RS256\",\"kid\":\"RS256\"}", JWT_GOOD },
	{ "{\"typ\":\"jwt\",\"alg\":\"RS256\"}", JWT_GOOD },
	{ "{\"typ\":\"at+jwt\",\"alg\":\"RS256\"}", JWT_GOOD },
	{ "{\"typ\":\"application/at+JWT\",\"alg\":\"RS256\"}", JWT_GOOD },
	{ " { \"alg\" : \"RS256\" } \r\n", JWT_GOOD },
	{ "{\"\\u0061lg\":\"RS256\"}", JWT_GOOD }, /* the same name */
	/* keys from elsewhere are not looked at: this one is signed with ours */
	{ "{\"alg\":\"RS256\",\"jku\":\"https://evil.example/keys\",\"x5u\":\"http://169.254.169.254/\",\"jwk\":{\"kty\":\"RSA\"},\"x5c\":[\"x\"]}", JWT_GOOD },
	/* no algorithm, or none of ours */
	{ "{\"alg\":\"none\"}", JWT_NO_KEY },
	{ "{\"alg\":\"None\"}", JWT_NO_KEY },
	{ "{\"alg\":\"nOnE\"}", JWT_NO_KEY },
	{ "{\"alg\":\"NONE\"}", JWT_NO_KEY },
	{ "{\"alg\":\"\"}", JWT_NO_KEY },
	{ "{\"alg\":\"rs256\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS256 \"}", JWT_NO_KEY },
	{ "{\"alg\":\" RS256\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS25\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS2560\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS1\"}", JWT_NO_KEY },
	{ "{\"alg\":\"HS1\"}", JWT_NO_KEY },
	{ "{\"alg\":\"ES256K\"}", JWT_NO_KEY },
	{ "{\"alg\":\"dir\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RSA-OAEP\",\"enc\":\"A256GCM\"}", JWT_NO_KEY },
	{ "{\"alg\":\"PBES2-HS256+A128KW\",\"p2c\":2147483647}", JWT_NO_KEY },
	{ "{\"alg\":\"\xd0\xaf" "S256\"}", JWT_NO_KEY },
	{ "{}", JWT_HEADER },
	{ "{\"ALG\":\"RS256\"}", JWT_HEADER },
	{ "{\"alg\":null}", JWT_HEADER },
	{ "{\"alg\":256}", JWT_HEADER },
	{ "{\"alg\":true}", JWT_HEADER },
	{ "{\"alg\":[\"RS256\"]}", JWT_HEADER },
	{ "{\"alg\":{\"RS256\":1}}", JWT_HEADER },
	/* kid */
	{ "{\"alg\":\"RS256\",\"kid\":\"\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS256\",\"kid\":\"rs256\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS256\",\"kid\":\"HS256\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS256\",\"kid\":\"../../../dev/null\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS256\",\"kid\":\"' OR 1=1--\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS256\",\"kid\":\"|/bin/sh\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS256\",\"kid\":\"RS256\\n\"}", JWT_NO_KEY },
	{ "{\"alg\":\"RS256\",\"kid\":null}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"kid\":0}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"kid\":[\"RS256\"]}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"kid\":{}}", JWT_HEADER },
	/* other kinds of token, and extensions */
	{ "{\"alg\":\"RS256\",\"typ\":\"logout+jwt\"}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"typ\":\"secevent+jwt\"}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"typ\":\"dpop+jwt\"}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"typ\":\"JOSE\"}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"typ\":\"\"}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"typ\":null}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"typ\":1}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"crit\":[\"exp\"],\"exp\":1}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"crit\":[\"b64\"],\"b64\":false}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"crit\":[]}", JWT_HEADER },
	{ "{\"alg\":\"RS256\",\"crit\":null}", JWT_HEADER },
	/* no JSON object, or one of which there are two readings */
	{ "{\"alg\":\"none\",\"alg\":\"RS256\"}", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\",\"alg\":\"RS256\"}", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\",\"\\u0061lg\":\"HS256\"}", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\",\"x\":{\"a\":1,\"a\":2}}", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\"}{}", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\"} x", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\",}", JWT_MALFORMED },
	{ "{'alg':'RS256'}", JWT_MALFORMED },
	{ "{alg:\"RS256\"}", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\"", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\\u0000\"}", JWT_MALFORMED },
	{ "{\"alg\":\"RS256\xff\"}", JWT_MALFORMED },
	{ "{\"alg\":\"\xed\xa0\x80\"}", JWT_MALFORMED },
	{ "\xef\xbb\xbf{\"alg\":\"RS256\"}", JWT_MALFORMED },
	{ "[\"RS256\"]", JWT_MALFORMED },
	{ "\"RS256\"", JWT_MALFORMED },
	{ "null", JWT_MALFORMED },
	{ "1", JWT_MALFORMED },
	{ " ", JWT_MALFORMED },
	{ "{\"alg\":1e999}", JWT_MALFORMED },
};

static void headers_are_understood_wholly_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		enum jwt_verdict v = check(all, &plain, mint("RS256", headers[i].header, CLAIMS));

		if (v != headers[i].want)
			fail_msg("%s: %s", headers[i].header, jwt_text(v)->rule);
	}
}

/* The oldest attack: a public key is public, so as a secret it would let everybody sign. */
static void a_public_key_is_never_a_secret(void **state)
{
	static const char *const public[] = { "RS256", "PS256", "ES256", "EdDSA" };
	struct jwt_keys *k;
	char pem[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(public) / sizeof(public[0]); i++) {
		BIO *bio = BIO_new(BIO_s_mem());
		unsigned char *der = NULL;
		int der_len = i2d_PUBKEY(mint_pkey(public[i]), &der), len;
		const char *jwk = mint_jwk(public[i]);

		assert_int_equal(PEM_write_bio_PUBKEY(bio, mint_pkey(public[i])), 1);
		len = BIO_read(bio, pem, sizeof(pem) - 1);
		pem[len] = '\0';
		assert_int_equal(load_file("HS256", "pem", pem, (size_t)len, 0600, &k), IM_BAD_INPUT);
		assert_int_equal(load_file(public[i], "pem", pem, (size_t)len, 0644, &k), IM_OK);
		for (int cut = 0; cut < 2; cut++) { /* with and without the last newline, for whoever trims */
			char *token = mint_hs256(pem, (size_t)(len - cut), "{\"alg\":\"HS256\"}", CLAIMS);

			assert_int_equal(check(k, &plain, token), JWT_NO_KEY);
			assert_int_equal(check(all, &plain, token), JWT_BAD_SIGNATURE); /* there is a secret: another one */
		}
		assert_int_equal(check(k, &plain, mint_hs256(der, (size_t)der_len, "{\"alg\":\"HS256\"}", CLAIMS)), JWT_NO_KEY);
		assert_int_equal(check(k, &plain, mint_hs256(jwk, strlen(jwk), "{\"alg\":\"HS256\"}", CLAIMS)), JWT_NO_KEY);
		assert_int_equal(check(k, &plain, mint_hs256("", 0, "{\"alg\":\"HS256\"}", CLAIMS)), JWT_NO_KEY);
		assert_int_equal(check(k, &plain, mint_plain(public[i], CLAIMS)), JWT_GOOD);
		jwt_keys_free(k);
		OPENSSL_free(der);
		BIO_free(bio);
	}
}

/* ---- claims ---- */

static const struct {
	const char *claims;
	enum jwt_verdict want;
} claims[] = {
	{ CLAIMS, JWT_GOOD },
	{ "{\"sub\":\"alice\",\"exp\":1800000001}", JWT_GOOD },
	{ "{\"sub\":\"alice\",\"exp\":253402300799}", JWT_GOOD },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"nbf\":1800000000,\"iat\":1800000000}", JWT_GOOD },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"iat\":1}", JWT_GOOD },
	{ "{\"sub\":\"a.l_i-c@e\",\"exp\":1800000100,\"admin\":true,\"iss\":\"x\"}", JWT_GOOD },
	{ "{\"\\u0073ub\":\"alice\",\"exp\":1800000100}", JWT_GOOD },
	{ "{\"sub\":\"alice\",\"exp\":1800000000}", JWT_EXPIRED },
	{ "{\"sub\":\"alice\",\"exp\":1799999999}", JWT_EXPIRED },
	{ "{\"sub\":\"alice\",\"exp\":1}", JWT_EXPIRED },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"nbf\":1800000001}", JWT_EARLY },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"iat\":1800000001}", JWT_EARLY },
	{ "{\"sub\":\"alice\",\"exp\":253402300799,\"nbf\":253402300799}", JWT_EARLY },
	{ "{\"sub\":\"alice\"}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"Exp\":1800000100}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":null}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":true}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":\"1800000100\"}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":\"never\"}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":[1800000100]}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":{}}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":1800000100.0}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":1.8000001e9}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":1e30}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":0}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":-1}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":-9223372036854775808}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":9223372036854775807}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":253402300800}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":1800000100000}", JWT_BAD_TIME }, /* milliseconds */
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"nbf\":\"0\"}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"nbf\":1.5}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"nbf\":-5}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"iat\":\"now\"}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"iat\":1e99}", JWT_BAD_TIME },
	{ "{\"sub\":\"alice\",\"exp\":9223372036854775808}", JWT_MALFORMED }, /* beyond 64 bits */
	{ "{\"sub\":\"alice\",\"exp\":1e999}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"exp\":01800000100}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"exp\":+1800000100}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"exp\":NaN}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"exp\":Infinity}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"exp\":0x7fffffff}", JWT_MALFORMED },
	/* an audience that nobody here claims to be */
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"aud\":\"other\"}", JWT_BAD_AUDIENCE },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"aud\":[]}", JWT_BAD_AUDIENCE },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"aud\":\"\"}", JWT_BAD_AUDIENCE },
	{ "{\"sub\":\"alice\",\"exp\":1800000100,\"aud\":null}", JWT_BAD_AUDIENCE },
	/* the user */
	{ "{\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":null,\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":1,\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":[\"alice\"],\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":{\"alice\":1},\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"Alice\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\" alice\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"alice\\n\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"alice/bob\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"alice+\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"#\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"$im\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"system\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"all\",\"exp\":1800000100}", JWT_BAD_USER },
	{ "{\"sub\":\"\xd0\xb0lice\",\"exp\":1800000100}", JWT_BAD_USER }, /* a Cyrillic a */
	{ "{\"sub\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"exp\":1800000100}", JWT_BAD_USER }, /* 65 */
	{ "{\"sub\":\"alice\\u0000x\",\"exp\":1800000100}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"sub\":\"bob\",\"exp\":1800000100}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"\\u0073ub\":\"bob\",\"exp\":1800000100}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"exp\":1,\"exp\":1800000100}", JWT_MALFORMED },
	{ "{\"sub\":\"alice\xc0\x80\",\"exp\":1800000100}", JWT_MALFORMED },
	{ "[{\"sub\":\"alice\",\"exp\":1800000100}]", JWT_MALFORMED },
	{ "{\"sub\":\"alice\",\"exp\":1800000100}}", JWT_MALFORMED },
	{ "\"alice\"", JWT_MALFORMED },
	{ "null", JWT_MALFORMED },
	{ "x", JWT_MALFORMED },
};

static void claims_are_what_they_should_be_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
		enum jwt_verdict v = check(all, &plain, mint_plain("HS256", claims[i].claims));

		if (v != claims[i].want)
			fail_msg("%s: %s", claims[i].claims, jwt_text(v)->rule);
	}
}

static void issuer_audience_and_user_claim_follow_the_settings(void **state)
{
	static const struct jwt_rules strict = { "name", "https://id.example/", "im", true, 0, 8192 };
	static const struct {
		const char *claims;
		enum jwt_verdict want;
	} cases[] = {
		{ "{\"name\":\"alice\",\"sub\":\"bob\",\"iss\":\"https://id.example/\",\"aud\":\"im\",\"exp\":1800000100}", JWT_GOOD },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/\",\"aud\":[\"x\",\"im\"],\"exp\":1800000100}", JWT_GOOD },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/\",\"aud\":[1,null,{},\"im\"],\"exp\":1800000100}", JWT_GOOD },
		{ "{\"sub\":\"alice\",\"iss\":\"https://id.example/\",\"aud\":\"im\",\"exp\":1800000100}", JWT_BAD_USER },
		{ "{\"name\":\"alice\",\"aud\":\"im\",\"exp\":1800000100}", JWT_BAD_ISSUER },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example\",\"aud\":\"im\",\"exp\":1800000100}", JWT_BAD_ISSUER },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/x\",\"aud\":\"im\",\"exp\":1800000100}", JWT_BAD_ISSUER },
		{ "{\"name\":\"alice\",\"iss\":\"HTTPS://id.example/\",\"aud\":\"im\",\"exp\":1800000100}", JWT_BAD_ISSUER },
		{ "{\"name\":\"alice\",\"iss\":[\"https://id.example/\"],\"aud\":\"im\",\"exp\":1800000100}", JWT_BAD_ISSUER },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/\",\"exp\":1800000100}", JWT_BAD_AUDIENCE },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/\",\"aud\":\"IM\",\"exp\":1800000100}", JWT_BAD_AUDIENCE },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/\",\"aud\":\"imx\",\"exp\":1800000100}", JWT_BAD_AUDIENCE },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/\",\"aud\":[[\"im\"]],\"exp\":1800000100}", JWT_BAD_AUDIENCE },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/\",\"aud\":{\"im\":1},\"exp\":1800000100}", JWT_BAD_AUDIENCE },
		{ "{\"name\":\"alice\",\"iss\":\"https://id.example/\",\"aud\":[],\"exp\":1800000100}", JWT_BAD_AUDIENCE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(check(all, &strict, mint_plain("ES256", cases[i].claims)), cases[i].want);
}

static void clocks_may_differ_by_so_much_and_no_more(void **state)
{
	struct jwt_rules rules = plain;

	(void)state;
	rules.skew_s = 30;
	assert_int_equal(check(all, &rules, mint_plain("HS256", "{\"sub\":\"alice\",\"exp\":1799999971}")), JWT_GOOD);
	assert_int_equal(check(all, &rules, mint_plain("HS256", "{\"sub\":\"alice\",\"exp\":1799999970}")), JWT_EXPIRED);
	assert_int_equal(check(all, &rules, mint_plain("HS256", "{\"sub\":\"alice\",\"exp\":1800000100,\"nbf\":1800000030}")), JWT_GOOD);
	assert_int_equal(check(all, &rules, mint_plain("HS256", "{\"sub\":\"alice\",\"exp\":1800000100,\"nbf\":1800000031}")), JWT_EARLY);
	assert_int_equal(check(all, &rules, mint_plain("HS256", "{\"sub\":\"alice\",\"exp\":1800000100,\"iat\":1800000031}")), JWT_EARLY);
	rules.need_expiry = false;
	assert_int_equal(check(all, &rules, mint_plain("HS256", "{\"sub\":\"alice\"}")), JWT_GOOD);
	assert_int_equal(check(all, &rules, mint_plain("HS256", "{\"sub\":\"alice\",\"exp\":\"\"}")), JWT_BAD_TIME);
}

/* ---- form ---- */

static void other_forms_are_no_tokens(void **state)
{
	static const char *const forms[] = {
		"%H.%C", "%H.%C.", ".%C.%S", "%H..%S", "%H.%C.%S.", ".%H.%C.%S", "%H.%C.%S.%S", "%H.%C.%S.%S.%S", "..", ".", "", "%H", "%H%C%S",
		"%H.%C.%S=", "%H.%C.%S==", "%H=.%C.%S", "%H.%C=.%S", "%H.%C==.%S", "%H.%C. %S", "%H.%C.%S ", " %H.%C.%S", "%H.%C.%S\n",
		"%H\n.%C.%S", "%H.%C\r\n.%S", "%H.%C.%S\t", "%H.%C.%S%%3D", "%H.%C.%S+", "%H.%C.%S/", "%H.+%C.%S", "/%H.%C.%S",
		"%H.%C.%S\xc3\xa4", "%H.%C.\"%S\"", "Bearer %H.%C.%S", "%H,%C,%S", "%H.%C.A", "%H.%C.!", "%H.A.%S", "A.%C.%S",
		"%C.%H.%S", "%S.%C.%H", "{\"payload\":\"%C\",\"signatures\":[{\"protected\":\"%H\",\"signature\":\"%S\"}]}",
	};
	char good[4096], bad[8192], *h, *c, *s;

	(void)state;
	strcpy(good, mint_plain("HS256", CLAIMS));
	h = strtok(good, ".");
	c = strtok(NULL, ".");
	s = strtok(NULL, ".");
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		size_t used = 0;
		enum jwt_verdict v;

		for (const char *f = forms[i]; *f; f++) {
			if (*f == '%' && f[1])
				used += (size_t)snprintf(bad + used, sizeof(bad) - used, "%s",
							 f[1] == 'H' ? h : f[1] == 'C' ? c : f[1] == 'S' ? s : "%");
			else
				bad[used++] = *f;
			f += *f == '%' && f[1];
		}
		bad[used] = '\0';
		v = check(all, &plain, bad);
		if (v != JWT_MALFORMED && v != JWT_BAD_SIGNATURE && v != JWT_HEADER)
			fail_msg("form %s: %s", forms[i], jwt_text(v)->rule);
	}
}

/* A character that stands for the same bytes but for bits nobody reads would be a second spelling of the token. */
static void spare_bits_must_be_zero(void **state)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned spelled = 0;

	(void)state;
	for (int i = 0; i < MINT_ALGS; i++) {
		char *token = mint_plain(mint_algs[i], CLAIMS), *last = token + strlen(token) - 1, original = *last;

		for (const char *d = digits; *d; d++) {
			*last = *d;
			if (*d != original)
				assert_int_not_equal(check(all, &plain, token), JWT_GOOD);
			else
				spelled++;
		}
	}
	assert_int_equal(spelled, MINT_ALGS);
}

static void no_token_survives_a_changed_character(void **state)
{
	(void)state;
	for (int i = 0; i < MINT_ALGS; i++) {
		char *token = mint_plain(mint_algs[i], CLAIMS);

		for (char *p = token; *p; p++) {
			char original = *p;

			*p = original == 'A' ? 'B' : original == '.' ? '_' : 'A';
			assert_int_not_equal(check(all, &plain, token), JWT_GOOD);
			*p = '\0';
			assert_int_not_equal(check(all, &plain, token), JWT_GOOD);
			*p = original;
		}
		assert_int_equal(check(all, &plain, token), JWT_GOOD);
	}
}

static void large_and_deep_tokens_cost_little(void **state)
{
	struct jwt_rules wide = plain;
	static char header[50000], body[50000];
	size_t n;

	(void)state;
	memset(header, 0, sizeof(header));
	n = (size_t)sprintf(header, "{\"alg\":\"HS256\",\"x\":\"");
	memset(header + n, 'x', 9000);
	strcat(header, "\"}");
	assert_int_equal(check(all, &plain, mint("HS256", header, CLAIMS)), JWT_TOO_LARGE);
	wide.max_bytes = 65535;
	assert_int_equal(check(all, &wide, mint("HS256", header, CLAIMS)), JWT_GOOD);
	memset(header, '[', 40000);
	header[40000] = '\0';
	assert_int_equal(check(all, &wide, mint("HS256", header, CLAIMS)), JWT_MALFORMED);
	n = (size_t)sprintf(body, "{\"sub\":\"alice\",\"exp\":1800000100");
	for (unsigned i = 0; n < 45000; i++)
		n += (size_t)sprintf(body + n, ",\"%u\":0", i);
	strcat(body, "}");
	assert_int_equal(check(all, &wide, mint_plain("HS256", body)), JWT_GOOD);
	assert_int_equal(check(all, &plain, mint_plain("HS256", body)), JWT_TOO_LARGE);
}

/* ---- signatures ---- */

static char *with_signature(const char *alg, const uint8_t *signature, size_t len)
{
	char *token = mint_plain(alg, CLAIMS), *last = strrchr(token, '.');

	sprintf(last + 1, "%s", mint_base64(signature, len));
	return token;
}

static void signatures_of_other_lengths_and_forms_are_refused(void **state)
{
	uint8_t zero[600] = { 0 }, ones[600], signature[600], der[200];

	(void)state;
	memset(ones, 0xff, sizeof(ones));
	for (int i = 0; i < MINT_ALGS; i++) {
		size_t len = mint_sign(mint_algs[i], "x", 1, signature);
		const size_t lengths[] = { 1, 31, 32, 33, 63, 64, 65, 71, 96, 131, 132, 133, 255, 256, 257, 512, len };

		for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
			assert_int_equal(check(all, &plain, with_signature(mint_algs[i], zero, lengths[j])), JWT_BAD_SIGNATURE); /* R = S = 0 */
			assert_int_equal(check(all, &plain, with_signature(mint_algs[i], ones, lengths[j])), JWT_BAD_SIGNATURE); /* above the order */
		}
		assert_int_equal(check(all, &plain, with_signature(mint_algs[i], signature, len)), JWT_BAD_SIGNATURE); /* of another text */
	}
	for (int i = 0; i < MINT_ALGS; i++) { /* a right one with something behind it */
		char *token = mint_plain(mint_algs[i], CLAIMS);
		size_t text = (size_t)(strrchr(token, '.') - token), len = mint_sign(mint_algs[i], token, text, signature);

		signature[len] = 0;
		sprintf(token + text + 1, "%s", mint_base64(signature, len + 1));
		assert_int_equal(check(all, &plain, token), JWT_BAD_SIGNATURE);
	}
	/* R, S = 1, and the ASN.1 form that OpenSSL itself would take */
	zero[31] = zero[63] = 1;
	assert_int_equal(check(all, &plain, with_signature("ES256", zero, 64)), JWT_BAD_SIGNATURE);
	for (int i = 0; i < 20; i++) {
		char *token = mint_plain("ES256", CLAIMS);
		size_t text = (size_t)(strrchr(token, '.') - token), der_len = sizeof(der);
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();

		assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, mint_pkey("ES256")), 1);
		assert_int_equal(EVP_DigestSign(ctx, der, &der_len, (const uint8_t *)token, text), 1);
		EVP_MD_CTX_free(ctx);
		sprintf(token + text + 1, "%s", mint_base64(der, der_len));
		assert_int_equal(check(all, &plain, token), JWT_BAD_SIGNATURE);
	}
}

static void a_salt_of_another_length_is_refused(void **state)
{
	char *token = mint_plain("PS256", CLAIMS);
	size_t text = (size_t)(strrchr(token, '.') - token), len;
	uint8_t signature[600];

	(void)state;
	for (int salt = 0; salt <= 64; salt += 16) {
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();
		EVP_PKEY_CTX *settings;

		len = sizeof(signature);
		assert_int_equal(EVP_DigestSignInit(ctx, &settings, EVP_sha256(), NULL, mint_pkey("PS256")), 1);
		assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(settings, RSA_PKCS1_PSS_PADDING), 1);
		assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(settings, salt), 1);
		assert_int_equal(EVP_DigestSign(ctx, signature, &len, (const uint8_t *)token, text), 1);
		EVP_MD_CTX_free(ctx);
		sprintf(token + text + 1, "%s", mint_base64(signature, len));
		assert_int_equal(check(all, &plain, token), salt == 32 ? JWT_GOOD : JWT_BAD_SIGNATURE);
	}
}

/* S + L verifies in careless implementations: a second signature for the same token. */
static void an_ed25519_signature_has_one_form(void **state)
{
	static const uint8_t order[32] = { 0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
					   0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10 };
	char *token = mint_plain("EdDSA", CLAIMS);
	size_t text = (size_t)(strrchr(token, '.') - token);
	uint8_t signature[64];
	unsigned carry = 0;

	(void)state;
	assert_int_equal(mint_sign("EdDSA", token, text, signature), 64);
	for (int i = 0; i < 32; i++) {
		carry += signature[32 + i] + order[i];
		signature[32 + i] = (uint8_t)carry;
		carry >>= 8;
	}
	sprintf(token + text + 1, "%s", mint_base64(signature, 64));
	assert_int_equal(check(all, &plain, token), JWT_BAD_SIGNATURE);
}

/* ---- as a login ---- */

static void a_password_is_a_token_by_its_form(void **state)
{
	static const char *const passwords[] = { "", "e", "ey", "secret", "a.b.c", "eyJ", "eyJ.", "eyJ.x", "eyJ.x.y.z", "exam.ple", "evil.a.b", "Eyes.a.b" };

	(void)state;
	assert_true(jwt_has_form(mint_plain("HS256", CLAIMS)));
	assert_true(jwt_has_form("eyJhbGciOiJub25lIn0.e30."));
	assert_true(jwt_has_form("ewogImFsZyI6Im5vbmUifQ.e30."));
	for (size_t i = 0; i < sizeof(passwords) / sizeof(passwords[0]); i++)
		assert_false(jwt_has_form(passwords[i]));
}

static void a_verified_token_is_remembered_until_it_ends(void **state)
{
	struct jwt_login *j = jwt_login_create();
	struct im_settings s;
	struct jwt_cold cold = { .allowed = true };
	struct jwt_claims c;
	struct im_err err;
	char setting[300];
	const char *token = mint_plain("RS256", CLAIMS), *bad = mint("ES256", "{\"alg\":\"RS256\"}", CLAIMS);

	(void)state;
	memset(&s, 0, sizeof(s));
	s.jwt_user_claim = (char *)"sub";
	s.jwt_issuer = s.jwt_audience = (char *)"";
	s.jwt_max_bytes = 8192;
	s.jwt_keys = (char *)"";
	assert_int_equal(jwt_login_load(j, &s, &err), IM_OK);
	assert_false(jwt_login_applies(j, token));
	s.jwt_keys = setting;
	snprintf(setting, sizeof(setting), "jwks:%s", key_file("set.json", mint_jwks(), strlen(mint_jwks()), 0600));
	assert_int_equal(jwt_login_load(j, &s, &err), IM_OK);
	assert_true(jwt_login_applies(j, token));
	for (int i = 0; i < 5; i++) {
		memset(&c, 0, sizeof(c));
		assert_int_equal(jwt_login_check(j, &s, token, NOW, &cold, &c), JWT_GOOD);
		assert_string_equal(c.user, "alice");
		assert_int_equal(c.expires_s, 1800000100);
	}
	assert_int_equal(jwt_login_verified(j), 1);
	for (int i = 0; i < 5; i++)
		assert_int_equal(jwt_login_check(j, &s, bad, NOW, &cold, &c), JWT_BAD_SIGNATURE); /* only good ones take room */
	assert_int_equal(jwt_login_verified(j), 6);
	assert_true(cold.took_us > 0);
	cold.allowed = false;
	assert_int_equal(jwt_login_check(j, &s, bad, NOW, &cold, &c), JWT_LATER);
	assert_int_equal(jwt_login_check(j, &s, token, NOW, &cold, &c), JWT_GOOD); /* known */
	assert_int_equal(cold.took_us, 0);
	assert_int_equal(jwt_login_verified(j), 6);
	cold.allowed = true;
	assert_int_equal(jwt_login_check(j, &s, token, 1800000100, &cold, &c), JWT_EXPIRED);
	s.jwt_max_bytes = 128;
	assert_int_equal(jwt_login_check(j, &s, token, NOW, &cold, &c), JWT_TOO_LARGE);
	s.jwt_max_bytes = 8192;
	assert_int_equal(jwt_login_check(j, &s, token, NOW, &cold, &c), JWT_GOOD);
	s.jwt_issuer = (char *)"somebody"; /* SIGHUP: what the old rules allowed counts no more */
	assert_int_equal(jwt_login_load(j, &s, &err), IM_OK);
	assert_int_equal(jwt_login_check(j, &s, token, NOW, &cold, &c), JWT_BAD_ISSUER);
	s.jwt_issuer = (char *)"";
	s.jwt_keys = (char *)"jwks:/does/not/exist";
	assert_int_equal(jwt_login_load(j, &s, &err), IM_FAILED);
	assert_int_equal(jwt_login_check(j, &s, token, NOW, &cold, &c), JWT_GOOD); /* the old keys stay */
	jwt_login_destroy(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_algorithm_verifies_its_own_tokens_and_no_others),
		cmocka_unit_test(headers_are_understood_wholly_or_refused),
		cmocka_unit_test(a_public_key_is_never_a_secret),
		cmocka_unit_test(claims_are_what_they_should_be_or_refused),
		cmocka_unit_test(issuer_audience_and_user_claim_follow_the_settings),
		cmocka_unit_test(clocks_may_differ_by_so_much_and_no_more),
		cmocka_unit_test(other_forms_are_no_tokens),
		cmocka_unit_test(spare_bits_must_be_zero),
		cmocka_unit_test(no_token_survives_a_changed_character),
		cmocka_unit_test(large_and_deep_tokens_cost_little),
		cmocka_unit_test(signatures_of_other_lengths_and_forms_are_refused),
		cmocka_unit_test(a_salt_of_another_length_is_refused),
		cmocka_unit_test(an_ed25519_signature_has_one_form),
		cmocka_unit_test(a_password_is_a_token_by_its_form),
		cmocka_unit_test(a_verified_token_is_remembered_until_it_ends),
	};

	return cmocka_run_group_tests(tests, group_start, group_stop);
}
