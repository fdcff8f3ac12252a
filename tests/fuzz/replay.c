/* main() for builds without libFuzzer: gives every file of the folders named to the target, once. */
#include "fuzz.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>

enum { INPUT_MAX = 1 << 20 };

static int replay_file(const char *path)
{
	uint8_t *data = malloc(INPUT_MAX);
	FILE *f = fopen(path, "rb");
	uint8_t *exact;
	size_t n;

	if (!data || !f) {
		perror(path);
		free(data);
		return 1;
	}
	n = fread(data, 1, INPUT_MAX, f);
	(void)fclose(f); /* only read */
	exact = malloc(n ? n : 1); /* so that sanitizers see a read beyond the end */
	if (exact) {
		for (size_t i = 0; i < n; i++)
			exact[i] = data[i];
		(void)LLVMFuzzerTestOneInput(exact, n); /* aborts when something is wrong */
	}
	free(exact);
	free(data);
	return exact ? 0 : 1;
}

static int replay_folder(const char *folder)
{
	char path[PATH_MAX];
	struct dirent *e;
	DIR *d = opendir(folder);
	unsigned files = 0;
	int failed = 0;

	if (!d) {
		perror(folder);
		return 1;
	}
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", folder, e->d_name) < (int)sizeof(path))
			failed |= replay_file(path);
		files++;
	}
	(void)closedir(d);
	printf("%s: %u files\n", folder, files);
	return failed || files == 0;
}

int main(int argc, char **argv)
{
	int failed = argc < 2;

	for (int i = 1; i < argc; i++)
		failed |= replay_folder(argv[i]);
	return failed;
}
