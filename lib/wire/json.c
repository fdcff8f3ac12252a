/*
 * JSON text written by hand, for the path that every delivery takes. Runs of plain characters are copied
 * in one piece; only what needs an escape is looked at alone.
 */
#include "wire/codec.h"

#include <stdint.h>
#include <string.h>

/* Bytes that stand for themselves inside a JSON string: printable ASCII but " and \. */
static bool plain(unsigned char c)
{
	return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static void add_escape(struct im_buf *out, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

	switch (c) {
	case '"': im_buf_add(out, "\\\"", 2); return;
	case '\\': im_buf_add(out, "\\\\", 2); return;
	case '\n': im_buf_add(out, "\\n", 2); return;
	case '\r': im_buf_add(out, "\\r", 2); return;
	case '\t': im_buf_add(out, "\\t", 2); return;
	default: im_buf_add(out, text, sizeof(text)); return;
	}
}

void im_json_string(struct im_buf *out, const char *s, size_t len)
{
	size_t i = 0, start = 0, n;

	if (!im_buf_reserve(out, len + 2))
		return;
	im_buf_add_char(out, '"');
	while (i < len) {
		unsigned char c = (unsigned char)s[i];

		n = plain(c) ? 1 : c >= 0x80 ? im_utf8_char(s + i, len - i) : 0;
		if (n > 0) {
			i += n;
			continue;
		}
		im_buf_add(out, s + start, i - start);
		if (c >= 0x80)
			im_buf_add(out, "\xef\xbf\xbd", 3); /* U+FFFD for each byte that belongs to no character */
		else
			add_escape(out, c);
		start = ++i;
	}
	if (len > start)
		im_buf_add(out, s + start, len - start);
	im_buf_add_char(out, '"');
}

void im_json_base64(struct im_buf *out, const void *data, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = data;
	char *q;

	if (len > SIZE_MAX / 2 || !im_buf_reserve(out, (len + 2) / 3 * 4 + 2))
		return;
	q = out->data + out->len;
	*q++ = '"';
	for (; len >= 3; len -= 3, p += 3) {
		*q++ = digits[p[0] >> 2];
		*q++ = digits[(p[0] & 3) << 4 | p[1] >> 4];
		*q++ = digits[(p[1] & 15) << 2 | p[2] >> 6];
		*q++ = digits[p[2] & 63];
	}
	if (len > 0) {
		*q++ = digits[p[0] >> 2];
		*q++ = digits[(p[0] & 3) << 4 | (len == 2 ? p[1] >> 4 : 0)];
		*q++ = (char)(len == 2 ? digits[(p[1] & 15) << 2] : '=');
		*q++ = '=';
	}
	*q++ = '"';
	out->len = (size_t)(q - out->data);
}
