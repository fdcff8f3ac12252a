/* Ending the process at a named place (killpoint.h). Nothing of this is in a build for use. */
#include "killpoint.h"

#ifdef IM_KILLPOINTS

#include "base/number.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct im_killtable own; /* of this process alone: IM_KILLPOINT=name:n */
static struct im_killtable *table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct im_killtable *map_shared(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(own), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		(void)close(fd); /* the mapping stays */
	return p == MAP_FAILED ? NULL : p;
}

static void read_environment(void)
{
	const char *spec = getenv("IM_KILLPOINT"), *colon = spec ? strrchr(spec, ':') : NULL;
	uint64_t left;

	if (spec && spec[0] == '/') {
		table = map_shared(spec);
	} else if (colon && (size_t)(colon - spec) < sizeof(own.name)) {
		memcpy(own.name, spec, (size_t)(colon - spec));
		own.left = im_digits(colon + 1, INT_MAX, &left) ? (int)left : 0;
		table = &own;
	}
}

void im_killpoint(const char *name)
{
	(void)pthread_once(&once, read_environment);
	if (!table || table->left <= 0 || strncmp(table->name, name, sizeof(table->name)) != 0)
		return;
	if (table->left-- != 1)
		return;
	table->hits++;
	for (;;)
		(void)kill(getpid(), SIGKILL);
}

#else
typedef int im_killpoint_unused; /* C wants a declaration in each file */
#endif
