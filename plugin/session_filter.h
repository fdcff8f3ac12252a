/* The filters below im/ that a device has subscribed to: a small array, since im_filters bounds it. */
#ifndef PLUGIN_SESSION_FILTER_H
#define PLUGIN_SESSION_FILTER_H

#include <stdbool.h>
#include <stdint.h>

struct session_filter {
	char *filter;
	uint8_t qos;             /* granted, at most 1 */
};

void filters_free(struct session_filter *f, unsigned n);
bool filters_add(struct session_filter **f, unsigned *n, const char *filter, int qos); /* false: out of memory */
int filters_find(const struct session_filter *f, unsigned n, const char *filter);      /* -1: not there */
void filters_remove(struct session_filter *f, unsigned *n, unsigned i);

#endif
