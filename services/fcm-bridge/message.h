/* The JSON of one FCM message (FCM HTTP v1, resource Message). */
#ifndef FCM_MESSAGE_H
#define FCM_MESSAGE_H

#include "push/driver.h"

struct fcm_style {
	bool notification;       /* the system draws it; false: the app is woken and does */
	const char *channel_id;  /* "" = none */
	const char *package;     /* "" = any */
};

struct json_t;

/* NULL: out of memory. The caller's; it holds the device's token. `minimal`: ids only. */
struct json_t *fcm_message(const struct push_send *s, const struct fcm_style *style, bool minimal, int64_t now_ms);

#endif
