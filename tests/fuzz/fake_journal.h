/* A journal in memory with one epoch, that can be told to refuse; it remembers the newest record. */
#ifndef TESTS_FAKE_JOURNAL_H
#define TESTS_FAKE_JOURNAL_H

#include "base/status.h"
#include "bus.pb-c.h"

struct fake_journal {
	enum im_status says;      /* IM_OK, IM_BUSY, IM_FAILED */
	unsigned n_records;
	Im__Bus__Record *newest;
};
extern struct fake_journal fake_journal;

void fake_journal_clear(void);

#endif
