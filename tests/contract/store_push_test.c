/* What store.h promises to push: its rows, and the stream of all messages. Asked of memory and of sqlite, with and without a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "store_fixture.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- the stream */

struct stream {
	size_t n;
	uint64_t rows[64], seqs[64];
	char convs[64][32];
	unsigned left;
	enum im_status st;
};

static void on_row(void *arg, uint64_t row, struct message *m)
{
	struct stream *s = arg;

	assert_in_range(s->n, 0, 63);
	s->rows[s->n] = row;
	s->seqs[s->n] = m->seq;
	(void)snprintf(s->convs[s->n++], 32, "%s", m->conv);
}

static void on_done(void *arg, enum im_status st)
{
	struct stream *s = arg;

	s->left = 0;
	s->st = st;
}

static void ask(struct fixture *f, uint64_t after, unsigned limit, struct stream *out)
{
	memset(out, 0, sizeof(*out));
	out->left = 1;
	store_stream(f->store, after, limit, on_row, on_done, out);
	run_until_zero(f, &out->left);
	assert_int_equal(out->st, IM_OK);
}

/* Rows come a moment later than answers. */
static void ask_until(struct fixture *f, uint64_t after, unsigned limit, size_t n, struct stream *out)
{
	static const struct timespec moment = { 0, 5000000 };

	for (int tries = 0; tries < 2000; tries++) {
		ask(f, after, limit, out);
		if (out->n >= n)
			return;
		(void)nanosleep(&moment, NULL);
	}
	fail_msg("%zu of %zu rows came", out->n, n);
}

static void the_stream_has_every_message_in_the_order_of_the_appends(struct fixture *f, bool reopen)
{
	static const char *const convs[] = { "u/alice:bob", "u/alice:carol", "u/alice:bob", "u/alice:dora", "u/alice:carol", "u/alice:bob" };
	static const uint64_t seqs[] = { 1, 1, 2, 1, 2, 3 };
	struct stream s, rest;

	ask(f, 0, 10, &s);
	assert_int_equal(s.n, 0);
	ask(f, STORE_STREAM_END, 10, &s);
	assert_int_equal(s.n, 0);
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(append_text(f, convs[i], seqs[i], "alice", ""), IM_OK);
	if (reopen)
		fixture_reopen(f);
	ask_until(f, 0, 64, 6, &s);
	assert_int_equal(s.n, 6);
	for (size_t i = 0; i < 6; i++) {
		assert_string_equal(s.convs[i], convs[i]);
		assert_int_equal(s.seqs[i], seqs[i]);
		assert_true(i == 0 || s.rows[i] > s.rows[i - 1]);
	}
	ask(f, s.rows[1], 2, &rest); /* from anywhere on, as many as asked for, under the same numbers */
	assert_int_equal(rest.n, 2);
	assert_int_equal(rest.rows[0], s.rows[2]);
	assert_int_equal(rest.rows[1], s.rows[3]);
	ask(f, s.rows[5], 64, &rest);
	assert_int_equal(rest.n, 0);
	ask(f, STORE_STREAM_END, 64, &rest);
	assert_int_equal(rest.n, 1);
	assert_int_equal(rest.rows[0], s.rows[5]);
}

/* ---- rows of push */

static void put(struct fixture *f, const char *key, const char *reason, bool removed)
{
	Im__Bus__PushToken t = IM__BUS__PUSH_TOKEN__INIT;
	Im__Bus__StoredPush p = IM__BUS__STORED_PUSH__INIT;
	struct store_entry e = { .kind = STORE_PUSH, .push = &p };

	t.reason = (char *)(uintptr_t)reason;
	p.key = (char *)(uintptr_t)key;
	p.token = &t;
	p.removed = removed;
	assert_int_equal(append_entry(f, &e), IM_OK);
}

struct kept {
	size_t n;
	char text[128];
};

static void on_kept(void *arg, const Im__Bus__StoredPush *p)
{
	struct kept *k = arg;

	k->n++;
	(void)snprintf(k->text + strlen(k->text), sizeof(k->text) - strlen(k->text), "%s=%s;", p->key, p->token->reason);
}

static void what_push_keeps_is_there_after_a_restart(void **state)
{
	struct kept k = { 0 };
	struct fixture f;

	(void)state;
	fixture_open(&f, "sqlite");
	put(&f, "a", "1", false);
	put(&f, "b", "1", false);
	put(&f, "c", "1", false);
	put(&f, "a", "2", false);
	put(&f, "b", "", true);
	fixture_reopen(&f);
	store_push(f.store, on_kept, &k);
	assert_int_equal(k.n, 2);
	assert_string_equal(k.text, "a=2;c=1;");
	fixture_close(&f);
}

static void stream_of(const char *driver, bool reopen)
{
	struct fixture f;

	fixture_open(&f, driver);
	the_stream_has_every_message_in_the_order_of_the_appends(&f, reopen);
	fixture_close(&f);
}

static void memory_has_the_stream(void **state)
{
	(void)state;
	stream_of("memory", false);
}

static void sqlite_has_the_stream(void **state)
{
	(void)state;
	stream_of("sqlite", false);
}

static void sqlite_has_the_stream_after_a_restart(void **state)
{
	(void)state;
	stream_of("sqlite", true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_has_the_stream),
		cmocka_unit_test(sqlite_has_the_stream),
		cmocka_unit_test(sqlite_has_the_stream_after_a_restart),
		cmocka_unit_test(what_push_keeps_is_there_after_a_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
