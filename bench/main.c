/*
 * im-bench SCENARIO: one measurement against one broker, bare or ours, printed as one JSON object.
 * bench/run starts the brokers, calls this alternately for both and makes the table.
 *
 * The same generator, payload and window serve both; they differ in topics only. Every payload carries
 * the time it was sent, which the receiver finds again in the delivery.
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

#define STAMP "t=%016" PRIx64 ";"
#define STAMP_LEN 19
#define FAN_WINDOW 4
#define GATHER_US 100  /* after a packet the next ones are gathered so long */
#define STALL_MS 60000 /* nothing arrived for so long: give up */
#define PHASES 64u     /* of one watch */

struct options {
	const char *host, *credentials, *group;
	int port;
	bool im, websocket;
	unsigned pairs, size, window, seconds, rate, count, qos, first;
};

struct side {
	char user[64], password[64], id[128];
	struct client *client;
	unsigned pair;
	bool receiver, ready;
};

static struct options o = {.host = "127.0.0.1", .port = 1883, .pairs = 50, .size = 100, .window = 32, .seconds = 5, .rate = 1000, .count = 1000, .qos = 1, .group = "bench"};
static struct client_loop *loop;
static struct side *senders, *receivers;
static unsigned n_senders, n_receivers, ups, readies;
static uint64_t received, counted, pubacks, acks;
static struct histogram latencies;
static int64_t count_from, count_to, last_seen_ms;
static char *payload;
static bool connect_only;

static void die(const char *what)
{
	printf("{\"error\":\"%s\"}\n", what);
	exit(1);
}

/* ---------------------------------------------------------------- names */

struct credential {
	char name[64], password[64];
};

static struct credential *credentials;
static size_t n_credentials;

static void credentials_read(void)
{
	FILE *f = fopen(o.credentials, "r");
	struct credential c;

	if (!f)
		die("cannot read the credentials file");
	while (fscanf(f, "%63s %63s", c.name, c.password) == 2) {
		credentials = realloc(credentials, (n_credentials + 1) * sizeof(c));
		if (!credentials)
			die("out of memory");
		credentials[n_credentials++] = c;
	}
	(void)fclose(f);
}

/* Users in the file's order from --first on: each run takes fresh ones, to whom nothing is owed from the run before. */
static void side_name(struct side *s, unsigned number, const char *device)
{
	number += o.first;
	if (o.credentials && number >= n_credentials)
		die("not enough users in the credentials file");
	(void)snprintf(s->user, sizeof(s->user), "%s", o.credentials ? credentials[number].name : "anybody");
	(void)snprintf(s->password, sizeof(s->password), "%s", o.credentials ? credentials[number].password : "x");
	if (o.im)
		(void)snprintf(s->id, sizeof(s->id), "%s:%s", s->user, device);
	else
		(void)snprintf(s->id, sizeof(s->id), "b%u-%s", number, device);
}

static void topic_of(unsigned pair, char *out, size_t cap)
{
	if (o.im)
		(void)snprintf(out, cap, "im/v1/to/u/%s", receivers[pair].user);
	else
		(void)snprintf(out, cap, "bench/to/u/%u", pair);
}

/* ---------------------------------------------------------------- traffic */

static void send_one(unsigned pair, const char *topic, int64_t stamp_us)
{
	struct side *s = &senders[pair];
	char text[STAMP_LEN + 1];

	(void)snprintf(text, sizeof(text), STAMP, (uint64_t)stamp_us);
	memcpy(payload, text, o.size < STAMP_LEN ? o.size : STAMP_LEN);
	(void)client_publish(s->client, topic, payload, o.size, (int)o.qos);
}

static void send_next(unsigned pair)
{
	char topic[256];

	topic_of(pair, topic, sizeof(topic));
	send_one(pair, topic, im_clock_mono_us());
	client_flush(senders[pair].client);
}

static int64_t stamp_of(const uint8_t *p, size_t len)
{
	const uint8_t *at = memmem(p, len, "t=", 2);

	while (at) {
		if ((size_t)(p + len - at) >= STAMP_LEN && at[STAMP_LEN - 1] == ';')
			return (int64_t)strtoull((const char *)at + 2, NULL, 16);
		at = memmem(at + 2, (size_t)(p + len - at) - 2, "t=", 2);
	}
	return -1;
}

static void (*on_received)(struct side *s, int64_t stamp);

static void count_acks(const uint8_t *p, size_t len)
{
	const uint8_t *end = p + len;

	while ((p = memmem(p, (size_t)(end - p), "\"msgid\"", 7))) {
		acks++;
		p += 7;
	}
}

static bool starts(const char *topic, size_t len, const char *with)
{
	return len >= strlen(with) && memcmp(topic, with, strlen(with)) == 0;
}

static void ev_received(struct client *c, const char *topic, size_t topic_len, const uint8_t *p, size_t len)
{
	struct side *s = c->arg;
	int64_t stamp, now;

	if (o.im && starts(topic, topic_len, "im/v1/in/ack")) {
		count_acks(p, len);
		return;
	}
	if (o.im && !starts(topic, topic_len, "im/v1/in/msg/"))
		return;
	now = im_clock_mono_us();
	stamp = stamp_of(p, len);
	if (stamp < 0)
		return;
	received++;
	last_seen_ms = now / 1000;
	if (now >= count_from && now < count_to) {
		counted++;
		histogram_add(&latencies, (uint64_t)(now > stamp ? now - stamp : 0));
	}
	if (on_received)
		on_received(s, stamp);
}

static void ev_up(struct client *c, bool present)
{
	struct side *s = c->arg;
	char topic[256];

	(void)present;
	ups++;
	if (s->receiver && !o.im) {
		(void)snprintf(topic, sizeof(topic), "bench/to/u/%u", s->pair);
		client_subscribe(c, topic, 1);
	} else if (s->receiver) {
		client_subscribe(c, "im/v1/in/#", 1);
	} else if (o.im && !connect_only) {
		client_subscribe(c, "im/v1/in/ack", 1);
	} else {
		s->ready = true;
		readies++;
	}
}

static void ev_subscribed(struct client *c)
{
	struct side *s = c->arg;

	if (!s->ready)
		readies++;
	s->ready = true;
}

static void ev_acked(struct client *c, uint16_t mid)
{
	(void)c;
	(void)mid;
	pubacks++;
}

static void ev_down(struct client *c, const char *why)
{
	struct side *s = c->arg;

	fprintf(stderr, "%s (%s): %s\n", s->id, s->receiver ? "receiver" : "sender", why);
	die(why);
}

static const struct client_events events = {ev_up, ev_subscribed, ev_acked, ev_received, ev_down};

/* ---------------------------------------------------------------- set up */

static void side_open(struct side *s, bool clean)
{
	s->ready = false;
	s->client = client_open(loop, s->id, s->user, s->password, clean, 300);
	if (!s->client)
		die("cannot open a connection");
	s->client->arg = s;
}

static void await(unsigned n, const unsigned *what, const char *or_else)
{
	int64_t deadline = im_clock_mono_ms() + STALL_MS;

	while (*what < n) {
		(void)client_loop_turn(loop, 100000);
		if (im_clock_mono_ms() > deadline)
			die(or_else);
	}
}

static struct side *sides(unsigned n, unsigned first, const char *device, bool receiver)
{
	struct side *list = calloc(n, sizeof(*list));

	if (!list)
		die("out of memory");
	for (unsigned i = 0; i < n; i++) {
		side_name(&list[i], first + i, device);
		list[i].pair = i;
		list[i].receiver = receiver;
	}
	return list;
}

static void pairs_make(unsigned senders_wanted, unsigned receivers_wanted)
{
	n_senders = senders_wanted;
	n_receivers = receivers_wanted;
	senders = sides(n_senders, 0, "s", false);
	receivers = sides(n_receivers, n_senders, "r", true);
}

/* Opens in groups: the broker's listener backlog is 100. */
static void open_all(void)
{
	for (unsigned i = 0; i < n_receivers; i++) {
		side_open(&receivers[i], true);
		if (i % 50 == 49)
			await(i + 1, &readies, "receivers do not come up");
	}
	await(n_receivers, &readies, "receivers do not come up");
	for (unsigned i = 0; i < n_senders; i++)
		side_open(&senders[i], true);
	await(n_receivers + n_senders, &readies, "senders do not come up");
}

/* What a store still has from an earlier run arrives first: wait for half a second of silence. */
static void settle(void)
{
	int64_t quiet = im_clock_mono_ms() + 500;
	uint64_t seen = received;

	while (im_clock_mono_ms() < quiet) {
		(void)client_loop_turn(loop, 50000);
		if (received != seen) {
			seen = received;
			quiet = im_clock_mono_ms() + 500;
		}
	}
	received = 0;
}

static void window_set(void)
{
	count_from = im_clock_mono_us() + 1000000;
	count_to = count_from + (int64_t)o.seconds * 1000000;
}

static void print_latencies(void)
{
	printf("\"latency_us\":{\"p50\":%" PRIu64 ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"p999\":%" PRIu64 ",\"max\":%" PRIu64 "}",
	       histogram_at(&latencies, 0.5), histogram_at(&latencies, 0.9), histogram_at(&latencies, 0.99),
	       histogram_at(&latencies, 0.999), latencies.max);
}

/* ---------------------------------------------------------------- scenarios */

/*
 * Waits for packets and, after the first, gathers others before it looks again, as a network card does before it interrupts
 * again. A generator on the broker's own machine that is woken for every packet makes each `send` an interrupt to another
 * virtual CPU, and measures that.
 */
static void turn_and_gather(int64_t most_us)
{
	if (client_loop_turn(loop, most_us) > 0)
		(void)usleep(most_us < GATHER_US ? (useconds_t)most_us : GATHER_US);
}

static void pairs_on_received(struct side *s, int64_t stamp)
{
	(void)stamp;
	send_next(s->pair);
}

/* Closed loop: every pair has `window` messages under way from end to end. */
static void scenario_pairs(void)
{
	pairs_make(o.pairs, o.pairs);
	open_all();
	settle();
	window_set();
	on_received = pairs_on_received;
	last_seen_ms = im_clock_mono_ms();
	for (unsigned w = 0; w < o.window; w++)
		for (unsigned i = 0; i < o.pairs; i++)
			send_next(i);
	while (im_clock_mono_us() < count_to) {
		turn_and_gather(100000);
		if (im_clock_mono_ms() - last_seen_ms > STALL_MS)
			die("nothing arrives any more");
	}
	printf("{\"scenario\":\"pairs\",\"messages_per_s\":%.0f,", (double)counted / o.seconds);
	print_latencies();
	printf(",\"pubacks\":%" PRIu64 ",\"acks\":%" PRIu64 "}\n", pubacks, acks);
}

/*
 * Open loop: `rate` messages a second over all pairs, whatever comes back. Sends one if it is due, or else sleeps until one is:
 * a spinning generator would take a core from both. Each carries the time it was due: late sending counts.
 */
static void rate_turn(int64_t start_us, uint64_t *sent)
{
	int64_t now = im_clock_mono_us(), due_us = start_us + (int64_t)(*sent * 1000000 / o.rate);
	unsigned pair = (unsigned)(*sent % o.pairs);
	char topic[256];

	if (now < due_us) {
		turn_and_gather(due_us - now);
		return;
	}
	topic_of(pair, topic, sizeof(topic));
	send_one(pair, topic, due_us);
	client_flush(senders[pair].client);
	if (++*sent % 16 == 0)
		(void)client_loop_turn(loop, 0);
}

static void rate_drain(uint64_t sent)
{
	for (int64_t end = im_clock_mono_ms() + 10000; received < sent && im_clock_mono_ms() < end;) {
		count_to = im_clock_mono_us() + 1000000;
		(void)client_loop_turn(loop, 50000);
	}
}

static void scenario_rate(void)
{
	uint64_t sent = 0, until = (uint64_t)o.rate * (o.seconds + 1);
	int64_t start;

	pairs_make(o.pairs, o.pairs);
	open_all();
	settle();
	window_set();
	start = im_clock_mono_us();
	while (sent < until)
		rate_turn(start, &sent);
	rate_drain(sent);
	printf("{\"scenario\":\"rate\",\"rate\":%u,\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",", o.rate, sent, received);
	print_latencies();
	printf("}\n");
}

/* One after another, named by standard input; a message belongs to the one in which it was due. The same name again goes on. */
static struct phase {
	char name[40];
	int64_t from_us;
	struct phase *first;        /* of this name: the one that counts */
	struct histogram times;
} phases[PHASES];
static unsigned n_phases;

static void phase_begin(const char *line)
{
	struct phase *p = &phases[n_phases];

	if (n_phases == PHASES)
		die("too many phases");
	if (sscanf(line, "%39s", p->name) != 1)
		die("a phase without a name");
	p->from_us = im_clock_mono_us();
	p->first = phases;
	while (strcmp(p->first->name, p->name) != 0)
		p->first++;
	n_phases++;
}

static void watch_on_received(struct side *s, int64_t stamp)
{
	unsigned i = n_phases;

	(void)s;
	while (i > 0 && phases[i - 1].from_us > stamp)
		i--;
	if (i > 0)
		histogram_add(&phases[i - 1].first->times, (uint64_t)(im_clock_mono_us() - stamp));
}

static void phases_print(uint64_t sent)
{
	printf("{\"scenario\":\"watch\",\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"phases\":[", sent, received);
	for (unsigned i = 0; i < n_phases; i++) {
		if (phases[i].first != &phases[i])
			continue;
		latencies = phases[i].times;
		printf("%s{\"name\":\"%s\",\"count\":%" PRIu64 ",", i ? "," : "", phases[i].name, latencies.count);
		print_latencies();
		printf("}");
	}
	printf("]}\n");
}

/* As rate, until standard input ends; what it is told there begins a phase with latencies of its own. */
static void scenario_watch(void)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	uint64_t sent = 0;
	int64_t start;
	char line[64];

	pairs_make(o.pairs, o.pairs);
	open_all();
	settle();
	on_received = watch_on_received;
	(void)setvbuf(stdin, NULL, _IONBF, 0); /* poll must see a line behind the one that was read */
	printf("{\"watching\":%u}\n", o.rate);
	(void)fflush(stdout);
	start = im_clock_mono_us();
	for (;;) {
		rate_turn(start, &sent);
		if (poll(&in, 1, 0) <= 0)
			continue;
		if (!fgets(line, sizeof(line), stdin))
			break;
		phase_begin(line);
	}
	rate_drain(sent);
	phases_print(sent);
}

/* Group messages under way, found by their stamps. */
static struct { int64_t stamp; unsigned got; } fan[FAN_WINDOW];
static unsigned fan_open;
static char fan_topic[128];
static struct histogram fan_times;

static void fan_send(unsigned slot)
{
	static int64_t last;
	int64_t now = im_clock_mono_us();

	last = now > last ? now : last + 1; /* no two alike */
	fan[slot].stamp = last;
	fan[slot].got = 0;
	send_one(0, o.im ? fan_topic : "bench/group", last);
	client_flush(senders[0].client);
}

static void fan_on_received(struct side *s, int64_t stamp)
{
	unsigned slot = 0;

	(void)s;
	while (slot < FAN_WINDOW && fan[slot].stamp != stamp)
		slot++;
	if (slot == FAN_WINDOW || ++fan[slot].got < n_receivers)
		return;
	if (im_clock_mono_us() >= count_from)
		histogram_add(&fan_times, (uint64_t)(im_clock_mono_us() - stamp));
	if (im_clock_mono_us() < count_to)
		fan_send(slot);
	else
		fan_open--;
}

/* One sender, `count` receivers of a group, four messages under way: the next goes when all have one of them. */
static void scenario_fanout(void)
{
	(void)snprintf(fan_topic, sizeof(fan_topic), "im/v1/to/g/%s", o.group);
	pairs_make(1, o.count);
	if (!o.im)
		for (unsigned i = 0; i < n_receivers; i++)
			receivers[i].receiver = false;
	open_all();
	if (!o.im) {
		for (unsigned i = 0; i < n_receivers; i++)
			client_subscribe(receivers[i].client, "bench/group", 1);
	}
	settle();
	window_set();
	on_received = fan_on_received;
	fan_open = FAN_WINDOW;
	for (unsigned i = 0; i < FAN_WINDOW; i++)
		fan_send(i);
	while (fan_open) {
		turn_and_gather(100000);
		if (im_clock_mono_us() > count_to + (int64_t)STALL_MS * 1000)
			die("a group message does not reach everybody");
	}
	printf("{\"scenario\":\"fanout\",\"members\":%u,\"deliveries_per_s\":%.0f,\"all_us\":{\"p50\":%" PRIu64 ",\"p99\":%" PRIu64 "},",
	       o.count, (double)counted / o.seconds, histogram_at(&fan_times, 0.5), histogram_at(&fan_times, 0.99));
	print_latencies();
	printf("}\n");
}

/* A device that was there, leaves, misses `count` messages and comes back. */
static void scenario_backlog(void)
{
	char topic[256];
	uint64_t sent = 0;
	int64_t start, end, stored;

	pairs_make(1, 1);
	side_open(&receivers[0], false);
	await(1, &readies, "the receiver does not come up");
	settle();
	client_close(receivers[0].client, true);
	side_open(&senders[0], true);
	await(2, &readies, "the sender does not come up");
	topic_of(0, topic, sizeof(topic));
	start = im_clock_mono_us();
	end = im_clock_mono_ms() + 10 * STALL_MS;
	while (pubacks < o.count || (o.im && acks < o.count)) {
		while (sent < o.count && sent - pubacks < 500 && (!o.im || sent - acks < 2000)) {
			send_one(0, topic, im_clock_mono_us());
			sent++;
		}
		client_flush(senders[0].client);
		(void)client_loop_turn(loop, 100000);
		if (im_clock_mono_ms() > end)
			die("the backlog is not accepted");
	}
	stored = im_clock_mono_us() - start;
	received = 0;
	start = im_clock_mono_us();
	side_open(&receivers[0], false);
	while (received < o.count) {
		(void)client_loop_turn(loop, 100000);
		if (im_clock_mono_ms() > end)
			die("the backlog does not arrive");
	}
	printf("{\"scenario\":\"backlog\",\"count\":%u,\"fill_per_s\":%.0f,\"catch_up_per_s\":%.0f}\n", o.count,
	       o.count * 1e6 / (double)stored, o.count * 1e6 / (double)(im_clock_mono_us() - start));
}

/* Opens `count` connections, at most 64 not yet up; --hold: keeps them until standard input ends. */
static void scenario_connect(bool hold)
{
	int64_t start, end;
	char c;

	connect_only = true;
	receivers = sides(o.count, 0, "c", hold);
	start = im_clock_mono_us();
	end = im_clock_mono_ms() + 5 * STALL_MS;
	for (unsigned opened = 0; ups < o.count;) {
		while (opened < o.count && opened - ups < 64)
			side_open(&receivers[opened++], true);
		(void)client_loop_turn(loop, 100000);
		if (im_clock_mono_ms() > end)
			die("connections do not come up");
	}
	end = im_clock_mono_us();
	printf("{\"scenario\":\"connect\",\"count\":%u,\"connects_per_s\":%.0f}\n", o.count, o.count * 1e6 / (double)(end - start));
	(void)fflush(stdout);
	if (!hold)
		return;
	await(o.count, &readies, "subscriptions do not come up");
	settle();
	printf("{\"holding\":%u}\n", o.count);
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
}

static void options_read(int argc, char **argv)
{
	static const struct option table[] = {
		{"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"im", 0, 0, 'i'}, {"websocket", 0, 0, 'w'}, {"credentials", 1, 0, 'c'},
		{"pairs", 1, 0, 'n'}, {"size", 1, 0, 's'}, {"window", 1, 0, 'W'}, {"seconds", 1, 0, 't'}, {"rate", 1, 0, 'r'},
		{"count", 1, 0, 'C'}, {"qos", 1, 0, 'q'}, {"first", 1, 0, 'f'}, {"group", 1, 0, 'g'}, {0, 0, 0, 0},
	};
	int k;

	while ((k = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (k) {
		case 'h': o.host = optarg; break;
		case 'p': o.port = atoi(optarg); break;
		case 'i': o.im = true; break;
		case 'w': o.websocket = true; break;
		case 'c': o.credentials = optarg; break;
		case 'n': o.pairs = (unsigned)atoi(optarg); break;
		case 's': o.size = (unsigned)atoi(optarg); break;
		case 'W': o.window = (unsigned)atoi(optarg); break;
		case 't': o.seconds = (unsigned)atoi(optarg); break;
		case 'r': o.rate = (unsigned)atoi(optarg); break;
		case 'C': o.count = (unsigned)atoi(optarg); break;
		case 'q': o.qos = (unsigned)atoi(optarg); break;
		case 'f': o.first = (unsigned)atoi(optarg); break;
		case 'g': o.group = optarg; break;
		default: die("usage: im-bench pairs|rate|watch|fanout|backlog|connect|idle [--im] [--port N] ...");
		}
	}
}

int main(int argc, char **argv)
{
	struct rlimit files;

	options_read(argc, argv);
	if (optind >= argc || o.size < STAMP_LEN || o.pairs == 0 || o.seconds == 0 || o.rate == 0)
		die("usage: im-bench pairs|rate|watch|fanout|backlog|connect|idle [--im] [--port N] ...");
	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	if (o.credentials)
		credentials_read();
	payload = malloc(o.size);
	loop = client_loop_create(o.host, o.port, o.websocket, &events);
	if (!payload || !loop)
		die("cannot start");
	memset(payload, 'x', o.size);
	if (strcmp(argv[optind], "pairs") == 0)
		scenario_pairs();
	else if (strcmp(argv[optind], "rate") == 0)
		scenario_rate();
	else if (strcmp(argv[optind], "watch") == 0)
		scenario_watch();
	else if (strcmp(argv[optind], "fanout") == 0)
		scenario_fanout();
	else if (strcmp(argv[optind], "backlog") == 0)
		scenario_backlog();
	else if (strcmp(argv[optind], "connect") == 0)
		scenario_connect(false);
	else if (strcmp(argv[optind], "idle") == 0)
		scenario_connect(true);
	else
		die("no such scenario");
	return 0;
}
