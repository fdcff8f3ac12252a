/*
 * The message service's end of the bus to the plugin: frames out, credit, hello. Parts of one turn of the
 * loop are gathered into one frame. What is not delivered because the connection fell is not repeated
 * here: sessions and cursors decide that (delivery.h).
 */
#ifndef OFFLINE_LINK_H
#define OFFLINE_LINK_H

#include "base/buf.h"
#include "base/status.h"
#include "bus.pb-c.h"
#include "io/loop.h"
#include "io/mqtt.h"
#include "message.h"
#include "roster/roster.h"

struct link;

struct link_events {
	void (*reset)(void *arg);       /* the plugin is gone, or new: nobody is connected until named again */
	void (*slice)(void *arg, const Im__Bus__Slice *s);
	void (*session)(void *arg, const Im__Bus__Session *s);
	void (*closed)(void *arg, uint64_t handle);
	void (*complete)(void *arg);    /* all present sessions have been named */
	void (*control)(void *arg, const Im__Bus__Control *c);
	void (*signal)(void *arg, const Im__Bus__Signal *s);
	void (*drained)(void *arg);     /* link_pending fell below LINK_WINDOW, or below LINK_CATCHUP, again */
	void (*failed)(void *arg, const char *why); /* what cannot be repaired on this connection: the process must end */
};

/* What the plugin is told at hello: fills at most `cap` marks of this node, returns how many there are. */
typedef size_t link_marks_fn(void *arg, uint32_t node, struct position *marks, size_t cap);

/* Events come from link_message. `roster` and what `marks` reads must outlive the link. */
enum im_status link_create(struct im_loop *loop, unsigned node, const struct roster *roster, const char *store_epoch,
			   const struct link_events *events, link_marks_fn *marks, void *arg, struct link **out, struct im_err *err);
void link_destroy(struct link *l); /* answers what waits with IM_BUSY */
void link_bus(struct link *l, struct im_mqtt *bus); /* up: says hello; NULL: down */
/* A payload of $im/in. IM_BAD_INPUT: not a frame, or one that breaks the order: the caller ends the connection. */
enum im_status link_message(struct link *l, const void *payload, size_t len);
void link_confirm(struct link *l, uint64_t epoch, uint64_t next);
void link_flush(struct link *l);        /* end of a turn: what was gathered leaves */
bool link_has_plugin(const struct link *l); /* hello exchanged */

/*
 * One packet for these sessions (handles; qos1 and qos0 lists). Everything is copied.
 * props may be NULL; its strings are copied too.
 */
void link_deliver(struct link *l, const char *topic, size_t topic_len, const void *payload, size_t len,
		  const Im__Bus__Properties *props, const uint64_t *qos1, size_t n_qos1, const uint64_t *qos0, size_t n_qos0);
/* What was given and not yet expanded by the plugin, in bytes: whatever is given now stands behind it. */
size_t link_pending(const struct link *l);
/*
 * The loop's time at which the plugin, or this process, was last seen to have stood still: something given here waited
 * longer than it should, or no answer was read for too long; 0 = never. What was given before that moment counts as
 * having reached its client at that moment.
 */
int64_t link_late_ms(struct link *l);
/* Whoever was connected then and has not been told of as closed was still up then (the loop's time; 0: nothing is known). */
int64_t link_proven_ms(const struct link *l);
/* Somebody will ask the above about this moment of the future: from here on the plugin shows every second that it lives. */
void link_prove(struct link *l, int64_t at_ms);
#ifndef LINK_WINDOW /* tests/sim */
#define LINK_WINDOW (8u << 20)       /* of frames at the plugin; several turns of the broker's loop */
#define LINK_CATCHUP (12u << 10)     /* above it nothing is read for catch-up: what is live must not stand behind others' history */
#endif

void link_kick(struct link *l, uint64_t session, const char *reason);
/* A roster change that is durable: goes to the plugin; `done` when the plugin has it in force (IM_OK) or there is no plugin for 5 s (IM_BUSY). */
typedef void link_done_fn(void *arg, enum im_status st);
void link_roster(struct link *l, const Im__Bus__RosterItem *const *items, size_t n, link_done_fn *done, void *arg);
/* Asks the plugin something (JSON in and out, docs/bus.md). answer NULL: no plugin, or no answer within 5 s. */
typedef void link_answer_fn(void *arg, const char *answer);
void link_query(struct link *l, const char *json, link_answer_fn *done, void *arg);

#endif
