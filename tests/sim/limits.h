/*
 * Limits of the production code as the simulation builds it: so small that a schedule of a few hundred steps meets
 * them, some drawn anew for each schedule. Forced in front of every source that has such a limit.
 */
#ifndef TESTS_SIM_LIMITS_H
#define TESTS_SIM_LIMITS_H

#include <stddef.h>

struct sim_limits {
	unsigned page_messages, pages;
	size_t page_bytes, kept_bytes;
	size_t link_window, link_frame;
	size_t in_flight, slice;
	unsigned frames_turn;
	unsigned recent_convs; /* more than a slice can name: else a batch would push out its own */
};
extern struct sim_limits sim_limits;

#define IM_SECTIONS 8u

/* services/offline */
#define PAGE_MESSAGES sim_limits.page_messages
#define PAGE_BESIDE ((sim_limits.page_messages + 1) / 2)
#define PAGE_BYTES sim_limits.page_bytes
#define PAGES sim_limits.pages
#define KEPT_MESSAGES 8u
#define KEPT_BYTES sim_limits.kept_bytes
#define LINK_WINDOW sim_limits.link_window
#define LINK_CATCHUP (sim_limits.link_window / 2)
#define LINK_FRAME sim_limits.link_frame
#define LINK_MARKS 256u
#define INBOX_MARKS 256u
#define RECENT_CONVS sim_limits.recent_convs
#define CONVS_KEPT 1u
#define BLOOM_BYTES 2048u
#define STEP_FIRST 6u
#define STEP_MOST 24u

/* services/seqgen */
#define SEQ_STEP 8u
#define SEQ_LEAD_MOST 16u

/* plugin */
#define LINK_IN_FLIGHT sim_limits.in_flight
#define LINK_SLICE sim_limits.slice
#define LINK_FRAMES_TURN sim_limits.frames_turn

#endif
