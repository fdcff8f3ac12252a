/* A short chat with Paho C (libpaho-mqtt3c, synchronous API). README.md in the parent folder tells the steps. */
#include <MQTTClient.h>
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
static const char *user, *peer;

static void die(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static void forget(void)
{
	while (n_seen > 0) {
		n_seen--;
		free(seen[n_seen].topic);
		free(seen[n_seen].payload);
	}
}

static void keep(char *topic, int topic_len, MQTTClient_message *msg)
{
	if (n_seen < KEPT) {
		seen[n_seen].topic = topic_len > 0 ? strndup(topic, (size_t)topic_len) : strdup(topic);
		seen[n_seen].payload = strndup(msg->payload, (size_t)msg->payloadlen);
		n_seen++;
	}
	MQTTClient_freeMessage(&msg);
	MQTTClient_free(topic);
}

/* Waits for a packet on `topic` that holds both words, prints and returns it. */
static const char *expect(MQTTClient c, const char *step, const char *topic, const char *word, const char *word2)
{
	time_t end = time(NULL) + WAIT_S;

	do {
		MQTTClient_message *msg = NULL;
		char *t = NULL;
		int len;

		for (int i = 0; i < n_seen; i++) {
			if (strcmp(seen[i].topic, topic) == 0 && strstr(seen[i].payload, word) && strstr(seen[i].payload, word2)) {
				printf("%s: %s %s\n", step, topic, seen[i].payload);
				return seen[i].payload;
			}
		}
		(void)MQTTClient_receive(c, &t, &len, &msg, 100); /* a timeout is no message */
		if (msg)
			keep(t, len, msg);
		else if (!MQTTClient_isConnected(c))
			die("the connection is lost");
	} while (time(NULL) < end);
	fprintf(stderr, "not seen within %d s: %s\n", WAIT_S, step);
	exit(1);
}

static void connect_device(MQTTClient c)
{
	MQTTClient_connectOptions o = MQTTClient_connectOptions_initializer;

	o.cleansession = 0;
	o.keepAliveInterval = 60;
	o.username = user;
	o.password = getenv("IM_PASSWORD");
	if (MQTTClient_connect(c, &o) != MQTTCLIENT_SUCCESS || MQTTClient_subscribe(c, "im/v1/in/#", 1) != MQTTCLIENT_SUCCESS)
		die("cannot connect or subscribe");
}

/* Publishes with QoS 1 and waits for the PUBACK. */
static void publish(MQTTClient c, const char *topic, const char *text)
{
	MQTTClient_deliveryToken token;

	printf("send: %s %s\n", topic, text);
	if (MQTTClient_publish(c, topic, (int)strlen(text), text, 1, 0, &token) != MQTTCLIENT_SUCCESS ||
	    MQTTClient_waitForCompletion(c, token, WAIT_S * 1000L) != MQTTCLIENT_SUCCESS)
		die("no PUBACK");
}

static void send_text(MQTTClient c, const char *to, const char *id, const char *text)
{
	char topic[256];

	(void)snprintf(topic, sizeof(topic), "im/v1/to/u/%s/%s", to, id);
	publish(c, topic, text);
}

/* Moves the cursors up to a message. */
static void acknowledge(MQTTClient c, const char *message)
{
	const char *at = strstr(message, "\"seq\":");
	unsigned long long seq = at ? strtoull(at + 6, NULL, 10) : 0;
	char text[256];

	(void)snprintf(text, sizeof(text), "[{\"conv\":\"u/%s\",\"delivered\":%llu,\"read\":%llu}]", peer, seq, seq);
	publish(c, "im/v1/ack", text);
}

int main(int argc, char **argv)
{
	char url[300], device[160], run[64], id[3][80], hello[120], away[120], inbox[160];
	MQTTClient c;

	if (argc != 5 || !getenv("IM_PASSWORD"))
		die("usage: IM_PASSWORD=... chat HOST PORT USER PEER");
	user = argv[3];
	peer = argv[4];
	setvbuf(stdout, NULL, _IOLBF, 0);
	(void)snprintf(url, sizeof(url), "tcp://%s:%s", argv[1], argv[2]);
	(void)snprintf(device, sizeof(device), "%s:cookbook-paho-c", user);
	(void)snprintf(run, sizeof(run), "pc%lld-%d", (long long)time(NULL), (int)getpid());
	for (int i = 0; i < 3; i++)
		(void)snprintf(id[i], sizeof(id[i]), "%s-%d", run, i + 1);
	(void)snprintf(inbox, sizeof(inbox), "im/v1/in/msg/u/%s", peer);
	(void)snprintf(hello, sizeof(hello), "hello %s", run);
	(void)snprintf(away, sizeof(away), "while away %s", run);
	if (MQTTClient_create(&c, url, device, MQTTCLIENT_PERSISTENCE_NONE, NULL) != MQTTCLIENT_SUCCESS)
		die("out of memory");

	connect_device(c);
	expect(c, "welcome", "im/v1/in/evt/welcome", "", "");
	send_text(c, peer, id[0], hello);
	expect(c, "acked", "im/v1/in/ack", id[0], "");
	acknowledge(c, expect(c, "received", inbox, hello, ""));
	send_text(c, "nobody.at.all", id[1], "is anybody there");
	expect(c, "refused", "im/v1/in/err", id[1], "");
	send_text(c, peer, id[0], hello);
	expect(c, "repeat answered alike", "im/v1/in/ack", id[0], "true");

	send_text(c, peer, id[2], away);
	MQTTClient_disconnect(c, 1000);
	printf("away\n");
	sleep(1); /* the answer arrives meanwhile */
	forget();
	connect_device(c);
	acknowledge(c, expect(c, "caught up", inbox, away, ""));
	MQTTClient_disconnect(c, 1000);
	MQTTClient_destroy(&c);
	forget();
	printf("done\n");
	return 0;
}
