/* Web Push: the RFC's vector, what we sign, which addresses are nobody's business of a user. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "encrypt.h"
#include "io/http.h"
#include "push/jose.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <string.h>

/* RFC 8291, section 5 and appendix A. */
static const char ua_public[] = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
static const char as_private[] = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
static const char auth_secret[] = "BTBZMqHH6r4Tts7J_aSIgg";
static const char salt[] = "DGv6ra1nlYgDCS1FRnbzlw";
static const char body[] = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6"
			   "cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
static const char plain[] = "When I grow up, I want to be a watermelon";

static void bytes(const char *text, uint8_t *out, size_t len)
{
	size_t n;

	assert_true(push_base64url_read(text, out, len, &n));
	assert_int_equal(n, len);
}

static void the_vector_of_the_rfc(void **state)
{
	uint8_t point[WEBPUSH_POINT], auth[WEBPUSH_AUTH], wanted[144], out[WEBPUSH_BODY_MAX];
	struct webpush_fixed fixed;
	size_t len;

	(void)state;
	bytes(ua_public, point, sizeof(point));
	bytes(auth_secret, auth, sizeof(auth));
	bytes(as_private, fixed.key, sizeof(fixed.key));
	bytes(salt, fixed.salt, sizeof(fixed.salt));
	bytes(body, wanted, sizeof(wanted));
	assert_true(webpush_encrypt(point, auth, plain, strlen(plain), 0, &fixed, out, &len));
	assert_int_equal(len, sizeof(wanted));
	assert_memory_equal(out, wanted, len);
}

static void lengths_up_to_the_limit(void **state)
{
	static const struct {
		size_t len, padded, body;
	} cases[] = { { 0, 0, 103 }, { 1, 0, 104 }, { 1, 512, 615 }, { 3992, 0, 4095 }, { 3993, 0, 4096 }, { 3993, 9999, 4096 }, { 100, 4000, 4096 } };
	uint8_t point[WEBPUSH_POINT], auth[WEBPUSH_AUTH] = { 0 }, out[WEBPUSH_BODY_MAX], again[WEBPUSH_BODY_MAX];
	static char text[4000];
	size_t len;

	(void)state;
	bytes(ua_public, point, sizeof(point));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(webpush_encrypt(point, auth, text, cases[i].len, cases[i].padded, NULL, out, &len));
		assert_int_equal(len, cases[i].body);
	}
	assert_false(webpush_encrypt(point, auth, text, 3994, 0, NULL, out, &len));
	assert_true(webpush_encrypt(point, auth, text, 10, 0, NULL, out, &len));
	assert_true(webpush_encrypt(point, auth, text, 10, 0, NULL, again, &len));
	assert_memory_not_equal(out, again, len); /* a key and a salt of its own each time */
}

static void a_point_beside_the_curve_is_refused(void **state)
{
	uint8_t point[WEBPUSH_POINT], auth[WEBPUSH_AUTH] = { 0 }, out[WEBPUSH_BODY_MAX];
	size_t len;

	(void)state;
	bytes(ua_public, point, sizeof(point));
	point[64] ^= 1;
	assert_false(webpush_encrypt(point, auth, "x", 1, 0, NULL, out, &len));
	memset(point, 0, sizeof(point));
	assert_false(webpush_encrypt(point, auth, "x", 1, 0, NULL, out, &len));
	point[0] = 4;
	assert_false(webpush_encrypt(point, auth, "x", 1, 0, NULL, out, &len));
}

static bool public_text(const char *text)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return im_http_is_public((struct sockaddr *)&v4);
	assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
	return im_http_is_public((struct sockaddr *)&v6);
}

static void addresses_that_are_no_public_host(void **state)
{
	static const char *const inside[] = { "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.9.9.9", "169.254.169.254",
					      "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
					      "198.51.100.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:8.8.8.8",
					      "::ffff:127.0.0.1", "64:ff9b::a00:1", "fc00::1", "fd12::1", "fe80::1", "ff02::1", "2001:db8::1", "2001::1",
					      "2002:7f00:1::1", "2002:a00:1::1", "3fff::1" };
	static const char *const outside[] = { "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255",
					       "172.32.0.0", "192.167.255.255", "192.169.0.0", "223.255.255.255", "2a00:1450::1", "2606:4700::1111",
					       "2002:808:808::1", "2001:4860:4860::8888" };

	(void)state;
	for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++)
		if (public_text(inside[i]))
			fail_msg("%s", inside[i]);
	for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
		if (!public_text(outside[i]))
			fail_msg("%s", outside[i]);
}

/* ---- signatures, checked by OpenSSL's own verifying side */

static void each_algorithm_signs_what_it_says(void **state)
{
	static const struct {
		enum push_jws alg;
		const char *type;
	} cases[] = { { PUSH_JWS_ES256, "EC" }, { PUSH_JWS_RS256, "RSA" }, { PUSH_JWS_PS256, "RSA" } };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		EVP_PKEY *key = strcmp(cases[i].type, "EC") == 0 ? EVP_EC_gen("P-256") : EVP_RSA_gen(2048), *wrong = i == 0 ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
		struct im_buf b;
		uint8_t sig[512];
		size_t len;
		const char *dot;

		im_buf_init(&b);
		assert_true(push_jws_sign(&b, cases[i].alg, key, "{\"alg\":\"x\"}", "{\"a\":1}"));
		assert_int_equal(strncmp(im_buf_text(&b), "eyJhbGciOiJ4In0.eyJhIjoxfQ.", 27), 0);
		dot = strrchr(im_buf_text(&b), '.');
		assert_true(push_base64url_read(dot + 1, sig, sizeof(sig), &len));
		assert_int_equal(len, i == 0 ? 64 : 256);
		if (i > 0) {
			EVP_MD_CTX *ctx = EVP_MD_CTX_new();
			EVP_PKEY_CTX *params;

			assert_int_equal(EVP_DigestVerifyInit(ctx, &params, EVP_sha256(), NULL, key), 1);
			if (cases[i].alg == PUSH_JWS_PS256)
				assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(params, RSA_PKCS1_PSS_PADDING), 1);
			assert_int_equal(EVP_DigestVerify(ctx, sig, len, (const uint8_t *)b.data, (size_t)(dot - b.data)), 1);
			EVP_MD_CTX_free(ctx);
		}
		im_buf_clear(&b);
		assert_false(push_jws_sign(&b, cases[i].alg, wrong, "{}", "{}"));
		im_buf_finish(&b);
		EVP_PKEY_free(key);
		EVP_PKEY_free(wrong);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_vector_of_the_rfc),
		cmocka_unit_test(lengths_up_to_the_limit),
		cmocka_unit_test(a_point_beside_the_curve_is_refused),
		cmocka_unit_test(addresses_that_are_no_public_host),
		cmocka_unit_test(each_algorithm_signs_what_it_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
