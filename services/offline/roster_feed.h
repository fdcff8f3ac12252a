/* What a plugin that says hello lacks of the roster: what is newer than its version, or all of it, in frames of a bounded size. */
#ifndef OFFLINE_ROSTER_FEED_H
#define OFFLINE_ROSTER_FEED_H

#include "roster/roster.h"
#include <stddef.h>
#include <stdint.h>

typedef void roster_feed_fn(void *arg, const void *frame, size_t len); /* a packed ToPlugin */
/* `theirs`: the plugin's version; 0, or one that we do not have yet: everything. */
void roster_feed(const struct roster *r, uint64_t theirs, roster_feed_fn *send, void *arg);

#endif
