/*
 * The bus connection: libmosquitto driven from our loop.
 *
 * Two ideas. Each connection gets a fresh libmosquitto client, so nothing of an old one (unacknowledged
 * QoS 1 publishes, half packets) is ever sent on a new one: what was under way when the connection fell is
 * its sender's to repeat. And everything that can end in a callback runs between enter() and leave(), so
 * that a callback may destroy the whole: the freeing waits until libmosquitto's own frames are off the stack.
 *
 *	waiting --timer--> connecting --CONNACK--> subscribing --SUBACK--> up
 *	   ^-------------------- any failure ------------------------------'
 */
#include "io/mqtt.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 50u
#define BACKOFF_MOST_MS 2000u
#define CONNECT_MS 5000         /* from connect to CONNACK, and to SUBACK; 10,000 logins at once cost the broker 2.5 s in all */
#define LOG_AGAIN_MS 60000      /* a lasting failure is told once a minute */
#define KEEPALIVE_S 30
#define PACKETS_A_TURN 64       /* read before others on the loop get their turn */
#define PENDING_MOST 60000u     /* publishes not yet written or acknowledged: below the 65535 packet ids of MQTT */
#define SECRET_MOST 256         /* the secret is 64 hex digits */

enum mqtt_state { WAITING, CONNECTING, SUBSCRIBING, UP };

struct im_mqtt {
	struct im_loop *loop;
	char *socket_path, *secret_path, *client_id;
	char **filters;
	size_t n_filters;
	int qos;
	struct im_mqtt_events events;
	void *arg;

	struct mosquitto *mosq;
	struct im_watch *watch;
	struct im_timer *timer; /* waiting: the next try; else: keepalive and the connect's deadline */
	struct im_timer *flush; /* something was queued inside a callback, or writing failed */
	enum mqtt_state state;
	int64_t deadline_ms;
	unsigned backoff_ms;
	int64_t logged_ms;      /* 0 = the next failure is told at once */
	unsigned pending;
	unsigned depth;         /* of enter() */
	bool broken;            /* a publish found the connection gone */
	bool destroyed;
};

static void on_timer(void *arg);

static void free_all(struct im_mqtt *m)
{
	im_watch_destroy(m->watch);
	im_timer_destroy(m->timer);
	im_timer_destroy(m->flush);
	if (m->mosq) {
		mosquitto_destroy(m->mosq);
		(void)mosquitto_lib_cleanup();
	}
	for (size_t i = 0; m->filters && i < m->n_filters; i++)
		free(m->filters[i]);
	free(m->filters);
	free(m->socket_path);
	free(m->secret_path);
	free(m->client_id);
	free(m);
}

static void enter(struct im_mqtt *m)
{
	m->depth++;
}

/* false: m is gone. */
static bool leave(struct im_mqtt *m)
{
	if (--m->depth > 0 || !m->destroyed)
		return true;
	free_all(m);
	return false;
}

static void backoff(struct im_mqtt *m)
{
	unsigned half = m->backoff_ms / 2;
	unsigned r = 0;

	(void)!getrandom(&r, sizeof(r), GRND_NONBLOCK); /* without it there is just no jitter */
	im_timer_start(m->timer, half + r % (half + 1), 0);
	m->backoff_ms = m->backoff_ms * 2 < BACKOFF_MOST_MS ? m->backoff_ms * 2 : BACKOFF_MOST_MS;
}

/* Every way down ends here. The libmosquitto client stays until the next try: we may be inside it. */
static void lose(struct im_mqtt *m, const char *why)
{
	int64_t now = im_clock_mono_ms();
	bool was_up = m->state == UP;

	if (m->state == WAITING)
		return;
	m->state = WAITING;
	m->broken = false;
	im_watch_destroy(m->watch);
	m->watch = NULL;
	if (m->destroyed)
		return;
	if (was_up || m->logged_ms == 0 || now - m->logged_ms >= LOG_AGAIN_MS) {
		im_log(IM_LOG_WARNING, "evt=bus_down client=%s socket=%s why=\"%s\": trying again", m->client_id, m->socket_path, why);
		m->logged_ms = now;
	}
	backoff(m);
	if (was_up && m->events.down)
		m->events.down(m->arg, why);
}

static void up(struct im_mqtt *m)
{
	m->state = UP;
	m->backoff_ms = BACKOFF_FIRST_MS;
	m->logged_ms = 0;
	im_log(IM_LOG_INFO, "evt=bus_up client=%s", m->client_id);
	if (m->events.up)
		m->events.up(m->arg);
}

/* ---- from libmosquitto */

static void on_connect(struct mosquitto *mosq, void *arg, int rc)
{
	struct im_mqtt *m = arg;

	if (rc != 0)
		return; /* on_disconnect follows */
	if (m->n_filters == 0) {
		up(m);
		return;
	}
	m->state = SUBSCRIBING;
	m->deadline_ms = im_clock_mono_ms() + CONNECT_MS;
	rc = mosquitto_subscribe_multiple(mosq, NULL, (int)m->n_filters, (char *const *)m->filters, m->qos, 0, NULL);
	if (rc != MOSQ_ERR_SUCCESS)
		m->broken = true;
}

static void on_subscribe(struct mosquitto *mosq, void *arg, int mid, int n, const int *granted)
{
	struct im_mqtt *m = arg;

	(void)mosq;
	(void)mid;
	if (m->state != SUBSCRIBING)
		return;
	for (int i = 0; i < n; i++) {
		if (granted[i] > 2) {
			im_log(IM_LOG_ERROR, "evt=bus_subscribe client=%s filter=%s: refused by the broker", m->client_id,
			       (size_t)i < m->n_filters ? m->filters[i] : "?");
			m->broken = true;
			return;
		}
	}
	up(m);
}

static void on_message(struct mosquitto *mosq, void *arg, const struct mosquitto_message *msg)
{
	struct im_mqtt *m = arg;

	(void)mosq;
	if (m->state == UP && !m->destroyed && m->events.message)
		m->events.message(m->arg, msg->topic, msg->payload, (size_t)msg->payloadlen);
}

static void on_publish(struct mosquitto *mosq, void *arg, int mid)
{
	struct im_mqtt *m = arg;

	(void)mosq;
	(void)mid;
	if (m->pending > 0)
		m->pending--;
}

static void on_disconnect(struct mosquitto *mosq, void *arg, int rc)
{
	(void)mosq;
	lose(arg, rc == 0 ? "closed" : mosquitto_strerror(rc));
}

/* ---- driving it */

/* After anything that may have queued bytes or broken the connection: writes, and watches for what did not fit. */
static void settle(struct im_mqtt *m)
{
	if (m->state != WAITING && !m->broken && mosquitto_want_write(m->mosq))
		(void)mosquitto_loop_write(m->mosq, 1); /* a failure comes through on_disconnect */
	if (m->broken)
		lose(m, "the connection broke while writing");
	if (m->watch)
		im_watch_set(m->watch, true, mosquitto_want_write(m->mosq));
}

static void read_some(struct im_mqtt *m)
{
	for (int i = 0; i < PACKETS_A_TURN && m->state != WAITING && !m->destroyed; i++) {
		errno = 0;
		if (mosquitto_loop_read(m->mosq, 1) != MOSQ_ERR_SUCCESS || errno == EAGAIN)
			break; /* empty, or on_disconnect has been here */
	}
}

static void on_socket(void *arg, bool readable, bool writable)
{
	struct im_mqtt *m = arg;

	(void)writable; /* settle writes whenever there is something */
	enter(m);
	if (readable)
		read_some(m);
	if (!m->destroyed)
		settle(m);
	(void)leave(m);
}

static void on_flush(void *arg)
{
	struct im_mqtt *m = arg;

	enter(m);
	settle(m);
	(void)leave(m);
}

/* ---- connecting */

static bool read_secret(const char *path, char secret[SECRET_MOST])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, secret, SECRET_MOST - 1);
	(void)close(fd); /* read only: nothing to lose */
	if (n <= 0)
		return false;
	secret[n] = '\0';
	secret[strcspn(secret, "\r\n")] = '\0';
	return secret[0] != '\0';
}

static enum im_status fresh_client(struct im_mqtt *m)
{
	if (m->mosq) {
		mosquitto_destroy(m->mosq);
		m->mosq = NULL;
	} else if (mosquitto_lib_init() != MOSQ_ERR_SUCCESS) {
		return IM_FAILED;
	}
	m->pending = 0;
	m->mosq = mosquitto_new(m->client_id, true, m);
	if (!m->mosq) {
		(void)mosquitto_lib_cleanup();
		return IM_FAILED;
	}
	mosquitto_connect_callback_set(m->mosq, on_connect);
	mosquitto_subscribe_callback_set(m->mosq, on_subscribe);
	mosquitto_message_callback_set(m->mosq, on_message);
	mosquitto_publish_callback_set(m->mosq, on_publish);
	mosquitto_disconnect_callback_set(m->mosq, on_disconnect);
	(void)mosquitto_max_inflight_messages_set(m->mosq, 0); /* 0 = 65535: we bound it ourselves (PENDING_MOST) */
	return IM_OK;
}

/* Says in words what went wrong, or returns NULL. */
static const char *try_connect(struct im_mqtt *m)
{
	char secret[SECRET_MOST];
	int rc;

	if (!read_secret(m->secret_path, secret))
		return "no bus secret yet: the broker is not up";
	if (fresh_client(m) != IM_OK)
		return "out of memory";
	rc = mosquitto_username_pw_set(m->mosq, IM_BUS_USER, secret);
	explicit_bzero(secret, sizeof(secret));
	if (rc == MOSQ_ERR_SUCCESS)
		rc = mosquitto_connect(m->mosq, m->socket_path, 0, KEEPALIVE_S); /* port 0: a Unix socket */
	if (rc == MOSQ_ERR_ERRNO)
		return strerror(errno);
	if (rc != MOSQ_ERR_SUCCESS)
		return mosquitto_strerror(rc);
	if (m->state == WAITING)
		return NULL; /* lost already, and told */
	m->watch = im_watch_create(m->loop, mosquitto_socket(m->mosq), on_socket, m);
	return m->watch ? NULL : "out of memory";
}

static void connect_now(struct im_mqtt *m)
{
	const char *why;

	m->state = CONNECTING;
	m->broken = false;
	m->deadline_ms = im_clock_mono_ms() + CONNECT_MS;
	im_timer_start(m->timer, 1000, 1000);
	why = try_connect(m);
	if (why)
		lose(m, why);
	else
		settle(m);
}

static void on_timer(void *arg)
{
	struct im_mqtt *m = arg;

	enter(m);
	if (m->state == WAITING) {
		connect_now(m);
	} else if (m->state != UP && im_clock_mono_ms() >= m->deadline_ms) {
		lose(m, m->state == CONNECTING ? "the broker does not answer CONNECT" : "the broker does not answer SUBSCRIBE");
	} else {
		(void)mosquitto_loop_misc(m->mosq); /* a failure comes through on_disconnect */
		if (!m->destroyed)
			settle(m);
	}
	(void)leave(m);
}

/* ---- outside */

static enum im_status copy_names(struct im_mqtt *m, const char *socket_path, const char *secret_path, const char *client_id,
				 const char *const *filters)
{
	size_t n = 0;

	while (filters && filters[n])
		n++;
	m->n_filters = n;
	m->socket_path = strdup(socket_path);
	m->secret_path = strdup(secret_path);
	m->client_id = strdup(client_id);
	m->filters = calloc(m->n_filters + 1, sizeof(*m->filters));
	if (!m->socket_path || !m->secret_path || !m->client_id || !m->filters)
		return IM_FAILED;
	for (size_t i = 0; i < n; i++) {
		m->filters[i] = strdup(filters[i]);
		if (!m->filters[i])
			return IM_FAILED;
	}
	return IM_OK;
}

enum im_status im_mqtt_create(struct im_loop *loop, const char *socket_path, const char *secret_path, const char *client_id,
			      const char *const *filters, int qos, const struct im_mqtt_events *events, void *arg,
			      struct im_mqtt **out, struct im_err *err)
{
	struct im_mqtt *m;

	if (strlen(socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return im_fail(err, IM_BAD_INPUT, "%s: longer than the %zu bytes a Unix socket's path may have", socket_path,
			       sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	m = calloc(1, sizeof(*m));
	if (!m)
		return im_fail(err, IM_FAILED, "out of memory");
	m->loop = loop;
	m->qos = qos;
	m->events = *events;
	m->arg = arg;
	m->backoff_ms = BACKOFF_FIRST_MS;
	m->timer = im_timer_create(loop, on_timer, m);
	m->flush = im_timer_create(loop, on_flush, m);
	if (!m->timer || !m->flush || copy_names(m, socket_path, secret_path, client_id, filters) != IM_OK) {
		free_all(m);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	im_timer_start(m->timer, 0, 0);
	*out = m;
	return IM_OK;
}

/* A last DISCONNECT, so that the broker knows that we went on purpose; nobody hears on_disconnect any more. */
void im_mqtt_destroy(struct im_mqtt *m)
{
	if (!m)
		return;
	m->destroyed = true;
	im_timer_stop(m->timer);
	im_timer_stop(m->flush);
	if (m->watch)
		im_watch_set(m->watch, false, false);
	if (m->mosq && m->state != WAITING && m->depth == 0) {
		enter(m);
		(void)mosquitto_disconnect(m->mosq); /* best effort */
		(void)leave(m);
	} else if (m->depth == 0) {
		free_all(m);
	}
}

bool im_mqtt_is_up(const struct im_mqtt *m)
{
	return m->state == UP && !m->broken && !m->destroyed;
}

enum im_status im_mqtt_publish(struct im_mqtt *m, const char *topic, const void *payload, size_t len, int qos)
{
	int rc;

	if (!im_mqtt_is_up(m) || m->pending >= PENDING_MOST)
		return IM_BUSY;
	if (len > MQTT_MAX_PAYLOAD)
		return IM_BAD_INPUT;
	m->pending++;
	enter(m);
	rc = mosquitto_publish(m->mosq, NULL, topic, (int)len, payload, qos, false);
	m->depth--; /* a QoS 0 publish may call on_publish, which destroys nothing */
	if (rc == MOSQ_ERR_INVAL || rc == MOSQ_ERR_MALFORMED_UTF8) {
		m->pending--;
		return IM_BAD_INPUT;
	}
	if (rc != MOSQ_ERR_SUCCESS)
		m->broken = true; /* in doubt: the connection falls, but not inside this call */
	if (m->broken || mosquitto_want_write(m->mosq))
		im_timer_start(m->flush, 0, 0);
	return IM_OK;
}
