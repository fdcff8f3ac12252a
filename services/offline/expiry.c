/*
 * Devices that are too many or that nobody came back with: forgotten, the one offline longest first. Looked
 * for when a device comes into being and every few hours, user by user.
 */
#include "session.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define UNNAMED_MS (24LL * 3600 * 1000)   /* an unnamed device after its last connection (protocol.md, Devices) */
#define DAY_MS (24LL * 3600 * 1000)
#define SWEEP_FIRST_MS (UINT64_C(10) * 60 * 1000)
#define SWEEP_MS (UINT64_C(6) * 3600 * 1000)

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

void expiry_limit(struct delivery *d, const char *user)
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

void expiry_sweep(void *arg)
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

void expiry_start(struct delivery *d)
{
	im_timer_start(d->sweep, SWEEP_FIRST_MS, 0);
}

void expiry_finish(struct delivery *d)
{
	for (struct probe *p = d->probes; p; p = p->next)
		p->d = NULL;
	d->probes = NULL;
	while (d->sweep_left)
		free(d->sweep_names[--d->sweep_left]);
	free(d->sweep_names);
	d->sweep_names = NULL;
}
