#include "store_rows.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONVS_KEPT 100000u    /* names with their numbers in memory, about 10 MB */
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

struct store_rows {
	struct store_db *db;
	unsigned dedupe_days;
	int64_t newest_day;
	struct conv_id *convs;

	/* Of one batch. */
	struct cursor_row *cursors;
	struct id_row *ids;
	size_t n_ids, cap_ids;
	struct position high[16]; /* journals of one batch: one or two; more are written at once */
	size_t n_high;
};

/* ---- small pieces */

static void forget_convs(struct store_rows *rows)
{
	struct conv_id *c, *next;

	HASH_ITER(hh, rows->convs, c, next) {
		HASH_DEL(rows->convs, c);
		free(c);
	}
}

static bool find_conv(struct store_rows *rows, const char *name, int64_t *id)
{
	sqlite3_stmt *s = store_db_get(rows->db, DB_CONV_FIND);
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
	s = store_db_get(rows->db, DB_CONV_ADD);
	if (!s)
		return false;
	store_db_text(s, 1, name);
	if (!store_db_run(rows->db, s))
		return false;
	*id = sqlite3_last_insert_rowid(store_db_handle(rows->db));
	return true;
}

/* The conversation's number; a name never seen gets the next one. */
static bool intern(struct store_rows *rows, const char *name, int64_t *id)
{
	size_t len = strlen(name);
	struct conv_id *c;

	HASH_FIND(hh, rows->convs, name, len, c);
	if (c) {
		*id = c->id;
		return true;
	}
	if (!find_conv(rows, name, id))
		return false;
	if (HASH_COUNT(rows->convs) >= CONVS_KEPT)
		forget_convs(rows);
	c = malloc(sizeof(*c) + len + 1);
	if (!c)
		return true; /* only asked again next time */
	c->id = *id;
	memcpy(c->name, name, len + 1);
	HASH_ADD_KEYPTR(hh, rows->convs, c->name, len, c);
	return true;
}

static bool set_user_conv(struct store_rows *rows, const char *user, int64_t conv, uint64_t read, uint64_t delivered)
{
	sqlite3_stmt *s = store_db_get(rows->db, DB_USER_CONV);

	if (!s)
		return false;
	store_db_text(s, 1, user);
	sqlite3_bind_int64(s, 2, conv);
	sqlite3_bind_int64(s, 3, (int64_t)read);
	sqlite3_bind_int64(s, 4, (int64_t)delivered);
	return store_db_run(rows->db, s);
}

static bool run_user_device(struct store_rows *rows, enum db_sql which, const char *user, const char *device)
{
	sqlite3_stmt *s = store_db_get(rows->db, which);

	if (!s)
		return false;
	store_db_text(s, 1, user);
	store_db_text(s, 2, device);
	return store_db_run(rows->db, s);
}

/* ---- messages */

static bool note_id(struct store_rows *rows, const struct message *m, uint64_t hash)
{
	if (rows->n_ids == rows->cap_ids) {
		size_t cap = rows->cap_ids ? 2 * rows->cap_ids : 1024;
		struct id_row *more = realloc(rows->ids, cap * sizeof(*more));

		if (!more)
			return false;
		rows->ids = more;
		rows->cap_ids = cap;
	}
	rows->ids[rows->n_ids++] = (struct id_row){ entry_day(m), (int64_t)hash, sqlite3_last_insert_rowid(store_db_handle(rows->db)) };
	return true;
}

static bool apply_message(struct store_rows *rows, const struct entry *e, struct im_buf *data)
{
	const struct message *m = e->message.m;
	char a[IM_NAME_MAX + 1], b[IM_NAME_MAX + 1];
	sqlite3_stmt *s;
	int64_t conv;

	im_buf_clear(data);
	message_pack(m, data);
	if (data->failed || !intern(rows, m->conv, &conv) || !(s = store_db_get(rows->db, DB_MESSAGE_ADD)))
		return false;
	sqlite3_bind_int64(s, 1, conv);
	sqlite3_bind_int64(s, 2, (int64_t)m->seq);
	(void)sqlite3_bind_blob(s, 3, data->data, (int)data->len, SQLITE_STATIC); /* NULL is refused by the table */
	if (!store_db_run(rows->db, s))
		return false;
	if (sqlite3_changes(store_db_handle(rows->db)) == 0) {
		im_log(IM_LOG_ERROR, "evt=sequence_twice conv=%s seq=%llu msgid=%s kept=first", m->conv, (unsigned long long)m->seq, m->msgid);
		return true;
	}
	if (m->prev == 0 && conv_parties(m->conv, a, b) && (!set_user_conv(rows, a, conv, 0, 0) || !set_user_conv(rows, b, conv, 0, 0)))
		return false;
	return e->message.id_hash == 0 || note_id(rows, m, e->message.id_hash);
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
static bool write_ids(struct store_rows *rows)
{
	if (rows->n_ids)
		qsort(rows->ids, rows->n_ids, sizeof(rows->ids[0]), compare_ids);
	for (size_t i = 0; i < rows->n_ids; i++) {
		sqlite3_stmt *s = store_db_get(rows->db, DB_ID_ADD);

		if (!s)
			return false;
		sqlite3_bind_int64(s, 1, rows->ids[i].day);
		sqlite3_bind_int64(s, 2, rows->ids[i].hash);
		sqlite3_bind_int64(s, 3, rows->ids[i].row);
		if (!store_db_run(rows->db, s))
			return false;
		if (rows->ids[i].day > rows->newest_day)
			rows->newest_day = rows->ids[i].day;
	}
	return true;
}

/* A piece of what has left the window with each transaction, so that midnight costs nobody anything. */
static bool purge_ids(struct store_rows *rows)
{
	sqlite3_stmt *s = store_db_get(rows->db, DB_ID_OLDEST);
	int64_t oldest = INT64_MAX;

	if (!s || sqlite3_step(s) != SQLITE_ROW)
		return false;
	if (sqlite3_column_type(s, 0) != SQLITE_NULL)
		oldest = sqlite3_column_int64(s, 0);
	(void)sqlite3_reset(s); /* a row came: no error */
	if (oldest >= rows->newest_day - (int64_t)rows->dedupe_days)
		return true;
	s = store_db_get(rows->db, DB_ID_PURGE);
	if (!s)
		return false;
	sqlite3_bind_int64(s, 1, oldest);
	sqlite3_bind_int64(s, 2, PURGE_ROWS);
	return store_db_run(rows->db, s);
}

/* ---- cursors and devices */

static bool apply_cursor(struct store_rows *rows, const struct store_cursor *c)
{
	size_t user = strlen(c->user), device = strlen(c->device), conv = strlen(c->conv), len = user + device + conv + 2;
	struct cursor_row *r, *found;

	r = malloc(sizeof(*r) + len + 1);
	if (!r)
		return false;
	memcpy(r->key, c->user, user + 1);
	memcpy(r->key + user + 1, c->device, device + 1);
	memcpy(r->key + user + device + 2, c->conv, conv + 1);
	HASH_FIND(hh, rows->cursors, r->key, len, found);
	if (found) {
		free(r);
	} else {
		if (!intern(rows, c->conv, &r->conv)) {
			free(r);
			return false;
		}
		r->user = r->key;
		r->device = r->key + user + 1;
		r->delivered = r->read = 0;
		HASH_ADD_KEYPTR(hh, rows->cursors, r->key, len, r);
		found = r;
	}
	if (c->delivered > found->delivered)
		found->delivered = c->delivered;
	if (c->read > found->read)
		found->read = c->read;
	return true;
}

static bool write_cursor(struct store_rows *rows, const struct cursor_row *r)
{
	sqlite3_stmt *s;

	if (!set_user_conv(rows, r->user, r->conv, r->read, r->delivered))
		return false;
	if (r->device[0] == '\0' || r->delivered == 0)
		return true;
	s = store_db_get(rows->db, DB_CURSOR);
	if (!s)
		return false;
	store_db_text(s, 1, r->user);
	store_db_text(s, 2, r->device);
	sqlite3_bind_int64(s, 3, r->conv);
	sqlite3_bind_int64(s, 4, (int64_t)r->delivered);
	return store_db_run(rows->db, s);
}

/* All of them, forgotten whether they could be written or not. */
static bool write_cursors(struct store_rows *rows, bool write)
{
	struct cursor_row *r, *next;
	bool ok = true;

	HASH_ITER(hh, rows->cursors, r, next) {
		HASH_DEL(rows->cursors, r);
		if (write && ok)
			ok = write_cursor(rows, r);
		free(r);
	}
	return ok;
}

static bool apply_device(struct store_rows *rows, const struct store_device *d)
{
	sqlite3_stmt *s;

	if (d->removed) /* cursors given before the removal go with it, later ones stay */
		return write_cursors(rows, true) && run_user_device(rows, DB_DEVICE_REMOVE, d->user, d->device) &&
		       run_user_device(rows, DB_CURSORS_REMOVE, d->user, d->device) &&
		       run_user_device(rows, DB_REFUSALS_REMOVE, d->user, d->device);
	s = store_db_get(rows->db, DB_DEVICE_SET);
	if (!s)
		return false;
	store_db_text(s, 1, d->user);
	store_db_text(s, 2, d->device);
	sqlite3_bind_int(s, 3, d->named);
	sqlite3_bind_int(s, 4, d->acks);
	sqlite3_bind_int64(s, 5, d->max_packet);
	sqlite3_bind_int64(s, 6, d->seen_ms);
	return store_db_run(rows->db, s);
}

/* ---- the rest */

static bool apply_sections(struct store_rows *rows, const struct entry *e)
{
	for (size_t i = 0; i < e->sections.n; i++) {
		sqlite3_stmt *s = store_db_get(rows->db, DB_SECTION_SET);

		if (!s)
			return false;
		sqlite3_bind_int64(s, 1, e->sections.list[i].section);
		sqlite3_bind_int64(s, 2, (int64_t)e->sections.list[i].epoch);
		if (!store_db_run(rows->db, s))
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

static bool apply_roster(struct store_rows *rows, const struct entry *e)
{
	Im__Bus__RosterItem *item = im__bus__roster_item__unpack(NULL, e->packed.len, e->packed.data);
	char *key = item ? roster_key(item) : NULL;
	sqlite3_stmt *s = store_db_get(rows->db, DB_ROSTER_SET);
	bool ok = false;

	if (key && s) {
		store_db_text(s, 1, key);
		sqlite3_bind_int64(s, 2, (int64_t)e->packed.key);
		(void)sqlite3_bind_blob(s, 3, e->packed.data, (int)e->packed.len, SQLITE_STATIC); /* NULL is refused by the table */
		ok = store_db_run(rows->db, s);
	}
	if (ok && e->packed.group)
		ok = run_user_device(rows, DB_MEMBER_SET, e->packed.user, e->packed.group);
	free(key);
	im__bus__roster_item__free_unpacked(item, NULL);
	return ok;
}

static bool apply_refusal(struct store_rows *rows, const struct entry *e)
{
	sqlite3_stmt *s = store_db_get(rows->db, e->packed.done ? DB_REFUSAL_DONE : DB_REFUSAL_SET);

	if (!s)
		return false;
	sqlite3_bind_int64(s, 1, (int64_t)e->packed.key);
	if (!e->packed.done) {
		store_db_text(s, 2, e->packed.user);
		store_db_text(s, 3, e->packed.device);
		(void)sqlite3_bind_blob(s, 4, e->packed.data, (int)e->packed.len, SQLITE_STATIC); /* NULL is refused by the table */
	}
	return store_db_run(rows->db, s);
}

static bool apply_push(struct store_rows *rows, const struct entry *e)
{
	sqlite3_stmt *s = store_db_get(rows->db, e->packed.done ? DB_PUSH_REMOVE : DB_PUSH_SET);

	if (!s)
		return false;
	store_db_text(s, 1, e->packed.name);
	if (!e->packed.done)
		(void)sqlite3_bind_blob(s, 2, e->packed.data, (int)e->packed.len, SQLITE_STATIC); /* NULL is refused by the table */
	return store_db_run(rows->db, s);
}

static bool write_high(struct store_rows *rows)
{
	for (size_t i = 0; i < rows->n_high; i++) {
		sqlite3_stmt *s = store_db_get(rows->db, DB_HIGH_SET);

		if (!s)
			return false;
		sqlite3_bind_int64(s, 1, rows->high[i].node);
		sqlite3_bind_int64(s, 2, (int64_t)rows->high[i].epoch);
		sqlite3_bind_int64(s, 3, (int64_t)rows->high[i].next);
		if (!store_db_run(rows->db, s))
			return false;
	}
	rows->n_high = 0;
	return true;
}

static bool note_high(struct store_rows *rows, const struct position *p)
{
	size_t i;

	if (p->node == 0)
		return true;
	for (i = 0; i < rows->n_high; i++)
		if (rows->high[i].node == p->node && rows->high[i].epoch == p->epoch)
			break;
	if (i == sizeof(rows->high) / sizeof(rows->high[0])) {
		if (!write_high(rows))
			return false;
		i = 0;
	}
	if (i == rows->n_high)
		rows->high[rows->n_high++] = *p;
	else if (p->next > rows->high[i].next)
		rows->high[i].next = p->next;
	return true;
}

static bool apply_entry(struct store_rows *rows, const struct entry *e, struct im_buf *data)
{
	switch (e->kind) {
	case STORE_MESSAGE: return apply_message(rows, e, data);
	case STORE_CURSOR: return apply_cursor(rows, &e->cursor);
	case STORE_DEVICE: return apply_device(rows, &e->device);
	case STORE_SECTIONS: return apply_sections(rows, e);
	case STORE_ROSTER: return apply_roster(rows, e);
	case STORE_REFUSAL: return apply_refusal(rows, e);
	case STORE_PUSH: return apply_push(rows, e);
	case STORE_POSITION: return true;
	}
	return false;
}

/* ---- a batch */

bool store_rows_apply(struct store_rows *rows, const struct append_queue *batch)
{
	struct im_buf data;
	bool ok = true;

	rows->n_ids = rows->n_high = 0;
	im_buf_init(&data);
	for (const struct append *a = batch->first; a && ok; a = a->next)
		for (size_t i = 0; i < a->n && ok; i++)
			ok = apply_entry(rows, &a->entries[i], &data) && note_high(rows, &a->entries[i].pos);
	im_buf_finish(&data);
	return ok;
}

bool store_rows_write(struct store_rows *rows)
{
	return write_cursors(rows, true) && write_ids(rows) && purge_ids(rows) && write_high(rows);
}

void store_rows_forget(struct store_rows *rows)
{
	(void)write_cursors(rows, false); /* only forgets */
	forget_convs(rows);               /* numbers of this transaction are gone */
}

struct store_rows *store_rows_create(struct store_db *db, unsigned dedupe_days)
{
	struct store_rows *rows = calloc(1, sizeof(*rows));

	if (!rows)
		return NULL;
	rows->db = db;
	rows->dedupe_days = dedupe_days;
	return rows;
}

void store_rows_destroy(struct store_rows *rows)
{
	if (!rows)
		return;
	store_rows_forget(rows);
	free(rows->ids);
	free(rows);
}
