/* Two buckets in microseconds of the thread, and who fails into the second one. */
#include "ration.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct failed {
	uint64_t key;
	int64_t until_us;
};

struct ration {
	uint8_t secret[crypto_shorthash_KEYBYTES];
	int64_t full_us[2];      /* when the bucket would be full again: [1] of those who failed lately */
	struct failed failed[RATION_ADDRESSES];
};

struct ration *ration_create(void)
{
	struct ration *r = calloc(1, sizeof(*r));

	if (r)
		randombytes_buf(r->secret, sizeof(r->secret));
	return r;
}

void ration_destroy(struct ration *r)
{
	free(r);
}

/* Keyed: nobody can choose whose place to take. */
static uint64_t key_of(const struct ration *r, const struct attempts_from *from)
{
	uint8_t bytes[ATTEMPTS_ADDRESS_MAX];
	size_t len = from->forgeable ? 0 : attempts_address(from->address, bytes);
	uint64_t key;

	(void)crypto_shorthash((uint8_t *)&key, bytes, len, r->secret); /* never fails */
	return key;
}

static bool failed_lately(const struct ration *r, uint64_t key, int64_t now_us)
{
	const struct failed *f = &r->failed[key % RATION_ADDRESSES];

	return f->key == key && f->until_us > now_us;
}

bool ration_allows(const struct ration *r, const struct attempts_from *from, int64_t now_us)
{
	return r->full_us[failed_lately(r, key_of(r, from), now_us)] - now_us < (int64_t)RATION_BURST_US * RATION_SHARE;
}

void ration_charge(struct ration *r, const struct attempts_from *from, int64_t took_us, int64_t now_us)
{
	uint64_t key = key_of(r, from);
	int64_t *full = &r->full_us[failed_lately(r, key, now_us)];

	*full = (*full > now_us ? *full : now_us) + took_us * RATION_SHARE;
	r->failed[key % RATION_ADDRESSES] = (struct failed){ key, now_us + RATION_LATELY_US };
}
