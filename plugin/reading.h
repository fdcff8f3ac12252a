/*
 * Who does not read. The store is the queue of those who are slow, not the broker: so the message service must know
 * what a session was given and has not taken, and the broker tells nobody. What can be seen from outside is how many
 * bytes the client's own kernel has acknowledged (broker_acked). What was given goes up with each packet, what was
 * acknowledged takes it down again, whether PUBACKs come or not: a QoS 1 message that waits in the broker for others'
 * PUBACKs has not been written. A session over READING_BEHIND is named to the service, which neither settles anything
 * of it nor gives it a new budget until it has taken what it has (docs/delivery.md, invariant 10).
 *
 * Only payloads are counted as given, but everything is acknowledged: who reads all comes out at nothing, and the count
 * never goes below. Looking costs a system call, so it is done four times a second for those alone who may be behind.
 */
#ifndef PLUGIN_READING_H
#define PLUGIN_READING_H

#include "session.h"

#define READING_BEHIND (256u << 10)   /* more than this not taken; a burst under way to a good client is soon less */
#define READING_EVERY_MS 250
/*
 * Where nothing can be seen (a Unix socket, a broker of another build): given in one connection, in payload bytes, then
 * it is ended. The client comes again and goes on where it was.
 */
#define READING_BLIND (256ull << 20)

struct reading_watch;

struct reading_watch *reading_create(void); /* NULL: out of memory */
void reading_destroy(struct reading_watch *w);
/* It was given `len` bytes. */
void reading_given(struct reading_watch *w, struct session *s, size_t len);
/* Its stored session is resumed, and so many bytes wait for it in the broker: it is behind from the start. */
void reading_resumed(struct reading_watch *w, struct session *s, size_t len);
/* Looks at those who may be behind; `changed` is told of each one that is so now, or is no more. */
void reading_look(struct reading_watch *w, struct session_table *sessions, int64_t now_ms, session_fn *changed, void *arg);

#endif
