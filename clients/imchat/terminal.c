/* See terminal.h. */
#include "terminal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

void terminal_init(struct terminal *t)
{
	t->colour = isatty(STDOUT_FILENO);
	t->tty = t->colour && isatty(STDIN_FILENO);
	t->len = 0;
}

void terminal_prompt(const struct terminal *t, const char *text)
{
	if (!t->tty)
		return;
	printf("\r\033[K%s> ", text);
	(void)fflush(stdout);
}

/* Control characters of others must not reach the terminal: C0, DEL, and C1, which is C2 80..9F in UTF-8. */
static void put_harmless(const char *s)
{
	for (; *s; s++) {
		unsigned char b = (unsigned char)*s;

		if (b == 0xc2 && (unsigned char)s[1] >= 0x80 && (unsigned char)s[1] < 0xa0) {
			s++;
			b = ' ';
		}
		(void)putchar(b < 0x20 || b == 0x7f ? ' ' : b);
	}
}

void terminal_say(const struct terminal *t, enum tone tone, const char *line)
{
	static const char *const colours[] = {[TONE_PLAIN] = "", [TONE_NOTE] = "\033[36m", [TONE_TICK] = "\033[32m", [TONE_BAD] = "\033[31m"};

	if (t->colour)
		printf("\r\033[K%s", colours[tone]);
	put_harmless(line);
	puts(t->colour ? "\033[0m" : "");
	(void)fflush(stdout);
}

bool terminal_read(struct terminal *t, terminal_line_fn *on_line, void *arg)
{
	ssize_t n = read(STDIN_FILENO, t->line + t->len, sizeof(t->line) - 1 - t->len);
	char *end;

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	t->len += (size_t)n;
	t->line[t->len] = '\0';
	if (n == 0) {
		if (t->len > 0)
			on_line(arg, t->line); /* the last one had no newline */
		t->len = 0;
		return false;
	}
	while ((end = memchr(t->line, '\n', t->len)) || t->len == sizeof(t->line) - 1) {
		size_t used = end ? (size_t)(end - t->line) + 1 : t->len;

		if (end)
			*end = '\0';
		on_line(arg, t->line);
		t->len -= used;
		memmove(t->line, t->line + used, t->len + 1);
	}
	return true;
}

bool terminal_password(const char *prompt, char *out, size_t size)
{
	struct termios before, silent;
	bool ok;

	if (tcgetattr(STDIN_FILENO, &before) != 0)
		return false;
	silent = before;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	fputs(prompt, stderr);
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent); /* if it fails the password shows, which is seen */
	ok = fgets(out, (int)size, stdin) != NULL;
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	fputc('\n', stderr);
	if (ok)
		out[strcspn(out, "\r\n")] = '\0';
	return ok && *out;
}
