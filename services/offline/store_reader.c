#include "store_reader.h"
#include "base/log.h"

#include <pthread.h>
#include <stdlib.h>

struct store_reader {
	struct store_db *db;
	reader_wake_fn *wake;
	void *arg;
	pthread_t thread;
	bool running;
	pthread_mutex_t mutex;
	pthread_cond_t given;
	struct read_queue lookups, waiting, done;
	bool stop;
};

/* ---- statements whose rows are messages */

static struct message *row_message(sqlite3_stmt *s)
{
	const void *data = sqlite3_column_blob(s, 0);

	return data ? message_unpack(data, (size_t)sqlite3_column_bytes(s, 0), NULL) : NULL;
}

/* IM_OK: *out is the row's message; IM_NOT_FOUND: no more; IM_FAILED. The statement stays open on IM_OK. */
static enum im_status next_message(sqlite3_stmt *s, struct message **out)
{
	int rc = s ? sqlite3_step(s) : SQLITE_MISUSE;

	if (rc == SQLITE_ROW) {
		*out = row_message(s);
		if (*out)
			return IM_OK;
	}
	(void)sqlite3_reset(s); /* rc has the error */
	return rc == SQLITE_DONE ? IM_NOT_FOUND : IM_FAILED;
}

bool rows_last(struct store_db *db, const char *conv, uint64_t *seq, int64_t *ts)
{
	sqlite3_stmt *s = store_db_get(db, DB_LAST);
	struct message *m = NULL;
	enum im_status st;

	if (s)
		store_db_text(s, 1, conv);
	st = next_message(s, &m);
	*seq = m ? m->seq : 0;
	*ts = m ? m->ts : 0;
	message_unref(m);
	(void)sqlite3_reset(s); /* st has the error */
	return st != IM_FAILED;
}

bool rows_find(struct store_db *db, const char *conv, uint64_t seq, struct message **out)
{
	sqlite3_stmt *s = store_db_get(db, DB_MESSAGE_BY_SEQ);
	enum im_status st;

	*out = NULL;
	if (s) {
		store_db_text(s, 1, conv);
		sqlite3_bind_int64(s, 2, (int64_t)seq);
	}
	st = next_message(s, out);
	(void)sqlite3_reset(s); /* st has the error */
	return st != IM_FAILED;
}

static sqlite3_stmt *range_statement(struct store_db *db, const struct store_read *r, bool down)
{
	sqlite3_stmt *s = store_db_get(db, down ? DB_MESSAGES_DOWN : DB_MESSAGES_UP);

	if (!s)
		return NULL;
	store_db_text(s, 1, r->conv);
	sqlite3_bind_int64(s, 2, r->range.from > INT64_MAX ? INT64_MAX : (int64_t)r->range.from);
	sqlite3_bind_int64(s, 3, (int64_t)r->row_to);
	return s;
}

static enum im_status run_history(struct store_db *db, struct store_read *r)
{
	sqlite3_stmt *s = range_statement(db, r, r->range.newest_first);
	enum im_status st;
	struct message *m;

	while ((st = next_message(s, &m)) == IM_OK) {
		if (!read_wants_more(r, m)) {
			message_unref(m);
			r->rows_cut = true;
			break;
		}
		if (!read_add_message(r, m))
			break;
	}
	(void)sqlite3_reset(s); /* st has the error */
	return st == IM_FAILED ? IM_FAILED : r->st;
}

static enum im_status run_unread(struct store_db *db, struct store_read *r)
{
	sqlite3_stmt *s = range_statement(db, r, true);
	enum im_status st = IM_OK;
	struct message *m;

	while (r->count < UNREAD_MOST && (st = next_message(s, &m)) == IM_OK) {
		r->count += read_counts(r, m);
		message_unref(m);
	}
	(void)sqlite3_reset(s); /* st has the error */
	return st == IM_FAILED ? IM_FAILED : IM_OK;
}

/* ---- lookup */

static bool is_asked_for(const struct message *m, const struct store_lookup_id *id)
{
	return strcmp(m->from, id->user) == 0 && strcmp(m->client_id, id->client_id) == 0 && strcmp(m->id, id->id) == 0;
}

static enum im_status find_id(struct store_db *db, struct store_lookup_id *id, uint64_t hash, int64_t day)
{
	sqlite3_stmt *s = store_db_get(db, DB_ID_FIND);
	enum im_status st;
	struct message *m;

	if (s) {
		sqlite3_bind_int64(s, 1, day);
		sqlite3_bind_int64(s, 2, (int64_t)hash);
	}
	while ((st = next_message(s, &m)) == IM_OK) {
		if (is_asked_for(m, id)) {
			id->found = m;
			break;
		}
		message_unref(m); /* another id with the same hash */
	}
	(void)sqlite3_reset(s); /* st has the error */
	return st;
}

static enum im_status run_lookup(struct store_db *db, struct store_read *r)
{
	enum im_status st = IM_OK;

	for (size_t i = 0; i < r->n_convs; i++)
		if (r->pinned[i] && !rows_last(db, r->convs[i].conv, &r->convs[i].last_seq, &r->last_ts[i]))
			return IM_FAILED;
	for (size_t i = 0; i < r->n_ids; i++)
		for (unsigned day = 0; day < 64 && !r->ids[i].found && st != IM_FAILED; day++)
			if (r->days[i] >> day & 1)
				st = find_id(db, &r->ids[i], r->hashes[i], r->today - day);
	return st == IM_FAILED ? IM_FAILED : IM_OK;
}

/* ---- a user's things */

static enum im_status each_row(sqlite3_stmt *s, struct store_read *r, bool (*row)(sqlite3_stmt *s, struct store_read *r))
{
	int rc = SQLITE_MISUSE;

	while (s && (rc = sqlite3_step(s)) == SQLITE_ROW)
		if (!row(s, r))
			break;
	(void)sqlite3_reset(s); /* rc has the error */
	return rc == SQLITE_DONE ? IM_OK : IM_FAILED;
}

static const char *column_text(sqlite3_stmt *s, int at)
{
	const char *text = (const char *)sqlite3_column_text(s, at);

	return text ? text : "";
}

static bool conv_row(sqlite3_stmt *s, struct store_read *r)
{
	struct read_conv *c = read_add_conv(r, column_text(s, 0));

	if (!c)
		return false;
	c->read = (uint64_t)sqlite3_column_int64(s, 1);
	c->delivered = (uint64_t)sqlite3_column_int64(s, 2);
	c->device = (uint64_t)sqlite3_column_int64(s, 3);
	return true;
}

static bool group_row(sqlite3_stmt *s, struct store_read *r)
{
	char name[IM_CONV_MAX] = "g/";
	const char *group = column_text(s, 0);

	return strlen(group) > IM_NAME_MAX || read_add_conv(r, strcat(name, group));
}

static bool device_row(sqlite3_stmt *s, struct store_read *r)
{
	struct store_device d = {
		.user = r->user, .device = column_text(s, 0), .named = sqlite3_column_int(s, 1), .acks = sqlite3_column_int(s, 2),
		.max_packet = (uint32_t)sqlite3_column_int64(s, 3), .seen_ms = sqlite3_column_int64(s, 4),
	};

	return read_set_device(r, &d);
}

static bool refusal_row(sqlite3_stmt *s, struct store_read *r)
{
	const void *data = sqlite3_column_blob(s, 1);

	return read_add_refusal(r, (uint64_t)sqlite3_column_int64(s, 0), data ? data : "", (size_t)sqlite3_column_bytes(s, 1));
}

static sqlite3_stmt *user_statement(struct store_db *db, enum db_sql which, const struct store_read *r, bool device)
{
	sqlite3_stmt *s = store_db_get(db, which);

	if (!s)
		return NULL;
	store_db_text(s, 1, r->user);
	if (device)
		store_db_text(s, 2, r->device);
	return s;
}

static enum im_status run_conversations(struct store_db *db, struct store_read *r)
{
	enum im_status st = each_row(user_statement(db, DB_USER_CONVS, r, false), r, conv_row);

	if (st == IM_OK)
		st = each_row(user_statement(db, DB_MEMBER_GROUPS, r, false), r, group_row);
	if (st != IM_OK)
		return st;
	read_overlay(r);
	for (struct read_conv *c = r->user_convs; c; c = c->hh.next)
		if (!rows_last(db, c->name, &c->last_seq, &c->last_ts))
			return IM_FAILED;
	return r->st;
}

static enum im_status run_device(struct store_db *db, struct store_read *r)
{
	enum im_status st = each_row(user_statement(db, DB_DEVICE_GET, r, true), r, device_row);

	if (st == IM_OK)
		st = each_row(user_statement(db, DB_DEVICE_CONVS, r, true), r, conv_row);
	if (st == IM_OK)
		st = each_row(user_statement(db, DB_REFUSALS, r, true), r, refusal_row);
	if (st == IM_OK)
		read_overlay(r);
	return st == IM_OK ? r->st : st;
}

static enum im_status run_devices(struct store_db *db, struct store_read *r)
{
	enum im_status st = each_row(user_statement(db, DB_DEVICE_LIST, r, false), r, device_row);

	if (st == IM_OK)
		read_overlay(r);
	return st == IM_OK ? r->st : st;
}

static enum im_status run_stream(struct store_db *db, struct store_read *r)
{
	bool newest = r->range.from == STORE_STREAM_END;
	sqlite3_stmt *s = store_db_get(db, newest ? DB_STREAM_END : DB_STREAM);
	enum im_status st;
	struct message *m;

	if (s && !newest) {
		sqlite3_bind_int64(s, 1, r->range.from > INT64_MAX ? INT64_MAX : (int64_t)r->range.from);
		sqlite3_bind_int64(s, 2, r->range.limit);
	}
	while ((st = next_message(s, &m)) == IM_OK)
		if (!read_add_numbered(r, (uint64_t)sqlite3_column_int64(s, 1), m))
			break;
	if (s)
		(void)sqlite3_reset(s); /* st has the error */
	return st == IM_FAILED ? IM_FAILED : r->st;
}

/* ---- the thread */

static void run(struct store_db *db, struct store_read *r)
{
	static enum im_status (*const runs[])(struct store_db *, struct store_read *) = {
		[READ_LOOKUP] = run_lookup, [READ_HISTORY] = run_history, [READ_CONVERSATIONS] = run_conversations,
		[READ_UNREAD] = run_unread, [READ_DEVICE] = run_device, [READ_DEVICES] = run_devices,
		[READ_STREAM] = run_stream,
	};
	struct im_err err;

	if (r->st != IM_OK)
		return;
	r->st = runs[r->kind](db, r);
	if (r->st != IM_OK) {
		(void)store_db_fail(db, &err, "read"); /* for its sentence */
		im_log(IM_LOG_ERROR, "evt=read_failed kind=%d error=\"%s\"", r->kind, err.text);
	}
}

static void *reader_thread(void *arg)
{
	struct store_reader *rd = arg;

	pthread_mutex_lock(&rd->mutex);
	for (;;) {
		struct store_read *r;

		while (!(r = read_queue_take(&rd->lookups)) && !(r = read_queue_take(&rd->waiting)) && !rd->stop)
			pthread_cond_wait(&rd->given, &rd->mutex);
		if (!r)
			break;
		pthread_mutex_unlock(&rd->mutex);
		run(rd->db, r);
		pthread_mutex_lock(&rd->mutex);
		read_queue_put(&rd->done, r);
		pthread_mutex_unlock(&rd->mutex);
		rd->wake(rd->arg);
		pthread_mutex_lock(&rd->mutex);
	}
	pthread_mutex_unlock(&rd->mutex);
	return NULL;
}

void store_reader_give(struct store_reader *rd, struct store_read *r)
{
	pthread_mutex_lock(&rd->mutex);
	read_queue_put(r->kind == READ_LOOKUP ? &rd->lookups : &rd->waiting, r);
	pthread_cond_signal(&rd->given);
	pthread_mutex_unlock(&rd->mutex);
}

struct store_read *store_reader_take(struct store_reader *rd)
{
	struct store_read *r;

	pthread_mutex_lock(&rd->mutex);
	r = read_queue_take(&rd->done);
	pthread_mutex_unlock(&rd->mutex);
	return r;
}

enum im_status store_reader_open(const char *path, reader_wake_fn *wake, void *arg, struct store_reader **out, struct im_err *err)
{
	struct store_reader *rd = calloc(1, sizeof(*rd));
	enum im_status st;
	int rc;

	if (!rd)
		return im_fail(err, IM_FAILED, "out of memory");
	rd->wake = wake;
	rd->arg = arg;
	read_queue_init(&rd->lookups);
	read_queue_init(&rd->waiting);
	read_queue_init(&rd->done);
	pthread_mutex_init(&rd->mutex, NULL);
	pthread_cond_init(&rd->given, NULL);
	st = store_db_open(path, false, &rd->db, err);
	if (st == IM_OK && (rc = pthread_create(&rd->thread, NULL, reader_thread, rd)) != 0)
		st = im_fail(err, IM_FAILED, "cannot start the reader's thread: %s", strerror(rc));
	if (st != IM_OK) {
		store_reader_close(rd);
		return st;
	}
	rd->running = true;
	*out = rd;
	return IM_OK;
}

void store_reader_stop(struct store_reader *rd)
{
	if (!rd->running)
		return;
	pthread_mutex_lock(&rd->mutex);
	rd->stop = true;
	pthread_cond_signal(&rd->given);
	pthread_mutex_unlock(&rd->mutex);
	pthread_join(rd->thread, NULL);
	rd->running = false;
}

void store_reader_close(struct store_reader *rd)
{
	if (!rd)
		return;
	store_reader_stop(rd);
	store_db_close(rd->db);
	pthread_cond_destroy(&rd->given);
	pthread_mutex_destroy(&rd->mutex);
	free(rd);
}
