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
	event_done_fn *done;
};

static void on_posted(void *arg, enum im_status st, struct message *m)
{
	struct post *p = arg;
	struct call *call = p->call;
	event_done_fn *done = p->done;

	free(p);
	if (call_step(call, st))
		done(call, m->seq);
}

void event_post(struct call *call, const char *group, json_t *event, event_done_fn *done, const char *fmt, ...)
{
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	struct post *p = malloc(sizeof(*p));
	char *body = event != NULL ? json_dumps(event, JSON_COMPACT) : NULL;
	char alt[IM_ALT_MAX + 1], conv[IM_CONV_MAX];
	va_list ap;

	json_decref(event);
	if (p == NULL || body == NULL) {
		free(p);
		free(body);
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
		return;
	}
	va_start(ap, fmt);
	(void)vsnprintf(alt, sizeof(alt), fmt, ap); /* names are ASCII: a cut leaves valid text */
	va_end(ap);
	(void)snprintf(conv, sizeof(conv), "g/%s", group);
	*p = (struct post){call, done};
	r.kind = IM__BUS__KIND__KIND_SEND;
	r.ts = im_clock_wall_ms();
	r.conv = conv;
	r.type = (char *)"system";
	r.enc = IM__V1__ENC__ENC_JSON;
	r.body.data = (uint8_t *)body;
	r.body.len = strlen(body);
	r.alt = alt;
	inbox_post(call->env->inbox, &r, conv, on_posted, p);
	free(body); /* the inbox has copied everything */
}

void event_end_stay(struct call *call, struct change *c, const char *group, const char *user, uint64_t seq)
{
	const struct roster_stay *stays;
	size_t n = roster_stays(call->env->roster, group, user, &stays);

	if (n > 0 && stays[n - 1].to_seq == 0)
		change_member(c, group, user, stays[n - 1].role, stays[n - 1].from_seq, seq);
}
