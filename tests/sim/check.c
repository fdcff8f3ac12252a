/*
 * The rules (docs/delivery.md), as things that may never be seen. The store's log is the truth: what is in it was
 * promised, what is not in it must not have been told to anybody.
 */
#include "check.h"

#include "clients.h"
#include "roster/roster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEDUPE_MS (7ll * 24 * 3600 * 1000)

void check_not_ghosts(uint32_t section, uint64_t seq, const char *conv);

struct sim_message sim_messages[SIM_MESSAGES];
unsigned sim_n_messages;

static struct roster *truth;
static struct position last;              /* of the journal, as the log has it */
static struct {
	bool known;
	uint64_t delivered[SIM_CONVS], start[SIM_CONVS];
} stored[SIM_DEVICES];

/*
 * A device's ack says that it lacks nothing below, what lies before its beginning included. In an older copy of the store
 * its beginning may be an earlier one, or none yet; the ack comes from the journal again and says the same.
 */
static struct {
	uint64_t here[SIM_CONVS], before_copy[SIM_CONVS];
} acked_over[SIM_DEVICES];

/* ---- looking up */

int sim_conv_of(const char *canonical)
{
	for (int i = 0; i < (int)SIM_CONVS; i++)
		if (strcmp(sim_conv_names[i], canonical) == 0)
			return i;
	return -1;
}

int find_message(int conv, uint64_t seq)
{
	for (unsigned i = sim_n_messages; i-- > 0;)
		if (sim_messages[i].conv == conv && sim_messages[i].seq == seq && sim_messages[i].there)
			return (int)i;
	return -1;
}

uint64_t newest_there(int conv)
{
	for (unsigned i = sim_n_messages; i-- > 0;)
		if (sim_messages[i].conv == conv && sim_messages[i].there)
			return sim_messages[i].seq;
	return 0;
}

bool message_visible(const struct sim_message *m, int user)
{
	const char *conv = sim_conv_names[m->conv];
	char face[IM_CONV_MAX];

	if (im_conv_is_group(conv))
		return roster_may_see(truth, conv + 2, sim_users[user], m->seq);
	return im_conv_as_seen(conv, sim_users[user], face);
}

bool device_known(unsigned device)
{
	return stored[device].known;
}

static int user_of(const char *name)
{
	for (int i = 0; i < 3; i++)
		if (strcmp(sim_users[i], name) == 0)
			return i;
	return -1;
}

/* ---- what becomes durable */

static bool after(const struct position *a, const struct position *b)
{
	return a->epoch != b->epoch ? a->epoch > b->epoch : a->next > b->next;
}

static void check_new(const struct message *m, int conv)
{
	if (m->seq <= newest_there(conv))
		sim_fail("%s: sequence %llu is stored behind %llu", m->conv, (unsigned long long)m->seq, (unsigned long long)newest_there(conv));
	for (unsigned i = 0; i < sim_n_messages; i++) {
		const struct sim_message *o = &sim_messages[i];

		if (o->conv == conv && o->seq == m->seq)
			sim_fail("%s: sequence %llu was given before, to %s", m->conv, (unsigned long long)m->seq, o->msgid);
		if (!o->there)
			continue;
		if (strcmp(o->msgid, m->msgid) == 0)
			sim_fail("%s is stored twice", m->msgid);
		if (m->id[0] && strcmp(o->id, m->id) == 0 && o->device >= 0 && strcmp(sim_devices[o->device].client_id, m->client_id) == 0 &&
		    m->ts - o->ts < DEDUPE_MS)
			sim_fail("%s of %s is stored twice: %s %llu and %llu", m->id, m->client_id, m->conv, (unsigned long long)o->seq,
				 (unsigned long long)m->seq);
	}
	check_not_ghosts(m->section, m->seq, m->conv);
}

static void add_message(const struct message *m)
{
	struct sim_device *dev = device_by_client_id(m->client_id);
	int conv = sim_conv_of(m->conv);
	struct sim_message *n;

	if (conv < 0)
		sim_fail("a message of %s", m->conv);
	check_new(m, conv);
	if (sim_n_messages == SIM_MESSAGES)
		sim_fail("more than %u messages", SIM_MESSAGES);
	n = &sim_messages[sim_n_messages];
	*n = (struct sim_message){.conv = conv, .user = user_of(m->from), .device = dev ? (int)(dev - sim_devices) : -1, .seq = m->seq,
				  .ts = m->ts, .send = -1, .there = true};
	(void)snprintf(n->msgid, sizeof(n->msgid), "%s", m->msgid);
	(void)snprintf(n->id, sizeof(n->id), "%s", m->id);
	if (dev) {
		struct sim_send *send;

		n->send = atoi((const char *)m->body + 1);
		send = &sim_sends[n->send];
		if (!send->accepted && !send->maybe)
			sim_fail("%s %llu was refused to its sender", m->conv, (unsigned long long)m->seq);
		if (send->stored >= 0)
			sim_fail("n%d is stored twice: %s %llu and %llu", n->send, m->conv, (unsigned long long)sim_messages[send->stored].seq,
				 (unsigned long long)m->seq);
		send->stored = (int)sim_n_messages;
	}
	COUNT(stored);
	sim_n_messages++;
	sim_trace("  durable: %s %llu %s \"%.*s\"", m->conv, (unsigned long long)m->seq, m->id, (int)(m->body_len < 40 ? m->body_len : 40),
		  (const char *)m->body);
}

static void add_cursor(const struct store_cursor *c, bool again)
{
	struct sim_device *dev = device_by_client_id(c->device);
	int conv = sim_conv_of(c->conv);
	unsigned i = dev ? (unsigned)(dev - sim_devices) : 0;

	if (conv < 0)
		sim_fail("a cursor of %s", c->conv);
	if (!again && (c->delivered > newest_there(conv) || c->read > newest_there(conv)))
		sim_fail("%s: a cursor of %s at %llu, read %llu, and the newest is %llu", c->conv, c->device, (unsigned long long)c->delivered,
			 (unsigned long long)c->read, (unsigned long long)newest_there(conv));
	if (!dev)
		return;
	if (stored[i].delivered[conv] < c->delivered) {
		stored[i].delivered[conv] = c->delivered;
		if (!again)
			COUNT(cursors_moved);
	}
	sim_trace("  durable: %s %s delivered %llu", c->device, c->conv, (unsigned long long)c->delivered);
}

static void add_device(const struct store_device *d, bool again)
{
	struct sim_device *dev = device_by_client_id(d->device);
	unsigned i = (unsigned)(dev - sim_devices);

	if (d->removed) {
		if (!again)
			COUNT(forgotten_devices);
		memset(&stored[i], 0, sizeof(stored[i]));
		if (!again)
			memset(&acked_over[i], 0, sizeof(acked_over[i]));
	} else if (!stored[i].known) {
		if (!again)
			COUNT(new_devices);
		stored[i].known = true;
		memcpy(stored[i].start, stored[i].delivered, sizeof(stored[i].start));
	}
	sim_trace("  durable: device %s%s", d->device, d->removed ? " is forgotten" : "");
}

static void add_roster(const struct entry *e)
{
	Im__Bus__RosterItem *item = im__bus__roster_item__unpack(NULL, e->packed.len, e->packed.data);

	if (!item || roster_apply(truth, item) != IM_OK)
		sim_fail("a roster item that is not newer");
	if (item->member)
		sim_trace("  durable: %s in %s from %llu to %llu", item->member->user, item->member->group, (unsigned long long)item->member->from_seq,
			  (unsigned long long)item->member->to_seq);
	im__bus__roster_item__free_unpacked(item, NULL);
}

/* `again`: it is what an older copy of the store has. */
static void add(const struct append *a, bool again)
{
	for (size_t i = 0; i < a->n; i++) {
		const struct entry *e = &a->entries[i];

		if (e->pos.node) {
			if (last.epoch == e->pos.epoch ? last.next > e->pos.next : after(&last, &e->pos))
				sim_fail("the log goes back from (%llu, %llu) to (%llu, %llu) of the journal", (unsigned long long)last.epoch,
					 (unsigned long long)last.next, (unsigned long long)e->pos.epoch, (unsigned long long)e->pos.next);
			last = e->pos;
		}
		switch (e->kind) {
		case STORE_MESSAGE:
			if (!again)
				add_message(e->message.m);
			break;
		case STORE_CURSOR: add_cursor(&e->cursor, again); break;
		case STORE_DEVICE: add_device(&e->device, again); break;
		case STORE_ROSTER: add_roster(e); break;
		case STORE_REFUSAL:
			if (!again)
				COUNT(refusals);
			break;
		default: break;
		}
	}
}

void check_durable(const struct append *a)
{
	add(a, false);
}

static void forget_truth(void)
{
	roster_destroy(truth);
	truth = roster_create();
	memset(stored, 0, sizeof(stored));
	memset(&last, 0, sizeof(last));
}

static bool in_log(struct append *const *log, size_t n, const char *msgid)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < log[i]->n; k++)
			if (log[i]->entries[k].kind == STORE_MESSAGE && strcmp(log[i]->entries[k].message.m->msgid, msgid) == 0)
				return true;
	return false;
}

void check_rolled_back(struct append *const *log, size_t n)
{
	for (unsigned i = 0; i < sim_n_messages; i++) {
		struct sim_message *m = &sim_messages[i];

		if (!m->there || in_log(log, n, m->msgid))
			continue;
		m->there = false;
		if (m->send >= 0)
			sim_sends[m->send].stored = -1;
	}
	for (unsigned i = 0; i < sim_n_sends; i++)
		if (sim_sends[i].stored < 0)
			sim_sends[i].may_be_lost = true; /* its journal may be gone: it was confirmed */
	for (unsigned i = 0; i < SIM_DEVICES; i++)
		memcpy(acked_over[i].before_copy, acked_over[i].here, sizeof(acked_over[i].here));
	forget_truth();
	for (size_t i = 0; i < n; i++)
		add(log[i], true);
}

void check_acked(unsigned device, int conv, uint64_t seq)
{
	uint64_t *over = &acked_over[device].here[conv], start = stored[device].start[conv];

	if (seq > start)
		seq = start;
	if (*over < seq)
		*over = seq;
}

/* ---- what leaves the service */

static uint64_t roster_of_turn;

/* What is handed over in a turn leaves at its end, or waits for the window: who is thrown out in between still gets it. */
void check_turn_ended(void)
{
	roster_of_turn = offline_roster_version();
}

static void check_message_told(const struct sim_device *dev, const char *payload)
{
	char face[80], canonical[IM_CONV_MAX], msgid[32];
	uint64_t seq = json_number(payload, "seq");
	int at = -1;

	sim_trace("  %s is told %.80s", dev->client_id, payload);
	if (!sim_healing && offline_is_live(dev->handle))
		COUNT(told_live);
	if (!json_text(payload, "msgid", msgid, sizeof(msgid)) || !json_text(payload, "conv", face, sizeof(face)) ||
	    !im_conv_canonical(sim_users[dev->user], face, canonical))
		sim_fail("%s is told %s", dev->client_id, payload);
	if (sim_conv_of(canonical) >= 0)
		at = find_message(sim_conv_of(canonical), seq);
	if (at < 0 || strcmp(sim_messages[at].msgid, msgid) != 0)
		sim_fail("%s is told %s %llu, and it is not durable", dev->client_id, canonical, (unsigned long long)seq);
	if (im_conv_is_group(canonical) && offline_roster_version() == roster_of_turn && sim_limits.link_window > 100000 &&
	    !offline_may_see(canonical + 2, sim_users[dev->user], seq))
		sim_fail("%s is told %s %llu, and may not see it", dev->client_id, canonical, (unsigned long long)seq);
}

static void check_acks_told(const struct sim_device *dev, const char *payload)
{
	for (const char *at = strstr(payload, "{"); at; at = strstr(at + 1, "{")) {
		char msgid[32], id[32] = "";
		uint64_t seq = json_number(at, "seq");
		bool durable = false;

		if (!json_text(at, "msgid", msgid, sizeof(msgid)))
			sim_fail("an ack without msgid");
		if (strncmp(at, "{\"id\":null", 10) != 0)
			(void)json_text(at, "id", id, sizeof(id));
		for (unsigned i = 0; i < sim_n_messages; i++)
			durable |= sim_messages[i].there && sim_messages[i].seq == seq && strcmp(sim_messages[i].msgid, msgid) == 0 &&
				   strcmp(sim_messages[i].id, id) == 0;
		if (!durable)
			sim_fail("%s gets an ack of %s as %llu, and it is not durable so", dev->client_id, msgid, (unsigned long long)seq);
		if (strncmp(strstr(at, "\"dup\":"), "\"dup\":true", 10) == 0)
			COUNT(dup_answers);
	}
}

void check_told(uint64_t handle, const char *topic, const char *payload, size_t len)
{
	const struct sim_device *dev = device_by_handle(handle);

	(void)len;
	if (!dev)
		return;
	if (strncmp(topic, "im/v1/in/msg/", 13) == 0 || strncmp(topic, "im/v1/in/sent/", 14) == 0)
		check_message_told(dev, payload);
	else if (strcmp(topic, "im/v1/in/ack") == 0)
		check_acks_told(dev, payload);
	else if (strcmp(topic, "im/v1/in/evt/sync") == 0 && strstr(payload, "begin"))
		COUNT(catchups);
}

/* ---- what a client reads */

/* An own message needs not come where its ack came, or where nobody asked for own ones. */
static bool needs_not(const struct sim_device *dev, unsigned at, const struct bits *acks)
{
	const struct sim_message *m = &sim_messages[at];

	return m->user == dev->user && (dev->no_sent || bit(acks, at));
}

void check_received(struct sim_device *dev, const struct sim_message *m)
{
	unsigned at = (unsigned)(m - sim_messages);
	uint64_t newest = dev->newest[m->conv];

	if (m->seq <= newest) {
		if (!bit(&dev->in_session, at) && !dev->changed && m->device != (int)(dev - sim_devices)) /* own: its ack was the first time */
			sim_fail("%s gets %s %llu for the first time in this session, after %llu", dev->client_id, sim_conv_names[m->conv],
				 (unsigned long long)m->seq, (unsigned long long)newest);
		return;
	}
	if (!newest || dev->changed)
		return;
	for (unsigned i = 0; i < sim_n_messages; i++) {
		const struct sim_message *o = &sim_messages[i];

		if (o->conv != m->conv || !o->there || o->seq <= newest || o->seq >= m->seq || !message_visible(o, dev->user))
			continue;
		if (o->device == (int)(dev - sim_devices))
			continue; /* its ack may come a little later; at the end it must have one of the two */
		if (dev->acks && bit(&dev->received, i))
			continue; /* what it acked in an earlier session may have been on its way until now */
		if (!needs_not(dev, i, &dev->got_ack))
			sim_fail("%s gets %s %llu after %llu, and %llu is left out", dev->client_id, sim_conv_names[m->conv],
				 (unsigned long long)m->seq, (unsigned long long)newest, (unsigned long long)o->seq);
	}
}

/* ---- at the end, when everybody has come back and had time */

static bool somebody_has(int user, unsigned at)
{
	for (unsigned i = 0; i < SIM_DEVICES; i++) {
		const struct sim_device *dev = &sim_devices[i];

		if (dev->user == user && (bit(&dev->received, at) || needs_not(dev, at, &dev->got_ack)))
			return true;
	}
	return false;
}

static void check_missed(unsigned device)
{
	const struct sim_device *dev = &sim_devices[device];

	for (unsigned i = 0; i < sim_n_messages; i++) {
		const struct sim_message *m = &sim_messages[i];

		if (!m->there || !message_visible(m, dev->user) || bit(&dev->received, i) || needs_not(dev, i, &dev->got_ack))
			continue;
		if (m->seq > stored[device].start[m->conv] && m->seq > acked_over[device].before_copy[m->conv])
			sim_fail("%s never got %s %llu (its cursor: %llu, at the beginning %llu)", dev->client_id, sim_conv_names[m->conv],
				 (unsigned long long)m->seq, (unsigned long long)stored[device].delivered[m->conv],
				 (unsigned long long)stored[device].start[m->conv]);
		if (!somebody_has(dev->user, i))
			sim_fail("%s began behind %s %llu, which no device of its user ever got", dev->client_id, sim_conv_names[m->conv],
				 (unsigned long long)m->seq);
	}
}

/* Another body was stored under its id first, and this one was refused. */
static bool id_taken(const struct sim_send *send)
{
	for (unsigned i = 0; i < sim_n_sends; i++)
		if (send->id[0] && sim_sends[i].device == send->device && sim_sends[i].stored >= 0 && strcmp(sim_sends[i].id, send->id) == 0)
			return true;
	return false;
}

void check_end(void)
{
	for (unsigned i = 0; i < sim_n_sends; i++) {
		const struct sim_send *send = &sim_sends[i];

		if (send->accepted && send->stored < 0 && !send->may_be_lost && !id_taken(send))
			sim_fail("n%u to %s had its PUBACK and is lost", i, sim_conv_names[send->conv]);
	}
	for (unsigned i = 0; i < SIM_DEVICES; i++)
		if (stored[i].known && sim_devices[i].handle)
			check_missed(i);
}

void check_begin(void)
{
	sim_n_messages = 0;
	memset(acked_over, 0, sizeof(acked_over));
	forget_truth();
}
