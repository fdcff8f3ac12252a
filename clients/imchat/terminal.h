/*
 * The terminal, or the pipe in its place: lines in, lines out, a prompt and colours only where a person looks.
 * Lines of others that come while one is typing are written over the prompt; what was typed is still there.
 */
#ifndef IMCHAT_TERMINAL_H
#define IMCHAT_TERMINAL_H

#include "chat.h"

#include <stdbool.h>
#include <stddef.h>

enum { TERMINAL_LINE_MAX = 65536 }; /* longer lines are cut into several */

struct terminal {
	bool tty;    /* both ends */
	bool colour; /* standard output is a terminal */
	char input[TERMINAL_LINE_MAX];
	size_t len, used; /* read, and of that handed out */
	bool ended;
};

void terminal_init(struct terminal *t);
void terminal_prompt(const struct terminal *t, const char *text);
void terminal_say(const struct terminal *t, enum tone tone, const char *line);
void terminal_read(struct terminal *t);       /* once there is input; sets `ended` at its end */
const char *terminal_next(struct terminal *t); /* the next line, valid until terminal_read(); NULL: read on, or the end */
bool terminal_password(const char *prompt, char *out, size_t size);           /* without echo; false: no terminal, or none typed */

#endif
