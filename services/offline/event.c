/* Posts system messages through the inbox, in the one order of the conversation. */
#include "event.h"

#include "base/clock.h"
#include "wire/envelope.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct post {
	struct call *call;
	event_build_fn *build;
	event_done_fn *done;
	struct commit *commit;    /* what `build` made, once it was decided */
};

static bool on_decided(void *arg, const struct message *m, struct batch *b)
{
	struct post *p = arg;
	struct change c = {0};

	p->build(p->call, m->seq, &c);
	p->commit = change_prepare(p->call, &c, change_answer);
	return p->commit != NULL && change_join(p->commit, b);
}

static void on_posted(void *arg, enum im_status st, struct message *m)
{
	struct post p = *(struct post *)arg;

	free(arg);
	if (p.commit != NULL)
		change_joined(p.commit, st);
	else if (call_step(p.call, st))
		p.done(p.call, m->seq);
}

static void post(struct call *call, const char *group, json_t *event, const struct post *how, const char *fmt, va_list ap)
{
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	struct post *p = malloc(sizeof(*p));
	char *body = event != NULL ? json_dumps(event, JSON_COMPACT) : NULL;
	char alt[IM_ALT_MAX + 1], conv[IM_CONV_MAX];

	json_decref(event);
	if (p == NULL || body == NULL) {
		free(p);
		free(body);
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
		return;
	}
	(void)vsnprintf(alt, sizeof(alt), fmt, ap); /* names are ASCII: a cut leaves valid text */
	(void)snprintf(conv, sizeof(conv), "g/%s", group);
	*p = *how;
	r.kind = IM__BUS__KIND__KIND_SEND;
	r.ts = im_clock_wall_ms();
	r.conv = conv;
	r.type = (char *)"system";
	r.enc = IM__V1__ENC__ENC_JSON;
	r.body.data = (uint8_t *)body;
	r.body.len = strlen(body);
	r.alt = alt;
	inbox_post(call->env->inbox, &r, conv, how->build != NULL ? on_decided : NULL, on_posted, p);
	free(body); /* the inbox has copied everything */
}

void event_change(struct call *call, const char *group, json_t *event, event_build_fn *build, const char *fmt, ...)
{
	struct post how = {.call = call, .build = build};
	va_list ap;

	va_start(ap, fmt);
	post(call, group, event, &how, fmt, ap);
	va_end(ap);
}

void event_post(struct call *call, const char *group, json_t *event, event_done_fn *done, const char *fmt, ...)
{
	struct post how = {.call = call, .done = done};
	va_list ap;

	va_start(ap, fmt);
	post(call, group, event, &how, fmt, ap);
	va_end(ap);
}

void event_end_stay(struct call *call, struct change *c, const char *group, const char *user, uint64_t seq)
{
	const struct roster_stay *stays;
	size_t n = roster_stays(call->env->roster, group, user, &stays);

	if (n > 0 && stays[n - 1].to_seq == 0)
		change_member(c, group, user, stays[n - 1].role, stays[n - 1].from_seq, seq);
}
