/*
 * What becomes of a job when the driver has said what came of it: one pure function, the table of docs/push.md. The caller does what
 * the step says: writes the state, moves the breaker, holds the token, tells of it.
 */
#ifndef IM_PUSH_STATE_H
#define IM_PUSH_STATE_H

#include "push/driver.h"
#include "push/guard.h"

/* As kept in the outbox: numbers do not change. */
enum push_state {
	PUSH_STATE_READY = 0,
	PUSH_STATE_HELD = 1,
	PUSH_STATE_RETRY = 2,
	PUSH_STATE_INFLIGHT = 3,
	PUSH_STATE_ACCEPTED = 4, /* final, as all that follow */
	PUSH_STATE_DEAD = 5,
	PUSH_STATE_CANCELLED = 6,
	PUSH_STATE_COALESCED = 7,
	PUSH_STATE_EXPIRED = 8,
};
#define PUSH_STATES 9

const char *push_state_name(enum push_state s);
static inline bool push_state_is_final(enum push_state s)
{
	return s >= PUSH_STATE_ACCEPTED;
}

#define PUSH_TOKEN_HOLD_MS 30000    /* at least, for a token that the provider calls hot */
#define PUSH_RATE_HOLD_MS 5000      /* of an app, if the provider does not say how long */
#define PUSH_RECOVERED_MAX 20u      /* a job that was under way at so many deaths of the bridge is taken for their cause */

/* What a job has been through; kept with it. */
struct push_life {
	unsigned attempts;    /* counted ones */
	unsigned recovered;   /* found INFLIGHT at a start */
	unsigned unsent;      /* in a row; not kept */
	bool maybe_dup;       /* an outcome was unknown: the device may have it twice */
	bool minimal;         /* without text: it was too large */
	bool other_env;       /* to be sent in the other environment */
	bool auth_tried;      /* refused for our access token, the last time */
};

enum push_effect {            /* on the app's breaker */
	PUSH_EFFECT_NONE,     /* it was not sent */
	PUSH_EFFECT_GOOD,
	PUSH_EFFECT_BAD,
	PUSH_EFFECT_RATE,     /* open for effect_ms */
	PUSH_EFFECT_QUOTA,    /* open until effect_ms, UTC */
	PUSH_EFFECT_CONFIG,
};

enum push_token_effect { PUSH_TOKEN_NOTHING, PUSH_TOKEN_GOOD, PUSH_TOKEN_HOLD, PUSH_TOKEN_SUSPECT, PUSH_TOKEN_DROP };

struct push_step {
	enum push_state state;
	int64_t delay_ms;     /* RETRY, HELD: from now */
	struct push_life life;
	const char *why;      /* of DEAD and HELD: token, config, bug, content, attempts, ...; else NULL */
	enum push_effect effect;
	int64_t effect_ms;
	enum push_token_effect token;
	bool alarm;           /* somebody must act */
};

/*
 * left_ms: until the job's deadline. other_env: there is another environment, and the token's own is not known.
 * belief: what the guard says; used only when the result speaks against the token.
 */
struct push_step push_next(const struct push_life *life, const struct push_result *r, int64_t left_ms, bool other_env, enum push_belief belief,
			   uint32_t random);
/* Does the result speak against the token, so that the guard is to be asked? */
bool push_speaks_against_token(const struct push_life *life, const struct push_result *r, bool other_env);

#endif
