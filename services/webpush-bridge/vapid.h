/* Who we are, to a push service (RFC 8292): a JWT per origin, kept while it is good. */
#ifndef WEBPUSH_VAPID_H
#define WEBPUSH_VAPID_H

#include "base/status.h"

#include <stdint.h>

struct push_app;
struct vapid;

/* From vapid_key_file and subject of the app's file. IM_BAD_INPUT: with file:line, what to fix. */
enum im_status vapid_create(const struct push_app *app, struct vapid **out, struct im_err *err);
void vapid_destroy(struct vapid *v); /* NULL is fine */

/* Authorization's "vapid t=..., k=..." for this origin ("https://host[:port]"). Lives until the next call. NULL: out of memory. */
const char *vapid_header(struct vapid *v, const char *origin, int64_t now_ms);

#endif
