#include "store_index.h"
#include "base/clock.h"
#include "base/killpoint.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define BATCH_ENTRIES 10000u  /* of one transaction: large enough that every page of the trees is written once for many rows */
#define BATCH_DELAY_MS 200    /* entries wait so long for company; reads see them in memory meanwhile */
#define IDLE_MS 1000          /* with nothing to do it looks around so often */
#define RETRY_MS 1000         /* after an error of the database */
#define CONVS_KEPT 100000u    /* names with their numbers in memory, about 10 MB */
#define WAL_PAGES 1024        /* 4 MiB: then a checkpoint is due. The log shares the disk: behind 32 MiB its syncs waited half a second */
#define NICENESS 5            /* rows are behind anyway; acks are not */
#define CHECKPOINT_IDLE_MS 5000 /* ... or after so long, if log segments wait for it */
#define PURGE_ROWS 10000      /* ids too old to matter, deleted with one transaction */

struct conv_id {
	int64_t id;
	UT_hash_handle hh;
	char name[];
};

struct id_row {
	int64_t day, hash, row;
};

/* One cursor moves many times within a batch: its row is written once. */
struct cursor_row {
	int64_t conv;
	uint64_t delivered, read;
	const char *user, *device;
	UT_hash_handle hh;
	char key[];
};

struct store_index {
	struct store_db *db;
	unsigned dedupe_days;
	index_wake_fn *wake;
	void *arg;
	uint64_t applied;
	int64_t newest_day;
	int64_t checkpoint_ms;
	bool checkpoint_due;

	/* Of one batch. */
	struct conv_id *convs;
	struct cursor_row *cursors;
	struct id_row *ids;
	size_t n_ids, cap_ids;
	struct position high[16]; /* journals of one batch: one or two; more are written at once */
	size_t n_high;

	struct store_log *log;
	pthread_t thread;
	bool running;
	pthread_mutex_t mutex; /* over the rest */
	pthread_cond_t given;
	struct append_queue waiting, done;
	bool stop;
	int64_t stop_by_ms;
};

/* ---- small pieces */

static void forget_convs(struct store_index *ix)
{
	struct conv_id *c, *next;

	HASH_ITER(hh, ix->convs, c, next) {
		HASH_DEL(ix->convs, c);
		free(c);
	}
}

static bool find_conv(struct store_index *ix, const char *name, int64_t *id)
{
	sqlite3_stmt *s = store_db_get(ix->db, DB_CONV_FIND);
	int rc;

	if (!s)
		return false;
	store_db_text(s, 1, name);
	rc = sqlite3_step(s);
	*id = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
	(void)sqlite3_reset(s); /* rc has the error */
	if (rc == SQLITE_ROW)
		return true;
	if (rc != SQLITE_DONE)
		return false;
	s = store_db_get(ix->db, DB_CONV_ADD);
	if (!s)
		return false;
	store_db_text(s, 1, name);
	if (!store_db_run(ix->db, s))
		return false;
	*id = sqlite3_last_insert_rowid(store_db_handle(ix->db));
	return true;
}

/* The conversation's number; a name never seen gets the next one. */
static bool intern(struct store_index *ix, const char *name, int64_t *id)
{
	size_t len = strlen(name);
	struct conv_id *c;

	HASH_FIND(hh, ix->convs, name, len, c);
	if (c) {
		*id = c->id;
		return true;
	}
	if (!find_conv(ix, name, id))
		return false;
	if (HASH_COUNT(ix->convs) >= CONVS_KEPT)
		forget_convs(ix);
	c = malloc(sizeof(*c) + len + 1);
	if (!c)
		return true; /* only asked again next time */
	c->id = *id;
	memcpy(c->name, name, len + 1);
	HASH_ADD_KEYPTR(hh, ix->convs, c->name, len, c);
	return true;
}

static bool set_user_conv(struct store_index *ix, const char *user, int64_t conv, uint64_t read, uint64_t delivered)
{
	sqlite3_stmt *s = store_db_get(ix->db, DB_USER_CONV);

	if (!s)
		return false;
	store_db_text(s, 1, user);
	sqlite3_bind_int64(s, 2, conv);
	sqlite3_bind_int64(s, 3, (int64_t)read);
	sqlite3_bind_int64(s, 4, (int64_t)delivered);
	return store_db_run(ix->db, s);
}

static bool run_user_device(struct store_index *ix, enum db_sql which, const char *user, const char *device)
{
	sqlite3_stmt *s = store_db_get(ix->db, which);

	if (!s)
		return false;
	store_db_text(s, 1, user);
	store_db_text(s, 2, device);
	return store_db_run(ix->db, s);
}

/* ---- messages */

static bool note_id(struct store_index *ix, const struct message *m, uint64_t hash)
{
	if (ix->n_ids == ix->cap_ids) {
		size_t cap = ix->cap_ids ? 2 * ix->cap_ids : 1024;
		struct id_row *more = realloc(ix->ids, cap * sizeof(*more));

		if (!more)
			return false;
		ix->ids = more;
		ix->cap_ids = cap;
	}
	ix->ids[ix->n_ids++] = (struct id_row){ entry_day(m), (int64_t)hash, sqlite3_last_insert_rowid(store_db_handle(ix->db)) };
	return true;
}

static bool apply_message(struct store_index *ix, const struct entry *e, struct im_buf *data)
{
	const struct message *m = e->message.m;
	char a[IM_NAME_MAX + 1], b[IM_NAME_MAX + 1];
	sqlite3_stmt *s;
	int64_t conv;

	im_buf_clear(data);
	message_pack(m, data);
	if (data->failed || !intern(ix, m->conv, &conv) || !(s = store_db_get(ix->db, DB_MESSAGE_ADD)))
		return false;
	sqlite3_bind_int64(s, 1, conv);
	sqlite3_bind_int64(s, 2, (int64_t)m->seq);
	(void)sqlite3_bind_blob(s, 3, data->data, (int)data->len, SQLITE_STATIC); /* NULL is refused by the table */
	if (!store_db_run(ix->db, s))
		return false;
	if (sqlite3_changes(store_db_handle(ix->db)) == 0) {
		im_log(IM_LOG_ERROR, "evt=sequence_twice conv=%s seq=%llu msgid=%s kept=first", m->conv, (unsigned long long)m->seq, m->msgid);
		return true;
	}
	if (m->prev == 0 && conv_parties(m->conv, a, b) && (!set_user_conv(ix, a, conv, 0, 0) || !set_user_conv(ix, b, conv, 0, 0)))
		return false;
	return e->message.id_hash == 0 || note_id(ix, m, e->message.id_hash);
}

static int compare_ids(const void *x, const void *y)
{
	const struct id_row *a = x, *b = y;

	if (a->day != b->day)
		return a->day < b->day ? -1 : 1;
	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	return a->row < b->row ? -1 : a->row > b->row;
}

/* Sorted, so that neighbours in the tree are written together. */
static bool write_ids(struct store_index *ix)
{
	if (ix->n_ids)
		qsort(ix->ids, ix->n_ids, sizeof(ix->ids[0]), compare_ids);
	for (size_t i = 0; i < ix->n_ids; i++) {
		sqlite3_stmt *s = store_db_get(ix->db, DB_ID_ADD);

		if (!s)
			return false;
		sqlite3_bind_int64(s, 1, ix->ids[i].day);
		sqlite3_bind_int64(s, 2, ix->ids[i].hash);
		sqlite3_bind_int64(s, 3, ix->ids[i].row);
		if (!store_db_run(ix->db, s))
			return false;
		if (ix->ids[i].day > ix->newest_day)
			ix->newest_day = ix->ids[i].day;
	}
	return true;
}

/* A piece of what has left the window with each transaction, so that midnight costs nobody anything. */
static bool purge_ids(struct store_index *ix)
{
	sqlite3_stmt *s = store_db_get(ix->db, DB_ID_OLDEST);
	int64_t oldest = INT64_MAX;

	if (!s || sqlite3_step(s) != SQLITE_ROW)
		return false;
	if (sqlite3_column_type(s, 0) != SQLITE_NULL)
		oldest = sqlite3_column_int64(s, 0);
	(void)sqlite3_reset(s); /* a row came: no error */
	if (oldest >= ix->newest_day - (int64_t)ix->dedupe_days)
		return true;
	s = store_db_get(ix->db, DB_ID_PURGE);
	if (!s)
		return false;
	sqlite3_bind_int64(s, 1, oldest);
	sqlite3_bind_int64(s, 2, PURGE_ROWS);
	return store_db_run(ix->db, s);
}

/* ---- cursors and devices */

static bool apply_cursor(struct store_index *ix, const struct store_cursor *c)
{
	size_t user = strlen(c->user), device = strlen(c->device), conv = strlen(c->conv), len = user + device + conv + 2;
	struct cursor_row *r, *found;

	r = malloc(sizeof(*r) + len + 1);
	if (!r)
		return false;
	memcpy(r->key, c->user, user + 1);
	memcpy(r->key + user + 1, c->device, device + 1);
	memcpy(r->key + user + device + 2, c->conv, conv + 1);
	HASH_FIND(hh, ix->cursors, r->key, len, found);
	if (found) {
		free(r);
	} else {
		if (!intern(ix, c->conv, &r->conv)) {
			free(r);
			return false;
		}
		r->user = r->key;
		r->device = r->key + user + 1;
		r->delivered = r->read = 0;
		HASH_ADD_KEYPTR(hh, ix->cursors, r->key, len, r);
		found = r;
	}
	if (c->delivered > found->delivered)
		found->delivered = c->delivered;
	if (c->read > found->read)
		found->read = c->read;
	return true;
}

static bool write_cursor(struct store_index *ix, const struct cursor_row *r)
{
	sqlite3_stmt *s;

	if (!set_user_conv(ix, r->user, r->conv, r->read, r->delivered))
		return false;
	if (r->device[0] == '\0' || r->delivered == 0)
		return true;
	s = store_db_get(ix->db, DB_CURSOR);
	if (!s)
		return false;
	store_db_text(s, 1, r->user);
	store_db_text(s, 2, r->device);
	sqlite3_bind_int64(s, 3, r->conv);
	sqlite3_bind_int64(s, 4, (int64_t)r->delivered);
	return store_db_run(ix->db, s);
}

/* All of them, forgotten whether they could be written or not. */
static bool write_cursors(struct store_index *ix, bool write)
{
	struct cursor_row *r, *next;
	bool ok = true;

	HASH_ITER(hh, ix->cursors, r, next) {
		HASH_DEL(ix->cursors, r);
		if (write && ok)
			ok = write_cursor(ix, r);
		free(r);
	}
	return ok;
}

static bool apply_device(struct store_index *ix, const struct store_device *d)
{
	sqlite3_stmt *s;

	if (d->removed) /* cursors given before the removal go with it, later ones stay */
		return write_cursors(ix, true) && run_user_device(ix, DB_DEVICE_REMOVE, d->user, d->device) &&
		       run_user_device(ix, DB_CURSORS_REMOVE, d->user, d->device) &&
		       run_user_device(ix, DB_REFUSALS_REMOVE, d->user, d->device);
	s = store_db_get(ix->db, DB_DEVICE_SET);
	if (!s)
		return false;
	store_db_text(s, 1, d->user);
	store_db_text(s, 2, d->device);
	sqlite3_bind_int(s, 3, d->named);
	sqlite3_bind_int(s, 4, d->acks);
	sqlite3_bind_int64(s, 5, d->max_packet);
	sqlite3_bind_int64(s, 6, d->seen_ms);
	return store_db_run(ix->db, s);
}

/* ---- the rest */

static bool apply_sections(struct store_index *ix, const struct entry *e)
{
	for (size_t i = 0; i < e->sections.n; i++) {
		sqlite3_stmt *s = store_db_get(ix->db, DB_SECTION_SET);

		if (!s)
			return false;
		sqlite3_bind_int64(s, 1, e->sections.list[i].section);
		sqlite3_bind_int64(s, 2, (int64_t)e->sections.list[i].epoch);
		if (!store_db_run(ix->db, s))
			return false;
	}
	return true;
}

/* What an item is about: a later one with the same key takes its place. Stays of a member are each kept. */
static char *roster_key(const Im__Bus__RosterItem *item)
{
	char *key = NULL;
	int n = -1;

	if (item->user)
		n = asprintf(&key, "u/%s", item->user->name);
	else if (item->group)
		n = asprintf(&key, "g/%s", item->group->name);
	else if (item->member)
		n = asprintf(&key, "m/%s/%s/%llu", item->member->group, item->member->user, (unsigned long long)item->member->from_seq);
	else if (item->block)
		n = asprintf(&key, "b/%s/%s", item->block->user, item->block->blocked);
	else
		n = asprintf(&key, "v/%llu", (unsigned long long)item->version);
	return n < 0 ? NULL : key;
}

static bool apply_roster(struct store_index *ix, const struct entry *e)
{
	Im__Bus__RosterItem *item = im__bus__roster_item__unpack(NULL, e->packed.len, e->packed.data);
	char *key = item ? roster_key(item) : NULL;
	sqlite3_stmt *s = store_db_get(ix->db, DB_ROSTER_SET);
	bool ok = false;

	if (key && s) {
		store_db_text(s, 1, key);
		sqlite3_bind_int64(s, 2, (int64_t)e->packed.key);
		(void)sqlite3_bind_blob(s, 3, e->packed.data, (int)e->packed.len, SQLITE_STATIC); /* NULL is refused by the table */
		ok = store_db_run(ix->db, s);
	}
	if (ok && e->packed.group)
		ok = run_user_device(ix, DB_MEMBER_SET, e->packed.user, e->packed.group);
	free(key);
	im__bus__roster_item__free_unpacked(item, NULL);
	return ok;
}

static bool apply_refusal(struct store_index *ix, const struct entry *e)
{
	sqlite3_stmt *s = store_db_get(ix->db, e->packed.done ? DB_REFUSAL_DONE : DB_REFUSAL_SET);

	if (!s)
		return false;
	sqlite3_bind_int64(s, 1, (int64_t)e->packed.key);
	if (!e->packed.done) {
		store_db_text(s, 2, e->packed.user);
		store_db_text(s, 3, e->packed.device);
		(void)sqlite3_bind_blob(s, 4, e->packed.data, (int)e->packed.len, SQLITE_STATIC); /* NULL is refused by the table */
	}
	return store_db_run(ix->db, s);
}

static bool apply_push(struct store_index *ix, const struct entry *e)
{
	sqlite3_stmt *s = store_db_get(ix->db, e->packed.done ? DB_PUSH_REMOVE : DB_PUSH_SET);

	if (!s)
		return false;
	store_db_text(s, 1, e->packed.name);
	if (!e->packed.done)
		(void)sqlite3_bind_blob(s, 2, e->packed.data, (int)e->packed.len, SQLITE_STATIC); /* NULL is refused by the table */
	return store_db_run(ix->db, s);
}

static bool write_high(struct store_index *ix)
{
	for (size_t i = 0; i < ix->n_high; i++) {
		sqlite3_stmt *s = store_db_get(ix->db, DB_HIGH_SET);

		if (!s)
			return false;
		sqlite3_bind_int64(s, 1, ix->high[i].node);
		sqlite3_bind_int64(s, 2, (int64_t)ix->high[i].epoch);
		sqlite3_bind_int64(s, 3, (int64_t)ix->high[i].next);
		if (!store_db_run(ix->db, s))
			return false;
	}
	ix->n_high = 0;
	return true;
}

static bool note_high(struct store_index *ix, const struct position *p)
{
	size_t i;

	if (p->node == 0)
		return true;
	for (i = 0; i < ix->n_high; i++)
		if (ix->high[i].node == p->node && ix->high[i].epoch == p->epoch)
			break;
	if (i == sizeof(ix->high) / sizeof(ix->high[0])) {
		if (!write_high(ix))
			return false;
		i = 0;
	}
	if (i == ix->n_high)
		ix->high[ix->n_high++] = *p;
	else if (p->next > ix->high[i].next)
		ix->high[i].next = p->next;
	return true;
}

static bool apply_entry(struct store_index *ix, const struct entry *e, struct im_buf *data)
{
	switch (e->kind) {
	case STORE_MESSAGE: return apply_message(ix, e, data);
	case STORE_CURSOR: return apply_cursor(ix, &e->cursor);
	case STORE_DEVICE: return apply_device(ix, &e->device);
	case STORE_SECTIONS: return apply_sections(ix, e);
	case STORE_ROSTER: return apply_roster(ix, e);
	case STORE_REFUSAL: return apply_refusal(ix, e);
	case STORE_PUSH: return apply_push(ix, e);
	case STORE_POSITION: return true;
	}
	return false;
}

/* ---- one transaction */

static bool apply_all(struct store_index *ix, const struct append_queue *batch, uint64_t end)
{
	struct im_buf data;
	bool ok = true;

	im_buf_init(&data);
	for (const struct append *a = batch->first; a && ok; a = a->next)
		for (size_t i = 0; i < a->n && ok; i++)
			ok = apply_entry(ix, &a->entries[i], &data) && note_high(ix, &a->entries[i].pos);
	im_buf_finish(&data);
	IM_KILLPOINT("index.in_transaction");
	return ok && write_cursors(ix, true) && write_ids(ix) && purge_ids(ix) && write_high(ix) &&
	       store_db_meta_set(ix->db, "applied", &end, sizeof(end)) && store_db_exec(ix->db, DB_COMMIT);
}

enum im_status store_index_apply(struct store_index *ix, const struct append_queue *batch,
				 uint64_t end, struct im_err *err)
{
	enum im_status st = IM_OK;

	ix->n_ids = ix->n_high = 0;
	if (!store_db_exec(ix->db, DB_BEGIN))
		return store_db_fail(ix->db, err, "write");
	if (!apply_all(ix, batch, end)) {
		st = store_db_fail(ix->db, err, "write");
		(void)store_db_exec(ix->db, DB_ROLLBACK); /* SQLite may have done it already */
		(void)write_cursors(ix, false);           /* only forgets */
		forget_convs(ix);                         /* numbers of this transaction are gone */
		return st;
	}
	IM_KILLPOINT("index.after_commit");
	ix->applied = end;
	ix->checkpoint_due = true;
	return st;
}

enum im_status store_index_checkpoint(struct store_index *ix, struct im_err *err)
{
	int in_wal = 0, done = 0, rc;

	if (store_db_sync_failed(ix->db))
		return im_fail(err, IM_FAILED, "a sync of the database has failed: it must be opened anew");
	ix->checkpoint_ms = im_clock_mono_ms();
	IM_KILLPOINT("index.before_checkpoint");
	rc = sqlite3_wal_checkpoint_v2(store_db_handle(ix->db), NULL, SQLITE_CHECKPOINT_PASSIVE, &in_wal, &done);
	if (rc != SQLITE_OK && rc != SQLITE_BUSY)
		return store_db_fail(ix->db, err, "checkpoint");
	/* SQLite syncs the database file only after a complete one: with less, the log must stay. */
	if (rc == SQLITE_BUSY || in_wal != done)
		return IM_BUSY;
	IM_KILLPOINT("index.after_checkpoint");
	ix->checkpoint_due = false;
	return IM_OK;
}

/* ---- the thread */

static int on_wal(void *arg, sqlite3 *handle, const char *name, int pages)
{
	struct store_index *ix = arg;

	(void)handle;
	(void)name;
	if (pages >= WAL_PAGES)
		ix->checkpoint_ms = 0; /* overdue */
	return SQLITE_OK;
}

static void checkpoint_if_due(struct store_index *ix)
{
	int64_t now = im_clock_mono_ms();
	struct im_err err = { "" };
	enum im_status st;

	if (!ix->checkpoint_due || (ix->checkpoint_ms != 0 && (now - ix->checkpoint_ms < CHECKPOINT_IDLE_MS || store_log_segments(ix->log) < 2)))
		return;
	st = store_index_checkpoint(ix, &err);
	if (st == IM_OK)
		store_log_trim(ix->log, ix->applied);
	else if (st != IM_BUSY)
		im_log(IM_LOG_WARNING, "evt=checkpoint_failed error=\"%s\" instead=\"the log is kept\"", err.text);
}

/* Waits until `until_ms` or the stop; with `more`, until there is a full batch. Mutex held. */
static void wait_until(struct store_index *ix, int64_t until_ms, bool full_batch)
{
	for (;;) {
		int64_t left = until_ms - im_clock_mono_ms();
		struct timespec ts;

		if (left <= 0 || ix->stop || (full_batch && ix->waiting.n >= BATCH_ENTRIES))
			return;
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_sec += left / 1000;
		ts.tv_nsec += left % 1000 * 1000000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_sec++;
			ts.tv_nsec -= 1000000000;
		}
		(void)pthread_cond_timedwait(&ix->given, &ix->mutex, &ts); /* the time is looked at above */
	}
}

static void take_batch(struct store_index *ix, struct append_queue *batch)
{
	while (ix->waiting.first && batch->n < BATCH_ENTRIES)
		append_queue_put(batch, append_queue_take(&ix->waiting));
}

static uint64_t batch_end(const struct append_queue *batch)
{
	const struct append *a = batch->first;

	while (a->next)
		a = a->next;
	return a->end;
}

/* Tries until it works or the time to stop is over. Mutex not held. */
static bool apply_stubbornly(struct store_index *ix, const struct append_queue *batch)
{
	uint64_t end = batch_end(batch);
	bool said = false, stopping, over;
	struct im_err err;

	while (store_index_apply(ix, batch, end, &err) != IM_OK) {
		if (store_db_sync_failed(ix->db)) {
			im_log(IM_LOG_ERROR, "evt=index_failed error=\"%s\"", err.text);
			return false;
		}
		if (!said)
			im_log(IM_LOG_ERROR, "evt=index_failed error=\"%s\" instead=\"the log grows; tried every second\"", err.text);
		said = true;
		pthread_mutex_lock(&ix->mutex);
		wait_until(ix, im_clock_mono_ms() + RETRY_MS, false);
		stopping = ix->stop;
		over = stopping && im_clock_mono_ms() >= ix->stop_by_ms;
		pthread_mutex_unlock(&ix->mutex);
		if (over)
			return false;
		if (stopping) {
			const struct timespec pause = { 0, 50 * 1000000L };

			nanosleep(&pause, NULL); /* stopping: no point in waiting a whole second for a disk */
		}
	}
	if (said)
		im_log(IM_LOG_NOTICE, "evt=index_recovered");
	return true;
}

static void *index_thread(void *arg)
{
	struct store_index *ix = arg;
	struct append_queue batch;
	bool ok = true;

	append_queue_init(&batch);
	(void)setpriority(PRIO_PROCESS, 0, NICENESS); /* on Linux of this thread alone; a wish */
	pthread_mutex_lock(&ix->mutex);
	while (ok && (!ix->stop || ix->waiting.first) && (!ix->stop || im_clock_mono_ms() < ix->stop_by_ms)) {
		wait_until(ix, im_clock_mono_ms() + (ix->waiting.first ? BATCH_DELAY_MS : IDLE_MS), true);
		take_batch(ix, &batch);
		pthread_mutex_unlock(&ix->mutex);
		if (batch.first)
			ok = apply_stubbornly(ix, &batch);
		store_log_prepare(ix->log);
		if (ok)
			checkpoint_if_due(ix);
		if (store_db_sync_failed(ix->db)) {
			store_log_end(ix->log, "a sync of the database has failed");
			ok = false;
		}
		pthread_mutex_lock(&ix->mutex);
		if (!ok) {
			append_queue_move(&ix->waiting, &batch); /* without rows: memory keeps it */
		} else if (batch.first) {
			append_queue_move(&ix->done, &batch);
			pthread_mutex_unlock(&ix->mutex);
			ix->wake(ix->arg);
			pthread_mutex_lock(&ix->mutex);
		}
	}
	pthread_mutex_unlock(&ix->mutex);
	return NULL;
}

void store_index_give(struct store_index *ix, struct append_queue *q)
{
	bool wake;

	pthread_mutex_lock(&ix->mutex);
	append_queue_move(&ix->waiting, q);
	wake = ix->waiting.n >= BATCH_ENTRIES;
	pthread_mutex_unlock(&ix->mutex);
	if (wake)
		pthread_cond_signal(&ix->given);
}

void store_index_take(struct store_index *ix, struct append_queue *out)
{
	pthread_mutex_lock(&ix->mutex);
	append_queue_move(out, &ix->done);
	pthread_mutex_unlock(&ix->mutex);
}

/* ---- opening and closing */

struct store_db *store_index_db(struct store_index *ix)
{
	return ix->db;
}

uint64_t store_index_applied(const struct store_index *ix)
{
	return ix->applied;
}

enum im_status store_index_open(const char *path, unsigned dedupe_days, index_wake_fn *wake, void *arg,
				struct store_index **out, struct im_err *err)
{
	struct store_index *ix = calloc(1, sizeof(*ix));
	pthread_condattr_t attr;
	enum im_status st;

	if (!ix)
		return im_fail(err, IM_FAILED, "out of memory");
	ix->dedupe_days = dedupe_days;
	ix->wake = wake;
	ix->arg = arg;
	append_queue_init(&ix->waiting);
	append_queue_init(&ix->done);
	pthread_mutex_init(&ix->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ix->given, &attr);
	pthread_condattr_destroy(&attr);
	st = store_db_open(path, true, &ix->db, err);
	if (st != IM_OK) {
		store_index_close(ix);
		return st;
	}
	(void)store_db_meta_get(ix->db, "applied", &ix->applied, sizeof(ix->applied)); /* a new store has none: 0 */
	sqlite3_wal_hook(store_db_handle(ix->db), on_wal, ix);
	*out = ix;
	return IM_OK;
}

enum im_status store_index_start(struct store_index *ix, struct store_log *log, struct im_err *err)
{
	int rc;

	ix->log = log;
	ix->checkpoint_ms = im_clock_mono_ms();
	rc = pthread_create(&ix->thread, NULL, index_thread, ix);
	if (rc != 0)
		return im_fail(err, IM_FAILED, "cannot start the indexer's thread: %s", strerror(rc));
	ix->running = true;
	return IM_OK;
}

void store_index_stop(struct store_index *ix, unsigned ms)
{
	struct im_err err;

	if (!ix->running)
		return;
	pthread_mutex_lock(&ix->mutex);
	ix->stop = true;
	ix->stop_by_ms = im_clock_mono_ms() + ms;
	pthread_cond_signal(&ix->given);
	pthread_mutex_unlock(&ix->mutex);
	pthread_join(ix->thread, NULL);
	ix->running = false;
	if (store_index_checkpoint(ix, &err) != IM_OK)
		return; /* the next opening replays */
	store_log_trim(ix->log, ix->applied);
	(void)store_db_fold_on_close(ix->db, true); /* only tidies up: the write-ahead log goes */
}

void store_index_close(struct store_index *ix)
{
	struct append *a;

	if (!ix)
		return;
	while ((a = append_queue_take(&ix->waiting)) || (a = append_queue_take(&ix->done)))
		append_unref(a);
	(void)write_cursors(ix, false); /* only forgets */
	forget_convs(ix);
	free(ix->ids);
	store_db_close(ix->db);
	pthread_cond_destroy(&ix->given);
	pthread_mutex_destroy(&ix->mutex);
	free(ix);
}
