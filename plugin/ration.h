/*
 * How much of the broker's thread bad tokens may cost. Verifying a signature takes from 6 us to a millisecond, and
 * strangers may send as many wrong ones as they like: the time that those took is added up, and at RATION_SHARE of
 * the thread no further unknown token is looked at for a while. Good tokens cost nothing here, so that a fleet may
 * come back at once. It is the time that counts, whatever the algorithm, the size of the key or their number.
 *
 * Addresses that sent a bad one lately share a ration of their own: a flood from some addresses does not keep
 * others' new tokens out. WebSocket clients can make their address up, so all of them are one address here.
 */
#ifndef PLUGIN_RATION_H
#define PLUGIN_RATION_H

#include "attempts.h"

#define RATION_SHARE 40          /* one part in so many of the thread's time, for each of the two rations: 5 % together */
#define RATION_BURST_US 25000    /* ... and so much at once after a rest: 27 ES512 signatures, 400 of RS256 */
#define RATION_LATELY_US 60000000
#define RATION_ADDRESSES 4096u   /* remembered, 16 bytes each; a newer one takes the place of an older one */

struct ration;

struct ration *ration_create(void); /* NULL: out of memory */
void ration_destroy(struct ration *r);
/* Whether an unknown token from there is looked at now. Times are monotonic. */
bool ration_allows(const struct ration *r, const struct attempts_from *from, int64_t now_us);
/* It was a bad one and took so long. */
void ration_charge(struct ration *r, const struct attempts_from *from, int64_t took_us, int64_t now_us);

#endif
