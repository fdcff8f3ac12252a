/* Conversations in the order of their last use; ids come and go with the batches they were decided in. */
#include "recent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef RECENT_CONVS /* tests/sim */
#define RECENT_CONVS 100000u /* conversations whose newest sequence is kept in memory; older uses are looked up again */
#endif

struct recent_id {
	UT_hash_handle hh;
	struct message *message;
	size_t key_len;
	char key[];
};

/* ---- conversations */

struct recent_conv *recent_conv(struct recent *r, const char *name)
{
	struct recent_conv *c;

	HASH_FIND_STR(r->convs, name, c);
	if (c) { /* to the young end: the map iterates in the order of insertion */
		HASH_DEL(r->convs, c);
		HASH_ADD_STR(r->convs, name, c);
	}
	return c;
}

struct recent_conv *recent_add_conv(struct recent *r, const char *name, uint64_t last)
{
	size_t len = strlen(name);
	struct recent_conv *c = calloc(1, sizeof(*c) + len + 1);
	struct recent_conv *old, *next;

	if (!c)
		return NULL;
	memcpy(c->name, name, len + 1);
	c->last = last;
	HASH_ADD_STR(r->convs, name, c);
	if (HASH_COUNT(r->convs) <= RECENT_CONVS)
		return c;
	HASH_ITER(hh, r->convs, old, next) {
		if (old->in_flight == 0 && old != c) {
			HASH_DEL(r->convs, old);
			free(old);
			break;
		}
	}
	return c;
}

void recent_stored(struct recent *r, const struct message *m)
{
	struct recent_conv *c;

	HASH_FIND_STR(r->convs, m->conv, c);
	if (c)
		c->in_flight--;
}

void recent_undo(struct recent *r, const struct message *m)
{
	struct recent_conv *c;

	HASH_FIND_STR(r->convs, m->conv, c);
	if (c) { /* it is in flight: nobody has forgotten it */
		c->last = m->prev;
		c->in_flight--;
	}
	if (m->id[0])
		recent_forget_id(r, m);
}

/* ---- ids */

static size_t id_key(char *key, size_t cap, const char *user, const char *client_id, const char *id)
{
	size_t n = (size_t)snprintf(key, cap, "%s%c%s%c%s", user, 1, client_id, 1, id);

	return n < cap ? n : cap - 1;
}

#define ID_KEY (IM_NAME_MAX + IM_CLIENT_ID_MAX + IM_ID_MAX + 3)

struct message *recent_id(struct recent *r, const Im__Bus__Record *rec)
{
	char key[ID_KEY];
	size_t len = id_key(key, sizeof(key), rec->user, rec->client_id, rec->id);
	struct recent_id *k;

	HASH_FIND(hh, r->ids, key, len, k);
	return k ? k->message : NULL;
}

bool recent_add_id(struct recent *r, const Im__Bus__Record *rec, struct message *m)
{
	char key[ID_KEY];
	size_t len = id_key(key, sizeof(key), rec->user, rec->client_id, rec->id);
	struct recent_id *k = calloc(1, sizeof(*k) + len);

	if (!k)
		return false;
	memcpy(k->key, key, len);
	k->key_len = len;
	k->message = message_ref(m);
	HASH_ADD(hh, r->ids, key, len, k);
	return true;
}

void recent_forget_id(struct recent *r, const struct message *m)
{
	char key[ID_KEY];
	size_t len = id_key(key, sizeof(key), m->from, m->client_id, m->id);
	struct recent_id *k;

	HASH_FIND(hh, r->ids, key, len, k);
	if (!k || k->message != m)
		return;
	HASH_DEL(r->ids, k);
	message_unref(k->message);
	free(k);
}

void recent_finish(struct recent *r)
{
	struct recent_conv *c, *c_next;
	struct recent_id *k, *k_next;

	HASH_ITER(hh, r->ids, k, k_next) {
		HASH_DEL(r->ids, k);
		message_unref(k->message);
		free(k);
	}
	HASH_ITER(hh, r->convs, c, c_next) {
		HASH_DEL(r->convs, c);
		free(c);
	}
}
