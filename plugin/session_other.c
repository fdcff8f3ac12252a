/*
 * Sessions of others. What is difficult is the broker's file: fixed structs as its compiler laid them out, lengths in
 * network order. Only chunks that describe clients are read; messages and subscriptions are jumped over.
 */
#include "session_other.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct other {
	char *client_id, *user;
	int64_t until_ms;
	UT_hash_handle hh;
};

struct others {
	struct other *by_id;
	bool full; /* said so already */
};

struct others *others_create(void)
{
	return calloc(1, sizeof(struct others));
}

static void other_remove(struct others *o, struct other *x)
{
	HASH_DEL(o->by_id, x);
	free(x->client_id);
	free(x->user);
	free(x);
}

void others_destroy(struct others *o)
{
	if (!o)
		return;
	while (o->by_id)
		other_remove(o, o->by_id);
	free(o);
}

void others_forget(struct others *o, const char *client_id)
{
	struct other *x;

	HASH_FIND_STR(o->by_id, client_id, x);
	if (x)
		other_remove(o, x);
}

static void make_room(struct others *o)
{
	if (HASH_COUNT(o->by_id) < OTHERS_MAX)
		return;
	if (!o->full)
		im_log(IM_LOG_WARNING, "evt=others_full sessions=%u: the oldest sessions of others are no longer protected", OTHERS_MAX);
	o->full = true;
	other_remove(o, o->by_id); /* in order of insertion: the oldest */
}

void others_keep(struct others *o, const char *client_id, const char *user, int64_t until_ms)
{
	struct other *x;

	others_forget(o, client_id);
	make_room(o);
	x = calloc(1, sizeof(*x));
	if (!x)
		return; /* not protected: the broker itself will not last long */
	x->client_id = strdup(client_id);
	x->user = strdup(user);
	x->until_ms = until_ms;
	if (!x->client_id || !x->user) {
		free(x->client_id);
		free(x->user);
		free(x);
		return;
	}
	HASH_ADD_KEYPTR(hh, o->by_id, x->client_id, strlen(x->client_id), x);
}

bool others_claim(const struct others *o, const char *client_id, const char *user, int64_t now_ms)
{
	struct other *x;

	HASH_FIND_STR(o->by_id, client_id, x);
	return x && x->until_ms > now_ms && strcmp(x->user, user) != 0;
}

size_t others_count(const struct others *o)
{
	return HASH_COUNT(o->by_id);
}

/* ---- the broker's file ---- */

#define FORMAT 6u
#define CHUNK_CLIENT 6u
#define CHUNK_FIXED 24u /* bytes before the client id, with the compiler's padding */

static const char magic[15] = "\0\265\0mosquitto db";

static uint32_t be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint16_t be16(const unsigned char *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static bool read_text(FILE *f, uint16_t len, char *out)
{
	if (fread(out, 1, len, f) != len)
		return false;
	out[len] = '\0';
	return true;
}

/* false: the file is not what it seems. */
static bool read_client(struct others *o, FILE *f, uint32_t length, int64_t now_ms, others_skip_fn *skip, void *arg, long *n)
{
	unsigned char fixed[CHUNK_FIXED];
	static char id[65536], user[65536]; /* one thread, at start only */
	uint32_t expiry;
	uint16_t id_len, user_len;

	if (length < CHUNK_FIXED || fread(fixed, 1, sizeof(fixed), f) != sizeof(fixed))
		return false;
	expiry = be32(fixed + 8);
	id_len = be16(fixed + 14);
	user_len = be16(fixed + 18);
	if (length != CHUNK_FIXED + id_len + user_len || !read_text(f, id_len, id) || !read_text(f, user_len, user))
		return false;
	if (expiry == 0 || id_len == 0 || skip(arg, id))
		return true;
	/* When it was left is not always written: counted from now, which is never too short. */
	others_keep(o, id, user, expiry == UINT32_MAX ? INT64_MAX : now_ms + (int64_t)expiry * 1000);
	(*n)++;
	return true;
}

static bool read_header(FILE *f)
{
	unsigned char head[sizeof(magic) + 8];

	return fread(head, 1, sizeof(head), f) == sizeof(head) && memcmp(head, magic, sizeof(magic)) == 0 &&
	       be32(head + sizeof(magic) + 4) == FORMAT;
}

long others_read(struct others *o, const char *path, int64_t now_ms, others_skip_fn *skip, void *arg)
{
	FILE *f = fopen(path, "re");
	unsigned char head[8];
	bool ok;
	long n = 0;

	if (!f)
		return 0; /* the broker did not find one either */
	ok = read_header(f);
	while (ok && fread(head, 1, sizeof(head), f) == sizeof(head)) {
		if (be32(head) == CHUNK_CLIENT)
			ok = read_client(o, f, be32(head + 4), now_ms, skip, arg, &n);
		else
			ok = fseeko(f, (off_t)be32(head + 4), SEEK_CUR) == 0;
	}
	(void)fclose(f); /* only read */
	return ok ? n : -1;
}
