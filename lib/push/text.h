/*
 * Text of a push: cut to what the provider takes, without breaking what a person sees as one character, and what is said when
 * nothing may be shown.
 */
#ifndef IM_PUSH_TEXT_H
#define IM_PUSH_TEXT_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

#define PUSH_ELLIPSIS "\xe2\x80\xa6" /* U+2026: three bytes */

/*
 * Appends `text`, at most `most` bytes of it; what does not fit ends with an ellipsis, never in the middle of a character, of an emoji
 * with its modifiers, of a flag. Bytes that are no UTF-8 become U+FFFD. `json`: `most` counts the bytes that it has inside
 * a JSON string (jansson's way: \n and \" are two, other control characters six); what is appended is the plain text all the same.
 * Says whether something was cut.
 */
bool push_text_fit(struct im_buf *out, const char *text, size_t most, bool json);

/* How many bytes a valid UTF-8 text has inside a JSON string. */
size_t push_text_json_size(const char *text);

/* Appends the text as a JSON string, with its quotes. Valid UTF-8 only (push_text_fit). */
void push_text_json(struct im_buf *out, const char *text);

/* "New message" in the device's language (BCP 47): the nearest there is, at last English. Static text. */
const char *push_text_general(const char *language);

#endif
