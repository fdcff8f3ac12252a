/* Keys in files of a folder of its own, and the question whether a token is good: for jwt_test.c and jwt_key_test.c. */
#ifndef TESTS_JWT_WORLD_H
#define TESTS_JWT_WORLD_H

#include "plugin/jwt_login.h"

#include <sys/types.h>

#define NOW 1800000000
#define CLAIMS "{\"sub\":\"alice\",\"exp\":1800000100}"

extern struct jwt_keys *all; /* one of each algorithm */
extern const struct jwt_rules plain;

int group_start(void **state);
int group_stop(void **state);

const char *key_file(const char *name, const void *data, size_t len, mode_t mode); /* its path; static */
enum im_status load(const char *setting, struct jwt_keys **out);
enum im_status load_file(const char *word, const char *name, const void *data, size_t len, mode_t mode, struct jwt_keys **out);
struct jwt_keys *load_set(const char *text); /* a JWK Set; NULL: refused */
struct jwt_keys *load_one(const char *alg);
enum jwt_verdict check(const struct jwt_keys *k, const struct jwt_rules *rules, const char *token);

#endif
