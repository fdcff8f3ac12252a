/*
 * First answers to request ids, kept for ten minutes: a client that did not see an answer asks again under the
 * same id and gets the same one. Bounded in number and bytes; over a bound the oldest are forgotten, and such a
 * request is simply worked off again.
 */
#ifndef OFFLINE_ANSWER_H
#define OFFLINE_ANSWER_H

#include "bus.pb-c.h"
#include "io/loop.h"
#include <stdbool.h>

#define ANSWER_KEPT_MS 600000
#define ANSWER_MAX 65536u              /* bytes of one; a larger one (a single huge message) is read again */
#define ANSWER_CACHE_BYTES (16u << 20) /* of all: 256 large ones or some ten thousand usual ones */

struct answer_cache;

struct answer_cache *answer_cache_create(struct im_loop *loop); /* NULL: out of memory */
void answer_cache_destroy(struct answer_cache *c);

/* NULL: not known. The caller frees it with im__v1__response__free_unpacked. */
Im__V1__Response *answer_find(struct answer_cache *c, const char *user, const char *client_id, const char *id);
void answer_keep(struct answer_cache *c, const char *user, const char *client_id, const Im__V1__Response *answer);

#endif
