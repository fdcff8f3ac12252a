/*
 * im-slow: receivers that misbehave in one chosen way, and somebody who writes to all of them in turn. What it costs others
 * is measured by `im-bench watch` beside it; bench/slow joins the two.
 *
 * Commands come on standard input, one a line, and each is answered with one line of JSON when it is done:
 *
 *	send S    S seconds long at --rate, whatever comes back
 *	fill N    N messages to each receiver, as fast as they are stored
 *	leave     all receivers disconnect
 *	heal      from now on they behave; done when everything sent has come
 *
 * Each message carries its number among those of its receiver, so that "everything, in order" is one comparison: what comes
 * is a repeat or the next one.
 */
#include "base/buf.h"
#include "base/clock.h"
#include "client.h"

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define KEEPALIVE_S 300
#define TURN_US 5000
#define STILL_MS 60000        /* nothing came for so long: given up */
#define FILL_WINDOW 500u      /* sent and no PUBACK yet */
#define STORED_WINDOW 2000u   /* sent and not told to be stored */
#define ACK_EVERY 100u        /* a healed device that acks does so every so many */
#define SMALL_BUFFER 4096     /* of who does not read: it stands still at once */

enum kind { BEHAVES, STALLED, NO_PUBACK, NO_ACK };

static const char *const kinds[] = { "behaves", "stalled", "no_puback", "no_ack" };

struct receiver {
	char user[64], password[64], id[160], topic[160];
	struct client *client;
	bool ready;
	unsigned sent, came;         /* counts: the next one is number `came` */
	uint64_t seq, acked;         /* of the newest that came; of the last im/v1/ack */
};

static struct {
	int port;
	bool websocket;
	enum kind kind;
	const char *credentials;
	unsigned first, receivers, rate, size, qos;
} o = { .port = 1883, .receivers = 20, .rate = 4000, .size = 700, .qos = 1 };

static struct client_loop *loop, *sender_loop; /* the sender is always TCP, with buffers as they come */
static struct receiver *all, sender;
static unsigned ready;
static uint64_t sent, pubacks, stored;
static bool healed;
static int64_t last_ms;              /* when something came last */
static char *body;

static void die(const char *what)
{
	printf("{\"error\":\"%s\"}\n", what);
	exit(1);
}

static void ack(struct receiver *r)
{
	char json[160];
	int n = snprintf(json, sizeof(json), "[{\"conv\":\"u/%s\",\"delivered\":%" PRIu64 "}]", sender.user, r->seq);

	(void)client_publish(r->client, "im/v1/ack", json, (size_t)n, 0);
	r->acked = r->seq;
}

/* ---------------------------------------------------------------- what comes */

static uint64_t number_behind(const uint8_t *p, size_t len, const char *name)
{
	const uint8_t *at = memmem(p, len, name, strlen(name));

	return at ? strtoull((const char *)at + strlen(name), NULL, 10) : 0;
}

static void take(struct receiver *r, const uint8_t *p, size_t len)
{
	unsigned n = (unsigned)number_behind(p, len, "n=");

	if (n > r->came)
		die("a message is missing, or came too early");
	if (n < r->came)
		return; /* at least once */
	r->came++;
	r->seq = number_behind(p, len, "\"seq\":");
	if (o.kind == NO_ACK && (r->came == 1 || (healed && (r->seq - r->acked >= ACK_EVERY || r->came == r->sent))))
		ack(r);
}

static void ev_received(struct client *c, const char *topic, size_t topic_len, const uint8_t *p, size_t len)
{
	static const char ours[] = "im/v1/in/msg/", acks[] = "im/v1/in/ack";
	const uint8_t *end = p + len;

	last_ms = im_clock_mono_ms();
	if (topic_len >= sizeof(acks) - 1 && memcmp(topic, acks, sizeof(acks) - 1) == 0)
		for (; (p = memmem(p, (size_t)(end - p), "\"msgid\"", 7)); p += 7)
			stored++;
	else if (topic_len >= sizeof(ours) - 1 && memcmp(topic, ours, sizeof(ours) - 1) == 0)
		take(c->arg, p, len);
}

static void ev_up(struct client *c, bool present)
{
	struct receiver *r = c->arg;

	(void)present;
	if (r == &sender)
		client_subscribe(c, "im/v1/in/ack", 1);
	else
		client_subscribe(c, "im/v1/in/#", (int)o.qos);
}

static void ev_subscribed(struct client *c)
{
	struct receiver *r = c->arg;

	ready += !r->ready;
	r->ready = true;
}

static void ev_acked(struct client *c, uint16_t mid)
{
	(void)c, (void)mid;
	pubacks++;
	last_ms = im_clock_mono_ms();
}

static void ev_down(struct client *c, const char *why)
{
	struct receiver *r = c->arg;

	fprintf(stderr, "%s: %s\n", r->id, why);
	die(why);
}

static const struct client_events events = { ev_up, ev_subscribed, ev_acked, ev_received, ev_down };

/* ---------------------------------------------------------------- coming and going */

static void turn(int64_t us)
{
	if (client_loop_turn(sender_loop, 0) == 0)
		(void)client_loop_turn(loop, us);
	else
		(void)client_loop_turn(loop, 0);
	if (im_clock_mono_ms() - last_ms > STILL_MS)
		die("nothing comes any more");
}

static void come(struct receiver *r, struct client_loop *on, bool clean)
{
	r->ready = false;
	r->client = client_open(on, r->id, r->user, r->password, clean, KEEPALIVE_S);
	if (!r->client)
		die("cannot open a connection");
	r->client->arg = r;
	ready = 0;
	last_ms = im_clock_mono_ms();
	while (!r->ready)
		turn(TURN_US);
}

static void leave(void)
{
	for (unsigned i = 0; i < o.receivers; i++) {
		client_close(all[i].client, true);
		all[i].client = NULL;
	}
}

static void misbehave(struct receiver *r)
{
	if (o.kind == STALLED)
		client_deaf(r->client, true);
	if (o.kind == NO_PUBACK)
		r->client->no_pubacks = true;
}

static void heal(void)
{
	int64_t start = last_ms = im_clock_mono_ms();
	unsigned done = 0;

	healed = true;
	for (unsigned i = 0; i < o.receivers; i++) {
		struct receiver *r = &all[i];

		if (o.kind == NO_PUBACK && r->client) {
			client_close(r->client, false);
			r->client = NULL;
		}
		if (!r->client)
			come(r, loop, true);
		client_deaf(r->client, false);
		if (o.kind == NO_ACK && r->came > 0)
			ack(r);
		client_flush(r->client);
	}
	while (done < o.receivers) {
		turn(TURN_US);
		for (done = 0; done < o.receivers && all[done].came == all[done].sent; done++)
			;
	}
	printf("{\"healed\":%u,\"messages\":%" PRIu64 ",\"ms\":%" PRId64 "}\n", done, sent, im_clock_mono_ms() - start);
}

/* ---------------------------------------------------------------- sending */

static void send_one(struct receiver *r)
{
	int n = snprintf(body, o.size, "n=%u;", r->sent++);

	body[n] = ' ';
	(void)client_publish(sender.client, r->topic, body, o.size, 1);
	sent++;
}

static void send_all_stored(void)
{
	last_ms = im_clock_mono_ms();
	while (pubacks < sent || stored < sent)
		turn(TURN_US);
}

static void send_for(unsigned seconds)
{
	int64_t start = im_clock_mono_us();
	uint64_t n = 0, most = (uint64_t)o.rate * seconds;

	last_ms = start / 1000;
	while (n < most) {
		int64_t due = start + (int64_t)(n * 1000000 / o.rate), now = im_clock_mono_us();

		if (now < due) {
			turn(due - now < TURN_US ? due - now : TURN_US);
			continue;
		}
		send_one(&all[n++ % o.receivers]);
		client_flush(sender.client);
		if (n % 16 == 0)
			turn(0);
	}
	send_all_stored();
	printf("{\"sent\":%" PRIu64 ",\"ms\":%" PRId64 "}\n", n, (im_clock_mono_us() - start) / 1000);
}

static void fill(unsigned each)
{
	int64_t start = last_ms = im_clock_mono_ms();
	uint64_t n = 0, most = (uint64_t)each * o.receivers;

	while (n < most) {
		while (n < most && sent - pubacks < FILL_WINDOW && sent - stored < STORED_WINDOW)
			send_one(&all[n++ % o.receivers]);
		client_flush(sender.client);
		turn(TURN_US);
	}
	send_all_stored();
	printf("{\"filled\":%" PRIu64 ",\"ms\":%" PRId64 "}\n", n, im_clock_mono_ms() - start);
}

/* ---------------------------------------------------------------- commands */

static bool command(const char *line)
{
	unsigned n = 0;

	last_ms = im_clock_mono_ms();
	if (sscanf(line, "send %u", &n) == 1) {
		send_for(n);
	} else if (sscanf(line, "fill %u", &n) == 1) {
		fill(n);
	} else if (strcmp(line, "leave\n") == 0) {
		leave();
		printf("{\"left\":%u}\n", o.receivers);
	} else if (strcmp(line, "heal\n") == 0) {
		heal();
	} else {
		return false;
	}
	(void)fflush(stdout);
	return true;
}

/* The connections live on while nothing is asked for. */
static void commands(void)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
	char line[64];

	(void)setvbuf(stdin, NULL, _IONBF, 0); /* poll must see a line behind the one that was read */
	for (;;) {
		last_ms = im_clock_mono_ms();
		turn(TURN_US);
		if (poll(&p, 1, 0) <= 0)
			continue;
		if (!fgets(line, sizeof(line), stdin))
			return;
		if (!command(line))
			die("no such command");
	}
}

static void person_read(FILE *f, struct receiver *r, const char *device)
{
	if (fscanf(f, "%63s %63s", r->user, r->password) != 2)
		die("not enough users in the credentials file");
	(void)snprintf(r->id, sizeof(r->id), "%s:%s", r->user, device);
	(void)snprintf(r->topic, sizeof(r->topic), "im/v1/to/u/%s", r->user);
}

static void people_read(void)
{
	FILE *f = fopen(o.credentials, "r");
	struct receiver skipped;

	if (!f)
		die("cannot read the credentials");
	for (unsigned i = 0; i < o.first; i++)
		person_read(f, &skipped, "");
	person_read(f, &sender, "slow-s");
	for (unsigned i = 0; i < o.receivers; i++)
		person_read(f, &all[i], "slow-r");
	(void)fclose(f);
}

static void usage(void)
{
	die("usage: im-slow --port N --credentials FILE [--kind behaves|stalled|no_puback|no_ack] [--first N] [--receivers N] [--rate N] [--size N] "
	    "[--qos N] [--websocket]");
}

static enum kind kind_of(const char *name)
{
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strcmp(kinds[i], name) == 0)
			return (enum kind)i;
	usage();
	return BEHAVES;
}

static void options_read(int argc, char **argv)
{
	static const struct option table[] = {
		{ "port", 1, 0, 'p' }, { "credentials", 1, 0, 'c' }, { "kind", 1, 0, 'k' }, { "first", 1, 0, 'f' }, { "receivers", 1, 0, 'n' },
		{ "rate", 1, 0, 'r' }, { "size", 1, 0, 's' }, { "qos", 1, 0, 'q' }, { "websocket", 0, 0, 'w' }, { 0, 0, 0, 0 },
	};
	int k;

	while ((k = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (k) {
		case 'p': o.port = atoi(optarg); break;
		case 'c': o.credentials = optarg; break;
		case 'k': o.kind = kind_of(optarg); break;
		case 'f': o.first = (unsigned)atoi(optarg); break;
		case 'n': o.receivers = (unsigned)atoi(optarg); break;
		case 'r': o.rate = (unsigned)atoi(optarg); break;
		case 's': o.size = (unsigned)atoi(optarg); break;
		case 'q': o.qos = (unsigned)atoi(optarg); break;
		case 'w': o.websocket = true; break;
		default: usage();
		}
	}
	if (!o.credentials || o.receivers == 0 || o.rate == 0 || o.size < 32)
		usage();
}

int main(int argc, char **argv)
{
	options_read(argc, argv);
	all = calloc(o.receivers, sizeof(*all));
	body = malloc(o.size);
	loop = client_loop_create("127.0.0.1", o.port, o.websocket, &events);
	sender_loop = client_loop_create("127.0.0.1", o.port, false, &events);
	if (!all || !body || !loop || !sender_loop)
		die("cannot start");
	memset(body, 'x', o.size);
	people_read();
	if (o.kind == STALLED)
		client_loop_receive_buffer(loop, SMALL_BUFFER);
	come(&sender, sender_loop, true);
	for (unsigned i = 0; i < o.receivers; i++) {
		come(&all[i], loop, true);
		misbehave(&all[i]);
	}
	printf("{\"ready\":%u}\n", o.receivers);
	(void)fflush(stdout);
	commands();
	return 0;
}
