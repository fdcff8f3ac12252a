/*
 * JSON Web Tokens (RFC 7519, RFC 8725) in the compact form, verified and not made. Pure: keys, rules and the
 * time go in, a verdict comes out. Nothing of a token is believed before its signature has been verified, but
 * the names of the algorithm and of the key.
 */
#ifndef PLUGIN_JWT_H
#define PLUGIN_JWT_H

#include "jwt_key.h"
#include "wire/name.h"

#include <stdbool.h>
#include <stdint.h>

#define JWT_TIME_MAX 253402300799 /* the year 9999: later is a mistake, and milliseconds of it still fit */

struct jwt_rules {
	const char *user_claim;  /* whose value is the user */
	const char *issuer;      /* iss must be this; "" = any */
	const char *audience;    /* aud must contain this; "" = tokens for a named audience are not for us */
	bool need_expiry;        /* exp must be there */
	unsigned skew_s;         /* by how much the issuer's clock may differ */
	size_t max_bytes;        /* of a token */
};

struct jwt_claims {
	char user[IM_NAME_MAX + 1];
	int64_t not_before_s;    /* 0 = at once */
	int64_t expires_s;       /* 0 = never */
};

enum jwt_verdict {
	JWT_GOOD,
	JWT_TOO_LARGE,
	JWT_MALFORMED,           /* not three parts of canonical base64url, header or claims no JSON object, a key twice */
	JWT_HEADER,              /* crit, a foreign typ, no alg */
	JWT_NO_KEY,              /* no key for this algorithm and kid: `none` ends here */
	JWT_BAD_SIGNATURE,
	JWT_BAD_TIME,            /* exp missing, or exp, nbf, iat not a whole number of seconds */
	JWT_EXPIRED,
	JWT_EARLY,               /* nbf or iat lies ahead */
	JWT_BAD_ISSUER,
	JWT_BAD_AUDIENCE,
	JWT_BAD_USER,            /* the claim is missing or no name */
	JWT_NO_MEMORY,
	JWT_LATER,               /* not looked at: the caller does not let unknown tokens be verified now */
	JWT_VERDICTS
};

/* For people: the rule's name, what is wrong, what to do. */
struct jwt_text {
	const char *rule, *reason, *fix;
};
const struct jwt_text *jwt_text(enum jwt_verdict v);

/* Whether a password has a token's form, so that it is judged as one and never hashed as a password. */
bool jwt_has_form(const char *text);
/* *out is written for JWT_GOOD only. */
enum jwt_verdict jwt_check(const struct jwt_keys *keys, const struct jwt_rules *rules, const char *token, int64_t now_s,
			   struct jwt_claims *out);
/* The clock's part of it again, for a token verified earlier. */
enum jwt_verdict jwt_check_time(const struct jwt_claims *c, unsigned skew_s, int64_t now_s);

#endif
