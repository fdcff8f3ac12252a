/*
 * The questions of store.h as both drivers ask them: build the read, hand it to `ask`. A read without memory
 * to build it ends the process: there is no way left to answer, and the supervisor starts it again.
 */
#ifndef OFFLINE_STORE_ASK_H
#define OFFLINE_STORE_ASK_H

#include "store_read.h"

typedef void store_ask_fn(void *store, struct store_read *r); /* answers later with read_answer */

struct store_asker {
	struct store_tail *tail;
	store_ask_fn *ask;
	void *store;
};

void ask_lookup(struct store_asker *q, struct store_lookup_conv *convs, size_t n_convs, struct store_lookup_id *ids, size_t n_ids,
		store_done_fn *done, void *arg);
void ask_history(struct store_asker *q, const struct store_range *range, store_message_fn *row, store_done_fn *done, void *arg);
void ask_conversations(struct store_asker *q, const char *user, store_conversation_fn *row, store_done_fn *done, void *arg);
void ask_unread(struct store_asker *q, const char *user, const char *conv, uint64_t read, store_count_fn *done, void *arg);
void ask_device(struct store_asker *q, const char *user, const char *device, store_device_fn *row, store_cursor_fn *cursor,
		store_refusal_fn *refusal, store_done_fn *done, void *arg);
void ask_devices(struct store_asker *q, const char *user, store_device_fn *row, store_done_fn *done, void *arg);
void ask_stream(struct store_asker *q, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg);
/* The append made from these, accepted by the tail - or an empty one with st = IM_FAILED, to be answered in its turn. */
struct append *ask_append(struct store_asker *q, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg);

#endif
