/* A hash over (user, client id, request id) and a list in order of age; the oldest go first. */
#include "answer.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

struct answer {
	UT_hash_handle hh;
	struct answer *prev, *next;
	int64_t until_ms;
	size_t size;       /* all of it, for the budget */
	size_t key_len, len;
	uint8_t bytes[];   /* key, packed response */
};

struct answer_cache {
	struct im_loop *loop;
	struct answer *by_key, *by_age;
	size_t bytes;
};

#define KEY_MAX 320 /* a user name, a client id, a request id and two NULs are 258 */

struct answer_cache *answer_cache_create(struct im_loop *loop)
{
	struct answer_cache *c = calloc(1, sizeof(*c));

	if (c != NULL)
		c->loop = loop;
	return c;
}

static void forget(struct answer_cache *c, struct answer *a)
{
	HASH_DEL(c->by_key, a);
	DL_DELETE(c->by_age, a);
	c->bytes -= a->size;
	free(a);
}

void answer_cache_destroy(struct answer_cache *c)
{
	if (c == NULL)
		return;
	while (c->by_age != NULL)
		forget(c, c->by_age);
	free(c);
}

/* "user NUL client id NUL id"; 0: longer than any that is valid. */
static size_t make_key(const char *user, const char *client_id, const char *id, uint8_t key[KEY_MAX])
{
	size_t u = strlen(user) + 1, c = strlen(client_id) + 1, i = strlen(id);

	if (u + c + i > KEY_MAX)
		return 0;
	memcpy(key, user, u);
	memcpy(key + u, client_id, c);
	memcpy(key + u + c, id, i);
	return u + c + i;
}

static void make_room(struct answer_cache *c, size_t more)
{
	int64_t now = im_loop_now_ms(c->loop);

	while (c->by_age != NULL && (c->by_age->until_ms <= now || c->bytes + more > ANSWER_CACHE_BYTES))
		forget(c, c->by_age);
}

Im__V1__Response *answer_find(struct answer_cache *c, const char *user, const char *client_id, const char *id)
{
	uint8_t key[KEY_MAX];
	size_t len = make_key(user, client_id, id, key);
	struct answer *a = NULL;

	make_room(c, 0);
	if (len > 0)
		HASH_FIND(hh, c->by_key, key, len, a);
	return a != NULL ? im__v1__response__unpack(NULL, a->len, a->bytes + a->key_len) : NULL;
}

void answer_keep(struct answer_cache *c, const char *user, const char *client_id, const Im__V1__Response *answer)
{
	size_t len = im__v1__response__get_packed_size(answer);
	uint8_t key[KEY_MAX];
	size_t key_len = make_key(user, client_id, answer->id, key), size = sizeof(struct answer) + key_len + len;
	struct answer *a = NULL;

	if (key_len == 0 || len > ANSWER_MAX)
		return;
	HASH_FIND(hh, c->by_key, key, key_len, a);
	if (a != NULL)
		return;
	make_room(c, size);
	a = malloc(size);
	if (a == NULL)
		return; /* a repeat is worked off again */
	a->until_ms = im_loop_now_ms(c->loop) + ANSWER_KEPT_MS;
	a->size = size;
	a->key_len = key_len;
	a->len = len;
	memcpy(a->bytes, key, key_len);
	im__v1__response__pack(answer, a->bytes + key_len);
	HASH_ADD_KEYPTR(hh, c->by_key, a->bytes, key_len, a);
	DL_APPEND(c->by_age, a);
	c->bytes += size;
}
