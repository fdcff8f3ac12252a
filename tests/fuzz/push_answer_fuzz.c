/*
 * What a push provider answers: status, Retry-After and body, to FCM, APNs, the vendors' codes and the token endpoints. The first
 * byte chooses whose. Whatever comes has one class, a printable reason and a wait within bounds; and no token is given up
 * without the word that says so.
 */
#include "fuzz.h"
#include "input.h"

#include "apns-bridge/reaction.h"
#include "fcm-bridge/account.h"
#include "fcm-bridge/reaction.h"
#include "push/sender.h"
#include "vendor-bridge/codes.h"
#include "vendor-bridge/vendor.h"
#include <string.h>

#define NOW_MS 1800000000000
#define TOKEN "AbCdEf0123456789"

static const struct vendor *const vendors[] = { &vendor_huawei, &vendor_harmony, &vendor_xiaomi, &vendor_oppo, &vendor_vivo, &vendor_honor };
#define VENDORS (sizeof(vendors) / sizeof(vendors[0]))

static int status_of(unsigned byte)
{
	static const int often[] = { 0, 200, 302, 400, 401, 403, 404, 405, 410, 413, 429, 500, 503 };

	return byte < sizeof(often) / sizeof(often[0]) ? often[byte] : 100 + (int)byte * 2;
}

static void check_text(const char *text)
{
	must(memchr(text, '\0', PUSH_REASON_MAX));
	for (; *text; text++)
		must(*text >= 0x20 && *text < 0x7f && *text != '"');
}

static void check(const struct push_result *r, int status)
{
	must(r->class <= PUSH_BUG && r->status == status);
	must(r->retry_after_ms == 0 || (r->retry_after_ms >= 1000 && r->retry_after_ms <= 3600000));
	must(r->invalid_since_ms >= 0 && r->invalid_since_ms <= NOW_MS);
	must((r->class == PUSH_ACCEPTED) == (status / 100 == 2));
	check_text(r->reason);
}

static void fcm(int status, const char *retry_after, const uint8_t *body, size_t len)
{
	struct push_result r;

	fcm_reaction(status, (const char *)body, len, push_retry_after(retry_after, NOW_MS), &r);
	check(&r, status);
	check_text(r.provider_id);
	must(len > 0 || r.class != PUSH_TOKEN_INVALID);
}

static void apns(unsigned bits, int status, const char *retry_after, const uint8_t *body, size_t len)
{
	struct reaction_case c = {
		.status = status, .body = body, .len = len, .retry_after = retry_after, .other_env = bits & 1, .certificate = bits & 2, .now_ms = NOW_MS,
	};
	struct push_result r = {0};

	(void)reaction_of(&c, &r);
	check(&r, status);
	must(r.class != PUSH_TOKEN_INVALID || status == 410 || (status == 400 && r.reason[0]));
	must(r.class != PUSH_TOKEN_ENV || (status == 400 && c.other_env));
	(void)reaction_of_goaway(r.reason);
	must(strcmp(reaction_label(r.reason), "none") == 0 ? !r.reason[0] : r.reason[0] != '\0');
}

/* As vendor.c does it: the code's text is looked up as it came, and made printable behind that. */
static void vendor(const struct vendor *v, int status, const json_t *answer)
{
	static struct codes *codes[VENDORS];
	struct push_result r = { .class = PUSH_RETRY, .status = status };
	size_t i = 0;
	struct im_err err;

	while (vendors[i] != v)
		i++;
	must(codes[i] || codes_read(v->provider, NULL, 0, &codes[i], &err) == IM_OK);
	v->code(answer, TOKEN, r.reason, r.provider_id);
	must(memchr(r.reason, '\0', sizeof(r.reason)) && memchr(r.provider_id, '\0', sizeof(r.provider_id)));
	must(!codes_find(codes[i], r.reason, &r.class) || r.reason[0]);
	must(r.class <= PUSH_BUG);
	push_result_clean(&r);
	check_text(r.reason);
}

static void token_endpoint(const struct vendor *v, const json_t *answer)
{
	char reason[PUSH_REASON_MAX] = "";
	int64_t life_s = 0;
	const char *token = v ? v->auth_answer(answer, &life_s, reason) : account_answer(answer, &life_s, reason);

	must(memchr(reason, '\0', sizeof(reason)));
	must(!token || json_is_object(answer));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned whose = input_byte(&in);
	int status = status_of(input_byte(&in));
	const struct vendor *v = vendors[whose / 4 % VENDORS];
	char retry_after[256];
	json_t *answer;

	(void)input_text(&in, retry_after);
	answer = json_loadb((const char *)in.data, in.size, 0, NULL); /* NULL: no JSON */
	switch (whose % 4) {
	case 0: fcm(status, retry_after, in.data, in.size); break;
	case 1: apns(whose / 4, status, retry_after, in.data, in.size); break;
	case 2: vendor(v, status, answer); break;
	default: token_endpoint(v->auth == VENDOR_AUTH_FETCH ? v : NULL, answer); break;
	}
	json_decref(answer);
	return 0;
}
