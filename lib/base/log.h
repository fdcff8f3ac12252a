/*
 * One log for a process. A line is an event and key=value pairs with the ids at hand
 * ("evt=stored user=alice msgid=... conv=g/friends"). Error: someone must act. Warning: says what we do
 * instead. Bodies, passwords and tokens stay out. Services write to standard error; the plugin sets a
 * sink that hands lines to the broker's log (only from the broker's thread).
 */
#ifndef IM_BASE_LOG_H
#define IM_BASE_LOG_H

enum im_log_level { IM_LOG_ERROR, IM_LOG_WARNING, IM_LOG_NOTICE, IM_LOG_INFO, IM_LOG_DEBUG };

typedef void im_log_sink_fn(enum im_log_level level, const char *line);

void im_log_open(const char *program, enum im_log_level most, im_log_sink_fn *sink); /* sink NULL: stderr */
void im_log_level(enum im_log_level most);
void im_log(enum im_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
