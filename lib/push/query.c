/* What imctl asks, through the message service: stats, explain. Answers are JSON; what a job is about is never in them. */
#include "push/bridge.h"

#include "base/clock.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct asked { /* a FIND under way */
	struct outbox_op op; /* first */
	struct bridge *bridge;
	uint64_t id;
	json_t *answer;
	struct outbox_question question;
};

static void answer(struct bridge *b, uint64_t id, json_t *json)
{
	frame_answer(b, id, json ? json_dumps(json, JSON_COMPACT) : NULL); /* its free is free() */
	json_decref(json);
}

static void answer_error(struct bridge *b, uint64_t id, const char *text)
{
	answer(b, id, json_pack("{s:s}", "error", text));
}

/* ---- of a job in memory */

static const char *place_name(const struct push_job *j)
{
	switch (j->place) {
	case PUSH_PLACE_WAITING:
		return j->life.attempts && !j->why ? "retry" : "held";
	case PUSH_PLACE_READY:
		return j->channel->breaker.kind == PUSH_BREAKER_CLOSED && j->channel->known ? "ready" : "held";
	case PUSH_PLACE_ASKED:
		return "asked";
	case PUSH_PLACE_OUT:
		return "inflight";
	default:
		return "writing";
	}
}

static const char *why_of(const struct push_job *j)
{
	if (j->why)
		return j->why;
	if (j->place == PUSH_PLACE_READY && !j->channel->known)
		return "no_app_file";
	if (j->place == PUSH_PLACE_READY && j->channel->breaker.kind != PUSH_BREAKER_CLOSED)
		return push_breaker_name(j->channel->breaker.kind);
	return j->place == PUSH_PLACE_WAITING && !j->life.attempts ? "coalescing" : "";
}

static json_t *open_job(struct bridge *b, const struct push_job *j)
{
	int64_t now = bridge_now(b);

	return json_pack("{s:I,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:b,s:I,s:I,s:I}", "row", (json_int_t)j->row, "key", j->key, "user", j->user, "device",
			 j->device, "app", j->app, "conv", j->conv, "state", place_name(j), "why", why_of(j), "attempts", (int)j->life.attempts, "maybe_dup",
			 j->life.maybe_dup, "created_ms", (json_int_t)j->created_ms, "due_in_ms",
			 (json_int_t)(j->place == PUSH_PLACE_WAITING && j->due_ms > now ? j->due_ms - now : 0), "deadline_ms",
			 (json_int_t)j->deadline_ms);
}

/* Is it this message's, or does it stand for it? */
static bool is_meant(const struct push_job *j, const struct outbox_question *q)
{
	return (!*q->user || strcmp(j->user, q->user) == 0) && (!*q->device || strcmp(j->device, q->device) == 0) &&
	       (!*q->conv || strcmp(j->conv, q->conv) == 0) &&
	       (!q->seq || j->seq == q->seq || (j->since_seq && j->since_seq <= q->seq && q->seq <= j->seq));
}

static json_t *open_jobs(struct bridge *b, const struct outbox_question *q)
{
	json_t *list = json_array();

	for (struct push_job *j = push_queue_first(b->queue); j && json_array_size(list) < OUTBOX_SHOWN; j = j->all_next)
		if (is_meant(j, q))
			(void)json_array_append_new(list, open_job(b, j)); /* out of memory: one less is shown */
	return list;
}

/* ---- of rows */

static json_t *found_job(const struct outbox_found *f)
{
	return json_pack("{s:I,s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:b,s:I,s:I,s:I}", "row", (json_int_t)f->row, "key", f->key, "device", f->device, "app", f->app, "state",
			 push_state_name(f->state), "reason", f->reason, "provider_id", f->provider_id, "attempts", (int)f->life.attempts, "maybe_dup",
			 f->life.maybe_dup, "created_ms", (json_int_t)f->created_ms, "done_ms", (json_int_t)f->done_ms, "into", (json_int_t)f->into);
}

/* A name that does not fit is nobody's. */
static void copy_name(char *to, size_t room, const json_t *root, const char *key)
{
	const char *from = json_string_value(json_object_get(root, key));

	(void)snprintf(to, room, "%s", from ? from : "");
}

/* The newest word: what is open comes before what has ended. */
static const char *state_of(const json_t *open, const json_t *ended)
{
	const json_t *row = json_array_size(open) ? json_array_get(open, json_array_size(open) - 1) : json_array_get(ended, 0);
	const char *state = json_string_value(json_object_get(row, "state"));

	return state ? state : "unknown";
}

static void on_found(void *arg, struct outbox_op *op)
{
	struct asked *a = (struct asked *)op;
	json_t *list = json_array();

	(void)arg;
	for (size_t i = 0; i < op->n_found; i++)
		if (push_state_is_final(op->found[i].state)) /* open ones were told from memory */
			(void)json_array_append_new(list, found_job(&op->found[i])); /* out of memory: one less is shown */
	(void)json_object_set_new(a->answer, "state", json_string(state_of(json_object_get(a->answer, "open"), list)));
	(void)json_object_set_new(a->answer, "ended", list);
	answer(a->bridge, a->id, a->answer);
	free(op->found);
	free(a);
}

static void ask_rows(struct bridge *b, uint64_t id, const json_t *root)
{
	struct asked *a = calloc(1, sizeof(*a));
	struct outbox_question *q = a ? &a->question : NULL;

	if (!a || !(a->answer = json_pack("{}"))) {
		free(a);
		answer_error(b, id, "out of memory");
		return;
	}
	a->bridge = b;
	a->id = id;
	a->op.kind = OUTBOX_FIND;
	a->op.done = on_found;
	a->op.arg = b;
	a->op.question = q;
	copy_name(q->user, sizeof(q->user), root, "user");
	copy_name(q->device, sizeof(q->device), root, "device");
	copy_name(q->conv, sizeof(q->conv), root, "conv");
	q->seq = (uint64_t)json_integer_value(json_object_get(root, "seq"));
	(void)json_object_set_new(a->answer, "open", open_jobs(b, q)); /* out of memory: not shown */
	outbox_give(b->outbox, &a->op);
}

/* ---- stats */

static json_t *channels(struct bridge *b)
{
	json_t *list = json_array();
	const struct push_channel *c;

	for (size_t i = 0; (c = push_queue_channel_at(b->queue, i)); i++) {
		int64_t wait = c->breaker.until_ms - bridge_now(b);

		(void)json_array_append_new(
			list, json_pack("{s:s,s:s,s:b,s:s,s:I,s:I,s:i,s:i,s:i}", "app", c->app, "env", c->env, "known", c->known, "breaker",
					push_breaker_name(c->breaker.kind), "probe_in_ms",
					(json_int_t)(c->breaker.kind != PUSH_BREAKER_CLOSED && wait > 0 ? wait : 0), "ready", (json_int_t)c->ready, "inflight",
					(int)c->out, "results", (int)c->guard.n, "invalid", (int)c->guard.invalid)); /* out of memory: one less */
	}
	return list;
}

static json_t *ended(const struct bridge *b)
{
	json_t *o = json_object();

	for (int i = PUSH_STATE_ACCEPTED; i < PUSH_STATES; i++)
		(void)json_object_set_new(o, push_state_name((enum push_state)i), json_integer((json_int_t)b->stats.ended[i])); /* as above */
	return o;
}

static json_t *stats(struct bridge *b)
{
	return json_pack("{s:s,s:I,s:i,s:i,s:b,s:b,s:I,s:I,s:I,s:i,s:i,s:o,s:o}", "provider", b->driver->provider, "open",
			 (json_int_t)push_queue_count(b->queue), "asked", (int)b->n_asks, "inflight", (int)HASH_COUNT(b->out), "outbox_writable", !b->trouble, "full",
			 b->full, "jobs", (json_int_t)b->stats.jobs, "retries", (json_int_t)b->stats.retries, "maybe_dup",
			 (json_int_t)b->stats.maybe_dups, "suspects", (int)HASH_COUNT(b->suspects), "verdicts", (int)b->n_said, "ended", ended(b), "channels",
			 channels(b));
}

/* Gauges, for the metrics' file. */
void query_print(struct bridge *b, struct im_buf *out)
{
	const char *p = b->driver->provider;
	const struct push_job *oldest = push_queue_first(b->queue);
	const struct push_channel *c;

	im_buf_printf(out, "# TYPE push_outbox_rows gauge\npush_outbox_rows{provider=\"%s\"} %zu\n", p, push_queue_count(b->queue));
	im_buf_printf(out, "# TYPE push_outbox_oldest_seconds gauge\npush_outbox_oldest_seconds{provider=\"%s\"} %.1f\n", p,
		      oldest ? (double)(im_clock_wall_ms() - oldest->created_ms) / 1000 : 0.0);
	im_buf_printf(out, "# TYPE push_outbox_writable gauge\npush_outbox_writable{provider=\"%s\"} %d\n", p, !b->trouble);
	im_buf_printf(out, "# TYPE push_outbox_commits_total counter\npush_outbox_commits_total{provider=\"%s\"} %llu\n", p,
		      (unsigned long long)outbox_commits(b->outbox));
	im_buf_printf(out, "# TYPE push_inflight gauge\npush_inflight{provider=\"%s\"} %u\n", p, (unsigned)HASH_COUNT(b->out));
	im_buf_printf(out, "# TYPE push_suspects gauge\npush_suspects{provider=\"%s\"} %u\n", p, (unsigned)HASH_COUNT(b->suspects));
	im_buf_add_str(out, "# TYPE push_breaker_state gauge\n");
	for (size_t i = 0; (c = push_queue_channel_at(b->queue, i)); i++)
		for (int k = PUSH_BREAKER_TROUBLE; k <= PUSH_BREAKER_CONFIG; k++)
			im_buf_printf(out, "push_breaker_state{provider=\"%s\",app=\"%s\",env=\"%s\",kind=\"%s\"} %d\n", p, c->known ? c->app : "unknown",
				      c->env, push_breaker_name((enum push_breaker_kind)k), c->breaker.kind == (enum push_breaker_kind)k);
}

/* ---- asked */

void query_take(struct bridge *b, const Im__Push__Query *q)
{
	json_error_t error;
	json_t *root = json_loads(q->json, 0, &error);
	const char *what = json_string_value(json_object_get(root, "query"));

	if (!what)
		answer_error(b, q->id, "not a query");
	else if (strcmp(what, "stats") == 0)
		answer(b, q->id, stats(b));
	else if (strcmp(what, "explain") == 0)
		ask_rows(b, q->id, root);
	else
		answer_error(b, q->id, "unknown query: stats, explain");
	json_decref(root);
}
