/*
 * Leases: the generator (services/seqgen), the message service (lease.c) and another owner, over a bus that loses and
 * repeats, with kills of both and a database that fails before or after it wrote. No sequence is ever given twice,
 * and none is given from an epoch that is not durable. Two bytes a step.
 */
#include "../unit/fake_timers.h"
#include "fuzz.h"
#include "input.h"

#include "base/log.h"
#include "lease.h"
#include "lease_frame.h"
#include <string.h>

enum { STEPS_MAX = 120, SECTIONS = 3, RUNS_MAX = 300, HELD_MAX = 8 };

/* ---- what the parts need */

struct store {
	struct store_start start;
	uint64_t epochs[IM_SECTIONS];
};

static struct store store;
static struct lease *lease;
static struct seqgen *seqgen;
static struct seq_section saved[IM_SECTIONS]; /* seqgen's database */
static enum { SAVE, FAIL_BEFORE, FAIL_AFTER } saving;
static struct { void *data; size_t len; } frames[HELD_MAX], answers[HELD_MAX]; /* on the bus */
static unsigned n_frames, n_answers;
static struct { store_done_fn *done; void *arg; uint64_t epochs[IM_SECTIONS]; } append; /* under way: done is set */
static struct {
	struct { uint64_t from, to; } run[RUNS_MAX];
	unsigned n;
	uint64_t last; /* in our store */
} given[SECTIONS];
static struct seq_lease others[SECTIONS];
static uint64_t others_last[SECTIONS];

const struct store_start *store_start(struct store *s)
{
	return &s->start;
}

void store_append(struct store *s, const struct store_entry *e, size_t n, store_done_fn *done, void *arg)
{
	must(n == 1 && e->kind == STORE_SECTIONS && !append.done);
	memcpy(append.epochs, s->epochs, sizeof(append.epochs));
	for (size_t i = 0; i < e->n_sections; i++) {
		must(e->sections[i]->epoch > s->epochs[e->sections[i]->section]); /* it fences */
		append.epochs[e->sections[i]->section] = e->sections[i]->epoch;
	}
	append.done = done;
	append.arg = arg;
}

static void hold(void *frame, size_t len, bool is_answer)
{
	unsigned *n = is_answer ? &n_answers : &n_frames;

	if (*n == HELD_MAX) {
		free(frame);
		return;
	}
	if (is_answer) {
		answers[*n].data = frame;
		answers[(*n)++].len = len;
	} else {
		frames[*n].data = frame;
		frames[(*n)++].len = len;
	}
}

enum im_status im_mqtt_publish(struct im_mqtt *m, const char *topic, const void *payload, size_t len, int qos)
{
	void *copy = malloc(len + 1);

	(void)m, (void)qos;
	must(copy && strcmp(topic, "$im/seq") == 0);
	memcpy(copy, payload, len);
	hold(copy, len, false);
	return IM_OK;
}

/* ---- seqgen's database */

static enum im_status db_load(void *db, struct seq_section *sections, struct im_err *err)
{
	(void)db, (void)err;
	memcpy(sections, saved, sizeof(saved));
	return IM_OK;
}

static enum im_status db_save(void *db, const struct seq_row *rows, size_t n, struct im_err *err)
{
	(void)db;
	for (size_t i = 0; i < n && saving != FAIL_BEFORE; i++)
		saved[rows[i].section] = rows[i].state;
	return saving == SAVE ? IM_OK : im_fail(err, IM_FAILED, "the target says so");
}

static void db_close(void *db)
{
	(void)db;
}

static const struct seq_driver driver = {.name = "fuzz", .load = db_load, .save = db_save, .close = db_close};

static void seqgen_start(void)
{
	must(seqgen_create_on(&driver, NULL, &seqgen, NULL) == IM_OK);
}

static void serve(const void *frame, size_t len)
{
	Im__Bus__LeaseRequest *r = im__bus__lease_request__unpack(NULL, len, frame);
	struct lease_frame answer;
	struct im_err err;

	must(r && r->n_leases <= IM_SECTIONS);
	if (lease_frame_serve(seqgen, r, &answer, &err) != IM_FAILED)
		hold(answer.data, answer.len, true);
	im__bus__lease_request__free_unpacked(r, NULL);
}

/* ---- what happens */

static void give(unsigned section, uint64_t seq)
{
	unsigned n = given[section].n;

	for (unsigned i = 0; i < n; i++)
		must(seq < given[section].run[i].from || seq > given[section].run[i].to);
	if (n > 0 && given[section].run[n - 1].to + 1 == seq) {
		given[section].run[n - 1].to = seq;
	} else {
		must(n < RUNS_MAX);
		given[section].run[n].from = given[section].run[n].to = seq;
		given[section].n++;
	}
}

static void next(unsigned section, unsigned how)
{
	uint64_t seq, epoch;

	for (unsigned i = 0; i <= (how % 4 == 3 ? 3000 : how % 4); i++) {
		if (lease_next(lease, section, given[section].last, &seq, &epoch) != IM_OK)
			return;
		must(seq > given[section].last && epoch == store.epochs[section]);
		give(section, seq);
		given[section].last = seq;
	}
}

static void other_owner(unsigned section, unsigned how)
{
	struct seq_lease ask = {.section = section, .epoch = how & 1 ? others[section].epoch : 0}, got;
	size_t n = 0;

	if (how & 2 && others[section].epoch != 0) {
		ask.epoch = others[section].epoch;
		ask.ceiling = others[section].ceiling + how * 100;
	}
	if (seqgen_lease(seqgen, how & 4 ? "other:1" : "other:2", &ask, 1, &got, &n, NULL) == IM_FAILED || n == 0)
		return;
	must(got.section == section && got.epoch >= others[section].epoch && got.ceiling <= SEQ_CEILING_MOST);
	if (ask.ceiling == 0 && !got.complete)
		others_last[section] = others_last[section] > got.floor ? others_last[section] : got.floor;
	others[section] = got;
	if (others_last[section] < got.floor)
		others_last[section] = got.floor;
	if (others_last[section] + 1 <= got.ceiling)
		give(section, ++others_last[section]);
}

static void append_ends(enum im_status st, bool written)
{
	store_done_fn *done = append.done;

	if (!done)
		return;
	append.done = NULL;
	if (written)
		memcpy(store.epochs, append.epochs, sizeof(store.epochs));
	done(append.arg, st);
}

static void restart_service(unsigned how)
{
	lease_destroy(lease);
	append_ends(IM_UNCERTAIN, how & 1);
	must(lease_create(NULL, &store, &lease, NULL) == IM_OK);
	if (how & 2)
		lease_bus(lease, (struct im_mqtt *)&store);
}

static void take_frame(bool lose, bool repeat)
{
	if (n_frames == 0)
		return;
	if (!lose)
		serve(frames[0].data, frames[0].len);
	if (repeat)
		return;
	free(frames[0].data);
	memmove(frames, frames + 1, --n_frames * sizeof(frames[0]));
}

static void take_answer(bool lose, bool repeat)
{
	if (n_answers == 0)
		return;
	if (!lose)
		lease_answer(lease, answers[0].data, answers[0].len);
	if (repeat)
		return;
	free(answers[0].data);
	memmove(answers, answers + 1, --n_answers * sizeof(answers[0]));
}

static void restart_seqgen(void)
{
	seqgen_destroy(seqgen);
	seqgen_start();
}

static void garbage(struct input *in)
{
	const uint8_t *bytes;
	size_t len = input_some(in, 3, &bytes); /* too short to be a grant: that would be a lie, not garbage */

	lease_answer(lease, bytes, len);
}

static void step(unsigned what, unsigned how, struct input *in)
{
	struct im_timer *timer;

	switch (what % 12) {
	case 0:
	case 1:
		take_frame(how % 8 == 7, how % 8 == 6);
		return;
	case 2:
	case 3:
		take_answer(how % 8 == 7, how % 8 == 6);
		return;
	case 4:
		append_ends(how % 8 == 7 ? IM_UNCERTAIN : IM_OK, how % 8 != 7);
		return;
	case 5:
		if ((timer = fake_timer_due(FAKE_WHENEVER)))
			fake_timer_fire(timer);
		return;
	case 6:
		lease_bus(lease, how & 1 ? (struct im_mqtt *)&store : NULL);
		return;
	case 7:
		if (how % 4 == 0)
			restart_service(how >> 2);
		else if (how % 4 == 1)
			restart_seqgen();
		else if (how % 4 == 2)
			saving = how / 4 % 3;
		else
			garbage(in);
		return;
	case 8:
		other_owner(how % SECTIONS, how / SECTIONS);
		return;
	default:
		next(how % SECTIONS, how / SECTIONS);
	}
}

static void quiet(enum im_log_level level, const char *line)
{
	(void)level, (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};

	im_log_open("lease_fuzz", IM_LOG_ERROR, quiet);
	memset(saved, 0, sizeof(saved));
	memset(&store, 0, sizeof(store));
	memset(given, 0, sizeof(given));
	memset(others, 0, sizeof(others));
	memset(others_last, 0, sizeof(others_last));
	saving = SAVE;
	store.start.section_epochs = store.epochs;
	seqgen_start();
	must(lease_create(NULL, &store, &lease, NULL) == IM_OK);
	lease_bus(lease, (struct im_mqtt *)&store);
	for (unsigned n = 0; n < STEPS_MAX && in.size > 1; n++) {
		unsigned what = input_byte(&in), how = input_byte(&in);

		step(what, how, &in);
	}
	lease_destroy(lease);
	append_ends(IM_UNCERTAIN, false);
	seqgen_destroy(seqgen);
	while (n_frames > 0)
		free(frames[--n_frames].data);
	while (n_answers > 0)
		free(answers[--n_answers].data);
	return 0;
}
