/*
 * Seals what a request must not leave in the journal in the clear (wire/sealed.h). The key is the message service's to make; here it is read
 * when it is first needed, and again when the file is another: a stat for each push.register, which comes once in an app's start.
 */
#ifndef PLUGIN_SEALING_H
#define PLUGIN_SEALING_H

#include "base/conf.h"
#include "bus.pb-c.h"
#include "wire/envelope.h"

struct sealing;

struct sealing *sealing_create(const struct im_settings *settings); /* NULL: out of memory */
void sealing_destroy(struct sealing *s); /* NULL is fine */
/* Replaces r->args if r->method is one whose arguments are sealed. IM_BUSY: there is no key (yet). IM_FAILED: out of memory. */
enum im_status sealing_args(struct sealing *s, struct im_arena *a, Im__Bus__Record *r);

#endif
