#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_CHUNK 65536

struct client_loop {
	int epoll, receive_buffer;
	bool websocket;
	struct sockaddr_in address;
	const struct client_events *events;
};

struct client_loop *client_loop_create(const char *host, int port, bool websocket, const struct client_events *events)
{
	struct client_loop *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->websocket = websocket;
	l->events = events;
	l->address.sin_family = AF_INET;
	l->address.sin_port = htons((uint16_t)port);
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0 || inet_pton(AF_INET, host, &l->address.sin_addr) != 1) {
		client_loop_destroy(l);
		return NULL;
	}
	return l;
}

void client_loop_destroy(struct client_loop *l)
{
	if (!l)
		return;
	if (l->epoll >= 0)
		(void)close(l->epoll);
	free(l);
}

void client_loop_receive_buffer(struct client_loop *l, int bytes)
{
	l->receive_buffer = bytes;
}

/* ---------------------------------------------------------------- packets out */

static void put_u16(struct im_buf *b, unsigned v)
{
	im_buf_add_char(b, (char)(v >> 8));
	im_buf_add_char(b, (char)v);
}

static void put_string(struct im_buf *b, const char *s)
{
	size_t len = strlen(s);

	put_u16(b, (unsigned)len);
	im_buf_add(b, s, len);
}

static void put_header(struct im_buf *b, unsigned first, size_t rest)
{
	im_buf_add_char(b, (char)first);
	do {
		im_buf_add_char(b, (char)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0)));
		rest >>= 7;
	} while (rest);
}

/* A WebSocket frame's header; the mask is zero, which RFC 6455 allows and saves a pass over the bytes. */
static void put_frame(struct im_buf *b, size_t len)
{
	im_buf_add_char(b, (char)0x82);
	if (len < 126) {
		im_buf_add_char(b, (char)(0x80 | len));
	} else if (len < 65536) {
		im_buf_add_char(b, (char)(0x80 | 126));
		put_u16(b, (unsigned)len);
	} else {
		im_buf_add_char(b, (char)(0x80 | 127));
		put_u16(b, 0);
		put_u16(b, 0);
		put_u16(b, (unsigned)(len >> 16));
		put_u16(b, (unsigned)len);
	}
	im_buf_add(b, "\0\0\0\0", 4);
}

static void watch(struct client *c)
{
	struct epoll_event ev = {.events = (c->deaf ? 0u : (unsigned)EPOLLIN) | (c->writing ? EPOLLOUT : 0u), .data.ptr = c};

	(void)epoll_ctl(c->loop->epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

static void want_write(struct client *c, bool on)
{
	if (c->writing == on)
		return;
	c->writing = on;
	watch(c);
}

void client_deaf(struct client *c, bool deaf)
{
	c->deaf = deaf;
	watch(c);
}

void client_flush(struct client *c)
{
	while (c->out_at < c->out.len && !c->connecting) {
		ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at, MSG_NOSIGNAL);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN)
				want_write(c, true);
			return; /* other errors show at the next read */
		}
		c->out_at += (size_t)n;
	}
	if (!c->connecting) {
		c->out_at = 0;
		im_buf_clear(&c->out);
		want_write(c, false);
	}
}

static void put_packet(struct client *c, unsigned first, const struct im_buf *rest)
{
	struct im_buf head;

	im_buf_init(&head);
	put_header(&head, first, rest->len);
	if (c->websocket)
		put_frame(&c->out, head.len + rest->len);
	im_buf_add(&c->out, head.data, head.len);
	im_buf_add(&c->out, rest->data, rest->len);
	im_buf_finish(&head);
}

void client_subscribe(struct client *c, const char *filter, int qos)
{
	struct im_buf rest;

	im_buf_init(&rest);
	put_u16(&rest, ++c->mid);
	put_string(&rest, filter);
	im_buf_add_char(&rest, (char)qos);
	put_packet(c, 0x82, &rest);
	im_buf_finish(&rest);
	client_flush(c);
}

uint16_t client_publish(struct client *c, const char *topic, const void *payload, size_t len, int qos)
{
	size_t topic_len = strlen(topic), rest = 2 + topic_len + (qos ? 2 : 0) + len;

	if (c->websocket)
		put_frame(&c->out, 1 + (rest < 128 ? 1 : rest < 16384 ? 2 : 3) + rest);
	put_header(&c->out, 0x30u | (unsigned)qos << 1, rest);
	put_u16(&c->out, (unsigned)topic_len);
	im_buf_add(&c->out, topic, topic_len);
	if (qos) {
		if (++c->mid == 0)
			c->mid = 1;
		put_u16(&c->out, c->mid);
	}
	im_buf_add(&c->out, payload, len);
	return c->mid;
}

static void put_puback(struct client *c, unsigned mid)
{
	if (c->websocket)
		put_frame(&c->out, 4);
	put_header(&c->out, 0x40, 2);
	put_u16(&c->out, mid);
}

/* ---------------------------------------------------------------- opening and closing */

static void build_hello(struct client *c, const char *id, const char *user, const char *password, bool clean, unsigned keepalive_s)
{
	struct im_buf rest;
	unsigned flags = (clean ? 2u : 0u) | (user ? 0x80u : 0u) | (password ? 0x40u : 0u);

	im_buf_init(&rest);
	put_string(&rest, "MQTT");
	im_buf_add_char(&rest, 4);
	im_buf_add_char(&rest, (char)flags);
	put_u16(&rest, keepalive_s);
	put_string(&rest, id);
	if (user)
		put_string(&rest, user);
	if (password)
		put_string(&rest, password);
	put_packet(c, 0x10, &rest);
	im_buf_finish(&rest);
	c->hello = im_buf_take(&c->out, &c->hello_len);
}

struct client *client_open(struct client_loop *l, const char *id, const char *user, const char *password, bool clean, unsigned keepalive_s)
{
	struct client *c = calloc(1, sizeof(*c));
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
	int one = 1;

	if (!c)
		return NULL;
	c->loop = l;
	c->websocket = l->websocket;
	im_buf_init(&c->in);
	im_buf_init(&c->out);
	im_buf_init(&c->frames);
	build_hello(c, id, user, password, clean, keepalive_s);
	c->connecting = true;
	c->writing = true;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		goto failed;
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (l->receive_buffer)
		(void)setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &l->receive_buffer, sizeof(l->receive_buffer));
	if (connect(c->fd, (struct sockaddr *)&l->address, sizeof(l->address)) != 0 && errno != EINPROGRESS)
		goto failed;
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ev) != 0)
		goto failed;
	return c;
failed:
	client_close(c, false);
	return NULL;
}

void client_close(struct client *c, bool politely)
{
	if (!c)
		return;
	if (politely && c->is_up) {
		struct im_buf nothing;

		im_buf_init(&nothing);
		put_packet(c, 0xe0, &nothing);
		client_flush(c);
	}
	if (c->fd >= 0)
		(void)close(c->fd);
	im_buf_finish(&c->in);
	im_buf_finish(&c->out);
	im_buf_finish(&c->frames);
	free(c->hello);
	free(c);
}

static void on_connected(struct client *c)
{
	static const char upgrade[] = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
				      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

	c->connecting = false;
	if (c->websocket)
		im_buf_add(&c->out, upgrade, sizeof(upgrade) - 1);
	else
		im_buf_add(&c->out, c->hello, c->hello_len);
	client_flush(c);
}

/* ---------------------------------------------------------------- packets in */

static void on_publish(struct client *c, unsigned first, const uint8_t *p, size_t len)
{
	size_t topic_len = (size_t)p[0] << 8 | p[1], at = 2 + topic_len;
	unsigned mid = 0;

	if (first & 6u) {
		mid = (unsigned)p[at] << 8 | p[at + 1];
		at += 2;
	}
	if (mid && !c->no_pubacks)
		put_puback(c, mid);
	c->loop->events->received(c, (const char *)p + 2, topic_len, p + at, len - at);
}

static void on_packet(struct client *c, unsigned first, const uint8_t *p, size_t len)
{
	const struct client_events *e = c->loop->events;

	switch (first >> 4) {
	case 2:
		if (p[1] != 0) {
			e->down(c, "CONNECT refused");
			return;
		}
		c->is_up = true;
		e->up(c, p[0] & 1);
		break;
	case 3:
		on_publish(c, first, p, len);
		break;
	case 4:
		e->acked(c, (uint16_t)((unsigned)p[0] << 8 | p[1]));
		break;
	case 9:
		if (len > 2 && p[2] >= 0x80)
			e->down(c, "SUBSCRIBE refused");
		else
			e->subscribed(c);
		break;
	default:
		break;
	}
}

/* Handles whole packets in b from *at on. */
static void on_bytes(struct client *c, struct im_buf *b, size_t *at)
{
	while (b->len - *at >= 2) {
		const uint8_t *p = (const uint8_t *)b->data + *at;
		size_t n = 0, head = 1, have = b->len - *at;
		unsigned shift = 0;

		do {
			if (head >= have)
				return;
			n |= (size_t)(p[head] & 0x7f) << shift;
			shift += 7;
		} while (p[head++] & 0x80);
		if (have < head + n)
			return;
		*at += head + n;
		on_packet(c, p[0], p + head, n);
	}
}

/* Takes the payloads of whole WebSocket frames out of `in`. */
static void on_frames(struct client *c)
{
	size_t at = 0;

	if (!c->upgraded) {
		char *end = c->in.len ? memmem(c->in.data, c->in.len, "\r\n\r\n", 4) : NULL;

		if (!end)
			return;
		c->in_at = (size_t)(end - c->in.data) + 4;
		c->upgraded = true;
		im_buf_add(&c->out, c->hello, c->hello_len);
		client_flush(c);
	}
	while (c->in.len - c->in_at >= 2) {
		const uint8_t *p = (const uint8_t *)c->in.data + c->in_at;
		size_t have = c->in.len - c->in_at, head = 2, n = p[1] & 0x7f;

		if (n == 126)
			head = 4;
		else if (n == 127)
			head = 10;
		if (have < head)
			return;
		if (n >= 126) {
			n = 0;
			for (size_t i = 2; i < head; i++)
				n = n << 8 | p[i];
		}
		if (have < head + n)
			return;
		im_buf_add(&c->frames, p + head, n);
		c->in_at += head + n;
	}
	on_bytes(c, &c->frames, &at);
	memmove(c->frames.data, c->frames.data + at, c->frames.len - at);
	c->frames.len -= at;
}

static void on_readable(struct client *c)
{
	ssize_t n;

	if (!im_buf_reserve(&c->in, READ_CHUNK))
		return;
	n = recv(c->fd, c->in.data + c->in.len, c->in.cap - c->in.len, 0);
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			c->loop->events->down(c, n == 0 ? "closed by the server" : strerror(errno));
		return;
	}
	c->in.len += (size_t)n;
	if (c->websocket)
		on_frames(c);
	else
		on_bytes(c, &c->in, &c->in_at);
	memmove(c->in.data, c->in.data + c->in_at, c->in.len - c->in_at);
	c->in.len -= c->in_at;
	c->in_at = 0;
	client_flush(c);
}

int client_loop_turn(struct client_loop *l, int64_t us)
{
	const struct timespec wait = {us / 1000000, us % 1000000 * 1000};
	struct epoll_event events[256];
	int n = epoll_pwait2(l->epoll, events, 256, &wait, NULL);

	for (int i = 0; i < n; i++) {
		struct client *c = events[i].data.ptr;

		if ((events[i].events & EPOLLOUT) && c->connecting) {
			on_connected(c);
			continue;
		}
		if (events[i].events & EPOLLOUT)
			client_flush(c);
		if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
			on_readable(c);
	}
	return n;
}
