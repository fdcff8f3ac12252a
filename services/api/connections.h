/*
 * How long connections may take. The library ends one on which nothing moves; somebody who sends a byte now and then, or takes one,
 * would keep a place for days. So a request and its answer have a time in which all of it must have moved.
 */
#ifndef API_CONNECTIONS_H
#define API_CONNECTIONS_H

#include "io/loop.h"

#include <microhttpd.h>

struct connections;

struct connections *connections_create(struct im_loop *loop); /* NULL: out of memory */
/* After the daemon's end, which ends all of them. NULL is fine. */
void connections_destroy(struct connections *all);
/* MHD_OPTION_NOTIFY_CONNECTION, with them as its argument. */
void connections_notify(void *arg, struct MHD_Connection *connection, void **mine, enum MHD_ConnectionNotificationCode code);
/* Its answer has been sent: the time for the next request begins. */
void connections_renew(struct connections *all, struct MHD_Connection *connection);

#endif
