/*
 * From journal records to messages, with kills, repeats, a store whose answers come when they like, and nobody to give
 * sequences at times: in the end the store holds what a naive reader of the journal makes of it. Two bytes a step.
 */
#include "fuzz.h"
#include "input.h"

#include "../unit/inbox_world.h"
#include "base/log.h"
#include "wire/name.h"
#include <string.h>

enum { STEPS_MAX = 150, SAID_MAX = 150 };

static const char *const users[] = {"alice", "bob", "carol"};
static const char *const convs[] = {"u/alice", "u/bob", "u/carol", "g/friends", "u/nobody", "nonsense"};
static const char *const ids[] = {NULL, "1", "2", "3"};
static const char *const bodies[] = {"x", "y"};

static struct said said[SAID_MAX];
static unsigned n_said;
static uint64_t sent; /* the journal up to here has been given to the inbox */

static void quiet(enum im_log_level level, const char *line)
{
	(void)level, (void)line;
}

/* ---- the naive reader */

static bool same(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static bool is_stored(unsigned n, char conv[IM_CONV_MAX])
{
	const struct said *s = &said[n];
	char other[IM_CONV_MAX];

	if (s->kind != IM__BUS__KIND__KIND_SEND || !im_conv_canonical(s->user, s->conv, conv) || strcmp(s->conv, "u/nobody") == 0)
		return false;
	for (unsigned i = 0; i < n && s->id; i++)
		if (same(said[i].user, s->user) && same(said[i].id, s->id) && is_stored(i, other))
			return false; /* a repeat, or the id of another message */
	return true;
}

static void compare(void)
{
	char conv[IM_CONV_MAX];
	size_t at = 0;

	for (unsigned n = 0; n < n_said; n++) {
		const struct message *m;
		uint64_t seq = 1;

		if (!is_stored(n, conv))
			continue;
		must(at < world.n_stored);
		m = world.stored[at];
		must(strcmp(m->conv, conv) == 0 && strcmp(m->from, said[n].user) == 0 && same(m->id, said[n].id ? said[n].id : ""));
		must(m->body_len == strlen(said[n].body) && memcmp(m->body, said[n].body, m->body_len) == 0);
		for (size_t i = 0; i < at; i++)
			seq += strcmp(world.stored[i]->conv, conv) == 0;
		must(m->seq == seq && m->prev == seq - 1);
		at++;
	}
	must(at == world.n_stored);
}

/* ---- what happens */

static void write_one(unsigned a, unsigned b)
{
	struct said *s = &said[n_said];

	if (n_said == SAID_MAX)
		return;
	*s = (struct said){IM__BUS__KIND__KIND_SEND, users[a % 3], convs[a / 3 % 6], ids[b % 4], bodies[b / 4 % 2]};
	if (b >> 4 == 15)
		*s = (struct said){IM__BUS__KIND__KIND_REFUSAL, users[a % 3], "", NULL, "too_fast"};
	else if (b >> 4 == 14)
		*s = (struct said){IM__BUS__KIND__KIND_REQUEST, users[a % 3], "", "r", ""};
	n_said++;
	(void)world_write(s);
}

static void send_some(unsigned records)
{
	uint64_t to = world_bound(records, sent);

	if (to > sent && world_send(sent, to) == IM_OK)
		sent = to;
}

/* kill -9: what is sent next may begin long before what is durable. */
static void crash(unsigned how)
{
	uint64_t mark;

	world_crash(how % 4);
	world.failed = NULL;
	mark = world_mark();
	sent = how & 4 || mark < WORLD_BEGIN ? WORLD_BEGIN : mark;
}

static void step(unsigned what, unsigned how)
{
	switch (what % 16) {
	case 7:
	case 8:
		send_some(1 + how % 8);
		return;
	case 9:
		if (!world_answer_append(how % 16 == 15 ? IM_UNCERTAIN : IM_OK) || how % 16 != 15)
			return;
		must(world.failed); /* the process ends; what stands behind a failed write is not in the log either */
		crash(how >> 4 & 4);
		return;
	case 10:
		(void)world_answer_lookup(IM_OK);
		return;
	case 11:
		crash(how);
		return;
	case 12:
		world.lease_away = how & 1;
		inbox_lease_changed(world.inbox);
		return;
	case 13:
		world.full = how & 1;
		world.link_full = how & 2;
		world.late_reads = how & 4;
		inbox_resume(world.inbox);
		return;
	case 14:
		if (!world.lease_away)
			world_settle();
		return;
	default:
		write_one(what >> 4 | (how & 8) << 1, how);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	im_log_open("inbox_fuzz", IM_LOG_ERROR, quiet);
	n_said = 0;
	sent = WORLD_BEGIN;
	world_create();
	for (unsigned n = 0; n < STEPS_MAX && in.size > 1; n++) {
		unsigned what = input_byte(&in);

		step(what, input_byte(&in));
	}
	world.lease_away = world.full = world.link_full = false;
	inbox_lease_changed(world.inbox);
	inbox_resume(world.inbox);
	world_settle();
	while (sent < world_written()) {
		uint64_t before = sent;

		send_some(8);
		world_settle();
		must(sent > before);
	}
	world_settle();
	must(!world.failed);
	compare();
	world_destroy();
	return 0;
}
