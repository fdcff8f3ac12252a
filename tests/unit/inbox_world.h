/*
 * A world for the inbox: a journal the test writes, a store whose answers come when the test lets them and
 * that keeps after a crash what the test decides, a lease that can be away. What the inbox tells others is
 * kept in order of time; nothing may be told that is not in the store.
 */
#ifndef TESTS_INBOX_WORLD_H
#define TESTS_INBOX_WORLD_H

#include "inbox.h"

#define WORLD_NODE 1u
#define WORLD_EPOCH 900000u
#define WORLD_OLD_EPOCHS 6000u
#define WORLD_BEGIN 128u   /* offset of the journal's first record */

enum told_kind { TOLD_MESSAGE, TOLD_ACK, TOLD_DUP, TOLD_CURSORS, TOLD_REFUSAL, TOLD_REQUEST, TOLD_POST };

struct told {
	enum told_kind kind;
	char text[160];     /* conversation and body; id; code and client id */
	uint64_t seq;
	enum im_status st;  /* POST */
};

/* What one record of the journal is, without its bytes. */
struct said {
	Im__Bus__Kind kind;
	const char *user, *conv, *id, *body; /* REFUSAL: body is the code; ACK: delivered is read from it */
};

struct world {
	struct inbox *inbox;
	struct roster *roster;
	bool lease_away, full, link_full;
	uint64_t lease_epoch;
	uint64_t lease_ceiling;   /* 0 = none */
	bool late_reads;        /* a lookup sees what is stored when it is answered, not when it was asked */
	struct told *told;
	size_t n_told;
	struct message **stored; /* in the order of the log */
	size_t n_stored;
	unsigned cursors, refusals; /* entries in the store */
	char refusal_of[64];    /* "client id code" of the newest */
	uint64_t high;          /* the store's mark of WORLD_EPOCH; 0 = none */
	unsigned old_epochs;    /* so many older journals have marks too */
	uint64_t confirmed;     /* newest on_durable */
	unsigned confirms;
	const char *failed;     /* what on_failure said */
	unsigned refused_slices;
};

extern struct world world;

void world_create(void);            /* users alice, bob, carol; group friends of alice and bob */
void world_destroy(void);
void world_start(void);             /* an inbox over what the store holds */
void world_stop(void);              /* as main.c does it: pending appends end with IM_UNCERTAIN */
/* kill -9: of the appends under way the first `kept` are in the log. */
void world_crash(size_t kept);

/* The journal. Returns the offset behind the record. */
uint64_t world_write(const struct said *s);
uint64_t world_written(void);       /* its end */
/* Sends what lies between two record bounds as one slice; what inbox_slice answered. */
enum im_status world_send(uint64_t from, uint64_t to);
uint64_t world_bound(unsigned records, uint64_t from); /* the bound so many records behind `from`, at most the end */
uint64_t world_mark(void);          /* durable, as the inbox says it at a hello */

size_t world_appends(void);         /* under way */
bool world_looking(void);
bool world_answer_append(enum im_status st); /* the oldest; false: there is none */
bool world_answer_lookup(enum im_status st);
void world_settle(void);            /* answers all until nothing is left */
void world_post(const char *user, const char *conv, const char *id, const char *body);

const struct told *world_told(enum told_kind kind, size_t nth); /* NULL: not so many */
size_t world_count(enum told_kind kind);

#endif
