/* What delivery knows of a device at this moment, for whoever would otherwise wake it. */
#include "session.h"

#include <string.h>

static bool has_got(struct delivery *d, const struct device *dev, const char *conv, uint64_t seq)
{
	struct conversation *c = conversation_find(d, conv);
	struct reader *r = c ? reader_find(dev, c) : NULL;

	return r && r->cursor.delivered >= seq;
}

void delivery_presence(struct delivery *d, const char *user, const char *client_id, const char *conv, uint64_t seq,
		       struct delivery_presence *out)
{
	struct account *a = account_find(d, user);

	memset(out, 0, sizeof(*out));
	for (const struct device *dev = a ? a->devices : NULL; dev; dev = dev->next) {
		if (strcmp(dev->client_id, client_id) != 0) {
			out->elsewhere |= dev->session && dev->acks && has_got(d, dev, conv, seq);
			continue;
		}
		out->connected = dev->session != NULL;
		out->acks = dev->acks;
		out->got = dev->loaded && has_got(d, dev, conv, seq);
	}
}
