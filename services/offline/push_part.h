/* Inside push: what push.c, push_feed.c and push_ticket.c share. Others use push.h. */
#ifndef OFFLINE_PUSH_PART_H
#define OFFLINE_PUSH_PART_H

#include "base/conf.h"
#include "push.h"
#include "push_decide.h"

#define PUSH_CLOCK_MS 60000  /* a moment further ahead than this was written before the clock was set back */
#define PUSH_ICON_KEY "b/"   /* of the store's rows */
#define PUSH_REASONS 24      /* words of push_decide: there are fewer */
#define PUSH_ACTIVE_MS 30000 /* head start of a device that is in use, before the others ring */

struct push_feed;
struct push_answers;

struct push_readers { /* oldest first */
	struct push_reader *first, *last;
};

struct push {
	struct im_loop *loop;
	const struct im_settings *settings;
	struct store *store;
	struct roster *roster;
	struct delivery *delivery;
	struct push_registry *registry;
	struct im_mqtt *bus;
	struct im_timer *tick;
	char start[17];              /* of this process */
	struct push_feed *feeds;
	struct push_readers readers, served; /* users who have read something; ... of whom the bridge has not confirmed the jobs */
	size_t n_readers;            /* of both */
	struct push_ticket *tickets; /* under way */
	size_t n_tickets;
	uint64_t queries;            /* numbered over all feeds */
	bool stopped;
};

/* ---- push.c */
struct push_feed *push_feed_of(const struct push *p, const char *provider, size_t len);
/* What is known of this message and device without asking the store: everything but got (unless connected), read, seen_ms. */
void push_gather(const struct push *p, const struct push_device *d, const struct message *m, struct push_facts *out);

/* ---- push_feed.c: one provider's */
struct push_feed {
	struct push_feed *next;
	struct push *push;
	char provider[PUSH_PROVIDER_MAX];
	bool up;                     /* the bridge has said hello on this bus */
	bool full;                   /* it takes no more now */
	bool placed;                 /* `row` is known */
	bool reading;
	bool came;                   /* rows, of the read under way */
	bool failed;                 /* the last read: again at the next tick */
	uint64_t row;                /* messages up to here have been looked at */
	uint64_t saved;              /* ... up to here, as the store was told last; UINT64_MAX: nothing yet */
	int64_t saved_ms;
	uint64_t frames;             /* sent, with jobs */
	uint64_t jobs;
	struct push_count decided[PUSH_REASONS];
	size_t n_decided;
	struct push_frame *first, **last; /* sent and not confirmed, oldest first */
	size_t n_frames;
	struct push_wait *waits, **waits_last; /* grace; oldest first */
	size_t n_waits;
	Im__Push__Job *gathering[256]; /* the next frame; owned */
	size_t n_gathering;
	uint64_t gathering_row;      /* the lowest row in it */
	Im__Push__Ticket *answers[64]; /* owned */
	size_t n_answers;
	uint64_t heard;              /* verdicts that are durable */
	struct push_query *asked;
};

struct push_feed *feed_create(struct push *p, const char *provider, size_t len); /* NULL: out of memory */
void feed_destroy(struct push_feed *f);
void feed_row(struct push_feed *f, const Im__Bus__PushPosition *at); /* at start */
void feed_bus(struct push_feed *f);                                 /* p->bus has changed */
void feed_up(struct push_feed *f, const Im__Push__Up *up);
void feed_tick(struct push_feed *f);
void feed_turn_end(struct push_feed *f);
bool feed_add(struct push_feed *f, Im__Push__Job *job, uint64_t row); /* takes job over; false: out of memory or not up */
bool feed_has_room(const struct push_feed *f);                        /* the bridge takes jobs, and not too many wait for it */
bool feed_confirmed(const struct push_feed *f, uint64_t frame);       /* and all before it */
void feed_answer(struct push_feed *f, Im__Push__Ticket *t);           /* takes t over */
void feed_query(struct push_feed *f, const char *json, push_answer_fn *done, void *arg);
Im__Push__Job *feed_job(const char *key, enum _Im__Push__Kind kind, const struct push_device *d, const char *conv, uint64_t seq);

/* ---- push_notice.c */
void notice_start(struct push *p);
void notice_stop(struct push *p);

/* ---- push_icon.c */
void icon_start(struct push *p);
void icon_stop(struct push *p);
void icon_tick(struct push *p);
void icon_restore(struct push *p, const char *user); /* at start: what the store had under PUSH_ICON_KEY */
/* What is known without the store: everything but seen_ms and badge. */
void icon_gather(const struct push *p, const struct push_device *d, struct push_badge_facts *out);

/* ---- push_ticket.c */
void ticket_ask(struct push_feed *f, const Im__Push__Ask *ask);
void ticket_why(struct push *p, const struct push_device *d, const char *conv, uint64_t seq, push_why_fn *done, void *arg);
void ticket_finish(struct push *p); /* answers of the store to come find nobody */

#endif
