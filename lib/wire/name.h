/*
 * The grammar of names, ids and conversation addresses (docs/protocol.md, Fields). Pure functions.
 *
 * A 1:1 conversation has two faces: alice sees "u/bob", bob sees "u/alice". Inside it has one canonical
 * name, "u/alice:bob", the smaller name first; ':' cannot occur in a name. Groups are "g/{group}" for all.
 */
#ifndef IM_WIRE_NAME_H
#define IM_WIRE_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IM_NAME_MAX 64         /* users, groups: [a-z0-9][a-z0-9._@-]{0,63} */
#define IM_ID_MAX 64           /* message and request ids: [A-Za-z0-9._:~-]{1,64} */
#define IM_DEVICE_MAX 63       /* {device} of a client id "{user}:{device}": [A-Za-z0-9._~-]{1,63} */
#define IM_CLIENT_ID_MAX 128   /* any client id of ours */
#define IM_CONV_MAX (2 + IM_NAME_MAX + 1 + IM_NAME_MAX + 1) /* canonical name with its NUL */
#define IM_TOPIC_MAX 256       /* bytes of a topic of ours */
#ifndef IM_SECTIONS /* tests/sim has its own limits, here and elsewhere: so small that it meets them all */
#define IM_SECTIONS 4096u      /* of the sequence space */
#endif
#define IM_MSGID_LEN 26

bool im_name_valid(const char *name, size_t len);   /* also refuses the reserved all, me, system */
bool im_id_valid(const char *id, size_t len);
/* "{user}:{device}" with a valid user and device: true, *user_len = length of the user part. */
bool im_client_id_named(const char *client_id, size_t *user_len);
/* An id without device: 1..128 printable ASCII bytes without / + # and not the named form of another user. */
bool im_client_id_unnamed(const char *client_id, const char *user);

/* "u/bob" as `user` sees it -> "u/alice:bob"; "g/x" stays. false: not a valid address. */
bool im_conv_canonical(const char *user, const char *address, char out[IM_CONV_MAX]);
/* The way back. false: `user` is no party of this conversation. */
bool im_conv_as_seen(const char *canonical, const char *user, char out[IM_CONV_MAX]);
/* The other party of a 1:1 conversation (user itself in a note to self). false: a group, or not a party. */
bool im_conv_peer(const char *canonical, const char *user, char out[IM_NAME_MAX + 1]);
static inline bool im_conv_is_group(const char *conv) { return conv[0] == 'g'; }
uint32_t im_conv_section(const char *canonical);    /* 0..IM_SECTIONS-1; FNV-1a, part of the stored format */

/* msgid: node (16 bit), epoch (48), offset (64), Crockford's base 32 in lower case: sorts by position. */
void im_msgid_encode(uint32_t node, uint64_t epoch, uint64_t offset, char out[IM_MSGID_LEN + 1]);
bool im_msgid_decode(const char *text, uint32_t *node, uint64_t *epoch, uint64_t *offset);

bool im_utf8_valid(const void *data, size_t len);   /* RFC 3629; no surrogates, nothing over U+10FFFF; NUL allowed */
size_t im_utf8_char(const void *data, size_t len);  /* bytes of the first character, 1..4; 0: not one, or len is 0 */

#endif
