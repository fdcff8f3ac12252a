/*
 * The tail of an epoch: what was accepted and is not known to be on the disk, in memory as well. A sync that
 * fails may take it from the page cache; here it can be written again from. It is also where the next record is
 * put together, and where the newest ones are read from. Durability `disk` leaves it empty. The broker's thread.
 */
#ifndef PLUGIN_JOURNAL_TAIL_H
#define PLUGIN_JOURNAL_TAIL_H

#include "base/buf.h"
#include <stddef.h>
#include <stdint.h>

/* Of bytes accepted and not synced. A disk that syncs at all empties it every few ms; a second's stall at 64 MB/s fits. */
#define JOURNAL_TAIL_MAX (64u << 20)

struct journal_tail {
	struct im_buf bytes;
	uint64_t at; /* offset in the epoch of the first byte, if there is one */
};

void tail_finish(struct journal_tail *t);                            /* as after zeroing */
/* Room for a record behind the tail, until the next call. NULL: no memory. */
uint8_t *tail_room(struct journal_tail *t, size_t size);
void tail_add(struct journal_tail *t, uint64_t offset, size_t size); /* what is in that room was accepted at `offset` */
void tail_drop(struct journal_tail *t, uint64_t synced);             /* all below is on the disk */
size_t tail_read(const struct journal_tail *t, uint64_t offset, void *data, size_t len); /* bytes copied; 0: not in it */
/* The bytes from `offset` on, which is in the tail. */
const char *tail_bytes(const struct journal_tail *t, uint64_t offset);

#endif
