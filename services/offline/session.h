/*
 * Inside delivery: who is connected, with which device, wanting what. Other parts use delivery.h.
 *
 *   delivery --- accounts by name --- devices --- readers (device x conversation) --- conversations by name
 *            \-- sessions by handle -/
 *
 * Everything here is of users who are online. A device leaves memory when its session is gone and what
 * was written about it is answered, so that nobody reads an older state than was known (invariant 7).
 */
#ifndef OFFLINE_SESSION_H
#define OFFLINE_SESSION_H

#include "base/buf.h"
#include "base/conf.h"
#include "cursor.h"
#include "delivery.h"
#include "wire/codec.h"

#include <uthash.h>

#define DELIVERY_TICK_MS 250u
#define DELIVERY_WHEEL 512u            /* ticks once around: 128 s; what is due later stays for another round */
#define DELIVERY_BEHIND_MS 1000        /* so often a session that does not read is looked at again */
#define DELIVERY_PROOF_MS 1000         /* so often what would settle is looked at again for proof that its session was up */
#define DELIVERY_FLUSH_MS 1000u        /* cursor moves and badges are gathered so long */
#define DELIVERY_ANSWER_MAX 60000u     /* bytes of a list that the server sends unasked */

enum due_kind { DUE_READER, DUE_SESSION };

/* Something to do later: a member of the wheel. */
struct due {
	struct due *prev, *next; /* NULL: not planned */
	int64_t at;
	enum due_kind kind;
};

struct conversation {
	UT_hash_handle hh;
	struct reader *readers;  /* of devices online */
	uint64_t newest;         /* newest durable sequence known; 0 = not known */
	char name[];             /* canonical */
};

/* A device's place in a conversation. */
struct reader {
	struct due due;
	struct device *device;
	struct conversation *conv;
	struct reader *conv_prev, *conv_next;
	struct reader *work_next; /* catch-up queue of the session */
	struct reader *dirty_next;
	struct cursor cursor;
	uint64_t stored;          /* delivered, as the store was told last */
	uint64_t empty_at;        /* newest of the conversation when a page found nothing above `handed` */
	bool working, dirty;
	bool covered;             /* a filter of the session matches the conversation */
	bool own_passed;          /* an own message was passed for its ack, which may still wait for the turn's end */
};

struct device {
	struct device *next;      /* of the account */
	struct account *account;
	struct session *session;  /* NULL: only kept until its writes are answered */
	struct load *load;        /* under way */
	struct reader **readers;  /* open addressing by conversation; `cap` is 0 or a power of two */
	uint32_t n_readers, cap;
	uint32_t out;             /* handed and not acked, all conversations */
	uint32_t max_packet;
	uint32_t writes;          /* entries given to the store and not answered */
	uint32_t n_dirty;         /* readers waiting to be stored */
	bool named, acks, loaded;
	char client_id[];
};

/* Own messages whose acks were handed to a session that was not live yet: they do not come to it as `sent` too. */
#define OWN_ACKED_MOST 64u /* of more it is known by their time */
struct own_acked {
	unsigned n;
	char msgids[OWN_ACKED_MOST][IM_MSGID_LEN + 1];
};

enum session_state {
	SESSION_QUIET,    /* no inbox filter yet: nothing is handed */
	SESSION_LOADING,  /* its device is being read */
	SESSION_CATCHING, /* pages from the store; new messages wait or are paged too */
	SESSION_LIVE,
	SESSION_OVER,     /* a newer connection has its device; its end is on the way */
};

struct session {
	UT_hash_handle hh;        /* by handle */
	uint64_t handle;
	struct due due;           /* the silent budget's period, owed refusals */
	struct session *next;     /* of the account */
	struct account *account;
	struct device *device;    /* NULL: quiet, or taken over by a newer connection */
	struct catchup *catchup;  /* while catching up */
	struct owed *owed;        /* refusals handed or to be handed */
	struct session *ack_next; /* acks wait for the end of the turn, or a little longer */
	struct pending_acks *acks;
	struct own_acked *own_acked; /* NULL: none, or the session is live */
	int64_t acks_at;          /* when their last packet left */
	struct page *page;        /* a read of history under way */
	const char *client_id, *address;
	char *filters;            /* "qos filter NUL" ..., ends with an empty string */
	int64_t since_ms;         /* wall clock */
	int64_t acks_since_ms;    /* wall clock since when its acks are handed; 0 = they are not */
	uint64_t handed;
	uint64_t used_bytes;      /* silent budget of this period */
	uint32_t used_messages;
	int64_t period_end;       /* 0 = nothing used */
	uint32_t keepalive_s;
	uint8_t protocol;
	uint8_t codec;
	uint8_t state;
	int8_t ways[4];           /* enum im_way: granted QoS where one filter takes them all; -1 none; -2 ask the filters */
	bool behind;              /* has not taken what it was given: nothing settles, no new budget (invariant 10) */
	bool websocket, welcomed, push_told, over_budget, badge_wanted, list_wanted, refusals_asked;
	char text[];              /* client id, address */
};

struct account {
	UT_hash_handle hh;
	struct session *sessions;
	struct device *devices;
	struct account *badge_next;
	uint64_t badge_hash;      /* of the badge sent last */
	bool badge_due, list_due;
	char name[];
};

struct receipt;
struct variant;

#define DELIVERY_VARIANTS 8

struct delivery {
	struct im_loop *loop;
	const struct im_settings *settings;
	struct store *store;
	struct roster *roster;
	struct link *link;
	struct im_timer *tick, *flush, *sweep, *pace, *rest;
	struct account *accounts;
	struct session *sessions;
	struct conversation *convs;
	struct due wheel[DELIVERY_WHEEL];
	int64_t wheel_at;         /* tick number worked off last */
	struct reader *dirty;
	struct read_move *reads;  /* read_on_send, gathered */
	struct receipt *receipts; /* of this turn */
	struct session *acks;     /* sessions with acks that have not left */
	int64_t acks_since;       /* how many acks there are tells whether the server is busy */
	uint32_t acks_count;
	bool acks_busy;
	struct catchup *run_first, *run_last; /* want to read a page, oldest first */
	struct page *pages;       /* reads under way */
	unsigned n_pages;
	int64_t live_at;          /* the last new message */
	int64_t turn_at, rest_until; /* of catch-up */
	unsigned turn_messages;   /* read in this turn */
	struct moves *moves;      /* cursor appends under way */
	struct load *loads;       /* devices being read */
	struct account *badges, *badges_last; /* to be computed, oldest first */
	unsigned n_badges, badges_ready;      /* so many of the first ones may be now */
	struct probe *probes;     /* device lists being read */
	char **sweep_names;       /* users whose devices are still to be looked through */
	size_t sweep_left;
	struct tally *tallies;    /* badges being computed */
	unsigned n_tallies;
	int64_t shed_at;
	struct ask *asks;         /* owed refusals being read */
	uint64_t silent_bytes;    /* handed to silent devices and not settled */
	delivery_greeted_fn *greeted;
	void *greeted_arg;
	delivery_read_fn *read;
	void *read_arg;
	struct message *message;  /* at hand: its encodings so far */
	struct variant *variants;
	size_t n_variants;
	struct im_buf topic, payload; /* of single packets */
};

int64_t delivery_now(const struct delivery *d);

/* ---- session.c */
struct account *account_find(struct delivery *d, const char *user);
struct account *account_get(struct delivery *d, const char *user);           /* NULL: out of memory */
void account_release(struct delivery *d, struct account *a);                 /* frees it if nobody is there */
struct session *session_find(struct delivery *d, uint64_t handle);
struct session *session_of_client(struct delivery *d, const char *user, const char *client_id); /* newest */
/* Granted QoS, at most 1, of what matches; -1 = no filter does. topic: NUL-terminated. */
int session_qos(const struct session *s, const char *topic);
bool session_covers(const struct session *s, const char *conv);              /* conv as seen */
bool session_acks_matched(const struct session *s);
uint32_t session_settle_ms(const struct session *s);
void session_plan(struct delivery *d, struct session *s);                    /* its next due time */
void session_rules(const struct delivery *d, const struct session *s, struct cursor_rules *out);
size_t session_max_packet(const struct session *s);
void session_send(struct delivery *d, struct session *s, const struct im_buf *topic, const struct im_buf *payload, int qos);
/* An event or state, if a filter asks for it. */
void session_event(struct delivery *d, struct session *s, const char *kind, const char *json);
bool session_wants(const struct session *s, const char *what);               /* "evt/welcome", "state/badge" */
void session_state(struct delivery *d, struct session *s, const char *name, const char *json);

void due_plan(struct delivery *d, struct due *due, enum due_kind kind, int64_t at); /* at 0: never */
void due_cancel(struct due *due);
void due_run(struct delivery *d);

/* ---- device.c */
struct device *device_find(struct account *a, const char *client_id);
/* The session has its first inbox filter: finds or reads its device, then calls catchup_loaded. */
void device_attach(struct delivery *d, struct session *s);
void device_detach(struct delivery *d, struct session *s);
void device_release(struct delivery *d, struct device *dev);
void device_save(struct delivery *d, struct device *dev);
void device_first_ack(struct delivery *d, struct device *dev);
void device_flush(struct delivery *d);                     /* gathered cursor moves */
void device_connect(struct delivery *d, struct device *dev); /* loaded and with a session: starts from what is settled */
void device_cover(struct device *dev);                     /* the session's filters have changed */
void device_retry(struct delivery *d);                     /* reads that failed */
void device_finish(struct delivery *d);                    /* all sessions are gone: answers still to come find nobody */

/* ---- reader.c */
struct reader *device_reader(struct delivery *d, struct device *dev, const char *conv, bool make); /* NULL: none, no memory */
struct conversation *conversation_find(struct delivery *d, const char *conv);
void reader_moved(struct delivery *d, struct reader *r);   /* delivered has moved without the inbox: to be stored */
void reader_plan(struct delivery *d, struct reader *r);
void reader_due(struct delivery *d, struct reader *r);
/* The first sequence from `from` on that the reader may see; 0 = none. */
uint64_t reader_visible(struct delivery *d, const struct reader *r, uint64_t from);
struct reader *reader_find(const struct device *dev, const struct conversation *c);
void reader_cover(struct reader *r);                       /* the device's session or its filters have changed */
void reader_free(struct delivery *d, struct reader *r);

/* ---- expiry.c */
void expiry_limit(struct delivery *d, const char *user);   /* forgets what is over the limits */
void expiry_start(struct delivery *d);
void expiry_sweep(void *arg);
void expiry_finish(struct delivery *d);

/* ---- catchup.c */
void catchup_loaded(struct delivery *d, struct session *s);
void catchup_filters(struct delivery *d, struct session *s); /* of a loaded session: what is newly covered */
void catchup_behind(struct delivery *d, struct session *s, struct reader *r, bool announce);
void catchup_keep(struct delivery *d, struct session *s, struct reader *r, struct message *m);
void catchup_repeat(struct delivery *d, struct session *s, struct reader *r);
void catchup_acked(struct session *s, const struct message *m); /* of m, sent by this session */
void catchup_wake(struct delivery *d, struct session *s);    /* window or budget has room again */
void catchup_run(struct delivery *d);
void catchup_stop(struct delivery *d, struct session *s);    /* the session is going */
int64_t catchup_due(const struct session *s);                /* a failed read is tried again then; 0 = none failed */
void catchup_finish(struct delivery *d);

/* ---- handover.c: one message to sessions */
enum verdict {
	VERDICT_HANDED,   /* or passed over: the next one may come */
	VERDICT_UNSEEN,   /* not his to see */
	VERDICT_UNCOVERED,/* no filter for the conversation: the cursor stays */
	VERDICT_FULL,     /* window or budget */
};
/* Gathers (handover_flush sends). own_acked: the session sent m, its ack counts as the hand-over. */
enum verdict handover(struct delivery *d, struct session *s, struct reader *r, struct message *m, bool own_acked);
/* Sends again what was handed: no cursor moves. */
void handover_again(struct delivery *d, struct session *s, struct reader *r, struct message *m);
void handover_flush(struct delivery *d);
bool handover_room(const struct delivery *d, const struct session *s);
void handover_period(struct delivery *d, struct session *s); /* the budget's period is over */
enum im_status handover_init(struct delivery *d);
void handover_finish(struct delivery *d);

/* ---- delivery.c */
void ack_flush(struct delivery *d, struct session *s);       /* its acks that wait leave now */

/* ---- receipt.c */
void receipt_flush(struct delivery *d);
void receipt_sent(struct delivery *d, const char *user, const char *conv, uint64_t seq); /* read_on_send */
void receipt_store(struct delivery *d);
void badge_change(struct delivery *d, struct account *a, bool list);
void badge_ready(struct delivery *d); /* all that wait may be computed now */
void badge_run(struct delivery *d);
void receipt_forget(struct delivery *d, struct account *a);
void receipt_finish(struct delivery *d);

/* ---- owed.c: refusals */
void owed_ask(struct delivery *d, struct session *s);
void owed_add(struct delivery *d, struct session *s, const Im__Bus__StoredRefusal *r);
void owed_send(struct delivery *d, struct session *s);  /* what its filters now allow */
void owed_settle(struct delivery *d, struct session *s);
int64_t owed_due(const struct session *s);              /* 0 = nothing waits for time */
void owed_stop(struct session *s);
void owed_finish(struct delivery *d);

#endif
