/* The files of the message log (store_log.h): their names, headers, making, reading back and removing. */
#ifndef OFFLINE_STORE_SEGMENT_H
#define OFFLINE_STORE_SEGMENT_H

#include "store_log.h"

struct segment_header {
	uint64_t number;
	uint64_t record_epoch;
	uint64_t valid;   /* the log was valid up to this position when the segment began */
	char store[33];   /* epoch */
};
void segment_header_encode(const struct segment_header *h, uint8_t out[LOG_HEADER]);
bool segment_header_decode(const uint8_t *data, size_t len, uint64_t number, struct segment_header *out);

/* Numbers on disk, the newest unbroken run; first == end: none. Leftovers of a crash are removed. */
struct segment_range {
	uint64_t first, end;
};
enum im_status segment_list(const char *dir, struct segment_range *out, struct im_err *err);

/* A file of zeros under this number, named durably: the spare one if there is one. */
enum im_status segment_take(const char *dir, uint64_t number, uint64_t bytes, int *fd, struct im_err *err);
enum im_status segment_spare(const char *dir, uint64_t bytes); /* makes one for later */
bool segment_reuse(const char *dir, uint64_t number);      /* it becomes the one for later; false: it is still there */
void segment_remove(const char *dir, uint64_t number);

/* Hands on what stands behind o->after and moves *reached to the end of what is valid. IM_NOT_FOUND: the last one, never begun; it is gone. */
enum im_status segment_replay(const struct log_options *o, uint64_t number, bool last, uint64_t *reached, struct im_err *err);

#endif
