#include "fcm.h"

#include "account.h"
#include "base/clock.h"
#include "message.h"
#include "push/sender.h"
#include "reaction.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDPOINT "https://fcm.googleapis.com"

struct app {
	struct push_sender sender; /* first */
	char *url, *channel_id, *package;
	struct fcm_style style;
	struct account *account;
};

/* ---- sending */

static bool request(struct push_sending *s, const struct push_send *p, bool minimal, struct push_request *r)
{
	const struct app *a = (const struct app *)s->sender;

	push_request_url(r, "%s", a->url);
	push_request_header(r, "Authorization", "Bearer %s", s->access);
	push_request_json(r, fcm_message(p, &a->style, minimal, im_clock_wall_ms()));
	return true;
}

static void judge(struct push_sending *s, const struct im_http_answer *a, int64_t retry_after_ms, struct push_result *r)
{
	(void)s;
	fcm_reaction(a->status, a->body, a->len, retry_after_ms, r);
}

static void access_request(void *arg, int64_t now_ms, struct push_request *r)
{
	account_request(((const struct app *)arg)->account, now_ms, r);
}

static const char *access_answer(void *arg, const struct json_t *answer, int64_t *life_s, char reason[PUSH_ACCESS_REASON])
{
	(void)arg;
	return account_answer(answer, life_s, reason);
}

/* ---- apps */

static const char *const styles[] = { "data", "notification", NULL };
static const struct push_key keys[] = {
	{ "service_account_file", PUSH_KEY_SECRET, true, NULL, 0, 0, NULL },
	{ "style", PUSH_KEY_CHOICE, false, "data", 0, 0, styles },
	{ "channel_id", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "package", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "endpoint", PUSH_KEY_TEXT, false, ENDPOINT, 0, 0, NULL },
	{ "token_endpoint", PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
	{ "ca_file", PUSH_KEY_FILE, false, NULL, 0, 0, NULL },
	{ NULL, PUSH_KEY_TEXT, false, NULL, 0, 0, NULL },
};

static void app_close(struct push_sender *s)
{
	struct app *a = (struct app *)s;

	account_destroy(a->account);
	free(a->url);
	free(a->channel_id);
	free(a->package);
}

static enum im_status app_open(struct push_sender *s, const struct push_app *from, struct im_http_options *http, struct push_access_source *source,
			       struct im_err *err)
{
	struct app *a = (struct app *)s;
	enum im_status st = push_app_check_url(from, "endpoint", err);

	(void)http;
	if (st == IM_OK)
		st = push_app_check_url(from, "token_endpoint", err);
	if (st == IM_OK)
		st = account_create(from, &a->account, err);
	if (st != IM_OK)
		return st;
	a->channel_id = strdup(push_app_text(from, "channel_id"));
	a->package = strdup(push_app_text(from, "package"));
	if (asprintf(&a->url, "%s/v1/projects/%s/messages:send", push_app_text(from, "endpoint"), account_project(a->account)) < 0)
		a->url = NULL;
	if (!a->url || !a->channel_id || !a->package)
		return im_fail(err, IM_FAILED, "out of memory");
	a->style = (struct fcm_style){ strcmp(push_app_text(from, "style"), "notification") == 0, a->channel_id, a->package };
	source->request = access_request;
	source->answer = access_answer;
	source->most_s = ACCOUNT_LIFE_S;
	return IM_OK;
}

static const struct push_sender_kind kind = {
	.provider = "fcm",
	.sender_size = sizeof(struct app),
	.sending_size = sizeof(struct push_sending),
	.most = 200, /* two connections full of streams */
	.connections = 4,
	.open = app_open,
	.close = app_close,
	.request = request,
	.judge = judge,
};

static enum im_status start(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err)
{
	return push_senders_start(&kind, host, apps, n, out, err);
}

const struct push_driver fcm_driver = {
	.provider = "fcm",
	.program = "im-fcm-bridge",
	.keys = keys,
	.start = start,
	.reload = push_senders_reload,
	.room = push_senders_room,
	.send = push_senders_send,
	.metrics = push_senders_metrics,
	.drain = push_senders_drain,
	.stop = push_senders_stop,
};
