#include "push/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BADGE_ROOM 24 /* behind the key of a badge: its moment */

static size_t size_of(const Im__Push__Job *j)
{
	return strlen(j->key) + strlen(j->user) + strlen(j->device) + strlen(j->app) + strlen(j->conv) + 5;
}

const char *push_job_problem(const Im__Push__Job *j)
{
	if (!*j->key || !*j->user || !*j->device || !*j->app)
		return "has no key, user, device or app";
	return size_of(j) > PUSH_JOB_TEXT_MAX ? "has names that are too long" : NULL;
}

static const char *put(char **at, const char *text)
{
	size_t len = strlen(text) + 1;
	char *mine = *at;

	memcpy(mine, text, len);
	*at += len;
	return mine;
}

struct push_job *push_job_create(const Im__Push__Job *from, int64_t ttl_ms)
{
	struct push_job *j = calloc(1, sizeof(*j) + size_of(from) + BADGE_ROOM);
	char *at, key[64];

	if (!j)
		return NULL;
	at = j->text;
	(void)snprintf(key, sizeof(key), "badge:%lld", (long long)from->created_ms); /* all have one name, and each is one of its own */
	j->key = put(&at, from->kind == IM__PUSH__KIND__KIND_BADGE && strcmp(from->key, "badge") == 0 ? key : from->key);
	j->user = put(&at, from->user);
	j->device = put(&at, from->device);
	j->app = put(&at, from->app);
	j->conv = put(&at, from->conv);
	j->kind = from->kind;
	j->mention = from->mention;
	j->seq = from->seq;
	j->created_ms = from->created_ms;
	j->not_before_ms = from->not_before_ms;
	j->deadline_ms = from->deadline_ms > 0 ? from->deadline_ms : from->created_ms + ttl_ms;
	return j;
}

void push_job_free(struct push_job *j)
{
	free(j);
}

void push_job_message(const struct push_job *j, Im__Push__Job *out)
{
	im__push__job__init(out);
	out->key = (char *)j->key; /* only read */
	out->user = (char *)j->user;
	out->device = (char *)j->device;
	out->app = (char *)j->app;
	out->conv = (char *)j->conv;
	out->kind = j->kind;
	out->mention = j->mention;
	out->seq = j->seq;
	out->created_ms = j->created_ms;
	out->not_before_ms = j->not_before_ms;
	out->deadline_ms = j->deadline_ms;
}
