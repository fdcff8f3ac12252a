#include "store_read.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

#define SLOW_MS 1000 /* an answer that took so long is worth a line */

static struct store_read *read_create(enum read_kind kind)
{
	struct store_read *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->kind = kind;
	r->st = IM_OK;
	return r;
}

static void read_free(struct store_read *r, struct store_tail *t)
{
	struct read_conv *c, *next_conv;
	struct read_device *d, *next_device;
	struct read_refusal *f, *next_refusal;

	if (r->holds)
		store_tail_release(t);
	for (size_t i = 0; r->pinned && i < r->n_convs; i++)
		store_tail_unpin(t, r->pinned[i]);
	for (size_t i = 0; i < r->n_tail; i++)
		message_unref(r->tail[i]);
	for (size_t i = 0; i < r->n_rows; i++)
		message_unref(r->rows[i]);
	for (size_t i = 0; i < r->n_notes; i++)
		append_unref(r->notes[i].owner);
	HASH_ITER(hh, r->user_convs, c, next_conv) {
		HASH_DEL(r->user_convs, c);
		free(c);
	}
	HASH_ITER(hh, r->devices, d, next_device) {
		HASH_DEL(r->devices, d);
		free(d);
	}
	HASH_ITER(hh, r->refusals, f, next_refusal) {
		HASH_DEL(r->refusals, f);
		free(f->data);
		free(f);
	}
	free(r->user);
	free(r->device);
	free(r->conv);
	free(r->pinned);
	free(r->last_ts);
	free(r->hashes);
	free(r->days);
	free(r->tail);
	free(r->notes);
	free(r->rows);
	free(r->numbers);
	free(r);
}

/* ---- asking */

static bool lookup_memory(struct store_read *r)
{
	r->pinned = calloc(r->n_convs + 1, sizeof(*r->pinned));
	r->last_ts = calloc(r->n_convs + 1, sizeof(*r->last_ts));
	r->hashes = calloc(r->n_ids + 1, sizeof(*r->hashes));
	r->days = calloc(r->n_ids + 1, sizeof(*r->days));
	return r->pinned && r->last_ts && r->hashes && r->days;
}

struct store_read *read_lookup(struct store_tail *t, struct store_lookup_conv *convs, size_t n_convs, struct store_lookup_id *ids, size_t n_ids)
{
	struct store_read *r = read_create(READ_LOOKUP);

	if (!r)
		return NULL;
	r->convs = convs;
	r->n_convs = n_convs;
	r->ids = ids;
	r->n_ids = n_ids;
	for (size_t i = 0; i < n_ids; i++)
		ids[i].found = NULL;
	if (!lookup_memory(r)) {
		r->n_convs = 0;
		read_free(r, t);
		return NULL;
	}
	for (size_t i = 0; i < n_convs; i++) {
		convs[i].last_seq = 0;
		if (store_tail_newest(t, convs[i].conv, &convs[i].last_seq, &r->last_ts[i]))
			continue;
		r->pinned[i] = store_tail_conv(t, convs[i].conv);
		if (!r->pinned[i])
			r->st = IM_FAILED;
		r->needs_rows = true;
	}
	for (size_t i = 0; i < n_ids; i++) {
		ids[i].found = store_tail_find_id(t, &ids[i], &r->hashes[i], &r->days[i], &r->today);
		if (!ids[i].found && r->days[i])
			r->needs_rows = true;
	}
	return r;
}

/* Tail messages up to the limits, in the order asked for. Returns whether the limits end the answer here. */
static bool take_tail(struct store_read *r, struct message *const *list, size_t n)
{
	size_t bytes = 0;

	for (size_t i = 0; i < n; i++) {
		struct message *m = list[r->range.newest_first ? n - 1 - i : i];

		if (r->n_tail == r->range.limit)
			return true;
		if (r->range.newest_first && r->n_tail && r->range.max_bytes && bytes + m->body_len > r->range.max_bytes)
			return true;
		bytes += m->body_len;
		r->tail[r->n_tail++] = message_ref(m);
	}
	if (r->range.newest_first)
		r->row_bytes = bytes;
	return r->n_tail == r->range.limit;
}

struct store_read *read_history(struct store_tail *t, const struct store_range *range)
{
	struct store_read *r = read_create(READ_HISTORY);
	struct message *const *list;
	uint64_t first, last = 0;
	int64_t ts;
	bool ended;
	size_t n;

	if (!r)
		return NULL;
	r->range = *range;
	if (r->range.limit > READ_LIMIT || r->range.limit == 0)
		r->range.limit = READ_LIMIT;
	if (r->range.to == 0 || r->range.to > INT64_MAX)
		r->range.to = INT64_MAX;
	r->conv = strdup(range->conv);
	r->tail = calloc(r->range.limit, sizeof(*r->tail));
	if (!r->conv || !r->tail) {
		read_free(r, t);
		return NULL;
	}
	r->range.conv = r->conv;
	list = store_tail_messages(t, range->conv, r->range.from, &n, &first);
	while (n && list[n - 1]->seq > r->range.to)
		n--;
	ended = take_tail(r, list, n);
	r->row_to = first <= r->range.to ? first - 1 : r->range.to;
	r->needs_rows = r->range.from <= r->row_to && !(r->range.newest_first && ended);
	if (store_tail_newest(t, range->conv, &last, &ts) && last < r->range.from)
		r->needs_rows = false;
	return r;
}

bool read_counts(const struct store_read *r, const struct message *m)
{
	return strcmp(m->from, r->user) != 0 && strcmp(m->type, "system") != 0;
}

struct store_read *read_unread(struct store_tail *t, const char *user, const char *conv, uint64_t read)
{
	struct store_read *r = read_create(READ_UNREAD);
	struct message *const *list;
	uint64_t first, last = 0;
	int64_t ts;
	size_t n;

	if (!r)
		return NULL;
	r->user = strdup(user);
	r->conv = strdup(conv);
	if (!r->user || !r->conv) {
		read_free(r, t);
		return NULL;
	}
	r->range.from = read + 1;
	list = store_tail_messages(t, conv, read + 1, &n, &first);
	while (n-- > 0 && r->count < UNREAD_MOST)
		r->count += read_counts(r, list[n]);
	r->row_to = first <= INT64_MAX ? first - 1 : INT64_MAX;
	r->needs_rows = r->count < UNREAD_MOST && r->range.from <= r->row_to;
	if (store_tail_newest(t, conv, &last, &ts) && last <= read)
		r->needs_rows = false;
	return r;
}

struct store_read *read_stream(uint64_t after, unsigned limit)
{
	struct store_read *r = read_create(READ_STREAM);

	if (!r)
		return NULL;
	r->range.from = after;
	r->range.limit = limit == 0 || limit > READ_LIMIT ? READ_LIMIT : limit;
	r->needs_rows = true;
	r->numbers = calloc(r->range.limit, sizeof(*r->numbers));
	if (!r->numbers) {
		free(r);
		return NULL;
	}
	return r;
}

struct store_read *read_user(struct store_tail *t, enum read_kind kind, const char *user, const char *device)
{
	struct store_read *r = read_create(kind);
	const struct tail_note *note;
	size_t n;

	if (!r)
		return NULL;
	r->needs_rows = true;
	r->holds = true;
	store_tail_hold(t);
	note = store_tail_notes(t, user, &n);
	r->user = strdup(user);
	r->device = strdup(device);
	r->notes = calloc(n + 1, sizeof(*r->notes));
	if (!r->user || !r->device || !r->notes) {
		read_free(r, t);
		return NULL;
	}
	for (; note; note = note->next) {
		r->notes[r->n_notes] = *note;
		append_ref(r->notes[r->n_notes++].owner);
	}
	return r;
}

/* ---- what rows bring */

bool read_wants_more(const struct store_read *r, const struct message *m)
{
	size_t before = r->range.newest_first ? r->n_tail : 0;

	if (r->n_rows + before >= r->range.limit)
		return false;
	return r->n_rows + before == 0 || r->range.max_bytes == 0 || r->row_bytes + m->body_len <= r->range.max_bytes;
}

bool read_add_message(struct store_read *r, struct message *m)
{
	if (r->n_rows == r->cap_rows) {
		size_t cap = r->cap_rows ? 2 * r->cap_rows : 64;
		struct message **more = realloc(r->rows, cap * sizeof(*more));

		if (!more) {
			message_unref(m);
			r->st = IM_FAILED;
			return false;
		}
		r->rows = more;
		r->cap_rows = cap;
	}
	r->rows[r->n_rows++] = m;
	r->row_bytes += m->body_len;
	return true;
}

bool read_add_numbered(struct store_read *r, uint64_t number, struct message *m)
{
	if (r->n_rows == r->range.limit) {
		message_unref(m);
		return false;
	}
	r->numbers[r->n_rows] = number;
	return read_add_message(r, m);
}

struct read_conv *read_add_conv(struct store_read *r, const char *name)
{
	size_t len = strlen(name);
	struct read_conv *c;

	HASH_FIND(hh, r->user_convs, name, len, c);
	if (c)
		return c;
	c = calloc(1, sizeof(*c) + len + 1);
	if (!c) {
		r->st = IM_FAILED;
		return NULL;
	}
	memcpy(c->name, name, len + 1);
	HASH_ADD_KEYPTR(hh, r->user_convs, c->name, len, c);
	return c;
}

static void forget_device(struct store_read *r, const char *name)
{
	struct read_device *d;

	HASH_FIND(hh, r->devices, name, strlen(name), d);
	if (!d)
		return;
	HASH_DEL(r->devices, d);
	free(d);
}

bool read_set_device(struct store_read *r, const struct store_device *from)
{
	size_t len = strlen(from->device);
	struct read_device *d;

	forget_device(r, from->device);
	d = calloc(1, sizeof(*d) + len + 1);
	if (!d) {
		r->st = IM_FAILED;
		return false;
	}
	memcpy(d->name, from->device, len + 1);
	d->d = *from;
	d->d.user = r->user;
	d->d.device = d->name;
	HASH_ADD_KEYPTR(hh, r->devices, d->name, len, d);
	return true;
}

static void forget_refusal(struct store_read *r, struct read_refusal *f)
{
	HASH_DEL(r->refusals, f);
	free(f->data);
	free(f);
}

bool read_add_refusal(struct store_read *r, uint64_t key, const void *data, size_t len)
{
	struct read_refusal *f;

	HASH_FIND(hh, r->refusals, &key, sizeof(key), f);
	if (f)
		return true;
	f = calloc(1, sizeof(*f));
	if (f)
		f->data = malloc(len + 1);
	if (!f || !f->data) {
		free(f);
		r->st = IM_FAILED;
		return false;
	}
	memcpy(f->data, data, len);
	f->len = len;
	f->key = key;
	HASH_ADD(hh, r->refusals, key, sizeof(f->key), f);
	return true;
}

/* ---- the tail on top of the rows. Entries that have rows meanwhile are applied twice, which changes nothing. */

static void raise_to(uint64_t *value, uint64_t to)
{
	if (to > *value)
		*value = to;
}

static void overlay_cursor(struct store_read *r, const struct store_cursor *c)
{
	struct read_conv *rc;

	if (r->kind == READ_DEVICES)
		return;
	rc = read_add_conv(r, c->conv);
	if (!rc)
		return;
	raise_to(&rc->read, c->read);
	raise_to(&rc->delivered, c->delivered);
	if (strcmp(c->device, r->device) == 0)
		raise_to(&rc->device, c->delivered);
}

static void overlay_removal(struct store_read *r, const char *device)
{
	struct read_refusal *f, *next;
	struct read_conv *c;

	forget_device(r, device);
	if (r->kind != READ_DEVICE)
		return;
	for (c = r->user_convs; c; c = c->hh.next)
		c->device = 0;
	HASH_ITER(hh, r->refusals, f, next)
		forget_refusal(r, f);
}

static void overlay_device(struct store_read *r, const struct store_device *d)
{
	if (r->kind == READ_CONVERSATIONS || (r->kind == READ_DEVICE && strcmp(d->device, r->device) != 0))
		return;
	if (d->removed)
		overlay_removal(r, d->device);
	else
		(void)read_set_device(r, d); /* st has the failure */
}

static void overlay_refusal(struct store_read *r, const struct entry *e)
{
	struct read_refusal *f;

	if (r->kind != READ_DEVICE || strcmp(e->packed.device, r->device) != 0)
		return;
	if (!e->packed.done) {
		(void)read_add_refusal(r, e->packed.key, e->packed.data, e->packed.len); /* st has the failure */
		return;
	}
	HASH_FIND(hh, r->refusals, &e->packed.key, sizeof(e->packed.key), f);
	if (f)
		forget_refusal(r, f);
}

static void overlay_group(struct store_read *r, const char *group)
{
	char name[IM_CONV_MAX] = "g/";

	if (r->kind == READ_CONVERSATIONS && strlen(group) <= IM_NAME_MAX)
		(void)read_add_conv(r, strcat(name, group)); /* st has the failure */
}

void read_overlay(struct store_read *r)
{
	for (size_t i = 0; i < r->n_notes; i++) {
		const struct entry *e = r->notes[i].entry;

		switch (e->kind) {
		case STORE_CURSOR: overlay_cursor(r, &e->cursor); break;
		case STORE_DEVICE: overlay_device(r, &e->device); break;
		case STORE_REFUSAL: overlay_refusal(r, e); break;
		case STORE_ROSTER: overlay_group(r, e->packed.group); break;
		case STORE_MESSAGE:
			if (r->kind == READ_CONVERSATIONS)
				(void)read_add_conv(r, e->message.m->conv); /* st has the failure */
			break;
		default: break;
		}
	}
}

/* ---- answering */

static void answer_lookup(struct store_read *r)
{
	for (size_t i = 0; i < r->n_convs; i++) {
		if (!r->pinned[i] || r->st != IM_OK)
			continue;
		store_conv_learn(r->pinned[i], r->convs[i].last_seq, r->last_ts[i]);
		(void)store_conv_known(r->pinned[i], &r->convs[i].last_seq, &r->last_ts[i]); /* it is now */
	}
	for (size_t i = 0; i < r->n_ids && r->st != IM_OK; i++) {
		message_unref(r->ids[i].found);
		r->ids[i].found = NULL;
	}
}

/* Never with a hole: a large row that did not fit is not passed over for smaller messages of the tail. */
static void answer_history(struct store_read *r)
{
	size_t n = 0, bytes = 0, all = r->n_rows + (r->rows_cut && !r->range.newest_first ? 0 : r->n_tail);

	for (size_t i = 0; i < all && n < r->range.limit; i++) {
		bool down = r->range.newest_first;
		size_t first = down ? r->n_tail : r->n_rows;
		struct message *m = i < first ? (down ? r->tail : r->rows)[i] : (down ? r->rows : r->tail)[i - first];

		if (n && r->range.max_bytes && bytes + m->body_len > r->range.max_bytes)
			return;
		bytes += m->body_len;
		n++;
		r->on_message(r->arg, m);
	}
}

/* A 1:1 conversation shows from its first message on; a cursor alone does not make one. */
static void answer_conversations(struct store_read *r, struct store_tail *t)
{
	struct read_conv *c, *next;

	HASH_ITER(hh, r->user_convs, c, next) {
		struct store_conversation out = { c->name, c->last_seq, c->last_ts, c->read, c->delivered };

		(void)store_tail_newest(t, c->name, &out.last_seq, &out.last_ts); /* else the rows' */
		if (out.last_seq || im_conv_is_group(c->name))
			r->on_conversation(r->arg, &out);
	}
}

static void answer_device(struct store_read *r)
{
	struct read_device *d, *next_device;
	struct read_refusal *f, *next_refusal;
	struct read_conv *c, *next_conv;

	HASH_ITER(hh, r->devices, d, next_device)
		r->on_device(r->arg, &d->d);
	if (r->kind == READ_DEVICES)
		return;
	HASH_ITER(hh, r->user_convs, c, next_conv) {
		struct store_cursor out = { r->user, r->device, c->name, c->device, c->read };

		if (c->device)
			r->on_cursor(r->arg, &out);
	}
	HASH_ITER(hh, r->refusals, f, next_refusal) {
		Im__Bus__StoredRefusal *out = im__bus__stored_refusal__unpack(NULL, f->len, f->data);

		if (!out)
			continue; /* damaged: not worth failing a connect for */
		r->on_refusal(r->arg, out);
		im__bus__stored_refusal__free_unpacked(out, NULL);
	}
}

static void answer_stream(struct store_read *r)
{
	for (size_t i = 0; i < r->n_rows; i++)
		r->on_stream(r->arg, r->numbers[i], r->rows[i]);
}

static void note_slowness(const struct store_read *r)
{
	static const char *const names[] = { "lookup", "history", "conversations", "unread", "device", "devices", "stream" };
	int64_t took = im_clock_mono_ms() - r->asked_ms;

	if (took >= SLOW_MS)
		im_log(IM_LOG_WARNING, "evt=store_slow question=%s ms=%lld", names[r->kind], (long long)took);
}

void read_answer(struct store_read *r, struct store_tail *t)
{
	note_slowness(r);
	if (r->kind == READ_LOOKUP)
		answer_lookup(r);
	if (r->st == IM_OK) {
		switch (r->kind) {
		case READ_HISTORY: answer_history(r); break;
		case READ_CONVERSATIONS: answer_conversations(r, t); break;
		case READ_DEVICE:
		case READ_DEVICES: answer_device(r); break;
		case READ_STREAM: answer_stream(r); break;
		default: break;
		}
	}
	if (r->kind == READ_UNREAD)
		r->on_count(r->arg, r->st, r->count < UNREAD_MOST ? r->count : UNREAD_MOST);
	else
		r->done(r->arg, r->st);
	read_free(r, t);
}

void read_queue_init(struct read_queue *q)
{
	q->first = NULL;
	q->last = &q->first;
}

void read_queue_put(struct read_queue *q, struct store_read *r)
{
	r->next = NULL;
	*q->last = r;
	q->last = &r->next;
}

struct store_read *read_queue_take(struct read_queue *q)
{
	struct store_read *r = q->first;

	if (!r)
		return NULL;
	q->first = r->next;
	if (!q->first)
		q->last = &q->first;
	return r;
}
