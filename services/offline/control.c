/*
 * One list of commands at a time per message; the next command starts when the one before has ended. Responses
 * are gathered into packets of at most COMMAND_ANSWER_MAX bytes; what does not fit goes into a further packet.
 */
#include "control.h"

#include "base/buf.h"
#include "wire/codec.h"
#include "wire/envelope.h"

#include <stdlib.h>
#include <string.h>

struct list {
	struct command_env *env;
	json_t *root;
	const json_t *commands;   /* in root */
	size_t at;
	uint64_t session;
	char *user, *client_id;
	struct im_buf packet;     /* responses so far, with commas */
};

static void list_free(struct list *l)
{
	json_decref(l->root);
	free(l->user);
	free(l->client_id);
	im_buf_finish(&l->packet);
	l->env->lists--;
	command_env_unref(l->env);
	free(l);
}

static void send_packet(struct list *l)
{
	struct im_buf whole;

	if (l->packet.len == 0)
		return;
	im_buf_init(&whole);
	im_buf_add_str(&whole, "{\"responses\":[");
	im_buf_add(&whole, l->packet.data, l->packet.len);
	im_buf_add_str(&whole, "]}");
	if (whole.failed || l->packet.failed)
		im_log(IM_LOG_ERROR, "evt=control_response_lost client_id=%s reason=\"out of memory\"", l->client_id);
	else
		delivery_send(l->env->delivery, l->session, CONTROL_RESPONSE, whole.data, whole.len);
	im_buf_finish(&whole);
	im_buf_clear(&l->packet);
}

static void add_response(struct list *l, struct im_buf *one)
{
	if (l->packet.len > 0 && l->packet.len + one->len + 32 > COMMAND_ANSWER_MAX)
		send_packet(l);
	if (l->packet.len > 0)
		im_buf_add_char(&l->packet, ',');
	im_buf_add(&l->packet, one->data, one->len);
	l->packet.failed |= one->failed;
}

/* {"command":...,"correlationData":..., and leaves the object open. */
static void begin_response(struct list *l, struct im_buf *out)
{
	const json_t *command = json_array_get(l->commands, l->at);
	const json_t *name = json_object_get(command, "command"), *correlation = json_object_get(command, "correlationData");
	const char *text = json_is_string(name) ? json_string_value(name) : "";

	im_buf_add_str(out, "{\"command\":");
	im_json_string(out, text, strlen(text));
	if (json_is_string(correlation)) {
		im_buf_add_str(out, ",\"correlationData\":");
		im_json_string(out, json_string_value(correlation), json_string_length(correlation));
	}
}

static void add_text_field(struct im_buf *out, const char *name, const char *value)
{
	im_buf_printf(out, ",\"%s\":", name);
	im_json_string(out, value, strlen(value));
}

static void add_refusal(struct im_buf *out, const struct im_refusal *why)
{
	add_text_field(out, "error", why->reason);
	add_text_field(out, "code", im_refusal_name(why->code));
	add_text_field(out, "fix", why->fix);
}

static void refuse(struct list *l, enum im_refusal_code code, const char *reason)
{
	struct im_refusal why;
	struct im_buf one;

	im_refuse(&why, code, "%s", reason);
	im_buf_init(&one);
	begin_response(l, &one);
	add_refusal(&one, &why);
	im_buf_add_char(&one, '}');
	add_response(l, &one);
	im_buf_finish(&one);
}

static void add_messages(const struct call *call, struct im_buf *out)
{
	for (size_t i = 0; i < call->n_messages; i++) {
		Im__V1__Message view = IM__V1__MESSAGE__INIT;

		if (i > 0)
			im_buf_add_char(out, ',');
		message_view(call->messages[i], call->conv, &view);
		im_codec_message_json(&view, out);
	}
}

/* The result's fields, then messages, more and next, as in answers to clients. */
static void add_data(const struct call *call, struct im_buf *out)
{
	char *fields = json_dumps(call->result, JSON_COMPACT);
	size_t len = fields != NULL ? strlen(fields) : 0;

	im_buf_add_str(out, ",\"data\":{");
	if (len > 2) {
		im_buf_add(out, fields + 1, len - 2);
		im_buf_add_char(out, ',');
	}
	if (len < 2)
		out->failed = true;
	free(fields);
	if (call->command->run == command_history) {
		im_buf_add_str(out, "\"messages\":[");
		add_messages(call, out);
		im_buf_add_str(out, "],");
	}
	im_buf_printf(out, "\"more\":%s", call->more ? "true" : "false");
	if (call->more)
		add_text_field(out, "next", call->next);
	im_buf_add_char(out, '}');
}

static void run_next(struct list *l);

static void on_end(struct call *call, void *arg)
{
	struct list *l = arg;
	struct im_buf one;

	if (l->env->closed) {
		list_free(l);
		return;
	}
	im_buf_init(&one);
	begin_response(l, &one);
	if (call->refusal.code != IM_REFUSE_NONE)
		add_refusal(&one, &call->refusal);
	else
		add_data(call, &one);
	im_buf_add_char(&one, '}');
	im_log(call->refusal.code == IM_REFUSE_NONE ? IM_LOG_INFO : IM_LOG_NOTICE, "evt=command command=%s by=%s client_id=%s code=%s",
	       call->command != NULL ? call->command->name : "unknown", l->user[0] ? l->user : "imctl", l->client_id,
	       call->refusal.code == IM_REFUSE_NONE ? "ok" : im_refusal_name(call->refusal.code));
	add_response(l, &one);
	im_buf_finish(&one);
	l->at++;
	run_next(l);
}

static void run_next(struct list *l)
{
	for (; l->at < json_array_size(l->commands); l->at++) {
		const json_t *command = json_array_get(l->commands, l->at), *name = json_object_get(command, "command");
		const json_t *correlation = json_object_get(command, "correlationData");
		json_t *args;

		if (!json_is_string(name) || (correlation != NULL && !json_is_string(correlation))) {
			refuse(l, IM_REFUSE_BAD_JSON, "a command is {\"command\":\"...\",\"correlationData\":\"...\", arguments}");
			continue;
		}
		args = json_copy((json_t *)command);
		json_object_del(args, "command");
		json_object_del(args, "correlationData");
		if (args != NULL && call_start(l->env, json_string_value(name), args, true, l->user, l->client_id, l->session, on_end, l))
			return;
		refuse(l, IM_REFUSE_INTERNAL, "out of memory");
	}
	send_packet(l);
	list_free(l);
}

/* The plugin has let only admins through; settings may have changed since. */
static bool is_admin(const struct im_settings *settings, const char *user)
{
	size_t len = strlen(user);

	if (len == 0)
		return true; /* the service credential */
	for (const char *p = settings->admins != NULL ? settings->admins : ""; *p != '\0';) {
		size_t n;

		p += strspn(p, ", \t");
		n = strcspn(p, ", \t");
		if (n == len && memcmp(p, user, n) == 0)
			return true;
		p += n;
	}
	return false;
}

void control_run(struct command_env *env, const Im__Bus__Control *control)
{
	struct list *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return; /* the asker's timeout tells */
	l->env = env;
	env->refs++;
	env->lists++;
	im_buf_init(&l->packet);
	l->session = control->session;
	l->user = strdup(control->user);
	l->client_id = strdup(control->client_id);
	if (l->user == NULL || l->client_id == NULL) {
		list_free(l);
		return;
	}
	if (control->json.len <= IM_REQUEST_MAX)
		l->root = json_loadb((const char *)control->json.data, control->json.len, JSON_REJECT_DUPLICATES, NULL);
	l->commands = json_object_get(l->root, "commands");
	if (!is_admin(env->settings, l->user))
		refuse(l, IM_REFUSE_NOT_ALLOWED, "only admins (im_admins) may send commands");
	else if (env->lists > CONTROL_LISTS_MAX)
		refuse(l, IM_REFUSE_TOO_FAST, "too many lists of commands are under way");
	else if (!json_is_array(l->commands) || json_object_size(l->root) != 1)
		refuse(l, IM_REFUSE_BAD_JSON, "the payload is {\"commands\":[...]} of at most 65536 bytes");
	else {
		run_next(l);
		return;
	}
	send_packet(l);
	list_free(l);
}
