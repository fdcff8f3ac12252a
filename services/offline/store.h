/*
 * What is kept for ever: messages, cursors, devices, roster, section epochs, owed errors. Speaks of
 * messages and readers, never of SQL.
 *
 * Requests are asynchronous: each is answered exactly once, on the loop's thread, never before the request
 * function has returned; in what order different requests are answered is not said, except that appends
 * are answered in order. IM_OK of an append means that it survives power loss - so acks and deliveries go
 * out from the callback. Reads see every append that was answered before they were asked.
 * Everything given to a request is copied or referenced (messages) before it returns.
 *
 * IM_UNCERTAIN of an append: the log could not be written. What was given may be there or not, nothing more
 * is taken, and all later appends answer the same: the service stops (service_fail) and opening again
 * decides. An append is there as a whole or not at all, whatever happens. IM_FAILED: nothing of this append was kept (fenced off, sequence taken). Nor is
 * anything from a journal after it until the store is opened again: its position would say that the refused one is there. Others are not affected.
 * A message appended again exactly as it is stored is IM_OK and stored once.
 *
 * Drivers: sqlite (message log + SQLite, store_sqlite.c), memory (tests). PostgreSQL fits the same table.
 */
#ifndef OFFLINE_STORE_H
#define OFFLINE_STORE_H

#include "base/conf.h"
#include "io/loop.h"
#include "message.h"

struct store;

typedef void store_done_fn(void *arg, enum im_status st);

/* ---- what recovery found, complete when store_open returns */

struct store_start {
	char epoch[33];                    /* the store's own name; a restored backup gets a new one */
	const struct position *high_water; /* per (node, journal epoch): everything below is in the store */
	size_t n_high_water;
	const uint64_t *section_epochs;    /* [IM_SECTIONS], 0 = never leased */
};

/* ---- append */

enum store_kind {
	STORE_MESSAGE,  /* message: seq and all set; refused with IM_FAILED if its section_epoch is older than known */
	STORE_CURSOR,   /* never moves back: smaller values change nothing */
	STORE_DEVICE,   /* upsert, or removed = true: forgets device and cursors */
	STORE_SECTIONS, /* lease epochs, before their first use */
	STORE_ROSTER,   /* item */
	STORE_REFUSAL,  /* an error owed to a device; done = true: it is out */
	STORE_PUSH,     /* push: upsert by key, or removed = true */
	STORE_POSITION, /* nothing but the high-water mark: a journal record that needed no other entry */
};

struct store_cursor {
	const char *user;
	const char *device;    /* client id; "" = only the read cursor */
	const char *conv;      /* canonical */
	uint64_t delivered;    /* 0 = not said */
	uint64_t read;         /* 0 = not said */
};

struct store_device {
	const char *user;
	const char *device;    /* client id */
	bool named;            /* "{user}:{device}" */
	bool acks;             /* has ever sent im/v1/ack */
	bool removed;
	uint32_t max_packet;   /* 0 = not set */
	int64_t seen_ms;       /* wall clock of its last connection's end or sign of life */
};

struct store_entry {
	enum store_kind kind;
	struct position pos;               /* node 0 = not from a journal */
	struct message *message;           /* STORE_MESSAGE: referenced */
	struct store_cursor cursor;
	struct store_device device;
	const Im__Bus__StoredSection *const *sections;
	size_t n_sections;
	const Im__Bus__RosterItem *roster;
	const Im__Bus__StoredPush *push;
	const Im__Bus__StoredRefusal *refusal; /* key: unique; the inbox derives it from the position */
};

/* ---- lookup: what deciding about a journal slice needs, in one question */

struct store_lookup_conv {
	const char *conv;      /* in: canonical */
	uint64_t last_seq;     /* out: newest, 0 = none yet */
};

struct store_lookup_id {
	const char *user;      /* in */
	const char *client_id; /* in */
	const char *id;        /* in */
	struct message *found; /* out: the stored message, referenced for the caller; NULL = new */
};

/* ---- reads */

struct store_range {
	const char *conv;      /* canonical */
	uint64_t from, to;     /* inclusive; to 0 = newest */
	unsigned limit;        /* messages, at most 1000 */
	size_t max_bytes;      /* of bodies; at least one message comes */
	bool newest_first;
};

struct store_conversation {
	const char *conv;      /* canonical */
	uint64_t last_seq;
	int64_t last_ts;
	uint64_t read;         /* the user's read cursor */
	uint64_t delivered;    /* the furthest delivered cursor of any of the user's devices */
};

typedef void store_message_fn(void *arg, struct message *m);              /* borrowed: message_ref to keep */
typedef void store_conversation_fn(void *arg, const struct store_conversation *c);
typedef void store_cursor_fn(void *arg, const struct store_cursor *c);
typedef void store_device_fn(void *arg, const struct store_device *d);
typedef void store_refusal_fn(void *arg, const Im__Bus__StoredRefusal *r);
typedef void store_roster_fn(void *arg, const Im__Bus__RosterItem *item);
typedef void store_push_fn(void *arg, const Im__Bus__StoredPush *p);
typedef void store_stream_fn(void *arg, uint64_t row, struct message *m); /* borrowed: message_ref to keep */
typedef void store_count_fn(void *arg, enum im_status st, unsigned n);

struct store_stats {
	uint64_t messages;       /* appended since start */
	uint64_t log_bytes;      /* logged and not yet indexed */
	uint64_t syncs;
	uint64_t sync_us_max;
};

/* Where a backup finds everything that was answered so far (store_backup.h). */
struct store_snapshot {
	const char *db_path;     /* as long as the store is open */
	uint64_t position;       /* of the log: rows that have been applied up to here hold it */
};

struct store_driver {
	const char *name; /* url scheme: "sqlite", "memory" */
	enum im_status (*open)(const char *url, struct im_loop *loop, const struct im_settings *settings, struct store **out, struct im_err *err);
	/* Makes durable what was given, answers what is pending (IM_UNCERTAIN where it cannot), frees. Ask nothing new from those answers. */
	void (*close)(struct store *s);
	const struct store_start *(*start)(struct store *s);
	void (*roster)(struct store *s, store_roster_fn *row, void *arg); /* every item, synchronously, at start only */
	void (*push)(struct store *s, store_push_fn *row, void *arg); /* everything, synchronously, at start only */
	void (*append)(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg);
	void (*lookup)(struct store *s, struct store_lookup_conv *convs, size_t n_convs,
		       struct store_lookup_id *ids, size_t n_ids, store_done_fn *done, void *arg); /* arrays live until done */
	void (*history)(struct store *s, const struct store_range *range, store_message_fn *row, store_done_fn *done, void *arg);
	void (*conversations)(struct store *s, const char *user, store_conversation_fn *row, store_done_fn *done, void *arg);
	/* Messages of others, not of type "system", above `read`; stops counting at 100. */
	void (*unread)(struct store *s, const char *user, const char *conv, uint64_t read, store_count_fn *done, void *arg);
	void (*device)(struct store *s, const char *user, const char *device, store_device_fn *row, store_cursor_fn *cursor,
		       store_refusal_fn *refusal, store_done_fn *done, void *arg); /* the device (0 or 1), its cursors, what it is owed */
	void (*devices)(struct store *s, const char *user, store_device_fn *row, store_done_fn *done, void *arg);
	/*
	 * Messages of all conversations in the order in which they were stored, from behind `after` on (STORE_STREAM_END: the newest
	 * alone). Rows only: what was answered a moment ago may not be there yet, up to a second on a busy server. Row numbers
	 * grow, stay what they are in this store, and mean nothing in a restored one.
	 */
	void (*stream)(struct store *s, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg);
	bool (*full)(struct store *s); /* more than im_store_backlog waits: ask again later, take no more input now */
	void (*stats)(struct store *s, struct store_stats *out);
	bool (*snapshot)(struct store *s, struct store_snapshot *out); /* false: nothing here outlives the process */
};

/* Picks the driver by the url's scheme and does what is common (argument checks, slow-request log). */
enum im_status store_open(const char *url, struct im_loop *loop, const struct im_settings *settings, struct store **out, struct im_err *err);
void store_close(struct store *s); /* NULL is fine */
const struct store_start *store_start(struct store *s);
void store_roster(struct store *s, store_roster_fn *row, void *arg);
void store_push(struct store *s, store_push_fn *row, void *arg);
void store_append(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg);
void store_lookup(struct store *s, struct store_lookup_conv *convs, size_t n_convs, struct store_lookup_id *ids, size_t n_ids, store_done_fn *done, void *arg);
void store_history(struct store *s, const struct store_range *range, store_message_fn *row, store_done_fn *done, void *arg);
void store_conversations(struct store *s, const char *user, store_conversation_fn *row, store_done_fn *done, void *arg);
void store_unread(struct store *s, const char *user, const char *conv, uint64_t read, store_count_fn *done, void *arg);
void store_device(struct store *s, const char *user, const char *device, store_device_fn *row, store_cursor_fn *cursor, store_refusal_fn *refusal, store_done_fn *done, void *arg);
void store_devices(struct store *s, const char *user, store_device_fn *row, store_done_fn *done, void *arg);
#define STORE_STREAM_END UINT64_MAX
void store_stream(struct store *s, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg);
bool store_full(struct store *s);
void store_stats(struct store *s, struct store_stats *out);
bool store_snapshot(struct store *s, struct store_snapshot *out);

extern const struct store_driver store_sqlite, store_memory;

#endif
