/* plugin/certificate.c: whose a certificate is. */
#include "plugin/certificate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/x509v3.h>

#define CN_MAX 3

static const struct {
	enum im_certificate_user which;
	const char *cn[CN_MAX];
	const char *san;
	const char *want;
} cases[] = {
	{ IM_CERTIFICATE_CN, { "alice" }, NULL, "alice" },
	{ IM_CERTIFICATE_CN, { "a.l_i-ce@example.com" }, "email:bob@example.com", "a.l_i-ce@example.com" },
	{ IM_CERTIFICATE_CN, { NULL }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "alice", "bob" }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "alice", "alice" }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "Alice" }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "alice " }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "alice/bob" }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "\xd0\xb0lice" }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "system" }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "$im" }, NULL, "" },
	{ IM_CERTIFICATE_CN, { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }, NULL,
	  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" },
	{ IM_CERTIFICATE_EMAIL, { "bob" }, "email:alice@example.com", "alice@example.com" },
	{ IM_CERTIFICATE_EMAIL, { "bob" }, "DNS:alice,email:carol", "carol" },
	{ IM_CERTIFICATE_EMAIL, { "alice" }, NULL, "" },
	{ IM_CERTIFICATE_EMAIL, { "alice" }, "DNS:alice", "" },
	{ IM_CERTIFICATE_EMAIL, { "alice" }, "email:alice,email:bob", "" },
	{ IM_CERTIFICATE_EMAIL, { "alice" }, "email:Alice@example.com", "" },
	{ IM_CERTIFICATE_DNS, { "bob" }, "DNS:meter7.example.com,IP:192.0.2.1", "meter7.example.com" },
	{ IM_CERTIFICATE_DNS, { "bob" }, "DNS:*.example.com", "" },
	{ IM_CERTIFICATE_DNS, { "bob" }, "DNS:a,DNS:b", "" },
	{ IM_CERTIFICATE_DNS, { "bob" }, "email:a", "" },
	{ IM_CERTIFICATE_OFF, { "alice" }, NULL, "" },
};

static X509 *make(const char *const cn[CN_MAX], const char *san)
{
	X509 *x = X509_new();
	X509_NAME *name = X509_get_subject_name(x);
	X509_EXTENSION *ext;

	for (int i = 0; i < CN_MAX && cn[i]; i++)
		assert_int_equal(X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8, (const unsigned char *)cn[i], -1, -1, 0), 1);
	assert_non_null(ASN1_TIME_set(X509_getm_notAfter(x), 1800000000));
	if (san) {
		ext = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san);
		assert_non_null(ext);
		assert_int_equal(X509_add_ext(x, ext, -1), 1);
		X509_EXTENSION_free(ext);
	}
	return x;
}

static void the_field_must_hold_one_name_of_a_user(void **state)
{
	struct certificate c;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		X509 *x = make(cases[i].cn, cases[i].san);

		certificate_read(x, cases[i].which, &c);
		if (strcmp(c.user, cases[i].want) != 0)
			fail_msg("case %zu: \"%s\" instead of \"%s\"", i, c.user, cases[i].want);
		assert_true(c.expires_ms == 1800000000000);
		X509_free(x);
	}
}

/* A CA that signs any bytes: what C takes for the end of the text is not the end of the name. */
static void a_nul_inside_is_no_end(void **state)
{
	X509 *x = X509_new();
	struct certificate c;

	(void)state;
	assert_int_equal(X509_NAME_add_entry_by_NID(X509_get_subject_name(x), NID_commonName, V_ASN1_UTF8STRING,
						    (const unsigned char *)"alice\0.evil.example", 19, -1, 0), 1);
	certificate_read(x, IM_CERTIFICATE_CN, &c);
	assert_string_equal(c.user, "");
	X509_free(x);
	x = X509_new();
	assert_int_equal(X509_NAME_add_entry_by_NID(X509_get_subject_name(x), NID_commonName, V_ASN1_BMPSTRING,
						    (const unsigned char *)"\0a\0l\0i", 6, -1, 0), 1);
	certificate_read(x, IM_CERTIFICATE_CN, &c);
	assert_string_equal(c.user, "ali"); /* the same text in another encoding of ASN.1 */
	X509_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_field_must_hold_one_name_of_a_user),
		cmocka_unit_test(a_nul_inside_is_no_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
