/*
 * The difficult idea is that libmicrohttpd works on our loop: it has an epoll descriptor of its own, which the loop watches like
 * any other, and says how long it may sleep. A request that waits for its answer is suspended, so nothing polls for it; a suspended
 * connection is not looked at, so an exchange lives until it is answered even if its client has gone.
 */
#include "server.h"

#include "connections.h"
#include "head.h"

#include "base/listen.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PEM_MAX 262144 /* bytes of a certificate with its chain */

struct exchange {
	struct server *server;
	struct MHD_Connection *connection;
	const char *verb, *path;
	char address[INET6_ADDRSTRLEN];
	char *body;
	size_t len;
	bool too_large, asked, suspended;
	struct MHD_Response *answer;
	unsigned status;
};

struct server {
	struct MHD_Daemon *daemon;
	struct connections *connections;
	struct im_watch *watch;
	struct im_timer *timer;
	server_fn *fn;
	void *arg;
	char *cert, *key;
	char why[256];  /* the last thing the library said */
};

/* ---- answers */

static struct MHD_Response *make_answer(unsigned status, const void *json, size_t len)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(len, (void *)(uintptr_t)json, MHD_RESPMEM_MUST_COPY);

	if (!r)
		return NULL;
	/* Without memory for a header it is left out. */
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_UNAUTHORIZED)
		(void)MHD_add_response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"im\"");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "POST");
	if (status == MHD_HTTP_SERVICE_UNAVAILABLE || status == MHD_HTTP_TOO_MANY_REQUESTS)
		(void)MHD_add_response_header(r, MHD_HTTP_HEADER_RETRY_AFTER, "1");
	return r;
}

void exchange_answer(struct exchange *e, unsigned status, const void *json, size_t len)
{
	e->answer = make_answer(status, json, len);
	e->status = status;
	if (e->suspended) {
		e->suspended = false;
		MHD_resume_connection(e->connection);
		im_timer_start(e->server->timer, 0, 0); /* without a thread of its own the library does not wake anybody */
	}
}

static enum MHD_Result send_answer(struct exchange *e)
{
	return e->answer ? MHD_queue_response(e->connection, e->status, e->answer) : MHD_NO; /* MHD_NO closes */
}

/* And the connection ends: where the next request begins is not known, or a long way off. */
static enum MHD_Result refuse(struct exchange *e, unsigned status, const char *code, const char *reason)
{
	char text[256];
	int len = snprintf(text, sizeof(text), "{\"id\":null,\"method\":\"\",\"ok\":false,\"error\":{\"code\":\"%s\",\"reason\":\"%s\",\"fix\":\"\"}}", code, reason);

	e->asked = true;
	exchange_answer(e, status, text, (size_t)len); /* all of ours fit */
	if (e->answer)
		(void)MHD_add_response_header(e->answer, MHD_HTTP_HEADER_CONNECTION, "close");
	return send_answer(e);
}

static enum MHD_Result refuse_body(struct exchange *e)
{
	return refuse(e, MHD_HTTP_CONTENT_TOO_LARGE, "too_big", "the body is larger than 65536 bytes");
}

/* ---- requests */

static void take_address(struct exchange *e)
{
	const union MHD_ConnectionInfo *i = MHD_get_connection_info(e->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *a = i ? i->client_addr : NULL;

	if (a && a->sa_family == AF_INET)
		(void)inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, e->address, sizeof(e->address)); /* fits */
	else if (a && a->sa_family == AF_INET6)
		(void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)a)->sin6_addr, e->address, sizeof(e->address));
}

static enum MHD_Result take_header(void *arg, enum MHD_ValueKind kind, const char *name, size_t name_len, const char *value, size_t len)
{
	(void)kind;
	head_take(arg, name, name_len, value, len);
	return MHD_YES;
}

static enum MHD_Result begin(struct server *s, struct MHD_Connection *connection, const char *version, void **mine)
{
	struct head head = {0};
	struct exchange *e = calloc(1, sizeof(*e));
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	if (!e)
		return MHD_NO;
	e->server = s;
	e->connection = connection;
	*mine = e;
	take_address(e);
	(void)MHD_get_connection_values_n(connection, MHD_HEADER_KIND, take_header, &head); /* how many there are is the library's business */
	if (head_problem(&head, version))
		return refuse(e, MHD_HTTP_BAD_REQUEST, "bad_field", head_problem(&head, version));
	if (length && strtoull(length, NULL, 10) > SERVER_BODY_MAX) /* the library has looked at its form */
		return refuse_body(e);
	return MHD_YES;
}

static void take_body(struct exchange *e, const char *data, size_t len)
{
	char *more = e->len + len <= SERVER_BODY_MAX ? realloc(e->body, e->len + len + 1) : NULL;

	if (!more) {
		e->too_large = true;
		return;
	}
	memcpy(more + e->len, data, len);
	e->body = more;
	e->len += len;
	e->body[e->len] = '\0';
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *verb, const char *version,
				  const char *data, size_t *len, void **mine)
{
	struct server *s = arg;
	struct exchange *e = *mine;

	if (!e)
		return begin(s, connection, version, mine);
	if (*len > 0) {
		if (!e->too_large)
			take_body(e, data, *len);
		*len = 0;
		return MHD_YES;
	}
	if (e->asked)
		return send_answer(e); /* resumed */
	if (e->too_large)
		return refuse_body(e);
	e->asked = true;
	e->verb = verb;
	e->path = url;
	s->fn(s->arg, e);
	if (e->answer || e->status)
		return send_answer(e);
	e->suspended = true;
	MHD_suspend_connection(connection);
	return MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **mine, enum MHD_RequestTerminationCode why)
{
	struct exchange *e = *mine;
	struct server *s = arg;

	(void)why;
	connections_renew(s->connections, connection);
	if (!e)
		return;
	*mine = NULL;
	if (e->answer)
		MHD_destroy_response(e->answer);
	if (e->body)
		sodium_memzero(e->body, e->len); /* push tokens are in there */
	free(e->body);
	free(e);
}

const char *exchange_verb(const struct exchange *e)
{
	return e->verb;
}

const char *exchange_path(const struct exchange *e)
{
	return e->path;
}

const char *exchange_address(const struct exchange *e)
{
	return e->address;
}

const char *exchange_header(const struct exchange *e, const char *name)
{
	return MHD_lookup_connection_value(e->connection, MHD_HEADER_KIND, name);
}

bool exchange_basic(const struct exchange *e, char **user, char **password)
{
	*password = NULL;
	*user = MHD_basic_auth_get_username_password(e->connection, password);
	return *user && *password;
}

void exchange_wipe(char *secret)
{
	if (secret)
		sodium_memzero(secret, strlen(secret));
	MHD_free(secret);
}

const void *exchange_body(const struct exchange *e, size_t *len)
{
	*len = e->len;
	return e->body;
}

/* ---- the loop */

static unsigned n_connections(const struct server *s)
{
	const union MHD_DaemonInfo *i = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

	return i ? i->num_connections : 0;
}

static void run(struct server *s)
{
	unsigned before = n_connections(s);
	MHD_UNSIGNED_LONG_LONG ms;

	(void)MHD_run(s->daemon); /* fails only for another kind of daemon */
	if (n_connections(s) < before)
		(void)MHD_run(s->daemon); /* if it was full it listens again only now, and nothing else would make us run it */
	if (MHD_get_timeout(s->daemon, &ms) == MHD_YES)
		im_timer_start(s->timer, ms, 0);
	else
		im_timer_stop(s->timer);
}

static void on_timer(void *arg)
{
	run(arg);
}

static void on_ready(void *arg, bool readable, bool writable)
{
	(void)readable;
	(void)writable;
	run(arg);
}

/* Strangers make it talk: nothing of it is worth more than a line for whoever looks. */
static void on_log(void *arg, const char *fmt, va_list ap)
{
	struct server *s = arg;

	(void)vsnprintf(s->why, sizeof(s->why), fmt, ap); /* cut */
	s->why[strcspn(s->why, "\r\n")] = '\0';
	im_log(IM_LOG_DEBUG, "evt=http why=\"%s\"", s->why);
}

/* ---- its life */

/* NULL: *err says why. */
static char *read_pem(const char *path, struct im_err *err)
{
	char *text = calloc(1, PEM_MAX + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 && text ? read(fd, text, PEM_MAX) : -1;

	if (n < 0)
		(void)im_fail(err, IM_BAD_INPUT, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		(void)close(fd); /* only read */
	if (n >= 0)
		return text;
	free(text);
	return NULL;
}

static enum im_status start_daemon(struct server *s, const struct sockaddr_storage *a, struct im_err *err)
{
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (s->cert ? MHD_USE_TLS : 0) |
			 (a->ss_family == AF_INET6 ? MHD_USE_IPv6 : 0);
	struct MHD_OptionItem tls[] = {
		{MHD_OPTION_HTTPS_MEM_CERT, 0, s->cert}, {MHD_OPTION_HTTPS_MEM_KEY, 0, s->key}, {MHD_OPTION_END, 0, NULL},
	};

	if (!s->cert)
		tls[0].option = MHD_OPTION_END;
	s->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, s, /* first: it hears of the rest */
				     MHD_OPTION_SOCK_ADDR, a, MHD_OPTION_ARRAY, tls, MHD_OPTION_CONNECTION_LIMIT, SERVER_CONNECTIONS,
				     MHD_OPTION_PER_IP_CONNECTION_LIMIT, im_listen_is_local(a) ? 0 : SERVER_PER_ADDRESS,
				     MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)SERVER_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, SERVER_IDLE_S,
				     MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, connections_notify, s->connections,
				     MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
				     MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_END);
	if (!s->daemon)
		return im_fail(err, s->cert && !errno ? IM_BAD_INPUT : IM_FAILED, "%s", *s->why ? s->why : strerror(errno));
	return IM_OK;
}

static enum im_status watch(struct server *s, struct im_loop *loop, struct im_err *err)
{
	const union MHD_DaemonInfo *i = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);

	s->timer = im_timer_create(loop, on_timer, s);
	s->watch = i ? im_watch_create(loop, i->epoll_fd, on_ready, s) : NULL;
	if (!s->timer || !s->watch)
		return im_fail(err, IM_FAILED, "out of memory");
	im_watch_set(s->watch, true, false);
	run(s);
	return IM_OK;
}

static enum im_status open_server(struct server *s, struct im_loop *loop, const struct server_options *o, struct im_err *err)
{
	struct sockaddr_storage a;
	enum im_status st;

	if (!im_listen_parse(o->listen, &a))
		return im_fail(err, IM_BAD_INPUT, "%s: not ADDRESS:PORT", o->listen);
	if (*o->cert) {
		s->cert = read_pem(o->cert, err);
		s->key = s->cert ? read_pem(o->key, err) : NULL;
		if (!s->key)
			return IM_BAD_INPUT;
	}
	s->connections = connections_create(loop);
	if (!s->connections)
		return im_fail(err, IM_FAILED, "out of memory");
	errno = 0;
	st = start_daemon(s, &a, err);
	return st == IM_OK ? watch(s, loop, err) : st;
}

enum im_status server_create(struct im_loop *loop, const struct server_options *options, server_fn *fn, void *arg, struct server **out,
			     struct im_err *err)
{
	struct server *s = calloc(1, sizeof(*s));
	enum im_status st;

	if (!s)
		return im_fail(err, IM_FAILED, "out of memory");
	s->fn = fn;
	s->arg = arg;
	st = open_server(s, loop, options, err);
	if (st != IM_OK) {
		server_destroy(s);
		return st;
	}
	*out = s;
	return IM_OK;
}

static void free_pem(char *pem)
{
	if (pem)
		sodium_memzero(pem, strlen(pem));
	free(pem);
}

void server_destroy(struct server *s)
{
	if (!s)
		return;
	im_watch_destroy(s->watch);
	im_timer_destroy(s->timer);
	if (s->daemon)
		MHD_stop_daemon(s->daemon);
	connections_destroy(s->connections);
	free_pem(s->cert);
	free_pem(s->key);
	free(s);
}
