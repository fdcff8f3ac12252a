/* One run of imctl: which instance, how to print, and questions to the service over the bus. */
#ifndef IMCTL_CTL_H
#define IMCTL_CTL_H

#include "base/conf.h"
#include "verb.h"

#include <stdio.h>

struct mosquitto;

#define ASK_MS 20000         /* a command: the service itself gives the plugin 5 s to confirm */
#define ASK_IMPORT_MS 180000 /* a batch of password hashes on a small, busy machine */

struct ctl {
	const char *dir;      /* --dir; NULL: not given */
	const char *config;   /* --config; NULL: not given */
	bool json;
	char socket[512], secret_path[512];
	struct mosquitto *mosq;
	unsigned asked;       /* correlation data counts */
	char correlation[16]; /* of the question under way */
	json_t *answer;       /* to it */
	bool subscribed;
	int connack;          /* -1: not yet */
	int lost;             /* libmosquitto's reason, 0: connected */
};

/* The path of the configuration: --config, or broker.conf in --dir (default ./var). */
void ctl_config_path(const struct ctl *ctl, char *out, size_t len);

/*
 * Connects if needed and asks. Steals args (NULL: none). EXIT_DONE: *data is the answer's data, owned by the caller.
 * Otherwise the reason has been printed.
 */
int ctl_ask(struct ctl *ctl, const char *command, json_t *args, int timeout_ms, json_t **data);
void ctl_finish(struct ctl *ctl);

/* Prints "imctl: sentence" to standard error. */
void ctl_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int ctl_exit_of(const char *code);   /* the exit code for a refusal's code */
/* EXIT_DONE, or EXIT_UNAVAILABLE with a sentence if the answer says that the change is not in force yet. */
int ctl_pending(const json_t *data);

/* ---- print.c */
void print_line(const json_t *value);                        /* as JSON, one line */
void print_object(const json_t *object);                     /* for people: "name: value" lines, nested names with dots */
void print_rows(const json_t *rows, const char *columns);    /* for people: a table */

#endif
