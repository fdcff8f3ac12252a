/* Quiet hours: from one minute of the device's day to another, in its own zone, over midnight and clock changes. */
#ifndef OFFLINE_PUSH_QUIET_H
#define OFFLINE_PUSH_QUIET_H

#include <stdbool.h>
#include <stdint.h>

/* "+08:00", "-03:30", "UTC", or a name of the system's time zones ("Europe/Berlin"). */
bool quiet_zone_known(const char *zone);
/* When the quiet hours that now_ms (UTC) falls into end; 0: it falls into none. from == to: there are none. The loop's thread only. */
int64_t quiet_until(int64_t now_ms, const char *zone, unsigned from_min, unsigned to_min);

#endif
