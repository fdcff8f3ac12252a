/* Questions about decisions (imctl why, imctl status): the same deciders as the real path, asked without an event. */
#ifndef PLUGIN_WHY_H
#define PLUGIN_WHY_H

#include "base/buf.h"

/* A link_query_fn; arg is the struct plugin. */
void why_query(void *arg, const char *json, struct im_buf *out);

#endif
