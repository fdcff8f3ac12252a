/* Reading a backup front to back, believing nothing: every length is checked before it is used (backup.h). */
#include "backup_format.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define BUFFER (IM_RECORD_HEADER + IM_RECORD_MAX) /* the largest record at once */

struct reader {
	int fd;
	const char *name;
	const struct backup_sink *sink;
	void *arg;
	struct im_err *err;
	uint8_t *buffer;
	size_t len, pos;        /* what is in the buffer, and how much of it is done */
	uint64_t at;            /* place in the file of buffer[pos] */
	uint64_t id;
	size_t columns;         /* of the open part; 0: none */
	char part_name[BACKUP_NAME_MAX];
	uint64_t part_at, part_rows;
	crypto_generichash_state part, whole;
	bool header, ended;
	struct backup_summary sum;
};

static enum im_status damaged(const struct reader *r, const char *what)
{
	return im_fail(r->err, IM_BAD_INPUT, "%.120s is damaged at byte %llu%s%s: %s", r->name, (unsigned long long)r->at,
		       r->columns ? ", part " : "", r->columns ? r->part_name : "", what);
}

/* Fills the buffer until `want` bytes are at pos, or the file ends. */
static enum im_status fill(struct reader *r, size_t want)
{
	if (r->len - r->pos >= want)
		return IM_OK;
	memmove(r->buffer, r->buffer + r->pos, r->len - r->pos);
	r->len -= r->pos;
	r->pos = 0;
	while (r->len < want) {
		ssize_t n = read(r->fd, r->buffer + r->len, BUFFER - r->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return im_fail(r->err, IM_FAILED, "cannot read %.150s: %s", r->name, strerror(errno));
		if (n == 0)
			break;
		r->len += (size_t)n;
	}
	return IM_OK;
}

static void advance(struct reader *r, size_t n)
{
	r->pos += n;
	r->at += n;
}

static enum im_status read_head(struct reader *r)
{
	enum im_status st = fill(r, BACKUP_HEAD);
	const uint8_t *p = r->buffer;
	uint64_t format;

	if (st != IM_OK)
		return st;
	if (r->len < BACKUP_HEAD || memcmp(p, BACKUP_MAGIC, 8) != 0)
		return im_fail(r->err, IM_BAD_INPUT, "%.200s is not a backup", r->name);
	format = backup_get(p + 8, 4);
	if (format > BACKUP_FORMAT)
		return im_fail(r->err, IM_BAD_INPUT, "%.120s has format %llu, made by a newer release; this one knows %u", r->name,
			       (unsigned long long)format, BACKUP_FORMAT);
	r->id = backup_get(p + 16, 8);
	(void)crypto_generichash_update(&r->whole, p, BACKUP_HEAD); /* cannot fail */
	advance(r, BACKUP_HEAD);
	return IM_OK;
}

/* The next record as a whole; *body points into the buffer. */
static enum im_status read_record(struct reader *r, const uint8_t **body, size_t *len)
{
	enum im_status st = fill(r, IM_RECORD_HEADER);
	size_t want;

	if (st != IM_OK)
		return st;
	if (r->len - r->pos >= IM_RECORD_HEADER) {
		want = (size_t)backup_get(r->buffer + r->pos, 4);
		if (want == 0 || want > IM_RECORD_MAX)
			return damaged(r, "not a record");
		st = fill(r, im_record_size(want));
		if (st != IM_OK)
			return st;
		if (r->len - r->pos >= im_record_size(want))
			return im_record_read(r->id, r->at, r->buffer + r->pos, r->len - r->pos, body, len) == IM_RECORD_VALID ?
				       IM_OK : damaged(r, "the checksum is wrong");
	}
	return im_fail(r->err, IM_BAD_INPUT, "%.120s ends at byte %llu, in the middle: it is not whole", r->name,
		       (unsigned long long)r->at + (r->len - r->pos));
}

/* ---- what the records say */

static enum im_status take_header(struct reader *r, const uint8_t *body, size_t len)
{
	char text[BACKUP_HEADER_MAX];

	if (r->header || len >= sizeof(text))
		return damaged(r, "a header too many, or too long");
	r->header = true;
	memcpy(text, body, len);
	text[len] = '\0';
	return r->sink->header ? r->sink->header(r->arg, text, r->err) : IM_OK;
}

static enum im_status take_part(struct reader *r, const uint8_t *body, size_t len)
{
	const char *columns[BACKUP_COLUMNS_MAX + 1], *at = (const char *)body, *end = at + len;
	size_t n = 0;

	if (r->columns)
		return damaged(r, "a part within a part");
	for (; at < end; n++) {
		const char *nul = memchr(at, '\0', (size_t)(end - at));

		if (!nul || nul == at || (size_t)(nul - at) >= BACKUP_NAME_MAX || n > BACKUP_COLUMNS_MAX)
			return damaged(r, "names that cannot be");
		columns[n] = at;
		at = nul + 1;
	}
	if (n < 2)
		return damaged(r, "a part without columns");
	memcpy(r->part_name, columns[0], strlen(columns[0]) + 1); /* its length was checked */
	r->columns = n - 1;
	r->part_at = r->at;
	r->part_rows = 0;
	(void)crypto_generichash_init(&r->part, NULL, 0, BACKUP_DIGEST); /* cannot fail: the length is right */
	return r->sink->part ? r->sink->part(r->arg, columns[0], columns + 1, n - 1, r->err) : IM_OK;
}

/* One value; moves *p. false: it is not one, or ends behind `end`. */
static bool take_value(const uint8_t **p, const uint8_t *end, struct backup_value *v)
{
	const uint8_t *at = *p;
	size_t left = (size_t)(end - at);

	if (left < 1)
		return false;
	memset(v, 0, sizeof(*v));
	v->type = (enum backup_type)at[0];
	switch (at[0]) {
	case BACKUP_NULL:
		*p = at + 1;
		return true;
	case BACKUP_INT:
		if (left < 9)
			return false;
		v->integer = (int64_t)backup_get(at + 1, 8);
		*p = at + 9;
		return true;
	case BACKUP_TEXT:
	case BACKUP_BLOB:
		if (left < 5 || (v->len = (size_t)backup_get(at + 1, 4)) > left - 5)
			return false;
		v->data = at + 5;
		*p = at + 5 + v->len;
		return true;
	default:
		return false;
	}
}

static enum im_status take_rows(struct reader *r, const uint8_t *p, size_t len)
{
	const uint8_t *end = p + len;
	struct backup_value values[BACKUP_COLUMNS_MAX];
	enum im_status st = IM_OK;

	if (!r->columns)
		return damaged(r, "rows outside of a part");
	while (p < end && st == IM_OK) {
		for (size_t i = 0; i < r->columns; i++)
			if (!take_value(&p, end, &values[i]))
				return damaged(r, "a row that is not whole");
		r->part_rows++;
		r->sum.rows++;
		if (r->sink->row)
			st = r->sink->row(r->arg, values, r->columns, r->err);
	}
	return st;
}

static enum im_status take_part_end(struct reader *r, const uint8_t *body, size_t len)
{
	uint8_t digest[BACKUP_DIGEST];

	if (!r->columns || len != BACKUP_END_PART - 1)
		return damaged(r, "the end of no part");
	(void)crypto_generichash_final(&r->part, digest, sizeof(digest)); /* cannot fail */
	if (backup_get(body, 8) != r->part_rows || backup_get(body + 8, 8) != r->at - r->part_at ||
	    memcmp(body + 16, digest, sizeof(digest)) != 0)
		return damaged(r, "the part's digest is wrong");
	r->columns = 0;
	r->sum.parts++;
	return r->sink->part_end ? r->sink->part_end(r->arg, r->part_rows, r->err) : IM_OK;
}

static enum im_status take_end(struct reader *r, const uint8_t *body, size_t len)
{
	uint8_t digest[BACKUP_DIGEST];

	if (r->columns || !r->header || len != BACKUP_END_FILE - 1)
		return damaged(r, "an end where none can be");
	(void)crypto_generichash_final(&r->whole, digest, sizeof(digest)); /* cannot fail */
	if (backup_get(body, 4) != r->sum.parts || backup_get(body + 4, 8) != r->sum.rows || memcmp(body + 12, digest, sizeof(digest)) != 0)
		return damaged(r, "the digest of the whole is wrong");
	r->ended = true;
	return IM_OK;
}

static enum im_status take_record(struct reader *r, const uint8_t *body, size_t len)
{
	const uint8_t *record = r->buffer + r->pos;
	size_t size = im_record_size(len);
	enum im_status st;

	switch (body[0]) {
	case 'H':
		st = take_header(r, body + 1, len - 1);
		(void)crypto_generichash_update(&r->whole, record, size); /* cannot fail */
		return st;
	case 'P':
		st = take_part(r, body + 1, len - 1);
		(void)crypto_generichash_update(&r->part, record, size); /* cannot fail */
		return st;
	case 'R':
		st = take_rows(r, body + 1, len - 1);
		if (st == IM_OK)
			(void)crypto_generichash_update(&r->part, record, size); /* cannot fail */
		return st;
	case 'E':
		st = take_part_end(r, body + 1, len - 1);
		(void)crypto_generichash_update(&r->whole, record, size); /* cannot fail */
		return st;
	case 'Z':
		return take_end(r, body + 1, len - 1);
	default:
		return damaged(r, "an unknown record");
	}
}

static enum im_status read_all(struct reader *r)
{
	enum im_status st = read_head(r);
	const uint8_t *body;
	size_t len;

	while (st == IM_OK && !r->ended) {
		st = read_record(r, &body, &len);
		if (st != IM_OK)
			break;
		if (!r->header && body[0] != 'H')
			return damaged(r, "it does not begin with a header");
		st = take_record(r, body, len);
		if (st != IM_OK)
			break;
		advance(r, im_record_size(len));
		if (r->sink->progress)
			r->sink->progress(r->arg, r->at);
	}
	if (st == IM_OK)
		st = fill(r, 1);
	if (st == IM_OK && r->len > r->pos)
		return damaged(r, "something follows its end");
	r->sum.bytes = r->at;
	return st;
}

enum im_status backup_read(int fd, const char *name, const struct backup_sink *sink, void *arg, struct backup_summary *out,
			   struct im_err *err)
{
	static const struct backup_sink nothing;
	struct reader *r = sodium_init() >= 0 ? aligned_alloc(_Alignof(struct reader), sizeof(*r)) : NULL; /* as the digests want it */
	uint8_t *buffer = malloc(BUFFER);
	enum im_status st;

	if (!r || !buffer) {
		free(r);
		free(buffer);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	memset(r, 0, sizeof(*r));
	r->buffer = buffer;
	r->fd = fd;
	r->name = name;
	r->sink = sink ? sink : &nothing;
	r->arg = arg;
	r->err = err;
	(void)crypto_generichash_init(&r->whole, NULL, 0, BACKUP_DIGEST); /* cannot fail: the length is right */
	st = read_all(r);
	if (st == IM_OK && out)
		*out = r->sum;
	free(r->buffer);
	free(r);
	return st;
}

bool backup_header_value(const char *text, const char *name, char *out, size_t len)
{
	size_t n = strlen(name);

	for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		const char *value = line + n + 1;
		size_t value_len;

		if (strncmp(line, name, n) != 0 || line[n] != '=')
			continue;
		value_len = strcspn(value, "\n");
		if (value_len >= len)
			return false;
		memcpy(out, value, value_len);
		out[value_len] = '\0';
		return true;
	}
	return false;
}
