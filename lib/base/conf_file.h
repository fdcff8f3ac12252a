/*
 * What conf.c, settings.c and conf_broker.c share: lines of a mosquitto configuration, in the order and with
 * the borders at which mosquitto sees them, and the list of what is wrong. Private to lib/base.
 */
#ifndef IM_BASE_CONF_FILE_H
#define IM_BASE_CONF_FILE_H

#include "base/conf.h"
#include <stdbool.h>
#include <stddef.h>

struct conf_line {
	const char *file;
	unsigned number;
	bool included;     /* from a file of include_dir */
	bool first;        /* the first line of its file: mosquitto's "current plugin" begins anew */
	const char *key;
	const char *value; /* what follows the key's blank; may begin and end with blanks; "" if nothing follows */
};

/* Problems found so far: the first `cap` are kept, all are counted. */
struct conf_report {
	struct im_conf_problem *problems;
	size_t cap, n, fatal;
};

typedef void conf_line_fn(void *arg, const struct conf_line *line);

/* Calls `fn` for each setting of the file and what it includes; what can't be read is a fatal problem. */
void conf_file_read(const char *path, struct conf_report *report, conf_line_fn *fn, void *arg);
/* The same for text in memory, named `name` in problems. An include_dir in it is followed. */
void conf_text_read(const char *name, const char *text, size_t len, struct conf_report *report, conf_line_fn *fn, void *arg);

/* number 0: the file as a whole. */
void conf_problem(struct conf_report *report, bool fatal, const char *file, unsigned number, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/* Copies text without the blanks around it. false: it does not fit. */
bool conf_trim(const char *text, char *out, size_t out_len);

#endif
