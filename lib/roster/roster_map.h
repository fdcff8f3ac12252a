/* Inside lib/roster: the entries, their map by key and their list by version. */
#ifndef IM_ROSTER_MAP_H
#define IM_ROSTER_MAP_H

#include "roster/roster.h"

enum kind { USER, GROUP, MEMBERSHIP, STAY, BLOCK };

enum {
	NAME_MAX_LEN = 64,    /* as in wire/name.h; checked again, since a snapshot file may be damaged */
	TOKENS_MAX = 1024,    /* of one user: bounds what one row makes us allocate */
	SLOTS_MIN = 64,
};

struct entry {
	uint64_t version;     /* 0: only mentioned yet */
	struct entry *older, *newer;
	uint32_t hash;
	uint8_t kind;
	bool removed;
};

struct user {
	struct entry entry;
	struct roster_user shown;
	void *details;        /* title, password, tokens: one allocation, new with each change */
	struct membership *memberships;
	char name[];
};

struct group {
	struct entry entry;
	struct roster_group shown;
	char *details;        /* title, owner */
	struct membership *members;
	char name[];
};

/* A user and a group that have met. Not in the list of versions: its stays are. */
struct membership {
	struct entry entry;
	struct group *group;
	struct user *user;
	struct membership *next_member; /* of the group */
	struct membership *next_group;  /* of the user */
	struct roster_stay *stays;      /* by from_seq */
	struct stay **rows;             /* the same order */
	size_t n_stays;
};

struct stay {
	struct entry entry;
	struct membership *of;
	uint64_t from_seq;
};

struct block {
	struct entry entry;
	const char *blocked;  /* behind the user's name */
	char user[];
};

struct roster {
	struct entry **slots; /* open addressing, at most three quarters full */
	size_t n_slots, n_entries;
	struct entry *oldest, *newest;
	bool unsorted;        /* a row came whose version is below an earlier one's */
	uint64_t version;
	size_t n_users, n_groups;
	Im__Bus__Token *tokens;          /* for roster_since: as many as the user with most has */
	Im__Bus__Token **token_pointers;
	size_t tokens_cap;
};

/* NULL: no such entry. second: "" for users and groups. */
struct entry *roster_find(const struct roster *r, enum kind kind, const char *first, const char *second);
bool roster_reserve(struct roster *r); /* makes room first, so that adding cannot fail after the entry was made */
void roster_add(struct roster *r, struct entry *e, enum kind kind);
void roster_set_version(struct roster *r, struct entry *e, uint64_t version);
void roster_sort(struct roster *r);    /* the list, by version; equal ones stay as they came */

#endif
