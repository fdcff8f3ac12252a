/*
 * backup, backup.status. An admin on the network names a file in {im_dir}/backups and nothing else: with a path of their choice
 * they could make or replace files of the service's user anywhere. imctl, which has the service credential, gives a path.
 */
#include "backup.h"
#include "command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const state_names[] = {
	[BACKUP_NONE] = "none", [BACKUP_JOURNAL] = "journal", [BACKUP_COPYING] = "copying", [BACKUP_DONE] = "done", [BACKUP_FAILED] = "failed",
};

static json_t *describe(struct backup *b)
{
	struct backup_status s;
	json_t *result;

	backup_job_status(b, &s);
	result = json_pack("{s:s,s:I,s:s,s:I,s:I,s:I,s:I,s:b}", "state", state_names[s.state], "number", (json_int_t)s.number, "file", s.file,
			   "bytes", (json_int_t)s.bytes, "rows", (json_int_t)s.rows, "messages", (json_int_t)s.messages, "ms",
			   (json_int_t)s.took_ms, "behind", s.behind);
	if (s.state == BACKUP_FAILED) {
		json_object_set_new(result, "why", json_string(im_status_name(s.why)));
		json_object_set_new(result, "error", json_string(s.error));
	}
	return result;
}

/* NULL: refused. Caller frees. */
static char *path_of(struct call *call)
{
	const char *file = call_text(call, "file");
	char *path = NULL, *dir = NULL;

	if (call->user[0] == '\0') {
		if (file[0] != '/')
			call_refuse(call, IM_REFUSE_BAD_FIELD, "\"file\" must be a path that begins with /");
		else if ((path = strdup(file)) == NULL)
			call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
		return path;
	}
	if (file[0] == '.' || strchr(file, '/') != NULL)
		call_refuse(call, IM_REFUSE_NOT_ALLOWED, "\"file\" must be a plain name: it is made in the instance's folder backups");
	else if (asprintf(&dir, "%s/backups", call->env->settings->dir) < 0 || asprintf(&path, "%s/%s", dir, file) < 0)
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
	else if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		call_refuse(call, IM_REFUSE_INTERNAL, "cannot make the folder backups: %s", strerror(errno));
	else {
		free(dir);
		return path;
	}
	free(dir);
	free(path);
	return NULL;
}

void command_backup(struct call *call)
{
	struct im_err err = {""};
	char *path = path_of(call);
	enum im_status st;

	if (path == NULL)
		return;
	st = backup_job_start(call->env->backup, path, call_flag(call, "force"), &err);
	free(path);
	if (st == IM_OK)
		call_ok(call, describe(call->env->backup));
	else
		call_refuse(call, st == IM_BUSY ? IM_REFUSE_TOO_MANY : st == IM_BAD_INPUT ? IM_REFUSE_NOT_ALLOWED : IM_REFUSE_INTERNAL, "%s", err.text);
}

void command_backup_status(struct call *call)
{
	call_ok(call, describe(call->env->backup));
}
