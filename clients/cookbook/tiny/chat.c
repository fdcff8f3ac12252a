/*
 * A short chat the way a microcontroller does it (PubSubClient): sockets, MQTT 3.1.1 by hand, QoS 0 only, packets of
 * at most 256 bytes, raw codec, so that no JSON is needed. README.md in the parent folder tells the steps.
 *
 * QoS 0 is without promise, so every send has a message id and is repeated until raw/ack/{id}/{seq} says it is stored.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PACKET 256
#define WAIT_S 15
#define REPEAT_S 3
#define KEPT 8 /* packets remembered for what is waited for next: the answers of one step may come in any order */

struct packet {
	uint8_t type, data[PACKET];
	size_t len;
	char topic[PACKET];
	char payload[PACKET];
};

static struct packet kept[KEPT]; /* a ring */
static unsigned next;
static int sock;
static const char *host, *port, *user, *peer;

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static void write_all(const uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = send(sock, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			die("the connection is lost");
		data += n;
		len -= (size_t)n;
	}
}

static void read_all(uint8_t *data, size_t len)
{
	while (len > 0) {
		ssize_t n = recv(sock, data, len, 0);

		if (n <= 0)
			die("the connection is lost");
		data += n;
		len -= (size_t)n;
	}
}

/* Appends a string with its two length bytes. */
static size_t put(uint8_t *at, const char *s)
{
	size_t len = strlen(s);

	at[0] = (uint8_t)(len >> 8);
	at[1] = (uint8_t)len;
	memcpy(at + 2, s, len);
	return len + 2;
}

/* body[len] becomes a packet. Below 256 bytes the length takes one or two bytes. */
static void send_packet(uint8_t type, const uint8_t *body, size_t len)
{
	uint8_t p[PACKET];
	size_t n = 0;

	if (len > PACKET - 3)
		die("longer than this client's packets");
	p[n++] = type;
	p[n++] = (uint8_t)(len < 128 ? len : (len & 127) | 128);
	if (len >= 128)
		p[n++] = (uint8_t)(len >> 7);
	memcpy(p + n, body, len);
	write_all(p, n + len);
}

/* false: nothing came within `ms`. Packets that do not fit are read and thrown away. */
static int receive(struct packet *p, int ms)
{
	struct pollfd fd = {.fd = sock, .events = POLLIN};
	size_t len = 0, topic_len;
	uint8_t b;

	if (poll(&fd, 1, ms) <= 0)
		return 0;
	read_all(&p->type, 1);
	for (int shift = 0; shift < 28; shift += 7) {
		read_all(&b, 1);
		len |= (size_t)(b & 127) << shift;
		if (!(b & 128))
			break;
	}
	p->topic[0] = p->payload[0] = '\0';
	p->len = len;
	if (len >= PACKET) {
		while (len-- > 0)
			read_all(&b, 1);
		return 1;
	}
	read_all(p->data, len);
	if ((p->type & 0xf0) != 0x30 || len < 2)
		return 1;
	topic_len = (size_t)p->data[0] << 8 | p->data[1];
	if (topic_len + 2 > len)
		die("a malformed packet");
	memcpy(p->topic, p->data + 2, topic_len);
	p->topic[topic_len] = '\0';
	memcpy(p->payload, p->data + 2 + topic_len, len - 2 - topic_len);
	p->payload[len - 2 - topic_len] = '\0';
	return 1;
}

static void publish(const char *to, const char *id, const char *text)
{
	uint8_t body[PACKET];
	char topic[200];
	size_t n;

	(void)snprintf(topic, sizeof(topic), "im/v1/to/u/%s/%s", to, id);
	if (2 + strlen(topic) + strlen(text) > PACKET - 3)
		die("longer than this client's packets");
	n = put(body, topic);
	memcpy(body + n, text, strlen(text));
	send_packet(0x30, body, n + strlen(text));
	printf("send: %s %s\n", topic, text);
}

static int connect_socket(void)
{
	struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM};
	int s = -1;

	if (getaddrinfo(host, port, &hints, &list) != 0)
		die("unknown host");
	for (struct addrinfo *a = list; a && s < 0; a = a->ai_next) {
		s = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
		if (s >= 0 && connect(s, a->ai_addr, a->ai_addrlen) != 0) {
			close(s);
			s = -1;
		}
	}
	freeaddrinfo(list);
	if (s < 0)
		die("cannot connect");
	return s;
}

static void connect_device(void)
{
	const char *password = getenv("IM_PASSWORD");
	uint8_t body[PACKET] = {0, 4, 'M', 'Q', 'T', 'T', 4, 0xc2, 0, 60}; /* 3.1.1, user, password, clean, keepalive 60 s */
	struct packet p;
	char id[100];
	size_t n = 10;

	(void)snprintf(id, sizeof(id), "%s:cookbook-tiny", user);
	if (n + strlen(id) + strlen(user) + strlen(password) + 6 > PACKET - 3)
		die("longer than this client's packets");
	n += put(body + n, id);
	n += put(body + n, user);
	n += put(body + n, password);
	sock = connect_socket();
	send_packet(0x10, body, n);
	if (!receive(&p, WAIT_S * 1000) || p.type != 0x20 || p.len != 2 || p.data[1] != 0)
		die("the broker refused the connection");
	body[0] = 0;
	body[1] = 1; /* packet id */
	n = 2 + put(body + 2, "im/v1/raw/#");
	body[n++] = 0; /* QoS 0 */
	send_packet(0x82, body, n);
	printf("connected\n");
}

static void leave(void)
{
	send_packet(0xe0, (const uint8_t *)"", 0);
	(void)close(sock);
}

/* Waits for a topic with this beginning (or the other) and a payload with this word; returns 0 if it does not come in time. */
static int wait_for(const char *step, const char *begin, const char *other, const char *word, int seconds)
{
	time_t end = time(NULL) + seconds;

	do {
		for (int i = 0; i < KEPT; i++) {
			struct packet *p = &kept[i];

			if ((strncmp(p->topic, begin, strlen(begin)) && strncmp(p->topic, other, strlen(other))) || !strstr(p->payload, word))
				continue;
			printf("%s: %s %s\n", step, p->topic, p->payload);
			p->topic[0] = '\0'; /* used up */
			return 1;
		}
		next += (unsigned)receive(&kept[next % KEPT], 200);
	} while (time(NULL) < end);
	return 0;
}

static void expect(const char *step, const char *begin, const char *other, const char *word)
{
	if (wait_for(step, begin, other, word, WAIT_S))
		return;
	fprintf(stderr, "not seen within %d s: %s\n", WAIT_S, step);
	exit(1);
}

/* Sends until the answer comes: QoS 0 alone promises nothing, the message id makes repeats harmless. */
static void send_until(const char *step, const char *to, const char *id, const char *text, const char *answer, const char *word)
{
	for (int i = 0; i < WAIT_S / REPEAT_S; i++) {
		publish(to, id, text);
		if (wait_for(step, answer, answer, word, REPEAT_S))
			return;
	}
	fprintf(stderr, "not seen within %d s: %s\n", WAIT_S, step);
	exit(1);
}

int main(int argc, char **argv)
{
	char run[48], nobody[60], id[3][64], hello[100], away[100], ack[3][100], live[120], old[120];

	if (argc != 5 || !getenv("IM_PASSWORD"))
		die("usage: IM_PASSWORD=... chat HOST PORT USER PEER");
	host = argv[1];
	port = argv[2];
	user = argv[3];
	peer = argv[4];
	setvbuf(stdout, NULL, _IOLBF, 0);
	(void)snprintf(run, sizeof(run), "ty%lld-%d", (long long)time(NULL), (int)getpid());
	for (int i = 0; i < 3; i++) {
		(void)snprintf(id[i], sizeof(id[i]), "%s-%d", run, i + 1);
		(void)snprintf(ack[i], sizeof(ack[i]), "im/v1/raw/ack/%s/", id[i]);
	}
	(void)snprintf(nobody, sizeof(nobody), "nobody.%s", run);
	(void)snprintf(hello, sizeof(hello), "hello %s", run);
	(void)snprintf(away, sizeof(away), "while away %s", run);
	(void)snprintf(live, sizeof(live), "im/v1/raw/msg/u/%s/", peer);
	(void)snprintf(old, sizeof(old), "im/v1/raw/old/u/%s/", peer);

	connect_device();
	send_until("acked", peer, id[0], hello, ack[0], "");
	expect("received", live, old, hello);
	send_until("refused", nobody, id[1], "is anybody there", "im/v1/raw/err/", nobody); /* not an old refusal, told again */
	send_until("repeat answered alike", peer, id[0], hello, ack[0], "");
	send_until("acked", peer, id[2], away, ack[2], "");
	leave();
	printf("away\n");
	memset(kept, 0, sizeof(kept));
	sleep(1); /* the answer arrives meanwhile */
	connect_device();
	expect("caught up", live, old, away);
	leave();
	printf("done\n");
	return 0;
}
