/*
 * The driver for Firebase Cloud Messaging (HTTP v1): POST /v1/projects/{project}/messages:send, one token a request, many at a
 * time on one HTTP/2 connection; authorised by a service account (account.h).
 *
 * Keys of {im_push_dir}/fcm.{app}.conf: service_account_file (JSON from the Firebase console, 0600), style (data: the app draws;
 * notification: the system does), channel_id (Android notification channel), package (restricted_package_name), and for tests and
 * relays endpoint, token_endpoint, ca_file.
 */
#ifndef FCM_H
#define FCM_H

#include "push/driver.h"

extern const struct push_driver fcm_driver;

#endif
