/* Filters of one device. */
#include "session_filter.h"

#include <stdlib.h>
#include <string.h>

void filters_free(struct session_filter *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free(f[i].filter);
	free(f);
}

bool filters_add(struct session_filter **f, unsigned *n, const char *filter, int qos)
{
	struct session_filter *more = realloc(*f, (*n + 1) * sizeof(*more));
	char *copy;

	if (!more)
		return false;
	*f = more;
	copy = strdup(filter);
	if (!copy)
		return false;
	more[*n] = (struct session_filter){ .filter = copy, .qos = (uint8_t)qos };
	(*n)++;
	return true;
}

int filters_find(const struct session_filter *f, unsigned n, const char *filter)
{
	for (unsigned i = 0; i < n; i++)
		if (strcmp(f[i].filter, filter) == 0)
			return (int)i;
	return -1;
}

void filters_remove(struct session_filter *f, unsigned *n, unsigned i)
{
	free(f[i].filter);
	f[i] = f[--*n];
}
