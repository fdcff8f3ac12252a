/*
 * Names, ids, conversation addresses and message ids: character classes from one table, nothing allocated.
 *
 * The difficult idea: a 1:1 conversation has one canonical name, made by sorting its two parties. Since ':'
 * is no character of a name, the canonical name splits in exactly one way and cannot be mistaken for an
 * address, which never has one.
 */
#include "wire/name.h"

#include <string.h>

enum {
	NAME_FIRST = 1, /* [a-z0-9] */
	NAME = 2,       /* [a-z0-9._@-] */
	ID = 4,         /* [A-Za-z0-9._:~-] */
	DEVICE = 8,     /* [A-Za-z0-9._~-] */
};

static unsigned char_class(unsigned char c)
{
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
		return NAME_FIRST | NAME | ID | DEVICE;
	if (c >= 'A' && c <= 'Z')
		return ID | DEVICE;
	switch (c) {
	case '.':
	case '_':
	case '-':
		return NAME | ID | DEVICE;
	case '@':
		return NAME;
	case '~':
		return ID | DEVICE;
	case ':':
		return ID;
	default:
		return 0;
	}
}

static bool all_of(const char *text, size_t len, unsigned wanted)
{
	for (size_t i = 0; i < len; i++)
		if (!(char_class((unsigned char)text[i]) & wanted))
			return false;
	return true;
}

static bool reserved(const char *name, size_t len)
{
	return (len == 3 && memcmp(name, "all", 3) == 0) || (len == 2 && memcmp(name, "me", 2) == 0) ||
	       (len == 6 && memcmp(name, "system", 6) == 0);
}

bool im_name_valid(const char *name, size_t len)
{
	return len >= 1 && len <= IM_NAME_MAX && (char_class((unsigned char)name[0]) & NAME_FIRST) &&
	       all_of(name, len, NAME) && !reserved(name, len);
}

bool im_id_valid(const char *id, size_t len)
{
	return len >= 1 && len <= IM_ID_MAX && all_of(id, len, ID);
}

bool im_client_id_named(const char *client_id, size_t *user_len)
{
	const char *colon = strchr(client_id, ':');
	size_t device_len;

	if (!colon)
		return false;
	device_len = strlen(colon + 1);
	if (!im_name_valid(client_id, (size_t)(colon - client_id)) || device_len < 1 || device_len > IM_DEVICE_MAX ||
	    !all_of(colon + 1, device_len, DEVICE))
		return false;
	*user_len = (size_t)(colon - client_id);
	return true;
}

bool im_client_id_unnamed(const char *client_id, const char *user)
{
	size_t len = strlen(client_id), user_len;

	(void)user; /* a named form is never unnamed: another user's is theirs, one's own is a device */
	if (len < 1 || len > IM_CLIENT_ID_MAX || im_client_id_named(client_id, &user_len))
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)client_id[i];

		if (c < 0x20 || c > 0x7e || c == '/' || c == '+' || c == '#')
			return false;
	}
	return true;
}

/* "u/{name}" or "g/{name}" with a valid name. */
static bool address_valid(const char *address)
{
	return (address[0] == 'u' || address[0] == 'g') && address[1] == '/' &&
	       im_name_valid(address + 2, strnlen(address + 2, IM_NAME_MAX + 1));
}

bool im_conv_canonical(const char *user, const char *address, char out[IM_CONV_MAX])
{
	const char *peer = address + 2, *first, *second;
	size_t first_len;

	if (!address_valid(address) || strlen(user) > IM_NAME_MAX)
		return false;
	if (address[0] == 'g') {
		memcpy(out, address, strlen(address) + 1);
		return true;
	}
	first = strcmp(user, peer) < 0 ? user : peer;
	second = first == user ? peer : user;
	first_len = strlen(first);
	memcpy(out, "u/", 2);
	memcpy(out + 2, first, first_len);
	out[2 + first_len] = ':';
	memcpy(out + 3 + first_len, second, strlen(second) + 1);
	return true;
}

bool im_conv_peer(const char *canonical, const char *user, char out[IM_NAME_MAX + 1])
{
	const char *first = canonical + 2, *colon, *peer;
	size_t first_len, second_len, user_len = strlen(user), len;

	if (canonical[0] != 'u' || canonical[1] != '/' || !(colon = strchr(first, ':')))
		return false;
	first_len = (size_t)(colon - first);
	second_len = strlen(colon + 1);
	if (first_len == user_len && memcmp(first, user, user_len) == 0) {
		peer = colon + 1;
		len = second_len;
	} else if (second_len == user_len && memcmp(colon + 1, user, user_len) == 0) {
		peer = first;
		len = first_len;
	} else {
		return false;
	}
	if (len < 1 || len > IM_NAME_MAX)
		return false;
	memcpy(out, peer, len);
	out[len] = '\0';
	return true;
}

bool im_conv_as_seen(const char *canonical, const char *user, char out[IM_CONV_MAX])
{
	char peer[IM_NAME_MAX + 1];

	if (im_conv_is_group(canonical)) {
		if (!address_valid(canonical))
			return false;
		memcpy(out, canonical, strlen(canonical) + 1);
		return true;
	}
	if (!im_conv_peer(canonical, user, peer))
		return false;
	memcpy(out, "u/", 2);
	memcpy(out + 2, peer, strlen(peer) + 1);
	return true;
}

/* The upper half is folded in, because the low bits alone of an FNV hash are its weakest. */
uint32_t im_conv_section(const char *canonical)
{
	uint32_t h = 2166136261u;

	for (; *canonical; canonical++)
		h = (h ^ (unsigned char)*canonical) * 16777619u;
	return (h ^ h >> 16) % IM_SECTIONS;
}

/* ---------------------------------------------------------------- message ids */

static const char digits32[] = "0123456789abcdefghjkmnpqrstvwxyz"; /* Crockford: no i, l, o, u */

/* 128 bits in 26 digits of 5: the first digit holds 3 bits, so it is 0..7. */
void im_msgid_encode(uint32_t node, uint64_t epoch, uint64_t offset, char out[IM_MSGID_LEN + 1])
{
	uint64_t high = (uint64_t)(node & 0xffff) << 48 | (epoch & 0xffffffffffffu), low = offset;

	out[IM_MSGID_LEN] = '\0';
	for (int i = IM_MSGID_LEN - 1; i >= 0; i--) {
		out[i] = digits32[low & 31];
		low = low >> 5 | high << 59;
		high >>= 5;
	}
}

bool im_msgid_decode(const char *text, uint32_t *node, uint64_t *epoch, uint64_t *offset)
{
	uint64_t high = 0, low = 0;

	if (strnlen(text, IM_MSGID_LEN + 1) != IM_MSGID_LEN || text[0] > '7')
		return false;
	for (int i = 0; i < IM_MSGID_LEN; i++) {
		const char *digit = strchr(digits32, text[i]);

		if (!digit)
			return false;
		high = high << 5 | low >> 59;
		low = low << 5 | (uint64_t)(digit - digits32);
	}
	*node = (uint32_t)(high >> 48);
	*epoch = high & 0xffffffffffffu;
	*offset = low;
	return true;
}

/* ---------------------------------------------------------------- UTF-8 */

size_t im_utf8_char(const void *data, size_t len)
{
	const unsigned char *p = data;
	unsigned char low = 0x80, high = 0xbf; /* what the second byte may be */
	size_t n;

	if (len == 0)
		return 0;
	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		n = 2;
	else if (p[0] >= 0xe0 && p[0] <= 0xef)
		n = 3;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0; /* shorter forms exist */
	else if (p[0] == 0xed)
		high = 0x9f; /* surrogates */
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f; /* over U+10FFFF */
	if (len < n || p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

bool im_utf8_valid(const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t eight;
	size_t at = 0, n;

	while (at < len) {
		if (len - at >= 8) {
			memcpy(&eight, p + at, 8);
			if (!(eight & 0x8080808080808080u)) {
				at += 8;
				continue;
			}
		}
		n = im_utf8_char(p + at, len - at);
		if (n == 0)
			return false;
		at += n;
	}
	return true;
}
