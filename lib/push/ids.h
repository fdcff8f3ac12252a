/*
 * What the provider sees instead of names: keyed hashes, the same in every attempt, so that a repeat replaces what it repeats. The key
 * is a file of its own: an outbox that had to be set aside must not change it.
 */
#ifndef IM_PUSH_IDS_H
#define IM_PUSH_IDS_H

#include "push/job.h"

struct push_ids {
	uint8_t key[32];
};

/* Reads {state_dir}/hash.key, or makes it. */
enum im_status push_ids_open(const char *state_dir, struct push_ids *out, struct im_err *err);
void push_ids_fill(const struct push_ids *ids, const struct push_job *j, struct push_send *out); /* uuid, collapse, thread */
/* For logs: the first 6 hex digits of the token's SHA-256. */
void push_ids_token(const char *token, char out[7]);

#endif
