/* lib/roster/roster.c: against a model that knows only arrays, with random rows in random order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "roster/roster.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---------------------------------------------------------------- rows */

static enum im_status put_user(struct roster *r, uint64_t version, char *name, char *password, bool removed)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User u = IM__BUS__USER__INIT;

	u.name = name;
	u.password = password;
	u.removed = removed;
	item.version = version;
	item.user = &u;
	return roster_apply(r, &item);
}

static enum im_status put_group(struct roster *r, uint64_t version, char *name, char *title, bool removed)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Group g = IM__BUS__GROUP__INIT;

	g.name = name;
	g.title = title;
	g.owner = "u0";
	g.removed = removed;
	item.version = version;
	item.group = &g;
	return roster_apply(r, &item);
}

static enum im_status put_member(struct roster *r, uint64_t version, char *group, char *user, char *role, uint64_t from, uint64_t to)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Member m = IM__BUS__MEMBER__INIT;

	m.group = group;
	m.user = user;
	m.role = role;
	m.from_seq = from;
	m.to_seq = to;
	item.version = version;
	item.member = &m;
	return roster_apply(r, &item);
}

static enum im_status put_block(struct roster *r, uint64_t version, char *user, char *blocked, bool removed)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__Block b = IM__BUS__BLOCK__INIT;

	b.user = user;
	b.blocked = blocked;
	b.removed = removed;
	item.version = version;
	item.block = &b;
	return roster_apply(r, &item);
}

/* ---------------------------------------------------------------- single promises */

static void user_is_found_with_all_that_was_said(void **state)
{
	struct roster *r = roster_create();
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User u = IM__BUS__USER__INIT;
	Im__Bus__Token t = IM__BUS__TOKEN__INIT, *tokens[] = {&t};
	const struct roster_user *found;
	uint8_t hash[32];

	(void)state;
	memset(hash, 7, sizeof(hash));
	t.id = "t1";
	t.hash.data = hash;
	t.hash.len = sizeof(hash);
	t.expires_ms = 99;
	u.name = "alice";
	u.title = "Alice";
	u.password = "$argon2id$x";
	u.tokens = tokens;
	u.n_tokens = 1;
	u.disabled = true;
	item.version = 5;
	item.user = &u;
	assert_int_equal(roster_apply(r, &item), IM_OK);
	found = roster_user(r, "alice");
	assert_non_null(found);
	assert_string_equal(found->title, "Alice");
	assert_string_equal(found->password, "$argon2id$x");
	assert_int_equal(found->n_tokens, 1);
	assert_string_equal(found->tokens[0].id, "t1");
	assert_memory_equal(found->tokens[0].hash, hash, sizeof(hash));
	assert_int_equal(found->tokens[0].expires_ms, 99);
	assert_true(found->disabled);
	assert_int_equal(found->version, 5);
	assert_null(roster_user(r, "alic"));
	roster_destroy(r);
}

static void only_newer_rows_change_anything(void **state)
{
	struct roster *r = roster_create();

	(void)state;
	assert_int_equal(put_user(r, 5, "alice", "a", false), IM_OK);
	assert_int_equal(put_user(r, 5, "alice", "b", false), IM_EXISTS);
	assert_int_equal(put_user(r, 4, "alice", "b", true), IM_EXISTS);
	assert_string_equal(roster_user(r, "alice")->password, "a");
	assert_int_equal(put_user(r, 3, "bob", "b", false), IM_OK); /* another key: any version */
	assert_int_equal(roster_version(r), 5);
	assert_int_equal(put_user(r, 6, "alice", "", true), IM_OK);
	assert_null(roster_user(r, "alice"));
	assert_int_equal(roster_count_users(r), 1);
	assert_int_equal(put_user(r, 7, "alice", "c", false), IM_OK);
	assert_string_equal(roster_user(r, "alice")->password, "c");
	roster_destroy(r);
}

static void malformed_rows_are_refused(void **state)
{
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User u = IM__BUS__USER__INIT;
	Im__Bus__Token t = IM__BUS__TOKEN__INIT, *tokens[] = {&t};
	Im__Bus__Block b = IM__BUS__BLOCK__INIT;
	struct roster *r = roster_create();
	char longest[66];

	(void)state;
	memset(longest, 'a', sizeof(longest) - 1);
	longest[65] = '\0';
	item.version = 1;
	assert_int_equal(roster_apply(r, &item), IM_BAD_INPUT); /* nothing set */
	u.name = "alice";
	b.user = b.blocked = "bob";
	item.user = &u;
	item.block = &b;
	assert_int_equal(roster_apply(r, &item), IM_BAD_INPUT); /* two set */
	item.block = NULL;
	item.version = 0;
	assert_int_equal(roster_apply(r, &item), IM_BAD_INPUT);
	item.version = 1;
	u.tokens = tokens;
	u.n_tokens = 1;
	assert_int_equal(roster_apply(r, &item), IM_BAD_INPUT); /* a token without hash */
	assert_int_equal(put_user(r, 1, "", "", false), IM_BAD_INPUT);
	assert_int_equal(put_user(r, 1, longest, "", false), IM_BAD_INPUT);
	assert_int_equal(put_group(r, 1, "", "", false), IM_BAD_INPUT);
	assert_int_equal(put_member(r, 1, "g", "u", "king", 1, 0), IM_BAD_INPUT);
	assert_int_equal(put_member(r, 1, "g", "", "member", 1, 0), IM_BAD_INPUT);
	assert_int_equal(put_block(r, 1, "u", "", false), IM_BAD_INPUT);
	assert_int_equal(roster_version(r), 0);
	roster_destroy(r);
}

static void member_sees_its_stays_and_nothing_between(void **state)
{
	static const bool seen[] = {false, false, true, true, true, false, false, true, true};
	struct roster *r = roster_create();
	const struct roster_stay *stays;

	(void)state;
	put_group(r, 1, "g", "", false);
	put_member(r, 3, "g", "bob", "admin", 7, 0); /* the later stay first */
	put_member(r, 2, "g", "bob", "member", 2, 4);
	assert_int_equal(roster_stays(r, "g", "bob", &stays), 2);
	assert_int_equal(stays[0].from_seq, 2);
	assert_int_equal(stays[1].from_seq, 7);
	assert_int_equal(roster_stays_last(stays, 2, 99), 99);
	assert_int_equal(roster_stays_last(stays, 1, 99), 4);
	assert_int_equal(roster_stays_last(stays, 1, 1), 1);
	assert_int_equal(roster_stays_last(NULL, 0, 99), 0);
	for (uint64_t seq = 0; seq < 9; seq++)
		assert_int_equal(roster_may_see(r, "g", "bob", seq), seen[seq]);
	assert_string_equal(roster_role(r, "g", "bob"), "admin");
	assert_int_equal(roster_group(r, "g")->n_members, 1);
	roster_hold_stay(r, "g", "bob", 7, 8); /* in force before it is written down, and back again */
	assert_false(roster_is_member(r, "g", "bob"));
	assert_false(roster_may_see(r, "g", "bob", 9));
	assert_int_equal(roster_group(r, "g")->n_members, 0);
	roster_hold_stay(r, "g", "bob", 7, 0);
	assert_true(roster_may_see(r, "g", "bob", 9));
	assert_int_equal(roster_group(r, "g")->n_members, 1);
	roster_hold_stay(r, "g", "bob", 7, 8);
	roster_hold_stay(r, "g", "carol", 7, 8);
	assert_int_equal(put_member(r, 4, "g", "bob", "admin", 7, 8), IM_OK);
	assert_int_equal(roster_group(r, "g")->n_members, 0);
	assert_false(roster_is_member(r, "g", "bob"));
	assert_true(roster_may_see(r, "g", "bob", 8));
	assert_false(roster_may_see(r, "g", "bob", 9));
	assert_int_equal(roster_group(r, "g")->n_members, 0);
	assert_int_equal(roster_stays(r, "g", "carol", &stays), 0);
	assert_null(stays);
	roster_destroy(r);
}

static void names_only_mentioned_are_not_there(void **state)
{
	struct roster *r = roster_create();

	(void)state;
	put_member(r, 5, "g", "bob", "member", 1, 0);
	assert_null(roster_group(r, "g"));
	assert_null(roster_user(r, "bob"));
	assert_false(roster_is_member(r, "g", "bob"));
	assert_int_equal(roster_count_users(r) + roster_count_groups(r), 0);
	put_group(r, 6, "g", "", false);
	assert_true(roster_is_member(r, "g", "bob"));
	assert_int_equal(roster_group(r, "g")->n_members, 1);
	put_group(r, 7, "g", "", true);
	assert_false(roster_is_member(r, "g", "bob"));
	roster_destroy(r);
}

static void blocks_have_a_direction(void **state)
{
	struct roster *r = roster_create();

	(void)state;
	put_block(r, 1, "alice", "bob", false);
	assert_true(roster_is_blocked(r, "alice", "bob"));
	assert_false(roster_is_blocked(r, "bob", "alice"));
	put_block(r, 2, "alice", "bob", true);
	assert_false(roster_is_blocked(r, "alice", "bob"));
	put_block(r, 3, "ab", "c", false);
	assert_false(roster_is_blocked(r, "a", "bc"));
	roster_destroy(r);
}

/* ---------------------------------------------------------------- the model */

enum { USERS = 12, GROUPS = 4, STAYS = 3, ROUNDS = 4000 };

struct model {
	uint64_t user[USERS], group[GROUPS], stay[GROUPS][USERS][STAYS], block[USERS][USERS]; /* versions, 0 = never */
	bool user_removed[USERS], group_removed[GROUPS], block_removed[USERS][USERS];
	uint64_t to[GROUPS][USERS][STAYS];
};

static char *named(char prefix, unsigned n)
{
	static char names[8][16];
	static unsigned next;
	char *name = names[next++ % 8];

	(void)snprintf(name, 16, "%c%u", prefix, n);
	return name;
}

/* Stay s begins at 10 * s + 1; an open one that is not the last ends where the next begins. */
static bool model_may_see(const struct model *m, unsigned g, unsigned u, uint64_t seq)
{
	for (unsigned s = STAYS; s-- > 0;)
		if (m->stay[g][u][s] && seq >= 10 * s + 1)
			return m->to[g][u][s] == 0 || seq <= m->to[g][u][s];
	return false;
}

static bool model_is_member(const struct model *m, unsigned g, unsigned u)
{
	for (unsigned s = STAYS; s-- > 0;)
		if (m->stay[g][u][s])
			return m->to[g][u][s] == 0 && m->group[g] && !m->group_removed[g];
	return false;
}

static void random_row(struct roster *r, struct model *m)
{
	uint64_t version = 1 + (uint64_t)rand() % 100000, *known;
	unsigned u = (unsigned)rand() % USERS, v = (unsigned)rand() % USERS, g = (unsigned)rand() % GROUPS, s = (unsigned)rand() % STAYS;
	uint64_t to = rand() % 2 ? 0 : 10 * s + 1 + (uint64_t)rand() % 9;
	bool removed = rand() % 3 == 0, newer;
	enum im_status st;

	switch (rand() % 4) {
	case 0:
		known = &m->user[u];
		st = put_user(r, version, named('u', u), removed ? "" : "secret", removed);
		newer = version > *known;
		m->user_removed[u] = newer ? removed : m->user_removed[u];
		break;
	case 1:
		known = &m->group[g];
		st = put_group(r, version, named('g', g), "title", removed);
		newer = version > *known;
		m->group_removed[g] = newer ? removed : m->group_removed[g];
		break;
	case 2:
		known = &m->stay[g][u][s];
		st = put_member(r, version, named('g', g), named('u', u), "member", 10 * s + 1, to);
		newer = version > *known;
		m->to[g][u][s] = newer ? to : m->to[g][u][s];
		break;
	default:
		known = &m->block[u][v];
		st = put_block(r, version, named('u', u), named('u', v), removed);
		newer = version > *known;
		m->block_removed[u][v] = newer ? removed : m->block_removed[u][v];
		break;
	}
	assert_int_equal(st, newer ? IM_OK : IM_EXISTS);
	if (newer)
		*known = version;
}

static void count_user(void *arg, const struct roster_user *u)
{
	(void)u;
	++*(size_t *)arg;
}

static void count_group(void *arg, const struct roster_group *g)
{
	(void)g;
	++*(size_t *)arg;
}

static void count_member(void *arg, const char *user, const struct roster_stay *stay)
{
	assert_int_equal(stay->to_seq, 0);
	assert_int_equal(user[0], 'u');
	++*(size_t *)arg;
}

static void compare(const struct roster *r, const struct model *m)
{
	size_t users = 0, groups = 0, members, seen;

	for (unsigned u = 0; u < USERS; u++) {
		bool present = m->user[u] && !m->user_removed[u];

		users += present;
		assert_int_equal(roster_user(r, named('u', u)) != NULL, present);
		for (unsigned v = 0; v < USERS; v++)
			assert_int_equal(roster_is_blocked(r, named('u', u), named('u', v)), m->block[u][v] && !m->block_removed[u][v]);
	}
	for (unsigned g = 0; g < GROUPS; g++) {
		bool present = m->group[g] && !m->group_removed[g];

		groups += present;
		members = seen = 0;
		for (unsigned u = 0; u < USERS; u++) {
			members += model_is_member(m, g, u);
			assert_int_equal(roster_is_member(r, named('g', g), named('u', u)), model_is_member(m, g, u));
			for (uint64_t seq = 0; seq < 35; seq += 3)
				assert_int_equal(roster_may_see(r, named('g', g), named('u', u), seq), model_may_see(m, g, u, seq));
		}
		assert_int_equal(roster_group(r, named('g', g)) != NULL, present);
		if (present)
			assert_int_equal(roster_group(r, named('g', g))->n_members, members);
		roster_each_member(r, named('g', g), count_member, &seen);
		assert_int_equal(seen, members);
	}
	assert_int_equal(roster_count_users(r), users);
	assert_int_equal(roster_count_groups(r), groups);
	seen = 0;
	roster_each_user(r, count_user, &seen);
	assert_int_equal(seen, users);
	seen = 0;
	roster_each_group(r, count_group, &seen);
	assert_int_equal(seen, groups);
}

struct copy {
	struct roster *to;
	uint64_t last;
	size_t n;
};

static void copy_item(void *arg, const Im__Bus__RosterItem *item)
{
	struct copy *c = arg;

	assert_true(item->version >= c->last); /* oldest first */
	c->last = item->version;
	c->n++;
	if (c->to)
		assert_int_equal(roster_apply(c->to, item), IM_OK);
}

static size_t model_newer(const struct model *m, uint64_t version)
{
	const uint64_t *all[] = {m->user, m->group, &m->stay[0][0][0], &m->block[0][0]};
	const size_t lens[] = {USERS, GROUPS, GROUPS * USERS * STAYS, USERS * USERS};
	size_t n = 0;

	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j < lens[i]; j++)
			n += all[i][j] > version;
	return n;
}

static void random_rows_end_as_in_the_model_and_so_does_their_copy(void **state)
{
	const char *given = getenv("SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	struct roster *r = roster_create(), *twin = roster_create();
	static struct model m;
	struct copy c;

	(void)state;
	print_message("SEED=%u\n", seed);
	srand(seed);
	for (int i = 0; i < ROUNDS; i++) {
		random_row(r, &m);
		if (i % 200 == 0) {
			uint64_t since = (uint64_t)rand() % 100000;

			compare(r, &m);
			c = (struct copy){NULL, since + 1, 0};
			roster_since(r, since, copy_item, &c);
			assert_int_equal(c.n, model_newer(&m, since));
			c = (struct copy){twin, 0, 0};
			roster_clear(twin);
			roster_since(r, 0, copy_item, &c);
			assert_int_equal(c.n, model_newer(&m, 0));
			assert_int_equal(roster_version(twin), roster_version(r));
			compare(twin, &m);
		}
	}
	roster_destroy(r);
	roster_destroy(twin);
}

static void newest_rows_come_without_the_others(void **state)
{
	struct roster *r = roster_create();
	struct copy c = {NULL, 0, 0};
	char name[16];

	(void)state;
	for (unsigned i = 1; i <= 5000; i++) {
		(void)snprintf(name, sizeof(name), "u%u", i);
		assert_int_equal(put_user(r, i, name, "", false), IM_OK);
	}
	roster_since(r, 4990, copy_item, &c);
	assert_int_equal(c.n, 10);
	assert_int_equal(roster_count_users(r), 5000);
	c = (struct copy){NULL, 0, 0};
	roster_since(r, 5000, copy_item, &c);
	assert_int_equal(c.n, 0);
	roster_clear(r);
	assert_int_equal(roster_version(r), 0);
	assert_null(roster_user(r, "u1"));
	roster_destroy(r);
	roster_destroy(NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(user_is_found_with_all_that_was_said),
		cmocka_unit_test(only_newer_rows_change_anything),
		cmocka_unit_test(malformed_rows_are_refused),
		cmocka_unit_test(member_sees_its_stays_and_nothing_between),
		cmocka_unit_test(names_only_mentioned_are_not_there),
		cmocka_unit_test(blocks_have_a_direction),
		cmocka_unit_test(random_rows_end_as_in_the_model_and_so_does_their_copy),
		cmocka_unit_test(newest_rows_come_without_the_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
