/*
 * im-storm: many devices that stay connected, and what they do when the broker is killed under them: all come
 * back at once, as stock clients do, and each waits for its welcome before it counts as served.
 *
 * Lines of JSON on standard output, one per phase: {"up"} once all are connected and subscribed; after an outage
 * {"served"} when all are welcomed again, or {"left"} when --seconds have passed without that. Ends when
 * standard input ends. A client whose attempt fails or takes too long waits and tries again, the wait doubling
 * each time: without that the test would be a flood, not a storm.
 */
#include "base/clock.h"
#include "client.h"
#include "histogram.h"

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define OPENING_MOST 64      /* connections under way at first; after an outage all at once */
#define ATTEMPT_MS 5000      /* then a client gives up an attempt */
#define WAIT_LEAST_MS 250    /* before the second try; doubles up to */
#define WAIT_MOST_MS 8000
#define GIVE_UP_MS 120000    /* the first connect of all */

enum step { AWAY, WAITING, OPENING, CONNECTED, SUBSCRIBED, SERVED };

struct device {
	char user[64], password[64], id[160];
	struct client *client;
	enum step step;
	bool failed;         /* to be closed after this turn of the loop */
	int64_t due_ms;      /* WAITING: of the next try; OPENING: when it is given up */
	unsigned wait_ms;
};

static struct {
	int port;
	unsigned count, per_user, seconds;
	const char *credentials;
	bool at_once;        /* cold passwords: nobody is brought up gently first */
} o = { .port = 1883, .count = 1000, .per_user = 1 };

static struct client_loop *loop;
static struct device *devices;
static unsigned connected, subscribed, served, attempts, opening;
static bool storm;           /* an outage has begun */
static int64_t storm_ms;
static struct histogram times; /* from the outage until served, us */

static void die(const char *what)
{
	fprintf(stderr, "im-storm: %s\n", what);
	exit(1);
}

static void step_to(struct device *d, enum step step)
{
	connected += (step >= CONNECTED) - (d->step >= CONNECTED);
	subscribed += (step >= SUBSCRIBED) - (d->step >= SUBSCRIBED);
	served += (step == SERVED) - (d->step == SERVED);
	opening += (step == OPENING) - (d->step == OPENING);
	d->step = step;
}

static void ev_up(struct client *c, bool present)
{
	(void)present;
	step_to(c->arg, CONNECTED);
	if (storm || o.at_once)
		client_subscribe(c, "im/v1/in/#", 1);
}

static void ev_subscribed(struct client *c)
{
	struct device *d = c->arg;

	if (d->step < SUBSCRIBED)
		step_to(d, SUBSCRIBED);
}

static void ev_received(struct client *c, const char *topic, size_t topic_len, const uint8_t *payload, size_t len)
{
	static const char welcome[] = "im/v1/in/evt/welcome";
	struct device *d = c->arg;

	(void)payload, (void)len;
	if (topic_len != sizeof(welcome) - 1 || memcmp(topic, welcome, topic_len) != 0 || d->step == SERVED)
		return;
	step_to(d, SERVED);
	d->wait_ms = 0;
	if (storm)
		histogram_add(&times, (uint64_t)(im_clock_mono_ms() - storm_ms) * 1000);
}

static void ev_acked(struct client *c, uint16_t mid)
{
	(void)c, (void)mid;
}

static void ev_down(struct client *c, const char *why)
{
	struct device *d = c->arg;

	(void)why;
	if (d->step == SERVED && !storm) {
		storm = true;
		storm_ms = im_clock_mono_ms();
		attempts = 0;
	}
	d->failed = true;
}

static const struct client_events events = { ev_up, ev_subscribed, ev_acked, ev_received, ev_down };

/* Down after `down`: the wait before the next try. A client that was served tries at once. */
static void device_down(struct device *d, int64_t now)
{
	bool was_up = d->step >= CONNECTED;

	client_close(d->client, false);
	d->client = NULL;
	d->failed = false;
	step_to(d, WAITING);
	if (was_up)
		d->wait_ms = 0;
	d->due_ms = now + (d->wait_ms ? (int64_t)d->wait_ms / 2 + rand() % (int)d->wait_ms : 0);
	d->wait_ms = d->wait_ms ? d->wait_ms * 2 : WAIT_LEAST_MS;
	if (d->wait_ms > WAIT_MOST_MS)
		d->wait_ms = WAIT_MOST_MS;
}

static void device_open(struct device *d, int64_t now)
{
	attempts++;
	step_to(d, OPENING);
	d->due_ms = now + ATTEMPT_MS;
	d->client = client_open(loop, d->id, d->user, d->password, true, 300);
	if (!d->client) {
		device_down(d, now); /* no port, no file: later */
		return;
	}
	d->client->arg = d;
}

static void turn(void)
{
	int64_t now;

	(void)client_loop_turn(loop, 5);
	now = im_clock_mono_ms();
	for (unsigned i = 0; i < o.count; i++) {
		struct device *d = &devices[i];

		if (d->failed || (d->step == OPENING && d->due_ms <= now))
			device_down(d, now);
		if (d->step == WAITING && d->due_ms <= now && (storm || o.at_once || opening < OPENING_MOST))
			device_open(d, now);
	}
}

static bool input_ended(void)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
	char c;

	return poll(&p, 1, 0) > 0 && read(STDIN_FILENO, &c, 1) <= 0;
}

static void devices_read(void)
{
	FILE *f = fopen(o.credentials, "r");
	char user[64], password[64];
	unsigned n = 0;

	devices = calloc(o.count, sizeof(*devices));
	if (!f || !devices)
		die("cannot read the credentials");
	while (n < o.count && fscanf(f, "%63s %63s", user, password) == 2)
		for (unsigned k = 0; k < o.per_user && n < o.count; k++, n++) {
			memcpy(devices[n].user, user, sizeof(user));
			memcpy(devices[n].password, password, sizeof(password));
			(void)snprintf(devices[n].id, sizeof(devices[n].id), "%s:storm%u", user, k);
			step_to(&devices[n], WAITING);
		}
	(void)fclose(f);
	if (n < o.count)
		die("not enough users in the credentials file");
}

/* Connects all, then subscribes all: on mosquitto 2.0 each SUBSCRIBE looks through all who have the same filter. */
static void bring_up(void)
{
	int64_t start = im_clock_mono_ms(), middle;

	while (connected < o.count && im_clock_mono_ms() < start + GIVE_UP_MS)
		turn();
	middle = im_clock_mono_ms();
	for (unsigned i = 0; i < o.count; i++)
		if (devices[i].step == CONNECTED)
			client_subscribe(devices[i].client, "im/v1/in/#", 1);
	while (served < o.count && im_clock_mono_ms() < start + GIVE_UP_MS)
		turn();
	if (served < o.count)
		die("not all come up");
	printf("{\"up\":%u,\"connect_ms\":%" PRId64 ",\"subscribe_ms\":%" PRId64 "}\n", served, middle - start, im_clock_mono_ms() - middle);
	(void)fflush(stdout);
}

static void report(const char *what, int64_t since)
{
	printf("{\"%s\":%u,\"of\":%u,\"ms\":%" PRId64 ",\"p50_ms\":%" PRIu64 ",\"p99_ms\":%" PRIu64 ",\"attempts\":%u}\n", what, served, o.count,
	       im_clock_mono_ms() - since, histogram_at(&times, 0.5) / 1000, histogram_at(&times, 0.99) / 1000, attempts);
	(void)fflush(stdout);
}

/* One outage: until all are served again or --seconds have passed. false: standard input has ended. */
static bool outage(void)
{
	while (!storm)
		if (turn(), input_ended())
			return false;
	memset(&times, 0, sizeof(times));
	while (served < o.count && im_clock_mono_ms() < storm_ms + (int64_t)o.seconds * 1000)
		turn();
	report(served == o.count ? "served" : "left", storm_ms);
	storm = false;
	return !input_ended();
}

static void options_read(int argc, char **argv)
{
	static const struct option table[] = {
		{ "port", 1, 0, 'p' }, { "credentials", 1, 0, 'c' }, { "count", 1, 0, 'C' }, { "per-user", 1, 0, 'u' },
		{ "seconds", 1, 0, 't' }, { "at-once", 0, 0, 'a' }, { 0, 0, 0, 0 },
	};
	int k;

	o.seconds = 60;
	while ((k = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (k) {
		case 'p': o.port = atoi(optarg); break;
		case 'c': o.credentials = optarg; break;
		case 'C': o.count = (unsigned)atoi(optarg); break;
		case 'u': o.per_user = (unsigned)atoi(optarg); break;
		case 't': o.seconds = (unsigned)atoi(optarg); break;
		case 'a': o.at_once = true; break;
		default: die("usage: im-storm --port N --credentials FILE [--count N] [--per-user N] [--seconds N] [--at-once]");
		}
	}
	if (!o.credentials || o.count == 0 || o.per_user == 0)
		die("usage: im-storm --port N --credentials FILE [--count N] [--per-user N] [--seconds N] [--at-once]");
}

int main(int argc, char **argv)
{
	struct rlimit files;
	int64_t start;

	options_read(argc, argv);
	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	loop = client_loop_create("127.0.0.1", o.port, false, &events);
	if (!loop)
		die("cannot start");
	devices_read();
	if (!o.at_once) {
		bring_up();
		while (outage())
			;
		return 0;
	}
	start = im_clock_mono_ms();
	while (served < o.count && im_clock_mono_ms() < start + (int64_t)o.seconds * 1000 && !input_ended())
		turn();
	report(served == o.count ? "served" : "left", start);
	return 0;
}
