/* The table of our settings, for settings.c (fills) and settings_print.c (explains). Private to lib/base. */
#ifndef IM_BASE_SETTINGS_TABLE_H
#define IM_BASE_SETTINGS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SETTING_PREFIX "plugin_opt_" /* mosquitto's; our names begin with im_ */

enum setting_type {
	SETTING_TEXT,
	SETTING_BOOL,   /* bool: true|false */
	SETTING_NUMBER, /* unsigned */
	SETTING_SIZE,   /* uint64_t: bytes, with k, m or g for powers of 1024 */
	SETTING_CHOICE, /* enum: one of `choices`, in the order of the enum */
};

struct setting {
	const char *name;            /* as written behind the prefix */
	const char *group;           /* heading it is printed under */
	enum setting_type type;
	size_t at;                   /* offset in struct im_settings */
	uint64_t min, max;           /* numbers and sizes; `zero` besides */
	bool zero;                   /* 0 is allowed although below min */
	const char *fallback;        /* the default as one would write it; {dir} stands for im_dir; NULL: required */
	const char *unit;            /* for people; "" if the value says it */
	bool live;                   /* SIGHUP puts a new value in force */
	const char *const *choices;  /* ends with NULL */
	const char *form;            /* texts: how it must look, for people */
	/* Texts: NULL if it is well-formed, otherwise what is wrong. */
	const char *(*check)(const char *value);
	const char *help;            /* one or two sentences */
};

extern const struct setting settings_table[];
extern const size_t settings_count;

#endif
