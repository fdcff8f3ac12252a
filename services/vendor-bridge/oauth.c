/* OAuth 2 client credentials (RFC 6749 4.4) with the secret in the form, as Huawei and Honor want them. */
#include "vendor.h"

void vendor_oauth_request(const struct vendor_app *a, const char *path, struct push_request *out)
{
	push_request_url(out, "%s%s", a->auth_endpoint, path);
	push_request_field(out, "grant_type", "client_credentials");
	push_request_field(out, "client_id", vendor_text(a, "client_id"));
	push_request_field(out, "client_secret", vendor_text(a, "client_secret_file"));
}

const char *vendor_oauth_answer(const json_t *answer, int64_t *life_s, char code[PUSH_REASON_MAX])
{
	*life_s = json_integer_value(json_object_get(answer, "expires_in"));
	vendor_code_of(json_object_get(answer, "error"), code);
	return json_string_value(json_object_get(answer, "access_token"));
}
