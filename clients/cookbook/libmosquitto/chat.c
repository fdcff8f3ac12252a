/* A short chat with libmosquitto, one thread. README.md in the parent folder tells the steps. */
#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WAIT_S 15
#define KEPT 256 /* packets remembered for expect() */

static struct {
	char *topic, *payload;
} seen[KEPT];
static int n_seen;
static int unacked; /* own publishes without PUBACK */
static char inbox[160], run[64];
static const char *host, *user, *peer;
static int port;

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static void on_connect(struct mosquitto *m, void *arg, int rc)
{
	(void)arg;
	if (rc == 0)
		mosquitto_subscribe(m, NULL, "im/v1/in/#", 1);
}

static void on_publish(struct mosquitto *m, void *arg, int mid)
{
	(void)m;
	(void)arg;
	(void)mid;
	unacked--;
}

static void on_message(struct mosquitto *m, void *arg, const struct mosquitto_message *msg)
{
	(void)m;
	(void)arg;
	if (n_seen == KEPT)
		return;
	seen[n_seen].topic = strdup(msg->topic);
	seen[n_seen].payload = strndup(msg->payload ? msg->payload : "", (size_t)msg->payloadlen);
	n_seen++;
}

static void forget(void)
{
	while (n_seen > 0) {
		n_seen--;
		free(seen[n_seen].topic);
		free(seen[n_seen].payload);
	}
}

/* Waits for a packet on `topic` that holds both words, prints and returns it. */
static const char *expect(struct mosquitto *m, const char *step, const char *topic, const char *word, const char *word2)
{
	time_t end = time(NULL) + WAIT_S;

	do {
		for (int i = 0; i < n_seen; i++) {
			if (strcmp(seen[i].topic, topic) == 0 && strstr(seen[i].payload, word) && strstr(seen[i].payload, word2)) {
				printf("%s: %s %s\n", step, topic, seen[i].payload);
				return seen[i].payload;
			}
		}
		if (mosquitto_loop(m, 100, 1) != MOSQ_ERR_SUCCESS)
			die("the connection is lost");
	} while (time(NULL) < end);
	fprintf(stderr, "not seen within %d s: %s\n", WAIT_S, step);
	exit(1);
}

static struct mosquitto *connect_device(void)
{
	char id[160];
	struct mosquitto *m;

	(void)snprintf(id, sizeof(id), "%s:cookbook-libmosquitto", user);
	m = mosquitto_new(id, false, NULL);
	if (!m || mosquitto_username_pw_set(m, user, getenv("IM_PASSWORD")) != MOSQ_ERR_SUCCESS)
		die("out of memory");
	mosquitto_connect_callback_set(m, on_connect);
	mosquitto_publish_callback_set(m, on_publish);
	mosquitto_message_callback_set(m, on_message);
	if (mosquitto_connect(m, host, port, 60) != MOSQ_ERR_SUCCESS)
		die("cannot connect");
	return m;
}

/* Publishes with QoS 1 and waits for the PUBACK. */
static void publish(struct mosquitto *m, const char *topic, const char *text)
{
	time_t end = time(NULL) + WAIT_S;

	printf("send: %s %s\n", topic, text);
	unacked++;
	if (mosquitto_publish(m, NULL, topic, (int)strlen(text), text, 1, false) != MOSQ_ERR_SUCCESS)
		die("cannot publish");
	while (unacked > 0) {
		if (mosquitto_loop(m, 100, 1) != MOSQ_ERR_SUCCESS || time(NULL) > end)
			die("no PUBACK");
	}
}

static void send_text(struct mosquitto *m, const char *to, const char *id, const char *text)
{
	char topic[256];

	(void)snprintf(topic, sizeof(topic), "im/v1/to/u/%s/%s", to, id);
	publish(m, topic, text);
}

/* Moves the cursors up to a message. */
static void acknowledge(struct mosquitto *m, const char *message)
{
	const char *at = strstr(message, "\"seq\":");
	unsigned long long seq = at ? strtoull(at + 6, NULL, 10) : 0;
	char text[256];

	(void)snprintf(text, sizeof(text), "[{\"conv\":\"u/%s\",\"delivered\":%llu,\"read\":%llu}]", peer, seq, seq);
	publish(m, "im/v1/ack", text);
}

static void leave(struct mosquitto *m)
{
	mosquitto_disconnect(m);
	while (mosquitto_loop(m, 100, 1) == MOSQ_ERR_SUCCESS && mosquitto_socket(m) >= 0)
		;
	mosquitto_destroy(m);
}

int main(int argc, char **argv)
{
	char id[3][80], hello[120], away[120];
	struct mosquitto *m;

	if (argc != 5 || !getenv("IM_PASSWORD"))
		die("usage: IM_PASSWORD=... chat HOST PORT USER PEER");
	host = argv[1];
	port = atoi(argv[2]);
	user = argv[3];
	peer = argv[4];
	setvbuf(stdout, NULL, _IOLBF, 0);
	mosquitto_lib_init();
	(void)snprintf(run, sizeof(run), "lm%lld-%d", (long long)time(NULL), (int)getpid());
	for (int i = 0; i < 3; i++)
		(void)snprintf(id[i], sizeof(id[i]), "%s-%d", run, i + 1);
	(void)snprintf(inbox, sizeof(inbox), "im/v1/in/msg/u/%s", peer);
	(void)snprintf(hello, sizeof(hello), "hello %s", run);
	(void)snprintf(away, sizeof(away), "while away %s", run);

	m = connect_device();
	expect(m, "welcome", "im/v1/in/evt/welcome", "", "");
	send_text(m, peer, id[0], hello);
	expect(m, "acked", "im/v1/in/ack", id[0], "");
	acknowledge(m, expect(m, "received", inbox, hello, ""));
	send_text(m, "nobody.at.all", id[1], "is anybody there");
	expect(m, "refused", "im/v1/in/err", id[1], "");
	send_text(m, peer, id[0], hello);
	expect(m, "repeat answered alike", "im/v1/in/ack", id[0], "true");

	send_text(m, peer, id[2], away);
	leave(m);
	printf("away\n");
	sleep(1); /* the answer arrives meanwhile */
	forget();
	m = connect_device();
	acknowledge(m, expect(m, "caught up", inbox, away, ""));
	leave(m);
	forget();
	mosquitto_lib_cleanup();
	printf("done\n");
	return 0;
}
