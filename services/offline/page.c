/*
 * Lists in pages. Rows are in order of a key; a page ends before it would grow past COMMAND_ANSWER_MAX, and
 * `next` is the last key that is on it, so a page stays right when rows come or go meanwhile.
 */
#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void page_start(struct page *p, struct call *call, unsigned limit_default)
{
	memset(p, 0, sizeof(*p));
	p->call = call;
	p->rows = json_array();
	p->limit = call_int(call, "limit", limit_default);
}

bool page_add(struct page *p, const char *key, json_t *row)
{
	size_t bytes = row != NULL ? json_dumpb(row, NULL, 0, JSON_COMPACT) + 1 : 0;

	/* One row always fits: rows are far smaller than a page. */
	if (json_array_size(p->rows) >= p->limit || p->bytes + bytes > COMMAND_ANSWER_MAX - COMMAND_ROOM) {
		json_decref(row);
		p->call->more = true;
		(void)snprintf(p->call->next, sizeof(p->call->next), "%s", p->last);
		return false;
	}
	p->bytes += bytes;
	(void)snprintf(p->last, sizeof(p->last), "%s", key);
	if (json_array_append_new(p->rows, row) != 0) {
		json_decref(p->rows);
		p->rows = NULL;
	}
	return p->rows != NULL;
}

void page_end(struct page *p, const char *field)
{
	call_ok(p->call, p->rows != NULL ? json_pack("{s:o}", field, p->rows) : NULL);
}

/* ---- names in order */

void names_add(struct names *n, const char *name)
{
	if (n->n == n->cap) {
		size_t cap = n->cap ? n->cap * 2 : 64;
		const char **v = realloc(n->v, cap * sizeof(*v));

		if (v == NULL) {
			n->failed = true;
			return;
		}
		n->v = v;
		n->cap = cap;
	}
	n->v[n->n++] = name;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

size_t names_sort(struct names *n, const char *after)
{
	size_t i = 0;

	if (n->n > 0)
		qsort(n->v, n->n, sizeof(*n->v), by_name);
	while (after != NULL && i < n->n && strcmp(n->v[i], after) <= 0)
		i++;
	return i;
}

void page_names(struct call *call, struct names *n, const char *field, name_row_fn *row, void *arg)
{
	struct page page;

	if (n->failed) {
		free(n->v);
		call_refuse(call, IM_REFUSE_INTERNAL, "out of memory");
		return;
	}
	page_start(&page, call, NAMES_DEFAULT);
	for (size_t i = names_sort(n, call_text(call, "next")); i < n->n; i++) {
		if (!page_add(&page, n->v[i], row(call, n->v[i], arg)))
			break;
	}
	free(n->v);
	page_end(&page, field);
}
