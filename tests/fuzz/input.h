/* Taking choices from a fuzzer's bytes, and the folder that a target may fill. */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct input {
	const uint8_t *data;
	size_t size;
};

/* 0 when nothing is left. */
static inline unsigned input_byte(struct input *in)
{
	if (in->size == 0)
		return 0;
	in->size--;
	return *in->data++;
}

/* At most `most` of what is left. */
static inline size_t input_some(struct input *in, size_t most, const uint8_t **out)
{
	size_t len = most < in->size ? most : in->size;

	*out = in->data;
	in->data += len;
	in->size -= len;
	return len;
}

/* A length (one byte; 255: two more follow, little endian) and that many bytes. */
static inline size_t input_bytes(struct input *in, const uint8_t **out)
{
	size_t len = input_byte(in);

	if (len == 255) {
		len = input_byte(in);
		len |= (size_t)input_byte(in) << 8;
	}
	return input_some(in, len, out);
}

/* The same as a string; what does not fit is cut. */
static inline const char *input_text(struct input *in, char out[256])
{
	const uint8_t *bytes;
	size_t len = input_bytes(in, &bytes);

	(void)snprintf(out, 256, "%.*s", (int)(len < 255 ? len : 255), len > 0 ? (const char *)bytes : "");
	return out;
}

/* folder.c: a folder of this process (below TMPDIR), removed with everything in it at exit. */
const char *folder(void);
void folder_clear(void); /* it is empty again */
void folder_put(const char *name, const void *data, size_t len); /* "conf.d/x": makes the folder between too */

#endif
