/* What a vendor's code means. Codes change more often than this program: codes_file of an app takes the place of codes.json. */
#ifndef VENDOR_CODES_H
#define VENDOR_CODES_H

#include "push/driver.h"

struct codes;
struct json_t;

/* text: the file's; NULL: what the program was built with. IM_BAD_INPUT: err says what is wrong, without the file's name. */
enum im_status codes_read(const char *provider, const char *text, size_t len, struct codes **out, struct im_err *err);
void codes_free(struct codes *c); /* NULL is fine */

/* false: not known. */
bool codes_find(const struct codes *c, const char *code, enum push_class *out);

#endif
