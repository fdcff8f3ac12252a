/* The sequence generator: its own main.c and state machine over a database in memory. */
#include "limits.h"

#define main seqgen_main
int seqgen_main(int argc, char **argv);
#include "../../services/seqgen/main.c"
#undef main

#include "sim.h"

static struct seq_section disk[IM_SECTIONS], copy[IM_SECTIONS];
static bool have_copy;
static unsigned save_fails;
static const struct service_spec *spec;
static struct service service;
static bool up;

/* Sequences that other owners were allowed to give: nobody of ours may. */
static struct {
	uint32_t section;
	uint64_t from, to;
} ghosts[64];
static unsigned n_ghosts;

const struct service_spec *sim_service_spec(int (*main_fn)(int, char **));
void *sim_bus_of_seqgen(void);
void check_not_ghosts(uint32_t section, uint64_t seq, const char *conv);

/* ---- the database */

static enum im_status db_open(const char *path, void **out, struct im_err *err)
{
	(void)path;
	(void)err;
	*out = disk;
	return IM_OK;
}

static enum im_status db_load(void *db, struct seq_section *sections, struct im_err *err)
{
	(void)db;
	(void)err;
	memcpy(sections, disk, sizeof(disk));
	return IM_OK;
}

static enum im_status db_save(void *db, const struct seq_row *rows, size_t n, struct im_err *err)
{
	bool fails = sim_chance(save_fails);

	(void)db;
	if (fails)
		COUNT(seqgen_saves_failed);
	if (fails && sim_chance(50))
		return im_fail(err, IM_FAILED, "nothing was written");
	for (size_t i = 0; i < n; i++) {
		if (disk[rows[i].section].epoch == rows[i].state.epoch)
			COUNT(lease_renewals);
		else
			COUNT(leases);
		disk[rows[i].section] = rows[i].state;
	}
	return fails ? im_fail(err, IM_FAILED, "it was written, and nobody was told") : IM_OK;
}

static void db_close(void *db)
{
	(void)db;
}

const struct seq_driver seq_sqlite = {.name = "sqlite", .open = db_open, .load = db_load, .save = db_save, .close = db_close};
const struct seq_driver seq_memory = {.name = "memory", .open = db_open, .load = db_load, .save = db_save, .close = db_close};

/* ---- the process */

void seq_begin(void)
{
	memset(disk, 0, sizeof(disk));
	have_copy = up = false;
	save_fails = n_ghosts = 0;
	spec = sim_service_spec(seqgen_main);
}

void seqgen_start(void)
{
	struct im_err err;

	memset(&service, 0, sizeof(service));
	service.settings.sequences = (char *)(uintptr_t)"sqlite:memory";
	service.bus = sim_bus_of_seqgen();
	if (spec->start(&service, &err) != IM_OK)
		sim_fail("seqgen does not start: %s", err.text);
	up = true;
}

bool seqgen_is_up(void)
{
	return up;
}

void seqgen_kill(void)
{
	if (!up)
		return;
	COUNT(seqgen_crashes);
	sim_trace("seqgen is killed");
	spec->stop(&service);
	up = false;
	bus_drop(BUS_TO_SEQGEN);
	if (sim_chance(50))
		bus_drop(BUS_FROM_SEQGEN);
}

void seqgen_hear(void)
{
	size_t len;
	void *data = bus_take(BUS_TO_SEQGEN, &len);

	if (data && up && !sim_chance(10))
		spec->message(&service, "$im/seq", data, len);
	else if (data)
		COUNT(lease_messages_lost);
	free(data);
}

void seqgen_fail_saves(unsigned percent)
{
	save_fails = percent;
}

void seqgen_keep_copy(void)
{
	memcpy(copy, disk, sizeof(disk));
	have_copy = true;
}

/*
 * An older copy of the database. It knows nothing of what was granted since; that is made good by the service's
 * store, which tells the epochs it has (seqgen.c, acquire), unless others have been granted sections meanwhile.
 */
void seqgen_put_copy_back(void)
{
	if (!have_copy)
		return;
	seqgen_kill();
	memcpy(disk, copy, sizeof(disk));
	COUNT(seqgen_rolled_back);
	sim_trace("seqgen's database is an older copy");
}

/* ---- another owner */

void seqgen_ghost(void)
{
	char owner[64];
	struct seq_lease asked = {.section = sim_random(IM_SECTIONS)}, granted;
	struct im_err err;
	size_t n;

	if (!up || n_ghosts == 64)
		return;
	(void)snprintf(owner, sizeof(owner), "$im-other:%u", sim_random(1000000));
	asked.epoch = sim_chance(50) ? 0 : disk[asked.section].epoch ? sim_random((unsigned)disk[asked.section].epoch) : 0;
	if (seqgen_lease(service.state, owner, &asked, 1, &granted, &n, &err) != IM_OK || n != 1)
		return;
	COUNT(ghost_owners);
	sim_trace("%s leases section %u, epoch %llu, %llu to %llu", owner, granted.section, (unsigned long long)granted.epoch,
		  (unsigned long long)granted.floor + 1, (unsigned long long)granted.ceiling);
	/* One that says so in our store would put its messages there too: its sequences are seen. */
	if (sim_chance(30) && store_fence(granted.section, granted.epoch))
		return;
	ghosts[n_ghosts].section = granted.section;
	ghosts[n_ghosts].from = granted.floor + 1;
	ghosts[n_ghosts].to = granted.ceiling;
	n_ghosts++;
}

void check_not_ghosts(uint32_t section, uint64_t seq, const char *conv)
{
	for (unsigned i = 0; i < n_ghosts; i++)
		if (ghosts[i].section == section && seq >= ghosts[i].from && seq <= ghosts[i].to)
			sim_fail("%s: sequence %llu was another owner's to give", conv, (unsigned long long)seq);
}
