/* The memory driver, for tests: a tail that is never settled and has no rows below it. Nothing survives close. */
#include "store_ask.h"
#include "store_base.h"

#include <stdlib.h>

struct memory_store {
	struct store base;
	struct im_wake *wake;
	struct store_tail *tail;
	struct store_asker asker;
	struct append_queue waiting, kept;
	struct read_queue reads;
	struct store_start start;
	uint64_t messages;
};

static struct memory_store *memory(struct store *s)
{
	return (struct memory_store *)s;
}

static void answer_append(struct memory_store *ms, struct append *a)
{
	store_done_fn *done = a->done;
	void *arg = a->arg;
	enum im_status st = a->st;

	store_tail_answer(ms->tail, a);
	for (size_t i = 0; i < a->n; i++)
		ms->messages += a->entries[i].kind == STORE_MESSAGE;
	append_queue_put(&ms->kept, a);
	done(arg, st);
}

static void on_wake(void *arg)
{
	struct memory_store *ms = arg;
	struct store_read *r;
	struct append *a;

	while ((a = append_queue_take(&ms->waiting)))
		answer_append(ms, a);
	while ((r = read_queue_take(&ms->reads)))
		read_answer(r, ms->tail);
}

static void memory_rows(struct memory_store *ms, struct store_read *r);

static void ask(void *store, struct store_read *r)
{
	struct memory_store *ms = store;

	if (r->kind == READ_STREAM)
		memory_rows(ms, r);
	read_overlay(r);
	read_queue_put(&ms->reads, r);
	im_wake_send(ms->wake);
}

static bool no_last(void *arg, const char *conv, uint64_t *seq, int64_t *ts)
{
	(void)arg;
	(void)conv;
	*seq = 0;
	*ts = 0;
	return true;
}

static bool no_message(void *arg, const char *conv, uint64_t seq, struct message **out)
{
	(void)arg;
	(void)conv;
	(void)seq;
	*out = NULL;
	return true;
}

static void memory_close(struct store *s)
{
	struct memory_store *ms = memory(s);
	struct append *a;

	while (ms->tail && (ms->waiting.first || ms->reads.first))
		on_wake(ms);
	store_tail_destroy(ms->tail);
	while ((a = append_queue_take(&ms->kept)))
		append_unref(a);
	im_wake_destroy(ms->wake);
	free(ms);
}

static enum im_status memory_open(const char *url, struct im_loop *loop,
				  const struct im_settings *settings, struct store **out, struct im_err *err)
{
	struct tail_options o = { .rows = { no_last, no_message, NULL }, .dedupe_days = settings->dedupe_days };
	struct memory_store *ms = calloc(1, sizeof(*ms));

	(void)url; /* there is nothing to say behind "memory:" */
	if (!ms)
		return im_fail(err, IM_FAILED, "out of memory");
	ms->base.driver = &store_memory;
	append_queue_init(&ms->waiting);
	append_queue_init(&ms->kept);
	read_queue_init(&ms->reads);
	ms->tail = store_tail_create(&o);
	ms->wake = im_wake_create(loop, on_wake, ms);
	if (!ms->tail || !ms->wake) {
		memory_close(&ms->base);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	ms->asker = (struct store_asker){ ms->tail, ask, ms };
	memcpy(ms->start.epoch, "memory", sizeof("memory"));
	ms->start.section_epochs = store_tail_sections(ms->tail);
	*out = &ms->base;
	return IM_OK;
}

static const struct store_start *memory_start(struct store *s)
{
	return &memory(s)->start;
}

static void memory_roster(struct store *s, store_roster_fn *row, void *arg)
{
	(void)s; /* a new one has none, and it is only asked at start */
	(void)row;
	(void)arg;
}

static void memory_push(struct store *s, store_push_fn *row, void *arg)
{
	(void)s; /* a new one has none, and it is only asked at start */
	(void)row;
	(void)arg;
}

static void memory_append(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg)
{
	struct memory_store *ms = memory(s);

	append_queue_put(&ms->waiting, ask_append(&ms->asker, entries, n, done, arg));
	im_wake_send(ms->wake);
}

static void memory_lookup(struct store *s, struct store_lookup_conv *convs, size_t n_convs,
			  struct store_lookup_id *ids, size_t n_ids,
			  store_done_fn *done, void *arg)
{
	ask_lookup(&memory(s)->asker, convs, n_convs, ids, n_ids, done, arg);
}

static void memory_history(struct store *s, const struct store_range *range, store_message_fn *row,
			   store_done_fn *done, void *arg)
{
	ask_history(&memory(s)->asker, range, row, done, arg);
}

static void memory_conversations(struct store *s, const char *user, store_conversation_fn *row,
				 store_done_fn *done, void *arg)
{
	ask_conversations(&memory(s)->asker, user, row, done, arg);
}

static void memory_unread(struct store *s, const char *user, const char *conv, uint64_t read,
			  store_count_fn *done, void *arg)
{
	ask_unread(&memory(s)->asker, user, conv, read, done, arg);
}

static void memory_device(struct store *s, const char *user, const char *device, store_device_fn *row,
			  store_cursor_fn *cursor,
			  store_refusal_fn *refusal, store_done_fn *done, void *arg)
{
	ask_device(&memory(s)->asker, user, device, row, cursor, refusal, done, arg);
}

static void memory_devices(struct store *s, const char *user, store_device_fn *row, store_done_fn *done, void *arg)
{
	ask_devices(&memory(s)->asker, user, row, done, arg);
}

/* The n-th message is row n. */
static void memory_rows(struct memory_store *ms, struct store_read *r)
{
	uint64_t number = 0, last = ms->messages, from = r->range.from == STORE_STREAM_END ? last - (last > 0) : r->range.from;

	for (const struct append *a = ms->kept.first; a; a = a->next)
		for (size_t i = 0; i < a->n; i++)
			if (a->entries[i].kind == STORE_MESSAGE && ++number > from && r->n_rows < r->range.limit)
				(void)read_add_numbered(r, number, message_ref(a->entries[i].message.m)); /* r->st has the failure */
}

static void memory_stream(struct store *s, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg)
{
	ask_stream(&memory(s)->asker, after, limit, row, done, arg);
}

static bool memory_full(struct store *s)
{
	(void)s;
	return false;
}

static void memory_stats(struct store *s, struct store_stats *out)
{
	memset(out, 0, sizeof(*out));
	out->messages = memory(s)->messages;
}

const struct store_driver store_memory = {
	.name = "memory",
	.open = memory_open,
	.close = memory_close,
	.start = memory_start,
	.roster = memory_roster,
	.push = memory_push,
	.append = memory_append,
	.lookup = memory_lookup,
	.history = memory_history,
	.conversations = memory_conversations,
	.unread = memory_unread,
	.device = memory_device,
	.devices = memory_devices,
	.stream = memory_stream,
	.full = memory_full,
	.stats = memory_stats,
};
