/*
 * imchat: a terminal chat client. This file is the loop: one poll over the terminal and the broker's socket,
 * reconnects with growing pauses, a prompt if there is a terminal. With standard input from a pipe it sends
 * the lines, waits for their acks (at most -w seconds) and leaves.
 */
#include "chat.h"

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
	LINE_MAX_LEN = 65536,
};

struct program {
	struct mosquitto *mosq;
	struct chat *chat;
	bool up, tty, leaving, subscribed;
	int pause_ms;
	int64_t connect_at, leave_at;
	char line[LINE_MAX_LEN];
	size_t line_len;
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
	if (p->tty) {
		printf("\r\033[K%s%s> ", p->up ? "" : "(offline) ", chat_current(p->chat));
		(void)fflush(stdout);
	}
}

/* Control characters of others must not reach the terminal. */
static void say(void *arg, const char *line)
{
	const struct program *p = arg;

	if (p->tty)
		(void)fputs("\r\033[K", stdout);
	for (; *line; line++)
		(void)putchar((unsigned char)*line < 0x20 || *line == 0x7f ? ' ' : *line);
	(void)putchar('\n');
	(void)fflush(stdout);
	prompt(p);
}

static bool publish(void *arg, const char *topic, const void *payload, size_t len, int *mid)
{
	struct program *p = arg;

	return p->subscribed && mosquitto_publish(p->mosq, mid, topic, (int)len, payload, 1, false) == MOSQ_ERR_SUCCESS;
}

static void on_connect(struct mosquitto *mosq, void *arg, int rc)
{
	struct program *p = arg;

	if (rc != 0) {
		say(p, mosquitto_connack_string(rc));
		return;
	}
	p->up = true;
	p->pause_ms = PAUSE_FIRST_MS;
	if (mosquitto_subscribe(mosq, NULL, "im/v1/in/#", 1) != MOSQ_ERR_SUCCESS)
		say(p, "! cannot subscribe"); /* the connection is gone then; the loop begins anew */
}

static void on_subscribe(struct mosquitto *mosq, void *arg, int mid, int n, const int *granted)
{
	struct program *p = arg;

	(void)mosq;
	(void)mid;
	if (n < 1 || granted[0] > 2) {
		say(p, "! the server does not let this device receive");
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

static void plan_connect(struct program *p)
{
	int pause = p->pause_ms / 2 + rand() % (p->pause_ms / 2 + 1); /* jitter, so that all do not come back at once */

	if (p->up)
		say(p, "* connection lost");
	p->up = p->subscribed = false;
	p->connect_at = now_ms() + pause;
	p->pause_ms = p->pause_ms * 2 < PAUSE_MOST_MS ? p->pause_ms * 2 : PAUSE_MOST_MS;
}

static void reconnect(struct program *p)
{
	int rc;

	if (now_ms() < p->connect_at)
		return;
	rc = mosquitto_reconnect(p->mosq);
	if (rc != MOSQ_ERR_SUCCESS) {
		say(p, rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc));
		plan_connect(p);
	}
}

/* ---------------------------------------------------------------- standard input */

static void leave_soon(struct program *p, int wait_s)
{
	p->leaving = true;
	p->leave_at = now_ms() + (int64_t)wait_s * 1000;
}

static void read_input(struct program *p, int wait_s)
{
	ssize_t n = read(STDIN_FILENO, p->line + p->line_len, sizeof(p->line) - 1 - p->line_len);
	char *end;

	if (n <= 0) {
		if (n == 0 || errno != EINTR)
			leave_soon(p, wait_s);
		return;
	}
	p->line_len += (size_t)n;
	p->line[p->line_len] = '\0';
	while ((end = memchr(p->line, '\n', p->line_len)) || p->line_len == sizeof(p->line) - 1) {
		size_t used = end ? (size_t)(end - p->line) + 1 : p->line_len;

		if (end)
			*end = '\0';
		if (!chat_line(p->chat, p->line))
			leave_soon(p, wait_s);
		p->line_len -= used;
		memmove(p->line, p->line + used, p->line_len + 1);
	}
	prompt(p);
}

/* Reads on only while own messages find room; a pipe waits meanwhile. */
static bool wants_input(const struct program *p)
{
	return !p->leaving && (p->tty || (p->subscribed && chat_pending(p->chat) < 128));
}

static void turn(struct program *p, int wait_s)
{
	int fd = mosquitto_socket(p->mosq), rc = MOSQ_ERR_SUCCESS;
	struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = wants_input(p) ? STDIN_FILENO : -1, .events = POLLIN}};

	if (fd < 0)
		reconnect(p);
	else if (mosquitto_want_write(p->mosq))
		fds[0].events |= POLLOUT;
	if (poll(fds, 2, TURN_MS / (fd < 0 ? 5 : 1)) < 0 && errno != EINTR)
		stopping = 1;
	if (fd >= 0 && fds[0].revents & (POLLIN | POLLHUP | POLLERR))
		rc = mosquitto_loop_read(p->mosq, 1);
	if (fds[1].revents & (POLLIN | POLLHUP | POLLERR))
		read_input(p, wait_s);
	chat_flush(p->chat);
	if (fd >= 0 && rc == MOSQ_ERR_SUCCESS)
		rc = mosquitto_loop_write(p->mosq, 1);
	if (fd >= 0 && rc == MOSQ_ERR_SUCCESS)
		rc = mosquitto_loop_misc(p->mosq);
	if (fd >= 0 && rc != MOSQ_ERR_SUCCESS)
		plan_connect(p);
}

static bool finished(const struct program *p)
{
	return stopping || (p->leaving && (chat_pending(p->chat) == 0 || now_ms() >= p->leave_at));
}

static int usage(void)
{
	fputs("usage: imchat -u USER [-d DEVICE] [-H HOST] [-p PORT] [-t u/NAME|g/GROUP] [-w SECONDS]\n"
	      "The password (or token) is read from the environment variable IM_PASSWORD.\n", stderr);
	return 2;
}

static int run(struct program *p, const char *host, int port, int wait_s)
{
	int rc = mosquitto_connect(p->mosq, host, port, KEEPALIVE_S);

	if (rc == MOSQ_ERR_INVAL)
		return 1;
	if (rc != MOSQ_ERR_SUCCESS) {
		say(p, rc == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(rc));
		plan_connect(p);
	}
	while (!finished(p))
		turn(p, wait_s);
	(void)mosquitto_disconnect(p->mosq); /* leaving anyway */
	if (p->tty)
		putchar('\n');
	if (chat_pending(p->chat) > 0)
		fprintf(stderr, "imchat: %zu messages without ack\n", chat_pending(p->chat));
	return chat_pending(p->chat) > 0;
}

int main(int argc, char **argv)
{
	static struct program p = {.pause_ms = PAUSE_FIRST_MS};
	const char *user = NULL, *device = "imchat", *host = "127.0.0.1", *to = NULL, *password = getenv("IM_PASSWORD");
	int port = 1883, wait_s = 30, opt, status = 1;
	struct chat_door door = {publish, say, &p};
	char client_id[160], line[160];

	while ((opt = getopt(argc, argv, "u:d:H:p:t:w:")) != -1) {
		switch (opt) {
		case 'u': user = optarg; break;
		case 'd': device = optarg; break;
		case 'H': host = optarg; break;
		case 'p': port = atoi(optarg); break;
		case 't': to = optarg; break;
		case 'w': wait_s = atoi(optarg); break;
		default: return usage();
		}
	}
	if (!user || optind < argc || port < 1 || port > 65535)
		return usage();
	(void)signal(SIGINT, on_signal);
	(void)signal(SIGTERM, on_signal);
	(void)snprintf(client_id, sizeof(client_id), "%s:%s", user, device);
	srand((unsigned)getpid() ^ (unsigned)now_ms());
	p.tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	(void)mosquitto_lib_init(); /* always succeeds on this platform */
	p.chat = chat_create(user, &door);
	p.mosq = mosquitto_new(client_id, false, &p);
	if (p.chat && p.mosq && mosquitto_username_pw_set(p.mosq, user, password) == MOSQ_ERR_SUCCESS) {
		mosquitto_connect_callback_set(p.mosq, on_connect);
		mosquitto_subscribe_callback_set(p.mosq, on_subscribe);
		mosquitto_publish_callback_set(p.mosq, on_publish);
		mosquitto_message_callback_set(p.mosq, on_message);
		if (to) {
			(void)snprintf(line, sizeof(line), "/to %s", to);
			(void)chat_line(p.chat, line); /* this command never ends the program */
		}
		status = run(&p, host, port, wait_s);
	}
	mosquitto_destroy(p.mosq);
	chat_destroy(p.chat);
	(void)mosquitto_lib_cleanup();
	return status;
}
