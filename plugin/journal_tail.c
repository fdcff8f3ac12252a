#include "journal_tail.h"

#include <string.h>

#define TAIL_KEPT (1u << 20) /* memory kept when it is empty */

void tail_finish(struct journal_tail *t)
{
	im_buf_finish(&t->bytes);
}

uint8_t *tail_room(struct journal_tail *t, size_t size)
{
	if (!im_buf_reserve(&t->bytes, size)) {
		t->bytes.failed = false; /* this record is refused; what is there stays */
		return NULL;
	}
	return (uint8_t *)t->bytes.data + t->bytes.len;
}

void tail_add(struct journal_tail *t, uint64_t offset, size_t size)
{
	if (t->bytes.len == 0)
		t->at = offset;
	t->bytes.len += size;
}

/* Moving what stays costs no more than what went: each byte is moved once at most. */
void tail_drop(struct journal_tail *t, uint64_t synced)
{
	size_t n = t->bytes.len > 0 && synced > t->at ? (size_t)(synced - t->at) : 0, rest;

	if (n > 0 && n >= t->bytes.len / 2) {
		rest = t->bytes.len - n;
		memmove(t->bytes.data, t->bytes.data + n, rest);
		t->bytes.len = rest;
		t->at = synced;
	}
	if (t->bytes.len == 0 && t->bytes.cap > TAIL_KEPT)
		im_buf_finish(&t->bytes);
}

size_t tail_read(const struct journal_tail *t, uint64_t offset, void *data, size_t len)
{
	size_t left;

	if (t->bytes.len == 0 || offset < t->at || offset >= t->at + t->bytes.len)
		return 0;
	left = (size_t)(t->at + t->bytes.len - offset);
	if (len > left)
		len = left;
	memcpy(data, tail_bytes(t, offset), len);
	return len;
}

const char *tail_bytes(const struct journal_tail *t, uint64_t offset)
{
	return t->bytes.data + (offset - t->at);
}
