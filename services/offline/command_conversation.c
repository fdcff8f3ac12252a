/*
 * conversations and sync: what there is for a user, and what of it is missing. The store knows conversations
 * with messages and cursors, the roster knows groups; both are put together here, and a group counts only as
 * far as the user's stays reach.
 */
#include "command.h"
#include "wire/name.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONVERSATIONS_DEFAULT 100u

struct conv {
	char canonical[IM_CONV_MAX];
	char seen[IM_CONV_MAX];
	uint64_t first_seq;   /* the first that may be seen of the last stay; 1 in 1:1 conversations */
	uint64_t last_seq;    /* the newest that may be seen */
	int64_t last_ts;
	uint64_t read, delivered;
	bool member;          /* or 1:1 */
	unsigned unread;
	uint64_t have;        /* sync: up to here nothing is missing */
	struct call *call;
};

struct convs {
	struct conv *v;
	size_t n, cap;
	bool failed;
	struct store_lookup_conv *lookups; /* of groups that the store did not name */
	size_t n_lookups;
	size_t from, to;      /* rows of the page */
	unsigned waiting;     /* unread counts */
	command_fn *then;     /* when v is complete */
};

static void convs_free(void *state)
{
	struct convs *cs = state;

	free(cs->v);
	free(cs->lookups);
	free(cs);
}

/* ---- collecting */

static struct conv *add(struct convs *cs, struct call *call, const char *canonical)
{
	struct conv *c;

	if (cs->n == cs->cap) {
		size_t cap = cs->cap ? cs->cap * 2 : 32;
		struct conv *v = realloc(cs->v, cap * sizeof(*v));

		if (v == NULL) {
			cs->failed = true;
			return NULL;
		}
		cs->v = v;
		cs->cap = cap;
	}
	c = &cs->v[cs->n];
	memset(c, 0, sizeof(*c));
	if (strlen(canonical) >= sizeof(c->canonical) || !im_conv_as_seen(canonical, call_subject(call), c->seen))
		return NULL;
	strcpy(c->canonical, canonical); /* length checked above */
	c->call = call;
	c->first_seq = 1;
	c->member = true;
	cs->n++;
	return c;
}

/* What of a group may be seen. false: nothing. */
static bool clip_to_stays(struct call *call, struct conv *c)
{
	const struct roster_stay *stays;
	size_t n;

	if (!im_conv_is_group(c->canonical))
		return true;
	n = roster_stays(call->env->roster, c->canonical + 2, call_subject(call), &stays);
	if (n == 0)
		return false;
	c->member = stays[n - 1].to_seq == 0;
	c->first_seq = stays[n - 1].from_seq;
	c->last_seq = roster_stays_last(stays, n, c->last_seq);
	if (c->read + 1 < c->first_seq)
		c->read = c->first_seq - 1;
	return true;
}

static void on_row(void *arg, const struct store_conversation *row)
{
	struct call *call = arg;
	struct convs *cs = call->state;
	struct conv *c = add(cs, call, row->conv);

	if (c == NULL)
		return;
	c->last_seq = row->last_seq;
	c->last_ts = row->last_ts;
	c->read = row->read;
	c->delivered = row->delivered;
	if (!clip_to_stays(call, c))
		cs->n--;
}

static int by_canonical(const void *a, const void *b)
{
	return strcmp(((const struct conv *)a)->canonical, ((const struct conv *)b)->canonical);
}

static void add_group(void *arg, const struct roster_group *g)
{
	struct call *call = arg;
	struct convs *cs = call->state;
	struct conv key = {0};
	size_t known = cs->n - cs->n_lookups; /* these are sorted */

	(void)snprintf(key.canonical, sizeof(key.canonical), "g/%s", g->name);
	if (known > 0 && bsearch(&key, cs->v, known, sizeof(*cs->v), by_canonical) != NULL)
		return;
	if (add(cs, call, key.canonical) != NULL)
		cs->n_lookups++;
}

/* When the newest message of a group was: only groups of which the store knows nothing about this user are asked for. */
static void on_newest(void *arg, struct message *m)
{
	struct conv *c = arg;

	c->last_ts = m->ts;
}

static void on_newest_read(void *arg, enum im_status st)
{
	struct conv *c = arg;
	struct call *call = c->call;
	struct convs *cs = call->state;

	cs->failed |= st != IM_OK && st != IM_NOT_FOUND;
	if (--cs->waiting == 0 && call_step(call, cs->failed ? IM_FAILED : IM_OK))
		cs->then(call);
}

static void ask_newest(struct call *call, struct convs *cs, size_t first)
{
	struct store_range range = {.limit = 1, .max_bytes = 1, .newest_first = true};
	size_t n = cs->n;

	for (size_t i = first; i < n; i++)
		cs->waiting += cs->v[i].last_seq > 0;
	if (cs->waiting == 0) {
		cs->then(call);
		return;
	}
	for (size_t i = first; i < n; i++) {
		struct conv *c = &cs->v[i];

		if (c->last_seq == 0)
			continue;
		range.conv = c->canonical;
		range.from = 1;
		range.to = c->last_seq;
		store_history(call->env->store, &range, on_newest, on_newest_read, c);
	}
}

static void on_lookup(void *arg, enum im_status st)
{
	struct call *call = arg;
	struct convs *cs = call->state;
	size_t first = cs->n - cs->n_lookups, kept = first;

	if (!call_step(call, st))
		return;
	for (size_t i = 0; i < cs->n_lookups; i++) {
		struct conv *c = &cs->v[first + i];

		c->last_seq = cs->lookups[i].last_seq;
		if (clip_to_stays(call, c))
			cs->v[kept++] = *c;
	}
	cs->n = kept;
	ask_newest(call, cs, first);
}

static void on_conversations(void *arg, enum im_status st)
{
	struct call *call = arg;
	struct convs *cs = call->state;

	if (!call_step(call, st))
		return;
	if (cs->n > 0)
		qsort(cs->v, cs->n, sizeof(*cs->v), by_canonical);
	roster_each_group_of(call->env->roster, call_subject(call), add_group, call);
	cs->lookups = calloc(cs->n_lookups + 1, sizeof(*cs->lookups));
	if (cs->failed || cs->lookups == NULL) {
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
		return;
	}
	if (cs->n_lookups == 0) {
		cs->then(call);
		return;
	}
	for (size_t i = 0; i < cs->n_lookups; i++)
		cs->lookups[i].conv = cs->v[cs->n - cs->n_lookups + i].canonical;
	store_lookup(call->env->store, cs->lookups, cs->n_lookups, NULL, 0, on_lookup, call);
}

static void collect(struct call *call, command_fn *then)
{
	struct convs *cs;

	if (call_user(call, call_subject(call)) == NULL)
		return;
	call->free_state = convs_free;
	cs = call_state(call, sizeof(*cs));
	if (cs == NULL)
		return;
	cs->then = then;
	store_conversations(call->env->store, call_subject(call), on_row, on_conversations, call);
}

/* ---- conversations: newest first; `next` is "{ts} {canonical}" of the last row */

static int by_age(const void *a, const void *b)
{
	const struct conv *x = a, *y = b;

	if (x->last_ts != y->last_ts)
		return x->last_ts > y->last_ts ? -1 : 1;
	return strcmp(x->canonical, y->canonical);
}

static bool skip_to_next(struct call *call, struct convs *cs)
{
	const char *next = call_text(call, "next");
	struct conv last;
	char *end;

	if (next == NULL)
		return true;
	last.last_ts = strtoll(next, &end, 10);
	if (*end != ' ' || strlen(end + 1) >= sizeof(last.canonical)) {
		call_refuse(call, IM_REFUSE_BAD_FIELD, "\"next\" is not one of an answer's");
		return false;
	}
	strcpy(last.canonical, end + 1); /* length checked above */
	while (cs->from < cs->n && by_age(&cs->v[cs->from], &last) <= 0)
		cs->from++;
	return true;
}

static json_t *conversation_row(struct call *call, const struct conv *c)
{
	const struct roster_group *g = im_conv_is_group(c->canonical) ? roster_group(call->env->roster, c->canonical + 2) : NULL;
	const struct roster_user *u = im_conv_is_group(c->canonical) ? NULL : roster_user(call->env->roster, c->seen + 2);
	json_t *row = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "conv", c->seen, "title", g ? g->title : u ? u->title : "", "last_seq",
				(json_int_t)c->last_seq, "last_ts", (json_int_t)c->last_ts, "read", (json_int_t)c->read, "delivered",
				(json_int_t)c->delivered, "unread", (json_int_t)c->unread);

	if (row != NULL && im_conv_is_group(c->canonical))
		json_object_set_new(row, "member", json_boolean(c->member));
	return row;
}

static void answer_conversations(struct call *call)
{
	struct convs *cs = call->state;
	struct page page;

	page_start(&page, call, CONVERSATIONS_DEFAULT);
	for (size_t i = cs->from; i < cs->to; i++) {
		char key[sizeof(call->next)];

		(void)snprintf(key, sizeof(key), "%" PRId64 " %s", cs->v[i].last_ts, cs->v[i].canonical);
		if (!page_add(&page, key, conversation_row(call, &cs->v[i])))
			break;
	}
	if (!call->more && cs->to < cs->n) {
		call->more = true;
		(void)snprintf(call->next, sizeof(call->next), "%s", page.last);
	}
	page_end(&page, "conversations");
}

static void on_unread(void *arg, enum im_status st, unsigned n)
{
	struct conv *c = arg;
	struct call *call = c->call;
	struct convs *cs = call->state;

	if (st == IM_OK)
		c->unread = n;
	else
		cs->failed = true;
	if (--cs->waiting == 0 && call_step(call, cs->failed ? st == IM_OK ? IM_FAILED : st : IM_OK))
		answer_conversations(call);
}

static void page_of_conversations(struct call *call)
{
	struct convs *cs = call->state;
	size_t limit = call_int(call, "limit", CONVERSATIONS_DEFAULT);

	if (cs->n > 0)
		qsort(cs->v, cs->n, sizeof(*cs->v), by_age);
	if (!skip_to_next(call, cs))
		return;
	cs->to = cs->n - cs->from > limit ? cs->from + limit : cs->n;
	for (size_t i = cs->from; i < cs->to; i++)
		cs->waiting += cs->v[i].member && cs->v[i].last_seq > cs->v[i].read;
	if (cs->waiting == 0) {
		answer_conversations(call);
		return;
	}
	for (size_t i = cs->from, to = cs->to; i < to; i++) {
		struct conv *c = &cs->v[i];

		if (c->member && c->last_seq > c->read)
			store_unread(call->env->store, call_subject(call), c->canonical, c->read, on_unread, c);
	}
}

void command_conversations(struct call *call)
{
	collect(call, page_of_conversations);
}

/* ---- sync */

static void answer_sync(struct call *call)
{
	const struct convs *cs = call->state;
	const char *next = call_text(call, "next");
	struct page page;

	page_start(&page, call, NAMES_DEFAULT);
	for (size_t i = 0; i < cs->n; i++) {
		const struct conv *c = &cs->v[i];
		uint64_t from = c->have + 1 > c->first_seq ? c->have + 1 : c->first_seq;

		if (from > c->last_seq || (next != NULL && strcmp(c->canonical, next) <= 0))
			continue;
		if (!page_add(&page, c->canonical, json_pack("{s:s,s:I,s:I}", "conv", c->seen, "from", (json_int_t)from, "to",
							      (json_int_t)c->last_seq)))
			break;
	}
	page_end(&page, "conversations");
}

static struct conv *find(struct convs *cs, const char *canonical)
{
	struct conv key = {0};

	if (cs->n == 0 || strlen(canonical) >= sizeof(key.canonical))
		return NULL;
	strcpy(key.canonical, canonical); /* length checked above */
	return bsearch(&key, cs->v, cs->n, sizeof(*cs->v), by_canonical);
}

/* Takes the asker's own word. false: refused. */
static bool take_cursors(struct call *call, struct convs *cs, const json_t *cursors)
{
	char canonical[IM_CONV_MAX];
	json_t *e;
	size_t i;

	json_array_foreach(cursors, i, e) {
		const json_t *seq = json_object_get(e, "seq");
		const char *conv = json_string_value(json_object_get(e, "conv"));
		struct conv *c;

		if (conv == NULL || !json_is_integer(seq) || json_integer_value(seq) < 0 || json_object_size(e) != 2 ||
		    !im_conv_canonical(call_subject(call), conv, canonical)) {
			call_refuse(call, IM_REFUSE_BAD_CURSOR, "a cursor is {\"conv\":\"u/{user}\" or \"g/{group}\",\"seq\":n}");
			return false;
		}
		c = find(cs, canonical);
		if (c != NULL)
			c->have = (uint64_t)json_integer_value(seq);
	}
	return true;
}

static void on_device(void *arg, const struct store_device *d)
{
	(void)arg;
	(void)d; /* only its cursors are wanted */
}

static void on_cursor(void *arg, const struct store_cursor *cursor)
{
	struct call *call = arg;
	struct conv *c = find(call->state, cursor->conv);

	if (c != NULL)
		c->have = cursor->delivered;
}

static void on_refusal(void *arg, const Im__Bus__StoredRefusal *r)
{
	(void)arg;
	(void)r; /* what is owed comes by itself */
}

static void on_device_read(void *arg, enum im_status st)
{
	struct call *call = arg;

	if (call_step(call, st == IM_NOT_FOUND ? IM_OK : st))
		answer_sync(call);
}

static void missing(struct call *call)
{
	const json_t *cursors = json_object_get(call->args, "cursors");
	struct convs *cs = call->state;

	if (cs->n > 0)
		qsort(cs->v, cs->n, sizeof(*cs->v), by_canonical);
	if (cursors != NULL) {
		if (take_cursors(call, cs, cursors))
			answer_sync(call);
		return;
	}
	/* A device's own cursors; where it has none, where the user's furthest device is. */
	for (size_t i = 0; i < cs->n; i++)
		cs->v[i].have = cs->v[i].delivered;
	if (call->admin)
		answer_sync(call);
	else
		store_device(call->env->store, call->user, call->client_id, on_device, on_cursor, on_refusal, on_device_read, call);
}

void command_sync(struct call *call)
{
	collect(call, missing);
}
