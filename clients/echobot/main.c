/*
 * im-echo: answers each text message of others with the same text in the same conversation. An ordinary
 * MQTT client with an ordinary library; that messages of its own come on another topic (in/sent) is what
 * keeps it from talking to itself.
 *
 * It acknowledges what it has answered, so what arrives while it is away is answered later. The answer's
 * message id is made from the message's place (conversation and sequence), so that a message delivered
 * twice is still answered once.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <mosquitto.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TOKEN_MAX 256
#define MESSAGES "im/v1/in/msg/#"
#define KEEPALIVE_S 60
#define RETRY_MS 200

struct bot {
	struct mosquitto *mosq;
	const char *user;
	bool ready;
};

static volatile sig_atomic_t stopping;

static void on_stop(int sig)
{
	(void)sig;
	stopping = 1;
}

static void say(const char *what, const char *why)
{
	fprintf(stderr, "im-echo: %s: %s\n", what, why);
}

/* Tells whoever started us, with sd_notify's protocol. */
static void notify_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (len < 2 || len >= sizeof(a.sun_path))
		return;
	memcpy(a.sun_path, path, len);
	if (path[0] == '@')
		a.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		say("notify", strerror(errno));
	close(fd);
}

static void on_connect(struct mosquitto *mosq, void *arg, int rc)
{
	(void)arg;
	if (rc != 0) {
		say("connect", mosquitto_connack_string(rc));
		return;
	}
	rc = mosquitto_subscribe(mosq, NULL, MESSAGES, 1);
	if (rc != MOSQ_ERR_SUCCESS)
		say("subscribe", mosquitto_strerror(rc)); /* the connection is gone; the next one tries again */
}

static void on_subscribe(struct mosquitto *mosq, void *arg, int mid, int count, const int *granted)
{
	struct bot *b = arg;

	(void)mosq;
	(void)mid;
	if (count < 1 || granted[0] > 2) {
		say("subscribe", "refused");
		stopping = 1;
	} else if (!b->ready) {
		b->ready = true;
		notify_ready();
	}
}

/* An id that depends only on the message answered: FNV-1a of its conversation, then its sequence. */
static void answer_id(const char *conv, json_int_t seq, char out[64])
{
	uint64_t hash = UINT64_C(14695981039346656037);

	for (const char *c = conv; *c; c++)
		hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
	(void)snprintf(out, 64, "echo-%016llx-%lld", (unsigned long long)hash, (long long)seq);
}

/* Publishes `json` (consumed) with QoS 1. */
static bool publish(struct bot *b, const char *topic, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	int rc = text ? mosquitto_publish(b->mosq, NULL, topic, (int)strlen(text), text, 1, false) : MOSQ_ERR_NOMEM;

	json_decref(json);
	free(text);
	if (rc != MOSQ_ERR_SUCCESS)
		say(topic, mosquitto_strerror(rc));
	return rc == MOSQ_ERR_SUCCESS;
}

static bool answer(struct bot *b, const char *conv, json_int_t seq, json_t *body)
{
	char id[64];

	answer_id(conv, seq, id);
	return publish(b, "im/v1/send", json_pack("{s:s, s:s, s:s, s:O}", "to", conv, "id", id, "type", "text", "body", body));
}

static void on_message(struct mosquitto *mosq, void *arg, const struct mosquitto_message *m)
{
	json_t *message = json_loadb(m->payload, (size_t)m->payloadlen, 0, NULL);
	const char *conv = json_string_value(json_object_get(message, "conv"));
	const char *type = json_string_value(json_object_get(message, "type"));
	const char *from = json_string_value(json_object_get(message, "from"));
	json_t *seq = json_object_get(message, "seq"), *body = json_object_get(message, "body");
	struct bot *b = arg;
	bool done = true;

	(void)mosq;
	/* An edit or a system message has another type; "cut" ones are not whole. */
	if (conv && type && from && json_is_integer(seq)) {
		if (strcmp(type, "text") == 0 && strcmp(from, b->user) != 0 && json_is_string(body) && !json_object_get(message, "enc") &&
		    !json_object_get(message, "cut"))
			done = answer(b, conv, json_integer_value(seq), body);
		/* Only after the answer is with the library: acks are sent in order behind it, on the same connection. */
		if (done)
			(void)publish(b, "im/v1/ack", json_pack("[{s:s, s:I, s:I}]", "conv", conv, "delivered", json_integer_value(seq),
								"read", json_integer_value(seq))); /* lost: delivered again, answered once */
	}
	json_decref(message);
}

/* Waits for the file: who makes our user may still be at it. false: asked to stop. */
static bool read_token(const char *path, char out[TOKEN_MAX])
{
	FILE *f;

	while (!(f = fopen(path, "re"))) {
		if (errno != ENOENT) {
			say(path, strerror(errno));
			exit(1);
		}
		if (stopping)
			return false;
		usleep(RETRY_MS * 1000);
	}
	if (!fgets(out, TOKEN_MAX, f)) {
		say(path, "holds no token");
		exit(1);
	}
	(void)fclose(f); /* only read */
	out[strcspn(out, "\r\n")] = '\0';
	return true;
}

/* Runs until it is asked to stop; connects again whenever the connection is lost. */
static void talk(struct bot *b, const char *host, int port)
{
	bool connected = false;
	int rc;

	while (!stopping) {
		rc = connected ? mosquitto_loop(b->mosq, 200, 1) : mosquitto_connect(b->mosq, host, port, KEEPALIVE_S);
		connected = rc == MOSQ_ERR_SUCCESS;
		if (connected || stopping)
			continue;
		say(host, rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc));
		usleep(RETRY_MS * 1000);
	}
	mosquitto_disconnect(b->mosq);
	mosquitto_loop(b->mosq, 100, 1); /* lets the DISCONNECT out; if not, the broker notices the end anyway */
}

static void usage(void)
{
	(void)fputs("usage: im-echo --user NAME --token-file FILE (--socket PATH | --host HOST [--port PORT])\n"
	      "The file (mode 600) holds the user's password or token; it is waited for.\n",
	      stderr);
	exit(2);
}

static int port_of(const char *text)
{
	char *end;
	long port = strtol(text, &end, 10);

	if (end == text || *end != '\0' || port < 1 || port > 65535)
		usage();
	return (int)port;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"user", required_argument, NULL, 'u'},   {"token-file", required_argument, NULL, 't'},
						{"socket", required_argument, NULL, 's'}, {"host", required_argument, NULL, 'h'},
						{"port", required_argument, NULL, 'p'},   {NULL, 0, NULL, 0}};
	struct sigaction stop = {.sa_handler = on_stop}, ignore = {.sa_handler = SIG_IGN};
	const char *token_file = NULL, *host = NULL;
	char token[TOKEN_MAX], client_id[160];
	struct bot b = {0};
	int port = 1883, c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'u': b.user = optarg; break;
		case 't': token_file = optarg; break;
		case 's': host = optarg; port = 0; break; /* libmosquitto: port 0 is a Unix socket */
		case 'h': host = optarg; break;
		case 'p': port = port_of(optarg); break;
		default: usage();
		}
	}
	if (!b.user || !token_file || !host)
		usage();
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGHUP, &ignore, NULL); /* nothing to read again */
	if (!read_token(token_file, token))
		return 0;
	mosquitto_lib_init();
	(void)snprintf(client_id, sizeof(client_id), "%s:bot", b.user);
	b.mosq = mosquitto_new(client_id, false, &b);
	if (!b.mosq || mosquitto_username_pw_set(b.mosq, b.user, token) != MOSQ_ERR_SUCCESS) {
		say("start", "out of memory, or not a user name");
		return 1;
	}
	mosquitto_int_option(b.mosq, MOSQ_OPT_TCP_NODELAY, 1);
	mosquitto_connect_callback_set(b.mosq, on_connect);
	mosquitto_subscribe_callback_set(b.mosq, on_subscribe);
	mosquitto_message_callback_set(b.mosq, on_message);
	talk(&b, host, port);
	mosquitto_destroy(b.mosq);
	mosquitto_lib_cleanup();
	return 0;
}
