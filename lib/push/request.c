#include "push/request.h"

#include <jansson.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void push_request_init(struct push_request *r)
{
	memset(r, 0, sizeof(*r));
	im_buf_init(&r->body);
}

void push_request_finish(struct push_request *r)
{
	for (size_t i = 0; r->headers[i]; i++) {
		sodium_memzero(r->headers[i], strlen(r->headers[i]));
		free(r->headers[i]);
	}
	if (r->body.data)
		sodium_memzero(r->body.data, r->body.len);
	im_buf_finish(&r->body);
}

void push_request_url(struct push_request *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vsnprintf(r->url, sizeof(r->url), fmt, ap) >= (int)sizeof(r->url))
		r->failed = true;
	va_end(ap);
}

void push_request_header(struct push_request *r, const char *name, const char *fmt, ...)
{
	char *value = NULL;
	size_t i = 0;
	va_list ap;

	while (r->headers[i])
		i++;
	va_start(ap, fmt);
	if (vasprintf(&value, fmt, ap) < 0)
		value = NULL;
	va_end(ap);
	if (i == PUSH_HEADERS_MAX || !value || strpbrk(value, "\r\n") || asprintf(&r->headers[i], "%s: %s", name, value) < 0) {
		r->failed = true;
		if (i < PUSH_HEADERS_MAX)
			r->headers[i] = NULL;
	}
	if (value)
		sodium_memzero(value, strlen(value));
	free(value);
}

void push_request_json(struct push_request *r, struct json_t *body)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;

	json_decref(body);
	if (text)
		im_buf_add_str(&r->body, text);
	else
		r->failed = true;
	free(text);
	push_request_header(r, "Content-Type", "application/json; charset=utf-8");
}

void push_request_field(struct push_request *r, const char *name, const char *value)
{
	if (r->body.len)
		im_buf_add_char(&r->body, '&');
	else
		push_request_header(r, "Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
	im_buf_printf(&r->body, "%s=", name);
	for (const unsigned char *p = (const unsigned char *)value; *p; p++) {
		if ((*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || strchr("-._~", *p))
			im_buf_add_char(&r->body, (char)*p);
		else
			im_buf_printf(&r->body, "%%%02X", *p);
	}
}

enum im_status push_request_post(struct push_request *r, struct im_http *http, im_http_fn *done, void *arg)
{
	if (r->failed || r->body.failed)
		return IM_FAILED;
	return im_http_post(http, r->url, (const char *const *)r->headers, r->body.data, r->body.len, done, arg);
}
