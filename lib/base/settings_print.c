/* The settings table for people: docs/configuration.md, and the commented lines of broker.conf. */
#include "base/conf.h"
#include "base/settings_table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct printer {
	void (*put)(void *arg, const char *text);
	void *arg;
};

static void print(struct printer *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void print(struct printer *p, const char *fmt, ...)
{
	char text[1024]; /* the longest help with its line around it is half of that; a test compares with the whole */
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	p->put(p->arg, text);
}

/* Bytes as one would write them: 64k, 32m, 1g. */
static const char *size_text(uint64_t n, char out[24])
{
	static const char suffix[] = {0, 'k', 'm', 'g', 0};
	int i = 0;

	while (n && n % 1024 == 0 && suffix[i + 1]) {
		n /= 1024;
		i++;
	}
	(void)snprintf(out, 24, "%" PRIu64 "%.1s", n, &suffix[i]);
	return out;
}

static const char *range_text(const struct setting *t, char *out, size_t len)
{
	char low[24], high[24];
	size_t used = 0;

	switch (t->type) {
	case SETTING_TEXT: return t->form;
	case SETTING_BOOL: return "true or false";
	case SETTING_NUMBER:
		(void)snprintf(out, len, "%s%" PRIu64 " to %" PRIu64, t->zero ? "0, or " : "", t->min, t->max);
		return out;
	case SETTING_SIZE:
		(void)snprintf(out, len, "%s to %s", size_text(t->min, low), size_text(t->max, high));
		return out;
	case SETTING_CHOICE:
		out[0] = '\0';
		for (int i = 0; t->choices[i] && used < len; i++)
			used += (size_t)snprintf(out + used, len - used, "%s%s", i ? ", " : "", t->choices[i]);
		return out;
	}
	return "";
}

static const char *fallback_text(const struct setting *t)
{
	if (!t->fallback)
		return "none: it must be set";
	return t->fallback[0] ? t->fallback : "empty";
}

void im_settings_print_markdown(void (*put)(void *arg, const char *text), void *arg)
{
	struct printer p = {put, arg};
	const char *group = "";
	char range[128];

	print(&p, "# Settings\n\n"
		  "<!-- Printed by `im-supervisor --print-reference`. Change lib/base/settings.c, not this page. -->\n\n"
		  "All settings stand in `broker.conf`, below the `plugin` line of `mosquitto_im.so`, as `plugin_opt_NAME VALUE`. The plugin\n"
		  "and every service read the same file, and the files of its `include_dir`. mosquitto gives options to the plugin line above\n"
		  "them in the same file, so ours cannot stand in an included file.\n\n");
	print(&p, "Sizes are bytes, or end with `k`, `m` or `g` (powers of 1024). `{dir}` is the value of `im_dir`. Live settings take a new\n"
		  "value at SIGHUP (sent to the supervisor, which passes it on); the others need a restart, and the log says so.\n"
		  "`im-supervisor --check --config FILE` checks a file without starting anything.\n");
	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *t = &settings_table[i];

		if (strcmp(group, t->group) != 0) {
			group = t->group;
			print(&p, "\n## %s\n\n| setting | values | unit | default | live | |\n|---|---|---|---|---|---|\n", group);
		}
		print(&p, "| `%s` | %s | %s | `%s` | %s | %s |\n", t->name, range_text(t, range, sizeof(range)),
		      t->unit[0] ? t->unit : "-", fallback_text(t), t->live ? "yes" : "no", t->help);
	}
}

void im_settings_print_sample(void (*put)(void *arg, const char *text), void *arg)
{
	struct printer p = {put, arg};
	const char *group = "";
	char range[128];

	for (size_t i = 0; i < settings_count; i++) {
		const struct setting *t = &settings_table[i];

		if (!t->fallback)
			continue; /* required: the template has it as an active line */
		if (strcmp(group, t->group) != 0) {
			group = t->group;
			print(&p, "\n# --- %s\n", group);
		}
		print(&p, "\n# %s\n", t->help);
		print(&p, "# %s%s%s; %s.\n", range_text(t, range, sizeof(range)), t->unit[0] ? " " : "", t->unit,
		      t->live ? "live" : "needs a restart");
		print(&p, "#" SETTING_PREFIX "%s%s%s\n", t->name, t->fallback[0] ? " " : "", t->fallback);
	}
}
