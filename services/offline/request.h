/*
 * What clients and admins may ask: one command table (command.c) serves im/v1/req, $CONTROL/im/v1 and imctl.
 * Each row: name, who may use it (user, admin), its arguments with types and limits, help, function. Answers
 * are JSON objects; errors carry the codes of wire/refusal.h.
 */
#ifndef OFFLINE_REQUEST_H
#define OFFLINE_REQUEST_H

#include "delivery.h"
#include "inbox.h"
#include "link.h"
#include "roster/roster.h"
#include "store.h"
#include "wire/refusal.h"

struct request;

enum im_status request_create(struct im_loop *loop, const struct im_settings *settings, struct store *store, struct roster *roster,
			      struct link *link, struct delivery *delivery, struct inbox *inbox,
			      struct request **out, struct im_err *err);
struct backup;
void request_set_backup(struct request *r, struct backup *backup); /* once, before the first command */
struct push;
void request_set_push(struct request *r, struct push *push); /* once, before the first command; NULL is fine */
void request_destroy(struct request *r);
void request_record(struct request *r, const Im__Bus__Record *record);   /* KIND_REQUEST, from inbox_on_request; borrowed */
/*
 * A request of a proven user that came another way than by MQTT (api.h): `user`, `client_id`, `method` and `args` of the record
 * count. `answer` is called once, now or later, unless the service stops first; `response` is borrowed.
 */
typedef void request_answer_fn(void *arg, const Im__V1__Response *response, enum im_refusal_code code);
void request_as(struct request *r, const Im__Bus__Record *record, request_answer_fn *answer, void *arg);
void request_control(struct request *r, const Im__Bus__Control *control);/* $CONTROL/im/v1; borrowed */

#endif
