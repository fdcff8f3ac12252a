/* imctl: a line of an import file (first byte 0), a command line (1), or a service's answer as it is printed (2). */
#include "fuzz.h"
#include "input.h"

#include "imctl/ctl.h"
#include "imctl/import.h"
#include <string.h>

static void line(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	const char *why;
	json_t *row = import_line(text, 1, &why);

	must(!row || (!why && json_string_value(json_object_get(row, "user")) && json_string_length(json_object_get(row, "password")) > 0));
	json_decref(row);
	free(text);
}

/* Words behind their lengths. */
static void words(struct input in)
{
	static char room[8][256];
	char *list[8], why[256] = "", usage[512];
	const struct verb *v;
	json_t *args;
	int n, used = 0;

	for (n = 0; n < 8 && in.size > 0; n++) {
		(void)input_text(&in, room[n]);
		list[n] = room[n];
	}
	v = verb_find(list, n, &used, why, sizeof(why));
	must(v || why[0]);
	if (!v)
		return;
	must(used >= 1 && used <= n);
	verb_usage(v, usage, sizeof(usage));
	args = verb_args(v, list + used, n - used, why, sizeof(why));
	must(args || why[0]);
	json_decref(args);
}

static void answer(const uint8_t *data, size_t size)
{
	json_t *root = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);

	if (!root)
		return;
	print_line(root);
	if (json_is_object(root))
		print_object(root);
	print_rows(root, "user title a b");
	(void)ctl_pending(root);
	(void)ctl_exit_of(json_is_string(json_object_get(root, "code")) ? json_string_value(json_object_get(root, "code")) : "");
	json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *nowhere;

	if (!nowhere) {
		nowhere = freopen("/dev/null", "w", stdout);
		must(nowhere);
	}
	if (size < 1)
		return 0;
	switch (data[0] % 3) {
	case 0:
		line(data + 1, size - 1);
		break;
	case 1:
		words((struct input){data + 1, size - 1});
		break;
	default:
		answer(data + 1, size - 1);
	}
	return 0;
}
