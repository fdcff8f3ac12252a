/* Picks the driver and hands on: what is common to all of them is in store_tail.c and store_read.c. */
#include "store_base.h"

#include <string.h>

static const struct store_driver *const drivers[] = { &store_sqlite, &store_memory };

enum im_status store_open(const char *url, struct im_loop *loop, const struct im_settings *settings,
			  struct store **out, struct im_err *err)
{
	const char *colon = strchr(url, ':');

	for (size_t i = 0; colon && i < sizeof(drivers) / sizeof(drivers[0]); i++) {
		size_t len = strlen(drivers[i]->name);

		if (len == (size_t)(colon - url) && strncmp(url, drivers[i]->name, len) == 0)
			return drivers[i]->open(url, loop, settings, out, err);
	}
	return im_fail(err, IM_BAD_INPUT, "im_store: \"%s\" is neither sqlite:{path} nor memory:", url);
}

void store_close(struct store *s)
{
	if (s)
		s->driver->close(s);
}

const struct store_start *store_start(struct store *s)
{
	return s->driver->start(s);
}

void store_roster(struct store *s, store_roster_fn *row, void *arg)
{
	s->driver->roster(s, row, arg);
}

void store_push(struct store *s, store_push_fn *row, void *arg)
{
	s->driver->push(s, row, arg);
}

void store_append(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg)
{
	s->driver->append(s, entries, n, done, arg);
}

void store_lookup(struct store *s, struct store_lookup_conv *convs, size_t n_convs,
		  struct store_lookup_id *ids, size_t n_ids, store_done_fn *done, void *arg)
{
	s->driver->lookup(s, convs, n_convs, ids, n_ids, done, arg);
}

void store_history(struct store *s, const struct store_range *range, store_message_fn *row,
		   store_done_fn *done, void *arg)
{
	s->driver->history(s, range, row, done, arg);
}

void store_conversations(struct store *s, const char *user, store_conversation_fn *row, store_done_fn *done, void *arg)
{
	s->driver->conversations(s, user, row, done, arg);
}

void store_unread(struct store *s, const char *user, const char *conv, uint64_t read, store_count_fn *done, void *arg)
{
	s->driver->unread(s, user, conv, read, done, arg);
}

void store_device(struct store *s, const char *user, const char *device, store_device_fn *row,
		  store_cursor_fn *cursor, store_refusal_fn *refusal, store_done_fn *done, void *arg)
{
	s->driver->device(s, user, device, row, cursor, refusal, done, arg);
}

void store_devices(struct store *s, const char *user, store_device_fn *row, store_done_fn *done, void *arg)
{
	s->driver->devices(s, user, row, done, arg);
}

void store_stream(struct store *s, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg)
{
	s->driver->stream(s, after, limit, row, done, arg);
}

bool store_full(struct store *s)
{
	return s->driver->full(s);
}

void store_stats(struct store *s, struct store_stats *out)
{
	s->driver->stats(s, out);
}

bool store_snapshot(struct store *s, struct store_snapshot *out)
{
	return s->driver->snapshot && s->driver->snapshot(s, out);
}
