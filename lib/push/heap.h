/* A binary heap of jobs by one of their moments: the least is at the top. The job keeps its place in it, so that it can be taken out. */
#ifndef IM_PUSH_HEAP_H
#define IM_PUSH_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct push_heap {
	void **items;        /* 1-based */
	size_t n, cap;
	size_t moment, at;   /* offsets of the item's int64_t moment and of its size_t place (0 = not in) */
};

void push_heap_init(struct push_heap *h, size_t moment, size_t at);
void push_heap_finish(struct push_heap *h);
bool push_heap_reserve(struct push_heap *h, size_t n); /* room for n in all: after it adding so many cannot fail */
void push_heap_add(struct push_heap *h, void *item);
void push_heap_remove(struct push_heap *h, void *item); /* not in it: nothing */
void *push_heap_top(const struct push_heap *h); /* NULL: empty */

#endif
