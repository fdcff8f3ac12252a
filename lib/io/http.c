/*
 * curl tells which sockets to watch and when to wake it; the loop does both. The callbacks of requests run from a deferred
 * call, never from inside curl, so that they may start further requests or end everything.
 */
#include "io/http.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define IDLE_S 300L /* a connection unused for so long is not used again */

struct socket_watch {
	struct socket_watch *next;
	struct im_http *http;
	struct im_watch *watch;
	curl_socket_t fd;
};

struct request {
	struct request *prev, *next;
	struct im_http *http;
	CURL *easy;
	struct curl_slist *headers;
	im_http_fn *done;
	void *arg;
	char *body;                  /* of the answer */
	size_t len;
	bool forbidden, too_large;
	CURLcode code;
	char why[CURL_ERROR_SIZE];
};

struct im_http {
	struct im_loop *loop;
	struct im_http_options o;
	char *ca_file;
	CURLM *multi;
	struct im_timer *timer, *finish;
	struct socket_watch *sockets;
	struct request *requests, *ended; /* ended: to be told */
	size_t n;
};

/* ---- addresses */

static bool v4_is_public(uint32_t a) /* host order */
{
	static const struct {
		uint32_t net, mask;
	} special[] = {
		{ 0x00000000, 0xff000000 }, { 0x0a000000, 0xff000000 }, { 0x64400000, 0xffc00000 }, { 0x7f000000, 0xff000000 },
		{ 0xa9fe0000, 0xffff0000 }, { 0xac100000, 0xfff00000 }, { 0xc0000000, 0xffffff00 }, { 0xc0000200, 0xffffff00 },
		{ 0xc0586300, 0xffffff00 }, { 0xc0a80000, 0xffff0000 }, { 0xc6120000, 0xfffe0000 }, { 0xc6336400, 0xffffff00 },
		{ 0xcb007100, 0xffffff00 }, { 0xe0000000, 0xe0000000 },
	};

	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
		if ((a & special[i].mask) == special[i].net)
			return false;
	return true;
}

/* Global unicast is 2000::/3; in it are ranges that lead to IPv4 or to nobody. */
static bool v6_is_public(const uint8_t *a)
{
	uint32_t v4;

	if ((a[0] & 0xe0) != 0x20)
		return false; /* unspecified, loopback, mapped, 64:ff9b, ULA, link-local, multicast */
	if (a[0] == 0x20 && a[1] == 0x02) { /* 6to4 */
		memcpy(&v4, a + 2, 4);
		return v4_is_public(ntohl(v4));
	}
	return !(a[0] == 0x20 && a[1] == 0x01 && (a[2] < 2 || (a[2] == 0x0d && a[3] == 0xb8))) && /* 2001::/23, documentation */
	       !(a[0] == 0x3f && a[1] == 0xff && a[2] < 0x10);                                     /* 3fff::/20 documentation */
}

bool im_http_is_public(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET)
		return v4_is_public(ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr));
	if (a->sa_family == AF_INET6)
		return v6_is_public(((const struct sockaddr_in6 *)(const void *)a)->sin6_addr.s6_addr);
	return false;
}

static bool is_loopback(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
	return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

/* What the name has just been resolved to: a check before that could be told something else. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct request *r = arg;
	const struct im_http_options *o = &r->http->o;
	char *scheme = NULL;
	bool plain;

	(void)purpose;
	(void)curl_easy_getinfo(r->easy, CURLINFO_SCHEME, &scheme); /* known from the URL; NULL: https is asked for anyway */
	plain = scheme && (strcasecmp(scheme, "http") == 0);
	if ((o->address_allowed && !o->address_allowed(&a->addr)) || (plain && !is_loopback(&a->addr))) {
		r->forbidden = true;
		return CURL_SOCKET_BAD;
	}
	return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- ending */

static void request_free(struct request *r)
{
	curl_easy_cleanup(r->easy);
	curl_slist_free_all(r->headers);
	free(r->body);
	free(r);
}

static void list_remove(struct request **list, struct request *r)
{
	*(r->prev ? &r->prev->next : list) = r->next;
	if (r->next)
		r->next->prev = r->prev;
	r->prev = r->next = NULL;
}

static void list_add(struct request **list, struct request *r)
{
	r->next = *list;
	if (r->next)
		r->next->prev = r;
	r->prev = NULL;
	*list = r;
}

static bool was_connected(const struct request *r)
{
	curl_off_t us = 0;

	return curl_easy_getinfo(r->easy, CURLINFO_PRETRANSFER_TIME_T, &us) == CURLE_OK && us > 0;
}

static enum im_http_error error_of(const struct request *r)
{
	if (r->code == CURLE_OK)
		return IM_HTTP_OK;
	if (r->forbidden)
		return IM_HTTP_FORBIDDEN;
	switch (r->code) {
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_URL_MALFORMAT:
		return IM_HTTP_FORBIDDEN;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		return IM_HTTP_UNREACHABLE;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		return IM_HTTP_UNTRUSTED;
	case CURLE_OPERATION_TIMEDOUT:
		return was_connected(r) ? IM_HTTP_TIMEOUT : IM_HTTP_UNREACHABLE;
	default:
		return was_connected(r) ? IM_HTTP_BROKEN : IM_HTTP_UNREACHABLE;
	}
}

static void tell(struct request *r)
{
	struct im_http_answer a = { .error = error_of(r), .body = r->body ? r->body : "", .len = r->len, .easy = r->easy };
	long status = 0;

	(void)curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status); /* 0: none came */
	a.status = (int)status;
	a.why = a.error == IM_HTTP_OK ? "" : r->forbidden ? "this address is not allowed" : r->too_large ? "the answer is too large" :
		r->why[0]    ? r->why : curl_easy_strerror(r->code);
	r->done(r->arg, &a);
}

static void on_finish(void *arg)
{
	struct im_http *h = arg;
	struct request *r;

	while ((r = h->ended)) {
		list_remove(&h->ended, r); /* NOLINT(clang-analyzer-unix.Malloc): out of the list, so that it is not met again */
		h->n--;
		tell(r);
		request_free(r);
	}
}

static void collect(struct im_http *h)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(h->multi, &left))) {
		struct request *r = NULL;

		if (m->msg != CURLMSG_DONE || curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&r) != CURLE_OK || !r)
			continue;
		r->code = m->data.result;
		(void)curl_multi_remove_handle(h->multi, r->easy); /* it is in it */
		list_remove(&h->requests, r);
		list_add(&h->ended, r);
	}
	if (h->ended)
		im_timer_start(h->finish, 0, 0);
}

/* ---- curl and the loop */

static void act(struct im_http *h, curl_socket_t fd, int mask)
{
	int running;

	(void)curl_multi_socket_action(h->multi, fd, mask, &running); /* what fails is told request by request */
	collect(h);
}

static void on_socket(void *arg, bool readable, bool writable)
{
	struct socket_watch *w = arg;

	act(w->http, w->fd, (readable ? CURL_CSELECT_IN : 0) | (writable ? CURL_CSELECT_OUT : 0));
}

static void on_timer(void *arg)
{
	act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	struct im_http *h = arg;

	(void)multi;
	if (ms < 0)
		im_timer_stop(h->timer);
	else
		im_timer_start(h->timer, (uint64_t)ms, 0);
	return 0;
}

static void unwatch(struct im_http *h, struct socket_watch *w)
{
	struct socket_watch **link = &h->sockets;

	while (*link != w)
		link = &(*link)->next;
	*link = w->next;
	im_watch_destroy(w->watch);
	free(w);
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct im_http *h = arg;
	struct socket_watch *w = socket_arg;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (w)
			unwatch(h, w);
		return 0;
	}
	if (!w) {
		w = calloc(1, sizeof(*w));
		if (w)
			w->watch = im_watch_create(h->loop, fd, on_socket, w);
		if (!w || !w->watch) {
			free(w);
			return -1;
		}
		w->http = h;
		w->fd = fd;
		w->next = h->sockets;
		h->sockets = w;
		(void)curl_multi_assign(h->multi, fd, w); /* it is a socket of its own */
	}
	im_watch_set(w->watch, what & CURL_POLL_IN, what & CURL_POLL_OUT);
	return 0;
}

/* ---- asking */

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	struct request *r = arg;
	size_t len = size * n;
	char *more;

	if (r->len + len > r->http->o.answer_max) {
		r->too_large = true;
		return 0;
	}
	more = realloc(r->body, r->len + len + 1);
	if (!more)
		return 0;
	memcpy(more + r->len, data, len);
	r->body = more;
	r->len += len;
	more[r->len] = '\0';
	return len;
}

static bool set_up(struct im_http *h, struct request *r, const char *url, const void *body, size_t len)
{
	CURL *e = r->easy;
	bool ok = true;

#define SET(option, value) ok = ok && curl_easy_setopt(e, option, value) == CURLE_OK
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PROTOCOLS_STR, h->o.plain_loopback ? "http,https" : "https");
	SET(CURLOPT_PRIVATE, r);
	SET(CURLOPT_ERRORBUFFER, r->why);
	SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
	SET(CURLOPT_COPYPOSTFIELDS, len ? body : "");
	SET(CURLOPT_HTTPHEADER, r->headers);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, r);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, r);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_PIPEWAIT, 1L);
	SET(CURLOPT_MAXAGE_CONN, IDLE_S);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)h->o.connect_ms);
	SET(CURLOPT_TIMEOUT_MS, (long)h->o.total_ms);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_PROXY, ""); /* no http_proxy of the environment */
	if (h->ca_file)
		SET(CURLOPT_CAINFO, h->ca_file);
#undef SET
	return ok;
}

static bool add_header(struct request *r, const char *line)
{
	struct curl_slist *more = curl_slist_append(r->headers, line);

	if (more)
		r->headers = more;
	return more != NULL;
}

enum im_status im_http_post(struct im_http *h, const char *url, const char *const *headers, const void *body, size_t len,
			    im_http_fn *done, void *arg)
{
	struct request *r = calloc(1, sizeof(*r));
	bool ok;

	if (!r)
		return IM_FAILED;
	r->http = h;
	r->done = done;
	r->arg = arg;
	r->easy = curl_easy_init();
	ok = r->easy && add_header(r, "Accept:") && add_header(r, "Expect:"); /* what curl would add */
	for (; ok && *headers; headers++)
		ok = add_header(r, *headers);
	ok = ok && set_up(h, r, url, body, len) && curl_multi_add_handle(h->multi, r->easy) == CURLM_OK;
	if (!ok) {
		request_free(r);
		return IM_FAILED;
	}
	list_add(&h->requests, r);
	h->n++;
	return IM_OK;
}

const char *im_http_header(const struct im_http_answer *a, const char *name)
{
	struct curl_header *header;

	if (curl_easy_header(a->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
		return NULL;
	return header->value;
}

size_t im_http_under_way(const struct im_http *h)
{
	return h->n;
}

/* ---- making */

static void defaults(struct im_http_options *o)
{
	o->host_connections = o->host_connections ? o->host_connections : 8;
	o->connect_ms = o->connect_ms ? o->connect_ms : 5000;
	o->total_ms = o->total_ms ? o->total_ms : 15000;
	o->answer_max = o->answer_max ? o->answer_max : 64u << 10;
}

enum im_status im_http_create(struct im_loop *l, const struct im_http_options *options, struct im_http **out, struct im_err *err)
{
	struct im_http *h = calloc(1, sizeof(*h));

	if (!h || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(h);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	h->loop = l;
	h->o = *options;
	defaults(&h->o);
	h->multi = curl_multi_init();
	h->timer = im_timer_create(l, on_timer, h);
	h->finish = im_timer_create(l, on_finish, h);
	h->ca_file = options->ca_file ? strdup(options->ca_file) : NULL;
	if (!h->multi || !h->timer || !h->finish || (options->ca_file && !h->ca_file) ||
	    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, watch_socket) != CURLM_OK ||
	    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h) != CURLM_OK ||
	    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, set_timer) != CURLM_OK ||
	    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h) != CURLM_OK ||
	    curl_multi_setopt(h->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)h->o.host_connections) != CURLM_OK) {
		im_http_destroy(h);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	*out = h;
	return IM_OK;
}

void im_http_destroy(struct im_http *h)
{
	struct request *r;

	if (!h)
		return;
	while ((r = h->requests)) {
		list_remove(&h->requests, r); /* NOLINT(clang-analyzer-unix.Malloc): out of the list, so that it is not met again */
		(void)curl_multi_remove_handle(h->multi, r->easy); /* it is in it */
		request_free(r);
	}
	while ((r = h->ended)) {
		list_remove(&h->ended, r); /* NOLINT(clang-analyzer-unix.Malloc): out of the list, so that it is not met again */
		request_free(r);
	}
	if (h->multi)
		(void)curl_multi_cleanup(h->multi); /* nothing is in it */
	while (h->sockets)
		unwatch(h, h->sockets);
	im_timer_destroy(h->timer);
	im_timer_destroy(h->finish);
	free(h->ca_file);
	free(h);
	curl_global_cleanup(); /* counted */
}
