/* Devices and what they have seen (clients.c), for the rules (check.c). */
#ifndef TESTS_SIM_CLIENTS_H
#define TESTS_SIM_CLIENTS_H

#include "sim.h"

struct bits {
	uint64_t word[SIM_MESSAGES / 64];
};

static inline bool bit(const struct bits *b, unsigned i)
{
	return b->word[i / 64] >> (i % 64) & 1;
}

static inline void bit_set(struct bits *b, unsigned i)
{
	b->word[i / 64] |= (uint64_t)1 << (i % 64);
}

/* A message that is or was durable. */
struct sim_message {
	int conv, user, device;   /* -1: the system */
	uint64_t seq;
	int64_t ts;
	char msgid[27], id[12];
	int send;                 /* -1: the system's */
	bool there;               /* false: the store was rolled back to before it */
};

struct sim_send {
	int device, conv;
	char id[12];
	unsigned accepted;        /* how often with a PUBACK */
	uint64_t accepted_in;     /* epoch of the first of them */
	bool maybe;               /* the machine went while it was written, or before the disk that failed had a new epoch */
	uint64_t failed_in;       /* epoch in which the disk failed it; 0 = none */
	bool may_be_lost;         /* power or the store's newer part was lost after its PUBACK */
	int stored;               /* index of its message; -1 */
};

struct sim_device {
	int user;
	const char *client_id;
	bool acks;
	/* the connection */
	uint64_t handle;          /* 0 = offline */
	unsigned keepalive_s;
	unsigned packets;         /* unread */
	bool subscribed, changed; /* changed: filters, during this era of the session */
	unsigned era;             /* of what was read last */
	unsigned changed_in;      /* era in which this connection's filters became others; 0 = they did not */
	uint64_t newest[SIM_CONVS], acked[SIM_CONVS];
	struct bits in_session;
	/* for good */
	bool no_sent;             /* has at times not asked for its own messages */
	struct bits received, got_ack;
	unsigned ids;
};

extern struct sim_device sim_devices[SIM_DEVICES];
extern struct sim_message sim_messages[SIM_MESSAGES];
extern unsigned sim_n_messages;
extern struct sim_send sim_sends[SIM_MESSAGES];
extern unsigned sim_n_sends;
extern unsigned sim_era;          /* counts connections of the message service: each starts its sessions anew */

struct sim_device *device_by_handle(uint64_t handle);
struct sim_device *device_by_client_id(const char *client_id);

int find_message(int conv, uint64_t seq);                      /* one that is there; -1 */
bool message_visible(const struct sim_message *m, int user);   /* by what the store says */
uint64_t newest_there(int conv);
bool device_known(unsigned device);                            /* the store has it */
void check_received(struct sim_device *dev, const struct sim_message *m); /* in order, without a hole; called before it is noted */
void check_acked(unsigned device, int conv, uint64_t seq);     /* and its ack is in the journal */

/* "key": as text or number in one of our own JSON texts, from `at` on. */
bool json_text(const char *at, const char *key, char *out, size_t room);
uint64_t json_number(const char *at, const char *key);

#endif
