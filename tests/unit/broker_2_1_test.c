/*
 * The plugin's binary, as it is installed, under a broker of mosquitto 2.1 (docs/mosquitto-2.1.md: what 2.1 raises, and
 * when). No package of 2.1 exists where this is built, so this program is the broker: it loads mosquitto_im.so as 2.1
 * does, exports what 2.1 exports, and raises the events of that table in 2.1's order (tests/fuzz/fake_broker.c). What
 * the plugin makes of them is seen where it counts: in what it tells the message service.
 *
 * The plugin looks for the settings file on the broker's command line: the program starts itself again with one.
 */
#include "../fuzz/fake_broker.h"
#include "../fuzz/fake_service.h"

#include "base/record.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EVENT_CONNECT = 11, EVENT_LAST = 30, EVENT_CLIENT_OFFLINE = 28 };

static char dir[64], conf[80];
static void *binary;

/* ---- what 2.1 exports and 2.0 does not */

struct mosquitto *mosquitto_client(const char *client_id);
struct mosquitto *mosquitto_client(const char *client_id)
{
	return fake_find(client_id);
}

/* The readers of properties are the broker's own there, and so is what they give. */
static void *ours(void *lib, size_t len)
{
	char *mem = lib ? mosquitto_malloc(len + 1) : NULL;

	if (mem) {
		memcpy(mem, lib, len);
		mem[len] = '\0';
	}
	free(lib);
	return mem;
}

static void *next(const char *name)
{
	void *fn = dlsym(RTLD_NEXT, name);

	assert_non_null(fn);
	return fn;
}

const mosquitto_property *mosquitto_property_read_string(const mosquitto_property *list, int which, char **value, bool skip)
{
	const mosquitto_property *(*read)(const mosquitto_property *, int, char **, bool);
	const mosquitto_property *p;

	*(void **)&read = next(__func__);
	p = read(list, which, value, skip);
	*value = p ? ours(*value, strlen(*value)) : NULL;
	return p;
}

const mosquitto_property *mosquitto_property_read_binary(const mosquitto_property *list, int which, void **value, uint16_t *len, bool skip)
{
	const mosquitto_property *(*read)(const mosquitto_property *, int, void **, uint16_t *, bool);
	const mosquitto_property *p;

	*(void **)&read = next(__func__);
	p = read(list, which, value, len, skip);
	*value = p ? ours(*value, *len) : NULL;
	return p;
}

const mosquitto_property *mosquitto_property_read_string_pair(const mosquitto_property *list, int which, char **name, char **value, bool skip)
{
	const mosquitto_property *(*read)(const mosquitto_property *, int, char **, char **, bool);
	const mosquitto_property *p;

	*(void **)&read = next(__func__);
	p = read(list, which, name, value, skip);
	*name = p && *name ? ours(*name, strlen(*name)) : NULL;
	*value = p && *value ? ours(*value, strlen(*value)) : NULL;
	return p;
}

/* ---- the binary */

static void *symbol(const char *name)
{
	void *fn = dlsym(binary, name);

	assert_non_null(fn);
	return fn;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **user_data, struct mosquitto_opt *opts, int n)
{
	int (*init)(mosquitto_plugin_id_t *, void **, struct mosquitto_opt *, int);

	*(void **)&init = symbol(__func__);
	return init(id, user_data, opts, n);
}

int mosquitto_plugin_cleanup(void *user_data, struct mosquitto_opt *opts, int n)
{
	int (*cleanup)(void *, struct mosquitto_opt *, int);

	*(void **)&cleanup = symbol(__func__);
	return cleanup(user_data, opts, n);
}

/* ---- what the service is told */

static struct {
	unsigned opened, closed;
	bool everybody;           /* all sessions have been named after the hello */
	uint64_t handle;          /* of the session named last, with ... */
	size_t n_filters;
	uint64_t closed_handle;
	unsigned n_records;
	Im__Bus__Record *newest;
} told;

static void note_slice(const Im__Bus__Slice *s)
{
	const uint8_t *body;
	size_t len;

	for (size_t at = 0; at < s->records.len; at += im_record_size(len)) {
		if (im_record_read(s->epoch, s->offset + at, s->records.data + at, s->records.len - at, &body, &len) != IM_RECORD_VALID)
			return;
		if (told.newest)
			im__bus__record__free_unpacked(told.newest, NULL);
		told.newest = im__bus__record__unpack(NULL, len, body);
		assert_non_null(told.newest);
		told.n_records++;
	}
}

static void on_frame(const Im__Bus__FromPlugin *m)
{
	for (size_t i = 0; i < m->n_sessions; i++) {
		told.opened += m->sessions[i]->handle != told.handle;
		told.handle = m->sessions[i]->handle;
		told.n_filters = m->sessions[i]->n_filters;
	}
	told.closed += (unsigned)m->n_closed;
	if (m->n_closed > 0)
		told.closed_handle = m->closed[m->n_closed - 1];
	told.everybody = told.everybody || m->sessions_complete;
	if (m->slice)
		note_slice(m->slice);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Turns of the loop, until the service has been told. */
#define until(what)                                                                                                                        \
	do {                                                                                                                               \
		int64_t deadline = now_ms() + 5000;                                                                                        \
                                                                                                                                           \
		do                                                                                                                         \
			fake_tick();                                                                                                       \
		while (!(what) && now_ms() < deadline && (poll(NULL, 0, 1) || true));                                                      \
		assert_true(what);                                                                                                         \
	} while (0)

/* ---- a life */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st, (void)kind, (void)ftw;
	return remove(path);
}

static void write_conf(void)
{
	FILE *f = fopen(conf, "w");

	assert_non_null(f);
	(void)fprintf(f, "set_tcp_nodelay true\nmax_queued_messages 1000000\nallow_duplicate_messages true\nallow_anonymous true\n"
			 "listener 0 %s/run/bus.sock\nplugin /x/mosquitto_im.so\nplugin_opt_im_dir %s\nplugin_opt_im_admins bob\n"
			 "plugin_opt_im_segment_bytes 8388608\nplugin_opt_im_journal_limit 67108864\n", dir, dir);
	assert_int_equal(fclose(f), 0);
}

static int start(void **state)
{
	(void)state;
	(void)mkdir(dir, 0700); /* a missing one is seen next */
	write_conf();
	memset(&told, 0, sizeof(told));
	fake_on_frame = on_frame;
	binary = dlopen(IM_PLUGIN, RTLD_NOW | RTLD_LOCAL);
	if (!binary)
		fail_msg("%s", dlerror());
	fake_broker_start(conf);
	fake_service_read_secret(dir);
	fake_service_up();
	fake_service_user("alice", false, false);
	fake_service_user("bob", false, false);
	until(told.everybody);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	fake_broker_stop();
	(void)dlclose(binary); /* nothing to do about it */
	if (told.newest)
		im__bus__record__free_unpacked(told.newest, NULL);
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct mosquitto *login(const char *id, const char *user, const char *token, bool clean, const char *will)
{
	const struct mosquitto like = {
		.id = (char *)(uintptr_t)id, .user = (char *)(uintptr_t)user, .address = (char *)"127.0.0.1", .protocol = 5,
		.clean = clean, .will = (char *)(uintptr_t)will,
	};

	return fake_connect(&like, token, false);
}

static struct mosquitto *alice(bool clean, const char *will)
{
	struct mosquitto *c = login("alice:phone", "alice", "t-alice", clean, will);

	assert_non_null(c);
	return c;
}

/* ---- loading */

static void version_5_is_taken_from_whatever_is_offered(void **state)
{
	int (*version)(int, const int *);

	(void)state;
	*(void **)&version = symbol("mosquitto_plugin_version");
	assert_int_equal(version(4, (const int[]){ 5, 4, 3, 2 }), 5); /* 2.0 and 2.1 */
	assert_int_equal(version(2, (const int[]){ 5, 6 }), 5);
	assert_int_equal(version(2, (const int[]){ 6, 5 }), 5);
	assert_int_equal(version(1, (const int[]){ 6 }), -1);
}

static void these_events_are_hooked_and_no_others(void **state)
{
	static const bool hooked[EVENT_LAST + 1] = {
		[MOSQ_EVT_RELOAD] = true, [MOSQ_EVT_ACL_CHECK] = true, [MOSQ_EVT_BASIC_AUTH] = true, [MOSQ_EVT_CONTROL] = true,
		[MOSQ_EVT_MESSAGE] = true, [MOSQ_EVT_TICK] = true, [MOSQ_EVT_DISCONNECT] = true, [EVENT_CLIENT_OFFLINE] = true,
	};

	(void)state;
	for (int i = 0; i <= EVENT_LAST; i++)
		assert_int_equal(fake_is_hooked(i), hooked[i]);
}

/* ---- coming and going: the table of docs/mosquitto-2.1.md, row by row */

static void a_clean_session_ends_with_disconnect(void **state)
{
	struct mosquitto *c = alice(true, NULL);

	(void)state;
	until(told.opened == 1);
	fake_disconnect(c, false);
	until(told.closed == 1 && told.closed_handle == told.handle);
}

static void a_kept_session_ends_with_client_offline_and_comes_back_with_its_filters(void **state)
{
	struct mosquitto *c = alice(false, NULL);
	uint64_t first;

	(void)state;
	assert_int_equal(fake_subscribe(c, "im/v1/in/#", 1), MOSQ_ERR_SUCCESS);
	until(told.opened == 1 && told.n_filters == 1);
	first = told.handle;
	fake_disconnect(c, true);
	until(told.closed == 1 && told.closed_handle == first);
	alice(false, NULL);
	until(told.opened == 2 && told.handle != first && told.n_filters == 1);
	assert_int_equal(told.closed, 1);
}

static void at_a_takeover_the_old_one_alone_is_closed(void **state)
{
	struct mosquitto *c = alice(false, NULL);
	uint64_t first;

	(void)state;
	until(told.opened == 1);
	first = told.handle;
	c = alice(false, NULL);
	until(told.opened == 2 && told.closed == 1);
	assert_int_equal(told.closed_handle, first);
	assert_int_equal(fake_publish(c, "im/v1/to/u/bob/m1", "x", 1, 1, false, NULL), MOSQ_ERR_SUCCESS);
	until(told.n_records == 1 && told.newest->session == told.handle);
}

static void a_failed_login_under_a_used_id_ends_nothing(void **state)
{
	(void)state;
	alice(false, NULL);
	until(told.opened == 1);
	assert_null(login("alice:phone", "alice", "wrong", true, NULL));
	assert_null(login("alice:phone", "bob", "t-bob", true, NULL));
	assert_null(login(NULL, NULL, NULL, true, NULL)); /* a port scan: 2.1 tells nothing at all */
	alice(false, NULL);
	until(told.closed == 1 && told.opened == 2);
}

static void a_kick_ends_a_kept_session(void **state)
{
	(void)state;
	alice(false, NULL);
	until(told.opened == 1);
	fake_service_user("alice", true, false);
	until(told.closed == 1);
	assert_null(login("alice:phone", "alice", "t-alice", false, NULL));
}

/* ---- wills: WRITE is asked behind CLIENT_OFFLINE, and MESSAGE never */

static void the_will_of_a_kept_session_is_journaled_in_its_name(void **state)
{
	struct mosquitto *c = alice(false, "im/v1/to/u/bob");

	(void)state;
	until(told.opened == 1);
	fake_disconnect(c, true);
	until(told.closed == 1 && told.n_records == 1);
	assert_string_equal(told.newest->user, "alice");
	assert_int_equal(told.newest->session, 0);
}

static void a_delayed_will_comes_when_the_session_expires(void **state)
{
	struct mosquitto *c = alice(false, "im/v1/to/u/bob");

	(void)state;
	until(told.opened == 1);
	fake_disconnect(c, false);
	until(told.closed == 1);
	fake_forget(c);
	until(told.n_records == 1);
	assert_string_equal(told.newest->client_id, "alice:phone");
}

/* ---- messages */

/* The properties are read by the broker's functions: whatever they gave is given back to it (fake_broker_stop looks). */
static void a_message_is_journaled_with_its_properties_and_swallowed(void **state)
{
	struct mosquitto *c = alice(true, NULL);
	mosquitto_property *props = NULL;

	(void)state;
	assert_int_equal(mosquitto_property_add_string(&props, MQTT_PROP_CONTENT_TYPE, "text/x"), MOSQ_ERR_SUCCESS);
	assert_int_equal(mosquitto_property_add_binary(&props, MQTT_PROP_CORRELATION_DATA, "abc", 3), MOSQ_ERR_SUCCESS);
	assert_int_equal(mosquitto_property_add_string_pair(&props, MQTT_PROP_USER_PROPERTY, "other", "x"), MOSQ_ERR_SUCCESS);
	assert_int_equal(mosquitto_property_add_string_pair(&props, MQTT_PROP_USER_PROPERTY, "im-id", "m7"), MOSQ_ERR_SUCCESS);
	assert_int_equal(fake_publish(c, "im/v1/to/u/bob", "hello", 5, 1, false, props), MOSQ_ERR_SUCCESS);
	mosquitto_property_free_all(&props);
	until(told.n_records == 1);
	assert_string_equal(told.newest->id, "m7");
	assert_string_equal(told.newest->ct, "text/x");
	assert_memory_equal(told.newest->body.data, "hello", 5);
}

static void a_refused_message_leaves_the_event_as_it_was(void **state)
{
	struct mosquitto *c = alice(true, NULL);

	(void)state;
	assert_int_equal(fake_publish(c, "im/v1/to/u/nobody", "hello", 5, 1, false, NULL), MOSQ_ERR_ACL_DENIED);
	assert_int_equal(fake_publish(c, "$im/out", "hello", 5, 1, false, NULL), MOSQ_ERR_ACL_DENIED);
}

/* An error would end the connection in 2.1, whatever the QoS. */
static void control_never_answers_with_an_error(void **state)
{
	struct mosquitto *c = login("bob:pc", "bob", "t-bob", true, NULL);

	(void)state;
	assert_non_null(c);
	assert_int_equal(fake_publish(c, "$CONTROL/im/v1", "no json", 7, 0, false, NULL), MOSQ_ERR_SUCCESS);
	assert_int_equal(fake_publish(alice(true, NULL), "$CONTROL/im/v1", "{}", 2, 1, false, NULL), MOSQ_ERR_SUCCESS);
}

static void reading_is_allowed_while_a_session_resumes_and_not_later(void **state)
{
	struct mosquitto *c = alice(false, NULL);

	(void)state;
	until(told.opened == 1);
	fake_disconnect(c, true);
	until(told.closed == 1);
	c = alice(false, NULL);
	assert_int_equal(fake_acl(c, MOSQ_ACL_READ, "im/v1/in/msg/u/bob"), MOSQ_ERR_SUCCESS);
	fake_tick();
	assert_int_equal(fake_acl(c, MOSQ_ACL_READ, "im/v1/in/msg/u/bob"), MOSQ_ERR_ACL_DENIED);
}

static void a_delivery_goes_to_its_session(void **state)
{
	struct mosquitto *c = alice(true, NULL);
	unsigned which = 0;

	(void)state;
	until(told.opened == 1);
	while (fake.handles[which].handle != told.handle)
		which++;
	fake_service_deliver(which, true);
	until(fake.delivered == 1);
	fake_disconnect(c, false);
	fake_service_deliver(which, true);
	fake_tick();
	assert_int_equal(fake.delivered, 1);
}

/* ---- the loop */

/*
 * 2.1 raises TICK between its flush and its poll: what is sent from there would lie until the poll's 100 ms are over, so
 * a signal interrupts it. poll() stands for the broker's.
 */
static void what_tick_sends_does_not_wait_for_the_poll(void **state)
{
	struct mosquitto *c = alice(true, NULL);
	int64_t began;

	(void)state;
	until(told.opened == 1);
	for (unsigned i = 0; i < 3; i++) /* the signals of what was before */
		fake_tick();
	assert_int_equal(fake_publish(c, "im/v1/to/u/bob", "hello", 5, 1, false, NULL), MOSQ_ERR_SUCCESS);
	began = now_ms();
	while (told.n_records == 0 && now_ms() < began + 5000) {
		fake_tick();
		errno = 0;
		assert_true(poll(NULL, 0, 5000) == -1 && errno == EINTR);
	}
	assert_int_equal(told.n_records, 1);
	fake_tick();
	assert_int_equal(poll(NULL, 0, 20), 0); /* and nothing keeps on waking an idle broker */
}

/* Anything but success ends a 2.1 broker (fake_reload looks). Then it asks about everybody again, without passwords. */
static void a_reload_keeps_everybody(void **state)
{
	struct mosquitto *c = alice(false, NULL);

	(void)state;
	until(told.opened == 1);
	fake_disconnect(c, true);
	until(told.closed == 1);
	assert_non_null(login("bob:pc", "bob", "t-bob", true, NULL));
	fake_reload();
	until(told.opened == 2);
	assert_int_equal(told.closed, 1);
	assert_non_null(fake_find("bob:pc"));
	assert_non_null(fake_find("alice:phone"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(version_5_is_taken_from_whatever_is_offered, start, stop),
		cmocka_unit_test_setup_teardown(these_events_are_hooked_and_no_others, start, stop),
		cmocka_unit_test_setup_teardown(a_clean_session_ends_with_disconnect, start, stop),
		cmocka_unit_test_setup_teardown(a_kept_session_ends_with_client_offline_and_comes_back_with_its_filters, start, stop),
		cmocka_unit_test_setup_teardown(at_a_takeover_the_old_one_alone_is_closed, start, stop),
		cmocka_unit_test_setup_teardown(a_failed_login_under_a_used_id_ends_nothing, start, stop),
		cmocka_unit_test_setup_teardown(a_kick_ends_a_kept_session, start, stop),
		cmocka_unit_test_setup_teardown(the_will_of_a_kept_session_is_journaled_in_its_name, start, stop),
		cmocka_unit_test_setup_teardown(a_delayed_will_comes_when_the_session_expires, start, stop),
		cmocka_unit_test_setup_teardown(a_message_is_journaled_with_its_properties_and_swallowed, start, stop),
		cmocka_unit_test_setup_teardown(a_refused_message_leaves_the_event_as_it_was, start, stop),
		cmocka_unit_test_setup_teardown(control_never_answers_with_an_error, start, stop),
		cmocka_unit_test_setup_teardown(reading_is_allowed_while_a_session_resumes_and_not_later, start, stop),
		cmocka_unit_test_setup_teardown(a_delivery_goes_to_its_session, start, stop),
		cmocka_unit_test_setup_teardown(what_tick_sends_does_not_wait_for_the_poll, start, stop),
		cmocka_unit_test_setup_teardown(a_reload_keeps_everybody, start, stop),
	};
	const char *tmp = getenv("TMPDIR");

	if (argc == 1) {
		char *args[] = { argv[0], (char *)"-c", conf, NULL };

		(void)snprintf(dir, sizeof(dir), "%.30s/im-2.1-XXXXXX", tmp ? tmp : "/tmp");
		if (!mkdtemp(dir))
			return 1;
		(void)snprintf(conf, sizeof(conf), "%s/broker.conf", dir);
		(void)execv("/proc/self/exe", args);
		return 1;
	}
	(void)snprintf(conf, sizeof(conf), "%s", argv[2]);
	(void)snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(conf, '/') - conf), conf);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
