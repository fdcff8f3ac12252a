/*
 * imctl restore: a stopped instance's data from a backup. Everything is made beside its place; the store takes its place in one
 * rename, which is the moment at which the restore has happened. What is changed before that - sequences jump ahead, the
 * journal's next epoch rises, the broker's copy of the roster is forgotten - does the old store no harm, so a restore that
 * is killed is simply run again.
 */
#include "ctl.h"

#include "backup/backup.h"
#include "base/number.h"
#include "place.h"
#include "plugin/journal_internal.h"
#include "seq.h"
#include "store_restore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SEQ_PER_SECOND_BITS 20  /* sequences go on above time << this: no conversation gets a million messages a second */
#define SEQ_LEAST (1ull << 24)  /* ... and at least so far above what the backup knows: what one renewal of a lease may add */
#define SEQ_CLOCK_WRONG (1ull << 40) /* ... or so far, if the clock is behind the backup's: 200 days of 60,000 a second */

struct restore {
	struct place place;
	struct store_restore *store;
	struct store_restored restored;
	bool in_store;             /* the open part is a table of the store */
	bool in_lease;
	unsigned node;
	int64_t created_ms;
	char from_epoch[64];
	struct seq_section leases[IM_SECTIONS];
	uint64_t ceiling;          /* highest that is known */
	struct store_mark *marks;  /* where what is left of the journal begins, per epoch */
	size_t n_marks;
	uint64_t journal_bytes, journal_epoch;
	char kept_store[PLACE_PATH], kept_journal[PLACE_PATH];
	bool tty;
};

/* ---- from the file */

static enum im_status on_header(void *arg, const char *text, struct im_err *err)
{
	struct restore *r = arg;
	char schema[16] = "", node[16] = "", created[32] = "";
	uint64_t schema_number, node_number, created_ms;

	if (!backup_header_value(text, "store_schema", schema, sizeof(schema)) || !backup_header_value(text, "node", node, sizeof(node)) ||
	    !backup_header_value(text, "created_ms", created, sizeof(created)) ||
	    !backup_header_value(text, "store_epoch", r->from_epoch, sizeof(r->from_epoch)))
		return im_fail(err, IM_BAD_INPUT, "the backup does not say what it is of");
	if (!im_digits(schema, INT_MAX, &schema_number) || !im_digits(node, UINT_MAX, &node_number) || !im_digits(created, INT64_MAX, &created_ms))
		return im_fail(err, IM_BAD_INPUT, "the backup's header has a number that is none");
	r->node = (unsigned)node_number;
	r->created_ms = (int64_t)created_ms;
	if (r->place.node != 0 && r->place.node != r->node)
		return im_fail(err, IM_BAD_INPUT, "the backup is of node %u, this instance is node %u (im_node)", r->node, r->place.node);
	return store_restore_begin(r->place.restoring, (int)schema_number, &r->store, err);
}

static enum im_status on_part(void *arg, const char *name, const char *const *columns, size_t n, struct im_err *err)
{
	struct restore *r = arg;

	r->in_store = strncmp(name, "store.", 6) == 0;
	r->in_lease = strcmp(name, "lease") == 0 && n == 3;
	if (r->in_store)
		return store_restore_part(r->store, name + 6, columns, n, err);
	return r->in_lease ? IM_OK : im_fail(err, IM_BAD_INPUT, "the backup has a part %.60s that this release does not know", name);
}

static enum im_status on_row(void *arg, const struct backup_value *values, size_t n, struct im_err *err)
{
	struct restore *r = arg;
	struct seq_section *s;

	if (r->in_store)
		return store_restore_row(r->store, values, n, err);
	if (values[0].integer < 0 || values[0].integer >= IM_SECTIONS || values[1].integer < 0 || values[2].integer < 0)
		return im_fail(err, IM_BAD_INPUT, "the backup has a lease that cannot be");
	s = &r->leases[values[0].integer];
	s->epoch = (uint64_t)values[1].integer;
	if ((uint64_t)values[2].integer > r->ceiling)
		r->ceiling = (uint64_t)values[2].integer;
	return IM_OK;
}

static enum im_status on_part_end(void *arg, uint64_t rows, struct im_err *err)
{
	struct restore *r = arg;

	(void)rows;
	return r->in_store ? store_restore_part_end(r->store, err) : IM_OK;
}

static void on_progress(void *arg, uint64_t bytes)
{
	const struct restore *r = arg;

	if (r->tty)
		(void)fprintf(stderr, "\r%.1f MiB ", (double)bytes / 1048576);
}

static enum im_status read_file(struct restore *r, const char *file, struct im_err *err)
{
	static const struct backup_sink sink = {on_header, on_part, on_row, on_part_end, on_progress};
	int fd = strcmp(file, "-") == 0 ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
	enum im_status st;

	if (fd < 0)
		return im_fail(err, errno == ENOENT ? IM_NOT_FOUND : IM_FAILED, "%.200s: %s", file, strerror(errno));
	st = backup_read(fd, file, &sink, r, NULL, err);
	if (fd != STDIN_FILENO)
		(void)close(fd); /* only read */
	if (r->tty)
		(void)fputc('\n', stderr);
	return st;
}

/* ---- the journal */

/*
 * What the broker acknowledged and no store may have is taken in again: the restored store goes on where it knows the journal. Where
 * the journal's files begin behind that, it goes on there.
 */
static enum im_status look_at_journal(struct restore *r, struct im_err *err)
{
	struct journal_found found = {0};
	struct segment *s;
	enum im_status st;

	r->journal_epoch = journal_epoch_load(r->place.journal);
	if (access(r->place.journal, F_OK) != 0)
		return IM_OK;
	st = journal_recover(&journal_fs_real, r->place.journal, &found, err);
	if (st != IM_OK)
		return st;
	for (s = found.first; s; s = s->next)
		r->n_marks++;
	r->marks = calloc(r->n_marks + 1, sizeof(*r->marks));
	r->n_marks = 0;
	for (s = r->marks ? found.first : NULL; s; s = s->next) {
		r->journal_bytes += s->end - s->start;
		if (r->n_marks == 0 || r->marks[r->n_marks - 1].epoch != s->epoch)
			r->marks[r->n_marks++] = (struct store_mark){s->epoch, s->start};
	}
	if (found.seen > r->journal_epoch)
		r->journal_epoch = found.seen;
	journal_found_finish(&found);
	return r->marks ? IM_OK : im_fail(err, IM_FAILED, "out of memory");
}

static enum im_status discard_journal(struct restore *r, struct im_err *err)
{
	enum im_status st = place_aside(&r->place, r->place.journal, r->kept_journal, err);

	r->n_marks = 0;
	r->journal_bytes = 0;
	return st == IM_NOT_FOUND ? IM_OK : st;
}

/* ---- sequences */

/* Where all conversations go on: above all that was ever given, by whatever this store or another copy of it did since. */
static uint64_t new_floor(const struct restore *r)
{
	uint64_t now = (uint64_t)time(NULL), known = r->ceiling;

	if (r->restored.newest_seq > known)
		known = r->restored.newest_seq;
	if (now < (uint64_t)(r->created_ms / 1000))
		return known + SEQ_CLOCK_WRONG;
	return now << SEQ_PER_SECOND_BITS > known + SEQ_LEAST ? now << SEQ_PER_SECOND_BITS : known + SEQ_LEAST;
}

static enum im_status raise_sequences(struct restore *r, uint64_t *out, struct im_err *err)
{
	struct seq_section *now = calloc(IM_SECTIONS, sizeof(*now));
	struct seq_row *rows = calloc(IM_SECTIONS, sizeof(*rows));
	enum im_status st;
	void *db = NULL;

	st = now && rows ? seq_sqlite.open(r->place.sequences, &db, err) : im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		st = seq_sqlite.load(db, now, err);
	for (uint32_t i = 0; i < IM_SECTIONS && st == IM_OK; i++)
		if (now[i].ceiling > r->ceiling)
			r->ceiling = now[i].ceiling;
	*out = new_floor(r);
	if (st == IM_OK && *out > SEQ_CEILING_MOST - SEQ_LEAD_MOST)
		st = im_fail(err, IM_FAILED, "the sequences are used up: the clock, or the backup, is wrong");
	for (uint32_t i = 0; i < IM_SECTIONS && st == IM_OK; i++) {
		struct seq_section *s = &rows[i].state;

		rows[i].section = i;
		s->epoch = (now[i].epoch > r->leases[i].epoch ? now[i].epoch : r->leases[i].epoch) + 1; /* nobody's: the store asks with 0 */
		s->ceiling = s->floor = *out;
		(void)strcpy(s->owner, "restore"); /* it fits */
	}
	if (st == IM_OK)
		st = seq_sqlite.save(db, rows, IM_SECTIONS, err);
	seq_sqlite.close(db);
	free(now);
	free(rows);
	return st == IM_OK ? place_give(&r->place, r->place.sequences, err) : st;
}

/* ---- all of it */

static enum im_status give_store(struct restore *r, struct im_err *err)
{
	static const char *const names[] = {"", "/log", "/store.db"};
	char path[PLACE_PATH + 16];
	enum im_status st = IM_OK;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && st == IM_OK; i++) {
		(void)snprintf(path, sizeof(path), "%s%s", r->place.restoring, names[i]);
		st = place_give(&r->place, path, err);
	}
	return st;
}

/* The next journal's epoch is above all whose positions the store knows; the broker asks for the whole roster anew. */
static enum im_status prepare_broker(struct restore *r, struct im_err *err)
{
	char path[PLACE_PATH + 16];

	if (r->restored.newest_journal > r->journal_epoch)
		r->journal_epoch = r->restored.newest_journal;
	journal_epoch_keep(r->place.journal, r->journal_epoch);
	if (journal_epoch_load(r->place.journal) != r->journal_epoch)
		return im_fail(err, IM_FAILED, "cannot write %.180s.epoch: %s", r->place.journal, strerror(errno));
	(void)snprintf(path, sizeof(path), "%s.epoch", r->place.journal);
	if (place_give(&r->place, path, err) != IM_OK)
		return IM_FAILED;
	(void)snprintf(path, sizeof(path), "%s/roster", r->place.dir);
	if (unlink(path) != 0 && errno != ENOENT)
		return im_fail(err, IM_FAILED, "cannot remove %.180s: %s", path, strerror(errno));
	return IM_OK;
}

static enum im_status restore(struct restore *r, const char *file, bool discard, uint64_t *floor, struct im_err *err)
{
	enum im_status st = place_clear(&r->place, err);

	if (st == IM_OK)
		st = read_file(r, file, err);
	if (st == IM_OK)
		st = look_at_journal(r, err);
	if (st == IM_OK && discard)
		st = discard_journal(r, err);
	if (st == IM_OK)
		st = store_restore_finish(r->store, r->node, r->marks, r->n_marks, &r->restored, err);
	if (st == IM_OK)
		st = give_store(r, err);
	if (st == IM_OK)
		st = raise_sequences(r, floor, err);
	if (st == IM_OK)
		st = prepare_broker(r, err);
	return st == IM_OK ? place_switch(&r->place, r->kept_store, err) : st;
}

static void report(const struct ctl *ctl, const struct restore *r, uint64_t floor)
{
	json_t *data = json_pack("{s:s,s:I,s:s,s:s,s:I,s:I}", "dir", r->place.dir, "messages", (json_int_t)r->restored.messages, "store",
				 r->restored.epoch, "store_before", r->from_epoch, "sequences_above", (json_int_t)floor, "journal_bytes",
				 (json_int_t)r->journal_bytes);

	if (r->kept_store[0] != '\0')
		(void)json_object_set_new(data, "old_store", json_string(r->kept_store)); /* missing for memory: ls shows it */
	if (r->kept_journal[0] != '\0')
		(void)json_object_set_new(data, "old_journal", json_string(r->kept_journal));
	if (ctl->json)
		print_line(data);
	else
		print_object(data);
	json_decref(data);
}

static int exit_of(enum im_status st)
{
	switch (st) {
	case IM_OK:
		return EXIT_DONE;
	case IM_NOT_FOUND:
		return EXIT_NOT_FOUND;
	case IM_EXISTS:
		return EXIT_EXISTS;
	default:
		return EXIT_REFUSED;
	}
}

int run_restore(struct ctl *ctl, const struct verb *verb, json_t *args)
{
	struct restore *r = calloc(1, sizeof(*r));
	bool force = json_is_true(json_object_get(args, "force"));
	struct im_err err = {""};
	const char *what = NULL;
	char config[512];
	uint64_t floor = 0;
	enum im_status st;

	(void)verb;
	if (r == NULL) {
		ctl_complain("out of memory");
		return EXIT_REFUSED;
	}
	r->tty = isatty(STDERR_FILENO) && !ctl->json;
	(void)umask(077);
	ctl_config_path(ctl, config, sizeof(config));
	st = place_find(config, ctl->dir, &r->place, &err);
	if (st == IM_OK)
		st = place_lock(&r->place, &err);
	if (st == IM_OK && !force && place_in_use(&r->place, &what))
		st = im_fail(&err, IM_EXISTS, "%.150s is there already: --force puts it aside and restores", what);
	if (st == IM_OK)
		st = restore(r, json_string_value(json_object_get(args, "file")), json_is_true(json_object_get(args, "discard_journal")), &floor, &err);
	if (st == IM_OK)
		report(ctl, r, floor);
	else
		ctl_complain("%s", err.text);
	store_restore_close(r->store);
	place_unlock(&r->place);
	free(r->marks);
	free(r);
	return exit_of(st);
}
