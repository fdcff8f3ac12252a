/*
 * A schedule: phases of steps, all drawn from the seed; then everything is healed, everybody comes back, and nobody
 * may have missed anything (README.md).
 *
 * The difficult point is to get far and wide at once. With faults all the time little gets through, so calm phases, in
 * which everything is up, take turns with storms. With all kinds of steps all the time one undoes what another builds
 * up, so each phase draws how often each kind comes, and some do not come at all. A step that would find nothing to do
 * is drawn again.
 */
#include "sim.h"

#include "base/conf.h"

#include <string.h>

#define STEPS_LEAST 60u
#define STEPS_MOST 260u
#define PHASE_LEAST 10u
#define PHASE_MOST 70u
#define REST_MOST 16u    /* rounds in which everything is done at once */
#define DRAWS_MOST 64u   /* until a step is found that has something to do */
#define PIECE_MS 2500    /* of time that passes while everybody runs: less than what counts as a standstill */
#define ROUNDS_MOST 900u /* until all is quiet at the end: windows and budgets of three messages take their time */

struct im_settings sim_settings;
struct sim_limits sim_limits;
bool sim_healing;

static bool power_mode;
static enum { COPY_NONE, COPY_STORE, COPY_SEQGEN } copies; /* which of the two may be an older copy; both is nobody's promise */

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

/* What the broker and the service tell each other while both run. False: the service waits for nothing. */
static bool both_speak(void)
{
	bool waits = bus_waiting(BUS_TO_PLUGIN) != 0;

	if (!plugin_is_up() || !offline_on_bus())
		return false;
	plugin_tell_over();
	while (bus_waiting(BUS_TO_PLUGIN))
		plugin_hear();
	plugin_turn();
	while (offline_on_bus() && bus_waiting(BUS_TO_OFFLINE))
		offline_hear();
	return waits;
}

/* Time passes, and nobody stands still: the two speak, and clients read, which is all they must do once in a settle period. */
static void pass(int64_t ms)
{
	for (; ms > PIECE_MS; ms -= PIECE_MS) {
		loop_pass(PIECE_MS);
		clients_read_all();
		if (!both_speak())
			break; /* the rest at once */
	}
	loop_pass(ms);
	(void)both_speak();
	clients_read_all();
}

/*
 * The service stands still, or both do: it wakes to its timers, and hears the bus later. Clients may be lost while they
 * do; what such a one said last the broker hears when it wakes, and takes it for alive.
 */
static void stand_still(int64_t ms)
{
	COUNT(standstills);
	for (unsigned n = sim_random(3); n > 0; n--)
		clients_vanish(ms);
	loop_pass(ms);
}

static void step_vanish(void)
{
	clients_vanish(0);
}

static void step_clock(void)
{
	static const int64_t far[] = {400, 1100, 5000, 12000, 31000, 96000, 310000, 3700000, 25 * 3600000ll};
	unsigned way = sim_random(40);
	bool still;

	if (way < 24) {
		loop_pass(sim_random(200));
		return;
	}
	COUNT(clock_jumps);
	way = sim_random(way < 38 ? 5 : sizeof(far) / sizeof(far[0]));
	if (far[way] > 24 * 3600000ll)
		COUNT(days);
	still = sim_chance(30);
	sim_trace("%lld ms pass%s", (long long)far[way], still ? " in a standstill" : "");
	if (still)
		stand_still(far[way]);
	else
		pass(far[way]);
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
		disk_fail(1 + sim_random(disk_is_bad ? 35 : 30));
	else
		disk_fail(0);
}

static void step_break_store(void)
{
	if (offline_is_up() && !offline_wants_end())
		store_break();
}

/* imctl restore: nothing runs, and the journal stays. */
static void step_roll_back(void)
{
	if (copies != COPY_STORE)
		return;
	offline_kill();
	seqgen_kill();
	plugin_kill(false);
	plugin_start();
	if (!plugin_is_up())
		return; /* nor is a journal looked into that does not open */
	store_roll_back();
	plugin_each_epoch(store_raise_mark);
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

static void step_rest(void);

/* ---- whether there is something to do */

static bool can_hear(void)
{
	return offline_on_bus() && bus_waiting(BUS_TO_OFFLINE);
}

static bool can_be_heard(void)
{
	return bus_waiting(BUS_TO_PLUGIN) != 0;
}

static bool can_lease(void)
{
	return bus_waiting(BUS_TO_SEQGEN) || (offline_on_bus() && bus_waiting(BUS_FROM_SEQGEN));
}

static bool can_store(void)
{
	return store_waiting() != 0;
}

static bool can_read(void)
{
	return store_reading() != 0;
}

static bool can_end_turn(void)
{
	return loop_gathers;
}

static bool can_start(void)
{
	return !plugin_is_up() || !seqgen_is_up() || !offline_on_bus();
}

enum { NEEDS_PLUGIN = 1, NEEDS_OFFLINE = 2 };
enum role {
	FLOW,   /* without which nothing moves: it always comes, more or less often */
	CLIENT,
	FAULT,  /* in storms only */
	DISK,   /* ... and much more often where the disk is bad */
};

static const struct kind {
	void (*fn)(void);
	bool (*can)(void); /* NULL: always */
	unsigned weight, needs;
	enum role role;
} kinds[] = {
	{clients_send, NULL, 30, NEEDS_PLUGIN, CLIENT},
	{clients_burst, NULL, 8, NEEDS_PLUGIN, CLIENT},
	{clients_repeat, NULL, 8, NEEDS_PLUGIN, CLIENT},
	{clients_ack, NULL, 15, NEEDS_PLUGIN, CLIENT},
	{clients_connect, NULL, 14, NEEDS_PLUGIN, CLIENT},
	{clients_subscribe, NULL, 4, NEEDS_PLUGIN, CLIENT},
	{clients_disconnect, NULL, 6, NEEDS_PLUGIN, CLIENT},
	{step_vanish, NULL, 4, NEEDS_PLUGIN, CLIENT},
	{clients_read, NULL, 20, NEEDS_PLUGIN, CLIENT},
	{clients_member, NULL, 4, NEEDS_PLUGIN, CLIENT},
	{plugin_turn, NULL, 50, NEEDS_PLUGIN, FLOW},
	{plugin_thread, NULL, 25, NEEDS_PLUGIN, FLOW},
	{step_bus_out, can_be_heard, 50, NEEDS_PLUGIN, FLOW},
	{step_bus_in, can_hear, 50, NEEDS_OFFLINE, FLOW},
	{step_sequences, can_lease, 40, 0, FLOW},
	{step_store, can_store, 50, NEEDS_OFFLINE, FLOW},
	{step_read, can_read, 50, NEEDS_OFFLINE, FLOW},
	{step_settle, NULL, 10, NEEDS_OFFLINE, FLOW},
	{step_turn, can_end_turn, 30, NEEDS_OFFLINE, FLOW},
	{step_clock, NULL, 16, 0, FLOW},
	{step_rest, NULL, 14, 0, FLOW},
	{step_start, can_start, 40, 0, FLOW},
	{step_kill_offline, NULL, 4, NEEDS_OFFLINE, FAULT},
	{step_stop_offline, NULL, 2, NEEDS_OFFLINE, FAULT},
	{offline_disconnect, offline_on_bus, 3, 0, FAULT},
	{seqgen_kill, seqgen_is_up, 3, 0, FAULT},
	{step_ghost, seqgen_is_up, 2, 0, FAULT},
	{step_seq_copy, NULL, 2, 0, FAULT},
	{step_seq_saves, NULL, 2, 0, FAULT},
	{step_kill_broker, NULL, 3, NEEDS_PLUGIN, DISK},
	{step_cut_power, NULL, 2, NEEDS_PLUGIN, DISK},
	{step_disk, NULL, 2, NEEDS_PLUGIN, DISK},
	{step_break_store, NULL, 1, NEEDS_OFFLINE, FAULT},
	{step_roll_back, NULL, 1, 0, FAULT},
	{step_full, NULL, 3, 0, FAULT},
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
	static const unsigned few[] = {1, 2, 4, 40, 40}, windows[] = {2, 3, 6, 500, 500}, silent[] = {3, 12, 200000, 200000, 200000};
	static const unsigned slices[] = {16, 200, 500, 4000}, kept[] = {4, 7, 12, 1000};

	sim_limits = (struct sim_limits){
		.page_messages = one_of(few, 5),
		.pages = 1 + sim_random(3),
		.page_bytes = sim_chance(30) ? 6 : 1000,
		.kept_bytes = one_of(kept, 4),
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
	sim_settings.ack_window = one_of(windows, 5);
	sim_settings.ack_retry_ms = 10000;
	sim_settings.ack_retries = 3;
	sim_settings.silent_messages = one_of(silent, 5);
	sim_settings.silent_bytes = 64 << 20;
	sim_settings.group_members = 100;
	sim_settings.filters = 16;
	sim_settings.max_message = 262144;
	sim_settings.expand_bytes = sim_chance(30) ? 300 : 1 << 20;
	sim_settings.read_on_send = sim_chance(50);
	disk_sync_all = sim_chance(50);
	copies = sim_random(3);
}

struct phase {
	bool calm;
	unsigned steps, total;
	unsigned weights[KINDS];
};

/* How much of a kind's weight counts in this phase. */
static unsigned draw_share(enum role role, bool calm)
{
	static const unsigned necessary[] = {1, 2, 4, 4, 8}, wanted[] = {0, 2, 4, 8}, fault[] = {0, 0, 0, 4, 8};

	switch (role) {
	case FLOW: return one_of(necessary, 5);
	case CLIENT: return one_of(wanted, 4);
	case DISK: return calm ? 0 : disk_is_bad ? 4 + sim_random(24) : one_of(fault, 5);
	default: return calm || disk_is_bad ? 0 : one_of(fault, 5);
	}
}

static void draw_phase(struct phase *p, unsigned calm_percent)
{
	p->calm = sim_chance(calm_percent);
	p->steps = PHASE_LEAST + sim_random(PHASE_MOST - PHASE_LEAST);
	p->total = 0;
	for (size_t i = 0; i < KINDS; i++) {
		p->weights[i] = kinds[i].weight * draw_share(kinds[i].role, p->calm);
		p->total += p->weights[i];
	}
	read_failures = !p->calm && sim_chance(20) ? 20 : 0;
}

static bool possible(const struct kind *k)
{
	if ((k->needs & NEEDS_PLUGIN) && !plugin_is_up())
		return false;
	if ((k->needs & NEEDS_OFFLINE) && !offline_is_up())
		return false;
	return !k->can || k->can();
}

static void take_step(const struct phase *p)
{
	for (unsigned n = 0; n < DRAWS_MOST; n++) {
		unsigned at = sim_random(p->total);
		size_t kind = 0;

		while (at >= p->weights[kind])
			at -= p->weights[kind++];
		if (!possible(&kinds[kind]))
			continue;
		COUNT(steps);
		loop_slip(sim_random(2));
		kinds[kind].fn();
		aftermath();
		return;
	}
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

static void clear_up(void)
{
	disk_heal();
	seqgen_fail_saves(0);
	store_is_full = false;
	start_all();
}

/* Everything that can be done without time passing. True: something was. */
static bool work(bool clients)
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
	aftermath(); /* a broker that has died on the way has told nobody anything */
	if (clients && plugin_is_up()) {
		clients_read_all();
		clients_ack_all();
		aftermath();
	}
	return some;
}

static void step_rest(void)
{
	bool clients = sim_chance(60);

	for (unsigned n = 1 + sim_random(REST_MOST); n > 0 && work(clients); n--)
		;
}

/* No more faults; everybody comes back; time passes until nothing is left to do. */
static void heal(void)
{
	unsigned quiet = 0, rounds = 0;

	sim_step = 100000;
	sim_healing = true;
	sim_trace("---- everything is healed");
	clear_up();
	clients_return(100);
	for (; quiet < 3; rounds++) {
		sim_step++;
		if (rounds == ROUNDS_MOST)
			sim_fail("it does not come to rest");
		start_all();
		for (unsigned i = 0; i < 50 && (work(true) || plugin_turns_again()); i++)
			;
		quiet = offline_quiet() && plugin_quiet() && clients_quiet() ? quiet + 1 : 0;
		pass(rounds % 3 == 2 ? 310000 : 1000); /* the longest settle period, and some turns */
		if (rounds == 5)
			clients_return(100); /* whoever was thrown out on the way */
	}
	check_end();
}

static void run_phase(const struct phase *p)
{
	if (p->calm)
		COUNT(calms);
	else
		COUNT(storms);
	sim_trace("---- %s, %u steps", p->calm ? "a calm" : "a storm", p->steps);
	if (p->calm) {
		clear_up();
		if (sim_chance(60))
			clients_return(40 + sim_random(61));
	}
	for (unsigned n = 0; n < p->steps; n++) {
		sim_step++;
		take_step(p);
	}
}

void schedule_run(void)
{
	static const unsigned calm[] = {0, 30, 60, 60, 90};
	unsigned calm_percent = one_of(calm, 5), steps = STEPS_LEAST + sim_random(STEPS_MOST - STEPS_LEAST);
	struct phase p;

	sim_step = 0;
	sim_healing = false;
	draw_limits();
	loop_begin();
	check_begin();
	store_begin();
	seq_begin();
	plugin_begin();
	clients_begin();
	if (sim_chance(80))
		start_all();
	if (sim_chance(60))
		clients_return(60); /* of those that may come, if there is a broker */
	while (sim_step < steps) {
		draw_phase(&p, calm_percent);
		run_phase(&p);
	}
	heal();
	offline_kill();
	seqgen_kill();
	plugin_end();
	store_end();
	loop_end();
}
