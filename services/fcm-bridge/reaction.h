/* What FCM's answer means (firebase.google.com/docs/cloud-messaging/error-codes): its FcmError counts, not the HTTP status. */
#ifndef FCM_REACTION_H
#define FCM_REACTION_H

#include "push/driver.h"

/* retry_after_ms: of the header, 0 = none. */
void fcm_reaction(int status, const char *body, size_t len, int64_t retry_after_ms, struct push_result *out);

#endif
