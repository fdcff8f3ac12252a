/*
 * A message in memory: what the store keeps and deliveries are made from. Immutable once made, counted
 * references, one allocation. Used from the loop's thread; message_ref and message_unref are atomic, since
 * the store's threads hold some too.
 */
#ifndef OFFLINE_MESSAGE_H
#define OFFLINE_MESSAGE_H

#include "bus.pb-c.h"
#include "wire/name.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where something came from: all of the journal (node, epoch) below `next` is decided. node 0: the service itself. */
struct position {
	uint32_t node;
	uint64_t epoch;
	uint64_t next;
};

struct message {
	_Atomic unsigned refs;
	size_t size;             /* of the whole allocation: message_size */
	struct position pos;
	char msgid[IM_MSGID_LEN + 1];
	const char *conv;        /* canonical */
	uint64_t seq;
	uint64_t prev;           /* previous sequence of the conversation, 0 = none */
	int64_t ts;
	int64_t expiry;
	const char *from;        /* "" = the system */
	const char *client_id;   /* of the sender, "" = the system */
	const char *id;          /* "" = none */
	const char *type;
	const char *ct, *alt, *reply, *ext; /* "" = none */
	const char *const *mentions;
	size_t n_mentions;
	Im__V1__Enc enc;
	const uint8_t *body;
	size_t body_len;
	uint64_t body_hash;      /* of everything the sender said: equal hashes = the same message repeated */
	uint32_t section;
	uint64_t section_epoch;
};

/*
 * Makes a message from an accepted SEND. conv is canonical. The caller sets seq, prev, section_epoch before
 * anybody else sees it. NULL: out of memory.
 */
struct message *message_create(const Im__Bus__Record *r, const char *conv, const struct position *pos, const char *msgid);
struct message *message_ref(struct message *m); /* returns m */
void message_unref(struct message *m);          /* NULL is fine */
size_t message_size(const struct message *m);   /* bytes of memory, for budgets */

/* To and from what the store keeps (im.bus.StoredMessage). pack appends to `out`; unpack: NULL = not one of ours. */
struct im_buf;
void message_pack(const struct message *m, struct im_buf *out);
struct message *message_unpack(const uint8_t *data, size_t len, const struct position *pos);
/* The client's view: fills `out` with pointers into m and `conv` (as the reader sees it). Lives as long as both. */
void message_view(const struct message *m, const char *conv, Im__V1__Message *out);

#endif
