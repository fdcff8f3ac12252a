/*
 * Messages in memory: one allocation holds the struct, the mentions' pointers, all strings and the body, so
 * that a message is made and freed with one call whatever it carries.
 */
#include "message.h"
#include "base/buf.h"
#include "pack.h"

#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { CONV, FROM, CLIENT_ID, ID, TYPE, CT, ALT, REPLY, EXT, SPANS };

#define MENTIONS_MOST 1024u /* of a stored message: far above what is accepted, so that a damaged row can't take the memory */

struct span {
	const void *p;
	size_t n;
};

/* What a message is made from; everything is borrowed. */
struct parts {
	struct span strings[SPANS];
	struct span body;
	const struct span *mentions;
	size_t n_mentions;
};

static const char *place(char **at, const struct span *s)
{
	char *start = *at;

	if (s->n)
		memcpy(start, s->p, s->n);
	start[s->n] = '\0';
	*at = start + s->n + 1;
	return start;
}

static struct message *make(const struct parts *p)
{
	size_t size = sizeof(struct message) + p->n_mentions * sizeof(char *) + p->body.n + 1;
	const char **mentions;
	struct message *m;
	char *at;

	for (int i = 0; i < SPANS; i++)
		size += p->strings[i].n + 1;
	for (size_t i = 0; i < p->n_mentions; i++)
		size += p->mentions[i].n + 1;
	m = malloc(size);
	if (!m)
		return NULL;
	memset(m, 0, sizeof(*m));
	atomic_init(&m->refs, 1);
	m->size = size;
	mentions = (const char **)(m + 1);
	at = (char *)(mentions + p->n_mentions);
	m->conv = place(&at, &p->strings[CONV]);
	m->from = place(&at, &p->strings[FROM]);
	m->client_id = place(&at, &p->strings[CLIENT_ID]);
	m->id = place(&at, &p->strings[ID]);
	m->type = place(&at, &p->strings[TYPE]);
	m->ct = place(&at, &p->strings[CT]);
	m->alt = place(&at, &p->strings[ALT]);
	m->reply = place(&at, &p->strings[REPLY]);
	m->ext = place(&at, &p->strings[EXT]);
	for (size_t i = 0; i < p->n_mentions; i++)
		mentions[i] = place(&at, &p->mentions[i]);
	m->mentions = mentions;
	m->n_mentions = p->n_mentions;
	m->body = (const uint8_t *)place(&at, &p->body);
	m->body_len = p->body.n;
	return m;
}

/* One step of the body hash: the sum so far is the key, so that fields cannot run into each other. */
static uint64_t hash_more(uint64_t sum, const void *data, size_t len)
{
	uint64_t key[2] = { sum, len };
	uint64_t out;

	_Static_assert(sizeof(key) == crypto_shorthash_KEYBYTES && sizeof(out) == crypto_shorthash_BYTES, "SipHash-2-4");
	crypto_shorthash((uint8_t *)&out, data ? data : (const void *)"", len, (const uint8_t *)key);
	return out;
}

/* Kept with the message, so it must never change; no secret, since a sender can only collide with itself. */
static uint64_t body_hash(const struct message *m)
{
	const char *const strings[] = { m->conv, m->type, m->ct, m->alt, m->reply, m->ext };
	int64_t numbers[2] = { m->enc, m->expiry };
	uint64_t sum = hash_more(0, numbers, sizeof(numbers));

	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		sum = hash_more(sum, strings[i], strlen(strings[i]));
	for (size_t i = 0; i < m->n_mentions; i++)
		sum = hash_more(sum, m->mentions[i], strlen(m->mentions[i]));
	return hash_more(sum, m->body, m->body_len);
}

static struct span text(const char *s)
{
	return (struct span){ s, s ? strlen(s) : 0 };
}

struct message *message_create(const Im__Bus__Record *r, const char *conv, const struct position *pos, const char *msgid)
{
	struct span *mentions = NULL;
	struct parts p = {
		.strings = {
			[CONV] = text(conv), [FROM] = text(r->user), [CLIENT_ID] = text(r->client_id), [ID] = text(r->id),
			[TYPE] = text(r->type), [CT] = text(r->ct), [ALT] = text(r->alt), [REPLY] = text(r->reply), [EXT] = text(r->ext),
		},
		.body = { r->body.data, r->body.len },
		.n_mentions = r->n_mentions,
	};
	struct message *m;

	if (r->n_mentions) {
		mentions = calloc(r->n_mentions, sizeof(*mentions));
		if (!mentions)
			return NULL;
		for (size_t i = 0; i < r->n_mentions; i++)
			mentions[i] = text(r->mentions[i]);
		p.mentions = mentions;
	}
	m = make(&p);
	free(mentions);
	if (!m)
		return NULL;
	if (pos)
		m->pos = *pos;
	memcpy(m->msgid, msgid, strnlen(msgid, IM_MSGID_LEN));
	m->ts = r->ts;
	m->expiry = r->expiry;
	m->enc = r->enc;
	m->section = im_conv_section(conv);
	m->body_hash = body_hash(m);
	return m;
}

struct message *message_ref(struct message *m)
{
	atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
	return m;
}

void message_unref(struct message *m)
{
	if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
		free(m);
}

size_t message_size(const struct message *m)
{
	return m->size;
}

void message_pack(const struct message *m, struct im_buf *out)
{
	size_t at = pack_open(out, 1);

	pack_str(out, 1, m->id);
	pack_str(out, 2, m->msgid);
	pack_str(out, 3, m->conv);
	pack_uint(out, 4, m->seq);
	pack_uint(out, 5, (uint64_t)m->ts);
	pack_str(out, 6, m->from);
	pack_str(out, 7, m->type);
	pack_uint(out, 8, (uint64_t)m->enc);
	pack_bytes(out, 9, m->body, m->body_len);
	pack_str(out, 10, m->ct);
	pack_uint(out, 11, m->prev);
	pack_str(out, 12, m->alt);
	pack_str(out, 13, m->reply);
	for (size_t i = 0; i < m->n_mentions; i++)
		pack_str(out, 14, m->mentions[i]);
	pack_uint(out, 15, (uint64_t)m->expiry);
	pack_str(out, 16, m->ext);
	pack_close(out, at);
	pack_str(out, 2, m->client_id);
	pack_uint(out, 3, m->body_hash);
	pack_uint(out, 4, m->section);
	pack_uint(out, 5, m->section_epoch);
}

/* Numbers go into `fixed`, everything else into `p`. */
struct unpacked {
	struct parts p;
	struct span mentions[MENTIONS_MOST];
	struct message fixed;
};

static bool read_client_view(struct unpacked *o, const uint8_t *data, size_t len)
{
	static const uint8_t string_of[17] = { [1] = ID + 1, [3] = CONV + 1, [6] = FROM + 1, [7] = TYPE + 1, [10] = CT + 1,
					       [12] = ALT + 1, [13] = REPLY + 1, [16] = EXT + 1 };
	struct unpack u;
	int more;

	unpack_init(&u, data, len);
	while ((more = unpack_next(&u)) > 0) {
		if (u.type == PACK_BYTES && u.field < 17 && string_of[u.field]) {
			o->p.strings[string_of[u.field] - 1] = (struct span){ u.data, u.len };
		} else if (u.type == PACK_BYTES && u.field == 2) {
			if (u.len > IM_MSGID_LEN)
				return false;
			memcpy(o->fixed.msgid, u.data, u.len);
			o->fixed.msgid[u.len] = '\0';
		} else if (u.type == PACK_BYTES && u.field == 9) {
			o->p.body = (struct span){ u.data, u.len };
		} else if (u.type == PACK_BYTES && u.field == 14) {
			if (o->p.n_mentions == MENTIONS_MOST)
				return false;
			o->mentions[o->p.n_mentions++] = (struct span){ u.data, u.len };
		} else if (u.type == PACK_VARINT) {
			switch (u.field) {
			case 4: o->fixed.seq = u.number; break;
			case 5: o->fixed.ts = (int64_t)u.number; break;
			case 8: o->fixed.enc = (Im__V1__Enc)u.number; break;
			case 11: o->fixed.prev = u.number; break;
			case 15: o->fixed.expiry = (int64_t)u.number; break;
			default: break; /* of a newer release */
			}
		}
	}
	return more == 0;
}

static bool read_stored(struct unpacked *o, const uint8_t *data, size_t len)
{
	bool have = false;
	struct unpack u;
	int more;

	unpack_init(&u, data, len);
	while ((more = unpack_next(&u)) > 0) {
		if (u.type == PACK_BYTES && u.field == 1) {
			have = read_client_view(o, u.data, u.len);
			if (!have)
				return false;
		} else if (u.type == PACK_BYTES && u.field == 2) {
			o->p.strings[CLIENT_ID] = (struct span){ u.data, u.len };
		} else if (u.type == PACK_VARINT) {
			switch (u.field) {
			case 3: o->fixed.body_hash = u.number; break;
			case 4: o->fixed.section = (uint32_t)u.number; break;
			case 5: o->fixed.section_epoch = u.number; break;
			default: break;
			}
		}
	}
	return more == 0 && have && o->p.strings[CONV].n > 0;
}

struct message *message_unpack(const uint8_t *data, size_t len, const struct position *pos)
{
	struct unpacked o;
	struct message *m;

	memset(&o.p, 0, sizeof(o.p));
	memset(&o.fixed, 0, sizeof(o.fixed));
	if (!read_stored(&o, data, len))
		return NULL;
	o.p.mentions = o.mentions;
	m = make(&o.p);
	if (!m)
		return NULL;
	if (pos)
		m->pos = *pos;
	memcpy(m->msgid, o.fixed.msgid, sizeof(m->msgid));
	m->seq = o.fixed.seq;
	m->prev = o.fixed.prev;
	m->ts = o.fixed.ts;
	m->expiry = o.fixed.expiry;
	m->enc = o.fixed.enc;
	m->body_hash = o.fixed.body_hash;
	m->section = o.fixed.section;
	m->section_epoch = o.fixed.section_epoch;
	return m;
}

/* protobuf-c has no const; nobody writes through these. */
#define LEND(s) ((char *)(uintptr_t)(s))

void message_view(const struct message *m, const char *conv, Im__V1__Message *out)
{
	im__v1__message__init(out);
	out->id = LEND(m->id);
	out->msgid = LEND(m->msgid);
	out->conv = LEND(conv);
	out->seq = m->seq;
	out->ts = m->ts;
	out->from = LEND(m->from);
	out->type = LEND(m->type);
	out->enc = m->enc;
	out->body.data = (uint8_t *)(uintptr_t)m->body;
	out->body.len = m->body_len;
	out->ct = LEND(m->ct);
	out->prev = m->prev;
	out->alt = LEND(m->alt);
	out->reply = LEND(m->reply);
	out->mentions = (char **)(uintptr_t)m->mentions;
	out->n_mentions = m->n_mentions;
	out->expiry = m->expiry;
	out->ext = LEND(m->ext);
}
