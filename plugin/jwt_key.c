/*
 * Keys and signatures. OpenSSL does the arithmetic; what is ours is which key may be used for what. The one
 * difficult idea: JOSE writes an ECDSA signature as two numbers of fixed length, OpenSSL reads ASN.1.
 */
#include "jwt_key.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


enum family { HMAC_SHA, RSA_PKCS1, RSA_PSS_MGF1, EC_DSA, ED_DSA };

struct jwt_alg {
	const char *name;
	enum family family;
	const EVP_MD *(*md)(void);
	size_t least;            /* HMAC: bytes of the secret (RFC 7518 3.2). EC: bytes of R, and of S */
	const char *crv, *group;
};

static const struct jwt_alg algs[] = {
	{ "HS256", HMAC_SHA, EVP_sha256, 32, NULL, NULL },
	{ "HS384", HMAC_SHA, EVP_sha384, 48, NULL, NULL },
	{ "HS512", HMAC_SHA, EVP_sha512, 64, NULL, NULL },
	{ "RS256", RSA_PKCS1, EVP_sha256, 0, NULL, NULL },
	{ "RS384", RSA_PKCS1, EVP_sha384, 0, NULL, NULL },
	{ "RS512", RSA_PKCS1, EVP_sha512, 0, NULL, NULL },
	{ "PS256", RSA_PSS_MGF1, EVP_sha256, 0, NULL, NULL },
	{ "PS384", RSA_PSS_MGF1, EVP_sha384, 0, NULL, NULL },
	{ "PS512", RSA_PSS_MGF1, EVP_sha512, 0, NULL, NULL },
	{ "ES256", EC_DSA, EVP_sha256, 32, "P-256", "prime256v1" },
	{ "ES384", EC_DSA, EVP_sha384, 48, "P-384", "secp384r1" },
	{ "ES512", EC_DSA, EVP_sha512, 66, "P-521", "secp521r1" },
	{ "EdDSA", ED_DSA, NULL, 0, "Ed25519", NULL },
};
#define ALGS (sizeof(algs) / sizeof(algs[0]))

struct key {
	const struct jwt_alg *alg;
	char *kid;               /* NULL: none */
	EVP_PKEY *pkey;          /* NULL: a secret */
	uint8_t *secret;
	size_t secret_len;
};

struct jwt_keys {
	struct key keys[JWT_KEYS_MAX];
	size_t n;
};

const struct jwt_alg *jwt_alg_find(const char *name)
{
	for (size_t i = 0; i < ALGS; i++)
		if (strcmp(algs[i].name, name) == 0)
			return &algs[i];
	return NULL;
}

const struct jwt_alg *jwt_alg_of_curve(const char *crv)
{
	for (size_t i = 0; i < ALGS; i++)
		if (algs[i].crv && strcmp(algs[i].crv, crv) == 0)
			return &algs[i];
	return NULL;
}

bool jwt_alg_is_hmac(const struct jwt_alg *alg)
{
	return alg->family == HMAC_SHA;
}

const char *jwt_alg_group(const struct jwt_alg *alg)
{
	return alg->group;
}

size_t jwt_alg_coordinate(const struct jwt_alg *alg)
{
	return alg->family == EC_DSA ? alg->least : 0;
}

size_t jwt_keys_count(const struct jwt_keys *k)
{
	return k ? k->n : 0;
}

static void key_wipe(struct key *key)
{
	EVP_PKEY_free(key->pkey);
	if (key->secret)
		sodium_memzero(key->secret, key->secret_len);
	free(key->secret);
	free(key->kid);
	memset(key, 0, sizeof(*key));
}

void jwt_keys_free(struct jwt_keys *k)
{
	if (!k)
		return;
	for (size_t i = 0; i < k->n; i++)
		key_wipe(&k->keys[i]);
	free(k);
}

/* ---- adding ---- */

/* NULL: fits. A key of another kind would make OpenSSL compute something else than the algorithm's name says. */
static const char *unfit(const struct jwt_alg *alg, const EVP_PKEY *pkey)
{
	char group[64];

	switch (alg->family) {
	case HMAC_SHA:
		return "a public key is no secret";
	case RSA_PKCS1:
	case RSA_PSS_MGF1:
		if (EVP_PKEY_get_base_id(pkey) != EVP_PKEY_RSA)
			return "it is no RSA key";
		if (EVP_PKEY_get_bits(pkey) < JWT_RSA_BITS_MIN || EVP_PKEY_get_bits(pkey) > JWT_RSA_BITS_MAX)
			return "RSA keys must have 2048 to 8192 bits";
		return NULL;
	case EC_DSA:
		if (EVP_PKEY_get_base_id(pkey) != EVP_PKEY_EC || EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) != 1 ||
		    strcmp(group, alg->group) != 0)
			return "it is no key on the algorithm's curve";
		return NULL;
	case ED_DSA:
		return EVP_PKEY_get_base_id(pkey) == EVP_PKEY_ED25519 ? NULL : "it is no Ed25519 key";
	}
	return "unknown algorithm";
}

static enum im_status key_add(struct jwt_keys *k, struct key *key, const char *kid, struct im_err *err)
{
	if (k->n == JWT_KEYS_MAX)
		return im_fail(err, IM_BAD_INPUT, "more than %u keys", JWT_KEYS_MAX);
	if (kid && strlen(kid) > JWT_KID_MAX)
		return im_fail(err, IM_BAD_INPUT, "its kid is longer than %u bytes", JWT_KID_MAX);
	if (kid && !(key->kid = strdup(kid)))
		return im_fail(err, IM_FAILED, "out of memory");
	k->keys[k->n++] = *key;
	return IM_OK;
}

enum im_status jwt_keys_add(struct jwt_keys *k, const struct jwt_alg *alg, const char *kid, EVP_PKEY *pkey, struct im_err *err)
{
	struct key key = { .alg = alg, .pkey = pkey };
	const char *why = unfit(alg, pkey);
	enum im_status st = why ? im_fail(err, IM_BAD_INPUT, "%s: %s", alg->name, why) : key_add(k, &key, kid, err);

	if (st != IM_OK)
		key_wipe(&key);
	return st;
}

enum im_status jwt_keys_add_secret(struct jwt_keys *k, const struct jwt_alg *alg, const char *kid, const uint8_t *secret, size_t len,
				   struct im_err *err)
{
	struct key key = { .alg = alg, .secret_len = len };
	enum im_status st;

	if (len < alg->least)
		return im_fail(err, IM_BAD_INPUT, "%s needs a secret of at least %zu bytes, this one has %zu", alg->name, alg->least, len);
	key.secret = malloc(len);
	if (!key.secret)
		return im_fail(err, IM_FAILED, "out of memory");
	memcpy(key.secret, secret, len);
	st = key_add(k, &key, kid, err);
	if (st != IM_OK)
		key_wipe(&key);
	return st;
}

/* ---- files ---- */

static enum im_status read_open(int fd, const char *path, uint8_t *buf, size_t *len, bool *open_to_all, struct im_err *err)
{
	struct stat sb;
	ssize_t got;

	*len = 0;
	if (fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode))
		return im_fail(err, IM_BAD_INPUT, "%.180s is not a file", path);
	*open_to_all = sb.st_mode & S_IRWXO;
	while ((got = read(fd, buf + *len, JWT_FILE_MAX + 1 - *len)) > 0)
		*len += (size_t)got;
	if (got < 0)
		return im_fail(err, IM_FAILED, "cannot read %.180s: %s", path, strerror(errno));
	if (*len == 0 || *len > JWT_FILE_MAX)
		return im_fail(err, IM_BAD_INPUT, "%.180s must have 1 to %u bytes", path, JWT_FILE_MAX);
	return IM_OK;
}

static enum im_status file_read(const char *path, uint8_t *buf, size_t *len, bool *open_to_all, struct im_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	enum im_status st;

	if (fd < 0)
		return im_fail(err, IM_FAILED, "cannot read %.180s: %s", path, strerror(errno));
	st = read_open(fd, path, buf, len, open_to_all, err);
	(void)close(fd); /* only read */
	return st;
}

static bool contains(const uint8_t *data, size_t len, const char *text)
{
	return memmem(data, len, text, strlen(text)) != NULL;
}

static enum im_status file_secret(struct jwt_keys *k, const struct jwt_alg *alg, const uint8_t *data, size_t len, bool open_to_all,
				  struct im_err *err)
{
	if (contains(data, len, "-----BEGIN "))
		return im_fail(err, IM_BAD_INPUT, "a PEM file is no secret: %s would accept what anybody signs with it", alg->name);
	if (open_to_all)
		return im_fail(err, IM_BAD_INPUT, "a secret that everybody may use: chmod o-rwx");
	if (data[len - 1] == '\n') /* an editor's, not the issuer's */
		len--;
	return jwt_keys_add_secret(k, alg, NULL, data, len, err);
}

static enum im_status file_pem(struct jwt_keys *k, const struct jwt_alg *alg, const uint8_t *data, size_t len, struct im_err *err)
{
	BIO *bio = BIO_new_mem_buf(data, (int)len);
	EVP_PKEY *pkey = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	ERR_clear_error(); /* the broker reads the same queue after its TLS calls */
	if (!pkey)
		return im_fail(err, IM_BAD_INPUT, "no PEM public key (-----BEGIN PUBLIC KEY-----)");
	return jwt_keys_add(k, alg, NULL, pkey, err);
}

static enum im_status file_jwks(struct jwt_keys *k, const char *path, const uint8_t *data, size_t len, bool open_to_all, struct im_err *err)
{
	json_error_t where;
	json_t *set = json_loadb((const char *)data, len, JSON_REJECT_DUPLICATES, &where);
	bool secrets = false;
	size_t n;

	if (!set)
		return im_fail(err, IM_BAD_INPUT, "no JSON: line %d: %.100s", where.line, where.text);
	n = jwks_read(k, set, path, &secrets);
	json_decref(set);
	if (n == 0)
		return im_fail(err, IM_BAD_INPUT, "no key in it can be used");
	if (secrets && open_to_all)
		return im_fail(err, IM_BAD_INPUT, "secrets that everybody may use: chmod o-rwx");
	return IM_OK;
}

/* One entry of the setting: its form was checked when the settings were read, but not the name of the algorithm. */
static enum im_status entry_load(struct jwt_keys *k, char *entry, uint8_t *buf, struct im_err *err)
{
	char *path = strchr(entry, ':');
	const struct jwt_alg *alg;
	struct im_err why = { "" };
	bool open_to_all = false;
	enum im_status st;
	size_t len = 0;

	if (!path)
		return im_fail(err, IM_BAD_INPUT, "im_jwt_keys: '%.100s' is not ALGORITHM:/path", entry);
	*path++ = '\0';
	alg = jwt_alg_find(entry);
	if (!alg && strcmp(entry, "jwks") != 0)
		return im_fail(err, IM_BAD_INPUT, "im_jwt_keys: '%.20s' is neither jwks nor an algorithm (HS256 RS256 PS256 ES256 EdDSA ...)", entry);
	st = file_read(path, buf, &len, &open_to_all, err);
	if (st != IM_OK)
		return st;
	if (!alg)
		st = file_jwks(k, path, buf, len, open_to_all, &why);
	else if (alg->family == HMAC_SHA)
		st = file_secret(k, alg, buf, len, open_to_all, &why);
	else
		st = file_pem(k, alg, buf, len, &why);
	return st == IM_OK ? IM_OK : im_fail(err, st, "%.150s: %.250s", path, why.text);
}

enum im_status jwt_keys_load(const char *text, struct jwt_keys **out, struct im_err *err)
{
	struct jwt_keys *k = calloc(1, sizeof(*k));
	uint8_t *buf = malloc(JWT_FILE_MAX + 1);
	char *copy = strdup(text), *rest = copy, *entry;
	enum im_status st = k && buf && copy ? IM_OK : im_fail(err, IM_FAILED, "out of memory");

	while (st == IM_OK && (entry = strsep(&rest, ","))) {
		entry += strspn(entry, " ");
		if (*entry)
			st = entry_load(k, entry, buf, err);
	}
	if (buf)
		sodium_memzero(buf, JWT_FILE_MAX + 1);
	free(buf);
	free(copy);
	if (st == IM_OK)
		*out = k;
	else
		jwt_keys_free(k);
	return st;
}

/* ---- verifying ---- */

static bool verify_hmac(const struct key *key, const void *text, size_t len, const uint8_t *signature, size_t signature_len)
{
	uint8_t mac[EVP_MAX_MD_SIZE];
	unsigned mac_len = 0;
	bool good = HMAC(key->alg->md(), key->secret, (int)key->secret_len, text, len, mac, &mac_len) != NULL &&
		    signature_len == mac_len && sodium_memcmp(mac, signature, mac_len) == 0;

	sodium_memzero(mac, sizeof(mac)); /* it would sign this token */
	return good;
}

/* R || S, each of the curve's length, to ASN.1. 0: not of that length. */
static int ecdsa_der(const struct jwt_alg *alg, const uint8_t *signature, size_t len, uint8_t **der)
{
	ECDSA_SIG *sig;
	BIGNUM *r, *s;
	int der_len = 0;

	if (len != 2 * alg->least)
		return 0;
	sig = ECDSA_SIG_new();
	r = BN_bin2bn(signature, (int)alg->least, NULL);
	s = BN_bin2bn(signature + alg->least, (int)alg->least, NULL);
	if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
		r = s = NULL; /* the signature's now */
		der_len = i2d_ECDSA_SIG(sig, der);
	}
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(sig);
	return der_len > 0 ? der_len : 0;
}

static bool verify_public(const struct key *key, const void *text, size_t len, const uint8_t *signature, size_t signature_len)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *settings = NULL; /* belongs to ctx */
	bool good = ctx && EVP_DigestVerifyInit(ctx, &settings, key->alg->md ? key->alg->md() : NULL, NULL, key->pkey) == 1;

	if (good && key->alg->family == RSA_PSS_MGF1) /* MGF1 with the same hash is the default; RFC 7518 3.5 sets the salt's length */
		good = EVP_PKEY_CTX_set_rsa_padding(settings, RSA_PKCS1_PSS_PADDING) == 1 &&
		       EVP_PKEY_CTX_set_rsa_pss_saltlen(settings, RSA_PSS_SALTLEN_DIGEST) == 1;
	good = good && EVP_DigestVerify(ctx, signature, signature_len, text, len) == 1;
	EVP_MD_CTX_free(ctx);
	ERR_clear_error(); /* a bad signature leaves an error that the broker would take for one of its TLS connections' */
	return good;
}

static bool verify(const struct key *key, const void *text, size_t len, const uint8_t *signature, size_t signature_len)
{
	uint8_t *der = NULL;
	int der_len;
	bool good;

	if (key->alg->family == HMAC_SHA)
		return verify_hmac(key, text, len, signature, signature_len);
	if (key->alg->family != EC_DSA)
		return verify_public(key, text, len, signature, signature_len);
	der_len = ecdsa_der(key->alg, signature, signature_len, &der);
	good = der_len > 0 && verify_public(key, text, len, der, (size_t)der_len);
	OPENSSL_free(der);
	return good;
}

/* A key without kid serves every token; one with a kid also tokens that name none. */
static bool may_verify(const struct key *key, const char *alg, const char *kid)
{
	return strcmp(key->alg->name, alg) == 0 && (!kid || !key->kid || strcmp(key->kid, kid) == 0);
}

enum jwt_signature jwt_keys_verify(const struct jwt_keys *k, const char *alg, const char *kid, const void *text, size_t len,
				   const uint8_t *signature, size_t signature_len)
{
	unsigned tried = 0;

	for (size_t i = 0; i < jwt_keys_count(k) && tried < JWT_TRIES_MAX; i++) {
		if (!may_verify(&k->keys[i], alg, kid))
			continue;
		tried++;
		if (verify(&k->keys[i], text, len, signature, signature_len))
			return JWT_SIGNATURE_GOOD;
	}
	return tried ? JWT_SIGNATURE_BAD : JWT_SIGNATURE_NO_KEY;
}
