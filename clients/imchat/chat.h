/*
 * The protocol as a client keeps it: what arrives, what is typed, requests, acks. Knows topics and JSON, but
 * neither sockets nor the terminal: it publishes and speaks through its door, so that tests can stand there.
 */
#ifndef IMCHAT_CHAT_H
#define IMCHAT_CHAT_H

#include <stdbool.h>
#include <stddef.h>

struct chat;

enum tone { TONE_PLAIN, TONE_NOTE, TONE_TICK, TONE_BAD }; /* a message, what happens, how far own ones got, a refusal */

struct chat_door {
	/* Hands a packet to the library; its packet id in *mid (may be NULL). false: not connected. */
	bool (*publish)(void *arg, const char *topic, const void *payload, size_t len, int *mid);
	void (*say)(void *arg, enum tone tone, const char *line);
	void *arg;
};

struct chat *chat_create(const char *user, const struct chat_door *door); /* NULL: out of memory */
void chat_destroy(struct chat *c);

void chat_connected(struct chat *c); /* subscribed: asks for the list, repeats what has no ack */
void chat_lost(struct chat *c);      /* answers of this connection will not come */
void chat_puback(struct chat *c, int mid);
void chat_packet(struct chat *c, const char *topic, const void *payload, size_t len);
bool chat_line(struct chat *c, const char *line); /* what was typed; false: leave */
void chat_flush(struct chat *c);                  /* end of a turn: one im/v1/ack for all that came */

bool chat_ready(const struct chat *c);            /* caught up, and every request is answered */
size_t chat_waiting(const struct chat *c);        /* own messages without ack */
const char *chat_current(const struct chat *c);   /* "" or the conversation that lines go to */
unsigned chat_unread(const struct chat *c);

#endif
