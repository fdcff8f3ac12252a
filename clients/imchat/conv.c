/* See conv.h. The order of own messages is the difficult part: their sequences come by acks, which may overtake deliveries. */
#include "conv.h"

#include <stdlib.h>
#include <string.h>

static bool is_address(const char *name)
{
	size_t len = strlen(name);

	return len > 2 && len < CONV_NAME_LEN && (name[0] == 'u' || name[0] == 'g') && name[1] == '/' && !strpbrk(name + 2, "/+# ");
}

struct conv *convs_get(struct convs *c, const char *name)
{
	struct conv *v;

	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->all[i]->name, name) == 0)
			return c->all[i];
	if (!is_address(name) || c->n == CONVS_MAX || !(v = calloc(1, sizeof(*v))))
		return NULL;
	memcpy(v->name, name, strlen(name) + 1);
	c->all[c->n++] = v;
	return v;
}

void convs_forget(struct convs *c)
{
	for (size_t i = 0; i < c->n; i++) {
		struct conv fresh = {0};

		memcpy(fresh.name, c->all[i]->name, sizeof(fresh.name));
		*c->all[i] = fresh;
	}
}

void convs_finish(struct convs *c)
{
	while (c->n > 0)
		free(c->all[--c->n]);
}

enum arrival conv_arrival(const struct conv *v, int64_t seq, int64_t prev)
{
	if (seq <= v->seen)
		return ARRIVAL_REPEAT;
	if (v->wanted > 0 || (v->seen > 0 && prev > v->seen))
		return ARRIVAL_GAP;
	return ARRIVAL_NEXT;
}

/* Takes own sequences that follow what was seen; drops those below. */
static void absorb_own(struct conv *v)
{
	size_t i = 0;

	while (i < v->n_own) {
		if (v->own[i] > v->seen + 1) {
			i++;
			continue;
		}
		if (v->own[i] == v->seen + 1)
			v->seen++;
		v->own[i] = v->own[--v->n_own];
		i = 0; /* one passed over may follow now */
	}
}

void conv_shown(struct conv *v, int64_t seq)
{
	if (seq > v->seen)
		v->seen = seq;
	absorb_own(v);
	v->to_ack = true;
}

void conv_stored(struct conv *v, int64_t seq)
{
	int64_t before = v->seen;

	if (seq <= v->seen || v->n_own == CONV_OWN_MAX)
		return;
	v->own[v->n_own++] = seq;
	if (v->seen > 0 || seq == 1)
		absorb_own(v);
	v->to_ack = v->to_ack || v->seen > before;
}
