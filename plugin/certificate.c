/*
 * The user of a certificate. The field must be there exactly once: of two names the wrong one might be meant.
 * Lengths come from ASN.1, so a NUL inside is seen and refused like any other byte that no name has.
 */
#include "certificate.h"

#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

static bool take(const unsigned char *text, int len, char out[IM_NAME_MAX + 1])
{
	if (len <= 0 || !im_name_valid((const char *)text, (size_t)len))
		return false;
	memcpy(out, text, (size_t)len);
	out[len] = '\0';
	return true;
}

static bool read_cn(const X509 *cert, char out[IM_NAME_MAX + 1])
{
	const X509_NAME *name = X509_get_subject_name(cert);
	int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
	unsigned char *text = NULL;
	bool good;
	int len;

	if (at < 0 || X509_NAME_get_index_by_NID(name, NID_commonName, at) >= 0)
		return false;
	len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
	good = take(text, len, out);
	OPENSSL_free(text);
	return good;
}

static bool read_san(const X509 *cert, int type, char out[IM_NAME_MAX + 1])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	const ASN1_STRING *found = NULL;
	unsigned n = 0;
	bool good;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type != type)
			continue;
		found = type == GEN_EMAIL ? g->d.rfc822Name : g->d.dNSName;
		n++;
	}
	good = n == 1 && take(ASN1_STRING_get0_data(found), ASN1_STRING_length(found), out);
	GENERAL_NAMES_free(names);
	return good;
}

static int64_t end_ms(const X509 *cert)
{
	struct tm tm;

	memset(&tm, 0, sizeof(tm));
	if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1)
		return 0;
	return (int64_t)timegm(&tm) * 1000;
}

void certificate_read(const void *x509, enum im_certificate_user which, struct certificate *out)
{
	const X509 *cert = x509;
	bool good = false;

	memset(out, 0, sizeof(*out));
	out->expires_ms = end_ms(cert);
	switch (which) {
	case IM_CERTIFICATE_OFF: break;
	case IM_CERTIFICATE_CN: good = read_cn(cert, out->user); break;
	case IM_CERTIFICATE_EMAIL: good = read_san(cert, GEN_EMAIL, out->user); break;
	case IM_CERTIFICATE_DNS: good = read_san(cert, GEN_DNS, out->user); break;
	}
	if (!good)
		out->user[0] = '\0';
}
