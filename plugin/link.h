/*
 * The plugin's end of the bus to the message service: gathers what one turn of the loop brought into one
 * frame, sends journal slices within a window of unconfirmed bytes, keeps the roster copy, and expands
 * deliveries. The data plane: session.c, auth.c and route.c decide; this file moves bytes. docs/bus.md.
 */
#ifndef PLUGIN_LINK_H
#define PLUGIN_LINK_H

#include "base/conf.h"
#include "bus.pb-c.h"
#include "journal.h"
#include "roster/roster.h"
#include "session.h"

struct link;

#ifndef LINK_IN_FLIGHT /* tests/sim */
#define LINK_IN_FLIGHT (4u << 20)  /* journal bytes sent and not confirmed: a few turns of the service's sync at full speed */
#define LINK_SLICE (256u << 10)    /* journal bytes of one frame, unless a single record is larger */
#endif

/* roster: filled from {dir}/roster at once, kept up to date from then on; changes are appended to that file. */
enum im_status link_create(const struct im_settings *settings, struct journal *journal, struct session_table *sessions,
			   struct roster *roster, struct link **out, struct im_err *err);
void link_destroy(struct link *l);

/* The message service's connection. A new one starts from nothing; the end of one that was taken over is not reported. */
void link_service(struct link *l, const char *client_id, bool up);
bool link_is_up(const struct link *l);                             /* hello exchanged */
void link_session(struct link *l, const struct session *s);        /* new, or its filters changed */
void link_closed(struct link *l, uint64_t handle);
/* While its stored session is resumed: `len` bytes more wait for it in the broker. */
void link_resumed(struct link *l, struct session *s, size_t len);
/* False: the service is not there, or has not kept up with what it was asked; the asker is to be told. */
bool link_control(struct link *l, const struct session *asker, const void *json, size_t len);
void link_signal(struct link *l, const struct session *from, const char *conv, size_t conv_len, const void *payload, size_t len);
void link_frame(struct link *l, const void *frame, size_t len);    /* MESSAGE on $im/out: copied, worked off in tick */
void link_tick(struct link *l);
/*
 * Called after a roster item came into force (cached credentials, members gone, users disabled). After a snapshot:
 * for each item of it, and with a made-up "removed" for each user who was there before and is not in it.
 */
typedef void link_roster_fn(void *arg, const Im__Bus__RosterItem *item);
void link_on_roster(struct link *l, link_roster_fn *fn, void *arg);
/* Answers a Query: writes JSON to `out` (imctl why, sessions, status). */
typedef void link_query_fn(void *arg, const char *json, struct im_buf *out);
void link_on_query(struct link *l, link_query_fn *fn, void *arg);
struct link_stats { uint64_t backlog, in_flight, frames_in, frames_out, deliveries, expanded, stale; };
void link_stats(const struct link *l, struct link_stats *out);

#endif
