/*
 * Frames on $im/push/{provider}. The difficult idea is the numbers: the service counts its frames with jobs over its life, keeps them
 * until they are confirmed, and sends what is kept again, in order, when it is greeted. So the first frame behind a greeting may have
 * any number; from then on only the one that follows the last is taken. Without room nothing more is taken, and when there is room
 * again a new greeting brings what was left out. What comes twice is known by its name.
 */
#include "push/bridge.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MOST (4u << 20) /* larger ones the service does not send */
#define ROOM_AGAIN(limit) ((limit) - (limit) / 20) /* full until a twentieth is free: not on and off with each job */

/* ---- out */

/* Every frame says how far jobs are durable, and whether there is room. */
static bool publish(struct bridge *b, Im__Push__Up *up)
{
	enum im_status st;
	uint8_t *frame;
	size_t len;

	up->of = b->service_start;
	up->stored = b->stored;
	up->full = b->full;
	len = im__push__up__get_packed_size(up);
	frame = malloc(len ? len : 1);
	if (!frame)
		return false;
	(void)im__push__up__pack(up, frame); /* it writes the size it said */
	st = im_mqtt_publish(b->service->bus, b->topic_up, frame, len, 1);
	free(frame);
	if (st == IM_OK)
		b->stored_told = b->stored;
	return st == IM_OK;
}

static void send_hello(struct bridge *b, const char *to)
{
	Im__Push__Hello hello = IM__PUSH__HELLO__INIT;
	Im__Push__Up up = IM__PUSH__UP__INIT;

	hello.protocol = 1;
	hello.provider = (char *)b->driver->provider; /* only read */
	hello.version = (char *)IM_VERSION;
	hello.start = b->start;
	hello.to = (char *)to;
	up.hello = &hello;
	(void)publish(b, &up); /* repeated until it is answered */
}

void frame_greet(struct bridge *b)
{
	if (b->greeted || !b->open || !im_mqtt_is_up(b->service->bus))
		return;
	send_hello(b, "");
	im_timer_start(b->hello, BRIDGE_HELLO_MS, 0);
}

/* false: the bus does not take it now; all of it stays for the next time. */
static bool send_asks(struct bridge *b)
{
	Im__Push__Ask asks[BRIDGE_ASKS_FRAME], *list[BRIDGE_ASKS_FRAME];
	Im__Push__Job jobs[BRIDGE_ASKS_FRAME];
	Im__Push__Up up = IM__PUSH__UP__INIT;
	size_t n = b->n_to_ask < BRIDGE_ASKS_FRAME ? b->n_to_ask : BRIDGE_ASKS_FRAME;

	for (size_t i = 0; i < n; i++) {
		im__push__ask__init(&asks[i]);
		push_job_message(b->to_ask[i], &jobs[i]);
		asks[i].id = b->to_ask[i]->ask;
		asks[i].job = &jobs[i];
		asks[i].since_seq = b->to_ask[i]->since_seq;
		list[i] = &asks[i];
	}
	up.asks = list;
	up.n_asks = n;
	if (!publish(b, &up))
		return false;
	b->n_to_ask -= n;
	memmove(b->to_ask, b->to_ask + n, b->n_to_ask * sizeof(b->to_ask[0]));
	return true;
}

static bool send_verdicts(struct bridge *b)
{
	Im__Push__TokenVerdict *list[BRIDGE_VERDICTS_FRAME];
	Im__Push__Up up = IM__PUSH__UP__INIT;
	struct push_said *at = b->said_next;
	bool ok;

	for (; at && up.n_verdicts < BRIDGE_VERDICTS_FRAME; at = at->next) {
		Im__Push__TokenVerdict *v = im__push__token_verdict__unpack(NULL, at->len, at->data);

		up.said = at->said;
		if (v)
			list[up.n_verdicts++] = v;
	}
	up.verdicts = list;
	ok = publish(b, &up);
	for (size_t i = 0; i < up.n_verdicts; i++)
		im__push__token_verdict__free_unpacked(list[i], NULL);
	if (ok) {
		b->said_next = at;
		b->said_ms = bridge_now(b);
	}
	return ok;
}

static void send_stored(struct bridge *b)
{
	Im__Push__Up up = IM__PUSH__UP__INIT;

	(void)publish(b, &up); /* else with the next frame */
}

void frame_flush(struct bridge *b)
{
	if (!b->greeted || !im_mqtt_is_up(b->service->bus))
		return;
	while (b->n_to_ask && send_asks(b))
		;
	while (b->said_next && send_verdicts(b))
		;
	if (b->stored_told != b->stored)
		send_stored(b);
}

void frame_answer(struct bridge *b, uint64_t id, char *json)
{
	Im__Push__Answer answer = IM__PUSH__ANSWER__INIT, *list[] = {&answer};
	Im__Push__Up up = IM__PUSH__UP__INIT;

	answer.id = id;
	answer.json = json ? json : (char *)"{\"error\":\"out of memory\"}";
	up.answers = list;
	up.n_answers = 1;
	if (b->greeted)
		(void)publish(b, &up); /* imctl asks again */
	free(json);
}

/* ---- in */

/* What was under way between us and another service, or over a bus that fell, is begun anew. */
static void take_hello(struct bridge *b, const Im__Push__Hello *hello)
{
	bool other = strcmp(hello->start, b->service_start) != 0;

	if (hello->protocol != 1) {
		im_log(IM_LOG_ERROR, "evt=greeted service=%s protocol=%u why=\"not a protocol of this release\": left out", hello->version,
		       hello->protocol);
		return;
	}
	if (other || !b->greeted) {
		frame_lost(b);
		b->session++;
		(void)snprintf(b->service_start, sizeof(b->service_start), "%s", hello->start);
		im_log(IM_LOG_NOTICE, "evt=greeted service=%s open=%zu verdicts=%zu", hello->version, push_queue_count(b->queue), b->n_said);
	}
	if (other)
		b->taken = b->stored = b->stored_told = 0;
	b->greeted = true;
	b->any_frame = true;
	b->full = false;
	b->said_next = b->said;
	im_timer_stop(b->hello);
	if (!*hello->to)
		send_hello(b, b->service_start);
}

static void say_full(struct bridge *b)
{
	if (b->full)
		return;
	im_log(IM_LOG_WARNING, "evt=outbox_full jobs=%zu limit=%u: the message service keeps what follows", push_queue_count(b->queue),
	       b->service->settings.push_outbox);
	b->full = true;
	send_stored(b);
}

static void take_jobs(struct bridge *b, Im__Push__Down *d)
{
	if (b->full || d->frame <= b->taken)
		return; /* it comes again, or has come before */
	if (d->frame != b->taken + 1 && !b->any_frame) {
		im_log(IM_LOG_NOTICE, "evt=frame n=%llu expected=%llu: asking for what is between", (unsigned long long)d->frame,
		       (unsigned long long)b->taken + 1);
		b->stats.bad_frames++;
		send_hello(b, "");
		return;
	}
	if (!flow_take(b, d->jobs, d->n_jobs, d->frame)) {
		say_full(b);
		return;
	}
	b->any_frame = false;
	b->taken = d->frame;
}

/* The greeting makes the service send what was left out. */
void frame_room(struct bridge *b)
{
	unsigned limit = b->service->settings.push_outbox;

	if (!b->full || b->trouble || b->draining || b->pending || push_queue_count(b->queue) > ROOM_AGAIN(limit))
		return;
	im_log(IM_LOG_NOTICE, "evt=outbox_room jobs=%zu limit=%u", push_queue_count(b->queue), limit);
	b->full = false;
	if (b->greeted)
		send_hello(b, "");
}

void frame_take(struct bridge *b, const void *data, size_t len)
{
	Im__Push__Down *d = len <= FRAME_MOST ? im__push__down__unpack(NULL, len, data) : NULL;

	if (!d) {
		b->stats.bad_frames++;
		im_log(IM_LOG_WARNING, "evt=frame bytes=%zu why=\"not a frame of ours\": left out", len);
		return;
	}
	if (d->hello && b->open)
		take_hello(b, d->hello);
	if (b->greeted) {
		if (d->frame)
			take_jobs(b, d);
		for (size_t i = 0; i < d->n_tickets; i++) {
			flow_ticket(b, d->tickets[i]);
			d->tickets[i] = NULL; /* it is taken over */
		}
		if (d->heard)
			tokens_heard(b, d->heard);
		for (size_t i = 0; i < d->n_queries; i++)
			query_take(b, d->queries[i]);
	}
	im__push__down__free_unpacked(d, NULL);
}

void frame_lost(struct bridge *b)
{
	b->greeted = false;
	b->n_to_ask = 0;
	for (size_t i = 0; i < BRIDGE_ASKS && b->n_asks; i++)
		if (b->asks[i])
			flow_unask(b, b->asks[i]);
}
