/*
 * The skeleton every service runs in. service_main goes the same way each time: options (--config FILE,
 * --check, --version, --help), settings, log, loop, signals, start, bus connection, ready, run, drain, stop.
 * Tells readiness to the supervisor or systemd with sd_notify's protocol (NOTIFY_SOCKET, "READY=1").
 * SIGTERM and SIGINT drain and stop; SIGHUP reloads what is live; a second SIGTERM stops at once.
 */
#ifndef IM_SERVICE_SERVICE_H
#define IM_SERVICE_SERVICE_H

#include "base/conf.h"
#include "io/loop.h"
#include "io/mqtt.h"

struct service {
	struct im_loop *loop;
	struct im_settings settings;
	struct im_mqtt *bus;
	void *state;             /* of the service itself: the spec's, or set by start */
};

struct service_spec {
	const char *name;        /* "im-seqgen": log name */
	const char *client_id;   /* "$im-seqgen" */
	const char *const *filters; /* ends with NULL */
	int qos;
	void *state;             /* what start begins with; NULL: it makes its own */
	/* Opens what the service owns, before the bus connects. */
	enum im_status (*start)(struct service *s, struct im_err *err);
	/* What start would find wrong with files of its own, for --check: nothing is opened that another process holds, nothing is written. NULL: nothing. */
	enum im_status (*check)(struct service *s, struct im_err *err);
	void (*bus_up)(struct service *s);
	void (*bus_down)(struct service *s, const char *why);
	void (*message)(struct service *s, const char *topic, const void *payload, size_t len);
	/* Begins to finish what is under way; calls service_drained when done (at most 10 s, then stop follows anyway). NULL: nothing to wait for. */
	void (*drain)(struct service *s);
	void (*reload)(struct service *s); /* settings are already the new ones; NULL: nothing to do */
	void (*stop)(struct service *s);   /* frees everything start made */
};

int service_main(const struct service_spec *spec, int argc, char **argv);
void service_drained(struct service *s);
/* "READY=1" once; start may delay it by returning IM_OK and calling this later. service_main calls it when the bus is up, unless held. */
void service_hold_ready(struct service *s);
void service_ready(struct service *s);
/* A fault that ends the process with status 1 after one log line; the supervisor starts it again. */
void service_fail(struct service *s, const char *why) __attribute__((noreturn));
/* The same with status 78 (EX_CONFIG): starting again does not help, someone must act. */
void service_refuse(struct service *s, const char *why) __attribute__((noreturn));

#endif
