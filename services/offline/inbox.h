/*
 * From journal records to durable messages: dedupe, sequence, append, and only then acks and deliveries.
 * Records are decided strictly in journal order; at or below the high-water mark is a repeat and skipped.
 */
#ifndef OFFLINE_INBOX_H
#define OFFLINE_INBOX_H

#include "delivery.h"
#include "roster/roster.h"
#include "store.h"

struct inbox;
struct lease;
struct request;

enum im_status inbox_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			    struct delivery *delivery, struct link *link, struct lease *lease, struct inbox **out, struct im_err *err);
void inbox_destroy(struct inbox *in);

/* Requests (KIND_REQUEST) are handed on here, in journal order, after everything before them is durable. */
typedef void inbox_request_fn(void *arg, const Im__Bus__Record *r);
void inbox_on_request(struct inbox *in, inbox_request_fn *fn, void *arg);
/* Called whenever more of a journal epoch has become durable. */
typedef void inbox_durable_fn(void *arg, uint64_t epoch, uint64_t next);
void inbox_on_durable(struct inbox *in, inbox_durable_fn *fn, void *arg);

/* Copied. IM_BAD_INPUT: it does not begin where the last one ended, or holds what is no record: the connection is at fault. */
enum im_status inbox_slice(struct inbox *in, const Im__Bus__Slice *slice);
/* A store that answered anything but IM_OK: the process must end, recovery decides what is there. */
typedef void inbox_failed_fn(void *arg, const char *why);
void inbox_on_failure(struct inbox *in, inbox_failed_fn *fn, void *arg);
/* Durable marks of a node's journal epochs, newest epochs last; returns how many there are. */
size_t inbox_marks(const struct inbox *in, uint32_t node, struct position *marks, size_t cap);
bool inbox_reached(struct inbox *in, uint32_t node, uint64_t epoch, uint64_t offset); /* all of that epoch below it is durable */
void inbox_drain(struct inbox *in); /* takes and decides nothing more; what is with the store is still told */
void inbox_stop(struct inbox *in); /* takes nothing more and tells nobody of what the store still answers */
bool inbox_idle(const struct inbox *in); /* nothing is being decided or written; draining: nothing is with the store */
void inbox_lease_changed(struct inbox *in); /* the lease has news: whoever waited goes on */
void inbox_resume(struct inbox *in);        /* the link has room again */

/*
 * A message of the service's own making (membership, imctl send): decided in the same order as all others.
 * r->user "" = the system (type "system"). done: IM_OK with the stored message, or why not. r is copied.
 */
typedef void inbox_post_fn(void *arg, enum im_status st, struct message *m);
/*
 * Called before `done`, once the message has its sequence: calls inbox_join for what must become durable with it or
 * not at all. False: out of memory, which ends the process like everywhere on this way. NULL: nothing joins.
 */
struct batch;
typedef bool inbox_join_fn(void *arg, const struct message *m, struct batch *b);
bool inbox_join(struct batch *b, const Im__Bus__RosterItem *item); /* the item stays the caller's, unchanged until `done` */
void inbox_post(struct inbox *in, const Im__Bus__Record *r, const char *conv, inbox_join_fn *join, inbox_post_fn *done, void *arg);
/* What the inbox knows, for status. */
struct inbox_stats { uint64_t records, stored, repeats, refused, waiting; };
void inbox_stats(const struct inbox *in, struct inbox_stats *out);

#endif
