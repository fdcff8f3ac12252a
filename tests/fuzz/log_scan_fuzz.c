/*
 * store_log_open and entry_unpack over a folder with any segments of the message log in it. What is replayed must be a
 * prefix of what stands there: each record with the checksum of its place, in order; and what is replayed once is replayed
 * again at the next opening.
 */
#include "fuzz.h"
#include "input.h"

#include "base/log.h"
#include "base/record.h"
#include "store_segment.h"
#include <string.h>

#define STORE "0123456789abcdef0123456789abcdef"
enum { FILES_MAX = 3, FILE_MAX = 8 << 10, RECORDS = 4096 };

struct replayed {
	uint64_t end[RECORDS];
	size_t n;
	uint64_t newest;
};

static void quiet(enum im_log_level level, const char *line)
{
	(void)level, (void)line;
}

static void no_wake(void *arg)
{
	(void)arg;
}

static enum im_status replay(void *arg, const uint8_t *body, size_t len, uint64_t end, struct im_err *err)
{
	struct replayed *r = arg;
	struct append *a = NULL;
	bool more;

	(void)err;
	must(end > r->newest && len >= 1);
	r->newest = end;
	if (r->n < RECORDS)
		r->end[r->n++] = end;
	if (entry_unpack(body, len, &a, &more) == IM_OK) {
		must(a && a->n == 1);
		append_unref(a);
	}
	return IM_OK;
}

static size_t make_file(struct input *in, uint64_t number, uint64_t *valid, uint8_t *data)
{
	struct segment_header h = {.number = number, .record_epoch = input_byte(in), .valid = *valid};
	uint8_t header[IM_RECORD_HEADER];
	size_t at = LOG_HEADER, len;
	const uint8_t *body;
	unsigned how = input_byte(in);

	memcpy(h.store, STORE, sizeof(h.store));
	h.valid += how & 2 ? 1 : 0;
	h.number += how & 4 ? 1 : 0;
	segment_header_encode(&h, data);
	if (how & 8)
		data[input_byte(in) % LOG_HEADER] ^= 1;
	for (unsigned pieces = input_byte(in) % 12; pieces > 0; pieces--) {
		unsigned kind = input_byte(in) % 5;

		len = input_bytes(in, &body);
		if (len == 0 || at + IM_RECORD_HEADER + len > FILE_MAX)
			break;
		im_record_header(h.record_epoch, at + (kind == 1), body, len, header);
		if (kind != 0) {
			memcpy(data + at, header, sizeof(header));
			at += sizeof(header);
		}
		memcpy(data + at, body, len);
		at += len;
		if (kind > 1)
			*valid = number << 32 | at;
	}
	return at;
}

static bool open_once(uint64_t after, struct replayed *r)
{
	struct log_options o = {folder(), STORE, FILE_MAX, after, NULL, replay, no_wake, r, NULL};
	struct store_log *log = NULL;
	struct im_err err = {""};

	r->n = 0;
	r->newest = after;
	if (store_log_open(&o, &log, &err) != IM_OK) {
		must(err.text[0] != '\0');
		if (getenv("FUZZ_VERBOSE"))
			(void)fprintf(stderr, "%s\n", err.text);
		return false;
	}
	store_log_close(log);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct replayed first, second;
	static uint8_t file[FILE_MAX];
	struct input in = {data, size};
	uint64_t number, valid, after;
	char name[40];

	im_log_open("log_scan_fuzz", IM_LOG_ERROR, quiet);
	folder_clear();
	number = 1 + input_byte(&in) % 3;
	after = input_byte(&in) & 1 ? number << 32 | LOG_HEADER : 0;
	valid = 0;
	for (unsigned n = 0; n < FILES_MAX && in.size > 0; n++, number += 1 + (in.size > 0 && (in.data[0] & 64))) {
		size_t len = make_file(&in, number, &valid, file);

		(void)snprintf(name, sizeof(name), "%020llu.log", (unsigned long long)number);
		folder_put(name, file, len);
	}
	if (!open_once(after, &first))
		return 0;
	must(open_once(after, &second));
	must(first.n == second.n && memcmp(first.end, second.end, first.n * sizeof(first.end[0])) == 0);
	return 0;
}
