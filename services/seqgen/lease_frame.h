/* A lease request as it comes over the bus, and the answer as it goes back (bus.proto). */
#ifndef SEQGEN_LEASE_FRAME_H
#define SEQGEN_LEASE_FRAME_H

#include "bus.pb-c.h"
#include "seq.h"

struct lease_frame {
	uint8_t *data;   /* the caller frees it */
	size_t len;
	size_t granted;  /* leases in it */
};

/* What seqgen_lease says to the request, and as its answer. IM_FAILED, also for want of memory: there is none to send. */
enum im_status lease_frame_serve(struct seqgen *g, const Im__Bus__LeaseRequest *r, struct lease_frame *out, struct im_err *err);

#endif
