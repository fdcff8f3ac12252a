/* The driver for Apple's push service (docs/push.md). */
#ifndef APNS_APNS_H
#define APNS_APNS_H

#include "push/driver.h"

extern const struct push_driver apns_driver;

#endif
