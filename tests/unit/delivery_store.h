/* What the world (delivery_world.c) asks of its store, apart from what tests do with it (delivery_world.h). */
#ifndef TESTS_DELIVERY_STORE_H
#define TESTS_DELIVERY_STORE_H

#include <stdint.h>

void stored_begin(void); /* empty */
void stored_end(void);
void stored_move(const char *user, const char *device, const char *conv, uint64_t delivered, uint64_t read); /* a cursor, never back */

#endif
