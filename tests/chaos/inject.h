/*
 * What a test tells processes that have inject.c preloaded, through a file that all of them map
 * (tests/chaos/faults.py writes it; the layout is there too).
 *
 *   IM_INJECT       path of the table below
 *   IM_INJECT_ROOT  folder whose files are watched for power loss (undo.h); not set: rules only
 */
#ifndef CHAOS_INJECT_H
#define CHAOS_INJECT_H

#include <stdint.h>

#define INJECT_RULES 16

enum inject_call { CALL_OPEN = 1, CALL_WRITE = 2, CALL_SYNC = 4, CALL_RENAME = 8, CALL_UNLINK = 16, CALL_SEND = 32 };
#define INJECT_KILL (-1)          /* as an error: the process ends right there */

struct inject_rule {
	_Atomic int32_t active;
	uint32_t calls;           /* enum inject_call */
	_Atomic int32_t after;    /* matching calls to let pass */
	_Atomic int32_t count;    /* acts so often; -1: for ever */
	int32_t error;            /* errno, INJECT_KILL, 0 */
	int32_t short_to;         /* a write of more bytes writes only these; 0: whole */
	int32_t delay_ms;
	_Atomic uint32_t hits;
	char program[32];         /* empty: any */
	char path[128];           /* a part of the path, or with '$' behind it its end; empty: any watched one */
};

struct inject_table {
	struct inject_rule rules[INJECT_RULES];
};

#endif
