/*
 * A byte buffer that grows. After a failed allocation it is `failed`, keeps what it had and ignores
 * further writes, so that a long encoder needs one check at its end.
 */
#ifndef IM_BASE_BUF_H
#define IM_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct im_buf {
	char *data;
	size_t len;
	size_t cap;
	bool failed;
};

void im_buf_init(struct im_buf *b);
void im_buf_finish(struct im_buf *b); /* frees the bytes; `b` is as after init */
void im_buf_clear(struct im_buf *b);  /* forgets the bytes, keeps the memory */
bool im_buf_reserve(struct im_buf *b, size_t more);
void im_buf_add(struct im_buf *b, const void *data, size_t len);
void im_buf_add_str(struct im_buf *b, const char *s);
void im_buf_add_char(struct im_buf *b, char c);
void im_buf_printf(struct im_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds a NUL that does not count in `len` and returns the text; "" after a failure. Lives until the next write. */
const char *im_buf_text(struct im_buf *b);
/* Hands the bytes to the caller, who frees them; the buffer is empty afterwards. */
char *im_buf_take(struct im_buf *b, size_t *len);

#endif
