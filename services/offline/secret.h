/*
 * Passwords and tokens on their way into the roster. Hashing a password costs tens of milliseconds and tens
 * of MiB, so it runs on pool threads, SECRET_THREADS at a time; the rest waits in order.
 */
#ifndef OFFLINE_SECRET_H
#define OFFLINE_SECRET_H

#include "base/conf.h"
#include "io/loop.h"

#define SECRET_THREADS 2     /* the store and the loop need the rest of a small machine */
#define SECRET_HASH_SIZE 128 /* of a PHC string with its NUL (crypto_pwhash_STRBYTES) */
#define SECRET_TOKEN_SIZE 48 /* "imt_" + 43 + NUL */
#define SECRET_TOKEN_ID_SIZE 13
#define SECRET_TOKEN_HASH 32

struct secret_queue;

struct secret_queue *secret_queue_create(struct im_loop *loop); /* NULL: out of memory */
void secret_queue_destroy(struct secret_queue *q);              /* NULL is fine; nothing may be under way */
void secret_queue_stop(struct secret_queue *q);                 /* what has not begun is answered with NULL, inside the call */

/* hash NULL: could not (memory). Called on the loop, never inside secret_hash_password. */
typedef void secret_fn(void *arg, const char *hash);
/* The password is copied and wiped after use. IM_FAILED: out of memory, done is not called. */
enum im_status secret_hash_password(struct secret_queue *q, const char *password, const struct im_settings *settings,
				    secret_fn *done, void *arg);

/* A new random token: its text for the user, its id for admins, its hash for the roster. */
void secret_make_token(char text[SECRET_TOKEN_SIZE], char id[SECRET_TOKEN_ID_SIZE], unsigned char hash[SECRET_TOKEN_HASH]);

#endif
