#include "push_decide.h"

#include <stddef.h>

static struct push_verdict drop(const char *reason)
{
	return (struct push_verdict){ PUSH_DROP, 0, reason };
}

/* What can never change back for this message and device. */
static const char *hopeless(const struct push_facts *f)
{
	if (f->own)
		return "own";
	if (f->system)
		return "system";
	if (!f->enabled)
		return "user_disabled";
	if (!f->visible)
		return "not_visible";
	if (f->got)
		return "got";
	if (f->read)
		return "read";
	if (f->deadline_ms && f->now_ms >= f->deadline_ms)
		return "expired";
	if (!f->token_good)
		return "token_invalid";
	return NULL;
}

/* What the recipient, or the size of the group, does not want. */
static const char *unwanted(const struct push_facts *f)
{
	if (f->blocked)
		return "blocked";
	if (f->muted && !(f->mentioned && f->mention_overrides))
		return "muted";
	if (f->members_most && f->members > f->members_most && !f->mentioned)
		return "large_group";
	if (f->unused_ms && f->seen_ms && f->now_ms - f->seen_ms > f->unused_ms)
		return "device_unused";
	if (f->connected && !f->acks)
		return "connected";
	return NULL;
}

struct push_verdict push_decide(const struct push_facts *f)
{
	const char *no = hopeless(f);
	int64_t after;

	if (!no)
		no = unwanted(f);
	if (no)
		return drop(no);
	after = f->stored_ms + f->grace_ms;
	if (f->connected && f->now_ms < after)
		return (struct push_verdict){ PUSH_WAIT, after, "grace" };
	after = f->stored_ms + f->active_ms;
	if (f->elsewhere && f->now_ms < after)
		return (struct push_verdict){ PUSH_HOLD, after, "active_elsewhere" };
	if (f->quiet_until_ms > f->now_ms)
		return f->deadline_ms && f->quiet_until_ms >= f->deadline_ms ? drop("quiet_hours")
									     : (struct push_verdict){ PUSH_HOLD, f->quiet_until_ms, "quiet_hours" };
	return (struct push_verdict){ PUSH_SEND, 0, "send" };
}

struct push_verdict push_decide_badge(const struct push_badge_facts *f)
{
	if (!f->enabled)
		return drop("user_disabled");
	if (!f->token_good)
		return drop("token_invalid");
	if (f->unused_ms && f->seen_ms && f->now_ms - f->seen_ms > f->unused_ms)
		return drop("device_unused");
	if (f->connected)
		return drop("connected");
	if (f->shown == 0 && f->badge <= 0)
		return drop("no_badge"); /* reading makes it only smaller */
	if (f->badge >= 0 && f->badge == f->shown)
		return drop("same_badge");
	return (struct push_verdict){ PUSH_SEND, 0, "send" };
}
