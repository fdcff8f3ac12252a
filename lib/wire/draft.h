/*
 * Inside lib/wire: a record in the making. Each format is first made sure of as a whole (JSON: its shape, then
 * jansson; Protocol Buffers: a walk over the fields), then its fields are checked here, by the same rules.
 * All return false with the refusal in `why`.
 */
#ifndef IM_WIRE_DRAFT_H
#define IM_WIRE_DRAFT_H

#include "wire/envelope.h"

#include <jansson.h>
#include <stdint.h>

#define INTEGER_MAX 9007199254740991LL /* 2^53-1: what every JSON reader holds exactly */

struct draft {
	struct im_arena *arena;
	Im__Bus__Record *out;
	struct im_refusal *why;
};

void draft_start(Im__Bus__Record *out, Im__Bus__Kind kind);
bool draft_to(struct draft *d, const char *s, size_t len);
bool draft_id(struct draft *d, const char *s, size_t len);
bool draft_type(struct draft *d, const char *s, size_t len);
bool draft_ct(struct draft *d, const char *s, size_t len);
bool draft_alt(struct draft *d, const char *s, size_t len);
bool draft_reply(struct draft *d, const char *s, size_t len);
bool draft_expiry(struct draft *d, int64_t ms);
bool draft_mentions(struct draft *d, size_t n); /* room for so many; then each */
bool draft_mention(struct draft *d, const char *s, size_t len);
bool draft_check_ext(struct draft *d, size_t len);
bool draft_body(struct draft *d, const void *data, size_t len);
bool draft_finish(struct draft *d); /* what only shows when all fields are known */

bool draft_keep(struct draft *d, char **field, const char *s, size_t len);
bool draft_conv_valid(const char *s, size_t len); /* "u/{name}" or "g/{name}" */
bool draft_no_memory(struct im_refusal *why);

/* json_text.c */
json_t *json_text_parse(const char *text, size_t len, struct im_refusal *why); /* NULL: refused in `why` */
/* Copies JSON without the white space between its tokens. NULL: out of memory. */
char *json_text_compact(struct im_arena *a, const char *text, size_t len, size_t *out_len);
/* The text of the member `key` of the object that `text` holds; root is what was parsed from it. */
char *json_text_member(struct im_arena *a, const char *text, size_t len, json_t *root, const char *key, size_t *out_len);

#endif
