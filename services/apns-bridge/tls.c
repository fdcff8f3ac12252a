/*
 * TLS on the loop.
 *
 * The difficult idea is that a stream of TLS wants to read in order to write, and the other way round, and that OpenSSL may hold bytes
 * which the socket no longer shows: so whoever reads goes on until there is nothing (tls_read says 0), and `ready` is told for each
 * direction that OpenSSL or the caller waits for.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOST_SIZE 256 /* of a DNS name */

/* A name that is being looked up on a pool thread. Belongs to itself: the connection may be gone before the answer comes. */
struct lookup {
	struct tls *owner; /* NULL: gone */
	char host[HOST_SIZE], port[8];
	struct addrinfo *found;
	int rc;
};

enum step { LOOKING_UP, CONNECTING, SHAKING_HANDS, UP };

struct tls {
	struct im_loop *loop;
	const struct tls_events *events;
	void *arg;
	SSL_CTX *ctx;
	SSL *ssl;
	char host[HOST_SIZE];
	unsigned port;
	enum step step;
	enum tls_end end;
	char why[TLS_WHY_SIZE];
	struct lookup *lookup;
	struct addrinfo *addresses, *next; /* `next` is tried after the current one */
	int64_t address_ms;                /* for one address, if there are others */
	struct im_timer *timer;            /* of the address; also tells an end that was met inside a call */
	struct im_watch *watch;
	int fd;
	bool want_write, ssl_wants_write;
};

/* ---- the context ---- */

enum im_status tls_context(const char *ca_file, SSL_CTX **out, struct im_err *err)
{
	static const unsigned char h2[] = {2, 'h', '2'};
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 || SSL_CTX_set_alpn_protos(ctx, h2, sizeof(h2)) != 0) {
		SSL_CTX_free(ctx);
		return im_fail(err, IM_FAILED, "cannot make a TLS context");
	}
	if ((ca_file ? SSL_CTX_load_verify_file(ctx, ca_file) : SSL_CTX_set_default_verify_paths(ctx)) != 1) {
		SSL_CTX_free(ctx);
		return im_fail(err, IM_BAD_INPUT, "%.180s has no certificates (PEM) of authorities", ca_file ? ca_file : "the system");
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	*out = ctx;
	return IM_OK;
}

/* ---- how it ends ---- */

static void fail(struct tls *t, enum tls_end end, const char *what, const char *detail)
{
	if (t->end != TLS_OPEN)
		return;
	t->end = end;
	(void)snprintf(t->why, sizeof(t->why), "%s%s%s", what, detail ? ": " : "", detail ? detail : "");
	if (t->watch)
		im_watch_set(t->watch, false, false);
	im_timer_start(t->timer, 0, 0); /* `ready` from the loop */
}

enum tls_end tls_ended(const struct tls *t, const char **why)
{
	*why = t->why;
	return t->end;
}

/* Alerts (RFC 8446 6) that time does not mend: certificates, protocol versions, ALPN. OpenSSL's reasons are 1000 + the alert. */
static bool alert_for_people(int reason)
{
	switch (reason - SSL_AD_REASON_OFFSET) {
	case SSL_AD_HANDSHAKE_FAILURE: case SSL_AD_BAD_CERTIFICATE: case SSL_AD_UNSUPPORTED_CERTIFICATE: case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED: case SSL_AD_CERTIFICATE_UNKNOWN: case SSL_AD_UNKNOWN_CA: case SSL_AD_ACCESS_DENIED:
	case SSL_AD_PROTOCOL_VERSION: case SSL_AD_INSUFFICIENT_SECURITY: case SSL_AD_CERTIFICATE_REQUIRED:
	case SSL_AD_NO_APPLICATION_PROTOCOL:
		return true;
	}
	return reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_UNSUPPORTED_PROTOCOL || reason == SSL_R_HTTP_REQUEST ||
	       reason == SSL_R_PACKET_LENGTH_TOO_LONG;
}

static void fail_ssl(struct tls *t, int error)
{
	unsigned long code = ERR_peek_error();
	long verified = SSL_get_verify_result(t->ssl);

	if (t->step == SHAKING_HANDS && verified != X509_V_OK)
		fail(t, TLS_REFUSED, "the server's certificate", X509_verify_cert_error_string(verified));
	else if (error == SSL_ERROR_SSL && code && alert_for_people(ERR_GET_REASON(code)))
		fail(t, TLS_REFUSED, "TLS", ERR_reason_error_string(code));
	else if (error == SSL_ERROR_SYSCALL && errno)
		fail(t, TLS_NETWORK, "connection lost", strerror(errno));
	else if (error == SSL_ERROR_SSL && code && ERR_GET_REASON(code) != SSL_R_UNEXPECTED_EOF_WHILE_READING)
		fail(t, TLS_NETWORK, "TLS", ERR_reason_error_string(code));
	else
		fail(t, TLS_NETWORK, "the server closed the connection", NULL);
	ERR_clear_error();
}

static void watch(struct tls *t)
{
	if (t->end == TLS_OPEN)
		im_watch_set(t->watch, true, t->want_write || t->ssl_wants_write || t->step == CONNECTING);
}

/* Of a call that did not succeed. true: it may be repeated later. */
static bool wait_or_fail(struct tls *t, int rc)
{
	int error = SSL_get_error(t->ssl, rc);

	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
		t->ssl_wants_write = error == SSL_ERROR_WANT_WRITE;
		watch(t);
		return true;
	}
	fail_ssl(t, error);
	return false;
}

/* ---- the handshake ---- */

static void shake_hands(struct tls *t)
{
	const unsigned char *alpn;
	unsigned len;
	int rc;

	ERR_clear_error();
	errno = 0;
	rc = SSL_connect(t->ssl);
	if (rc != 1) {
		(void)wait_or_fail(t, rc);
		return;
	}
	SSL_get0_alpn_selected(t->ssl, &alpn, &len);
	if (len != 2 || memcmp(alpn, "h2", 2) != 0) {
		fail(t, TLS_REFUSED, "the server does not speak HTTP/2 (ALPN h2)", NULL);
		return;
	}
	t->step = UP;
	t->ssl_wants_write = false;
	watch(t);
	t->events->up(t->arg);
}

static bool is_address(const char *host)
{
	struct in6_addr a;

	return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
}

static bool prepare_ssl(struct tls *t)
{
	t->ssl = SSL_new(t->ctx);
	if (!t->ssl || SSL_set_fd(t->ssl, t->fd) != 1)
		return false;
	if (is_address(t->host))
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), t->host) == 1;
	SSL_set_hostflags(t->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(t->ssl, t->host) == 1 && SSL_set_tlsext_host_name(t->ssl, t->host) == 1;
}

/* ---- TCP: one address after the other ---- */

static void try_next(struct tls *t);

static void drop_socket(struct tls *t)
{
	im_watch_destroy(t->watch);
	t->watch = NULL;
	if (t->fd >= 0)
		(void)close(t->fd);
	t->fd = -1;
}

static void next_or_fail(struct tls *t, const char *why)
{
	if (t->next) {
		drop_socket(t);
		try_next(t);
	} else {
		fail(t, TLS_NETWORK, "cannot connect", why);
	}
}

static void on_connected(struct tls *t)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
		next_or_fail(t, strerror(error ? error : errno));
		return;
	}
	im_timer_stop(t->timer);
	t->step = SHAKING_HANDS;
	if (prepare_ssl(t))
		shake_hands(t);
	else
		fail(t, TLS_NETWORK, "out of memory", NULL);
}

static void on_socket(void *arg, bool readable, bool writable)
{
	struct tls *t = arg;

	if (t->step == CONNECTING) {
		if (writable || readable)
			on_connected(t);
	} else if (t->step == SHAKING_HANDS) {
		shake_hands(t);
	} else {
		t->events->ready(t->arg);
	}
}

static void on_timer(void *arg)
{
	struct tls *t = arg;

	if (t->end != TLS_OPEN)
		t->events->ready(t->arg);
	else if (t->step == CONNECTING)
		next_or_fail(t, "no answer");
}

static void try_next(struct tls *t)
{
	const struct addrinfo *a = t->next;
	int on = 1;

	t->next = a->ai_next;
	t->step = CONNECTING;
	t->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (t->fd < 0 || (connect(t->fd, a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS)) {
		next_or_fail(t, strerror(errno));
		return;
	}
	(void)setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* works without, slower */
	t->watch = im_watch_create(t->loop, t->fd, on_socket, t);
	if (!t->watch) {
		fail(t, TLS_NETWORK, "out of memory", NULL);
		return;
	}
	if (t->next)
		im_timer_start(t->timer, (uint64_t)t->address_ms, 0);
	watch(t);
}

/* ---- the name ---- */

static void look_up(void *arg)
{
	struct lookup *l = arg;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};

	if (is_address(l->host))
		hints.ai_flags = AI_NUMERICHOST;
	l->rc = getaddrinfo(l->host, l->port, &hints, &l->found);
}

static void on_looked_up(void *arg)
{
	struct lookup *l = arg;
	struct tls *t = l->owner;

	if (t) {
		t->lookup = NULL;
		if (l->rc != 0) {
			fail(t, TLS_NETWORK, "cannot look up the name", gai_strerror(l->rc));
		} else {
			t->addresses = t->next = l->found;
			l->found = NULL;
			try_next(t);
		}
	}
	if (l->found)
		freeaddrinfo(l->found);
	free(l);
}

/* ---- from outside ---- */

struct tls *tls_open(struct im_loop *loop, SSL_CTX *ctx, const char *host, unsigned port, int64_t address_ms,
		     const struct tls_events *events, void *arg)
{
	struct tls *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	*t = (struct tls){.loop = loop, .events = events, .arg = arg, .port = port, .address_ms = address_ms, .fd = -1};
	(void)snprintf(t->host, sizeof(t->host), "%s", host);
	if (SSL_CTX_up_ref(ctx) == 1)
		t->ctx = ctx;
	t->timer = im_timer_create(loop, on_timer, t);
	t->lookup = calloc(1, sizeof(*t->lookup));
	if (t->ctx && t->timer && t->lookup) {
		t->lookup->owner = t;
		(void)snprintf(t->lookup->host, sizeof(t->lookup->host), "%s", host);
		(void)snprintf(t->lookup->port, sizeof(t->lookup->port), "%u", port);
		if (im_loop_work(loop, look_up, on_looked_up, t->lookup) == IM_OK)
			return t;
	}
	free(t->lookup);
	t->lookup = NULL;
	tls_close(t);
	return NULL;
}

void tls_close(struct tls *t)
{
	if (!t)
		return;
	if (t->lookup)
		t->lookup->owner = NULL; /* frees itself when the answer comes */
	if (t->ssl && t->step == UP && t->end == TLS_OPEN) {
		ERR_clear_error();
		(void)SSL_shutdown(t->ssl); /* close_notify, if it can be written at once */
		ERR_clear_error();
	}
	SSL_free(t->ssl);
	drop_socket(t);
	if (t->addresses)
		freeaddrinfo(t->addresses);
	im_timer_destroy(t->timer);
	SSL_CTX_free(t->ctx);
	free(t);
}

ssize_t tls_read(struct tls *t, void *buf, size_t len)
{
	int rc;

	if (t->end != TLS_OPEN)
		return -1;
	ERR_clear_error();
	errno = 0;
	rc = SSL_read(t->ssl, buf, (int)len);
	if (rc > 0)
		return rc;
	return wait_or_fail(t, rc) ? 0 : -1;
}

ssize_t tls_write(struct tls *t, const void *buf, size_t len)
{
	int rc;

	if (t->end != TLS_OPEN)
		return -1;
	ERR_clear_error();
	errno = 0;
	rc = SSL_write(t->ssl, buf, (int)len);
	if (rc > 0)
		return rc;
	if (SSL_get_error(t->ssl, rc) == SSL_ERROR_SYSCALL) { /* what the peer had said before may still be read */
		(void)snprintf(t->why, sizeof(t->why), "connection lost: %s", strerror(errno));
		ERR_clear_error();
		return -1;
	}
	return wait_or_fail(t, rc) ? 0 : -1;
}

void tls_want_write(struct tls *t, bool want)
{
	t->want_write = want;
	watch(t);
}
