/*
 * Push, the message service's side (docs/push.md): registrations, a feed of jobs to each provider's bridge, tickets when a
 * bridge asks. Nothing here is on a message's way: what is stored is looked at afterwards, from a position.
 */
#ifndef OFFLINE_PUSH_H
#define OFFLINE_PUSH_H

#include "delivery.h"
#include "push_registry.h"
#include "roster/roster.h"
#include "store.h"

#define PUSH_TOPIC "$im/push/"       /* + provider: to its bridge; + "/up": from it */
#define PUSH_PROVIDER_MAX 16u

struct push;
struct im_mqtt;

/* IM_OK with *out NULL: im_push names no provider. IM_FAILED: the key of the tokens. */
enum im_status push_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			   struct delivery *delivery, struct push **out, struct im_err *err);
void push_stop(struct push *p);      /* asks nothing more of the store. NULL is fine */
void push_destroy(struct push *p);   /* after store_close. NULL is fine */
void push_bus(struct push *p, struct im_mqtt *bus); /* NULL: down */
void push_message(struct push *p, const char *provider, size_t len, const void *payload, size_t payload_len); /* a PushUp; provider: `len` bytes */
void push_turn_end(struct push *p);  /* tickets gathered leave */

struct push_registry *push_tokens(struct push *p);
bool push_has_provider(const struct push *p, const char *provider);

/* Asks a bridge (its JSON in docs/push.md). answer NULL: the bridge does not run, or does not answer within 5 s. */
typedef void push_answer_fn(void *arg, const char *answer);
void push_query(struct push *p, const char *provider, const char *json, push_answer_fn *done, void *arg);
/* A push outside of any message, to try the way. IM_BUSY: its bridge takes none now. */
enum im_status push_test(struct push *p, const struct push_device *d);
/* For imctl: what each feed does. */
struct push_feed_info {
	const char *provider;
	bool up, full;
	uint64_t row;            /* all before it is with the bridge */
	uint64_t jobs;           /* made since the start */
	size_t unconfirmed, waiting;
	const struct push_count { const char *reason; uint64_t n; } *decided; /* words of push_decide, of new messages since the start */
	size_t n_decided;
};
typedef void push_feed_fn(void *arg, const struct push_feed_info *f);
void push_each_feed(const struct push *p, push_feed_fn *fn, void *arg);
/* How push_decide would see this message for this device now. reason: a word, static. */
typedef void push_why_fn(void *arg, enum im_status st, const char *reason, int64_t until_ms);
void push_why(struct push *p, const struct push_device *d, const char *conv, uint64_t seq, push_why_fn *done, void *arg);

#endif
