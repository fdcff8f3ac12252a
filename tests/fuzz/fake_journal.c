#include "fake_journal.h"

#include "base/record.h"
#include "fuzz.h"
#include "plugin/journal.h"

#include <string.h>

#define EPOCH 7u

struct fake_journal fake_journal;
static struct im_buf bytes;
static uint64_t confirmed;

void fake_journal_clear(void)
{
	im__bus__record__free_unpacked(fake_journal.newest, NULL);
	memset(&fake_journal, 0, sizeof(fake_journal));
	im_buf_finish(&bytes);
	im_buf_init(&bytes);
	confirmed = 0;
}

enum im_status journal_open(const struct im_settings *settings, struct journal **out, struct im_err *err)
{
	(void)settings, (void)err;
	*out = NULL;
	return IM_OK;
}

void journal_close(struct journal *j)
{
	(void)j;
}

enum im_status journal_append(struct journal *j, const void *body, size_t len)
{
	uint8_t header[IM_RECORD_HEADER];

	(void)j;
	if (fake_journal.says != IM_OK)
		return fake_journal.says;
	must(len >= 1 && len <= IM_RECORD_MAX);
	im__bus__record__free_unpacked(fake_journal.newest, NULL);
	fake_journal.newest = im__bus__record__unpack(NULL, len, body);
	must(fake_journal.newest);
	fake_journal.n_records++;
	im_record_header(EPOCH, bytes.len, body, len, header);
	im_buf_add(&bytes, header, sizeof(header));
	im_buf_add(&bytes, body, len);
	return IM_OK;
}

const char *journal_why(const struct journal *j)
{
	(void)j;
	return "the target says so";
}

void journal_set_limit(struct journal *j, uint64_t limit)
{
	(void)j, (void)limit;
}

uint64_t journal_epoch(const struct journal *j)
{
	(void)j;
	return EPOCH;
}

uint64_t journal_end(const struct journal *j)
{
	(void)j;
	return bytes.len;
}

uint64_t journal_bytes(const struct journal *j)
{
	(void)j;
	return bytes.len - confirmed;
}

void journal_tick(struct journal *j)
{
	(void)j;
}

struct journal_cursor journal_oldest(const struct journal *j)
{
	(void)j;
	return (struct journal_cursor){EPOCH, confirmed};
}

enum im_status journal_read(struct journal *j, struct journal_cursor *c, size_t max, struct im_buf *out, uint64_t *epoch, uint64_t *offset)
{
	const uint8_t *body;
	uint64_t at = c->offset;
	size_t len;

	(void)j;
	if (c->epoch != EPOCH || at > bytes.len)
		return IM_NOT_FOUND;
	while (at < bytes.len && (at == c->offset || at - c->offset < max)) {
		if (im_record_read(EPOCH, at, (const uint8_t *)bytes.data + at, bytes.len - at, &body, &len) != IM_RECORD_VALID)
			break; /* a hello may begin anywhere */
		at += im_record_size(len);
	}
	if (at == c->offset)
		return IM_NOT_FOUND;
	im_buf_add(out, bytes.data + c->offset, (size_t)(at - c->offset));
	*epoch = EPOCH;
	*offset = c->offset;
	c->offset = at;
	return IM_OK;
}

void journal_confirm(struct journal *j, uint64_t epoch, uint64_t offset)
{
	(void)j;
	if (epoch == EPOCH && offset > confirmed && offset <= bytes.len)
		confirmed = offset;
}
