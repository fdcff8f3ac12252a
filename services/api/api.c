#include "api.h"

#include "base/log.h"
#include "bus.pb-c.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uthash.h>

#define TOPIC "$im/api"
#define ROUTE "/v1/req/"
#define HEALTH "/healthz"
#define SWEEP_MS 500

struct waiting {
	uint64_t id;
	struct exchange *e;
	int64_t until_ms;
	UT_hash_handle hh;
};

struct api {
	struct im_loop *loop;
	struct im_mqtt *bus;
	struct im_timer *sweep;
	struct waiting *waiting; /* in the order of their coming, so also of their ends */
	uint64_t id;
};

/* ---- answers of our own, in the form of all others */

static void refuse(struct exchange *e, unsigned status, const char *code, const char *reason, const char *fix)
{
	json_t *o = json_pack("{s:n,s:s,s:b,s:{s:s,s:s,s:s}}", "id", "method", "", "ok", 0, "error", "code", code, "reason", reason, "fix", fix);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	json_decref(o);
	exchange_answer(e, status, text ? text : "{}", text ? strlen(text) : 2);
	free(text);
}

static void unavailable(struct exchange *e, const char *reason)
{
	refuse(e, 503, "unavailable", reason, "try again in a second");
}

/* ---- what waits */

static void forget(struct api *a, struct waiting *w)
{
	HASH_DEL(a->waiting, w);
	free(w);
}

static void end_all(struct api *a, int64_t until_ms, const char *reason)
{
	struct waiting *w;

	while ((w = a->waiting) && w->until_ms <= until_ms) {
		unavailable(w->e, reason);
		forget(a, w);
	}
}

static void on_sweep(void *arg)
{
	struct api *a = arg;

	end_all(a, im_loop_now_ms(a->loop), "the message service did not answer in time: it may have been done, or not");
	if (!a->waiting)
		im_timer_stop(a->sweep);
}

void api_bus(struct api *a, struct im_mqtt *bus)
{
	a->bus = bus;
	if (!bus)
		end_all(a, INT64_MAX, "the broker has gone: it may have been done, or not");
}

void api_answer(struct api *a, const void *payload, size_t len)
{
	Im__Bus__ApiAnswer *answer = im__bus__api_answer__unpack(NULL, len, payload);
	struct waiting *w = NULL;

	if (!answer) {
		im_log(IM_LOG_WARNING, "evt=refused bytes=%zu why=\"not an answer\": dropped", len);
		return;
	}
	HASH_FIND(hh, a->waiting, &answer->id, sizeof(answer->id), w);
	if (w) {
		exchange_answer(w->e, answer->status, answer->json.data, answer->json.len);
		forget(a, w);
	}
	im__bus__api_answer__free_unpacked(answer, NULL);
}

/* ---- requests */

static bool send_request(struct api *a, const Im__Bus__ApiRequest *q)
{
	size_t len = im__bus__api_request__get_packed_size(q);
	uint8_t *packed = malloc(len + 1);
	enum im_status st = IM_FAILED;

	if (packed) {
		(void)im__bus__api_request__pack(q, packed); /* as long as it said */
		st = im_mqtt_publish(a->bus, TOPIC, packed, len, 1);
		explicit_bzero(packed, len);
	}
	free(packed);
	return st == IM_OK;
}

static void ask(struct api *a, struct exchange *e, Im__Bus__ApiRequest *q)
{
	struct waiting *w = calloc(1, sizeof(*w));

	if (!w) {
		unavailable(e, "out of memory");
		return;
	}
	w->id = q->id = ++a->id;
	w->e = e;
	w->until_ms = im_loop_now_ms(a->loop) + API_WAIT_MS;
	if (!send_request(a, q)) {
		free(w);
		unavailable(e, "the broker takes nothing now");
		return;
	}
	if (!a->waiting)
		im_timer_start(a->sweep, SWEEP_MS, SWEEP_MS);
	HASH_ADD(hh, a->waiting, id, sizeof(w->id), w);
}

/* Basic names the user (RFC 7617), Bearer leaves that to the JWT (RFC 6750). */
static void with_login(struct api *a, struct exchange *e, Im__Bus__ApiRequest *q)
{
	static const char bearer[] = "Bearer ";
	const char *authorization = exchange_header(e, "Authorization");
	char *user = NULL, *secret = NULL;

	if (authorization && strncasecmp(authorization, bearer, sizeof(bearer) - 1) == 0) {
		q->secret = (char *)(uintptr_t)authorization + sizeof(bearer) - 1;
		ask(a, e, q);
	} else if (exchange_basic(e, &user, &secret)) {
		q->user = user;
		q->secret = secret;
		ask(a, e, q);
	} else {
		refuse(e, 401, "not_allowed", "no Authorization", "Authorization: Basic with user and token, or Bearer with a JWT (docs/http.md)");
	}
	exchange_wipe(secret);
	exchange_wipe(user);
}

static void method(struct api *a, struct exchange *e, const char *name)
{
	Im__Bus__ApiRequest q = IM__BUS__API_REQUEST__INIT;
	const char *client_id = exchange_header(e, "Im-Client-Id");

	if (!client_id || !*client_id) {
		refuse(e, 400, "bad_field", "no Im-Client-Id", "Im-Client-Id: the client id of the device that this is about, as over MQTT");
		return;
	}
	q.method = (char *)(uintptr_t)name;
	q.client_id = (char *)(uintptr_t)client_id;
	q.address = (char *)(uintptr_t)exchange_address(e);
	q.args.data = (uint8_t *)(uintptr_t)exchange_body(e, &q.args.len);
	with_login(a, e, &q);
}

static void health(const struct api *a, struct exchange *e)
{
	if (!a->bus)
		unavailable(e, "no connection to the broker");
	else
		exchange_answer(e, 200, "{\"ok\":true}", 11);
}

void api_request(void *arg, struct exchange *e)
{
	struct api *a = arg;
	const char *path = exchange_path(e);

	if (strcmp(path, HEALTH) == 0)
		health(a, e);
	else if (strncmp(path, ROUTE, sizeof(ROUTE) - 1) != 0)
		refuse(e, 404, "not_found", "there is nothing under this path", "POST " ROUTE "{method}");
	else if (strcmp(exchange_verb(e), "POST") != 0)
		refuse(e, 405, "not_allowed", "requests are sent with POST", "POST " ROUTE "{method}");
	else if (!a->bus)
		unavailable(e, "no connection to the broker");
	else if (HASH_COUNT(a->waiting) >= API_WAITING_MAX)
		unavailable(e, "too many requests are waiting");
	else
		method(a, e, path + sizeof(ROUTE) - 1);
}

/* ---- its life */

struct api *api_create(struct im_loop *loop)
{
	struct api *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->loop = loop;
	a->sweep = im_timer_create(loop, on_sweep, a);
	if (!a->sweep) {
		free(a);
		return NULL;
	}
	return a;
}

void api_destroy(struct api *a)
{
	if (!a)
		return;
	end_all(a, INT64_MAX, "this service is stopping: it may have been done, or not");
	im_timer_destroy(a->sweep);
	free(a);
}
