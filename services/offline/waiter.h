/*
 * Who waits for an answer of the plugin: a version of the roster in force there, or the answer to a query. One list
 * of each, in the order they came; all have the same patience.
 */
#ifndef OFFLINE_WAITER_H
#define OFFLINE_WAITER_H

#include "link.h"

struct waiter;

/* `key`: the version, or the query's id. One of `done` and `answer`. False: out of memory. */
bool waiter_add(struct waiter **list, uint64_t key, int64_t deadline_ms, link_done_fn *done, link_answer_fn *answer, void *arg);
/* Answers all at or below `key` (`only`: that one alone), in the order they came. They may add others meanwhile. */
void waiters_answer(struct waiter **list, uint64_t key, bool only, enum im_status st, const char *answer);
void waiters_expire(struct waiter **list, int64_t now_ms, bool only); /* whose deadline has come: IM_BUSY, no answer */

#endif
