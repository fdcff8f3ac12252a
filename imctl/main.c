/*
 * imctl: the admin's hand on a running instance. Finds the row of the verb table, turns words into arguments,
 * asks, prints, and says by its exit code how it went.
 */
#include "ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int print_answer(const struct ctl *ctl, const struct verb *verb, json_t *data)
{
	json_t *row;
	size_t i;

	json_object_del(data, "more");
	if (verb->list != NULL && ctl->json) {
		json_array_foreach(json_object_get(data, verb->list), i, row)
			print_line(row);
	} else if (verb->list != NULL) {
		print_rows(json_object_get(data, verb->list), verb->columns);
	} else if (ctl->json) {
		print_line(data);
	} else {
		json_object_del(data, "pending");
		print_object(data);
	}
	return EXIT_DONE;
}

/* Asks page after page; the rows of all pages end up in *data. */
static int ask_all(struct ctl *ctl, const struct verb *verb, json_t *args, json_t **data)
{
	int rc = ctl_ask(ctl, verb->command, json_copy(args), ASK_MS, data);
	const json_t *next = json_incref(json_object_get(*data, "next"));

	while (rc == EXIT_DONE && verb->list != NULL && json_is_string(next)) {
		json_t *page = NULL;

		(void)json_object_set(args, "next", (json_t *)next); /* lost for memory: the first page again, visibly */
		json_decref((json_t *)next);
		rc = ctl_ask(ctl, verb->command, json_copy(args), ASK_MS, &page);
		(void)json_array_extend(json_object_get(*data, verb->list), json_object_get(page, verb->list));
		next = json_incref(json_object_get(page, "next"));
		json_decref(page);
	}
	json_decref((json_t *)next);
	json_object_del(*data, "next");
	return rc;
}

static int run_plain(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	json_t *data = NULL;
	int rc = ask_all(ctl, verb, args, &data);
	int pending = EXIT_DONE;

	if (rc == EXIT_DONE) {
		pending = ctl_pending(data);
		rc = print_answer(ctl, verb, data);
	}
	json_decref(data);
	return rc == EXIT_DONE ? pending : rc;
}

static int run(struct ctl *ctl, char *const *words, int n)
{
	char why[256], usage[256];
	int used = 0, rc;
	const struct verb *verb = verb_find(words, n, &used, why, sizeof(why));
	json_t *args;

	if (verb == NULL) {
		ctl_complain("%s", why);
		return EXIT_USAGE;
	}
	args = verb_args(verb, words + used, n - used, why, sizeof(why));
	if (args == NULL) {
		verb_usage(verb, usage, sizeof(usage));
		ctl_complain("%s\nusage: imctl %s", why, usage);
		return EXIT_USAGE;
	}
	rc = verb->run != NULL ? verb->run(ctl, verb, args) : run_plain(ctl, verb, args);
	json_decref(args);
	return rc;
}

/* Takes the options that stand for all verbs out of the words; what is behind a lone -- is left alone. */
static int take_globals(struct ctl *ctl, int argc, char **argv, char **words)
{
	int n = 0;
	bool options = true;

	for (int i = 1; i < argc; i++) {
		options = options && strcmp(argv[i], "--") != 0;
		if (options && strcmp(argv[i], "--json") == 0)
			ctl->json = true;
		else if (options && strcmp(argv[i], "--dir") == 0 && i + 1 < argc)
			ctl->dir = argv[++i];
		else if (options && strncmp(argv[i], "--dir=", 6) == 0)
			ctl->dir = argv[i] + 6;
		else if (options && strcmp(argv[i], "--config") == 0 && i + 1 < argc)
			ctl->config = argv[++i];
		else if (options && strncmp(argv[i], "--config=", 9) == 0)
			ctl->config = argv[i] + 9;
		else if (options && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0))
			return -1;
		else
			words[n++] = argv[i];
	}
	return n;
}

int main(int argc, char **argv)
{
	struct ctl ctl = {0};
	char **words = calloc((size_t)argc + 1, sizeof(*words));
	char *help[] = {"help", NULL};
	int n, rc;

	if (words == NULL) {
		ctl_complain("out of memory");
		return EXIT_REFUSED;
	}
	n = take_globals(&ctl, argc, argv, words);
	if (n == 1 && strcmp(words[0], "--version") == 0) {
		(void)puts("imctl " IM_VERSION);
		rc = EXIT_DONE;
	} else {
		rc = n < 0 ? run(&ctl, help, 1) : run(&ctl, words, n);
	}
	ctl_finish(&ctl);
	free(words);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		ctl_complain("standard output: %s", strerror(errno));
		return EXIT_REFUSED;
	}
	return rc;
}
