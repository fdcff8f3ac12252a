/*
 * What can be said to imctl: one table of nouns and verbs. Most rows map onto a command of the service
 * ($CONTROL/im/v1) and need nothing but the table; the others name a function.
 */
#ifndef IMCTL_VERB_H
#define IMCTL_VERB_H

#include <jansson.h>
#include <stdbool.h>

/* Exit codes: part of the interface, in `imctl help`. */
enum exit_code {
	EXIT_DONE = 0,
	EXIT_REFUSED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_FOUND = 3,
	EXIT_EXISTS = 4,
	EXIT_UNAVAILABLE = 5, /* not running, no answer, or not in force yet: the sentence says which */
	EXIT_DENIED = 6,      /* `why`: the answer is no */
};

struct ctl; /* ctl.h */
struct verb;
typedef int verb_fn(struct ctl *ctl, const struct verb *verb, json_t *args);

struct verb {
	const char *noun;
	const char *verb;     /* NULL: the noun says it all */
	const char *words;    /* "name", "[name]", "names..." one or more, "[names...]" any number; each an argument of the command */
	const char *options;  /* "title" takes a text, "days#" a number, "newest_first?" nothing; a trailing ! must be given */
	const char *command;  /* of the service; NULL: none */
	verb_fn *run;         /* NULL: ask and print */
	const char *list;     /* the field of the answer that holds rows, paged; NULL: the answer is one object */
	const char *columns;  /* of a row, for people */
	const char *help;
};

extern const struct verb verb_table[]; /* ends with a row whose noun is NULL */

/*
 * Finds the row for words[0..n) and how many words named it. NULL: none; `why` (len bytes) says so, with
 * the nearest name.
 */
const struct verb *verb_find(char *const *words, int n, int *used, char *why, size_t len);
/* Turns the remaining words into the command's arguments. NULL: wrong usage, `why` says what. */
json_t *verb_args(const struct verb *verb, char *const *words, int n, char *why, size_t len);
void verb_usage(const struct verb *verb, char *out, size_t len); /* "group create GROUP --owner OWNER [--title TITLE]" */

verb_fn run_backup, run_restore;
verb_fn run_user_add, run_user_import, run_token_issue, run_group_users, run_history, run_send, run_status, run_why, run_config_check, run_config_print,
	run_help;

#endif
