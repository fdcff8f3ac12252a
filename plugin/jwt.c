/*
 * One token: form, header, signature, claims, in this order. Lenient nowhere: two readings of the same bytes
 * are how signatures get forged. So base64url must be canonical (no padding, no spare bits), no member may
 * stand twice, and times are whole numbers.
 */
#include "jwt.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static const struct jwt_text texts[JWT_VERDICTS] = {
	[JWT_GOOD] = { "ok", "the token is good", "" },
	[JWT_TOO_LARGE] = { "jwt_too_large", "the token is longer than im_jwt_max_bytes", "ask the issuer for a token with fewer claims" },
	[JWT_MALFORMED] = { "jwt_malformed", "not a JWT: three parts of base64url without padding, JSON objects in the first two, no member twice",
			    "send the token as it was issued" },
	[JWT_HEADER] = { "jwt_header", "the token's header asks for what is not understood here (crit), or it is another kind of token (typ)",
			 "send an access token or ID token" },
	[JWT_NO_KEY] = { "jwt_no_key", "no key of im_jwt_keys has the token's algorithm and kid",
			 "has the issuer got new keys? renew the key file and send SIGHUP" },
	[JWT_BAD_SIGNATURE] = { "jwt_signature", "the token's signature is wrong", "get a token from the issuer whose keys are in im_jwt_keys" },
	[JWT_BAD_TIME] = { "jwt_time", "exp is missing, or exp, nbf or iat is not a whole number of seconds",
			   "the issuer must set exp (im_jwt_need_expiry)" },
	[JWT_EXPIRED] = { "jwt_expired", "the token has expired", "get a new one; if it is new, compare the clocks (im_jwt_skew)" },
	[JWT_EARLY] = { "jwt_early", "the token is not valid yet (nbf, iat)", "compare the clocks of issuer and broker (im_jwt_skew)" },
	[JWT_BAD_ISSUER] = { "jwt_issuer", "iss is not im_jwt_issuer", "send a token of that issuer" },
	[JWT_BAD_AUDIENCE] = { "jwt_audience", "aud does not contain im_jwt_audience", "ask the issuer for a token for this audience" },
	[JWT_BAD_USER] = { "jwt_claim", "the claim im_jwt_user_claim is missing or cannot be a user's name",
			   "names are [a-z0-9][a-z0-9._@-]{0,63}; choose the claim that holds them" },
	[JWT_NO_MEMORY] = { "no_memory", "out of memory", "try again" },
	[JWT_LATER] = { "login_ration", "too many bad tokens came lately: unknown ones have to wait", "connect again" },
};

const struct jwt_text *jwt_text(enum jwt_verdict v)
{
	return &texts[v];
}

/* ---- form ---- */

struct part {
	const char *text;
	size_t len;
};

static bool split(const char *token, struct part parts[3])
{
	for (int i = 0; i < 3; i++) {
		parts[i].text = token;
		parts[i].len = strcspn(token, ".");
		token += parts[i].len;
		if (parts[i].len == 0 || *token != (i < 2 ? '.' : '\0'))
			return false;
		token++;
	}
	return true;
}

/* A JSON object begins with '{': in base64 that is 'e' and one of four letters. No password of ours begins so by design. */
bool jwt_has_form(const char *text)
{
	const char *first = strchr(text, '.'), *second = first ? strchr(first + 1, '.') : NULL;

	return text[0] == 'e' && text[1] >= 'w' && text[1] <= 'z' && second && !strchr(second + 1, '.');
}

/* Into a buffer of at least len bytes. false: not canonical base64url. */
static bool decode(const struct part *p, uint8_t *out, size_t *len)
{
	return sodium_base642bin(out, p->len, p->text, p->len, NULL, len, NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0;
}

/* NULL: no JSON object. Whitespace around it is part of what was signed; anything else behind it is not JSON. */
static json_t *object(const struct part *p, uint8_t *scratch)
{
	json_t *root = NULL;
	size_t len;

	if (decode(p, scratch, &len))
		root = json_loadb((const char *)scratch, len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(root))
		return root;
	json_decref(root);
	return NULL;
}

/* ---- header ---- */

/* Other kinds of token are signed with the same keys: a logout token or a proof of possession must not log in. */
static bool typ_is_ours(const json_t *typ)
{
	static const char *const known[] = { "JWT", "at+jwt", "application/jwt", "application/at+jwt" };

	if (!typ)
		return true;
	for (size_t i = 0; json_is_string(typ) && i < sizeof(known) / sizeof(known[0]); i++)
		if (strcasecmp(json_string_value(typ), known[i]) == 0)
			return true;
	return false;
}

/* jku, x5u, jwk and x5c are not even looked at: keys come from im_jwt_keys and from nowhere else. */
static enum jwt_verdict check_header(const struct jwt_keys *keys, const json_t *header, const struct part parts[3], const uint8_t *signature,
				     size_t signature_len)
{
	const json_t *alg = json_object_get(header, "alg"), *kid = json_object_get(header, "kid");
	size_t len = parts[0].len + 1 + parts[1].len;

	if (!json_is_string(alg) || (kid && !json_is_string(kid)) || !typ_is_ours(json_object_get(header, "typ")) ||
	    json_object_get(header, "crit"))
		return JWT_HEADER;
	switch (jwt_keys_verify(keys, json_string_value(alg), json_string_value(kid), parts[0].text, len, signature, signature_len)) {
	case JWT_SIGNATURE_GOOD: return JWT_GOOD;
	case JWT_SIGNATURE_BAD: return JWT_BAD_SIGNATURE;
	case JWT_SIGNATURE_NO_KEY: break;
	}
	return JWT_NO_KEY;
}

/* ---- claims ---- */

/* *out stays 0 if the claim is not there. */
static bool seconds(const json_t *claims, const char *name, int64_t *out)
{
	const json_t *v = json_object_get(claims, name);

	*out = 0;
	if (!v)
		return true;
	if (!json_is_integer(v) || json_integer_value(v) <= 0 || json_integer_value(v) > JWT_TIME_MAX)
		return false;
	*out = json_integer_value(v);
	return true;
}

static bool is_text(const json_t *v, const char *text)
{
	return json_is_string(v) && strcmp(json_string_value(v), text) == 0;
}

static bool audience_is(const json_t *aud, const char *text)
{
	const json_t *one;
	size_t i;

	if (!*text) /* RFC 7519 4.1.3: who does not find itself in aud must refuse */
		return aud == NULL;
	json_array_foreach(aud, i, one)
		if (is_text(one, text))
			return true;
	return is_text(aud, text);
}

enum jwt_verdict jwt_check_time(const struct jwt_claims *c, unsigned skew_s, int64_t now_s)
{
	if (c->expires_s && now_s >= c->expires_s + (int64_t)skew_s)
		return JWT_EXPIRED;
	return c->not_before_s > now_s + (int64_t)skew_s ? JWT_EARLY : JWT_GOOD;
}

static enum jwt_verdict check_claims(const struct jwt_rules *rules, const json_t *claims, int64_t now_s, struct jwt_claims *out)
{
	const json_t *user = json_object_get(claims, rules->user_claim);
	struct jwt_claims c = { "", 0, 0 };
	enum jwt_verdict verdict;
	int64_t issued;

	if (!seconds(claims, "exp", &c.expires_s) || !seconds(claims, "nbf", &c.not_before_s) || !seconds(claims, "iat", &issued) ||
	    (rules->need_expiry && c.expires_s == 0))
		return JWT_BAD_TIME;
	if (issued > c.not_before_s)
		c.not_before_s = issued;
	verdict = jwt_check_time(&c, rules->skew_s, now_s);
	if (verdict != JWT_GOOD)
		return verdict;
	if (*rules->issuer && !is_text(json_object_get(claims, "iss"), rules->issuer))
		return JWT_BAD_ISSUER;
	if (!audience_is(json_object_get(claims, "aud"), rules->audience))
		return JWT_BAD_AUDIENCE;
	if (!json_is_string(user) || !im_name_valid(json_string_value(user), json_string_length(user)))
		return JWT_BAD_USER;
	memcpy(c.user, json_string_value(user), json_string_length(user) + 1);
	*out = c;
	return JWT_GOOD;
}

/* ---- the whole ---- */

static enum jwt_verdict check_parts(const struct jwt_keys *keys, const struct jwt_rules *rules, const struct part parts[3], uint8_t *scratch,
				    uint8_t *signature, int64_t now_s, struct jwt_claims *out)
{
	json_t *header = object(&parts[0], scratch), *claims = NULL;
	enum jwt_verdict verdict = JWT_MALFORMED;
	size_t signature_len;

	if (header && decode(&parts[2], signature, &signature_len))
		verdict = check_header(keys, header, parts, signature, signature_len);
	if (verdict == JWT_GOOD) {
		claims = object(&parts[1], scratch);
		verdict = claims ? check_claims(rules, claims, now_s, out) : JWT_MALFORMED;
	}
	json_decref(header);
	json_decref(claims);
	return verdict;
}

enum jwt_verdict jwt_check(const struct jwt_keys *keys, const struct jwt_rules *rules, const char *token, int64_t now_s,
			   struct jwt_claims *out)
{
	size_t len = strnlen(token, rules->max_bytes + 1);
	enum jwt_verdict verdict;
	struct part parts[3];
	uint8_t *scratch;

	if (len > rules->max_bytes)
		return JWT_TOO_LARGE;
	if (!split(token, parts))
		return JWT_MALFORMED;
	scratch = malloc(2 * len + 1);
	if (!scratch)
		return JWT_NO_MEMORY;
	verdict = check_parts(keys, rules, parts, scratch, scratch + len, now_s, out);
	sodium_memzero(scratch, 2 * len); /* a token is a secret while it is valid */
	free(scratch);
	return verdict;
}
