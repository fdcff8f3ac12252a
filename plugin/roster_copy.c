/*
 * A change that the disk refuses is in force all the same: a user who was disabled must not stay because of a
 * full disk. The file is then written anew as soon as that works; until then a restart would decide by the
 * older roster and ask the service for what is newer.
 */
#include "roster_copy.h"

#include "base/clock.h"
#include "base/log.h"
#include "roster_file.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MS 5000 /* between attempts to write the file anew */

struct roster_copy {
	struct roster *roster;   /* the caller's */
	struct roster *snapshot; /* being received; NULL: none */
	struct roster_file *file;
	char store[ROSTER_STORE_MAX + 1];   /* that what is in force is from */
	char talking[ROSTER_STORE_MAX + 1]; /* that is sending */
	int64_t retry_ms;
	roster_copy_fn *on_change;
	void *arg;
};

enum im_status roster_copy_open(const char *dir, struct roster *roster, struct roster_copy **out, struct im_err *err)
{
	struct roster_copy *c = calloc(1, sizeof(*c));
	enum im_status st;

	if (!c)
		return im_fail(err, IM_FAILED, "out of memory for the roster");
	c->roster = roster;
	st = roster_file_open(dir, roster, &c->file, err);
	if (st != IM_OK) {
		free(c);
		return st;
	}
	(void)snprintf(c->store, sizeof(c->store), "%s", roster_file_store(c->file)); /* of the same size */
	(void)snprintf(c->talking, sizeof(c->talking), "%s", c->store);
	*out = c;
	return IM_OK;
}

void roster_copy_from(struct roster_copy *c, const char *store)
{
	(void)snprintf(c->talking, sizeof(c->talking), "%s", store); /* longer ones do not exist */
}

uint64_t roster_copy_version(const struct roster_copy *c)
{
	return strcmp(c->store, c->talking) == 0 ? roster_version(c->roster) : 0;
}

void roster_copy_close(struct roster_copy *c)
{
	if (!c)
		return;
	roster_copy_drop_snapshot(c);
	roster_file_close(c->file);
	free(c);
}

void roster_copy_on_change(struct roster_copy *c, roster_copy_fn *fn, void *arg)
{
	c->on_change = fn;
	c->arg = arg;
}

void roster_copy_drop_snapshot(struct roster_copy *c)
{
	if (!c)
		return;
	roster_destroy(c->snapshot);
	c->snapshot = NULL;
}

static void changed(struct roster_copy *c, const Im__Bus__RosterItem *item)
{
	if (c->on_change)
		c->on_change(c->arg, item);
}

static void not_kept(struct roster_copy *c, const struct im_err *err)
{
	im_log(IM_LOG_ERROR, "evt=roster_not_kept error=\"%s\" note=\"in force; the file will be written anew\"", err->text);
	c->retry_ms = im_clock_mono_ms() + RETRY_MS;
}

static const char *apply_item(struct roster_copy *c, const Im__Bus__RosterItem *item)
{
	enum im_status st = roster_apply(c->snapshot ? c->snapshot : c->roster, item);
	struct im_err err;

	if (st != IM_OK && st != IM_EXISTS)
		return st == IM_BAD_INPUT ? "a malformed roster item" : "out of memory for the roster";
	if (st != IM_OK || c->snapshot)
		return NULL;
	if (!roster_file_is_broken(c->file) && roster_file_add(c->file, item, &err) != IM_OK)
		not_kept(c, &err);
	changed(c, item);
	return NULL;
}

static void user_may_be_gone(void *arg, const struct roster_user *u)
{
	struct roster_copy *c = arg;
	Im__Bus__RosterItem item = IM__BUS__ROSTER_ITEM__INIT;
	Im__Bus__User user = IM__BUS__USER__INIT;

	if (roster_user(c->roster, u->name))
		return;
	item.version = roster_version(c->roster);
	item.user = &user;
	user.name = (char *)(uintptr_t)u->name; /* only read */
	user.removed = true;
	changed(c, &item);
}

static void item_in_force(void *arg, const Im__Bus__RosterItem *item)
{
	changed(arg, item);
}

static void snapshot_in_force(struct roster_copy *c)
{
	struct im_err err;

	roster_swap(c->roster, c->snapshot);
	memcpy(c->store, c->talking, sizeof(c->store));
	if (roster_file_rewrite(c->file, c->roster, c->store, &err) != IM_OK)
		not_kept(c, &err);
	roster_each_user(c->snapshot, user_may_be_gone, c); /* those of before */
	roster_since(c->roster, 0, item_in_force, c);
	roster_copy_drop_snapshot(c);
	im_log(IM_LOG_NOTICE, "evt=roster_snapshot version=%" PRIu64 " users=%zu groups=%zu", roster_version(c->roster),
	       roster_count_users(c->roster), roster_count_groups(c->roster));
}

const char *roster_copy_apply(struct roster_copy *c, const Im__Bus__Roster *r)
{
	const char *why = NULL;

	if (r->begin) {
		roster_copy_drop_snapshot(c);
		c->snapshot = roster_create();
		if (!c->snapshot)
			return "out of memory for a roster snapshot";
	}
	for (size_t i = 0; i < r->n_items && !why; i++)
		why = apply_item(c, r->items[i]);
	if (!why && r->end && c->snapshot)
		snapshot_in_force(c);
	return why;
}

void roster_copy_tick(struct roster_copy *c)
{
	if (!roster_file_is_broken(c->file) || im_clock_mono_ms() < c->retry_ms)
		return;
	c->retry_ms = im_clock_mono_ms() + RETRY_MS;
	if (roster_file_rewrite(c->file, c->roster, c->store, NULL) == IM_OK) /* why it failed was logged when it broke */
		im_log(IM_LOG_NOTICE, "evt=roster_kept version=%" PRIu64, roster_version(c->roster));
}
