#include "sealing.h"

#include "base/key_file.h"
#include "base/log.h"
#include "wire/sealed.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define TOLD_EACH_S 60 /* of a key that cannot be read */

struct sealing {
	char *path;            /* NULL: im_push is off, and the service refuses what comes */
	struct stat seen;      /* of the file that the key is from */
	bool there;
	time_t told_s;
	uint8_t key[IM_SEALED_KEY];
};

struct sealing *sealing_create(const struct im_settings *settings)
{
	struct sealing *s = calloc(1, sizeof(*s));

	if (!s || !settings->push || !*settings->push)
		return s;
	if (asprintf(&s->path, "%s/store.key", settings->push_dir) < 0) {
		free(s);
		return NULL;
	}
	return s;
}

void sealing_destroy(struct sealing *s)
{
	if (!s)
		return;
	sodium_memzero(s->key, sizeof(s->key));
	free(s->path);
	free(s);
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void tell(struct sealing *s, const char *why)
{
	time_t now = time(NULL);

	if (now >= s->told_s && now - s->told_s < TOLD_EACH_S)
		return;
	s->told_s = now;
	im_log(IM_LOG_WARNING, "evt=sealing why=\"%s\": devices cannot register for push", why);
}

/* Of a file that is gone the key stays in use: whoever made it has it too. */
static bool refresh(struct sealing *s)
{
	uint8_t store_key[IM_SEALED_KEY];
	struct im_err err = {""};
	struct stat now;

	if (stat(s->path, &now) != 0 || (s->there && is_same(&now, &s->seen)))
		return s->there;
	if (im_key_file_read(s->path, store_key, sizeof(store_key), &err) != IM_OK) {
		tell(s, err.text);
		return false; /* the service will not take it either */
	}
	im_sealed_key(store_key, s->key);
	sodium_memzero(store_key, sizeof(store_key));
	s->seen = now;
	s->there = true;
	return true;
}

enum im_status sealing_args(struct sealing *s, struct im_arena *a, Im__Bus__Record *r)
{
	uint8_t *sealed;

	if (!s->path || r->args.len == 0 || strcmp(r->method, IM_SEALED_METHOD) != 0)
		return IM_OK;
	if (!refresh(s))
		return IM_BUSY;
	sealed = im_arena_alloc(a, r->args.len + IM_SEALED_MORE);
	if (!sealed)
		return IM_FAILED;
	im_seal(s->key, r->args.data, r->args.len, sealed);
	r->args.data = sealed;
	r->args.len += IM_SEALED_MORE;
	r->sealed = true;
	return IM_OK;
}
