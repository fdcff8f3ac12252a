/*
 * Minting and keeping the provider token.
 *
 * The difficult idea is its age. The wall clock may jump, processes come and go, so the age is counted on a clock that only the
 * machine's restart resets (CLOCK_BOOTTIME); over that the wall clock has to do, and a time in the future counts as now. By that age
 * the token is used for 45 to 50 minutes, and none is minted within 20. Only when Apple calls a token expired and the clocks have
 * parted since it was minted (its `iat` came from a wrong clock) one may come earlier - and that one not again. The file is durable
 * before a token is used, or a crash loop would mint at every start.
 */
#include "token.h"

#include "base/buf.h"
#include "base/log.h"
#include "push/jose.h"
#include "times.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MINUTE_MS 60000LL
#define FLOOR_MS (20 * MINUTE_MS)   /* between two mints; Apple answers 429 below it */
#define REFRESH_MS (45 * MINUTE_MS) /* and up to SPREAD_MS more, so that many bridges do not mint at once */
#define SPREAD_MS (5 * MINUTE_MS)
#define LIFE_MS (59 * MINUTE_MS)    /* Apple's is 60 */
#define JUMP_MS MINUTE_MS           /* the clocks have parted by more than any drift */
#define REST_MS MINUTE_MS           /* of a key whose only token was refused as too new */
#define RETRY_MS 10000LL            /* after the file could not be written */
#define KID_SIZE 64
#define BEARER "bearer "

struct made {
	char bearer[TOKEN_BEARER_SIZE];
	int64_t iat_s;
	int64_t boot_ms;    /* when it was minted, on this boot's clock; may be below 0 */
	unsigned generation;
	bool early;         /* minted within FLOOR_MS because the clocks had parted */
	bool accepted;
};

struct token {
	char *path, *team;
	char kid[KID_SIZE];
	char key_id[2 * 32 + 1]; /* SHA-256 of the public key: another key makes the file worthless */
	char boot[64];
	EVP_PKEY *key;
	struct made now, before; /* generation 0: none */
	bool expired;            /* Apple said so of `now` */
	bool fallen_back;        /* `now` was too new for Apple: `before` is used while it lasts */
	int64_t no_mint_until, no_use_until; /* boot clock */
	unsigned mints;
};

const char *token_kid(const struct token *t)
{
	return t->kid;
}

bool token_is(const struct token *t, const char *team, const char *kid, const EVP_PKEY *key)
{
	return strcmp(t->team, team) == 0 && strcmp(t->kid, kid) == 0 && EVP_PKEY_eq(t->key, key) == 1;
}

unsigned token_mints(const struct token *t)
{
	return t->mints;
}

int64_t token_age_ms(const struct token *t)
{
	return t->now.generation ? apns_boot_ms() - t->now.boot_ms : -1;
}

const char *token_key_problem(const EVP_PKEY *key)
{
	if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC)
		return "it is no elliptic curve key";
	return push_key_is_p256(key) ? NULL : "it is not on the curve P-256";
}

static bool write_bearer(const struct token *t, int64_t iat_s, char out[TOKEN_BEARER_SIZE])
{
	char header[128], claims[128];
	struct im_buf text;
	bool ok;

	(void)snprintf(header, sizeof(header), "{\"alg\":\"ES256\",\"kid\":\"%s\"}", t->kid);
	(void)snprintf(claims, sizeof(claims), "{\"iss\":\"%s\",\"iat\":%lld}", t->team, (long long)iat_s);
	im_buf_init(&text);
	im_buf_add_str(&text, BEARER);
	ok = push_jws_sign(&text, PUSH_JWS_ES256, t->key, header, claims) && text.len < TOKEN_BEARER_SIZE;
	if (ok)
		memcpy(out, im_buf_text(&text), text.len + 1);
	im_buf_finish(&text);
	return ok;
}

/* ---- the file ---- */

static bool write_all(int fd, const char *p, size_t len)
{
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n <= 0)
			return false;
	}
	return true;
}

static bool sync_folder(const char *path)
{
	char folder[4096];
	const char *slash = strrchr(path, '/');
	int fd;
	bool ok;

	(void)snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		(void)close(fd);
	return ok;
}

static bool replace_file(const char *path, const char *text, size_t len)
{
	char fresh[4096];
	bool ok;
	int fd;

	if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
		return false;
	(void)unlink(fresh); /* of a process that died here */
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	ok = write_all(fd, text, len) && fsync(fd) == 0;
	ok = close(fd) == 0 && ok && rename(fresh, path) == 0 && sync_folder(path);
	if (!ok)
		(void)unlink(fresh);
	return ok;
}

static bool keep(const struct token *t, const struct made *m)
{
	json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:I, s:b, s:I}", "team", t->team, "kid", t->kid, "key", t->key_id, "jwt",
				m->bearer + strlen(BEARER), "iat", (json_int_t)m->iat_s, "boot", t->boot, "boot_ms",
				(json_int_t)m->boot_ms, "early", m->early, "no_mint_until", (json_int_t)t->no_mint_until);
	char *text = row ? json_dumps(row, JSON_INDENT(1)) : NULL;
	bool ok = text && replace_file(t->path, text, strlen(text));

	if (!ok)
		im_log(IM_LOG_ERROR, "evt=jwt_keep kid=%s file=%s why=\"%s\": a token that is not kept is not used", t->kid, t->path,
		       strerror(errno));
	if (text)
		OPENSSL_cleanse(text, strlen(text));
	free(text);
	json_decref(row);
	return ok;
}

static bool jwt_form(const char *jwt)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";

	return *jwt && strlen(jwt) < TOKEN_BEARER_SIZE - sizeof(BEARER) && strspn(jwt, allowed) == strlen(jwt);
}

/* What an earlier process kept becomes `now`. Its age after a restart of the machine is what the wall clock says, and never below 0. */
static bool take_kept(struct token *t, const json_t *row)
{
	const char *jwt, *boot, *key, *kid, *team;
	json_int_t iat, boot_ms, no_mint = 0;
	int early, past;

	if (json_unpack((json_t *)row, "{s:s, s:s, s:s, s:s, s:I, s:s, s:I, s:b, s?I}", "team", &team, "kid", &kid, "key", &key, "jwt",
			&jwt, "iat", &iat, "boot", &boot, "boot_ms", &boot_ms, "early", &early, "no_mint_until", &no_mint) != 0 ||
	    strcmp(team, t->team) != 0 || strcmp(kid, t->kid) != 0 || strcmp(key, t->key_id) != 0 || !jwt_form(jwt))
		return false;
	past = strcmp(boot, t->boot) != 0;
	t->now.iat_s = iat;
	t->now.early = early;
	if (past) {
		int64_t age = apns_wall_ms() - iat * 1000;

		boot_ms = apns_boot_ms() - (age > 0 ? age : 0);
	} else {
		t->no_mint_until = no_mint;
	}
	t->now.boot_ms = boot_ms;
	t->now.generation = 1;
	(void)snprintf(t->now.bearer, sizeof(t->now.bearer), BEARER "%s", jwt);
	return true;
}

static enum im_status read_kept(struct token *t, struct im_err *err)
{
	json_error_t why;
	json_t *row;
	FILE *f = fopen(t->path, "re");

	if (!f && errno == ENOENT)
		return IM_OK;
	if (!f)
		return im_fail(err, IM_FAILED, "cannot read %.180s: %s", t->path, strerror(errno));
	row = json_loadf(f, JSON_DISABLE_EOF_CHECK, &why);
	(void)fclose(f);
	if (!row || !take_kept(t, row))
		im_log(IM_LOG_WARNING, "evt=jwt_kept kid=%s file=%s: not a token of this key; a new one will be minted", t->kid, t->path);
	json_decref(row);
	return IM_OK;
}

static void read_boot_id(struct token *t)
{
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (f && fgets(t->boot, sizeof(t->boot), f))
		t->boot[strcspn(t->boot, "\n")] = '\0';
	if (f)
		(void)fclose(f);
	if (!t->boot[0]) /* no /proc: each process counts as a boot */
		(void)snprintf(t->boot, sizeof(t->boot), "%ld-%lld", (long)getpid(), (long long)apns_wall_ms());
}

static bool hash_key(EVP_PKEY *key, char out[65])
{
	unsigned char *der = NULL, digest[32];
	int len = i2d_PUBKEY(key, &der);
	bool ok = len > 0 && EVP_Digest(der, (size_t)len, digest, NULL, EVP_sha256(), NULL) == 1;

	for (size_t i = 0; ok && i < sizeof(digest); i++)
		(void)snprintf(out + 2 * i, 3, "%02x", digest[i]);
	OPENSSL_free(der);
	return ok;
}

enum im_status token_open(const char *state_dir, const char *team, const char *kid, EVP_PKEY *key, struct token **out, struct im_err *err)
{
	struct token *t = calloc(1, sizeof(*t));
	enum im_status st;

	if (!t || asprintf(&t->path, "%s/jwt.%s.%s", state_dir, team, kid) < 0 || !(t->team = strdup(team)) || !hash_key(key, t->key_id) ||
	    EVP_PKEY_up_ref(key) != 1) {
		token_close(t);
		return im_fail(err, IM_FAILED, "out of memory");
	}
	t->key = key;
	(void)snprintf(t->kid, sizeof(t->kid), "%s", kid);
	read_boot_id(t);
	st = read_kept(t, err);
	if (st != IM_OK) {
		token_close(t);
		return st;
	}
	*out = t;
	return IM_OK;
}

void token_close(struct token *t)
{
	if (!t)
		return;
	EVP_PKEY_free(t->key);
	free(t->path);
	free(t->team);
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
}

/* ---- which one ---- */

static int64_t refresh_ms(const struct made *m)
{
	return REFRESH_MS + SPREAD_MS * (m->bearer[strlen(m->bearer) - 1] & 63) / 63;
}

/* The wall clock and the machine's do not agree on how long ago it was: one of them was or is wrong. */
static bool clocks_parted(const struct made *m)
{
	int64_t by = (apns_wall_ms() - m->iat_s * 1000) - (apns_boot_ms() - m->boot_ms);

	return by > JUMP_MS || by < -JUMP_MS;
}

/* When the next one may be minted, on the boot clock. */
static int64_t mint_at(const struct token *t)
{
	int64_t at = t->now.generation ? t->now.boot_ms + FLOOR_MS : 0;

	if (t->expired && !t->now.early && clocks_parted(&t->now))
		at = 0;
	return at > t->no_mint_until ? at : t->no_mint_until;
}

static bool mint(struct token *t)
{
	int64_t boot = apns_boot_ms();
	struct made fresh = {
		.iat_s = apns_wall_ms() / 1000,
		.boot_ms = boot,
		.generation = t->now.generation + 1,
		.early = t->now.generation && boot - t->now.boot_ms < FLOOR_MS,
	};

	if (!write_bearer(t, fresh.iat_s, fresh.bearer)) {
		im_log(IM_LOG_ERROR, "evt=jwt_mint kid=%s why=\"cannot sign\"", t->kid);
		t->no_mint_until = boot + RETRY_MS;
		return false;
	}
	if (!keep(t, &fresh)) {
		t->no_mint_until = boot + RETRY_MS;
		return false;
	}
	t->before = t->now;
	t->now = fresh;
	t->expired = t->fallen_back = false;
	t->mints++;
	im_log(IM_LOG_INFO, "evt=jwt_mint kid=%s early=%d", t->kid, fresh.early);
	return true;
}

static const char *use(const struct made *m, unsigned *generation)
{
	*generation = m->generation;
	return m->bearer;
}

const char *token_get(struct token *t, unsigned *generation, int64_t *wait_ms)
{
	int64_t boot = apns_boot_ms(), age = boot - t->now.boot_ms;
	bool fresh = t->now.generation && !t->expired && age < refresh_ms(&t->now) && !(age >= FLOOR_MS && clocks_parted(&t->now));

	*wait_ms = 0;
	if (t->fallen_back && boot - t->before.boot_ms < LIFE_MS)
		return use(&t->before, generation);
	t->fallen_back = false;
	if (boot < t->no_use_until) {
		*wait_ms = t->no_use_until - boot;
		return NULL;
	}
	if (fresh)
		return use(&t->now, generation);
	if (boot >= mint_at(t) && mint(t))
		return use(&t->now, generation);
	if (t->now.generation && !t->expired && age < LIFE_MS)
		return use(&t->now, generation);
	*wait_ms = mint_at(t) > boot ? mint_at(t) - boot : RETRY_MS;
	return NULL;
}

/* ---- what Apple says of them ---- */

void token_accepted(struct token *t, unsigned generation)
{
	if (generation == t->now.generation)
		t->now.accepted = true;
	else if (generation == t->before.generation)
		t->before.accepted = true;
}

void token_expired(struct token *t, unsigned generation)
{
	if (t->fallen_back && generation == t->before.generation)
		t->fallen_back = false;
	if (generation != t->now.generation || t->expired)
		return; /* already replaced, or heard of: 200 requests under way say it 200 times */
	t->expired = true;
	im_log(IM_LOG_WARNING, "evt=jwt_expired kid=%s age_s=%lld: %s", t->kid, (long long)(token_age_ms(t) / 1000),
	       apns_boot_ms() >= mint_at(t) ? "minting a new one" : "waiting until a new one may be minted; is the clock right?");
}

void token_too_many(struct token *t, unsigned generation)
{
	int64_t boot = apns_boot_ms();

	if (generation != t->now.generation || boot < t->no_use_until || t->fallen_back)
		return;
	t->no_mint_until = boot + FLOOR_MS;
	t->no_use_until = boot + REST_MS;
	t->fallen_back = t->before.accepted && !t->now.accepted && boot - t->before.boot_ms < LIFE_MS;
	(void)keep(t, &t->now); /* failing was logged; the floor of `now` still holds after a restart */
	im_log(IM_LOG_WARNING, "evt=jwt_too_many kid=%s: nothing is minted for 20 minutes, %s; does another process use this key?", t->kid,
	       t->fallen_back ? "the token before is used" : "the key rests for one");
}
