/*
 * Schedules: a few hundred steps, each drawn from the seed, then everything is healed, everybody comes back, and
 * nobody may have missed anything (README.md).
 *
 * Each schedule first draws how often each kind of step comes and how small the limits are: one that knows no
 * crashes gets further elsewhere, and one with hardly anything but crashes gets where others do not.
 */
#include "sim.h"

#include "base/conf.h"

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STEPS_LEAST 60u
#define STEPS_MOST 420u
#define ROUNDS_MOST 900u /* until all is quiet at the end: windows and budgets of three messages take their time */

bool sim_tracing;
uint64_t sim_counts[SIM_N_COUNTS];
struct sim_limits sim_limits;
struct im_settings sim_settings;

static uint64_t seed, state;
static unsigned step;
static bool power_mode;
static enum { COPY_NONE, COPY_STORE, COPY_SEQGEN } copies; /* which of the two may be an older copy; both is nobody's promise */

/* ---- chance */

uint64_t sim_random64(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15u); /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

unsigned sim_random(unsigned n)
{
	return n ? (unsigned)(sim_random64() >> 33) % n : 0;
}

bool sim_chance(unsigned percent)
{
	return sim_random(100) < percent;
}

/* ---- telling */

void sim_trace(const char *fmt, ...)
{
	va_list ap;

	if (!sim_tracing)
		return;
	printf("%4u %8lld  ", step, (long long)(fake_now_ms - 1000000));
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void tell_seed(void)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "sim: in step %u; again with: sim --seed %llu --trace\n", step, (unsigned long long)seed);

	(void)!write(STDERR_FILENO, line, (size_t)n);
}

void sim_fail(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "sim: FAILED: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	tell_seed();
	_exit(1);
}

static void on_signal(int number)
{
	tell_seed();
	(void)signal(number, SIG_DFL);
	(void)raise(number);
}

void __asan_on_error(void);
void __asan_on_error(void)
{
	tell_seed();
}

/* ---- steps */

static void step_bus_in(void)
{
	for (unsigned n = 1 + sim_random(3); n > 0 && bus_waiting(BUS_TO_OFFLINE); n--)
		offline_hear();
}

static void step_bus_out(void)
{
	for (unsigned n = 1 + sim_random(3); n > 0 && bus_waiting(BUS_TO_PLUGIN); n--)
		plugin_hear();
}

static void step_sequences(void)
{
	if (sim_chance(50) && bus_waiting(BUS_TO_SEQGEN))
		seqgen_hear();
	else if (offline_on_bus() && bus_waiting(BUS_FROM_SEQGEN))
		offline_hear_lease();
}

static void step_store(void)
{
	if (store_waiting())
		store_complete(1 + sim_random(3));
}

static unsigned read_failures;

static void step_read(void)
{
	if (store_reading())
		store_answer_read(sim_chance(read_failures));
}

static void step_settle(void)
{
	for (unsigned n = sim_random(12); n > 0; n--)
		store_settle_one();
}

static void step_clock(void)
{
	static const int64_t far[] = {400, 1100, 5000, 12000, 31000, 96000, 310000, 3700000, 25 * 3600000ll};
	unsigned way = sim_random(40);

	if (way < 24) {
		loop_pass(sim_random(200));
		return;
	}
	clients_read_all(); /* a client that reads less than once in a settle period is promised nothing */
	COUNT(clock_jumps);
	way = sim_random(way < 38 ? 5 : sizeof(far) / sizeof(far[0]));
	if (far[way] > 24 * 3600000ll)
		COUNT(days);
	sim_trace("%lld ms pass", (long long)far[way]);
	loop_pass(far[way]);
}

static void step_kill_offline(void)
{
	offline_kill();
}

static void step_stop_offline(void)
{
	offline_finish();
}

static void step_kill_broker(void)
{
	power_mode = false;
	if (sim_chance(50)) { /* in the middle of whatever it does next */
		disk_die_after(1 + sim_random(6));
		return;
	}
	offline_disconnect();
	plugin_kill(false);
}

static void cut_power(void)
{
	offline_kill();
	seqgen_kill();
	plugin_kill(true);
}

static void step_cut_power(void)
{
	power_mode = true;
	if (sim_chance(50))
		disk_die_after(1 + sim_random(6));
	else
		cut_power();
}

static void step_disk(void)
{
	if (sim_chance(40))
		disk_fail(1 + sim_random(30));
	else
		disk_fail(0);
}

static void step_break_store(void)
{
	if (offline_is_up() && !offline_wants_end())
		store_break();
}

static void step_roll_back(void)
{
	if (copies != COPY_STORE)
		return;
	offline_kill();
	store_roll_back();
}

/* Not beside a generator that forgets whom it has granted what. */
static void step_ghost(void)
{
	if (copies != COPY_SEQGEN)
		seqgen_ghost();
}

static void step_seq_copy(void)
{
	if (copies != COPY_SEQGEN)
		return;
	if (sim_chance(50))
		seqgen_keep_copy();
	else
		seqgen_put_copy_back();
}

static void step_seq_saves(void)
{
	seqgen_fail_saves(sim_chance(50) ? 0 : 1 + sim_random(40));
}

static void step_full(void)
{
	store_is_full = sim_chance(30);
}

static void step_start(void)
{
	if (!offline_is_up())
		offline_start();
	else if (!seqgen_is_up())
		seqgen_start();
	else if (!plugin_is_up())
		plugin_start();
	else
		offline_connect();
}

static void step_turn(void)
{
	loop_turn();
}

enum { NEEDS_PLUGIN = 1, NEEDS_OFFLINE = 2 };

static const struct {
	void (*fn)(void);
	unsigned weight, needs;
	bool fault;
} kinds[] = {
	{clients_send, 40, NEEDS_PLUGIN, false},
	{clients_repeat, 10, NEEDS_PLUGIN, false},
	{clients_ack, 15, NEEDS_PLUGIN, false},
	{clients_connect, 14, NEEDS_PLUGIN, false},
	{clients_subscribe, 4, NEEDS_PLUGIN, false},
	{clients_disconnect, 6, NEEDS_PLUGIN, false},
	{clients_read, 20, NEEDS_PLUGIN, false},
	{clients_member, 4, NEEDS_PLUGIN, false},
	{plugin_turn, 60, NEEDS_PLUGIN, false},
	{plugin_thread, 40, NEEDS_PLUGIN, false},
	{step_bus_out, 50, NEEDS_PLUGIN, false},
	{step_bus_in, 50, NEEDS_OFFLINE, false},
	{step_sequences, 25, 0, false},
	{step_store, 50, NEEDS_OFFLINE, false},
	{step_read, 50, NEEDS_OFFLINE, false},
	{step_settle, 8, NEEDS_OFFLINE, false},
	{step_turn, 30, NEEDS_OFFLINE, false},
	{step_clock, 25, 0, false},
	{step_start, 40, 0, false},
	{step_kill_offline, 4, NEEDS_OFFLINE, true},
	{step_stop_offline, 2, NEEDS_OFFLINE, true},
	{offline_disconnect, 3, NEEDS_OFFLINE, true},
	{seqgen_kill, 3, 0, true},
	{step_ghost, 2, 0, true},
	{step_seq_copy, 2, 0, true},
	{step_seq_saves, 2, 0, true},
	{step_kill_broker, 3, NEEDS_PLUGIN, true},
	{step_cut_power, 2, NEEDS_PLUGIN, true},
	{step_disk, 2, NEEDS_PLUGIN, true},
	{step_break_store, 1, NEEDS_OFFLINE, true},
	{step_roll_back, 1, 0, true},
	{step_full, 3, 0, true},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* What follows from a step by itself. */
static void aftermath(void)
{
	if (plugin_is_up() && disk_is_dead()) {
		if (power_mode) {
			cut_power();
		} else {
			offline_disconnect();
			plugin_kill(false);
		}
	}
	if (offline_wants_end()) {
		COUNT(service_restarts_itself);
		offline_finish();
	}
	if (plugin_is_up() && plugin_ended_service())
		offline_disconnect();
	offline_inspect();
}

/* ---- one schedule */

static unsigned one_of(const unsigned *list, unsigned n)
{
	return list[sim_random(n)];
}

static void draw_limits(void)
{
	static const unsigned few[] = {1, 2, 3, 5, 40}, windows[] = {2, 3, 6, 500}, silent[] = {3, 8, 200000}, slices[] = {16, 200, 500, 4000};

	sim_limits = (struct sim_limits){
		.page_messages = one_of(few, 5),
		.pages = 1 + sim_random(3),
		.page_bytes = sim_chance(30) ? 6 : 1000,
		.kept_bytes = sim_chance(20) ? 4 : 1000,
		.link_window = sim_chance(30) ? 8000 : 1 << 20,
		.link_frame = sim_chance(50) ? 300 : 4000,
		.in_flight = sim_chance(30) ? 600 : 1 << 20,
		.slice = one_of(slices, 4),
		.frames_turn = 1 + sim_random(4),
	};
	sim_limits.recent_convs = sim_limits.slice == 16 ? 2 : 40;
	memset(&sim_settings, 0, sizeof(sim_settings));
	sim_settings.node = 1;
	sim_settings.dir = (char *)(uintptr_t)"/sim";
	sim_settings.store = (char *)(uintptr_t)"sim:";
	sim_settings.push = (char *)(uintptr_t)"";
	sim_settings.dedupe_days = 7;
	sim_settings.devices = sim_chance(20) ? 2 : 32;
	sim_settings.device_days = 90;
	sim_settings.unnamed = 16;
	sim_settings.ack_window = one_of(windows, 4);
	sim_settings.ack_retry_ms = 10000;
	sim_settings.ack_retries = 3;
	sim_settings.silent_messages = one_of(silent, 3);
	sim_settings.silent_bytes = 64 << 20;
	sim_settings.group_members = 100;
	sim_settings.filters = 16;
	sim_settings.max_message = 262144;
	sim_settings.expand_bytes = sim_chance(30) ? 300 : 1 << 20;
	sim_settings.read_on_send = sim_chance(50);
	disk_sync_all = sim_chance(50);
	copies = sim_random(3);
}

static unsigned draw_weights(unsigned *weights)
{
	unsigned total = 0, faults = sim_random(4); /* none, few, some, many */

	for (size_t i = 0; i < KINDS; i++) {
		unsigned scale = sim_random(4); /* 0, 1, 2, 4 of it, the necessary ones at least once */

		weights[i] = kinds[i].weight * (scale == 3 ? 4 : scale);
		if (kinds[i].fault)
			weights[i] = weights[i] * faults / 2;
		else if (!weights[i])
			weights[i] = (kinds[i].weight + 3) / 4;
		total += weights[i];
	}
	read_failures = sim_chance(20) ? 20 : 0;
	return total;
}

static void take_step(const unsigned *weights, unsigned total)
{
	unsigned at = sim_random(total);
	size_t kind = 0;

	while (at >= weights[kind])
		at -= weights[kind++];
	if ((kinds[kind].needs & NEEDS_PLUGIN) && !plugin_is_up())
		return;
	if ((kinds[kind].needs & NEEDS_OFFLINE) && !offline_is_up())
		return;
	COUNT(steps);
	kinds[kind].fn();
	aftermath();
}

static void start_all(void)
{
	for (int i = 0; i < 20 && !plugin_is_up(); i++)
		plugin_start();
	if (!seqgen_is_up())
		seqgen_start();
	if (!offline_is_up())
		offline_start();
	offline_connect();
	aftermath();
}

/* Everything that can be done without time passing. True: something was. */
static bool work(void)
{
	bool some = false;

	if (!plugin_is_up())
		return false; /* what keeps it down is said: it does not come to rest */
	plugin_turn();
	plugin_thread();
	for (; bus_waiting(BUS_TO_PLUGIN); some = true)
		plugin_hear();
	plugin_turn();
	for (; offline_on_bus() && bus_waiting(BUS_TO_OFFLINE); some = true)
		offline_hear();
	for (; bus_waiting(BUS_TO_SEQGEN); some = true)
		seqgen_hear();
	for (; offline_on_bus() && bus_waiting(BUS_FROM_SEQGEN); some = true)
		offline_hear_lease();
	for (; store_waiting(); some = true)
		store_complete(1);
	for (; store_reading(); some = true)
		store_answer_read(false);
	loop_turn();
	clients_read_all();
	clients_ack_all();
	aftermath();
	return some;
}

/* No more faults; everybody comes back; time passes until nothing is left to do. */
static void heal(void)
{
	unsigned quiet = 0, rounds = 0;

	step = 100000;
	sim_trace("---- everything is healed");
	disk_heal();
	seqgen_fail_saves(0);
	store_is_full = false;
	start_all();
	clients_return();
	for (; quiet < 3; rounds++) {
		step++;
		if (rounds == ROUNDS_MOST)
			sim_fail("it does not come to rest");
		start_all();
		for (unsigned i = 0; i < 50 && work(); i++)
			;
		quiet = offline_quiet() && plugin_quiet() && clients_quiet() ? quiet + 1 : 0;
		loop_pass(rounds % 4 == 3 ? 40000 : 1000);
		if (rounds == 5)
			clients_return(); /* whoever was thrown out on the way */
	}
	check_end();
}

static void schedule(uint64_t of)
{
	unsigned weights[KINDS], total, steps;

	seed = state = of;
	(void)sim_random64();
	step = 0;
	draw_limits();
	total = draw_weights(weights);
	steps = STEPS_LEAST + sim_random(STEPS_MOST - STEPS_LEAST);
	loop_begin();
	check_begin();
	store_begin();
	seq_begin();
	plugin_begin();
	clients_begin();
	if (sim_chance(80))
		start_all();
	for (step = 1; step <= steps; step++)
		take_step(weights, total);
	heal();
	offline_kill();
	seqgen_kill();
	plugin_end();
	store_end();
	loop_end();
}

/* ---- the program */

static void print_counts(void)
{
	static const char *const names[] = {
#define X(name) #name,
		SIM_COUNTS(X)
#undef X
	};

	for (int i = 0; i < SIM_N_COUNTS; i++)
		printf("  %-26s %12llu\n", names[i], (unsigned long long)sim_counts[i]);
}

static double seconds(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void usage(void)
{
	puts("sim [--schedules N] [--seed S] [--trace]\n"
	     "  --schedules N  how many, from seed S on (default: 1 with --seed, else 1000)\n"
	     "  --seed S       the first one's (default 1)\n"
	     "  --trace        say what happens");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"schedules", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'},
		{"trace", no_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0},
	};
	uint64_t first = 1, n = 0;
	bool seed_given = false;
	double began, took;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'n': n = strtoull(optarg, NULL, 10); break;
		case 's': first = strtoull(optarg, NULL, 10); seed_given = true; break;
		case 't': sim_tracing = true; break;
		case 'h': usage(); return 0;
		default: usage(); return 2;
		}
	}
	if (!n)
		n = seed_given ? 1 : 1000;
	(void)signal(SIGABRT, on_signal);
	(void)signal(SIGSEGV, on_signal);
	loop_log();
	if (sodium_init() < 0)
		return 1;
	(void)mallopt(M_MMAP_THRESHOLD, 16 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 64 << 20);
	began = seconds();
	for (uint64_t i = 0; i < n; i++)
		schedule(first + i);
	took = seconds() - began;
	printf("sim: %llu schedules from seed %llu, all as promised; %.1f s, %.0f a second\n", (unsigned long long)n,
	       (unsigned long long)first, took, (double)n / (took > 0 ? took : 1));
	print_counts();
	return 0;
}
