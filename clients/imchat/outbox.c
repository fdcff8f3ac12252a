/* See outbox.h. */
#include "outbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct own *oldest_settled(struct outbox *o)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->all[i].tick >= TICK_STORED)
			return &o->all[i];
	return NULL;
}

struct own *outbox_add(struct outbox *o, const char *conv, const char *id, const char *text)
{
	struct own *settled, *m;
	char *copy;

	if (o->n == OUTBOX_MAX) {
		settled = oldest_settled(o);
		if (!settled)
			return NULL;
		outbox_remove(o, settled);
	}
	copy = strdup(text);
	if (!copy)
		return NULL;
	m = &o->all[o->n++];
	memset(m, 0, sizeof(*m));
	(void)snprintf(m->id, sizeof(m->id), "%s", id);
	(void)snprintf(m->conv, sizeof(m->conv), "%s", conv);
	m->text = copy;
	m->mid = -1;
	return m;
}

struct own *outbox_find(struct outbox *o, const char *id)
{
	for (size_t i = 0; *id && i < o->n; i++)
		if (strcmp(o->all[i].id, id) == 0)
			return &o->all[i];
	return NULL;
}

void outbox_remove(struct outbox *o, struct own *m)
{
	free(m->text);
	memmove(m, m + 1, (size_t)(o->all + o->n - (m + 1)) * sizeof(*m)); /* keeps the order */
	o->n--;
}

size_t outbox_waiting(const struct outbox *o)
{
	size_t n = 0;

	for (size_t i = 0; i < o->n; i++)
		n += o->all[i].tick < TICK_STORED;
	return n;
}

void outbox_finish(struct outbox *o)
{
	while (o->n > 0)
		free(o->all[--o->n].text);
}
