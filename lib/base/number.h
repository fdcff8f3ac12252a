/* Numbers in text: of people, of file names, of files. */
#ifndef IM_BASE_NUMBER_H
#define IM_BASE_NUMBER_H

#include <stdint.h>

/*
 * The decimal digits that `text` begins with: no sign, no space. Returns what stands behind them. NULL, and *out as it
 * was: there are none, or the number is above `most`.
 */
const char *im_digits(const char *text, uint64_t most, uint64_t *out);

#endif
