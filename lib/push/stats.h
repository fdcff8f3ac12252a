/*
 * What the bridge counts, and how it is told: Prometheus' text format, for node_exporter's textfile collector. Labels are apps, results
 * and providers' words, all of them bounded; never a token, a user, a device.
 */
#ifndef IM_PUSH_STATS_H
#define IM_PUSH_STATS_H

#include "base/buf.h"
#include "push/state.h"

#define PUSH_STATS_APPS 64     /* further ones are counted together as "other" */
#define PUSH_STATS_REASONS 128 /* distinct words of the provider; further ones count as "other": a page of HTML must not become labels */
#define PUSH_CLASSES (PUSH_BUG + 1)
#define PUSH_STATS_BOUNDS 12

struct push_histogram {
	uint64_t buckets[PUSH_STATS_BOUNDS + 1], count;
	double sum_s;
};

struct push_stats {
	const char *provider;
	struct {
		char name[PUSH_APP_NAME_MAX + 1];
		uint64_t sent[PUSH_CLASSES];
	} apps[PUSH_STATS_APPS];
	size_t n_apps;
	struct {
		char word[PUSH_REASON_MAX];
		uint64_t n;
	} reasons[PUSH_STATS_REASONS];
	size_t n_reasons;
	uint64_t ended[PUSH_STATES];      /* by final state */
	uint64_t jobs, known, retries, maybe_dups, recovered, bad_frames, verdicts, invalidated, blocked;
	struct push_histogram latency, http; /* from the decision to the provider's yes; from the driver's sending to any answer */
};

void push_stats_result(struct push_stats *s, const char *app, const struct push_result *r, int64_t http_ms);
void push_stats_latency(struct push_histogram *h, int64_t ms);
void push_stats_print(const struct push_stats *s, struct im_buf *out);
const char *push_class_name(enum push_class c);
/* The whole file: written beside and renamed, so that nobody reads half of it. */
enum im_status push_stats_write(const char *path, const struct im_buf *text, struct im_err *err);

#endif
