#include "push/heap.h"

#include <assert.h>
#include <stdlib.h>

void push_heap_init(struct push_heap *h, size_t moment, size_t at)
{
	*h = (struct push_heap){.moment = moment, .at = at};
}

void push_heap_finish(struct push_heap *h)
{
	free(h->items);
	push_heap_init(h, h->moment, h->at);
}

static int64_t moment_of(const struct push_heap *h, const void *item)
{
	return *(const int64_t *)((const char *)item + h->moment);
}

static size_t *place_of(const struct push_heap *h, void *item)
{
	return (size_t *)((char *)item + h->at);
}

static void put(struct push_heap *h, size_t at, void *item)
{
	h->items[at] = item;
	*place_of(h, item) = at;
}

static void rise(struct push_heap *h, size_t at, void *item)
{
	while (at > 1 && moment_of(h, h->items[at / 2]) > moment_of(h, item)) {
		put(h, at, h->items[at / 2]);
		at /= 2;
	}
	put(h, at, item);
}

static void sink(struct push_heap *h, size_t at, void *item)
{
	size_t child;

	while ((child = 2 * at) <= h->n) {
		if (child < h->n && moment_of(h, h->items[child + 1]) < moment_of(h, h->items[child]))
			child++;
		if (moment_of(h, h->items[child]) >= moment_of(h, item))
			break;
		put(h, at, h->items[child]);
		at = child;
	}
	put(h, at, item);
}

bool push_heap_reserve(struct push_heap *h, size_t n)
{
	size_t cap = h->cap ? h->cap : 64;
	void **more;

	if (n < h->cap)
		return true;
	while (cap <= n)
		cap *= 2;
	more = reallocarray(h->items, cap, sizeof(*more));
	if (!more)
		return false;
	h->items = more;
	h->cap = cap;
	return true;
}

void push_heap_add(struct push_heap *h, void *item)
{
	assert(h->n + 1 < h->cap && *place_of(h, item) == 0);
	rise(h, ++h->n, item);
}

void push_heap_remove(struct push_heap *h, void *item)
{
	size_t at = *place_of(h, item);
	void *last;

	if (!at)
		return;
	*place_of(h, item) = 0;
	last = h->items[h->n--];
	if (last == item)
		return;
	if (at > 1 && moment_of(h, h->items[at / 2]) > moment_of(h, last))
		rise(h, at, last);
	else
		sink(h, at, last);
}

void *push_heap_top(const struct push_heap *h)
{
	return h->n ? h->items[1] : NULL;
}
