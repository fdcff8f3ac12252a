#include "store_entry.h"
#include "base/clock.h"
#include "pack.h"

#include <stdatomic.h>
#include <stdlib.h>

/* Fields of im.bus.LogEntry. */
enum { NODE = 1, EPOCH, NEXT, MESSAGE, CURSOR, DEVICE, SECTIONS, ROSTER, REFUSAL, MORE, PUSH };

/* ---- making and freeing */

static const char *put(char **at, const char *s)
{
	size_t n = strlen(s) + 1;
	char *start = *at;

	memcpy(start, s, n);
	*at = start + n;
	return start;
}

static bool keep_cursor(struct entry *e, const struct store_cursor *c)
{
	char *at = malloc(strlen(c->user) + strlen(c->device) + strlen(c->conv) + 3);

	if (!at)
		return false;
	e->memory = at;
	e->cursor = *c;
	e->cursor.user = put(&at, c->user);
	e->cursor.device = put(&at, c->device);
	e->cursor.conv = put(&at, c->conv);
	return true;
}

static bool keep_device(struct entry *e, const struct store_device *d)
{
	char *at = malloc(strlen(d->user) + strlen(d->device) + 2);

	if (!at)
		return false;
	e->memory = at;
	e->device = *d;
	e->device.user = put(&at, d->user);
	e->device.device = put(&at, d->device);
	return true;
}

static bool keep_sections(struct entry *e, const struct store_entry *from)
{
	struct section_epoch *list = calloc(from->n_sections ? from->n_sections : 1, sizeof(*list));

	if (!list)
		return false;
	e->memory = list;
	e->sections.list = list;
	e->sections.n = from->n_sections;
	for (size_t i = 0; i < from->n_sections; i++)
		list[i] = (struct section_epoch){ from->sections[i]->section, from->sections[i]->epoch };
	return true;
}

/* The packed bytes first, then the strings that are looked at without unpacking. */
static bool keep_packed(struct entry *e, const ProtobufCMessage *m, const char *user, const char *other)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	char *at = malloc(len + 1 + (user ? strlen(user) + strlen(other) + 2 : 0));

	if (!at)
		return false;
	e->memory = at;
	e->packed.data = (uint8_t *)at;
	e->packed.len = protobuf_c_message_pack(m, e->packed.data);
	at += len;
	if (user) {
		e->packed.user = put(&at, user);
		e->packed.device = e->packed.group = put(&at, other);
	}
	return true;
}

static bool keep(struct entry *e, const struct store_entry *from)
{
	e->kind = from->kind;
	e->pos = from->pos;
	switch (from->kind) {
	case STORE_MESSAGE:
		e->message.m = message_ref(from->message);
		return true;
	case STORE_CURSOR:
		return keep_cursor(e, &from->cursor);
	case STORE_DEVICE:
		return keep_device(e, &from->device);
	case STORE_SECTIONS:
		return keep_sections(e, from);
	case STORE_ROSTER:
		e->packed.key = from->roster->version;
		if (from->roster->member)
			return keep_packed(e, &from->roster->base, from->roster->member->user, from->roster->member->group);
		return keep_packed(e, &from->roster->base, NULL, NULL);
	case STORE_REFUSAL:
		e->packed.key = from->refusal->key;
		e->packed.done = from->refusal->done;
		return keep_packed(e, &from->refusal->base, from->refusal->user, from->refusal->device);
	case STORE_PUSH:
		e->packed.done = from->push->removed;
		if (!keep_packed(e, &from->push->base, from->push->key, ""))
			return false;
		e->packed.name = e->packed.user;
		e->packed.user = NULL; /* no read of a user's changes by it */
		return true;
	case STORE_POSITION:
		return true;
	}
	return false;
}

struct append *append_create(const struct store_entry *entries, size_t n)
{
	struct append *a = calloc(1, sizeof(*a) + n * sizeof(a->entries[0]));

	if (!a)
		return NULL;
	atomic_init(&a->refs, 1);
	for (; a->n < n; a->n++) {
		if (!keep(&a->entries[a->n], &entries[a->n])) {
			append_unref(a);
			return NULL;
		}
	}
	return a;
}

struct append *append_ref(struct append *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	return a;
}

void append_unref(struct append *a)
{
	if (!a || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < a->n; i++) {
		if (a->entries[i].kind == STORE_MESSAGE)
			message_unref(a->entries[i].message.m);
		free(a->entries[i].memory);
	}
	free(a);
}

/* ---- to the log and back */

static void pack_cursor(const struct store_cursor *c, struct im_buf *out)
{
	pack_str(out, 1, c->user);
	pack_str(out, 2, c->device);
	pack_str(out, 3, c->conv);
	pack_uint(out, 4, c->delivered);
	pack_uint(out, 5, c->read);
}

static void pack_device(const struct store_device *d, struct im_buf *out)
{
	pack_str(out, 1, d->user);
	pack_str(out, 2, d->device);
	pack_uint(out, 3, d->named);
	pack_uint(out, 4, d->acks);
	pack_uint(out, 5, d->max_packet);
	pack_uint(out, 6, (uint64_t)d->seen_ms);
	pack_uint(out, 7, d->removed);
}

static void pack_sections(const struct entry *e, struct im_buf *out)
{
	for (size_t i = 0; i < e->sections.n; i++) {
		size_t at = pack_open(out, SECTIONS);

		pack_uint(out, 1, e->sections.list[i].section);
		pack_uint(out, 2, e->sections.list[i].epoch);
		pack_close(out, at);
	}
}

void entry_pack(const struct entry *e, bool more, struct im_buf *out)
{
	size_t at;

	pack_uint(out, NODE, e->pos.node);
	pack_uint(out, EPOCH, e->pos.epoch);
	pack_uint(out, NEXT, e->pos.next);
	pack_uint(out, MORE, more);
	switch (e->kind) {
	case STORE_MESSAGE:
		at = pack_open(out, MESSAGE);
		message_pack(e->message.m, out);
		pack_close(out, at);
		break;
	case STORE_CURSOR:
		at = pack_open(out, CURSOR);
		pack_cursor(&e->cursor, out);
		pack_close(out, at);
		break;
	case STORE_DEVICE:
		at = pack_open(out, DEVICE);
		pack_device(&e->device, out);
		pack_close(out, at);
		break;
	case STORE_SECTIONS:
		pack_sections(e, out);
		break;
	case STORE_ROSTER:
	case STORE_REFUSAL:
	case STORE_PUSH:
		at = pack_open(out, e->kind == STORE_ROSTER ? ROSTER : e->kind == STORE_REFUSAL ? REFUSAL : PUSH);
		im_buf_add(out, e->packed.data, e->packed.len);
		pack_close(out, at);
		break;
	case STORE_POSITION:
		/* A record has at least one byte: the node, if nothing else. */
		if (e->pos.node == 0 && e->pos.epoch == 0 && e->pos.next == 0 && !more)
			im_buf_add(out, "\x08\x00", 2);
		break;
	}
}

static enum im_status unpack_message(const uint8_t *data, size_t len, const struct position *pos, struct append **out)
{
	struct store_entry e = { .kind = STORE_MESSAGE, .pos = *pos };

	e.message = message_unpack(data, len, pos);
	if (!e.message)
		return IM_BAD_INPUT;
	*out = append_create(&e, 1);
	message_unref(e.message);
	return *out ? IM_OK : IM_FAILED;
}

/* Everything that is not a message is rare: protobuf-c does it. */
static enum im_status unpack_other(const uint8_t *data, size_t len, const struct position *pos, struct append **out)
{
	struct store_entry e = { .kind = STORE_POSITION, .pos = *pos };
	Im__Bus__LogEntry *le = im__bus__log_entry__unpack(NULL, len, data);

	if (!le)
		return IM_BAD_INPUT;
	if (le->cursor) {
		e.kind = STORE_CURSOR;
		e.cursor = (struct store_cursor){ le->cursor->user, le->cursor->device, le->cursor->conv, le->cursor->delivered, le->cursor->read };
	} else if (le->device) {
		e.kind = STORE_DEVICE;
		e.device = (struct store_device){ .user = le->device->user, .device = le->device->device, .named = le->device->named,
						  .acks = le->device->acks, .removed = le->device->removed,
						  .max_packet = le->device->max_packet, .seen_ms = le->device->seen_ms };
	} else if (le->n_sections) {
		e.kind = STORE_SECTIONS;
		e.sections = (const Im__Bus__StoredSection *const *)le->sections;
		e.n_sections = le->n_sections;
	} else if (le->roster) {
		e.kind = STORE_ROSTER;
		e.roster = le->roster;
	} else if (le->refusal) {
		e.kind = STORE_REFUSAL;
		e.refusal = le->refusal;
	} else if (le->push) {
		e.kind = STORE_PUSH;
		e.push = le->push;
	}
	*out = append_create(&e, 1);
	im__bus__log_entry__free_unpacked(le, NULL);
	return *out ? IM_OK : IM_FAILED;
}

enum im_status entry_unpack(const uint8_t *data, size_t len, struct append **out, bool *more_follow)
{
	const uint8_t *message = NULL;
	struct position pos = { 0 };
	size_t message_len = 0;
	struct unpack u;
	int more;

	*more_follow = false;
	unpack_init(&u, data, len);
	while ((more = unpack_next(&u)) > 0) {
		if (u.type == PACK_VARINT && u.field == NODE)
			pos.node = (uint32_t)u.number;
		else if (u.type == PACK_VARINT && u.field == EPOCH)
			pos.epoch = u.number;
		else if (u.type == PACK_VARINT && u.field == NEXT)
			pos.next = u.number;
		else if (u.type == PACK_VARINT && u.field == MORE)
			*more_follow = u.number != 0;
		else if (u.type == PACK_BYTES && u.field == MESSAGE) {
			message = u.data;
			message_len = u.len;
		}
	}
	if (more < 0)
		return IM_BAD_INPUT;
	return message ? unpack_message(message, message_len, &pos, out) : unpack_other(data, len, &pos, out);
}

/* ---- whom and when it concerns */

int64_t entry_day(const struct message *m)
{
	int64_t tomorrow = im_clock_wall_ms() / DAY_MS + 1, day = m->ts / DAY_MS;

	if (day < 0)
		return 0;
	return day < tomorrow ? day : tomorrow;
}

bool conv_parties(const char *conv, char a[IM_NAME_MAX + 1], char b[IM_NAME_MAX + 1])
{
	const char *colon;
	size_t n;

	if (conv[0] != 'u' || conv[1] != '/')
		return false;
	colon = strchr(conv + 2, ':');
	if (!colon)
		return false;
	n = (size_t)(colon - (conv + 2));
	if (n == 0 || n > IM_NAME_MAX || strlen(colon + 1) == 0 || strlen(colon + 1) > IM_NAME_MAX)
		return false;
	memcpy(a, conv + 2, n);
	a[n] = '\0';
	memcpy(b, colon + 1, strlen(colon + 1) + 1);
	return true;
}

size_t entry_users(const struct entry *e, struct entry_room *room, const char *users[2])
{
	switch (e->kind) {
	case STORE_MESSAGE: /* only a conversation's first message makes it appear in lists */
		if (e->message.m->prev != 0 || !conv_parties(e->message.m->conv, room->a, room->b))
			return 0;
		users[0] = room->a;
		users[1] = room->b;
		return strcmp(room->a, room->b) == 0 ? 1 : 2;
	case STORE_CURSOR:
		users[0] = e->cursor.user;
		return 1;
	case STORE_DEVICE:
		users[0] = e->device.user;
		return 1;
	case STORE_ROSTER:
	case STORE_REFUSAL:
		users[0] = e->packed.user;
		return e->packed.user ? 1 : 0;
	default:
		return 0;
	}
}

/* ---- queues */

void append_queue_init(struct append_queue *q)
{
	q->first = NULL;
	q->last = &q->first;
	q->n = 0;
}

void append_queue_put(struct append_queue *q, struct append *a)
{
	a->next = NULL;
	*q->last = a;
	q->last = &a->next;
	q->n += a->n;
}

struct append *append_queue_take(struct append_queue *q)
{
	struct append *a = q->first;

	if (!a)
		return NULL;
	q->first = a->next;
	if (!q->first)
		q->last = &q->first;
	q->n -= a->n;
	a->next = NULL;
	return a;
}

void append_queue_move(struct append_queue *to, struct append_queue *from)
{
	if (!from->first)
		return;
	*to->last = from->first;
	to->last = from->last;
	to->n += from->n;
	append_queue_init(from);
}
