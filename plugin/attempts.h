/*
 * Guessing passwords gets slow. Counted are failures only, and only of passwords that were really compared:
 *
 *   user from an address    after `tries` each further attempt waits 1 s, 2 s, 4 s ... up to the longest wait
 *   address, all users      the same after 4 x tries: many may sit behind one address
 *   user, all addresses     after 4 x tries an address the user never came from has one try instead of `tries`
 *
 * So the right password from an address that has not failed is always looked at: nobody can lock a user out
 * from elsewhere. An address the user has logged in from is slowed by that user's own failures there alone.
 *
 * The table has a fixed size. Full means forgetting, never refusing; what goes first are addresses without
 * failures, then the failures that weigh least, so an attacker's own record is the last to go. Places are
 * found by a keyed hash: nobody can choose whose entry a new one pushes out.
 */
#ifndef PLUGIN_ATTEMPTS_H
#define PLUGIN_ATTEMPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Entries, 24 bytes each. A failure makes three and costs a password hash, of which im_login_interval lets
 * 14,400 an hour through by default: within ATTEMPTS_FORGET_MS the table cannot be filled with failures.
 */
#define ATTEMPTS_MAX 65536u
#define ATTEMPTS_WAYS 8u               /* places that one key may have */
#define ATTEMPTS_FORGET_MS 3600000     /* without a new failure, and past the wait */
#define ATTEMPTS_MANY 4u               /* times `tries`: failures of one address, or against one user */

struct attempts_rules {
	unsigned tries;          /* free ones */
	unsigned longest_s;      /* wait; 0 = nothing is slowed */
};

/* Who asks. forgeable: a WebSocket client may have made its address up, so it is kept apart from real ones. */
struct attempts_from {
	const char *user;
	const char *address;     /* IPv6 counts by its /64, which is what one customer has */
	bool forgeable;
};

/* The bytes that stand for an address: IPv4, the first half of IPv6, or the text (a Unix socket's path). NULL: none. */
#define ATTEMPTS_ADDRESS_MAX 108u
size_t attempts_address(const char *address, uint8_t out[ATTEMPTS_ADDRESS_MAX]);

struct attempts;

struct attempts *attempts_create(void); /* NULL: out of memory */
void attempts_destroy(struct attempts *a);
/* How long until another password is looked at; 0 = now. Times are monotonic. */
int64_t attempts_wait_ms(struct attempts *a, const struct attempts_rules *r, const struct attempts_from *f, int64_t now_ms);
void attempts_failed(struct attempts *a, const struct attempts_rules *r, const struct attempts_from *f, int64_t now_ms);
/* The right password: the user's failures at this address are forgiven, those of the address are not. */
void attempts_succeeded(struct attempts *a, const struct attempts_rules *r, const struct attempts_from *f, int64_t now_ms);

#endif
