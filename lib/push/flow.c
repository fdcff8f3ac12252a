/*
 * A job's way. Every step that must survive is written first and acted on when it is durable:
 *
 *   frame -> INSERT -> in the queue -> asked -> ticket -> INFLIGHT -> driver -> what came of it -> written -> ended, or in the queue again
 *
 * so a death between two steps finds the job where it was, and only one that was INFLIGHT may have been sent.
 */
#include "push/bridge.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DUE_AT_ONCE 5000u   /* jobs that become due in one turn of the loop */
#define ALARM_AGAIN_MS 60000
#define RETRY_ROOM_MS 1000  /* a retry for which the minute has no room waits so long, and up to as much again */

/* ---- channels */

static const char *default_env(const struct bridge *b, const char *app)
{
	const char *const *envs = b->driver->envs;

	for (size_t i = 0; envs && i < b->n_apps; i++)
		for (size_t e = 0; envs[e] && strcmp(push_app_name(b->apps[i]), app) == 0; e++)
			if (strcmp(push_app_text(b->apps[i], "env"), envs[e]) == 0)
				return envs[e];
	return envs ? envs[0] : "";
}

/* Static text of the driver; NULL: there is no such one. */
static const char *known_env(const struct bridge *b, const char *env)
{
	for (size_t i = 0; b->driver->envs && b->driver->envs[i]; i++)
		if (strcmp(b->driver->envs[i], env) == 0)
			return b->driver->envs[i];
	return NULL;
}

static const char *other_env(const struct bridge *b, const char *env)
{
	for (size_t i = 0; b->driver->envs && b->driver->envs[i]; i++)
		if (strcmp(b->driver->envs[i], env) != 0)
			return b->driver->envs[i];
	return env;
}

static bool app_is_known(const struct bridge *b, const char *app)
{
	for (size_t i = 0; i < b->n_apps; i++)
		if (strcmp(push_app_name(b->apps[i]), app) == 0)
			return true;
	return false;
}

static struct push_channel *channel_of(struct bridge *b, const char *app, const char *env)
{
	struct push_channel *c = push_queue_channel(b->queue, app, env);

	if (c)
		c->known = app_is_known(b, app);
	return c;
}

static size_t channel_room(struct bridge *b, const struct push_channel *c)
{
	size_t room, driver;

	if (!c->known)
		return 0;
	room = push_breaker_room(&c->breaker, bridge_now(b));
	if (room == 0)
		return 0;
	driver = b->driver->room(b->handle, c->app, c->env);
	if (driver < room)
		room = driver;
	return room > c->under_way ? room - c->under_way : 0;
}

static void alarm_channel(struct bridge *b, struct push_channel *c, const struct push_job *j, const struct push_result *r)
{
	int64_t now = bridge_now(b);

	if (c->told_ms && now - c->told_ms < ALARM_AGAIN_MS)
		return;
	c->told_ms = now;
	im_log(IM_LOG_ERROR, "evt=push_refused provider=%s app=%s env=%s result=%s status=%d reason=\"%s\" user=%s key=%s: someone must act%s", b->driver->provider,
	       c->app, c->env, push_class_name(r->class), r->status, r->reason, j->user, j->key,
	       r->class == PUSH_CONFIG || r->class == PUSH_AUTH ? ": mend the app's file or what it names, then SIGHUP; pushes wait" : "");
}

/* ---- writing a state */

static void place(struct bridge *b, struct push_job *j, int64_t due_ms);
static void send_now(struct bridge *b, struct push_job *j);

static void forget_out(struct bridge *b, struct push_job *j)
{
	struct push_out *o = j->out;

	if (!o)
		return;
	HASH_DEL(b->out, o);
	if (o->ticket && o->ticket->token)
		sodium_memzero(o->ticket->token->token, strlen(o->ticket->token->token));
	im__push__ticket__free_unpacked(o->ticket, NULL);
	free(o);
	j->out = NULL;
}

static void end_job(struct bridge *b, struct push_job *j, const struct outbox_op *op)
{
	b->stats.ended[op->state]++;
	if (op->state == PUSH_STATE_ACCEPTED)
		push_stats_latency(&b->stats.latency, op->done_ms - j->created_ms);
	im_log(op->state == PUSH_STATE_DEAD ? IM_LOG_INFO : IM_LOG_DEBUG, "evt=push user=%s device=%s key=%s app=%s state=%s reason=%s attempts=%u maybe_dup=%d",
	       j->user, j->device, j->key, j->app, push_state_name(op->state), op->reason, op->life.attempts, op->life.maybe_dup);
	push_job_free(j);
	frame_room(b);
}

static void on_written(void *arg, struct outbox_op *op)
{
	struct bridge *b = arg;
	struct push_job *j = op->job;

	tokens_say(b, op);
	j->state = op->state;
	j->life = op->life;
	if (push_state_is_final(op->state))
		end_job(b, j, op);
	else if (op->state == PUSH_STATE_INFLIGHT)
		send_now(b, j);
	else
		place(b, j, op->due_ms);
	free(op);
}

/* Without memory for it the process ends: what is written so far is where the next one begins. */
static struct outbox_op *begin_write(struct bridge *b, struct push_job *j, enum push_state state, const char *reason)
{
	struct outbox_op *op = calloc(1, sizeof(*op));

	if (!op)
		service_fail(b->service, "out of memory");
	op->kind = OUTBOX_STATE;
	op->done = on_written;
	op->arg = b;
	op->job = j;
	op->state = state;
	op->life = j->life;
	op->done_ms = push_state_is_final(state) ? im_clock_wall_ms() : 0;
	(void)snprintf(op->reason, sizeof(op->reason), "%s", reason); /* cut: still says what */
	j->place = PUSH_PLACE_WRITING;
	return op;
}

/* A final state of a job that is not at the driver; it leaves the queue at once. */
static void finish_job(struct bridge *b, struct push_job *j, enum push_state state, const char *reason)
{
	push_queue_remove(b->queue, j);
	outbox_give(b->outbox, begin_write(b, j, state, reason));
}

static void on_swallowed(void *arg, struct push_job *old, struct push_job *by)
{
	struct bridge *b = arg;
	struct outbox_op *op = begin_write(b, old, PUSH_STATE_COALESCED, "");

	op->into = by->row;
	op->into_since = by->since_seq;
	outbox_give(b->outbox, op);
}

/* It comes back into the queue, unless something newer stands for it. */
static bool come_back(struct bridge *b, struct push_job *j)
{
	struct push_job *newer = push_queue_again(b->queue, j);

	if (!newer)
		return true;
	push_queue_remove(b->queue, j);
	on_swallowed(b, j, newer);
	return false;
}

/* Where its state says; due_ms is when, UTC, 0 = at once. */
static void place(struct bridge *b, struct push_job *j, int64_t due_ms)
{
	int64_t now = bridge_now(b), wait = due_ms ? due_ms - im_clock_wall_ms() : 0;

	if (!come_back(b, j))
		return;
	if (wait > 0)
		push_queue_wait(b->queue, j, j->channel, now + wait, now);
	else
		push_queue_ready(b->queue, j, j->channel, now);
}

/* ---- coming in */

static void enter_queue(struct bridge *b, struct push_job *j, int64_t now, int64_t wall)
{
	struct push_channel *c = channel_of(b, j->app, default_env(b, j->app));

	if (!c) {
		outbox_give(b->outbox, begin_write(b, j, PUSH_STATE_DEAD, "config"));
		im_log(IM_LOG_ERROR, "evt=push app=%.64s why=\"more apps than a bridge serves\": its pushes end", j->app);
	} else if (!push_queue_reserve(b->queue, push_queue_count(b->queue) + 1) ||
		   !push_queue_add(b->queue, j, c, now, wall, on_swallowed, b)) {
		service_fail(b->service, "out of memory"); /* it is stored: the next start finds it */
	} else if (!c->known && !c->told_ms) {
		c->told_ms = now;
		im_log(IM_LOG_ERROR, "evt=push app=%s why=\"there is no file %s.%s.conf\": its pushes wait for one until they expire", c->app,
		       b->driver->provider, c->app);
	}
}

static void on_stored(void *arg, struct outbox_op *op)
{
	struct bridge *b = arg;
	int64_t now = bridge_now(b), wall = im_clock_wall_ms();

	for (size_t i = 0; i < op->n; i++) {
		struct push_job *j = op->jobs[i];

		if (j->row) {
			b->stats.jobs++;
			enter_queue(b, j, now, wall);
		} else {
			b->stats.known++;
			push_job_free(j);
		}
	}
	b->pending -= op->n;
	if (op->session == b->session && op->number > b->stored)
		b->stored = op->number;
	free(op->jobs);
	free(op);
	frame_room(b);
}

static struct outbox_op *insert_op(struct bridge *b, size_t n, uint64_t frame)
{
	struct outbox_op *op = calloc(1, sizeof(*op));

	if (op)
		op->jobs = calloc(n + 1, sizeof(struct push_job *));
	if (!op || !op->jobs) {
		free(op);
		return NULL;
	}
	op->kind = OUTBOX_INSERT;
	op->done = on_stored;
	op->arg = b;
	op->number = frame;
	op->session = b->session;
	return op;
}

static void drop_insert(struct outbox_op *op)
{
	for (size_t i = 0; i < op->n; i++)
		push_job_free(op->jobs[i]);
	free(op->jobs);
	free(op);
}

bool flow_take(struct bridge *b, Im__Push__Job **jobs, size_t n, uint64_t frame)
{
	const struct im_settings *set = &b->service->settings;
	struct outbox_op *op;

	if (b->draining || b->pending + n > BRIDGE_PENDING || push_queue_count(b->queue) + b->pending + n > set->push_outbox)
		return false;
	op = insert_op(b, n, frame);
	if (!op)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *problem = push_job_problem(jobs[i]);

		if (problem) {
			im_log(IM_LOG_WARNING, "evt=job frame=%llu why=\"it %s\": left out", (unsigned long long)frame, problem);
			continue;
		}
		op->jobs[op->n] = push_job_create(jobs[i], (int64_t)set->push_ttl_s * 1000);
		if (!op->jobs[op->n]) {
			drop_insert(op);
			return false;
		}
		op->n++;
	}
	b->pending += op->n;
	outbox_give(b->outbox, op);
	return true;
}

bool flow_load(struct bridge *b, struct outbox_start *s)
{
	int64_t now = bridge_now(b), wall = im_clock_wall_ms();

	if (!push_queue_reserve(b->queue, s->n_jobs + 1))
		return false;
	for (size_t i = 0; i < s->n_jobs; i++) {
		struct push_job *j = s->jobs[i];

		if (j->life.recovered > PUSH_RECOVERED_MAX) {
			im_log(IM_LOG_ERROR, "evt=push user=%s device=%s key=%s why=\"under way at %u deaths of the bridge\": not tried again", j->user,
			       j->device, j->key, j->life.recovered);
			outbox_give(b->outbox, begin_write(b, j, PUSH_STATE_DEAD, "attempts"));
		} else {
			enter_queue(b, j, now, wall);
			if (j->place == PUSH_PLACE_WAITING && tokens_is_suspect(b, j))
				j->why = "token_suspect"; /* so that new files hurry it */
		}
	}
	b->stats.recovered += s->recovered;
	b->stats.maybe_dups += s->recovered;
	return true;
}

/* ---- asking */

static void ask(struct bridge *b, struct push_job *j)
{
	uint64_t id = b->ask + 1;

	while (b->asks[id % BRIDGE_ASKS]) /* one of them is free: n_asks is less */
		id++;
	b->ask = id;
	b->asks[id % BRIDGE_ASKS] = j;
	b->asked_ms[id % BRIDGE_ASKS] = bridge_now(b);
	b->n_asks++;
	j->ask = id;
	j->place = PUSH_PLACE_ASKED;
	b->to_ask[b->n_to_ask++] = j;
}

static void unask(struct bridge *b, struct push_job *j)
{
	b->asks[j->ask % BRIDGE_ASKS] = NULL;
	b->n_asks--;
	j->channel->under_way--;
	for (size_t i = 0; i < b->n_to_ask; i++)
		if (b->to_ask[i] == j) {
			memmove(&b->to_ask[i], &b->to_ask[i + 1], (b->n_to_ask - i - 1) * sizeof(b->to_ask[0]));
			b->n_to_ask--;
			break;
		}
}

static void wait_until(struct bridge *b, struct push_job *j, int64_t due_ms, const char *why)
{
	j->why = why;
	if (come_back(b, j))
		push_queue_wait(b->queue, j, j->channel, due_ms, bridge_now(b));
}

void flow_unask(struct bridge *b, struct push_job *j)
{
	unask(b, j);
	if (come_back(b, j))
		push_queue_ready(b->queue, j, j->channel, bridge_now(b));
}

/* It was its turn. Is there anything against it before the service is asked? */
static void turn_of(struct bridge *b, struct push_job *j)
{
	int64_t now = bridge_now(b), hot = tokens_hot_until(b, j);
	struct push_channel *c = j->channel;

	if (hot > now) {
		c->under_way--;
		wait_until(b, j, hot, "token_rate");
	} else if (j->life.attempts && !push_budget_allows(&c->budget, now)) {
		c->under_way--;
		wait_until(b, j, now + RETRY_ROOM_MS + randombytes_random() % RETRY_ROOM_MS, "retry_budget");
	} else {
		j->why = NULL;
		ask(b, j);
	}
}

static void pump_channel(struct bridge *b, struct push_channel *c)
{
	size_t room = c->ready ? channel_room(b, c) : 0;
	struct push_job *j;

	while (room-- && b->n_asks < BRIDGE_ASKS && (j = push_queue_next(b->queue, c, bridge_now(b))))
		turn_of(b, j);
}

void flow_pump(struct bridge *b)
{
	struct push_channel *c;
	size_t n = 0;

	if (!b->greeted || b->trouble || b->draining)
		return;
	while (push_queue_channel_at(b->queue, n))
		n++;
	for (size_t i = 0; i < n; i++) {
		c = push_queue_channel_at(b->queue, (b->turn + i) % n);
		pump_channel(b, c);
	}
	b->turn++;
}

/* ---- the ticket */

static struct push_out *make_out(struct bridge *b, struct push_job *j, Im__Push__Ticket *t)
{
	struct push_out *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->row = j->row;
	o->job = j;
	o->ticket = t;
	push_job_message(j, &o->message);
	o->send = (struct push_send){.row = j->row, .attempt = j->life.attempts + 1, .job = &o->message, .ticket = t};
	push_ids_fill(&b->ids, j, &o->send);
	HASH_ADD(hh, b->out, row, sizeof(o->row), o);
	j->out = o;
	return o;
}

/* The environment it goes to; written into the ticket, so that the driver need not guess. NULL: out of memory. */
static const char *choose_env(struct bridge *b, const struct push_job *j, Im__Push__Token *t, bool *guessed)
{
	const char *env = known_env(b, t->env);
	char *copy;

	*guessed = b->driver->envs && !env;
	if (!b->driver->envs)
		return "";
	if (!env)
		env = default_env(b, t->app);
	if (*guessed && j->life.other_env)
		env = other_env(b, env);
	copy = strdup(env);
	if (!copy)
		return NULL;
	if (t->env != protobuf_c_empty_string) /* what was not sent is this static text */
		free(t->env);
	t->env = copy;
	return env;
}

static void mark(struct bridge *b, struct push_job *j, Im__Push__Ticket *t, struct push_channel *c, bool guessed)
{
	struct push_out *o = make_out(b, j, t);

	if (!o) {
		im__push__ticket__free_unpacked(t, NULL);
		wait_until(b, j, bridge_now(b) + 1000, "memory");
		return;
	}
	o->env_guessed = guessed;
	j->channel = c;
	c->under_way++;
	push_breaker_sent(&c->breaker);
	outbox_give(b->outbox, begin_write(b, j, PUSH_STATE_INFLIGHT, ""));
	j->place = PUSH_PLACE_OUT;
}

static void ticket_to_send(struct bridge *b, struct push_job *j, Im__Push__Ticket *t)
{
	const char *problem = t->token ? push_token_problem(b->driver->provider, t->token) : "there is none";
	struct push_suspect *suspect = t->token ? tokens_suspect(b, j, t->token->registered_ms) : NULL;
	int64_t now = bridge_now(b), wall = im_clock_wall_ms();
	const char *env;
	struct push_channel *c;
	bool guessed;

	if (problem) {
		im_log(IM_LOG_WARNING, "evt=push user=%s device=%s key=%s why=\"its token: %s\": not sent", j->user, j->device, j->key, problem);
		finish_job(b, j, PUSH_STATE_DEAD, "token");
		goto unsent;
	}
	if (suspect && suspect->next_ms > wall) {
		wait_until(b, j, now + (suspect->next_ms - wall), "token_suspect");
		goto unsent;
	}
	env = choose_env(b, j, t->token, &guessed);
	c = env ? channel_of(b, t->token->app, env) : NULL;
	if (!c) {
		wait_until(b, j, now + 1000, "memory");
	} else if (channel_room(b, c) == 0) { /* it closed meanwhile, or this is another one */
		j->channel = c;
		if (come_back(b, j))
			push_queue_ready(b->queue, j, c, now);
	} else {
		mark(b, j, t, c, guessed);
		return;
	}
unsent:
	if (t->token)
		sodium_memzero(t->token->token, strlen(t->token->token));
	im__push__ticket__free_unpacked(t, NULL);
}

static const char *hold_name(const char *reason)
{
	static const char *const names[] = {"quiet_hours", "active_device"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], reason) == 0)
			return names[i];
	return "held";
}

void flow_ticket(struct bridge *b, Im__Push__Ticket *t)
{
	struct push_job *j = t ? b->asks[t->id % BRIDGE_ASKS] : NULL;

	if (!j || j->ask != t->id) { /* answered late: it was asked again */
		im__push__ticket__free_unpacked(t, NULL);
		return;
	}
	unask(b, j);
	if (b->draining) {
		if (come_back(b, j))
			push_queue_ready(b->queue, j, j->channel, bridge_now(b));
	} else if (t->verdict == IM__PUSH__VERDICT__VERDICT_CANCEL) {
		finish_job(b, j, PUSH_STATE_CANCELLED, t->reason);
	} else if (t->verdict == IM__PUSH__VERDICT__VERDICT_HOLD) {
		int64_t wait = t->hold_until_ms - im_clock_wall_ms();

		wait_until(b, j, bridge_now(b) + (wait > 1000 ? wait : 1000), hold_name(t->reason));
	} else {
		ticket_to_send(b, j, t);
		return;
	}
	im__push__ticket__free_unpacked(t, NULL);
}

/* ---- at the driver */

/* It is INFLIGHT and durable. What closed in the meantime closed for this one too. */
static void send_now(struct bridge *b, struct push_job *j)
{
	struct push_out *o = j->out;
	struct push_channel *c = j->channel;

	c->under_way--;
	if (b->draining || (c->breaker.kind != PUSH_BREAKER_CLOSED && !c->breaker.probing)) {
		forget_out(b, j);
		outbox_give(b->outbox, begin_write(b, j, PUSH_STATE_READY, ""));
		return;
	}
	c->out++;
	push_budget_count(&c->budget, bridge_now(b), j->life.attempts > 0);
	b->stats.retries += j->life.attempts > 0;
	j->place = PUSH_PLACE_OUT;
	o->sent = true;
	o->sent_ms = bridge_now(b);
	IM_KILLPOINT("push.before_send");
	b->driver->send(b->handle, &o->send, j->life.minimal);
	IM_KILLPOINT("push.after_send");
}

/* A vendor's day that has ended already, or never does, is no moment to go by. */
static int64_t quota_wait(int64_t until_ms)
{
	int64_t wait = until_ms - im_clock_wall_ms();

	if (wait < PUSH_CONFIG_PROBE_MS)
		return PUSH_CONFIG_PROBE_MS;
	return wait < PUSH_HOLD_MOST_MS ? wait : PUSH_HOLD_MOST_MS;
}

static void move_breaker(struct bridge *b, struct push_channel *c, const struct push_step *s, int64_t sent_ms)
{
	int64_t now = bridge_now(b);

	switch (s->effect) {
	case PUSH_EFFECT_NONE:
		push_breaker_undecided(&c->breaker);
		break;
	case PUSH_EFFECT_GOOD:
		push_breaker_good(&c->breaker, now);
		break;
	case PUSH_EFFECT_BAD:
		push_breaker_bad(&c->breaker, now);
		break;
	case PUSH_EFFECT_RATE:
		push_breaker_open(&c->breaker, PUSH_BREAKER_RATE, now + s->effect_ms);
		break;
	case PUSH_EFFECT_QUOTA:
		push_breaker_open(&c->breaker, PUSH_BREAKER_QUOTA, now + quota_wait(s->effect_ms));
		break;
	case PUSH_EFFECT_CONFIG:
		push_breaker_config(&c->breaker, sent_ms, now);
		break;
	}
}

static enum push_belief belief_of(struct bridge *b, const struct push_out *o, const struct push_result *r, bool against)
{
	int64_t registered = o->ticket->token->registered_ms;
	const struct push_suspect *s = tokens_suspect(b, o->job, registered);

	if (against || r->class == PUSH_ACCEPTED)
		push_guard_add(&o->job->channel->guard, against);
	return push_guard_judge(&o->job->channel->guard, registered, r->invalid_since_ms, s ? s->first_ms : 0, im_clock_wall_ms());
}

static const char *reason_of(const struct push_step *s, const struct push_result *r)
{
	return s->state == PUSH_STATE_ACCEPTED ? "" : r->reason[0] ? r->reason : s->why ? s->why : "";
}

void flow_result(void *arg, uint64_t row, const struct push_result *r)
{
	struct bridge *b = arg;
	struct push_out *o = NULL;
	struct push_step s;
	struct push_job *j;
	struct outbox_op *op;
	int64_t wall = im_clock_wall_ms();
	bool other, against;

	IM_KILLPOINT("push.before_result");
	HASH_FIND(hh, b->out, &row, sizeof(row), o);
	if (!o || !o->sent) {
		im_log(IM_LOG_ERROR, "evt=result row=%llu why=\"the driver tells of what it was not given\": left out", (unsigned long long)row);
		return;
	}
	j = o->job;
	other = o->env_guessed && b->driver->envs[1];
	against = push_speaks_against_token(&j->life, r, other);
	s = push_next(&j->life, r, j->deadline_ms - wall, other, belief_of(b, o, r, against), randombytes_random());
	push_stats_result(&b->stats, j->channel->app, r, bridge_now(b) - o->sent_ms);
	b->stats.maybe_dups += s.life.maybe_dup && !j->life.maybe_dup;
	j->channel->out--;
	move_breaker(b, j->channel, &s, o->sent_ms);
	if (s.effect == PUSH_EFFECT_GOOD && j->life.attempts > 0)
		push_budget_good(&j->channel->budget);
	if (s.alarm)
		alarm_channel(b, j->channel, j, r);
	if (push_state_is_final(s.state))
		push_queue_remove(b->queue, j);
	op = begin_write(b, j, s.state, reason_of(&s, r));
	op->life = s.life;
	op->due_ms = s.delay_ms ? wall + s.delay_ms : 0;
	(void)snprintf(op->provider_id, sizeof(op->provider_id), "%s", r->provider_id); /* both have the same room */
	j->why = s.why;
	tokens_judge(b, o, &s, r, op);
	forget_out(b, j);
	outbox_give(b->outbox, op);
}

/* ---- time */

static void expire(struct bridge *b)
{
	struct push_job *j;

	while ((j = push_queue_expired(b->queue, bridge_now(b))))
		finish_job(b, j, PUSH_STATE_EXPIRED, j->why ? j->why : "");
}

static void ask_again(struct bridge *b)
{
	int64_t now = bridge_now(b);

	for (size_t i = 0; i < BRIDGE_ASKS && b->n_asks; i++)
		if (b->asks[i] && now - b->asked_ms[i] >= BRIDGE_ASK_MS)
			flow_unask(b, b->asks[i]);
}

void flow_tick(struct bridge *b)
{
	if (!b->open)
		return;
	expire(b);
	push_queue_due(b->queue, bridge_now(b), DUE_AT_ONCE);
	ask_again(b);
	frame_room(b);
}

void flow_hurry(struct bridge *b, const char *why)
{
	for (struct push_job *j = push_queue_first(b->queue); j; j = j->all_next)
		if (j->place == PUSH_PLACE_WAITING && j->why && strcmp(j->why, why) == 0)
			push_queue_hurry(b->queue, j, bridge_now(b));
}

void flow_finish(struct bridge *b)
{
	struct push_out *o, *next;

	HASH_ITER(hh, b->out, o, next)
		forget_out(b, o->job);
}
