/*
 * The number on the icon of a phone that lies in a pocket while its owner reads elsewhere. Only Apple shows a number that a push without
 * words can set. A user's reads are gathered, then each other device of theirs that may show something else than 0 gets a job, which counts
 * when it is sent; the bridge sends one in 10 s.
 *
 * That a user's numbers are to be corrected is durable from the read on ("b/{user}" in the store) until the bridge has confirmed the jobs, so neither
 * a kill nor a bridge that is away leaves a wrong number behind. What it is, is not: it is counted when it is sent.
 */
#include "push_part.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GATHER_MS 10000         /* from the first read on: people read one conversation after another */
#define READERS_MOST 100000u    /* waiting or not confirmed; who comes beyond it is served by his next read */
#define DEADLINE_MS 600000      /* a number that is older is not worth a push */
#define PROVIDER "apns"

struct push_reader {
	struct push_reader *next;
	int64_t due_ms;             /* monotonic */
	uint64_t frame;             /* once it is served: the last one with a job of it */
	char user[];
};

/* ---- what is durable */

static void on_marked(void *arg, enum im_status st)
{
	(void)arg;
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=push_icon status=%s then=\"after a restart a number is corrected twice or by the next read\"", im_status_name(st));
}

static void mark(const struct push *p, const char *user, bool removed)
{
	Im__Bus__StoredPush row = IM__BUS__STORED_PUSH__INIT;
	struct store_entry e = { .kind = STORE_PUSH, .push = &row };
	char key[sizeof(PUSH_ICON_KEY) + IM_NAME_MAX];

	(void)snprintf(key, sizeof(key), PUSH_ICON_KEY "%s", user);
	row.key = key;
	row.removed = removed;
	store_append(p->store, &e, 1, on_marked, NULL);
}

/* ---- who is to be corrected */

void icon_gather(const struct push *p, const struct push_device *d, struct push_badge_facts *out)
{
	const struct roster_user *u = roster_user(p->roster, d->stored->user);
	struct delivery_presence here;

	delivery_presence(p->delivery, d->stored->user, d->stored->device, "", 0, &here);
	*out = (struct push_badge_facts){
		.enabled = u && !u->disabled,
		.token_good = d->stored->state != IM__BUS__PUSH_STATE__PUSH_INVALID,
		.connected = here.connected,
		.now_ms = im_clock_wall_ms(),
		.unused_ms = (int64_t)p->settings->push_days * 24 * 3600 * 1000,
		.shown = d->shown,
		.badge = -1,
	};
}

static void append(struct push_readers *list, struct push_reader *r)
{
	r->next = NULL;
	if (list->last)
		list->last->next = r;
	else
		list->first = r;
	list->last = r;
}

static struct push_reader *take_first(struct push_readers *list)
{
	struct push_reader *r = list->first;

	list->first = r->next;
	if (!list->first)
		list->last = NULL;
	return r;
}

/* false: too many wait, or there is no memory. */
static bool wait_for(struct push *p, const char *user, int64_t delay_ms)
{
	size_t len = strlen(user);
	struct push_reader *r = p->n_readers < READERS_MOST ? calloc(1, sizeof(*r) + len + 1) : NULL;

	if (!r)
		return false;
	memcpy(r->user, user, len + 1);
	r->due_ms = im_loop_now_ms(p->loop) + delay_ms;
	append(&p->readers, r);
	p->n_readers++;
	return true;
}

/* A device that reads shows what it likes itself; the others of its user may show too much. */
static void on_read(void *arg, const char *user, const char *client_id)
{
	struct push *p = arg;
	bool waits = false, any = false;

	if (!p->settings->push_badge || !push_has_provider(p, PROVIDER))
		return;
	for (struct push_device *d = push_registry_of_user(p->registry, user); d; d = d->next) {
		if (strcmp(d->stored->provider, PROVIDER) != 0)
			continue;
		waits |= d->read_elsewhere;
		if (strcmp(d->stored->device, client_id) != 0 && d->shown != 0)
			any = d->read_elsewhere = true;
	}
	if (!any || waits)
		return;
	if (wait_for(p, user, GATHER_MS))
		mark(p, user, false);
	else
		for (struct push_device *d = push_registry_of_user(p->registry, user); d; d = d->next)
			d->read_elsewhere = false; /* his next read */
}

/* Which of the devices has read is not known any more, nor what they were told: each that is away is told what is true. */
void icon_restore(struct push *p, const char *user)
{
	if (!p->settings->push_badge || !push_has_provider(p, PROVIDER) || !wait_for(p, user, 0))
		return;
	for (struct push_device *d = push_registry_of_user(p->registry, user); d; d = d->next)
		d->read_elsewhere |= strcmp(d->stored->provider, PROVIDER) == 0;
}

/* ---- in time */

static bool correct(struct push *p, struct push_feed *f, const struct push_device *d)
{
	struct push_badge_facts facts;
	Im__Push__Job *job;

	icon_gather(p, d, &facts);
	if (push_decide_badge(&facts).what != PUSH_SEND)
		return true;
	job = feed_job("badge", IM__PUSH__KIND__KIND_BADGE, d, "", 0);
	if (!job)
		return false;
	job->deadline_ms = job->created_ms + DEADLINE_MS;
	return feed_add(f, job, 0);
}

/* false: out of memory, the rest later. */
static bool serve(struct push *p, struct push_feed *f, struct push_reader *r)
{
	for (struct push_device *d = push_registry_of_user(p->registry, r->user); d; d = d->next) {
		if (d->read_elsewhere && !correct(p, f, d))
			return false;
		d->read_elsewhere = false;
	}
	r->frame = f->frames + (f->n_gathering > 0);
	return true;
}

static bool waits_again(const struct push *p, const char *user)
{
	const struct push_device *d = push_registry_of_user(p->registry, user);

	while (d && !d->read_elsewhere)
		d = d->next;
	return d;
}

/* What the bridge has confirmed needs no mark any more, unless the user has read something since. */
static void settle(struct push *p, const struct push_feed *f)
{
	while (p->served.first && feed_confirmed(f, p->served.first->frame)) {
		struct push_reader *r = take_first(&p->served);

		if (!waits_again(p, r->user))
			mark(p, r->user, true);
		p->n_readers--;
		free(r);
	}
}

void icon_tick(struct push *p)
{
	struct push_feed *f = push_feed_of(p, PROVIDER, strlen(PROVIDER));
	int64_t now = im_loop_now_ms(p->loop);

	if (!f)
		return;
	while (p->readers.first && p->readers.first->due_ms <= now && feed_has_room(f) && serve(p, f, p->readers.first))
		append(&p->served, take_first(&p->readers));
	settle(p, f);
}

void icon_start(struct push *p)
{
	delivery_on_read(p->delivery, on_read, p);
}

void icon_stop(struct push *p)
{
	delivery_on_read(p->delivery, NULL, NULL);
	while (p->readers.first)
		free(take_first(&p->readers));
	while (p->served.first)
		free(take_first(&p->served));
}
