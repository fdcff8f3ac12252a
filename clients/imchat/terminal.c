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
	t->len = t->used = 0;
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

void terminal_read(struct terminal *t)
{
	ssize_t n;

	memmove(t->input, t->input + t->used, t->len - t->used);
	t->len -= t->used;
	t->used = 0;
	n = read(STDIN_FILENO, t->input + t->len, sizeof(t->input) - 1 - t->len);
	if (n > 0)
		t->len += (size_t)n;
	else if (n == 0 || (errno != EINTR && errno != EAGAIN))
		t->ended = true;
}

const char *terminal_next(struct terminal *t)
{
	char *line = t->input + t->used, *end;
	size_t left = t->len - t->used;

	end = memchr(line, '\n', left);
	if (!end && (left == 0 || (!t->ended && left < sizeof(t->input) - 1)))
		return NULL;
	if (!end)
		end = line + left; /* too long, or the last without a newline: there is room for its end */
	*end = '\0';
	t->used = end == t->input + t->len ? t->len : (size_t)(end - t->input) + 1;
	return line;
}

bool terminal_password(const char *prompt, char *out, size_t size)
{
	struct termios before, silent;
	bool ok;

	if (tcgetattr(STDIN_FILENO, &before) != 0)
		return false;
	silent = before;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	(void)fputs(prompt, stderr); /* as the next */
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent); /* if it fails the password shows, which is seen */
	ok = fgets(out, (int)size, stdin) != NULL;
	(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	(void)fputc('\n', stderr);
	if (ok)
		out[strcspn(out, "\r\n")] = '\0';
	return ok && *out;
}
