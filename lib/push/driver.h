/*
 * What a push provider looks like to the core: a table of functions. The core (bridge.h) owns the outbox, asks for
 * tickets, decides about retries, breakers and tokens; a driver only speaks its provider's protocol and says what
 * came back. One driver a process, so that one vendor's trouble stays there.
 */
#ifndef IM_PUSH_DRIVER_H
#define IM_PUSH_DRIVER_H

#include "base/buf.h"
#include "base/status.h"
#include "io/loop.h"
#include "push.pb-c.h"
#include "push/app.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PUSH_REASON_MAX 64

/* One notification to be sent now. Borrowed until its result was told. */
struct push_send {
	uint64_t row;                   /* of the outbox: names it in the result */
	unsigned attempt;               /* 1 = the first */
	const Im__Push__Job *job;
	const Im__Push__Ticket *ticket; /* token, text, badge */
	char uuid[37];                  /* lower-case, the same in every attempt (APNs apns-id) */
	char collapse[33];              /* 32 hex: keyed hash of the message; the same in every attempt and for its edits */
	char thread[33];                /* 32 hex: keyed hash of the conversation */
};

/* What came of it. The core turns this into a state (docs/push.md has the table); a driver never retries by itself. */
enum push_class {
	PUSH_ACCEPTED,     /* the provider has it */
	PUSH_UNSENT,       /* surely not processed (refused stream, above GOAWAY's last id): at once again, not counted */
	PUSH_UNREACHABLE,  /* the same because no connection could be made: counts for the breaker */
	PUSH_UNKNOWN,      /* reset, timeout, half an answer: it may have been; again later with the same ids, marked maybe_dup */
	PUSH_RETRY,        /* 5xx, busy: backoff, counts for the breaker */
	PUSH_TOKEN_RATE,   /* this token is hot: hold it, not the app */
	PUSH_RATE,         /* the app or project is: breaker, Retry-After */
	PUSH_QUOTA,        /* used up until hold_until_ms (vendors' day) */
	PUSH_AUTH,         /* our access token was refused: the driver gets a new one; again, and the second time in a row it is PUSH_CONFIG */
	PUSH_CONFIG,       /* key, team, topic, project wrong: config breaker, nothing is lost, no token is touched */
	PUSH_TOKEN_INVALID,/* proven by the provider's word for this token; still subject to the guard and to invalid_since_ms */
	PUSH_TOKEN_ENV,    /* the token is not of this environment: the core asks the other one once if env is not known */
	PUSH_TOO_LARGE,    /* built too large: once more with `minimal` */
	PUSH_CONTENT,      /* refused for its text: final */
	PUSH_BUG,          /* malformed by us: final, alarm */
};

struct push_result {
	enum push_class class;
	int status;                     /* HTTP's or the body's code; 0 = none came */
	char reason[PUSH_REASON_MAX];   /* the provider's word, printable; or ours: "timeout", "goaway" */
	char provider_id[PUSH_REASON_MAX]; /* the provider's name for it; empty = none */
	int64_t retry_after_ms;         /* 0 = not said. 1 s to 1 h by push_retry_after */
	int64_t invalid_since_ms;       /* PUSH_TOKEN_INVALID: when the token died; 0 = not said */
	int64_t hold_until_ms;          /* PUSH_QUOTA: UTC */
};

/* Told by the driver exactly once per send, from the loop, never inside `send`. */
typedef void push_result_fn(void *arg, uint64_t row, const struct push_result *r);

struct push_host {                      /* what a driver may use; lives as long as the driver */
	struct im_loop *loop;
	const char *state_dir;          /* 0700, of this bridge alone: a kept JWT and the like */
	push_result_fn *result;
	void (*room)(void *arg);        /* send may take more again, or an app has become usable */
	void *arg;
};

struct push_driver {
	const char *provider;           /* "apns": topic, client id, files */
	const char *program;            /* "im-apns-bridge" */
	const struct push_key *keys;    /* of the apps' files */
	/*
	 * Environments that a token may be of, ends with NULL; NULL: there is only one. With them `env` below and token->env are one of
	 * these: of a token whose own is not known first the app's key `env`, if it names one, else the first; after PUSH_TOKEN_ENV the other.
	 */
	const char *const *envs;
	/* Reads and checks every app. IM_BAD_INPUT: a sentence that says what to fix, with file:line where there is one. */
	enum im_status (*start)(const struct push_host *host, struct push_app *const *apps, size_t n, void **out, struct im_err *err);
	/* New files of the apps. IM_BAD_INPUT: they are wrong, the old ones stay in force. */
	enum im_status (*reload)(void *driver, struct push_app *const *apps, size_t n, struct im_err *err);
	/* How many more sends of this app it would take now; 0 = wait for host->room. env: "" if there are no envs. */
	size_t (*room)(void *driver, const char *app, const char *env);
	/* `minimal`: ids only, no text. */
	void (*send)(void *driver, const struct push_send *s, bool minimal);
	/* Gauges of its own, Prometheus text (docs/push.md), appended. */
	void (*metrics)(void *driver, struct im_buf *out);
	void (*drain)(void *driver);    /* take nothing more; what is under way ends by itself or in 10 s as PUSH_UNKNOWN */
	void (*stop)(void *driver);     /* frees; results of what is under way are not told any more */
};

/* The whole program: reads the settings and the apps' files, opens the outbox, joins the bus. For main. */
int push_bridge_main(const struct push_driver *driver, int argc, char **argv);

/*
 * The form of a token, the same at registration and before a send. NULL: fine; else what is wrong, for the client.
 * APNs: hex, 32 to 200, even; FCM: 20 to 4096 printable; Web Push: https URL of at most 2048, a point on P-256, 16 bytes; vendors: printable, at most 512.
 */
const char *push_token_problem(const char *provider, const Im__Push__Token *t);

/* Retry-After (RFC 9110 10.2.3): seconds or an HTTP-date, relative to now_ms; between 1 s and 1 h. 0: none, or nonsense. */
int64_t push_retry_after(const char *value, int64_t now_ms);

#endif
