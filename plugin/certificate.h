/*
 * What a TLS client certificate says about who presents it. That it is valid - signed, not expired, not
 * revoked - the broker has checked before anybody is asked.
 */
#ifndef PLUGIN_CERTIFICATE_H
#define PLUGIN_CERTIFICATE_H

#include "base/conf.h"
#include "wire/name.h"

#include <stdbool.h>
#include <stdint.h>

struct certificate {
	char user[IM_NAME_MAX + 1]; /* "": the field is missing, stands twice, or is no name of a user */
	int64_t expires_ms;         /* wall clock; 0 = not readable */
};

/* x509: OpenSSL's X509. which: the field that holds the user, not OFF. */
void certificate_read(const void *x509, enum im_certificate_user which, struct certificate *out);

#endif
