/*
 * From journal records to durable messages (docs/delivery.md, invariants 1 to 4).
 *
 * A batch is one slice of a journal, or one message of the service's own. Batches go through
 *
 *	queued -> looked up -> decided -> appended -> done
 *
 * in their order. One batch at a time is looked up and decided; any number may be with the store, which
 * answers in order. Nobody hears of a message before its batch is done.
 *
 * The one difficult point is dedupe: a lookup sees only what the store had answered when it was asked. So
 * ids that were decided stay in `ids` until no lookup that might have missed them is under way: a batch
 * that is done while another is looked up retires after that one is decided.
 */
#include "inbox.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/record.h"
#include "lease.h"
#include "wire/envelope.h"
#include "wire/refusal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define INBOX_QUEUE (32u << 20)    /* bytes of slices held: eight times what the plugin sends unconfirmed; more is a breach */
#define INBOX_CONVS 100000u        /* conversations whose newest sequence is kept in memory; older uses are looked up again */
#define INBOX_RETRY_MS 20          /* until a full store or link is asked again */
#define INBOX_MARKS 4096u          /* journal epochs with a mark, as many as the link can say */

enum outcome_kind { OUTCOME_MESSAGE, OUTCOME_DUP, OUTCOME_CURSORS, OUTCOME_REFUSAL, OUTCOME_REQUEST };

/* What becomes of a record once its batch is durable. */
struct outcome {
	enum outcome_kind kind;
	const Im__Bus__Record *record;          /* in the batch's arena */
	struct message *message;                /* MESSAGE, DUP: referenced */
	const Im__Bus__StoredRefusal *refusal;  /* in the batch's arena */
};

struct item {
	const Im__Bus__Record *record;
	uint64_t offset, next;
	const char *conv;                       /* SEND: canonical; NULL: not valid */
	size_t id_at;                           /* index + 1 of its lookup; 0 = no id */
};

struct batch {
	struct batch *next;
	struct inbox *in;
	struct im_arena arena;
	size_t size;
	uint32_t node;
	uint64_t epoch, slice_next;
	struct item *items;
	size_t n_items;
	size_t at;                              /* next item to decide */
	struct store_lookup_conv *convs;
	size_t n_convs;
	struct store_lookup_id *lookups;
	size_t n_lookups;
	struct store_entry *entries;
	size_t n_entries, cap_entries;
	struct outcome *outcomes;
	size_t n_outcomes;
	inbox_post_fn *post;                    /* a message of our own */
	void *post_arg;
	const char *post_conv;
};

/* The newest sequence of a conversation, as far as decided. */
struct conv {
	UT_hash_handle hh;
	uint64_t last;
	unsigned in_flight;                     /* messages with the store: it may not be forgotten */
	char name[];
};

/* An id that is decided and may not be visible to lookups yet. */
struct known_id {
	UT_hash_handle hh;
	struct message *message;
	size_t key_len;
	char key[];
};

struct mark {
	struct position durable;
	uint64_t expected;                      /* where the next slice of this epoch begins */
};

struct inbox {
	struct im_loop *loop;
	struct im_timer *retry;
	const struct im_settings *settings;
	struct store *store;
	struct roster *roster;
	struct delivery *delivery;
	struct link *link;
	struct lease *lease;
	struct batch *first, *last;             /* queued; the first one is looked up or decided */
	struct batch *retiring;                 /* done while a lookup was under way */
	size_t queued;                          /* bytes */
	unsigned appending;                     /* batches with the store */
	bool looking;
	bool looked;                            /* the first one's lookup is answered */
	bool failed;
	struct conv *convs;
	struct known_id *ids;
	struct mark *marks;
	size_t n_marks;
	uint64_t post_epoch, post_count;
	inbox_request_fn *on_request;
	void *request_arg;
	inbox_durable_fn *on_durable;
	void *durable_arg;
	inbox_failed_fn *on_failure;
	void *failure_arg;
	struct inbox_stats stats;
};

static void advance(struct inbox *in);

static void on_retry(void *arg)
{
	advance(arg);
}

enum im_status inbox_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			    struct delivery *delivery, struct link *link, struct lease *lease, struct inbox **out, struct im_err *err)
{
	const struct store_start *start = store_start(store);
	struct inbox *in = calloc(1, sizeof(*in));

	if (!in)
		return im_fail(err, IM_FAILED, "out of memory");
	in->marks = calloc(INBOX_MARKS, sizeof(*in->marks));
	in->retry = im_timer_create(loop, on_retry, in);
	if (!in->marks || !in->retry) {
		inbox_destroy(in);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	in->loop = loop;
	in->settings = settings;
	in->store = store;
	in->roster = roster;
	in->delivery = delivery;
	in->link = link;
	in->lease = lease;
	in->post_epoch = (uint64_t)im_clock_wall_ms();
	/* In order of age; beyond the limit the oldest ones are left out. */
	for (size_t i = start->n_high_water > INBOX_MARKS ? start->n_high_water - INBOX_MARKS : 0; i < start->n_high_water; i++) {
		if (start->high_water[i].node == 0)
			continue;
		in->marks[in->n_marks].durable = start->high_water[i];
		in->marks[in->n_marks++].expected = start->high_water[i].next;
	}
	*out = in;
	return IM_OK;
}

static void batch_free(struct batch *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->n_outcomes; i++)
		message_unref(b->outcomes[i].message);
	for (size_t i = 0; i < b->n_lookups; i++)
		message_unref(b->lookups[i].found);
	free(b->lookups);
	free(b->convs);
	free(b->entries);
	free(b->outcomes);
	free(b->items);
	im_arena_finish(&b->arena);
	free(b);
}

void inbox_destroy(struct inbox *in)
{
	struct known_id *k, *k_next;
	struct conv *c, *c_next;

	if (!in)
		return;
	while (in->first) {
		struct batch *b = in->first;

		in->first = b->next;
		if (b->post)
			b->post(b->post_arg, IM_BUSY, NULL);
		batch_free(b);
	}
	while (in->retiring) {
		struct batch *b = in->retiring;

		in->retiring = b->next;
		batch_free(b);
	}
	HASH_ITER(hh, in->ids, k, k_next) {
		HASH_DEL(in->ids, k);
		message_unref(k->message);
		free(k);
	}
	HASH_ITER(hh, in->convs, c, c_next) {
		HASH_DEL(in->convs, c);
		free(c);
	}
	im_timer_destroy(in->retry);
	free(in->marks);
	free(in);
}

void inbox_on_request(struct inbox *in, inbox_request_fn *fn, void *arg)
{
	in->on_request = fn;
	in->request_arg = arg;
}

void inbox_on_durable(struct inbox *in, inbox_durable_fn *fn, void *arg)
{
	in->on_durable = fn;
	in->durable_arg = arg;
}

void inbox_on_failure(struct inbox *in, inbox_failed_fn *fn, void *arg)
{
	in->on_failure = fn;
	in->failure_arg = arg;
}

void inbox_stats(const struct inbox *in, struct inbox_stats *out)
{
	*out = in->stats;
	out->waiting = in->queued;
}

bool inbox_idle(const struct inbox *in)
{
	return !in->first && in->appending == 0;
}

void inbox_stop(struct inbox *in)
{
	in->failed = true;
}

static void fail(struct inbox *in, const char *why)
{
	if (in->failed)
		return;
	in->failed = true;
	in->on_failure(in->failure_arg, why);
}

/* ---------------------------------------------------------------- marks */

static struct mark *mark_find(struct inbox *in, uint32_t node, uint64_t epoch)
{
	for (size_t i = in->n_marks; i-- > 0;)
		if (in->marks[i].durable.node == node && in->marks[i].durable.epoch == epoch)
			return &in->marks[i];
	return NULL;
}

/* A new epoch's mark; the oldest is forgotten when there are too many: its journal is long gone. */
static struct mark *mark_add(struct inbox *in, uint32_t node, uint64_t epoch)
{
	struct mark *m;

	if (in->n_marks == INBOX_MARKS) {
		memmove(in->marks, in->marks + 1, (INBOX_MARKS - 1) * sizeof(*in->marks));
		in->n_marks--;
	}
	m = &in->marks[in->n_marks++];
	memset(m, 0, sizeof(*m));
	m->durable.node = node;
	m->durable.epoch = epoch;
	return m;
}

size_t inbox_marks(const struct inbox *in, uint32_t node, struct position *marks, size_t cap)
{
	size_t n = 0;

	for (size_t i = 0; i < in->n_marks; i++) {
		if (in->marks[i].durable.node != node)
			continue;
		if (n < cap)
			marks[n] = in->marks[i].durable;
		n++;
	}
	return n;
}

/* ---------------------------------------------------------------- conversations and ids in memory */

static struct conv *conv_find(struct inbox *in, const char *name)
{
	struct conv *c;

	HASH_FIND_STR(in->convs, name, c);
	if (c) { /* to the young end: the map iterates in the order of insertion */
		HASH_DEL(in->convs, c);
		HASH_ADD_STR(in->convs, name, c);
	}
	return c;
}

static struct conv *conv_add(struct inbox *in, const char *name, uint64_t last)
{
	size_t len = strlen(name);
	struct conv *c = calloc(1, sizeof(*c) + len + 1);
	struct conv *old, *next;

	if (!c)
		return NULL;
	memcpy(c->name, name, len + 1);
	c->last = last;
	HASH_ADD_STR(in->convs, name, c);
	if (HASH_COUNT(in->convs) <= INBOX_CONVS)
		return c;
	HASH_ITER(hh, in->convs, old, next) {
		if (old->in_flight == 0 && old != c) {
			HASH_DEL(in->convs, old);
			free(old);
			break;
		}
	}
	return c;
}

static size_t id_key(char *key, size_t cap, const char *user, const char *client_id, const char *id)
{
	size_t n = (size_t)snprintf(key, cap, "%s%c%s%c%s", user, 1, client_id, 1, id);

	return n < cap ? n : cap - 1;
}

#define ID_KEY (IM_NAME_MAX + IM_CLIENT_ID_MAX + IM_ID_MAX + 3)

static struct message *id_known(struct inbox *in, const Im__Bus__Record *r)
{
	char key[ID_KEY];
	size_t len = id_key(key, sizeof(key), r->user, r->client_id, r->id);
	struct known_id *k;

	HASH_FIND(hh, in->ids, key, len, k);
	return k ? k->message : NULL;
}

static bool id_remember(struct inbox *in, const Im__Bus__Record *r, struct message *m)
{
	char key[ID_KEY];
	size_t len = id_key(key, sizeof(key), r->user, r->client_id, r->id);
	struct known_id *k = calloc(1, sizeof(*k) + len);

	if (!k)
		return false;
	memcpy(k->key, key, len);
	k->key_len = len;
	k->message = message_ref(m);
	HASH_ADD(hh, in->ids, key, len, k);
	return true;
}

static void id_forget(struct inbox *in, const struct message *m)
{
	char key[ID_KEY];
	size_t len = id_key(key, sizeof(key), m->from, m->client_id, m->id);
	struct known_id *k;

	HASH_FIND(hh, in->ids, key, len, k);
	if (!k || k->message != m)
		return;
	HASH_DEL(in->ids, k);
	message_unref(k->message);
	free(k);
}

/* ---------------------------------------------------------------- queued: slices become batches */

static struct batch *batch_new(struct inbox *in, size_t n_items)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->in = in;
	im_arena_init(&b->arena);
	b->items = calloc(n_items ? n_items : 1, sizeof(*b->items));
	b->outcomes = calloc(n_items ? n_items : 1, sizeof(*b->outcomes));
	if (!b->items || !b->outcomes) {
		batch_free(b);
		return NULL;
	}
	return b;
}

static void batch_queue(struct inbox *in, struct batch *b)
{
	if (in->last)
		in->last->next = b;
	else
		in->first = b;
	in->last = b;
	in->queued += b->size;
	advance(in);
}

/* Counts the records behind `from`, or says what is wrong. */
static bool slice_count(const Im__Bus__Slice *s, size_t *n)
{
	const uint8_t *body;
	size_t at = 0, len;

	for (*n = 0; at < s->records.len; (*n)++) {
		if (im_record_read(s->epoch, s->offset + at, s->records.data + at, s->records.len - at, &body, &len) != IM_RECORD_VALID)
			return false;
		at += im_record_size(len);
	}
	return true;
}

static bool slice_fill(struct batch *b, const Im__Bus__Slice *s, uint64_t from)
{
	ProtobufCAllocator allocator;
	const uint8_t *body;
	size_t at = 0, len;

	im_arena_allocator(&b->arena, &allocator);
	while (at < s->records.len) {
		struct item *item = &b->items[b->n_items];

		(void)im_record_read(s->epoch, s->offset + at, s->records.data + at, s->records.len - at, &body, &len); /* was valid */
		item->offset = s->offset + at;
		at += im_record_size(len);
		item->next = at < s->records.len ? s->offset + at : s->next;
		if (item->offset < from)
			continue; /* a repeat of what is being worked on */
		item->record = im__bus__record__unpack(&allocator, len, body);
		if (!item->record)
			return false;
		b->n_items++;
	}
	return true;
}

enum im_status inbox_slice(struct inbox *in, const Im__Bus__Slice *s)
{
	struct mark *mark = mark_find(in, s->node, s->epoch);
	struct batch *b;
	size_t n;

	if (in->failed)
		return IM_OK;
	if (!mark)
		mark = mark_add(in, s->node, s->epoch);
	if (mark->expected != 0 && s->offset > mark->expected) {
		im_log(IM_LOG_ERROR, "evt=journal_gap epoch=%llu expected=%llu got=%llu", (unsigned long long)s->epoch,
		       (unsigned long long)mark->expected, (unsigned long long)s->offset);
		return IM_BAD_INPUT;
	}
	if (s->next <= mark->expected) {
		/* What became durable between our hello and its answer was confirmed to nobody. */
		if (s->next <= mark->durable.next)
			in->on_durable(in->durable_arg, s->epoch, mark->durable.next);
		return IM_OK;
	}
	if (in->queued > INBOX_QUEUE)
		return IM_BAD_INPUT;
	if (!slice_count(s, &n)) {
		im_log(IM_LOG_ERROR, "evt=slice_damaged epoch=%llu offset=%llu", (unsigned long long)s->epoch, (unsigned long long)s->offset);
		return IM_BAD_INPUT;
	}
	b = batch_new(in, n);
	if (!b || !slice_fill(b, s, mark->expected)) {
		batch_free(b);
		return IM_BAD_INPUT;
	}
	b->node = s->node;
	b->epoch = s->epoch;
	b->slice_next = s->next;
	b->size = s->records.len;
	mark->expected = s->next;
	in->stats.records += b->n_items;
	batch_queue(in, b);
	return IM_OK;
}

void inbox_post(struct inbox *in, const Im__Bus__Record *r, const char *conv, inbox_post_fn *done, void *arg)
{
	struct batch *b = batch_new(in, 1);
	ProtobufCAllocator allocator;
	uint8_t *packed;
	size_t len = im__bus__record__get_packed_size(r);

	packed = b ? im_arena_alloc(&b->arena, len + 1) : NULL;
	if (!packed) {
		batch_free(b);
		done(arg, IM_FAILED, NULL);
		return;
	}
	im__bus__record__pack(r, packed);
	im_arena_allocator(&b->arena, &allocator);
	b->items[0].record = im__bus__record__unpack(&allocator, len, packed);
	b->post_conv = im_arena_strndup(&b->arena, conv, strlen(conv));
	if (!b->items[0].record || !b->post_conv) {
		batch_free(b);
		done(arg, IM_FAILED, NULL);
		return;
	}
	b->n_items = 1;
	b->epoch = in->post_epoch;
	b->items[0].offset = in->post_count++;
	b->post = done;
	b->post_arg = arg;
	b->size = len;
	batch_queue(in, b);
}

/* ---------------------------------------------------------------- looked up */

static int compare_convs(const void *a, const void *b)
{
	return strcmp(((const struct store_lookup_conv *)a)->conv, ((const struct store_lookup_conv *)b)->conv);
}

static void want_conv(struct batch *b, const char *conv)
{
	if (!conv_find(b->in, conv))
		b->convs[b->n_convs++].conv = conv;
}

static const char *canonical(struct batch *b, const char *user, const char *address)
{
	char name[IM_CONV_MAX];

	return im_conv_canonical(user, address, name) ? im_arena_strndup(&b->arena, name, strlen(name)) : NULL;
}

static size_t convs_of(const struct batch *b)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n_items; i++)
		n += 1 + b->items[i].record->n_cursors;
	return n;
}

static bool lookup_prepare(struct batch *b)
{
	size_t unique = 0;

	b->convs = calloc(convs_of(b) + 1, sizeof(*b->convs));
	b->lookups = calloc(b->n_items + 1, sizeof(*b->lookups));
	if (!b->convs || !b->lookups)
		return false;
	for (size_t i = 0; i < b->n_items; i++) {
		struct item *item = &b->items[i];
		const Im__Bus__Record *r = item->record;

		for (size_t k = 0; k < r->n_cursors; k++) {
			const char *conv = canonical(b, r->user, r->cursors[k]->conv);

			if (conv)
				want_conv(b, conv);
		}
		if (r->kind != IM__BUS__KIND__KIND_SEND)
			continue;
		item->conv = b->post_conv ? b->post_conv : canonical(b, r->user, r->conv);
		if (item->conv)
			want_conv(b, item->conv);
		if (item->conv && r->id[0] && !id_known(b->in, r)) {
			b->lookups[b->n_lookups].user = r->user;
			b->lookups[b->n_lookups].client_id = r->client_id;
			b->lookups[b->n_lookups].id = r->id;
			item->id_at = ++b->n_lookups;
		}
	}
	qsort(b->convs, b->n_convs, sizeof(*b->convs), compare_convs);
	for (size_t i = 0; i < b->n_convs; i++)
		if (i == 0 || strcmp(b->convs[i].conv, b->convs[unique - 1].conv) != 0)
			b->convs[unique++] = b->convs[i];
	b->n_convs = unique;
	return true;
}

static void on_lookup(void *arg, enum im_status st)
{
	struct batch *b = arg;
	struct inbox *in = b->in;

	in->looking = false;
	if (st != IM_OK) {
		fail(in, "the store cannot be read");
		return;
	}
	for (size_t i = 0; i < b->n_convs; i++) {
		if (!conv_find(in, b->convs[i].conv) && !conv_add(in, b->convs[i].conv, b->convs[i].last_seq)) {
			fail(in, "out of memory");
			return;
		}
	}
	in->looked = true;
	advance(in);
}

/* ---------------------------------------------------------------- decided */

static struct store_entry *entry_add(struct batch *b, const struct item *item, enum store_kind kind)
{
	struct store_entry *e;

	if (b->n_entries == b->cap_entries) {
		size_t cap = b->cap_entries ? 2 * b->cap_entries : b->n_items + 4;

		e = realloc(b->entries, cap * sizeof(*e));
		if (!e)
			return NULL;
		b->entries = e;
		b->cap_entries = cap;
	}
	e = &b->entries[b->n_entries++];
	memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->pos.node = b->node;
	e->pos.epoch = b->post ? 0 : b->epoch;
	e->pos.next = b->post ? 0 : item->next;
	return e;
}

static struct outcome *outcome_add(struct batch *b, enum outcome_kind kind, const Im__Bus__Record *r)
{
	struct outcome *o = &b->outcomes[b->n_outcomes++];

	o->kind = kind;
	o->record = r;
	return o;
}

/* The key of an owed error: its position, spread over 64 bits. */
static uint64_t refusal_key(const struct batch *b, const struct item *item)
{
	uint64_t h = 1469598103934665603u, parts[3] = {b->node, b->epoch, item->offset};

	for (size_t i = 0; i < 24; i++)
		h = (h ^ (parts[i / 8] >> (8 * (i % 8)) & 0xff)) * 1099511628211u;
	return h;
}

static enum im_status owe(struct batch *b, const struct item *item, const char *code, const char *reason, const char *fix, const char *topic)
{
	const Im__Bus__Record *r = item->record;
	Im__Bus__StoredRefusal *refusal = im_arena_alloc(&b->arena, sizeof(*refusal));
	Im__V1__Error *error = im_arena_alloc(&b->arena, sizeof(*error));
	struct store_entry *e = entry_add(b, item, STORE_REFUSAL);

	if (!refusal || !error || !e)
		return IM_FAILED;
	im__bus__stored_refusal__init(refusal);
	im__v1__error__init(error);
	error->code = im_arena_strndup(&b->arena, code, strlen(code));
	error->reason = im_arena_strndup(&b->arena, reason, strlen(reason));
	error->fix = im_arena_strndup(&b->arena, fix, strlen(fix));
	error->topic = im_arena_strndup(&b->arena, topic, strlen(topic));
	if (!error->code || !error->reason || !error->fix || !error->topic)
		return IM_FAILED;
	error->id = r->id;
	refusal->key = refusal_key(b, item);
	refusal->user = r->user;
	refusal->device = r->client_id;
	refusal->error = error;
	e->refusal = refusal;
	outcome_add(b, OUTCOME_REFUSAL, r)->refusal = refusal;
	b->in->stats.refused++;
	return IM_OK;
}

static enum im_status refuse(struct batch *b, const struct item *item, const struct im_refusal *why, const char *topic)
{
	return owe(b, item, im_refusal_name(why->code), why->reason, why->fix, topic);
}

/* What has changed between the plugin's word and ours: then its PUBACK is out and an error is owed. */
static bool recipient_exists(const struct batch *b, const struct item *item, struct im_refusal *why)
{
	const Im__Bus__Record *r = item->record;
	char peer[IM_NAME_MAX + 1];

	if (b->post)
		return true;
	if (im_conv_is_group(item->conv)) {
		if (roster_group(b->in->roster, item->conv + 2))
			return true;
		im_refuse(why, IM_REFUSE_UNKNOWN_GROUP, "there is no group %s any more", item->conv + 2);
		return false;
	}
	if (im_conv_peer(item->conv, r->user, peer) && roster_user(b->in->roster, peer))
		return true;
	im_refuse(why, IM_REFUSE_UNKNOWN_USER, "there is no user %s any more", r->conv + 2);
	return false;
}

static enum im_status decide_repeat(struct batch *b, struct item *item, struct message *found, struct message *m)
{
	struct im_refusal why;
	char topic[IM_TOPIC_MAX];

	if (found->body_hash == m->body_hash && strcmp(found->conv, m->conv) == 0) {
		outcome_add(b, OUTCOME_DUP, item->record)->message = message_ref(found);
		b->in->stats.repeats++;
		return IM_OK;
	}
	if (b->post)
		return IM_OK; /* no outcome says it to the asker; nobody connects as who it was sent from */
	(void)snprintf(topic, sizeof(topic), "im/v1/to/%s/%s", item->record->conv, item->record->id); /* a longer one is cut */
	im_refuse(&why, IM_REFUSE_ID_REUSED, "message id %s was used before for another message", item->record->id);
	return refuse(b, item, &why, topic);
}

static enum im_status decide_new(struct batch *b, struct item *item, struct conv *c, struct message *m)
{
	uint32_t section = im_conv_section(item->conv);
	struct store_entry *e;
	enum im_status st;

	st = lease_next(b->in->lease, section, c->last, &m->seq, &m->section_epoch);
	if (st != IM_OK)
		return st;
	m->section = section;
	m->prev = c->last;
	e = entry_add(b, item, STORE_MESSAGE);
	if (!e || (item->record->id[0] && !id_remember(b->in, item->record, m)))
		return IM_FAILED;
	e->message = m;
	c->last = m->seq;
	c->in_flight++;
	outcome_add(b, OUTCOME_MESSAGE, item->record)->message = message_ref(m);
	b->in->stats.stored++;
	return IM_OK;
}

static enum im_status decide_send(struct batch *b, struct item *item)
{
	const Im__Bus__Record *r = item->record;
	struct position pos = {b->node, b->epoch, item->next};
	char msgid[IM_MSGID_LEN + 1];
	struct message *m, *found = NULL;
	struct im_refusal why;
	struct conv *c;
	enum im_status st;

	if (!item->conv) {
		im_refuse(&why, IM_REFUSE_BAD_NAME, "%s is no address", r->conv);
		return refuse(b, item, &why, r->conv);
	}
	im_msgid_encode(b->node, b->epoch, item->offset, msgid);
	m = message_create(r, item->conv, &pos, msgid);
	if (!m)
		return IM_FAILED;
	if (r->id[0])
		found = id_known(b->in, r);
	if (!found && item->id_at)
		found = b->lookups[item->id_at - 1].found;
	c = conv_find(b->in, item->conv);
	if (found)
		st = decide_repeat(b, item, found, m);
	else if (!recipient_exists(b, item, &why))
		st = refuse(b, item, &why, r->conv);
	else
		st = c ? decide_new(b, item, c, m) : IM_FAILED;
	message_unref(m);
	return st;
}

static bool cursor_valid(struct batch *b, const Im__Bus__Record *r, const Im__Bus__CursorMove *move, const char *conv, struct im_refusal *why)
{
	struct conv *c = conv ? conv_find(b->in, conv) : NULL;
	const struct roster_stay *stays;

	if (!c || (im_conv_is_group(conv) && roster_stays(b->in->roster, conv + 2, r->user, &stays) == 0)) {
		im_refuse(why, IM_REFUSE_BAD_CURSOR, "%s is no conversation of yours", move->conv);
		return false;
	}
	if (move->delivered > c->last || move->read > c->last) {
		im_refuse(why, IM_REFUSE_BAD_CURSOR, "the newest sequence of %s is %llu", move->conv, (unsigned long long)c->last);
		return false;
	}
	return true;
}

static enum im_status decide_acks(struct batch *b, struct item *item)
{
	const Im__Bus__Record *r = item->record;
	struct im_refusal why;

	for (size_t i = 0; i < r->n_cursors; i++) { /* all or nothing: one wrong cursor refuses the packet */
		if (!cursor_valid(b, r, r->cursors[i], canonical(b, r->user, r->cursors[i]->conv), &why))
			return refuse(b, item, &why, "im/v1/ack");
	}
	for (size_t i = 0; i < r->n_cursors; i++) {
		const Im__Bus__CursorMove *move = r->cursors[i];
		struct store_entry *e = entry_add(b, item, STORE_CURSOR);

		if (!e)
			return IM_FAILED;
		e->cursor.user = r->user;
		e->cursor.device = r->client_id;
		e->cursor.conv = canonical(b, r->user, move->conv);
		/* what is read has been delivered */
		e->cursor.delivered = move->delivered > move->read ? move->delivered : move->read;
		e->cursor.read = move->read;
	}
	outcome_add(b, OUTCOME_CURSORS, r);
	return IM_OK;
}

static enum im_status decide(struct batch *b, struct item *item)
{
	const Im__Bus__Record *r = item->record;

	switch (r->kind) {
	case IM__BUS__KIND__KIND_SEND:
		return decide_send(b, item);
	case IM__BUS__KIND__KIND_ACK:
		return decide_acks(b, item);
	case IM__BUS__KIND__KIND_REQUEST:
		outcome_add(b, OUTCOME_REQUEST, r);
		return IM_OK;
	case IM__BUS__KIND__KIND_REFUSAL:
		return owe(b, item, r->code, r->reason, r->fix, r->topic);
	default: /* of a newer plugin: nothing we could do with it, and nothing it waits for */
		im_log(IM_LOG_WARNING, "evt=record_unknown kind=%d user=%s", (int)r->kind, r->user);
		return IM_OK;
	}
}

/* ---------------------------------------------------------------- appended, done */

static void retire(struct inbox *in, struct batch *b)
{
	for (size_t i = 0; i < b->n_outcomes; i++) {
		struct outcome *o = &b->outcomes[i];

		if (o->kind == OUTCOME_MESSAGE && o->message->id[0])
			id_forget(in, o->message);
	}
	batch_free(b);
}

static void retire_all(struct inbox *in)
{
	while (in->retiring) {
		struct batch *b = in->retiring;

		in->retiring = b->next;
		retire(in, b);
	}
}

static void tell(struct inbox *in, struct outcome *o)
{
	const Im__Bus__Record *r = o->record;
	struct conv *c;

	switch (o->kind) {
	case OUTCOME_MESSAGE:
		HASH_FIND_STR(in->convs, o->message->conv, c);
		if (c)
			c->in_flight--;
		delivery_message(in->delivery, o->message, r->session);
		if (r->session)
			delivery_ack(in->delivery, r->session, o->message, false);
		break;
	case OUTCOME_DUP:
		if (r->session)
			delivery_ack(in->delivery, r->session, o->message, true);
		break;
	case OUTCOME_CURSORS:
		delivery_cursors(in->delivery, r->user, r->client_id, r->session, (const Im__Bus__CursorMove *const *)r->cursors, r->n_cursors);
		break;
	case OUTCOME_REFUSAL:
		delivery_refusal(in->delivery, o->refusal, r->session);
		break;
	case OUTCOME_REQUEST:
		in->on_request(in->request_arg, r);
		break;
	}
}

static void on_append(void *arg, enum im_status st)
{
	struct batch *b = arg;
	struct inbox *in = b->in;
	struct mark *mark;

	in->appending--;
	if (st != IM_OK || in->failed) {
		if (b->post)
			b->post(b->post_arg, IM_UNCERTAIN, NULL);
		b->next = in->retiring;
		in->retiring = b;
		fail(in, st == IM_FAILED ? "the store refused what was decided" : "the store failed to write");
		return;
	}
	for (size_t i = 0; i < b->n_outcomes; i++)
		tell(in, &b->outcomes[i]);
	if (b->post) {
		b->post(b->post_arg, b->outcomes[0].message ? IM_OK : IM_BAD_INPUT, b->outcomes[0].message);
	} else {
		mark = mark_find(in, b->node, b->epoch);
		if (mark)
			mark->durable.next = b->slice_next;
		in->on_durable(in->durable_arg, b->epoch, b->slice_next);
	}
	if (in->looking || in->looked) {
		b->next = in->retiring;
		in->retiring = b;
	} else {
		retire(in, b);
	}
	advance(in);
}

static void append(struct inbox *in, struct batch *b)
{
	struct store_entry *e;

	if (!b->post && (b->n_entries == 0 || b->entries[b->n_entries - 1].pos.next != b->slice_next)) {
		struct item end = {.next = b->slice_next};

		e = entry_add(b, &end, STORE_POSITION);
		if (!e) {
			fail(in, "out of memory");
			return;
		}
	}
	in->appending++;
	store_append(in->store, b->entries, b->n_entries, on_append, b);
}

/* ---------------------------------------------------------------- the way through */

/* Decides the first batch as far as it goes. False: it waits for the lease, or something failed. */
static bool decide_first(struct inbox *in)
{
	struct batch *b = in->first;

	while (b->at < b->n_items) {
		enum im_status st = decide(b, &b->items[b->at]);

		if (st == IM_BUSY)
			return false; /* inbox_lease_changed comes */
		if (st != IM_OK) {
			fail(in, "out of memory");
			return false;
		}
		b->at++;
	}
	return true;
}

static bool may_take(struct inbox *in)
{
	if (!store_full(in->store) && link_pending(in->link) < 2 * LINK_WINDOW)
		return true;
	im_timer_start(in->retry, INBOX_RETRY_MS, 0);
	return false;
}

static void advance(struct inbox *in)
{
	while (in->first && !in->failed && !in->looking) {
		struct batch *b = in->first;

		if (!in->looked) {
			if (!may_take(in))
				return;
			if (!lookup_prepare(b)) {
				fail(in, "out of memory");
				return;
			}
			if (b->n_convs || b->n_lookups) {
				in->looking = true;
				store_lookup(in->store, b->convs, b->n_convs, b->lookups, b->n_lookups, on_lookup, b);
				return;
			}
			in->looked = true;
		}
		if (!decide_first(in))
			return;
		in->first = b->next;
		if (!in->first)
			in->last = NULL;
		b->next = NULL;
		in->queued -= b->size;
		in->looked = false;
		retire_all(in);
		append(in, b);
	}
}

void inbox_lease_changed(struct inbox *in)
{
	advance(in);
}

void inbox_resume(struct inbox *in)
{
	advance(in);
}
