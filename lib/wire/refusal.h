/*
 * Every reason for which a client is refused something: one table (refusal.c) gives each its code, the
 * sentence, what to do about it and the page in docs/errors.md. Codes are part of the protocol: lower
 * case, never renamed.
 */
#ifndef IM_WIRE_REFUSAL_H
#define IM_WIRE_REFUSAL_H

#include <stddef.h>

enum im_refusal_code {
	IM_REFUSE_NONE,
	IM_REFUSE_BAD_TOPIC,       /* bad_topic: below im/ but not a topic of ours */
	IM_REFUSE_BAD_NAME,        /* bad_name */
	IM_REFUSE_BAD_ID,          /* bad_id */
	IM_REFUSE_BAD_JSON,        /* bad_json: malformed, wrong type, unknown field, duplicate key, too deep */
	IM_REFUSE_BAD_PB,          /* bad_pb */
	IM_REFUSE_BAD_FIELD,       /* bad_field: a known field with an impossible value */
	IM_REFUSE_BAD_CURSOR,      /* bad_cursor: beyond the newest sequence, or of a conversation one is not in */
	IM_REFUSE_UNKNOWN_USER,    /* unknown_user */
	IM_REFUSE_UNKNOWN_GROUP,   /* unknown_group */
	IM_REFUSE_NOT_MEMBER,      /* not_member */
	IM_REFUSE_BLOCKED,         /* blocked */
	IM_REFUSE_TOO_BIG,         /* too_big */
	IM_REFUSE_TOO_FAST,        /* too_fast */
	IM_REFUSE_RETAINED,        /* retained: the retain flag means nothing on a message */
	IM_REFUSE_ID_REUSED,       /* id_reused */
	IM_REFUSE_UNKNOWN_METHOD,  /* unknown_method */
	IM_REFUSE_NOT_ALLOWED,     /* not_allowed: this user may not do that */
	IM_REFUSE_READ_ONLY_TOPIC, /* read_only_topic: only the server publishes there */
	IM_REFUSE_CODEC,           /* second_codec: one codec per device */
	IM_REFUSE_TOO_MANY,        /* too_many: filters, devices, groups, mentions ... */
	IM_REFUSE_JOURNAL_FULL,    /* journal_full: try again later */
	IM_REFUSE_JOURNAL_FAILED,  /* journal_failed: the disk refused; try again later */
	IM_REFUSE_NOT_FOUND,       /* not_found: what a request or command named */
	IM_REFUSE_EXISTS,          /* exists */
	IM_REFUSE_UNAVAILABLE,     /* unavailable: a part of the server is down; try again */
	IM_REFUSE_INTERNAL,        /* internal */
	IM_REFUSE_COUNT
};

struct im_refusal {
	enum im_refusal_code code;
	char reason[200]; /* what happened and why */
	char fix[160];    /* what to do */
};

const char *im_refusal_name(enum im_refusal_code code);    /* "too_big" */
enum im_refusal_code im_refusal_find(const char *name);    /* IM_REFUSE_NONE: no such code */
/* Fills `r` with the table's fix and this reason (NULL: the table's own). */
void im_refuse(struct im_refusal *r, enum im_refusal_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
