/*
 * A provider's access token: asked for (or signed) before the one in use ends, one request at a time, with backoff. While
 * there is none the driver has no room: nothing is sent, and nothing is lost.
 */
#ifndef IM_PUSH_ACCESS_H
#define IM_PUSH_ACCESS_H

#include "push/request.h"

#include <stdint.h>

#define PUSH_ACCESS_REASON 64

struct push_access;

struct push_access_source {
	const char *name;           /* for the log: provider and app */
	/* Fills the request; NULL: `sign` makes the token here. Sets r->failed if it cannot. */
	void (*request)(void *arg, int64_t now_ms, struct push_request *r);
	/* The token in an answer with status 200 and its life in seconds (0: not said); NULL: none, `reason` says why. */
	const char *(*answer)(void *arg, const struct json_t *answer, int64_t *life_s, char reason[PUSH_ACCESS_REASON]);
	bool (*sign)(void *arg, int64_t now_ms, struct im_buf *out, int64_t *life_s);
	int64_t most_s;             /* renewed after so long, whatever was said */
	void (*ready)(void *arg);   /* a new token is there; not from inside push_access_create */
	void *arg;
};

/* Begins at once. `source` is copied, but what it points to must stay. */
enum im_status push_access_create(struct im_loop *loop, struct im_http *http, const struct push_access_source *source, struct push_access **out,
				  struct im_err *err);
void push_access_destroy(struct push_access *a); /* before http, or with it just destroyed; NULL is fine */

const char *push_access_token(const struct push_access *a); /* NULL: none at the moment */
void push_access_refused(struct push_access *a, const char *token); /* the provider took this one no more; an older one changes nothing */
uint64_t push_access_fetches(const struct push_access *a);

#endif
