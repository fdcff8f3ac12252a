/*
 * One question to the store, from asking to answering. Asked and answered on the loop's thread; what the
 * rows have to add is filled in between by the reader's thread, if it is needed at all. The answer is as
 * of the asking: what the tail held then is referenced by the question itself.
 */
#ifndef OFFLINE_STORE_READ_H
#define OFFLINE_STORE_READ_H

#include "store_tail.h"

#define READ_LIMIT 1000u   /* messages of one history question */
#define UNREAD_MOST 100u   /* nobody shows more than "99+" */

enum read_kind { READ_LOOKUP, READ_HISTORY, READ_CONVERSATIONS, READ_UNREAD, READ_DEVICE, READ_DEVICES, READ_STREAM };

struct read_conv {             /* of a user; READ_CONVERSATIONS, READ_DEVICE */
	uint64_t read;
	uint64_t delivered;    /* by any device */
	uint64_t device;       /* by the one asked for */
	uint64_t last_seq;
	int64_t last_ts;
	UT_hash_handle hh;
	char name[];
};

struct read_device {
	struct store_device d;
	UT_hash_handle hh;
	char name[];
};

struct read_refusal {
	uint64_t key;
	uint8_t *data;
	size_t len;
	UT_hash_handle hh;
};

struct store_read {
	struct store_read *next;
	enum read_kind kind;
	enum im_status st;
	bool needs_rows;
	bool holds;                   /* store_tail_hold */
	int64_t asked_ms;
	store_done_fn *done;
	store_message_fn *on_message;
	store_conversation_fn *on_conversation;
	store_device_fn *on_device;
	store_cursor_fn *on_cursor;
	store_refusal_fn *on_refusal;
	store_count_fn *on_count;
	store_stream_fn *on_stream;
	void *arg;

	char *user, *device, *conv;   /* the question */
	struct store_range range;     /* `to` is set; what the rows are asked for ends at row_to */
	uint64_t row_to;
	struct store_lookup_conv *convs;
	struct store_conv **pinned;   /* NULL: answered already */
	int64_t *last_ts;
	size_t n_convs;
	struct store_lookup_id *ids;
	uint64_t *hashes, *days;
	size_t n_ids;
	int64_t today;

	struct message **tail;        /* as of the asking */
	size_t n_tail;
	struct tail_note *notes;      /* copies; owners referenced */
	size_t n_notes;

	struct message **rows;        /* the answer */
	uint64_t *numbers;            /* READ_STREAM: of these rows */
	size_t n_rows, cap_rows;
	size_t row_bytes;
	bool rows_cut;                /* the question's limits ended the rows, not their end: upwards, the tail does not follow */
	unsigned count;
	struct read_conv *user_convs;
	struct read_device *devices;
	struct read_refusal *refusals;
};

/* NULL: out of memory. Callbacks are set by the caller; the rest is looked up in the tail. */
struct store_read *read_lookup(struct store_tail *t, struct store_lookup_conv *convs, size_t n_convs, struct store_lookup_id *ids, size_t n_ids);
struct store_read *read_history(struct store_tail *t, const struct store_range *range);
struct store_read *read_unread(struct store_tail *t, const char *user, const char *conv, uint64_t read);
struct store_read *read_stream(uint64_t after, unsigned limit);
struct store_read *read_user(struct store_tail *t, enum read_kind kind, const char *user, const char *device); /* the other three */

/* For whoever brings the rows. false: out of memory, or (read_add_message) enough. Takes over the reference. */
bool read_wants_more(const struct store_read *r, const struct message *m);
bool read_add_message(struct store_read *r, struct message *m);
bool read_add_numbered(struct store_read *r, uint64_t number, struct message *m); /* READ_STREAM: at most its limit */
struct read_conv *read_add_conv(struct store_read *r, const char *name);
bool read_set_device(struct store_read *r, const struct store_device *d);
bool read_add_refusal(struct store_read *r, uint64_t key, const void *data, size_t len);
bool read_counts(const struct store_read *r, const struct message *m);
/* After the rows: what the tail held on top of them. */
void read_overlay(struct store_read *r);

/* Calls back, then frees. Never NULL. */
void read_answer(struct store_read *r, struct store_tail *t);

struct read_queue {
	struct store_read *first, **last;
};
void read_queue_init(struct read_queue *q);
void read_queue_put(struct read_queue *q, struct store_read *r);
struct store_read *read_queue_take(struct read_queue *q); /* NULL: empty */

#endif
