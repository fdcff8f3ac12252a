/* im-vendor-bridge VENDOR --config FILE: huawei, harmony, xiaomi, oppo, vivo or honor; one process each. */
#include "vendor.h"

#include <stdio.h>

int main(int argc, char **argv)
{
	struct push_driver driver;

	if (argc < 2 || !vendor_driver(argv[1], &driver)) {
		fprintf(stderr, "usage: im-vendor-bridge huawei|harmony|xiaomi|oppo|vivo|honor --config FILE\n");
		return 64;
	}
	argv[1] = argv[0];
	return push_bridge_main(&driver, argc - 1, argv + 1);
}
