/*
 * Rules over mosquitto's own settings. Two kinds: some must have a certain value (given or by default), some
 * must not be given at all on any listener. Reasons were measured with mosquitto 2.0.21; where a later
 * version is free of a fault the text says so.
 */
#include "base/conf_broker.h"

#include "base/nearest.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUED_LEAST 1000000 /* above every budget of ours (im_silent_messages), so that the broker never drops */
#define INFLIGHT_LEAST 20    /* mosquitto's default */

enum rule_kind {
	MUST_BE_TRUE,
	MUST_BE_FALSE,
	MUST_BE_0,    /* not given, or 0 */
	AT_LEAST,     /* `least` or more */
	PACKET_LIMIT, /* not given, 0, or enough for the largest message */
};

struct rule {
	const char *key;
	enum rule_kind kind;
	bool fatal;
	int64_t fallback; /* what mosquitto 2.0 does without the line */
	int64_t least;
	const char *why;
};

static const struct rule rules[] = {
	{"per_listener_settings", MUST_BE_FALSE, true, 0, 0,
	 "it loads plugins per listener and loses the queues of offline sessions"},
	{"set_tcp_nodelay", MUST_BE_TRUE, true, 0, 0,
	 "without it small packets wait up to 40 ms for the receiver's TCP acknowledgement (Nagle's algorithm)"},
	{"max_queued_messages", AT_LEAST, true, 1000, QUEUED_LEAST,
	 "at the limit the broker drops messages without telling anybody, and 0 disconnects clients whose publish is refused (2.0.21); "
	 "our own limits bound the memory"},
	{"max_queued_bytes", MUST_BE_0, true, 0, 0, "at the limit the broker drops messages without telling anybody; im_silent_bytes bounds the memory"},
	{"max_inflight_bytes", MUST_BE_0, false, 0, 0, "it makes catching up slow for receivers of large messages"},
	{"allow_duplicate_messages", MUST_BE_TRUE, true, 0, 0,
	 "otherwise the broker remembers every receiver of a message and compares each with all: groups get slow with the square of their size"},
	{"memory_limit", MUST_BE_0, true, 0, 0,
	 "2.0.21 counts memory wrongly when a plugin publishes and stops serving at the limit; limit the process instead "
	 "(systemd: MemoryMax=)"},
	{"use_username_as_clientid", MUST_BE_FALSE, true, 0, 0, "every user could have one device only"},
	{"retain_available", MUST_BE_TRUE, true, 1, 0,
	 "the broker would disconnect a client that sends with the retain flag before we can refuse and explain it"},
	{"max_keepalive", MUST_BE_0, false, 0, 0,
	 "2.0.21 cuts clients whose keepalive equals it at random (fixed in 2.0.22), and 3.1.1 clients above it are refused"},
	{"max_inflight_messages", AT_LEAST, false, 20, INFLIGHT_LEAST,
	 "catching up waits for a round trip after each such group; 0 means no limit, and then a 3.1.1 client is flooded"},
	{"upgrade_outgoing_qos", MUST_BE_FALSE, false, 0, 0, "deliveries would get a higher QoS than their receivers asked for"},
	{"message_size_limit", PACKET_LIMIT, true, 0, 0,
	 "the broker acknowledges larger messages of 3.1.1 clients and throws them away; use max_packet_size, which disconnects"},
	{"max_packet_size", PACKET_LIMIT, true, 0, 0, "the largest message with its envelope, and the services' frames, must fit"},
	{"use_identity_as_username", MUST_BE_FALSE, false, 0, 0,
	 "the broker asks no plugin about such logins, so their client ids are not checked and our users have no rights there; with "
	 "im_certificate_user the plugin reads certificates itself"},
	{"use_subject_as_username", MUST_BE_FALSE, false, 0, 0,
	 "the broker asks no plugin about such logins, so their client ids are not checked and our users have no rights there; with "
	 "im_certificate_user the plugin reads certificates itself"},
	{"mount_point", MUST_BE_FALSE, true, 0, 0, "it puts a prefix before every topic of a listener's clients, so that im/v1/... is not recognised"},
};
#define RULE_COUNT (sizeof(rules) / sizeof(rules[0]))
_Static_assert(RULE_COUNT <= CONF_BROKER_RULES, "CONF_BROKER_RULES");

/* Every key of mosquitto 2.0.21, to suggest the right one where the broker would only say "unknown". */
static const char *const broker_keys[] = {
	"acl_file", "address", "addresses", "allow_anonymous", "allow_duplicate_messages", "allow_zero_length_clientid",
	"auth_plugin", "auth_plugin_deny_special_chars", "auto_id_prefix", "autosave_interval", "autosave_on_changes",
	"bind_address", "bind_interface", "bridge_alpn", "bridge_attempt_unsubscribe", "bridge_bind_address", "bridge_cafile",
	"bridge_capath", "bridge_certfile", "bridge_identity", "bridge_insecure", "bridge_keyfile", "bridge_max_packet_size",
	"bridge_outgoing_retain", "bridge_protocol_version", "bridge_psk", "bridge_require_ocsp", "bridge_tls_version", "cafile",
	"capath", "certfile", "check_retain_source", "ciphers", "ciphers_tls1.3", "cleansession", "clientid", "clientid_prefixes",
	"connection", "connection_messages", "crlfile", "dhparamfile", "http_dir", "idle_timeout", "keepalive_interval", "keyfile",
	"listener", "local_cleansession", "local_clientid", "local_password", "local_username", "log_dest", "log_facility",
	"log_timestamp", "log_timestamp_format", "log_type", "max_connections", "max_inflight_bytes", "max_inflight_messages",
	"max_keepalive", "max_packet_size", "max_qos", "max_queued_bytes", "max_queued_messages", "max_topic_alias",
	"memory_limit", "message_size_limit", "mount_point", "notification_topic", "notifications", "notifications_local_only",
	"password", "password_file", "per_listener_settings", "persistence", "persistence_file", "persistence_location",
	"persistent_client_expiration", "pid_file", "plugin", "port", "protocol", "psk_file", "psk_hint", "queue_qos0_messages",
	"remote_clientid", "remote_password", "remote_username", "require_certificate", "restart_timeout", "retain_available",
	"retain_expiry_interval", "retained_persistence", "retry_interval", "round_robin", "set_tcp_nodelay", "socket_domain",
	"start_type", "sys_interval", "threshold", "tls_engine", "tls_engine_kpass_sha1", "tls_keyform", "tls_version", "topic",
	"trace_level", "try_private", "upgrade_outgoing_qos", "use_identity_as_username", "use_subject_as_username",
	"use_username_as_clientid", "user", "username", "websockets_headers_size", "websockets_log_level",
};

void conf_broker_init(struct conf_broker *b)
{
	memset(b, 0, sizeof(*b));
}

/* 1 for true and 1, 0 for false and 0, as mosquitto has it; -1: mosquitto itself refuses the line. */
static int64_t bool_value(const char *text)
{
	size_t len;

	text += strspn(text, " ");
	len = strcspn(text, " ");
	if ((len == 4 && memcmp(text, "true", 4) == 0) || (len == 1 && *text == '1'))
		return 1;
	if ((len == 5 && memcmp(text, "false", 5) == 0) || (len == 1 && *text == '0'))
		return 0;
	return -1;
}

static int64_t rule_value(const struct rule *rule, const char *text)
{
	if (strcmp(rule->key, "mount_point") == 0)
		return 1; /* given at all */
	if (rule->kind == MUST_BE_TRUE || rule->kind == MUST_BE_FALSE)
		return bool_value(text);
	return strtoll(text, NULL, 10); /* as mosquitto's atoi: text behind the number does not count */
}

/* Some keys belong to one listener: a harmless line for the next must not hide a harmful one. */
static bool is_harmful(const struct rule *rule, int64_t value, int64_t room)
{
	switch (rule->kind) {
	case MUST_BE_TRUE: return value != 1;
	case MUST_BE_FALSE: return value != 0;
	case MUST_BE_0: return value > 0;
	case AT_LEAST: return value < rule->least;
	case PACKET_LIMIT: return value > 0 && value < room;
	}
	return false;
}

static bool is_per_listener(const struct rule *rule)
{
	return strncmp(rule->key, "use_", 4) == 0 || strcmp(rule->key, "mount_point") == 0;
}

static void remember(struct conf_broker *b, size_t i, const struct conf_line *line)
{
	int64_t value = rule_value(&rules[i], line->value);

	if (b->seen[i].set && is_per_listener(&rules[i]) && is_harmful(&rules[i], b->seen[i].value, 0))
		return;
	b->seen[i].set = true;
	b->seen[i].value = value;
	b->seen[i].number = line->number;
	(void)snprintf(b->seen[i].file, sizeof(b->seen[i].file), "%s", line->file); /* cut: only names the place */
}

/* Measured with libwebsockets 4.1: an IPv4 address alone is ignored, and the port is open on all addresses. */
static void listener_done(struct conf_broker *b, struct conf_report *report)
{
	if (b->listener.ipv4_address && b->listener.websockets && !b->listener.domain)
		conf_problem(report, false, b->listener.file, b->listener.number,
			     "add `socket_domain ipv4` to this listener: without it mosquitto 2.0 opens a WebSocket port on all addresses, "
			     "whatever IPv4 address is given");
	memset(&b->listener, 0, sizeof(b->listener));
}

/* "listener PORT [ADDRESS]"; "listener 0 PATH" opens a Unix socket. */
static void on_listener(struct conf_broker *b, struct conf_report *report, const struct conf_line *line)
{
	const char *value = line->value;
	char path[112], address[64] = "";
	struct in_addr ignored;
	int used = 0;

	listener_done(b, report);
	b->listener.ipv4_address = sscanf(value, "%*u %63s", address) == 1 && inet_pton(AF_INET, address, &ignored) == 1;
	b->listener.number = line->number;
	(void)snprintf(b->listener.file, sizeof(b->listener.file), "%s", line->file); /* cut: only names the place */
	if (sscanf(value, "%*u %n%111[^\n]", &used, path) != 1 || path[0] != '/' || b->socket_count >= 8)
		return;
	if (conf_trim(value + used, b->sockets[b->socket_count], sizeof(b->sockets[0])))
		b->socket_count++;
}

static bool is_broker_key(const char *key)
{
	for (size_t i = 0; i < sizeof(broker_keys) / sizeof(broker_keys[0]); i++)
		if (strcmp(key, broker_keys[i]) == 0)
			return true;
	return false;
}

/* Only a warning: a newer broker may know it, and mosquitto itself stops at what it does not know. */
static void on_unknown(struct conf_report *report, const struct conf_line *line)
{
	struct im_nearest near;

	im_nearest_start(&near, line->key);
	for (size_t i = 0; i < sizeof(broker_keys) / sizeof(broker_keys[0]); i++)
		im_nearest_offer(&near, broker_keys[i]);
	if (strchr(line->key, '\t'))
		conf_problem(report, false, line->file, line->number, "mosquitto takes blanks, not tabs, between a setting and its value");
	else if (near.best)
		conf_problem(report, false, line->file, line->number, "mosquitto 2.0 does not know %s: did you mean %s?", line->key, near.best);
	else
		conf_problem(report, false, line->file, line->number, "mosquitto 2.0 does not know %s", line->key);
}

void conf_broker_line(struct conf_broker *b, struct conf_report *report, const struct conf_line *line)
{
	for (size_t i = 0; i < RULE_COUNT; i++)
		if (strcmp(line->key, rules[i].key) == 0) {
			remember(b, i, line);
			return;
		}
	if (strcmp(line->key, "listener") == 0 || strcmp(line->key, "port") == 0 || strcmp(line->key, "bind_address") == 0)
		b->has_listener = true;
	if (strcmp(line->key, "listener") == 0)
		on_listener(b, report, line);
	else if (strcmp(line->key, "protocol") == 0)
		b->listener.websockets = strstr(line->value, "websockets") != NULL;
	else if (strcmp(line->key, "socket_domain") == 0)
		b->listener.domain = true;
	else if (strcmp(line->key, "acl_file") == 0)
		b->has_acl_file = true;
	else if (strcmp(line->key, "password_file") == 0)
		b->has_password_file = true;
	else if (strcmp(line->key, "allow_anonymous") == 0)
		b->anonymous = bool_value(line->value) == 1 ? CONF_ANONYMOUS_YES : CONF_ANONYMOUS_NO;
	else if (strcmp(line->key, "persistence") == 0)
		b->persistence = bool_value(line->value) == 1;
	else if (strcmp(line->key, "persistence_location") == 0)
		(void)snprintf(b->location, sizeof(b->location), "%s", line->value); /* cut: then there is no such file */
	else if (strcmp(line->key, "persistence_file") == 0)
		(void)snprintf(b->persistence_file, sizeof(b->persistence_file), "%s", line->value);
	else if (!is_broker_key(line->key))
		on_unknown(report, line);
}

/* What to write instead. */
static void rule_fix(const struct rule *rule, int64_t room, char *out, size_t len)
{
	switch (rule->kind) {
	case MUST_BE_TRUE: (void)snprintf(out, len, "set %s true", rule->key); break;
	case MUST_BE_FALSE:
	case MUST_BE_0: (void)snprintf(out, len, "leave %s out", rule->key); break;
	case AT_LEAST: (void)snprintf(out, len, "set %s %" PRId64, rule->key, rule->least); break;
	case PACKET_LIMIT:
		(void)snprintf(out, len, "set %s to %" PRId64 " or more, or leave it out", rule->key, room);
		break;
	}
}

void conf_broker_finish(struct conf_broker *b, struct conf_report *report, struct im_settings *s, const char *file, unsigned number)
{
	/* JSON escapes and base64 make a body larger; frames of the bus carry one message more than they gather. */
	int64_t room = (int64_t)(2 * s->max_message + (1u << 20));
	bool stop = s->broker_settings == IM_BROKER_STOP, bus = false;

	listener_done(b, report);
	for (size_t i = 0; i < RULE_COUNT; i++) {
		const struct rule *rule = &rules[i];
		int64_t value = b->seen[i].set ? b->seen[i].value : rule->fallback;
		char fix[128];

		if (!is_harmful(rule, value, room))
			continue;
		rule_fix(rule, room, fix, sizeof(fix));
		if (b->seen[i].set)
			conf_problem(report, rule->fatal && stop, b->seen[i].file, b->seen[i].number, "%s: %s", fix, rule->why);
		else
			conf_problem(report, rule->fatal && stop, file, number, "%s (it is missing): %s", fix, rule->why);
	}
	for (size_t i = 0; i < b->socket_count; i++)
		bus = bus || (s->bus && strcmp(b->sockets[i], s->bus) == 0);
	if (!bus && s->bus)
		conf_problem(report, stop, file, number, "no `listener 0 %s`: our services could not reach the broker", s->bus);
	s->has_acl_file = b->has_acl_file;
	s->has_password_file = b->has_password_file;
	s->allow_anonymous = b->anonymous == CONF_ANONYMOUS_YES || (b->anonymous == CONF_ANONYMOUS_UNSET && !b->has_listener);
	s->sessions_file[0] = '\0';
	if (b->persistence && b->location[0])
		(void)snprintf(s->sessions_file, sizeof(s->sessions_file), "%s/%s", b->location, /* always fits */
			       b->persistence_file[0] ? b->persistence_file : "mosquitto.db");
}
