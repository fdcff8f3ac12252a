/*
 * Access tokens for a Google service account (RFC 7523: a JWT signed with its key, exchanged at the token endpoint). One is
 * fetched at a time, before the old one ends; while there is none nothing is sent, and nothing is lost.
 */
#ifndef FCM_OAUTH_H
#define FCM_OAUTH_H

#include "base/status.h"
#include "io/http.h"

#include <stdbool.h>
#include <stdint.h>

struct oauth;
struct push_app;

typedef void oauth_ready_fn(void *arg); /* a new token is there */

/* Reads service_account_file. IM_BAD_INPUT: with file:line, what to fix. Fetches at once, and again whenever it is time. */
enum im_status oauth_create(struct im_loop *loop, struct im_http *http, const struct push_app *app, oauth_ready_fn *ready, void *arg,
			    struct oauth **out, struct im_err *err);
void oauth_destroy(struct oauth *o); /* before http. NULL is fine */

const char *oauth_token(const struct oauth *o); /* NULL: none at the moment */
void oauth_refused(struct oauth *o, const char *token); /* the API took this one no more: a new one is fetched, unless that has happened */
const char *oauth_project(const struct oauth *o);
uint64_t oauth_fetches(const struct oauth *o);

#endif
