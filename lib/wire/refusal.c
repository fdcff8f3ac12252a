/*
 * The table of refusals. The order is that of enum im_refusal_code; docs/errors.md has one section per
 * name. A reason that reaches a client is made printable here, since it may quote what the client sent.
 */
#include "wire/refusal.h"

#include "wire/name.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	const char *reason;
	const char *fix;
} table[IM_REFUSE_COUNT] = {
	[IM_REFUSE_NONE] = {"none", "Nothing was refused.", "Nothing to do."},
	[IM_REFUSE_BAD_TOPIC] = {"bad_topic", "This topic lies below im/ but is none of the protocol's topics.",
		"Publish to im/v1/to/u/{user}, im/v1/to/g/{group} or another topic of docs/protocol.md."},
	[IM_REFUSE_BAD_NAME] = {"bad_name", "A user or group name does not follow the grammar.",
		"Use 1 to 64 of a-z 0-9 . _ @ - and begin with a letter or digit; all, me and system are reserved."},
	[IM_REFUSE_BAD_ID] = {"bad_id", "A message or request id does not follow the grammar.",
		"Use 1 to 64 of A-Z a-z 0-9 . _ : ~ - for ids."},
	[IM_REFUSE_BAD_JSON] = {"bad_json", "The payload is not the JSON that belongs here.",
		"Correct the JSON; docs/protocol.md lists the fields and their types."},
	[IM_REFUSE_BAD_PB] = {"bad_pb", "The payload is not the Protocol Buffers message that belongs here.",
		"Encode the message as proto/im.proto has it."},
	[IM_REFUSE_BAD_FIELD] = {"bad_field", "A field has a value that cannot be.",
		"Correct the field named in the reason; docs/protocol.md has its limits."},
	[IM_REFUSE_BAD_CURSOR] = {"bad_cursor", "A cursor points to where there is nothing for you.",
		"Acknowledge only sequences that you received, in conversations you are in."},
	[IM_REFUSE_UNKNOWN_USER] = {"unknown_user", "There is no user of this name.",
		"Check the spelling; an admin adds users with imctl user add."},
	[IM_REFUSE_UNKNOWN_GROUP] = {"unknown_group", "There is no group of this name.",
		"Check the spelling; an admin adds groups with imctl group create."},
	[IM_REFUSE_NOT_MEMBER] = {"not_member", "You are not a member of this group.",
		"Ask the group's owner or an admin to add you."},
	[IM_REFUSE_BLOCKED] = {"blocked", "The receiver does not take messages from you.",
		"Nothing can be sent until the receiver lifts the block."},
	[IM_REFUSE_TOO_BIG] = {"too_big", "The message is larger than this server takes.",
		"Send less, or put the content elsewhere and send a link; the limit is im_max_message."},
	[IM_REFUSE_TOO_FAST] = {"too_fast", "More messages per second than allowed.",
		"Slow down and send it again; the limits are im_rate_user and im_rate_connection."},
	[IM_REFUSE_RETAINED] = {"retained", "The retain flag means nothing on a message: every message is kept anyway.",
		"Publish without the retain flag."},
	[IM_REFUSE_ID_REUSED] = {"id_reused", "This message id was used before for a message with other content.",
		"Give every new message a new id; repeat an id only with the same content."},
	[IM_REFUSE_UNKNOWN_METHOD] = {"unknown_method", "There is no such request or command.",
		"Check the method in the topic im/v1/req/{method}/{request id}; docs/protocol.md lists them."},
	[IM_REFUSE_NOT_ALLOWED] = {"not_allowed", "You may not do that.",
		"Ask an admin; imctl why shows the rule that decides."},
	[IM_REFUSE_READ_ONLY_TOPIC] = {"read_only_topic", "Only the server publishes on this topic.",
		"Send with im/v1/to/u/{user} or im/v1/to/g/{group}."},
	[IM_REFUSE_CODEC] = {"second_codec", "This device already uses another codec.",
		"Subscribe to one of im/v1/in, im/v1/raw and im/v1/pb; unsubscribe the other first."},
	[IM_REFUSE_TOO_MANY] = {"too_many", "More of these than allowed.",
		"Use fewer, or ask an admin to raise the limit."},
	[IM_REFUSE_JOURNAL_FULL] = {"journal_full", "The server's journal is full, because the message service lags behind.",
		"Send it again later with the same id; admins: see imctl status."},
	[IM_REFUSE_JOURNAL_FAILED] = {"journal_failed", "The server could not write its journal.",
		"Send it again later with the same id; admins: see the broker's log and the disk."},
	[IM_REFUSE_NOT_FOUND] = {"not_found", "What was asked for does not exist.",
		"Check the name or number that was given."},
	[IM_REFUSE_EXISTS] = {"exists", "It exists already.",
		"Choose another name, or change the one that is there."},
	[IM_REFUSE_UNAVAILABLE] = {"unavailable", "A part of the server is not running at the moment.",
		"Try again in a few seconds."},
	[IM_REFUSE_INTERNAL] = {"internal", "The server failed to do this; the reason is in its log.",
		"Try again; if it stays, tell the admin the time and the id."},
};

const char *im_refusal_name(enum im_refusal_code code)
{
	return (unsigned)code < IM_REFUSE_COUNT ? table[code].name : table[IM_REFUSE_INTERNAL].name;
}

enum im_refusal_code im_refusal_find(const char *name)
{
	for (int i = IM_REFUSE_NONE + 1; i < IM_REFUSE_COUNT; i++)
		if (strcmp(table[i].name, name) == 0)
			return (enum im_refusal_code)i;
	return IM_REFUSE_NONE;
}

/* Control characters and broken UTF-8, as a cut at the end leaves it, become '?'. */
static void make_printable(char *text)
{
	size_t len = strlen(text), n;

	for (size_t i = 0; i < len; i += n) {
		n = im_utf8_char(text + i, len - i);
		if (n == 0 || (unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
			text[i] = '?';
			n = 1;
		}
	}
}

void im_refuse(struct im_refusal *r, enum im_refusal_code code, const char *fmt, ...)
{
	va_list ap;

	if ((unsigned)code >= IM_REFUSE_COUNT)
		code = IM_REFUSE_INTERNAL;
	r->code = code;
	(void)snprintf(r->fix, sizeof(r->fix), "%s", table[code].fix);
	if (!fmt) {
		(void)snprintf(r->reason, sizeof(r->reason), "%s", table[code].reason);
		return;
	}
	va_start(ap, fmt);
	(void)vsnprintf(r->reason, sizeof(r->reason), fmt, ap); /* cut where it is too long */
	va_end(ap);
	make_printable(r->reason);
}
