#include "histogram.h"

#define STEPS 32u

static unsigned slot_of(uint64_t us)
{
	unsigned shift, slot;

	if (us < 2 * STEPS)
		return (unsigned)us;
	shift = 63u - (unsigned)__builtin_clzll(us) - 5u;
	slot = 2 * STEPS + (shift - 1) * STEPS + (unsigned)((us >> shift) - STEPS);
	return slot < HISTOGRAM_SLOTS ? slot : HISTOGRAM_SLOTS - 1;
}

static uint64_t edge_of(unsigned slot)
{
	unsigned shift;

	if (slot < 2 * STEPS)
		return slot;
	shift = (slot - 2 * STEPS) / STEPS + 1;
	return ((uint64_t)((slot - 2 * STEPS) % STEPS + STEPS + 1) << shift) - 1;
}

void histogram_add(struct histogram *h, uint64_t us)
{
	h->slots[slot_of(us)]++;
	h->count++;
	if (us > h->max)
		h->max = us;
}

uint64_t histogram_at(const struct histogram *h, double quantile)
{
	uint64_t want = (uint64_t)((double)h->count * quantile), seen = 0;

	for (unsigned i = 0; i < HISTOGRAM_SLOTS; i++) {
		seen += h->slots[i];
		if (seen > want)
			return edge_of(i) < h->max ? edge_of(i) : h->max;
	}
	return h->max;
}
