/*
 * The broker with the plugin in it: the real journal and the real end of the bus, over the disk of disk.c. The
 * broker itself is a table of connections and hands packets to clients at once.
 */
#include "disk.h"

#include "plugin/broker.h"
#include "plugin/journal_internal.h"
#include "plugin/link.h"
#include "plugin/roster_copy.h"

#include "sim.h"

#define SERVICE "$im-offline"
#define OVER 64 /* connections that were taken over or ended and are still to be told of */

extern struct im_settings sim_settings;

static struct journal *journal;
static struct link *bus_end;
static struct roster *roster;   /* as on disk: it outlives the plugin */
static struct roster *snapshot;
static bool up, ended_service;
static uint64_t handles;
static uint64_t lived_in;       /* the journal's epoch when the disk was last seen alive: what opens later opens nowhere */
static uint64_t in_doubt; /* the newest epoch that a failing disk did not take again at a start */
static struct session sessions[SIM_DEVICES];
static const char *filters[SIM_DEVICES][4];
static int64_t patience[SIM_DEVICES]; /* until then a client that was lost without a word is thought to be there; 0 = it is */
static uint64_t over[OVER];     /* `closed` comes a moment after the connection that took the client id over */
static unsigned n_over;

/* ---- the broker */

void *broker_alloc(size_t len)
{
	return malloc(len ? len : 1);
}

void broker_free(void *p)
{
	free(p);
}

bool broker_acked(const struct mosquitto *context, uint64_t *out)
{
	(void)context;
	(void)out;
	return false;
}

static bool woken;

void broker_wake(void)
{
	woken = true;
}

bool broker_send(const char *client_id, const char *topic, void *payload, size_t len, int qos, const Im__Bus__Properties *props)
{
	(void)qos;
	(void)props;
	if (strcmp(client_id, SERVICE) == 0) {
		if (!disk_is_dead())
			bus_put(BUS_TO_OFFLINE, payload, len);
	} else {
		client_packet(client_id, topic, payload, len);
	}
	free(payload);
	return true;
}

void broker_kick(const char *client_id, bool with_will)
{
	(void)with_will;
	if (strcmp(client_id, SERVICE) != 0)
		return;
	plugin_link_service(bus_end, client_id, false); /* DISCONNECT comes inside the kick */
	ended_service = true;
}

bool plugin_ended_service(void)
{
	bool was = ended_service;

	ended_service = false;
	return was;
}

/* ---- sessions */

struct session *session_by_handle(struct session_table *t, uint64_t handle)
{
	(void)t;
	for (unsigned i = 0; i < SIM_DEVICES; i++)
		if (handle && sessions[i].handle == handle)
			return &sessions[i];
	return NULL;
}

void session_each(struct session_table *t, session_fn *fn, void *arg)
{
	(void)t;
	for (unsigned i = 0; i < SIM_DEVICES; i++)
		if (sessions[i].handle)
			fn(arg, &sessions[i]);
}

void session_describe(const struct session *s, Im__Bus__Session *out, Im__Bus__Filter *list, Im__Bus__Filter **array)
{
	unsigned device = (unsigned)(s - sessions);

	out->handle = s->handle;
	out->user = (char *)(uintptr_t)s->user;
	out->client_id = (char *)(uintptr_t)s->client_id;
	out->protocol = s->protocol;
	out->keepalive_s = s->keepalive_s;
	out->address = (char *)(uintptr_t)"";
	out->since_ms = s->since_ms;
	out->codec = s->n_filters ? IM__BUS__CODEC__CODEC_JSON : IM__BUS__CODEC__CODEC_NONE;
	for (unsigned i = 0; i < s->n_filters; i++) {
		im__bus__filter__init(&list[i]);
		list[i].filter = (char *)(uintptr_t)filters[device][i];
		list[i].qos = 1;
		array[i] = &list[i];
	}
	out->filters = array;
	out->n_filters = s->n_filters;
}

void session_kick(struct session_table *t, struct session *s, const char *reason)
{
	(void)t;
	sim_fail("the service kicks %s: %s", s->client_id, reason);
}

static void tell_over(unsigned at)
{
	uint64_t handle = over[at];

	over[at] = over[--n_over];
	plugin_link_closed(bus_end, handle);
}

void plugin_tell_over(void)
{
	while (n_over)
		tell_over(0);
}

void plugin_lost(unsigned device, int64_t heard_ms)
{
	const struct session *s = &sessions[device];

	if (s->handle && s->keepalive_s)
		patience[device] = heard_ms + s->keepalive_s * 1500;
}

/* The broker looks at its clients' keepalives once a turn, before it reads anything. */
static void end_silent(void)
{
	for (unsigned i = 0; i < SIM_DEVICES; i++) {
		if (!sessions[i].handle || !patience[i] || patience[i] > fake_now_ms)
			continue;
		sim_trace("%s has exceeded its keepalive", sessions[i].client_id);
		plugin_disconnect(sessions[i].handle);
	}
}

uint64_t plugin_connect(unsigned device, const char *user, const char *client_id, unsigned keepalive_s)
{
	struct session *s = &sessions[device];

	if (n_over == OVER)
		tell_over(0);
	if (s->handle)
		over[n_over++] = s->handle;
	patience[device] = 0;
	*s = (struct session){.handle = (journal_epoch(journal) << 32) + ++handles, .user = user, .client_id = client_id, .protocol = 4,
			      .keepalive_s = keepalive_s, .since_ms = sim_wall_ms};
	plugin_link_session(bus_end, s);
	return s->handle;
}

void plugin_subscribe(unsigned device, const char *const *list, unsigned n)
{
	struct session *s = &sessions[device];

	for (unsigned i = 0; i < n; i++)
		filters[device][i] = list[i];
	s->n_filters = n;
	plugin_link_session(bus_end, s);
}

void plugin_disconnect(uint64_t handle)
{
	struct session *s = session_by_handle(NULL, handle);

	if (s)
		s->handle = 0;
	plugin_link_closed(bus_end, handle);
}

/* ---- the roster's copy (roster_copy.c, without its file) */

enum im_status roster_copy_open(const char *dir, struct roster *r, struct roster_copy **out, struct im_err *err)
{
	(void)dir;
	(void)r;
	(void)err;
	*out = NULL;
	return IM_OK;
}

void roster_copy_drop_snapshot(struct roster_copy *c)
{
	(void)c;
	roster_destroy(snapshot);
	snapshot = NULL;
}

void roster_copy_close(struct roster_copy *c)
{
	roster_copy_drop_snapshot(c);
}

void roster_copy_on_change(struct roster_copy *c, roster_copy_fn *fn, void *arg)
{
	(void)c;
	(void)fn;
	(void)arg;
}

void roster_copy_from(struct roster_copy *c, const char *store)
{
	(void)c;
	(void)store; /* there is one */
}

uint64_t roster_copy_version(const struct roster_copy *c)
{
	(void)c;
	return roster_version(roster);
}

const char *roster_copy_apply(struct roster_copy *c, const Im__Bus__Roster *r)
{
	(void)c;
	if (disk_is_dead())
		return NULL;
	if (r->begin) {
		roster_copy_drop_snapshot(c);
		snapshot = roster_create();
	}
	for (size_t i = 0; i < r->n_items; i++)
		if (roster_apply(snapshot ? snapshot : roster, r->items[i]) == IM_BAD_INPUT)
			sim_fail("a roster item that cannot be");
	if (r->end && snapshot) {
		roster_swap(snapshot, roster);
		roster_copy_drop_snapshot(c);
	}
	return NULL;
}

void roster_copy_tick(struct roster_copy *c)
{
	(void)c;
}

bool plugin_roster_has(const char *group, const char *user)
{
	return roster_is_member(roster, group, user);
}

/* ---- the process */

void plugin_begin(void)
{
	roster = roster_create();
	handles = in_doubt = 0;
	up = false;
	disk_begin();
}

void plugin_end(void)
{
	if (up)
		plugin_kill(false);
	roster_destroy(roster);
	disk_end();
}

void plugin_start(void)
{
	struct journal_options o = {
		.dir = "/sim/journal",
		.limit = 1 << 20,
		.segment_cap = 640 + sim_random(1500),
		.durability = disk_sync_all ? IM_DURABILITY_DISK : IM_DURABILITY_PROCESS,
		.fs = &journal_fs_real,
		.start_grace_ms = sim_chance(50) ? 0 : JOURNAL_START_GRACE_MS,
	};
	struct im_err err;

	if (journal_open_with(&o, &journal, &err) != IM_OK) {
		sim_trace("the journal does not open: %s", err.text); /* the supervisor tries again */
		return;
	}
	if (plugin_link_create(&sim_settings, journal, NULL, roster, &bus_end, &err) != IM_OK)
		sim_fail("the plugin's link does not start: %s", err.text);
	COUNT(journal_epochs);
	lived_in = journal_epoch(journal);
	for (const struct segment *s = journal->first; s != journal->current; s = s->next)
		if (s->suspect)
			in_doubt = s->epoch;
	if (disk_forgot())
		clients_lost(UINT64_MAX, in_doubt); /* nobody has it in memory yet when a start finds the disk failing */
	memset(sessions, 0, sizeof(sessions));
	memset(patience, 0, sizeof(patience));
	n_over = 0;
	ended_service = false;
	up = true;
}

bool plugin_is_up(void)
{
	return up;
}

/*
 * What was accepted in an epoch before the current one is on the disk, however often it failed since: that is what a
 * new epoch says. A kernel that drops what it could not write takes it from a process that is killed then.
 */
static void lose(bool power, uint64_t epoch, bool forgot)
{
	if (!disk_sync_all && ((power && disk_lost_accepted()) || forgot))
		clients_lost(epoch, in_doubt);
}

void plugin_kill(bool power)
{
	bool forgot = disk_forgot();

	if (!up)
		return;
	if (power)
		COUNT(power_cuts);
	else
		COUNT(broker_kills);
	sim_trace(power ? "all power is gone" : "the broker is killed");
	disk_die_after(0);
	up = false;
	clients_all_gone(lived_in);
	plugin_link_destroy(bus_end);
	journal_close(journal);
	disk_revive(power);
	lose(power, lived_in, forgot);
}

static void note_epoch(void)
{
	if (!disk_is_dead())
		lived_in = journal_epoch(journal);
}

void plugin_turn(void)
{
	uint64_t epoch = journal_epoch(journal);
	bool rescued = journal->rescue == RESCUE_DONE;

	end_silent();
	if (n_over && sim_chance(50))
		tell_over(sim_random(n_over));
	woken = false;
	journal_tick(journal);
	plugin_link_tick(bus_end);
	note_epoch();
	if (journal_epoch(journal) == epoch)
		return;
	COUNT(journal_epochs);
	if (rescued)
		COUNT(rescues);
}

bool plugin_turns_again(void)
{
	return up && woken;
}

uint64_t plugin_epoch(void)
{
	return journal_epoch(journal);
}

void plugin_thread(void)
{
	thread_run();
}

void plugin_service(bool is_up)
{
	if (up)
		plugin_link_service(bus_end, SERVICE, is_up);
}

void plugin_hear(void)
{
	size_t len;
	void *data = bus_take(BUS_TO_PLUGIN, &len);

	if (data && up)
		plugin_link_frame(bus_end, data, len);
	free(data);
}

/* What route.c does at the end of its way. */
bool plugin_accept(const void *record, size_t len, bool *died, uint64_t *failed_in)
{
	const struct segment *before = journal->current;
	enum im_status st = journal_append(journal, record, len);

	*failed_in = st == IM_FAILED ? journal_epoch(journal) : 0; /* it may have turned to a new one just now */
	*died = disk_is_dead();
	note_epoch();
	if (journal->current != before && journal->current->epoch == before->epoch)
		COUNT(journal_segments);
	if (st != IM_OK) {
		COUNT(refused_by_journal);
		sim_trace("the journal refuses: %s", journal_why(journal));
	}
	return st == IM_OK && !*died;
}

void plugin_control(const char *json)
{
	static const struct session imctl = {.service = true, .client_id = "$im-ctl-1", .user = "$im"};

	(void)plugin_link_control(bus_end, &imctl, json, strlen(json));
}

void plugin_each_epoch(void (*fn)(uint64_t epoch, uint64_t begins))
{
	const struct segment *before = NULL;

	for (const struct segment *s = journal->first; s; before = s, s = s->next)
		if (!before || before->epoch != s->epoch)
			fn(s->epoch, s->start);
}

bool plugin_quiet(void)
{
	struct link_stats stats;

	if (!up)
		return false;
	plugin_link_stats(bus_end, &stats);
	return plugin_link_is_up(bus_end) && stats.backlog == 0 && stats.in_flight == 0 && n_over == 0;
}
