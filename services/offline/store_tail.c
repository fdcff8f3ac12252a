#include "store_tail.h"
#include "base/log.h"

#include <sodium.h>
#include <stdlib.h>

#ifndef CONVS_KEPT /* tests/sim */
#define CONVS_KEPT 100000u        /* idle conversations whose newest sequence is remembered; about 20 MB when full */
#define BLOOM_BYTES (8u << 20)    /* of all days together; at a million ids a day 2 in 100 new ones are looked up for nothing */
#endif
#define BLOOM_PROBES 4
#define DAYS_MOST 64u             /* bits of the mask of days */

struct store_conv {
	bool known;
	uint64_t last_seq;       /* answered */
	int64_t last_ts;
	uint64_t given;          /* newest sequence accepted */
	unsigned pins;
	struct message **messages; /* answered and unsettled; first .. first + n. Borrowed from the entries */
	size_t first, n, cap;
	struct store_conv *older, *newer; /* idle ones, in order of last use */
	UT_hash_handle hh;
	char name[];
};

struct tail_user {
	struct tail_note *first, **last;
	size_t n;
	UT_hash_handle hh;
	char name[];
};

struct bloom {
	int64_t day;
	uint8_t *bits;
};

struct store_tail {
	struct tail_options o;
	struct store_conv *convs;
	struct store_conv idle;  /* ring */
	size_t n_idle;
	unsigned holds;          /* questions under way whose answers need what is known by then */
	struct tail_user *users;
	struct entry *ids;
	uint64_t sections[IM_SECTIONS];
	bool hole;               /* something that came from a journal was refused */
	int64_t today;           /* newest day of journal time */
	struct bloom blooms[DAYS_MOST];
	unsigned n_blooms;
	uint32_t bloom_bits;     /* of one day, a power of two */
};

struct store_tail *store_tail_create(const struct tail_options *o)
{
	struct store_tail *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->o = *o;
	t->idle.older = t->idle.newer = &t->idle;
	t->n_blooms = o->dedupe_days + 2 < DAYS_MOST ? o->dedupe_days + 2 : DAYS_MOST; /* the window, today, and a clock ahead */
	t->bloom_bits = 1;
	while (t->bloom_bits * 2 <= BLOOM_BYTES / t->n_blooms * 8)
		t->bloom_bits *= 2;
	return t;
}

/* ---- conversations */

static void conv_free(struct store_tail *t, struct store_conv *c)
{
	HASH_DEL(t->convs, c);
	free(c->messages);
	free(c);
}

static void idle_remove(struct store_tail *t, struct store_conv *c)
{
	c->older->newer = c->newer;
	c->newer->older = c->older;
	c->older = c->newer = NULL;
	t->n_idle--;
}

static void idle_trim(struct store_tail *t)
{
	while (t->n_idle > CONVS_KEPT && t->holds == 0) {
		struct store_conv *oldest = t->idle.newer;

		idle_remove(t, oldest); /* NOLINT(clang-analyzer-unix.Malloc): out of a ring, so that it is not met again */
		conv_free(t, oldest);
	}
}

static void idle_add(struct store_tail *t, struct store_conv *c)
{
	c->older = t->idle.older; /* the ring's end is the newest */
	c->newer = &t->idle;
	c->older->newer = c;
	t->idle.older = c;
	t->n_idle++;
	idle_trim(t);
}

void store_tail_hold(struct store_tail *t)
{
	t->holds++;
}

void store_tail_release(struct store_tail *t)
{
	t->holds--;
	idle_trim(t);
}

struct store_conv *store_tail_conv(struct store_tail *t, const char *name)
{
	size_t len = strlen(name);
	struct store_conv *c;

	HASH_FIND(hh, t->convs, name, len, c);
	if (!c) {
		c = calloc(1, sizeof(*c) + len + 1);
		if (!c)
			return NULL;
		memcpy(c->name, name, len + 1);
		HASH_ADD_KEYPTR(hh, t->convs, c->name, len, c);
	} else if (c->pins == 0) {
		idle_remove(t, c);
	}
	c->pins++;
	return c;
}

void store_tail_unpin(struct store_tail *t, struct store_conv *c)
{
	if (!c || --c->pins > 0)
		return;
	free(c->messages);
	c->messages = NULL;
	c->first = c->n = c->cap = 0;
	if (c->known)
		idle_add(t, c);
	else
		conv_free(t, c);
}

bool store_conv_known(const struct store_conv *c, uint64_t *seq, int64_t *ts)
{
	if (!c->known)
		return false;
	*seq = c->last_seq;
	*ts = c->last_ts;
	return true;
}

void store_conv_learn(struct store_conv *c, uint64_t seq, int64_t ts)
{
	if (c->known)
		return;
	c->known = true;
	c->last_seq = c->given = seq;
	c->last_ts = ts;
}

bool store_tail_newest(struct store_tail *t, const char *name, uint64_t *seq, int64_t *ts)
{
	struct store_conv *c;

	HASH_FIND(hh, t->convs, name, strlen(name), c);
	return c && store_conv_known(c, seq, ts);
}

/* Room is made when the entry is accepted, so that answering cannot fail. */
static bool conv_reserve(struct store_conv *c, size_t more)
{
	struct message **list;
	size_t cap;

	if (c->first + c->n + more <= c->cap)
		return true;
	if (c->first > 0) {
		memmove(c->messages, c->messages + c->first, c->n * sizeof(*c->messages));
		c->first = 0;
	}
	if (c->n + more <= c->cap / 2)
		return true;
	cap = c->cap ? 2 * c->cap : 8;
	while (cap < c->n + more)
		cap *= 2;
	list = realloc(c->messages, cap * sizeof(*list));
	if (!list)
		return false;
	c->messages = list;
	c->cap = cap;
	return true;
}

struct message *const *store_tail_messages(struct store_tail *t, const char *name, uint64_t from, size_t *n, uint64_t *first)
{
	size_t low = 0, high;
	struct store_conv *c;

	*n = 0;
	*first = UINT64_MAX;
	HASH_FIND(hh, t->convs, name, strlen(name), c);
	if (!c || c->n == 0)
		return NULL;
	*first = c->messages[c->first]->seq;
	high = c->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (c->messages[c->first + middle]->seq < from)
			low = middle + 1;
		else
			high = middle;
	}
	*n = c->n - low;
	return c->messages + c->first + low;
}

/* ---- ids */

static uint64_t hash_id(const struct store_tail *t, const char *user, const char *client_id, const char *id)
{
	char text[IM_NAME_MAX + IM_CLIENT_ID_MAX + IM_ID_MAX + 3];
	size_t a = strnlen(user, IM_NAME_MAX), b = strnlen(client_id, IM_CLIENT_ID_MAX), c = strnlen(id, IM_ID_MAX);
	uint64_t hash;

	memcpy(text, user, a);
	text[a] = '\0';
	memcpy(text + a + 1, client_id, b);
	text[a + 1 + b] = '\0';
	memcpy(text + a + b + 2, id, c);
	crypto_shorthash((uint8_t *)&hash, (const uint8_t *)text, a + b + c + 2, t->o.hash_key);
	return hash ? hash : 1; /* 0 stands for "no id" */
}

void store_tail_name(struct store_tail *t, struct append *a)
{
	for (size_t i = 0; i < a->n; i++) {
		struct entry *e = &a->entries[i];

		if (e->kind == STORE_MESSAGE && e->message.m->id[0])
			e->message.id_hash = hash_id(t, e->message.m->from, e->message.m->client_id, e->message.m->id);
	}
}

static struct bloom *bloom_of(struct store_tail *t, int64_t day)
{
	return &t->blooms[(uint64_t)day % t->n_blooms];
}

static bool bloom_has(const struct store_tail *t, const struct bloom *b, uint64_t hash)
{
	uint32_t at = (uint32_t)hash, step = (uint32_t)(hash >> 32) | 1;

	for (int i = 0; i < BLOOM_PROBES; i++, at += step) {
		uint32_t bit = at & (t->bloom_bits - 1);

		if (!(b->bits[bit / 8] >> (bit % 8) & 1))
			return false;
	}
	return true;
}

/* A day's filter takes the place of the one that left the window. Without memory the day is always looked up. */
void store_tail_note_row(struct store_tail *t, int64_t day, uint64_t hash)
{
	uint32_t at = (uint32_t)hash, step = (uint32_t)(hash >> 32) | 1;
	struct bloom *b = bloom_of(t, day);

	if (day > t->today)
		t->today = day;
	if (!t->o.bloom || day + (int64_t)t->o.dedupe_days < t->today)
		return;
	if (b->day != day) {
		free(b->bits);
		b->bits = calloc(1, t->bloom_bits / 8);
		b->day = day;
	}
	if (!b->bits)
		return;
	for (int i = 0; i < BLOOM_PROBES; i++, at += step) {
		uint32_t bit = at & (t->bloom_bits - 1);

		b->bits[bit / 8] = (uint8_t)(b->bits[bit / 8] | 1u << (bit % 8));
	}
}

struct message *store_tail_find_id(struct store_tail *t, const struct store_lookup_id *id, uint64_t *hash, uint64_t *days, int64_t *today)
{
	struct entry *e;

	*hash = hash_id(t, id->user, id->client_id, id->id);
	*days = 0;
	*today = t->today;
	HASH_FIND(message.hh, t->ids, hash, sizeof(*hash), e);
	if (e && strcmp(e->message.m->from, id->user) == 0 && strcmp(e->message.m->client_id, id->client_id) == 0 &&
	    strcmp(e->message.m->id, id->id) == 0)
		return message_ref(e->message.m);
	for (unsigned i = 0; t->o.bloom && i <= t->o.dedupe_days && i < t->n_blooms; i++) {
		const struct bloom *b = bloom_of(t, t->today - i);

		if (b->day == t->today - i && (!b->bits || bloom_has(t, b, *hash)))
			*days |= (uint64_t)1 << i;
	}
	return NULL;
}

static void list_id(struct store_tail *t, struct entry *e)
{
	const struct message *m = e->message.m;
	int64_t day = entry_day(m);
	struct entry *there;

	if (e->message.id_hash == 0)
		return;
	store_tail_note_row(t, day, e->message.id_hash);
	if (day + (int64_t)t->o.dedupe_days < t->today)
		return;
	HASH_FIND(message.hh, t->ids, &e->message.id_hash, sizeof(e->message.id_hash), there);
	if (there)
		return; /* the first one counts */
	HASH_ADD(message.hh, t->ids, message.id_hash, sizeof(e->message.id_hash), e);
	e->message.listed = true;
}

/* ---- notes of users */

/* Without memory the note is lost and a read may lag behind by one batch; the rows get it all the same. */
static void add_note(struct store_tail *t, const char *user, struct append *a, const struct entry *e)
{
	size_t len = strlen(user);
	struct tail_note *note;
	struct tail_user *u;

	HASH_FIND(hh, t->users, user, len, u);
	if (!u) {
		u = calloc(1, sizeof(*u) + len + 1);
		if (!u)
			return;
		u->last = &u->first;
		memcpy(u->name, user, len + 1);
		HASH_ADD_KEYPTR(hh, t->users, u->name, len, u);
	}
	note = malloc(sizeof(*note));
	if (!note)
		return;
	note->next = NULL;
	note->owner = a;
	note->entry = e;
	*u->last = note;
	u->last = &note->next;
	u->n++;
}

/* Entries settle in the order in which they were answered: it is the first one, if it is there. */
static void remove_note(struct store_tail *t, const char *user, const struct entry *e)
{
	struct tail_note *note;
	struct tail_user *u;

	HASH_FIND(hh, t->users, user, strlen(user), u);
	if (!u || !u->first || u->first->entry != e)
		return;
	note = u->first;
	u->first = note->next;
	u->n--;
	free(note);
	if (u->first)
		return;
	HASH_DEL(t->users, u);
	free(u);
}

const struct tail_note *store_tail_notes(struct store_tail *t, const char *user, size_t *n)
{
	struct tail_user *u;

	HASH_FIND(hh, t->users, user, strlen(user), u);
	*n = u ? u->n : 0;
	return u ? u->first : NULL;
}

/* ---- accepting */

static bool same_message(const struct message *a, const struct message *b)
{
	return b && strcmp(a->msgid, b->msgid) == 0 && a->body_hash == b->body_hash && strcmp(a->from, b->from) == 0;
}

/* The sequence is taken or behind the newest: by this very message (the caller did not hear our answer), or by another. */
static enum im_status check_repeat(struct store_tail *t, struct entry *e)
{
	struct message *m = e->message.m, *there = NULL;
	struct message *const *list;
	uint64_t first;
	bool same;
	size_t n;

	list = store_tail_messages(t, m->conv, m->seq, &n, &first);
	if (n && list[0]->seq == m->seq)
		there = message_ref(list[0]);
	else if (!t->o.rows.find(t->o.rows.arg, m->conv, m->seq, &there))
		return IM_FAILED;
	same = same_message(m, there);
	message_unref(there);
	if (same)
		return IM_EXISTS;
	im_log(IM_LOG_ERROR, "evt=sequence_taken conv=%s seq=%llu msgid=%s instead=refused", m->conv, (unsigned long long)m->seq, m->msgid);
	return IM_FAILED;
}

static enum im_status check_message(struct store_tail *t, struct entry *e)
{
	struct message *m = e->message.m;
	uint64_t seq = 0;
	int64_t ts = 0;

	if (m->section >= IM_SECTIONS || m->section_epoch < t->sections[m->section]) {
		im_log(IM_LOG_ERROR, "evt=fenced conv=%s seq=%llu section=%u epoch=%llu instead=refused", m->conv, (unsigned long long)m->seq,
		       m->section, (unsigned long long)m->section_epoch);
		return IM_FAILED;
	}
	e->message.conv = store_tail_conv(t, m->conv);
	if (!e->message.conv)
		return IM_FAILED;
	if (!e->message.conv->known) {
		if (!t->o.rows.last(t->o.rows.arg, m->conv, &seq, &ts))
			return IM_FAILED;
		store_conv_learn(e->message.conv, seq, ts);
	}
	if (m->seq <= e->message.conv->given)
		return check_repeat(t, e);
	if (!conv_reserve(e->message.conv, e->message.conv->pins - e->message.conv->n))
		return IM_FAILED;
	e->message.id_hash = m->id[0] ? hash_id(t, m->from, m->client_id, m->id) : 0;
	return IM_OK;
}

/* A message that is there already: only its position is still worth logging. */
static void make_position(struct store_tail *t, struct entry *e)
{
	store_tail_unpin(t, e->message.conv);
	message_unref(e->message.m);
	e->kind = STORE_POSITION;
}

/* Undoes the first n entries: sequences go back to what they were. In reverse, since one conversation may occur often. */
static void unaccept(struct store_tail *t, struct append *a, size_t n, const uint64_t *given)
{
	while (n-- > 0) {
		struct entry *e = &a->entries[n];

		if (e->kind != STORE_MESSAGE || !e->message.conv)
			continue;
		if (given[n] != UINT64_MAX)
			e->message.conv->given = given[n];
		store_tail_unpin(t, e->message.conv);
		e->message.conv = NULL;
	}
}

/*
 * Positions say that everything below them is in the store. So behind a refused append nothing else from a journal
 * may be taken, though it is sound by itself: after the restart that follows, the refused one would be passed over.
 */
static bool from_journal(const struct append *a)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->entries[i].pos.node)
			return true;
	return false;
}

void store_tail_refused(struct store_tail *t)
{
	t->hole = true;
}

static enum im_status accept(struct store_tail *t, struct append *a)
{
	uint64_t *given = malloc((a->n ? a->n : 1) * sizeof(*given));
	enum im_status st = IM_OK;
	size_t i;

	if (!given)
		return IM_FAILED;
	for (i = 0; i < a->n && st == IM_OK; i++) {
		struct entry *e = &a->entries[i];

		given[i] = UINT64_MAX;
		if (e->kind != STORE_MESSAGE)
			continue;
		st = check_message(t, e);
		if (st == IM_OK) {
			given[i] = e->message.conv->given;
			e->message.conv->given = e->message.m->seq;
		} else if (st == IM_EXISTS) {
			make_position(t, e);
			st = IM_OK;
		}
	}
	if (st != IM_OK)
		unaccept(t, a, i, given);
	free(given);
	for (i = 0; i < a->n && st == IM_OK; i++) {
		const struct entry *e = &a->entries[i];

		for (size_t k = 0; e->kind == STORE_SECTIONS && k < e->sections.n; k++)
			if (e->sections.list[k].section < IM_SECTIONS && e->sections.list[k].epoch > t->sections[e->sections.list[k].section])
				t->sections[e->sections.list[k].section] = e->sections.list[k].epoch;
	}
	return st;
}

enum im_status store_tail_accept(struct store_tail *t, struct append *a)
{
	bool journal = from_journal(a);
	enum im_status st = journal && t->hole ? IM_FAILED : accept(t, a);

	if (st != IM_OK && journal)
		store_tail_refused(t);
	return st;
}

void store_tail_drop(struct store_tail *t, struct append *a)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->entries[i].kind == STORE_MESSAGE)
			store_tail_unpin(t, a->entries[i].message.conv);
}

/* ---- answering and settling */

static void answer_message(struct store_tail *t, struct entry *e)
{
	struct store_conv *c = e->message.conv;

	c->messages[c->first + c->n++] = e->message.m;
	c->last_seq = e->message.m->seq;
	c->last_ts = e->message.m->ts;
	list_id(t, e);
}

void store_tail_answer(struct store_tail *t, struct append *a)
{
	const char *users[2];
	struct entry_room room;

	for (size_t i = 0; i < a->n; i++) {
		struct entry *e = &a->entries[i];
		size_t n = entry_users(e, &room, users);

		if (e->kind == STORE_MESSAGE)
			answer_message(t, e);
		while (n-- > 0)
			add_note(t, users[n], a, e);
	}
}

void store_tail_settle(struct store_tail *t, struct append *a)
{
	const char *users[2];
	struct entry_room room;

	for (size_t i = 0; i < a->n; i++) {
		struct entry *e = &a->entries[i];
		size_t n = entry_users(e, &room, users);

		while (n-- > 0)
			remove_note(t, users[n], e);
		if (e->kind != STORE_MESSAGE)
			continue;
		if (e->message.listed)
			HASH_DELETE(message.hh, t->ids, e);
		e->message.listed = false;
		e->message.conv->first++;
		e->message.conv->n--;
		store_tail_unpin(t, e->message.conv);
	}
}

uint64_t *store_tail_sections(struct store_tail *t)
{
	return t->sections;
}

void store_tail_destroy(struct store_tail *t)
{
	struct store_conv *c, *next_conv;
	struct tail_user *u, *next_user;

	if (!t)
		return;
	HASH_CLEAR(message.hh, t->ids);
	HASH_ITER(hh, t->convs, c, next_conv)
		conv_free(t, c);
	HASH_ITER(hh, t->users, u, next_user) {
		HASH_DEL(t->users, u);
		while (u->first) {
			struct tail_note *note = u->first;

			u->first = note->next;
			free(note);
		}
		free(u);
	}
	for (unsigned i = 0; i < t->n_blooms; i++)
		free(t->blooms[i].bits);
	free(t);
}
