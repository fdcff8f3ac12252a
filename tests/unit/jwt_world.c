#include "jwt_world.h"

#include "jwt_mint.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char dir[] = "/tmp/im-jwt-XXXXXX", path[200];
struct jwt_keys *all;
const struct jwt_rules plain = { "sub", "", "", true, 0, 8192 };

const char *key_file(const char *name, const void *data, size_t len, mode_t mode)
{
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
	return path;
}

enum im_status load(const char *setting, struct jwt_keys **out)
{
	struct im_err err = { "" };
	enum im_status st = jwt_keys_load(setting, out, &err);

	if (st != IM_OK)
		assert_true(strlen(err.text) > 10);
	return st;
}

enum im_status load_file(const char *word, const char *name, const void *data, size_t len, mode_t mode, struct jwt_keys **out)
{
	char setting[300];

	snprintf(setting, sizeof(setting), "%s:%s", word, key_file(name, data, len, mode));
	return load(setting, out);
}

struct jwt_keys *load_set(const char *text)
{
	struct jwt_keys *k = NULL;

	return load_file("jwks", "set.json", text, strlen(text), 0600, &k) == IM_OK ? k : NULL;
}

struct jwt_keys *load_one(const char *alg)
{
	char set[4096];

	snprintf(set, sizeof(set), "{\"keys\":[%s]}", mint_jwk(alg));
	return load_set(set);
}

enum jwt_verdict check(const struct jwt_keys *k, const struct jwt_rules *rules, const char *token)
{
	struct jwt_claims c = { "untouched", 0, 0 };
	enum jwt_verdict v = jwt_check(k, rules, token, NOW, &c);

	if (v != JWT_GOOD)
		assert_string_equal(c.user, "untouched");
	return v;
}

int group_start(void **state)
{
	(void)state;
	assert_true(sodium_init() >= 0);
	assert_non_null(mkdtemp(dir));
	mint_start();
	all = load_set(mint_jwks());
	assert_non_null(all);
	assert_int_equal(jwt_keys_count(all), MINT_ALGS);
	return 0;
}

int group_stop(void **state)
{
	char command[100];

	(void)state;
	jwt_keys_free(all);
	mint_stop();
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}
