/*
 * Users, tokens, groups, members and blocks in memory, versioned. The message service owns the truth and
 * sends changes; the plugin keeps a copy and decides from it. Lookups are O(1); pointers returned live
 * until the next roster_apply.
 */
#ifndef IM_ROSTER_ROSTER_H
#define IM_ROSTER_ROSTER_H

#include "base/status.h"
#include "bus.pb-c.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct roster;

struct roster_token {
	const char *id;
	uint8_t hash[32];
	int64_t expires_ms; /* 0 = never */
};

struct roster_user {
	const char *name;
	const char *title;
	const char *password; /* PHC string, "" = no password login */
	const struct roster_token *tokens;
	size_t n_tokens;
	bool disabled;
	uint64_t version;     /* changes whenever anything above does: caches of proven credentials key on it */
};

struct roster_group {
	const char *name;
	const char *title;
	const char *owner;
	size_t n_members;     /* present ones */
	uint64_t version;
};

/* One stay in a group. A user may have several, one after another; only the last can be open. */
struct roster_stay {
	uint64_t from_seq;
	uint64_t to_seq;      /* 0 = still a member */
	const char *role;     /* "owner", "admin", "member" */
};

struct roster *roster_create(void); /* NULL: out of memory */
void roster_destroy(struct roster *r);

/*
 * Applies one item, a change or a row of a snapshot. An item not newer than what is known changes
 * nothing (IM_EXISTS). IM_BAD_INPUT: malformed. Removed things stay as tombstones for roster_since.
 * Removing a user ends its stays and blocks in every group it is in; the service sends those items itself.
 */
enum im_status roster_apply(struct roster *r, const Im__Bus__RosterItem *item);
void roster_clear(struct roster *r);
void roster_swap(struct roster *a, struct roster *b); /* exchanges contents: a snapshot comes into force at once */
uint64_t roster_version(const struct roster *r); /* of the newest item */

const struct roster_user *roster_user(const struct roster *r, const char *name);   /* NULL: none */
bool roster_was_user(const struct roster *r, const char *name); /* a user of this name has been removed */
const struct roster_group *roster_group(const struct roster *r, const char *name); /* NULL: none */
bool roster_is_member(const struct roster *r, const char *group, const char *user); /* now */
const char *roster_role(const struct roster *r, const char *group, const char *user); /* NULL: not a member now */
bool roster_is_blocked(const struct roster *r, const char *user, const char *blocked);
/* All stays of a user in a group, oldest first; 0 = never was there. */
size_t roster_stays(const struct roster *r, const char *group, const char *user, const struct roster_stay **out);
/*
 * A stay ends at `to_seq` from now on, before the item that says so is durable and applied: what is said behind a
 * removal must not be shown while the removal is being written down. 0: it goes on after all, nothing was written.
 */
void roster_hold_stay(struct roster *r, const char *group, const char *user, uint64_t from_seq, uint64_t to_seq);
/* The newest sequence that these stays show of a group whose newest is `newest`. 0: none. */
uint64_t roster_stays_last(const struct roster_stay *stays, size_t n, uint64_t newest);
/* Whether sequence `seq` of this group may be seen by this user: inside one of its stays. */
bool roster_may_see(const struct roster *r, const char *group, const char *user, uint64_t seq);

size_t roster_count_users(const struct roster *r);
size_t roster_count_groups(const struct roster *r);
typedef void roster_user_fn(void *arg, const struct roster_user *u);
typedef void roster_group_fn(void *arg, const struct roster_group *g);
typedef void roster_member_fn(void *arg, const char *user, const struct roster_stay *stay);
void roster_each_user(const struct roster *r, roster_user_fn *fn, void *arg);
void roster_each_group(const struct roster *r, roster_group_fn *fn, void *arg);
void roster_each_member(const struct roster *r, const char *group, roster_member_fn *fn, void *arg); /* present ones */
/* Every group in which the user is or was. */
void roster_each_group_of(const struct roster *r, const char *user, roster_group_fn *fn, void *arg);

/* Every item (tombstones too) newer than `version`, oldest first; 0 = all. The item lives during the call. */
typedef void roster_item_fn(void *arg, const Im__Bus__RosterItem *item);
void roster_since(const struct roster *r, uint64_t version, roster_item_fn *fn, void *arg);

#endif
