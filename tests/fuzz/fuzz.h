/* What every fuzz target of this folder offers, and how it complains. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

__attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Not assert: it must also hold in builds with NDEBUG. */
#define must(x) ((x) ? (void)0 : abort())

#endif
