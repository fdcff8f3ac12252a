/*
 * What one store_append was given, kept until it is answered, durable and in its rows: the unit that
 * travels from the loop to the log, back, to the indexer, and back to be forgotten. Immutable once made
 * (but for the links, which belong to whoever holds it); counted references, since reads look into it.
 */
#ifndef OFFLINE_STORE_ENTRY_H
#define OFFLINE_STORE_ENTRY_H

#include "base/buf.h"
#include "store.h"

#include <uthash.h>

struct store_conv; /* store_tail.c */

struct section_epoch {
	uint32_t section;
	uint64_t epoch;
};

struct entry {
	enum store_kind kind;
	struct position pos;
	union {
		struct {
			struct message *m;
			uint64_t id_hash;        /* of (user, client id, id); 0 = no id */
			struct store_conv *conv; /* the loop's thread only */
			UT_hash_handle hh;       /* by id_hash, the loop's thread only */
			bool listed;             /* in the table of ids */
		} message;
		struct store_cursor cursor;
		struct store_device device;
		struct {
			struct section_epoch *list;
			size_t n;
		} sections;
		struct {
			uint8_t *data;           /* RosterItem, StoredRefusal, StoredPush as they stand in the log */
			size_t len;
			uint64_t key;            /* refusal; roster: version */
			const char *user, *device; /* refusal; a member item has only the user; else NULL */
			const char *group;       /* member item */
			const char *name;        /* push: its key */
			bool done;               /* refusal; push: removed */
		} packed;
	};
	void *memory; /* what the strings and arrays above live in */
};

struct append {
	struct append *next;
	_Atomic unsigned refs;
	store_done_fn *done;
	void *arg;
	enum im_status st;
	uint64_t end;  /* the log's position after it */
	size_t bytes;  /* in the log */
	size_t n;
	struct entry entries[];
};

struct append *append_create(const struct store_entry *entries, size_t n); /* NULL: out of memory */
struct append *append_ref(struct append *a);
void append_unref(struct append *a); /* NULL is fine */

/* im.bus.LogEntry: appends to `out`; back into an append of one. `more`: the next record is of the same append. IM_BAD_INPUT: not one of ours. */
void entry_pack(const struct entry *e, bool more, struct im_buf *out);
enum im_status entry_unpack(const uint8_t *data, size_t len, struct append **out, bool *more);

#define DAY_MS 86400000
/* The day of journal time under which a message's id is kept; a broker's clock far ahead counts as tomorrow. */
int64_t entry_day(const struct message *m);

/* The parties of a 1:1 conversation's canonical name. false: a group, or no such name. */
bool conv_parties(const char *conv, char a[IM_NAME_MAX + 1], char b[IM_NAME_MAX + 1]);
/* Whose reads of cursors, devices and conversations this entry changes: 0, 1 or 2 names, valid as long as `room` and e. */
struct entry_room {
	char a[IM_NAME_MAX + 1], b[IM_NAME_MAX + 1];
};
size_t entry_users(const struct entry *e, struct entry_room *room, const char *users[2]);

/* FIFO of appends. */
struct append_queue {
	struct append *first, **last;
	size_t n; /* entries */
};
void append_queue_init(struct append_queue *q);
void append_queue_put(struct append_queue *q, struct append *a);
struct append *append_queue_take(struct append_queue *q); /* NULL: empty */
void append_queue_move(struct append_queue *to, struct append_queue *from); /* all, to the end */

#endif
