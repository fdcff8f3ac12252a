/* The entries of a roster: found by key, listed by version, freed together (roster.c says what they mean). */
#include "roster/roster_map.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- the map */

struct key {
	enum kind kind;
	const char *first, *second; /* second "" for users and groups */
};

static uint32_t hash_text(uint32_t h, const char *s)
{
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return (h ^ 0xff) * 16777619u; /* an end mark, so that ab|c is not a|bc */
}

static uint32_t key_hash(const struct key *k)
{
	uint32_t h = hash_text(hash_text(2166136261u ^ (uint32_t)k->kind, k->first), k->second);

	h ^= h >> 16;
	h *= 0x45d9f3bu;
	return h ^ h >> 16;
}

static struct key entry_key(const struct entry *e)
{
	struct key k = {(enum kind)e->kind, "", ""};

	switch (k.kind) {
	case USER:
		k.first = ((const struct user *)e)->name;
		break;
	case GROUP:
		k.first = ((const struct group *)e)->name;
		break;
	case MEMBERSHIP:
		k.first = ((const struct membership *)e)->group->name;
		k.second = ((const struct membership *)e)->user->name;
		break;
	case BLOCK:
		k.first = ((const struct block *)e)->user;
		k.second = ((const struct block *)e)->blocked;
		break;
	case STAY: /* found through its membership */
		break;
	}
	return k;
}

static size_t slot_of(const struct roster *r, const struct key *k, uint32_t hash)
{
	size_t at = hash & (r->n_slots - 1);

	for (; r->slots[at]; at = (at + 1) & (r->n_slots - 1)) {
		struct key have;

		if (r->slots[at]->hash != hash || r->slots[at]->kind != k->kind)
			continue;
		have = entry_key(r->slots[at]);
		if (strcmp(have.first, k->first) == 0 && strcmp(have.second, k->second) == 0)
			break;
	}
	return at;
}

struct entry *roster_find(const struct roster *r, enum kind kind, const char *first, const char *second)
{
	struct key k = {kind, first, second};

	return r->n_slots ? r->slots[slot_of(r, &k, key_hash(&k))] : NULL;
}

static bool grow(struct roster *r)
{
	size_t n = r->n_slots ? r->n_slots * 2 : SLOTS_MIN;
	struct entry **slots = calloc(n, sizeof(struct entry *));

	if (!slots)
		return false;
	for (size_t i = 0; i < r->n_slots; i++) {
		size_t at;

		if (!r->slots[i])
			continue;
		for (at = r->slots[i]->hash & (n - 1); slots[at]; at = (at + 1) & (n - 1))
			;
		slots[at] = r->slots[i];
	}
	free(r->slots);
	r->slots = slots;
	r->n_slots = n;
	return true;
}

/* Makes room first, so that adding cannot fail after the entry was made. */
bool roster_reserve(struct roster *r)
{
	return (r->n_entries + 1) * 4 <= r->n_slots * 3 || grow(r);
}

void roster_add(struct roster *r, struct entry *e, enum kind kind)
{
	struct key k;

	e->kind = (uint8_t)kind;
	k = entry_key(e);
	e->hash = key_hash(&k);
	r->slots[slot_of(r, &k, e->hash)] = e;
	r->n_entries++;
}

/* ---------------------------------------------------------------- the order of versions */

static void order_remove(struct roster *r, struct entry *e)
{
	if (e->version == 0)
		return; /* not in it */
	*(e->older ? &e->older->newer : &r->oldest) = e->newer;
	*(e->newer ? &e->newer->older : &r->newest) = e->older;
}

static void order_append(struct roster *r, struct entry *e)
{
	e->older = r->newest;
	e->newer = NULL;
	*(r->newest ? &r->newest->newer : &r->oldest) = e;
	r->newest = e;
}

void roster_set_version(struct roster *r, struct entry *e, uint64_t version)
{
	order_remove(r, e);
	e->version = version;
	if (r->newest && r->newest->version > version)
		r->unsorted = true;
	order_append(r, e);
	if (version > r->version)
		r->version = version;
}

/* Merge sort of the list, by version; equal ones stay as they came. Needs no memory and no recursion. */
static struct entry *merge(struct entry *a, struct entry *b)
{
	struct entry *head = NULL, **tail = &head;

	while (a && b) {
		struct entry **first = b->version < a->version ? &b : &a;

		*tail = *first;
		tail = &(*first)->newer;
		*first = *tail;
	}
	*tail = a ? a : b;
	return head;
}

void roster_sort(struct roster *r)
{
	struct entry *sorted[64] = {NULL}, *all = NULL, *e = r->oldest, *next, *last = NULL;

	for (; e; e = next) {
		struct entry *run = e;
		size_t i = 0;

		next = e->newer;
		run->newer = NULL;
		for (; sorted[i]; i++) { /* sorted[i] holds 2^i entries, all before this one */
			run = merge(sorted[i], run);
			sorted[i] = NULL;
		}
		sorted[i] = run;
	}
	for (size_t i = 0; i < 64; i++)
		all = merge(sorted[i], all);
	r->oldest = all;
	for (e = all; e; e = e->newer) {
		e->older = last;
		last = e;
	}
	r->newest = last;
	r->unsorted = false;
}

/* ---------------------------------------------------------------- create, destroy */

struct roster *roster_create(void)
{
	return calloc(1, sizeof(struct roster));
}

static void entry_destroy(struct entry *e)
{
	struct membership *m = (struct membership *)e;

	switch ((enum kind)e->kind) {
	case USER:
		free(((struct user *)e)->details);
		break;
	case GROUP:
		free(((struct group *)e)->details);
		break;
	case MEMBERSHIP:
		for (size_t i = 0; i < m->n_stays; i++)
			free(m->rows[i]);
		free(m->rows);
		free(m->stays);
		break;
	case BLOCK:
	case STAY:
		break;
	}
	free(e);
}

void roster_clear(struct roster *r)
{
	for (size_t i = 0; i < r->n_slots; i++)
		if (r->slots[i])
			entry_destroy(r->slots[i]);
	free(r->slots);
	free(r->tokens);
	free(r->token_pointers);
	memset(r, 0, sizeof(*r));
}

void roster_destroy(struct roster *r)
{
	if (!r)
		return;
	roster_clear(r);
	free(r);
}

uint64_t roster_version(const struct roster *r)
{
	return r->version;
}
