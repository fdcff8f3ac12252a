/*
 * A Google service account: what it says of itself, and how it asks for an access token (RFC 7523: a JWT signed with its key,
 * exchanged at the token endpoint).
 */
#ifndef FCM_ACCOUNT_H
#define FCM_ACCOUNT_H

#include "push/access.h"
#include "push/app.h"

struct account;

/* Reads service_account_file. IM_BAD_INPUT: with file:line, what to fix. */
enum im_status account_create(const struct push_app *app, struct account **out, struct im_err *err);
void account_destroy(struct account *a); /* NULL is fine */
const char *account_project(const struct account *a);

/* For push_access_source; arg is of its caller. */
void account_request(const struct account *a, int64_t now_ms, struct push_request *r);
const char *account_answer(const struct json_t *answer, int64_t *life_s, char reason[PUSH_ACCESS_REASON]);
#define ACCOUNT_LIFE_S 3600

#endif
