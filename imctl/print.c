/* What people and programs read. */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 12
#define WIDTH_MAX 40 /* a longer value pushes its row, not the table */

void print_line(const json_t *value)
{
	(void)json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY); /* a full disk or closed pipe shows at exit */
	(void)fputc('\n', stdout);
}

/* A value as one word; the caller frees it. */
static char *plain(const json_t *value)
{
	if (value == NULL || json_is_null(value))
		return strdup("-");
	if (json_is_string(value))
		return strdup(json_string_value(value)[0] ? json_string_value(value) : "-");
	if (json_is_boolean(value))
		return strdup(json_is_true(value) ? "yes" : "no");
	return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
}

static void print_under(const char *prefix, const json_t *object)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)object, name, value) {
		char path[256];
		char *text;

		(void)snprintf(path, sizeof(path), "%s%s%s", prefix, prefix[0] ? "." : "", name);
		if (json_is_object(value)) {
			print_under(path, value);
			continue;
		}
		text = plain(value);
		(void)printf("%s: %s\n", path, text ? text : "?");
		free(text);
	}
}

void print_object(const json_t *object)
{
	print_under("", object);
}

static size_t split(char *columns, const char *out[COLUMNS_MAX])
{
	size_t n = 0;
	char *save = NULL;

	for (char *c = strtok_r(columns, " ", &save); c != NULL && n < COLUMNS_MAX; c = strtok_r(NULL, " ", &save))
		out[n++] = c;
	return n;
}

static void measure(const json_t *rows, const char *const *names, size_t n, int *widths)
{
	for (size_t c = 0; c < n; c++) {
		widths[c] = (int)strlen(names[c]);
		for (size_t i = 0; i < json_array_size(rows); i++) {
			char *text = plain(json_object_get(json_array_get(rows, i), names[c]));
			int len = text ? (int)strlen(text) : 0;

			if (len > widths[c] && len <= WIDTH_MAX)
				widths[c] = len;
			free(text);
		}
	}
}

void print_rows(const json_t *rows, const char *columns)
{
	char *copy = strdup(columns);
	const char *names[COLUMNS_MAX];
	int widths[COLUMNS_MAX];
	size_t n = copy ? split(copy, names) : 0;

	measure(rows, names, n, widths);
	for (size_t c = 0; c < n; c++)
		(void)printf("%-*s%s", c + 1 < n ? widths[c] : 0, names[c], c + 1 < n ? "  " : "\n");
	for (size_t i = 0; i < json_array_size(rows); i++) {
		for (size_t c = 0; c < n; c++) {
			char *text = plain(json_object_get(json_array_get(rows, i), names[c]));

			(void)printf("%-*s%s", c + 1 < n ? widths[c] : 0, text ? text : "?", c + 1 < n ? "  " : "\n");
			free(text);
		}
	}
	free(copy);
}
