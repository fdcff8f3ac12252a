/*
 * The right to give sequences: leases of all sections from seqgen (docs/bus.md). sequence = last + 1 while
 * at or below the ceiling; renewed at half; epochs are durable in the store before use.
 */
#ifndef OFFLINE_LEASE_H
#define OFFLINE_LEASE_H

#include "io/loop.h"
#include "io/mqtt.h"
#include "store.h"

struct lease;

typedef void lease_fn(void *arg);
enum im_status lease_create(struct im_loop *loop, struct store *store, struct lease **out, struct im_err *err);
void lease_destroy(struct lease *l);
/* The store can write no more (IM_UNCERTAIN): the process must end, opening again decides what is there. */
typedef void lease_failed_fn(void *arg, const char *why);
void lease_on_failure(struct lease *l, lease_failed_fn *fn, void *arg);
void lease_on_change(struct lease *l, lease_fn *fn, void *arg); /* sections became usable, ceilings rose */
/* The bus: call when it is up (asks again for what is owed), when it is down, and with each $im/seq/res/... payload. */
void lease_bus(struct lease *l, struct im_mqtt *bus);           /* NULL: down */
void lease_answer(struct lease *l, const void *payload, size_t len);

/*
 * The next sequence of a conversation whose newest is `last`. IM_OK: *seq and *epoch (goes into the message).
 * IM_BUSY: no lease, not durable yet, or the ceiling is reached; lease_on_change tells when to try again.
 * Not consumed until the caller uses it: asking twice with the same `last` gives the same answer.
 */
enum im_status lease_next(struct lease *l, uint32_t section, uint64_t last, uint64_t *seq, uint64_t *epoch);
bool lease_is_held(const struct lease *l, uint32_t section, uint64_t epoch); /* still the same lease */
/* What is known of every section: a ceiling of 0 is not known. */
typedef void lease_each_fn(void *arg, uint32_t section, uint64_t epoch, uint64_t ceiling);
void lease_each(const struct lease *l, lease_each_fn *fn, void *arg);
bool lease_ready(const struct lease *l); /* all sections held */

#endif
