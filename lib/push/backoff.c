#include "push/backoff.h"

#include <stddef.h>

#define UNSENT_FIRST_MS 50
#define UNSENT_MOST_MS 5000

int64_t push_backoff_ms(unsigned attempt, int64_t retry_after_ms, uint32_t random)
{
	static const int64_t caps[] = {2000, 10000, 30000, 120000, 600000, 900000, 1800000};
	const size_t n = sizeof(caps) / sizeof(caps[0]);
	int64_t cap = caps[attempt == 0 ? 0 : attempt <= n ? attempt - 1 : n - 1];
	int64_t ms = PUSH_BACKOFF_LEAST_MS + (int64_t)(random % (uint64_t)(cap - PUSH_BACKOFF_LEAST_MS + 1));

	if (ms < retry_after_ms)
		ms = retry_after_ms + (int64_t)(random % (uint64_t)(retry_after_ms / 10 + 1));
	return ms;
}

int64_t push_unsent_ms(unsigned n, uint32_t random)
{
	int64_t cap = UNSENT_FIRST_MS;

	if (n <= 1)
		return 0;
	for (unsigned i = 2; i < n && cap < UNSENT_MOST_MS; i++)
		cap *= 2;
	if (cap > UNSENT_MOST_MS)
		cap = UNSENT_MOST_MS;
	return cap / 2 + (int64_t)(random % (uint64_t)(cap / 2 + 1));
}
