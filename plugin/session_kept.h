/*
 * Sessions that the broker keeps over a disconnect: whose they are and what they have subscribed to, in memory
 * and, through session_file.h, on disk. Nobody else may use their client ids.
 */
#ifndef PLUGIN_SESSION_KEPT_H
#define PLUGIN_SESSION_KEPT_H

#include "base/status.h"
#include "session_filter.h"
#include "wire/topic.h"
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#define KEPT_MAX 1000000u /* as many as a broker of this size could hold; beyond it filters are not kept over a restart */
#define KEPT_USER_MAX 1024u /* of one user: each is a context in the broker too, 2 KiB and more, for as long as it likes */

struct mosquitto;

struct kept {
	char *client_id;
	const char *user;
	const struct mosquitto *context; /* of the connection, or of the stored session */
	enum im_codec codec;
	bool sure;        /* the broker certainly keeps it (3.1.1 without clean session) */
	int64_t seen_ms;  /* wall: last time it was connected */
	struct session_filter *filters;
	unsigned n_filters;
	struct kept_user *of;
	struct kept *prev, *next; /* of the same user, oldest first */
	UT_hash_handle hh;
};

struct kept_table;

/* Reads {dir}/sessions. */
enum im_status kept_open(const char *dir, struct kept_table **out, struct im_err *err);
void kept_close(struct kept_table *t); /* NULL is fine */

struct kept *kept_find(const struct kept_table *t, const char *client_id);
struct kept *kept_add(struct kept_table *t, const char *client_id, const char *user); /* NULL: too many, or no memory */
void kept_write(struct kept_table *t, const struct kept *k);
void kept_remove(struct kept_table *t, struct kept *k);
/* Its filters become these, on disk too. */
void kept_follow(struct kept_table *t, struct kept *k, enum im_codec codec, const struct session_filter *filters, unsigned n);
bool kept_claims(const struct kept *k); /* its client id belongs to its user, connected or not */

unsigned kept_count(const struct kept_table *t, const char *user);
struct kept *kept_first(const struct kept_table *t, const char *user); /* then ->next */

#endif
