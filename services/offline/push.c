#include "push_part.h"
#include "push_quiet.h"

#include "base/clock.h"
#include "base/log.h"
#include "io/mqtt.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 200 /* rows come about as late; a push takes seconds anyway */

struct push_feed *push_feed_of(const struct push *p, const char *provider, size_t len)
{
	struct push_feed *f = p->feeds;

	while (f && (strlen(f->provider) != len || memcmp(f->provider, provider, len) != 0))
		f = f->next;
	return f;
}

bool push_has_provider(const struct push *p, const char *provider)
{
	return push_feed_of(p, provider, strlen(provider)) != NULL;
}

struct push_registry *push_tokens(struct push *p)
{
	return p->registry;
}

/* ---- facts */

static bool mentions(const struct message *m, const char *user)
{
	for (size_t i = 0; i < m->n_mentions; i++)
		if (strcmp(m->mentions[i], user) == 0 || strcmp(m->mentions[i], "all") == 0)
			return true;
	return false;
}

static bool visible(const struct push *p, const struct message *m, const char *user)
{
	char peer[IM_NAME_MAX + 1];

	if (!im_conv_is_group(m->conv))
		return im_conv_peer(m->conv, user, peer);
	return roster_is_member(p->roster, m->conv + 2, user) && roster_may_see(p->roster, m->conv + 2, user, m->seq);
}

void push_gather(const struct push *p, const struct push_device *d, const struct message *m, struct push_facts *out)
{
	const Im__Bus__PushToken *t = d->stored;
	const struct roster_user *u = roster_user(p->roster, t->user);
	const struct roster_group *g = im_conv_is_group(m->conv) ? roster_group(p->roster, m->conv + 2) : NULL;
	struct delivery_presence here;

	delivery_presence(p->delivery, t->user, t->device, m->conv, m->seq, &here);
	*out = (struct push_facts){
		.now_ms = im_clock_wall_ms(),
		.stored_ms = m->ts,
		.deadline_ms = m->ts + (int64_t)p->settings->push_ttl_s * 1000,
		.own = strcmp(m->from, t->user) == 0,
		.system = m->from[0] == '\0' || strcmp(m->type, "system") == 0,
		.visible = visible(p, m, t->user),
		.enabled = u && !u->disabled,
		.blocked = roster_is_blocked(p->roster, t->user, m->from),
		.mentioned = mentions(m, t->user),
		.mention_overrides = true,
		.members = g ? (unsigned)g->n_members : 0,
		.members_most = p->settings->push_group,
		.got = here.got,
		.connected = here.connected,
		.acks = here.acks,
		.elsewhere = here.elsewhere,
		.grace_ms = p->settings->push_grace_ms,
		.active_ms = PUSH_ACTIVE_MS,
		.unused_ms = (int64_t)p->settings->push_days * 24 * 3600 * 1000,
		.token_good = t->state != IM__BUS__PUSH_STATE__PUSH_INVALID, /* a suspect's wait in the bridge, which asks the provider again */
	};
	if (m->expiry && m->expiry < out->deadline_ms)
		out->deadline_ms = m->expiry;
	if (m->ts > out->now_ms + PUSH_CLOCK_MS)
		out->stored_ms = 0; /* neither grace nor head start may last until the clock is there again */
	if (t->quiet_from != t->quiet_to)
		out->quiet_until_ms = quiet_until(out->now_ms, t->zone, t->quiet_from, t->quiet_to);
}

/* ---- the bus */

void push_bus(struct push *p, struct im_mqtt *bus)
{
	if (!p)
		return;
	p->bus = bus;
	for (struct push_feed *f = p->feeds; f; f = f->next)
		feed_bus(f);
}

void push_message(struct push *p, const char *provider, size_t len, const void *payload, size_t payload_len)
{
	struct push_feed *f = p ? push_feed_of(p, provider, len) : NULL;
	Im__Push__Up *up = f && !p->stopped ? im__push__up__unpack(NULL, payload_len, payload) : NULL;

	if (up)
		feed_up(f, up);
	else if (f && !p->stopped)
		im_log(IM_LOG_WARNING, "evt=refused provider=%s bytes=%zu why=\"not a frame of a bridge\": dropped", f->provider, payload_len);
	im__push__up__free_unpacked(up, NULL);
}

void push_turn_end(struct push *p)
{
	for (struct push_feed *f = p ? p->feeds : NULL; f; f = f->next)
		feed_turn_end(f);
}

static void on_tick(void *arg)
{
	struct push *p = arg;

	icon_tick(p);
	for (struct push_feed *f = p->feeds; f; f = f->next)
		feed_tick(f);
}

/* ---- for commands */

void push_query(struct push *p, const char *provider, const char *json, push_answer_fn *done, void *arg)
{
	struct push_feed *f = push_feed_of(p, provider, strlen(provider));

	if (f)
		feed_query(f, json, done, arg);
	else
		done(arg, NULL);
}

enum im_status push_test(struct push *p, const struct push_device *d)
{
	struct push_feed *f = push_feed_of(p, d->stored->provider, strlen(d->stored->provider));
	char key[40], random[17];
	Im__Push__Job *job;
	uint8_t bytes[8];

	randombytes_buf(bytes, sizeof(bytes));
	(void)snprintf(key, sizeof(key), "test:%s", sodium_bin2hex(random, sizeof(random), bytes, sizeof(bytes)));
	job = f && f->up && !f->full ? feed_job(key, IM__PUSH__KIND__KIND_TEST, d, "", 0) : NULL;
	if (!job)
		return IM_BUSY;
	job->deadline_ms = job->created_ms + 300000;
	return feed_add(f, job, 0) ? IM_OK : IM_BUSY;
}

void push_each_feed(const struct push *p, push_feed_fn *fn, void *arg)
{
	for (const struct push_feed *f = p->feeds; f; f = f->next) {
		struct push_feed_info info = { f->provider, f->up, f->full, f->saved, f->jobs, f->n_frames, f->n_waits, f->decided, f->n_decided };

		fn(arg, &info);
	}
}

void push_why(struct push *p, const struct push_device *d, const char *conv, uint64_t seq, push_why_fn *done, void *arg)
{
	ticket_why(p, d, conv, seq, done, arg);
}

/* ---- making and ending */

static bool make_feeds(struct push *p)
{
	const char *at = p->settings->push;

	while (*(at += strspn(at, ", "))) {
		size_t len = strcspn(at, ", ");
		struct push_feed *f = push_feed_of(p, at, len) ? NULL : feed_create(p, at, len);

		if (!f && !push_feed_of(p, at, len))
			return false;
		at += len;
	}
	return true;
}

static void on_row(void *arg, const Im__Bus__StoredPush *row)
{
	struct push *p = arg;
	const char *provider = strncmp(row->key, "p/", 2) == 0 ? row->key + 2 : "";
	struct push_feed *f = push_feed_of(p, provider, strlen(provider));

	if (f && row->position)
		feed_row(f, row->position);
	else if (strncmp(row->key, PUSH_ICON_KEY, sizeof(PUSH_ICON_KEY) - 1) == 0)
		icon_restore(p, row->key + sizeof(PUSH_ICON_KEY) - 1);
}

enum im_status push_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			   struct delivery *delivery, struct push **out, struct im_err *err)
{
	struct push *p;
	uint8_t bytes[8];
	enum im_status st;

	*out = NULL;
	if (settings->push[0] == '\0')
		return IM_OK;
	p = calloc(1, sizeof(*p));
	if (!p)
		return im_fail(err, IM_FAILED, "out of memory");
	p->loop = loop;
	p->settings = settings;
	p->store = store;
	p->roster = roster;
	p->delivery = delivery;
	st = push_registry_open(store, settings->push_dir, &p->registry, err);
	p->tick = im_timer_create(loop, on_tick, p);
	if (st == IM_OK && (!p->tick || !make_feeds(p)))
		st = im_fail(err, IM_FAILED, "out of memory");
	if (st != IM_OK) {
		push_destroy(p);
		return st;
	}
	notice_start(p);
	icon_start(p);
	randombytes_buf(bytes, sizeof(bytes));
	sodium_bin2hex(p->start, sizeof(p->start), bytes, sizeof(bytes));
	store_push(store, on_row, p);
	im_timer_start(p->tick, TICK_MS, TICK_MS);
	*out = p;
	return IM_OK;
}

void push_stop(struct push *p)
{
	if (!p)
		return;
	p->stopped = true;
	p->bus = NULL;
	notice_stop(p);
	icon_stop(p);
	im_timer_stop(p->tick);
	ticket_finish(p);
}

void push_destroy(struct push *p)
{
	struct push_feed *f, *next;

	if (!p)
		return;
	for (f = p->feeds; f; f = next) {
		next = f->next;
		feed_destroy(f);
	}
	push_registry_close(p->registry);
	im_timer_destroy(p->tick);
	free(p);
}
