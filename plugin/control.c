/* Who may command, and what is said when nobody is there to do it. */
#include "control.h"

#include "acl.h"
#include "plugin.h"
#include "wire/codec.h"

#include <string.h>

#define RESPONSE "$CONTROL/im/v1/response"

/* An answer in the form of all answers, so that a script needs one way to read them. */
static void answer_error(const struct session *s, const char *error)
{
	struct im_buf b;
	char *copy;

	im_buf_init(&b);
	im_buf_add_str(&b, "{\"responses\":[{\"command\":null,\"error\":");
	im_json_string(&b, error, strlen(error));
	im_buf_add_str(&b, "}]}");
	copy = b.failed ? NULL : broker_alloc(b.len);
	if (copy) {
		memcpy(copy, b.data, b.len);
		(void)broker_send(s->client_id, RESPONSE, copy, b.len, 1, NULL); /* only memory can be missing: the asker times out */
	}
	im_buf_finish(&b);
}

void control_message(struct plugin *p, const struct mosquitto *context, const char *topic, const void *payload, size_t len)
{
	struct session *s = session_by_context(p->sessions, context);
	struct im_refusal why;

	if (!s || s->kicked)
		return;
	if (!s->service && !acl_is_admin(&p->settings, s->user)) {
		im_refuse(&why, IM_REFUSE_NOT_ALLOWED, "%s is not among im_admins", s->user);
		(void)refuse_send(&p->settings, p->sessions, s, &why, topic, NULL); /* false: is being closed */
		return;
	}
	if (len > (s->service ? CONTROL_SERVICE_MAX : IM_REQUEST_MAX)) {
		answer_error(s, "too_big: the commands of one message are larger than the limit; send fewer at once");
		return;
	}
	if (!link_is_up(p->link)) {
		answer_error(s, "unavailable: the message service is not connected; try again");
		return;
	}
	if (!link_control(p->link, s, payload, len))
		answer_error(s, "unavailable: the message service does not keep up with what it is asked; try again");
}
