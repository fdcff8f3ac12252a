/*
 * Requests of clients: im/v1/req/{method}/{request id} in, exactly one answer on res/{request id} out. A repeat
 * of an id gets the first answer; a repeat of one that is still under way only changes where the answer goes,
 * since the client may have a new connection by now.
 */
#include "request.h"

#include "answer.h"
#include "command.h"
#include "control.h"
#include "push.h"
#include "wire/sealed.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define ASKED_PER_USER 32u /* under way at a time: a client that pages asks one by one */

/* A question and where its answer goes. */
struct question {
	const Im__Bus__Record *record;
	request_answer_fn *answer; /* NULL: to the device that asked */
	void *arg;
};

struct asked {
	struct asked *prev, *next;
	struct request *request;
	Im__Bus__Record *record; /* ours, without arguments */
	request_answer_fn *answer;
	void *arg;
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

/* What may go well in a moment is not kept, so that asking again under the same id helps. */
static bool may_keep(enum im_refusal_code code)
{
	return code != IM_REFUSE_UNAVAILABLE && code != IM_REFUSE_INTERNAL && code != IM_REFUSE_TOO_FAST;
}

static void respond(struct request *r, const struct question *q, const Im__V1__Response *response, enum im_refusal_code code)
{
	if (q->answer != NULL) {
		q->answer(q->arg, response, code);
		return;
	}
	if (may_keep(code))
		answer_keep(r->answers, q->record->user, q->record->client_id, response);
	delivery_respond(r->env->delivery, q->record, response);
}

static void respond_error(struct request *r, const struct question *q, const struct im_refusal *why)
{
	Im__V1__Response response = IM__V1__RESPONSE__INIT;
	Im__V1__Error error = IM__V1__ERROR__INIT;

	error.code = (char *)im_refusal_name(why->code);
	error.reason = (char *)why->reason;
	error.fix = (char *)why->fix;
	error.id = q->record->id;
	response.id = q->record->id;
	response.method = q->record->method;
	response.error = &error;
	respond(r, q, &response, why->code);
}

static void respond_result(struct request *r, const struct question *q, const struct call *call, char *json,
			   Im__V1__Message *views, Im__V1__Message **messages)
{
	Im__V1__Response response = IM__V1__RESPONSE__INIT;

	assert(views && messages && json);
	for (size_t i = 0; i < call->n_messages; i++) {
		im__v1__message__init(&views[i]);
		message_view(call->messages[i], call->conv, &views[i]);
		messages[i] = &views[i];
	}
	response.id = q->record->id;
	response.method = q->record->method;
	response.json = json;
	response.messages = messages;
	response.n_messages = call->n_messages;
	response.more = call->more;
	response.next = (char *)call->next;
	respond(r, q, &response, IM_REFUSE_NONE);
}

static void on_end(struct call *call, void *arg)
{
	struct asked *a = arg;
	struct question q = {a->record, a->answer, a->arg};
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
		respond_error(a->request, &q, &why);
	else
		respond_result(a->request, &q, call, json, views, messages);
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
	return *b->id && strcmp(a->id, b->id) == 0 && strcmp(a->user, b->user) == 0 && strcmp(a->client_id, b->client_id) == 0;
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

static struct asked *asked_create(struct request *r, const struct question *q)
{
	struct asked *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return NULL;
	a->record = copy_without_args(q->record);
	if (a->record == NULL) {
		free(a);
		return NULL;
	}
	a->answer = q->answer;
	a->arg = q->arg;
	a->request = r;
	DL_APPEND(r->asked, a);
	return a;
}

static void start(struct request *r, const struct question *q, json_t *args)
{
	const Im__Bus__Record *record = q->record;
	struct asked *a = asked_create(r, q);
	struct im_refusal why;

	if (a != NULL &&
	    call_start(r->env, record->method, args, false, record->user, record->client_id, record->session, on_end, a))
		return;
	if (a == NULL)
		json_decref(args);
	else
		asked_free(a);
	im_refuse(&why, IM_REFUSE_INTERNAL, "out of memory");
	respond_error(r, q, &why);
}

static json_t *read_json(const void *text, size_t len)
{
	return len > 0 ? json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

/* *out NULL: there are none, or they are no JSON. false: they are sealed with a key that is no more, or there is no memory. */
static bool read_args(const struct request *r, const Im__Bus__Record *record, json_t **out)
{
	const ProtobufCBinaryData *a = &record->args;
	uint8_t *plain;
	bool open;

	if (!record->sealed) {
		*out = read_json(a->data, a->len);
		return true;
	}
	plain = r->env->push != NULL ? malloc(a->len) : NULL;
	open = plain != NULL && im_unseal(push_registry_request_key(push_tokens(r->env->push)), a->data, a->len, plain);
	if (open) {
		*out = read_json(plain, a->len - IM_SEALED_MORE);
		sodium_memzero(plain, a->len);
	}
	free(plain);
	return open;
}

static void check_and_start(struct request *r, const struct question *q, unsigned of_user)
{
	json_t *args = NULL;
	struct im_refusal why;

	if (of_user >= ASKED_PER_USER)
		im_refuse(&why, IM_REFUSE_TOO_FAST, "%u of your requests are under way already", ASKED_PER_USER);
	else if (!read_args(r, q->record, &args))
		im_refuse(&why, IM_REFUSE_UNAVAILABLE, "the server's key of push tokens is another one now: ask again");
	else if (q->record->args.len > 0 && !json_is_object(args))
		im_refuse(&why, IM_REFUSE_BAD_JSON, "the arguments are not a JSON object");
	else {
		start(r, q, args);
		return;
	}
	json_decref(args);
	respond_error(r, q, &why);
}

void request_record(struct request *r, const Im__Bus__Record *record)
{
	Im__V1__Response *known = answer_find(r->answers, record->user, record->client_id, record->id);
	struct question q = {record, NULL, NULL};
	unsigned of_user;

	if (known != NULL) {
		delivery_respond(r->env->delivery, record, known);
		im__v1__response__free_unpacked(known, NULL);
		return;
	}
	if (!is_under_way(r, record, &of_user))
		check_and_start(r, &q, of_user);
}

void request_as(struct request *r, const Im__Bus__Record *record, request_answer_fn *answer, void *arg)
{
	struct question q = {record, answer, arg};
	unsigned of_user = 0;
	struct asked *a;

	DL_FOREACH(r->asked, a)
		of_user += strcmp(a->record->user, record->user) == 0;
	check_and_start(r, &q, of_user);
}

void request_control(struct request *r, const Im__Bus__Control *control)
{
	control_run(r->env, control);
}
