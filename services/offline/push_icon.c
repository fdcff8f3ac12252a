/*
 * The number on the icon of a phone that lies in a pocket while its owner reads elsewhere. Only Apple shows a number that a push without
 * words can set. A user's reads are gathered, then each other device of theirs that may show something else than 0 gets a job, which counts
 * when it is sent; the bridge sends one in 10 s.
 *
 * It is a nicety, kept in memory alone: what a restart or a bridge that is down forgets is put right by the next read or push.
 */
#include "push_part.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define GATHER_MS 10000         /* from the first read on: people read one conversation after another */
#define READERS_MOST 100000u    /* waiting; who comes beyond it is served by his next read */
#define DEADLINE_MS 600000      /* a number that is older is not worth a push */
#define PROVIDER "apns"

struct push_reader {
	struct push_reader *next;
	int64_t due_ms;             /* monotonic */
	char user[];
};

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

/* false: too many wait, or there is no memory. */
static bool wait_for(struct push *p, const char *user)
{
	size_t len = strlen(user);
	struct push_reader *r = p->n_readers < READERS_MOST ? calloc(1, sizeof(*r) + len + 1) : NULL;

	if (!r)
		return false;
	memcpy(r->user, user, len + 1);
	r->due_ms = im_loop_now_ms(p->loop) + GATHER_MS;
	if (p->readers_last)
		p->readers_last->next = r;
	else
		p->readers = r;
	p->readers_last = r;
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
	if (any && !waits && !wait_for(p, user))
		for (struct push_device *d = push_registry_of_user(p->registry, user); d; d = d->next)
			d->read_elsewhere = false; /* his next read */
}

static void correct(struct push *p, struct push_feed *f, const struct push_device *d)
{
	struct push_badge_facts facts;
	Im__Push__Job *job;

	icon_gather(p, d, &facts);
	if (push_decide_badge(&facts).what != PUSH_SEND || !f->up || f->full)
		return;
	job = feed_job("badge", IM__PUSH__KIND__KIND_BADGE, d, "", 0);
	if (!job)
		return;
	job->deadline_ms = job->created_ms + DEADLINE_MS;
	(void)feed_add(f, job, 0); /* false: the next read says it again */
}

static void serve(struct push *p, struct push_feed *f, const char *user)
{
	for (struct push_device *d = push_registry_of_user(p->registry, user); d; d = d->next) {
		if (d->read_elsewhere)
			correct(p, f, d);
		d->read_elsewhere = false;
	}
}

void icon_tick(struct push *p)
{
	struct push_feed *f = push_feed_of(p, PROVIDER, strlen(PROVIDER));
	struct push_reader *r;

	while ((r = p->readers) && r->due_ms <= im_loop_now_ms(p->loop)) {
		p->readers = r->next;
		if (!p->readers)
			p->readers_last = NULL;
		p->n_readers--;
		serve(p, f, r->user);
		free(r);
	}
}

void icon_start(struct push *p)
{
	delivery_on_read(p->delivery, on_read, p);
}

void icon_stop(struct push *p)
{
	struct push_reader *r;

	delivery_on_read(p->delivery, NULL, NULL);
	while ((r = p->readers)) {
		p->readers = r->next;
		free(r);
	}
	p->readers_last = NULL;
}
