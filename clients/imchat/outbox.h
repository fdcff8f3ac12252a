/*
 * Own messages and how far each has got. Settled ones are kept for a while, so that receipts that come later
 * find their text; those without an ack are never dropped.
 */
#ifndef IMCHAT_OUTBOX_H
#define IMCHAT_OUTBOX_H

#include "conv.h"

enum {
	OUTBOX_MAX = 256, /* messages remembered; when all of them wait for acks, no more are taken */
	OUTBOX_ID_LEN = 40,
};

enum tick {
	TICK_WAITING,   /* with the library, or for a connection */
	TICK_SENT,      /* PUBACK: the server has it in its journal */
	TICK_STORED,    /* in/ack: it has its place in the conversation */
	TICK_DELIVERED, /* evt/receipt: a device of somebody else acknowledged it */
	TICK_READ,
	TICK_REFUSED,   /* remembered, because a refusal may be told twice */
};

struct own {
	char id[OUTBOX_ID_LEN], conv[CONV_NAME_LEN];
	char *text;
	int mid;        /* the library's; -1: not handed to it */
	int64_t seq;
	enum tick tick;
};

struct outbox {
	struct own all[OUTBOX_MAX]; /* oldest first */
	size_t n;
};

struct own *outbox_add(struct outbox *o, const char *conv, const char *id, const char *text); /* NULL: full, or out of memory */
struct own *outbox_find(struct outbox *o, const char *id);
void outbox_remove(struct outbox *o, struct own *m);
size_t outbox_waiting(const struct outbox *o); /* without ack */
void outbox_finish(struct outbox *o);

#endif
