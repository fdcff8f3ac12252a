/* What the phone gets: the JSON of a notification, at most 4096 bytes of it. Too long a text is cut; the ids never are. */
#ifndef APNS_PAYLOAD_H
#define APNS_PAYLOAD_H

#include "base/buf.h"
#include "push.pb-c.h"

#include <stdbool.h>

#define PAYLOAD_MAX 4096 /* Apple's, in bytes of the whole JSON */

enum payload_kind {
	PAYLOAD_ALERT,      /* seen or heard: push type alert, priority 10 */
	PAYLOAD_BADGE,      /* only the number: push type alert, priority 5 */
	PAYLOAD_BACKGROUND, /* wakes the app: push type background, priority 5 */
};

struct payload_spec {
	const Im__Push__Job *job;
	const Im__Push__Ticket *ticket;
	const char *thread;  /* groups by conversation */
	const char *sound;   /* "" = none */
	const char *loc_key; /* of the app's Localizable.strings, instead of our general text; "" = none */
	bool minimal;        /* ids only, no text */
};

/* Appends the JSON (check out->failed). */
enum payload_kind payload_write(const struct payload_spec *spec, struct im_buf *out);

#endif
