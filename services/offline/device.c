/*
 * Devices: read when their session first has an inbox filter, written when something moved.
 *
 * The difficult part is their beginning. A device seen for the first time starts where the user's
 * furthest device is, so "is it known?" must never be answered from a state older than what was given to
 * the store: a device stays in memory until its writes are answered (invariant 7), and only what is
 * neither in memory nor in the store is new.
 */
#include "session.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 256u                        /* entries of one append: small beside what one sync takes */
#define LOAD_RETRY_MS 1000

struct load {
	struct load *next;
	struct delivery *d;
	struct device *device;
	bool known;
	int64_t retry_at; /* 0 = asked */
};

struct moves {
	struct moves *next;
	struct delivery *d;
	struct device *fresh;         /* a new device: count what the user has afterwards */
	size_t n;
	struct {
		struct device *device;
		struct reader *reader; /* NULL: the entry was of the device itself */
	} of[];
};

/* ---- what goes to the store */

static void moves_done(void *arg, enum im_status st)
{
	struct moves *b = arg;
	struct delivery *d = b->d;
	struct moves **link;

	if (!d) {
		free(b);
		return;
	}
	link = &d->moves;
	while (*link != b)
		link = &(*link)->next;
	*link = b->next;
	IM_KILLPOINT("delivery.after_mark");
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=cursors_not_stored entries=%zu status=%s then=\"again in a second\"", b->n, im_status_name(st));
	for (size_t i = 0; i < b->n; i++) {
		struct device *dev = b->of[i].device;

		dev->writes--;
		if (st != IM_OK && dev->session && b->of[i].reader) {
			b->of[i].reader->stored = 0;
			reader_moved(d, b->of[i].reader);
		}
		if (dev == b->fresh && st == IM_OK)
			expiry_limit(d, dev->account->name);
		device_release(d, dev);
	}
	free(b);
}

static struct moves *moves_create(struct delivery *d, size_t most)
{
	struct moves *b = calloc(1, sizeof *b + most * sizeof b->of[0]);

	if (!b) {
		im_log(IM_LOG_ERROR, "evt=out_of_memory what=cursors then=\"they settle again at the next connect\"");
		return NULL;
	}
	b->d = d;
	b->next = d->moves;
	d->moves = b;
	return b;
}

static void moves_add(struct moves *b, struct store_entry *e, struct device *dev, struct reader *r)
{
	*e = (struct store_entry){ .kind = r ? STORE_CURSOR : STORE_DEVICE };
	if (r) {
		e->cursor.user = dev->account->name;
		e->cursor.device = dev->client_id;
		e->cursor.conv = r->conv->name;
		e->cursor.delivered = r->cursor.delivered;
		r->stored = r->cursor.delivered;
	} else {
		e->device.user = dev->account->name;
		e->device.device = dev->client_id;
		e->device.named = dev->named;
		e->device.acks = dev->acks;
		e->device.max_packet = dev->max_packet;
		e->device.seen_ms = im_clock_wall_ms();
	}
	b->of[b->n].reader = r;
	b->of[b->n++].device = dev;
	dev->writes++;
}

static void save(struct delivery *d, struct device *dev, bool fresh)
{
	struct store_entry e;
	struct moves *b = moves_create(d, 1);

	if (!b)
		return;
	moves_add(b, &e, dev, NULL);
	if (fresh)
		b->fresh = dev;
	store_append(d->store, &e, 1, moves_done, b);
}

void device_save(struct delivery *d, struct device *dev)
{
	save(d, dev, false);
}

void device_flush(struct delivery *d)
{
	struct store_entry entries[BATCH];

	while (d->dirty) {
		struct moves *b = moves_create(d, BATCH);

		if (!b)
			return;
		while (d->dirty && b->n < BATCH) {
			struct reader *r = d->dirty;

			d->dirty = r->dirty_next;
			r->dirty = false;
			r->device->n_dirty--;
			moves_add(b, &entries[b->n], r->device, r);
		}
		IM_KILLPOINT("delivery.before_mark");
		store_append(d->store, entries, b->n, moves_done, b);
	}
}

void device_first_ack(struct delivery *d, struct device *dev)
{
	struct cursor_rules rules;

	dev->acks = true;
	device_save(d, dev);
	if (!dev->session)
		return;
	session_rules(d, dev->session, &rules);
	for (uint32_t i = 0; i < dev->cap; i++) {
		struct reader *r = dev->readers[i];

		if (!r)
			continue;
		cursor_start_acking(&r->cursor, delivery_now(d), &rules);
		dev->out += r->cursor.out;
		reader_plan(d, r);
	}
}

void delivery_device_set(struct delivery *d, uint64_t session, uint32_t max_packet)
{
	struct session *s = session_find(d, session);

	if (!s || !s->device)
		return;
	handover_flush(d); /* gathered under the old size */
	s->device->max_packet = max_packet;
	device_save(d, s->device);
}

/* ---- coming into being */

struct device *device_find(struct account *a, const char *client_id)
{
	struct device *dev;

	for (dev = a->devices; dev; dev = dev->next)
		if (strcmp(dev->client_id, client_id) == 0)
			return dev;
	return NULL;
}

static struct device *device_add(struct account *a, const char *client_id)
{
	size_t len = strlen(client_id) + 1, user_len;
	struct device *dev = calloc(1, sizeof *dev + len);

	if (!dev)
		return NULL;
	memcpy(dev->client_id, client_id, len);
	dev->named = im_client_id_named(client_id, &user_len) && user_len == strlen(a->name) &&
		     memcmp(client_id, a->name, user_len) == 0;
	dev->account = a;
	dev->next = a->devices;
	a->devices = dev;
	return dev;
}

static uint64_t furthest_online(const struct account *a, const struct conversation *c)
{
	uint64_t most = 0;

	for (struct device *dev = a->devices; dev; dev = dev->next) {
		const struct reader *r = dev->loaded ? reader_find(dev, c) : NULL;

		if (r && r->cursor.delivered > most)
			most = r->cursor.delivered;
	}
	return most;
}

static void on_load_device(void *arg, const struct store_device *row)
{
	struct load *l = arg;

	if (!l->d)
		return;
	l->known = true;
	l->device->acks = row->acks;
	l->device->max_packet = row->max_packet;
}

static void on_load_cursor(void *arg, const struct store_cursor *row)
{
	struct load *l = arg;
	struct reader *r = l->d && row->delivered ? device_reader(l->d, l->device, row->conv, true) : NULL;

	if (r && r->cursor.delivered < row->delivered) {
		r->cursor.delivered = row->delivered;
		r->stored = row->delivered;
	}
}

static void on_load_refusal(void *arg, const Im__Bus__StoredRefusal *row)
{
	struct load *l = arg;

	if (l->d && l->device->session)
		owed_add(l->d, l->device->session, row);
}

static void on_load_conversation(void *arg, const struct store_conversation *row)
{
	struct load *l = arg;
	struct reader *r = l->d ? device_reader(l->d, l->device, row->conv, true) : NULL;
	uint64_t start;

	if (!r)
		return;
	if (r->conv->newest < row->last_seq)
		r->conv->newest = row->last_seq;
	if (l->known)
		return;
	start = furthest_online(l->device->account, r->conv);
	if (start < row->delivered)
		start = row->delivered;
	r->cursor.delivered = start;
	reader_moved(l->d, r);
}

static void on_load_group(void *arg, const struct roster_group *g)
{
	struct load *l = arg;
	char conv[IM_CONV_MAX];

	(void)snprintf(conv, sizeof conv, "g/%s", g->name);
	(void)device_reader(l->d, l->device, conv, true); /* logged there */
}

static void load_ask(struct load *l);

static void load_free(struct load *l)
{
	struct load **link = &l->d->loads;

	while (*link != l)
		link = &(*link)->next;
	*link = l->next;
	l->device->load = NULL;
	free(l);
}

/* True: nothing goes on from here. */
static bool load_failed(struct load *l, enum im_status st)
{
	if (!l->d) {
		free(l);
		return true;
	}
	if (st == IM_OK)
		return false;
	im_log(IM_LOG_WARNING, "evt=device_not_read client=%s status=%s then=\"again in a second\"", l->device->client_id, im_status_name(st));
	l->retry_at = delivery_now(l->d) + LOAD_RETRY_MS;
	return true;
}

static void on_loaded(void *arg, enum im_status st)
{
	struct load *l = arg;
	struct delivery *d;
	struct device *dev;
	bool known;

	if (load_failed(l, st))
		return;
	d = l->d;
	dev = l->device;
	known = l->known;
	roster_each_group_of(d->roster, dev->account->name, on_load_group, l);
	load_free(l);
	dev->loaded = true;
	if (!known) {
		im_log(IM_LOG_INFO, "evt=device_new user=%s client=%s named=%d", dev->account->name, dev->client_id, dev->named);
		device_flush(d); /* its beginning first: known without it, it would begin at the first message */
		save(d, dev, true);
	}
	if (dev->session) {
		dev->session->refusals_asked = true;
		device_connect(d, dev);
	} else {
		device_release(d, dev);
	}
}

static void on_device_loaded(void *arg, enum im_status st)
{
	struct load *l = arg;

	if (!load_failed(l, st))
		store_conversations(l->d->store, l->device->account->name, on_load_conversation, on_loaded, l);
}

static void load_ask(struct load *l)
{
	l->retry_at = 0;
	l->known = false;
	store_device(l->d->store, l->device->account->name, l->device->client_id, on_load_device, on_load_cursor, on_load_refusal,
		     on_device_loaded, l);
}

void device_retry(struct delivery *d)
{
	int64_t now = d->loads ? delivery_now(d) : 0;
	struct load *next;

	for (struct load *l = d->loads; l; l = next) {
		next = l->next;
		if (l->retry_at && l->retry_at <= now)
			load_ask(l);
	}
}

static bool load_start(struct delivery *d, struct device *dev)
{
	struct load *l = calloc(1, sizeof *l);

	if (!l)
		return false;
	l->d = d;
	l->device = dev;
	l->next = d->loads;
	d->loads = l;
	dev->load = l;
	load_ask(l);
	return true;
}

/* The device is known and has a session: every conversation starts again from what is settled. */
void device_connect(struct delivery *d, struct device *dev)
{
	dev->out = 0;
	for (uint32_t i = 0; i < dev->cap; i++) {
		struct reader *r = dev->readers[i];

		if (!r)
			continue;
		cursor_connect(&r->cursor);
		r->empty_at = 0;
		due_plan(d, &r->due, DUE_READER, 0);
		reader_cover(r);
	}
	catchup_loaded(d, dev->session);
}

void device_cover(struct device *dev)
{
	for (uint32_t i = 0; i < dev->cap; i++)
		if (dev->readers[i])
			reader_cover(dev->readers[i]);
}

static void take_over(struct delivery *d, struct device *dev, struct session *old)
{
	catchup_stop(d, old);
	due_plan(d, &old->due, DUE_SESSION, 0);
	owed_stop(old);
	old->device = NULL;
	old->state = SESSION_OVER;
	dev->session = NULL;
}

void device_attach(struct delivery *d, struct session *s)
{
	struct device *dev = device_find(s->account, s->client_id);
	bool known = dev != NULL;

	if (dev && dev->session && dev->session->handle > s->handle) {
		s->state = SESSION_OVER;
		return;
	}
	if (dev && dev->session)
		take_over(d, dev, dev->session);
	if (!dev)
		dev = device_add(s->account, s->client_id);
	if (!dev || (!dev->loaded && !dev->load && !load_start(d, dev))) {
		im_log(IM_LOG_ERROR, "evt=out_of_memory what=device client=%s", s->client_id);
		link_kick(d->link, s->handle, "out of memory");
		if (dev)
			device_release(d, dev);
		return;
	}
	dev->session = s;
	s->device = dev;
	s->state = SESSION_LOADING;
	if (dev->loaded)
		device_connect(d, dev);
	if (known)
		owed_ask(d, s); /* what is owed went with the connection before, and no load brings it */
}

void device_detach(struct delivery *d, struct session *s)
{
	struct device *dev = s->device;

	if (!dev)
		return;
	for (uint32_t i = 0; i < dev->cap; i++)
		if (dev->readers[i])
			due_plan(d, &dev->readers[i]->due, DUE_READER, 0);
	dev->session = NULL;
	s->device = NULL;
	if (dev->loaded)
		device_save(d, dev); /* seen last */
	device_release(d, dev);
}

void device_release(struct delivery *d, struct device *dev)
{
	struct device **link = &dev->account->devices;
	struct account *a = dev->account;

	if (dev->session || dev->load || dev->writes || dev->n_dirty)
		return;
	while (*link != dev)
		link = &(*link)->next;
	*link = dev->next;
	for (uint32_t i = 0; i < dev->cap; i++)
		if (dev->readers[i])
			reader_free(d, dev->readers[i]);
	free(dev->readers);
	free(dev);
	account_release(d, a);
}

static void account_forget(struct delivery *d, struct account *a)
{
	struct device *next;

	for (struct device *dev = a->devices; dev; dev = next) {
		next = dev->next;
		dev->load = NULL;
		dev->writes = dev->n_dirty = 0;
		device_release(d, dev); /* the last one takes the account along */
	}
}

void device_finish(struct delivery *d)
{
	struct account *a, *next;
	struct load *load;

	for (struct moves *b = d->moves; b; b = b->next)
		b->d = NULL;
	while ((load = d->loads)) {
		d->loads = load->next;
		load->d = NULL;
		if (load->retry_at)
			free(load); /* no answer is under way */
	}
	HASH_ITER (hh, d->accounts, a, next)
		account_forget(d, a);
}
