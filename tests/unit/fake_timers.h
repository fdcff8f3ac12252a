/* The timers of io/loop.h on a clock that only the test moves. */
#ifndef TESTS_FAKE_TIMERS_H
#define TESTS_FAKE_TIMERS_H

#include "io/loop.h"

#define FAKE_WHENEVER INT64_MAX

extern int64_t fake_now_ms; /* what im_loop_now_ms says */

/* The first one due by then, of equal ones that which was made first; NULL: none. */
struct im_timer *fake_timer_due(int64_t by_ms);
/* Calls it as if it were due now, whatever it says. */
void fake_timer_fire(struct im_timer *t);
/* Time passes; each timer fires when it is due. `then`, if not NULL, is called after each. */
void fake_timers_pass(int64_t ms, void (*then)(void));
bool fake_timers_none(void); /* all are destroyed */

#endif
