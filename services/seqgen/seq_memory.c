/* Sequences in memory, for tests: as durable as the process. */
#include "seq.h"

#include <stdlib.h>
#include <string.h>

struct memory {
	struct seq_section sections[IM_SECTIONS];
};

static enum im_status memory_open(const char *path, void **out, struct im_err *err)
{
	(void)path;
	*out = calloc(1, sizeof(struct memory));
	return *out ? IM_OK : im_fail(err, IM_FAILED, "out of memory");
}

static enum im_status memory_load(void *db, struct seq_section *sections, struct im_err *err)
{
	struct memory *m = db;

	(void)err;
	memcpy(sections, m->sections, sizeof(m->sections));
	return IM_OK;
}

static enum im_status memory_save(void *db, const struct seq_row *rows, size_t n, struct im_err *err)
{
	struct memory *m = db;

	(void)err;
	for (size_t i = 0; i < n; i++)
		m->sections[rows[i].section] = rows[i].state;
	return IM_OK;
}

static void memory_close(void *db)
{
	free(db);
}

const struct seq_driver seq_memory = {
	.name = "memory",
	.open = memory_open,
	.load = memory_load,
	.save = memory_save,
	.close = memory_close,
};
