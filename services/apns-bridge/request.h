/* One notification on its way: what is sent, copied out of the core's send, and what has come back so far. */
#ifndef APNS_REQUEST_H
#define APNS_REQUEST_H

#include "base/buf.h"
#include "push/driver.h"

#include <stdbool.h>

#define REQUEST_ANSWER_MAX 4096  /* of a body: Apple's has 60 bytes */
#define REQUEST_HEADERS_MAX 8192 /* of an answer, names and values: Apple's have 100 bytes */
#define REQUEST_TOPIC_MAX 256
#define REQUEST_TOKEN_MAX 200    /* push_token_problem's */
#define REQUEST_SHORT_MAX 64

struct request {
	struct request *prev, *next; /* waiting in the pool, under way on a connection, or done (utlist.h) */
	uint64_t row;
	unsigned attempt;            /* 1 = the first */
	bool other_env;              /* the app serves another environment too */

	char path[sizeof("/3/device/") + REQUEST_TOKEN_MAX];
	char topic[REQUEST_TOPIC_MAX];
	char uuid[37], collapse[33], expiration[24];
	const char *type, *priority;
	struct im_buf body;
	size_t body_at;              /* handed to the connection so far */
	unsigned generation;         /* of the provider token it went with */

	int64_t since_ms;            /* of waiting, then of being under way */
	int32_t stream;
	bool sent;                   /* whole, as far as we know: from here on it may have been processed */
	bool timed_out, cut;         /* cut: the answer's body was longer than any of Apple's */
	int status;                  /* HTTP's; 0: none yet */
	size_t headers;              /* bytes of them so far */
	struct im_buf answer;
	char retry_after[REQUEST_SHORT_MAX];
	struct push_result result;   /* provider_id as it comes; the rest when it is done */
};

struct request_app {
	const char *topic, *sound, *loc_key;
	bool other_env;
};

/* NULL: out of memory, or *problem says what Apple would not take of it. */
struct request *request_create(const struct push_send *s, bool minimal, const struct request_app *app, int64_t now_ms,
			       const char **problem);
void request_destroy(struct request *r);

#endif
