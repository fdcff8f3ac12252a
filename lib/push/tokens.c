/*
 * What the bridge remembers of tokens - by device, never the token itself. A suspect is one the provider calls dead and the guard does
 * not believe it: the job that learnt it waits an hour and asks again, the device's others wait for that. What was said to the
 * message service is kept until it was heard.
 */
#include "push/bridge.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUSPECTS_MAX 1000000u /* a whole user base under a wrong topic; beyond it they are only not remembered */

/* ---- hot ones: the provider wants this token left alone for a while */

int64_t tokens_hot_until(struct bridge *b, const struct push_job *j)
{
	struct push_hot *h = NULL;

	HASH_FIND(hh, b->hot, &j->device_hash, sizeof(j->device_hash), h);
	if (h && h->until_ms <= bridge_now(b)) {
		HASH_DEL(b->hot, h);
		free(h);
		return 0;
	}
	return h ? h->until_ms : 0;
}

void tokens_heat(struct bridge *b, const struct push_job *j, int64_t ms)
{
	struct push_hot *h = NULL;

	HASH_FIND(hh, b->hot, &j->device_hash, sizeof(j->device_hash), h);
	if (!h) {
		h = calloc(1, sizeof(*h));
		if (!h)
			return; /* this job waits; others of the device may be told the same */
		h->device = j->device_hash;
		HASH_ADD(hh, b->hot, device, sizeof(h->device), h);
	}
	h->until_ms = bridge_now(b) + ms;
}

void tokens_cool(struct bridge *b)
{
	struct push_hot *h, *next;

	HASH_ITER(hh, b->hot, h, next) {
		if (h->until_ms > bridge_now(b))
			continue;
		HASH_DEL(b->hot, h);
		free(h);
	}
}

/* ---- suspects */

static struct push_suspect *find(struct bridge *b, uint64_t device)
{
	struct push_suspect *s = NULL;

	HASH_FIND(hh, b->suspects, &device, sizeof(device), s);
	return s;
}

static void drop(struct bridge *b, struct push_suspect *s)
{
	HASH_DEL(b->suspects, s);
	free(s);
}

static struct push_suspect *add(struct bridge *b, uint64_t device, int64_t registered_ms, int64_t first_ms, int64_t next_ms)
{
	struct push_suspect *s = find(b, device);

	if (!s && HASH_COUNT(b->suspects) < SUSPECTS_MAX && (s = calloc(1, sizeof(*s)))) {
		s->device = device;
		HASH_ADD(hh, b->suspects, device, sizeof(s->device), s);
	}
	if (s) {
		s->registered_ms = registered_ms;
		s->first_ms = first_ms;
		s->next_ms = next_ms;
	}
	return s;
}

struct push_suspect *tokens_suspect(struct bridge *b, const struct push_job *j, int64_t registered_ms)
{
	struct push_suspect *s = find(b, j->device_hash);

	if (s && s->registered_ms != registered_ms) { /* registered anew: a new life. Its row goes with the next start's or result's */
		drop(b, s);
		return NULL;
	}
	return s;
}

bool tokens_is_suspect(struct bridge *b, const struct push_job *j)
{
	return find(b, j->device_hash) != NULL;
}

void tokens_load(struct bridge *b, struct outbox_start *start)
{
	for (size_t i = 0; i < start->n_suspects; i++) {
		struct outbox_token *t = &start->suspects[i];

		(void)add(b, push_queue_device(b->queue, t->user, t->device, t->app), t->registered_ms, t->first_ms, t->next_ms);
		free(t->user);
		free(t->device);
		free(t->app);
	}
	for (size_t i = 0; i < start->n_verdicts; i++) {
		struct push_said *v = calloc(1, sizeof(*v));

		if (!v) {
			free(start->verdicts[i].data); /* it stays in the file: said after the next start */
			continue;
		}
		v->said = start->verdicts[i].said;
		v->data = start->verdicts[i].data;
		v->len = start->verdicts[i].len;
		*b->said_last = v;
		b->said_last = &v->next;
		b->n_said++;
	}
}

static void on_remembered(void *arg, struct outbox_op *op)
{
	(void)arg;
	free(op->token.user);
	free(op->token.device);
	free(op->token.app);
	free(op);
}

/* first_ms 0: forgotten. Without memory it is only not durable. */
static void remember(struct bridge *b, const struct push_job *j, int64_t registered_ms, int64_t first_ms, int64_t next_ms)
{
	struct outbox_op *op = calloc(1, sizeof(*op));

	if (!op)
		return;
	op->kind = OUTBOX_SUSPECT;
	op->done = on_remembered;
	op->token = (struct outbox_token){.user = strdup(j->user), .device = strdup(j->device), .app = strdup(j->app),
					  .registered_ms = registered_ms, .first_ms = first_ms, .next_ms = next_ms};
	if (op->token.user && op->token.device && op->token.app)
		outbox_give(b->outbox, op);
	else
		on_remembered(b, op);
}

static void on_absolved(void *arg, struct outbox_op *op)
{
	(void)arg;
	free(op);
}

void tokens_absolve(struct bridge *b)
{
	struct outbox_op *op = HASH_COUNT(b->suspects) ? calloc(1, sizeof(*op)) : NULL;
	struct push_suspect *s, *next;

	if (!op)
		return;
	im_log(IM_LOG_NOTICE, "evt=absolved suspects=%u: the files were read again", HASH_COUNT(b->suspects));
	HASH_ITER(hh, b->suspects, s, next)
		drop(b, s);
	op->kind = OUTBOX_ABSOLVE;
	op->done = on_absolved;
	outbox_give(b->outbox, op);
}

/* ---- verdicts */

static void pack_verdict(const struct push_out *o, Im__Push__TokenState state, const struct push_result *r, struct outbox_op *op)
{
	Im__Push__TokenVerdict v = IM__PUSH__TOKEN_VERDICT__INIT;
	uint8_t *data;

	v.user = (char *)o->job->user; /* only read */
	v.device = (char *)o->job->device;
	v.app = o->ticket->token->app;
	v.env = state == IM__PUSH__TOKEN_STATE__TOKEN_STATE_OK ? o->ticket->token->env : (char *)"";
	v.registered_ms = o->ticket->token->registered_ms;
	v.state = state;
	v.reason = (char *)r->reason;
	v.at_ms = im_clock_wall_ms();
	data = malloc(im__push__token_verdict__get_packed_size(&v) + 1);
	if (!data)
		return; /* said again by the next push of this token */
	op->verdict_len = im__push__token_verdict__pack(&v, data);
	op->verdict = data;
}

static void suspect(struct bridge *b, const struct push_out *o, const struct push_result *r, struct outbox_op *op)
{
	int64_t registered = o->ticket->token->registered_ms, now = im_clock_wall_ms();
	struct push_suspect *s = tokens_suspect(b, o->job, registered);
	char name[7];

	b->stats.blocked++;
	if (!s) {
		pack_verdict(o, IM__PUSH__TOKEN_STATE__TOKEN_STATE_SUSPECT, r, op);
		push_ids_token(o->ticket->token->token, name);
		im_log(push_guard_alarmed(&o->job->channel->guard) ? IM_LOG_ERROR : IM_LOG_INFO,
		       "evt=token_suspect app=%s user=%s device=%s token=%s reason=%s invalid=%u of=%u: asked again in an hour", o->job->app, o->job->user,
		       o->job->device, name, r->reason, o->job->channel->guard.invalid, o->job->channel->guard.n);
	}
	s = add(b, o->job->device_hash, registered, s ? s->first_ms : now, now + PUSH_GUARD_CONFIRM_MS);
	if (s)
		remember(b, o->job, registered, s->first_ms, s->next_ms);
}

static void good(struct bridge *b, const struct push_out *o, const struct push_result *r, struct outbox_op *op)
{
	struct push_suspect *s = tokens_suspect(b, o->job, o->ticket->token->registered_ms);

	if (s || o->env_guessed)
		pack_verdict(o, IM__PUSH__TOKEN_STATE__TOKEN_STATE_OK, r, op);
	if (!s)
		return;
	remember(b, o->job, 0, 0, 0);
	drop(b, s);
}

static void invalid(struct bridge *b, const struct push_out *o, const struct push_result *r, struct outbox_op *op)
{
	struct push_suspect *s = find(b, o->job->device_hash);

	b->stats.invalidated++;
	pack_verdict(o, IM__PUSH__TOKEN_STATE__TOKEN_STATE_INVALID, r, op);
	if (s) {
		remember(b, o->job, 0, 0, 0);
		drop(b, s);
	}
}

void tokens_judge(struct bridge *b, const struct push_out *o, const struct push_step *s, const struct push_result *r, struct outbox_op *op)
{
	switch (s->token) {
	case PUSH_TOKEN_NOTHING:
		break;
	case PUSH_TOKEN_GOOD:
		good(b, o, r, op);
		break;
	case PUSH_TOKEN_HOLD:
		tokens_heat(b, o->job, s->delay_ms > PUSH_TOKEN_HOLD_MS ? s->delay_ms : PUSH_TOKEN_HOLD_MS);
		break;
	case PUSH_TOKEN_SUSPECT:
		suspect(b, o, r, op);
		break;
	case PUSH_TOKEN_DROP:
		invalid(b, o, r, op);
		break;
	}
}

void tokens_say(struct bridge *b, struct outbox_op *op)
{
	struct push_said *v = op->verdict ? calloc(1, sizeof(*v)) : NULL;

	if (!v) {
		free(op->verdict); /* it is in the file: said after the next start */
		op->verdict = NULL;
		return;
	}
	v->said = op->number;
	v->data = op->verdict;
	v->len = op->verdict_len;
	op->verdict = NULL;
	*b->said_last = v;
	b->said_last = &v->next;
	if (!b->said_next)
		b->said_next = v;
	b->n_said++;
}

static void forget_first(struct bridge *b)
{
	struct push_said *v = b->said;

	if (b->said_next == v)
		b->said_next = v->next;
	b->said = v->next;
	if (!b->said)
		b->said_last = &b->said;
	b->n_said--;
	free(v->data);
	free(v);
}

static void on_forgotten(void *arg, struct outbox_op *op)
{
	(void)arg;
	free(op);
}

void tokens_heard(struct bridge *b, uint64_t said)
{
	struct outbox_op *op;
	bool any = false;

	while (b->said && b->said->said <= said) {
		forget_first(b);
		any = true;
	}
	op = any ? calloc(1, sizeof(*op)) : NULL;
	if (!op)
		return; /* what stays in the file is said again after the next start: harmless */
	op->kind = OUTBOX_HEARD;
	op->done = on_forgotten;
	op->number = said;
	outbox_give(b->outbox, op);
}

void tokens_finish(struct bridge *b)
{
	struct push_suspect *s, *next_suspect;
	struct push_hot *h, *next_hot;

	while (b->said)
		forget_first(b);
	HASH_ITER(hh, b->suspects, s, next_suspect)
		drop(b, s);
	HASH_ITER(hh, b->hot, h, next_hot) {
		HASH_DEL(b->hot, h);
		free(h);
	}
}
