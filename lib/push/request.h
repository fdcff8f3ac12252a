/* One HTTPS request being put together by a driver: address, headers, a JSON or form body. */
#ifndef IM_PUSH_REQUEST_H
#define IM_PUSH_REQUEST_H

#include "base/buf.h"
#include "io/http.h"

#include <stdbool.h>

struct json_t;

#define PUSH_URL_MAX 2100 /* a browser's endpoint may have 2048 bytes */
#define PUSH_HEADERS_MAX 6

struct push_request {
	char url[PUSH_URL_MAX];
	char *headers[PUSH_HEADERS_MAX + 1]; /* owned; ends with NULL */
	struct im_buf body;
	bool failed;                         /* out of memory, or it would not fit: push_request_post refuses */
};

void push_request_init(struct push_request *r);
void push_request_finish(struct push_request *r); /* wipes: there are secrets in it */
void push_request_url(struct push_request *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A value with line ends fails the request: it would begin another header. */
void push_request_header(struct push_request *r, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void push_request_json(struct push_request *r, struct json_t *body); /* takes body over, NULL = out of memory; sets the content type */
void push_request_field(struct push_request *r, const char *name, const char *value); /* of a form; the first sets the content type */
enum im_status push_request_post(struct push_request *r, struct im_http *http, im_http_fn *done, void *arg); /* IM_FAILED: not sent */

#endif
