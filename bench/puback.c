/*
 * im-puback: what one PUBACK costs (bench/disk). Publishers in a closed loop, one QoS 1 message under way each, to
 * a user nobody is connected as; and the bare disk beside it: what the journal does for a record, and nothing else.
 *
 *	im-puback publish --port N --credentials FILE [--publishers N] [--size N] [--seconds N]
 *	im-puback raw --dir DIR [--size N] [--seconds N]       pwrite and fdatasync into a file of zeros
 */
#include "base/clock.h"
#include "client.h"
#include "histogram.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WARM_US 1000000
#define STALL_MS 30000
#define RAW_FILE (64u << 20) /* as a journal segment; begun again at its end */

struct publisher {
	char user[64], password[64], id[80], topic[96];
	struct client *client;
	int64_t sent_us;
};

static struct {
	const char *credentials, *dir;
	int port;
	unsigned publishers, size, seconds;
} o = {NULL, ".", 1883, 1, 100, 5};

static struct publisher *publishers;
static struct client_loop *loop;
static unsigned ups;
static uint64_t counted;
static int64_t count_from, count_to;
static struct histogram times;
static char *payload;

static void die(const char *what)
{
	printf("{\"error\":\"%s\"}\n", what);
	exit(1);
}

static void print_result(const char *name)
{
	printf("{\"scenario\":\"%s\",\"per_s\":%.1f,\"us\":{\"p50\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"max\":%" PRIu64 "}}\n", name,
	       (double)counted / o.seconds, histogram_at(&times, 0.5), histogram_at(&times, 0.99), times.max);
}

static void note(int64_t began, int64_t now)
{
	if (now < count_from || now >= count_to)
		return;
	counted++;
	histogram_add(&times, (uint64_t)(now - began));
}

static void window_set(void)
{
	count_from = im_clock_mono_us() + WARM_US;
	count_to = count_from + (int64_t)o.seconds * 1000000;
}

/* ---------------------------------------------------------------- publish */

static void send_next(struct publisher *p)
{
	p->sent_us = im_clock_mono_us();
	(void)client_publish(p->client, p->topic, payload, o.size, 1);
	client_flush(p->client);
}

static void ev_up(struct client *c, bool present)
{
	(void)c;
	(void)present;
	ups++;
}

static void ev_subscribed(struct client *c)
{
	(void)c;
}

static void ev_acked(struct client *c, uint16_t mid)
{
	struct publisher *p = c->arg;

	(void)mid;
	note(p->sent_us, im_clock_mono_us());
	send_next(p);
}

static void ev_received(struct client *c, const char *topic, size_t topic_len, const uint8_t *data, size_t len)
{
	(void)c;
	(void)len;
	(void)data;
	fprintf(stderr, "%.*s\n", (int)topic_len, topic);
	die("a publisher was answered: it is refused");
}

static void ev_down(struct client *c, const char *why)
{
	(void)c;
	die(why);
}

static const struct client_events events = {ev_up, ev_subscribed, ev_acked, ev_received, ev_down};

/* The first user of the file is the one all send to. */
static void publishers_read(void)
{
	FILE *f = fopen(o.credentials, "r");
	char peer[64];

	publishers = calloc(o.publishers, sizeof(*publishers));
	if (!f || !publishers || fscanf(f, "%63s %*s", peer) != 1)
		die("cannot read the credentials file");
	for (unsigned i = 0; i < o.publishers; i++) {
		struct publisher *p = &publishers[i];

		if (fscanf(f, "%63s %63s", p->user, p->password) != 2)
			die("not enough users in the credentials file");
		(void)snprintf(p->id, sizeof(p->id), "%s:p", p->user);
		(void)snprintf(p->topic, sizeof(p->topic), "im/v1/to/u/%s", peer);
	}
	(void)fclose(f);
}

static void publish(void)
{
	int64_t deadline = im_clock_mono_ms() + STALL_MS;

	publishers_read();
	loop = client_loop_create("127.0.0.1", o.port, false, &events);
	if (!loop)
		die("cannot start");
	for (unsigned i = 0; i < o.publishers; i++) {
		publishers[i].client = client_open(loop, publishers[i].id, publishers[i].user, publishers[i].password, true, 300);
		if (!publishers[i].client)
			die("cannot open a connection");
		publishers[i].client->arg = &publishers[i];
	}
	while (ups < o.publishers && im_clock_mono_ms() < deadline)
		(void)client_loop_turn(loop, 100000);
	if (ups < o.publishers)
		die("publishers do not come up");
	window_set();
	for (unsigned i = 0; i < o.publishers; i++)
		send_next(&publishers[i]);
	while (im_clock_mono_us() < count_to)
		(void)client_loop_turn(loop, 100000);
	print_result("publish");
}

/* ---------------------------------------------------------------- raw */

static int zeros_make(const char *path)
{
	static const char zeros[1u << 20];
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	for (unsigned at = 0; fd >= 0 && at < RAW_FILE; at += sizeof(zeros))
		if (pwrite(fd, zeros, sizeof(zeros), at) != (ssize_t)sizeof(zeros))
			die("cannot write the file of zeros");
	if (fd < 0 || fdatasync(fd) != 0)
		die("cannot make the file of zeros");
	return fd;
}

static void raw(void)
{
	char path[4096];
	int64_t began, now;
	unsigned at = 0;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/im-puback.raw", o.dir);
	fd = zeros_make(path);
	window_set();
	for (now = im_clock_mono_us(); now < count_to; at += o.size) {
		if (at + o.size > RAW_FILE)
			at = 0;
		began = now;
		if (pwrite(fd, payload, o.size, at) != (ssize_t)o.size || fdatasync(fd) != 0)
			die("the disk fails");
		now = im_clock_mono_us();
		note(began, now);
	}
	(void)close(fd);
	(void)unlink(path);
	print_result("raw");
}

/* ---------------------------------------------------------------- the program */

int main(int argc, char **argv)
{
	static const struct option table[] = {
		{"port", 1, 0, 'p'}, {"credentials", 1, 0, 'c'}, {"publishers", 1, 0, 'n'}, {"size", 1, 0, 's'}, {"seconds", 1, 0, 't'},
		{"dir", 1, 0, 'd'}, {0, 0, 0, 0},
	};
	int k;

	while ((k = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (k) {
		case 'p': o.port = atoi(optarg); break;
		case 'c': o.credentials = optarg; break;
		case 'n': o.publishers = (unsigned)atoi(optarg); break;
		case 's': o.size = (unsigned)atoi(optarg); break;
		case 't': o.seconds = (unsigned)atoi(optarg); break;
		case 'd': o.dir = optarg; break;
		default: die("usage: im-puback publish|raw ...");
		}
	}
	if (optind >= argc || o.size == 0 || o.size > RAW_FILE || o.seconds == 0 || o.publishers == 0)
		die("usage: im-puback publish|raw ...");
	payload = malloc(o.size);
	if (!payload)
		die("cannot start");
	memset(payload, 'x', o.size);
	if (strcmp(argv[optind], "raw") == 0)
		raw();
	else if (strcmp(argv[optind], "publish") == 0 && o.credentials)
		publish();
	else
		die("usage: im-puback publish|raw ...");
	return 0;
}
