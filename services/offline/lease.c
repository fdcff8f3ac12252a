/*
 * The message service's leases (lease.h, docs/bus.md).
 *
 *	WANTED --answer--> GRANTED --durable in the store--> HELD --renewal refused--> WANTED
 *
 * The difficult idea: at most one request is under way, and it is repeated under the same id, byte for byte, until it
 * is answered; what comes up meanwhile goes into the next one. So an answer can only mean what we think,
 * whatever was lost or restarted in between. A section that is HELD stays usable up to its ceiling while
 * seqgen or the bus are down.
 */
#include "lease.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"
#include "bus.pb-c.h"
#include "wire/name.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define OWNER_PREFIX "$im-offline:" /* the client id that answers come to */
#define REPEAT_MS 1000
#ifndef STEP_FIRST /* tests/sim */
#define STEP_FIRST 10000u      /* what a renewal asks for: hours of a quiet conversation */
#define STEP_MOST 1000000u     /* a lost lease skips at most this much */
#endif
#define STEP_FAST_MS 1000      /* renewals closer than this double the step */
#define LOG_AGAIN_MS 60000

enum section_state { WANTED, GRANTED, HELD };

struct section {
	enum section_state state;
	bool ask;              /* goes into the next request */
	bool asked;            /* is in the one under way */
	uint32_t step;
	uint64_t epoch;        /* WANTED: the one the store has; else the granted one */
	uint64_t ceiling, floor;
	uint64_t want;         /* HELD: ceiling to ask for */
	int64_t renewed_ms;
};

/* An append under way. It outlives the lease if that is destroyed first: l is NULL then. */
struct persist {
	struct lease *l;
	size_t n;
	Im__Bus__StoredSection rows[];
};

struct lease {
	struct store *store;
	struct im_loop *loop;
	struct im_mqtt *bus;   /* NULL: down */
	struct im_timer *timer;
	bool scheduled;        /* the timer runs towards a new request */
	unsigned delay_ms;     /* before the next new request: not 0 after a refusal */
	lease_fn *on_change;
	void *on_change_arg;
	lease_failed_fn *on_failure;
	void *on_failure_arg;

	char owner[sizeof(OWNER_PREFIX) + 32];
	uint64_t id;           /* of the request under way, else of the last one */
	uint8_t *frame;        /* the request under way; NULL: none */
	size_t frame_len;

	struct persist *persist;
	size_t held;
	int64_t logged_ms;     /* of the last refusal told */
	struct section sections[IM_SECTIONS];
};

static void persist(struct lease *l);

static void changed(struct lease *l)
{
	if (l->on_change)
		l->on_change(l->on_change_arg);
}

static void set_state(struct lease *l, struct section *s, enum section_state state)
{
	l->held -= s->state == HELD;
	l->held += state == HELD;
	s->state = state;
}

/* ---- asking */

static void send_frame(struct lease *l)
{
	/* Busy means that the bus is falling: the repeat comes in any case. */
	if (l->bus)
		(void)im_mqtt_publish(l->bus, "$im/seq", l->frame, l->frame_len, 1);
	im_timer_start(l->timer, REPEAT_MS, 0);
}

static void ask_soon(struct lease *l)
{
	if (l->frame || l->scheduled || !l->bus)
		return;
	l->scheduled = true;
	im_timer_start(l->timer, l->delay_ms, 0);
}

/* Fills rows and list with all that is to be asked; returns how many. */
static size_t gather(struct lease *l, Im__Bus__Lease *rows, Im__Bus__Lease **list)
{
	size_t n = 0;

	for (uint32_t i = 0; i < IM_SECTIONS; i++) {
		struct section *s = &l->sections[i];

		if (!s->ask || s->state == GRANTED)
			continue;
		im__bus__lease__init(&rows[n]);
		rows[n].section = i;
		rows[n].epoch = s->epoch;
		rows[n].ceiling = s->state == HELD ? s->want : 0;
		list[n] = &rows[n];
		n++;
		s->ask = false;
		s->asked = true;
	}
	return n;
}

static void ask_again_all(struct lease *l)
{
	for (uint32_t i = 0; i < IM_SECTIONS; i++) {
		l->sections[i].ask |= l->sections[i].asked;
		l->sections[i].asked = false;
	}
}

/* Packs what is to be asked into l->frame. False: out of memory. */
static bool make_request(struct lease *l)
{
	Im__Bus__LeaseRequest r = IM__BUS__LEASE_REQUEST__INIT;
	Im__Bus__Lease *rows = malloc(IM_SECTIONS * sizeof(*rows));
	Im__Bus__Lease **list = malloc(IM_SECTIONS * sizeof(*list));
	bool ok = rows && list;

	if (!ok)
		goto out;
	r.n_leases = gather(l, rows, list);
	if (r.n_leases == 0)
		goto out;
	r.leases = list;
	r.id = l->id + 1;
	r.owner = l->owner;
	l->frame_len = im__bus__lease_request__get_packed_size(&r);
	l->frame = malloc(l->frame_len);
	ok = l->frame != NULL;
	if (!ok) {
		ask_again_all(l);
		goto out;
	}
	(void)im__bus__lease_request__pack(&r, l->frame); /* it writes the size it said */
	l->id++;
out:
	free(list);
	free(rows);
	return ok;
}

static void on_timer(void *arg)
{
	struct lease *l = arg;

	l->scheduled = false;
	persist(l); /* if an append failed before */
	if (!l->bus)
		return;
	if (!l->frame && !make_request(l)) {
		l->delay_ms = REPEAT_MS;
		ask_soon(l);
	} else if (l->frame) {
		send_frame(l);
	}
}

/* ---- making grants durable */

static void on_persisted(void *arg, enum im_status st)
{
	struct persist *p = arg;
	struct lease *l = p->l;

	if (!l) {
		free(p);
		return;
	}
	l->persist = NULL;
	IM_KILLPOINT("lease.after_store");
	if (st == IM_OK) {
		for (size_t i = 0; i < p->n; i++)
			set_state(l, &l->sections[p->rows[i].section], HELD);
		im_log(IM_LOG_INFO, "evt=leased sections=%zu held=%zu", p->n, l->held);
		changed(l);
		persist(l); /* what was granted meanwhile */
	} else {
		im_log(IM_LOG_WARNING, "evt=lease status=%s: epochs are not durable yet, trying again", im_status_name(st));
		if (!l->scheduled)
			im_timer_start(l->timer, REPEAT_MS, 0);
		if (st == IM_UNCERTAIN && l->on_failure) /* without leases nothing is decided: nobody else would notice */
			l->on_failure(l->on_failure_arg, "the store failed to write the leases");
	}
	free(p);
}

/* Appends all that is granted and not yet durable, one append at a time. */
static void persist(struct lease *l)
{
	const Im__Bus__StoredSection **list;
	struct store_entry e = {.kind = STORE_SECTIONS};
	struct persist *p;
	size_t n = 0;

	for (uint32_t i = 0; i < IM_SECTIONS; i++)
		n += l->sections[i].state == GRANTED;
	if (n == 0 || l->persist)
		return;
	p = malloc(sizeof(*p) + n * sizeof(p->rows[0]));
	list = malloc(n * sizeof(*list));
	if (!p || !list) {
		free(p);
		free(list);
		im_timer_start(l->timer, REPEAT_MS, 0); /* comes back here */
		return;
	}
	p->l = l;
	p->n = 0;
	for (uint32_t i = 0; i < IM_SECTIONS; i++) {
		if (l->sections[i].state != GRANTED)
			continue;
		im__bus__stored_section__init(&p->rows[p->n]);
		p->rows[p->n].section = i;
		p->rows[p->n].epoch = l->sections[i].epoch;
		list[p->n] = &p->rows[p->n];
		p->n++;
	}
	e.sections = list;
	e.n_sections = n;
	l->persist = p;
	IM_KILLPOINT("lease.before_store");
	store_append(l->store, &e, 1, on_persisted, p);
	free(list);
}

/* ---- answers */

static void take_grant(struct lease *l, struct section *s, const Im__Bus__Lease *g)
{
	if (g->epoch <= s->epoch) {
		/* An epoch that stores may have seen: it would not fence. */
		im_log(IM_LOG_ERROR, "evt=lease section=%u epoch=%" PRIu64 " known=%" PRIu64 ": not above the known one, asking again",
		       g->section, g->epoch, s->epoch);
		s->ask = true;
		l->delay_ms = REPEAT_MS;
		return;
	}
	s->epoch = g->epoch;
	s->ceiling = g->ceiling;
	s->floor = g->floor > s->floor ? g->floor : s->floor;
	s->want = 0;
	set_state(l, s, GRANTED);
}

static void take_renewal(struct section *s, const Im__Bus__Lease *g)
{
	if (g->epoch != s->epoch)
		return; /* cannot be: renewals are granted for the epoch asked */
	if (g->ceiling > s->ceiling)
		s->ceiling = g->ceiling;
	s->ask |= s->ceiling < s->want; /* seqgen raises only so far at once */
}

/* What was asked and is not in the answer. */
static size_t take_refusals(struct lease *l)
{
	size_t n = 0;

	for (uint32_t i = 0; i < IM_SECTIONS; i++) {
		struct section *s = &l->sections[i];

		if (!s->asked)
			continue;
		s->asked = false;
		s->ask = true;
		set_state(l, s, WANTED);
		n++;
	}
	return n;
}

static void tell_refused(struct lease *l, size_t n, const char *why)
{
	int64_t now = im_clock_mono_ms();

	if (l->logged_ms != 0 && now - l->logged_ms < LOG_AGAIN_MS)
		return;
	l->logged_ms = now;
	im_log(IM_LOG_WARNING, "evt=lease_lost sections=%zu why=\"%s\": giving no sequences there until leased again", n, why);
}

static void take_answer(struct lease *l, const Im__Bus__LeaseAnswer *a)
{
	size_t refused, jumps = 0;

	free(l->frame);
	l->frame = NULL;
	l->delay_ms = 0;
	im_timer_stop(l->timer);
	for (size_t i = 0; i < a->n_leases; i++) {
		const Im__Bus__Lease *g = a->leases[i];
		struct section *s = g->section < IM_SECTIONS ? &l->sections[g->section] : NULL;

		if (!s || !s->asked)
			continue;
		s->asked = false;
		jumps += s->state == WANTED && !g->complete;
		if (s->state == WANTED)
			take_grant(l, s, g);
		else
			take_renewal(s, g);
	}
	if (jumps > 0)
		im_log(IM_LOG_WARNING, "evt=lease sections=%zu: somebody else had them last, sequences go on above what it may have given", jumps);
	refused = take_refusals(l);
	if (refused > 0) {
		l->delay_ms = REPEAT_MS;
		tell_refused(l, refused, a->error);
	}
	persist(l);
	ask_soon(l); /* what came up meanwhile; nothing to ask is noticed there */
	changed(l);
}

void lease_answer(struct lease *l, const void *payload, size_t len)
{
	Im__Bus__LeaseAnswer *a = im__bus__lease_answer__unpack(NULL, len, payload);

	if (!a)
		im_log(IM_LOG_WARNING, "evt=lease bytes=%zu why=\"not a lease answer\": dropped", len);
	else if (l->frame && a->id == l->id)
		take_answer(l, a);
	im__bus__lease_answer__free_unpacked(a, NULL);
}

/* ---- giving sequences */

/* Marks the section for the next request, with a step that grows while renewals come fast. */
static void renew(struct lease *l, struct section *s, uint64_t seq)
{
	int64_t now = im_loop_now_ms(l->loop);

	if (s->renewed_ms != 0 && now - s->renewed_ms < STEP_FAST_MS)
		s->step = s->step < STEP_MOST / 2 ? s->step * 2 : STEP_MOST;
	s->renewed_ms = now;
	s->want = (seq > s->ceiling ? seq : s->ceiling) + s->step;
	s->ask = true;
	ask_soon(l);
}

enum im_status lease_next(struct lease *l, uint32_t section, uint64_t last, uint64_t *seq, uint64_t *epoch)
{
	struct section *s = &l->sections[section % IM_SECTIONS];
	uint64_t next = (last > s->floor ? last : s->floor) + 1;

	if (s->state != HELD)
		return IM_BUSY;
	if (next + s->step / 2 > s->ceiling && !s->ask && !s->asked)
		renew(l, s, next);
	if (next > s->ceiling)
		return IM_BUSY;
	*seq = next;
	*epoch = s->epoch;
	return IM_OK;
}

void lease_each(const struct lease *l, lease_each_fn *fn, void *arg)
{
	for (uint32_t i = 0; i < IM_SECTIONS; i++)
		fn(arg, i, l->sections[i].epoch, l->sections[i].ceiling);
}

bool lease_is_held(const struct lease *l, uint32_t section, uint64_t epoch)
{
	const struct section *s = &l->sections[section % IM_SECTIONS];

	return s->state == HELD && s->epoch == epoch;
}

bool lease_ready(const struct lease *l)
{
	return l->held == IM_SECTIONS;
}

/* ---- life */

static enum im_status make_owner(struct lease *l, struct im_err *err)
{
	uint8_t r[16 + sizeof(l->id)];
	char *p = stpcpy(l->owner, OWNER_PREFIX);

	if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r))
		return im_fail(err, IM_FAILED, "no random numbers from the system");
	/* An answer to the process before us may still come: it must not be the answer to our first request. */
	memcpy(&l->id, r + 16, sizeof(l->id));
	for (size_t i = 0; i < 16; i++) {
		*p++ = "0123456789abcdef"[r[i] >> 4];
		*p++ = "0123456789abcdef"[r[i] & 15];
	}
	*p = '\0';
	return IM_OK;
}

enum im_status lease_create(struct im_loop *loop, struct store *store, struct lease **out, struct im_err *err)
{
	const uint64_t *epochs = store_start(store)->section_epochs;
	struct lease *l = calloc(1, sizeof(*l));

	if (!l)
		return im_fail(err, IM_FAILED, "out of memory");
	l->loop = loop;
	l->store = store;
	l->timer = im_timer_create(loop, on_timer, l);
	if (!l->timer || make_owner(l, err) != IM_OK) {
		lease_destroy(l);
		return im_fail(err, IM_FAILED, "leases: out of memory or random numbers");
	}
	for (uint32_t i = 0; i < IM_SECTIONS; i++)
		l->sections[i] = (struct section){.state = WANTED, .ask = true, .step = STEP_FIRST, .epoch = epochs[i]};
	*out = l;
	return IM_OK;
}

void lease_destroy(struct lease *l)
{
	if (!l)
		return;
	if (l->persist)
		l->persist->l = NULL;
	im_timer_destroy(l->timer);
	free(l->frame);
	free(l);
}

void lease_on_change(struct lease *l, lease_fn *fn, void *arg)
{
	l->on_change = fn;
	l->on_change_arg = arg;
}

void lease_on_failure(struct lease *l, lease_failed_fn *fn, void *arg)
{
	l->on_failure = fn;
	l->on_failure_arg = arg;
}

void lease_bus(struct lease *l, struct im_mqtt *bus)
{
	l->bus = bus;
	l->scheduled = false;
	im_timer_stop(l->timer);
	if (!bus) {
		if (!l->persist)
			im_timer_start(l->timer, REPEAT_MS, 0); /* an append may have to be tried again */
		return;
	}
	if (l->frame)
		send_frame(l);
	else
		ask_soon(l);
}
