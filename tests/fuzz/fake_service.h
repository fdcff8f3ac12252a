/*
 * The message service as the plugin sees it: a client of the fake broker that tells users, groups and deliveries.
 */
#ifndef TESTS_FAKE_SERVICE_H
#define TESTS_FAKE_SERVICE_H

#include "bus.pb-c.h"
#include "fake_broker.h"

extern char fake_secret[65];

/* After the plugin's start, which wrote it; the roster begins anew. */
void fake_service_read_secret(const char *dir);
/* Connects, subscribes and says hello. */
void fake_service_up(void);
struct mosquitto *fake_service(void); /* NULL: not connected */
void fake_service_send(const Im__Bus__ToPlugin *m);

/* Items of the roster. Users log in with the token "t-NAME"; the group is "friends", of alice. */
void fake_service_user(const char *name, bool disabled, bool removed);
void fake_service_member(const char *name, uint64_t to_seq);
void fake_service_block(const char *user, const char *blocked, bool removed);

/* `which` counts fake.handles. What is delivered says whom it is for. */
void fake_service_deliver(unsigned which, bool qos1);
void fake_service_kick(unsigned which);

#endif
