/*
 * From an app's file to keys, certificates and hosts. Whatever can be found out without asking Apple is found out here: a wrong file costs
 * a sentence at the start, never a token.
 */
#include "conf.h"

#include "push/jose.h"
#include "times.h"
#include "tls.h"
#include "token.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT 443

static const char *const env_choices[] = {"production", "sandbox", "both", NULL};
const char *const conf_envs[CONF_ENVS + 1] = {"production", "sandbox", NULL};
static const char *const hosts[CONF_ENVS] = {"api.push.apple.com", "api.sandbox.push.apple.com"};
static const char *const endpoint_keys[CONF_ENVS] = {"endpoint", "sandbox_endpoint"};

const struct push_key conf_keys[] = {
	{.name = "key_file", .type = PUSH_KEY_SECRET},
	{.name = "key_id", .type = PUSH_KEY_TEXT},
	{.name = "team_id", .type = PUSH_KEY_TEXT},
	{.name = "topic", .type = PUSH_KEY_TEXT, .required = true},
	{.name = "env", .type = PUSH_KEY_CHOICE, .fallback = "production", .choices = env_choices},
	{.name = "cert_file", .type = PUSH_KEY_SECRET},
	{.name = "cert_key_file", .type = PUSH_KEY_SECRET},
	{.name = "cert_password_file", .type = PUSH_KEY_SECRET},
	{.name = "endpoint", .type = PUSH_KEY_TEXT},
	{.name = "sandbox_endpoint", .type = PUSH_KEY_TEXT},
	{.name = "ca_file", .type = PUSH_KEY_FILE},
	{.name = "max_conns", .type = PUSH_KEY_NUMBER, .fallback = "4", .min = 1, .max = 16},
	{.name = "sound", .type = PUSH_KEY_TEXT, .fallback = "default"},
	{.name = "loc_key", .type = PUSH_KEY_TEXT},
	{.name = NULL},
};

/* ---- the token key ---- */

static bool is_apple_id(const char *s)
{
	return strlen(s) == CONF_ID_LEN && s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")] == '\0';
}

/* Apple names the file after the key: AuthKey_ABC123DEFG.p8. */
static enum im_status check_file_name(const struct push_app *app, const char *kid, struct im_err *err)
{
	const char *path = push_app_text(app, "key_file"), *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	if (strncmp(name, "AuthKey_", 8) != 0 || strlen(name) != 8 + CONF_ID_LEN + 3 || strncmp(name + 8, kid, CONF_ID_LEN) == 0)
		return IM_OK;
	return push_app_fault(app, "key_id", err, "it is %s, but the key file is that of %.10s; take the id from the file's name",
			      kid, name + 8);
}

static EVP_PKEY *read_private_key(const char *pem, size_t len)
{
	EVP_PKEY *key = push_key_read(pem, len);

	ERR_clear_error();
	return key;
}

static enum im_status read_token_key(const struct push_app *app, struct conf *c, struct im_err *err)
{
	const char *kid = push_app_text(app, "key_id"), *team = push_app_text(app, "team_id"), *pem, *problem;
	enum im_status st;
	size_t len;

	if (!is_apple_id(kid))
		return push_app_fault(app, "key_id", err, "must be the 10 capital letters and digits that Apple shows beside the key");
	if (!is_apple_id(team))
		return push_app_fault(app, "team_id", err,
				      "must be the 10 capital letters and digits of the developer account (Membership)");
	st = check_file_name(app, kid, err);
	if (st != IM_OK)
		return st;
	pem = push_app_file(app, "key_file", &len);
	c->key = read_private_key(pem, len);
	if (!c->key)
		return push_app_fault(app, "key_file", err,
				      "holds no private key: it must be the .p8 file (PEM, \"BEGIN PRIVATE KEY\", no password)");
	problem = token_key_problem(c->key);
	if (problem)
		return push_app_fault(app, "key_file", err, "%s: it must be the .p8 file of an APNs authentication key", problem);
	(void)snprintf(c->kid, sizeof(c->kid), "%s", kid);
	(void)snprintf(c->team, sizeof(c->team), "%s", team);
	(void)snprintf(c->label, sizeof(c->label), "%s", kid);
	return IM_OK;
}

/* ---- the certificate ---- */

struct pair {
	X509 *cert;
	STACK_OF(X509) *chain;
	EVP_PKEY *key;
};

static void pair_finish(struct pair *p)
{
	X509_free(p->cert);
	sk_X509_pop_free(p->chain, X509_free);
	EVP_PKEY_free(p->key);
}

static bool read_pem(const struct push_app *app, const char *text, size_t len, struct pair *out)
{
	const char *key = text;
	size_t key_len = len;
	BIO *bio = BIO_new_mem_buf(text, (int)len);

	out->cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, (void *)"") : NULL;
	BIO_free(bio);
	if (push_app_has(app, "cert_key_file"))
		key = push_app_file(app, "cert_key_file", &key_len);
	out->key = read_private_key(key, key_len);
	ERR_clear_error();
	return out->cert && out->key;
}

static bool read_p12(const struct push_app *app, const char *bytes, size_t len, struct pair *out)
{
	const unsigned char *at = (const unsigned char *)bytes;
	PKCS12 *p12 = d2i_PKCS12(NULL, &at, (long)len);
	size_t n = 0;
	const char *text = push_app_file(app, "cert_password_file", &n);
	char password[256] = "";
	bool ok;

	if (text)
		(void)snprintf(password, sizeof(password), "%.*s", (int)strcspn(text, "\r\n"), text);
	ok = p12 && PKCS12_parse(p12, password, &out->key, &out->cert, &out->chain) == 1 && out->cert && out->key;
	OPENSSL_cleanse(password, sizeof(password));
	PKCS12_free(p12);
	ERR_clear_error();
	return ok;
}

static int64_t ms_of(const ASN1_TIME *t)
{
	struct tm tm;

	return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) * 1000 : 0;
}

static void date_of(int64_t ms, char out[32])
{
	time_t t = ms / 1000;
	struct tm tm;

	(void)strftime(out, 32, "%Y-%m-%d", gmtime_r(&t, &tm));
}

/* Apple lists the topics of a certificate in an extension of its own: a sequence of texts, each followed by what it is for. */
static bool lists_topic(const X509_EXTENSION *e, const char *topic)
{
	const ASN1_OCTET_STRING *data = X509_EXTENSION_get_data((X509_EXTENSION *)e);
	const unsigned char *at = ASN1_STRING_get0_data(data);
	ASN1_SEQUENCE_ANY *items = d2i_ASN1_SEQUENCE_ANY(NULL, &at, ASN1_STRING_length(data));
	bool found = false;

	for (int i = 0; items && i < sk_ASN1_TYPE_num(items); i++) {
		const ASN1_TYPE *t = sk_ASN1_TYPE_value(items, i);
		const ASN1_STRING *s = t->type == V_ASN1_UTF8STRING ? t->value.utf8string : NULL;

		if (s && (size_t)ASN1_STRING_length(s) == strlen(topic) && memcmp(ASN1_STRING_get0_data(s), topic, strlen(topic)) == 0)
			found = true;
	}
	sk_ASN1_TYPE_pop_free(items, ASN1_TYPE_free);
	ERR_clear_error();
	return found;
}

static bool has_topic(const X509 *cert, const char *topic)
{
	ASN1_OBJECT *oid = OBJ_txt2obj("1.2.840.113635.100.6.3.6", 1);
	int at = oid ? X509_get_ext_by_OBJ(cert, oid, -1) : -1;
	char uid[256] = "";

	ASN1_OBJECT_free(oid);
	if (at >= 0 && lists_topic(X509_get_ext(cert, at), topic))
		return true;
	(void)X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_userId, uid, sizeof(uid));
	return strcmp(uid, topic) == 0 || (at < 0 && !uid[0]); /* neither: nothing to check by */
}

static enum im_status check_certificate(const struct push_app *app, const struct pair *p, const struct conf *c, struct im_err *err)
{
	int64_t now = apns_wall_ms(), from = ms_of(X509_get0_notBefore(p->cert));
	char date[32];

	if (X509_check_private_key(p->cert, p->key) != 1)
		return push_app_fault(app, push_app_has(app, "cert_key_file") ? "cert_key_file" : "cert_file", err,
				      "the private key is not the certificate's");
	date_of(c->cert_expires_ms, date);
	if (c->cert_expires_ms <= now)
		return push_app_fault(app, "cert_file", err, "the certificate expired on %s: get a new one from Apple", date);
	date_of(from, date);
	if (from > now)
		return push_app_fault(app, "cert_file", err, "the certificate is valid only from %s; is the clock right?", date);
	if (!has_topic(p->cert, c->topic))
		return push_app_fault(app, "topic", err, "%s is not a topic of the certificate", c->topic);
	return IM_OK;
}

static enum im_status use_certificate(const struct push_app *app, const struct pair *p, struct conf *c, struct im_err *err)
{
	unsigned char digest[32];

	if (X509_digest(p->cert, EVP_sha256(), digest, NULL) != 1 || SSL_CTX_use_cert_and_key(c->tls, p->cert, p->key, p->chain, 1) != 1) {
		ERR_clear_error();
		return push_app_fault(app, "cert_file", err, "OpenSSL does not take the certificate");
	}
	(void)snprintf(c->label, sizeof(c->label), "cert-%02x%02x%02x%02x", digest[0], digest[1], digest[2], digest[3]);
	return IM_OK;
}

static enum im_status read_certificate(const struct push_app *app, struct conf *c, struct im_err *err)
{
	struct pair p = {0};
	size_t len;
	const char *bytes = push_app_file(app, "cert_file", &len);
	bool pem = memmem(bytes, len, "-----BEGIN", 10) != NULL;
	enum im_status st;

	if (!(pem ? read_pem(app, bytes, len, &p) : read_p12(app, bytes, len, &p))) {
		pair_finish(&p);
		return push_app_fault(app, "cert_file", err,
				      pem ? "needs a certificate and its private key without a password (or cert_key_file)"
					  : "is neither PEM nor a .p12 that opens with the password in cert_password_file "
					    "(an old one, with RC2: openssl pkcs12 -legacy)");
	}
	c->cert_expires_ms = ms_of(X509_get0_notAfter(p.cert));
	st = check_certificate(app, &p, c, err);
	if (st == IM_OK)
		st = use_certificate(app, &p, c, err);
	pair_finish(&p);
	return st;
}

/* ---- hosts ---- */

static enum im_status read_endpoint(const struct push_app *app, const char *key, struct conf_host *h, struct im_err *err)
{
	const char *url = push_app_text(app, key), *at, *end;
	char *rest;
	size_t len;

	if (strncmp(url, "https://", 8) != 0)
		return push_app_fault(app, key, err, "must begin with https://; Apple's protocol is never spoken in the clear");
	at = url + 8;
	end = *at == '[' ? strchr(at, ']') : at + strcspn(at, ":/");
	if (*at == '[')
		at++;
	len = end ? (size_t)(end - at) : 0;
	if (len == 0 || len >= sizeof(h->name))
		return push_app_fault(app, key, err, "must be https://HOST or https://HOST:PORT");
	(void)snprintf(h->name, sizeof(h->name), "%.*s", (int)len, at);
	end += *end == ']';
	h->port = *end == ':' ? (unsigned)strtoul(end + 1, &rest, 10) : PORT;
	if (*end == ':')
		end = rest;
	if (h->port == 0 || h->port > 65535 || (*end && strcmp(end, "/") != 0))
		return push_app_fault(app, key, err, "must be https://HOST or https://HOST:PORT");
	return IM_OK;
}

static enum im_status read_hosts(const struct push_app *app, struct conf *c, struct im_err *err)
{
	const char *env = push_app_text(app, "env");

	for (int i = 0; i < CONF_ENVS; i++) {
		c->serves[i] = strcmp(env, "both") == 0 || strcmp(env, conf_envs[i]) == 0;
		(void)snprintf(c->hosts[i].name, sizeof(c->hosts[i].name), "%s", hosts[i]);
		c->hosts[i].port = PORT;
		if (push_app_has(app, endpoint_keys[i])) {
			enum im_status st = read_endpoint(app, endpoint_keys[i], &c->hosts[i], err);

			if (st != IM_OK)
				return st;
		}
	}
	return IM_OK;
}

/* Two apps with the same answer share their connections; after new files were read an unchanged one goes on. */
static bool identify(const struct push_app *app, struct conf *c)
{
	size_t ca_len = 0;
	const char *ca = push_app_file(app, "ca_file", &ca_len);
	X509 *cert = SSL_CTX_get0_certificate(c->tls);
	unsigned char *der = NULL, digest[32];
	int der_len = c->key ? i2d_PUBKEY(c->key, &der) : i2d_X509(cert, &der);
	bool ok = der_len > 0;

	for (int e = 0; ok && e < CONF_ENVS; e++) {
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();
		char text[512];
		int len = snprintf(text, sizeof(text), "%s:%u %s %s ", c->hosts[e].name, c->hosts[e].port, c->team, c->kid);

		ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 && EVP_DigestUpdate(ctx, text, (size_t)len) == 1 &&
		     EVP_DigestUpdate(ctx, der, (size_t)der_len) == 1 && EVP_DigestUpdate(ctx, ca ? ca : "", ca_len) == 1 &&
		     EVP_DigestFinal_ex(ctx, digest, NULL) == 1;
		EVP_MD_CTX_free(ctx);
		for (size_t i = 0; ok && i < sizeof(digest); i++)
			(void)snprintf(c->hosts[e].identity + 2 * i, 3, "%02x", digest[i]);
	}
	OPENSSL_free(der);
	return ok;
}

/* ---- all of it ---- */

static enum im_status copy_text(const struct push_app *app, const char *key, char *out, size_t size, struct im_err *err)
{
	const char *s = push_app_text(app, key);

	if (strlen(s) >= size)
		return push_app_fault(app, key, err, "is longer than %zu bytes", size - 1);
	for (const char *c = s; *c; c++)
		if (*c <= 0x20 || *c >= 0x7f)
			return push_app_fault(app, key, err, "must be printable ASCII without blanks");
	(void)snprintf(out, size, "%s", s);
	return IM_OK;
}

static enum im_status read_texts(const struct push_app *app, struct conf *c, struct im_err *err)
{
	enum im_status st = copy_text(app, "topic", c->topic, sizeof(c->topic), err);

	if (st == IM_OK)
		st = copy_text(app, "sound", c->sound, sizeof(c->sound), err);
	if (st == IM_OK)
		st = copy_text(app, "loc_key", c->loc_key, sizeof(c->loc_key), err);
	if (strcmp(c->sound, "none") == 0)
		c->sound[0] = '\0';
	return st;
}

static enum im_status read_credential(const struct push_app *app, struct conf *c, struct im_err *err)
{
	bool key = push_app_has(app, "key_file"), cert = push_app_has(app, "cert_file");

	if (key && cert)
		return push_app_fault(app, "cert_file", err, "an app has either key_file (a provider token) or cert_file, not both");
	if (!key && !cert)
		return push_app_fault(app, "topic", err, "the app needs key_file with key_id and team_id, or cert_file");
	return key ? read_token_key(app, c, err) : read_certificate(app, c, err);
}

enum im_status conf_read(const struct push_app *app, struct conf *out, struct im_err *err)
{
	const char *ca = push_app_has(app, "ca_file") ? push_app_text(app, "ca_file") : NULL;
	struct conf c = {.max_conns = (unsigned)push_app_number(app, "max_conns")};
	struct im_err why = {""};
	enum im_status st;

	(void)snprintf(c.name, sizeof(c.name), "%s", push_app_name(app));
	st = read_texts(app, &c, err);
	if (st == IM_OK)
		st = read_hosts(app, &c, err);
	if (st == IM_OK && tls_context(ca, &c.tls, &why) != IM_OK)
		st = push_app_fault(app, "ca_file", err, "%s", why.text);
	if (st == IM_OK)
		st = read_credential(app, &c, err);
	if (st == IM_OK && !identify(app, &c))
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st != IM_OK) {
		conf_finish(&c);
		return st;
	}
	*out = c;
	return IM_OK;
}

void conf_finish(struct conf *c)
{
	EVP_PKEY_free(c->key);
	SSL_CTX_free(c->tls);
	*c = (struct conf){0};
}
