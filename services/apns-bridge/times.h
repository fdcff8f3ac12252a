/* How long things take and when they are due, in one place. Constants to the program; tests shorten them and move the clocks. */
#ifndef APNS_TIMES_H
#define APNS_TIMES_H

#include <stdint.h>

struct apns_times {
	int64_t connect_ms;      /* name, TCP, TLS and the peer's SETTINGS together */
	int64_t request_ms;      /* without an answer it is a timeout; Apple answers in well under a second */
	int64_t ping_idle_ms;    /* silence after which the connection is tried */
	int64_t ping_ack_ms;
	int64_t backoff_least_ms, backoff_most_ms; /* between failed connections */
	int64_t connect_each_ms; /* one connection is earned so often: Apple takes rapid ones for an attack */
	int64_t grow_ms;         /* nine tenths of the streams in use for so long: one connection more */
	int64_t slow_ms;         /* answers that take longer: the peer has enough to do, more connections do not help it */
	int64_t age_ms;          /* of a connection, then a new one takes over */
	int64_t drain_ms;        /* what is under way may end by itself for so long */
	int32_t last_stream;     /* stream ids end at 2^31 - 1 */
	int64_t wall_shift_ms, boot_shift_ms; /* added to the clocks: tests make them jump */
};

extern struct apns_times apns_times;

int64_t apns_wall_ms(void); /* UTC */
int64_t apns_boot_ms(void); /* since the machine started, sleep included: goes on over restarts of the process */

#endif
