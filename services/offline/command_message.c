/*
 * history and send. What is difficult about history: in a group one sees only what was said during one's stays,
 * so a page never reaches over the end of a stay; `next` leads into the next one. A page holds at most
 * COMMAND_ANSWER_MAX bytes of JSON; a single message larger than that comes alone and whole, since history is
 * where one gets what was cut elsewhere.
 */
#include "base/clock.h"
#include "base/buf.h"
#include "command.h"
#include "wire/codec.h"
#include "wire/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY_DEFAULT 100u

struct history {
	char canonical[IM_CONV_MAX];
	struct store_lookup_conv lookup;
	uint64_t from, to;          /* what is asked for and may be seen; one stay */
	bool newest_first;
	bool further;               /* there are stays beyond this one in the direction of paging */
	uint64_t further_next;
	bool full;                  /* the page is; a row was left out */
	bool failed;
	size_t bytes, limit, cap;
	struct im_buf scratch;
};

static void history_free(void *state)
{
	struct history *h = state;

	im_buf_finish(&h->scratch);
	free(h);
}

/* ---- rights */

static bool stay_overlaps(const struct roster_stay *s, uint64_t from, uint64_t to)
{
	return s->from_seq <= to && (s->to_seq == 0 || s->to_seq >= from);
}

/* Narrows [from, to] to the first (or last) stay that has a part in it. false: none has. */
static bool narrow_to_stay(struct history *h, const struct roster_stay *stays, size_t n)
{
	const struct roster_stay *found = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct roster_stay *s = &stays[h->newest_first ? n - 1 - i : i];

		if (!stay_overlaps(s, h->from, h->to))
			continue;
		if (found != NULL) {
			h->further = true;
			h->further_next = h->newest_first ? s->to_seq : s->from_seq;
			break;
		}
		found = s;
	}
	if (found == NULL)
		return false;
	if (found->from_seq > h->from)
		h->from = found->from_seq;
	if (found->to_seq != 0 && found->to_seq < h->to)
		h->to = found->to_seq;
	return true;
}

/* ---- the page */

static bool add_message(struct call *call, struct history *h, struct message *m)
{
	if (call->n_messages == h->cap) {
		size_t cap = h->cap ? h->cap * 2 : 32;
		struct message **messages = realloc(call->messages, cap * sizeof(struct message *));

		if (messages == NULL)
			return false;
		call->messages = messages;
		h->cap = cap;
	}
	call->messages[call->n_messages++] = message_ref(m);
	return true;
}

static void on_row(void *arg, struct message *m)
{
	struct call *call = arg;
	struct history *h = call->state;
	Im__V1__Message view = IM__V1__MESSAGE__INIT;

	if (h->full || h->failed)
		return;
	message_view(m, call->conv, &view);
	im_buf_clear(&h->scratch);
	im_codec_message_json(&view, &h->scratch);
	if (h->scratch.failed) {
		h->failed = true;
		return;
	}
	if (call->n_messages > 0 && (call->n_messages >= h->limit || h->bytes + h->scratch.len + 1 > COMMAND_ANSWER_MAX - COMMAND_ROOM)) {
		h->full = true;
		return;
	}
	h->bytes += h->scratch.len + 1;
	if (!add_message(call, h, m))
		h->failed = true;
}

/* There is more in this stay as long as the last row is not at its end; a last page may turn out to be empty. */
static void say_whether_more(struct call *call, const struct history *h)
{
	uint64_t last = call->n_messages > 0 ? call->messages[call->n_messages - 1]->seq : 0;
	uint64_t next = h->newest_first ? last - 1 : last + 1;

	call->more = call->n_messages > 0 && (h->newest_first ? last > h->from : last < h->to);
	if (!call->more && h->further) {
		call->more = true;
		next = h->further_next;
	}
	if (call->more)
		(void)snprintf(call->next, sizeof(call->next), "%llu", (unsigned long long)next);
}

static void on_history(void *arg, enum im_status st)
{
	struct call *call = arg;
	struct history *h = call->state;

	if (!call_step(call, st))
		return;
	if (h->failed) {
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
		return;
	}
	say_whether_more(call, h);
	call_ok(call, json_pack("{s:s,s:I}", "conv", call->conv, "newest", (json_int_t)h->lookup.last_seq));
}

static bool may_see_conv(struct call *call, const struct history *h)
{
	const char *name = call->conv + 2;

	/* Those who were removed are still seen by what they wrote; a name that never was is a mistake. */
	if (!im_conv_is_group(h->canonical))
		return h->lookup.last_seq > 0 || (call_user(call, call_subject(call)) != NULL && call_user(call, name) != NULL);
	if (roster_stays(call->env->roster, name, call_subject(call), &(const struct roster_stay *){NULL}) > 0)
		return true;
	if (call_group(call, name) != NULL)
		call_refuse(call, IM_REFUSE_NOT_MEMBER, "%s was never in %s", call_subject(call), name);
	return false;
}

static void on_newest(void *arg, enum im_status st)
{
	struct call *call = arg;
	struct history *h = call->state;
	struct store_range range = {0};
	const struct roster_stay *stays;
	size_t n;

	if (!call_step(call, st) || !may_see_conv(call, h))
		return;
	if (im_conv_is_group(h->canonical)) {
		n = roster_stays(call->env->roster, call->conv + 2, call_subject(call), &stays);
		/* How much is said behind one's back is nobody's business either. */
		h->lookup.last_seq = roster_stays_last(stays, n, h->lookup.last_seq);
		if (!narrow_to_stay(h, stays, n))
			h->to = 0;
	}
	if (h->to > h->lookup.last_seq)
		h->to = h->lookup.last_seq;
	if (h->to == 0 || h->from > h->to) {
		call_ok(call, json_pack("{s:s,s:I}", "conv", call->conv, "newest", (json_int_t)h->lookup.last_seq));
		return;
	}
	range.conv = h->canonical;
	range.from = h->from;
	range.to = h->to;
	range.limit = (unsigned)h->limit;
	range.max_bytes = COMMAND_ANSWER_MAX;
	range.newest_first = h->newest_first;
	store_history(call->env->store, &range, on_row, on_history, call);
}

static bool read_next(struct call *call, struct history *h)
{
	const char *text = call_text(call, "next");
	char *end;
	uint64_t next;

	if (text == NULL)
		return true;
	next = strtoull(text, &end, 10);
	if (*end != '\0' || next == 0) {
		call_refuse(call, IM_REFUSE_BAD_FIELD, "\"next\" is not one of an answer's");
		return false;
	}
	if (h->newest_first)
		h->to = next < h->to ? next : h->to;
	else
		h->from = next > h->from ? next : h->from;
	return true;
}

void command_history(struct call *call)
{
	const char *user = call_subject(call);
	struct history *h;

	/* An admin may look through the eyes of somebody who was removed. */
	call->free_state = history_free;
	h = call_state(call, sizeof(*h));
	if (h == NULL)
		return;
	im_buf_init(&h->scratch);
	if (!im_conv_canonical(user, call_text(call, "conv"), h->canonical)) {
		call_refuse(call, IM_REFUSE_BAD_NAME, "\"conv\" must be u/{user} or g/{group}");
		return;
	}
	(void)snprintf(call->conv, sizeof(call->conv), "%s", call_text(call, "conv"));
	h->from = call_int(call, "from", 1);
	h->to = call_int(call, "to", UINT64_MAX);
	h->limit = call_int(call, "limit", HISTORY_DEFAULT);
	h->newest_first = call_flag(call, "newest_first");
	if (h->from == 0)
		h->from = 1;
	if (h->to == 0)
		h->to = UINT64_MAX;
	if (!read_next(call, h))
		return;
	h->lookup.conv = h->canonical;
	store_lookup(call->env->store, &h->lookup, 1, NULL, 0, on_newest, call);
}

/* ---- send */

static void on_sent(void *arg, enum im_status st, struct message *m)
{
	struct call *call = arg;

	if (st == IM_BAD_INPUT) {
		if (call_step(call, IM_OK))
			call_refuse(call, IM_REFUSE_ID_REUSED, "the id was used before for another message");
	} else if (call_step(call, st)) {
		call_ok(call, json_pack("{s:s,s:s,s:I,s:I}", "msgid", m->msgid, "conv", call_text(call, "conv"), "seq", (json_int_t)m->seq,
					"ts", (json_int_t)m->ts));
	}
}

/* The same rules as for everybody who sends; the system may speak in groups. */
static bool may_send(struct call *call, const char *from, const char *conv)
{
	const struct roster *roster = call->env->roster;
	const char *to = conv + 2;
	bool system = strcmp(from, "system") == 0;

	if (!system && call_user(call, from) == NULL)
		return false;
	if (conv[0] == 'g') {
		if (call_group(call, to) == NULL)
			return false;
		if (system || roster_is_member(roster, to, from))
			return true;
		call_refuse(call, IM_REFUSE_NOT_MEMBER, "%s is not in %s", from, to);
		return false;
	}
	if (system) {
		call_refuse(call, IM_REFUSE_NOT_ALLOWED, "the system speaks in groups only");
		return false;
	}
	if (call_user(call, to) == NULL)
		return false;
	if (!roster_is_blocked(roster, to, from))
		return true;
	call_refuse(call, IM_REFUSE_BLOCKED, "%s does not take messages of %s", to, from);
	return false;
}

void command_send(struct call *call)
{
	const char *from = call_text(call, "from"), *conv = call_text(call, "conv"), *text = call_text(call, "text");
	bool system = strcmp(from, "system") == 0;
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	char canonical[IM_CONV_MAX];

	if (!system && !im_name_valid(from, strlen(from))) {
		call_refuse(call, IM_REFUSE_BAD_NAME, "\"from\" is neither a user's name nor system");
		return;
	}
	if (!may_send(call, from, conv))
		return;
	if (strlen(text) > call->env->settings->max_message) {
		call_refuse(call, IM_REFUSE_TOO_BIG, "the message is larger than im_max_message");
		return;
	}
	if (system)
		(void)snprintf(canonical, sizeof(canonical), "%s", conv);
	else if (!im_conv_canonical(from, conv, canonical)) {
		call_refuse(call, IM_REFUSE_BAD_NAME, "\"conv\" must be u/{user} or g/{group}");
		return;
	}
	r.kind = IM__BUS__KIND__KIND_SEND;
	r.ts = im_clock_wall_ms();
	r.user = system ? (char *)"" : (char *)from;
	r.client_id = system ? (char *)"" : (char *)"$control"; /* no client's: repeats of imctl meet here under one id */
	r.conv = (char *)conv;
	r.type = system ? (char *)"system" : (char *)"text";
	r.enc = IM__V1__ENC__ENC_TEXT;
	r.body.data = (uint8_t *)text;
	r.body.len = strlen(text);
	if (call_text(call, "id") != NULL)
		r.id = (char *)call_text(call, "id");
	inbox_post(call->env->inbox, &r, canonical, NULL, on_sent, call);
}
