/* Buckets of connections and users. */
#include "limit.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct limit_user {
	char *name;
	struct limit_bucket sends;
	unsigned connections;
	UT_hash_handle hh;
};

struct limits {
	struct limit_user *users;
};

bool limit_take(struct limit_bucket *b, int64_t interval_us, unsigned burst, int64_t now_us)
{
	int64_t full = b->full_us > now_us ? b->full_us : now_us;

	if (interval_us <= 0)
		return true;
	/* `burst` of them missing is an empty bucket. */
	if (full - now_us > interval_us * ((int64_t)burst - 1))
		return false;
	b->full_us = full + interval_us;
	return true;
}

bool limit_take_rate(struct limit_bucket *b, unsigned rate, int64_t now_us)
{
	return rate == 0 || limit_take(b, 1000000 / rate ? 1000000 / rate : 1, rate, now_us);
}

bool limit_used(const struct limit_bucket *b, int64_t interval_us, unsigned n, int64_t now_us)
{
	return b->full_us - now_us >= interval_us * (int64_t)n;
}

struct limits *limits_create(void)
{
	return calloc(1, sizeof(struct limits));
}

static void user_free(struct limits *l, struct limit_user *u)
{
	HASH_DEL(l->users, u);
	free(u->name);
	free(u);
}

void limits_destroy(struct limits *l)
{
	if (!l)
		return;
	while (l->users)
		user_free(l, l->users);
	free(l);
}

static struct limit_user *user_get(struct limits *l, const char *name)
{
	struct limit_user *u;

	HASH_FIND_STR(l->users, name, u);
	if (u)
		return u;
	u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->name = strdup(name);
	if (!u->name) {
		free(u);
		return NULL;
	}
	HASH_ADD_KEYPTR(hh, l->users, u->name, strlen(u->name), u);
	return u;
}

struct limit *limit_open(struct limits *l, const char *user)
{
	struct limit *limit = calloc(1, sizeof(*limit));

	if (!limit)
		return NULL;
	limit->user = user_get(l, user);
	if (!limit->user) {
		free(limit);
		return NULL;
	}
	limit->user->connections++;
	return limit;
}

void limit_close(struct limit *limit)
{
	if (!limit)
		return;
	limit->user->connections--;
	free(limit);
}

bool limit_send(struct limit *limit, unsigned rate_connection, unsigned rate_user, int64_t now_us)
{
	return limit_take_rate(&limit->sends, rate_connection, now_us) && limit_take_rate(&limit->user->sends, rate_user, now_us);
}

bool limit_refusal(struct limit *limit, unsigned rate, int64_t now_us)
{
	return limit_take_rate(&limit->refusals, rate, now_us);
}

void limits_sweep(struct limits *l, int64_t now_us)
{
	struct limit_user *u, *next;

	HASH_ITER(hh, l->users, u, next)
		if (u->connections == 0 && u->sends.full_us <= now_us)
			user_free(l, u);
}
