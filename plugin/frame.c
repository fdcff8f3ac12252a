/*
 * Decoding takes its memory from blocks that are freed together: a frame holds thousands of small strings,
 * and malloc for each would cost more than sending them.
 */
#include "frame.h"

#include "broker.h"
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK (64u << 10)

struct frame_block {
	struct frame_block *next;
	size_t used, cap;
	alignas(max_align_t) char data[];
};

static void *block_alloc(void *arg, size_t size)
{
	struct frame *f = arg;
	struct frame_block *b = f->blocks;
	size_t cap;
	void *p;

	if (size > FRAME_DECODED_MAX)
		return NULL;
	size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	if (!b || b->cap - b->used < size) {
		cap = size > BLOCK ? size : BLOCK;
		if (f->decoded + cap > FRAME_DECODED_MAX)
			return NULL;
		b = malloc(sizeof(*b) + cap);
		if (!b)
			return NULL;
		b->next = f->blocks;
		b->used = 0;
		b->cap = cap;
		f->blocks = b;
		f->decoded += cap;
	}
	p = b->data + b->used;
	b->used += size;
	return p;
}

static void block_free(void *arg, void *p)
{
	(void)arg;
	(void)p; /* all at once, with the frame */
}

struct frame *frame_create(const void *data, size_t len)
{
	struct frame *f = malloc(sizeof(*f) + len);

	if (!f)
		return NULL;
	memset(f, 0, sizeof(*f));
	f->len = len;
	if (len > 0)
		memcpy(f->data, data, len);
	return f;
}

void frame_free(struct frame *f)
{
	struct frame_block *b;

	if (!f)
		return;
	while ((b = f->blocks)) {
		f->blocks = b->next;
		free(b);
	}
	free(f);
}

bool frame_decode(struct frame *f)
{
	ProtobufCAllocator blocks = {block_alloc, block_free, f};

	f->msg = im__bus__to_plugin__unpack(&blocks, f->len, f->data);
	return f->msg != NULL;
}

static void send_one(const Im__Bus__Delivery *d, struct session *s, int qos, struct reading_watch *readings, uint64_t *budget,
		     struct frame_stats *stats)
{
	size_t len = d->payload.len;
	uint64_t cost = len + strlen(d->topic) + FRAME_PACKET_COST;
	void *payload = NULL;

	if (len > 0) {
		payload = broker_alloc(len);
		if (!payload) { /* the cursor does not pass it: it is sent again at the device's next connect */
			stats->stale++;
			return;
		}
		memcpy(payload, d->payload.data, len);
	}
	if (broker_send(s->client_id, d->topic, payload, len, qos, s->protocol == 5 ? d->properties : NULL)) {
		stats->expanded++;
		reading_given(readings, s, len);
	} else {
		stats->stale++;
	}
	stats->websocket = stats->websocket || s->websocket;
	*budget = *budget > cost ? *budget - cost : 0;
}

bool frame_expand(struct frame *f, struct session_table *sessions, struct reading_watch *readings, uint64_t *budget, struct frame_stats *stats)
{
	const Im__Bus__Delivery *d;
	struct session *s;
	bool qos1;

	for (; f->delivery < f->msg->n_deliveries; f->delivery++, f->target = 0) {
		d = f->msg->deliveries[f->delivery];
		for (; f->target < d->n_qos1 + d->n_qos0; f->target++) {
			if (*budget == 0)
				return false;
			qos1 = f->target < d->n_qos1;
			s = session_by_handle(sessions, qos1 ? d->qos1[f->target] : d->qos0[f->target - d->n_qos1]);
			if (s && !s->kicked)
				send_one(d, s, qos1 ? 1 : 0, readings, budget, stats);
			else
				stats->stale++;
		}
		stats->deliveries++;
	}
	return true;
}
