/*
 * Reading back and confirming, on the broker's thread. Nothing waits for the disk: the newest records are in the
 * tail; what is not in the page cache is asked for (RWF_NOWAIT says so), the thread brings it in, and a later
 * tick finds it there.
 */
#include "base/log.h"
#include "base/record.h"
#include "journal.h"
#include "journal_internal.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define MISSES_MAX 1000 /* fetched so often and still not in memory: read it all the same, and wait */

struct journal_cursor journal_oldest(const struct journal *j)
{
	return (struct journal_cursor){j->first->epoch, j->first->confirmed};
}

/* The segment that holds *c or, if nothing is left there, what comes next; moves *c to it. NULL: nothing yet. */
static struct segment *seek(const struct journal *j, struct journal_cursor *c)
{
	for (struct segment *s = j->first; s; s = s->next) {
		if (s->epoch < c->epoch)
			continue;
		if (s->epoch > c->epoch)
			*c = (struct journal_cursor){s->epoch, s->start};
		else if (c->offset < s->start)
			c->offset = s->start; /* what was before is confirmed and gone */
		if (c->offset < s->end)
			return s;
	}
	return NULL;
}

static ssize_t read_some(struct journal *j, struct segment *s, void *data, size_t len, uint64_t offset)
{
	uint64_t at = SEGMENT_PAGE + (offset - s->start);
	ssize_t n = s->epoch == j->current->epoch ? (ssize_t)tail_read(&j->tail, offset, data, len) : 0;

	if (n > 0)
		return n;
	if (!j->no_nowait && j->misses < MISSES_MAX) {
		do
			n = j->options.fs->pread_nowait(s->fd, data, len, (off_t)at);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno == EAGAIN)
			return -EAGAIN;
		if (n > 0)
			return n;
		if (n < 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
			return -errno;
		j->no_nowait = n < 0; /* memory file systems and old kernels: reading does not wait there, or we must */
	}
	return segment_read(j->options.fs, s->fd, data, len, at);
}

static enum im_status ask_for(struct journal *j, struct segment *s, uint64_t pos)
{
	j->misses++;
	(void)pthread_mutex_lock(&j->lock);
	j->fetch = s;
	j->fetch_at = pos;
	(void)pthread_cond_signal(&j->wake);
	(void)pthread_mutex_unlock(&j->lock);
	return IM_BUSY;
}

/* Bytes of whole valid records at the front; *need: what the first one takes if it is not whole. */
static size_t whole_records(const struct segment *s, uint64_t offset, const uint8_t *data, size_t len, size_t *need)
{
	const uint8_t *body;
	size_t pos = 0, body_len;

	*need = 0;
	while (im_record_read(s->epoch, offset + pos, data + pos, len - pos, &body, &body_len) == IM_RECORD_VALID)
		pos += im_record_size(body_len);
	if (pos == 0 && len >= IM_RECORD_HEADER) {
		body_len = (size_t)data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16 | (size_t)data[3] << 24;
		if (body_len > 0 && body_len <= IM_RECORD_MAX)
			*need = im_record_size(body_len);
	}
	return pos;
}

/*
 * What was accepted is not there any more. In a poisoned epoch the kernel gave up pages it could not
 * write: that part is lost, which the log says once, and the rest goes on. Elsewhere it is a broken disk:
 * nothing is passed over, an admin must look.
 */
static enum im_status unreadable(struct journal *j, struct segment *s, const struct journal_cursor *c, int e)
{
	uint64_t from, lost = 0;

	if (!s->suspect) {
		if (!j->reported_stuck)
			im_log(IM_LOG_ERROR, "evt=journal_unreadable epoch=%" PRIu64 " offset=%" PRIu64 " error=\"%s\"", c->epoch, c->offset,
			       e ? strerror(e) : "damaged record");
		j->reported_stuck = true;
		return im_fail(&j->why, IM_FAILED, "the journal cannot be read at epoch %" PRIu64 ", offset %" PRIu64, c->epoch, c->offset);
	}
	for (; s && s->epoch == c->epoch; s = s->next) { /* what stands behind a hole cannot be handed over either */
		from = c->offset > s->start ? c->offset : s->start;
		lost += s->end - from;
		j->kept -= s->end - (from > s->confirmed ? from : s->confirmed);
		s->end = from;
		if (s->confirmed > s->end)
			s->confirmed = s->end;
	}
	im_log(IM_LOG_ERROR, "evt=journal_lost epoch=%" PRIu64 " offset=%" PRIu64 " bytes=%" PRIu64 " note=\"the disk failed before it had them\"",
	       c->epoch, c->offset, lost);
	return IM_BUSY; /* the next call goes on behind it */
}

/* Reads at most `len` bytes of records at *c into the buffer. IM_BAD_INPUT: *need bytes are needed for the first one. */
static enum im_status read_piece(struct journal *j, struct segment *s, struct journal_cursor *c, size_t len, struct im_buf *out, size_t *need)
{
	uint64_t pos = c->offset - s->start;
	size_t whole;
	ssize_t n;

	if (!im_buf_reserve(out, len))
		return im_fail(&j->why, IM_BUSY, "out of memory for %zu bytes of the journal", len);
	n = read_some(j, s, out->data + out->len, len, c->offset);
	if (n == -EAGAIN)
		return ask_for(j, s, pos);
	if (n < 0)
		return unreadable(j, s, c, (int)-n);
	whole = whole_records(s, c->offset, (uint8_t *)out->data + out->len, (size_t)n, need);
	if (whole == 0 && (size_t)n < len && !j->no_nowait && j->misses < MISSES_MAX)
		return ask_for(j, s, pos); /* only the front is in memory */
	if (whole == 0)
		return *need > len && *need <= s->end - c->offset ? IM_BAD_INPUT : unreadable(j, s, c, 0);
	j->misses = 0;
	out->len += whole;
	c->offset += whole;
	return IM_OK;
}

enum im_status journal_read(struct journal *j, struct journal_cursor *c, size_t max, struct im_buf *out,
			    uint64_t *slice_epoch, uint64_t *slice_offset)
{
	struct segment *s = seek(j, c);
	struct journal_cursor from;
	uint64_t left;
	enum im_status st;
	size_t need = 0;

	if (!s)
		return IM_NOT_FOUND;
	from = *c;
	left = s->end - c->offset;
	if (max < IM_RECORD_HEADER)
		max = IM_RECORD_HEADER;
	st = read_piece(j, s, c, left < max ? (size_t)left : max, out, &need);
	if (st == IM_BAD_INPUT)
		st = read_piece(j, s, c, need, out, &need);
	if (st != IM_OK)
		return st;
	*slice_epoch = from.epoch;
	*slice_offset = from.offset;
	return IM_OK;
}

void journal_confirm(struct journal *j, uint64_t epoch, uint64_t offset)
{
	struct segment *s;
	uint64_t to;

	assert(j->first); /* the one that is written to, if no other */
	for (s = j->first; s && s->epoch <= epoch; s = s->next) {
		if (s->epoch < epoch)
			continue;
		to = offset < s->end ? offset : s->end;
		if (to > s->confirmed) {
			j->kept -= to - s->confirmed;
			s->confirmed = to;
		}
	}
	if (j->first == j->current || j->first->confirmed < j->first->end)
		return;
	(void)pthread_mutex_lock(&j->lock);
	while (j->first != j->current && j->first->confirmed == j->first->end) {
		j->first->gone = j->reapable = true;
		j->first = j->first->next;
	}
	(void)pthread_cond_signal(&j->wake);
	(void)pthread_mutex_unlock(&j->lock);
}
