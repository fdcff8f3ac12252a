/*
 * Cursors as others see them: receipts, read marks on the user's other devices, the badge, the list.
 *
 * None of this may cost anything per message: receipts of one turn are merged, read marks and badges are
 * gathered for a second, and a badge is computed from the store (one truth) a few users at a time.
 */
#include "session.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECEIPT_MEMBERS 50u       /* larger groups get no receipts: they would outnumber the messages */
#define READS_PER_APPEND 256u
#define TALLIES 8u                /* badges computed at a time */
#define TALLY_CONVERSATIONS 100u  /* with unread messages that are counted; more: "more":true */
#define LIST_CONVERSATIONS 200u   /* in state/conversations, newest first; the request `conversations` pages through all */
#define KEY_MAX (IM_NAME_MAX + 1 + IM_CONV_MAX)

struct receipt {
	UT_hash_handle hh;
	uint64_t delivered, read;
	const char *conv;         /* into key, canonical */
	char key[KEY_MAX];        /* "user conv", the user ends with a NUL once it is found */
};

struct read_move {
	UT_hash_handle hh;
	uint64_t seq;
	char key[KEY_MAX];        /* "user conv" */
};

static void key_make(char key[KEY_MAX], const char *user, const char *conv)
{
	(void)snprintf(key, KEY_MAX, "%s %s", user, conv);
}

/* Splits a key in place: returns the conversation, the key is the user from then on. */
static const char *key_split(char *key)
{
	char *space = strchr(key, ' ');

	assert(space); /* of key_make */
	*space = '\0';
	return space + 1;
}

/* ---- receipts */

static void receipt_add(struct delivery *d, const char *user, const char *conv, uint64_t delivered, uint64_t read)
{
	struct receipt *r;
	char key[KEY_MAX];

	key_make(key, user, conv);
	HASH_FIND_STR(d->receipts, key, r);
	if (!r) {
		r = calloc(1, sizeof *r);
		if (!r)
			return; /* a hint: the next one says more */
		memcpy(r->key, key, sizeof key);
		HASH_ADD_STR(d->receipts, key, r);
	}
	if (r->delivered < delivered)
		r->delivered = delivered;
	if (r->read < read)
		r->read = read;
}

struct receipt_out {
	struct delivery *d;
	const struct receipt *r;
	const char *user, *conv;
};

static void receipt_to(const struct receipt_out *o, const char *to)
{
	struct account *a = strcmp(to, o->user) != 0 ? account_find(o->d, to) : NULL;
	char face[IM_CONV_MAX], json[512];

	if (!a || !im_conv_as_seen(o->conv, to, face))
		return;
	(void)snprintf(json, sizeof json, "{\"conv\":\"%s\",\"user\":\"%s\",\"delivered\":%llu,\"read\":%llu}", face, o->user,
		       (unsigned long long)o->r->delivered, (unsigned long long)o->r->read);
	for (struct session *s = a->sessions; s; s = s->next)
		if (s->state != SESSION_OVER)
			session_event(o->d, s, "receipt", json);
}

static void on_receipt_member(void *arg, const char *user, const struct roster_stay *stay)
{
	(void)stay;
	receipt_to(arg, user);
}

static void receipt_out(struct delivery *d, struct receipt *r)
{
	struct receipt_out o = { .d = d, .r = r };
	const struct roster_group *g;
	char peer[IM_NAME_MAX + 1];

	o.conv = key_split(r->key);
	o.user = r->key;
	if (im_conv_is_group(o.conv)) {
		g = roster_group(d->roster, o.conv + 2);
		if (g && g->n_members <= RECEIPT_MEMBERS)
			roster_each_member(d->roster, o.conv + 2, on_receipt_member, &o);
	} else if (im_conv_peer(o.conv, o.user, peer)) {
		receipt_to(&o, peer);
	}
}

void receipt_flush(struct delivery *d)
{
	struct receipt *r, *next;

	HASH_ITER (hh, d->receipts, r, next) {
		HASH_DEL(d->receipts, r);
		receipt_out(d, r);
		free(r);
	}
}

/* ---- moves by im/v1/ack: durable already */

static void tell_own_devices(struct delivery *d, struct account *a, const char *client_id, const char *conv, uint64_t read)
{
	char json[256];

	(void)snprintf(json, sizeof json, "{\"conv\":\"%s\",\"read\":%llu}", conv, (unsigned long long)read);
	for (struct session *s = a->sessions; s; s = s->next)
		if (s->state != SESSION_OVER && strcmp(s->client_id, client_id) != 0)
			session_event(d, s, "read", json);
}

/* True: the cursor moved, or there is nobody here who could tell. */
static bool move_delivered(struct delivery *d, struct device *dev, const char *conv, uint64_t seq)
{
	struct reader *r = dev && dev->loaded ? device_reader(d, dev, conv, false) : NULL;
	struct cursor_rules rules;
	uint32_t out;
	bool moved;

	if (!r || !dev->session)
		return true;
	session_rules(d, dev->session, &rules);
	out = r->cursor.out;
	moved = cursor_ack(&r->cursor, seq, delivery_now(d), &rules);
	dev->out -= out - r->cursor.out;
	if (r->stored < seq)
		r->stored = seq;
	reader_moved(d, r); /* what settled behind the ack */
	reader_plan(d, r);
	return moved;
}

void delivery_cursors(struct delivery *d, const char *user, const char *client_id, uint64_t session, const Im__Bus__CursorMove *const *moves,
		      size_t n)
{
	struct account *a = account_find(d, user);
	struct device *dev = a ? device_find(a, client_id) : NULL;
	char conv[IM_CONV_MAX];

	(void)session; /* the device counts: it may have come back by another connection */
	if (dev && dev->loaded && !dev->acks)
		device_first_ack(d, dev);
	for (size_t i = 0; i < n; i++) {
		const Im__Bus__CursorMove *mv = moves[i];
		bool delivered;

		if (!im_conv_canonical(user, mv->conv, conv))
			continue;
		delivered = mv->delivered && move_delivered(d, dev, conv, mv->delivered);
		if (delivered || mv->read)
			receipt_add(d, user, conv, delivered ? mv->delivered : 0, mv->read);
		if (mv->read && d->read)
			d->read(d->read_arg, user, client_id);
		if (!mv->read || !a)
			continue;
		tell_own_devices(d, a, client_id, mv->conv, mv->read);
		badge_change(d, a, false);
	}
	if (dev && dev->session)
		catchup_wake(d, dev->session);
}

/* ---- sending reads */

void receipt_sent(struct delivery *d, const char *user, const char *conv, uint64_t seq)
{
	struct read_move *mv;
	char key[KEY_MAX];

	key_make(key, user, conv);
	HASH_FIND_STR(d->reads, key, mv);
	if (!mv) {
		mv = calloc(1, sizeof *mv);
		if (!mv)
			return; /* unread a little longer */
		memcpy(mv->key, key, sizeof key);
		HASH_ADD_STR(d->reads, key, mv);
	}
	if (mv->seq < seq)
		mv->seq = seq;
}

static void on_reads_stored(void *arg, enum im_status st)
{
	(void)arg;
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=read_not_stored status=%s then=\"unread until the next message or ack\"", im_status_name(st));
}

void receipt_store(struct delivery *d)
{
	struct store_entry entries[READS_PER_APPEND];
	struct read_move *all[READS_PER_APPEND], *mv, *next;
	struct account *a;
	size_t n = 0;

	HASH_ITER (hh, d->reads, mv, next) {
		HASH_DEL(d->reads, mv);
		all[n] = mv;
		entries[n] = (struct store_entry){ .kind = STORE_CURSOR };
		entries[n].cursor.conv = key_split(mv->key);
		entries[n].cursor.user = mv->key;
		entries[n].cursor.device = "";
		entries[n].cursor.read = mv->seq;
		a = account_find(d, mv->key);
		if (a)
			badge_change(d, a, false);
		if (d->read)
			d->read(d->read_arg, mv->key, ""); /* whichever it wrote with is connected */
		if (++n < READS_PER_APPEND && d->reads)
			continue;
		store_append(d->store, entries, n, on_reads_stored, NULL);
		while (n)
			free(all[--n]);
	}
}

/* ---- badge and list */

struct tally_row {
	char conv[IM_CONV_MAX];
	uint64_t last, read;
	int64_t ts;
	bool left;               /* a group that is only remembered */
};

struct tally {
	struct tally *next;
	struct delivery *d;      /* NULL: delivery is gone */
	struct tally_row *rows;
	size_t n, cap, at;
	unsigned counted;        /* conversations with unread messages so far */
	unsigned unread;
	bool more, list;
	char user[IM_NAME_MAX + 1];
};

static bool wants(const struct account *a)
{
	for (const struct session *s = a->sessions; s; s = s->next)
		if (s->badge_wanted || s->list_wanted || s->state == SESSION_LOADING)
			return true;
	return false;
}

static void badge_queue(struct delivery *d, struct account *a)
{
	a->badge_due = true;
	a->badge_next = NULL;
	if (d->badges)
		d->badges_last->badge_next = a;
	else
		d->badges = a;
	d->badges_last = a;
	d->n_badges++;
}

void badge_ready(struct delivery *d)
{
	d->badges_ready = d->n_badges;
}

void badge_change(struct delivery *d, struct account *a, bool list)
{
	a->list_due |= list;
	if (!a->badge_due && wants(a))
		badge_queue(d, a);
}

void receipt_forget(struct delivery *d, struct account *a)
{
	struct account **link = &d->badges, *last = NULL;

	if (!a->badge_due)
		return;
	while (*link != a) {
		last = *link;
		link = &last->badge_next;
	}
	*link = a->badge_next;
	if (d->badges_last == a)
		d->badges_last = last;
	d->n_badges--;
	if (d->badges_ready > d->n_badges)
		d->badges_ready = d->n_badges;
}

/* What of a group may be seen: the last stay counts. False: nothing. */
static bool clip_to_stay(const struct tally *t, struct tally_row *r)
{
	const struct roster_stay *stay;
	size_t n;

	if (!im_conv_is_group(r->conv))
		return true;
	n = roster_stays(t->d->roster, r->conv + 2, t->user, &stay);
	if (n == 0)
		return false;
	stay += n - 1;
	r->left = stay->to_seq != 0;
	if (r->left && r->last > stay->to_seq)
		r->last = stay->to_seq;
	if (r->read + 1 < stay->from_seq)
		r->read = stay->from_seq - 1;
	return true;
}

static void on_tally_row(void *arg, const struct store_conversation *c)
{
	struct tally *t = arg;
	struct tally_row *rows;
	size_t cap;

	if (!t->d)
		return;
	if (t->n == t->cap) {
		cap = t->cap ? t->cap * 2 : 16;
		rows = realloc(t->rows, cap * sizeof *rows);
		if (!rows)
			return;
		t->rows = rows;
		t->cap = cap;
	}
	rows = &t->rows[t->n];
	*rows = (struct tally_row){ .last = c->last_seq, .read = c->read, .ts = c->last_ts };
	(void)snprintf(rows->conv, IM_CONV_MAX, "%s", c->conv);
	t->n += clip_to_stay(t, rows);
}

static void tally_free(struct tally *t)
{
	struct delivery *d = t->d;
	struct tally **link;

	if (d) {
		for (link = &d->tallies; *link != t; link = &(*link)->next)
			;
		*link = t->next;
		d->n_tallies--;
	}
	free(t->rows);
	free(t);
}

static uint64_t hash_text(const char *s)
{
	uint64_t h = 14695981039346656037u;

	while (*s)
		h = (h ^ (unsigned char)*s++) * 1099511628211u;
	return h ? h : 1;
}

static void send_badge(struct tally *t, struct account *a)
{
	char json[128];
	uint64_t hash;

	(void)snprintf(json, sizeof json, "{\"unread\":%u,\"more\":%s,\"conversations\":%u}", t->unread, t->more ? "true" : "false",
		       t->counted);
	hash = hash_text(json);
	if (hash == a->badge_hash)
		return;
	a->badge_hash = hash;
	for (struct session *s = a->sessions; s; s = s->next)
		if (s->badge_wanted)
			session_state(t->d, s, "badge", json);
}

static int newest_first(const void *a, const void *b)
{
	const struct tally_row *x = a, *y = b;

	return x->ts > y->ts ? -1 : x->ts < y->ts;
}

static void send_list(struct tally *t, struct account *a)
{
	char face[IM_CONV_MAX];
	struct im_buf b;
	size_t i, n = 0;

	im_buf_init(&b);
	if (t->n)
		qsort(t->rows, t->n, sizeof *t->rows, newest_first);
	im_buf_add_str(&b, "{\"conversations\":[");
	for (i = 0; i < t->n && i < LIST_CONVERSATIONS && b.len < DELIVERY_ANSWER_MAX - 512; i++) {
		const struct tally_row *r = &t->rows[i];

		if (!im_conv_as_seen(r->conv, a->name, face))
			continue;
		im_buf_printf(&b, "%s{\"conv\":\"%s\",\"last\":%llu,\"ts\":%lld,\"read\":%llu}", n++ ? "," : "", face,
			      (unsigned long long)r->last, (long long)r->ts, (unsigned long long)r->read);
	}
	im_buf_printf(&b, "],\"more\":%s}", i < t->n ? "true" : "false");
	for (struct session *s = a->sessions; s && !b.failed; s = s->next)
		if (s->list_wanted)
			session_state(t->d, s, "conversations", im_buf_text(&b));
	im_buf_finish(&b);
}

static void tally_done(struct tally *t)
{
	struct delivery *d = t->d;
	struct account *a = account_find(d, t->user);

	if (a) {
		send_badge(t, a);
		if (t->list)
			send_list(t, a);
	}
	tally_free(t);
	badge_run(d);
}

static void tally_next(struct tally *t);

static void on_unread(void *arg, enum im_status st, unsigned n)
{
	struct tally *t = arg;

	if (!t->d) {
		tally_free(t);
		return;
	}
	if (st == IM_OK && n) {
		t->counted++;
		t->unread += n > 99 ? 99 : n;
		t->more |= n > 99;
	}
	tally_next(t);
}

static void tally_next(struct tally *t)
{
	while (t->at < t->n && t->counted < TALLY_CONVERSATIONS) {
		const struct tally_row *r = &t->rows[t->at++];

		if (r->left || r->last <= r->read)
			continue;
		store_unread(t->d->store, t->user, r->conv, r->read, on_unread, t);
		return;
	}
	t->more |= t->at < t->n;
	tally_done(t);
}

static void on_tally(void *arg, enum im_status st)
{
	struct tally *t = arg;
	struct delivery *d = t->d;

	if (d && st == IM_OK) {
		tally_next(t);
		return;
	}
	tally_free(t); /* the next change computes it anew */
	if (d && st != IM_UNCERTAIN)
		badge_run(d);
}

void badge_run(struct delivery *d)
{
	while (d->badges_ready && d->badges && d->n_tallies < TALLIES) {
		struct account *a = d->badges;
		struct tally *t = calloc(1, sizeof *t);

		if (!t)
			return;
		d->badges = a->badge_next;
		d->n_badges--;
		d->badges_ready--;
		a->badge_due = false;
		t->d = d;
		t->list = a->list_due;
		a->list_due = false;
		(void)snprintf(t->user, sizeof t->user, "%s", a->name);
		t->next = d->tallies;
		d->tallies = t;
		d->n_tallies++;
		store_conversations(d->store, t->user, on_tally_row, on_tally, t);
	}
}

void receipt_finish(struct delivery *d)
{
	struct receipt *r, *next;
	struct read_move *mv, *next_move;

	HASH_ITER (hh, d->receipts, r, next) {
		HASH_DEL(d->receipts, r);
		free(r);
	}
	HASH_ITER (hh, d->reads, mv, next_move) {
		HASH_DEL(d->reads, mv);
		free(mv);
	}
	for (struct tally *t = d->tallies; t; t = t->next)
		t->d = NULL;
	d->tallies = NULL;
}
