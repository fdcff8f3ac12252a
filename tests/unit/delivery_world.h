/*
 * A world for delivery: a clock that only the test moves, a store whose answers come when the test lets
 * them, a link that keeps what it was given. Everything that could race is decided by the test's seed.
 */
#ifndef TESTS_DELIVERY_WORLD_H
#define TESTS_DELIVERY_WORLD_H

#include "delivery.h"

#include <jansson.h>

struct packet {
	uint64_t handle;
	int qos;
	bool has_props;
	char *topic;
	char *payload;  /* with a NUL behind */
	size_t len;
	char conv[IM_CONV_MAX]; /* of messages, as the reader sees it; "" = something else */
	uint64_t seq;
};

struct world {
	struct im_settings settings;
	struct roster *roster;
	struct delivery *delivery;
	struct packet *packets;
	size_t n_packets, cap_packets;
	unsigned deliveries;      /* calls of link_deliver: encodings */
	unsigned kicks;
	size_t pending;           /* what link_pending says */
	int64_t late_ms;          /* what link_late_ms says */
	int64_t proven_ms;        /* what link_proven_ms says; 0 = the plugin answers at once */
	int64_t wanted_ms;        /* the furthest that link_prove was asked for */
	uint64_t roster_version;
	bool fail_reads;
	bool behind;              /* what the plugin says of the next session named */
};

extern struct world world;

void world_create(unsigned seed);
void world_destroy(void);
void world_user(const char *name);
void world_member(const char *group, const char *user, uint64_t from_seq, uint64_t to_seq);
void world_connect(uint64_t handle, const char *user, const char *client_id, enum im_codec codec, const char *filters); /* "f,f"; keepalive 60 */
void world_connect_as(uint64_t handle, const char *user, const char *client_id, enum im_codec codec, const char *filters, unsigned protocol);
/* Stores a message and tells delivery at once; id of the sender's session or 0. conv canonical. Returns its sequence. */
uint64_t world_say(const char *conv, const char *from, const char *client_id, uint64_t session, const char *body);
/* Only the store knows it yet; world_tell hands the oldest such message to delivery. */
uint64_t world_store(const char *conv, const char *from, const char *client_id, uint64_t session, const char *body);
bool world_tell(void);
void world_tell_turn(void);       /* all of them in one turn of the loop */
void world_ack(const char *user, const char *client_id, const char *conv, uint64_t delivered, uint64_t read); /* conv as seen */
bool world_step(void);            /* one answer of the store; false: none is due */
void world_settle(void);          /* answers, flushes, until nothing is left to do now */
void world_pass_ms(int64_t ms);   /* timers fire on the way */
unsigned world_random(unsigned n); /* 0..n-1 */
uint64_t world_newest(const char *conv);
uint64_t world_cursor(const char *user, const char *device, const char *conv); /* as stored: delivered */
uint64_t world_read(const char *user, const char *conv);
bool world_device(const char *user, const char *device, bool *acks);
void world_age_device(const char *user, const char *device, int64_t ms);
void world_refusal(uint64_t key, int64_t ts, const char *user, const char *device, const char *code);
unsigned world_refusals_open(const char *user, const char *device);
unsigned world_waiting(void);     /* requests of the store not answered */
/* Packets for a session whose topic begins so, from packet number `from` on. */
unsigned world_count(uint64_t handle, const char *topic, size_t from);
const struct packet *world_packet(uint64_t handle, const char *topic, size_t from); /* the first, or NULL */

#endif
