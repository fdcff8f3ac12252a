/*
 * The difficult idea is which job stands for which. A lane remembers the one job of it that is in the queue (one that names the recipient
 * apart); what comes later takes its place, in the user's line too, so that a busy conversation does not fall back behind itself. A job
 * that is asked for or at the driver is not touched any more: if it comes back and finds a newer one, that one stands for it.
 */
#include "push/queue.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define CHANNELS_MAX ((size_t)2 * PUSH_APPS_MAX) /* apps with two environments each */

struct user_line {
	uint64_t user;
	struct push_job *first, *last;
	struct user_line *prev, *next; /* the ring */
	UT_hash_handle hh;
};

struct push_lane {
	uint64_t name;
	int64_t open_ms;               /* from then on the next may go */
	unsigned jobs;                 /* that point here */
	struct push_job *waiting[2];   /* [1]: names the recipient */
	struct push_lane *prev, *next; /* in the order of open_ms, while that is to come */
	bool listed;
	UT_hash_handle hh;
};

struct push_queue {
	int64_t coalesce_ms;
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	struct push_channel *channels[CHANNELS_MAX];
	size_t n_channels;
	struct push_lane *lanes, *opening, *opening_last;
	struct push_heap due, deadlines;
	struct push_job *first, *last;
	size_t n;
};

/* ---- names as numbers: keyed, so that nobody can choose names that collide */

static uint64_t hash_texts(const struct push_queue *q, const char *a, const char *b, const char *c)
{
	const char *const parts[] = {a, b, c};
	uint8_t text[3 * (PUSH_JOB_TEXT_MAX + 1)];
	uint64_t out = 0;
	size_t n = 0;

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		size_t len = strnlen(parts[i], PUSH_JOB_TEXT_MAX);

		memcpy(text + n, parts[i], len);
		n += len;
		text[n++] = '\0';
	}
	crypto_shorthash((uint8_t *)&out, text, n, q->hash_key);
	return out;
}

uint64_t push_queue_device(const struct push_queue *q, const char *user, const char *device, const char *app)
{
	return hash_texts(q, user, device, app);
}

/* ---- channels */

struct push_channel *push_queue_channel(struct push_queue *q, const char *app, const char *env)
{
	struct push_channel *c;

	for (size_t i = 0; i < q->n_channels; i++)
		if (strcmp(q->channels[i]->app, app) == 0 && strcmp(q->channels[i]->env, env) == 0)
			return q->channels[i];
	if (q->n_channels == CHANNELS_MAX || strlen(app) > PUSH_APP_NAME_MAX)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	memcpy(c->app, app, strlen(app));
	c->env = env;
	q->channels[q->n_channels++] = c;
	return c;
}

struct push_channel *push_queue_channel_at(struct push_queue *q, size_t i)
{
	return i < q->n_channels ? q->channels[i] : NULL;
}

/* ---- lines */

static struct user_line *line_get(struct push_channel *c, uint64_t user)
{
	struct user_line *l = NULL;

	HASH_FIND(hh, c->lines, &user, sizeof(user), l);
	if (l)
		return l;
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->user = user;
	HASH_ADD(hh, c->lines, user, sizeof(l->user), l);
	if (c->turn) { /* behind all others */
		l->next = c->turn;
		l->prev = c->turn->prev;
		l->prev->next = l;
		l->next->prev = l;
	} else {
		c->turn = l->prev = l->next = l;
	}
	return l;
}

static void line_drop(struct push_channel *c, struct user_line *l)
{
	if (c->turn == l)
		c->turn = l->next == l ? NULL : l->next;
	l->prev->next = l->next;
	l->next->prev = l->prev;
	HASH_DELETE(hh, c->lines, l);
	free(l);
}

/* Between `before` and `after`, of which either may be NULL at the ends. */
static void line_link(struct user_line *l, struct push_job *j, struct push_job *before, struct push_job *after)
{
	j->line = l;
	j->prev = before;
	j->next = after;
	*(before ? &before->next : &l->first) = j;
	*(after ? &after->prev : &l->last) = j;
	j->channel->ready++;
	j->place = PUSH_PLACE_READY;
}

static void line_unlink(struct push_job *j, bool keep_line)
{
	struct user_line *l = j->line;

	*(j->prev ? &j->prev->next : &l->first) = j->next;
	*(j->next ? &j->next->prev : &l->last) = j->prev;
	j->prev = j->next = NULL;
	j->line = NULL;
	j->channel->ready--;
	if (!l->first && !keep_line)
		line_drop(j->channel, l);
}

/* ---- lanes */

static struct push_lane *lane_get(struct push_queue *q, const struct push_job *j)
{
	uint64_t name = hash_texts(q, j->user, j->device, j->kind == IM__PUSH__KIND__KIND_BADGE ? "" : j->conv);
	struct push_lane *l = NULL;

	HASH_FIND(hh, q->lanes, &name, sizeof(name), l);
	if (l)
		return l;
	l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->name = name;
	HASH_ADD(hh, q->lanes, name, sizeof(l->name), l);
	return l;
}

static void lane_unlist(struct push_queue *q, struct push_lane *l)
{
	if (!l->listed)
		return;
	*(l->prev ? &l->prev->next : &q->opening) = l->next;
	*(l->next ? &l->next->prev : &q->opening_last) = l->prev;
	l->prev = l->next = NULL;
	l->listed = false;
}

static void lane_tidy(struct push_queue *q, struct push_lane *l)
{
	if (l->jobs || l->listed)
		return;
	HASH_DELETE(hh, q->lanes, l);
	free(l);
}

static void lane_close(struct push_queue *q, struct push_lane *l, int64_t until_ms)
{
	lane_unlist(q, l);
	l->open_ms = until_ms;
	l->prev = q->opening_last;
	*(q->opening_last ? &q->opening_last->next : &q->opening) = l;
	q->opening_last = l;
	l->listed = true;
}

/* All intervals are nearly alike, so the list is nearly in order; what is late is only memory. */
static void lanes_open(struct push_queue *q, int64_t now_ms)
{
	struct push_lane *l;

	while ((l = q->opening) && l->open_ms <= now_ms) {
		assert(l->listed && !l->prev);
		lane_unlist(q, l);
		lane_tidy(q, l);
	}
}

static void lane_leave(struct push_queue *q, struct push_job *j)
{
	struct push_lane *l = j->lane;

	if (!l)
		return;
	if (l->waiting[j->mention] == j)
		l->waiting[j->mention] = NULL;
	l->jobs--;
	j->lane = NULL;
	lane_tidy(q, l);
}

/* ---- places */

static void out_of_place(struct push_queue *q, struct push_job *j)
{
	push_heap_remove(&q->deadlines, j);
	if (j->place == PUSH_PLACE_READY)
		line_unlink(j, false);
	else
		push_heap_remove(&q->due, j);
	j->place = PUSH_PLACE_NONE;
}

static void put_waiting(struct push_queue *q, struct push_job *j, int64_t due_ms)
{
	j->due_ms = due_ms;
	push_heap_add(&q->due, j);
	push_heap_add(&q->deadlines, j);
	j->place = PUSH_PLACE_WAITING;
}

/* At the end of the line, or its head. Without memory for a line it waits a second. */
static void put_ready(struct push_queue *q, struct push_job *j, bool head, int64_t now_ms)
{
	struct user_line *l = line_get(j->channel, j->user_hash);

	if (!l) {
		put_waiting(q, j, now_ms + 1000);
		return;
	}
	push_heap_add(&q->deadlines, j);
	line_link(l, j, head ? NULL : l->last, head ? l->first : NULL);
}

void push_queue_ready(struct push_queue *q, struct push_job *j, struct push_channel *c, int64_t now_ms)
{
	j->channel = c;
	put_ready(q, j, true, now_ms);
}

void push_queue_wait(struct push_queue *q, struct push_job *j, struct push_channel *c, int64_t due_ms, int64_t now_ms)
{
	j->channel = c;
	put_waiting(q, j, due_ms < now_ms + PUSH_HOLD_MOST_MS ? due_ms : now_ms + PUSH_HOLD_MOST_MS);
}

void push_queue_hurry(struct push_queue *q, struct push_job *j, int64_t now_ms)
{
	push_heap_remove(&q->due, j);
	j->due_ms = now_ms;
	push_heap_add(&q->due, j);
}

/* ---- coming in */

static bool is_coalesced(const struct push_job *j)
{
	return j->kind == IM__PUSH__KIND__KIND_BADGE || (j->kind == IM__PUSH__KIND__KIND_MESSAGE && *j->conv);
}

/* `j` stands for `old`, which leaves. Says where in the line it was, if it was in one. */
static void swallow(struct push_queue *q, struct push_job *old, struct push_job *j, push_swallow_fn *swallowed, void *arg)
{
	uint64_t since = old->since_seq ? old->since_seq : old->seq;

	if (old->seq && (!j->since_seq || since < j->since_seq))
		j->since_seq = since;
	push_queue_remove(q, old);
	swallowed(arg, old, j);
}

static void take_place(struct push_queue *q, struct push_job *j, struct push_job *old, push_swallow_fn *swallowed, void *arg)
{
	struct user_line *l = old->line;
	struct push_job *before = old->prev, *after = old->next;

	line_unlink(old, true);
	push_heap_remove(&q->deadlines, old);
	old->place = PUSH_PLACE_NONE;
	push_heap_add(&q->deadlines, j);
	line_link(l, j, before, after);
	swallow(q, old, j, swallowed, arg);
}

/* Returns the one in whose place it may go. */
static struct push_job *enter_lane(struct push_queue *q, struct push_job *j, push_swallow_fn *swallowed, void *arg)
{
	struct push_lane *l = j->lane;
	struct push_job *same = l->waiting[j->mention], *less = j->mention ? l->waiting[0] : NULL;

	l->waiting[j->mention] = j;
	if (same && less)
		swallow(q, less, j, swallowed, arg);
	return same ? same : less;
}

static int64_t first_due(const struct push_job *j, int64_t now_ms, int64_t wall_ms)
{
	int64_t due = now_ms, wall_due = j->not_before_ms > j->due_ms ? j->not_before_ms : j->due_ms; /* due_ms: as loaded, UTC */

	if (wall_due > wall_ms)
		due += wall_due - wall_ms;
	if (j->lane && !j->mention && j->lane->open_ms > due)
		due = j->lane->open_ms;
	return due < now_ms + PUSH_HOLD_MOST_MS ? due : now_ms + PUSH_HOLD_MOST_MS;
}

static void list_job(struct push_queue *q, struct push_job *j)
{
	j->all_prev = q->last;
	j->all_next = NULL;
	*(q->last ? &q->last->all_next : &q->first) = j;
	q->last = j;
	q->n++;
}

bool push_queue_add(struct push_queue *q, struct push_job *j, struct push_channel *c, int64_t now_ms, int64_t wall_ms, push_swallow_fn *swallowed,
		    void *arg)
{
	struct push_job *old = NULL;
	int64_t due;

	if (is_coalesced(j)) {
		j->lane = lane_get(q, j);
		if (!j->lane)
			return false;
		j->lane->jobs++;
	}
	j->channel = c;
	j->user_hash = hash_texts(q, j->user, "", "");
	j->device_hash = push_queue_device(q, j->user, j->device, j->app);
	j->end_ms = now_ms + (j->deadline_ms - wall_ms);
	due = first_due(j, now_ms, wall_ms);
	list_job(q, j);
	if (j->lane)
		old = enter_lane(q, j, swallowed, arg);
	if (old && old->place == PUSH_PLACE_READY && old->channel == c && due <= now_ms) {
		take_place(q, j, old, swallowed, arg);
		return true;
	}
	if (due > now_ms)
		put_waiting(q, j, due);
	else
		put_ready(q, j, false, now_ms);
	if (old)
		swallow(q, old, j, swallowed, arg);
	return true;
}

/* ---- going out and coming back */

struct push_job *push_queue_next(struct push_queue *q, struct push_channel *c, int64_t now_ms)
{
	struct user_line *l = c->turn;
	struct push_job *j;

	if (!l)
		return NULL;
	j = l->first;
	c->turn = l->next;
	out_of_place(q, j);
	c->under_way++;
	if (!j->lane)
		return j;
	if (j->lane->waiting[j->mention] == j)
		j->lane->waiting[j->mention] = NULL;
	lane_close(q, j->lane, now_ms + (j->kind == IM__PUSH__KIND__KIND_BADGE ? PUSH_BADGE_COALESCE_MS : q->coalesce_ms));
	return j;
}

struct push_job *push_queue_again(struct push_queue *q, struct push_job *j)
{
	struct push_lane *l = j->lane;
	struct push_job *newer;

	(void)q;
	if (!l)
		return NULL;
	newer = l->waiting[j->mention];
	if (!newer && !j->mention && l->waiting[1] && l->waiting[1]->row > j->row)
		newer = l->waiting[1];
	if (!newer) {
		l->waiting[j->mention] = j;
		return NULL;
	}
	if (j->seq) {
		uint64_t since = j->since_seq ? j->since_seq : j->seq;

		if (!newer->since_seq || since < newer->since_seq)
			newer->since_seq = since;
	}
	return newer;
}

void push_queue_remove(struct push_queue *q, struct push_job *j)
{
	out_of_place(q, j);
	lane_leave(q, j);
	*(j->all_prev ? &j->all_prev->all_next : &q->first) = j->all_next;
	*(j->all_next ? &j->all_next->all_prev : &q->last) = j->all_prev;
	j->all_prev = j->all_next = NULL;
	q->n--;
}

void push_queue_due(struct push_queue *q, int64_t now_ms, size_t most)
{
	struct push_job *j;

	lanes_open(q, now_ms);
	while (most-- && (j = push_heap_top(&q->due)) && j->due_ms <= now_ms) {
		out_of_place(q, j);
		put_ready(q, j, false, now_ms);
	}
}

struct push_job *push_queue_expired(struct push_queue *q, int64_t now_ms)
{
	struct push_job *j = push_heap_top(&q->deadlines);

	if (!j || j->end_ms > now_ms)
		return NULL;
	out_of_place(q, j);
	if (j->lane && j->lane->waiting[j->mention] == j)
		j->lane->waiting[j->mention] = NULL;
	return j;
}

/* ---- all of it */

bool push_queue_reserve(struct push_queue *q, size_t n)
{
	return push_heap_reserve(&q->due, n + 1) && push_heap_reserve(&q->deadlines, n + 1);
}

size_t push_queue_count(const struct push_queue *q)
{
	return q->n;
}

struct push_job *push_queue_first(const struct push_queue *q)
{
	return q->first;
}

size_t push_queue_lanes(const struct push_queue *q)
{
	return HASH_COUNT(q->lanes);
}

void push_queue_coalesce(struct push_queue *q, int64_t ms)
{
	q->coalesce_ms = ms;
}

struct push_queue *push_queue_create(int64_t coalesce_ms)
{
	struct push_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->coalesce_ms = coalesce_ms;
	randombytes_buf(q->hash_key, sizeof(q->hash_key));
	push_heap_init(&q->due, offsetof(struct push_job, due_ms), offsetof(struct push_job, due_at));
	push_heap_init(&q->deadlines, offsetof(struct push_job, end_ms), offsetof(struct push_job, deadline_at));
	return q;
}

void push_queue_destroy(struct push_queue *q)
{
	if (!q)
		return;
	while (q->first) {
		struct push_job *j = q->first;

		push_queue_remove(q, j);
		push_job_free(j);
	}
	while (q->opening)
		q->opening->open_ms = INT64_MIN, lanes_open(q, 0);
	for (size_t i = 0; i < q->n_channels; i++)
		free(q->channels[i]);
	push_heap_finish(&q->due);
	push_heap_finish(&q->deadlines);
	free(q);
}
