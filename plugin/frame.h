/*
 * A frame of the message service waiting to be worked off: its bytes, copied in the broker's callback, and
 * once its turn comes the decoded message with the place where the work stopped. Expanding one delivery
 * makes a packet for each of its sessions; a turn of the loop expands only so many bytes.
 */
#ifndef PLUGIN_FRAME_H
#define PLUGIN_FRAME_H

#include "bus.pb-c.h"
#include "reading.h"
#include "session.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_DECODED_MAX (128u << 20) /* memory of one decoded frame; its strings count once more than in the frame */
#define FRAME_PACKET_COST 1024u        /* what a packet costs beyond topic and payload, in bytes of the budget: the time of a kilobyte, and its memory while it waits */

struct frame {
	struct frame *next;
	Im__Bus__ToPlugin *msg; /* NULL: not decoded yet */
	struct frame_block *blocks;
	size_t decoded;         /* bytes of memory in blocks */
	bool opened;            /* everything before the deliveries is done */
	size_t delivery, target;/* where the expansion goes on; target counts through qos1, then qos0 */
	size_t len;
	uint8_t data[];
};

struct frame_stats {
	uint64_t deliveries, expanded, stale;
	bool websocket;         /* something went to a WebSocket session */
};

struct frame *frame_create(const void *data, size_t len); /* NULL: out of memory */
void frame_free(struct frame *f);                         /* NULL is fine */
bool frame_decode(struct frame *f);                       /* false: malformed, or too large decoded */
/* Sends until all deliveries are out (true) or the budget is used up (false; at least one packet went out if it was not 0). */
bool frame_expand(struct frame *f, struct session_table *sessions, struct reading_watch *readings, uint64_t *budget, struct frame_stats *stats);

#endif
