/* Who is connected, and ending it. */
#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *codec_name(enum im_codec codec)
{
	switch (codec) {
	case IM_CODEC_JSON:
		return "json";
	case IM_CODEC_RAW:
		return "raw";
	case IM_CODEC_PB:
		return "pb";
	default:
		return "none";
	}
}

/* Sessions are named by their handles, sixteen digits wide, so that their order is that of their connecting. */
struct handles {
	uint64_t *v;
	size_t n, cap;
	bool failed;
};

static void collect(void *arg, const struct delivery_session_info *s)
{
	struct handles *h = arg;

	if (h->n == h->cap) {
		size_t cap = h->cap ? h->cap * 2 : 64;
		uint64_t *v = realloc(h->v, cap * sizeof(*v));

		if (v == NULL) {
			h->failed = true;
			return;
		}
		h->v = v;
		h->cap = cap;
	}
	h->v[h->n++] = s->handle;
}

static int by_handle(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static json_t *session_row(const struct delivery_session_info *s)
{
	return json_pack("{s:s,s:s,s:s,s:I,s:I,s:s,s:b,s:b,s:I,s:I,s:b,s:b}", "user", s->user, "client_id", s->client_id, "address",
			 s->address, "protocol", (json_int_t)s->protocol, "keepalive_s", (json_int_t)s->keepalive_s, "codec",
			 codec_name(s->codec), "websocket", s->websocket, "acks", s->acks, "since", (json_int_t)s->since_ms, "handed",
			 (json_int_t)s->handed, "catching_up", s->catching_up, "behind", s->behind);
}

static void list(struct call *call, struct handles *h, uint64_t after)
{
	struct page page;

	page_start(&page, call, NAMES_DEFAULT);
	for (size_t i = 0; i < h->n; i++) {
		struct delivery_session_info s;
		char key[17];

		if (h->v[i] <= after || !delivery_find_session(call->env->delivery, h->v[i], &s))
			continue;
		(void)snprintf(key, sizeof(key), "%016llx", (unsigned long long)h->v[i]);
		if (!page_add(&page, key, session_row(&s)))
			break;
	}
	page_end(&page, "sessions");
}

void command_session_list(struct call *call)
{
	const char *next = call_text(call, "next");
	uint64_t after = next != NULL ? strtoull(next, NULL, 16) : 0;
	struct handles h = {0};

	delivery_each_session(call->env->delivery, call_text(call, "user"), collect, &h);
	if (h.n > 0)
		qsort(h.v, h.n, sizeof(*h.v), by_handle);
	if (h.failed)
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
	else
		list(call, &h, after);
	free(h.v);
}

struct kick {
	struct call *call;
	unsigned kicked;
};

static void kick_one(void *arg, const struct delivery_session_info *s)
{
	struct kick *k = arg;
	const char *client_id = call_text(k->call, "client_id");

	if (client_id != NULL && strcmp(client_id, s->client_id) != 0)
		return;
	link_kick(k->call->env->link, s->handle, "kicked by an admin");
	k->kicked++;
}

void command_session_kick(struct call *call)
{
	struct kick k = {call, 0};

	if (call_user(call, call_text(call, "user")) == NULL)
		return;
	delivery_each_session(call->env->delivery, call_text(call, "user"), kick_one, &k);
	if (k.kicked == 0)
		call_refuse(call, IM_REFUSE_NOT_FOUND, "%s has no such connection", call_text(call, "user"));
	else
		call_ok(call, json_pack("{s:I}", "kicked", (json_int_t)k.kicked));
}
