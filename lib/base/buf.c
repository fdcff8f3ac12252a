#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void im_buf_init(struct im_buf *b)
{
	memset(b, 0, sizeof(*b));
}

void im_buf_finish(struct im_buf *b)
{
	free(b->data);
	im_buf_init(b);
}

void im_buf_clear(struct im_buf *b)
{
	b->len = 0;
	b->failed = false;
}

bool im_buf_reserve(struct im_buf *b, size_t more)
{
	size_t cap = b->cap ? b->cap : 256;
	char *data;

	if (b->failed)
		return false;
	if (b->cap - b->len >= more)
		return true;
	if (more > SIZE_MAX / 2 - b->len) {
		b->failed = true;
		return false;
	}
	while (cap < b->len + more)
		cap *= 2;
	data = realloc(b->data, cap);
	if (!data) {
		b->failed = true;
		return false;
	}
	b->data = data;
	b->cap = cap;
	return true;
}

void im_buf_add(struct im_buf *b, const void *data, size_t len)
{
	if (len == 0 || !im_buf_reserve(b, len))
		return;
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

void im_buf_add_str(struct im_buf *b, const char *s)
{
	im_buf_add(b, s, strlen(s));
}

void im_buf_add_char(struct im_buf *b, char c)
{
	im_buf_add(b, &c, 1);
}

void im_buf_printf(struct im_buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (!im_buf_reserve(b, 64))
		return;
	va_start(ap, fmt);
	n = vsnprintf(b->data + b->len, b->cap - b->len, fmt, ap);
	va_end(ap);
	if (n < 0) {
		b->failed = true;
		return;
	}
	if ((size_t)n >= b->cap - b->len) {
		if (!im_buf_reserve(b, (size_t)n + 1))
			return;
		va_start(ap, fmt);
		(void)vsnprintf(b->data + b->len, b->cap - b->len, fmt, ap); /* fits now */
		va_end(ap);
	}
	b->len += (size_t)n;
}

const char *im_buf_text(struct im_buf *b)
{
	if (!im_buf_reserve(b, 1))
		return "";
	b->data[b->len] = '\0';
	return b->data;
}

char *im_buf_take(struct im_buf *b, size_t *len)
{
	char *data = b->data;

	*len = b->len;
	im_buf_init(b);
	return data;
}
