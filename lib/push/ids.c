#include "push/ids.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the key */

static bool write_synced(int fd, const void *data, size_t len)
{
	bool ok = write(fd, data, len) == (ssize_t)len && fsync(fd) == 0;

	return close(fd) == 0 && ok;
}

/* Beside it and then renamed, so that it is whole or not there. */
static enum im_status make_key(const char *path, struct push_ids *out, struct im_err *err)
{
	enum im_status st = IM_OK;
	char *tmp;
	int fd;

	if (asprintf(&tmp, "%s.tmp", path) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	randombytes_buf(out->key, sizeof(out->key));
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || !write_synced(fd, out->key, sizeof(out->key)) || rename(tmp, path) < 0)
		st = im_fail(err, IM_FAILED, "cannot make %.180s: %s", path, strerror(errno));
	free(tmp);
	return st;
}

static enum im_status read_key(const char *path, struct push_ids *out, struct im_err *err)
{
	uint8_t bytes[sizeof(out->key) + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? make_key(path, out, err) : im_fail(err, IM_FAILED, "cannot open %.180s: %s", path, strerror(errno));
	n = read(fd, bytes, sizeof(bytes));
	(void)close(fd); /* read only: nothing to lose */
	if (n != (ssize_t)sizeof(out->key))
		return im_fail(err, IM_BAD_INPUT, "%.180s does not have %zu bytes: remove it, and a new one is made", path, sizeof(out->key));
	memcpy(out->key, bytes, sizeof(out->key));
	sodium_memzero(bytes, sizeof(bytes));
	return IM_OK;
}

enum im_status push_ids_open(const char *state_dir, struct push_ids *out, struct im_err *err)
{
	enum im_status st;
	char *path;

	if (asprintf(&path, "%s/hash.key", state_dir) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	st = read_key(path, out, err);
	free(path);
	return st;
}

/* ---- hashes */

static void hash(const struct push_ids *ids, const char *what, const char *a, const char *b, const char *c, uint8_t out[16])
{
	const char *const parts[] = {what, a, b, c};
	crypto_generichash_state s;

	(void)crypto_generichash_init(&s, ids->key, sizeof(ids->key), 16); /* these cannot fail with such sizes */
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		(void)crypto_generichash_update(&s, (const uint8_t *)parts[i], strlen(parts[i]) + 1);
	(void)crypto_generichash_final(&s, out, 16);
}

/* Version 8 (RFC 9562): the bits are ours. */
static void write_uuid(uint8_t h[16], char out[37])
{
	h[6] = (uint8_t)((h[6] & 0x0f) | 0x80);
	h[8] = (uint8_t)((h[8] & 0x3f) | 0x80);
	(void)snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7],
		       h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15]);
}

void push_ids_fill(const struct push_ids *ids, const struct push_job *j, struct push_send *out)
{
	uint8_t h[16];

	hash(ids, "uuid", j->key, j->user, j->device, h);
	write_uuid(h, out->uuid);
	hash(ids, "collapse", j->kind == IM__PUSH__KIND__KIND_BADGE ? "badge" : j->key, j->user, j->device, h);
	(void)sodium_bin2hex(out->collapse, sizeof(out->collapse), h, sizeof(h));
	hash(ids, "thread", j->conv, j->user, "", h);
	(void)sodium_bin2hex(out->thread, sizeof(out->thread), h, sizeof(h));
}

void push_ids_token(const char *token, char out[7])
{
	uint8_t h[crypto_hash_sha256_BYTES];

	(void)crypto_hash_sha256(h, (const uint8_t *)token, strlen(token)); /* cannot fail */
	(void)sodium_bin2hex(out, 7, h, 3);
}
