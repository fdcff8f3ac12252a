/* A function per kind of record. What is said about a client's mistake is an entry too: owed until it is out. */
#include "decision.h"

#include "base/log.h"
#include "lease.h"
#include "wire/refusal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what has to be known */

static int compare_convs(const void *a, const void *b)
{
	return strcmp(((const struct store_lookup_conv *)a)->conv, ((const struct store_lookup_conv *)b)->conv);
}

static void want_conv(struct decider *d, struct batch *b, const char *conv)
{
	if (!recent_conv(&d->recent, conv))
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

bool decision_prepare(struct decider *d, struct batch *b)
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
				want_conv(d, b, conv);
		}
		if (r->kind != IM__BUS__KIND__KIND_SEND)
			continue;
		item->conv = b->post_conv ? b->post_conv : canonical(b, r->user, r->conv);
		if (item->conv)
			want_conv(d, b, item->conv);
		if (item->conv && r->id[0] && !recent_id(&d->recent, r)) {
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

bool decision_learn(struct decider *d, const struct batch *b)
{
	for (size_t i = 0; i < b->n_convs; i++) {
		if (!recent_conv(&d->recent, b->convs[i].conv) && !recent_add_conv(&d->recent, b->convs[i].conv, b->convs[i].last_seq))
			return false;
	}
	return true;
}

/* ---- refusals */

/* The key of an owed error: its position, spread over 64 bits. */
static uint64_t refusal_key(const struct batch *b, const struct item *item)
{
	uint64_t h = 1469598103934665603u, parts[3] = {b->node, b->epoch, item->offset};

	for (size_t i = 0; i < 24; i++)
		h = (h ^ (parts[i / 8] >> (8 * (i % 8)) & 0xff)) * 1099511628211u;
	return h;
}

static enum im_status owe(struct decider *d, struct batch *b, const struct item *item, const char *code, const char *reason,
			  const char *fix, const char *topic)
{
	const Im__Bus__Record *r = item->record;
	Im__Bus__StoredRefusal *refusal = im_arena_alloc(&b->arena, sizeof(*refusal));
	Im__V1__Error *error = im_arena_alloc(&b->arena, sizeof(*error));
	struct store_entry *e = batch_entry(b, item, STORE_REFUSAL);

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
	refusal->ts = r->ts;
	e->refusal = refusal;
	batch_outcome(b, OUTCOME_REFUSAL, r)->refusal = refusal;
	d->stats.refused++;
	return IM_OK;
}

static enum im_status refuse(struct decider *d, struct batch *b, const struct item *item, const struct im_refusal *why,
			     const char *topic)
{
	return owe(d, b, item, im_refusal_name(why->code), why->reason, why->fix, topic);
}

/* What has changed between the plugin's word and ours: then its PUBACK is out and an error is owed. */
static bool recipient_exists(const struct decider *d, const struct batch *b, const struct item *item,
			     struct im_refusal *why)
{
	const Im__Bus__Record *r = item->record;
	char peer[IM_NAME_MAX + 1];

	if (b->post)
		return true;
	if (im_conv_is_group(item->conv)) {
		if (roster_group(d->roster, item->conv + 2))
			return true;
		im_refuse(why, IM_REFUSE_UNKNOWN_GROUP, "there is no group %s any more", item->conv + 2);
		return false;
	}
	if (im_conv_peer(item->conv, r->user, peer) && roster_user(d->roster, peer))
		return true;
	im_refuse(why, IM_REFUSE_UNKNOWN_USER, "there is no user %s any more", r->conv + 2);
	return false;
}

static enum im_status decide_repeat(struct decider *d, struct batch *b, struct item *item, struct message *found,
				    struct message *m)
{
	struct im_refusal why;
	char topic[IM_TOPIC_MAX];

	if (found->body_hash == m->body_hash && strcmp(found->conv, m->conv) == 0) {
		batch_outcome(b, OUTCOME_DUP, item->record)->message = message_ref(found);
		d->stats.repeats++;
		return IM_OK;
	}
	if (b->post)
		return IM_OK; /* no outcome says it to the asker; nobody connects as who it was sent from */
	(void)snprintf(topic, sizeof(topic), "im/v1/to/%s/%s", item->record->conv, item->record->id); /* a longer one is cut */
	im_refuse(&why, IM_REFUSE_ID_REUSED, "message id %s was used before for another message", item->record->id);
	return refuse(d, b, item, &why, topic);
}

static enum im_status decide_new(struct decider *d, struct batch *b, struct item *item, struct recent_conv *c,
				 struct message *m)
{
	uint32_t section = im_conv_section(item->conv);
	struct store_entry *e;
	enum im_status st;

	st = lease_next(d->lease, section, c->last, &m->seq, &m->section_epoch);
	if (st != IM_OK)
		return st;
	m->section = section;
	m->prev = c->last;
	e = batch_entry(b, item, STORE_MESSAGE);
	if (!e || (item->record->id[0] && !recent_add_id(&d->recent, item->record, m)))
		return IM_FAILED;
	e->message = m;
	c->last = m->seq;
	c->in_flight++;
	batch_outcome(b, OUTCOME_MESSAGE, item->record)->message = message_ref(m);
	d->stats.stored++;
	return IM_OK;
}

static enum im_status decide_send(struct decider *d, struct batch *b, struct item *item)
{
	const Im__Bus__Record *r = item->record;
	struct position pos = {b->node, b->epoch, item->next};
	char msgid[IM_MSGID_LEN + 1];
	struct message *m, *found = NULL;
	struct im_refusal why;
	struct recent_conv *c;
	enum im_status st;

	if (!item->conv) {
		im_refuse(&why, IM_REFUSE_BAD_NAME, "%s is no address", r->conv);
		return refuse(d, b, item, &why, r->conv);
	}
	im_msgid_encode(b->node, b->epoch, item->offset, msgid);
	m = message_create(r, item->conv, &pos, msgid);
	if (!m)
		return IM_FAILED;
	if (r->id[0])
		found = recent_id(&d->recent, r);
	if (!found && item->id_at)
		found = b->lookups[item->id_at - 1].found;
	c = recent_conv(&d->recent, item->conv);
	if (found)
		st = decide_repeat(d, b, item, found, m);
	else if (!recipient_exists(d, b, item, &why))
		st = refuse(d, b, item, &why, r->conv);
	else
		st = c ? decide_new(d, b, item, c, m) : IM_FAILED;
	message_unref(m);
	return st;
}

static bool cursor_valid(struct decider *d, const Im__Bus__Record *r, const Im__Bus__CursorMove *move, const char *conv,
			 struct im_refusal *why)
{
	struct recent_conv *c = conv ? recent_conv(&d->recent, conv) : NULL;
	const struct roster_stay *stays = NULL;
	size_t n = conv && im_conv_is_group(conv) ? roster_stays(d->roster, conv + 2, r->user, &stays) : 0;
	uint64_t last;

	if (!c || (im_conv_is_group(conv) && n == 0)) {
		im_refuse(why, IM_REFUSE_BAD_CURSOR, "%s is no conversation of yours", move->conv);
		return false;
	}
	last = n > 0 ? roster_stays_last(stays, n, c->last) : c->last; /* of those one may see */
	if (move->delivered > last || move->read > last) {
		im_refuse(why, IM_REFUSE_BAD_CURSOR, "the newest sequence of %s is %llu", move->conv, (unsigned long long)last);
		return false;
	}
	return true;
}

static enum im_status decide_acks(struct decider *d, struct batch *b, struct item *item)
{
	const Im__Bus__Record *r = item->record;
	struct im_refusal why;

	for (size_t i = 0; i < r->n_cursors; i++) { /* all or nothing: one wrong cursor refuses the packet */
		if (!cursor_valid(d, r, r->cursors[i], canonical(b, r->user, r->cursors[i]->conv), &why))
			return refuse(d, b, item, &why, "im/v1/ack");
	}
	for (size_t i = 0; i < r->n_cursors; i++) {
		const Im__Bus__CursorMove *move = r->cursors[i];
		struct store_entry *e;

		if (!move->delivered && !move->read)
			continue; /* says nothing, and would make a conversation with anybody */
		e = batch_entry(b, item, STORE_CURSOR);
		if (!e)
			return IM_FAILED;
		e->cursor.user = r->user;
		e->cursor.device = r->client_id;
		e->cursor.conv = canonical(b, r->user, move->conv);
		/* what is read has been delivered */
		e->cursor.delivered = move->delivered > move->read ? move->delivered : move->read;
		e->cursor.read = move->read;
	}
	batch_outcome(b, OUTCOME_CURSORS, r);
	return IM_OK;
}

enum im_status decision_make(struct decider *d, struct batch *b, struct item *item)
{
	const Im__Bus__Record *r = item->record;

	switch (r->kind) {
	case IM__BUS__KIND__KIND_SEND:
		return decide_send(d, b, item);
	case IM__BUS__KIND__KIND_ACK:
		return decide_acks(d, b, item);
	case IM__BUS__KIND__KIND_REQUEST:
		batch_outcome(b, OUTCOME_REQUEST, r);
		return IM_OK;
	case IM__BUS__KIND__KIND_REFUSAL:
		return owe(d, b, item, r->code, r->reason, r->fix, r->topic);
	default: /* of a newer plugin: nothing we could do with it, and nothing it waits for */
		im_log(IM_LOG_WARNING, "evt=record_unknown kind=%d user=%s", (int)r->kind, r->user);
		return IM_OK;
	}
}

/* ---- taking it back */

bool decision_holds(const struct decider *d, const struct batch *b)
{
	for (size_t i = 0; i < b->n_outcomes; i++) {
		const struct outcome *o = &b->outcomes[i];

		if (o->kind == OUTCOME_MESSAGE && !lease_is_held(d->lease, o->message->section, o->message->section_epoch))
			return false;
	}
	return true;
}

/* Backwards, so that each conversation ends where it was before the batch. */
void decision_undo(struct decider *d, struct batch *b)
{
	while (b->n_outcomes > 0) {
		struct outcome *o = &b->outcomes[--b->n_outcomes];
		struct message *m = o->message;

		d->stats.repeats -= o->kind == OUTCOME_DUP;
		d->stats.refused -= o->kind == OUTCOME_REFUSAL && o->record->kind != IM__BUS__KIND__KIND_REFUSAL;
		if (o->kind == OUTCOME_MESSAGE) {
			recent_undo(&d->recent, m);
			d->stats.stored--;
		}
		message_unref(m);
		memset(o, 0, sizeof(*o));
	}
	b->n_entries = 0; /* what they point to is in the batch's arena or was the outcomes' */
	b->at = 0;
}
