/*
 * The provider token: a JWT signed with the team's key (ES256). Apple takes it for an hour and wants at least 20 minutes between two,
 * from everybody who has the key, over restarts too: so there is one per key in this process, and it is kept in a file.
 */
#ifndef APNS_TOKEN_H
#define APNS_TOKEN_H

#include "base/status.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

#define TOKEN_BEARER_SIZE 512 /* "bearer " and the JWT, which has about 210 bytes */

struct token;

/*
 * `key` is shared, not taken over; it must be on P-256 (token_key_problem). Reads what an earlier process kept in `state_dir`.
 * Mints nothing. IM_FAILED: out of memory, or the folder cannot be read.
 */
enum im_status token_open(const char *state_dir, const char *team, const char *kid, EVP_PKEY *key, struct token **out, struct im_err *err);
void token_close(struct token *t); /* NULL is fine */

/* What is wrong with the key; NULL: it can sign provider tokens. */
const char *token_key_problem(const EVP_PKEY *key);

/*
 * The authorization header's value, minted if it is time to; it lives until the next call. NULL: none may be used for *wait_ms more.
 * *generation names it when its fate is told below.
 */
const char *token_get(struct token *t, unsigned *generation, int64_t *wait_ms);
void token_accepted(struct token *t, unsigned generation);
void token_expired(struct token *t, unsigned generation);  /* ExpiredProviderToken */
void token_too_many(struct token *t, unsigned generation); /* TooManyProviderTokenUpdates */

bool token_is(const struct token *t, const char *team, const char *kid, const EVP_PKEY *key);
int64_t token_age_ms(const struct token *t); /* -1: there is none */
unsigned token_mints(const struct token *t); /* since the start */
const char *token_kid(const struct token *t);

#endif
