/* What every driver's store begins with. */
#ifndef OFFLINE_STORE_BASE_H
#define OFFLINE_STORE_BASE_H

#include "store.h"

struct store {
	const struct store_driver *driver;
};

#endif
