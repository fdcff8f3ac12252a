/*
 * imchat: a terminal chat client. This file is the loop: one poll over the terminal and the broker's socket, and
 * reconnects with growing pauses. With standard input from a pipe it takes line after line, each once the one
 * before has done its work, waits for the acks (at most -w seconds) and leaves.
 */
#include "chat.h"
#include "terminal.h"

#include <errno.h>
#include <getopt.h>
#include <mosquitto.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	KEEPALIVE_S = 30,
	PAUSE_FIRST_MS = 500,
	PAUSE_MOST_MS = 30000,
	TURN_MS = 500,       /* libmosquitto's timers want to be looked at this often */
	AHEAD_MAX = 64,      /* lines of a pipe that may wait for acks */
	PASSWORD_MAX = 512,
	WAIT_MOST_S = 86400, /* fits into an int as ms */
};

enum { LOGIN_OK, LOGIN_BAD_CLIENT_ID = 2, LOGIN_BAD_PASSWORD = 4, LOGIN_NOT_AUTHORIZED = 5 }; /* of MQTT 3.1.1's CONNACK */

struct program {
	struct mosquitto *mosq;
	struct chat *chat;
	struct terminal terminal;
	const char *user;
	bool up, subscribed, leaving, refused;
	int pause_ms, wait_s;
	int64_t connect_at, leave_at;
};

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
	(void)sig;
	stopping = 1;
}

static int64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void prompt(const struct program *p)
{
	unsigned unread = p->chat ? chat_unread(p->chat) : 0;
	char text[160], count[32] = "";

	if (unread > 0)
		(void)snprintf(count, sizeof(count), " (%u unread)", unread);
	(void)snprintf(text, sizeof(text), "%s%s%s", p->subscribed ? "" : "(offline) ", p->chat ? chat_current(p->chat) : "", count);
	terminal_prompt(&p->terminal, text);
}

static void say(void *arg, enum tone tone, const char *line)
{
	const struct program *p = arg;

	terminal_say(&p->terminal, tone, line);
	prompt(p);
}

static bool publish(void *arg, const char *topic, const void *payload, size_t len, int *mid)
{
	struct program *p = arg;

	return p->subscribed && mosquitto_publish(p->mosq, mid, topic, (int)len, payload, 1, false) == MOSQ_ERR_SUCCESS;
}

/* ---------------------------------------------------------------- the connection */

static void on_connect(struct mosquitto *mosq, void *arg, int rc)
{
	struct program *p = arg;

	if (rc == LOGIN_BAD_PASSWORD || rc == LOGIN_NOT_AUTHORIZED || rc == LOGIN_BAD_CLIENT_ID) {
		say(p, TONE_BAD, "! the server refuses this login: a wrong user, password or device name "
				 "(an admin sees why with: imctl why USER connect USER:DEVICE)");
		p->refused = true; /* trying again would not help */
		return;
	}
	if (rc != LOGIN_OK) {
		say(p, TONE_BAD, "! the server is not ready for us");
		return;
	}
	p->up = true;
	p->pause_ms = PAUSE_FIRST_MS;
	if (mosquitto_subscribe(mosq, NULL, "im/v1/in/#", 1) != MOSQ_ERR_SUCCESS)
		say(p, TONE_BAD, "! cannot subscribe"); /* the connection is gone then; the loop begins anew */
}

static void on_subscribe(struct mosquitto *mosq, void *arg, int mid, int n, const int *granted)
{
	struct program *p = arg;

	(void)mosq;
	(void)mid;
	if (n < 1 || granted[0] > 2) {
		say(p, TONE_BAD, "! the server does not let this device receive");
		p->refused = true;
		return;
	}
	p->subscribed = true;
	chat_connected(p->chat);
}

static void on_publish(struct mosquitto *mosq, void *arg, int mid)
{
	(void)mosq;
	chat_puback(((struct program *)arg)->chat, mid);
}

static void on_message(struct mosquitto *mosq, void *arg, const struct mosquitto_message *m)
{
	(void)mosq;
	chat_packet(((struct program *)arg)->chat, m->topic, m->payload ? m->payload : "", (size_t)m->payloadlen);
}

static void plan_connect(struct program *p, const char *what)
{
	int pause = p->pause_ms / 2 + rand() % (p->pause_ms / 2 + 1); /* jitter, so that all do not come back at once */
	char line[200];

	p->up = p->subscribed = false;
	p->connect_at = now_ms() + pause;
	p->pause_ms = p->pause_ms * 2 < PAUSE_MOST_MS ? p->pause_ms * 2 : PAUSE_MOST_MS;
	chat_lost(p->chat);
	(void)snprintf(line, sizeof(line), "* %s; trying again in %d.%d s", what, pause / 1000, pause % 1000 / 100);
	if (!p->refused)
		say(p, TONE_NOTE, line);
}

static const char *reason(int rc)
{
	return rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc);
}

static void reconnect(struct program *p)
{
	int rc;

	if (now_ms() < p->connect_at)
		return;
	rc = mosquitto_reconnect(p->mosq); /* waits for the TCP handshake, input meanwhile stays in the terminal */
	if (rc != MOSQ_ERR_SUCCESS)
		plan_connect(p, reason(rc));
}

/* ---------------------------------------------------------------- the loop */

static void leave_soon(struct program *p)
{
	p->leaving = true;
	p->leave_at = now_ms() + (int64_t)p->wait_s * 1000;
}

/* A person may type at any time; a pipe waits until what came before is done. */
static bool wants_input(const struct program *p)
{
	return !p->leaving && (p->terminal.tty || (p->subscribed && chat_ready(p->chat) && chat_waiting(p->chat) < AHEAD_MAX));
}

static void take_input(struct program *p)
{
	const char *line = NULL;

	while (wants_input(p) && (line = terminal_next(&p->terminal)))
		if (!chat_line(p->chat, line))
			leave_soon(p);
	if (p->terminal.ended && !p->leaving && !line && wants_input(p))
		leave_soon(p);
}

/* One turn with the broker's socket; what libmosquitto says of it. */
static int serve_socket(struct program *p, short revents)
{
	int rc = MOSQ_ERR_SUCCESS;

	if (revents & (POLLIN | POLLHUP | POLLERR))
		rc = mosquitto_loop_read(p->mosq, 1);
	chat_flush(p->chat);
	if (rc == MOSQ_ERR_SUCCESS)
		rc = mosquitto_loop_write(p->mosq, 1);
	return rc == MOSQ_ERR_SUCCESS ? mosquitto_loop_misc(p->mosq) : rc;
}

static void turn(struct program *p)
{
	int fd = mosquitto_socket(p->mosq), rc;
	struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = wants_input(p) && !p->terminal.ended ? STDIN_FILENO : -1, .events = POLLIN}};

	if (fd < 0)
		reconnect(p);
	else if (mosquitto_want_write(p->mosq))
		fds[0].events |= POLLOUT;
	if (poll(fds, 2, fd < 0 ? TURN_MS / 5 : TURN_MS) < 0) {
		if (errno != EINTR)
			stopping = 1;
		return;
	}
	if (fds[1].revents & (POLLIN | POLLHUP | POLLERR)) {
		terminal_read(&p->terminal);
		prompt(p);
	}
	if (fd >= 0) {
		rc = serve_socket(p, fds[0].revents);
		if (rc != MOSQ_ERR_SUCCESS)
			plan_connect(p, p->up ? "connection lost" : reason(rc));
	}
	take_input(p); /* last: an answer may have made room for lines read before */
}

static bool finished(const struct program *p)
{
	bool done = p->subscribed && chat_ready(p->chat) && chat_waiting(p->chat) == 0;

	return stopping || p->refused || (p->leaving && (done || now_ms() >= p->leave_at));
}

static int run(struct program *p, const char *host, int port)
{
	int rc = mosquitto_connect(p->mosq, host, port, KEEPALIVE_S);

	if (rc == MOSQ_ERR_INVAL)
		return 1;
	if (rc != MOSQ_ERR_SUCCESS)
		plan_connect(p, reason(rc));
	while (!finished(p))
		turn(p);
	(void)mosquitto_disconnect(p->mosq); /* leaving anyway */
	if (p->terminal.tty)
		putchar('\n');
	if (chat_waiting(p->chat) > 0)
		fprintf(stderr, "imchat: %zu messages without ack\n", chat_waiting(p->chat));
	return p->refused || chat_waiting(p->chat) > 0;
}

/* ---------------------------------------------------------------- the start */

/* -1: not a number from least to most. */
static int number(const char *text, long least, long most)
{
	char *end;
	long n = strtol(text, &end, 10);

	return end != text && *end == '\0' && n >= least && n <= most ? (int)n : -1;
}

static int usage(void)
{
	(void)fputs("usage: imchat -u USER [-d DEVICE] [-H HOST] [-p PORT] [-t u/NAME|g/GROUP] [-w SECONDS]\n"
	      "The password (or token) is read from the environment variable IM_PASSWORD, or asked for.\n"
	      "  -d  the device's name (default imchat): its place in each conversation is kept under it\n"
	      "  -t  opens this conversation\n"
	      "  -w  with input from a pipe: waits so long for the last acks (default 30)\n", stderr);
	return 2;
}

static int start(struct program *p, const char *device, const char *password, const char *to)
{
	struct chat_door door = {publish, say, p};
	char client_id[160], line[160];

	(void)snprintf(client_id, sizeof(client_id), "%s:%s", p->user, device);
	p->chat = chat_create(p->user, &door);
	p->mosq = mosquitto_new(client_id, true, p); /* the store is the queue, the broker need not remember anything */
	if (!p->chat || !p->mosq || mosquitto_username_pw_set(p->mosq, p->user, password) != MOSQ_ERR_SUCCESS) {
		(void)fputs("imchat: out of memory, or not a user name\n", stderr);
		return 1;
	}
	(void)mosquitto_int_option(p->mosq, MOSQ_OPT_TCP_NODELAY, 1); /* only a matter of delay */
	mosquitto_connect_callback_set(p->mosq, on_connect);
	mosquitto_subscribe_callback_set(p->mosq, on_subscribe);
	mosquitto_publish_callback_set(p->mosq, on_publish);
	mosquitto_message_callback_set(p->mosq, on_message);
	if (to) {
		(void)snprintf(line, sizeof(line), "/open %s", to);
		(void)chat_line(p->chat, line); /* this command never ends the program */
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct program p = {.pause_ms = PAUSE_FIRST_MS, .wait_s = 30};
	const char *device = "imchat", *host = "127.0.0.1", *to = NULL, *password = getenv("IM_PASSWORD");
	int port = 1883, opt, status;
	char typed[PASSWORD_MAX];

	while ((opt = getopt(argc, argv, "u:d:H:p:t:w:")) != -1) {
		switch (opt) {
		case 'u': p.user = optarg; break;
		case 'd': device = optarg; break;
		case 'H': host = optarg; break;
		case 'p': port = number(optarg, 1, 65535); break;
		case 't': to = optarg; break;
		case 'w': p.wait_s = number(optarg, 0, WAIT_MOST_S); break;
		default: return usage();
		}
	}
	if (!p.user || optind < argc || port < 0 || p.wait_s < 0)
		return usage();
	terminal_init(&p.terminal);
	if (!password) {
		if (!terminal_password("password: ", typed, sizeof(typed)))
			return usage();
		password = typed;
	}
	(void)signal(SIGINT, on_signal);
	(void)signal(SIGTERM, on_signal);
	srand((unsigned)getpid() ^ (unsigned)now_ms());
	(void)mosquitto_lib_init(); /* always succeeds on this platform */
	status = start(&p, device, password, to);
	explicit_bzero(typed, sizeof(typed)); /* the library has its copy */
	if (status == 0)
		status = run(&p, host, port);
	mosquitto_destroy(p.mosq);
	chat_destroy(p.chat);
	(void)mosquitto_lib_cleanup();
	return status;
}
