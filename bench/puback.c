/*
 * im-puback: what one PUBACK costs beside the bare disk (bench/disk). Publishers in a closed loop, one QoS 1 message
 * under way each, to a user nobody is connected as; then the same time of pwrite and fdatasync into a file of zeros,
 * which is what the journal does for a record, and nothing else.
 *
 * The difficult idea: a virtual disk takes 0.1 ms for a sync now and 4 ms a second later. So the two take turns several
 * times a second, and what counts is the quotient of neighbours; means of either alone say more about the neighbours
 * of the machine.
 *
 *	im-puback --port N --credentials FILE --dir DIR [--publishers N] [--size N] [--seconds N]
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

#define TURN_US 100000   /* of each of the two */
#define REST_US 20000    /* between them: what the services still write for the messages before is not the raw side's */
#define WARM_PAIRS 3     /* not counted */
#define PAIRS_MOST 10000
#define STALL_MS 30000
#define RECORD_MORE 70   /* a journal record is so much larger than its message */
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

/* One of the two that are compared. */
struct side {
	uint64_t n;            /* in this turn */
	double rates[PAIRS_MOST];
	struct histogram times;
};
static struct side publishing, bare;

static struct publisher *publishers;
static struct client_loop *loop;
static unsigned ups, under_way;
static int64_t turn_end;
static bool warm;
static char *payload;

static void die(const char *what)
{
	printf("{\"error\":\"%s\"}\n", what);
	exit(1);
}

static void note(struct side *s, int64_t began, int64_t now)
{
	s->n++;
	if (warm)
		histogram_add(&s->times, (uint64_t)(now - began));
}

/* ---------------------------------------------------------------- publish */

static void send_next(struct publisher *p)
{
	p->sent_us = im_clock_mono_us();
	under_way++;
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
	int64_t now = im_clock_mono_us();

	(void)mid;
	under_way--;
	note(&publishing, p->sent_us, now);
	if (now < turn_end)
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

static void publishers_connect(void)
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
}

/* Per second, from the first message to the last PUBACK. */
static double publish_turn(void)
{
	int64_t began = im_clock_mono_us(), deadline = began + STALL_MS * INT64_C(1000);

	turn_end = began + TURN_US;
	publishing.n = 0;
	for (unsigned i = 0; i < o.publishers; i++)
		send_next(&publishers[i]);
	while (under_way > 0) {
		(void)client_loop_turn(loop, TURN_US);
		if (im_clock_mono_us() > deadline)
			die("no PUBACK comes");
	}
	return (double)publishing.n * 1e6 / (double)(im_clock_mono_us() - began);
}

/* ---------------------------------------------------------------- the bare disk */

static int zeros_make(void)
{
	static const char zeros[1u << 20];
	char path[4096];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/im-puback.raw", o.dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)unlink(path); /* it lives as long as we do */
	for (unsigned at = 0; fd >= 0 && at < RAW_FILE; at += sizeof(zeros))
		if (pwrite(fd, zeros, sizeof(zeros), at) != (ssize_t)sizeof(zeros))
			die("cannot write the file of zeros");
	if (fd < 0 || fdatasync(fd) != 0)
		die("cannot make the file of zeros");
	return fd;
}

static double bare_turn(int fd)
{
	int64_t began = im_clock_mono_us(), now = began, before;
	size_t size = o.size + RECORD_MORE;
	static size_t at;

	bare.n = 0;
	for (turn_end = began + TURN_US; now < turn_end; at += size) {
		if (at + size > RAW_FILE)
			at = 0;
		before = now;
		if (pwrite(fd, payload, size, (off_t)at) != (ssize_t)size || fdatasync(fd) != 0)
			die("the disk fails");
		now = im_clock_mono_us();
		note(&bare, before, now);
	}
	return (double)bare.n * 1e6 / (double)(now - began);
}

/* ---------------------------------------------------------------- the program */

static void rest(void)
{
	int64_t until = im_clock_mono_us() + REST_US, now;

	while ((now = im_clock_mono_us()) < until)
		(void)client_loop_turn(loop, until - now);
}

static void print_side(const char *name, const struct side *s, size_t pairs)
{
	printf("\"%s\":{\"us\":{\"p50\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"max\":%" PRIu64 "},\"per_s\":[", name, histogram_at(&s->times, 0.5),
	       histogram_at(&s->times, 0.99), s->times.max);
	for (size_t i = 0; i < pairs; i++)
		printf("%s%.1f", i ? "," : "", s->rates[i]);
	printf("]}");
}

static void compare(void)
{
	int64_t until = im_clock_mono_ms() + o.seconds * INT64_C(1000);
	int fd = zeros_make();
	size_t n = 0, i = 0;

	for (; im_clock_mono_ms() < until && n < PAIRS_MOST; i++) {
		warm = i >= WARM_PAIRS;
		bare.rates[n] = bare_turn(fd);
		publishing.rates[n] = publish_turn();
		rest();
		n += warm;
	}
	printf("{");
	print_side("bare", &bare, n);
	printf(",");
	print_side("publish", &publishing, n);
	printf("}\n");
}

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
		default: die("usage: im-puback --port N --credentials FILE --dir DIR ...");
		}
	}
	if (optind < argc || !o.credentials || o.size == 0 || o.size > RAW_FILE - RECORD_MORE || o.seconds == 0 || o.publishers == 0)
		die("usage: im-puback --port N --credentials FILE --dir DIR ...");
	payload = malloc(o.size + RECORD_MORE);
	if (!payload)
		die("cannot start");
	memset(payload, 'x', o.size + RECORD_MORE);
	publishers_connect();
	compare();
	return 0;
}
