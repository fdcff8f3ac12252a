/*
 * Kept sessions: by client id, and in a list per user. The one difficult idea: the broker does not say when it
 * forgets one. Of MQTT 3.1.1 it is certain what stays; with MQTT 5 every session may have stayed, because its
 * expiry is invisible, so its claim ends by itself.
 */
#include "session_kept.h"

#include "base/clock.h"
#include "session_file.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* A stored session of MQTT 5 that may have ended at disconnect (its expiry is invisible) claims its id so long. */
#define CLAIM_MS (24LL * 3600 * 1000)

struct kept_user {
	struct kept *kept;
	unsigned n;
	UT_hash_handle hh;
	char name[];
};

struct kept_table {
	struct kept *by_id;
	struct kept_user *users;
	struct session_file *file;
};

/* "im/v1/{level}/..." -> its codec; what we stored was checked when it was granted. */
static enum im_codec codec_of(const char *filter)
{
	struct im_filter f;

	im_filter_parse(filter, &f);
	return f.kind == IM_FILTER_INBOX ? f.codec : IM_CODEC_NONE;
}

struct kept *kept_find(const struct kept_table *t, const char *client_id)
{
	struct kept *k;

	HASH_FIND(hh, t->by_id, client_id, strlen(client_id), k);
	return k;
}

static struct kept_user *user_find(const struct kept_table *t, const char *name)
{
	struct kept_user *u;

	HASH_FIND(hh, t->users, name, strlen(name), u);
	return u;
}

static struct kept_user *user_get(struct kept_table *t, const char *name)
{
	struct kept_user *u = user_find(t, name);
	size_t len = strlen(name);

	if (u)
		return u;
	u = calloc(1, sizeof(*u) + len + 1);
	if (!u)
		return NULL;
	memcpy(u->name, name, len);
	HASH_ADD_KEYPTR(hh, t->users, u->name, len, u);
	return u;
}

static void user_release(struct kept_table *t, struct kept_user *u)
{
	if (u->n > 0)
		return;
	HASH_DEL(t->users, u);
	free(u);
}

/* Out of the table; the caller frees it. */
static void kept_take(struct kept_table *t, struct kept *k)
{
	HASH_DEL(t->by_id, k);
	DL_DELETE(k->of->kept, k);
	k->of->n--;
	user_release(t, k->of);
}

static void kept_free(struct kept *k)
{
	filters_free(k->filters, k->n_filters);
	free(k->client_id);
	free(k);
}

struct kept *kept_add(struct kept_table *t, const char *client_id, const char *user)
{
	struct kept_user *u;
	struct kept *k;

	if (HASH_COUNT(t->by_id) >= KEPT_MAX)
		return NULL;
	u = user_get(t, user);
	if (!u)
		return NULL;
	k = u->n < KEPT_USER_MAX ? calloc(1, sizeof(*k)) : NULL;
	if (k)
		k->client_id = strdup(client_id);
	if (!k || !k->client_id) {
		free(k);
		user_release(t, u);
		return NULL;
	}
	k->user = u->name;
	k->of = u;
	DL_APPEND(u->kept, k);
	u->n++;
	HASH_ADD_KEYPTR(hh, t->by_id, k->client_id, strlen(k->client_id), k);
	return k;
}

bool kept_claims(const struct kept *k)
{
	return k->sure || im_clock_wall_ms() - k->seen_ms < CLAIM_MS;
}

unsigned kept_count(const struct kept_table *t, const char *user)
{
	const struct kept_user *u = user_find(t, user);

	return u ? u->n : 0;
}

struct kept *kept_first(const struct kept_table *t, const char *user)
{
	const struct kept_user *u = user_find(t, user);

	return u ? u->kept : NULL;
}

/* ---- the file ---- */

static void kept_describe(const struct kept *k, struct session_kept *out)
{
	*out = (struct session_kept){
		.client_id = k->client_id, .user = k->user, .sure = k->sure, .seen_ms = k->seen_ms,
		.filters = k->filters, .n_filters = k->n_filters,
	};
}

static void kept_each(void *arg, session_kept_fn *fn, void *fn_arg)
{
	struct kept_table *t = arg;
	struct kept *k, *next;
	struct session_kept row;

	HASH_ITER(hh, t->by_id, k, next) {
		kept_describe(k, &row);
		fn(fn_arg, &row);
	}
}

void kept_write(struct kept_table *t, const struct kept *k)
{
	struct session_kept row;

	kept_describe(k, &row);
	session_file_put(t->file, &row, kept_each, t);
}

void kept_remove(struct kept_table *t, struct kept *k)
{
	kept_take(t, k); /* before the file is written: a rewriting must not hold it any more */
	session_file_remove(t->file, k->client_id, kept_each, t);
	kept_free(k);
}

void kept_follow(struct kept_table *t, struct kept *k, enum im_codec codec, const struct session_filter *filters, unsigned n)
{
	filters_free(k->filters, k->n_filters);
	k->filters = NULL;
	k->n_filters = 0;
	k->codec = codec;
	for (unsigned i = 0; i < n; i++)
		if (!filters_add(&k->filters, &k->n_filters, filters[i].filter, filters[i].qos))
			break;
	kept_write(t, k);
}

/* At start: one row of {dir}/sessions. */
static void kept_load(void *arg, const struct session_kept *row)
{
	struct kept_table *t = arg;
	struct kept *k = kept_find(t, row->client_id);

	if (k) {
		kept_take(t, k);
		kept_free(k);
	}
	if (row->removed)
		return;
	k = kept_add(t, row->client_id, row->user);
	if (!k)
		return;
	k->sure = row->sure;
	k->seen_ms = row->seen_ms;
	for (unsigned i = 0; i < row->n_filters; i++) {
		if (!filters_add(&k->filters, &k->n_filters, row->filters[i].filter, row->filters[i].qos))
			return;
		if (k->codec == IM_CODEC_NONE)
			k->codec = codec_of(row->filters[i].filter);
	}
}

enum im_status kept_open(const char *dir, struct kept_table **out, struct im_err *err)
{
	struct kept_table *t = calloc(1, sizeof(*t));
	enum im_status st;

	if (!t)
		return im_fail(err, IM_FAILED, "out of memory");
	st = session_file_open(dir, kept_load, kept_each, t, &t->file, err);
	if (st != IM_OK) {
		kept_close(t);
		return st;
	}
	*out = t;
	return IM_OK;
}

void kept_close(struct kept_table *t)
{
	struct kept *k, *next;

	if (!t)
		return;
	HASH_ITER(hh, t->by_id, k, next) {
		kept_take(t, k);
		kept_free(k);
	}
	session_file_close(t->file);
	free(t);
}
