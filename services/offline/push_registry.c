/*
 * Memory follows the store: a change is given to the store and takes its place here when it is durable, in the order of the
 * appends. What is read at start is all there is.
 *
 * The difficult idea is what is under way: several changes share one commit, and each must be decided by what will be true when
 * its turn has come - two phones that register one token within a commit must not both keep it. So whoever decides asks `upcoming_*`,
 * which look at the changes under way, newest first, and only then at memory. Who reads (feeds, tickets) sees what is durable.
 */
#include "push_registry.h"

#include "base/clock.h"
#include "base/key_file.h"
#include "base/log.h"
#include "wire/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#define KEY_LEN crypto_aead_xchacha20poly1305_ietf_KEYBYTES
#define NONCE_LEN crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_LEN crypto_aead_xchacha20poly1305_ietf_ABYTES
#define HASH_LEN 16u
#define NAME_MAX_LEN (IM_NAME_MAX + 1u + IM_CLIENT_ID_MAX + 24u) /* "t/{user}/{device}/{provider}" */

struct push_user {
	UT_hash_handle hh;
	struct push_device *devices;
	char name[];
};

struct push_owner { /* of a token */
	UT_hash_handle hh;
	struct push_device *device;
	uint8_t hash[HASH_LEN];
};

struct push_registry {
	struct store *store;
	struct push_user *users;
	struct push_owner *owners;
	push_registry_invalid_fn *invalid;
	void *invalid_arg;
	struct change *changes; /* given to the store and not answered, newest first */
	uint8_t seal_key[KEY_LEN], hash_key[KEY_LEN], request_key[IM_SEALED_KEY];
};

/* ---- the key */

static enum im_status make_key(const char *dir, const char *path, uint8_t key[KEY_LEN], struct im_err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	bool ok;

	randombytes_buf(key, KEY_LEN);
	ok = fd >= 0 && write(fd, key, KEY_LEN) == (ssize_t)KEY_LEN && fsync(fd) == 0;
	if (fd >= 0 && close(fd) != 0)
		ok = false;
	fd = ok ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1; /* before any token depends on it, its name is durable too */
	ok = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	return ok ? IM_OK : im_fail(err, IM_FAILED, "cannot write the key of push tokens %s: %s", path, strerror(errno));
}

static enum im_status read_key(const char *dir, const char *path, uint8_t key[KEY_LEN], struct im_err *err)
{
	struct im_err why = {""};
	enum im_status st = im_key_file_read(path, key, KEY_LEN, &why);

	if (st == IM_NOT_FOUND)
		return make_key(dir, path, key, err);
	return st == IM_OK ? st : im_fail(err, IM_FAILED, "%.300s; restore it, or remove it and let all devices register anew", why.text);
}

static enum im_status open_key(struct push_registry *r, const char *dir, struct im_err *err)
{
	uint8_t key[KEY_LEN];
	enum im_status st;
	char *path;

	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		return im_fail(err, IM_FAILED, "cannot make %s: %s", dir, strerror(errno));
	if (asprintf(&path, "%s/store.key", dir) < 0)
		return im_fail(err, IM_FAILED, "out of memory");
	st = read_key(dir, path, key, err);
	free(path);
	if (st != IM_OK)
		return st;
	crypto_kdf_derive_from_key(r->seal_key, KEY_LEN, 1, "im-push-", key);
	crypto_kdf_derive_from_key(r->hash_key, KEY_LEN, 2, "im-push-", key);
	im_sealed_key(key, r->request_key);
	sodium_memzero(key, sizeof(key));
	return IM_OK;
}

const uint8_t *push_registry_request_key(const struct push_registry *r)
{
	return r->request_key;
}

/* ---- names */

static void name_of(char out[NAME_MAX_LEN], const char *user, const char *device, const char *provider)
{
	(void)snprintf(out, NAME_MAX_LEN, "t/%s/%s/%s", user, device, provider); /* their lengths were checked */
}

static void hash_of(const struct push_registry *r, const char *provider, const Im__Push__Token *t, uint8_t out[HASH_LEN])
{
	crypto_generichash_state h;

	crypto_generichash_init(&h, r->hash_key, KEY_LEN, HASH_LEN);
	crypto_generichash_update(&h, (const uint8_t *)provider, strlen(provider) + 1);
	crypto_generichash_update(&h, (const uint8_t *)t->app, strlen(t->app) + 1);
	crypto_generichash_update(&h, (const uint8_t *)t->token, strlen(t->token) + 1);
	crypto_generichash_final(&h, out, HASH_LEN);
}

/* ---- sealing */

/* Bound to its place: a row copied to another device's key does not open. false: out of memory. */
static bool seal(const struct push_registry *r, const char *name, const Im__Push__Token *t, ProtobufCBinaryData *out)
{
	size_t len = im__push__token__get_packed_size(t);
	uint8_t *plain = malloc(len + 1);
	unsigned long long sealed;

	out->data = malloc(NONCE_LEN + len + TAG_LEN);
	if (plain && out->data) {
		randombytes_buf(out->data, NONCE_LEN);
		im__push__token__pack(t, plain);
		crypto_aead_xchacha20poly1305_ietf_encrypt(out->data + NONCE_LEN, &sealed, plain, len, (const uint8_t *)name, strlen(name),
							   NULL, out->data, r->seal_key);
		out->len = NONCE_LEN + (size_t)sealed;
		sodium_memzero(plain, len);
	}
	free(plain);
	return plain && out->data;
}

Im__Push__Token *push_registry_open_token(const struct push_registry *r, const struct push_device *d)
{
	const ProtobufCBinaryData *s = &d->stored->sealed;
	char name[NAME_MAX_LEN];
	Im__Push__Token *t = NULL;
	unsigned long long len = 0;
	uint8_t *plain;

	if (s->len < NONCE_LEN + TAG_LEN)
		return NULL;
	plain = malloc(s->len);
	name_of(name, d->stored->user, d->stored->device, d->stored->provider);
	if (plain && crypto_aead_xchacha20poly1305_ietf_decrypt(plain, &len, NULL, s->data + NONCE_LEN, s->len - NONCE_LEN,
								 (const uint8_t *)name, strlen(name), s->data, r->seal_key) == 0)
		t = im__push__token__unpack(NULL, (size_t)len, plain);
	if (plain)
		sodium_memzero(plain, s->len);
	free(plain);
	return t;
}

void push_token_wipe(Im__Push__Token *t)
{
	if (!t)
		return;
	sodium_memzero(t->token, strlen(t->token));
	sodium_memzero(t->auth, strlen(t->auth));
	im__push__token__free_unpacked(t, NULL);
}

/* ---- memory */

static struct push_user *find_user(const struct push_registry *r, const char *name)
{
	struct push_user *u;

	HASH_FIND(hh, r->users, name, strlen(name), u);
	return u;
}

struct push_device *push_registry_of_user(const struct push_registry *r, const char *user)
{
	struct push_user *u = find_user(r, user);

	return u ? u->devices : NULL;
}

static bool is(const struct push_device *d, const char *device, const char *provider)
{
	return (!device || strcmp(d->stored->device, device) == 0) && (!provider || strcmp(d->stored->provider, provider) == 0);
}

struct push_device *push_registry_find(const struct push_registry *r, const char *user, const char *device, const char *provider)
{
	struct push_device *d = push_registry_of_user(r, user);

	while (d && !is(d, device, provider))
		d = d->next;
	return d;
}

size_t push_registry_count(const struct push_registry *r, const char *provider)
{
	size_t n = 0;

	for (const struct push_user *u = r->users; u; u = u->hh.next)
		for (const struct push_device *d = u->devices; d; d = d->next)
			n += is(d, NULL, provider) && d->stored->state != IM__BUS__PUSH_STATE__PUSH_INVALID;
	return n;
}

static struct push_owner *find_owner(const struct push_registry *r, const ProtobufCBinaryData *hash)
{
	struct push_owner *o = NULL;

	if (hash->len == HASH_LEN)
		HASH_FIND(hh, r->owners, hash->data, HASH_LEN, o);
	return o;
}

static void disown(struct push_registry *r, const struct push_device *d)
{
	struct push_owner *o = find_owner(r, &d->stored->hash);

	if (!o || o->device != d)
		return;
	HASH_DEL(r->owners, o);
	free(o);
}

static void own(struct push_registry *r, struct push_device *d)
{
	struct push_owner *o = find_owner(r, &d->stored->hash);

	if (!o && d->stored->hash.len == HASH_LEN && (o = calloc(1, sizeof(*o)))) {
		memcpy(o->hash, d->stored->hash.data, HASH_LEN);
		HASH_ADD(hh, r->owners, hash, HASH_LEN, o);
	}
	if (o)
		o->device = d;
}

static void forget(struct push_registry *r, const char *user, const char *device, const char *provider)
{
	struct push_user *u = find_user(r, user);
	struct push_device **link = u ? &u->devices : NULL, *d;

	while (link && (d = *link)) {
		if (!is(d, device, provider)) {
			link = &d->next;
			continue;
		}
		*link = d->next;
		disown(r, d);
		im__bus__push_token__free_unpacked(d->stored, NULL);
		free(d);
	}
	if (u && !u->devices) {
		HASH_DEL(r->users, u);
		free(u);
	}
}

/* Takes t over. NULL: out of memory. */
static const struct push_device *remember(struct push_registry *r, Im__Bus__PushToken *t)
{
	struct push_device *d = calloc(1, sizeof(*d));
	struct push_user *u;

	forget(r, t->user, t->device, t->provider);
	u = find_user(r, t->user);
	if (d && !u && (u = calloc(1, sizeof(*u) + strlen(t->user) + 1))) {
		memcpy(u->name, t->user, strlen(t->user) + 1);
		HASH_ADD_KEYPTR(hh, r->users, u->name, strlen(u->name), u);
	}
	if (!d || !u) {
		free(d);
		im__bus__push_token__free_unpacked(t, NULL);
		im_log(IM_LOG_ERROR, "evt=push_token why=\"out of memory\" then=\"it is known again after a restart\"");
		return NULL;
	}
	d->stored = t;
	d->shown = -1;
	d->next = u->devices;
	u->devices = d;
	own(r, d);
	return d;
}

static Im__Bus__PushToken *copy_of(const Im__Bus__PushToken *t)
{
	size_t len = im__bus__push_token__get_packed_size(t);
	uint8_t *data = malloc(len + 1);
	Im__Bus__PushToken *copy = NULL;

	if (data) {
		im__bus__push_token__pack(t, data);
		copy = im__bus__push_token__unpack(NULL, len, data);
	}
	free(data);
	return copy;
}

/* ---- changes */

#define CHANGE_MOST (PUSH_DEVICES_MOST + 1) /* a removal of all; or a registration, the one it takes the token from, and the one that gives way */

struct change {
	struct change *prev, *next; /* while it is under way */
	struct push_registry *r;
	Im__Bus__PushToken *tokens[CHANGE_MOST]; /* with what they become; owned */
	bool removed[CHANGE_MOST];
	size_t n;
	push_registry_done_fn *done;
	void *arg;
};

static void change_free(struct change *c)
{
	for (size_t i = 0; c && i < c->n; i++)
		im__bus__push_token__free_unpacked(c->tokens[i], NULL); /* NULL is fine */
	free(c);
}

static void take(struct push_registry *r, Im__Bus__PushToken *t)
{
	const struct push_device *d = remember(r, t); /* it has logged it; the store has it */

	if (d && t->state == IM__BUS__PUSH_STATE__PUSH_INVALID && r->invalid)
		r->invalid(r->invalid_arg, d);
}

static void on_stored(void *arg, enum im_status st)
{
	struct change *c = arg;

	DL_DELETE(c->r->changes, c);
	for (size_t i = 0; st == IM_OK && i < c->n; i++) {
		Im__Bus__PushToken *t = c->tokens[i];

		if (c->removed[i]) {
			forget(c->r, t->user, t->device, t->provider);
		} else {
			take(c->r, t);
			c->tokens[i] = NULL;
		}
	}
	if (st != IM_OK)
		im_log(IM_LOG_WARNING, "evt=push_token status=%s then=\"nothing has changed\"", im_status_name(st));
	if (c->done)
		c->done(c->arg, st);
	change_free(c);
}

static bool change_add(struct change *c, const Im__Bus__PushToken *t, bool removed)
{
	Im__Bus__PushToken *copy = c->n < CHANGE_MOST ? copy_of(t) : NULL;

	if (!copy)
		return false;
	c->removed[c->n] = removed;
	c->tokens[c->n++] = copy;
	return true;
}

static void set_state(Im__Bus__PushToken *t, enum _Im__Bus__PushState state, const char *reason, int64_t at_ms)
{
	t->state = state;
	t->reason = (char *)(uintptr_t)reason;
	t->state_ms = at_ms;
}

/* Its token is another's now: nothing of it is kept, not even what it would be found by. */
static bool change_add_moved(struct change *c, const Im__Bus__PushToken *before)
{
	Im__Bus__PushToken t = *before;

	set_state(&t, IM__BUS__PUSH_STATE__PUSH_INVALID, "moved", im_clock_wall_ms());
	t.hash = t.sealed = (ProtobufCBinaryData){0, NULL};
	return change_add(c, &t, false);
}

/* Frees c, now or when it is answered. */
static void change_store(struct change *c)
{
	struct store_entry entries[CHANGE_MOST];
	Im__Bus__StoredPush rows[CHANGE_MOST];
	char names[CHANGE_MOST][NAME_MAX_LEN];

	memset(entries, 0, c->n * sizeof(entries[0]));
	for (size_t i = 0; i < c->n; i++) {
		name_of(names[i], c->tokens[i]->user, c->tokens[i]->device, c->tokens[i]->provider);
		im__bus__stored_push__init(&rows[i]);
		rows[i].key = names[i];
		rows[i].removed = c->removed[i];
		rows[i].token = c->removed[i] ? NULL : c->tokens[i];
		entries[i].kind = STORE_PUSH;
		entries[i].push = &rows[i];
	}
	DL_PREPEND(c->r->changes, c);
	store_append(c->r->store, entries, c->n, on_stored, c);
}

static struct change *change_create(struct push_registry *r, push_registry_done_fn *done, void *arg)
{
	struct change *c = calloc(1, sizeof(*c));

	if (c) {
		c->r = r;
		c->done = done;
		c->arg = arg;
	}
	return c;
}

/* ---- what will be true when all that is under way is durable */

static bool is_of(const Im__Bus__PushToken *t, const char *user, const char *device, const char *provider)
{
	return strcmp(t->user, user) == 0 && (!device || strcmp(t->device, device) == 0) && (!provider || strcmp(t->provider, provider) == 0);
}

/* The newest word on this registration. false: none is under way; *out is NULL if it is being removed. */
static bool find_change(const struct push_registry *r, const char *user, const char *device, const char *provider, const Im__Bus__PushToken **out)
{
	for (const struct change *c = r->changes; c; c = c->next)
		for (size_t i = c->n; i-- > 0;)
			if (is_of(c->tokens[i], user, device, provider)) {
				*out = c->removed[i] ? NULL : c->tokens[i];
				return true;
			}
	return false;
}

static const Im__Bus__PushToken *upcoming_find(const struct push_registry *r, const char *user, const char *device, const char *provider)
{
	const struct push_device *d = push_registry_find(r, user, device, provider);
	const Im__Bus__PushToken *t = d ? d->stored : NULL;

	(void)find_change(r, user, device, provider, &t);
	return t;
}

static bool is_upcoming(const struct push_registry *r, const Im__Bus__PushToken *t)
{
	return upcoming_find(r, t->user, t->device, t->provider) == t;
}

/* Whose this token is by then; NULL: nobody's. */
static const Im__Bus__PushToken *upcoming_owner(const struct push_registry *r, const ProtobufCBinaryData *hash)
{
	const struct push_owner *o = find_owner(r, hash);

	for (const struct change *c = r->changes; c; c = c->next)
		for (size_t i = c->n; i-- > 0;) {
			const Im__Bus__PushToken *t = c->tokens[i];

			if (!c->removed[i] && t->hash.len == hash->len && memcmp(t->hash.data, hash->data, hash->len) == 0 && is_upcoming(r, t))
				return t;
		}
	return o && is_upcoming(r, o->device->stored) ? o->device->stored : NULL;
}

/* Registrations that the user will have. */
static size_t upcoming_count(const struct push_registry *r, const char *user)
{
	size_t n = 0;

	for (const struct push_device *d = push_registry_of_user(r, user); d; d = d->next)
		n += is_upcoming(r, d->stored);
	for (const struct change *c = r->changes; c; c = c->next)
		for (size_t i = 0; i < c->n; i++)
			n += !c->removed[i] && is_of(c->tokens[i], user, NULL, NULL) && is_upcoming(r, c->tokens[i]);
	return n;
}

/* Whether `a` is worth less than `b`: what is invalid goes first, then what was registered longest ago. */
static bool is_worth_less(const Im__Bus__PushToken *a, const Im__Bus__PushToken *b)
{
	bool invalid = a->state == IM__BUS__PUSH_STATE__PUSH_INVALID;

	if (invalid != (b->state == IM__BUS__PUSH_STATE__PUSH_INVALID))
		return invalid;
	return a->registered_ms < b->registered_ms;
}

/* The user's registration that gives way to one too many. NULL: there is none. */
static const Im__Bus__PushToken *upcoming_least(const struct push_registry *r, const char *user)
{
	const Im__Bus__PushToken *least = NULL, *t;

	for (const struct push_device *d = push_registry_of_user(r, user); d; d = d->next)
		if (is_upcoming(r, d->stored) && (!least || is_worth_less(d->stored, least)))
			least = d->stored;
	for (const struct change *c = r->changes; c; c = c->next)
		for (size_t i = 0; i < c->n; i++) {
			t = c->tokens[i];
			if (!c->removed[i] && is_of(t, user, NULL, NULL) && is_upcoming(r, t) && (!least || is_worth_less(t, least)))
				least = t;
		}
	return least;
}

static bool change_add_given_way(struct change *c, const char *user)
{
	const Im__Bus__PushToken *least = upcoming_least(c->r, user);

	if (!least)
		return true;
	im_log(IM_LOG_NOTICE, "evt=push_token_dropped user=%s device=%s provider=%s why=\"%u registrations are kept of one user\"", user, least->device,
	       least->provider, PUSH_DEVICES_MOST);
	return change_add(c, least, true);
}

/* ---- asked for */

enum im_status push_registry_add(struct push_registry *r, const Im__Bus__PushToken *info, const Im__Push__Token *token,
				 push_registry_done_fn *done, void *arg)
{
	const Im__Bus__PushToken *known = upcoming_find(r, info->user, info->device, info->provider), *before;
	struct change *c;
	Im__Bus__PushToken t = *info;
	Im__Push__Token inner = *token;
	char name[NAME_MAX_LEN];
	uint8_t hash[HASH_LEN];
	bool full = !known && upcoming_count(r, info->user) >= PUSH_DEVICES_MOST, ok;

	t.registered_ms = im_clock_wall_ms();
	if (known && t.registered_ms <= known->registered_ms)
		t.registered_ms = known->registered_ms + 1; /* a clock set back must not make it look older than what was said of it */
	inner.registered_ms = t.registered_ms;
	hash_of(r, t.provider, token, hash);
	t.hash = (ProtobufCBinaryData){ HASH_LEN, hash };
	name_of(name, t.user, t.device, t.provider);
	c = change_create(r, done, arg);
	ok = c && seal(r, name, &inner, &t.sealed);
	before = upcoming_owner(r, &t.hash);
	if (ok && before && !is_of(before, t.user, t.device, NULL)) {
		im_log(IM_LOG_NOTICE, "evt=push_token_moved provider=%s from=%s to=%s", t.provider, before->device, t.device);
		ok = change_add_moved(c, before);
	}
	ok = ok && (!full || change_add_given_way(c, t.user)) && change_add(c, &t, false);
	free(t.sealed.data);
	if (!ok) {
		change_free(c);
		return IM_FAILED;
	}
	change_store(c);
	return IM_OK;
}

size_t push_registry_remove(struct push_registry *r, const char *user, const char *device, const char *provider,
			    push_registry_done_fn *done, void *arg)
{
	struct change *c = change_create(r, done, arg);
	size_t n = 0;

	for (const struct push_device *d = push_registry_of_user(r, user); c && d; d = d->next)
		if (is(d, device, provider) && is_upcoming(r, d->stored))
			n += change_add(c, d->stored, true);
	for (const struct change *at = r->changes; c && at; at = at->next)
		for (size_t i = 0; i < at->n; i++)
			if (!at->removed[i] && is_of(at->tokens[i], user, device, provider) && is_upcoming(r, at->tokens[i]))
				n += change_add(c, at->tokens[i], true);
	if (n)
		change_store(c);
	else
		change_free(c);
	return n;
}

static enum _Im__Bus__PushState state_of(const Im__Push__TokenVerdict *v)
{
	switch (v->state) {
	case IM__PUSH__TOKEN_STATE__TOKEN_STATE_INVALID:
		return IM__BUS__PUSH_STATE__PUSH_INVALID;
	case IM__PUSH__TOKEN_STATE__TOKEN_STATE_SUSPECT:
		return IM__BUS__PUSH_STATE__PUSH_SUSPECT;
	default:
		return IM__BUS__PUSH_STATE__PUSH_ACTIVE;
	}
}

static void store_one(struct push_registry *r, const Im__Bus__PushToken *t)
{
	struct change *c = change_create(r, NULL, NULL);

	if (c && change_add(c, t, false))
		change_store(c);
	else
		change_free(c);
}

void push_registry_spoil(struct push_registry *r, const struct push_device *d, const char *reason)
{
	Im__Bus__PushToken t = *d->stored;

	if (!is_upcoming(r, d->stored)) /* it is being changed: what comes counts */
		return;
	set_state(&t, IM__BUS__PUSH_STATE__PUSH_INVALID, reason, im_clock_wall_ms());
	store_one(r, &t);
}

void push_registry_on_invalid(struct push_registry *r, push_registry_invalid_fn *fn, void *arg)
{
	r->invalid = fn;
	r->invalid_arg = arg;
}

void push_registry_heard(struct push_registry *r, const char *provider, const Im__Push__TokenVerdict *v)
{
	const Im__Bus__PushToken *known = upcoming_find(r, v->user, v->device, provider);
	Im__Bus__PushToken t;

	if (!known || known->registered_ms != v->registered_ms)
		return; /* gone, or registered anew since */
	t = *known;
	if (t.state == state_of(v) && (v->env[0] == '\0' || strcmp(v->env, t.env) == 0))
		return;
	set_state(&t, state_of(v), v->reason, v->at_ms);
	if (v->env[0])
		t.env = v->env;
	store_one(r, &t);
}

/* ---- opening */

static void on_row(void *arg, const Im__Bus__StoredPush *p)
{
	Im__Bus__PushToken *t = p->token ? copy_of(p->token) : NULL;

	if (t)
		(void)remember(arg, t); /* it has logged it */
}

enum im_status push_registry_open(struct store *store, const char *key_dir, struct push_registry **out, struct im_err *err)
{
	struct push_registry *r = calloc(1, sizeof(*r));
	enum im_status st;

	if (!r || sodium_init() < 0) {
		free(r);
		return im_fail(err, IM_FAILED, "out of memory, or no random numbers");
	}
	r->store = store;
	st = open_key(r, key_dir, err);
	if (st != IM_OK) {
		push_registry_close(r);
		return st;
	}
	store_push(store, on_row, r);
	*out = r;
	return IM_OK;
}

void push_registry_close(struct push_registry *r)
{
	struct push_user *u, *next;

	if (!r)
		return;
	HASH_ITER(hh, r->users, u, next)
		forget(r, u->name, NULL, NULL);
	sodium_memzero(r->seal_key, sizeof(r->seal_key));
	sodium_memzero(r->hash_key, sizeof(r->hash_key));
	sodium_memzero(r->request_key, sizeof(r->request_key));
	free(r);
}
