/*
 * Apple's answers and what each leads to.
 *
 * The difficult idea is what to do with words that are not in the table: a 4xx is not repeated and costs no token, a 5xx is
 * repeated, and whatever smells of credentials or of a proxy in between (3xx, 401, 403) is a fault of the configuration, which loses
 * nothing.
 */
#include "reaction.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <strings.h>

struct row {
	int status;
	const char *reason;
	enum push_class class;
	unsigned act;
};

static const struct row rows[] = {
	{400, "BadDeviceToken", PUSH_TOKEN_ENV, 0}, /* without another environment: PUSH_TOKEN_INVALID */
	{400, "DeviceTokenNotForTopic", PUSH_TOKEN_INVALID, 0},
	{400, "TopicDisallowed", PUSH_CONFIG, 0},
	{400, "BadTopic", PUSH_CONFIG, 0},
	{400, "MissingTopic", PUSH_CONFIG, 0},
	{400, "BadCollapseId", PUSH_BUG, 0},
	{400, "BadExpirationDate", PUSH_BUG, 0},
	{400, "BadMessageId", PUSH_BUG, 0},
	{400, "BadPriority", PUSH_BUG, 0},
	{400, "InvalidPushType", PUSH_BUG, 0},
	{400, "DuplicateHeaders", PUSH_BUG, 0},
	{400, "MissingDeviceToken", PUSH_BUG, 0},
	{400, "PayloadEmpty", PUSH_BUG, 0},
	{400, "IdleTimeout", PUSH_UNSENT, REACTION_RECONNECT},
	{403, "BadCertificate", PUSH_CONFIG, REACTION_RECONNECT},
	{403, "BadCertificateEnvironment", PUSH_CONFIG, REACTION_RECONNECT},
	{403, "ExpiredProviderToken", PUSH_AUTH, REACTION_RECONNECT | REACTION_JWT_EXPIRED},
	{403, "InvalidProviderToken", PUSH_CONFIG, 0},
	{403, "MissingProviderToken", PUSH_BUG, 0}, /* with a certificate: PUSH_CONFIG */
	{403, "UnrelatedKeyIdInToken", PUSH_AUTH, REACTION_RECONNECT},
	{403, "BadEnvironmentKeyIdInToken", PUSH_CONFIG, 0}, /* as documented */
	{403, "BadEnvironmentKeyInToken", PUSH_CONFIG, 0},   /* as seen */
	{403, "Forbidden", PUSH_CONFIG, 0},
	{404, "BadPath", PUSH_BUG, 0},
	{405, "MethodNotAllowed", PUSH_BUG, 0},
	{410, "Unregistered", PUSH_TOKEN_INVALID, 0},
	{410, "ExpiredToken", PUSH_TOKEN_INVALID, 0},
	{413, "PayloadTooLarge", PUSH_TOO_LARGE, 0},
	{429, "TooManyRequests", PUSH_TOKEN_RATE, 0},
	{429, "TooManyProviderTokenUpdates", PUSH_RATE, REACTION_JWT_TOO_MANY},
	{500, "InternalServerError", PUSH_RETRY, 0},
	{503, "ServiceUnavailable", PUSH_RETRY, REACTION_RECONNECT},
	{503, "Shutdown", PUSH_RETRY, REACTION_RECONNECT},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

#define BUSY_MS 5000        /* least waits after a 5xx */
#define BUSY_LONG_MS 900000
#define BUSY_LONG_FROM 4u   /* attempts */

/* A token's time below this is in seconds: in milliseconds it would be before 1973. */
#define SECONDS_BELOW 100000000000LL

static const struct row *find(const char *reason)
{
	for (size_t i = 0; i < ROWS; i++)
		if (strcmp(rows[i].reason, reason) == 0)
			return &rows[i];
	return NULL;
}

static void read_reason(const json_t *answer, char reason[PUSH_REASON_MAX])
{
	const char *word = json_string_value(json_object_get(answer, "reason"));
	size_t n = 0;

	for (; word && *word && n + 1 < PUSH_REASON_MAX; word++)
		reason[n++] = (char)(*word > 0x20 && *word < 0x7f && *word != '"' ? *word : '?');
	reason[n] = '\0';
}

static int64_t read_time(const json_t *answer, int64_t now_ms)
{
	const json_t *t = json_object_get(answer, "timestamp");
	double ms = json_number_value(t); /* 0 if it is none */

	if (!isfinite(ms) || ms <= 0)
		return 0;
	if (ms < SECONDS_BELOW)
		ms *= 1000;
	return ms < (double)now_ms ? (int64_t)ms : now_ms;
}

int64_t reaction_read(const void *body, size_t len, int64_t now_ms, char reason[PUSH_REASON_MAX])
{
	json_t *answer = json_loadb(body, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
	int64_t since = 0;

	reason[0] = '\0';
	if (json_is_object(answer)) {
		read_reason(answer, reason);
		since = read_time(answer, now_ms);
	}
	json_decref(answer);
	return since;
}

static enum push_class class_of_status(int status)
{
	switch (status) {
	case 401: case 403: case 407:
		return PUSH_CONFIG;
	case 408:
		return PUSH_RETRY;
	case 413:
		return PUSH_TOO_LARGE;
	case 429:
		return PUSH_RATE;
	}
	switch (status / 100) {
	case 2: return PUSH_ACCEPTED;
	case 3: return PUSH_CONFIG; /* a proxy or a portal: never followed */
	case 4: return PUSH_BUG;
	default: return PUSH_RETRY;
	}
}

/* A word Apple uses, under another status of the same hundred: known, but no proof against a token. */
static enum push_class class_of_row(const struct row *row, int status, const struct reaction_case *c)
{
	bool costs = row->class == PUSH_TOKEN_INVALID || row->class == PUSH_TOKEN_ENV;

	if (row->status != status && (costs || row->status / 100 != status / 100))
		return class_of_status(status);
	if (row->class == PUSH_TOKEN_ENV && !c->other_env)
		return PUSH_TOKEN_INVALID;
	if (row->class == PUSH_BUG && c->certificate && strcmp(row->reason, "MissingProviderToken") == 0)
		return PUSH_CONFIG;
	return row->class;
}

/* A chat does not wait the 15 minutes that Apple asks for at once; who is still told so the fourth time does. */
static int64_t busy_ms(unsigned attempt)
{
	return attempt < BUSY_LONG_FROM ? BUSY_MS : BUSY_LONG_MS;
}

unsigned reaction_of(const struct reaction_case *c, struct push_result *out)
{
	int64_t since = 0;
	const struct row *row;
	unsigned act;

	out->status = c->status;
	if (c->status / 100 == 2) {
		out->class = PUSH_ACCEPTED;
		return REACTION_NOTHING;
	}
	since = reaction_read(c->body, c->len, c->now_ms, out->reason);
	row = out->reason[0] ? find(out->reason) : NULL;
	if (row) {
		out->class = class_of_row(row, c->status, c);
		act = row->act;
	} else if (c->status == 410 && !out->reason[0]) {
		out->class = PUSH_TOKEN_INVALID;
		act = REACTION_NOTHING;
	} else {
		out->class = class_of_status(c->status);
		act = REACTION_UNKNOWN;
	}
	if (out->class == PUSH_TOKEN_INVALID && c->status == 410)
		out->invalid_since_ms = since;
	if (c->retry_after[0])
		out->retry_after_ms = push_retry_after(c->retry_after, c->now_ms);
	if (out->class == PUSH_RETRY && c->status >= 500 && out->retry_after_ms < busy_ms(c->attempt))
		out->retry_after_ms = busy_ms(c->attempt);
	return act;
}

enum push_class reaction_of_goaway(const char *reason)
{
	const struct row *row = find(reason);

	return row && row->class == PUSH_CONFIG ? PUSH_CONFIG : PUSH_UNSENT;
}

const char *reaction_label(const char *reason)
{
	const struct row *row = find(reason);

	return row ? row->reason : reason[0] ? "other" : "none";
}
