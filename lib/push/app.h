/*
 * One app of a provider, as {im_push_dir}/{provider}.{app}.conf describes it: `key value` lines. Which keys there are is the
 * driver's table; what is unknown, missing or of a wrong form is refused with file:line and the nearest name. Secret files
 * must be ours and of mode 0600; they are read once, and wiped when the driver has taken from them what it needs.
 */
#ifndef IM_PUSH_APP_H
#define IM_PUSH_APP_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PUSH_APP_NAME_MAX 64      /* [A-Za-z0-9._-]: a bundle id, a project */
#define PUSH_APPS_MAX 256         /* of one provider: each costs connections and a breaker */
#define PUSH_VALUE_MAX 2048       /* of a value: the longest is a URL */
#define PUSH_FILE_MAX (256u << 10) /* of a key or certificate file: a service account has 3 KiB, a chain of certificates 20 */

enum push_key_type {
	PUSH_KEY_TEXT,
	PUSH_KEY_NUMBER,          /* min..max */
	PUSH_KEY_BOOL,            /* true|false */
	PUSH_KEY_CHOICE,          /* one of `choices` */
	PUSH_KEY_FILE,            /* a path, absolute or below im_push_dir; must be readable */
	PUSH_KEY_SECRET,          /* the same, and: a regular file, mode 0600 or 0400, owned by us */
};

struct push_key {
	const char *name;         /* NULL ends the table */
	enum push_key_type type;
	bool required;
	const char *fallback;     /* NULL: "" */
	int64_t min, max;
	const char *const *choices; /* ends with NULL */
};

struct push_app;

/* All of the provider's apps. IM_BAD_INPUT: err says what to fix; none at all is that too. */
enum im_status push_apps_read(const char *dir, const char *provider, const struct push_key *keys, struct push_app ***out, size_t *n,
			      struct im_err *err);
void push_apps_free(struct push_app **apps, size_t n); /* NULL is fine; wipes secrets */
void push_apps_wipe(struct push_app *const *apps, size_t n); /* of the secrets' bytes only: the driver has them */

/* For drivers. Keys of the table only. */
const char *push_app_name(const struct push_app *app);
bool push_app_has(const struct push_app *app, const char *key);          /* stands in the file */
const char *push_app_text(const struct push_app *app, const char *key);  /* files: the whole path. "": neither given nor a default */
int64_t push_app_number(const struct push_app *app, const char *key);
bool push_app_bool(const struct push_app *app, const char *key);
/* A file's bytes, with a NUL behind them; NULL: not given. PUSH_KEY_SECRET: only within the driver's start or reload. */
const char *push_app_file(const struct push_app *app, const char *key, size_t *len);
/* Says "file:line: key: ..." of what a driver found wrong with a key's value. Returns IM_BAD_INPUT. */
enum im_status push_app_fault(const struct push_app *app, const char *key, struct im_err *err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif
