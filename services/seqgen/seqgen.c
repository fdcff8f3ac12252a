/*
 * The rules of leasing (seq.h), without I/O of its own.
 *
 * The difficult idea: a request is worked out on copies of the sections it touches, the copies are saved in
 * one transaction, and only then do they become the truth and the answer. If saving fails nobody knows what
 * the database has, so it is read again before the next request is looked at.
 */
#include "seq.h"

#include "base/killpoint.h"

#include <stdlib.h>
#include <string.h>

struct seqgen {
	const struct seq_driver *driver;
	void *db;
	bool stale; /* a save failed: load before anything else */
	struct seq_section now[IM_SECTIONS];
	struct seq_section next[IM_SECTIONS]; /* valid where touched */
	bool touched[IM_SECTIONS];
	struct seq_row rows[IM_SECTIONS];
};

static const struct seq_driver *const drivers[] = {&seq_sqlite, &seq_memory};

/* ---- life */

/* What the database says must keep the promises: a damaged one is worse than none. */
static enum im_status check_sections(const struct seqgen *g, struct im_err *err)
{
	for (uint32_t i = 0; i < IM_SECTIONS; i++) {
		const struct seq_section *s = &g->now[i];

		if (s->floor > s->ceiling || s->ceiling > SEQ_CEILING_MOST || s->epoch > SEQ_EPOCH_MOST || (s->epoch == 0 && s->ceiling))
			return im_fail(err, IM_FAILED, "section %u of the sequence database is damaged (epoch %llu, floor %llu, ceiling %llu)", i,
				       (unsigned long long)s->epoch, (unsigned long long)s->floor, (unsigned long long)s->ceiling);
	}
	return IM_OK;
}

static enum im_status load(struct seqgen *g, struct im_err *err)
{
	enum im_status st;

	memset(g->now, 0, sizeof(g->now));
	st = g->driver->load(g->db, g->now, err);
	if (st != IM_OK)
		return st;
	st = check_sections(g, err);
	if (st == IM_OK)
		g->stale = false;
	return st;
}

enum im_status seqgen_create_on(const struct seq_driver *driver, void *db, struct seqgen **out, struct im_err *err)
{
	struct seqgen *g = calloc(1, sizeof(*g));
	enum im_status st;

	if (!g) {
		driver->close(db);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	g->driver = driver;
	g->db = db;
	st = load(g, err);
	if (st != IM_OK) {
		seqgen_destroy(g);
		return st;
	}
	*out = g;
	return IM_OK;
}

enum im_status seqgen_create(const char *url, struct seqgen **out, struct im_err *err)
{
	for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
		size_t len = strlen(drivers[i]->name);
		enum im_status st;
		void *db;

		if (strncmp(url, drivers[i]->name, len) != 0 || url[len] != ':')
			continue;
		st = drivers[i]->open(url + len + 1, &db, err);
		return st == IM_OK ? seqgen_create_on(drivers[i], db, out, err) : st;
	}
	return im_fail(err, IM_BAD_INPUT, "im_sequences %s: unknown kind; sqlite:PATH or memory:", url);
}

void seqgen_destroy(struct seqgen *g)
{
	if (!g)
		return;
	g->driver->close(g->db);
	free(g);
}

/* ---- one section */

/*
 * `epoch` is what the asker's store knows. Equal to ours: it was the last owner. Above ours: our database
 * is an old copy; its store knows better, so we go on above that, and everything below our ceiling stays out of bounds.
 */
static enum im_status acquire(struct seq_section *s, uint32_t section, const char *owner, uint64_t epoch, struct im_err *err)
{
	if (s->epoch > 0 && strcmp(s->owner, owner) == 0)
		return IM_OK; /* a repeat */
	if (epoch >= SEQ_EPOCH_MOST || s->epoch >= SEQ_EPOCH_MOST)
		return im_fail(err, IM_BAD_INPUT, "section %u: epoch %llu is out of range", section, (unsigned long long)epoch);
	if (s->ceiling > SEQ_CEILING_MOST - SEQ_STEP)
		return im_fail(err, IM_BAD_INPUT, "section %u: all sequences are used up", section);
	s->complete = epoch == s->epoch;
	if (!s->complete)
		s->floor = s->ceiling;
	if (s->ceiling < s->floor + SEQ_STEP)
		s->ceiling = s->floor + SEQ_STEP;
	s->epoch = (epoch > s->epoch ? epoch : s->epoch) + 1;
	(void)strcpy(s->owner, owner); /* its length was checked */
	return IM_OK;
}

static enum im_status renew(struct seq_section *s, uint32_t section, const char *owner, const struct seq_lease *asked,
			    struct im_err *err)
{
	uint64_t most;

	if (asked->epoch != s->epoch || strcmp(s->owner, owner) != 0)
		return im_fail(err, IM_BAD_INPUT, "section %u: epoch %llu of %s is over, %llu was granted to %s", section,
			       (unsigned long long)asked->epoch, owner, (unsigned long long)s->epoch, s->epoch ? s->owner : "nobody");
	most = s->ceiling + SEQ_LEAD_MOST;
	if (most > SEQ_CEILING_MOST)
		most = SEQ_CEILING_MOST;
	if (asked->ceiling > s->ceiling)
		s->ceiling = asked->ceiling < most ? asked->ceiling : most;
	return IM_OK;
}

/* ---- a request */

/* The copy of a section that this request works on. */
static struct seq_section *touch(struct seqgen *g, uint32_t section)
{
	if (!g->touched[section]) {
		g->touched[section] = true;
		g->next[section] = g->now[section];
	}
	return &g->next[section];
}

static enum im_status work_out(struct seqgen *g, const char *owner, const struct seq_lease *asked, struct im_err *err)
{
	struct seq_section *s;

	if (asked->section >= IM_SECTIONS)
		return im_fail(err, IM_BAD_INPUT, "section %u: there are only %u", asked->section, IM_SECTIONS);
	s = touch(g, asked->section);
	return asked->ceiling == 0 ? acquire(s, asked->section, owner, asked->epoch, err) : renew(s, asked->section, owner, asked, err);
}

static bool same(const struct seq_section *a, const struct seq_section *b)
{
	return a->epoch == b->epoch && a->ceiling == b->ceiling && a->floor == b->floor && a->complete == b->complete &&
	       strcmp(a->owner, b->owner) == 0;
}

/* Saves what changed and makes it the truth. */
static enum im_status commit(struct seqgen *g, struct im_err *err)
{
	size_t n = 0;

	for (uint32_t i = 0; i < IM_SECTIONS; i++) {
		if (g->touched[i] && !same(&g->now[i], &g->next[i]))
			g->rows[n++] = (struct seq_row){.section = i, .state = g->next[i]};
	}
	if (n == 0)
		return IM_OK;
	IM_KILLPOINT("seqgen.before_save");
	if (g->driver->save(g->db, g->rows, n, err) != IM_OK) {
		g->stale = true;
		return IM_FAILED;
	}
	IM_KILLPOINT("seqgen.after_save");
	for (size_t i = 0; i < n; i++)
		g->now[g->rows[i].section] = g->rows[i].state;
	return IM_OK;
}

static struct seq_lease answer(const struct seqgen *g, uint32_t section)
{
	const struct seq_section *s = &g->now[section];

	return (struct seq_lease){
		.section = section, .epoch = s->epoch, .ceiling = s->ceiling, .complete = s->complete, .floor = s->floor,
	};
}

static enum im_status check_request(const char *owner, size_t n, struct im_err *err)
{
	if (owner[0] == '\0' || strlen(owner) > SEQ_OWNER_MAX)
		return im_fail(err, IM_BAD_INPUT, "an owner's name has 1 to %d bytes", SEQ_OWNER_MAX);
	if (n > IM_SECTIONS)
		return im_fail(err, IM_BAD_INPUT, "%zu leases in one request, at most %u", n, IM_SECTIONS);
	return IM_OK;
}

enum im_status seqgen_lease(struct seqgen *g, const char *owner, const struct seq_lease *asked, size_t n,
			    struct seq_lease *granted, size_t *n_granted, struct im_err *err)
{
	enum im_status st, verdict = IM_OK;

	*n_granted = 0;
	if (g->stale && load(g, err) != IM_OK)
		return IM_FAILED;
	st = check_request(owner, n, err);
	if (st != IM_OK)
		return st;
	memset(g->touched, 0, sizeof(g->touched));
	for (size_t i = 0; i < n; i++) {
		/* Only the first refusal is told; a refused lease is not in the answer. */
		st = work_out(g, owner, &asked[i], verdict == IM_OK ? err : NULL);
		if (st == IM_OK)
			granted[(*n_granted)++].section = asked[i].section;
		else
			verdict = st;
	}
	st = commit(g, err);
	if (st != IM_OK) {
		*n_granted = 0;
		return st;
	}
	for (size_t i = 0; i < *n_granted; i++)
		granted[i] = answer(g, granted[i].section);
	return verdict;
}
