/*
 * A plugin without broker, journal thread and service: broker.h, journal.h and link.h are answered here and
 * remember what they were asked. A context is a struct fake_context; its address is what the broker's would be.
 */
#ifndef TESTS_FAKE_PLUGIN_H
#define TESTS_FAKE_PLUGIN_H

#include "plugin/plugin.h"

struct fake_context {
	struct broker_client c;
};

struct fake_sent {
	char client_id[160], topic[300], payload[2000];
	int qos;
};

struct fake {
	struct plugin p;
	char dir[64];
	struct fake_sent sent[16];
	unsigned n_sent;
	char kicked[8][160];
	unsigned n_kicked;
	enum im_status journal_says;
	Im__Bus__Record *record; /* the newest one appended */
	unsigned n_records;
	unsigned n_sessions, n_closed, n_signals, n_frames, n_control;
	uint64_t last_closed;
	size_t resumed;          /* bytes that link_resumed was told */
	bool link_up, link_full;
	void (*during_kick)(void); /* what the broker asks before the connection ends */
	const struct mosquitto *disconnect_on_kick; /* the broker calls DISCONNECT inside the kick */
};
extern struct fake fake;

/* Users alice, bob, carol (disabled), dave (who blocked alice); group friends: alice and bob. */
void fake_start(void);
void fake_stop(void);
const struct mosquitto *fake_ctx(struct fake_context *x, const char *user, const char *client_id, unsigned protocol, bool clean);
/* Logs in past auth.c. */
struct session *fake_open(struct fake_context *x);
void fake_user(const char *name, const char *password, bool disabled);
/* A token, valid until `expires_ms` (0 = for ever). */
void fake_token(const char *user, const char *token, int64_t expires_ms);

#endif
