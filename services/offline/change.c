/*
 * Items go out in batches of COMMAND_BATCH: append, apply, link; the next batch begins when the one before is
 * durable. Confirmations of the plugin may come in the meantime; the change is done when the last one is there.
 */
#include "change.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- building */

void change_finish(struct change *c)
{
	for (size_t i = 0; i < c->n; i++)
		im__bus__roster_item__free_unpacked(c->items[i], NULL);
	free(c->items);
	memset(c, 0, sizeof(*c));
}

static char *copy(struct change *c, const char *s)
{
	char *out = strdup(s != NULL ? s : "");

	if (out == NULL)
		c->failed = true;
	return out;
}

void change_set(struct change *c, char **field, const char *value)
{
	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = copy(c, value);
	if (*field == NULL)
		*field = (char *)protobuf_c_empty_string;
}

static Im__Bus__RosterItem *add_item(struct change *c)
{
	Im__Bus__RosterItem *item;

	if (c->n == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 8;
		Im__Bus__RosterItem **items = realloc(c->items, cap * sizeof(*items));

		if (items == NULL)
			goto failed;
		c->items = items;
		c->cap = cap;
	}
	item = malloc(sizeof(*item));
	if (item == NULL)
		goto failed;
	im__bus__roster_item__init(item);
	c->items[c->n++] = item;
	return item;
failed:
	c->failed = true;
	return NULL;
}

void change_add_token(struct change *c, Im__Bus__User *u, const char *id, const unsigned char hash[32], int64_t expires_ms)
{
	Im__Bus__Token *t = malloc(sizeof(*t));
	Im__Bus__Token **tokens = realloc(u->tokens, (u->n_tokens + 1) * sizeof(*tokens));

	if (tokens != NULL)
		u->tokens = tokens;
	if (t == NULL || tokens == NULL) {
		free(t);
		c->failed = true;
		return;
	}
	im__bus__token__init(t);
	u->tokens[u->n_tokens++] = t;
	change_set(c, &t->id, id);
	t->expires_ms = expires_ms;
	t->hash.data = malloc(32);
	if (t->hash.data == NULL) {
		c->failed = true;
		return;
	}
	t->hash.len = 32;
	memcpy(t->hash.data, hash, 32);
}

Im__Bus__User *change_user(struct change *c, const struct roster *roster, const char *name)
{
	const struct roster_user *now = roster_user(roster, name);
	Im__Bus__RosterItem *item = add_item(c);
	Im__Bus__User *u = item != NULL ? malloc(sizeof(*u)) : NULL;

	if (u == NULL) {
		c->failed = true;
		return NULL;
	}
	im__bus__user__init(u);
	item->user = u;
	change_set(c, &u->name, name);
	if (now == NULL)
		return u;
	change_set(c, &u->title, now->title);
	change_set(c, &u->password, now->password);
	u->disabled = now->disabled;
	for (size_t i = 0; i < now->n_tokens; i++)
		change_add_token(c, u, now->tokens[i].id, now->tokens[i].hash, now->tokens[i].expires_ms);
	return u;
}

Im__Bus__Group *change_group(struct change *c, const struct roster *roster, const char *name)
{
	const struct roster_group *now = roster_group(roster, name);
	Im__Bus__RosterItem *item = add_item(c);
	Im__Bus__Group *g = item != NULL ? malloc(sizeof(*g)) : NULL;

	if (g == NULL) {
		c->failed = true;
		return NULL;
	}
	im__bus__group__init(g);
	item->group = g;
	change_set(c, &g->name, name);
	if (now != NULL) {
		change_set(c, &g->title, now->title);
		change_set(c, &g->owner, now->owner);
	}
	return g;
}

void change_member(struct change *c, const char *group, const char *user, const char *role, uint64_t from_seq, uint64_t to_seq)
{
	Im__Bus__RosterItem *item = add_item(c);
	Im__Bus__Member *m = item != NULL ? malloc(sizeof(*m)) : NULL;

	if (m == NULL) {
		c->failed = true;
		return;
	}
	im__bus__member__init(m);
	item->member = m;
	change_set(c, &m->group, group);
	change_set(c, &m->user, user);
	change_set(c, &m->role, role);
	m->from_seq = from_seq;
	m->to_seq = to_seq;
}

void change_block(struct change *c, const char *user, const char *blocked, bool removed)
{
	Im__Bus__RosterItem *item = add_item(c);
	Im__Bus__Block *b = item != NULL ? malloc(sizeof(*b)) : NULL;

	if (b == NULL) {
		c->failed = true;
		return;
	}
	im__bus__block__init(b);
	item->block = b;
	change_set(c, &b->user, user);
	change_set(c, &b->blocked, blocked);
	b->removed = removed;
}

/* ---- committing */

struct commit {
	struct call *call;
	struct change change;
	size_t done;        /* items durable and in force here */
	size_t batch;       /* items being appended */
	unsigned waiting;   /* batches the plugin has not confirmed */
	bool stored;        /* all of them are */
	bool pending;       /* the plugin did not confirm in time */
	bool dead;          /* the call has ended; only confirmations are still to come */
	change_done_fn *fn;
};

static void commit_free(struct commit *m)
{
	change_finish(&m->change);
	free(m);
}

static void commit_check(struct commit *m)
{
	struct call *call = m->call;
	change_done_fn *fn = m->fn;
	bool pending = m->pending, dead = m->dead;

	if (m->waiting > 0 || !(m->stored || dead))
		return;
	commit_free(m);
	if (!dead)
		fn(call, pending);
}

static void on_plugin(void *arg, enum im_status st)
{
	struct commit *m = arg;

	m->waiting--;
	if (st != IM_OK)
		m->pending = true;
	if (!m->dead && m->call->env->closed && m->waiting == 0 && m->stored) {
		(void)call_step(m->call, st); /* frees the call */
		m->dead = true;
	}
	commit_check(m);
}

/*
 * Ended stays of items that are not written yet. They end for deliveries at once: between the message that says so
 * and its durable item the group goes on talking. If the item cannot be written they go on.
 */
static void hold_stays(struct commit *m, struct roster *roster, bool ended)
{
	for (size_t i = m->done; i < m->change.n; i++) {
		const Im__Bus__Member *member = m->change.items[i]->member;

		if (member != NULL && member->to_seq != 0)
			roster_hold_stay(roster, member->group, member->user, member->from_seq, ended ? member->to_seq : 0);
	}
}

static void append_batch(struct commit *m);

static void on_stored(void *arg, enum im_status st)
{
	struct commit *m = arg;
	struct command_env *env = m->call->env;
	Im__Bus__RosterItem **items = m->change.items + m->done;
	bool stopping = env->closed; /* then the last call to end frees env */

	if (st != IM_OK && m->batch > 0 && items[m->batch - 1]->version > env->version_floor)
		env->version_floor = items[m->batch - 1]->version;
	if (!call_step(m->call, st)) {
		if (!stopping)
			hold_stays(m, env->roster, false);
		m->dead = true;
		commit_check(m);
		return;
	}
	for (size_t i = 0; i < m->batch; i++) {
		enum im_status applied = roster_apply(env->roster, items[i]);

		if (applied != IM_OK)
			im_log(IM_LOG_ERROR, "evt=roster_apply version=%llu status=%s: a restart reads it from the store again",
			       (unsigned long long)items[i]->version, im_status_name(applied));
		delivery_roster_changed(env->delivery, items[i]);
	}
	m->done += m->batch;
	m->waiting++; /* for this function: out of memory, the link answers at once */
	if (m->batch > 0) {
		m->waiting++;
		link_roster(env->link, (const Im__Bus__RosterItem *const *)items, m->batch, on_plugin, m);
	}
	if (m->done < m->change.n) {
		hold_stays(m, env->roster, true);
		append_batch(m);
	} else {
		m->stored = true;
		call_leave_lane(m->call);
	}
	m->waiting--;
	commit_check(m);
}

/* Takes the next items for an append and gives them their versions. */
static void next_batch(struct commit *m)
{
	struct command_env *env = m->call->env;
	uint64_t version = roster_version(env->roster);
	size_t n = m->change.n - m->done;

	if (version < env->version_floor)
		version = env->version_floor;
	if (n > COMMAND_BATCH)
		n = COMMAND_BATCH;
	for (size_t i = 0; i < n; i++)
		m->change.items[m->done + i]->version = version + 1 + i;
	m->batch = n;
}

static void append_batch(struct commit *m)
{
	struct store_entry entries[COMMAND_BATCH];

	next_batch(m);
	memset(entries, 0, m->batch * sizeof(entries[0]));
	for (size_t i = 0; i < m->batch; i++) {
		entries[i].kind = STORE_ROSTER;
		entries[i].roster = m->change.items[m->done + i];
	}
	store_append(m->call->env->store, entries, m->batch, on_stored, m);
}

struct commit *change_prepare(struct call *call, struct change *c, change_done_fn *done)
{
	struct commit *m = c->failed ? NULL : calloc(1, sizeof(*m));

	assert(call->in_lane);
	if (m == NULL) {
		change_finish(c);
		return NULL;
	}
	m->call = call;
	m->fn = done;
	m->change = *c;
	memset(c, 0, sizeof(*c));
	return m;
}

bool change_join(struct commit *m, struct batch *b)
{
	next_batch(m);
	for (size_t i = 0; i < m->batch; i++)
		if (!inbox_join(b, m->change.items[i]))
			return false;
	return true;
}

void change_joined(struct commit *m, enum im_status st)
{
	on_stored(m, st);
}

void change_commit(struct call *call, struct change *c, change_done_fn *done)
{
	struct commit *m = change_prepare(call, c, done);

	if (m == NULL) {
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
		return;
	}
	if (m->change.n == 0) {
		m->stored = true;
		call_leave_lane(call);
		commit_check(m);
		return;
	}
	hold_stays(m, call->env->roster, true);
	append_batch(m);
}

void change_answer(struct call *call, bool pending)
{
	json_t *result = call->result != NULL ? json_incref(call->result) : json_object();

	if (pending && result != NULL)
		json_object_set_new(result, "pending", json_true());
	call_ok(call, result);
}

static void kick(void *arg, const struct delivery_session_info *s)
{
	struct call *call = arg;

	link_kick(call->env->link, s->handle, call->command->name);
}

void change_end_sessions(struct call *call, bool pending)
{
	delivery_each_session(call->env->delivery, call_text(call, "user"), kick, call);
	change_answer(call, pending);
}
