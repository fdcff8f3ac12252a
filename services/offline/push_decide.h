/*
 * Whether a message wakes a device: the one place where that is decided, a function of facts and nothing else. It is asked
 * when the message is new and again, with what is true then, at the moment of sending (docs/push.md).
 */
#ifndef OFFLINE_PUSH_DECIDE_H
#define OFFLINE_PUSH_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

enum push_what {
	PUSH_SEND,
	PUSH_WAIT,  /* connected and acks: ask again at until_ms */
	PUSH_HOLD,  /* not now; at until_ms */
	PUSH_DROP,
};

/* What is known. Times are UTC, ms; 0 of a limit: none. */
struct push_facts {
	int64_t now_ms;
	int64_t stored_ms;       /* the message's time */
	int64_t deadline_ms;     /* after it nobody wants it */
	bool own;                /* sent by the recipient, from whichever device */
	bool system;             /* no person said it */
	bool visible;            /* the recipient may see it: party, or member at that sequence and still one */
	bool enabled;            /* the recipient is a user who may log in */
	bool blocked;            /* the recipient blocks the sender */
	bool muted;              /* the recipient muted the conversation (settings to come) */
	bool mentioned;          /* by name, or all of the group */
	bool mention_overrides;  /* ... and wants to hear of it though muted */
	unsigned members;        /* of the group, 0: two parties */
	unsigned members_most;   /* larger groups: mentions only */
	bool got;                /* the device's cursor has passed it */
	bool read;               /* the user's has */
	bool connected;          /* this device has a session ... */
	bool acks;               /* ... and has ever acknowledged */
	bool elsewhere;          /* another device of the user, connected, has got it */
	int64_t grace_ms;        /* for a connected device that acks */
	int64_t active_ms;       /* head start of the device elsewhere */
	int64_t seen_ms;         /* the device's last sign of life */
	int64_t unused_ms;       /* a device silent for longer is not pushed */
	bool token_good;         /* not known to be dead */
	int64_t quiet_until_ms;  /* 0: not in quiet hours */
};

struct push_verdict {
	enum push_what what;
	int64_t until_ms;        /* PUSH_WAIT, PUSH_HOLD */
	const char *reason;      /* a word, for explain and counters: "read", "quiet_hours" ... "send" */
};

struct push_verdict push_decide(const struct push_facts *f);

/* Whether the number on a device's icon is corrected, because something was read on another: asked likewise, before it is counted and with it. */
struct push_badge_facts {
	bool enabled, token_good, connected; /* as above; a connected device hears of it and counts itself */
	int64_t now_ms, seen_ms, unused_ms;  /* likewise */
	int shown;               /* what it was told last; -1: not known */
	int badge;               /* what is true; -1: not counted yet */
};
struct push_verdict push_decide_badge(const struct push_badge_facts *f); /* PUSH_SEND or PUSH_DROP */

#endif
