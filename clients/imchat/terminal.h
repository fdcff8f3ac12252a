/*
 * The terminal, or the pipe in its place: lines in, lines out, a prompt and colours only where a person looks.
 * Lines of others that come while one is typing are written over the prompt; what was typed is still there.
 */
#ifndef IMCHAT_TERMINAL_H
#define IMCHAT_TERMINAL_H

#include "chat.h"

#include <stdbool.h>
#include <stddef.h>

enum { TERMINAL_LINE_MAX = 65536 }; /* longer input is cut into several lines */

struct terminal {
	bool tty;    /* both ends */
	bool colour; /* standard output is a terminal */
	char line[TERMINAL_LINE_MAX];
	size_t len;
};

typedef void terminal_line_fn(void *arg, const char *line);

void terminal_init(struct terminal *t);
void terminal_prompt(const struct terminal *t, const char *text);
void terminal_say(const struct terminal *t, enum tone tone, const char *line);
bool terminal_read(struct terminal *t, terminal_line_fn *on_line, void *arg); /* once there is input; false: its end */
bool terminal_password(const char *prompt, char *out, size_t size);           /* without echo; false: no terminal, or none typed */

#endif
