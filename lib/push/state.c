#include "push/state.h"

#include "push/backoff.h"

const char *push_state_name(enum push_state s)
{
	static const char *const names[PUSH_STATES] = {"ready",	   "held",	"retry",     "inflight", "accepted",
						       "dead",	   "cancelled", "coalesced", "expired"};

	return (unsigned)s < PUSH_STATES ? names[s] : "unknown";
}

static void end_dead(struct push_step *s, const char *why)
{
	s->state = PUSH_STATE_DEAD;
	s->why = why;
}

/* Nobody wants it after its deadline. */
static void wait_for(struct push_step *s, enum push_state state, int64_t delay_ms, int64_t left_ms)
{
	s->state = delay_ms < left_ms ? state : PUSH_STATE_EXPIRED;
	s->delay_ms = s->state == PUSH_STATE_EXPIRED ? 0 : delay_ms;
}

static void count_and_retry(struct push_step *s, const struct push_result *r, int64_t left_ms, uint32_t random)
{
	s->life.attempts++;
	if (s->life.attempts >= PUSH_ATTEMPTS_MAX)
		end_dead(s, "attempts");
	else
		wait_for(s, PUSH_STATE_RETRY, push_backoff_ms(s->life.attempts, r->retry_after_ms, random), left_ms);
}

static void again_unsent(struct push_step *s, int64_t left_ms, uint32_t random)
{
	s->life.unsent++;
	wait_for(s, PUSH_STATE_READY, push_unsent_ms(s->life.unsent, random), left_ms);
}

static void hold_for_config(struct push_step *s)
{
	s->state = PUSH_STATE_HELD;
	s->why = "config";
	s->effect = PUSH_EFFECT_CONFIG;
	s->alarm = true;
}

static void hold_token(struct push_step *s, const struct push_result *r, int64_t left_ms, uint32_t random)
{
	s->life.attempts++;
	s->token = PUSH_TOKEN_HOLD;
	s->effect = PUSH_EFFECT_GOOD;
	if (s->life.attempts >= PUSH_ATTEMPTS_MAX) {
		end_dead(s, "attempts");
		return;
	}
	s->why = "token_rate";
	wait_for(s, PUSH_STATE_HELD, push_backoff_ms(1, r->retry_after_ms > PUSH_TOKEN_HOLD_MS ? r->retry_after_ms : PUSH_TOKEN_HOLD_MS, random),
		 left_ms);
}

/* The guard has the last word; a suspect's job is the one that asks again in an hour. */
static void against_token(struct push_step *s, const struct push_result *r, int64_t left_ms, enum push_belief belief, uint32_t random)
{
	int64_t wait;

	s->effect = PUSH_EFFECT_GOOD;
	if (belief == PUSH_BELIEF_NEWER) {
		count_and_retry(s, r, left_ms, random);
	} else if (belief == PUSH_BELIEF_INVALID) {
		s->token = PUSH_TOKEN_DROP;
		end_dead(s, "token");
	} else {
		s->token = PUSH_TOKEN_SUSPECT;
		s->why = "token_suspect";
		wait = left_ms > PUSH_GUARD_CONFIRM_MS ? PUSH_GUARD_CONFIRM_MS : left_ms - 1; /* new files may hurry it before its deadline */
		wait_for(s, PUSH_STATE_HELD, wait > 0 ? wait : 0, left_ms);
	}
}

static void again_minimal(struct push_step *s, int64_t left_ms)
{
	s->effect = PUSH_EFFECT_GOOD;
	s->life.attempts++;
	if (s->life.minimal) {
		end_dead(s, "bug");
		s->alarm = true;
		return;
	}
	s->life.minimal = true;
	wait_for(s, PUSH_STATE_READY, 0, left_ms);
}

bool push_speaks_against_token(const struct push_life *life, const struct push_result *r, bool other_env)
{
	return r->class == PUSH_TOKEN_INVALID || (r->class == PUSH_TOKEN_ENV && (life->other_env || !other_env));
}

struct push_step push_next(const struct push_life *life, const struct push_result *r, int64_t left_ms, bool other_env, enum push_belief belief,
			   uint32_t random)
{
	struct push_step s = {.state = PUSH_STATE_ACCEPTED, .life = *life};

	s.life.auth_tried = false;
	s.life.unsent = 0;
	switch (r->class) {
	case PUSH_ACCEPTED:
		s.effect = PUSH_EFFECT_GOOD;
		s.token = PUSH_TOKEN_GOOD;
		break;
	case PUSH_UNSENT:
	case PUSH_UNREACHABLE:
		s.life = *life;
		s.effect = r->class == PUSH_UNSENT ? PUSH_EFFECT_NONE : PUSH_EFFECT_BAD;
		again_unsent(&s, left_ms, random);
		break;
	case PUSH_UNKNOWN:
		s.life.maybe_dup = true;
		s.effect = PUSH_EFFECT_BAD;
		count_and_retry(&s, r, left_ms, random);
		break;
	case PUSH_RETRY:
		s.effect = PUSH_EFFECT_BAD;
		count_and_retry(&s, r, left_ms, random);
		break;
	case PUSH_TOKEN_RATE:
		hold_token(&s, r, left_ms, random);
		break;
	case PUSH_RATE:
		s.effect = PUSH_EFFECT_RATE;
		s.effect_ms = r->retry_after_ms > 0 ? r->retry_after_ms : PUSH_RATE_HOLD_MS;
		count_and_retry(&s, r, left_ms, random);
		break;
	case PUSH_QUOTA:
		s.state = PUSH_STATE_HELD;
		s.why = "quota";
		s.effect = PUSH_EFFECT_QUOTA;
		s.effect_ms = r->hold_until_ms;
		break;
	case PUSH_AUTH:
		s.life.auth_tried = true;
		wait_for(&s, PUSH_STATE_READY, 0, left_ms);
		if (life->auth_tried)
			hold_for_config(&s);
		break;
	case PUSH_CONFIG:
		hold_for_config(&s);
		break;
	case PUSH_TOKEN_ENV:
	case PUSH_TOKEN_INVALID:
		if (push_speaks_against_token(life, r, other_env)) {
			against_token(&s, r, left_ms, belief, random);
			break;
		}
		s.effect = PUSH_EFFECT_GOOD;
		s.life.attempts++;
		s.life.other_env = true;
		wait_for(&s, PUSH_STATE_READY, 0, left_ms);
		break;
	case PUSH_TOO_LARGE:
		again_minimal(&s, left_ms);
		break;
	case PUSH_CONTENT:
	case PUSH_BUG:
		s.effect = PUSH_EFFECT_GOOD;
		end_dead(&s, r->class == PUSH_BUG ? "bug" : "content");
		s.alarm = true;
		break;
	}
	return s;
}
