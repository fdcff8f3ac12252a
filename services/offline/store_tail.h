/*
 * The store's memory, on the loop's thread alone: what has been answered but has no rows yet, and the newest
 * sequence of every conversation in use. It also decides what may be appended at all.
 *
 * Entries come in three steps: accepted (checked, pinned, on their way to the log), answered (durable:
 * seen by reads from here on), settled (rows exist: forgotten). Each step is in the order of the appends,
 * so what the tail holds of a conversation is always its newest end without a hole, and a read is what the
 * rows say below the tail's first sequence and what the tail says from there.
 *
 * Ids are found by a keyed 64-bit hash of (user, client id, id). For those with rows a Bloom filter per day
 * of the window answers "certainly new" for nearly all that are, without asking the database.
 */
#ifndef OFFLINE_STORE_TAIL_H
#define OFFLINE_STORE_TAIL_H

#include "store_entry.h"

struct store_tail;

/* What the tail asks the rows for, synchronously and rarely. false: the database failed. */
struct tail_rows {
	bool (*last)(void *arg, const char *conv, uint64_t *seq, int64_t *ts); /* nothing there: 0 */
	bool (*find)(void *arg, const char *conv, uint64_t seq, struct message **out); /* referenced; nothing there: NULL */
	void *arg;
};

struct tail_options {
	struct tail_rows rows;
	uint8_t hash_key[16];
	unsigned dedupe_days;
	bool bloom;           /* there are rows: keep filters */
};

struct store_tail *store_tail_create(const struct tail_options *o); /* NULL: out of memory */
void store_tail_destroy(struct store_tail *t); /* before the entries given to it are freed */

/* IM_FAILED: fenced off or a sequence taken; nothing of it is kept and the reason is logged. IM_OK: answered or dropped next. */
enum im_status store_tail_accept(struct store_tail *t, struct append *a);
void store_tail_refused(struct store_tail *t); /* something from a journal was, elsewhere: nothing more from one is accepted */
void store_tail_drop(struct store_tail *t, struct append *a);    /* accepted, but not known to be durable */
void store_tail_answer(struct store_tail *t, struct append *a);  /* durable. IM_OK may go out */
void store_tail_settle(struct store_tail *t, struct append *a);  /* rows exist */

/* ---- conversations */
struct store_conv *store_tail_conv(struct store_tail *t, const char *name); /* pinned; NULL: out of memory */
void store_tail_unpin(struct store_tail *t, struct store_conv *c);
/*
 * Between these nothing known is forgotten: rows that were read in between may be older than an answered message that
 * has its own rows by now, and then only memory knows of it.
 */
void store_tail_hold(struct store_tail *t);
void store_tail_release(struct store_tail *t);
bool store_conv_known(const struct store_conv *c, uint64_t *seq, int64_t *ts); /* newest answered; false: ask the rows */
void store_conv_learn(struct store_conv *c, uint64_t seq, int64_t ts); /* what the rows said; the tail knows better if it knows */
bool store_tail_newest(struct store_tail *t, const char *name, uint64_t *seq, int64_t *ts); /* false: not in memory */
/* The tail of a conversation from the first with seq >= `from`; *first: lowest sequence the tail holds (UINT64_MAX: none). */
struct message *const *store_tail_messages(struct store_tail *t, const char *name, uint64_t from, size_t *n, uint64_t *first);

/* ---- ids. Referenced, or NULL and the days (bit 0 = today) whose rows may hold it. */
struct message *store_tail_find_id(struct store_tail *t, const struct store_lookup_id *id, uint64_t *hash, uint64_t *days, int64_t *today);
void store_tail_name(struct store_tail *t, struct append *a); /* recovery: fills in the hashes of ids (accept does it too) */
void store_tail_note_row(struct store_tail *t, int64_t day, uint64_t hash); /* at opening: an id that has a row */

/* ---- what a user's reads must add to the rows: answered entries, oldest first */
struct tail_note {
	struct tail_note *next;
	struct append *owner;
	const struct entry *entry;
};
const struct tail_note *store_tail_notes(struct store_tail *t, const char *user, size_t *n);

uint64_t *store_tail_sections(struct store_tail *t); /* [IM_SECTIONS], newest epochs given */

#endif
