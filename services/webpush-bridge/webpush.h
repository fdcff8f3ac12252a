/*
 * The driver for Web Push: one POST to the endpoint that the browser named, its body encrypted for the browser (RFC 8291),
 * signed by the app's VAPID key (RFC 8292).
 *
 * The endpoint is the one address that a user tells us to talk to. So it is https only, on port 443 unless allow_ports says
 * more, never followed elsewhere, checked against addresses that are no public host at every connection (RFC 8030 says
 * nothing of it; SSRF), and what it answers can only ever concern its own subscription: no answer opens a breaker.
 *
 * Keys of {im_push_dir}/webpush.{app}.conf: vapid_key_file (PEM, P-256, 0600; losing it makes all subscriptions worthless),
 * subject (mailto: or https:), allow_hosts (names, * at the beginning; empty = any), allow_private (tests), allow_ports,
 * ca_file, ttl_most (s), urgency (normal|high).
 */
#ifndef WEBPUSH_H
#define WEBPUSH_H

#include "push/driver.h"

extern const struct push_driver webpush_driver;

#endif
