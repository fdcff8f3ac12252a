/* See fake_offline.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_offline.h"

#include "backup.h"
#include "wire/codec.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake fake;

/* ---- answers from the loop */

struct later {
	struct later *next;
	store_done_fn *store;
	link_done_fn *link;
	link_answer_fn *query;
	inbox_post_fn *post;
	store_count_fn *count;
	void *arg;
	enum im_status st;
	struct message *m;
};

static void on_later(void *arg)
{
	struct later *l = arg;

	if (l->store)
		l->store(l->arg, l->st);
	else if (l->link)
		l->link(l->arg, l->st);
	else if (l->query)
		l->query(l->arg, fake.plugin_away ? NULL : "{\"allowed\":true,\"rule\":\"fake\"}");
	else if (l->post)
		l->post(l->arg, l->st, l->m);
	else
		l->count(l->arg, l->st, 3);
	free(l);
}

static void later(struct later what)
{
	struct later *l = malloc(sizeof(*l));

	assert_non_null(l);
	*l = what;
	if (fake.silent) {
		l->next = fake.waiting;
		fake.waiting = l;
		return;
	}
	assert_int_equal(im_loop_defer(fake.loop, on_later, l), IM_OK);
}

void fake_close(void)
{
	while (fake.waiting != NULL) {
		struct later *l = fake.waiting;

		fake.waiting = l->next;
		l->st = IM_UNCERTAIN;
		on_later(l);
	}
}

static void trace(const char *what)
{
	size_t used = strlen(fake.trace);

	(void)snprintf(fake.trace + used, sizeof(fake.trace) - used, "%s ", what);
}

/* ---- backups */

enum im_status backup_job_start(struct backup *b, const char *path, bool replace, struct im_err *err)
{
	(void)b;
	if (strstr(path, "busy"))
		return im_fail(err, IM_BUSY, "a backup is under way");
	(void)snprintf(fake.backup_path, sizeof(fake.backup_path), "%s%s", path, replace ? "!" : "");
	return IM_OK;
}

void backup_job_status(struct backup *b, struct backup_status *out)
{
	(void)b;
	*out = (struct backup_status){.state = BACKUP_COPYING, .file = fake.backup_path, .error = ""};
}

/* ---- store */

static void append_item(const Im__Bus__RosterItem *item)
{
	assert_true(item->version > fake.appended_version);
	fake.appended_version = item->version;
}

void store_append(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg)
{
	(void)s;
	trace("append");
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(entries[i].kind, STORE_ROSTER);
		append_item(entries[i].roster);
	}
	later((struct later){.store = done, .arg = arg, .st = fake.append_status});
}

static uint64_t newest(const char *conv)
{
	uint64_t seq = 0;

	for (size_t i = 0; i < fake.n_messages; i++) {
		if (strcmp(fake.messages[i]->conv, conv) == 0)
			seq = fake.messages[i]->seq;
	}
	return seq;
}

void store_lookup(struct store *s, struct store_lookup_conv *convs, size_t n_convs, struct store_lookup_id *ids, size_t n_ids,
		  store_done_fn *done, void *arg)
{
	(void)s;
	(void)ids;
	assert_int_equal(n_ids, 0);
	for (size_t i = 0; i < n_convs; i++)
		convs[i].last_seq = newest(convs[i].conv);
	later((struct later){.store = done, .arg = arg});
}

void store_history(struct store *s, const struct store_range *range, store_message_fn *row, store_done_fn *done, void *arg)
{
	unsigned rows = 0;

	(void)s;
	fake.reads++;
	assert_in_range(range->limit, 1, 1000);
	for (size_t i = 0; i < fake.n_messages && rows < range->limit; i++) {
		struct message *m = fake.messages[range->newest_first ? fake.n_messages - 1 - i : i];

		if (strcmp(m->conv, range->conv) == 0 && m->seq >= range->from && m->seq <= range->to) {
			row(arg, m);
			rows++;
		}
	}
	later((struct later){.store = done, .arg = arg});
}

void store_conversations(struct store *s, const char *user, store_conversation_fn *row, store_done_fn *done, void *arg)
{
	struct store_conversation c = {"u/alice:bob", newest("u/alice:bob"), 1000, 1, 2};

	(void)s;
	if (c.last_seq > 0 && (strcmp(user, "alice") == 0 || strcmp(user, "bob") == 0))
		row(arg, &c);
	later((struct later){.store = done, .arg = arg});
}

void store_unread(struct store *s, const char *user, const char *conv, uint64_t read, store_count_fn *done, void *arg)
{
	(void)s;
	(void)user;
	(void)conv;
	(void)read;
	later((struct later){.count = done, .arg = arg});
}

void store_device(struct store *s, const char *user, const char *device, store_device_fn *row, store_cursor_fn *cursor,
		  store_refusal_fn *refusal, store_done_fn *done, void *arg)
{
	struct store_cursor c = {user, device, "u/alice:bob", 4, 0};

	(void)s;
	(void)row;
	(void)refusal;
	cursor(arg, &c);
	later((struct later){.store = done, .arg = arg});
}

void store_devices(struct store *s, const char *user, store_device_fn *row, store_done_fn *done, void *arg)
{
	struct store_device d = {.user = user, .device = "alice:phone", .named = true};

	(void)s;
	row(arg, &d);
	later((struct later){.store = done, .arg = arg});
}

void store_push(struct store *s, store_push_fn *row, void *arg)
{
	(void)s; /* nobody has registered */
	(void)row;
	(void)arg;
}

void store_stream(struct store *s, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg)
{
	(void)s; /* no feed runs */
	(void)after;
	(void)limit;
	(void)row;
	later((struct later){.store = done, .arg = arg});
}

const struct store_start *store_start(struct store *s)
{
	static const struct store_start start = {.epoch = "epoch"};

	(void)s;
	return &start;
}

void store_stats(struct store *s, struct store_stats *out)
{
	(void)s;
	memset(out, 0, sizeof(*out));
}

/* ---- link */

void link_roster(struct link *l, const Im__Bus__RosterItem *const *items, size_t n, link_done_fn *done, void *arg)
{
	(void)l;
	trace("link");
	assert_true(n > 0);
	assert_true(items[n - 1]->version <= roster_version(fake.roster)); /* in force here before the plugin hears of it */
	later((struct later){.link = done, .arg = arg, .st = fake.plugin_away ? IM_BUSY : IM_OK});
}

void link_query(struct link *l, const char *json, link_answer_fn *done, void *arg)
{
	(void)l;
	assert_non_null(json);
	later((struct later){.query = done, .arg = arg});
}

size_t link_pending(const struct link *l)
{
	(void)l;
	return 0;
}

void link_kick(struct link *l, uint64_t session, const char *reason)
{
	(void)l;
	(void)session;
	(void)reason;
	fake.kicks++;
}

/* ---- inbox */

static struct message *make_message(const char *conv, const char *from, const char *type, Im__V1__Enc enc, const void *body, size_t len)
{
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	struct position pos = {0, 1, fake.n_messages};
	struct message *m;

	r.user = (char *)from;
	r.conv = (char *)conv;
	r.type = (char *)type;
	r.enc = enc;
	r.body.data = (uint8_t *)body;
	r.body.len = len;
	m = message_create(&r, conv, &pos, "00000000000000000000000000");
	assert_non_null(m);
	m->prev = newest(conv);
	m->seq = m->prev + 1;
	assert_true(fake.n_messages < FAKE_MESSAGES);
	fake.messages[fake.n_messages++] = m;
	return m;
}

bool inbox_join(struct batch *b, const Im__Bus__RosterItem *item)
{
	(void)b;
	append_item(item);
	return true;
}

void inbox_post(struct inbox *in, const Im__Bus__Record *r, const char *conv, inbox_join_fn *join, inbox_post_fn *done, void *arg)
{
	struct message *m = make_message(conv, r->user, r->type, r->enc, r->body.data, r->body.len);

	(void)in;
	trace(join ? "post+append" : "post");
	if (join)
		assert_true(join(arg, m, NULL));
	later((struct later){.post = done, .arg = arg, .m = m, .st = fake.append_status});
}

void inbox_stats(const struct inbox *in, struct inbox_stats *out)
{
	(void)in;
	memset(out, 0, sizeof(*out));
}

/* ---- delivery */

static void take_response(json_t *response, size_t bytes)
{
	assert_non_null(response);
	json_decref(fake.response);
	fake.response = response;
	fake.response_bytes = bytes;
	fake.responses++;
	if (fake.running)
		im_loop_stop(fake.loop);
}

void delivery_send(struct delivery *d, uint64_t session, const char *topic, const void *payload, size_t len)
{
	(void)d;
	trace("answer");
	assert_int_equal(session, 77);
	assert_string_equal(topic, "$CONTROL/im/v1/response");
	take_response(json_loadb(payload, len, 0, NULL), len);
	fake.refused += json_object_get(json_array_get(json_object_get(fake.response, "responses"), 0), "error") != NULL;
}

void delivery_respond(struct delivery *d, const Im__Bus__Record *request, const Im__V1__Response *response)
{
	struct im_buf topic, payload;
	json_t *root;

	(void)d;
	(void)request;
	im_buf_init(&topic);
	im_buf_init(&payload);
	im_codec_response(IM_CODEC_JSON, response, &topic, &payload);
	root = json_loadb(payload.data, payload.len, 0, NULL);
	take_response(root, payload.len);
	im_buf_finish(&topic);
	im_buf_finish(&payload);
}

void delivery_presence(struct delivery *d, const char *user, const char *client_id, const char *conv, uint64_t seq,
		       struct delivery_presence *out)
{
	(void)d;
	(void)user;
	(void)client_id;
	(void)conv;
	(void)seq;
	memset(out, 0, sizeof(*out));
}

void delivery_event(struct delivery *d, const char *user, const char *client_id, const char *kind, const char *json)
{
	(void)d;
	(void)user;
	(void)client_id;
	(void)kind;
	(void)json;
}

void delivery_on_read(struct delivery *d, delivery_read_fn *fn, void *arg)
{
	(void)d;
	(void)fn;
	(void)arg;
}

void delivery_on_greeted(struct delivery *d, delivery_greeted_fn *fn, void *arg)
{
	(void)d;
	(void)fn;
	(void)arg;
}

void delivery_device_set(struct delivery *d, uint64_t session, uint32_t max_packet)
{
	(void)d;
	assert_int_equal(session, 5);
	fake.max_packet = max_packet;
	trace("device");
}

void delivery_roster_changed(struct delivery *d, const Im__Bus__RosterItem *item)
{
	(void)d;
	(void)item;
	trace("changed");
}

static const struct delivery_session_info session = {.handle = 5, .user = "alice", .client_id = "alice:phone", .address = "127.0.0.1"};

void delivery_each_session(struct delivery *d, const char *user, delivery_session_fn *fn, void *arg)
{
	(void)d;
	if (user == NULL || strcmp(user, "alice") == 0)
		fn(arg, &session);
}

bool delivery_find_session(struct delivery *d, uint64_t handle, struct delivery_session_info *out)
{
	(void)d;
	if (handle != 5)
		return false;
	*out = session;
	return true;
}

/* ---- the fixture */

void fake_start(void)
{
	struct im_err err;

	memset(&fake, 0, sizeof(fake));
	fake.loop = im_loop_create();
	fake.roster = roster_create();
	fake.settings.hash_kib = 8; /* what argon2id takes least: hashing is not what is tried here */
	fake.settings.hash_passes = 1;
	fake.settings.group_members = 5;
	fake.settings.max_message = 262144;
	fake.settings.admins = (char *)"root, boss";
	assert_int_equal(request_create(fake.loop, &fake.settings, NULL, fake.roster, NULL, NULL, NULL, &fake.request, &err), IM_OK);
}

void fake_stop(void)
{
	request_destroy(fake.request);
	json_decref(fake.response);
	for (size_t i = 0; i < fake.n_messages; i++)
		message_unref(fake.messages[i]);
	roster_destroy(fake.roster);
	im_loop_destroy(fake.loop);
}

static void on_deadline(void *arg)
{
	(void)arg;
	fail_msg("no response in time; trace: %s", fake.trace);
}

json_t *fake_wait(unsigned n)
{
	struct im_timer *deadline = im_timer_create(fake.loop, on_deadline, NULL);

	im_timer_start(deadline, 10000, 0);
	fake.running = true;
	while (fake.responses < n)
		im_loop_run(fake.loop);
	fake.running = false;
	im_timer_destroy(deadline);
	return fake.response;
}

json_t *fake_control(const char *json)
{
	Im__Bus__Control c = IM__BUS__CONTROL__INIT;
	char text[8192];
	unsigned before = fake.responses;

	(void)snprintf(text, sizeof(text), "{\"commands\":[%s]}", json);
	c.session = 77;
	c.client_id = (char *)"$im-ctl-1";
	c.user = (char *)(fake.control_user ? fake.control_user : "");
	c.json.data = (uint8_t *)text;
	c.json.len = strlen(text);
	fake.trace[0] = '\0';
	request_control(fake.request, &c);
	return json_array_get(json_object_get(fake_wait(before + 1), "responses"), 0);
}

json_t *fake_request(const char *user, const char *method, const char *id, const char *args)
{
	Im__Bus__Record r = IM__BUS__RECORD__INIT;
	char client_id[80];
	unsigned before = fake.responses;

	(void)snprintf(client_id, sizeof(client_id), "%s:phone", user);
	r.kind = IM__BUS__KIND__KIND_REQUEST;
	r.user = (char *)user;
	r.client_id = client_id;
	r.session = 5;
	r.id = (char *)id;
	r.method = (char *)method;
	r.args.data = (uint8_t *)args;
	r.args.len = strlen(args);
	fake.trace[0] = '\0';
	request_record(fake.request, &r);
	return fake_wait(before + 1);
}

void fake_say(const char *conv, const char *from, size_t len)
{
	char *body = malloc(len + 1);

	assert_non_null(body);
	memset(body, 'x', len);
	(void)make_message(conv, from, "text", IM__V1__ENC__ENC_TEXT, body, len);
	free(body);
}
