/* In front of every file: im_fail hands its status back, which an analyser cannot see from another file. */
#include "base/status.h"

#define im_fail(err, st, ...) ((void)(im_fail)(err, st, __VA_ARGS__), (st))
