/* lib/io/mqtt.c against a real broker on a Unix socket. Skipped only where mosquitto is not installed. */
#include "io/mqtt.h"

#include "base/clock.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_MS 20000
#define LARGE (8u << 20)

struct bench {
	char dir[64], socket[96], secret[96], conf[96];
	pid_t broker;
	struct im_loop *loop;
	struct im_timer *deadline;
	struct im_mqtt *m;
	int ups, downs, messages;
	size_t last_len;
	char *large;
	void (*on_up)(struct bench *b);
	void (*on_message)(struct bench *b, const char *payload, size_t len);
	void (*on_down)(struct bench *b);
	bool late;
};

static const char *broker_path(void)
{
	static const char *const paths[] = {"/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"};

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		if (access(paths[i], X_OK) == 0)
			return paths[i];
	}
	return NULL;
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void start_broker(struct bench *b)
{
	b->broker = fork();
	assert_true(b->broker >= 0);
	if (b->broker == 0) {
		int null = open("/dev/null", O_RDWR);

		(void)dup2(null, 1);
		(void)dup2(null, 2);
		(void)execl(broker_path(), "mosquitto", "-c", b->conf, (char *)NULL);
		_exit(127);
	}
}

static void kill_broker(struct bench *b)
{
	assert_int_equal(kill(b->broker, SIGKILL), 0);
	assert_int_equal(waitpid(b->broker, NULL, 0), b->broker);
	b->broker = 0;
}

static void on_deadline(void *arg)
{
	struct bench *b = arg;

	b->late = true;
	im_loop_stop(b->loop);
}

static void on_up(void *arg)
{
	struct bench *b = arg;

	b->ups++;
	if (b->on_up)
		b->on_up(b);
}

static void on_down(void *arg, const char *why)
{
	struct bench *b = arg;

	(void)why;
	b->downs++;
	if (b->on_down)
		b->on_down(b);
}

static void on_message(void *arg, const char *topic, const void *payload, size_t len)
{
	struct bench *b = arg;

	assert_string_equal(topic, "t/here");
	b->messages++;
	b->last_len = len;
	if (b->on_message)
		b->on_message(b, payload, len);
}

static int set_up(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	char text[512];

	im_log_open("mqtt_test", IM_LOG_ERROR, NULL);
	(void)snprintf(b->dir, sizeof(b->dir), "/tmp/im-mqtt-test-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	(void)snprintf(b->socket, sizeof(b->socket), "%s/bus.sock", b->dir);
	(void)snprintf(b->secret, sizeof(b->secret), "%s/bus.secret", b->dir);
	(void)snprintf(b->conf, sizeof(b->conf), "%s/conf", b->dir);
	/* The broker drops root's rights unless told otherwise, and would not see the directory. */
	(void)snprintf(text, sizeof(text), "listener 0 %s\nallow_anonymous true\nuser root\nmax_queued_messages 100000\n", b->socket);
	write_file(b->conf, text);
	write_file(b->secret, "not checked here\n");
	b->loop = im_loop_create();
	b->deadline = im_timer_create(b->loop, on_deadline, b);
	im_timer_start(b->deadline, DEADLINE_MS, 0);
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bench *b = *state;

	im_mqtt_destroy(b->m);
	im_timer_destroy(b->deadline);
	im_loop_destroy(b->loop);
	if (b->broker)
		kill_broker(b);
	(void)unlink(b->socket);
	(void)unlink(b->secret);
	(void)unlink(b->conf);
	(void)rmdir(b->dir);
	free(b->large);
	free(b);
	return 0;
}

static void connect_it(struct bench *b)
{
	static const struct im_mqtt_events events = {.up = on_up, .down = on_down, .message = on_message};
	static const char *const filters[] = {"t/here", "t/also", NULL};
	struct im_err err;

	assert_int_equal(im_mqtt_create(b->loop, b->socket, b->secret, "tester", filters, 1, &events, b, &b->m, &err), IM_OK);
}

static void run(struct bench *b)
{
	im_loop_run(b->loop);
	assert_false(b->late);
}

static void stop(struct bench *b)
{
	im_loop_stop(b->loop);
}

/* ---- */

static void publish_large(struct bench *b)
{
	b->large = malloc(LARGE);
	for (size_t i = 0; i < LARGE; i++)
		b->large[i] = (char)(i * 31 >> 3);
	assert_int_equal(im_mqtt_publish(b->m, "t/here", b->large, LARGE, 0), IM_OK);
	assert_int_equal(im_mqtt_publish(b->m, "t/here", "end", 3, 1), IM_OK);
}

static void check_large(struct bench *b, const char *payload, size_t len)
{
	if (b->messages == 1) {
		assert_int_equal(len, LARGE);
		assert_memory_equal(payload, b->large, LARGE);
	} else {
		assert_int_equal(len, 3);
		im_loop_stop(b->loop);
	}
}

static void a_frame_of_8_mib_arrives_whole_and_in_order(void **state)
{
	struct bench *b = *state;

	start_broker(b);
	b->on_up = publish_large;
	b->on_message = check_large;
	connect_it(b);
	run(b);
	assert_int_equal(b->messages, 2);
}

static void publish_many(struct bench *b)
{
	/* One QoS: in the broker QoS 0 overtakes what waits for an acknowledgement. */
	for (int i = 0; i < 5000; i++)
		assert_int_equal(im_mqtt_publish(b->m, "t/here", &i, sizeof(i), 1), IM_OK);
}

static void check_order(struct bench *b, const char *payload, size_t len)
{
	int i;

	assert_int_equal(len, sizeof(i));
	memcpy(&i, payload, sizeof(i));
	assert_int_equal(i, b->messages - 1);
	if (b->messages == 5000)
		im_loop_stop(b->loop);
}

static void what_is_published_arrives_in_order(void **state)
{
	struct bench *b = *state;

	start_broker(b);
	b->on_up = publish_many;
	b->on_message = check_order;
	connect_it(b);
	run(b);
}

static void restart_after_down(struct bench *b)
{
	assert_int_equal(im_mqtt_publish(b->m, "t/here", "x", 1, 1), IM_BUSY);
	assert_false(im_mqtt_is_up(b->m));
	start_broker(b);
}

static void kill_then_count(struct bench *b)
{
	if (b->ups <= 3)
		kill_broker(b);
	else
		im_loop_stop(b->loop);
}

static void a_killed_broker_is_found_again(void **state)
{
	struct bench *b = *state;

	start_broker(b);
	b->on_up = kill_then_count;
	b->on_down = restart_after_down;
	connect_it(b);
	run(b);
	assert_int_equal(b->ups, 4);
	assert_int_equal(b->downs, 3);
}

static void write_secret_and_start(void *arg)
{
	struct bench *b = arg;

	assert_int_equal(b->ups, 0);
	write_file(b->secret, "late\n");
	start_broker(b);
}

static void a_missing_secret_means_wait(void **state)
{
	struct bench *b = *state;
	struct im_timer *t = im_timer_create(b->loop, write_secret_and_start, b);

	assert_int_equal(unlink(b->secret), 0);
	b->on_up = stop;
	connect_it(b);
	assert_int_equal(im_mqtt_publish(b->m, "t/here", "x", 1, 0), IM_BUSY);
	im_timer_start(t, 200, 0);
	run(b);
	assert_int_equal(b->ups, 1);
	assert_int_equal(b->downs, 0);
	im_timer_destroy(t);
}

static void destroy_it(struct bench *b)
{
	im_mqtt_destroy(b->m);
	b->m = NULL;
	im_loop_stop(b->loop);
}

static void destroy_on_message(struct bench *b, const char *payload, size_t len)
{
	(void)payload;
	(void)len;
	destroy_it(b);
}

static void publish_one(struct bench *b)
{
	assert_int_equal(im_mqtt_publish(b->m, "t/here", "x", 1, 1), IM_OK);
}

static void it_may_be_destroyed_inside_each_callback(void **state)
{
	struct bench *b = *state;

	start_broker(b);
	b->on_up = destroy_it;
	connect_it(b);
	run(b);
	b->on_up = publish_one;
	b->on_message = destroy_on_message;
	connect_it(b);
	run(b);
	b->on_message = NULL;
	b->on_up = kill_broker;
	b->on_down = destroy_it;
	connect_it(b);
	run(b);
}

/* A broker that takes connections and is stuck. */
struct stuck {
	struct bench *b;
	int listener, taken[2];
	unsigned n;
};

static void take_one(void *arg)
{
	struct stuck *s = arg;
	int fd = accept(s->listener, NULL, NULL);

	if (fd < 0)
		return;
	s->taken[s->n++] = fd;
	if (s->n == 2)
		im_loop_stop(s->b->loop);
}

static void a_broker_that_does_not_answer_is_asked_again_on_another_connection(void **state)
{
	struct bench *b = *state;
	struct stuck s = {.b = b, .listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)};
	struct im_timer *t = im_timer_create(b->loop, take_one, &s);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int64_t began = im_clock_mono_ms();

	memcpy(a.sun_path, b->socket, sizeof(b->socket));
	assert_int_equal(bind(s.listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s.listener, 8), 0);
	connect_it(b);
	im_timer_start(t, 10, 10);
	run(b);
	assert_int_equal(b->ups, 0);
	assert_in_range(im_clock_mono_ms() - began, 4900, DEADLINE_MS);
	im_timer_destroy(t);
	(void)close(s.taken[0]);
	(void)close(s.taken[1]);
	(void)close(s.listener);
}

static void a_path_too_long_for_a_socket_is_refused(void **state)
{
	static const struct im_mqtt_events none = {NULL};
	struct bench *b = *state;
	struct im_err err = {""};
	char path[200];

	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(im_mqtt_create(b->loop, path, "s", "c", NULL, 0, &none, NULL, &b->m, &err), IM_BAD_INPUT);
	assert_string_not_equal(err.text, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_frame_of_8_mib_arrives_whole_and_in_order),
		TEST(what_is_published_arrives_in_order),
		TEST(a_killed_broker_is_found_again),
		TEST(a_missing_secret_means_wait),
		TEST(it_may_be_destroyed_inside_each_callback),
		TEST(a_broker_that_does_not_answer_is_asked_again_on_another_connection),
		TEST(a_path_too_long_for_a_socket_is_refused),
	};

	if (!broker_path()) {
		printf("skipped: mosquitto is not installed\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
