/*
 * A device hears that its registration is worth nothing: evt/push, when that has become so and at each of its connects until it registers
 * anew. Nothing is remembered for it - the registration says it -, so no crash can lose it and no device has to acknowledge it.
 */
#include "push_part.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void tell(struct push *p, const Im__Bus__PushToken *t)
{
	json_t *event = json_pack("{s:s,s:s,s:s,s:s,s:I}", "provider", t->provider, "app", t->app, "state", "invalid", "reason", t->reason, "since",
				  (json_int_t)t->state_ms);
	char *json = event ? json_dumps(event, JSON_COMPACT) : NULL;

	if (json) /* out of memory: at the next connect */
		delivery_event(p->delivery, t->user, t->device, "push", json);
	free(json);
	json_decref(event);
}

static void on_invalid(void *arg, const struct push_device *d)
{
	tell(arg, d->stored);
}

static void on_greeted(void *arg, const char *user, const char *client_id)
{
	struct push *p = arg;

	for (const struct push_device *d = push_registry_of_user(p->registry, user); d; d = d->next)
		if (d->stored->state == IM__BUS__PUSH_STATE__PUSH_INVALID && strcmp(d->stored->device, client_id) == 0)
			tell(p, d->stored);
}

void notice_start(struct push *p)
{
	push_registry_on_invalid(p->registry, on_invalid, p);
	delivery_on_greeted(p->delivery, on_greeted, p);
}

void notice_stop(struct push *p)
{
	push_registry_on_invalid(p->registry, NULL, NULL);
	delivery_on_greeted(p->delivery, NULL, NULL);
}
