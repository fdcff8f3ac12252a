/*
 * Who can be pushed where: the registrations of devices with providers. All of it is in memory, as the roster is, and in the
 * store. What a provider calls a token is encrypted there (XChaCha20-Poly1305, key in {im_push_dir}/store.key) and found by a
 * keyed hash: who reads the database or a backup can neither push nor tell who shares a phone.
 */
#ifndef OFFLINE_PUSH_REGISTRY_H
#define OFFLINE_PUSH_REGISTRY_H

#include "base/status.h"
#include "push.pb-c.h"
#include "store.h"

#define PUSH_DEVICES_MOST 64u /* registrations of one user: 32 named devices with two providers each */

struct push_registry;

/* One registration. `stored` is what the store has, and only read. */
struct push_device {
	struct push_device *next; /* of the same user */
	Im__Bus__PushToken *stored;
	int shown;                /* of whoever pushes, as the next: the badge that it was told last; -1: not known */
	bool read_elsewhere;      /* its badge is to be corrected soon */
};


/* key_dir is made if it is missing. IM_FAILED: it, or the key in it, cannot be read or written. */
enum im_status push_registry_open(struct store *store, const char *key_dir, struct push_registry **out, struct im_err *err);
void push_registry_close(struct push_registry *r); /* after the store has answered everything. NULL is fine */

const uint8_t *push_registry_request_key(const struct push_registry *r); /* of requests that the plugin has sealed (wire/sealed.h) */
struct push_device *push_registry_of_user(const struct push_registry *r, const char *user); /* a list; NULL: none */
struct push_device *push_registry_find(const struct push_registry *r, const char *user, const char *device, const char *provider);
size_t push_registry_count(const struct push_registry *r, const char *provider); /* not invalid ones */

typedef void push_registry_done_fn(void *arg, enum im_status st);
/*
 * Registers or registers anew: `info` without sealed, hash, registered_ms and state; `token` in the clear. Whoever else had
 * this token loses it: it is the same phone, and must not get somebody else's messages. What was registered there stays without a token, invalid
 * ("moved"), so that its device hears of it. Over PUSH_DEVICES_MOST one of the user's own gives way: an invalid one, else the one that was
 * registered longest ago. Copies everything; done only after IM_OK was returned.
 */
enum im_status push_registry_add(struct push_registry *r, const Im__Bus__PushToken *info, const Im__Push__Token *token,
				 push_registry_done_fn *done, void *arg);
/* device NULL: all of the user; provider NULL: all of the device. Returns how many there were; done follows if any. */
size_t push_registry_remove(struct push_registry *r, const char *user, const char *device, const char *provider,
			    push_registry_done_fn *done, void *arg);
/* What a bridge heard of a token: counts only if the registration is still the one it speaks of. Durable when the store's next append is. */
void push_registry_heard(struct push_registry *r, const char *provider, const Im__Push__TokenVerdict *v);
/* The same by the service itself: whatever the token is, it is worth nothing (`reason`: a word). */
void push_registry_spoil(struct push_registry *r, const struct push_device *d, const char *reason);
/* Told of each registration that has become invalid, when that is durable. One listener; NULL: nobody. */
typedef void push_registry_invalid_fn(void *arg, const struct push_device *d);
void push_registry_on_invalid(struct push_registry *r, push_registry_invalid_fn *fn, void *arg);
/* Decrypts. NULL: the key is not the one it was encrypted with. The caller frees with push_token_wipe. */
Im__Push__Token *push_registry_open_token(const struct push_registry *r, const struct push_device *d);
void push_token_wipe(Im__Push__Token *t); /* NULL is fine */

#endif
