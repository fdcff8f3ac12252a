/*
 * jwt_check and jwks_read. The first byte chooses. A token is refused or has a name for its user and an end ahead;
 * so that claims are reached at all, half of the tokens get their signature from here, with the secret of
 * the key set. A key set never yields more keys than there is room for.
 */
#include "fuzz.h"

#include "base/log.h"
#include "plugin/jwt.h"
#include <openssl/hmac.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define NOW 1800000000
#define SECRET "0123456789abcdef0123456789abcdef"
#define TOKEN_MAX 4096

/* The public keys of RFC 7515 A.3 and RFC 8037 A.4 beside a secret of ours. */
static const char set[] =
	"{\"keys\":[{\"kty\":\"oct\",\"alg\":\"HS256\",\"kid\":\"h\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"},"
	"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
	"\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"},"
	"{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"d\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";

static struct jwt_keys *keys_of(const void *text, size_t len)
{
	struct jwt_keys *k = NULL;
	struct im_err err;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	bool secrets;

	must(jwt_keys_load("", &k, &err) == IM_OK);
	if (root) {
		size_t n = jwks_read(k, root, "fuzz", &secrets);

		must(n == jwt_keys_count(k) && n <= JWT_KEYS_MAX);
	}
	json_decref(root);
	return k;
}

/* header.claims as given, each in base64url, and a signature that is right. */
static void sign(const uint8_t *data, size_t size, char *token)
{
	const uint8_t *cut = memchr(data, '.', size);
	size_t first = cut ? (size_t)(cut - data) : size, n;
	uint8_t mac[32];

	sodium_bin2base64(token, TOKEN_MAX, data, first, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	strcat(token, ".");
	n = strlen(token);
	sodium_bin2base64(token + n, TOKEN_MAX - n, data + first + (cut != NULL), size - first - (cut != NULL), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	must(HMAC(EVP_sha256(), SECRET, sizeof(SECRET) - 1, (const uint8_t *)token, strlen(token), mac, NULL) != NULL);
	strcat(token, ".");
	n = strlen(token);
	sodium_bin2base64(token + n, TOKEN_MAX - n, mac, sizeof(mac), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static void check_token(const struct jwt_keys *keys, const char *token)
{
	static const struct jwt_rules rules = { "sub", "", "", true, 0, TOKEN_MAX }, named = { "name", "iss", "aud", false, 60, 300 };
	struct jwt_claims c;
	enum jwt_verdict v = jwt_check(keys, &rules, token, NOW, &c);

	must(v < JWT_VERDICTS && jwt_text(v)->rule);
	if (v == JWT_GOOD) {
		must(im_name_valid(c.user, strlen(c.user)));
		must(c.expires_s > NOW && c.expires_s <= JWT_TIME_MAX && c.not_before_s >= 0 && c.not_before_s <= NOW);
		must(jwt_has_form(token) || token[0] != 'e'); /* JSON may begin with blanks */
	}
	must(jwt_check(keys, &named, token, NOW, &c) < JWT_VERDICTS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct jwt_keys *keys;
	char token[2 * TOKEN_MAX];

	if (!keys) {
		must(sodium_init() >= 0);
		im_log_open("fuzz", IM_LOG_ERROR, NULL);
		keys = keys_of(set, sizeof(set) - 1);
		must(jwt_keys_count(keys) == 3);
	}
	if (size < 1 || size > TOKEN_MAX / 2)
		return 0;
	if (data[0] == 'K') {
		jwt_keys_free(keys_of(data + 1, size - 1));
		return 0;
	}
	if (data[0] == 'S') {
		sign(data + 1, size - 1, token);
	} else {
		memcpy(token, data, size);
		token[size] = '\0';
	}
	check_token(keys, token);
	return 0;
}
