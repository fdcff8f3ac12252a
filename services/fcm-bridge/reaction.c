#include "reaction.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define QUOTA_MS 60000 /* least waits that Google asks for, unless it says more */
#define BUSY_MS 10000
#define DEPTH_MOST 32  /* an answer nested deeper is nobody's */

struct row {
	const char *code;
	enum push_class class;
	int64_t least_ms;
};

static const struct row codes[] = {
	{ "UNREGISTERED", PUSH_TOKEN_INVALID, 0 },
	{ "SENDER_ID_MISMATCH", PUSH_TOKEN_INVALID, 0 },
	{ "THIRD_PARTY_AUTH_ERROR", PUSH_CONFIG, 0 },
	{ "APNS_AUTH_ERROR", PUSH_CONFIG, 0 },
	{ "QUOTA_EXCEEDED", PUSH_RATE, QUOTA_MS },
	{ "UNAVAILABLE", PUSH_RETRY, BUSY_MS },
	{ "INTERNAL", PUSH_RETRY, BUSY_MS },
	{ "UNSPECIFIED_ERROR", PUSH_RETRY, BUSY_MS },
};

/* Without an FcmError the status says whom it concerns; never the token. */
static struct row by_status(int status)
{
	switch (status) {
	case 401:
		return (struct row){ "", PUSH_AUTH, 0 };
	case 403:
	case 404:
		return (struct row){ "", PUSH_CONFIG, 0 };
	case 413:
		return (struct row){ "", PUSH_TOO_LARGE, 0 };
	case 408:
	case 429:
		return (struct row){ "", PUSH_RATE, QUOTA_MS };
	default:
		return (struct row){ "", status >= 500 ? PUSH_RETRY : PUSH_BUG, status >= 500 ? BUSY_MS : 0 };
	}
}

static bool is_type(const json_t *detail, const char *end)
{
	const char *type = json_string_value(json_object_get(detail, "@type"));
	size_t len = type ? strlen(type) : 0, n = strlen(end);

	return len >= n && strcmp(type + len - n, end) == 0;
}

static const char *fcm_error(const json_t *details)
{
	const json_t *d;
	size_t i;

	json_array_foreach (details, i, d)
		if (is_type(d, "google.firebase.fcm.v1.FcmError"))
			return json_string_value(json_object_get(d, "errorCode"));
	return NULL;
}

static bool blames_token(const json_t *details)
{
	const json_t *d, *v;
	size_t i, k;

	json_array_foreach (details, i, d) {
		if (!is_type(d, "google.rpc.BadRequest"))
			continue;
		json_array_foreach (json_object_get(d, "fieldViolations"), k, v) {
			const char *field = json_string_value(json_object_get(v, "field"));

			if (field && strcmp(field, "message.token") == 0)
				return true;
		}
	}
	return false;
}

/* INVALID_ARGUMENT is the token's only if that is said of it; else it is our message. */
static enum push_class invalid_argument(const json_t *details, const char *message, bool from_fcm)
{
	if (blames_token(details) || (from_fcm && strcasestr(message, "registration token")))
		return PUSH_TOKEN_INVALID;
	return strcasestr(message, "too big") || strcasestr(message, "too large") ? PUSH_TOO_LARGE : PUSH_BUG;
}

static struct row find(int status, const json_t *error)
{
	const json_t *details = json_object_get(error, "details");
	const char *code = fcm_error(details), *message = json_string_value(json_object_get(error, "message"));
	struct row r = by_status(status);

	if (code && strcmp(code, "INVALID_ARGUMENT") == 0)
		return (struct row){ code, invalid_argument(details, message ? message : "", true), 0 };
	if (!code && status == 400)
		return (struct row){ "INVALID_ARGUMENT", invalid_argument(details, message ? message : "", false), 0 };
	for (size_t i = 0; code && i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(codes[i].code, code) == 0)
			return codes[i];
	if (!code)
		code = json_string_value(json_object_get(error, "status"));
	if (code)
		r.code = code;
	return r;
}

static void set_text(char out[PUSH_REASON_MAX], const char *text)
{
	(void)snprintf(out, PUSH_REASON_MAX, "%s", text);
	for (char *p = out; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f || *p == '"')
			*p = '?';
}

void fcm_reaction(int status, const char *body, size_t len, int64_t retry_after_ms, struct push_result *out)
{
	size_t depth = 0, deepest = 0;
	json_t *answer;
	const char *name;
	struct row r;

	for (size_t i = 0; i < len; i++) {
		depth += body[i] == '{' || body[i] == '[';
		deepest = depth > deepest ? depth : deepest;
		depth -= depth && (body[i] == '}' || body[i] == ']');
	}
	answer = deepest <= DEPTH_MOST ? json_loadb(body, len, 0, NULL) : NULL;
	*out = (struct push_result){ .class = PUSH_ACCEPTED, .status = status };
	if (status >= 200 && status < 300) {
		name = json_string_value(json_object_get(answer, "name"));
		set_text(out->provider_id, name && strrchr(name, '/') ? strrchr(name, '/') + 1 : "");
	} else {
		r = find(status, json_object_get(answer, "error"));
		out->class = r.class;
		if (r.code[0])
			set_text(out->reason, r.code);
		else
			(void)snprintf(out->reason, sizeof(out->reason), "%d", status);
		out->retry_after_ms = retry_after_ms > r.least_ms ? retry_after_ms : r.least_ms;
	}
	json_decref(answer);
}
