/*
 * Requests of clients: im/v1/req/{method}/{request id} in, exactly one answer on res/{request id} out. A repeat
 * of an id gets the first answer; a repeat of one that is still under way only changes where the answer goes,
 * since the client may have a new connection by now.
 */
#include "request.h"

#include "answer.h"
#include "command.h"
#include "control.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define ASKED_PER_USER 32u /* under way at a time: a client that pages asks one by one */

struct asked {
	struct asked *prev, *next;
	struct request *request;
	Im__Bus__Record *record; /* ours, without arguments */
};

struct request {
	struct command_env *env;
	struct answer_cache *answers;
	struct asked *asked;     /* under way */
};

enum im_status request_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			      struct link *link, struct delivery *delivery, struct inbox *inbox, struct request **out,
			      struct im_err *err)
{
	struct request *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return im_fail(err, IM_FAILED, "out of memory");
	r->env = command_env_create(loop);
	r->answers = answer_cache_create(loop);
	if (r->env == NULL || r->answers == NULL) {
		request_destroy(r);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	r->env->settings = settings;
	r->env->store = store;
	r->env->roster = roster;
	r->env->link = link;
	r->env->delivery = delivery;
	r->env->inbox = inbox;
	*out = r;
	return IM_OK;
}

void request_set_backup(struct request *r, struct backup *backup)
{
	r->env->backup = backup;
}

void request_set_push(struct request *r, struct push *push)
{
	r->env->push = push;
}

static void asked_free(struct asked *a)
{
	DL_DELETE(a->request->asked, a);
	im__bus__record__free_unpacked(a->record, NULL);
	free(a);
}

void request_destroy(struct request *r)
{
	if (r == NULL)
		return;
	command_env_close(r->env);
	while (r->asked != NULL)
		asked_free(r->asked); /* their calls end silently */
	answer_cache_destroy(r->answers);
	free(r);
}

/* ---- answers */

static void respond_error(struct request *r, const Im__Bus__Record *record, const struct im_refusal *why)
{
	Im__V1__Response response = IM__V1__RESPONSE__INIT;
	Im__V1__Error error = IM__V1__ERROR__INIT;

	error.code = (char *)im_refusal_name(why->code);
	error.reason = (char *)why->reason;
	error.fix = (char *)why->fix;
	error.id = record->id;
	response.id = record->id;
	response.method = record->method;
	response.error = &error;
	/* What may go well in a moment is not kept, so that asking again under the same id helps. */
	if (why->code != IM_REFUSE_UNAVAILABLE && why->code != IM_REFUSE_INTERNAL && why->code != IM_REFUSE_TOO_FAST)
		answer_keep(r->answers, record->user, record->client_id, &response);
	delivery_respond(r->env->delivery, record, &response);
}

static void respond_result(struct request *r, const Im__Bus__Record *record, const struct call *call, char *json,
			   Im__V1__Message *views, Im__V1__Message **messages)
{
	Im__V1__Response response = IM__V1__RESPONSE__INIT;

	assert(views && messages && json);
	for (size_t i = 0; i < call->n_messages; i++) {
		im__v1__message__init(&views[i]);
		message_view(call->messages[i], call->conv, &views[i]);
		messages[i] = &views[i];
	}
	response.id = record->id;
	response.method = record->method;
	response.json = json;
	response.messages = messages;
	response.n_messages = call->n_messages;
	response.more = call->more;
	response.next = (char *)call->next;
	answer_keep(r->answers, record->user, record->client_id, &response);
	delivery_respond(r->env->delivery, record, &response);
}

static void on_end(struct call *call, void *arg)
{
	struct asked *a = arg;
	Im__V1__Message *views;
	Im__V1__Message **messages;
	char *json;
	struct im_refusal why = call->refusal;

	if (call->env->closed)
		return; /* `a` is gone with the request, or will be at once */
	views = calloc(call->n_messages + 1, sizeof(*views));
	messages = calloc(call->n_messages + 1, sizeof(Im__V1__Message *));
	json = call->result != NULL ? json_dumps(call->result, JSON_COMPACT) : NULL;
	if (why.code == IM_REFUSE_NONE && (json == NULL || views == NULL || messages == NULL))
		im_refuse(&why, IM_REFUSE_INTERNAL, "out of memory");
	if (why.code != IM_REFUSE_NONE)
		respond_error(a->request, a->record, &why);
	else
		respond_result(a->request, a->record, call, json, views, messages);
	asked_free(a);
	free(views);
	free(messages);
	free(json);
}

/* ---- questions */

static Im__Bus__Record *copy_without_args(const Im__Bus__Record *record)
{
	Im__Bus__Record bare = *record;
	size_t len;
	uint8_t *packed;
	Im__Bus__Record *copy = NULL;

	bare.args.data = NULL;
	bare.args.len = 0;
	len = im__bus__record__get_packed_size(&bare);
	packed = malloc(len + 1);
	if (packed != NULL) {
		im__bus__record__pack(&bare, packed);
		copy = im__bus__record__unpack(NULL, len, packed);
	}
	free(packed);
	return copy;
}

static bool same_request(const Im__Bus__Record *a, const Im__Bus__Record *b)
{
	return strcmp(a->id, b->id) == 0 && strcmp(a->user, b->user) == 0 && strcmp(a->client_id, b->client_id) == 0;
}

/* true: it is under way already. */
static bool is_under_way(struct request *r, const Im__Bus__Record *record, unsigned *of_user)
{
	struct asked *a;

	*of_user = 0;
	DL_FOREACH(r->asked, a) {
		Im__Bus__Record *copy;

		*of_user += strcmp(a->record->user, record->user) == 0;
		if (!same_request(a->record, record))
			continue;
		copy = copy_without_args(record);
		if (copy != NULL) {
			im__bus__record__free_unpacked(a->record, NULL);
			a->record = copy;
		}
		return true;
	}
	return false;
}

static struct asked *asked_create(struct request *r, const Im__Bus__Record *record)
{
	struct asked *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return NULL;
	a->record = copy_without_args(record);
	if (a->record == NULL) {
		free(a);
		return NULL;
	}
	a->request = r;
	DL_APPEND(r->asked, a);
	return a;
}

static void start(struct request *r, const Im__Bus__Record *record, json_t *args)
{
	struct asked *a = asked_create(r, record);
	struct im_refusal why;

	if (a != NULL &&
	    call_start(r->env, record->method, args, false, record->user, record->client_id, record->session, on_end, a))
		return;
	if (a == NULL)
		json_decref(args);
	else
		asked_free(a);
	im_refuse(&why, IM_REFUSE_INTERNAL, "out of memory");
	respond_error(r, record, &why);
}

void request_record(struct request *r, const Im__Bus__Record *record)
{
	Im__V1__Response *known = answer_find(r->answers, record->user, record->client_id, record->id);
	json_t *args = NULL;
	struct im_refusal why;
	unsigned of_user;

	if (known != NULL) {
		delivery_respond(r->env->delivery, record, known);
		im__v1__response__free_unpacked(known, NULL);
		return;
	}
	if (is_under_way(r, record, &of_user))
		return;
	if (record->args.len > 0)
		args = json_loadb((const char *)record->args.data, record->args.len, JSON_REJECT_DUPLICATES, NULL);
	if (of_user >= ASKED_PER_USER)
		im_refuse(&why, IM_REFUSE_TOO_FAST, "%u of your requests are under way already", ASKED_PER_USER);
	else if (record->args.len > 0 && !json_is_object(args))
		im_refuse(&why, IM_REFUSE_BAD_JSON, "the arguments are not a JSON object");
	else {
		start(r, record, args);
		return;
	}
	json_decref(args);
	respond_error(r, record, &why);
}

void request_control(struct request *r, const Im__Bus__Control *control)
{
	control_run(r->env, control);
}
