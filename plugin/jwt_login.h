/*
 * JWTs as passwords: the keys and rules in force, and what was verified lately. A verified token costs a
 * keyed hash the next time instead of a signature.
 */
#ifndef PLUGIN_JWT_LOGIN_H
#define PLUGIN_JWT_LOGIN_H

#include "base/conf.h"
#include "base/status.h"
#include "jwt.h"

#define JWT_CACHE_MAX 32768u /* verified tokens, 200 bytes each. Only good ones enter, so strangers cannot push them out */

struct jwt_login;

struct jwt_login *jwt_login_create(void); /* without keys: nothing is a token. NULL: out of memory */
void jwt_login_destroy(struct jwt_login *j);
/* Keys and rules anew, at the start and after SIGHUP. Not IM_OK: the old ones stay. */
enum im_status jwt_login_load(struct jwt_login *j, const struct im_settings *s, struct im_err *err);
size_t jwt_login_keys(const struct jwt_login *j);

/* Whether this password is to be judged as a token. */
bool jwt_login_applies(const struct jwt_login *j, const char *password);
/* What a token that is not in the cache may cost, and did. */
struct jwt_cold {
	bool allowed;        /* false: JWT_LATER */
	int64_t took_us;     /* of this thread; 0 = it was in the cache */
};
enum jwt_verdict jwt_login_check(struct jwt_login *j, const struct im_settings *s, const char *token, int64_t now_s, struct jwt_cold *cold,
				 struct jwt_claims *out);
uint64_t jwt_login_verified(const struct jwt_login *j); /* tokens whose signature was computed */

#endif
