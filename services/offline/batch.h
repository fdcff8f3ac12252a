/*
 * One slice of a journal, or one message of the service's own, on its way through the inbox: its records, what
 * has to be looked up for them, what goes to the store and what becomes of each when that is done. A batch owns
 * all of it; its records live in its arena.
 */
#ifndef OFFLINE_BATCH_H
#define OFFLINE_BATCH_H

#include "inbox.h"
#include "wire/envelope.h"

enum outcome_kind { OUTCOME_MESSAGE, OUTCOME_DUP, OUTCOME_CURSORS, OUTCOME_REFUSAL, OUTCOME_REQUEST };

/* What becomes of a record once its batch is durable. */
struct outcome {
	enum outcome_kind kind;
	const Im__Bus__Record *record;          /* in the batch's arena */
	struct message *message;                /* MESSAGE, DUP: referenced */
	const Im__Bus__StoredRefusal *refusal;  /* in the batch's arena */
};

struct item {
	const Im__Bus__Record *record;
	uint64_t offset, next;
	const char *conv;                       /* SEND: canonical; NULL: not valid */
	size_t id_at;                           /* index + 1 of its lookup; 0 = no id */
};

struct batch {
	struct batch *next;
	struct inbox *in;                       /* whose it is, for callbacks */
	struct im_arena arena;
	size_t size;
	uint32_t node;
	uint64_t epoch, slice_next;
	struct item *items;
	size_t n_items;
	size_t at;                              /* next item to decide */
	struct store_lookup_conv *convs;
	size_t n_convs;
	struct store_lookup_id *lookups;
	size_t n_lookups;
	struct store_entry *entries;
	size_t n_entries, cap_entries;
	struct outcome *outcomes;
	size_t n_outcomes;
	inbox_post_fn *post;                    /* a message of our own */
	inbox_join_fn *join;
	void *post_arg;
	const char *post_conv;
};

/* NULL: out of memory, or a record that cannot be unpacked. Records below `from` are left out; s was checked by batch_check. */
struct batch *batch_of_slice(const Im__Bus__Slice *s, size_t n, uint64_t from);
bool batch_check(const Im__Bus__Slice *s, size_t *n); /* false: it holds what is no record; *n: how many it holds */
/* A message of our own: the record is copied, `conv` is canonical. */
struct batch *batch_of_post(const Im__Bus__Record *r, const char *conv, uint64_t epoch, uint64_t count);
void batch_free(struct batch *b); /* NULL is fine */

struct store_entry *batch_entry(struct batch *b, const struct item *item, enum store_kind kind); /* NULL: out of memory */
struct outcome *batch_outcome(struct batch *b, enum outcome_kind kind, const Im__Bus__Record *r); /* one per item at most */

#endif
