/* The form of a token, per provider; docs/push.md. What is refused at registration never costs a call to the provider. */
#include "push/driver.h"

#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <sodium.h>
#include <string.h>

#define POINT_BYTES 65 /* uncompressed P-256: 4, x, y */
#define AUTH_BYTES 16

/* Graphic ASCII without blanks: it goes into URLs, headers and JSON. */
static bool is_printable(const char *s)
{
	for (; *s; s++)
		if (*s <= 0x20 || *s >= 0x7f)
			return false;
	return true;
}

static const char *apns(const Im__Push__Token *t)
{
	size_t len = strlen(t->token);

	if (strspn(t->token, "0123456789abcdefABCDEF") != len)
		return "an APNs token is hexadecimal";
	if (len < 32 || len > 200 || len % 2)
		return "an APNs token has 32 to 200 digits, an even number";
	return NULL;
}

static const char *fcm(const Im__Push__Token *t)
{
	size_t len = strlen(t->token);

	if (len < 20 || len > 4096)
		return "an FCM token has 20 to 4096 characters";
	return is_printable(t->token) ? NULL : "an FCM token has no blanks and only ASCII";
}

static const char *vendor(const Im__Push__Token *t)
{
	size_t len = strlen(t->token);

	if (len < 1 || len > 512)
		return "a token has 1 to 512 characters";
	return is_printable(t->token) ? NULL : "a token has no blanks and only ASCII";
}

/* ---- Web Push */

static bool is_point(const uint8_t *bytes)
{
	EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
	EC_POINT *point = group ? EC_POINT_new(group) : NULL;
	bool ok = point && bytes[0] == 4 && EC_POINT_oct2point(group, point, bytes, POINT_BYTES, NULL) == 1; /* is it on the curve? */

	EC_POINT_free(point);
	EC_GROUP_free(group);
	return ok;
}

/* Base64url without padding, exactly `len` bytes. */
static bool decode(const char *text, uint8_t *out, size_t len)
{
	size_t used = 0;
	const char *end = NULL;

	return sodium_base642bin(out, len, text, strlen(text), NULL, &used, &end, sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 && used == len &&
	       *end == '\0';
}

/* Where it leads is looked at at every send; here only its form. */
static const char *endpoint_problem(const char *url)
{
	size_t authority;

	if (strlen(url) > 2048)
		return "the endpoint is longer than 2048 bytes";
	if (strncmp(url, "https://", 8) != 0 || !is_printable(url))
		return "the endpoint is not an https URL";
	authority = strcspn(url + 8, "/?#");
	if (authority == 0 || url[8] == ':')
		return "the endpoint has no host";
	return memchr(url + 8, '@', authority) ? "the endpoint has a user name in it" : NULL;
}

static const char *webpush(const Im__Push__Token *t)
{
	uint8_t point[POINT_BYTES], auth[AUTH_BYTES];
	const char *problem = endpoint_problem(t->token);

	if (problem)
		return problem;
	if (!decode(t->p256dh, point, sizeof(point)))
		return "p256dh is not 65 bytes in base64url without padding";
	if (!is_point(point))
		return "p256dh is not a point of the curve P-256";
	return decode(t->auth, auth, sizeof(auth)) ? NULL : "auth is not 16 bytes in base64url without padding";
}

const char *push_token_problem(const char *provider, const Im__Push__Token *t)
{
	static const struct {
		const char *provider;
		const char *(*problem)(const Im__Push__Token *t);
	} forms[] = {{"apns", apns}, {"fcm", fcm}, {"webpush", webpush}};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
		if (strcmp(forms[i].provider, provider) == 0)
			return forms[i].problem(t);
	return vendor(t);
}
