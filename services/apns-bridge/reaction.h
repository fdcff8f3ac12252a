/*
 * What an answer of Apple's means: its table of statuses and reasons as one const table. A row that may cost a token needs the
 * status and the reason: a status alone never does, but for 410, which says nothing else.
 */
#ifndef APNS_REACTION_H
#define APNS_REACTION_H

#include "push/driver.h"

/* What the driver itself has to do besides. */
enum reaction_act {
	REACTION_NOTHING = 0,
	REACTION_RECONNECT = 1,   /* this connection takes no more: it would answer the same */
	REACTION_JWT_EXPIRED = 2,
	REACTION_JWT_TOO_MANY = 4,
	REACTION_UNKNOWN = 8,     /* a word that is not in the table: counted */
};

struct reaction_case {
	int status;               /* HTTP's; 100..599 */
	const void *body;         /* need not be whole, JSON or text */
	size_t len;
	const char *retry_after;  /* the header's value; "" = none */
	unsigned attempt;         /* 1 = the first */
	bool other_env;           /* the app has another environment that the token may be of */
	bool certificate;         /* the connection shows one: no provider token is expected */
	int64_t now_ms;           /* UTC */
};

/* Fills class, status, reason, retry_after_ms and invalid_since_ms. Returns reaction_act bits. */
unsigned reaction_of(const struct reaction_case *c, struct push_result *out);

/* The class of a reason without a status, as a GOAWAY names it. PUSH_UNSENT: none that says more. */
enum push_class reaction_of_goaway(const char *reason);
/* `reason` if it is in the table, else "other": for labels, which must be few. */
const char *reaction_label(const char *reason);
/*
 * The word after "reason" in a JSON object, printable ASCII only; "" if there is none. Returns the 410's "timestamp" in ms, at most
 * now; 0 = none.
 */
int64_t reaction_read(const void *body, size_t len, int64_t now_ms, char reason[PUSH_REASON_MAX]);

#endif
