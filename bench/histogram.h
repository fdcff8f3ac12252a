/* Latencies in microseconds, log-linear: exact below 64, then 32 steps per power of two (3 %). */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SLOTS 1024

struct histogram {
	uint64_t count;
	uint64_t max;
	uint32_t slots[HISTOGRAM_SLOTS];
};

void histogram_add(struct histogram *h, uint64_t us);
uint64_t histogram_at(const struct histogram *h, double quantile); /* upper edge of the slot, us */

#endif
