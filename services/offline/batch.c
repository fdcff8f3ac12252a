/* Slices are checked as a whole before anything is made of them: half a slice is never taken. */
#include "batch.h"

#include "base/record.h"
#include <stdlib.h>
#include <string.h>

void batch_free(struct batch *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->n_outcomes; i++)
		message_unref(b->outcomes[i].message); /* NOLINT(clang-analyzer-core.NullDereference): none are there without room for them */
	for (size_t i = 0; i < b->n_lookups; i++)
		message_unref(b->lookups[i].found);
	free(b->lookups);
	free(b->convs);
	free(b->entries);
	free(b->outcomes);
	free(b->items);
	im_arena_finish(&b->arena);
	free(b);
}

static struct batch *batch_new(size_t n_items)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	im_arena_init(&b->arena);
	b->items = calloc(n_items ? n_items : 1, sizeof(*b->items));
	b->outcomes = calloc(n_items ? n_items : 1, sizeof(*b->outcomes));
	if (!b->items || !b->outcomes) {
		batch_free(b);
		return NULL;
	}
	return b;
}

/* ---- from a slice */

bool batch_check(const Im__Bus__Slice *s, size_t *n)
{
	const uint8_t *body;
	size_t at = 0, len;

	for (*n = 0; at < s->records.len; (*n)++) {
		if (im_record_read(s->epoch, s->offset + at, s->records.data + at, s->records.len - at, &body, &len) != IM_RECORD_VALID)
			return false;
		at += im_record_size(len);
	}
	return true;
}

static bool slice_fill(struct batch *b, const Im__Bus__Slice *s, uint64_t from)
{
	ProtobufCAllocator allocator;
	const uint8_t *body;
	size_t at = 0, len;

	im_arena_allocator(&b->arena, &allocator);
	while (at < s->records.len) {
		struct item *item = &b->items[b->n_items];

		(void)im_record_read(s->epoch, s->offset + at, s->records.data + at, s->records.len - at, &body, &len); /* was valid */
		item->offset = s->offset + at;
		at += im_record_size(len);
		item->next = at < s->records.len ? s->offset + at : s->next;
		if (item->offset < from)
			continue; /* a repeat of what is being worked on */
		item->record = im__bus__record__unpack(&allocator, len, body);
		if (!item->record)
			return false;
		b->n_items++;
	}
	return true;
}

struct batch *batch_of_slice(const Im__Bus__Slice *s, size_t n, uint64_t from)
{
	struct batch *b = batch_new(n);

	if (!b || !slice_fill(b, s, from)) {
		batch_free(b);
		return NULL;
	}
	b->node = s->node;
	b->epoch = s->epoch;
	b->slice_next = s->next;
	b->size = s->records.len;
	return b;
}

/* ---- from ourselves */

static bool post_fill(struct batch *b, const Im__Bus__Record *r, const char *conv)
{
	ProtobufCAllocator allocator;
	uint8_t *packed;

	b->size = im__bus__record__get_packed_size(r);
	packed = im_arena_alloc(&b->arena, b->size + 1);
	if (!packed)
		return false;
	im__bus__record__pack(r, packed);
	im_arena_allocator(&b->arena, &allocator);
	b->items[0].record = im__bus__record__unpack(&allocator, b->size, packed);
	b->post_conv = im_arena_strndup(&b->arena, conv, strlen(conv));
	b->n_items = 1;
	return b->items[0].record && b->post_conv;
}

struct batch *batch_of_post(const Im__Bus__Record *r, const char *conv, uint64_t epoch, uint64_t count)
{
	struct batch *b = batch_new(1);

	if (!b || !post_fill(b, r, conv)) {
		batch_free(b);
		return NULL;
	}
	b->epoch = epoch;
	b->items[0].offset = count;
	return b;
}

/* ---- what it leads to */

struct store_entry *batch_entry(struct batch *b, const struct item *item, enum store_kind kind)
{
	struct store_entry *e;

	if (b->n_entries == b->cap_entries) {
		size_t cap = b->cap_entries ? 2 * b->cap_entries : b->n_items + 4;

		e = realloc(b->entries, cap * sizeof(*e));
		if (!e)
			return NULL;
		b->entries = e;
		b->cap_entries = cap;
	}
	e = &b->entries[b->n_entries++];
	memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->pos.node = b->node;
	e->pos.epoch = b->post ? 0 : b->epoch;
	e->pos.next = b->post ? 0 : item->next;
	return e;
}

struct outcome *batch_outcome(struct batch *b, enum outcome_kind kind, const Im__Bus__Record *r)
{
	struct outcome *o = &b->outcomes[b->n_outcomes++];

	o->kind = kind;
	o->record = r;
	return o;
}
