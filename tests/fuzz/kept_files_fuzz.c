/*
 * {dir}/sessions and {dir}/roster with any bytes in them: opened, and opened again with the same result. The first byte
 * chooses the file; then records of good checksum, or from a byte 0 on whatever follows.
 */
#include "fuzz.h"
#include "input.h"

#include "base/log.h"
#include "base/record.h"
#include "plugin/roster_file.h"
#include "plugin/session.h"
#include "plugin/session_kept.h"
#include <string.h>

enum { FILE_MAX = 64 << 10, HEAD = 16 };

static void quiet(enum im_log_level level, const char *line)
{
	(void)level, (void)line;
}

static size_t make_file(struct input *in, const char *magic, size_t head, uint8_t *data)
{
	const uint8_t *bytes;
	size_t at = head, len;

	memset(data, 0, head);
	memcpy(data, magic, 8);
	for (unsigned i = 0; i < 8; i++)
		data[8 + i] = i == 0 ? (uint8_t)(1 + input_byte(in)) : 0;
	while (in->size > 0 && *in->data != 0) {
		len = input_bytes(in, &bytes);
		if (len == 0 || at + IM_RECORD_HEADER + len > FILE_MAX)
			return at;
		im_record_header(data[8], at, bytes, len, data + at);
		memcpy(data + at + IM_RECORD_HEADER, bytes, len);
		at += im_record_size(len);
	}
	len = input_some(in, FILE_MAX - at, &bytes);
	if (len > 0)
		memcpy(data + at, bytes, len);
	return at + len;
}

static void count(void *arg, const Im__Bus__RosterItem *item)
{
	must(item->version > 0);
	(*(size_t *)arg)++;
}

static size_t roster_opened(uint64_t *version)
{
	struct roster *r = roster_create();
	struct roster_file *f = NULL;
	size_t n = 0;

	must(r);
	if (roster_file_open(folder(), r, &f, NULL) == IM_OK)
		must(!roster_file_is_broken(f));
	roster_since(r, 0, count, &n);
	*version = roster_version(r);
	roster_file_close(f);
	roster_destroy(r);
	return n;
}

static void check_roster(void)
{
	uint64_t version, again;
	size_t n = roster_opened(&version);

	must(roster_opened(&again) == n && again == version);
}

static void check_sessions(void)
{
	static const char *const users[] = {"alice", "bob", "a", ""};
	unsigned n[4];

	for (int round = 0; round < 2; round++) {
		struct kept_table *t = NULL;

		must(kept_open(folder(), &t, NULL) == IM_OK);
		for (unsigned i = 0; i < 4; i++) {
			unsigned now = kept_count(t, users[i]), seen = 0;

			for (const struct kept *k = kept_first(t, users[i]); k; k = k->next, seen++)
				must(kept_find(t, k->client_id) == k && strcmp(k->user, users[i]) == 0);
			must(seen == now && now <= KEPT_USER_MAX);
			must(round == 0 || n[i] == now);
			n[i] = now;
		}
		kept_close(t);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t file[FILE_MAX];
	struct input in = {data, size};
	bool roster = input_byte(&in) & 1;
	size_t len;

	im_log_open("kept_files_fuzz", IM_LOG_ERROR, quiet);
	folder_clear();
	len = make_file(&in, roster ? "IMROST02" : "IMSESS1\n", roster ? HEAD + ROSTER_STORE_MAX : HEAD, file);
	folder_put(roster ? "roster" : "sessions", file, len);
	if (roster)
		check_roster();
	else
		check_sessions();
	return 0;
}
