/*
 * Thousands of users at once: lines are gathered into batches, each one command, so that neither side holds
 * more than a batch. Every bad line is reported with its number, and the others are added.
 */
#include "import.h"

#include "ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct import {
	struct ctl *ctl;
	const char *file;
	json_t *batch;
	size_t bytes;
	json_int_t added, failed;
	bool pending;
};

json_t *import_line(char *line, long number, const char **why)
{
	char *comma;
	json_t *entry;

	*why = NULL;
	line[strcspn(line, "\r\n")] = '\0';
	if (line[0] == '\0')
		return NULL;
	comma = strchr(line, ',');
	if (comma == NULL) {
		*why = "there is no comma: a line is name,password";
		return NULL;
	}
	*comma = '\0';
	if (comma[1] == '\0') {
		*why = "the password is missing";
		return NULL;
	}
	entry = json_pack("{s:s,s:s,s:I}", "user", line, "password", comma + 1, "line", (json_int_t)number);
	if (entry == NULL)
		*why = "it is not UTF-8";
	return entry;
}

/* For people on standard error; for programs a line of JSON. */
static void report(struct import *im, long line, const char *user, const char *code, const char *reason)
{
	im->failed++;
	if (im->ctl->json) {
		json_t *row = json_pack("{s:I,s:s*,s:s,s:s}", "line", (json_int_t)line, "user", user, "code", code, "reason", reason);

		print_line(row);
		json_decref(row);
	} else {
		(void)fprintf(stderr, "%s:%ld: %s%s%s\n", im->file, line, user ? user : "", user && user[0] ? ": " : "", reason);
	}
}

static int send_batch(struct import *im)
{
	json_t *data = NULL, *error;
	size_t i;
	int rc;

	if (json_array_size(im->batch) == 0)
		return EXIT_DONE;
	rc = ctl_ask(im->ctl, "user.import", json_pack("{s:o}", "users", im->batch), ASK_IMPORT_MS, &data);
	im->batch = json_array();
	im->bytes = 0;
	if (rc != EXIT_DONE)
		return rc;
	im->added += json_integer_value(json_object_get(data, "added"));
	im->pending |= json_is_true(json_object_get(data, "pending"));
	json_array_foreach(json_object_get(data, "errors"), i, error)
		report(im, (long)json_integer_value(json_object_get(error, "line")), json_string_value(json_object_get(error, "user")),
		       json_string_value(json_object_get(error, "code")), json_string_value(json_object_get(error, "reason")));
	json_decref(data);
	if (isatty(STDERR_FILENO))
		(void)fprintf(stderr, "\r%lld added ", (long long)im->added); /* hashing thousands of passwords takes minutes */
	return EXIT_DONE;
}

static int add_entry(struct import *im, json_t *entry)
{
	size_t bytes = json_dumpb(entry, NULL, 0, JSON_COMPACT) + 1;
	int rc = EXIT_DONE;

	if (json_array_size(im->batch) == IMPORT_BATCH || im->bytes + bytes > IMPORT_BATCH_BYTES)
		rc = send_batch(im);
	im->bytes += bytes;
	(void)json_array_append_new(im->batch, entry); /* out of memory: the service counts fewer, and so do we */
	return rc;
}

static void skip_rest(FILE *f)
{
	int c;

	do
		c = getc(f);
	while (c != '\n' && c != EOF);
}

static int read_lines(struct import *im, FILE *f)
{
	char line[IMPORT_LINE_MAX + 2];
	int rc;

	for (long number = 1; fgets(line, sizeof(line), f) != NULL; number++) {
		const char *why;
		size_t len = strlen(line);
		json_t *entry;

		if (len == sizeof(line) - 1 && line[len - 1] != '\n') {
			skip_rest(f);
			report(im, number, NULL, "too_big", "the line is longer than 1024 bytes");
			continue;
		}
		entry = import_line(line, number, &why);
		if (entry == NULL) {
			if (why != NULL)
				report(im, number, NULL, "bad_field", why);
			continue;
		}
		rc = add_entry(im, entry);
		if (rc != EXIT_DONE)
			return rc;
	}
	if (ferror(f)) {
		ctl_complain("%s: %s", im->file, strerror(errno));
		return EXIT_REFUSED;
	}
	return send_batch(im);
}

int run_user_import(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	struct import im = {.ctl = ctl, .file = json_string_value(json_object_get(args, "file")), .batch = json_array()};
	bool is_stdin = strcmp(im.file, "-") == 0;
	FILE *f = is_stdin ? stdin : fopen(im.file, "re");
	int rc;

	(void)verb;
	if (f == NULL) {
		ctl_complain("%s: %s", im.file, strerror(errno));
		json_decref(im.batch);
		return EXIT_NOT_FOUND;
	}
	rc = read_lines(&im, f);
	if (!is_stdin)
		(void)fclose(f); /* only read */
	json_decref(im.batch);
	if (isatty(STDERR_FILENO))
		(void)fputc('\r', stderr);
	if (ctl->json)
		(void)printf("{\"added\":%lld,\"failed\":%lld}\n", (long long)im.added, (long long)im.failed);
	else
		(void)printf("%lld added, %lld not\n", (long long)im.added, (long long)im.failed);
	if (rc != EXIT_DONE)
		return rc;
	if (im.pending)
		(void)json_object_set_new(args, "pending", json_true());
	rc = ctl_pending(args);
	return im.failed > 0 ? EXIT_REFUSED : rc;
}
