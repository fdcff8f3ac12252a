/*
 * broker.conf as mosquitto reads it: "key value" lines, # comments, one include_dir (main file only, *.conf
 * in strcasecmp order as mosquitto sorts them). Our settings are `plugin_opt_im_*`; they stand in the main
 * file after our `plugin` line. The settings table (settings.c) gives each its type, default, range, unit,
 * help and whether SIGHUP makes it live; it fills `struct im_settings`, prints the sample file and
 * docs/configuration.md. What is unknown or wrong ends with "file:line: what and why" and the nearest name.
 */
#ifndef IM_BASE_CONF_H
#define IM_BASE_CONF_H

#include "base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum im_durability { IM_DURABILITY_PROCESS, IM_DURABILITY_DISK };
enum im_plain_topics { IM_PLAIN_DENY, IM_PLAIN_ACL, IM_PLAIN_ALLOW };
enum im_broker_settings { IM_BROKER_STOP, IM_BROKER_WARN };
enum im_unsubscribed { IM_UNSUBSCRIBED_ERRORS, IM_UNSUBSCRIBED_NONE, IM_UNSUBSCRIBED_ALL };

enum im_push_privacy { IM_PUSH_NONE, IM_PUSH_SENDER, IM_PUSH_CONTENT };
enum im_certificate_user { IM_CERTIFICATE_OFF, IM_CERTIFICATE_CN, IM_CERTIFICATE_EMAIL, IM_CERTIFICATE_DNS };

/* All settings, in the table's order. Strings live as long as the struct (im_settings_finish). */
struct im_settings {
	char *dir;               /* im_dir: state of everything of ours; required, absolute */
	char *bus;               /* im_bus: Unix socket of the broker that services use; default {dir}/run/bus.sock */
	char *store;             /* im_store: sqlite:{path} (default sqlite:{dir}/store) or memory: */
	char *sequences;         /* im_sequences: sqlite:{path} (default sqlite:{dir}/sequences.db) or memory: */
	unsigned node;           /* im_node 1..65535, default 1 */
	enum im_durability durability; /* im_durability process|disk */
	uint64_t journal_limit;  /* im_journal_limit bytes, default 1 GiB */
	uint64_t segment_bytes;  /* im_segment_bytes, default 32 MiB */
	uint64_t max_message;    /* im_max_message bytes of a body, default 256 KiB, at most 1 MiB */
	unsigned rate_user;      /* im_rate_user messages/s, default 5000; 0 = no limit */
	unsigned rate_connection;/* im_rate_connection messages/s, default 5000; 0 = no limit */
	unsigned rate_refusals;  /* im_rate_refusals per second and connection, default 200: over it the connection is closed */
	enum im_plain_topics plain_topics; /* im_plain_topics deny|acl|allow: our users on ordinary topics */
	char *admins;            /* im_admins: user names, comma separated; may use $CONTROL/im/v1 */
	enum im_unsubscribed unsubscribed; /* im_unsubscribed errors|none|all */
	bool read_on_send;       /* im_read_on_send */
	unsigned hash_kib;       /* im_hash_memory KiB, default 19456 */
	unsigned hash_passes;    /* im_hash_passes, default 2 */
	unsigned login_burst;    /* im_login_burst cold password checks at once, default 8 */
	unsigned login_interval_ms; /* im_login_interval ms between further ones, default 250 */
	unsigned login_tries;    /* im_login_tries wrong passwords of a user from one address before waits begin, default 5 */
	unsigned login_wait_s;   /* im_login_wait s, the longest such wait, default 900; 0 = none */
	char *jwt_keys;          /* im_jwt_keys: ALGORITHM:/path and jwks:/path, comma separated; empty = no JWTs */
	char *jwt_user_claim;    /* im_jwt_user_claim, default sub */
	char *jwt_issuer;        /* im_jwt_issuer; empty = any */
	char *jwt_audience;      /* im_jwt_audience; empty = tokens with an audience are refused */
	bool jwt_need_expiry;    /* im_jwt_need_expiry, default true */
	unsigned jwt_skew_s;     /* im_jwt_skew s, default 10 */
	unsigned jwt_max_bytes;  /* im_jwt_max_bytes, default 8192 */
	enum im_certificate_user certificate_user; /* im_certificate_user off|cn|email|dns */
	unsigned dedupe_days;    /* im_dedupe_days, default 7 */
	unsigned devices;        /* im_devices named devices per user, default 32 */
	unsigned device_days;    /* im_device_days unused, default 90 */
	unsigned unnamed;        /* im_unnamed unnamed devices per user, default 16 */
	unsigned ack_window;     /* im_ack_window messages handed to an acking device and not acked, default 500 */
	unsigned ack_retry_ms;   /* im_ack_retry ms until the first repeat, default 10000 */
	unsigned ack_retries;    /* im_ack_retries, default 3 */
	unsigned silent_messages;/* im_silent_messages per settle period for a silent device, default 200000 */
	uint64_t silent_bytes;   /* im_silent_bytes, default 64 MiB */
	unsigned group_members;  /* im_group_members, default 10000 */
	unsigned filters;        /* im_filters of ours per connection, default 16 */
	uint64_t expand_bytes;   /* im_expand_bytes a turn of the broker's loop, default 256 KiB */
	uint64_t store_backlog;  /* im_store_backlog bytes logged and not yet indexed before input waits, default 64 MiB */
	char *http_listen;       /* im_http_listen: ADDRESS:PORT; empty = no HTTP */
	char *http_cert;         /* im_http_cert, im_http_key: PEM files; empty = no TLS */
	char *http_key;
	char *push;              /* im_push: providers whose bridges run, comma separated; empty = none */
	char *push_dir;          /* im_push_dir: the apps' files, keys, outboxes; default {dir}/push */
	char *push_metrics;      /* im_push_metrics: where the bridges write their figures; default {dir}/run/metrics */
	unsigned push_grace_ms;  /* im_push_grace ms without ack before a connected device is pushed, default 4000 */
	unsigned push_ttl_s;     /* im_push_ttl s a push is worth sending, default 86400 */
	enum im_push_privacy push_privacy; /* im_push_privacy none|sender|content: the most that any device gets */
	unsigned push_coalesce_ms; /* im_push_coalesce ms between pushes of a conversation to a device, default 5000 */
	bool push_badge;         /* im_push_badge: what is read elsewhere corrects the number on the icon */
	unsigned push_group;     /* im_push_group members: in larger groups only mentions are pushed, default 500 */
	unsigned push_days;      /* im_push_inactive_days: devices unused for longer are not pushed, default 30 */
	unsigned push_outbox;    /* im_push_outbox jobs that one bridge keeps, default 1000000 */
	enum im_broker_settings broker_settings; /* im_broker_settings stop|warn: those that break a promise */
	int log_level;           /* im_log error|warning|notice|info|debug */

	/* What the broker's own settings say that we must know. */
	bool has_acl_file, has_password_file, allow_anonymous, other_auth_plugins;
	char sessions_file[512]; /* where mosquitto keeps sessions over a restart; empty = nowhere */
	char *plain_topics_note; /* reserved */
};

struct im_conf_problem {
	bool fatal;              /* false: a warning */
	char text[512];          /* "file:line: what and why" */
};

/*
 * Reads the file and everything it includes. Problems (at most `cap`, *n tells how many there were) hold
 * ours and those broker settings that would break a promise (per_listener_settings true, set_tcp_nodelay
 * missing or false, max_queued_messages too low or 0, allow_duplicate_messages false, memory_limit,
 * use_username_as_clientid, retain_available false ...). IM_OK: no fatal one, *out filled (im_settings_finish).
 */
enum im_status im_settings_read(const char *path, struct im_settings *out, struct im_conf_problem *problems, size_t cap, size_t *n);
/* The same for text in memory; `name` stands in problems where the file's name would (tests, fuzzing). */
enum im_status im_settings_parse(const char *name, const char *text, size_t len, struct im_settings *out,
				 struct im_conf_problem *problems, size_t cap, size_t *n);
/*
 * For who only looks for an instance: as im_settings_read, but what is wrong elsewhere in the file does not count, since what runs has
 * been started with an earlier one. IM_BAD_INPUT: it does not say where the instance is.
 */
enum im_status im_settings_find(const char *path, struct im_settings *out, struct im_err *err);
void im_settings_finish(struct im_settings *s);
/* Copies those values of `fresh` that may change while running (table: live). Returns how many changed; names of
   changed ones that need a restart are written to `restart` (comma separated). */
size_t im_settings_reload(struct im_settings *running, const struct im_settings *fresh, char *restart, size_t restart_len);
/* The reference: Markdown for docs/configuration.md, or the commented sample lines of broker.conf. */
void im_settings_print_markdown(void (*put)(void *arg, const char *text), void *arg);
void im_settings_print_sample(void (*put)(void *arg, const char *text), void *arg);

/* The -c argument of the broker that this process is (from /proc/self/cmdline). NULL: none. Caller frees. */
char *im_conf_path_of_broker(void);

#endif
