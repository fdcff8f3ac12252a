/*
 * The sqlite driver: {path}/log/ is the truth, {path}/store.db follows, {path}/lock keeps a second process
 * out.
 *
 *   append -> tail accepts -> log thread: write, one sync for all that waits -> loop: tail, answer
 *          -> indexer: rows -> loop: tail forgets
 *
 * All queues are emptied from one wake on the loop (on_wake). A log that cannot be written ends the service
 * (every append from then on is IM_UNCERTAIN); opening again decides what is in it. A database that cannot
 * be written only lets the backlog grow, until store_full stops the input; one that cannot be synced ends the log.
 */
#include "base/log.h"
#include "store_ask.h"
#include "store_base.h"
#include "store_index.h"
#include "store_log.h"
#include "store_reader.h"
#include "store_restore.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPLAY_BATCH 10000u   /* entries of one transaction while recovering */
#define CLOSE_MS 10000        /* for the rows to catch up at close; what is left is replayed at the next opening */
#define SEGMENT_LEAST (64u << 10)
#define SEGMENT_MOST (1u << 30) /* offsets have 32 bits in a position */
#define SCRATCH_KEPT (1u << 20) /* a larger buffer of one large append is given back */

struct sqlite_store {
	struct store base;
	struct im_wake *wake;
	char *dir, *log_dir, *db_path;
	int lock;
	struct store_tail *tail;
	struct store_asker asker;
	struct store_index *index;
	struct store_log *log;
	struct store_reader *reader;
	struct store_db *front;       /* the loop's own connection, for what must be known at once */
	struct store_start start;
	struct position *high;
	struct im_buf frames;
	struct read_queue ready;      /* answered from memory alone */
	struct append_queue replayed; /* while opening: whole appends */
	struct append_queue part;     /* the records of one whose last has not come yet ... */
	uint64_t part_segment;        /* ... in this segment */
	uint64_t messages, backlog, backlog_most;
	uint64_t answered;            /* the log's position up to which appends were answered IM_OK */
};

static struct sqlite_store *sqlite(struct store *s)
{
	return (struct sqlite_store *)s;
}

/* ---- the loop's side of the queues */

static void answer_append(struct sqlite_store *ss, struct append *a, struct append_queue *to_index)
{
	store_done_fn *done = a->done;
	void *arg = a->arg;
	enum im_status st = a->st;

	if (st == IM_OK) {
		store_tail_answer(ss->tail, a);
		ss->answered = a->end;
		for (size_t i = 0; i < a->n; i++)
			ss->messages += a->entries[i].kind == STORE_MESSAGE;
		append_queue_put(to_index, a);
	} else {
		store_tail_drop(ss->tail, a);
		ss->backlog -= a->bytes;
		append_unref(a);
	}
	done(arg, st);
}

static void answer_appends(struct sqlite_store *ss)
{
	struct append_queue decided, to_index;
	struct append *a;

	append_queue_init(&decided);
	append_queue_init(&to_index);
	store_log_take(ss->log, &decided);
	while ((a = append_queue_take(&decided)))
		answer_append(ss, a, &to_index);
	if (to_index.first)
		store_index_give(ss->index, &to_index);
}

static void settle_appends(struct sqlite_store *ss)
{
	struct append_queue indexed;
	struct append *a;

	append_queue_init(&indexed);
	store_index_take(ss->index, &indexed);
	while ((a = append_queue_take(&indexed))) {
		store_tail_settle(ss->tail, a);
		ss->backlog -= a->bytes;
		append_unref(a);
	}
}

static void answer_reads(struct sqlite_store *ss)
{
	struct store_read *r;

	while ((r = read_queue_take(&ss->ready)))
		read_answer(r, ss->tail);
	while ((r = store_reader_take(ss->reader)))
		read_answer(r, ss->tail);
}

static void on_wake(void *arg)
{
	struct sqlite_store *ss = arg;

	answer_appends(ss);
	settle_appends(ss);
	answer_reads(ss);
}

static void wake_loop(void *arg) /* on any thread */
{
	struct sqlite_store *ss = arg;

	im_wake_send(ss->wake);
}

static void ask(void *store, struct store_read *r)
{
	struct sqlite_store *ss = store;

	if (r->needs_rows) {
		store_reader_give(ss->reader, r);
		return;
	}
	read_overlay(r);
	read_queue_put(&ss->ready, r);
	im_wake_send(ss->wake);
}

/* What the tail must know at once; all of it is in the rows, or the tail would have it. */
static bool front_last(void *arg, const char *conv, uint64_t *seq, int64_t *ts)
{
	struct sqlite_store *ss = arg;

	return rows_last(ss->front, conv, seq, ts);
}

static bool front_find(void *arg, const char *conv, uint64_t seq, struct message **out)
{
	struct sqlite_store *ss = arg;

	return rows_find(ss->front, conv, seq, out);
}

/* ---- appending */

static bool frame_entries(struct sqlite_store *ss, const struct append *a)
{
	im_buf_clear(&ss->frames);
	for (size_t i = 0; i < a->n; i++) {
		size_t at = log_frame_begin(&ss->frames);

		entry_pack(&a->entries[i], i + 1 < a->n, &ss->frames);
		if (!log_frame_end(&ss->frames, at))
			return false;
	}
	return true;
}

static void sqlite_append(struct store *s, const struct store_entry *entries, size_t n, store_done_fn *done, void *arg)
{
	struct sqlite_store *ss = sqlite(s);
	struct append *a = ask_append(&ss->asker, entries, n, done, arg);

	if (!frame_entries(ss, a)) {
		/* Too large for a record. Its sequences stay given: the caller stops or takes the next. */
		struct append *refused = ask_append(&ss->asker, NULL, 0, done, arg);

		im_log(IM_LOG_ERROR, "evt=append_too_large entries=%zu instead=refused", n);
		store_tail_drop(ss->tail, a);
		store_tail_refused(ss->tail);
		append_unref(a);
		a = refused;
		a->st = IM_FAILED;
		im_buf_clear(&ss->frames);
	}
	ss->backlog += ss->frames.len;
	store_log_append(ss->log, &ss->frames, a);
	if (ss->frames.cap > SCRATCH_KEPT)
		im_buf_finish(&ss->frames);
}

/* ---- opening: the folder */

/* A folder whose entry a power cut takes would take with it what was synced into it. */
static bool sync_parent(const char *path)
{
	char *parent = strdup(path), *slash = parent ? strrchr(parent, '/') : NULL;
	bool ok;
	int fd;

	if (slash)
		slash[slash == parent] = '\0';
	fd = parent ? open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	ok = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	free(parent);
	return ok;
}

static enum im_status make_dir(const char *path, struct im_err *err)
{
	if ((mkdir(path, 0700) == 0 || errno == EEXIST) && sync_parent(path)) /* also one that a killed process made */
		return IM_OK;
	return im_fail(err, IM_FAILED, "cannot make the store's folder %s: %s", path, strerror(errno));
}

static enum im_status take_lock(struct sqlite_store *ss, struct im_err *err)
{
	char *path = NULL;
	enum im_status st = IM_OK;

	if (asprintf(&path, "%s/lock", ss->dir) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	ss->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (ss->lock < 0)
		st = im_fail(err, IM_FAILED, "cannot open %s: %s", path, strerror(errno));
	else if (flock(ss->lock, LOCK_EX | LOCK_NB) != 0)
		st = im_fail(err, IM_FAILED, "the store %s is in use by another process", ss->dir);
	free(path);
	return st;
}

static enum im_status open_folder(struct sqlite_store *ss, const char *url, struct im_err *err)
{
	const char *path = strchr(url, ':');
	enum im_status st;

	assert(path); /* behind the name that chose this driver */
	path++;
	if (path[0] == '\0')
		return im_fail(err, IM_BAD_INPUT, "im_store: sqlite: needs a folder behind it");
	ss->dir = strdup(path);
	if (!ss->dir || asprintf(&ss->log_dir, "%s/log", path) < 0 || asprintf(&ss->db_path, "%s/store.db", path) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	st = store_restore_check(ss->dir, err);
	if (st == IM_OK)
		st = make_dir(ss->dir, err);
	if (st == IM_OK)
		st = make_dir(ss->log_dir, err);
	return st == IM_OK ? take_lock(ss, err) : st;
}

/* ---- opening: who we are */

/* A new store's name and key, synced before any log segment carries the name. */
static enum im_status found_store(struct sqlite_store *ss, uint8_t epoch[16], uint8_t key[16], struct im_err *err)
{
	struct store_db *db = store_index_db(ss->index);

	randombytes_buf(epoch, 16);
	randombytes_buf(key, 16);
	if (!store_db_exec(db, DB_BEGIN) || !store_db_meta_set(db, "epoch", epoch, 16) || !store_db_meta_set(db, "hash_key", key, 16) ||
	    !store_db_exec(db, DB_COMMIT))
		return store_db_fail(db, err, "write");
	if (store_index_checkpoint(ss->index, err) == IM_OK)
		return IM_OK;
	return im_fail(err, IM_FAILED, "cannot make %s durable: it is in use, or the disk fails", ss->db_path);
}

static enum im_status open_identity(struct sqlite_store *ss, const struct im_settings *settings, struct im_err *err)
{
	struct tail_options o = { .rows = { front_last, front_find, ss }, .dedupe_days = settings->dedupe_days, .bloom = true };
	struct store_db *db = store_index_db(ss->index);
	enum im_status st = IM_OK;
	uint8_t epoch[16];

	if (!store_db_meta_get(db, "epoch", epoch, sizeof(epoch)) || !store_db_meta_get(db, "hash_key", o.hash_key, sizeof(o.hash_key)))
		st = found_store(ss, epoch, o.hash_key, err);
	if (st != IM_OK)
		return st;
	sodium_bin2hex(ss->start.epoch, sizeof(ss->start.epoch), epoch, sizeof(epoch));
	ss->tail = store_tail_create(&o);
	if (!ss->tail)
		return im_fail(err, IM_FAILED, "out of memory");
	ss->asker = (struct store_asker){ ss->tail, ask, ss };
	return IM_OK;
}

/* ---- opening: the log */

static enum im_status apply_replayed(struct sqlite_store *ss, uint64_t end, struct im_err *err)
{
	enum im_status st = store_index_apply(ss->index, &ss->replayed, end, err);
	struct append *a;

	while ((a = append_queue_take(&ss->replayed)))
		append_unref(a);
	return st;
}

/*
 * A torn end: an append that is not whole was never answered, and half of it must not count - its first
 * records would say that the journal is done with what the lost ones came from.
 */
static void drop_part(struct sqlite_store *ss)
{
	struct append *a;

	if (ss->part.first)
		im_log(IM_LOG_NOTICE, "evt=log_torn entries=%zu segment=%llu then=\"not answered, so they come again\"", ss->part.n,
		       (unsigned long long)ss->part_segment);
	while ((a = append_queue_take(&ss->part)))
		append_unref(a);
}

static enum im_status replay(void *arg, const uint8_t *body, size_t len, uint64_t end, struct im_err *err)
{
	struct sqlite_store *ss = arg;
	struct append *a = NULL;
	bool more;
	enum im_status st = entry_unpack(body, len, &a, &more);

	if (st != IM_OK)
		return im_fail(err, IM_FAILED, "the message log in %s has a record that cannot be read (position %llx): made by a newer release?",
			       ss->log_dir, (unsigned long long)end);
	store_tail_name(ss->tail, a);
	if (end >> 32 != ss->part_segment)
		drop_part(ss);
	ss->part_segment = end >> 32;
	append_queue_put(&ss->part, a);
	if (more)
		return IM_OK;
	append_queue_move(&ss->replayed, &ss->part);
	return ss->replayed.n >= REPLAY_BATCH ? apply_replayed(ss, end, err) : IM_OK;
}

/*
 * What a killed process wrote and had not synced is found here and counts from now on, so it must be durable before
 * anything is built on it. Syncing the old segment would not do: if that failed before, it succeeds now and has
 * written nothing. The rows do it: they are written anew, with synced commits.
 */
static enum im_status settle(void *arg, uint64_t reached, struct im_err *err)
{
	struct sqlite_store *ss = arg;

	drop_part(ss);
	return apply_replayed(ss, reached, err);
}

static enum im_status open_log(struct sqlite_store *ss, const struct im_settings *settings, struct im_err *err)
{
	struct log_options o = { .dir = ss->log_dir, .epoch = ss->start.epoch, .segment_bytes = settings->segment_bytes,
				 .after = store_index_applied(ss->index), .replay = replay, .wake = wake_loop, .arg = ss, .settle = settle };
	enum im_status st;

	if (!store_db_sync_commits(store_index_db(ss->index), true))
		return store_db_fail(store_index_db(ss->index), err, "set up");
	if (o.segment_bytes < SEGMENT_LEAST)
		o.segment_bytes = SEGMENT_LEAST;
	if (o.segment_bytes > SEGMENT_MOST)
		o.segment_bytes = SEGMENT_MOST;
	st = store_log_open(&o, &ss->log, err);
	if (st == IM_OK && !store_db_sync_commits(store_index_db(ss->index), false))
		st = store_db_fail(store_index_db(ss->index), err, "set up");
	if (st != IM_OK)
		return st;
	st = store_index_checkpoint(ss->index, err);
	if (st == IM_OK)
		store_log_trim(ss->log, store_log_start(ss->log));
	return st == IM_BUSY ? IM_OK : st; /* somebody reads the file: the old segments stay until a later checkpoint */
}

/* ---- opening: what memory keeps of the rows */

static bool load_sections(struct sqlite_store *ss)
{
	sqlite3_stmt *s = store_db_get(store_index_db(ss->index), DB_SECTIONS);
	uint64_t *sections = store_tail_sections(ss->tail);
	int rc = SQLITE_MISUSE;

	while (s && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		int64_t section = sqlite3_column_int64(s, 0);

		if (section >= 0 && section < IM_SECTIONS)
			sections[section] = (uint64_t)sqlite3_column_int64(s, 1);
	}
	(void)sqlite3_reset(s); /* rc has the error */
	ss->start.section_epochs = sections;
	return rc == SQLITE_DONE;
}

static bool load_high_water(struct sqlite_store *ss)
{
	sqlite3_stmt *s = store_db_get(store_index_db(ss->index), DB_HIGH);
	int rc = SQLITE_MISUSE;
	size_t cap = 0, n = 0;

	while (s && (rc = sqlite3_step(s)) == SQLITE_ROW) {
		if (n == cap) {
			struct position *more = realloc(ss->high, (cap = cap ? 2 * cap : 16) * sizeof(*more));

			if (!more)
				break;
			ss->high = more;
		}
		ss->high[n++] = (struct position){ (uint32_t)sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1),
						   (uint64_t)sqlite3_column_int64(s, 2) };
	}
	(void)sqlite3_reset(s); /* rc has the error */
	ss->start.high_water = ss->high;
	ss->start.n_high_water = n;
	return rc == SQLITE_DONE;
}

static bool load_ids(struct sqlite_store *ss)
{
	sqlite3_stmt *s = store_db_get(store_index_db(ss->index), DB_ID_ALL);
	int rc = SQLITE_MISUSE;

	if (s)
		sqlite3_bind_int64(s, 1, 0);
	while (s && (rc = sqlite3_step(s)) == SQLITE_ROW)
		store_tail_note_row(ss->tail, sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1));
	(void)sqlite3_reset(s); /* rc has the error */
	return rc == SQLITE_DONE;
}

static enum im_status open_threads(struct sqlite_store *ss, struct im_err *err)
{
	enum im_status st;

	if (!load_sections(ss) || !load_high_water(ss) || !load_ids(ss))
		return store_db_fail(store_index_db(ss->index), err, "read");
	st = store_db_open(ss->db_path, false, &ss->front, err);
	if (st == IM_OK)
		st = store_reader_open(ss->db_path, wake_loop, ss, &ss->reader, err);
	if (st == IM_OK)
		st = store_index_start(ss->index, ss->log, err);
	return st;
}

/* ---- opening and closing */

static void free_store(struct sqlite_store *ss)
{
	struct append *a;

	store_tail_destroy(ss->tail);
	store_reader_close(ss->reader);
	store_db_close(ss->front);
	store_index_close(ss->index); /* the last connection: SQLite folds its WAL in */
	store_log_close(ss->log);
	while ((a = append_queue_take(&ss->replayed)) || (a = append_queue_take(&ss->part)))
		append_unref(a);
	im_wake_destroy(ss->wake);
	if (ss->lock >= 0)
		close(ss->lock);
	im_buf_finish(&ss->frames);
	free(ss->high);
	free(ss->dir);
	free(ss->log_dir);
	free(ss->db_path);
	free(ss);
}

static enum im_status sqlite_open(const char *url, struct im_loop *loop,
				  const struct im_settings *settings, struct store **out, struct im_err *err)
{
	struct sqlite_store *ss = calloc(1, sizeof(*ss));
	enum im_status st;

	if (!ss || sodium_init() < 0) {
		free(ss);
		return im_fail(err, IM_FAILED, "out of memory, or no random numbers");
	}
	ss->base.driver = &store_sqlite;
	ss->lock = -1;
	ss->backlog_most = settings->store_backlog;
	im_buf_init(&ss->frames);
	read_queue_init(&ss->ready);
	append_queue_init(&ss->replayed);
	append_queue_init(&ss->part);
	ss->wake = im_wake_create(loop, on_wake, ss);
	st = ss->wake ? open_folder(ss, url, err) : im_fail(err, IM_FAILED, "out of memory");
	if (st == IM_OK)
		st = store_index_open(ss->db_path, settings->dedupe_days, wake_loop, ss, &ss->index, err);
	if (st == IM_OK)
		st = open_identity(ss, settings, err);
	if (st == IM_OK)
		st = open_log(ss, settings, err);
	if (st == IM_OK)
		st = open_threads(ss, err);
	if (st != IM_OK) {
		free_store(ss);
		return st;
	}
	*out = &ss->base;
	return IM_OK;
}

static void sqlite_close(struct store *s)
{
	struct sqlite_store *ss = sqlite(s);

	store_log_flush(ss->log);
	on_wake(ss);
	store_reader_stop(ss->reader);
	store_log_flush(ss->log); /* what callbacks gave just now */
	on_wake(ss);
	store_index_stop(ss->index, CLOSE_MS);
	settle_appends(ss);
	free_store(ss);
}

static const struct store_start *sqlite_start(struct store *s)
{
	return &sqlite(s)->start;
}

static void sqlite_roster(struct store *s, store_roster_fn *row, void *arg)
{
	sqlite3_stmt *st = store_db_get(sqlite(s)->front, DB_ROSTER);
	int rc = SQLITE_MISUSE;

	while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		Im__Bus__RosterItem *item = im__bus__roster_item__unpack(NULL, (size_t)sqlite3_column_bytes(st, 0), sqlite3_column_blob(st, 0));

		if (!item)
			continue;
		row(arg, item);
		im__bus__roster_item__free_unpacked(item, NULL);
	}
	(void)sqlite3_reset(st); /* rc has the error */
	if (rc != SQLITE_DONE)
		im_log(IM_LOG_ERROR, "evt=roster_unreadable path=%s", sqlite(s)->db_path);
}

static void sqlite_push(struct store *s, store_push_fn *row, void *arg)
{
	sqlite3_stmt *st = store_db_get(sqlite(s)->front, DB_PUSH);
	int rc = SQLITE_MISUSE;

	while (st && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		Im__Bus__StoredPush *p = im__bus__stored_push__unpack(NULL, (size_t)sqlite3_column_bytes(st, 0), sqlite3_column_blob(st, 0));

		if (!p)
			continue;
		row(arg, p);
		im__bus__stored_push__free_unpacked(p, NULL);
	}
	(void)sqlite3_reset(st); /* rc has the error */
	if (rc != SQLITE_DONE)
		im_log(IM_LOG_ERROR, "evt=push_unreadable path=%s then=\"devices register anew\"", sqlite(s)->db_path);
}

static void sqlite_lookup(struct store *s, struct store_lookup_conv *convs, size_t n_convs,
			  struct store_lookup_id *ids, size_t n_ids,
			  store_done_fn *done, void *arg)
{
	ask_lookup(&sqlite(s)->asker, convs, n_convs, ids, n_ids, done, arg);
}

static void sqlite_history(struct store *s, const struct store_range *range, store_message_fn *row,
			   store_done_fn *done, void *arg)
{
	ask_history(&sqlite(s)->asker, range, row, done, arg);
}

static void sqlite_conversations(struct store *s, const char *user, store_conversation_fn *row,
				 store_done_fn *done, void *arg)
{
	ask_conversations(&sqlite(s)->asker, user, row, done, arg);
}

static void sqlite_unread(struct store *s, const char *user, const char *conv, uint64_t read,
			  store_count_fn *done, void *arg)
{
	ask_unread(&sqlite(s)->asker, user, conv, read, done, arg);
}

static void sqlite_device(struct store *s, const char *user, const char *device, store_device_fn *row,
			  store_cursor_fn *cursor,
			  store_refusal_fn *refusal, store_done_fn *done, void *arg)
{
	ask_device(&sqlite(s)->asker, user, device, row, cursor, refusal, done, arg);
}

static void sqlite_devices(struct store *s, const char *user, store_device_fn *row, store_done_fn *done, void *arg)
{
	ask_devices(&sqlite(s)->asker, user, row, done, arg);
}

static void sqlite_stream(struct store *s, uint64_t after, unsigned limit, store_stream_fn *row, store_done_fn *done, void *arg)
{
	ask_stream(&sqlite(s)->asker, after, limit, row, done, arg);
}

static bool sqlite_full(struct store *s)
{
	return sqlite(s)->backlog > sqlite(s)->backlog_most;
}

static void sqlite_stats(struct store *s, struct store_stats *out)
{
	memset(out, 0, sizeof(*out));
	store_log_stats(sqlite(s)->log, out);
	out->messages = sqlite(s)->messages;
	out->log_bytes = sqlite(s)->backlog;
}

static bool sqlite_snapshot(struct store *s, struct store_snapshot *out)
{
	out->db_path = sqlite(s)->db_path;
	out->position = sqlite(s)->answered;
	return true;
}

const struct store_driver store_sqlite = {
	.name = "sqlite",
	.open = sqlite_open,
	.close = sqlite_close,
	.start = sqlite_start,
	.roster = sqlite_roster,
	.push = sqlite_push,
	.append = sqlite_append,
	.lookup = sqlite_lookup,
	.history = sqlite_history,
	.conversations = sqlite_conversations,
	.unread = sqlite_unread,
	.device = sqlite_device,
	.devices = sqlite_devices,
	.stream = sqlite_stream,
	.full = sqlite_full,
	.stats = sqlite_stats,
	.snapshot = sqlite_snapshot,
};
