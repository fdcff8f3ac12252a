/* plugin/link.c beside a broker and sessions that only take notes. The journal is the real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "plugin/broker.h"
#include "plugin/link.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SERVICE "$im-offline"
enum { SESSIONS = 600, PACKETS = 4096, DEADLINE_MS = 10000 };

/* ---------------------------------------------------------------- fakes */

struct packet {
	char to[32], topic[64], body[64];
	size_t len;
	int qos;
	bool props;
};

static struct {
	struct packet packets[PACKETS];      /* to clients */
	size_t n_packets;
	Im__Bus__FromPlugin *frames[PACKETS]; /* to the service */
	size_t n_frames;
	struct session sessions[SESSIONS];
	char names[SESSIONS][16];
	size_t n_sessions;
	unsigned kicked, woken, roster_items;
	struct link *link; /* told of the end of the connection that is kicked */
	bool refuse;
} g;

void *broker_alloc(size_t len)
{
	return malloc(len);
}

void broker_free(void *p)
{
	free(p);
}

bool broker_send(const char *client_id, const char *topic, void *payload, size_t len, int qos, const Im__Bus__Properties *props)
{
	struct packet *p = &g.packets[g.n_packets];

	if (strcmp(client_id, SERVICE) == 0) {
		assert_true(g.n_frames < PACKETS);
		assert_int_equal(qos, 0);
		g.frames[g.n_frames] = im__bus__from_plugin__unpack(NULL, len, payload);
		assert_non_null(g.frames[g.n_frames]);
		g.n_frames++;
	} else {
		assert_true(g.n_packets < PACKETS);
		(void)snprintf(p->to, sizeof(p->to), "%s", client_id);
		(void)snprintf(p->topic, sizeof(p->topic), "%s", topic);
		(void)snprintf(p->body, sizeof(p->body), "%.*s", (int)len, payload ? (char *)payload : "");
		p->len = len;
		p->qos = qos;
		p->props = props != NULL;
		g.n_packets++;
	}
	free(payload);
	return !g.refuse;
}

void broker_kick(const char *client_id, bool with_will)
{
	(void)with_will;
	if (g.link)
		link_service(g.link, client_id, false); /* DISCONNECT comes inside the kick */
	assert_string_equal(client_id, SERVICE);
	g.kicked++;
}

bool broker_acked(const struct mosquitto *context, uint64_t *out)
{
	(void)context;
	(void)out;
	return false;
}

void broker_wake(void)
{
	g.woken++;
}

struct session *session_by_handle(struct session_table *t, uint64_t handle)
{
	(void)t;
	return handle >= 1 && handle <= g.n_sessions && g.sessions[handle - 1].handle == handle ? &g.sessions[handle - 1] : NULL;
}

void session_describe(const struct session *s, Im__Bus__Session *out, Im__Bus__Filter *filters, Im__Bus__Filter **array)
{
	(void)filters;
	(void)array;
	out->handle = s->handle;
	out->client_id = (char *)(uintptr_t)s->client_id;
}

void session_each(struct session_table *t, session_fn *fn, void *arg)
{
	(void)t;
	for (size_t i = 0; i < g.n_sessions; i++)
		if (g.sessions[i].handle)
			fn(arg, &g.sessions[i]);
}

void session_kick(struct session_table *t, struct session *s, const char *reason)
{
	(void)t;
	(void)reason;
	s->kicked = true;
}

/* ---------------------------------------------------------------- fixture */

struct fixture {
	char dir[64];
	struct im_settings settings;
	struct journal *journal;
	struct roster *roster;
	struct link *l;
	unsigned appended;
};

static void add_sessions(size_t n)
{
	for (; n > 0; n--) {
		struct session *s = &g.sessions[g.n_sessions];

		(void)snprintf(g.names[g.n_sessions], sizeof(g.names[0]), "c%zu", g.n_sessions + 1);
		*s = (struct session){.handle = ++g.n_sessions, .protocol = 4};
		s->client_id = g.names[g.n_sessions - 1];
		s->user = s->client_id;
	}
}

static void forget_sent(void)
{
	for (size_t i = 0; i < g.n_frames; i++)
		im__bus__from_plugin__free_unpacked(g.frames[i], NULL);
	g.n_frames = g.n_packets = 0;
	g.woken = 0;
}

static void on_item(void *arg, const Im__Bus__RosterItem *item)
{
	(void)arg;
	(void)item;
	g.roster_items++;
}

static void on_query(void *arg, const char *json, struct im_buf *out)
{
	(void)arg;
	im_buf_printf(out, "{\"asked\":%s}", json);
}

static void open_all(struct fixture *f)
{
	struct im_err err = {""};

	if (journal_open(&f->settings, &f->journal, &err) != IM_OK)
		fail_msg("%s", err.text);
	f->roster = roster_create();
	if (link_create(&f->settings, f->journal, NULL, f->roster, &f->l, &err) != IM_OK)
		fail_msg("%s", err.text);
	g.link = f->l;
	link_on_roster(f->l, on_item, NULL);
	link_on_query(f->l, on_query, NULL);
}

static void close_all(struct fixture *f)
{
	link_destroy(f->l);
	journal_close(f->journal);
	roster_destroy(f->roster);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	memset(&g, 0, sizeof(g));
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/im-link-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->settings = (struct im_settings){.dir = f->dir, .node = 1, .journal_limit = 1 << 30, .segment_bytes = 8 << 20, .expand_bytes = 4 << 20};
	open_all(f);
	*state = f;
	return 0;
}

static void remove_all(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[512];

	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (unlink(path) != 0)
			remove_all(path);
	}
	if (d)
		(void)closedir(d);
	(void)rmdir(dir);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_all(f);
	forget_sent();
	remove_all(f->dir);
	free(f);
	return 0;
}

static void give(struct fixture *f, const Im__Bus__ToPlugin *m)
{
	size_t len = im__bus__to_plugin__get_packed_size(m);
	uint8_t *data = malloc(len + 1);

	(void)im__bus__to_plugin__pack(m, data);
	link_frame(f->l, data, len);
	free(data);
}

/* Connects and says hello with one mark (epoch 0 = none). */
static void greet_from(struct fixture *f, const char *store, uint64_t epoch, uint64_t offset)
{
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Hello hello = IM__BUS__HELLO__INIT;
	Im__Bus__Confirm mark = IM__BUS__CONFIRM__INIT, *marks[] = {&mark};

	link_service(f->l, SERVICE, true);
	hello.protocol = 1;
	hello.node = 1;
	hello.store = (char *)(uintptr_t)store;
	mark.epoch = epoch;
	mark.offset = offset;
	hello.high_water = marks;
	hello.n_high_water = epoch != 0;
	m.hello = &hello;
	give(f, &m);
	link_tick(f->l);
}

static void greet(struct fixture *f, uint64_t epoch, uint64_t offset)
{
	greet_from(f, "", epoch, offset);
}

static void confirm(struct fixture *f, uint64_t epoch, uint64_t offset)
{
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Confirm c = IM__BUS__CONFIRM__INIT;

	c.epoch = epoch;
	c.offset = offset;
	m.confirm = &c;
	give(f, &m);
	link_tick(f->l);
}

static void append(struct fixture *f, size_t len)
{
	int64_t until = im_clock_mono_ms() + DEADLINE_MS;
	char *body = malloc(len);
	enum im_status st;

	memset(body, 'a' + (int)(f->appended++ % 26), len);
	while ((st = journal_append(f->journal, body, len)) == IM_BUSY && im_clock_mono_ms() < until)
		(void)usleep(1000);
	assert_int_equal(st, IM_OK);
	free(body);
}

/* Something waits only for company: a deadline passes by itself, and the loop is woken for it. */
static bool gathering(struct fixture *f)
{
	struct link_stats st;

	link_stats(f->l, &st);
	return st.backlog > 0 && st.in_flight > 0 && st.in_flight < LINK_IN_FLIGHT;
}

/* Ticks until nothing more comes; slices must follow one another from (*epoch, *offset). Returns their bytes. */
static uint64_t drain(struct fixture *f, uint64_t *epoch, uint64_t *offset)
{
	uint64_t bytes = 0;
	size_t seen = 0;

	for (int quiet = 0; quiet < 3; quiet++) {
		unsigned woken = g.woken;

		link_tick(f->l);
		if (gathering(f)) {
			assert_true(g.woken > woken);
			quiet = 0;
		}
		for (; seen < g.n_frames; seen++) {
			const Im__Bus__Slice *s = g.frames[seen]->slice;

			if (!s)
				continue;
			if (s->epoch == *epoch)
				assert_int_equal(s->offset, *offset);
			assert_int_equal(s->next, s->offset + s->records.len);
			*epoch = s->epoch;
			*offset = s->next;
			bytes += s->records.len;
			quiet = 0;
		}
	}
	return bytes;
}

/* ---------------------------------------------------------------- tests */

static void nothing_is_sent_before_the_hello(void **state)
{
	struct fixture *f = *state;

	append(f, 100);
	link_service(f->l, SERVICE, true);
	link_tick(f->l);
	assert_int_equal(g.n_frames, 0);
	assert_false(link_is_up(f->l));
}

static void hello_is_answered_with_hello_sessions_and_slices(void **state)
{
	struct fixture *f = *state;
	size_t named = 0, complete_at = 0, slice_at = 0;

	add_sessions(SESSIONS);
	append(f, 100);
	greet(f, 0, 0);
	for (int i = 0; i < 3; i++)
		link_tick(f->l);
	assert_true(link_is_up(f->l));
	assert_non_null(g.frames[0]->hello);
	assert_int_equal(g.frames[0]->hello->epoch, journal_epoch(f->journal));
	for (size_t i = 0; i < g.n_frames; i++) {
		named += g.frames[i]->n_sessions;
		if (g.frames[i]->sessions_complete)
			complete_at = i;
		if (g.frames[i]->slice)
			slice_at = i;
	}
	assert_int_equal(named, SESSIONS);
	assert_true(slice_at >= complete_at && slice_at > 0);
	assert_int_equal(g.frames[slice_at]->slice->offset, 0);
	assert_int_equal(g.frames[slice_at]->slice->records.len, 108);
}

static void window_bounds_what_is_in_flight(void **state)
{
	struct fixture *f = *state;
	uint64_t epoch = 0, offset = 0, total = 6000 * 1008, got;
	struct link_stats st;

	for (int i = 0; i < 6000; i++)
		append(f, 1000);
	greet(f, 0, 0);
	got = drain(f, &epoch, &offset);
	assert_true(got >= LINK_IN_FLIGHT - LINK_SLICE && got < LINK_IN_FLIGHT + LINK_SLICE);
	link_stats(f->l, &st);
	assert_int_equal(st.in_flight, got);
	assert_int_equal(st.backlog, total - got);
	forget_sent();
	confirm(f, epoch, offset);
	assert_int_equal(journal_bytes(f->journal), total - got);
	got += drain(f, &epoch, &offset);
	assert_int_equal(got, total);
}

static void new_connection_gets_everything_from_the_confirmed_position(void **state)
{
	struct fixture *f = *state;
	uint64_t epoch = 0, offset = 0, mark;

	for (int i = 0; i < 100; i++)
		append(f, 100);
	greet(f, 0, 0);
	assert_int_equal(drain(f, &epoch, &offset), 100 * 108);
	mark = 40 * 108;
	confirm(f, epoch, mark);
	link_service(f->l, SERVICE, false);
	assert_false(link_is_up(f->l));
	forget_sent();
	greet(f, epoch, mark);
	offset = mark;
	assert_int_equal(drain(f, &epoch, &offset), 60 * 108);
}

static void older_epochs_come_first_and_marks_are_skipped(void **state)
{
	struct fixture *f = *state;
	uint64_t first = journal_epoch(f->journal), second, epoch, offset;

	for (int i = 0; i < 10; i++)
		append(f, 100);
	close_all(f);
	open_all(f);
	second = journal_epoch(f->journal);
	for (int i = 0; i < 5; i++)
		append(f, 100);
	greet(f, first, 3 * 108);
	epoch = first;
	offset = 3 * 108;
	assert_int_equal(drain(f, &epoch, &offset), 12 * 108);
	assert_int_equal(epoch, second);
	assert_int_equal(offset, 5 * 108);
	confirm(f, second, 5 * 108);
	confirm(f, first, 10 * 108);
	assert_int_equal(journal_bytes(f->journal), 0);
}

static void confirming_what_was_never_sent_ends_the_connection(void **state)
{
	struct fixture *f = *state;
	uint64_t epoch = 0, offset = 0;

	append(f, 100);
	greet(f, 0, 0);
	(void)drain(f, &epoch, &offset);
	append(f, 100);
	confirm(f, epoch, 2 * 108);
	assert_int_equal(g.kicked, 1);
	assert_int_equal(journal_bytes(f->journal), 2 * 108);
}

/* One delivery `text` to the handles. */
static void deliver(struct fixture *f, uint64_t out_seq, const char *text, size_t len, uint64_t *qos1, size_t n1, uint64_t *qos0, size_t n0)
{
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Delivery d = IM__BUS__DELIVERY__INIT, *list[] = {&d};
	Im__Bus__Properties props = IM__BUS__PROPERTIES__INIT;

	d.topic = (char *)(uintptr_t)"im/v1/in/msg/u/bob";
	d.payload = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)text};
	d.properties = &props;
	d.qos1 = qos1;
	d.n_qos1 = n1;
	d.qos0 = qos0;
	d.n_qos0 = n0;
	m.out_seq = out_seq;
	m.deliveries = list;
	m.n_deliveries = 1;
	give(f, &m);
}

static void deliveries_reach_each_session_once_in_order(void **state)
{
	struct fixture *f = *state;
	uint64_t one[] = {1, 99, 2}, zero[] = {3};

	add_sessions(4);
	g.sessions[1].protocol = 5;
	g.sessions[2].websocket = true;
	greet(f, 0, 0);
	forget_sent();
	deliver(f, 1, "a", 1, one, 3, zero, 1);
	deliver(f, 2, "", 0, one, 1, NULL, 0);
	link_tick(f->l);
	assert_int_equal(g.n_packets, 4);
	assert_string_equal(g.packets[0].to, "c1");
	assert_int_equal(g.packets[0].qos, 1);
	assert_false(g.packets[0].props);
	assert_string_equal(g.packets[1].to, "c2");
	assert_true(g.packets[1].props);
	assert_string_equal(g.packets[2].to, "c3");
	assert_int_equal(g.packets[2].qos, 0);
	assert_int_equal(g.packets[3].len, 0);
	assert_int_equal(g.woken, 1); /* for the WebSocket */
	assert_int_equal(g.frames[g.n_frames - 1]->out_done, 2);
}

static void expansion_stops_at_the_budget_and_goes_on_in_order(void **state)
{
	struct fixture *f = *state;
	static char text[2000];
	uint64_t handles[100], closed = 50;
	size_t before = 0;
	int turns = 0;

	memset(text, 'x', sizeof(text));
	f->settings.expand_bytes = 20000;
	close_all(f);
	open_all(f);
	add_sessions(100);
	for (size_t i = 0; i < 100; i++)
		handles[i] = i + 1;
	greet(f, 0, 0);
	forget_sent();
	deliver(f, 1, text, sizeof(text), handles, 100, NULL, 0);
	deliver(f, 2, "last", 4, handles, 1, NULL, 0);
	for (; turns < 100 && g.n_packets < 100; turns++) {
		link_tick(f->l);
		assert_true(g.n_packets - before <= 10);
		before = g.n_packets;
		if (turns == 0)
			g.sessions[closed - 1].handle = 0; /* gone in the middle of it */
		if (g.n_packets < 100)
			assert_true(g.woken > 0);
	}
	assert_true(turns >= 10);
	assert_int_equal(g.n_packets, 100);
	assert_string_equal(g.packets[99].body, "last");
	assert_string_equal(g.packets[48].to, "c49");
	assert_string_equal(g.packets[49].to, "c51");
}

static void frames_out_of_place_end_the_connection(void **state)
{
	struct fixture *f = *state;
	uint64_t one = 1;

	add_sessions(1);
	link_service(f->l, SERVICE, true);
	deliver(f, 1, "early", 5, &one, 1, NULL, 0); /* before the hello */
	link_tick(f->l);
	assert_int_equal(g.kicked, 1);
	greet(f, 0, 0);
	deliver(f, 2, "gap", 3, &one, 1, NULL, 0);
	link_tick(f->l);
	assert_int_equal(g.kicked, 2);
	greet(f, 0, 0);
	link_frame(f->l, "\xff\xff\xff", 3);
	link_tick(f->l);
	assert_int_equal(g.kicked, 3);
	assert_int_equal(g.n_packets, 0);
	link_tick(f->l);
	assert_int_equal(g.kicked, 3);
}

static void flood_of_deliveries_is_bounded(void **state)
{
	struct fixture *f = *state;
	static char big[1 << 20];

	greet(f, 0, 0);
	for (int i = 0; i < 80; i++)
		link_frame(f->l, big, sizeof(big));
	link_tick(f->l);
	assert_int_equal(g.kicked, 1);
}

static void closed_control_signal_and_answer_travel(void **state)
{
	struct fixture *f = *state;
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Query q = IM__BUS__QUERY__INIT, *queries[] = {&q};
	Im__Bus__Kick k = IM__BUS__KICK__INIT, *kicks[] = {&k};
	const Im__Bus__FromPlugin *p;

	add_sessions(2);
	greet(f, 0, 0);
	forget_sent();
	link_closed(f->l, 7);
	link_closed(f->l, 8);
	link_session(f->l, &g.sessions[0]);
	link_session(f->l, &g.sessions[0]);
	assert_true(link_control(f->l, &g.sessions[0], "{}", 2));
	link_signal(f->l, &g.sessions[1], "u/bobby", 5, "t", 1);
	q.id = 5;
	q.json = (char *)(uintptr_t)"1";
	k.session = 2;
	m.queries = queries;
	m.n_queries = 1;
	m.kicks = kicks;
	m.n_kicks = 1;
	give(f, &m);
	link_tick(f->l);
	assert_int_equal(g.n_frames, 1);
	p = g.frames[0];
	assert_int_equal(p->n_closed, 2);
	assert_int_equal(p->closed[1], 8);
	assert_int_equal(p->n_sessions, 1);
	assert_string_equal(p->control[0]->user, "c1");
	assert_string_equal(p->signals[0]->conv, "u/bob");
	assert_string_equal(p->answers[0]->json, "{\"asked\":1}");
	assert_true(g.sessions[1].kicked);
	forget_sent();
	link_tick(f->l);
	assert_int_equal(g.n_frames, 0); /* nothing new, nothing sent */
}

/* SIGSTOP, a debugger, a disk that hangs: what is passing must not pile up in the broker for it. */
static void a_service_that_is_not_heard_gets_only_so_many_signals(void **state)
{
	static char payload[1024];
	struct fixture *f = *state;
	size_t bytes = 0, before;

	add_sessions(1);
	greet(f, 0, 0);
	for (int i = 0; i < 20000; i++) {
		link_signal(f->l, &g.sessions[0], "u/bob", 5, payload, sizeof(payload));
		if (i % 100)
			continue;
		link_tick(f->l);
		for (size_t n = 0; n < g.n_frames; n++)
			bytes += g.frames[n]->n_signals * sizeof(payload);
		forget_sent();
	}
	assert_in_range(bytes, 7 << 20, 9 << 20);
	assert_false(link_control(f->l, &g.sessions[0], "{}", 2)); /* whoever asks is told */
	confirm(f, 1, 0); /* it is back */
	assert_true(link_control(f->l, &g.sessions[0], "{}", 2));
	before = g.n_frames;
	link_signal(f->l, &g.sessions[0], "u/bob", 5, payload, sizeof(payload));
	link_tick(f->l);
	assert_int_equal(g.n_frames, before + 1);
}

static void give_user(struct fixture *f, const char *name, uint64_t version, bool begin, bool end)
{
	Im__Bus__ToPlugin m = IM__BUS__TO_PLUGIN__INIT;
	Im__Bus__Roster r = IM__BUS__ROSTER__INIT;
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT, *items[] = {&item};
	Im__Bus__User u = IM__BUS__USER__INIT;

	u.name = (char *)(uintptr_t)name;
	item.version = version;
	item.user = &u;
	r.items = items;
	r.n_items = 1;
	r.begin = begin;
	r.end = end;
	r.version = version;
	m.roster = &r;
	give(f, &m);
	link_tick(f->l);
}

static void roster_changes_survive_a_restart(void **state)
{
	struct fixture *f = *state;
	char path[128];
	struct stat sb;

	assert_int_equal(roster_version(f->roster), 0);
	greet(f, 0, 0);
	give_user(f, "alice", 1, false, false);
	give_user(f, "bob", 2, false, false);
	assert_int_equal(g.frames[g.n_frames - 1]->roster_version, 2);
	assert_int_equal(g.roster_items, 2);
	close_all(f);
	(void)snprintf(path, sizeof(path), "%s/roster", f->dir);
	assert_int_equal(stat(path, &sb), 0);
	assert_int_equal(truncate(path, sb.st_size - 1), 0); /* a torn tail */
	open_all(f);
	assert_int_equal(roster_version(f->roster), 1);
	assert_non_null(roster_user(f->roster, "alice"));
	assert_null(roster_user(f->roster, "bob"));
	greet(f, 0, 0);
	give_user(f, "carol", 3, false, false);
	close_all(f);
	open_all(f);
	assert_int_equal(roster_version(f->roster), 3);
}

static void snapshot_comes_into_force_at_its_end(void **state)
{
	struct fixture *f = *state;

	greet(f, 0, 0);
	give_user(f, "alice", 1, false, false);
	give_user(f, "bob", 5, true, false);
	assert_non_null(roster_user(f->roster, "alice"));
	assert_null(roster_user(f->roster, "bob"));
	g.roster_items = 0;
	give_user(f, "carol", 6, false, true);
	assert_null(roster_user(f->roster, "alice"));
	assert_non_null(roster_user(f->roster, "bob"));
	assert_non_null(roster_user(f->roster, "carol"));
	assert_int_equal(g.roster_items, 3); /* alice gone, two new */
	close_all(f);
	open_all(f);
	assert_int_equal(roster_version(f->roster), 6);
	assert_null(roster_user(f->roster, "alice"));
}

/* The roster version that the plugin's hello to a service with this store says. */
static uint64_t version_told(struct fixture *f, const char *store)
{
	close_all(f);
	open_all(f);
	greet_from(f, store, 0, 0);
	for (unsigned i = g.n_frames; i-- > 0;)
		if (g.frames[i]->hello)
			return g.frames[i]->hello->roster_version;
	fail();
	return 0;
}

static void roster_of_another_store_does_not_count(void **state)
{
	struct fixture *f = *state;

	greet_from(f, "0123456789abcdef0123456789abcdef", 0, 0);
	give_user(f, "alice", 7, true, true);
	assert_int_equal(version_told(f, "0123456789abcdef0123456789abcdef"), 7);
	assert_int_equal(version_told(f, "0123456789abcdef0123456789abcdee"), 0);
	assert_non_null(roster_user(f->roster, "alice")); /* decides until there is a better one */
	assert_int_equal(g.frames[g.n_frames - 1]->roster_version, 0);
	give_user(f, "bob", 7, true, true);
	assert_int_equal(g.frames[g.n_frames - 1]->roster_version, 7);
	assert_null(roster_user(f->roster, "alice"));
	assert_int_equal(version_told(f, "0123456789abcdef0123456789abcdee"), 7);
	assert_int_equal(version_told(f, "0123456789abcdef0123456789abcdef"), 0);
}

static void superseded_items_are_cleared_away(void **state)
{
	struct fixture *f = *state;
	char path[128];
	struct stat before, after;

	greet(f, 0, 0);
	for (uint64_t v = 1; v <= 200; v++)
		give_user(f, "alice", v, false, false);
	close_all(f);
	(void)snprintf(path, sizeof(path), "%s/roster", f->dir);
	assert_int_equal(stat(path, &before), 0);
	open_all(f);
	assert_int_equal(stat(path, &after), 0);
	assert_true(after.st_size < before.st_size / 50);
	assert_int_equal(roster_version(f->roster), 200);
	greet(f, 0, 0);
	give_user(f, "bob", 201, false, false);
	close_all(f);
	open_all(f);
	assert_int_equal(roster_version(f->roster), 201);
}

static void quiet(enum im_log_level level, const char *line)
{
	(void)level;
	(void)line;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(nothing_is_sent_before_the_hello),
		T(hello_is_answered_with_hello_sessions_and_slices),
		T(window_bounds_what_is_in_flight),
		T(new_connection_gets_everything_from_the_confirmed_position),
		T(older_epochs_come_first_and_marks_are_skipped),
		T(confirming_what_was_never_sent_ends_the_connection),
		T(deliveries_reach_each_session_once_in_order),
		T(expansion_stops_at_the_budget_and_goes_on_in_order),
		T(frames_out_of_place_end_the_connection),
		T(flood_of_deliveries_is_bounded),
		T(closed_control_signal_and_answer_travel),
		T(a_service_that_is_not_heard_gets_only_so_many_signals),
		T(roster_changes_survive_a_restart),
		T(roster_of_another_store_does_not_count),
		T(snapshot_comes_into_force_at_its_end),
		T(superseded_items_are_cleared_away),
	};

	im_log_open("link_test", IM_LOG_ERROR, quiet);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
