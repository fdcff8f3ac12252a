#include "push/access.h"

#include "base/clock.h"
#include "base/log.h"
#include "push/driver.h"

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIFE_S 3600            /* if nothing is said */
#define SPARE_S 300            /* a new token is asked for so long before the old one ends */
#define LEAST_S 10             /* between two requests, whatever is said: tokens of a second must not make a hot loop */
#define TOKEN_MOST 8192u       /* bytes; Google's have some 1,000 */
#define BACKOFF_MS 2000        /* doubles with each failure ... */
#define BACKOFF_MOST_MS 300000
#define CONFIG_MS 600000       /* our credential is wrong: mending it means a reload; this is in case it was mended on the other side */

struct push_access {
	struct push_access_source source;
	struct im_http *http;
	struct im_timer *timer;
	char *token;
	int64_t ends_ms;           /* monotonic */
	int64_t asked_ms;
	bool asking, refused;
	unsigned failures;
	uint64_t fetches;
};

const char *push_access_token(const struct push_access *a)
{
	return a->token && !a->refused && im_clock_mono_ms() < a->ends_ms ? a->token : NULL;
}

uint64_t push_access_fetches(const struct push_access *a)
{
	return a->fetches;
}

static void again_in(struct push_access *a, int64_t ms)
{
	im_timer_start(a->timer, (uint64_t)(ms < 1 ? 1 : ms), 0);
}

static void failed(struct push_access *a, bool config, const char *why, int64_t retry_after_ms)
{
	int64_t wait = BACKOFF_MS;

	for (unsigned i = 0; i < a->failures && wait < BACKOFF_MOST_MS; i++)
		wait *= 2;
	if (wait > BACKOFF_MOST_MS)
		wait = BACKOFF_MOST_MS;
	a->failures++;
	wait = config ? CONFIG_MS : wait / 2 + (int64_t)randombytes_uniform((uint32_t)(wait / 2) + 1);
	if (retry_after_ms > wait)
		wait = retry_after_ms;
	im_log(config ? IM_LOG_ERROR : IM_LOG_WARNING, "evt=push_access app=%s why=\"%s\" again_ms=%lld then=\"pushes wait%s\"", a->source.name, why,
	       (long long)wait, config ? "; mend the app's file or the secret it names, then SIGHUP" : "");
	again_in(a, wait);
}

static bool is_token(const char *s)
{
	size_t len = strlen(s);

	if (len == 0 || len > TOKEN_MOST)
		return false;
	for (; *s; s++)
		if (*s <= 0x20 || *s >= 0x7f)
			return false; /* it goes into a header */
	return true;
}

static void forget(struct push_access *a)
{
	if (a->token)
		sodium_memzero(a->token, strlen(a->token));
	free(a->token);
	a->token = NULL;
}

static void take(struct push_access *a, const char *token, int64_t life_s)
{
	if (life_s <= 0)
		life_s = LIFE_S;
	if (life_s < 2LL * LEAST_S)
		life_s = 2LL * LEAST_S;
	if (life_s > a->source.most_s)
		life_s = a->source.most_s;
	forget(a);
	a->token = strdup(token);
	a->ends_ms = im_clock_mono_ms() + life_s * 1000;
	a->refused = false;
	a->failures = 0;
	again_in(a, (life_s > 2LL * SPARE_S ? life_s - SPARE_S : life_s / 2) * 1000);
	a->source.ready(a->source.arg);
}

static void on_answer(void *arg, const struct im_http_answer *http)
{
	struct push_access *a = arg;
	bool good = http->error == IM_HTTP_OK && http->status == 200, client = http->status >= 400 && http->status < 500;
	const char *after = http->error == IM_HTTP_OK ? im_http_header(http, "retry-after") : NULL, *token;
	json_t *answer = json_loadb(http->body, http->len, 0, NULL);
	char reason[PUSH_ACCESS_REASON] = "", why[200];
	int64_t life_s = 0;

	a->asking = false;
	token = a->source.answer(a->source.arg, answer, &life_s, reason);
	if (good && token && is_token(token)) {
		take(a, token, life_s);
	} else {
		(void)snprintf(why, sizeof(why), "%s %d %s", http->error == IM_HTTP_OK ? "status" : http->why, http->status, reason);
		for (char *p = why; *p; p++)
			if (*p < 0x20 || *p >= 0x7f || *p == '"')
				*p = '?';
		failed(a, http->error == IM_HTTP_UNTRUSTED || (client && http->status != 429 && http->status != 408), why,
		       after ? push_retry_after(after, im_clock_wall_ms()) : 0);
	}
	json_decref(answer);
}

static void ask(struct push_access *a)
{
	struct push_request r;

	push_request_init(&r);
	a->source.request(a->source.arg, im_clock_wall_ms(), &r);
	a->asking = push_request_post(&r, a->http, on_answer, a) == IM_OK;
	push_request_finish(&r);
	if (!a->asking)
		failed(a, false, "the request cannot be made", 0);
}

static void sign(struct push_access *a)
{
	int64_t life_s = 0;
	struct im_buf b;

	im_buf_init(&b);
	if (a->source.sign(a->source.arg, im_clock_wall_ms(), &b, &life_s) && !b.failed)
		take(a, im_buf_text(&b), life_s);
	else
		failed(a, false, "it cannot be signed", 0);
	im_buf_finish(&b);
}

static void renew(void *arg)
{
	struct push_access *a = arg;
	int64_t now = im_clock_mono_ms(), soonest = a->asked_ms + LEAST_S * 1000LL;

	if (a->asking)
		return;
	if (a->asked_ms && a->failures == 0 && now < soonest) {
		again_in(a, soonest - now);
		return;
	}
	a->asked_ms = now;
	a->fetches++;
	if (a->source.request)
		ask(a);
	else
		sign(a);
}

void push_access_refused(struct push_access *a, const char *token)
{
	if (!a->token || strcmp(token, a->token) != 0 || a->refused)
		return;
	a->refused = true;
	renew(a);
}

enum im_status push_access_create(struct im_loop *loop, struct im_http *http, const struct push_access_source *source, struct push_access **out,
				  struct im_err *err)
{
	struct push_access *a = calloc(1, sizeof(*a));

	if (a)
		a->timer = im_timer_create(loop, renew, a);
	if (!a || !a->timer) {
		free(a);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	a->source = *source;
	a->http = http;
	again_in(a, 1);
	*out = a;
	return IM_OK;
}

void push_access_destroy(struct push_access *a)
{
	if (!a)
		return;
	forget(a);
	im_timer_destroy(a->timer);
	free(a);
}
