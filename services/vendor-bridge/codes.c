#include "codes.h"

#include "codes_built_in.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct codes {
	json_t *all;     /* {provider: {code: class}} */
	const json_t *mine;
};

static const struct {
	const char *name;
	enum push_class class;
} classes[] = {
	{ "ok", PUSH_ACCEPTED },       { "token", PUSH_TOKEN_INVALID }, { "auth", PUSH_AUTH },     { "rate", PUSH_RATE },
	{ "token_rate", PUSH_TOKEN_RATE }, { "quota_day", PUSH_QUOTA }, { "config", PUSH_CONFIG }, { "content", PUSH_CONTENT },
	{ "bug", PUSH_BUG },           { "retry", PUSH_RETRY },         { "minimal", PUSH_TOO_LARGE },
};

static bool class_of(const char *name, enum push_class *out)
{
	for (size_t i = 0; name && i < sizeof(classes) / sizeof(classes[0]); i++)
		if (strcmp(classes[i].name, name) == 0) {
			*out = classes[i].class;
			return true;
		}
	return false;
}

enum im_status codes_read(const char *provider, const char *text, size_t len, struct codes **out, struct im_err *err)
{
	struct codes *c = calloc(1, sizeof(*c));
	enum im_status st = IM_OK;
	enum push_class class;
	json_error_t where;
	const char *code;
	json_t *value;

	if (!c)
		return im_fail(err, IM_FAILED, "out of memory");
	if (!text) {
		text = codes_built_in;
		len = strlen(text);
	}
	c->all = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
	c->mine = json_object_get(c->all, provider);
	if (!c->all)
		st = im_fail(err, IM_BAD_INPUT, "line %d: %s", where.line, where.text);
	else if (!json_is_object(c->mine))
		st = im_fail(err, IM_BAD_INPUT, "has no codes of %s", provider);
	else
		json_object_foreach ((json_t *)(uintptr_t)c->mine, code, value)
			if (!class_of(json_string_value(value), &class))
				st = im_fail(err, IM_BAD_INPUT, "%s %s: no such class", provider, code);
	if (st != IM_OK) {
		codes_free(c);
		return st;
	}
	*out = c;
	return IM_OK;
}

void codes_free(struct codes *c)
{
	if (!c)
		return;
	json_decref(c->all);
	free(c);
}

bool codes_find(const struct codes *c, const char *code, enum push_class *out)
{
	return class_of(json_string_value(json_object_get(c->mine, code)), out);
}
