/* The store of delivery_world.h: small arrays, searched from the front, and the questions that wait for their answer. */
#include "delivery_store.h"

#include "delivery_world.h"

#include "base/clock.h"
#include "store.h"
#include "wire/topic.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY 20000

struct cursor_row {
	char user[IM_NAME_MAX + 1], device[IM_CLIENT_ID_MAX + 1], conv[IM_CONV_MAX];
	uint64_t delivered, read;
};
struct device_row {
	char user[IM_NAME_MAX + 1], device[IM_CLIENT_ID_MAX + 1];
	bool named, acks;
	uint32_t max_packet;
	int64_t seen_ms;
};
struct refusal_row {
	char user[IM_NAME_MAX + 1], device[IM_CLIENT_ID_MAX + 1], code[32];
	uint64_t key;
	int64_t ts;
	bool done;
};

static struct message *messages[MANY];
static size_t n_messages, n_told;
static struct {
	uint64_t session;
} tells[MANY];
static struct cursor_row cursors[MANY];
static size_t n_cursors;
static struct device_row devices[2048];
static size_t n_devices;
static struct refusal_row refusals[512];
static size_t n_refusals;

enum ask_kind { ASK_APPEND, ASK_HISTORY, ASK_CONVERSATIONS, ASK_DEVICE, ASK_DEVICES, ASK_UNREAD };

struct request {
	struct request *next;
	enum ask_kind kind;
	char user[IM_NAME_MAX + 1], device[IM_CLIENT_ID_MAX + 1], conv[IM_CONV_MAX];
	struct store_range range;
	uint64_t read;
	size_t seen;               /* messages there were when it was asked */
	struct cursor_row *cursor_rows;
	struct device_row *device_rows;
	bool *removed;
	size_t n_cursor_rows, n_device_rows;
	uint64_t *done_keys;
	size_t n_done;
	store_message_fn *message;
	store_conversation_fn *conversation;
	store_device_fn *device_fn;
	store_cursor_fn *cursor;
	store_refusal_fn *refusal;
	store_count_fn *count;
	store_done_fn *done;
	void *arg;
};

static struct request *requests;

static struct request *ask(enum ask_kind kind, const char *user, const char *device, const char *conv, store_done_fn *done, void *arg)
{
	struct request *q = calloc(1, sizeof *q), **link = &requests;

	q->kind = kind;
	snprintf(q->user, sizeof q->user, "%s", user);
	snprintf(q->device, sizeof q->device, "%s", device);
	snprintf(q->conv, sizeof q->conv, "%s", conv);
	q->seen = n_messages;
	q->done = done;
	q->arg = arg;
	while (*link)
		link = &(*link)->next;
	*link = q;
	return q;
}

void store_append(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg)
{
	struct request *q = ask(ASK_APPEND, "", "", "", done, arg);

	(void)s;
	q->cursor_rows = calloc(n, sizeof *q->cursor_rows);
	q->device_rows = calloc(n, sizeof *q->device_rows);
	q->removed = calloc(n, sizeof *q->removed);
	q->done_keys = calloc(n, sizeof *q->done_keys);
	for (size_t i = 0; i < n; i++) {
		const struct store_entry *e = &entries[i];

		if (e->kind == STORE_CURSOR) {
			struct cursor_row *r = &q->cursor_rows[q->n_cursor_rows++];

			snprintf(r->user, sizeof r->user, "%s", e->cursor.user);
			snprintf(r->device, sizeof r->device, "%s", e->cursor.device);
			snprintf(r->conv, sizeof r->conv, "%s", e->cursor.conv);
			r->delivered = e->cursor.delivered;
			r->read = e->cursor.read;
		} else if (e->kind == STORE_DEVICE) {
			struct device_row *r = &q->device_rows[q->n_device_rows];

			snprintf(r->user, sizeof r->user, "%s", e->device.user);
			snprintf(r->device, sizeof r->device, "%s", e->device.device);
			r->named = e->device.named;
			r->acks = e->device.acks;
			r->max_packet = e->device.max_packet;
			r->seen_ms = e->device.seen_ms;
			q->removed[q->n_device_rows++] = e->device.removed;
		} else if (e->kind == STORE_REFUSAL) {
			assert_true(e->refusal->done);
			q->done_keys[q->n_done++] = e->refusal->key;
		}
	}
}

void store_history(struct store *s, const struct store_range *range, store_message_fn *row, store_done_fn *done, void *arg)
{
	struct request *q = ask(ASK_HISTORY, "", "", range->conv, done, arg);

	(void)s;
	assert_true(range->limit > 0 && range->limit <= 1000);
	assert_true(range->from > 0);
	q->range = *range;
	q->message = row;
}

void store_conversations(struct store *s, const char *user, store_conversation_fn *row, store_done_fn *done, void *arg)
{
	(void)s;
	ask(ASK_CONVERSATIONS, user, "", "", done, arg)->conversation = row;
}

void store_unread(struct store *s, const char *user, const char *conv, uint64_t read, store_count_fn *done, void *arg)
{
	struct request *q = ask(ASK_UNREAD, user, "", conv, NULL, arg);

	(void)s;
	q->read = read;
	q->count = done;
}

void store_device(struct store *s, const char *user, const char *device, store_device_fn *row, store_cursor_fn *cursor,
		  store_refusal_fn *refusal, store_done_fn *done, void *arg)
{
	struct request *q = ask(ASK_DEVICE, user, device, "", done, arg);

	(void)s;
	q->device_fn = row;
	q->cursor = cursor;
	q->refusal = refusal;
}

void store_devices(struct store *s, const char *user, store_device_fn *row, store_done_fn *done, void *arg)
{
	(void)s;
	ask(ASK_DEVICES, user, "", "", done, arg)->device_fn = row;
}

const struct store_start *store_start(struct store *s)
{
	static const struct store_start start = { .epoch = "0123456789abcdef" };

	(void)s;
	return &start;
}

static struct device_row *device_row(const char *user, const char *device)
{
	for (size_t i = 0; i < n_devices; i++)
		if (strcmp(devices[i].user, user) == 0 && strcmp(devices[i].device, device) == 0)
			return &devices[i];
	return NULL;
}

static struct cursor_row *cursor_row(const char *user, const char *device, const char *conv, bool make)
{
	for (size_t i = 0; i < n_cursors; i++)
		if (strcmp(cursors[i].user, user) == 0 && strcmp(cursors[i].device, device) == 0 && strcmp(cursors[i].conv, conv) == 0)
			return &cursors[i];
	if (!make)
		return NULL;
	assert_true(n_cursors < MANY);
	memset(&cursors[n_cursors], 0, sizeof cursors[0]);
	snprintf(cursors[n_cursors].user, sizeof cursors[0].user, "%s", user);
	snprintf(cursors[n_cursors].device, sizeof cursors[0].device, "%s", device);
	snprintf(cursors[n_cursors].conv, sizeof cursors[0].conv, "%s", conv);
	return &cursors[n_cursors++];
}

void stored_move(const char *user, const char *device, const char *conv, uint64_t delivered, uint64_t read)
{
	struct cursor_row *r = cursor_row(user, device, conv, true);

	if (r->delivered < delivered)
		r->delivered = delivered;
	if (r->read < read)
		r->read = read;
}

static void forget_device(const char *user, const char *device)
{
	struct device_row *row = device_row(user, device);

	if (row)
		*row = devices[--n_devices];
	for (size_t i = 0; i < n_cursors;) {
		if (strcmp(cursors[i].user, user) == 0 && strcmp(cursors[i].device, device) == 0)
			cursors[i] = cursors[--n_cursors];
		else
			i++;
	}
}

static void apply(const struct request *q)
{
	for (size_t i = 0; i < q->n_device_rows; i++) {
		const struct device_row *r = &q->device_rows[i];
		struct device_row *row = device_row(r->user, r->device);

		if (q->removed[i]) {
			forget_device(r->user, r->device);
			continue;
		}
		assert_true(row || n_devices < 2048);
		*(row ? row : &devices[n_devices++]) = *r;
	}
	for (size_t i = 0; i < q->n_cursor_rows; i++)
		stored_move(q->cursor_rows[i].user, q->cursor_rows[i].device, q->cursor_rows[i].conv, q->cursor_rows[i].delivered, q->cursor_rows[i].read);
	for (size_t i = 0; i < q->n_done; i++)
		for (size_t j = 0; j < n_refusals; j++)
			if (refusals[j].key == q->done_keys[i])
				refusals[j].done = true;
}

static bool takes_part(const char *conv, const char *user)
{
	const struct roster_stay *stays;
	char face[IM_CONV_MAX];

	if (im_conv_is_group(conv))
		return roster_stays(world.roster, conv + 2, user, &stays) > 0;
	return im_conv_as_seen(conv, user, face);
}

static void answer_history(struct request *q)
{
	size_t end = q->seen + (n_messages > q->seen ? world_random((unsigned)(n_messages - q->seen) + 1) : 0);
	size_t bytes = 0;
	unsigned n = 0;

	for (size_t i = 0; i < end && n < q->range.limit; i++) {
		struct message *m = messages[i];

		if (strcmp(m->conv, q->conv) != 0 || m->seq < q->range.from || (q->range.to && m->seq > q->range.to))
			continue;
		if (n && bytes + m->body_len > q->range.max_bytes)
			break;
		bytes += m->body_len;
		n++;
		q->message(q->arg, m);
	}
}

static void answer_conversations(struct request *q)
{
	for (size_t i = 0; i < n_messages; i++) {
		struct store_conversation c = { .conv = messages[i]->conv };
		bool first = true;

		for (size_t j = 0; j < i && first; j++)
			first = strcmp(messages[j]->conv, c.conv) != 0;
		if (!first || !takes_part(c.conv, q->user))
			continue;
		for (size_t j = i; j < n_messages; j++)
			if (strcmp(messages[j]->conv, c.conv) == 0) {
				c.last_seq = messages[j]->seq;
				c.last_ts = messages[j]->ts;
			}
		for (size_t j = 0; j < n_cursors; j++) {
			if (strcmp(cursors[j].user, q->user) != 0 || strcmp(cursors[j].conv, c.conv) != 0)
				continue;
			if (c.delivered < cursors[j].delivered)
				c.delivered = cursors[j].delivered;
			if (c.read < cursors[j].read)
				c.read = cursors[j].read;
		}
		q->conversation(q->arg, &c);
	}
}

static void answer_device_row(struct request *q, const struct device_row *r)
{
	struct store_device row = { .user = r->user, .device = r->device, .named = r->named, .acks = r->acks,
				    .max_packet = r->max_packet, .seen_ms = r->seen_ms };

	q->device_fn(q->arg, &row);
}

static void answer_device(struct request *q)
{
	const struct device_row *r = device_row(q->user, q->device);

	if (r)
		answer_device_row(q, r);
	for (size_t i = 0; r && i < n_cursors; i++) {
		struct store_cursor c = { cursors[i].user, cursors[i].device, cursors[i].conv, cursors[i].delivered, 0 };

		if (strcmp(c.user, q->user) == 0 && strcmp(c.device, q->device) == 0)
			q->cursor(q->arg, &c);
	}
	for (size_t i = 0; i < n_refusals; i++) {
		Im__Bus__StoredRefusal out = IM__BUS__STORED_REFUSAL__INIT;
		Im__V1__Error e = IM__V1__ERROR__INIT;

		if (refusals[i].done || strcmp(refusals[i].user, q->user) != 0 || strcmp(refusals[i].device, q->device) != 0)
			continue;
		e.code = refusals[i].code;
		out.key = refusals[i].key;
		out.ts = refusals[i].ts;
		out.user = refusals[i].user;
		out.device = refusals[i].device;
		out.error = &e;
		q->refusal(q->arg, &out);
	}
}

static void request_end(struct request *q, enum im_status st, unsigned count)
{
	if (q->count)
		q->count(q->arg, st, count > 100 ? 100 : count);
	else
		q->done(q->arg, st);
	free(q->cursor_rows);
	free(q->device_rows);
	free(q->removed);
	free(q->done_keys);
	free(q);
}

static void answer(struct request *q)
{
	enum im_status st = world.fail_reads && q->kind != ASK_APPEND ? IM_FAILED : IM_OK;
	unsigned n = 0;

	if (q->kind == ASK_APPEND)
		apply(q);
	else if (st != IM_OK)
		;
	else if (q->kind == ASK_HISTORY)
		answer_history(q);
	else if (q->kind == ASK_CONVERSATIONS)
		answer_conversations(q);
	else if (q->kind == ASK_DEVICE)
		answer_device(q);
	else if (q->kind == ASK_DEVICES)
		for (size_t i = 0; i < n_devices; i++)
			if (strcmp(devices[i].user, q->user) == 0)
				answer_device_row(q, &devices[i]);
	for (size_t i = 0; q->kind == ASK_UNREAD && i < n_messages; i++)
		n += strcmp(messages[i]->conv, q->conv) == 0 && messages[i]->seq > q->read && strcmp(messages[i]->from, q->user) != 0;
	request_end(q, st, n);
}

/* Appends are answered in order; anything else in any. */
bool world_step(void)
{
	struct request **pick = NULL, **link;
	unsigned n = 0;
	bool append_seen = false;

	for (link = &requests; *link; link = &(*link)->next) {
		bool append = (*link)->kind == ASK_APPEND;

		if (append && append_seen)
			continue;
		append_seen |= append;
		if (world_random(++n) == 0)
			pick = link;
	}
	if (!pick)
		return false;
	struct request *q = *pick;

	*pick = q->next;
	answer(q);
	delivery_flush(world.delivery);
	return true;
}

unsigned world_waiting(void)
{
	unsigned n = 0;

	for (struct request *q = requests; q; q = q->next)
		n++;
	return n;
}

uint64_t world_cursor(const char *user, const char *device, const char *conv)
{
	const struct cursor_row *r = cursor_row(user, device, conv, false);

	return r ? r->delivered : 0;
}

uint64_t world_read(const char *user, const char *conv)
{
	return cursor_row(user, "", conv, true)->read;
}

bool world_device(const char *user, const char *device, bool *acks)
{
	const struct device_row *r = device_row(user, device);

	if (r && acks)
		*acks = r->acks;
	return r != NULL;
}

void world_age_device(const char *user, const char *device, int64_t ms)
{
	device_row(user, device)->seen_ms -= ms;
}

void world_refusal(uint64_t key, int64_t ts, const char *user, const char *device, const char *code)
{
	struct refusal_row *r = &refusals[n_refusals++];

	memset(r, 0, sizeof *r);
	r->key = key;
	r->ts = ts;
	snprintf(r->user, sizeof r->user, "%s", user);
	snprintf(r->device, sizeof r->device, "%s", device);
	snprintf(r->code, sizeof r->code, "%s", code);
}

unsigned world_refusals_open(const char *user, const char *device)
{
	unsigned n = 0;

	for (size_t i = 0; i < n_refusals; i++)
		n += !refusals[i].done && strcmp(refusals[i].user, user) == 0 && strcmp(refusals[i].device, device) == 0;
	return n;
}

uint64_t world_newest(const char *conv)
{
	for (size_t i = n_messages; i > 0; i--)
		if (strcmp(messages[i - 1]->conv, conv) == 0)
			return messages[i - 1]->seq;
	return 0;
}

uint64_t world_store(const char *conv, const char *from, const char *client_id, uint64_t session, const char *body)
{
	struct position pos = { .node = 1, .epoch = 1, .next = n_messages + 1 };
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	char msgid[IM_MSGID_LEN + 1];
	struct message *m;

	assert_true(n_messages < MANY);
	im_msgid_encode(1, 1, n_messages, msgid);
	r.kind = IM__BUS__KIND__KIND_SEND;
	r.user = (char *)from;
	r.client_id = (char *)client_id;
	r.type = *from ? "text" : "system";
	r.ts = im_clock_wall_ms();
	r.body.data = (uint8_t *)body;
	r.body.len = strlen(body);
	m = message_create(&r, conv, &pos, msgid);
	assert_non_null(m);
	m->prev = world_newest(conv);
	m->seq = m->prev + 1;
	tells[n_messages].session = session;
	messages[n_messages++] = m;
	return m->seq;
}

static bool tell(void)
{
	struct message *m;
	uint64_t session;

	if (n_told == n_messages)
		return false;
	m = messages[n_told];
	session = tells[n_told++].session;
	delivery_message(world.delivery, m, session);
	if (session)
		delivery_ack(world.delivery, session, m, false);
	return true;
}

bool world_tell(void)
{
	bool told = tell();

	if (told)
		delivery_flush(world.delivery);
	return told;
}

void world_tell_turn(void)
{
	while (tell())
		;
	delivery_flush(world.delivery);
}

uint64_t world_say(const char *conv, const char *from, const char *client_id, uint64_t session, const char *body)
{
	uint64_t seq = world_store(conv, from, client_id, session, body);

	while (world_tell())
		;
	return seq;
}

void world_settle(void)
{
	unsigned n = 0;

	delivery_flush(world.delivery);
	while (world_step() || world_tell())
		assert_true(++n < 200000); /* else it never ends */
}

void stored_begin(void)
{
	n_messages = n_told = n_cursors = n_devices = n_refusals = 0;
}

/* The store closes after delivery: whoever still waits is told, and may not be surprised. */
void stored_end(void)
{
	while (requests) {
		struct request *q = requests;

		requests = q->next;
		request_end(q, IM_UNCERTAIN, 0);
	}
	for (size_t i = 0; i < n_messages; i++)
		message_unref(messages[i]);
}
