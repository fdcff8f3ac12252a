#include "push/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const double bounds[PUSH_STATS_BOUNDS] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, 3600};

const char *push_class_name(enum push_class c)
{
	static const char *const names[PUSH_CLASSES] = {"accepted", "unsent", "unreachable", "unknown", "retry", "token_rate", "rate", "quota",
							"auth", "config", "token_invalid", "token_env", "too_large", "content", "bug"};

	return (unsigned)c < PUSH_CLASSES ? names[c] : "other";
}

/* Only what a label may hold without being quoted. */
static void word_of(const char *from, char out[PUSH_REASON_MAX])
{
	size_t n = 0;

	for (; *from && n < PUSH_REASON_MAX - 1; from++)
		if ((*from >= 'a' && *from <= 'z') || (*from >= 'A' && *from <= 'Z') || (*from >= '0' && *from <= '9') || strchr("_.-", *from))
			out[n++] = *from;
	out[n] = '\0';
}

static void count_reason(struct push_stats *s, const char *reason)
{
	char word[PUSH_REASON_MAX];
	size_t i = 0;

	word_of(reason, word);
	if (!*word)
		return;
	while (i < s->n_reasons && strcmp(s->reasons[i].word, word) != 0)
		i++;
	if (i == s->n_reasons && i == PUSH_STATS_REASONS) {
		i--; /* the last is "other" from now on */
		strcpy(s->reasons[i].word, "other");
	} else if (i == s->n_reasons) {
		memcpy(s->reasons[s->n_reasons++].word, word, sizeof(word));
	}
	s->reasons[i].n++;
}

static size_t app_index(struct push_stats *s, const char *app)
{
	size_t i = 0;

	while (i < s->n_apps && strcmp(s->apps[i].name, app) != 0)
		i++;
	if (i < s->n_apps)
		return i;
	if (i == PUSH_STATS_APPS) {
		strcpy(s->apps[i - 1].name, "other");
		return i - 1;
	}
	(void)snprintf(s->apps[i].name, sizeof(s->apps[i].name), "%s", app); /* no longer than that: queue.c */
	s->n_apps++;
	return i;
}

void push_stats_latency(struct push_histogram *h, int64_t ms)
{
	double seconds = ms > 0 ? (double)ms / 1000 : 0;
	size_t i = 0;

	while (i < PUSH_STATS_BOUNDS && seconds > bounds[i])
		i++;
	h->buckets[i]++;
	h->count++;
	h->sum_s += seconds;
}

void push_stats_result(struct push_stats *s, const char *app, const struct push_result *r, int64_t http_ms)
{
	if ((unsigned)r->class < PUSH_CLASSES)
		s->apps[app_index(s, app)].sent[r->class]++;
	if (r->class != PUSH_ACCEPTED)
		count_reason(s, r->reason);
	push_stats_latency(&s->http, http_ms);
}

/* ---- printing */

static void print_histogram(const struct push_histogram *h, const char *name, const char *provider, struct im_buf *out)
{
	uint64_t sum = 0;

	im_buf_printf(out, "# TYPE %s histogram\n", name);
	for (size_t i = 0; i < PUSH_STATS_BOUNDS; i++) {
		sum += h->buckets[i];
		im_buf_printf(out, "%s_bucket{provider=\"%s\",le=\"%g\"} %llu\n", name, provider, bounds[i], (unsigned long long)sum);
	}
	im_buf_printf(out, "%s_bucket{provider=\"%s\",le=\"+Inf\"} %llu\n", name, provider, (unsigned long long)h->count);
	im_buf_printf(out, "%s_sum{provider=\"%s\"} %.3f\n%s_count{provider=\"%s\"} %llu\n", name, provider, h->sum_s, name, provider,
		      (unsigned long long)h->count);
}

static void print_counter(const struct push_stats *s, const char *name, uint64_t n, struct im_buf *out)
{
	im_buf_printf(out, "# TYPE %s counter\n%s{provider=\"%s\"} %llu\n", name, name, s->provider, (unsigned long long)n);
}

static void print_sent(const struct push_stats *s, struct im_buf *out)
{
	im_buf_add_str(out, "# TYPE push_sent_total counter\n");
	for (size_t i = 0; i < s->n_apps; i++)
		for (size_t c = 0; c < PUSH_CLASSES; c++)
			if (s->apps[i].sent[c])
				im_buf_printf(out, "push_sent_total{provider=\"%s\",app=\"%s\",result=\"%s\"} %llu\n", s->provider, s->apps[i].name,
					      push_class_name((enum push_class)c), (unsigned long long)s->apps[i].sent[c]);
}

static void print_reasons(const struct push_stats *s, struct im_buf *out)
{
	im_buf_add_str(out, "# TYPE push_reason_total counter\n");
	for (size_t i = 0; i < s->n_reasons; i++)
		im_buf_printf(out, "push_reason_total{provider=\"%s\",code=\"%s\"} %llu\n", s->provider, s->reasons[i].word,
			      (unsigned long long)s->reasons[i].n);
}

void push_stats_print(const struct push_stats *s, struct im_buf *out)
{
	print_counter(s, "push_jobs_total", s->jobs, out);
	print_counter(s, "push_jobs_known_total", s->known, out);
	print_sent(s, out);
	print_reasons(s, out);
	im_buf_add_str(out, "# TYPE push_ended_total counter\n");
	for (int i = PUSH_STATE_ACCEPTED; i < PUSH_STATES; i++)
		im_buf_printf(out, "push_ended_total{provider=\"%s\",state=\"%s\"} %llu\n", s->provider, push_state_name((enum push_state)i),
			      (unsigned long long)s->ended[i]);
	print_counter(s, "push_retry_total", s->retries, out);
	print_counter(s, "push_maybe_dup_total", s->maybe_dups, out);
	print_counter(s, "push_expired_total", s->ended[PUSH_STATE_EXPIRED], out);
	print_counter(s, "push_recovered_total", s->recovered, out);
	print_counter(s, "push_token_invalidated_total", s->invalidated, out);
	print_counter(s, "push_guard_blocked_total", s->blocked, out);
	print_counter(s, "push_bad_frames_total", s->bad_frames, out);
	print_histogram(&s->latency, "push_latency_seconds", s->provider, out);
	print_histogram(&s->http, "push_http_seconds", s->provider, out);
}

static bool write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno != EINTR)
			return false;
		data += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

enum im_status push_stats_write(const char *path, const struct im_buf *text, struct im_err *err)
{
	enum im_status st = IM_OK;
	char *tmp;
	int fd;

	if (text->failed || asprintf(&tmp, "%s.tmp", path) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || fchmod(fd, 0640) < 0 || !write_all(fd, text->data, text->len) || rename(tmp, path) < 0)
		st = im_fail(err, IM_FAILED, "cannot write %.180s: %s", path, strerror(errno));
	if (fd >= 0)
		(void)close(fd); /* not synced: the next is ten seconds away */
	free(tmp);
	return st;
}
