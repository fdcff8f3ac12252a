/* Keys, rules and the cache of verified tokens. The cache holds no token, only a keyed hash of it. */
#include "jwt_login.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uthash.h>

#define MAC_LEN 16

struct verified {
	uint8_t mac[MAC_LEN];
	struct jwt_claims claims;
	UT_hash_handle hh;
};

struct jwt_login {
	struct jwt_keys *keys;
	uint8_t key[32];         /* of the cache, new at each load */
	struct verified *cache;
	uint64_t computed;
};

struct jwt_login *jwt_login_create(void)
{
	return calloc(1, sizeof(struct jwt_login));
}

static void forget(struct jwt_login *j, struct verified *v)
{
	HASH_DEL(j->cache, v);
	free(v);
}

/* What was verified with other keys or rules proves nothing any more. */
static void forget_all(struct jwt_login *j)
{
	while (j->cache)
		forget(j, j->cache);
	randombytes_buf(j->key, sizeof(j->key));
}

void jwt_login_destroy(struct jwt_login *j)
{
	if (!j)
		return;
	forget_all(j);
	jwt_keys_free(j->keys);
	sodium_memzero(j, sizeof(*j));
	free(j);
}

enum im_status jwt_login_load(struct jwt_login *j, const struct im_settings *s, struct im_err *err)
{
	struct jwt_keys *keys = NULL;
	enum im_status st = jwt_keys_load(s->jwt_keys, &keys, err);

	if (st != IM_OK)
		return st;
	jwt_keys_free(j->keys);
	j->keys = keys;
	forget_all(j);
	return IM_OK;
}

size_t jwt_login_keys(const struct jwt_login *j)
{
	return jwt_keys_count(j->keys);
}

bool jwt_login_applies(const struct jwt_login *j, const char *password)
{
	return jwt_login_keys(j) > 0 && jwt_has_form(password);
}

static void remember(struct jwt_login *j, const uint8_t mac[MAC_LEN], const struct jwt_claims *claims)
{
	struct verified *v;

	if (HASH_COUNT(j->cache) >= JWT_CACHE_MAX)
		forget(j, j->cache); /* in order of insertion: the oldest */
	v = malloc(sizeof(*v));
	if (!v)
		return; /* verified again next time */
	memcpy(v->mac, mac, MAC_LEN);
	v->claims = *claims;
	HASH_ADD(hh, j->cache, mac, MAC_LEN, v);
}

/* Of this thread only: on a busy machine a token shall not pay for others. */
static int64_t thread_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts); /* always there */
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

enum jwt_verdict jwt_login_check(struct jwt_login *j, const struct im_settings *s, const char *token, int64_t now_s, struct jwt_cold *cold,
				 struct jwt_claims *out)
{
	const struct jwt_rules rules = {
		.user_claim = s->jwt_user_claim, .issuer = s->jwt_issuer, .audience = s->jwt_audience, .need_expiry = s->jwt_need_expiry,
		.skew_s = s->jwt_skew_s, .max_bytes = s->jwt_max_bytes,
	};
	size_t len = strnlen(token, rules.max_bytes + 1);
	enum jwt_verdict verdict;
	uint8_t mac[MAC_LEN];
	struct verified *v;
	int64_t began;

	cold->took_us = 0;
	if (len > rules.max_bytes)
		return JWT_TOO_LARGE;
	(void)crypto_generichash(mac, MAC_LEN, (const uint8_t *)token, len, j->key, sizeof(j->key)); /* fails for wrong lengths only */
	HASH_FIND(hh, j->cache, mac, MAC_LEN, v);
	if (v) {
		verdict = jwt_check_time(&v->claims, rules.skew_s, now_s);
		if (verdict == JWT_GOOD)
			*out = v->claims;
		else
			forget(j, v);
		return verdict;
	}
	if (!cold->allowed)
		return JWT_LATER;
	j->computed++;
	began = thread_us();
	verdict = jwt_check(j->keys, &rules, token, now_s, out);
	cold->took_us = thread_us() - began;
	if (verdict == JWT_GOOD)
		remember(j, mac, out);
	return verdict;
}

uint64_t jwt_login_verified(const struct jwt_login *j)
{
	return j->computed;
}
