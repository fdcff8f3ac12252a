/*
 * The command table and what a running command is. Every row says who may use the command, what arguments
 * it takes and what they must look like; the table checks them before the function runs, so functions only
 * see well-formed input. A command is asynchronous: it ends by exactly one call_ok or call_refuse, now or
 * from a later callback, and nothing may be touched after that.
 *
 * Commands that change the roster stand in one lane and run one after another, so that what a command
 * found when it looked is still true when its change is made (call_enter_lane).
 */
#ifndef OFFLINE_COMMAND_H
#define OFFLINE_COMMAND_H

#include "base/conf.h"
#include "base/log.h"
#include "delivery.h"
#include "inbox.h"
#include "link.h"
#include "roster/roster.h"
#include "store.h"
#include "wire/refusal.h"
#include <jansson.h>

#define COMMAND_ANSWER_MAX 65536u /* bytes of an answer as JSON; lists and history page below it */
#define COMMAND_ROOM 2048u        /* of these, for what stands around the rows of a page */
#define COMMAND_BATCH 256u        /* roster items per append: about one sync's worth, and a frame well below the limits */
#define CALLS_MAX 1024u           /* commands under way in all: requests are small, answers are not */

enum arg_type {
	ARG_USER,   /* a user name */
	ARG_GROUP,  /* a group name */
	ARG_CONV,   /* u/{user} or g/{group} */
	ARG_TEXT,   /* UTF-8, min..max bytes */
	ARG_ID,     /* a message or request id */
	ARG_WORD,   /* one of `words` */
	ARG_INT,    /* min..max */
	ARG_BOOL,
	ARG_USERS,  /* 1..max user names */
	ARG_OBJECTS, /* 1..max objects; the function looks into each, so that one bad one spoils only itself */
};

enum arg_flags { ARG_REQUIRED = 1, ARG_ADMIN = 2 /* admins only; required of them if ARG_REQUIRED is set too */ };

struct command_arg {
	const char *name; /* NULL ends the list */
	enum arg_type type;
	unsigned flags;
	uint64_t min, max;
	const char *words; /* "a|b|c" */
	const char *help;
};

enum command_who { WHO_USER = 1, WHO_ADMIN = 2, WHO_BOTH = 3 };

struct call;
typedef void command_fn(struct call *call);

struct command {
	const char *name;
	enum command_who who;
	const struct command_arg *args;
	command_fn *run;
	const char *help;
};

/* Ends with a row whose name is NULL. */
extern const struct command command_table[];
/* NULL: no such command for this asker; *nearest (may be NULL) is the name that was probably meant. */
const struct command *command_find(const char *name, bool admin, const char **nearest);
/* Checks names, types and limits of all arguments. */
bool command_check(const struct command *c, const json_t *args, bool admin, struct im_refusal *why);
json_t *command_describe(const struct command *c, bool admin); /* for `commands`; NULL: out of memory */

/* ---- what commands work on; counted, since store and link may answer after request_destroy */

struct backup; /* backup.h */
struct push;   /* push.h */

struct command_env {
	unsigned refs;
	bool closed;               /* the parts below are gone */
	struct im_loop *loop;
	const struct im_settings *settings;
	struct store *store;
	struct roster *roster;
	struct link *link;
	struct delivery *delivery;
	struct inbox *inbox;
	struct backup *backup;
	struct push *push;         /* NULL: im_push names no provider */
	int64_t started_ms;
	unsigned calls;            /* under way */
	unsigned lists;            /* of admin commands, under way */
	uint64_t version_floor;    /* roster versions up to here may be on disk though their append failed */
	struct call *lane_first, *lane_last;
	bool lane_busy;
	struct im_timer *ended_timer;
	struct call *ended_first, *ended_last; /* answered; their ends run on the next turn of the loop */
	struct secret_queue *secrets; /* secret.h */
};

struct command_env *command_env_create(struct im_loop *loop); /* NULL: out of memory */
void command_env_close(struct command_env *env); /* ends what is ended; the rest ends silently when its callbacks come */
void command_env_unref(struct command_env *env);

/* ---- a command under way */

/* Never inside call_start; the call is freed afterwards. Once call->env->closed is set, request.c's parts are gone. */
typedef void call_end_fn(struct call *call, void *arg);

struct call {
	struct command_env *env;
	const struct command *command;
	json_t *args;              /* an object, checked */
	bool admin;
	char *user;                /* who asks; "" = imctl with the service credential */
	char *client_id;
	uint64_t session;

	/* The answer. */
	struct im_refusal refusal; /* code NONE: it went well */
	json_t *result;            /* an object */
	struct message **messages; /* rows of history, referenced */
	size_t n_messages;
	char conv[IM_CONV_MAX];    /* of the messages, as the reader sees it */
	bool more;
	char next[160];

	void *state;               /* the command's own; freed with free_state */
	void (*free_state)(void *state);

	bool ended;
	bool in_lane;
	struct call *next_call;    /* in the lane or among the ended */
	command_fn *lane_fn;
	call_end_fn *end;
	void *end_arg;
};

/*
 * Checks and runs a command. args is stolen (NULL = no arguments); user and client_id are copied. `end` gets
 * the call with its answer or refusal. false: out of memory, `end` will not be called.
 */
bool call_start(struct command_env *env, const char *name, json_t *args, bool admin, const char *user,
		const char *client_id, uint64_t session, call_end_fn *end, void *arg);
void call_ok(struct call *call, json_t *result); /* steals result; NULL = out of memory, which is refused as internal */
void call_refuse(struct call *call, enum im_refusal_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* First thing in a store or link callback: false = the call has been ended (st says why, or everything is closing). */
bool call_step(struct call *call, enum im_status st);
/* State of `len` zeroed bytes, freed with free(). NULL: the call has been refused. */
void *call_state(struct call *call, size_t len);
/* Runs fn when no other command is changing the roster. The lane is left with the call's end, or call_leave_lane. */
void call_enter_lane(struct call *call, command_fn *fn);
void call_leave_lane(struct call *call);

const char *call_text(const struct call *call, const char *name);          /* NULL: not given */
uint64_t call_int(const struct call *call, const char *name, uint64_t otherwise);
bool call_flag(const struct call *call, const char *name);
/* The user in whose name it is done: the asker, or for an admin the argument "user". */
const char *call_subject(const struct call *call);
/* Looks up the named user or group; NULL: the call has been refused. */
const struct roster_user *call_user(struct call *call, const char *name);
const struct roster_group *call_group(struct call *call, const char *name);

/*
 * Paging of a list: rows come in order of `key`; page_add returns false when the row no longer fits, and
 * then the answer says more = true and next = the last key that did.
 */
struct page {
	struct call *call;
	json_t *rows;
	size_t bytes;
	size_t limit;
	char last[160];
};
void page_start(struct page *p, struct call *call, unsigned limit_default);
bool page_add(struct page *p, const char *key, json_t *row); /* steals row */
/* {field: rows}; ends the call. */
void page_end(struct page *p, const char *field);

/* Names borrowed from the roster, to be listed in order within one turn of the loop. */
#define NAMES_DEFAULT 500u /* rows of a page if nobody says how many: below 64 KiB for usual names */
struct names {
	const char **v;
	size_t n, cap;
	bool failed;
};
void names_add(struct names *n, const char *name);
size_t names_sort(struct names *n, const char *after); /* the index of the first one behind `after` (NULL: of all) */
typedef json_t *name_row_fn(struct call *call, const char *name, void *arg);
/* A page of rows in the order of their names; frees the list and ends the call. */
void page_names(struct call *call, struct names *n, const char *field, name_row_fn *row, void *arg);

/* The functions of the table, by file. */
command_fn command_backup, command_backup_status;
command_fn command_push_register, command_push_unregister, command_push_get, command_push_list, command_push_test, command_push_why,
	command_push_stats;
command_fn command_user_add, command_user_import, command_user_remove, command_user_password, command_user_disable,
	command_user_enable, command_user_title, command_user_list, command_user_show;
command_fn command_token_issue, command_token_revoke, command_token_list;
command_fn command_block_add, command_block_remove, command_block_list;
command_fn command_group_create, command_group_remove, command_group_add, command_group_kick, command_group_list,
	command_group_role, command_group_title, command_groups, command_members;
command_fn command_session_list, command_session_kick;
command_fn command_history, command_send;
command_fn command_conversations, command_sync;
command_fn command_server, command_me, command_device_set, command_status, command_why, command_commands;

#endif
