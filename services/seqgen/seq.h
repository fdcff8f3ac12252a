/*
 * The sequence generator: who may give out the sequences of a section of conversations, and up to where.
 *
 * It does not count. It hands out leases: an epoch (a fencing number: stores refuse messages of older
 * ones) and a ceiling (no sequence above it may be used). Both are durable before they are told.
 *
 * Promises, each kept across a kill at any moment:
 *  1. An epoch of a section is granted to one owner only, and every new grant is above all before it.
 *  2. A new owner either knew the last granted epoch, so that its store has all that was given (`complete`:
 *     it goes on at last + 1, no gap), or it must stay above `floor`, which is at or above all that anybody
 *     else was ever allowed to give. So no sequence is given twice.
 *  3. A floor never sinks: a conversation still below it later jumps over it when it is next used.
 *  4. Asking again changes nothing. The state itself is the memory of the last answer: an acquire by the owner
 *     that already holds the section, and a renewal up to what is granted already, get what was granted.
 *     Thus a repeat after a lost answer, or after a kill between commit and answer, costs no gap.
 */
#ifndef SEQGEN_SEQ_H
#define SEQGEN_SEQ_H

#include "base/status.h"
#include "wire/name.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEQ_OWNER_MAX 128              /* bytes of an owner's name */
#ifndef SEQ_STEP /* tests/sim */
#define SEQ_STEP 10000u                /* given with an acquire: a quiet section never needs more, a lost one costs this gap */
#define SEQ_LEAD_MOST (16u << 20)      /* one renewal raises at most this far: bounds the gap a mad owner can tear */
#endif
#define SEQ_CEILING_MOST ((1ull << 53) - 1) /* clients read sequences as JSON numbers */
#define SEQ_EPOCH_MOST (1ull << 62)    /* databases keep signed integers; nobody gets here by counting */

/* What is durable of one section. All zero: never leased. */
struct seq_section {
	uint64_t epoch;                /* last granted */
	uint64_t ceiling;
	uint64_t floor;
	bool complete;                 /* told with the last acquire */
	char owner[SEQ_OWNER_MAX + 1]; /* whom it was granted to */
};

struct seq_row {
	uint32_t section;
	struct seq_section state;
};

/* ---- where it is kept. Calls block: nothing else lives in this process. */

struct seq_driver {
	const char *name; /* url scheme */
	/* Fails if another process has it open. */
	enum im_status (*open)(const char *path, void **out, struct im_err *err);
	/* Fills sections[IM_SECTIONS]; what was never saved stays zero. */
	enum im_status (*load)(void *db, struct seq_section *sections, struct im_err *err);
	/* All rows or none, durable when it returns IM_OK. Anything else: unknown, load again. */
	enum im_status (*save)(void *db, const struct seq_row *rows, size_t n, struct im_err *err);
	void (*close)(void *db); /* NULL is fine */
};

extern const struct seq_driver seq_sqlite, seq_memory;

/* ---- the state machine */

struct seqgen;

struct seq_lease {
	uint32_t section;
	uint64_t epoch;   /* asked: what the owner's store knows; a store restored from a copy must say 0 */
	uint64_t ceiling; /* asked: 0 = acquire */
	bool complete;    /* granted */
	uint64_t floor;   /* granted: start above this; 0 = nothing to keep clear of */
};

enum im_status seqgen_create(const char *url, struct seqgen **out, struct im_err *err);
/* The same with an open database, which it owns from then on, also when it fails. */
enum im_status seqgen_create_on(const struct seq_driver *driver, void *db, struct seqgen **out, struct im_err *err);
void seqgen_destroy(struct seqgen *g); /* NULL is fine */

/*
 * Grants what can be granted of asked[n], all in one transaction; granted[] has room for n, *n_granted tells how
 * many. IM_OK: all. IM_BAD_INPUT: some or all are refused and err says why; the granted ones are in force.
 * IM_FAILED: not durable, nothing may be told; asking again is right.
 */
enum im_status seqgen_lease(struct seqgen *g, const char *owner, const struct seq_lease *asked, size_t n,
			    struct seq_lease *granted, size_t *n_granted, struct im_err *err);

#endif
