/*
 * journal_recover over a folder with any segments in it. The input makes files: epoch, index, header, and pieces that are
 * good records, records of another place, or any bytes. What is found must be in order, and of each segment a prefix
 * that a second reader, written another way, finds too: never a record with a wrong checksum, never one behind a hole.
 */
#include "fuzz.h"
#include "input.h"

#include "base/log.h"
#include "base/record.h"
#include "plugin/journal_internal.h"
#include <string.h>
#include <zlib.h>

enum { FILES_MAX = 6, FILE_MAX = 64 << 10, HEADER = 64 };

struct file {
	uint64_t epoch, start, valid; /* valid: bytes of good records from the beginning */
	uint32_t index;
	size_t len;
	uint8_t data[FILE_MAX];
};
static struct file files[FILES_MAX];

static void put_u64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static void make_header(struct input *in, struct file *f)
{
	unsigned how = input_byte(in);

	memcpy(f->data, "IMJRNL01", 8);
	put_u64(f->data + 8, f->epoch);
	put_u64(f->data + 16, f->index);
	put_u64(f->data + 24, how & 1 ? 1 : 2);
	f->start = input_byte(in) | (uint64_t)(how >> 4) << 8;
	put_u64(f->data + 32, f->start);
	put_u64(f->data + 40, how & 2 ? f->epoch - 1 : 0);
	put_u64(f->data + 48, how & 2 ? input_byte(in) : 0);
	put_u64(f->data + 56, crc32(0L, f->data, 56));
	if (how & 4)
		f->data[input_byte(in) % HEADER] ^= 1;
	f->len = SEGMENT_PAGE;
}

static void add(struct file *f, const void *data, size_t len)
{
	len = len < FILE_MAX - f->len ? len : FILE_MAX - f->len;
	if (len > 0)
		memcpy(f->data + f->len, data, len);
	f->len += len;
}

static void make_record(struct input *in, struct file *f, uint64_t elsewhere)
{
	uint8_t header[IM_RECORD_HEADER];
	const uint8_t *body;
	size_t len = input_bytes(in, &body);

	if (len == 0)
		return;
	im_record_header(f->epoch, f->start + (f->len - SEGMENT_PAGE) + elsewhere, body, len, header);
	add(f, header, sizeof(header));
	add(f, body, len);
}

static void make_file(struct input *in, struct file *f)
{
	static const uint8_t zeros[64];
	const uint8_t *bytes;
	size_t len;

	memset(f, 0, SEGMENT_PAGE + offsetof(struct file, data));
	f->epoch = 1 + input_byte(in) % 4;
	f->index = input_byte(in) % 4;
	make_header(in, f);
	for (unsigned pieces = input_byte(in) % 16; pieces > 0; pieces--) {
		switch (input_byte(in) % 6) {
		case 0:
			len = input_bytes(in, &bytes);
			add(f, bytes, len);
			break;
		case 1:
			make_record(in, f, 1 + input_byte(in));
			break;
		case 2:
			add(f, zeros, input_byte(in) % sizeof(zeros));
			break;
		default:
			make_record(in, f, 0);
		}
	}
	if (input_byte(in) & 1) /* torn */
		f->len -= input_byte(in) < f->len ? input_byte(in) : 0;
}

/* The format of base/record.h again. */
static uint64_t valid_prefix(const struct file *f)
{
	uint64_t at = SEGMENT_PAGE;
	uint8_t place[16];
	uint32_t len, sum;

	put_u64(place, f->epoch);
	while (at + 8 <= f->len) {
		len = (uint32_t)f->data[at] | (uint32_t)f->data[at + 1] << 8 | (uint32_t)f->data[at + 2] << 16 | (uint32_t)f->data[at + 3] << 24;
		sum = (uint32_t)f->data[at + 4] | (uint32_t)f->data[at + 5] << 8 | (uint32_t)f->data[at + 6] << 16 | (uint32_t)f->data[at + 7] << 24;
		if (len == 0 || len > f->len - at - 8)
			break;
		put_u64(place + 8, f->start + at - SEGMENT_PAGE);
		if (crc32(crc32(0L, place, 16), f->data + at + 8, len) != sum)
			break;
		at += 8 + len;
	}
	return at - SEGMENT_PAGE;
}

static const struct file *find(size_t n, const struct segment *s)
{
	for (size_t i = n; i-- > 0;) /* of two with one name the later is on disk */
		if (files[i].epoch == s->epoch && files[i].index == s->index)
			return &files[i];
	abort();
}

/* A segment without records is kept only for what its header says of an epoch that is there. */
static bool has_records_or_an_end(const struct journal_found *found, const struct segment *s)
{
	for (const struct segment *b = found->first; b != s; b = b->next)
		if (b->epoch == s->before.epoch && b->end <= s->before.end)
			return true;
	return s->end > s->start;
}

static void check(size_t n, const struct journal_found *found)
{
	const struct segment *before = NULL;

	for (const struct segment *s = found->first; s; before = s, s = s->next) {
		const struct file *f = find(n, s);

		must(s->start == f->start && s->end >= s->start && s->end - s->start <= f->valid && s->confirmed == s->start);
		must(has_records_or_an_end(found, s));
		must(f->data[24] == 2 && crc32(0L, f->data, 56) == (f->data[56] | (uint64_t)f->data[57] << 8 | (uint64_t)f->data[58] << 16 |
								    (uint64_t)f->data[59] << 24));
		if (!before)
			continue;
		must(before->epoch <= s->epoch);
		if (before->epoch == s->epoch)
			must(s->index == before->index + 1 && s->start >= before->end); /* cut: what the next epoch says */
	}
	must(before == found->last);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct journal_found found;
	struct im_err err = {""};
	char name[40];
	size_t n;

	folder_clear();
	for (n = 0; n < FILES_MAX && in.size > 0; n++) {
		make_file(&in, &files[n]);
		files[n].valid = files[n].len > SEGMENT_PAGE ? valid_prefix(&files[n]) : 0;
		(void)snprintf(name, sizeof(name), "%010u-%06u.seg", (unsigned)files[n].epoch, files[n].index);
		folder_put(name, files[n].data, files[n].len);
	}
	if (journal_recover(&journal_fs_real, folder(), &found, &err) != IM_OK) {
		must(err.text[0] != '\0');
		return 0;
	}
	check(n, &found);
	journal_found_finish(&found);
	return 0;
}
