/*
 * The message service's end of the bus to the plugin: frames out, credit, hello. Parts of one turn of the
 * loop are gathered into one frame. What is not delivered because the connection fell is not repeated
 * here: sessions and cursors decide that (delivery.h).
 */
#ifndef OFFLINE_LINK_H
#define OFFLINE_LINK_H

#include "base/buf.h"
#include "bus.pb-c.h"

struct link;

/*
 * One packet for these sessions (handles; qos1 and qos0 lists). Everything is copied.
 * props may be NULL; its strings are copied too.
 */
void link_deliver(struct link *l, const char *topic, size_t topic_len, const void *payload, size_t len,
		  const Im__Bus__Properties *props, const uint64_t *qos1, size_t n_qos1, const uint64_t *qos0, size_t n_qos0);
/* Bytes given and not yet expanded by the plugin. Catch-up pauses above LINK_WINDOW; live delivery goes on. */
size_t link_pending(const struct link *l);
#define LINK_WINDOW (8u << 20) /* twice what the plugin expands in one turn of the broker's loop */

void link_kick(struct link *l, uint64_t session, const char *reason);
/* A roster change that is durable: goes to the plugin; `done` when the plugin has it in force (IM_OK) or there is no plugin for 5 s (IM_BUSY). */
typedef void link_done_fn(void *arg, enum im_status st);
void link_roster(struct link *l, const Im__Bus__RosterItem *const *items, size_t n, link_done_fn *done, void *arg);
/* Asks the plugin something (JSON in and out, docs/bus.md). answer NULL: no plugin, or no answer within 5 s. */
typedef void link_answer_fn(void *arg, const char *answer);
void link_query(struct link *l, const char *json, link_answer_fn *done, void *arg);

#endif
