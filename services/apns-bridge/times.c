#include "times.h"

#include "base/clock.h"

#include <time.h>

struct apns_times apns_times = {
	.connect_ms = 10000,
	.request_ms = 15000,
	.ping_idle_ms = 30000,
	.ping_ack_ms = 10000,
	.backoff_least_ms = 1000,
	.backoff_most_ms = 60000,
	.connect_each_ms = 1000,
	.grow_ms = 1000,
	.slow_ms = 500,
	.age_ms = 24 * 3600000LL,
	.drain_ms = 10000,
	.last_stream = 1 << 30,
};

int64_t apns_wall_ms(void)
{
	return im_clock_wall_ms() + apns_times.wall_shift_ms;
}

int64_t apns_boot_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_BOOTTIME, &ts); /* cannot fail on Linux */
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + apns_times.boot_shift_ms;
}
