/*
 * Client ids of sessions that the broker keeps for users who are not ours, so that no chat user takes one over. At
 * start they are read from the broker's own file, which is exactly what it has restored; from then on they are
 * followed. In memory only: a session that is in no file dies with the broker.
 */
#ifndef PLUGIN_SESSION_OTHER_H
#define PLUGIN_SESSION_OTHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OTHERS_MAX 1000000u /* about 150 bytes each, where the broker has 2 KiB; beyond it the oldest is forgotten */

struct others;

struct others *others_create(void); /* NULL: out of memory */
void others_destroy(struct others *o);

/* user "": anonymous. until_ms (wall): how long the id is theirs; INT64_MAX: until they say otherwise. */
void others_keep(struct others *o, const char *client_id, const char *user, int64_t until_ms);
void others_forget(struct others *o, const char *client_id);
/* Somebody else than `user` has a session under this id. */
bool others_claim(const struct others *o, const char *client_id, const char *user, int64_t now_ms);
size_t others_count(const struct others *o);

/* What mosquitto restored (its format 6). `skip` tells which ids are known better. Returns how many were kept; -1: not readable. */
typedef bool others_skip_fn(void *arg, const char *client_id);
long others_read(struct others *o, const char *path, int64_t now_ms, others_skip_fn *skip, void *arg);

#endif
