#include "store_ask.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

static void *need(void *p)
{
	if (p)
		return p;
	im_log(IM_LOG_ERROR, "evt=out_of_memory where=store instead=\"the service stops\"");
	abort();
}

static void ask(struct store_asker *q, struct store_read *r, store_done_fn *done, void *arg)
{
	r->done = done;
	r->arg = arg;
	r->asked_ms = im_clock_mono_ms();
	q->ask(q->store, r);
}

void ask_lookup(struct store_asker *q, struct store_lookup_conv *convs, size_t n_convs, struct store_lookup_id *ids, size_t n_ids,
		store_done_fn *done, void *arg)
{
	ask(q, need(read_lookup(q->tail, convs, n_convs, ids, n_ids)), done, arg);
}

void ask_history(struct store_asker *q, const struct store_range *range, store_message_fn *row, store_done_fn *done, void *arg)
{
	struct store_read *r = need(read_history(q->tail, range));

	r->on_message = row;
	ask(q, r, done, arg);
}

void ask_conversations(struct store_asker *q, const char *user, store_conversation_fn *row, store_done_fn *done, void *arg)
{
	struct store_read *r = need(read_user(q->tail, READ_CONVERSATIONS, user, ""));

	r->on_conversation = row;
	ask(q, r, done, arg);
}

void ask_unread(struct store_asker *q, const char *user, const char *conv, uint64_t read, store_count_fn *done, void *arg)
{
	struct store_read *r = need(read_unread(q->tail, user, conv, read));

	r->on_count = done;
	ask(q, r, NULL, arg);
}

void ask_device(struct store_asker *q, const char *user, const char *device, store_device_fn *row, store_cursor_fn *cursor,
		store_refusal_fn *refusal, store_done_fn *done, void *arg)
{
	struct store_read *r = need(read_user(q->tail, READ_DEVICE, user, device));

	r->on_device = row;
	r->on_cursor = cursor;
	r->on_refusal = refusal;
	ask(q, r, done, arg);
}

void ask_devices(struct store_asker *q, const char *user, store_device_fn *row, store_done_fn *done, void *arg)
{
	struct store_read *r = need(read_user(q->tail, READ_DEVICES, user, ""));

	r->on_device = row;
	ask(q, r, done, arg);
}

void ask_stream(struct store_asker *q, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg)
{
	struct store_read *r = need(read_stream(after, limit));

	r->on_stream = row;
	ask(q, r, done, arg);
}

struct append *ask_append(struct store_asker *q, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg)
{
	struct append *a = append_create(entries, n);
	enum im_status st = a ? store_tail_accept(q->tail, a) : IM_FAILED;

	if (!a)
		store_tail_refused(q->tail);
	if (st != IM_OK) {
		append_unref(a);
		a = need(append_create(NULL, 0));
	}
	a->st = st;
	a->done = done;
	a->arg = arg;
	return a;
}
