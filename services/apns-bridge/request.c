#include "request.h"

#include "payload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_MOST_S (30 * 86400LL) /* Apple stores no longer */

static bool hexadecimal(const char *s)
{
	return *s && s[strspn(s, "0123456789abcdefABCDEF-")] == '\0';
}

/* A header's value can end a header: nothing goes into one that was not looked at. NULL: fine. */
static const char *problem_of(const struct push_send *s)
{
	const char *problem = push_token_problem("apns", s->ticket->token);

	if (problem)
		return problem;
	if (strlen(s->uuid) != 36 || !hexadecimal(s->uuid))
		return "apns-id is no UUID";
	if (s->collapse[0] && !hexadecimal(s->collapse))
		return "the collapse id is not hexadecimal";
	return NULL;
}

/* Seconds; 0: one attempt, never stored. */
static long long expiration(int64_t deadline_ms, int64_t now_ms)
{
	long long now = now_ms / 1000, at = deadline_ms / 1000;

	if (at <= now)
		return 0;
	return at > now + KEEP_MOST_S ? now + KEEP_MOST_S : at;
}

static bool fill(struct request *r, const struct push_send *s, bool minimal, const struct request_app *app, int64_t now_ms)
{
	const struct payload_spec spec = {
		.job = s->job, .ticket = s->ticket, .thread = s->thread, .sound = app->sound, .loc_key = app->loc_key, .minimal = minimal,
	};
	enum payload_kind kind = payload_write(&spec, &r->body);

	r->row = s->row;
	r->attempt = s->attempt;
	r->other_env = app->other_env;
	r->type = kind == PAYLOAD_BACKGROUND ? "background" : "alert";
	r->priority = kind == PAYLOAD_ALERT ? "10" : "5";
	r->since_ms = 0;
	(void)snprintf(r->path, sizeof(r->path), "/3/device/%s", s->ticket->token->token);
	(void)snprintf(r->topic, sizeof(r->topic), "%s", app->topic);
	(void)snprintf(r->uuid, sizeof(r->uuid), "%s", s->uuid);
	(void)snprintf(r->collapse, sizeof(r->collapse), "%s", s->collapse);
	(void)snprintf(r->expiration, sizeof(r->expiration), "%lld", expiration(s->job->deadline_ms, now_ms));
	return !r->body.failed;
}

struct request *request_create(const struct push_send *s, bool minimal, const struct request_app *app, int64_t now_ms,
			       const char **problem)
{
	struct request *r;

	*problem = problem_of(s);
	if (*problem)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (r && !fill(r, s, minimal, app, now_ms)) {
		request_destroy(r);
		return NULL;
	}
	return r;
}

void request_destroy(struct request *r)
{
	if (!r)
		return;
	im_buf_finish(&r->body);
	im_buf_finish(&r->answer);
	free(r);
}
