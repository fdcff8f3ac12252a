/* Failures per user and address. One table for all three kinds; the kind is part of the key. */
#include "attempts.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SETS (ATTEMPTS_MAX / ATTEMPTS_WAYS)
#define FAILURES_MAX 1000u /* more make no difference: the longest wait has been reached long before */

enum kind { PAIR = 'p', ADDRESS = 'a', USER = 'u' };

struct entry {
	uint64_t key;            /* 0: empty */
	int64_t last_ms;
	uint32_t failures;
	uint32_t known;          /* a pair that has succeeded */
};

struct attempts {
	uint8_t secret[crypto_shorthash_KEYBYTES];
	struct entry sets[SETS][ATTEMPTS_WAYS];
};

struct attempts *attempts_create(void)
{
	struct attempts *a = calloc(1, sizeof(*a));

	if (a)
		randombytes_buf(a->secret, sizeof(a->secret));
	return a;
}

void attempts_destroy(struct attempts *a)
{
	free(a);
}

/* ---- keys ---- */

size_t attempts_address(const char *address, uint8_t out[ATTEMPTS_ADDRESS_MAX])
{
	struct in6_addr v6;
	size_t len;

	if (!address)
		return 0;
	if (inet_pton(AF_INET6, address, &v6) == 1) {
		bool mapped = IN6_IS_ADDR_V4MAPPED(&v6);

		memcpy(out, v6.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 8);
		return mapped ? 4 : 8;
	}
	if (inet_pton(AF_INET, address, out) == 1)
		return 4;
	len = strnlen(address, ATTEMPTS_ADDRESS_MAX);
	memcpy(out, address, len);
	return len;
}

static uint64_t key_of(const struct attempts *a, enum kind kind, const struct attempts_from *f)
{
	uint8_t text[2 + 64 + 1 + ATTEMPTS_ADDRESS_MAX];
	size_t n = 2, len = kind == ADDRESS ? 0 : strnlen(f->user, 64);
	uint64_t key;

	text[0] = (uint8_t)kind;
	text[1] = f->forgeable && kind != USER;
	memcpy(text + n, f->user, len);
	n += len;
	text[n++] = 0;
	if (kind != USER)
		n += attempts_address(f->address, text + n);
	(void)crypto_shorthash((uint8_t *)&key, text, n, a->secret); /* never fails */
	return key ? key : 1;
}

/* ---- entries ---- */

/* 1 s, 2 s, 4 s ... after the free ones are used up. */
static int64_t wait_of(const struct entry *e, unsigned tries, unsigned longest_s)
{
	unsigned over = e->failures < tries ? 0 : e->failures - tries + 1;
	int64_t longest = (int64_t)longest_s * 1000, wait;

	if (over == 0)
		return 0;
	wait = over > 20 ? longest : (int64_t)1000 << (over - 1);
	return wait < longest ? wait : longest;
}

static bool is_forgotten(const struct entry *e, const struct attempts_rules *r, int64_t now_ms)
{
	return e->failures > 0 && now_ms - e->last_ms > ATTEMPTS_FORGET_MS + (int64_t)r->longest_s * 1000;
}

/* NULL: nothing is known. Failures that are old enough are dropped on the way. */
static struct entry *find(struct attempts *a, const struct attempts_rules *r, uint64_t key, int64_t now_ms)
{
	struct entry *set = a->sets[key % SETS];

	for (unsigned i = 0; i < ATTEMPTS_WAYS; i++) {
		if (set[i].key != key)
			continue;
		if (is_forgotten(&set[i], r, now_ms))
			set[i].failures = 0;
		return &set[i];
	}
	return NULL;
}

/* How much would be lost with this entry. */
static int64_t weight(const struct entry *e, const struct attempts_rules *r, int64_t now_ms)
{
	if (e->key == 0 || is_forgotten(e, r, now_ms) || (e->failures == 0 && !e->known))
		return INT64_MIN;
	if (e->failures == 0)
		return e->last_ms - INT64_MAX / 2; /* a known address: the one used longest ago first, all before failures */
	return ((int64_t)e->failures << 40) + e->last_ms / 1000;
}

static struct entry *get(struct attempts *a, const struct attempts_rules *r, uint64_t key, int64_t now_ms)
{
	struct entry *set = a->sets[key % SETS], *e = find(a, r, key, now_ms);

	if (e)
		return e;
	e = &set[0];
	for (unsigned i = 1; i < ATTEMPTS_WAYS; i++)
		if (weight(&set[i], r, now_ms) < weight(e, r, now_ms))
			e = &set[i];
	*e = (struct entry){ .key = key, .last_ms = now_ms };
	return e;
}

/* ---- the three counts ---- */

static int64_t remaining(const struct entry *e, unsigned tries, const struct attempts_rules *r, int64_t now_ms)
{
	int64_t until = e ? e->last_ms + wait_of(e, tries, r->longest_s) : 0;

	return e && e->failures > 0 && until > now_ms ? until - now_ms : 0;
}

int64_t attempts_wait_ms(struct attempts *a, const struct attempts_rules *r, const struct attempts_from *f, int64_t now_ms)
{
	struct entry *pair = find(a, r, key_of(a, PAIR, f), now_ms), *address, *user;
	int64_t wait, wait_address;
	bool pressed;

	if (r->longest_s == 0)
		return 0;
	if (pair && pair->known)
		return remaining(pair, r->tries, r, now_ms);
	user = find(a, r, key_of(a, USER, f), now_ms);
	pressed = user && user->failures >= ATTEMPTS_MANY * r->tries;
	wait = remaining(pair, pressed ? 1 : r->tries, r, now_ms);
	address = find(a, r, key_of(a, ADDRESS, f), now_ms);
	wait_address = remaining(address, ATTEMPTS_MANY * r->tries, r, now_ms);
	return wait > wait_address ? wait : wait_address;
}

void attempts_failed(struct attempts *a, const struct attempts_rules *r, const struct attempts_from *f, int64_t now_ms)
{
	static const enum kind kinds[] = { PAIR, ADDRESS, USER };

	if (r->longest_s == 0)
		return;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct entry *e = get(a, r, key_of(a, kinds[i], f), now_ms);

		if (e->failures < FAILURES_MAX)
			e->failures++;
		e->last_ms = now_ms;
	}
}

void attempts_succeeded(struct attempts *a, const struct attempts_rules *r, const struct attempts_from *f, int64_t now_ms)
{
	struct entry *e;

	if (r->longest_s == 0)
		return;
	e = get(a, r, key_of(a, PAIR, f), now_ms);
	e->failures = 0;
	e->known = 1;
	e->last_ms = now_ms;
}
