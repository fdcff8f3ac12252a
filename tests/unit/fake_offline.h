/*
 * Stands in for the store, the inbox, deliveries and the link, so that requests and commands can be tried
 * alone. Keeps what it was given in order of time; answers from the loop, as the real ones do.
 */
#ifndef FAKE_OFFLINE_H
#define FAKE_OFFLINE_H

#include "request.h"
#include <jansson.h>

#define FAKE_MESSAGES 600

struct fake {
	struct im_loop *loop;
	struct im_settings settings;
	struct roster *roster;
	struct request *request;
	char trace[4096];          /* "append link send ", in order of time */
	enum im_status append_status;
	bool plugin_away;
	bool silent;               /* nothing answers until fake_close: calls stay under way */
	bool running;              /* the loop is */
	struct later *waiting;     /* what a silent fake owes */
	uint64_t appended_version; /* of the newest roster item given to the store */
	struct message *messages[FAKE_MESSAGES];
	size_t n_messages;
	unsigned reads;            /* history reads */
	json_t *response;          /* last one of $CONTROL, or of a request */
	size_t response_bytes;
	unsigned responses;
	unsigned refused;          /* of $CONTROL's responses: first commands that were */
	unsigned kicks;
	uint32_t max_packet;       /* the newest of a device */
	const char *control_user;  /* of the next commands; NULL: imctl */
	char backup_path[4096];    /* of the last one begun; "!" behind it: it may replace a file */
};

extern struct fake fake;

void fake_start(void);
void fake_stop(void);
/* What the store does when it is closed: answers IM_UNCERTAIN to all that waits. */
void fake_close(void);
/* Runs the loop until `n` responses came in all (deadline: 10 s); returns the last one. */
json_t *fake_wait(unsigned n);
/* Sends one $CONTROL command and returns its response (borrowed until the next). */
json_t *fake_control(const char *json);
/* Sends a request of a user and returns {"json":{...},"messages":n,"more","next","error"} (borrowed until the next). */
json_t *fake_request(const char *user, const char *method, const char *id, const char *args);
/* Puts a text message into a conversation (canonical) as its next sequence. */
void fake_say(const char *conv, const char *from, size_t len);

#endif
