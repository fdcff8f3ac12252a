#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "store_fixture.h"
#include "base/clock.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEADLINE_MS 10000

static int remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
	(void)sb;
	(void)type;
	(void)ftw;
	return remove(path);
}

enum im_status fixture_try_open(struct fixture *f, struct im_err *err)
{
	char url[128];

	snprintf(url, sizeof(url), "%s:%s", f->driver, f->dir);
	return store_open(url, f->loop, &f->settings, &f->store, err);
}

void fixture_open(struct fixture *f, const char *driver)
{
	struct im_err err = { "" };

	memset(f, 0, sizeof(*f));
	f->driver = driver;
	snprintf(f->dir, sizeof(f->dir), "/tmp/im-store-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->settings.dedupe_days = 7;
	f->settings.segment_bytes = 256 << 10;
	f->settings.store_backlog = 64 << 20;
	f->loop = im_loop_create();
	f->next = 1;
	if (fixture_try_open(f, &err) != IM_OK)
		fail_msg("%s", err.text);
}

void fixture_reopen(struct fixture *f)
{
	struct im_err err = { "" };

	store_close(f->store);
	f->store = NULL;
	if (fixture_try_open(f, &err) != IM_OK)
		fail_msg("%s", err.text);
}

void fixture_close(struct fixture *f)
{
	store_close(f->store);
	im_loop_destroy(f->loop);
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct wait {
	struct fixture *f;
	unsigned *left;
	int64_t until;
};

static void look(void *arg)
{
	struct wait *w = arg;

	if (*w->left == 0 || im_clock_mono_ms() > w->until)
		im_loop_stop(w->f->loop);
}

void run_until_zero(struct fixture *f, unsigned *left)
{
	struct wait w = { f, left, im_clock_mono_ms() + DEADLINE_MS };
	struct im_after *after = im_after_create(f->loop, look, &w);
	struct im_timer *timer = im_timer_create(f->loop, look, &w);

	im_timer_start(timer, 100, 100);
	if (*left)
		im_loop_run(f->loop);
	im_timer_destroy(timer);
	im_after_destroy(after);
	assert_int_equal(*left, 0);
}

struct answer {
	unsigned left;
	enum im_status st;
	unsigned count;
	void *out;
};

static void on_done(void *arg, enum im_status st)
{
	struct answer *a = arg;

	a->st = st;
	a->left--;
}

struct message *make_message(struct fixture *f, const char *conv, uint64_t seq, const char *from, const char *id, const char *body)
{
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	char client_id[IM_NAME_MAX + 8], msgid[IM_MSGID_LEN + 1];
	struct position pos = { 1, 77, 0 };
	struct message *m;

	f->next += 100;
	pos.next = f->next;
	if (f->own)
		pos = (struct position){ 0 };
	snprintf(client_id, sizeof(client_id), "%s:pc", from);
	im_msgid_encode(1, 77, f->next, msgid);
	r.ts = im_clock_wall_ms();
	r.user = (char *)(uintptr_t)from;
	r.client_id = client_id;
	r.id = (char *)(uintptr_t)id;
	r.type = (char *)(uintptr_t)"text";
	r.body.data = (uint8_t *)(uintptr_t)body;
	r.body.len = strlen(body);
	m = message_create(&r, conv, &pos, msgid);
	assert_non_null(m);
	m->seq = seq;
	m->prev = seq - 1;
	m->section_epoch = 1;
	return m;
}

enum im_status append_entry(struct fixture *f, const struct store_entry *e)
{
	struct answer a = { .left = 1 };

	store_append(f->store, e, 1, on_done, &a);
	assert_int_equal(a.left, 1); /* never inside the call */
	run_until_zero(f, &a.left);
	return a.st;
}

enum im_status append_message(struct fixture *f, struct message *m)
{
	struct store_entry e = { .kind = STORE_MESSAGE, .pos = m->pos, .message = m };
	enum im_status st = append_entry(f, &e);

	message_unref(m);
	return st;
}

enum im_status append_text(struct fixture *f, const char *conv, uint64_t seq, const char *from, const char *id)
{
	return append_message(f, make_message(f, conv, seq, from, id, "hello"));
}

static void on_seq(void *arg, struct message *m)
{
	struct answer *a = arg;
	struct seqs *s = a->out;

	memcpy(s->msgid[s->n], m->msgid, sizeof(m->msgid));
	s->list[s->n++] = m->seq;
}

enum im_status history(struct fixture *f, const struct store_range *r, struct seqs *out)
{
	struct answer a = { .left = 1, .out = out };

	out->n = 0;
	store_history(f->store, r, on_seq, on_done, &a);
	assert_int_equal(a.left, 1);
	run_until_zero(f, &a.left);
	return a.st;
}

uint64_t last_seq(struct fixture *f, const char *conv)
{
	struct store_lookup_conv c = { .conv = conv };
	struct answer a = { .left = 1 };

	store_lookup(f->store, &c, 1, NULL, 0, on_done, &a);
	assert_int_equal(a.left, 1);
	run_until_zero(f, &a.left);
	assert_int_equal(a.st, IM_OK);
	return c.last_seq;
}

struct message *find_id(struct fixture *f, const char *user, const char *id)
{
	char client_id[IM_NAME_MAX + 8];
	struct store_lookup_id i = { .user = user, .client_id = client_id, .id = id };
	struct answer a = { .left = 1 };

	snprintf(client_id, sizeof(client_id), "%s:pc", user);
	store_lookup(f->store, NULL, 0, &i, 1, on_done, &a);
	run_until_zero(f, &a.left);
	assert_int_equal(a.st, IM_OK);
	return i.found;
}

static void on_count(void *arg, enum im_status st, unsigned n)
{
	struct answer *a = arg;

	a->count = n;
	on_done(arg, st);
}

unsigned unread(struct fixture *f, const char *user, const char *conv, uint64_t read)
{
	struct answer a = { .left = 1 };

	store_unread(f->store, user, conv, read, on_count, &a);
	run_until_zero(f, &a.left);
	assert_int_equal(a.st, IM_OK);
	return a.count;
}

static void on_conversation(void *arg, const struct store_conversation *c)
{
	struct answer *a = arg;
	struct conversations *out = a->out;

	snprintf(out->names[out->n], sizeof(out->names[0]), "%s", c->conv);
	out->list[out->n] = *c;
	out->list[out->n].conv = out->names[out->n];
	out->n++;
}

void conversations(struct fixture *f, const char *user, struct conversations *out)
{
	struct answer a = { .left = 1, .out = out };

	out->n = 0;
	store_conversations(f->store, user, on_conversation, on_done, &a);
	run_until_zero(f, &a.left);
	assert_int_equal(a.st, IM_OK);
}

const struct store_conversation *conversation(const struct conversations *c, const char *conv)
{
	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->names[i], conv) == 0)
			return &c->list[i];
	return NULL;
}

static void on_device(void *arg, const struct store_device *d)
{
	struct answer *a = arg;
	struct device_view *v = a->out;

	v->device = *d;
	v->devices++;
}

static void on_cursor(void *arg, const struct store_cursor *c)
{
	struct answer *a = arg;
	struct device_view *v = a->out;

	snprintf(v->convs[v->cursors], sizeof(v->convs[0]), "%s", c->conv);
	v->cursor[v->cursors++] = *c;
}

static void on_refusal(void *arg, const Im__Bus__StoredRefusal *r)
{
	struct answer *a = arg;
	struct device_view *v = a->out;

	v->refusal[v->refusals++] = r->key;
}

void device(struct fixture *f, const char *user, const char *client_id, struct device_view *out)
{
	struct answer a = { .left = 1, .out = out };

	memset(out, 0, sizeof(*out));
	store_device(f->store, user, client_id, on_device, on_cursor, on_refusal, on_done, &a);
	run_until_zero(f, &a.left);
	assert_int_equal(a.st, IM_OK);
}

unsigned devices(struct fixture *f, const char *user)
{
	struct device_view v = { 0 };
	struct answer a = { .left = 1, .out = &v };

	store_devices(f->store, user, on_device, on_done, &a);
	run_until_zero(f, &a.left);
	assert_int_equal(a.st, IM_OK);
	return v.devices;
}
