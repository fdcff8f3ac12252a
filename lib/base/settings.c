/*
 * Our settings: one table says everything about each, and the same code reads, checks, explains and reloads
 * them all. The plugin and every service read them from the same file, so nothing is configured twice.
 */
#include "base/conf.h"
#include "base/conf_broker.h"
#include "base/conf_file.h"
#include "base/listen.h"
#include "base/nearest.h"
#include "base/number.h"
#include "base/settings_table.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define VALUE_MAX 4096 /* longer than any path or list of admins that makes sense */

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static const char *const durabilities[] = {"process", "disk", NULL};
static const char *const plain_topics[] = {"deny", "acl", "allow", NULL};
static const char *const broker_settings[] = {"stop", "warn", NULL};
static const char *const unsubscribed[] = {"errors", "none", "all", NULL};
static const char *const certificate_users[] = {"off", "cn", "email", "dns", NULL};
static const char *const push_privacies[] = {"none", "sender", "content", NULL};
static const char *const push_providers[] = {"apns", "fcm", "webpush", "huawei", "harmony", "xiaomi", "oppo", "vivo", "honor", NULL};
static const char *const log_levels[] = {"error", "warning", "notice", "info", "debug", NULL};

static const char *check_dir(const char *value);
static const char *check_socket(const char *value);
static const char *check_store(const char *value);
static const char *check_admins(const char *value);
static const char *check_keys(const char *value);
static const char *check_listen(const char *value);
static const char *check_file(const char *value);
static const char *check_push(const char *value);

#define TEXT(field) SETTING_TEXT, offsetof(struct im_settings, field), 0, 0, false
#define BOOL(field) SETTING_BOOL, offsetof(struct im_settings, field), 0, 0, false
#define NUMBER(field, min, max) SETTING_NUMBER, offsetof(struct im_settings, field), min, max, false
#define NUMBER_OR_0(field, min, max) SETTING_NUMBER, offsetof(struct im_settings, field), min, max, true
#define SIZE(field, min, max) SETTING_SIZE, offsetof(struct im_settings, field), min, max, false
#define CHOICE(field) SETTING_CHOICE, offsetof(struct im_settings, field), 0, 0, false
#define LIVE true
#define RESTART false

static const char state[] = "State and durability";
static const char messages[] = "Messages and rights";
static const char logins[] = "Logins";
static const char devices[] = "Devices and delivery";
static const char http[] = "HTTP";
static const char push[] = "Push";
static const char memory[] = "Memory and work per turn";

const struct setting settings_table[] = {
	{"im_dir", state, TEXT(dir), NULL, "", RESTART, NULL, "an absolute path", check_dir,
	 "Folder of everything of ours: journal, store, roster, sockets. Created with mode 700 if it is missing."},
	{"im_bus", state, TEXT(bus), "{dir}/run/bus.sock", "", RESTART, NULL, "an absolute path of at most 107 bytes", check_socket,
	 "Unix socket of the broker that our services use. A `listener 0 PATH` with the same path must exist."},
	{"im_store", state, TEXT(store), "sqlite:{dir}/store", "", RESTART, NULL, "sqlite:PATH, or memory: (tests only)", check_store,
	 "Where messages are kept."},
	{"im_sequences", state, TEXT(sequences), "sqlite:{dir}/sequences.db", "", RESTART, NULL,
	 "sqlite:PATH, or memory: (tests only)", check_store,
	 "Where sequence leases are kept. On another disk than im_store it protects against a store rolled back."},
	{"im_node", state, NUMBER(node, 1, 65535), "1", "", RESTART, NULL, NULL, NULL,
	 "Number of this broker among those of one installation. Part of every message id: never give two brokers the same."},
	{"im_durability", state, CHOICE(durability), "process", "", RESTART, durabilities, NULL, NULL,
	 "What a PUBACK promises: `process` survives kill -9 of everything, `disk` a power cut too and costs a sync per message."},
	{"im_journal_limit", state, SIZE(journal_limit, 64 * MIB, 1024 * GIB), "1g", "bytes", LIVE, NULL, NULL, NULL,
	 "Journal kept on disk for messages that are accepted and not yet stored. When it is full, sends are refused."},
	{"im_segment_bytes", state, SIZE(segment_bytes, 8 * MIB, GIB), "32m", "bytes", RESTART, NULL, NULL, NULL,
	 "Size of one journal file; at most half of im_journal_limit."},
	{"im_dedupe_days", state, NUMBER(dedupe_days, 1, 90), "7", "days", RESTART, NULL, NULL, NULL,
	 "How long a repeated message id is recognised and gets its first answer again."},
	{"im_broker_settings", state, CHOICE(broker_settings), "stop", "", RESTART, broker_settings, NULL, NULL,
	 "Settings of mosquitto that break a promise: `stop` refuses to start, `warn` starts and the promise is void (conformance tests)."},

	{"im_max_message", messages, SIZE(max_message, KIB, MIB), "256k", "bytes", LIVE, NULL, NULL, NULL,
	 "Largest body of a message. max_packet_size must leave room for the envelope around it."},
	{"im_rate_user", messages, NUMBER_OR_0(rate_user, 1, 1000000), "5000", "messages/s", LIVE, NULL, NULL, NULL,
	 "Messages a user may send over all connections; more are refused with too_fast. 0: no limit."},
	{"im_rate_connection", messages, NUMBER_OR_0(rate_connection, 1, 1000000), "5000", "messages/s", LIVE, NULL, NULL, NULL,
	 "Messages one connection may send; more are refused with too_fast. 0: no limit."},
	{"im_rate_refusals", messages, NUMBER(rate_refusals, 1, 100000), "200", "refusals/s", LIVE, NULL, NULL, NULL,
	 "Refusals a connection may collect; over it the connection is closed, since its client does not listen."},
	{"im_plain_topics", messages, CHOICE(plain_topics), "deny", "", LIVE, plain_topics, NULL, NULL,
	 "What our users may do on topics outside im/: nothing, what acl_file says, or everything. Others are never affected."},
	{"im_admins", messages, TEXT(admins), "", "", LIVE, NULL, "user names, separated by commas", check_admins,
	 "Users who may send commands on $CONTROL/im/v1. imctl on this host needs no entry."},
	{"im_unsubscribed", messages, CHOICE(unsubscribed), "errors", "", LIVE, unsubscribed, NULL, NULL,
	 "What a client that subscribed to nothing of ours is sent all the same: refusals, nothing, or acks and refusals."},
	{"im_read_on_send", messages, BOOL(read_on_send), "true", "", LIVE, NULL, NULL, NULL,
	 "Whether sending in a conversation marks it as read up to there."},
	{"im_group_members", messages, NUMBER(group_members, 2, 100000), "10000", "members", LIVE, NULL, NULL, NULL,
	 "Largest group with a copy per member."},

	{"im_hash_memory", logins, NUMBER(hash_kib, 8, 1048576), "19456", "KiB", LIVE, NULL, NULL, NULL,
	 "Memory of one argon2id hash, for passwords set from then on. Each cold login takes the broker's thread for it."},
	{"im_hash_passes", logins, NUMBER(hash_passes, 1, 16), "2", "passes", LIVE, NULL, NULL, NULL,
	 "Passes of one argon2id hash, for passwords set from then on."},
	{"im_login_burst", logins, NUMBER(login_burst, 1, 1000), "8", "logins", LIVE, NULL, NULL, NULL,
	 "Passwords that may be hashed at once before im_login_interval applies; while others talk with pauses in between. Tokens and cached logins are not counted."},
	{"im_login_interval", logins, NUMBER(login_interval_ms, 10, 60000), "250", "ms", LIVE, NULL, NULL, NULL,
	 "Time between further password hashes; logins in between are closed without an answer and come again."},
	{"im_login_tries", logins, NUMBER(login_tries, 1, 1000), "5", "failures", LIVE, NULL, NULL, NULL,
	 "Wrong passwords for a user from one address (4 times as many from one address for all users) before each further one has to wait."},
	{"im_login_wait", logins, NUMBER_OR_0(login_wait_s, 1, 86400), "900", "s", LIVE, NULL, NULL, NULL,
	 "Longest such wait; it begins with 1 s and doubles. Tokens, JWTs and certificates never wait. 0: guessing is not slowed."},
	{"im_jwt_keys", logins, TEXT(jwt_keys), "", "", LIVE, NULL, "ALGORITHM:/path or jwks:/path, separated by commas", check_keys,
	 "Keys of JSON Web Tokens: a secret (HS256 ...) or a PEM public key (RS256, PS256, ES256, EdDSA ...) with its one algorithm, "
	 "or a JWK Set. Read again at SIGHUP. Empty: no JWTs."},
	{"im_jwt_user_claim", logins, TEXT(jwt_user_claim), "sub", "", LIVE, NULL, "the name of a claim", NULL,
	 "Claim whose value is the user. It must be the MQTT user name, unless that is empty."},
	{"im_jwt_issuer", logins, TEXT(jwt_issuer), "", "", LIVE, NULL, "the exact value of iss", NULL,
	 "Issuer that a JWT must be from. Empty: any whose key is in im_jwt_keys."},
	{"im_jwt_audience", logins, TEXT(jwt_audience), "", "", LIVE, NULL, "an exact value of aud", NULL,
	 "Audience that a JWT must be for. Empty: a JWT that names an audience is refused, as it is meant for somebody else."},
	{"im_jwt_need_expiry", logins, BOOL(jwt_need_expiry), "true", "", LIVE, NULL, NULL, NULL,
	 "Whether a JWT must have exp. A session ends when its token expires."},
	{"im_jwt_skew", logins, NUMBER_OR_0(jwt_skew_s, 1, 60), "10", "s", LIVE, NULL, NULL, NULL,
	 "By how much the issuer's clock may differ from ours when exp, nbf and iat of a JWT are judged."},
	{"im_jwt_max_bytes", logins, NUMBER(jwt_max_bytes, 128, 65535), "8192", "bytes", LIVE, NULL, NULL, NULL,
	 "Longest JWT that is looked at."},
	{"im_certificate_user", logins, CHOICE(certificate_user), "off", "", LIVE, certificate_users, NULL, NULL,
	 "Field of a TLS client certificate that names its user, who then needs no password: the subject's CN, or the e-mail or DNS name "
	 "of subjectAltName. For listeners with require_certificate true and without use_identity_as_username."},

	{"im_devices", devices, NUMBER(devices, 1, 1000), "32", "devices", LIVE, NULL, NULL, NULL,
	 "Named devices (client id user:device) remembered per user; over it the one offline longest is forgotten."},
	{"im_device_days", devices, NUMBER(device_days, 1, 3650), "90", "days", LIVE, NULL, NULL, NULL,
	 "A named device unused for so long is forgotten."},
	{"im_unnamed", devices, NUMBER(unnamed, 1, 1000), "16", "devices", LIVE, NULL, NULL, NULL,
	 "Client ids without a device name remembered per user (24 h after they went offline)."},
	{"im_filters", devices, NUMBER(filters, 1, 256), "16", "filters", LIVE, NULL, NULL, NULL,
	 "Topic filters below im/ that one connection may hold."},
	{"im_ack_window", devices, NUMBER(ack_window, 1, 100000), "500", "messages", LIVE, NULL, NULL, NULL,
	 "Messages handed to a device that acks before its acks are waited for."},
	{"im_ack_retry", devices, NUMBER(ack_retry_ms, 100, 3600000), "10000", "ms", LIVE, NULL, NULL, NULL,
	 "Time until an unacked message is sent again; doubles each time."},
	{"im_ack_retries", devices, NUMBER_OR_0(ack_retries, 1, 100), "3", "times", LIVE, NULL, NULL, NULL,
	 "How often an unacked message is sent again; then it waits for the device's next connect."},

	{"im_http_listen", http, TEXT(http_listen), "", "", RESTART, NULL, "ADDRESS:PORT, [IPV6]:PORT", check_listen,
	 "Where im-api takes requests over HTTP (docs/http.md). Beyond this host only with im_http_cert. Empty: nowhere."},
	{"im_http_cert", http, TEXT(http_cert), "", "", RESTART, NULL, "an absolute path", check_file,
	 "Certificate (PEM, with its chain) for HTTPS. Empty: plain HTTP, for a proxy on this host that does TLS."},
	{"im_http_key", http, TEXT(http_key), "", "", RESTART, NULL, "an absolute path", check_file,
	 "Private key (PEM) of im_http_cert."},

	{"im_push", push, TEXT(push), "", "", RESTART, NULL, "providers, separated by commas", check_push,
	 "Push providers whose bridges run: apns, fcm, webpush, huawei, harmony, xiaomi, oppo, vivo, honor (docs/push.md)."},
	{"im_push_dir", push, TEXT(push_dir), "{dir}/push", "", RESTART, NULL, "an absolute path", check_dir,
	 "Folder of PROVIDER.APP.conf, one for each app, of the bridges' outboxes and of the key that tokens are encrypted with."},
	{"im_push_metrics", push, TEXT(push_metrics), "{dir}/run/metrics", "", RESTART, NULL, "an absolute path", check_dir,
	 "Folder in which each bridge writes its figures, PROVIDER.prom, of mode 640: for node_exporter's textfile collector, a folder that its group may read."},
	{"im_push_grace", push, NUMBER(push_grace_ms, 500, 60000), "4000", "ms", LIVE, NULL, NULL, NULL,
	 "How long a connected device that acks may take for a message before it is pushed."},
	{"im_push_ttl", push, NUMBER(push_ttl_s, 30, 2419200), "86400", "s", LIVE, NULL, NULL, NULL,
	 "How long a push is worth sending; a message's own expiry ends it earlier."},
	{"im_push_privacy", push, CHOICE(push_privacy), "sender", "", LIVE, push_privacies, NULL, NULL,
	 "The most that a push may say: nothing, who wrote, or also what. A device may ask for less."},
	{"im_push_coalesce", push, NUMBER_OR_0(push_coalesce_ms, 100, 600000), "5000", "ms", LIVE, NULL, NULL, NULL,
	 "Least time between two pushes of one conversation to one device; mentions do not wait."},
	{"im_push_badge", push, BOOL(push_badge), "true", "", LIVE, NULL, NULL, NULL,
	 "Whether the number on the icons of a user's other Apple devices is corrected when something is read on one; every 10 s at most."},
	{"im_push_group", push, NUMBER(push_group, 2, 100000), "500", "members", LIVE, NULL, NULL, NULL,
	 "In groups larger than this only mentions are pushed."},
	{"im_push_inactive_days", push, NUMBER(push_days, 1, 3650), "30", "days", LIVE, NULL, NULL, NULL,
	 "A device that did not connect for so long is not pushed any more."},
	{"im_push_outbox", push, NUMBER(push_outbox, 1000, 100000000), "1000000", "jobs", LIVE, NULL, NULL, NULL,
	 "Jobs that one bridge keeps; when it is full the rest waits in the store."},

	{"im_silent_messages", memory, NUMBER(silent_messages, 100, 500000), "200000", "messages", LIVE, NULL, NULL, NULL,
	 "Messages handed to a device that never acks, per settle period and only if it reads; the rest waits in the store."},
	{"im_silent_bytes", memory, SIZE(silent_bytes, MIB, 16 * GIB), "64m", "bytes", LIVE, NULL, NULL, NULL,
	 "The same in bytes. The broker holds them in memory for a receiver that does not read."},
	{"im_expand_bytes", memory, SIZE(expand_bytes, 64 * KIB, 64 * MIB), "256k", "bytes", RESTART, NULL, NULL, NULL,
	 "Deliveries written to clients in one turn of the broker's loop, each packet counted with a KiB more. Nobody else is served meanwhile: some 4 ms."},
	{"im_store_backlog", memory, SIZE(store_backlog, MIB, 16 * GIB), "64m", "bytes", RESTART, NULL, NULL, NULL,
	 "Messages logged and not yet indexed before the service stops taking more; the journal holds them meanwhile."},
	{"im_log", memory, CHOICE(log_level), "notice", "", LIVE, log_levels, NULL, NULL,
	 "Least important lines that our parts log."},
};
const size_t settings_count = sizeof(settings_table) / sizeof(settings_table[0]);

#define SETTINGS_MAX 64 /* room for the lines on which each was set */
_Static_assert(sizeof(settings_table) / sizeof(settings_table[0]) <= SETTINGS_MAX, "SETTINGS_MAX");

struct settings_reader {
	struct im_settings s;
	struct conf_report report;
	struct conf_broker broker;
	struct {
		char *file;
		unsigned line;
	} seen[SETTINGS_MAX];
	const char *name;        /* of the main file */
	struct plugin_scope {
		bool ours, other;
	} scopes[2];             /* the plugin whose options follow: in the main file, in the included one */
	char *plugin_file;       /* where our plugin line stands; NULL: not seen */
	unsigned plugin_line;
};

static void *field(struct im_settings *s, const struct setting *t)
{
	return (char *)s + t->at;
}

/* --- values --------------------------------------------------------------------------------------------- */

static const char *check_dir(const char *value)
{
	return value[0] == '/' ? NULL : "must be an absolute path";
}

static const char *check_socket(const char *value)
{
	if (value[0] != '/')
		return "must be an absolute path";
	return strlen(value) < sizeof(((struct sockaddr_un *)0)->sun_path) ? NULL
									     : "is too long for a Unix socket (at most 107 bytes)";
}

static const char *check_store(const char *value)
{
	if (strcmp(value, "memory:") == 0)
		return NULL;
	if (strncmp(value, "sqlite:", 7) != 0)
		return "must begin with sqlite: (or be memory:, for tests)";
	return value[7] == '/' ? NULL : "needs an absolute path behind sqlite:";
}

/* One name as lib/wire has it, [a-z0-9][a-z0-9._@-]{0,63}; libc-only code cannot ask it. */
static const char *check_admins(const char *value)
{
	while (*value) {
		size_t len = strcspn(value, ",");

		while (len && *value == ' ') {
			value++;
			len--;
		}
		if (len == 0 || len > 64 || strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789._@- ") < len)
			return "must be user names separated by commas ([a-z0-9._@-], at most 64 bytes each)";
		value += len;
		value += *value == ',';
	}
	return NULL;
}

/* WORD:/path, ... - which words there are, who reads the keys knows. */
static const char *check_keys(const char *value)
{
	while (*value) {
		size_t word = strspn(value += strspn(value, " "), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");

		if (word == 0 || strncmp(value + word, ":/", 2) != 0)
			return "must be ALGORITHM:/path or jwks:/path, separated by commas";
		value += strcspn(value, ",");
		value += *value == ',';
	}
	return NULL;
}

static const char *check_listen(const char *value)
{
	struct sockaddr_storage a;

	return !*value || im_listen_parse(value, &a) ? NULL : "must be ADDRESS:PORT with an IP address, such as 127.0.0.1:8080 or [::1]:8080";
}

static const char *check_file(const char *value)
{
	return !*value || *value == '/' ? NULL : "must be an absolute path";
}

static const char *check_push(const char *value)
{
	while (*value) {
		size_t word = strcspn(value += strspn(value, " "), ", "), i;

		for (i = 0; push_providers[i]; i++)
			if (strlen(push_providers[i]) == word && strncmp(value, push_providers[i], word) == 0)
				break;
		if (!push_providers[i])
			return "must be of apns, fcm, webpush, huawei, harmony, xiaomi, oppo, vivo, honor, separated by commas";
		value += word;
		value += strspn(value, " ");
		value += *value == ',';
	}
	return NULL;
}

/* Digits, then for sizes k, m or g. false: not a number, or beyond 64 bits. */
static bool number_parse(const char *text, bool size, uint64_t *out)
{
	unsigned shift = 0;
	uint64_t n;
	const char *end = im_digits(text, UINT64_MAX, &n);

	if (!end)
		return false;
	if (size && *end) {
		switch (tolower((unsigned char)*end)) {
		case 'k': shift = 10; break;
		case 'm': shift = 20; break;
		case 'g': shift = 30; break;
		default: return false;
		}
		end++;
	}
	if (*end || n > UINT64_MAX >> shift)
		return false;
	*out = n << shift;
	return true;
}

static enum im_status number_set(struct im_settings *s, const struct setting *t, const char *value, struct im_err *err)
{
	bool size = t->type == SETTING_SIZE;
	uint64_t n;

	if (!number_parse(value, size, &n))
		return im_fail(err, IM_BAD_INPUT, "'%.60s' is not a number%s", value, size ? " of bytes (such as 65536, 64k, 64m, 1g)" : "");
	if ((n < t->min || n > t->max) && !(n == 0 && t->zero))
		return im_fail(err, IM_BAD_INPUT, "%.60s is out of range: %s%" PRIu64 " to %" PRIu64 "%s%s", value,
			       t->zero ? "0, or " : "", t->min, t->max, t->unit[0] ? " " : "", t->unit);
	if (size)
		*(uint64_t *)field(s, t) = n;
	else
		*(unsigned *)field(s, t) = (unsigned)n;
	return IM_OK;
}

static enum im_status choice_set(struct im_settings *s, const struct setting *t, const char *value, struct im_err *err)
{
	char known[128] = "";
	size_t used = 0;

	for (int i = 0; t->choices[i]; i++) {
		if (strcmp(value, t->choices[i]) == 0) {
			*(int *)field(s, t) = i; /* enums without negative values are as wide as int here; asserted below */
			return IM_OK;
		}
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", t->choices[i]);
	}
	return im_fail(err, IM_BAD_INPUT, "'%.60s' is none of %s", value, known);
}
_Static_assert(sizeof(enum im_durability) == sizeof(int) && sizeof(enum im_plain_topics) == sizeof(int) &&
		       sizeof(enum im_unsubscribed) == sizeof(int) && sizeof(enum im_broker_settings) == sizeof(int) &&
		       sizeof(enum im_certificate_user) == sizeof(int),
	       "choice_set writes an int");

static enum im_status bool_set(struct im_settings *s, const struct setting *t, const char *value, struct im_err *err)
{
	bool on = strcmp(value, "true") == 0 || strcmp(value, "on") == 0 || strcmp(value, "1") == 0;
	bool off = strcmp(value, "false") == 0 || strcmp(value, "off") == 0 || strcmp(value, "0") == 0;

	if (!on && !off)
		return im_fail(err, IM_BAD_INPUT, "'%.60s' is neither true nor false", value);
	*(bool *)field(s, t) = on;
	return IM_OK;
}

static enum im_status text_set(struct im_settings *s, const struct setting *t, const char *value, struct im_err *err)
{
	const char *wrong = t->check ? t->check(value) : NULL;
	char **at = field(s, t);
	char *copy;

	if (wrong)
		return im_fail(err, IM_BAD_INPUT, "'%.80s' %s", value, wrong);
	copy = strdup(value);
	if (!copy)
		return im_fail(err, IM_FAILED, "out of memory");
	free(*at);
	*at = copy;
	return IM_OK;
}

static enum im_status value_set(struct im_settings *s, const struct setting *t, const char *value, struct im_err *err)
{
	switch (t->type) {
	case SETTING_TEXT: return text_set(s, t, value, err);
	case SETTING_BOOL: return bool_set(s, t, value, err);
	case SETTING_NUMBER:
	case SETTING_SIZE: return number_set(s, t, value, err);
	case SETTING_CHOICE: return choice_set(s, t, value, err);
	}
	return im_fail(err, IM_FAILED, "a setting without type");
}

/* Defaults that name {dir} wait for im_dir. */
static enum im_status default_set(struct im_settings *s, const struct setting *t, struct im_err *err)
{
	const char *mark = strstr(t->fallback, "{dir}");
	enum im_status st;
	char *value;

	if (!mark)
		return value_set(s, t, t->fallback, err);
	if (asprintf(&value, "%.*s%s%s", (int)(mark - t->fallback), t->fallback, s->dir ? s->dir : "/", mark + 5) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	st = value_set(s, t, value, err);
	free(value);
	return st;
}

/* --- lines ---------------------------------------------------------------------------------------------- */

static const struct setting *setting_find(const char *name)
{
	for (size_t i = 0; i < settings_count; i++)
		if (strcmp(name, settings_table[i].name) == 0)
			return &settings_table[i];
	return NULL;
}

/* The nearest of our names, also when the "im_" was left out. NULL: none is near. */
static const char *setting_nearest(const char *name)
{
	struct im_nearest near;

	im_nearest_start(&near, name);
	for (size_t i = 0; i < settings_count; i++) {
		im_nearest_offer(&near, settings_table[i].name);
		im_nearest_offer(&near, settings_table[i].name + 3);
		if (near.best == settings_table[i].name + 3)
			near.best = settings_table[i].name;
	}
	return near.best;
}

static void unknown(struct settings_reader *r, const struct conf_line *line, const char *name)
{
	const char *near = setting_nearest(name);

	if (near)
		conf_problem(&r->report, true, line->file, line->number,
			     "unknown setting %s: did you mean " SETTING_PREFIX "%s?", line->key, near);
	else
		conf_problem(&r->report, true, line->file, line->number,
			     "unknown setting %s: no setting of ours has a similar name; docs/configuration.md lists them", line->key);
}

static void on_setting(struct settings_reader *r, const struct conf_line *line, const char *name)
{
	const struct setting *t = setting_find(name);
	struct im_err err = {""};
	char value[VALUE_MAX];
	size_t i;

	if (!t) {
		unknown(r, line, name);
		return;
	}
	i = (size_t)(t - settings_table);
	if (r->seen[i].file) {
		conf_problem(&r->report, true, line->file, line->number, "%s is set already at %s:%u", line->key, r->seen[i].file,
			     r->seen[i].line);
		return;
	}
	r->seen[i].file = strdup(line->file);
	r->seen[i].line = line->number;
	if (!conf_trim(line->value, value, sizeof(value)))
		conf_problem(&r->report, true, line->file, line->number, "%s: the value is longer than %d bytes", line->key, VALUE_MAX - 1);
	else if (!value[0])
		conf_problem(&r->report, true, line->file, line->number,
			     "%s has no value; leave the line out for the default", line->key);
	else if (value_set(&r->s, t, value, &err) != IM_OK)
		conf_problem(&r->report, true, line->file, line->number, "%s: %s", line->key, err.text);
}

/* An option belongs to the plugin line above it in the same file: mosquitto begins anew with each file. */
static void on_option(struct settings_reader *r, const struct conf_line *line, const char *name)
{
	const struct plugin_scope *scope = &r->scopes[line->included];
	bool ours = strncmp(name, "im_", 3) == 0;

	if (!ours && !scope->ours)
		return; /* another plugin's, or mosquitto's own error */
	if (!ours) {
		unknown(r, line, name);
	} else if (strncmp(line->key, SETTING_PREFIX, strlen(SETTING_PREFIX)) != 0) {
		conf_problem(&r->report, true, line->file, line->number, "write " SETTING_PREFIX "%s instead of %s", name, line->key);
	} else if (scope->other) {
		conf_problem(&r->report, true, line->file, line->number,
			     "%s stands below another plugin's line, so mosquitto gives it to that plugin: move it below ours",
			     line->key);
	} else if (!scope->ours) {
		conf_problem(&r->report, true, line->file, line->number,
			     line->included ? "%s stands in an included file: mosquitto takes options of a plugin only below its "
					      "`plugin` line in the same file, so move it to the main file"
					    : "%s stands above the `plugin` line it belongs to: move it below",
			     line->key);
	} else {
		on_setting(r, line, name);
	}
}

static void on_plugin(struct settings_reader *r, const struct conf_line *line)
{
	struct plugin_scope *scope = &r->scopes[line->included];
	const char *base = strrchr(line->value, '/');

	base = base ? base + 1 : line->value + strspn(line->value, " ");
	scope->ours = strncmp(base, "mosquitto_im", strlen("mosquitto_im")) == 0;
	scope->other = !scope->ours;
	if (scope->other) {
		r->s.other_auth_plugins = true;
	} else if (r->plugin_file) {
		conf_problem(&r->report, true, line->file, line->number, "our plugin is loaded already at %s:%u", r->plugin_file,
			     r->plugin_line);
	} else {
		r->plugin_file = strdup(line->file);
		r->plugin_line = line->number;
	}
}

static void on_line(void *arg, const struct conf_line *line)
{
	struct settings_reader *r = arg;
	const char *option = NULL;

	if (strncmp(line->key, "plugin_opt_", 11) == 0)
		option = line->key + 11;
	else if (strncmp(line->key, "auth_opt_", 9) == 0)
		option = line->key + 9;
	if (line->first)
		r->scopes[line->included] = (struct plugin_scope){false, false};
	if (option)
		on_option(r, line, option);
	else if (strcmp(line->key, "plugin") == 0 || strcmp(line->key, "auth_plugin") == 0)
		on_plugin(r, line);
	else if (strncmp(line->key, "im_", 3) == 0)
		conf_problem(&r->report, true, line->file, line->number, "%s needs mosquitto's prefix: write " SETTING_PREFIX "%s",
			     line->key, setting_find(line->key) || !setting_nearest(line->key) ? line->key : setting_nearest(line->key));
	else
		conf_broker_line(&r->broker, &r->report, line);
}

/* --- the whole ------------------------------------------------------------------------------------------ */

static void reader_start(struct settings_reader *r, const char *name, struct im_conf_problem *problems, size_t cap)
{
	struct im_err err;

	memset(r, 0, sizeof(*r));
	r->name = name;
	r->report.problems = problems;
	r->report.cap = cap;
	conf_broker_init(&r->broker);
	/* What does not depend on im_dir has its default from the start; a line in the file replaces it. */
	for (size_t i = 0; i < settings_count; i++)
		if (settings_table[i].fallback && !strstr(settings_table[i].fallback, "{dir}") &&
		    default_set(&r->s, &settings_table[i], &err) != IM_OK)
			conf_problem(&r->report, true, name, 0, "%s: default: %s", settings_table[i].name, err.text);
}

static void fill_defaults(struct settings_reader *r)
{
	struct im_err err;

	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *t = &settings_table[i];

		if (t->type != SETTING_TEXT || *(char **)field(&r->s, t))
			continue;
		if (!t->fallback)
			conf_problem(&r->report, true, r->name, 0, SETTING_PREFIX "%s is missing: %s", t->name, t->help);
		else if (default_set(&r->s, t, &err) != IM_OK)
			conf_problem(&r->report, true, r->name, 0, SETTING_PREFIX "%s: its default %s", t->name, err.text);
	}
}

/* NULL: there was no memory for it, which has been reported. */
static bool is_given(const char *text)
{
	return text && *text;
}

/* Settings that are right each by itself and wrong together. */
static void check_together(struct settings_reader *r)
{
	struct sockaddr_storage listen;

	if (r->s.segment_bytes > r->s.journal_limit / 2)
		conf_problem(&r->report, true, r->name, 0,
			     SETTING_PREFIX "im_segment_bytes must be at most half of im_journal_limit: full segments are removed as a whole");
	if (r->s.expand_bytes > r->s.silent_bytes)
		conf_problem(&r->report, false, r->name, 0,
			     SETTING_PREFIX "im_silent_bytes is smaller than im_expand_bytes: silent devices get less than one turn's worth");
	if (is_given(r->s.http_cert) != is_given(r->s.http_key))
		conf_problem(&r->report, true, r->name, 0, SETTING_PREFIX "im_http_cert and im_http_key need each other");
	if (!is_given(r->s.http_cert) && is_given(r->s.http_listen) && im_listen_parse(r->s.http_listen, &listen) && !im_listen_is_local(&listen))
		conf_problem(&r->report, true, r->name, 0,
			     SETTING_PREFIX "im_http_listen %s is beyond this host and would take tokens in the clear: set im_http_cert and im_http_key, "
					    "or listen on 127.0.0.1 behind a proxy that does TLS", r->s.http_listen);
	if (!r->plugin_file)
		conf_problem(&r->report, true, r->name, 0,
			     "no `plugin .../mosquitto_im.so` line: the broker would run without us");
	conf_broker_finish(&r->broker, &r->report, &r->s, r->plugin_file ? r->plugin_file : r->name, r->plugin_line);
}

static void reader_free(struct settings_reader *r)
{
	for (size_t i = 0; i < settings_count; i++)
		free(r->seen[i].file);
	free(r->plugin_file);
}

static enum im_status reader_finish(struct settings_reader *r, struct im_settings *out, size_t *n)
{
	fill_defaults(r);
	check_together(r);
	reader_free(r);
	*n = r->report.n;
	if (r->report.fatal) {
		im_settings_finish(&r->s);
		return IM_BAD_INPUT;
	}
	*out = r->s;
	return IM_OK;
}

enum im_status im_settings_read(const char *path, struct im_settings *out, struct im_conf_problem *problems, size_t cap, size_t *n)
{
	struct settings_reader r;

	reader_start(&r, path, problems, cap);
	conf_file_read(path, &r.report, on_line, &r);
	return reader_finish(&r, out, n);
}

enum im_status im_settings_parse(const char *name, const char *text, size_t len, struct im_settings *out,
				 struct im_conf_problem *problems, size_t cap, size_t *n)
{
	struct settings_reader r;

	reader_start(&r, name, problems, cap);
	conf_text_read(name, text, len, &r.report, on_line, &r);
	return reader_finish(&r, out, n);
}

enum im_status im_settings_find(const char *path, struct im_settings *out, struct im_err *err)
{
	struct settings_reader r;

	reader_start(&r, path, NULL, 0);
	conf_file_read(path, &r.report, on_line, &r);
	if (r.s.dir)
		fill_defaults(&r);
	reader_free(&r);
	if (r.s.dir && r.s.bus && r.s.store && r.s.sequences) {
		*out = r.s;
		return IM_OK;
	}
	im_settings_finish(&r.s);
	return im_fail(err, IM_BAD_INPUT, "%.180s does not say where the instance is (plugin_opt_im_dir)", path);
}

void im_settings_finish(struct im_settings *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < settings_count; i++)
		if (settings_table[i].type == SETTING_TEXT)
			free(*(char **)field(s, &settings_table[i]));
	memset(s, 0, sizeof(*s));
}

/* --- reload --------------------------------------------------------------------------------------------- */

static size_t width(const struct setting *t)
{
	switch (t->type) {
	case SETTING_TEXT: return sizeof(char *);
	case SETTING_BOOL: return sizeof(bool);
	case SETTING_NUMBER: return sizeof(unsigned);
	case SETTING_SIZE: return sizeof(uint64_t);
	case SETTING_CHOICE: return sizeof(int);
	}
	return 0;
}

static bool same(const struct setting *t, struct im_settings *a, struct im_settings *b)
{
	if (t->type == SETTING_TEXT)
		return strcmp(*(char **)field(a, t), *(char **)field(b, t)) == 0;
	return memcmp(field(a, t), field(b, t), width(t)) == 0;
}

/* false: out of memory, the old value stays. */
static bool take_over(const struct setting *t, struct im_settings *running, struct im_settings *fresh)
{
	char *copy;

	if (t->type != SETTING_TEXT) {
		memcpy(field(running, t), field(fresh, t), width(t));
		return true;
	}
	copy = strdup(*(char **)field(fresh, t));
	if (!copy)
		return false;
	free(*(char **)field(running, t));
	*(char **)field(running, t) = copy;
	return true;
}

size_t im_settings_reload(struct im_settings *running, const struct im_settings *fresh, char *restart, size_t restart_len)
{
	struct im_settings from = *fresh; /* borrowed texts: only read */
	size_t changed = 0, used = 0;

	if (restart_len)
		restart[0] = '\0';
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *t = &settings_table[i];

		if (same(t, running, &from))
			continue;
		if (t->live) {
			changed += take_over(t, running, &from);
		} else if (used < restart_len) {
			int len = snprintf(restart + used, restart_len - used, "%s%s", used ? "," : "", t->name);

			used += len > 0 ? (size_t)len : 0;
		}
	}
	running->has_acl_file = fresh->has_acl_file;
	running->has_password_file = fresh->has_password_file;
	running->allow_anonymous = fresh->allow_anonymous;
	return changed;
}
