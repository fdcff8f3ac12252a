#include "api.h"

#include "base/buf.h"
#include "base/log.h"
#include "io/mqtt.h"
#include "wire/codec.h"
#include "wire/envelope.h"
#include "wire/name.h"

#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define SECRET_MAX 65535u /* bytes: im_jwt_max_bytes at most */
#define ADDRESS_MAX 64u

struct pending {
	struct pending *prev, *next;
	struct api *api;
	Im__Bus__ApiRequest *q;
};

struct api {
	struct link *link;
	struct request *request;
	struct im_mqtt *bus;
	struct pending *pending;
	unsigned n;
	bool stopped;
};

struct api *api_create(struct link *link, struct request *request)
{
	struct api *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return NULL;
	a->link = link;
	a->request = request;
	return a;
}

void api_bus(struct api *a, struct im_mqtt *bus)
{
	a->bus = bus;
}

static void wipe(char *text)
{
	sodium_memzero(text, strlen(text));
}

static void pending_free(struct api *a, struct pending *p)
{
	DL_DELETE(a->pending, p);
	a->n--;
	wipe(p->q->secret);
	im__bus__api_request__free_unpacked(p->q, NULL);
	free(p);
}

void api_stop(struct api *a)
{
	if (a != NULL)
		a->stopped = true;
}

void api_destroy(struct api *a)
{
	while (a != NULL && a->pending != NULL)
		pending_free(a, a->pending);
	free(a);
}

/* ---- answers */

/* RFC 9110, 15. What a client can mend is 4xx, what passes by itself 503. */
static uint32_t status_of(enum im_refusal_code code)
{
	switch (code) {
	case IM_REFUSE_NONE:
		return 200;
	case IM_REFUSE_NOT_ALLOWED:
	case IM_REFUSE_NOT_MEMBER:
	case IM_REFUSE_BLOCKED:
		return 403;
	case IM_REFUSE_UNKNOWN_METHOD:
	case IM_REFUSE_UNKNOWN_USER:
	case IM_REFUSE_UNKNOWN_GROUP:
	case IM_REFUSE_NOT_FOUND:
		return 404;
	case IM_REFUSE_EXISTS:
	case IM_REFUSE_ID_REUSED:
		return 409;
	case IM_REFUSE_TOO_BIG:
		return 413;
	case IM_REFUSE_TOO_FAST:
	case IM_REFUSE_TOO_MANY:
		return 429;
	case IM_REFUSE_UNAVAILABLE:
	case IM_REFUSE_JOURNAL_FULL:
	case IM_REFUSE_JOURNAL_FAILED:
		return 503;
	case IM_REFUSE_INTERNAL:
		return 500;
	default:
		return 400;
	}
}

static void answer(struct api *a, uint64_t id, uint32_t status, const Im__V1__Response *response)
{
	Im__Bus__ApiAnswer out = IM__BUS__API_ANSWER__INIT;
	struct im_buf topic, json;
	uint8_t *packed = NULL;

	im_buf_init(&topic);
	im_buf_init(&json);
	im_codec_response(IM_CODEC_JSON, response, &topic, &json);
	out.id = id;
	out.status = status;
	out.json.data = (uint8_t *)json.data;
	out.json.len = json.len;
	if (!json.failed)
		packed = malloc(im__bus__api_answer__get_packed_size(&out) + 1);
	if (packed == NULL || a->bus == NULL ||
	    im_mqtt_publish(a->bus, API_ANSWER_TOPIC, packed, im__bus__api_answer__pack(&out, packed), 1) != IM_OK)
		im_log(IM_LOG_INFO, "evt=api_answer_dropped id=%llu: im-api tells its client to ask again", (unsigned long long)id);
	free(packed);
	im_buf_finish(&topic);
	im_buf_finish(&json);
}

static void refuse(struct api *a, const Im__Bus__ApiRequest *q, uint32_t status, enum im_refusal_code code, const char *reason, const char *fix)
{
	Im__V1__Response response = IM__V1__RESPONSE__INIT;
	Im__V1__Error error = IM__V1__ERROR__INIT;

	error.code = (char *)im_refusal_name(code);
	error.reason = (char *)reason;
	error.fix = (char *)fix;
	response.method = q->method;
	response.error = &error;
	answer(a, q->id, status, &response);
}

/* ---- the way of one request */

static void on_answered(void *arg, const Im__V1__Response *response, enum im_refusal_code code)
{
	struct pending *p = arg;

	if (p->api->stopped)
		return; /* api_destroy frees it */
	answer(p->api, p->q->id, status_of(code), response);
	pending_free(p->api, p);
}

static void run(struct pending *p, const char *user)
{
	Im__Bus__Record record = IM__BUS__RECORD__INIT;

	record.kind = IM__BUS__KIND__KIND_REQUEST;
	record.user = (char *)(uintptr_t)user;
	record.client_id = p->q->client_id;
	record.method = p->q->method;
	record.args = p->q->args;
	request_as(p->api->request, &record, on_answered, p);
}

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text != NULL ? text : "";
}

static void on_login(void *arg, const char *text)
{
	struct pending *p = arg;
	json_t *verdict = text != NULL ? json_loads(text, 0, NULL) : NULL;

	if (p->api->stopped) {
		json_decref(verdict); /* api_destroy frees the rest */
		return;
	}
	if (verdict == NULL || json_is_true(json_object_get(verdict, "later"))) {
		refuse(p->api, p->q, 503, IM_REFUSE_UNAVAILABLE, "the broker's plugin, which knows tokens, has no time for this one now",
		       "try again in a second");
		pending_free(p->api, p);
	} else if (!json_is_true(json_object_get(verdict, "allowed"))) {
		refuse(p->api, p->q, 401, IM_REFUSE_NOT_ALLOWED, text_of(verdict, "reason"), text_of(verdict, "fix"));
		pending_free(p->api, p);
	} else {
		run(p, text_of(verdict, "user"));
	}
	json_decref(verdict);
}

/* What goes into a question of JSON must be text; NULL: it is. */
static const char *problem_of(const Im__Bus__ApiRequest *q)
{
	if (*q->user && !im_name_valid(q->user, strlen(q->user)))
		return "that is no user's name";
	if (!*q->client_id || strlen(q->client_id) > IM_CLIENT_ID_MAX || !im_utf8_valid(q->client_id, strlen(q->client_id)))
		return "that is no client id";
	if (!*q->secret || strlen(q->secret) > SECRET_MAX || !im_utf8_valid(q->secret, strlen(q->secret)))
		return "that is no token";
	if (strlen(q->address) > ADDRESS_MAX || !im_utf8_valid(q->address, strlen(q->address)) || !im_utf8_valid(q->method, strlen(q->method)))
		return "that is no method";
	return NULL;
}

static char *login_question(const Im__Bus__ApiRequest *q)
{
	json_t *ask = json_pack("{s:s,s:s,s:s,s:s,s:s}", "query", "login", "user", q->user, "client_id", q->client_id, "secret", q->secret,
				"address", q->address);
	char *text = ask != NULL ? json_dumps(ask, JSON_COMPACT) : NULL;

	json_decref(ask);
	return text;
}

static void begin(struct api *a, Im__Bus__ApiRequest *q)
{
	struct pending *p = calloc(1, sizeof(*p));
	char *question = p != NULL ? login_question(q) : NULL;

	if (question == NULL) {
		refuse(a, q, 500, IM_REFUSE_INTERNAL, "out of memory", "");
		im__bus__api_request__free_unpacked(q, NULL);
		free(p);
		return;
	}
	p->q = q;
	p->api = a;
	DL_APPEND(a->pending, p);
	a->n++;
	link_query(a->link, question, on_login, p);
	wipe(question);
	free(question);
}

void api_message(struct api *a, const void *payload, size_t len)
{
	Im__Bus__ApiRequest *q = im__bus__api_request__unpack(NULL, len, payload);
	const char *problem = q != NULL ? problem_of(q) : NULL;

	if (q == NULL) {
		im_log(IM_LOG_WARNING, "evt=refused topic=%s bytes=%zu why=\"not a request\": dropped", API_TOPIC, len);
		return;
	}
	if (problem == NULL && a->n < API_ASKED_MAX && q->args.len <= IM_REQUEST_MAX) {
		begin(a, q);
		return;
	}
	if (problem != NULL)
		refuse(a, q, 401, IM_REFUSE_NOT_ALLOWED, problem, "user and token as for MQTT, and the device's client id in im-client-id");
	else if (a->n >= API_ASKED_MAX)
		refuse(a, q, 503, IM_REFUSE_UNAVAILABLE, "too many requests are under way", "try again in a second");
	else
		refuse(a, q, 413, IM_REFUSE_TOO_BIG, "the arguments are too large", "");
	wipe(q->secret);
	im__bus__api_request__free_unpacked(q, NULL);
}
