/*
 * Memory for one payload's parse: blocks filled from the front, freed together. A block that serves one
 * large string is never kept by a reset, so that one large message does not stay in memory for ever.
 */
#include "wire/envelope.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096 }; /* holds an ordinary envelope; larger wishes get a block of their own */

struct im_arena_block {
	struct im_arena_block *next;
	size_t used;
	size_t cap;
	alignas(max_align_t) char data[];
};

void im_arena_init(struct im_arena *a)
{
	a->blocks = NULL;
}

void im_arena_finish(struct im_arena *a)
{
	while (a->blocks) {
		struct im_arena_block *b = a->blocks;

		a->blocks = b->next;
		free(b);
	}
}

void im_arena_reset(struct im_arena *a)
{
	struct im_arena_block *keep = NULL, *b;

	while ((b = a->blocks)) {
		a->blocks = b->next;
		if (!keep && b->cap == BLOCK)
			keep = b;
		else
			free(b);
	}
	if (keep) {
		keep->next = NULL;
		keep->used = 0;
	}
	a->blocks = keep;
}

static struct im_arena_block *block_add(struct im_arena *a, size_t len)
{
	size_t cap = len > BLOCK ? len : BLOCK;
	struct im_arena_block *b;

	if (len > SIZE_MAX / 2 || !(b = malloc(sizeof(*b) + cap)))
		return NULL;
	b->used = 0;
	b->cap = cap;
	if (a->blocks && len > BLOCK / 2) { /* behind the current one, which still has room for small things */
		b->next = a->blocks->next;
		a->blocks->next = b;
	} else {
		b->next = a->blocks;
		a->blocks = b;
	}
	return b;
}

/* Not zeroed: for what is overwritten at once. */
static void *take(struct im_arena *a, size_t len)
{
	size_t rounded = (len + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	struct im_arena_block *b = a->blocks;
	void *p;

	if (rounded < len)
		return NULL;
	if (!b || b->cap - b->used < rounded)
		b = block_add(a, rounded);
	if (!b)
		return NULL;
	p = b->data + b->used;
	b->used += rounded;
	return p;
}

void *im_arena_alloc(struct im_arena *a, size_t len)
{
	void *p = take(a, len ? len : 1);

	if (p)
		memset(p, 0, len ? len : 1);
	return p;
}

char *im_arena_strndup(struct im_arena *a, const char *s, size_t len)
{
	char *copy = len < SIZE_MAX ? take(a, len + 1) : NULL;

	if (!copy)
		return NULL;
	if (len)
		memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

static void *allocator_alloc(void *a, size_t len)
{
	return im_arena_alloc(a, len);
}

static void allocator_free(void *a, void *p)
{
	(void)a;
	(void)p; /* everything goes at once, in im_arena_finish */
}

void im_arena_allocator(struct im_arena *a, ProtobufCAllocator *out)
{
	out->alloc = allocator_alloc;
	out->free = allocator_free;
	out->allocator_data = a;
}
