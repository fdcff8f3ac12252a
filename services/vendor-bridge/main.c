/* im-vendor-bridge VENDOR --config FILE: huawei, harmony, xiaomi, oppo, vivo or honor; one process each. Called im-VENDOR-bridge it needs no word. */
#include "vendor.h"

#include <stdio.h>
#include <string.h>

static bool by_name(const char *program, struct push_driver *out)
{
	const char *name = strrchr(program, '/');
	char vendor[16];

	name = name ? name + 1 : program;
	return sscanf(name, "im-%15[a-z]-bridge", vendor) == 1 && vendor_driver(vendor, out);
}

int main(int argc, char **argv)
{
	struct push_driver driver;

	if (argc > 0 && by_name(argv[0], &driver))
		return push_bridge_main(&driver, argc, argv);
	if (argc < 2 || !vendor_driver(argv[1], &driver)) {
		fprintf(stderr, "usage: im-vendor-bridge huawei|harmony|xiaomi|oppo|vivo|honor --config FILE\n");
		return 64;
	}
	argv[1] = argv[0];
	return push_bridge_main(&driver, argc - 1, argv + 1);
}
