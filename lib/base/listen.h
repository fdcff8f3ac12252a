/* Where a service listens, as people write it: 127.0.0.1:8080, [::1]:8080. Names are not resolved. */
#ifndef IM_BASE_LISTEN_H
#define IM_BASE_LISTEN_H

#include <stdbool.h>
#include <sys/socket.h>

bool im_listen_parse(const char *text, struct sockaddr_storage *out); /* false: not such an address, or no port from 1 on */
bool im_listen_is_local(const struct sockaddr_storage *a);            /* only this host can come there */

#endif
