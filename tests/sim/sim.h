/*
 * The deterministic simulation: the plugin's journal and link, the message service and the sequence generator,
 * as they are, in one process and one thread (README.md). Time, order, faults and randomness come from here.
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include "limits.h"

#include "../unit/fake_timers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- chance: everything undecided is decided here (sim.c) */
uint64_t sim_random64(void);
unsigned sim_random(unsigned n);      /* 0..n-1 */
bool sim_chance(unsigned percent);

extern unsigned sim_step;             /* of the schedule */
extern bool sim_healing;              /* its steps are over */
extern bool sim_tracing;
void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- what a run has met: printed at its end, so that one sees that it met it */
#define SIM_COUNTS(X)    \
	X(steps) X(calms) X(storms) X(accepted) X(bursts) X(refused_by_journal) X(repeats) X(id_reused) X(stored) X(refusals)    \
	X(dup_answers) X(acks_handed) X(deliveries) X(before_heal) X(told_live) X(repeated_deliveries) X(connects)    \
	X(takeovers) X(disconnects) X(vanished) X(vanished_unread) X(new_devices) X(forgotten_devices) X(client_acks) X(bad_acks) X(cursors_moved) X(joins)    \
	X(leaves) X(catchups) X(pages) X(waits_for_room) X(service_crashes) X(service_stops) X(appends_lost)    \
	X(appends_kept) X(service_restarts_itself) X(bus_falls) X(seqgen_crashes) X(seqgen_saves_failed)    \
	X(lease_messages_lost) X(leases) X(lease_renewals) X(ghost_owners) X(fenced) X(redecided) X(store_failures) X(reads_failed) X(store_rolled_back) X(seqgen_rolled_back) X(broker_kills)    \
	X(power_cuts) X(torn_tails) X(forgotten_writes) X(rescues) X(journal_epochs) X(journal_segments) X(segments_reused) X(disk_errors) X(clock_jumps) X(standstills) X(settled) X(days)

enum sim_count {
#define X(name) COUNT_##name,
	SIM_COUNTS(X)
#undef X
	SIM_N_COUNTS
};
extern uint64_t sim_counts[SIM_N_COUNTS];
#define COUNT(name) (sim_counts[COUNT_##name]++)

/* ---- time, timers (monotonic: fake_now_ms), the bus (loop.c) */
extern int64_t sim_wall_ms;           /* what people's clocks say */
void loop_log(void);                  /* the log's lines become part of the trace */
void loop_begin(void);
void loop_end(void);                  /* nothing may be left */
void loop_pass(int64_t ms);           /* timers that fall due fire once, as libuv's do */
void loop_slip(int64_t ms);           /* clocks go on, and nobody looks at them yet */
void loop_turn(void);                 /* the end of a turn of the service's loop */
extern bool loop_gathers;             /* something was done since the last turn's end */

enum bus_queue { BUS_TO_PLUGIN, BUS_TO_OFFLINE, BUS_TO_SEQGEN, BUS_FROM_SEQGEN, BUS_QUEUES };
void bus_put(enum bus_queue q, const void *data, size_t len);
void *bus_take(enum bus_queue q, size_t *len); /* the caller frees it; NULL: empty */
size_t bus_waiting(enum bus_queue q);
void bus_drop(enum bus_queue q);

/* ---- the message service (offline.c) */
void offline_start(void);
bool offline_is_up(void);             /* the process runs */
bool offline_on_bus(void);
bool offline_wants_end(void);         /* it said so itself: service_fail */
void offline_kill(void);
void offline_finish(void);            /* as SIGTERM does */
void offline_connect(void);
void offline_disconnect(void);        /* the bus falls */
void offline_hear(void);              /* one frame of the plugin */
void offline_hear_lease(void);        /* one answer of seqgen */
void offline_inspect(void);           /* what must hold at any time inside */
bool offline_is_live(uint64_t handle);
bool offline_quiet(void);             /* nothing under way; all sessions live */
bool offline_may_see(const char *group, const char *user, uint64_t seq);
uint64_t offline_roster_version(void);
uint32_t offline_section(const char *conv);

/* ---- the store (store.c) */
void store_begin(void);
void store_end(void);
size_t store_waiting(void);           /* appends held back */
size_t store_reading(void);
void store_complete(size_t n);        /* n appends are durable */
void store_answer_read(bool fail);
void store_settle_one(void);
void store_break(void);               /* the log cannot be written any more */
void store_roll_back(void);           /* an older copy is put in its place; the service must be down */
void store_raise_mark(uint64_t epoch, uint64_t begins); /* ... and the journal's epoch begins there only */
bool store_fence(uint32_t section, uint64_t epoch); /* somebody else's append: a new epoch of the section */
extern bool store_is_full;

/* ---- seqgen (seqgen.c) */
void seq_begin(void);
void seqgen_start(void);
void seqgen_kill(void);
bool seqgen_is_up(void);
void seqgen_hear(void);
void seqgen_fail_saves(unsigned percent);
void seqgen_keep_copy(void);
void seqgen_put_copy_back(void);
void seqgen_ghost(void);              /* another owner leases a section */

/* ---- the broker with the plugin (plugin.c) */
struct sim_client;
void plugin_begin(void);
void plugin_end(void);
void plugin_start(void);
bool plugin_is_up(void);
void plugin_kill(bool power);         /* kill -9; or all power is gone, and the disk keeps what was synced */
void plugin_turn(void);
void plugin_thread(void);             /* the journal's thread gets to run */
void plugin_service(bool up);
void plugin_hear(void);               /* one frame of the service */
bool plugin_ended_service(void);      /* it has ended the service's connection; asked once */
bool plugin_accept(const void *record, size_t len, bool *died, uint64_t *failed_in); /* true: PUBACK */
uint64_t plugin_epoch(void);          /* of its journal */
void plugin_control(const char *json);
uint64_t plugin_connect(unsigned device, const char *user, const char *client_id, unsigned keepalive_s);
void plugin_subscribe(unsigned device, const char *const *filters, unsigned n);
void plugin_disconnect(uint64_t handle);
/* Its client is lost without a word; what the broker heard of it last is of that moment. Only with a keepalive is it ever noticed. */
void plugin_lost(unsigned device, int64_t heard_ms);
void plugin_tell_over(void);          /* of all that were taken over */
bool plugin_roster_has(const char *group, const char *user);
void plugin_each_epoch(void (*fn)(uint64_t epoch, uint64_t begins)); /* what is left of the journal; it must be up */
bool plugin_turns_again(void);        /* at once: it has not worked off what it was told */
bool plugin_quiet(void);

/* ---- the disk (disk.c) */
extern bool disk_sync_all;            /* durability `disk` */
extern bool disk_is_bad;              /* it fails more often than not, and little else goes wrong */
void disk_begin(void);
void disk_end(void);
void disk_revive(bool power);         /* after a death: what is there now */
void disk_die_after(unsigned ops);    /* the machine goes in the middle of something; 0: now */
bool disk_is_dead(void);
void disk_fail(unsigned percent);     /* writes and syncs */
void disk_heal(void);
void thread_run(void);
bool disk_lost_accepted(void);        /* the last power cut took bytes that were not synced */
bool disk_forgot(void);               /* since the process began the cache has lost what a failed sync left */

/* ---- clients and rules (clients.c, check.c) */
#define SIM_DEVICES 7u
#define SIM_CONVS 5u
#define SIM_MESSAGES 384u

void clients_begin(void);
void clients_send(void);
void clients_burst(void);
void clients_repeat(void);
void clients_ack(void);
void clients_ack_all(void);           /* all that was read and not acked yet */
void clients_connect(void);
void clients_disconnect(void);
void clients_vanish(int64_t heard_in_ms); /* one loses its network; its last words reach the broker so much later */
void clients_subscribe(void);
void clients_read(void);
void clients_read_all(void);
void clients_member(void);
void clients_all_gone(uint64_t epoch); /* the broker died, in this epoch of the journal */
/* Durability `process`: what was accepted in this epoch of the journal may be gone, and what was up to that one. */
void clients_lost(uint64_t from, uint64_t up_to);
void clients_return(unsigned percent); /* so many of them come, with a full inbox */
bool clients_quiet(void);
void client_packet(const char *client_id, const char *topic, const void *payload, size_t len);

void check_turn_ended(void);          /* of the service's loop */
void check_begin(void);
void check_end(void);                 /* nobody misses anything */

/* ---- a schedule from its beginning to its end (schedule.c) */
void schedule_run(void);

#endif
