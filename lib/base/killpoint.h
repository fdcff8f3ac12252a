/*
 * Places where a test build kills its own process, so that every step between two durable things is tried.
 *
 * Built with -DIM_KILLPOINTS=ON or sanitizers only; otherwise IM_KILLPOINT compiles to nothing. The environment says where:
 *
 *   IM_KILLPOINT=journal.after_write:7   the 7th pass ends this process, in every process that comes by
 *   IM_KILLPOINT=/path/of/a/file         a struct im_killtable that many processes map: a test arms and disarms
 *                                        it while they run; it acts once and counts its hits
 *
 * tests/chaos/killpoint_test.py lists the names and tries them all.
 */
#ifndef IM_BASE_KILLPOINT_H
#define IM_BASE_KILLPOINT_H

#ifdef IM_KILLPOINTS

#include <stdint.h>

struct im_killtable {
	char name[56];
	_Atomic int32_t left;  /* passes until it acts; 0 or less: disarmed */
	_Atomic uint32_t hits;
};

void im_killpoint(const char *name); /* any thread */
#define IM_KILLPOINT(name) im_killpoint(name)

#else
#define IM_KILLPOINT(name) ((void)0)
#endif

#endif
