/*
 * The roster in memory. Every row the service ever sent is an `entry`: in one hash map by its key, and in
 * one list by its version, so that "what is newer than n" walks back from the end only as far as needed.
 * Entries are never taken out, only overwritten; a removed thing is an entry with `removed` set.
 *
 * The difficult idea: rows may come in any order, a membership before its group or user, because a
 * snapshot is ordered by version and a group's title may have changed after its members joined. So names
 * that are mentioned first get an entry with version 0, which is not in the list and which no lookup shows.
 *
 * A user takes about 260 bytes with a password, its slot in the map included (measured, 200,000 users).
 */
#include "roster/roster_map.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- apply */

static bool name_ok(const char *name)
{
	size_t len = name ? strnlen(name, NAME_MAX_LEN + 1) : 0;

	return len >= 1 && len <= NAME_MAX_LEN;
}

/* The user's entry, made if there is none. NULL: out of memory. */
static struct user *intern_user(struct roster *r, const char *name)
{
	struct user *u = (struct user *)roster_find(r, USER, name, "");
	size_t len = strlen(name) + 1;

	if (u || !roster_reserve(r))
		return u;
	u = calloc(1, sizeof(*u) + len);
	if (!u)
		return NULL;
	memcpy(u->name, name, len);
	u->shown.name = u->name;
	u->shown.title = u->shown.password = "";
	roster_add(r, &u->entry, USER);
	return u;
}

static struct group *intern_group(struct roster *r, const char *name)
{
	struct group *g = (struct group *)roster_find(r, GROUP, name, "");
	size_t len = strlen(name) + 1;

	if (g || !roster_reserve(r))
		return g;
	g = calloc(1, sizeof(*g) + len);
	if (!g)
		return NULL;
	memcpy(g->name, name, len);
	g->shown.name = g->name;
	g->shown.title = g->shown.owner = "";
	roster_add(r, &g->entry, GROUP);
	return g;
}

/* Copies a string to *at and moves behind it. */
static const char *put(char **at, const char *s)
{
	size_t len = strlen(s) + 1;
	const char *copy = memcpy(*at, s, len);

	*at += len;
	return copy;
}

static bool tokens_ok(const Im__Bus__User *u)
{
	if (u->n_tokens > TOKENS_MAX)
		return false;
	for (size_t i = 0; i < u->n_tokens; i++)
		if (!u->tokens[i]->id[0] || u->tokens[i]->hash.len != sizeof(((struct roster_token *)0)->hash))
			return false;
	return true;
}

/* roster_since must not fail, so its memory is there before the tokens are. */
static bool reserve_tokens(struct roster *r, size_t n)
{
	Im__Bus__Token *tokens;
	Im__Bus__Token **pointers;

	if (n <= r->tokens_cap)
		return true;
	tokens = realloc(r->tokens, n * sizeof(*tokens));
	if (tokens)
		r->tokens = tokens;
	pointers = realloc(r->token_pointers, n * sizeof(*pointers));
	if (pointers)
		r->token_pointers = pointers;
	if (!tokens || !pointers)
		return false;
	r->tokens_cap = n;
	return true;
}

/* Title, password and tokens in one allocation; NULL: out of memory. */
static void *user_details(const Im__Bus__User *item, struct roster_user *shown)
{
	size_t size = item->n_tokens * sizeof(struct roster_token) + strlen(item->title) + strlen(item->password) + 2;
	struct roster_token *tokens;
	char *at;

	for (size_t i = 0; i < item->n_tokens; i++)
		size += strlen(item->tokens[i]->id) + 1;
	tokens = malloc(size);
	if (!tokens)
		return NULL;
	at = (char *)(tokens + item->n_tokens);
	for (size_t i = 0; i < item->n_tokens; i++) {
		tokens[i].id = put(&at, item->tokens[i]->id);
		memcpy(tokens[i].hash, item->tokens[i]->hash.data, sizeof(tokens[i].hash));
		tokens[i].expires_ms = item->tokens[i]->expires_ms;
	}
	shown->title = put(&at, item->title);
	shown->password = put(&at, item->password);
	shown->tokens = item->n_tokens ? tokens : NULL;
	shown->n_tokens = item->n_tokens;
	shown->disabled = item->disabled;
	return tokens;
}

static bool user_present(const struct user *u)
{
	return u->entry.version && !u->entry.removed;
}

static bool group_present(const struct group *g)
{
	return g->entry.version && !g->entry.removed;
}

static enum im_status apply_user(struct roster *r, uint64_t version, const Im__Bus__User *item)
{
	struct roster_user shown = {.title = "", .password = "", .version = version};
	void *details = NULL;
	struct user *u;

	if (!name_ok(item->name) || !tokens_ok(item))
		return IM_BAD_INPUT;
	u = intern_user(r, item->name);
	if (!u || !reserve_tokens(r, item->n_tokens))
		return IM_FAILED;
	if (version <= u->entry.version)
		return IM_EXISTS;
	if (!item->removed && !(details = user_details(item, &shown)))
		return IM_FAILED;
	r->n_users -= user_present(u);
	free(u->details);
	u->details = details;
	shown.name = u->name;
	u->shown = shown;
	u->entry.removed = item->removed;
	roster_set_version(r, &u->entry, version);
	r->n_users += user_present(u);
	return IM_OK;
}

static enum im_status apply_group(struct roster *r, uint64_t version, const Im__Bus__Group *item)
{
	const char *title = item->removed ? "" : item->title, *owner = item->removed ? "" : item->owner;
	struct group *g;
	char *details, *at;

	if (!name_ok(item->name))
		return IM_BAD_INPUT;
	g = intern_group(r, item->name);
	if (!g)
		return IM_FAILED;
	if (version <= g->entry.version)
		return IM_EXISTS;
	at = details = malloc(strlen(title) + strlen(owner) + 2);
	if (!details)
		return IM_FAILED;
	r->n_groups -= group_present(g);
	free(g->details);
	g->details = details;
	g->shown.title = put(&at, title);
	g->shown.owner = put(&at, owner);
	g->shown.version = version;
	g->entry.removed = item->removed;
	roster_set_version(r, &g->entry, version);
	r->n_groups += group_present(g);
	return IM_OK;
}

static const char *role_text(const char *role)
{
	static const char *const roles[] = {"owner", "admin", "member"};

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
		if (strcmp(role, roles[i]) == 0)
			return roles[i];
	return NULL;
}

static bool is_open(const struct membership *m)
{
	return m->n_stays > 0 && m->stays[m->n_stays - 1].to_seq == 0;
}

static struct membership *intern_membership(struct roster *r, const char *group, const char *user)
{
	struct membership *m = (struct membership *)roster_find(r, MEMBERSHIP, group, user);
	struct group *g;
	struct user *u;

	if (m)
		return m;
	g = intern_group(r, group);
	u = intern_user(r, user);
	if (!g || !u || !roster_reserve(r) || !(m = calloc(1, sizeof(*m))))
		return NULL;
	m->group = g;
	m->user = u;
	m->next_member = g->members;
	g->members = m;
	m->next_group = u->memberships;
	u->memberships = m;
	roster_add(r, &m->entry, MEMBERSHIP);
	return m;
}

/* The place of the stay that begins at from_seq, made if there is none. SIZE_MAX: out of memory. */
static size_t intern_stay(struct membership *m, uint64_t from_seq)
{
	struct roster_stay *stays;
	struct stay **rows, *row;
	size_t at = m->n_stays;

	while (at > 0 && m->stays[at - 1].from_seq >= from_seq)
		at--;
	if (at < m->n_stays && m->stays[at].from_seq == from_seq)
		return at;
	stays = realloc(m->stays, (m->n_stays + 1) * sizeof(*stays));
	if (stays)
		m->stays = stays;
	rows = realloc(m->rows, (m->n_stays + 1) * sizeof(struct stay *));
	if (rows)
		m->rows = rows;
	if (!stays || !rows || !(row = calloc(1, sizeof(*row))))
		return SIZE_MAX;
	memmove(stays + at + 1, stays + at, (m->n_stays - at) * sizeof(*stays));
	memmove(rows + at + 1, rows + at, (m->n_stays - at) * sizeof(struct stay *));
	row->entry.kind = STAY;
	row->of = m;
	row->from_seq = from_seq;
	rows[at] = row;
	stays[at] = (struct roster_stay){from_seq, 0, "member"};
	m->n_stays++;
	return at;
}

static enum im_status apply_member(struct roster *r, uint64_t version, const Im__Bus__Member *item)
{
	const char *role = role_text(item->role);
	struct membership *m;
	bool was_open;
	size_t at;

	if (!name_ok(item->group) || !name_ok(item->user) || !role)
		return IM_BAD_INPUT;
	m = intern_membership(r, item->group, item->user);
	if (!m)
		return IM_FAILED;
	was_open = is_open(m);
	at = intern_stay(m, item->from_seq);
	if (at == SIZE_MAX)
		return IM_FAILED;
	if (version <= m->rows[at]->entry.version)
		return IM_EXISTS;
	m->stays[at].to_seq = item->to_seq;
	m->stays[at].role = role;
	roster_set_version(r, &m->rows[at]->entry, version);
	m->group->shown.n_members -= was_open;
	m->group->shown.n_members += is_open(m);
	return IM_OK;
}

void roster_hold_stay(struct roster *r, const char *group, const char *user, uint64_t from_seq, uint64_t to_seq)
{
	struct membership *m = (struct membership *)roster_find(r, MEMBERSHIP, group, user);

	for (size_t i = 0; m && i < m->n_stays; i++) {
		if (m->stays[i].from_seq != from_seq)
			continue;
		m->group->shown.n_members -= is_open(m);
		m->stays[i].to_seq = to_seq;
		m->group->shown.n_members += is_open(m);
	}
}

static struct block *intern_block(struct roster *r, const char *user, const char *blocked)
{
	struct block *b = (struct block *)roster_find(r, BLOCK, user, blocked);
	char *at;

	if (b || !roster_reserve(r))
		return b;
	b = calloc(1, sizeof(*b) + strlen(user) + strlen(blocked) + 2);
	if (!b)
		return NULL;
	at = b->user;
	(void)put(&at, user);
	b->blocked = put(&at, blocked);
	roster_add(r, &b->entry, BLOCK);
	return b;
}

static enum im_status apply_block(struct roster *r, uint64_t version, const Im__Bus__Block *item)
{
	struct block *b;

	if (!name_ok(item->user) || !name_ok(item->blocked))
		return IM_BAD_INPUT;
	b = intern_block(r, item->user, item->blocked);
	if (!b)
		return IM_FAILED;
	if (version <= b->entry.version)
		return IM_EXISTS;
	b->entry.removed = item->removed;
	roster_set_version(r, &b->entry, version);
	return IM_OK;
}

enum im_status roster_apply(struct roster *r, const Im__Bus__RosterItem *item)
{
	if (item->version == 0 || !!item->user + !!item->group + !!item->member + !!item->block != 1)
		return IM_BAD_INPUT;
	if (item->user)
		return apply_user(r, item->version, item->user);
	if (item->group)
		return apply_group(r, item->version, item->group);
	return item->member ? apply_member(r, item->version, item->member) : apply_block(r, item->version, item->block);
}

/* ---------------------------------------------------------------- lookups */

const struct roster_user *roster_user(const struct roster *r, const char *name)
{
	const struct user *u = (const struct user *)roster_find(r, USER, name, "");

	return u && user_present(u) ? &u->shown : NULL;
}

bool roster_was_user(const struct roster *r, const char *name)
{
	const struct user *u = (const struct user *)roster_find(r, USER, name, "");

	return u && u->entry.version && u->entry.removed;
}

const struct roster_group *roster_group(const struct roster *r, const char *name)
{
	const struct group *g = (const struct group *)roster_find(r, GROUP, name, "");

	return g && group_present(g) ? &g->shown : NULL;
}

const char *roster_role(const struct roster *r, const char *group, const char *user)
{
	const struct membership *m = (const struct membership *)roster_find(r, MEMBERSHIP, group, user);

	return m && is_open(m) && group_present(m->group) ? m->stays[m->n_stays - 1].role : NULL;
}

bool roster_is_member(const struct roster *r, const char *group, const char *user)
{
	return roster_role(r, group, user) != NULL;
}

bool roster_is_blocked(const struct roster *r, const char *user, const char *blocked)
{
	const struct entry *e = roster_find(r, BLOCK, user, blocked);

	return e && e->version && !e->removed;
}

size_t roster_stays(const struct roster *r, const char *group, const char *user, const struct roster_stay **out)
{
	const struct membership *m = (const struct membership *)roster_find(r, MEMBERSHIP, group, user);

	*out = m ? m->stays : NULL;
	return m ? m->n_stays : 0;
}

uint64_t roster_stays_last(const struct roster_stay *stays, size_t n, uint64_t newest)
{
	if (n == 0)
		return 0;
	return stays[n - 1].to_seq != 0 && stays[n - 1].to_seq < newest ? stays[n - 1].to_seq : newest;
}

bool roster_may_see(const struct roster *r, const char *group, const char *user, uint64_t seq)
{
	const struct roster_stay *stays;
	size_t n = roster_stays(r, group, user, &stays);

	while (n > 0 && stays[n - 1].from_seq > seq)
		n--;
	return n > 0 && (stays[n - 1].to_seq == 0 || seq <= stays[n - 1].to_seq);
}

/* ---------------------------------------------------------------- walks */

size_t roster_count_users(const struct roster *r)
{
	return r->n_users;
}

size_t roster_count_groups(const struct roster *r)
{
	return r->n_groups;
}

void roster_each_user(const struct roster *r, roster_user_fn *fn, void *arg)
{
	for (size_t i = 0; i < r->n_slots; i++)
		if (r->slots[i] && r->slots[i]->kind == USER && user_present((const struct user *)r->slots[i]))
			fn(arg, &((const struct user *)r->slots[i])->shown);
}

void roster_each_group(const struct roster *r, roster_group_fn *fn, void *arg)
{
	for (size_t i = 0; i < r->n_slots; i++)
		if (r->slots[i] && r->slots[i]->kind == GROUP && group_present((const struct group *)r->slots[i]))
			fn(arg, &((const struct group *)r->slots[i])->shown);
}

void roster_each_member(const struct roster *r, const char *group, roster_member_fn *fn, void *arg)
{
	const struct group *g = (const struct group *)roster_find(r, GROUP, group, "");

	if (!g || !group_present(g))
		return;
	for (const struct membership *m = g->members; m; m = m->next_member)
		if (is_open(m))
			fn(arg, m->user->name, &m->stays[m->n_stays - 1]);
}

void roster_each_group_of(const struct roster *r, const char *user, roster_group_fn *fn, void *arg)
{
	const struct user *u = (const struct user *)roster_find(r, USER, user, "");

	if (!u)
		return;
	for (const struct membership *m = u->memberships; m; m = m->next_group)
		if (m->n_stays > 0 && group_present(m->group))
			fn(arg, &m->group->shown);
}

/* ---------------------------------------------------------------- items */

static char *text(const char *s)
{
	return (char *)(uintptr_t)s; /* the generated structs are not const; nobody writes through it */
}

static void show_user(const struct roster *r, const struct user *u, Im__Bus__RosterItem item, roster_item_fn *fn, void *arg)
{
	Im__Bus__User row = IM__BUS__USER__INIT;

	row.name = text(u->name);
	row.title = text(u->shown.title);
	row.password = text(u->shown.password);
	row.disabled = u->shown.disabled;
	row.removed = u->entry.removed;
	row.n_tokens = u->shown.n_tokens;
	row.tokens = r->token_pointers;
	for (size_t i = 0; i < row.n_tokens; i++) {
		const struct roster_token *t = &u->shown.tokens[i];

		im__bus__token__init(&r->tokens[i]);
		r->tokens[i].id = text(t->id);
		r->tokens[i].hash.data = (uint8_t *)text((const char *)t->hash);
		r->tokens[i].hash.len = sizeof(t->hash);
		r->tokens[i].expires_ms = t->expires_ms;
		r->token_pointers[i] = &r->tokens[i];
	}
	item.user = &row;
	fn(arg, &item);
}

static void show_group(const struct group *g, Im__Bus__RosterItem item, roster_item_fn *fn, void *arg)
{
	Im__Bus__Group row = IM__BUS__GROUP__INIT;

	row.name = text(g->name);
	row.title = text(g->shown.title);
	row.owner = text(g->shown.owner);
	row.removed = g->entry.removed;
	item.group = &row;
	fn(arg, &item);
}

static void show_stay(const struct stay *s, Im__Bus__RosterItem item, roster_item_fn *fn, void *arg)
{
	Im__Bus__Member row = IM__BUS__MEMBER__INIT;
	size_t at = 0;

	while (s->of->rows[at] != s)
		at++;
	row.group = text(s->of->group->name);
	row.user = text(s->of->user->name);
	row.role = text(s->of->stays[at].role);
	row.from_seq = s->from_seq;
	row.to_seq = s->of->stays[at].to_seq;
	item.member = &row;
	fn(arg, &item);
}

static void show_block(const struct block *b, Im__Bus__RosterItem item, roster_item_fn *fn, void *arg)
{
	Im__Bus__Block row = IM__BUS__BLOCK__INIT;

	row.user = text(b->user);
	row.blocked = text(b->blocked);
	row.removed = b->entry.removed;
	item.block = &row;
	fn(arg, &item);
}

static void show(const struct roster *r, const struct entry *e, roster_item_fn *fn, void *arg)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;

	item.version = e->version;
	switch ((enum kind)e->kind) {
	case USER:
		show_user(r, (const struct user *)e, item, fn, arg);
		break;
	case GROUP:
		show_group((const struct group *)e, item, fn, arg);
		break;
	case STAY:
		show_stay((const struct stay *)e, item, fn, arg);
		break;
	case BLOCK:
		show_block((const struct block *)e, item, fn, arg);
		break;
	case MEMBERSHIP: /* not in the list */
		break;
	}
}

void roster_since(const struct roster *r, uint64_t version, roster_item_fn *fn, void *arg)
{
	const struct entry *e;

	if (r->unsorted)
		roster_sort((struct roster *)(uintptr_t)r); /* the order is a cache of ours: what callers see stays the same */
	e = r->newest;
	while (e && e->version > version)
		e = e->older;
	for (e = e ? e->newer : r->oldest; e; e = e->newer)
		show(r, e, fn, arg);
}

void roster_swap(struct roster *a, struct roster *b)
{
	struct roster keep = *a; /* nothing inside points back at the struct */

	*a = *b;
	*b = keep;
}
