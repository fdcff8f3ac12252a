/* How long to wait before a push is tried again; pure. */
#ifndef IM_PUSH_BACKOFF_H
#define IM_PUSH_BACKOFF_H

#include <stdint.h>

#define PUSH_ATTEMPTS_MAX 8u       /* counted ones of a job: by then two hours have passed and the text is old */
#define PUSH_BACKOFF_LEAST_MS 250  /* what jitter leaves at least */

/*
 * After the attempt of this number (1 = the first): full jitter over 2, 10, 30, 120, 600, 900 s, then 1800 s, so that what failed
 * together does not come back together. At least `retry_after_ms` (0: none), and then a tenth more at most.
 */
int64_t push_backoff_ms(unsigned attempt, int64_t retry_after_ms, uint32_t random);

/* For what surely was not sent, the n-th time in a row (1 = the first): at once, then 50 ms doubling to 5 s. */
int64_t push_unsent_ms(unsigned n, uint32_t random);

#endif
