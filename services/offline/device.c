/*
 * Devices: read when their session first has an inbox filter, written when something moved, forgotten
 * when there are too many or nobody came back.
 *
 * The difficult part is their beginning. A device seen for the first time starts where the user's
 * furthest device is, so "is it known?" must never be answered from a state older than what was given to
 * the store: a device stays in memory until its writes are answered (invariant 7), and only what is
 * neither in memory nor in the store is new.
 */
#include "session.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 256u                        /* entries of one append: small beside what one sync takes */
#define LOAD_RETRY_MS 1000
#define UNNAMED_MS (24ll * 3600 * 1000)   /* an unnamed device after its last connection (protocol.md, Devices) */
#define DAY_MS (24ll * 3600 * 1000)
#define SWEEP_FIRST_MS (10u * 60 * 1000)
#define SWEEP_MS (6u * 3600 * 1000)

struct load {
	struct load *next;
	struct delivery *d;
	struct device *device;
	bool known;
	int64_t retry_at; /* 0 = asked */
};

struct batch {
	struct batch *next;
	struct delivery *d;
	struct device *fresh;         /* a new device: count what the user has afterwards */
	size_t n;
	struct {
		struct device *device;
		struct reader *reader; /* NULL: the entry was of the device itself */
	} of[];
};

/* ---- conversations and places in them */

struct conversation *conversation_find(struct delivery *d, const char *conv)
{
	struct conversation *c;

	HASH_FIND_STR(d->convs, conv, c);
	return c;
}

static struct conversation *conversation_get(struct delivery *d, const char *conv)
{
	struct conversation *c = conversation_find(d, conv);
	size_t len = strlen(conv) + 1;

	if (c)
		return c;
	c = calloc(1, sizeof *c + len);
	if (!c)
		return NULL;
	memcpy(c->name, conv, len);
	HASH_ADD_KEYPTR(hh, d->convs, c->name, len - 1, c);
	return c;
}

static void conversation_release(struct delivery *d, struct conversation *c)
{
	if (c->readers)
		return;
	HASH_DEL(d->convs, c);
	free(c);
}

static uint32_t place(const struct conversation *c, uint32_t cap)
{
	return (uint32_t)(((uintptr_t)c >> 4) * 2654435761u >> 7) & (cap - 1);
}

static void place_put(struct reader **table, uint32_t cap, struct reader *r)
{
	uint32_t i = place(r->conv, cap);

	while (table[i])
		i = (i + 1) & (cap - 1);
	table[i] = r;
}

static bool table_grow(struct device *dev)
{
	uint32_t cap = dev->cap ? dev->cap * 2 : 4;
	struct reader **table;

	if (dev->cap && dev->n_readers * 4 < dev->cap * 3)
		return true;
	table = calloc(cap, sizeof(struct reader *));
	if (!table)
		return false;
	for (uint32_t i = 0; i < dev->cap; i++)
		if (dev->readers[i])
			place_put(table, cap, dev->readers[i]);
	free(dev->readers);
	dev->readers = table;
	dev->cap = cap;
	return true;
}

static struct reader *reader_find(const struct device *dev, const struct conversation *c)
{
	if (!dev->cap)
		return NULL;
	for (uint32_t i = place(c, dev->cap); dev->readers[i]; i = (i + 1) & (dev->cap - 1))
		if (dev->readers[i]->conv == c)
			return dev->readers[i];
	return NULL;
}

static void reader_cover(struct reader *r)
{
	const struct device *dev = r->device;
	char face[IM_CONV_MAX];

	r->covered = dev->session && im_conv_as_seen(r->conv->name, dev->account->name, face) && session_covers(dev->session, face);
}

static struct reader *reader_add(struct device *dev, struct conversation *c)
{
	struct reader *r = table_grow(dev) ? calloc(1, sizeof *r) : NULL;

	if (!r)
		return NULL;
	r->device = dev;
	r->conv = c;
	r->conv_next = c->readers;
	if (c->readers)
		c->readers->conv_prev = r;
	c->readers = r;
	place_put(dev->readers, dev->cap, r);
	dev->n_readers++;
	reader_cover(r);
	return r;
}

struct reader *device_reader(struct delivery *d, struct device *dev, const char *conv, bool make)
{
	struct conversation *c = make ? conversation_get(d, conv) : conversation_find(d, conv);
	struct reader *r = c ? reader_find(dev, c) : NULL;

	if (r || !c || !make)
		return r;
	r = reader_add(dev, c);
	if (!r) {
		im_log(IM_LOG_ERROR, "evt=out_of_memory what=reader client=%s", dev->client_id);
		conversation_release(d, c);
	}
	return r;
}

static void reader_free(struct delivery *d, struct reader *r)
{
	struct conversation *c = r->conv;

	due_cancel(&r->due);
	if (r->conv_prev)
		r->conv_prev->conv_next = r->conv_next;
	else
		c->readers = r->conv_next;
	if (r->conv_next)
		r->conv_next->conv_prev = r->conv_prev;
	free(r);
	conversation_release(d, c);
}

uint64_t reader_visible(struct delivery *d, const struct reader *r, uint64_t from)
{
	const struct roster_stay *stays;
	size_t n;

	if (!im_conv_is_group(r->conv->name))
		return from;
	n = roster_stays(d->roster, r->conv->name + 2, r->device->account->name, &stays);
	for (size_t i = 0; i < n; i++)
		if (!stays[i].to_seq || stays[i].to_seq >= from)
			return stays[i].from_seq > from ? stays[i].from_seq : from;
	return 0;
}

/* ---- moves */

void reader_moved(struct delivery *d, struct reader *r)
{
	if (r->dirty || r->cursor.delivered <= r->stored)
		return;
	r->dirty = true;
	r->device->n_dirty++;
	r->dirty_next = d->dirty;
	d->dirty = r;
}

void reader_plan(struct delivery *d, struct reader *r)
{
	int64_t at = cursor_due(&r->cursor);

	if (at != r->due.at || (at && !r->due.next))
		due_plan(d, &r->due, DUE_READER, at);
}

/*
 * What has waited in the link for a broker that stood still has not been with its client, whatever the clock
 * says: a settle period begins when the plugin has worked it off.
 */
static int64_t settles_from(struct delivery *d, int64_t settle_ms)
{
	int64_t late = link_late_ms(d->link);

	return late ? late + settle_ms : 0;
}

void reader_due(struct delivery *d, struct reader *r)
{
	struct session *s = r->device->session;
	struct cursor_rules rules;
	int64_t now = delivery_now(d), due, settles_at;

	if (!s)
		return;
	session_rules(d, s, &rules);
	settles_at = settles_from(d, rules.settle_ms);
	if (now >= settles_at && cursor_settle(&r->cursor, now, &rules))
		reader_moved(d, r);
	if (cursor_repeat(&r->cursor, now, &rules))
		catchup_repeat(d, s, r);
	due = cursor_due(&r->cursor);
	if (due && now < settles_at)
		due_plan(d, &r->due, DUE_READER, settles_at);
	else
		reader_plan(d, r);
}

/* ---- what goes to the store */

static void batch_done(void *arg, enum im_status st)
{
	struct batch *b = arg;
	struct delivery *d = b->d;
	struct batch **link;

	if (!d) {
		free(b);
		return;
	}
	link = &d->batches;
	while (*link != b)
		link = &(*link)->next;
	*link = b->next;
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
			device_limit(d, dev->account->name);
		device_release(d, dev);
	}
	free(b);
}

static struct batch *batch_create(struct delivery *d, size_t most)
{
	struct batch *b = calloc(1, sizeof *b + most * sizeof b->of[0]);

	if (!b) {
		im_log(IM_LOG_ERROR, "evt=out_of_memory what=cursors then=\"they settle again at the next connect\"");
		return NULL;
	}
	b->d = d;
	b->next = d->batches;
	d->batches = b;
	return b;
}

static void batch_add(struct batch *b, struct store_entry *e, struct device *dev, struct reader *r)
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
	struct batch *b = batch_create(d, 1);

	if (!b)
		return;
	batch_add(b, &e, dev, NULL);
	if (fresh)
		b->fresh = dev;
	store_append(d->store, &e, 1, batch_done, b);
}

void device_save(struct delivery *d, struct device *dev)
{
	save(d, dev, false);
}

void device_flush(struct delivery *d)
{
	struct store_entry entries[BATCH];

	while (d->dirty) {
		struct batch *b = batch_create(d, BATCH);

		if (!b)
			return;
		while (d->dirty && b->n < BATCH) {
			struct reader *r = d->dirty;

			d->dirty = r->dirty_next;
			r->dirty = false;
			r->device->n_dirty--;
			batch_add(b, &entries[b->n], r->device, r);
		}
		store_append(d->store, entries, b->n, batch_done, b);
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

/* ---- too many, too old */

struct row {
	char *device;
	bool named;
	int64_t seen_ms;
};

struct probe {
	struct probe *next;
	struct delivery *d;
	char *user;
	struct row *rows;
	size_t n;
	bool swept;   /* part of a sweep: goes on with the next user */
};

static void probe_free(struct probe *p)
{
	for (struct probe **link = p->d ? &p->d->probes : NULL; link && *link; link = &(*link)->next)
		if (*link == p) {
			*link = p->next;
			break;
		}
	for (size_t i = 0; i < p->n; i++)
		free(p->rows[i].device);
	free(p->rows);
	free(p->user);
	free(p);
}

static void on_device_row(void *arg, const struct store_device *row)
{
	struct probe *p = arg;
	struct row *rows;

	rows = realloc(p->rows, (p->n + 1) * sizeof *rows);
	if (!rows)
		return;
	p->rows = rows;
	rows[p->n].device = strdup(row->device);
	rows[p->n].named = row->named;
	rows[p->n].seen_ms = row->seen_ms;
	if (rows[p->n].device)
		p->n++;
}

static int by_age(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->seen_ms < y->seen_ms ? -1 : x->seen_ms > y->seen_ms;
}

static void on_forgotten(void *arg, enum im_status st)
{
	(void)arg;
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=device_not_forgotten status=%s then=\"the next sweep does\"", im_status_name(st));
}

static void forget(struct delivery *d, const char *user, const struct row *row, const char *why)
{
	struct store_entry e = { .kind = STORE_DEVICE };

	im_log(IM_LOG_INFO, "evt=device_forgotten user=%s client=%s why=%s", user, row->device, why);
	e.device.user = user;
	e.device.device = row->device;
	e.device.named = row->named;
	e.device.removed = true;
	e.device.seen_ms = row->seen_ms;
	store_append(d->store, &e, 1, on_forgotten, NULL);
}

/* Oldest first: whoever is offline and too old goes, then as many as are over the limit. */
static void forget_some(struct probe *p, bool named)
{
	struct delivery *d = p->d;
	struct account *a = account_find(d, p->user);
	unsigned limit = named ? d->settings->devices : d->settings->unnamed;
	int64_t most = named ? (int64_t)d->settings->device_days * DAY_MS : UNNAMED_MS;
	int64_t now = im_clock_wall_ms();
	size_t left = 0;

	for (size_t i = 0; i < p->n; i++)
		left += p->rows[i].named == named;
	for (size_t i = 0; i < p->n; i++) {
		const struct row *row = &p->rows[i];
		bool old = now - row->seen_ms > most;

		if (row->named != named || (!old && left <= limit) || (a && device_find(a, row->device)))
			continue;
		forget(d, p->user, row, old ? "unused" : "too_many");
		left--;
	}
}

static void sweep_next(struct delivery *d);

static void on_devices(void *arg, enum im_status st)
{
	struct probe *p = arg;
	struct delivery *d = p->d;
	bool swept = p->swept;

	if (d && st == IM_OK && p->n) {
		qsort(p->rows, p->n, sizeof *p->rows, by_age);
		forget_some(p, true);
		forget_some(p, false);
	}
	probe_free(p);
	if (d && swept)
		sweep_next(d);
}

static bool probe_start(struct delivery *d, const char *user, bool swept)
{
	struct probe *p = calloc(1, sizeof *p);

	if (!p)
		return false;
	p->d = d;
	p->swept = swept;
	p->user = strdup(user);
	p->next = d->probes;
	d->probes = p;
	if (!p->user) {
		probe_free(p);
		return false;
	}
	store_devices(d->store, user, on_device_row, on_devices, p);
	return true;
}

void device_limit(struct delivery *d, const char *user)
{
	(void)probe_start(d, user, false); /* out of memory: the next sweep does */
}

struct sweep_list {
	char **names;
	size_t n, cap;
};

static void on_sweep_user(void *arg, const struct roster_user *u)
{
	struct sweep_list *l = arg;
	char *name, **names;

	if (l->n == l->cap) {
		names = realloc(l->names, (l->cap + 1024) * sizeof *names);
		if (!names)
			return;
		l->names = names;
		l->cap += 1024;
	}
	name = strdup(u->name);
	if (name)
		l->names[l->n++] = name;
}

/* One user after the other, each a read of its own, so that a sweep is never in anybody's way. */
static void sweep_next(struct delivery *d)
{
	while (d->sweep_left) {
		char *name = d->sweep_names[--d->sweep_left];
		bool started = probe_start(d, name, true);

		free(name);
		if (started)
			return;
	}
	free(d->sweep_names);
	d->sweep_names = NULL;
	im_timer_start(d->sweep, SWEEP_MS, 0);
}

void device_sweep(void *arg)
{
	struct delivery *d = arg;
	struct sweep_list list = { 0 };

	if (d->sweep_names)
		return;
	roster_each_user(d->roster, on_sweep_user, &list);
	d->sweep_names = list.names;
	d->sweep_left = list.n;
	sweep_next(d);
}

void device_sweep_start(struct delivery *d)
{
	im_timer_start(d->sweep, SWEEP_FIRST_MS, 0);
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

	for (struct batch *b = d->batches; b; b = b->next)
		b->d = NULL;
	for (struct probe *p = d->probes; p; p = p->next)
		p->d = NULL;
	while ((load = d->loads)) {
		d->loads = load->next;
		load->d = NULL;
		if (load->retry_at)
			free(load); /* no answer is under way */
	}
	HASH_ITER (hh, d->accounts, a, next)
		account_forget(d, a);
	while (d->sweep_left)
		free(d->sweep_names[--d->sweep_left]);
	free(d->sweep_names);
	d->sweep_names = NULL;
}
