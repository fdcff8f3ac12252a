/* What a function of ours can answer, and the sentence for people that goes with it. */
#ifndef IM_BASE_STATUS_H
#define IM_BASE_STATUS_H

enum im_status {
	IM_OK = 0,
	IM_NOT_FOUND,
	IM_EXISTS,    /* a repeat: often as good as OK */
	IM_BUSY,      /* not now; the same call may succeed later */
	IM_BAD_INPUT, /* theirs */
	IM_UNCERTAIN, /* the write may have happened; repeat it under the same id */
	IM_FAILED,    /* ours */
};

/* A sentence, where the file or host is known. Empty text: nothing to add. */
struct im_err {
	char text[256];
};

/* Writes the sentence and hands `st` back, so that it can be returned in one line. `err` may be NULL. */
enum im_status im_fail(struct im_err *err, enum im_status st, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The status's name in lower case, for logs. Static text. */
const char *im_status_name(enum im_status st);

#endif
