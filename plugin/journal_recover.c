/*
 * What earlier epochs left. Of each the longest valid prefix counts, through its segments in order: the
 * next one must begin exactly where the one before it ended, or the epoch ends there. The first segment
 * of an epoch says where the epoch before it ended; what stands behind that was refused, though it may
 * have reached the disk.
 */
#include "journal_internal.h"

#include "base/killpoint.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int by_place(const void *a, const void *b)
{
	const struct segment_file *x = a, *y = b;

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

static enum im_status list_files(const char *dir, struct segment_file **out, size_t *n, struct im_err *err)
{
	struct segment_file *list = NULL, *more, f;
	DIR *d = opendir(dir);
	struct dirent *e;
	size_t cap = 0;

	*n = 0;
	if (!d)
		return im_fail(err, IM_FAILED, "cannot read %.150s: %s", dir, strerror(errno));
	while ((e = readdir(d))) {
		if (!segment_parse_name(e->d_name, &f.epoch, &f.index))
			continue;
		if (*n == cap) {
			cap = cap ? cap * 2 : 16;
			more = realloc(list, cap * sizeof(*list));
			if (!more) {
				free(list);
				(void)closedir(d);
				return im_fail(err, IM_FAILED, "out of memory while opening the journal");
			}
			list = more;
		}
		list[(*n)++] = f;
	}
	(void)closedir(d);
	if (list)
		qsort(list, *n, sizeof(*list), by_place);
	*out = list;
	return IM_OK;
}

static void useless(struct journal_found *f, struct segment_file file)
{
	f->useless[f->n_useless++] = file;
}

/* What the epoch behind says about where this one ended. */
static void cut(struct journal_found *f, const struct segment_before *before)
{
	for (struct segment *s = f->first; s; s = s->next)
		if (s->epoch == before->epoch && s->end > before->end)
			s->end = before->end > s->start ? before->end : s->start;
}

static void add(struct journal_found *f, struct segment *s)
{
	if (f->last)
		f->last->next = s;
	else
		f->first = s;
	f->last = s;
}

/*
 * Segments without records serve nobody: an epoch that never got one, or the one begun just before a crash. But one
 * that says where an epoch with records ended stays with it. Of the newest with records this start says it anew.
 */
static void drop_empty(struct journal_found *f)
{
	struct segment **at = &f->first, *s;
	uint64_t newest = 0, kept = 0; /* epochs with records */

	for (s = f->first; s; s = s->next)
		if (s->end > s->start)
			newest = s->epoch;
	f->last = NULL;
	while ((s = *at)) {
		bool empty = s->end == s->start;

		if (!empty)
			kept = s->epoch;
		if (empty && (kept == 0 || s->before.epoch != kept || s->epoch > newest)) {
			*at = s->next;
			useless(f, (struct segment_file){s->epoch, s->index});
			segment_free(s);
		} else {
			f->last = s;
			at = &s->next;
		}
	}
}

enum im_status journal_recover(const struct journal_fs *fs, const char *dir, struct journal_found *out, struct im_err *err)
{
	struct journal_found f = {0};
	struct segment_file *files = NULL;
	uint64_t closed_epoch = 0; /* nothing more of this one counts */
	bool torn = false, in_order;
	enum im_status st;
	size_t n;

	st = list_files(dir, &files, &n, err);
	if (st != IM_OK)
		return st;
	f.useless = calloc(n + 1, sizeof(*f.useless));
	if (!f.useless)
		st = im_fail(err, IM_FAILED, "out of memory while opening the journal");
	for (size_t i = 0; st == IM_OK && i < n; i++) {
		struct segment *s = NULL;

		IM_KILLPOINT("journal.in_recovery");
		f.seen = files[i].epoch > f.seen ? files[i].epoch : f.seen;
		if (files[i].epoch == closed_epoch) {
			useless(&f, files[i]);
			continue;
		}
		st = segment_open(fs, dir, files[i].epoch, files[i].index, &s, &torn, err);
		if (st == IM_NOT_FOUND) { /* prepared and never used, or the header was lost */
			st = IM_OK;
			closed_epoch = files[i].epoch;
			useless(&f, files[i]);
			continue;
		}
		if (st != IM_OK)
			break;
		in_order = !f.last || f.last->epoch != s->epoch || (s->index == f.last->index + 1 && s->start == f.last->end);
		if (!in_order) {
			f.holes++;
			closed_epoch = s->epoch;
			useless(&f, files[i]);
			segment_free(s);
			continue;
		}
		cut(&f, &s->before);
		f.holes += torn;
		add(&f, s);
	}
	free(files);
	if (st != IM_OK) {
		journal_found_finish(&f);
		return st;
	}
	drop_empty(&f);
	qsort(f.useless, f.n_useless, sizeof(*f.useless), by_place);
	*out = f;
	return IM_OK;
}

void journal_found_finish(struct journal_found *f)
{
	struct segment *s;

	while ((s = f->first)) {
		f->first = s->next;
		segment_free(s);
	}
	free(f->useless);
	f->useless = NULL;
}
