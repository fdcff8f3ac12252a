/*
 * imctl backup: the message service writes the file, this asks how it goes until it is there. If this process ends, the backup does
 * not.
 */
#include "ctl.h"

#include "backup/backup.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS 250
#define ASK_BACKUP_MS 5000 /* both questions are answered at once, unless the service is gone */
#define POLL_FIRST_MS 50 /* a small one takes a moment */

static json_int_t number(const json_t *data, const char *name)
{
	return json_integer_value(json_object_get(data, name));
}

static const char *text(const json_t *data, const char *name)
{
	const char *s = json_string_value(json_object_get(data, name));

	return s != NULL ? s : "";
}

/* ---- verify */

static void note(json_t *object, const char *header, const char *name)
{
	char value[256];

	if (backup_header_value(header, name, value, sizeof(value)))
		(void)json_object_set_new(object, name, json_string(value));
}

static enum im_status on_header(void *arg, const char *header, struct im_err *err)
{
	(void)err;
	note(arg, header, "created_ms");
	note(arg, header, "version");
	note(arg, header, "node");
	note(arg, header, "store_epoch");
	note(arg, header, "store_schema");
	return IM_OK;
}

static int verify(const struct ctl *ctl, const char *file)
{
	static const struct backup_sink sink = {.header = on_header};
	struct backup_summary sum;
	struct im_err err = {""};
	json_t *info;
	enum im_status st;
	int fd = strcmp(file, "-") == 0 ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		ctl_complain("%s: %s", file, strerror(errno));
		return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_REFUSED;
	}
	info = json_pack("{s:s}", "file", file);
	st = backup_read(fd, file, &sink, info, &sum, &err);
	if (fd != STDIN_FILENO)
		(void)close(fd); /* only read */
	if (st != IM_OK) {
		ctl_complain("%s", err.text);
		json_decref(info);
		return EXIT_REFUSED;
	}
	(void)json_object_set_new(info, "bytes", json_integer((json_int_t)sum.bytes)); /* missing for memory: seen */
	(void)json_object_set_new(info, "rows", json_integer((json_int_t)sum.rows));
	if (ctl->json)
		print_line(info);
	else
		print_object(info);
	json_decref(info);
	return EXIT_DONE;
}

/* ---- backup */

/* Relative names are meant as seen from here, not from where the service runs. */
static bool make_absolute(json_t *args)
{
	const char *file = text(args, "file");
	char cwd[4096];
	json_t *path;

	if (file[0] == '/')
		return true;
	if (getcwd(cwd, sizeof(cwd)) == NULL) {
		ctl_complain("the current folder: %s", strerror(errno));
		return false;
	}
	path = json_sprintf("%s/%s", cwd, file);
	return path != NULL && json_object_set_new(args, "file", path) == 0;
}

static void show_progress(const json_t *data)
{
	if (!isatty(STDERR_FILENO))
		return;
	(void)fprintf(stderr, "\r%s: %.1f MiB, %lld of about %lld messages ", text(data, "state"), (double)number(data, "bytes") / 1048576,
		      (long long)number(data, "rows"), (long long)number(data, "messages"));
}

static int conclude(const struct ctl *ctl, const json_t *data)
{
	const char *why = text(data, "why");

	if (isatty(STDERR_FILENO))
		(void)fputc('\n', stderr);
	if (strcmp(text(data, "state"), "done") != 0) {
		ctl_complain("no backup was made: %s", text(data, "error"));
		return strcmp(why, "exists") == 0 ? EXIT_EXISTS : strcmp(why, "busy") == 0 ? EXIT_UNAVAILABLE : EXIT_REFUSED;
	}
	if (ctl->json)
		print_line(data);
	else
		(void)printf("%s: %lld bytes, %lld messages, %.1f s\n", text(data, "file"), (long long)number(data, "bytes"),
			     (long long)number(data, "messages"), (double)number(data, "ms") / 1000);
	if (json_is_true(json_object_get(data, "behind")))
		ctl_complain("the message service is behind the broker's journal: the newest messages are not in this backup");
	return EXIT_DONE;
}

/* Until the backup of that number has ended. */
static int wait_for_end(struct ctl *ctl, const char *file, json_int_t mine)
{
	long pause_ms = POLL_FIRST_MS;

	for (;;) {
		const struct timespec pause = {0, pause_ms * 1000000};
		json_t *data = NULL;
		int rc;

		nanosleep(&pause, NULL);
		pause_ms = POLL_MS;
		rc = ctl_ask(ctl, "backup.status", NULL, ASK_BACKUP_MS, &data);
		if (rc != EXIT_DONE) {
			ctl_complain("whether %s was written is not known: look whether it is there", file);
			return rc;
		}
		if (number(data, "number") != mine || strcmp(text(data, "file"), file) != 0) {
			ctl_complain("the message service was started again meanwhile: look whether %s is there, it is whole then", file);
			json_decref(data);
			return EXIT_UNAVAILABLE;
		}
		if (strcmp(text(data, "state"), "done") == 0 || strcmp(text(data, "state"), "failed") == 0) {
			rc = conclude(ctl, data);
			json_decref(data);
			return rc;
		}
		show_progress(data);
		json_decref(data);
	}
}

int run_backup(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	json_t *data = NULL;
	int rc;

	if (json_is_true(json_object_get(args, "verify")))
		return verify(ctl, text(args, "file"));
	json_object_del(args, "verify");
	if (!make_absolute(args))
		return EXIT_REFUSED;
	rc = ctl_ask(ctl, verb->command, json_copy(args), ASK_BACKUP_MS, &data);
	if (rc == EXIT_DONE)
		rc = wait_for_end(ctl, text(args, "file"), number(data, "number"));
	json_decref(data);
	return rc;
}
