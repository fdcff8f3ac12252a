/*
 * A change of the roster on its way: durable in the store first, then in force here and in deliveries, then
 * in the plugin. Only the command that is in the lane makes changes, so versions simply count on.
 */
#ifndef OFFLINE_CHANGE_H
#define OFFLINE_CHANGE_H

#include "command.h"

struct change {
	Im__Bus__RosterItem **items; /* owned */
	size_t n, cap;
	bool failed;                 /* out of memory: change_commit refuses */
};

void change_finish(struct change *c);

/* The user as it is (or a new one), to be altered by the caller; strings are malloc'd. NULL: failed is set. */
Im__Bus__User *change_user(struct change *c, const struct roster *roster, const char *name);
Im__Bus__Group *change_group(struct change *c, const struct roster *roster, const char *name);
void change_member(struct change *c, const char *group, const char *user, const char *role, uint64_t from_seq, uint64_t to_seq);
void change_block(struct change *c, const char *user, const char *blocked, bool removed);
/* Replaces a string of an item. */
void change_set(struct change *c, char **field, const char *value);
void change_add_token(struct change *c, Im__Bus__User *u, const char *id, const unsigned char hash[32], int64_t expires_ms);

/*
 * Makes it durable and in force, then calls `done` (in force everywhere, or pending: the plugin is away and will
 * get it with its next hello). Takes the items out of `c`. If it cannot be made durable, ends the call itself.
 * Leaves the lane as soon as the roster has it.
 */
typedef void change_done_fn(struct call *call, bool pending);
void change_commit(struct call *call, struct change *c, change_done_fn *done);
/*
 * The same together with a message of the inbox: prepared and joined to it when it is decided, then told how that ended.
 * Items beyond COMMAND_BATCH follow in appends of their own. NULL: out of memory, and `c` is finished.
 */
struct commit *change_prepare(struct call *call, struct change *c, change_done_fn *done);
bool change_join(struct commit *m, struct batch *b);
void change_joined(struct commit *m, enum im_status st);
/* The usual end: {} or {"pending":true} joined into call->result, if there is one. */
void change_answer(struct call *call, bool pending);
/* The same after ending the connections of the command's user: whoever may still log in comes back at once. */
void change_end_sessions(struct call *call, bool pending);

#endif
