/*
 * The topic tree, read level by level. A cursor walks over the text; each kind of topic takes the levels it
 * needs and must then be at the end. What begins with our first level but does not read to its end is BAD
 * with a sentence, never PLAIN: so no misspelt topic falls through to rights that were meant for others'.
 */
#include "wire/topic.h"

#include <assert.h>
#include <string.h>

enum { SLASHES_MAX = 7 }; /* brokers in the field limit the levels of a topic; AWS IoT has the lowest number */

/* ---------------------------------------------------------------- levels */

struct levels {
	const char *at; /* NULL: behind the last one */
};

/* The next level; an empty span with text NULL when there is none. */
static struct im_span next_level(struct levels *l)
{
	struct im_span s = {NULL, 0};

	if (!l->at)
		return s;
	s.text = l->at;
	s.len = strcspn(l->at, "/");
	l->at = s.text[s.len] == '/' ? s.text + s.len + 1 : NULL;
	return s;
}

static bool is(struct im_span s, const char *word)
{
	return s.text && s.len == strlen(word) && memcmp(s.text, word, s.len) == 0;
}

static enum im_codec codec_of(struct im_span s)
{
	if (is(s, "in"))
		return IM_CODEC_JSON;
	if (is(s, "raw"))
		return IM_CODEC_RAW;
	return is(s, "pb") ? IM_CODEC_PB : IM_CODEC_NONE;
}

const char *im_codec_level(enum im_codec codec)
{
	static const char *const level[] = {"none", "in", "raw", "pb"};

	return (unsigned)codec <= IM_CODEC_PB ? level[codec] : level[0];
}

/* Room topics name the codec by its format: {json|pb}. */
static enum im_codec room_codec(struct im_span s)
{
	if (is(s, "json"))
		return IM_CODEC_JSON;
	return is(s, "pb") ? IM_CODEC_PB : IM_CODEC_NONE;
}

static const char *too_long(const char *text)
{
	size_t slashes = 0, len;

	for (len = 0; text[len]; len++)
		slashes += text[len] == '/';
	if (len > IM_TOPIC_MAX)
		return "The topic is longer than 256 bytes.";
	return slashes > SLASHES_MAX ? "The topic has more than 7 slashes." : NULL;
}

/* ---------------------------------------------------------------- topics */

static void bad(struct im_topic *t, enum im_refusal_code code, const char *why)
{
	memset(t, 0, sizeof(*t));
	t->kind = IM_TOPIC_BAD;
	t->code = code;
	t->why = why;
}

/* {u|g}/{name} into t->conv. */
static bool parse_conv(struct levels *l, struct im_topic *t)
{
	struct im_span kind = next_level(l), name = next_level(l);

	if (!is(kind, "u") && !is(kind, "g")) {
		bad(t, IM_REFUSE_BAD_TOPIC, "An address is u/{user} or g/{group}; this topic has neither.");
		return false;
	}
	if (!name.text) {
		bad(t, IM_REFUSE_BAD_TOPIC, "The topic ends before the name of the user or group.");
		return false;
	}
	if (!im_name_valid(name.text, name.len)) {
		bad(t, IM_REFUSE_BAD_NAME,
		    "The name in the topic is not 1 to 64 of a-z 0-9 . _ @ - beginning with a letter or digit, or is reserved.");
		return false;
	}
	t->conv.text = kind.text;
	t->conv.len = kind.len + 1 + name.len;
	return true;
}

static bool parse_id(struct levels *l, struct im_topic *t)
{
	struct im_span id = next_level(l);

	if (!id.text || !im_id_valid(id.text, id.len)) {
		bad(t, IM_REFUSE_BAD_ID, "The id at the end of the topic is not 1 to 64 of A-Z a-z 0-9 . _ : ~ -.");
		return false;
	}
	t->id = id;
	return true;
}

static bool word_valid(struct im_span s)
{
	if (!s.text || s.len < 1 || s.len > IM_NAME_MAX)
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (!(s.text[i] >= 'a' && s.text[i] <= 'z') && !(s.text[i] >= '0' && s.text[i] <= '9') &&
		    !strchr("._-", s.text[i]))
			return false;
	return true;
}

static void parse_to(struct levels *l, struct im_topic *t)
{
	t->kind = IM_TOPIC_TO;
	if (parse_conv(l, t) && l->at)
		(void)parse_id(l, t); /* has made it BAD if it is */
}

static void parse_sig(struct levels *l, struct im_topic *t)
{
	t->kind = IM_TOPIC_SIG;
	(void)parse_conv(l, t);
}

static void parse_send(struct levels *l, struct im_topic *t)
{
	t->kind = IM_TOPIC_SEND;
	if (!l->at)
		return;
	t->kind = IM_TOPIC_SEND_PB;
	if (!is(next_level(l), "pb"))
		bad(t, IM_REFUSE_BAD_TOPIC, "Envelopes are sent on im/v1/send (JSON) or im/v1/send/pb (Protocol Buffers).");
}

static void parse_ack(struct levels *l, struct im_topic *t)
{
	(void)l;
	t->kind = IM_TOPIC_ACK;
}

static void parse_req(struct levels *l, struct im_topic *t)
{
	t->kind = IM_TOPIC_REQ;
	t->method = next_level(l);
	if (!word_valid(t->method))
		bad(t, IM_REFUSE_BAD_TOPIC, "Requests are im/v1/req/{method}/{request id}; the method is 1 to 64 of a-z 0-9 . _ -.");
	else if (!l->at)
		bad(t, IM_REFUSE_BAD_TOPIC, "The request id is missing: im/v1/req/{method}/{request id}.");
	else
		(void)parse_id(l, t);
}

static void parse_svc(struct levels *l, struct im_topic *t)
{
	struct im_span service = next_level(l), method = next_level(l);

	t->kind = IM_TOPIC_SVC;
	if (!word_valid(service) || !word_valid(method) || !l->at) {
		bad(t, IM_REFUSE_BAD_TOPIC, "Service requests are im/v1/svc/{service}/{method}/{request id}.");
		return;
	}
	t->method.text = service.text;
	t->method.len = service.len + 1 + method.len;
	(void)parse_id(l, t);
}

static void parse_room(struct levels *l, struct im_topic *t)
{
	struct im_span group = next_level(l);

	t->kind = IM_TOPIC_ROOM;
	t->codec = room_codec(next_level(l));
	if (!group.text || !t->codec)
		bad(t, IM_REFUSE_BAD_TOPIC, "Rooms are im/v1/room/{group}/json and im/v1/room/{group}/pb.");
	else if (!im_name_valid(group.text, group.len))
		bad(t, IM_REFUSE_BAD_NAME, "The group's name in the topic does not follow the grammar of names.");
}

static void parse_inbox(struct levels *l, struct im_topic *t, enum im_codec codec)
{
	t->kind = IM_TOPIC_INBOX;
	t->codec = codec;
	l->at = NULL;
}

static void parse_ours(struct levels *l, struct im_topic *t)
{
	static const struct {
		const char *word;
		void (*parse)(struct levels *l, struct im_topic *t);
	} kinds[] = {
		{"to", parse_to}, {"send", parse_send}, {"ack", parse_ack}, {"sig", parse_sig},
		{"req", parse_req}, {"svc", parse_svc}, {"room", parse_room},
	};
	struct im_span version = next_level(l), word = next_level(l);

	if (!is(version, "v1")) {
		bad(t, IM_REFUSE_BAD_TOPIC, "Topics of this server begin with im/v1/.");
		return;
	}
	if (codec_of(word)) {
		parse_inbox(l, t, codec_of(word));
		return;
	}
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (is(word, kinds[i].word)) {
			kinds[i].parse(l, t);
			if (t->kind != IM_TOPIC_BAD && l->at)
				bad(t, IM_REFUSE_BAD_TOPIC, "The topic has more levels than this kind of topic takes.");
			return;
		}
	}
	bad(t, IM_REFUSE_BAD_TOPIC, "After im/v1/ comes one of to, send, ack, sig, req.");
}

static void parse_control(const char *topic, struct levels *l, struct im_topic *t)
{
	if (!is(next_level(l), "im"))
		return; /* another plugin's */
	if (strcmp(topic, "$CONTROL/im/v1") == 0)
		t->kind = IM_TOPIC_CONTROL;
	else if (strcmp(topic, "$CONTROL/im/v1/response") == 0)
		t->kind = IM_TOPIC_CONTROL_RESPONSE;
	else
		bad(t, IM_REFUSE_BAD_TOPIC, "Admin commands go to $CONTROL/im/v1.");
}

void im_topic_parse(const char *topic, struct im_topic *out)
{
	struct levels l = {topic};
	struct im_span first = next_level(&l);
	const char *why;

	memset(out, 0, sizeof(*out)); /* PLAIN */
	if (is(first, "im")) {
		why = too_long(topic);
		if (why)
			bad(out, IM_REFUSE_BAD_TOPIC, why);
		else
			parse_ours(&l, out);
	} else if (is(first, "$CONTROL")) {
		parse_control(topic, &l, out);
	} else if (is(first, "$im")) {
		out->kind = IM_TOPIC_BUS;
		if (!l.at)
			bad(out, IM_REFUSE_BAD_TOPIC, "$im alone is no topic of the bus.");
	}
}

/* ---------------------------------------------------------------- filters */

static void bad_filter(struct im_filter *f, const char *why)
{
	f->kind = IM_FILTER_BAD;
	f->codec = IM_CODEC_NONE;
	f->why = why;
}

static bool has_wildcard(struct im_span s)
{
	return s.text && (memchr(s.text, '+', s.len) || memchr(s.text, '#', s.len));
}

static void filter_room(struct levels *l, struct im_filter *f)
{
	struct im_span group = next_level(l), codec = next_level(l);

	f->kind = IM_FILTER_ROOM;
	f->codec = room_codec(codec);
	if (!group.text || !f->codec || l->at || !im_name_valid(group.text, group.len))
		bad_filter(f, "Rooms are subscribed to one by one, as im/v1/room/{group}/json or im/v1/room/{group}/pb.");
}

static void filter_ours(struct levels *l, struct im_filter *f)
{
	struct im_span version = next_level(l), word = next_level(l);

	if (has_wildcard(version) || has_wildcard(word)) {
		bad_filter(f, "Below im/ wildcards may stand only behind the codec: im/v1/in/#, im/v1/raw/# or im/v1/pb/#.");
	} else if (!is(version, "v1") || !word.text) {
		bad_filter(f, "Filters of this server begin with im/v1/in/, im/v1/raw/ or im/v1/pb/.");
	} else if (is(word, "room")) {
		filter_room(l, f);
	} else if (!codec_of(word)) {
		bad_filter(f, "Clients receive below im/v1/in/, im/v1/raw/ or im/v1/pb/ only; what is sent elsewhere is not forwarded.");
	} else if (!l->at) {
		bad_filter(f, "Nothing comes on this level itself; subscribe to what is below it, as in im/v1/in/#.");
	} else {
		f->kind = IM_FILTER_INBOX;
		f->codec = codec_of(word);
	}
}

static void filter_control(const char *filter, struct levels *l, struct im_filter *f)
{
	if (!is(next_level(l), "im"))
		return; /* another plugin's, or a wildcard: the caller decides */
	if (im_filter_matches(filter, "$CONTROL/im/v1/response"))
		f->kind = IM_FILTER_CONTROL_RESPONSE;
	else
		bad_filter(f, "Below $CONTROL/im/ only $CONTROL/im/v1/response can be subscribed to.");
}

void im_filter_parse(const char *filter, struct im_filter *out)
{
	struct levels l = {filter};
	struct im_span first = next_level(&l);

	memset(out, 0, sizeof(*out)); /* PLAIN */
	while (is(first, "$share")) {
		out->shared = true;
		(void)next_level(&l); /* the share's name */
		filter = l.at;
		if (!filter)
			return; /* names no filter; the broker refuses it */
		first = next_level(&l);
	}
	if (is(first, "im"))
		filter_ours(&l, out);
	else if (is(first, "$CONTROL"))
		filter_control(filter, &l, out);
	else if (is(first, "$im"))
		out->kind = IM_FILTER_BUS;
	if (out->shared && out->kind != IM_FILTER_PLAIN)
		bad_filter(out, "A shared subscription would give your messages to others; subscribe without $share.");
	else if (out->kind != IM_FILTER_PLAIN && out->kind != IM_FILTER_BAD && strlen(filter) > IM_TOPIC_MAX)
		bad_filter(out, "The filter is longer than 256 bytes.");
}

bool im_filter_matches(const char *filter, const char *topic)
{
	struct levels f = {filter}, t = {topic};
	bool first = true;

	assert(filter && topic);
	for (;; first = false) {
		struct im_span want = next_level(&f), have = next_level(&t);

		if (is(want, "#"))
			return !(first && topic[0] == '$'); /* also the level above: sport/# has sport */
		if (!want.text || !have.text)
			return !want.text && !have.text;
		if (is(want, "+")) {
			if (first && topic[0] == '$')
				return false;
		} else if (want.len != have.len || memcmp(want.text, have.text, want.len) != 0) {
			return false;
		}
	}
}
