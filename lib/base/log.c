#include "base/log.h"
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static struct {
	const char *program;
	enum im_log_level most;
	im_log_sink_fn *sink;
} g = {"im", IM_LOG_NOTICE, NULL};

static void to_stderr(enum im_log_level level, const char *line)
{
	static const char *const names[] = {"error", "warning", "notice", "info", "debug"};
	struct timespec ts;
	struct tm tm;
	char when[32];

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	(void)gmtime_r(&ts.tv_sec, &tm);
	(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(stderr, "%s.%03ldZ %s %s: %s\n", when, ts.tv_nsec / 1000000, g.program, names[level], line);
}

void im_log_open(const char *program, enum im_log_level most, im_log_sink_fn *sink)
{
	g.program = program;
	g.most = most;
	g.sink = sink ? sink : to_stderr;
}

void im_log_level(enum im_log_level most)
{
	g.most = most;
}

void im_log(enum im_log_level level, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (level > g.most)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap); /* a longer line is cut */
	va_end(ap);
	(g.sink ? g.sink : to_stderr)(level, line);
}

/* In brackets: analysers have a macro of this name (scripts/analyze.d/model). */
enum im_status (im_fail)(struct im_err *err, enum im_status st, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		(void)vsnprintf(err->text, sizeof(err->text), fmt, ap); /* a longer sentence is cut */
		va_end(ap);
	}
	return st;
}

const char *im_status_name(enum im_status st)
{
	static const char *const names[] = {"ok", "not_found", "exists", "busy", "bad_input", "uncertain", "failed"};

	return names[st];
}
