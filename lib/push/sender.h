/*
 * A driver whose provider takes one HTTPS request a notification (all but Apple's): its apps as senders, and the pushes each has under way.
 * What is alike lives here - one result for each push and never inside `send`, an access token that is refused once for many, new files of
 * the apps -, and the driver is a table of what differs: how an app's file is read, a request made, an answer judged.
 */
#ifndef IM_PUSH_SENDER_H
#define IM_PUSH_SENDER_H

#include "push/access.h"
#include "push/driver.h"

struct push_senders;

struct push_sender {                 /* an app; the driver's own struct begins with it */
	struct push_sender *next;
	struct push_senders *all;
	char *name;
	struct im_http *http;
	struct push_access *access;  /* NULL: a fixed key goes with each request, or each is signed */
	unsigned n;                  /* under way */
	uint64_t answers[6];         /* by hundred of the status; 0: none came */
};

struct push_sending {                /* one notification under way; likewise */
	struct push_sending *prev, *next;
	struct push_sender *sender;
	uint64_t row;
	char *access;                /* the access token it goes with; "" if the sender has none */
	bool unsent;                 /* `result` is told in a moment */
	struct push_result result;
};

struct push_sender_kind {
	const char *provider;
	size_t sender_size, sending_size;
	unsigned most;               /* under way, of an app */
	unsigned connections;        /* to one host; the answers' most bytes and the addresses allowed `open` sets */
	const void *arg;             /* of the driver: push_sender_arg */
	/*
	 * Reads what is the driver's own of an app's file, before there is a connection; may add to the options of http. If `source` is given
	 * its request or sign (its arg is the sender), the sender gets an access token.
	 */
	enum im_status (*open)(struct push_sender *s, const struct push_app *from, struct im_http_options *http, struct push_access_source *source,
			       struct im_err *err);
	void (*close)(struct push_sender *s);              /* frees what open made, also half of it */
	/* Puts the request together. false: it is not sent, and s->result, "not sent" if nothing else is set, says what of it. */
	bool (*request)(struct push_sending *s, const struct push_send *p, bool minimal, struct push_request *r);
	/* What a whole answer means; the result is zeroes. retry_after_ms: of its header, 0 = none. PUSH_AUTH with a fixed key becomes PUSH_CONFIG. */
	void (*judge)(struct push_sending *s, const struct im_http_answer *a, int64_t retry_after_ms, struct push_result *r);
	/* What no answer means, if it is not what it means everywhere; the result says that. NULL: it is. */
	void (*judge_failure)(enum im_http_error error, struct push_result *r);
	void (*end)(struct push_sending *s);               /* frees what request made; NULL: nothing */
};

const void *push_sender_arg(const struct push_sender *s);
const struct push_sender *push_senders_first(const struct push_senders *all); /* then by next */

void push_sending_set(struct push_sending *s, enum push_class class, const char *reason); /* for `request` */
void push_result_clean(struct push_result *r); /* the provider's word becomes printable, without quotes */

/* "Is the text of this key an https URL, if it is given?" IM_BAD_INPUT: no. */
enum im_status push_app_check_url(const struct push_app *app, const char *key, struct im_err *err);

/* ---- a driver's functions (driver.h); its `start` calls the first with its table */

enum im_status push_senders_start(const struct push_sender_kind *kind, const struct push_host *host, struct push_app *const *apps, size_t n, void **out,
				  struct im_err *err);
enum im_status push_senders_reload(void *driver, struct push_app *const *apps, size_t n, struct im_err *err);
size_t push_senders_room(void *driver, const char *app, const char *env);
void push_senders_send(void *driver, const struct push_send *p, bool minimal);
void push_senders_metrics(void *driver, struct im_buf *out);
void push_senders_drain(void *driver);
void push_senders_stop(void *driver);

#endif
