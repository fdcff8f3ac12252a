#include "roster_feed.h"

#include "bus.pb-c.h"
#include "pack.h"

#define FRAME_ITEMS (128u << 10) /* bytes of roster items in one frame */

/* Items live only during the call: packed at once. */
struct feed {
	roster_feed_fn *send;
	void *arg;
	struct im_buf items; /* packed Roster fields */
	bool begin;
	uint64_t version;
};

static void feed_send(struct feed *f, bool end)
{
	Im__Bus__Roster head = IM__BUS__ROSTER__INIT;
	struct im_buf roster, frame;
	uint8_t front[32];
	size_t n;

	head.begin = f->begin;
	head.end = end;
	head.version = f->version;
	f->begin = false;
	n = im__bus__roster__pack(&head, front);
	im_buf_init(&roster);
	im_buf_add(&roster, front, n);
	im_buf_add(&roster, f->items.data, f->items.len);
	im_buf_clear(&f->items);
	im_buf_init(&frame);
	pack_bytes(&frame, 5, roster.data, roster.len);
	if (!roster.failed && !frame.failed)
		f->send(f->arg, frame.data, frame.len);
	im_buf_finish(&roster);
	im_buf_finish(&frame);
}

static void feed_item(void *arg, const Im__Bus__RosterItem *item)
{
	struct feed *f = arg;

	pack_message(&f->items, 4, &item->base);
	f->version = item->version;
	if (f->items.len > FRAME_ITEMS)
		feed_send(f, false);
}

void roster_feed(const struct roster *r, uint64_t theirs, roster_feed_fn *send, void *arg)
{
	uint64_t ours = roster_version(r);
	bool snapshot = theirs == 0 || theirs > ours;
	struct feed f = {.send = send, .arg = arg, .begin = snapshot, .version = snapshot ? 0 : theirs};

	if (!snapshot && theirs == ours)
		return;
	im_buf_init(&f.items);
	roster_since(r, snapshot ? 0 : theirs, feed_item, &f);
	f.version = ours;
	feed_send(&f, snapshot);
	im_buf_finish(&f.items);
}
