/*
 * A load generator's MQTT 3.1.1 client: many of them on one epoll, packets built by hand, so that the
 * generator takes as little as possible of the two cores it shares with what it measures. Not a library:
 * it knows CONNECT, SUBSCRIBE, PUBLISH at QoS 0 and 1 and their answers, over TCP or WebSocket.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "base/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct client_loop;

struct client_events {
	void (*up)(struct client *c, bool session_present);    /* CONNACK 0 */
	void (*subscribed)(struct client *c);
	void (*acked)(struct client *c, uint16_t mid);
	void (*received)(struct client *c, const char *topic, size_t topic_len, const uint8_t *payload, size_t len);
	void (*down)(struct client *c, const char *why);       /* also a refused CONNECT */
};

struct client {
	struct client_loop *loop;
	void *arg;
	unsigned number;
	int fd;
	bool connecting, is_up, websocket, upgraded, writing;
	bool deaf;                /* does not read (client_deaf) */
	bool no_pubacks;          /* set by whoever wants to see what a broker does then */
	uint16_t mid;
	struct im_buf in, out;
	size_t in_at, out_at;
	struct im_buf frames;     /* WebSocket: payload bytes of frames, taken out of `in` */
	char *hello;              /* what is written once the socket is connected */
	size_t hello_len;
};

struct client_loop *client_loop_create(const char *host, int port, bool websocket, const struct client_events *events);
void client_loop_destroy(struct client_loop *l);
/* Of sockets opened from now on; 0: the kernel's choice. Who does not read stands still sooner with a small one. */
void client_loop_receive_buffer(struct client_loop *l, int bytes);
/* Handles what there is, waits at most `us` microseconds if there is nothing. Returns the number of events. */
int client_loop_turn(struct client_loop *l, int64_t us);

struct client *client_open(struct client_loop *l, const char *id, const char *user, const char *password, bool clean, unsigned keepalive_s);
void client_close(struct client *c, bool politely); /* frees it */
void client_subscribe(struct client *c, const char *filter, int qos);
uint16_t client_publish(struct client *c, const char *topic, const void *payload, size_t len, int qos);
void client_deaf(struct client *c, bool deaf); /* from now on nothing is read of it, or again */
void client_flush(struct client *c); /* writes what publish and subscribe gathered */

#endif
